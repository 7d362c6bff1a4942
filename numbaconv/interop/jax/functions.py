"""Differentiable convolutions of JAX's arrays, with the signatures of `numbaconv.functional`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from ...backends.registry import resolve, resolve_precision
from ...backends.subnormals import flushes_subnormals
from ...dispatch import judge
from ...errors import ArgumentError
from ...functional import CONV, CONV_ARGUMENTS, CONV_TRANSPOSE, TRANSPOSED_ARGUMENTS, Activation
from ...plan import Ints, Padding, PaddingMode, Scalar, dtype_rule
from ...ranks import at_rank
from .. import spec as primitives
from ..activations import token
from ..spec import name_of
from .callback import Call
from .gradients import convolve

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]

_HWIO = {1: "WIO", 2: "HWIO", 3: "DHWIO"}


def _judge(
    transposed: bool,
    rank: int,
    arrays: dict[str, Any],
    arguments: tuple[tuple[str, ...], tuple[Any, ...]],
    formats: tuple[str | None, str | None],
    activation: Any,
    algorithm: str | None,
    how: tuple[str, str],
) -> None:
    """Raise now what the callback would raise later, where JAX makes a JaxRuntimeError of it."""
    given = {name: np.broadcast_to(np.zeros((), each.dtype), each.shape) for name, each in arrays.items()}
    judge(
        CONV_TRANSPOSE if transposed else CONV,
        rank,
        given["input"],
        given["weight"],
        *arguments,
        data_format=formats[0],
        weight_format=formats[1],
        bias=given.get("bias"),
        residual=given.get("residual"),
        activation=activation,
        algorithm=algorithm,
        backend=how[0],
        precision=how[1],
        stand_in=lambda plan: plan,  # nothing is tuned while tracing
    )


def _called(
    rank: int | None,
    transposed: bool,
    operands: tuple[Any, Any, Any, Any],
    names: tuple[str, ...],
    values: tuple[Any, ...],
    formats: tuple[str | None, str | None],
    activation: Any,
    out: object,
    stream: object,
    algorithm: str | None,
    backend: str | None,
    precision: str | None,
) -> Any:
    """A call of one of the functions below, as a call of a primitive."""
    assert rank is not None
    spec, layout = primitives.read(rank, transposed, *formats, names, values)
    op = name_of(spec)
    for name, value in (("out", out), ("stream", stream)):
        if value is not None:
            raise ArgumentError(f"{op}: {name} is not for JAX's arrays, which cannot be written and have no streams")
    given = dict(zip(("input", "weight", "bias", "residual"), operands, strict=True))
    arrays = {
        name: jnp.asarray(each) for name, each in given.items() if each is not None or name in ("input", "weight")
    }
    common = jnp.promote_types(arrays["input"].dtype, arrays["weight"].dtype)
    if jnp.issubdtype(common, jnp.inexact):  # what is added to sums of integers is as wide as those
        common = jnp.result_type(common, *arrays.values())
    dtype_rule(op, "input", common)
    for name, each in arrays.items():
        if name in ("input", "weight") or jnp.issubdtype(common, jnp.inexact):
            arrays[name] = each.astype(common)
    weight_format = formats[1] or (_HWIO[rank] if layout.channels_last else None)
    # A callback runs in a thread of JAX's, where no context manager of the caller's reaches.
    how = resolve(backend).name, resolve_precision(op, precision)
    flushes = flushes_subnormals(op)
    _judge(spec.transposed, rank, arrays, (names, values), (formats[0], weight_format), activation, algorithm, how)
    named = token(op, activation)
    call = Call(spec, repr(spec.padding_value), layout.channels_last, weight_format, named, algorithm, *how, flushes)
    return convolve(call, arrays["input"], arrays["weight"], arrays.get("bias"), arrays.get("residual"))


def _conv(
    rank: int | None,
    input: Array,
    weight: Array,
    bias: Array | None = None,
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
    residual: Array | None = None,
    out: None = None,
    stream: None = None,
    algorithm: str | None = None,
    backend: str | None = None,
    precision: str | None = None,
) -> Array:
    """`numbaconv.conv{d}` of JAX's arrays, under `jax.jit`, `jax.grad` and `jax.vmap`.

    A callback computes it in the host's memory. Gradients in reverse mode have every order; there is no forward mode.

    Parameters
    ----------
    input : array of shape (N, C, {spatial}), or (C, {spatial}) without a batch axis
    weight : array of shape (O, C / groups, {kernel})
    bias : array of shape (O,), optional
    stride, padding, dilation, groups, padding_mode, padding_value, data_format, weight_format
        As in `numbaconv.conv{d}`; known while tracing.
    activation : str, function or (function, derivative), optional
        A gradient needs a name or a pair; a gradient of a gradient a name. Where the derivative does not follow from
        the result (silu, gelu, hardswish, pairs), the gradient computes the convolution again.
    residual : array of the output's shape, optional
    out, stream
        None: JAX's arrays are not written into.
    algorithm : str, optional
        Of this call; gradients choose their own.
    backend, precision : str, optional
        Of this call and its gradients; without one, that which is in force while tracing.

    Returns
    -------
    array of shape (N, O, {spatial})
        Mixed dtypes follow `jax.numpy.promote_types`. Without ``jax_enable_x64`` 64-bit results are 32 bits wide.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError, AlgorithmError
        As `numbaconv.conv{d}`, while tracing.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from numbaconv.interop.jax import {name}
    >>> x, w = jnp.ones((1, 2, {fives})), jnp.ones((4, 2, {threes}))
    >>> loss = jax.jit(lambda w: {name}(x, w, padding=1, activation="relu").sum())
    >>> jax.grad(loss)(w).shape == w.shape
    True
    """
    values = (stride, padding, dilation, groups, padding_mode, padding_value)
    formats, operands = (data_format, weight_format), (input, weight, bias, residual)
    how = (activation, out, stream, algorithm, backend, precision)
    return _called(rank, False, operands, CONV_ARGUMENTS, values, formats, *how)


def _conv_transpose(
    rank: int | None,
    input: Array,
    weight: Array,
    bias: Array | None = None,
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
    residual: Array | None = None,
    out: None = None,
    stream: None = None,
    algorithm: str | None = None,
    backend: str | None = None,
    precision: str | None = None,
) -> Array:
    """`numbaconv.conv_transpose{d}` of JAX's arrays, under `jax.jit`, `jax.grad` and `jax.vmap`.

    Parameters
    ----------
    input : array of shape (N, C, {spatial}), or (C, {spatial}) without a batch axis
    weight : array of shape (C, O / groups, {kernel})
    bias : array of shape (O,), optional
    stride, padding, output_padding, groups, dilation, output_size, padding_mode, data_format, weight_format
        As in `numbaconv.conv_transpose{d}`; known while tracing.
    activation, residual, out, stream, algorithm, backend, precision
        As in `numbaconv.interop.jax.conv{rank}d`.

    Returns
    -------
    array of shape (N, O, {spatial})

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError, AlgorithmError
        As `numbaconv.interop.jax.conv{rank}d`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from numbaconv.interop.jax import {name}
    >>> {name}(jnp.ones((1, 2, {fives})), jnp.ones((2, 3, {twos})), stride=2).shape == (1, 3, {tens})
    True
    """
    values = (stride, padding, dilation, groups, padding_mode, output_padding, output_size)
    formats, operands = (data_format, weight_format), (input, weight, bias, residual)
    return _called(
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
