"""Convolutions whose weight is given once: checked, copied and packed for the algorithms that come to use it."""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np
from numpy import ndarray

from .arrays import Array, as_array, asked_dtype, given_dtype, view_of_weight
from .backends.activations import frozen_activation, resolve_activation
from .backends.base import PackedWeight, Residence
from .backends.registry import AUTOMATIC, AUTOMATIC_ON_DEVICE, choices, is_in_use
from .backends.subnormals import as_asked, flushes_subnormals
from .border import bordered, outside
from .device_arrays import READY, DeviceArray, on_device
from .dispatch import Call, admit, may_be_remembered, named_backend, plan_of
from .errors import ConvError, DTypeError
from .explain import Explanation, explain_plan
from .functional import CONV, CONV_TRANSPOSE, Activation
from .plan import Geometry, Ints, Padding, PaddingMode, Scalar, dtype_name
from .plan.arguments import check_precision, shape
from .routes import Memory, Route, array_key

__all__ = ["PreparedConv", "prepare"]

#: What shapes a prepared convolution.
_GEOMETRY = (
    "stride",
    "padding",
    "output_padding",
    "dilation",
    "groups",
    "padding_mode",
    "padding_value",
    "output_size",
)
#: Input shapes and dtypes whose routes one prepared convolution remembers.
_MOST_ROUTES = 256
#: Packed weights that it keeps beyond those of remembered routes.
_MOST_PACKED = 8
#: Devices that keep its weight.
_MOST_DEVICES = 16


class _Ready(NamedTuple):
    route: Route
    weight: Any
    bias: Any


class PreparedConv:
    """A convolution with its weight; `prepare` makes it.

    Call it as ``prepared(input, residual=None, out=None)``. It may be called by many threads at once, and pickled;
    packed weights are made anew where it is unpickled.

    Attributes
    ----------
    weight, bias : array, bias may be None
        Read-only copies of what was given.
    """

    def __init__(self, weight: object, bias: object, options: dict[str, Any]):
        transposed = options["transposed"]
        if transposed not in (True, False):
            raise DTypeError(f"prepare: transposed must be a bool, but is {transposed!r}")
        self._site = CONV_TRANSPOSE if transposed else CONV
        asked = asked_dtype(self._site.op(None), options["dtype"])
        self._asked = asked is not None
        self.weight: Array = _kept(self._site.op(None), "weight", weight, self._asked)
        arguments = {name: options[name] for name in _GEOMETRY}
        call = Call.of(self._site, None, self.weight, arguments, options["data_format"], options["weight_format"])
        self._call, self._op, self._rank = call, call.op, call.rank
        self.bias: Array | None = None if bias is None else _kept(call.op, "bias", bias, self._asked)
        # As they were checked: lists that change later make no difference.
        self._options = {**options, "dtype": asked, **{name: getattr(call.geometry, name) for name in _GEOMETRY}}
        self._arguments = tuple(self._options[name] for name in _GEOMETRY)
        self._named = {
            name: options[name]
            for name in ("data_format", "weight_format", "activation", "algorithm", "backend", "precision", "dtype")
        }
        resolve_activation(call.op, options["activation"], "float32")  # that there is such a one
        # As it is now, whatever it reads later; pickled is what was given.
        self._named["activation"] = frozen_activation(options["activation"])
        if options["backend"] is not None:
            named_backend(call.op, options["backend"])
        if options["precision"] is not None:
            check_precision(call.op, "precision", options["precision"])
        self._ready: Memory[_Ready] = Memory(_MOST_ROUTES)
        self._packed: Memory[PackedWeight] = Memory(_MOST_PACKED)
        self._there: Memory[tuple[Any, Any]] = Memory(_MOST_DEVICES)
        self._packing = threading.Lock()
        _all.add(self)

    def __call__(
        self, input: object, residual: object = None, out: Array | None = None, stream: object = None
    ) -> Array:
        """The convolution of an input, as `numbaconv.conv` or `numbaconv.conv_transpose` computes it.

        Parameters
        ----------
        input : array of shape (N, C, *spatial), or (C, *spatial) without a batch axis
        residual : array of the output's shape, optional
        out : array of the output's shape and dtype, optional
            Written and returned. It may be ``residual``.
        stream : CUDA stream or its handle, optional
            As in `numbaconv.conv`.

        Returns
        -------
        array
            The same bits as without preparation.

        Raises
        ------
        ShapeError, ArgumentError, DTypeError, BackendError, AlgorithmError
            As the convolution itself.
        """
        asked = self._named["backend"], self._named["algorithm"], self._named["precision"]
        if type(input) is ndarray:
            choice = choices(*asked)
        else:
            automatic = AUTOMATIC
            if on_device(input):
                input = as_array(self._op, "input", input, self._asked)
                residual = None if residual is None else as_array(self._op, "residual", residual, self._asked)
                automatic = AUTOMATIC_ON_DEVICE if isinstance(input, DeviceArray) else AUTOMATIC
            choice = choices(*asked, automatic)
        one, other = array_key(input), None if residual is None else array_key(residual)
        key = None
        if one is not None and (residual is None) == (other is None):
            key = (one, other, choice)
            ready = self._ready.get(key)
            if ready is not None and is_in_use(choice[0], ready.route.engine):
                try:
                    return ready.route.call(input, ready.weight, ready.bias, residual, out, stream)
                except ConvError as error:
                    raise outside(error)  # noqa: B904 - the context is the caller's
        try:
            return self._admit(key, input, residual, out, stream)
        except ConvError as error:
            raise outside(error)  # noqa: B904 - the context is the caller's

    def _admit(self, key: Hashable, input: object, residual: object, out: Array | None, stream: object) -> Array:
        """The call with an input like none before."""
        given, given_bias = self._at(input)
        route, x, _, bias, added = admit(
            self._site,
            self._rank,
            input,
            given,
            _GEOMETRY,
            self._arguments,
            bias=given_bias,
            residual=residual,
            fresh=out is None,
            **self._named,
        )
        job = route.job(x, given, bias, added, out, stream)  # checks ``out`` before the weight is packed
        weight = self._weight_for(route, given)
        if weight is not given:
            job = route.job(x, weight, bias, added, out, stream)
        if key is not None and x is input and added is residual and may_be_remembered(route):
            self._ready.put(key, _Ready(route, weight, bias))
        return job.execute()

    def _at(self, input: object) -> tuple[Any, Any]:
        """Weight and bias where the input is: on a device they are made once and kept."""
        if not isinstance(input, DeviceArray):
            return self.weight, self.bias
        engine = named_backend(self._op, self._named["backend"], True)
        assert engine.residence is not None
        given = self.weight, self.bias
        with self._packing:
            found = self._there.get(input.device)
            if found is None:
                there = [None if each is None else _sent(engine.residence, each, input.device) for each in given]
                found = there[0], there[1]
                self._there.put(input.device, found)
            return found

    def _weight_for(self, route: Route, given: Any) -> Any:
        """The weight as the route's algorithm wants it."""
        packing, plan = route.algorithm.packing, route.plan
        if packing is None:
            return given
        place = given.device if isinstance(given, DeviceArray) else None
        flushing = place is None and flushes_subnormals(self._op)
        # What an algorithm sees of the weight depends on the input, too, whose axes may be folded together.
        key = (
            *(route.engine.name, route.algorithm, plan.compute_dtype, plan.w_shape, plan.folds),
            *(packing.key(plan), place, flushing),
        )
        with self._packing:  # threads that need the same packed weight make it once
            found = self._packed.get(key)
            if found is None:
                pack = packing.pack if place is not None else as_asked(self._op, packing.pack)
                with np.errstate(all="ignore"):
                    found = pack(plan, view_of_weight(plan).of(given))
                self._packed.put(key, found)
            return found

    @bordered
    def explain(self, input_shape: Ints, *, dtype: object = None) -> Explanation:
        """What a call would run and why, as `numbaconv.explain` says it.

        Parameters
        ----------
        input_shape : sequence of int
        dtype : str, numpy.dtype or scalar type, optional
            The input's; the weight's unless given.

        Returns
        -------
        Explanation

        Raises
        ------
        ShapeError, ArgumentError, DTypeError, BackendError
            As the call itself; an algorithm that does not apply is part of the explanation.
        """
        given = self.weight.dtype if dtype is None else given_dtype(self._op, dtype)
        plan, _ = plan_of(
            self._call,
            {"input": shape(self._op, "input_shape", input_shape), "weight": self.weight.shape},
            {"input": given, "weight": self.weight.dtype},
            {} if self.bias is None else {"bias": self.bias.dtype},
            self._named["precision"],
            self._options["dtype"],
        )
        return explain_plan(plan, self._site.direction, self._named["backend"], self._named["algorithm"])

    def __repr__(self) -> str:
        parts = [f"weight {self.weight.shape} {dtype_name(self.weight.dtype)}"]
        if self.bias is not None:
            parts.append(f"bias {dtype_name(self.bias.dtype)}")
        usual = Geometry.of(self._op, self._rank)
        for name, value in self._options.items():
            if name != "transposed" and value != getattr(usual, name, None):
                parts.append(f"{name}={_short(value)!r}")
        return f"PreparedConv({self._op}: {', '.join(parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return PreparedConv, (self.weight, self.bias, self._options)


def _renew_locks() -> None:
    """In a forked child no thread is left to release the lock that it held."""
    for each in _all:
        each._packing = threading.Lock()


_all: WeakSet[PreparedConv] = WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


def _short(value: Any) -> Any:
    """An argument for every axis as one, where it is the same for all."""
    entries = {value}
    while any(isinstance(entry, tuple) for entry in entries):
        entries = {inner for entry in entries for inner in entry}
    return entries.pop() if len(entries) == 1 else value


def _sent(residence: Residence, array: Array, device: int) -> DeviceArray:
    """A copy on a device that calls on any stream may read."""
    made: DeviceArray = residence.upload(array, device)
    residence.synchronize(made)
    return made.on(READY)


def _kept(op: str, name: str, value: object, asked: bool) -> Array:
    """A read-only copy of an operand, in the host's memory."""
    given: Any = as_array(op, name, value, asked)
    if isinstance(given, DeviceArray):
        residence = named_backend(op, None, True).residence
        assert residence is not None
        given = residence.download(given)
    copy: Array = np.array(given)
    copy.flags.writeable = False
    return copy


@bordered
def prepare(
    weight: object,
    bias: object = None,
    *,
    transposed: bool = False,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    dilation: Ints = 1,
    groups: int = 1,
    activation: Activation = None,
    padding_mode: PaddingMode = "zeros",
    padding_value: Scalar = 0,
    output_size: Ints | None = None,
    data_format: str | None = None,
    weight_format: str | None = None,
    algorithm: str | None = None,
    backend: str | None = None,
    precision: str | None = None,
    dtype: object = None,
) -> PreparedConv:
    """A convolution with its weight packed once, for many inputs.

    The weight and bias are copied: what happens to the arrays afterwards makes no difference. The weight is packed,
    once for each algorithm and compute dtype, when the first input comes that needs it. A backend of a device keeps it
    there.

    Parameters
    ----------
    weight : array of shape (O, C / groups, *kernel), transposed: (C, O / groups, *kernel)
        Its axes give the rank. Layouts as in `numbaconv.conv` and `numbaconv.conv_transpose`.
    bias : array of shape (O,), optional
    transposed : bool
        Prepare a transposed convolution.
    stride, padding, dilation, groups, padding_mode, padding_value, data_format, weight_format, activation, \
algorithm, backend, precision, dtype
        As in `numbaconv.conv`. An activation that is a function must be picklable if the result is to be.
    output_padding, output_size
        As in `numbaconv.conv_transpose`.

    Returns
    -------
    PreparedConv
        Call it with ``(input, residual=None, out=None)``: the same bits as `numbaconv.conv` or
        `numbaconv.conv_transpose`. ``explain(input_shape)`` says what that would run.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError
        For arguments that are wrong by themselves; what does not fit together is found when it is called.

    Examples
    --------
    >>> import numpy as np, numbaconv
    >>> prepared = numbaconv.prepare(np.ones((4, 2, 3, 3), np.float32), padding=1, activation="relu")
    >>> prepared
    PreparedConv(conv2d: weight (4, 2, 3, 3) float32, padding=1, activation='relu')
    >>> prepared(np.ones((8, 2, 5, 5), np.float32)).shape
    (8, 4, 5, 5)
    """
    options = {
        "transposed": transposed,
        "stride": stride,
        "padding": padding,
        "output_padding": output_padding,
        "dilation": dilation,
        "groups": groups,
        "padding_mode": padding_mode,
        "padding_value": padding_value,
        "output_size": output_size,
        "data_format": data_format,
        "weight_format": weight_format,
        "activation": activation,
        "algorithm": algorithm,
        "backend": backend,
        "precision": precision,
        "dtype": dtype,
    }
    return PreparedConv(weight, bias, options)
