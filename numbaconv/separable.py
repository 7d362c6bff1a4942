"""Depthwise-separable convolution: two convolutions, each with its plan and algorithm, run as one where they can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import Array, View, as_array, view_of_data, view_of_weight
from .backends.base import Runner
from .backends.registry import AUTOMATIC, AUTOMATIC_ON_DEVICE, choices, is_in_use
from .backends.subnormals import as_asked
from .device_arrays import DeviceArray, device_array, on_device
from .dispatch import admit, may_be_remembered
from .error_state import undisturbed
from .errors import ArgumentError, ShapeError
from .memory import check_fits
from .plan import check_axes, folded_as
from .plan.hints import kernel_hint
from .plan.layout import is_channels_last, weight_order
from .routes import Memory, Route, Site, array_key, asked_key, call_key

__all__ = ["depthwise_operands", "separable"]

_SITE = Site("separable_conv{}", False, "output")


def depthwise_operands(
    op: str,
    rank: int | None,
    input: object,
    weight: object,
    data_format: str | None,
    weight_format: str | None,
    asked: bool = False,
) -> tuple[int, Array, Array, int]:
    """Rank, input, weight in a convolution's form, and the groups of a depthwise convolution.

    ``asked``: the call says what dtype its result shall have.
    """
    x, w = as_array(op, "input", input, asked), as_array(op, "weight", weight, asked)
    if w.ndim not in (3, 4, 5) or (rank is not None and w.ndim != rank + 2):
        axes = "3, 4 or 5" if rank is None else rank + 2
        hint = kernel_hint("weight", w.ndim, w.ndim if rank is None else rank, False) if w.ndim in (1, 2, rank) else ""
        raise ShapeError(f"{op}: weight must have {axes} axes, but has shape {w.shape}{hint}")
    rank = w.ndim - 2
    last = is_channels_last(op, rank, data_format)
    check_axes(op, "input", x.shape, rank, last)
    channels = x.shape[-1 if last else -rank - 1]
    order = weight_order(op, rank, weight_format, last)
    keras = order[1] == rank and w.shape[rank] == channels != 1
    if keras:  # (*kernel, C, multiplier): the same elements in the same places as (*kernel, 1, C * multiplier)
        w = w.reshape(*w.shape[:rank], 1, channels * w.shape[-1])
    if w.shape[order[1]] != 1 or (channels and w.shape[order[0]] % channels):
        raise ShapeError(
            f"{op}: a depthwise weight has 1 channel per group and a multiple of the input's {channels} channels as "
            f"output channels, but has {w.shape[order[1]]} and {w.shape[order[0]]} (input {x.shape}, weight {w.shape})"
        )
    return rank, x, w, max(channels, 1)


def _check_pointwise(op: str, pointwise: Array, depthwise: Array, order: tuple[int, ...]) -> None:
    """``order``: the weights' axes in the order ``O, I, spatial...``."""
    if pointwise.ndim != len(order) or any(pointwise.shape[axis] != 1 for axis in order[2:]):
        raise ShapeError(
            f"{op}: pointwise_weight must have {len(order)} axes and one tap, but has shape {pointwise.shape}"
        )
    if pointwise.shape[order[1]] != depthwise.shape[order[0]]:
        raise ShapeError(
            f"{op}: pointwise_weight takes {pointwise.shape[order[1]]} channels, but depthwise_weight gives "
            f"{depthwise.shape[order[0]]} (depthwise_weight {depthwise.shape}, pointwise_weight {pointwise.shape})"
        )


@dataclass(frozen=True, slots=True, eq=False)
class _SeparableRoute:
    """The routes of both steps.

    Attributes
    ----------
    first, second : Route
    depthwise_shape : tuple of int
        Of the depthwise weight in a convolution's form.
    fused : callable or None
        Runs both at once.
    views : tuple of View
        How input, depthwise weight, pointwise weight and result are seen as canonical.
    """

    first: Route
    second: Route
    depthwise_shape: tuple[int, ...]
    fused: Runner | None
    views: tuple[View, View, View, View]

    @classmethod
    def of(cls, first: Route, second: Route) -> _SeparableRoute:
        """What follows from the routes of both steps."""
        fused = None
        if first.engine is second.engine:
            found = first.engine.fused((first.plan, first.algorithm), (second.plan, second.algorithm))
            fused = None if found is None else as_asked(first.op, found)
        if fused is not None and not (first.quiet and second.quiet):
            fused = undisturbed(fused)
        one, two = first.plan, second.plan
        views = (view_of_data(one, "x"), view_of_weight(one), view_of_weight(two), view_of_data(two, "y"))
        return cls(first, second, one.weight_shape, fused, views)

    def run(
        self, input: Any, depthwise: Any, pointwise: Any, bias: Any, residual: Any, out: object, stream: object
    ) -> Array:
        """The call with these arrays, which have the shapes and dtypes of the route."""
        if depthwise.shape != self.depthwise_shape:
            depthwise = depthwise.reshape(self.depthwise_shape)
        if self.fused is None:
            # Both are checked before either runs.
            first = self.first.job(input, depthwise, None, None, None, stream)
            second = self.second.job(first.returned, pointwise, bias, residual, out, stream)
            first.execute()
            return second.execute()
        see_input, see_depthwise, see_pointwise, see_result = self.views
        # The input is still read while results are written.
        returned, filled = self.second.result((input, depthwise, pointwise, bias), residual, out, see_result)
        weights = see_depthwise.of(depthwise), see_pointwise.of(pointwise)
        self.fused(see_input.of(input), weights, see_result.of(filled), self.second.epilogue(bias, residual))
        if filled is not returned:
            returned[...] = filled
        return returned


#: The routes of the newest calls.
_routes: Memory[_SeparableRoute] = Memory(256)


def separable(
    rank: int | None,
    input: object,
    depthwise_weight: object,
    pointwise_weight: object,
    names: tuple[str, ...],
    arguments: tuple[Any, ...],
    *,
    data_format: str | None,
    weight_format: str | None,
    bias: object,
    residual: object,
    activation: object,
    out: object,
    stream: object,
    backend: str | None,
    algorithm: str | None,
    precision: str | None,
    dtype: object = None,
) -> Array:
    """Check both steps, choose their algorithms, and run them; or know all that from a call like this one.

    ``names`` and ``arguments`` are the depthwise step's, without its groups.
    """
    there = type(input) is not np.ndarray and on_device(input) and device_array(input) is not None
    if stream is not None and not there:
        raise ArgumentError(f"{_SITE.op(rank)}: stream is for arrays on a device, but input is in the host's memory")
    automatic = AUTOMATIC_ON_DEVICE if there else AUTOMATIC
    name, forced, disabled, rounding, tuning = choices(backend, algorithm, precision, automatic)
    values = (*arguments, data_format, weight_format, name, forced, disabled, rounding)
    if dtype is not None:
        tuning = asked_key(tuning, dtype)
    key = call_key(_SITE, rank, names, input, depthwise_weight, values, tuning, None, bias, residual, activation)
    of_pointwise = array_key(pointwise_weight)
    both = None if key is None or of_pointwise is None else (key, of_pointwise)
    if both is not None:
        route = _routes.get(both)
        if route is not None and is_in_use(name, route.second.engine):
            return route.run(input, depthwise_weight, pointwise_weight, bias, residual, out, stream)
    op = _SITE.op(rank)
    found_rank, x, w, groups = depthwise_operands(
        op, rank, input, depthwise_weight, data_format, weight_format, dtype is not None
    )
    pointwise = as_array(op, "pointwise_weight", pointwise_weight, dtype is not None)
    order = weight_order(op, found_rank, weight_format, is_channels_last(op, found_rank, data_format))
    _check_pointwise(op, pointwise, w, order)
    formats: dict[str, Any] = {
        "data_format": data_format,
        "weight_format": weight_format,
        "backend": backend,
        "algorithm": algorithm,
        "precision": precision,
        "dtype": dtype,
    }
    first = admit(_SITE, found_rank, x, w, (*names, "groups"), (*arguments, groups), size=None, fresh=False, **formats)
    between: Any = np.broadcast_to(first.route.dtype.type(0), first.route.shape)  # only its shape and dtype count
    if isinstance(x, DeviceArray):
        between = DeviceArray(None, 0, first.route.shape, None, first.route.dtype, x.device, 0, x.library)
    extras: dict[str, Any] = {"bias": bias, "residual": residual, "activation": activation}
    with folded_as(first.route.plan.folds):  # what runs both at once sees the same axes in both
        second = admit(_SITE, found_rank, between, pointwise, (), (), **extras, fresh=out is None, **formats)
    route = _SeparableRoute.of(first.route, second.route)
    if route.fused is None and not isinstance(x, DeviceArray):
        check_fits(op, "the depthwise step's result", first.route.shape, first.route.dtype.itemsize)
    found = (x, second.second, second.bias, second.residual)
    given = (input, pointwise_weight, bias, residual)
    alike = all(one is other for one, other in zip(found, given, strict=True))
    if both is not None and alike and may_be_remembered(second.route):
        _routes.put(both, route)
    return route.run(x, w, second.second, second.bias, second.residual, out, stream)
