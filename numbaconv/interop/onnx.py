"""ONNX: operators for its reference evaluator, a backend, and convolutions of tensors as models hold them.

`operators` is for ``onnx.reference.ReferenceEvaluator(model, new_ops=operators())``: Conv, ConvTranspose, ConvInteger,
QLinearConv, Col2Im and CausalConvWithState, all of the default domain, whatever the model's opset: versions differ in
the dtypes that they allow, not in meaning. `Backend` is that evaluator under ``onnx.backend.base``.

Each operator is one call of a function of `numbaconv`; here is only what ONNX says differently:

- ``pads`` lists all cells before and then all after. With an ``auto_pad`` other than NOTSET they are ignored, as the
  reference implementation does.
- ConvTranspose with an ``output_shape``, or SAME: padding is what is too much, an odd cell before unless SAME_UPPER.
- Integers are summed in int32, less their zero points, and padding stands for the zero point: it adds nothing.
- QLinearConv rounds to the nearest, ties to even, and then adds the zero point, as QuantizeLinear does.
- CausalConvWithState convolves its state and input one after the other; what it keeps is the end of both.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

import numpy as np

from .. import functional
from ..arrays import Array
from ..error_state import undisturbed
from ..errors import ArgumentError, ShapeError
from ..extras import require
from ..plan import plan_conv

try:
    from onnx import TensorProto
    from onnx.backend import base
    from onnx.numpy_helper import to_array
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun
except ImportError:
    require("onnx.reference.op_run", "onnx", "numbaconv.interop.onnx")  # names the command
    raise

__all__ = [
    "Backend",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "operators",
    "prepare",
    "run_model",
    "run_node",
    "supports_device",
]

P = ParamSpec("P")
Ints = Sequence[int]

_AUTO_PADS = {"VALID": "valid", "SAME_UPPER": "same", "SAME_LOWER": "same_lower"}


def _auto_pad(op: str, auto_pad: str | None) -> str | None:
    """The name of a padding, or None where ``pads`` has it."""
    if auto_pad in (None, "", "NOTSET"):
        return None
    if auto_pad not in _AUTO_PADS:
        raise ArgumentError(f"{op}: auto_pad is {auto_pad!r}, but must be NOTSET or one of {', '.join(_AUTO_PADS)}")
    return _AUTO_PADS[auto_pad]


def _pairs(op: str, pads: Ints | None, rank: int) -> tuple[tuple[int, int], ...]:
    """``pads`` as a pair for each axis."""
    if not pads:
        return ((0, 0),) * rank
    if len(pads) != 2 * rank:
        raise ArgumentError(f"{op}: pads has {len(pads)} entries {list(pads)}, but {rank} spatial axes need {2 * rank}")
    return tuple(zip(pads[:rank], pads[rank:], strict=True))


def _checked(op: str, name: str, value: Ints | None, rank: int, otherwise: int) -> tuple[int, ...]:
    """An attribute of one integer for each axis."""
    if not value:
        return (otherwise,) * rank
    if len(value) != rank:
        raise ArgumentError(f"{op}: {name} has {len(value)} entries {list(value)}, but there are {rank} spatial axes")
    return tuple(value)


def _function(op: str, stem: str, x: Array, w: Array, kernel_shape: Ints | None) -> tuple[int, Callable[..., Array]]:
    """The rank of a node, and what computes it.

    Raises
    ------
    ShapeError
        If input, weight and ``kernel_shape`` contradict each other, or there are more spatial axes than three.
    """
    rank = w.ndim - 2
    if rank not in (1, 2, 3) or x.ndim != w.ndim:
        raise ShapeError(
            f"{op}: input and weight must both have 3, 4 or 5 axes (1 to 3 of them spatial), but have shapes "
            f"{x.shape} and {w.shape}"
        )
    if kernel_shape and tuple(kernel_shape) != w.shape[2:]:
        raise ShapeError(f"{op}: kernel_shape is {tuple(kernel_shape)}, but the weight's is {w.shape[2:]}")
    return rank, getattr(functional, f"{stem}{rank}d")


class _Convolution(OpRun):  # type: ignore[misc]
    """What the operators that are a forward convolution share."""

    def _convolve(
        self,
        x: Array,
        w: Array,
        bias: Array | None,
        auto_pad: str | None,
        dilations: Ints | None,
        group: int | None,
        kernel_shape: Ints | None,
        pads: Ints | None,
        strides: Ints | None,
        dtype: object = None,
    ) -> Array:
        op = type(self).__name__
        rank, convolve = _function(op, "conv", x, w, kernel_shape)
        return convolve(
            x,
            w,
            bias,
            stride=_checked(op, "strides", strides, rank, 1),
            padding=_auto_pad(op, auto_pad) or _pairs(op, pads, rank),
            dilation=_checked(op, "dilations", dilations, rank, 1),
            groups=1 if group is None else group,
            dtype=dtype,
        )


class Conv(_Convolution):
    """ONNX's Conv: `numbaconv.conv1d` to `numbaconv.conv3d`."""

    def _run(
        self,
        X: Array,  # noqa: N803
        W: Array,  # noqa: N803
        B: Array | None = None,  # noqa: N803
        auto_pad: str | None = None,
        dilations: Ints | None = None,
        group: int | None = None,
        kernel_shape: Ints | None = None,
        pads: Ints | None = None,
        strides: Ints | None = None,
    ) -> tuple[Array]:
        return (self._convolve(X, W, B, auto_pad, dilations, group, kernel_shape, pads, strides),)


class ConvTranspose(OpRun):  # type: ignore[misc]
    """ONNX's ConvTranspose: `numbaconv.conv_transpose1d` to `numbaconv.conv_transpose3d`."""

    def _run(
        self,
        X: Array,  # noqa: N803
        W: Array,  # noqa: N803
        B: Array | None = None,  # noqa: N803
        auto_pad: str | None = None,
        dilations: Ints | None = None,
        group: int | None = None,
        kernel_shape: Ints | None = None,
        output_padding: Ints | None = None,
        output_shape: Ints | None = None,
        pads: Ints | None = None,
        strides: Ints | None = None,
    ) -> tuple[Array]:
        op = type(self).__name__
        rank, convolve = _function(op, "conv_transpose", X, W, kernel_shape)
        name = _auto_pad(op, auto_pad)
        geometry: dict[str, Any] = {
            "stride": _checked(op, "strides", strides, rank, 1),
            "dilation": _checked(op, "dilations", dilations, rank, 1),
            "groups": 1 if group is None else group,
        }
        extra = _checked(op, "output_padding", output_padding, rank, 0)
        if not output_shape and name in (None, "valid"):
            padding = _pairs(op, None if name else pads, rank)
            return (convolve(X, W, B, padding=padding, output_padding=extra, **geometry),)
        full = plan_conv(X.shape, W.shape, transposed=True, **geometry).output_shape[2:]
        wanted = _checked(op, "output_shape", output_shape, rank, 0)
        if not output_shape:
            wanted = tuple(n * step for n, step in zip(X.shape[2:], geometry["stride"], strict=True))
        padding = tuple(
            _split(extent + more - size, name == "same") for extent, more, size in zip(full, extra, wanted, strict=True)
        )
        return (convolve(X, W, B, padding=padding, output_size=wanted, **geometry),)


def _split(total: int, upper: bool) -> tuple[int, int]:
    """What is too much, before and after; a result that has cells too few has them added after."""
    small = max(total, 0) // 2
    large = max(total, 0) - small
    return (small, large) if upper else (large, small)


def _centred(op: str, name: str, values: Array, zero_point: Array | None, channels: int | None) -> Array:
    """8-bit integers less their zero point, exactly.

    ``channels``: how many zero points there may be, one for each slice of the first axis; None: one alone.
    """
    wide = values.astype(np.int16)
    if zero_point is None:
        return wide
    if zero_point.size == 1:
        return wide - zero_point.astype(np.int16).reshape(())
    if zero_point.shape != (channels,):
        allowed = "a scalar" if channels is None else f"a scalar or of shape ({channels},)"
        raise ShapeError(f"{op}: {name} must be {allowed}, but has shape {zero_point.shape}")
    return wide - zero_point.astype(np.int16).reshape(-1, *(1,) * (values.ndim - 1))


def _scalar(op: str, name: str, value: Array) -> float:
    """A scale or zero point of a whole tensor."""
    if np.size(value) != 1:
        raise ShapeError(f"{op}: {name} must be a scalar, but has shape {np.shape(value)}")
    return float(np.reshape(value, ()))


class ConvInteger(_Convolution):
    """ONNX's ConvInteger: sums in int32 of 8-bit integers less their zero points."""

    def _run(
        self,
        x: Array,
        w: Array,
        x_zero_point: Array | None = None,
        w_zero_point: Array | None = None,
        auto_pad: str | None = None,
        dilations: Ints | None = None,
        group: int | None = None,
        kernel_shape: Ints | None = None,
        pads: Ints | None = None,
        strides: Ints | None = None,
    ) -> tuple[Array]:
        data = _centred("ConvInteger", "x_zero_point", x, x_zero_point, None)
        weight = _centred("ConvInteger", "w_zero_point", w, w_zero_point, w.shape[0])
        return (self._convolve(data, weight, None, auto_pad, dilations, group, kernel_shape, pads, strides, np.int32),)


class QLinearConv(_Convolution):
    """ONNX's QLinearConv: the sums of ConvInteger and a bias, brought to the result's scale and zero point."""

    @undisturbed
    def _run(
        self,
        x: Array,
        x_scale: Array,
        x_zero_point: Array,
        w: Array,
        w_scale: Array,
        w_zero_point: Array,
        y_scale: Array,
        y_zero_point: Array,
        B: Array | None = None,  # noqa: N803
        auto_pad: str | None = None,
        dilations: Ints | None = None,
        group: int | None = None,
        kernel_shape: Ints | None = None,
        pads: Ints | None = None,
        strides: Ints | None = None,
    ) -> tuple[Array]:
        op = type(self).__name__
        data = _centred(op, "x_zero_point", x, x_zero_point, None)
        weight = _centred(op, "w_zero_point", w, w_zero_point, w.shape[0])
        factor = np.asarray(w_scale, np.float64) * _scalar(op, "x_scale", x_scale) / _scalar(op, "y_scale", y_scale)
        if factor.size > 1 and factor.shape != (w.shape[0],):
            raise ShapeError(f"{op}: w_scale must be a scalar or of shape ({w.shape[0]},), but has {w_scale.shape}")
        factor = factor.reshape(-1, *(1,) * (x.ndim - 2))
        sums = self._convolve(data, weight, B, auto_pad, dilations, group, kernel_shape, pads, strides, np.int32)
        limits = np.iinfo(y_zero_point.dtype)
        scaled = np.rint(sums * factor) + _scalar(op, "y_zero_point", y_zero_point)
        return (np.clip(scaled, limits.min, limits.max).astype(y_zero_point.dtype),)


class Col2Im(OpRun):  # type: ignore[misc]
    """ONNX's Col2Im: `numbaconv.fold`, in the dtype of its input."""

    @undisturbed
    def _run(
        self,
        data: Array,
        image_shape: Array,
        block_shape: Array,
        dilations: Ints | None = None,
        pads: Ints | None = None,
        strides: Ints | None = None,
    ) -> tuple[Array]:
        op, rank = type(self).__name__, len(image_shape)
        logical = data.dtype == np.bool_
        image = functional.fold(
            data.astype(np.uint8) if logical else data,
            tuple(int(extent) for extent in image_shape),
            tuple(int(extent) for extent in block_shape),
            dilation=_checked(op, "dilations", dilations, rank, 1),
            padding=_pairs(op, pads, rank),
            stride=_checked(op, "strides", strides, rank, 1),
        )
        return (image.astype(data.dtype, copy=False),)


class CausalConvWithState(OpRun):  # type: ignore[misc]
    """ONNX's CausalConvWithState: a depthwise `numbaconv.conv1d` that looks back only, and its state."""

    def _run(
        self,
        input: Array,
        weight: Array,
        bias: Array | None = None,
        past_state: Array | None = None,
        activation: str | None = None,
    ) -> tuple[Array, Array]:
        op = type(self).__name__
        activations = {None: None, "": None, "none": None, "silu": "silu", "swish": "silu"}
        if activation not in activations:
            raise ArgumentError(f"{op}: activation is {activation!r}, but must be none, silu or swish")
        if input.ndim != 3 or weight.ndim != 3:
            raise ShapeError(f"{op}: input and weight must have 3 axes, but have shapes {input.shape}, {weight.shape}")
        (batch, channels, length), taps = input.shape, weight.shape[2]
        if weight.shape[:2] != (channels, 1):
            raise ShapeError(f"{op}: weight must have shape ({channels}, 1, taps), but has {weight.shape}")
        convolve = functools.partial(functional.conv1d, groups=channels, activation=activations[activation])
        if past_state is None:
            output = convolve(input, weight, bias, padding="causal")
            past_state = np.zeros((batch, channels, taps - 1), input.dtype)
        else:
            if past_state.shape != (batch, channels, taps - 1):
                wanted = (batch, channels, taps - 1)
                raise ShapeError(f"{op}: past_state must have shape {wanted}, but has {past_state.shape}")
            output = convolve(np.concatenate([past_state, input], axis=2), weight, bias)
        ends = past_state[:, :, length:], input[:, :, max(length - taps + 1, 0) :]
        return output, np.concatenate(ends, axis=2)


def operators() -> list[type]:
    """The operators, for ``ReferenceEvaluator(model, new_ops=operators())``.

    Returns
    -------
    list of subclasses of ``onnx.reference.op_run.OpRun``

    Examples
    --------
    >>> from numbaconv.interop.onnx import operators
    >>> [operator.__name__ for operator in operators()]
    ['Conv', 'ConvTranspose', 'ConvInteger', 'QLinearConv', 'Col2Im', 'CausalConvWithState']
    """
    return [Conv, ConvTranspose, ConvInteger, QLinearConv, Col2Im, CausalConvWithState]


class _Prepared(base.BackendRep):  # type: ignore[misc]
    """A model that can be run."""

    def __init__(self, model: Any):
        self._evaluator = ReferenceEvaluator(model, new_ops=operators())

    def run(self, inputs: Any, **options: Any) -> tuple[Any, ...]:
        """The outputs for inputs by name, or in the order of the model's inputs without initializers."""
        if not isinstance(inputs, Mapping):
            given = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
            names = self._names()
            if len(given) > len(names):
                raise ArgumentError(f"run: {len(given)} inputs were given, but the model has {len(names)}: {names}")
            inputs = dict(zip(names, given, strict=False))
        found = self._evaluator.run(None, dict(inputs))
        outputs: tuple[Any, ...] = base.namedtupledict("Outputs", self._evaluator.output_names)(*found)
        return outputs

    def _names(self) -> list[str]:
        graph = self._evaluator.proto_.graph
        stored = {each.name for each in graph.initializer}
        return [name for name in self._evaluator.input_names if name not in stored]


class Backend(base.Backend):  # type: ignore[misc]
    """A backend as ``onnx.backend.base`` has it: the reference evaluator with `operators`, on the CPU."""

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether models can be run there: ``CPU``."""
        return str(device).split(":")[0] == "CPU"

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **options: Any) -> _Prepared:
        """A checked model, whose ``run(inputs)`` returns its outputs as a tuple.

        Raises
        ------
        ArgumentError
            If the device is not supported.
        """
        if not cls.supports_device(device):
            raise ArgumentError(f"prepare: device is {device!r}, but must be CPU")
        super().prepare(model, device, **options)
        return _Prepared(model)

    @classmethod
    def run_node(
        cls, node: Any, inputs: Any, device: str = "CPU", outputs_info: Any = None, **options: Any
    ) -> tuple[Any, ...]:
        """The outputs of one node, for inputs in its order."""
        if not cls.supports_device(device):
            raise ArgumentError(f"run_node: device is {device!r}, but must be CPU")
        super().run_node(node, inputs, device, outputs_info, **options)
        given = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
        names = [name for name in node.input if name]
        opsets = {"opsets": {"": options["opset_version"]}} if "opset_version" in options else {}
        evaluator = ReferenceEvaluator(node, new_ops=operators(), **opsets)
        return tuple(evaluator.run(None, dict(zip(names, given, strict=True))))


prepare, run_model, run_node = Backend.prepare, Backend.run_model, Backend.run_node
supports_device = Backend.supports_device


def _of_tensors(function: Callable[P, Array]) -> Callable[P, Array]:
    """A function that takes tensors of a model wherever it takes arrays."""

    def array(value: Any) -> Any:
        return to_array(value) if isinstance(value, TensorProto) else value

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> Array:
        return function(*map(array, args), **{name: array(value) for name, value in options.items()})

    call.__module__ = __name__
    call.__doc__ = (
        "With operands that may be ``TensorProto``, such as initializers of a model; it returns arrays.\n\n"
        + (inspect.getdoc(function) or "")
    )
    return call


conv1d, conv2d, conv3d = map(_of_tensors, (functional.conv1d, functional.conv2d, functional.conv3d))
conv_transpose1d, conv_transpose2d, conv_transpose3d = map(
    _of_tensors, (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)
)
