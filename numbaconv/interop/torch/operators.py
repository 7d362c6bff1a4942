"""The three primitives as PyTorch's operators, each with gradients that are the other two.

    numbaconv::convolution   input, weight, bias, residual -> output
    numbaconv::by_input      weight, grad_output           -> gradient by the input
    numbaconv::by_weight     input, grad_output            -> gradient by the weight

Data is ``(N, C, *spatial)`` or ``(C, *spatial)`` and weights are in PyTorch's order, whatever the strides. Where data
has channels last in memory, so has the result.
"""

from typing import Any

import torch

from ...backward import scaled_gradient
from ...errors import ShapeError
from ...plan import dtype_rule
from .. import spec as primitives
from ..activations import activation_of
from ..spec import Spec, name_of, output_shape
from .errors import as_torch_errors
from .memory import channel_axis, channels_to_end, is_channels_last, to_array, to_tensor

__all__ = ["activation_gradient", "by_input", "by_weight", "convolution", "convolution_out", "read_spec"]

#: `Spec` in a schema, in its order.
_SPEC = (
    "bool transposed, int[] stride, str padding_name, int[] padding, int[] dilation, int groups, str padding_mode, "
    "Scalar padding_value, int[] output_padding, int[] output_size"
)
_FIELDS = len(Spec._fields)
_OPERANDS = "Tensor input, Tensor weight, Tensor? bias, Tensor? residual"
_HOW = "str? backend, str? precision"
_CHOICE = f"str activation, str? algorithm, {_HOW}"

# A compiler that gave a kernel other strides than those it was traced with would find another layout in the result.
_TAGS = (torch.Tag.needs_exact_strides, torch.Tag.pt2_compliant_tag)


def read_spec(values: Any) -> Spec:
    """A spec from an operator's arguments, in which sequences are lists."""
    fields: list[Any] = [tuple(each) if isinstance(each, list) else each for each in values]
    return Spec(*fields)


def _how(values: Any) -> dict[str, str | None]:
    """What chooses how an operator is computed."""
    return dict(zip(("backend", "precision"), values, strict=True))


def _optional_array(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else to_array(tensor)


def _stored(spec: Spec, tensor: torch.Tensor | None, last: bool) -> Any:
    """Data as an array with its channels where memory has them."""
    if tensor is None:
        return None
    return to_array(channels_to_end(spec, tensor) if last else tensor)


def _seen(spec: Spec, array: Any, last: bool) -> torch.Tensor:
    """A result with channels behind the batch axis."""
    tensor = to_tensor(array)
    return tensor.movedim(-1, channel_axis(spec, tensor.dim())) if last else tensor


def _size(spec: Spec, size: Any, last: bool) -> tuple[Any, ...]:
    """The shape of data as it is stored."""
    at = channel_axis(spec, len(size))
    return (*size[:at], *size[at + 1 :], size[at]) if last else tuple(size)


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _empty(like: torch.Tensor, spec: Spec, size: tuple[Any, ...], dtype: torch.dtype, last: bool) -> torch.Tensor:
    """What the fake kernels return: the result's shape, dtype and strides, without elements."""
    empty = like.new_empty(size, dtype=dtype)
    return empty.movedim(-1, channel_axis(spec, len(size))) if last else empty


def _result_dtype(op: str, *tensors: torch.Tensor | None) -> torch.dtype:
    """The dtype that numbaconv returns for operands of one dtype, and with a bias or residual of another."""
    first = tensors[0]
    assert first is not None
    found: torch.dtype = getattr(torch, dtype_rule(op, "input", _dtype(first.dtype)).output)
    for each in tensors[1:]:
        if each is not None:
            found = torch.promote_types(found, each.dtype)
    return found


def _fill(arguments: Any, out: torch.Tensor | None) -> torch.Tensor | None:
    """The convolution of an operator's arguments, into a tensor or into a new one."""
    input, weight, bias, residual, *rest = arguments
    spec, (activation, algorithm, *how) = read_spec(rest[:_FIELDS]), rest[_FIELDS:]
    last = is_channels_last(spec, input if out is None else out)
    made = primitives.convolve(
        spec,
        _stored(spec, input, last),
        to_array(weight),
        channels_last=last,
        bias=_optional_array(bias),
        residual=_stored(spec, residual, last),
        activation=activation_of(activation),
        out=_stored(spec, out, last),
        algorithm=algorithm,
        **_how(how),
    )
    return _seen(spec, made, last) if out is None else None


@torch.library.custom_op(
    "numbaconv::convolution", mutates_args=(), schema=f"({_OPERANDS}, {_SPEC}, {_CHOICE}) -> Tensor", tags=_TAGS
)
@as_torch_errors
def convolution(*arguments: Any) -> Any:
    """``activation(input * weight + bias + residual)``."""
    return _fill(arguments, None)


@torch.library.custom_op(
    "numbaconv::convolution_out",
    mutates_args=("out",),
    schema=f"({_OPERANDS}, {_SPEC}, {_CHOICE}, Tensor(a!) out) -> ()",
    tags=_TAGS,
)
@as_torch_errors
def convolution_out(*arguments: Any) -> None:
    """The same, into a tensor."""
    _fill(arguments[:-1], arguments[-1])


@torch.library.custom_op(
    "numbaconv::by_input",
    mutates_args=(),
    schema=f"(SymInt[] input_size, Tensor weight, Tensor grad_output, {_SPEC}, {_HOW}) -> Tensor",
    tags=_TAGS,
)
@as_torch_errors
def by_input(input_size: Any, weight: torch.Tensor, grad_output: torch.Tensor, *rest: Any) -> torch.Tensor:
    """The gradient by the input."""
    spec, how = read_spec(rest[:_FIELDS]), _how(rest[_FIELDS:])
    last = is_channels_last(spec, grad_output)
    grad = _stored(spec, grad_output, last)
    made = primitives.by_input(spec, _size(spec, input_size, last), to_array(weight), grad, channels_last=last, **how)
    return _seen(spec, made, last)


@torch.library.custom_op(
    "numbaconv::by_weight",
    mutates_args=(),
    schema=f"(Tensor input, SymInt[] weight_size, Tensor grad_output, {_SPEC}, {_HOW}) -> Tensor",
    tags=_TAGS,
)
@as_torch_errors
def by_weight(input: torch.Tensor, weight_size: Any, grad_output: torch.Tensor, *rest: Any) -> torch.Tensor:
    """The gradient by the weight."""
    spec, how = read_spec(rest[:_FIELDS]), _how(rest[_FIELDS:])
    last = is_channels_last(spec, input)
    data, grad = (_stored(spec, each, last) for each in (input, grad_output))
    return to_tensor(primitives.by_weight(spec, data, tuple(weight_size), grad, channels_last=last, **how))


@torch.library.custom_op(
    "numbaconv::activation_gradient",
    mutates_args=(),
    schema="(Tensor grad_output, Tensor pre_activation, str activation, str? backend) -> Tensor",
    tags=_TAGS,
)
@as_torch_errors
def activation_gradient(
    grad_output: torch.Tensor, pre_activation: torch.Tensor, activation: str, backend: str | None
) -> torch.Tensor:
    """The gradient by the pre-activation, for a function of the user's with its derivative."""
    grad, before = to_array(grad_output), to_array(pre_activation)
    scaled, fill = scaled_gradient("convolution", grad, activation_of(activation), before, None, backend)
    fill()
    return to_tensor(scaled)


@convolution.register_fake
@as_torch_errors
def _(input: torch.Tensor, weight: torch.Tensor, bias: Any, residual: Any, *rest: Any) -> torch.Tensor:
    spec = read_spec(rest[:_FIELDS])
    op, last = name_of(spec), is_channels_last(spec, input)
    size = output_shape(spec, _size(spec, input.shape, last), tuple(weight.shape), _dtype(input.dtype), last)
    channels = size[-1] if last else size[channel_axis(spec, len(size))]
    if bias is not None and tuple(bias.shape) != (channels,):
        raise ShapeError(f"{op}: bias has shape {tuple(bias.shape)}, but there are {channels} output channels")
    if residual is not None and _size(spec, residual.shape, last) != size:
        raise ShapeError(f"{op}: residual has shape {tuple(residual.shape)}, but the output, as stored, has {size}")
    return _empty(input, spec, size, _result_dtype(op, input, bias, residual), last)


@convolution_out.register_fake
def _(*arguments: Any) -> None:
    return None


@by_input.register_fake
@as_torch_errors
def _(input_size: Any, weight: torch.Tensor, grad_output: torch.Tensor, *rest: Any) -> torch.Tensor:
    spec = read_spec(rest[:_FIELDS])
    last = is_channels_last(spec, grad_output)
    return _empty(grad_output, spec, _size(spec, input_size, last), _result_dtype(name_of(spec), grad_output), last)


@by_weight.register_fake
@as_torch_errors
def _(input: torch.Tensor, weight_size: Any, grad_output: torch.Tensor, *rest: Any) -> torch.Tensor:
    dtype = _result_dtype(name_of(read_spec(rest[:_FIELDS])), grad_output)
    return input.new_empty(tuple(weight_size), dtype=dtype)


@activation_gradient.register_fake
def _(grad_output: torch.Tensor, pre_activation: torch.Tensor, activation: str, backend: Any) -> torch.Tensor:
    return torch.empty_like(pre_activation, memory_format=torch.contiguous_format)
