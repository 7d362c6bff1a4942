"""The primitives with gradients in terms of the primitives, so that `jax.grad` may be taken any number of times.

Unlike `numbaconv.grad`, JAX differentiates without conjugation: the gradients here are sums of plain products.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...arrays import like_result
from ...errors import ArgumentError, ShapeError
from ...plan import dtype_name
from .. import spec as primitives
from ..activations import activation_of, derivative, from_output, is_named
from ..spec import name_of
from .callback import Call, run

__all__ = ["convolve"]

#: NumPy's names, and two more, in JAX.
_MATHS = SimpleNamespace(
    abs=jnp.abs,
    erfc=jax.scipy.special.erfc,
    exp=jnp.exp,
    full_like=jnp.full_like,
    ones_like=jnp.ones_like,
    sigmoid=jax.nn.sigmoid,
    where=jnp.where,
    zeros_like=jnp.zeros_like,
)


def _rule_dtype(call: Call, array: Any) -> Any:
    return like_result(name_of(call.spec), {"input": np.dtype(array.dtype)}, {})


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def convolve(call: Call, x: Any, w: Any, bias: Any, residual: Any) -> Any:
    op = name_of(call.spec)
    size = primitives.output_shape(call.spec, x.shape, w.shape, dtype_name(x.dtype), *call.formats)
    channels = size[-1] if call.channels_last else size[len(size) - len(call.spec.stride) - 1]
    if bias is not None and bias.shape != (channels,):
        raise ShapeError(f"{op}: bias has shape {bias.shape}, but there are {channels} output channels")
    if residual is not None and residual.shape != size:
        raise ShapeError(f"{op}: residual has shape {residual.shape}, but the output has {size}")
    extras = {name: each.dtype for name, each in (("bias", bias), ("residual", residual)) if each is not None}
    dtype = like_result(op, {"input": np.dtype(x.dtype)}, extras)
    return run(call, "convolve", size, dtype, x, w, bias, residual)


def _convolve_forward(call: Call, x: Any, w: Any, bias: Any, residual: Any) -> tuple[Any, Any]:
    y = convolve(call, x, w, bias, residual)
    return y, (x, w, bias, residual, y if call.activation and from_output(call.activation) else None)


def _convolve_backward(call: Call, saved: Any, g: Any) -> tuple[Any, ...]:
    x, w, bias, residual, _ = saved
    g = _by_pre_activation(call, saved, g)
    linear = call.plain()
    by_bias = None
    if bias is not None:
        at = g.ndim - 1 if call.channels_last else g.ndim - len(call.spec.stride) - 1
        by_bias = g.sum(tuple(axis for axis in range(g.ndim) if axis != at)).astype(bias.dtype)
    return (
        _by_input(linear, x.shape, w, g),
        _by_weight(linear, w.shape, x, g),
        by_bias,
        None if residual is None else g.astype(residual.dtype),
    )


def _by_pre_activation(call: Call, saved: Any, g: Any) -> Any:
    """The gradient by the sums, from the gradient by the result."""
    x, w, bias, residual, y = saved
    if not call.activation:
        return g
    if y is None:
        before = replace(call, activation="")
        y = convolve(before, x, w, bias, residual)
    if is_named(call.activation):
        wide = y.astype(jnp.float32) if y.dtype.itemsize < 4 else y  # as the kernels compute it
        return (g * derivative(_MATHS, call.activation, wide)).astype(y.dtype)
    if not isinstance(activation_of(call.activation), tuple):
        name = call.activation[1:].split(",")[0]
        raise ArgumentError(
            f"{name_of(call.spec)}: activation {name!r} is a function without a derivative; pass (function, derivative)"
        )
    return _scaled(call, g, y)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _by_input(call: Call, size: tuple[int, ...], w: Any, g: Any) -> Any:
    return run(call, "by_input", size, _rule_dtype(call, g), w, g)


def _by_input_forward(call: Call, size: tuple[int, ...], w: Any, g: Any) -> tuple[Any, Any]:
    return _by_input(call, size, w, g), (w, g)


def _by_input_backward(call: Call, size: tuple[int, ...], saved: Any, again: Any) -> tuple[Any, Any]:
    w, g = saved
    linear = call.linear()
    return _by_weight(linear, w.shape, again, g), convolve(linear, again, w, None, None)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _by_weight(call: Call, size: tuple[int, ...], x: Any, g: Any) -> Any:
    return run(call, "by_weight", size, _rule_dtype(call, g), x, g)


def _by_weight_forward(call: Call, size: tuple[int, ...], x: Any, g: Any) -> tuple[Any, Any]:
    return _by_weight(call, size, x, g), (x, g)


def _by_weight_backward(call: Call, size: tuple[int, ...], saved: Any, again: Any) -> tuple[Any, Any]:
    x, g = saved
    return _by_input(call, x.shape, again, g), convolve(call, x, again, None, None)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scaled(call: Call, g: Any, before: Any) -> Any:
    """The gradient by the sums, for a function of the user's with its derivative."""
    return run(call, "scaled", before.shape, before.dtype, g, before)


def _scaled_forward(call: Call, g: Any, before: Any) -> tuple[Any, Any]:
    raise ArgumentError(
        f"{name_of(call.spec)}: the gradient of a gradient needs the activation's second derivative, which is known "
        "for activations that have names; a function comes with its first alone"
    )


def _scaled_backward(call: Call, saved: Any, again: Any) -> tuple[Any, Any]:
    raise AssertionError("its forward raises")


convolve.defvjp(_convolve_forward, _convolve_backward)
_by_input.defvjp(_by_input_forward, _by_input_backward)
_by_weight.defvjp(_by_weight_forward, _by_weight_backward)
_scaled.defvjp(_scaled_forward, _scaled_backward)
