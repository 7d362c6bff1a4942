"""Differentiable convolutions of tensors, with the signatures of `numbaconv.functional`."""

from __future__ import annotations

from contextlib import nullcontext
from operator import index
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ...backends.registry import choices, resolve_precision
from ...device_arrays import handle_of, torch_stream
from ...functional import CONV_ARGUMENTS, TRANSPOSED_ARGUMENTS, Activation
from ...plan import Ints, Padding, PaddingMode, Scalar
from ...ranks import at_rank
from .. import spec as primitives
from ..activations import token
from .errors import ArgumentError, as_torch_errors
from .gradients import convolution, is_forward_mode
from .operators import convolution_out

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]


@torch.compiler.assume_constant_result
@as_torch_errors
def _read(*arguments: Any) -> tuple[Any, ...]:
    """`spec.read`, which a compiler runs, and does not look into: plain values lead to plain values."""
    spec, layout = primitives.read(*arguments)
    return tuple(spec), layout.channels_last, layout.weight_axes


@torch.compiler.assume_constant_result
@as_torch_errors
def _token(op: str, activation: Any) -> str:
    return token(op, activation)


@as_torch_errors
def _in_force(op: str, backend: str | None, precision: str | None) -> tuple[str | None, str]:
    """What was chosen by whatever means: a gradient may be computed by a thread that knows nothing of the caller's."""
    return choices(backend, None, precision, "")[0] or None, resolve_precision(op, precision)


def _fixed(value: Any) -> Any:
    """Integers for what a compiler may have made symbols: what shapes a convolution is fixed in a graph."""
    if isinstance(value, tuple | list):
        return tuple([_fixed(each) for each in value])
    return index(value) if isinstance(value, int | torch.SymInt) and not isinstance(value, bool) else value


def _watch(activation: Any) -> None:
    """Tie a compiled graph to these very functions: it would take others of the same code for them.

    A compiler that meets an identity compiles again for another.
    """
    for each in activation if isinstance(activation, tuple) else (activation,):
        if callable(each):
            id(each)


def _check(op: str, tensors: dict[str, Any]) -> None:
    """What PyTorch checks before it looks at shapes, in its words as far as they are known.

    Raises
    ------
    TypeError
        For what is no tensor.
    RuntimeError
        For different dtypes or devices.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) and (tensor is not None or name in ("input", "weight")):
            raise TypeError(f"{op}(): argument '{name}' must be Tensor, not {type(tensor).__name__}")
    input = tensors["input"]
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if tensor.device != input.device:
            raise RuntimeError(
                f"{op}: Expected all tensors to be on the same device, but input is on {input.device} "
                f"and {name} on {tensor.device}"
            )
        # Sums of integers are wider than the operands, and what is added to them may be as wide.
        exact = name == "weight" or input.dtype.is_floating_point or input.dtype.is_complex
        if exact and tensor.dtype != input.dtype:
            raise RuntimeError(f"{op}: Input type ({input.dtype}) and {name} type ({tensor.dtype}) should be the same")


def _autocast(kind: str, tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A tensor as autocast gives it to a convolution: in the lower precision, doubles and other kinds as they are."""
    if tensor is None or not tensor.is_floating_point() or tensor.dtype is torch.float64:
        return tensor
    return tensor.to(dtype)


def _last_axes(rank: int, axes: int) -> int:
    """Where the channel axis is in data of so many axes."""
    return axes - rank - 1


def _call(
    rank: int | None,
    transposed: bool,
    operands: tuple[Any, Any, Any, Any],
    names: tuple[str, ...],
    values: tuple[Any, ...],
    formats: tuple[str | None, str | None],
    activation: Any,
    out: Tensor | None,
    stream: object,
    algorithm: str | None,
    backend: str | None,
    precision: str | None,
) -> Tensor:
    """A call of one of the functions below, as a call of an operator."""
    assert rank is not None
    op = f"conv{'_transpose' if transposed else ''}{rank}d"
    if torch.compiler.is_compiling():
        values = _fixed(values)
        _watch(activation)
    else:
        backend, precision = _in_force(op, backend, precision)
    spec, last, weight_axes = _read(rank, transposed, *formats, names, values)
    named = dict(zip(("input", "weight", "bias", "residual"), operands, strict=True))
    for name in ("input", "weight"):
        if not isinstance(named[name], Tensor):
            _check(op, named)
    kind = named["input"].device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        named = {name: _autocast(kind, tensor, dtype) for name, tensor in named.items()}
    _check(op, named)
    input, weight, bias, residual = named.values()
    if weight.dim() == rank + 2:
        weight = weight.permute(weight_axes)
    if last and input.dim() in (rank + 1, rank + 2):
        at = _last_axes(rank, input.dim())
        input = input.movedim(-1, at)
        residual = residual if residual is None or residual.dim() != input.dim() else residual.movedim(-1, at)
    arguments = (input, weight, bias, residual, *spec, _token(op, activation), algorithm, backend, precision)
    with nullcontext() if stream is None else _on_stream(op, input, stream):
        if out is None:
            found: Tensor = convolution(*arguments)
            return found.movedim(_last_axes(rank, found.dim()), -1) if last else found
        _into(op, arguments, out.movedim(-1, _last_axes(rank, out.dim())) if last else out)
        return out


def _into(op: str, arguments: Any, out: Tensor) -> None:
    tensors = [each for each in (*arguments[:4], out) if isinstance(each, Tensor)]
    if torch.is_grad_enabled() and any(each.requires_grad for each in tensors):
        raise RuntimeError(
            f"{op}(): functions with out=... arguments don't support automatic differentiation, but one of the "
            "arguments requires grad."
        )
    if is_forward_mode() and any(forward_ad.unpack_dual(each).tangent is not None for each in tensors):
        raise RuntimeError(
            f"{op}(): functions with out=... arguments don't support forward mode, but one has a tangent"
        )
    convolution_out(*arguments, out)


def _on_stream(op: str, input: Tensor, stream: Any) -> Any:
    if not input.is_cuda:
        raise _no_stream(op)
    if not isinstance(stream, torch.cuda.Stream):
        return torch_stream(handle_of(op, stream), input.device)
    return torch.cuda.stream(stream)


def _no_stream(op: str) -> ArgumentError:
    return ArgumentError(f"{op}: stream is for tensors on a device, but these are in the host's memory")


def _conv(
    rank: int | None,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    padding_value: Scalar = 0,
    data_format: str | None = None,
    weight_format: str | None = None,
    activation: Activation = None,
    residual: Tensor | None = None,
    out: Tensor | None = None,
    stream: object = None,
    algorithm: str | None = None,
    backend: str | None = None,
    precision: str | None = None,
) -> Tensor:
    """`numbaconv.conv{d}` of tensors: differentiable any number of times, compilable, nothing copied.

    Under `torch.autocast` tensors are converted as they are for PyTorch's own convolutions.

    Parameters
    ----------
    input : Tensor of shape (N, C, {spatial}), or (C, {spatial}) without a batch axis
        On the CPU or a CUDA device. Channels last in memory is kept in the result.
    weight : Tensor of shape (O, C / groups, {kernel})
    bias : Tensor of shape (O,), optional
    stride, padding, dilation, groups, padding_mode, padding_value, data_format, weight_format
        As in `numbaconv.conv{d}`. A compiled graph is for the values that it was compiled with.
    activation : str, function or (function, derivative), optional
        A gradient needs a name or a pair; a gradient of a gradient a name. Where the derivative does not follow from
        the result (silu, gelu, hardswish, pairs), the gradient computes the convolution again.
    residual : Tensor of the output's shape, optional
    out : Tensor of the output's shape and dtype, optional
        Where nothing requires gradients.
    stream : CUDA stream or its handle, optional
        For this call; gradients run on the stream that PyTorch gives them.
    algorithm : str, optional
        Of this call; gradients choose their own.
    backend, precision : str, optional
        Of this call and its gradients; without one, that which is in force at the call, or when a compiled graph runs.

    Returns
    -------
    Tensor of shape (N, O, {spatial})

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError, AlgorithmError
        Those of `numbaconv`, and ``RuntimeError`` at once.
    RuntimeError
        For different dtypes or devices; for ``out`` where gradients are required.
    TypeError
        For what is no tensor.

    Examples
    --------
    >>> import torch
    >>> from numbaconv.interop.torch import {name}
    >>> x, w = torch.ones(1, 2, {fives}), torch.ones(4, 2, {threes}, requires_grad=True)
    >>> {name}(x, w, padding=1, activation="relu").sum().backward()
    >>> w.grad.shape == w.shape
    True
    """
    values = (stride, padding, dilation, groups, padding_mode, padding_value)
    formats = (data_format, weight_format)
    operands = (input, weight, bias, residual)
    how = (activation, out, stream, algorithm, backend, precision)
    return _call(rank, False, operands, CONV_ARGUMENTS, values, formats, *how)


def _conv_transpose(
    rank: int | None,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    output_size: Ints | None = None,
    padding_mode: PaddingMode = "zeros",
    data_format: str | None = None,
    weight_format: str | None = None,
    activation: Activation = None,
    residual: Tensor | None = None,
    out: Tensor | None = None,
    stream: object = None,
    algorithm: str | None = None,
    backend: str | None = None,
    precision: str | None = None,
) -> Tensor:
    """`numbaconv.conv_transpose{d}` of tensors: differentiable any number of times, compilable, nothing copied.

    Parameters
    ----------
    input : Tensor of shape (N, C, {spatial}), or (C, {spatial}) without a batch axis
    weight : Tensor of shape (C, O / groups, {kernel})
    bias : Tensor of shape (O,), optional
    stride, padding, output_padding, groups, dilation, output_size, padding_mode, data_format, weight_format
        As in `numbaconv.conv_transpose{d}`.
    activation, residual, out, stream, algorithm, backend, precision
        As in `numbaconv.interop.torch.conv{rank}d`.

    Returns
    -------
    Tensor of shape (N, O, {spatial})

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError, AlgorithmError, RuntimeError, TypeError
        As `numbaconv.interop.torch.conv{rank}d`.

    Examples
    --------
    >>> import torch
    >>> from numbaconv.interop.torch import {name}
    >>> x, w = torch.ones(1, 2, {fives}), torch.ones(2, 3, {twos})
    >>> {name}(x, w, stride=2).shape == (1, 3, {tens})
    True
    """
    values = (stride, padding, dilation, groups, padding_mode, output_padding, output_size)
    formats = (data_format, weight_format)
    operands = (input, weight, bias, residual)
    return _call(
        rank,
        True,
        operands,
        TRANSPOSED_ARGUMENTS,
        values,
        formats,
        activation,
        out,
        stream,
        algorithm,
        backend,
        precision,
    )


conv1d = at_rank("conv{}", _conv, 1)
conv2d = at_rank("conv{}", _conv, 2)
conv3d = at_rank("conv{}", _conv, 3)
conv_transpose1d = at_rank("conv_transpose{}", _conv_transpose, 1)
conv_transpose2d = at_rank("conv_transpose{}", _conv_transpose, 2)
conv_transpose3d = at_rank("conv_transpose{}", _conv_transpose, 3)
