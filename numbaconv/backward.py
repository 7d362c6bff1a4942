"""What every gradient function does: the activation's derivative, then a primitive or a sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, TypedDict

import numpy as np

from .arrays import Array, as_array, asked_dtype, asked_result, compute_dtype, data_view, promote
from .backends.activations import resolve_activation
from .backends.base import Residence
from .backends.subnormals import as_asked, mode_asked
from .device_arrays import DeviceArray, device_result, found_on_device, handle_of
from .dispatch import find_route, named_backend
from .error_state import undisturbed
from .errors import ArgumentError, DTypeError, ShapeError
from .functional import Activation
from .plan import Ints, PaddingMode, Scalar, check_axes, dtype_name, dtype_rule
from .plan.layout import is_channels_last
from .routes import Route, Site

__all__ = [
    "BiasOptions",
    "ConvBackwardOptions",
    "ConvGradOptions",
    "ConvGradients",
    "TransposedBackwardOptions",
    "TransposedGradOptions",
    "backward",
    "bias_dtypes",
    "bias_gradient",
    "gradient",
    "output_mask_of",
    "scaled_gradient",
]


class ConvGradients(NamedTuple):
    """Gradients by input, weight and bias; None where ``output_mask`` leaves one out."""

    input: Array | None
    weight: Array | None
    bias: Array | None


class GradOptions(TypedDict, total=False):
    """Keyword arguments that every gradient by input or weight takes."""

    padding_mode: PaddingMode
    data_format: str | None
    weight_format: str | None
    activation: Activation
    pre_activation: object
    output: object
    stream: object
    algorithm: str | None
    backend: str | None
    precision: str | None
    dtype: object


class ConvGradOptions(GradOptions, total=False):
    """Those of a convolution's gradient by input or weight."""

    padding_value: Scalar
    out: Array | None


class ConvBackwardOptions(GradOptions, total=False):
    """Those of a function that returns all gradients of a convolution."""

    padding_value: Scalar
    output_mask: tuple[bool, bool, bool]


class TransposedGradOptions(GradOptions, total=False):
    """Those of a transposed convolution's gradient by input or weight."""

    output_size: Ints | None
    out: Array | None


class TransposedBackwardOptions(GradOptions, total=False):
    """Those of a function that returns all gradients of a transposed convolution."""

    output_size: Ints | None
    output_mask: tuple[bool, bool, bool]


class BiasOptions(TypedDict, total=False):
    """Those of a gradient by the bias."""

    data_format: str | None
    activation: Activation
    pre_activation: object
    output: object
    stream: object
    backend: str | None
    dtype: object


def _conjugate(value: Any, residence: Residence | None = None) -> Any:
    if residence is not None and isinstance(value, DeviceArray):
        return residence.conjugate(value) if value.dtype.kind == "c" else value
    return np.conj(value) if np.iscomplexobj(value) else value


def _on_stream(op: str, array: Any, stream: object) -> Any:
    """An array on a device, to be read on a stream."""
    if not isinstance(array, DeviceArray):
        raise ArgumentError(f"{op}: stream is for arrays on a device, but these are in the host's memory")
    return array.on(handle_of(op, stream))


def _nothing() -> None:
    """What fills a gradient that is there already."""


@lru_cache(maxsize=64)
def _compute_dtype(op: str, name: str) -> np.dtype:
    return np.dtype(dtype_rule(op, "grad_output", name).compute)


def _scaled_dtypes(op: str, dtypes: dict[str, np.dtype], asked: np.dtype | None) -> tuple[np.dtype, np.dtype]:
    """The dtypes of a gradient times its activation's derivative, and of what that is computed in."""
    if asked is None:
        common = promote(op, dtypes)
        return common, _compute_dtype(op, dtype_name(common))
    asked_result(op, asked, dtypes, {})
    return (compute_dtype(asked),) * 2


def scaled_gradient(
    op: str,
    grad_output: object,
    activation: object,
    pre_activation: object,
    output: object,
    backend: str | None,
    stream: object = None,
    dtype: object = None,
) -> tuple[Array, Callable[[], None]]:
    """The gradient by the pre-activation, ``grad_output * activation'(saved)``, and what fills it.

    ``dtype`` is what the call asks for: the product is computed and kept in the dtype of its sums. Checking and filling
    are apart so that a caller can check everything else before any work.

    Raises
    ------
    ArgumentError
        If what the derivative needs was not saved.
    """
    asked = asked_dtype(op, dtype)
    grad: Array = as_array(op, "grad_output", grad_output, asked is not None)
    if stream is not None:
        grad = _on_stream(op, grad, stream)
    if activation is None:
        if pre_activation is not None or output is not None:
            raise ArgumentError(f"{op}: a saved array was given, but no activation")
        return grad, _nothing
    arrays = {"grad_output": grad}
    for name, saved in (("pre_activation", pre_activation), ("output", output)):
        if saved is not None:
            array = as_array(op, name, saved, asked is not None)
            arrays[name] = array if stream is None else _on_stream(op, array, stream)
    chosen = named_backend(op, backend, found_on_device(op, arrays))
    common, compute = _scaled_dtypes(op, {name: array.dtype for name, array in arrays.items()}, asked)
    found = resolve_activation(op, activation, compute.name)
    assert found is not None
    if found.derivative is None:
        raise ArgumentError(
            f"{op}: activation {found.name!r} is a function without a derivative; pass (function, derivative)"
        )
    if "pre_activation" in arrays:
        name, derivative = "pre_activation", found.derivative
    elif "output" in arrays and found.derivative_from_output is not None:
        name, derivative = "output", found.derivative_from_output
    else:
        either = "pre_activation" if found.derivative_from_output is None else "pre_activation or output"
        raise ArgumentError(
            f"{op}: the derivative of activation {found.name!r} needs {either}, saved from the forward call"
        )
    values = arrays[name]
    if values.shape != grad.shape:
        raise ShapeError(f"{op}: {name} has shape {values.shape}, but grad_output has {grad.shape}")
    if isinstance(grad, DeviceArray):
        assert chosen.residence is not None
        return chosen.residence.scale(derivative, grad, values, common, compute.name)
    scaled = np.empty(grad.shape, common)

    @undisturbed
    def fill() -> None:
        # The derivative of a holomorphic function acts by its conjugate: conj(conj(g) * d) = g * conj(d).
        factor = np.conj(grad) if compute.kind == "c" else grad
        chosen.activation_grad(derivative, factor.astype(compute), values.astype(compute), scaled)
        if compute.kind == "c":
            np.conj(scaled, out=scaled)

    return scaled, as_asked(op, fill)


def _prepare(
    site: Site,
    rank: int,
    other: object,
    grad: Array,
    size: object,
    names: tuple[str, ...],
    values: tuple[Any, ...],
    *,
    data_format: str | None = None,
    weight_format: str | None = None,
    algorithm: str | None = None,
    backend: str | None = None,
    precision: str | None = None,
    out: object = None,
    dtype: object = None,
    **more: Any,
) -> tuple[Route, Any, Any, Any, Any]:
    """`find_route` of the primitive that produces an operand's gradient; conjugation makes it the adjoint.

    ``more`` are arguments beyond those of the names.
    """
    array: Array = as_array(site.op(rank), site.reads[0], other, dtype is not None)
    conjugates = array.dtype.kind == "c" or grad.dtype.kind == "c"
    if conjugates:
        there = found_on_device(site.op(rank), {site.reads[0]: array, "grad_output": grad})
        array = _conjugate(array, named_backend(site.op(rank), backend, there).residence)
    if more:
        if conjugates and "padding_value" in more:  # padding is part of the input
            more["padding_value"] = _conjugate(more["padding_value"])
        names, values = (*names, *more), (*values, *more.values())
    formats = (data_format, weight_format)
    return find_route(
        site,
        rank,
        array,
        grad,
        names,
        values,
        *formats,
        backend,
        algorithm,
        precision,
        size=size,
        out=out,
        dtype=dtype,
    )


def gradient(
    site: Site,
    rank: int | None,
    other: object,
    grad_output: object,
    size: object,
    names: tuple[str, ...],
    values: tuple[Any, ...],
    *,
    activation: Activation = None,
    pre_activation: object = None,
    output: object = None,
    out: Array | None = None,
    stream: object = None,
    **options: Any,
) -> Array:
    """One gradient: the activation's derivative first, then the primitive that produces the operand.

    ``other`` is the operand that the site reads besides the gradient, ``size`` the shape of what it produces.
    """
    assert rank is not None
    op, backend, dtype = site.op(rank), options.get("backend"), options.get("dtype")
    grad, fill = scaled_gradient(op, grad_output, activation, pre_activation, output, backend, stream, dtype)
    route, first, second, bias, residual = _prepare(site, rank, other, grad, size, names, values, out=out, **options)
    if fill is _nothing:
        return route.call(first, second, bias, residual, out, stream)
    job = route.job(first, second, bias, residual, out, stream)
    fill()
    return job.execute()


def bias_dtypes(op: str, grad: np.dtype, asked: np.dtype | None = None) -> tuple[np.dtype, np.dtype]:
    """The dtypes in which a gradient by the bias is summed and returned, which a call may ask for."""
    if asked is None:
        rule = dtype_rule(op, "grad_output", grad)
        compute, output = np.dtype(rule.compute), grad if rule.output == dtype_name(grad) else np.dtype(rule.output)
    else:
        asked_result(op, asked, {"grad_output": grad}, {})
        compute, output = compute_dtype(asked), asked
    return np.result_type(compute, np.float64) if compute.kind in "fc" else compute, output


def bias_gradient(
    op: str,
    rank: int | None,
    grad_output: object,
    *,
    data_format: str | None = None,
    activation: Activation = None,
    pre_activation: object = None,
    output: object = None,
    stream: object = None,
    backend: str | None = None,
    dtype: object = None,
) -> Array:
    """The sum of the gradient by the pre-activation over all axes but the channels."""
    assert rank is not None
    op = op.format(f"{rank}d")
    asked = asked_dtype(op, dtype)
    there = isinstance(as_array(op, "grad_output", grad_output, asked is not None), DeviceArray)
    chosen = named_backend(op, backend, there)
    grad, fill = scaled_gradient(op, grad_output, activation, pre_activation, output, backend, stream, asked)
    last, batched = is_channels_last(op, rank, data_format), grad.ndim == rank + 2
    check_axes(op, "grad_output", grad.shape, rank, last)
    wide, summed = bias_dtypes(op, grad.dtype, asked)
    if isinstance(grad, DeviceArray):
        assert chosen.residence is not None
        seen = _device_view(grad, last, batched)
        returned, filled = device_result(op, None, seen.shape[1:2], summed, [grad], None)
        fill()
        chosen.residence.channel_sum(seen, filled, wide.name)
        return returned  # type: ignore[no-any-return]
    view = data_view(grad, last, batched)
    fill()
    with mode_asked(op), np.errstate(all="ignore"):  # infinities meet, half types round to infinity
        total = view.sum(axis=(0, *range(2, rank + 2)), dtype=wide)
        result: Array = total.astype(summed)
    return result


def _device_view(array: DeviceArray, last: bool, batched: bool) -> DeviceArray:
    """As `data_view`."""
    full = array if batched else array[(None,)]
    axes = tuple(range(full.ndim))
    return full.transpose((0, axes[-1], *axes[1:-1])) if last else full


def backward(
    by_input: Site,
    by_weight: Site,
    rank: int | None,
    grad_output: object,
    input: object,
    weight: object,
    names: tuple[str, ...],
    values: tuple[Any, ...],
    *,
    activation: Activation = None,
    pre_activation: object = None,
    output: object = None,
    output_mask: tuple[bool, bool, bool] = (True, True, True),
    **options: Any,
) -> ConvGradients:
    """All gradients that are asked for, everything checked first, the activation's derivative taken once."""
    assert rank is not None
    op, backend, stream = by_input.op(rank), options.get("backend"), options.pop("stream", None)
    wanted = output_mask_of(op, output_mask)
    # Both primitives read the arguments: what can be read once alone becomes a tuple.
    values = tuple(tuple(value) if isinstance(value, Iterator) else value for value in values)
    dtype = options.get("dtype")
    grad, fill = scaled_gradient(op, grad_output, activation, pre_activation, output, backend, stream, dtype)
    x, w = (as_array(op, name, value, dtype is not None) for name, value in (("input", input), ("weight", weight)))
    found_routes = {
        "input": _prepare(by_input, rank, w, grad, x.shape, names, values, **options),
        "weight": _prepare(by_weight, rank, x, grad, w.shape, names, values, **options),
    }
    jobs = {
        produces: route.job(first, second, bias, residual, None, stream)
        for produces, (route, first, second, bias, residual) in found_routes.items()
    }
    fill()
    found = {produces: job.execute() for produces, job in jobs.items() if wanted[produces]}
    if wanted["bias"]:
        found["bias"] = bias_gradient(
            by_input.name,
            rank,
            grad,
            data_format=options.get("data_format"),
            stream=stream,
            backend=backend,
            dtype=dtype,
        )
    return ConvGradients(found.get("input"), found.get("weight"), found.get("bias"))


def output_mask_of(op: str, output_mask: object) -> dict[str, bool]:
    """Which gradients are asked for, by what they are gradients of."""
    if not isinstance(output_mask, tuple | list):
        raise DTypeError(f"{op}: output_mask must be three bools, but is {output_mask!r}")
    if len(output_mask) != 3:
        raise ArgumentError(f"{op}: output_mask must have 3 entries, but has {len(output_mask)}: {output_mask}")
    return dict(zip(("input", "weight", "bias"), map(bool, output_mask), strict=True))
