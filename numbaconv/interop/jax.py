"""Convolutions of JAX's arrays: under `jax.jit`, `jax.grad` any number of times, and `jax.vmap`.

The three primitives are callbacks into the host's memory, each with gradients that are the other two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import like_result
from ..backends.registry import resolve
from ..backward import scaled_gradient
from ..errors import ArgumentError, ShapeError
from ..extras import require
from ..functional import CONV_ARGUMENTS, TRANSPOSED_ARGUMENTS, Activation
from ..plan import Ints, Padding, PaddingMode, Scalar, dtype_name, dtype_rule
from ..ranks import at_rank
from . import spec as primitives
from .activations import activation_of, derivative, from_output, is_named, token
from .spec import Spec, name_of

require("jax", "jax", "numbaconv.interop.jax")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

if TYPE_CHECKING:
    Array = Any
else:
    Array = jax.Array

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]

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


@dataclass(frozen=True)
class _Call:
    """All of a call but its arrays. Equal calls share what is compiled for them.

    ``value`` is the padding's value as written: 0.0 and -0.0 are equal.
    """

    spec: Spec
    value: str
    channels_last: bool
    weight_format: str | None
    activation: str
    algorithm: str | None
    backend: str

    @property
    def formats(self) -> tuple[bool, str | None]:
        return self.channels_last, self.weight_format

    def linear(self) -> _Call:
        """Without what is added to the sums, and what is done to them."""
        spec = self.spec.without_value()
        return _Call(spec, repr(spec.padding_value), *self.formats, "", None, self.backend)

    def plain(self) -> _Call:
        """With padding of a constant, but no activation and no algorithm of its own."""
        return _Call(self.spec, self.value, *self.formats, "", None, self.backend)


def _batched(call: _Call, axes: int) -> bool:
    return axes == len(call.spec.stride) + 2


@dataclass(frozen=True)
class _Host:
    """What a callback runs: one of the primitives, over the axes that `jax.vmap` puts in front.

    Attributes
    ----------
    call : _Call
    primitive : str
    axes : tuple of int
        Of each array, without mapped ones; 0 for an array that is not there.
    size : tuple of int
        The result's shape, without mapped axes.
    dtype : str
        The result's.
    """

    call: _Call
    primitive: str
    axes: tuple[int, ...]
    size: tuple[int, ...]
    dtype: str

    def __call__(self, *given: Any) -> np.ndarray:
        # Seen at once and for all as NumPy's: nothing of JAX is called from inside a callback.
        rest = iter(given)
        arrays = [np.asarray(next(rest)) if count else None for count in self.axes]
        fronts = [
            () if each is None else each.shape[: each.ndim - count]
            for each, count in zip(arrays, self.axes, strict=True)
        ]
        front = np.broadcast_shapes(*fronts)
        found = self._together(arrays, fronts, front) if front else self._one(arrays, self.size)
        if found is None:
            found = np.empty((*front, *self.size), np.dtype(jnp.dtype(self.dtype)))
            for at in np.ndindex(front):
                entries = [
                    None if each is None else each[tuple(i if n > 1 else 0 for i, n in zip(at, own, strict=True))]
                    for each, own in zip(arrays, fronts, strict=True)
                ]
                found[at] = self._one(entries, self.size)
        return found.astype(jnp.dtype(self.dtype), copy=False)

    def _together(self, arrays: list[Any], fronts: list[Any], front: tuple[int, ...]) -> np.ndarray | None:
        """One call with mapped axes as part of the batch, where only one array has them; None where that is not so."""
        one = 0 if self.primitive == "convolve" else 1  # the data; the other is the weight
        alone = all(n == 1 for at, own in enumerate(fronts) if at != one for n in own)
        lone = self.primitive in ("convolve", "by_input") and _batched(self.call, self.axes[one])
        if not (alone and lone) or (self.primitive == "convolve" and arrays[3] is not None) or 0 in front:
            return None
        entries = [
            None if each is None else each.reshape(each.shape[len(own) :] if at != one else (-1, *each.shape[len(own) + 1 :]))
            for at, (each, own) in enumerate(zip(arrays, fronts, strict=True))
        ]
        size = (int(np.prod(front)) * self.size[0], *self.size[1:])
        return self._one(entries, size).reshape(*front, *self.size)

    def _one(self, arrays: list[Any], size: tuple[int, ...]) -> np.ndarray:
        call = self.call
        first, second, *extras = arrays
        if self.primitive == "convolve":
            found = primitives.convolve(
                call.spec,
                first,
                second,
                *call.formats,
                bias=extras[0],
                residual=extras[1],
                activation=activation_of(call.activation),
                algorithm=call.algorithm,
                backend=call.backend,
            )
        elif self.primitive == "by_input":
            found = primitives.by_input(call.spec, size, first, second, *call.formats, backend=call.backend)
        elif self.primitive == "by_weight":
            found = primitives.by_weight(call.spec, first, size, second, *call.formats, backend=call.backend)
        else:
            found, fill = scaled_gradient(
                name_of(call.spec), first, activation_of(call.activation), second, None, call.backend
            )
            fill()
        return np.asarray(found)


def _run(call: _Call, primitive: str, size: Any, dtype: Any, *arrays: Any) -> Any:
    """A callback with these arrays, some of which may be None."""
    # Wider than JAX has without ``jax_enable_x64`` is as wide as it has.
    result = jax.ShapeDtypeStruct(tuple(size), jax.dtypes.canonicalize_dtype(dtype))
    axes = tuple(0 if each is None else each.ndim for each in arrays)
    host = _Host(call, primitive, axes, tuple(size), result.dtype.name)
    return jax.pure_callback(host, result, *(each for each in arrays if each is not None), vmap_method="expand_dims")


def _rule_dtype(call: _Call, array: Any) -> Any:
    return like_result(name_of(call.spec), np.dtype(array.dtype), {})


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(call: _Call, x: Any, w: Any, bias: Any, residual: Any) -> Any:
    op = name_of(call.spec)
    size = primitives.output_shape(call.spec, x.shape, w.shape, dtype_name(x.dtype), *call.formats)
    channels = size[-1] if call.channels_last else size[len(size) - len(call.spec.stride) - 1]
    if bias is not None and bias.shape != (channels,):
        raise ShapeError(f"{op}: bias has shape {bias.shape}, but there are {channels} output channels")
    if residual is not None and residual.shape != size:
        raise ShapeError(f"{op}: residual has shape {residual.shape}, but the output has {size}")
    extras = {name: each.dtype for name, each in (("bias", bias), ("residual", residual)) if each is not None}
    dtype = like_result(op, np.dtype(x.dtype), extras)
    return _run(call, "convolve", size, dtype, x, w, bias, residual)


def _convolve_forward(call: _Call, x: Any, w: Any, bias: Any, residual: Any) -> tuple[Any, Any]:
    y = _convolve(call, x, w, bias, residual)
    return y, (x, w, bias, residual, y if call.activation and from_output(call.activation) else None)


def _convolve_backward(call: _Call, saved: Any, g: Any) -> tuple[Any, ...]:
    x, w, bias, residual, y = saved
    g = _by_pre_activation(call, saved, g)
    linear = call.plain()
    by_bias = None
    if bias is not None:
        at = g.ndim - 1 if call.channels_last else g.ndim - len(call.spec.stride) - 1
        by_bias = g.sum([axis for axis in range(g.ndim) if axis != at]).astype(bias.dtype)
    return (
        _by_input(linear, x.shape, w, g),
        _by_weight(linear, w.shape, x, g),
        by_bias,
        None if residual is None else g.astype(residual.dtype),
    )


def _by_pre_activation(call: _Call, saved: Any, g: Any) -> Any:
    """The gradient by the sums, from the gradient by the result."""
    x, w, bias, residual, y = saved
    if not call.activation:
        return g
    if y is None:
        before = _Call(call.spec, call.value, *call.formats, "", call.algorithm, call.backend)
        y = _convolve(before, x, w, bias, residual)
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
def _by_input(call: _Call, size: tuple[int, ...], w: Any, g: Any) -> Any:
    return _run(call, "by_input", size, _rule_dtype(call, g), w, g)


def _by_input_forward(call: _Call, size: tuple[int, ...], w: Any, g: Any) -> tuple[Any, Any]:
    return _by_input(call, size, w, g), (w, g)


def _by_input_backward(call: _Call, size: tuple[int, ...], saved: Any, again: Any) -> tuple[Any, Any]:
    w, g = saved
    linear = call.linear()
    return _by_weight(linear, w.shape, again, g), _convolve(linear, again, w, None, None)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _by_weight(call: _Call, size: tuple[int, ...], x: Any, g: Any) -> Any:
    return _run(call, "by_weight", size, _rule_dtype(call, g), x, g)


def _by_weight_forward(call: _Call, size: tuple[int, ...], x: Any, g: Any) -> tuple[Any, Any]:
    return _by_weight(call, size, x, g), (x, g)


def _by_weight_backward(call: _Call, size: tuple[int, ...], saved: Any, again: Any) -> tuple[Any, Any]:
    x, g = saved
    return _by_input(call, x.shape, again, g), _convolve(call, x, again, None, None)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scaled(call: _Call, g: Any, before: Any) -> Any:
    """The gradient by the sums, for a function of the user's with its derivative."""
    return _run(call, "scaled", before.shape, before.dtype, g, before)


def _scaled_forward(call: _Call, g: Any, before: Any) -> tuple[Any, Any]:
    raise ArgumentError(
        f"{name_of(call.spec)}: the gradient of a gradient needs the activation's second derivative, which is known "
        "for activations that have names; a function comes with its first alone"
    )


def _scaled_backward(call: _Call, saved: Any, again: Any) -> tuple[Any, Any]:
    raise AssertionError("its forward raises")


_convolve.defvjp(_convolve_forward, _convolve_backward)
_by_input.defvjp(_by_input_forward, _by_input_backward)
_by_weight.defvjp(_by_weight_forward, _by_weight_backward)
_scaled.defvjp(_scaled_forward, _scaled_backward)

_HWIO = {1: "WIO", 2: "HWIO", 3: "DHWIO"}


def _called(
    rank: int,
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
) -> Any:
    """A call of one of the functions below, as a call of a primitive."""
    spec, layout = primitives.read(rank, transposed, *formats, names, values)
    op = name_of(spec)
    for name, value in (("out", out), ("stream", stream)):
        if value is not None:
            raise ArgumentError(f"{op}: {name} is not for JAX's arrays, which cannot be written and have no streams")
    given = dict(zip(("input", "weight", "bias", "residual"), operands, strict=True))
    arrays = {name: jnp.asarray(each) for name, each in given.items() if each is not None or name in ("input", "weight")}
    common = jnp.promote_types(arrays["input"].dtype, arrays["weight"].dtype)
    if jnp.issubdtype(common, jnp.inexact):  # what is added to sums of integers is as wide as those
        common = jnp.result_type(common, *arrays.values())
    dtype_rule(op, "input", common)
    for name, each in arrays.items():
        if name in ("input", "weight") or jnp.issubdtype(common, jnp.inexact):
            arrays[name] = each.astype(common)
    weight_format = formats[1] or (_HWIO[rank] if layout.channels_last else None)
    # A callback runs in a thread of JAX's, where no context manager of the caller's reaches.
    chosen = resolve(backend).name
    call = _Call(
        spec, repr(spec.padding_value), layout.channels_last, weight_format, token(op, activation), algorithm, chosen
    )
    return _convolve(call, arrays["input"], arrays["weight"], arrays.get("bias"), arrays.get("residual"))


def _conv(
    rank: int,
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
    backend : str, optional
        Of this call and its gradients; without one, that which is in force while tracing.

    Returns
    -------
    array of shape (N, O, {spatial})
        Mixed dtypes follow `jax.numpy.promote_types`. Without ``jax_enable_x64`` 64-bit results are 32 bits wide.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError
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
    return _called(
        rank, False, operands, CONV_ARGUMENTS, values, formats, activation, out, stream, algorithm, backend
    )


def _conv_transpose(
    rank: int,
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
) -> Array:
    """`numbaconv.conv_transpose{d}` of JAX's arrays, under `jax.jit`, `jax.grad` and `jax.vmap`.

    Parameters
    ----------
    input : array of shape (N, C, {spatial}), or (C, {spatial}) without a batch axis
    weight : array of shape (C, O / groups, {kernel})
    bias : array of shape (O,), optional
    stride, padding, output_padding, groups, dilation, output_size, padding_mode, data_format, weight_format
        As in `numbaconv.conv_transpose{d}`; known while tracing.
    activation, residual, out, stream, algorithm, backend
        As in `numbaconv.interop.jax.conv{rank}d`.

    Returns
    -------
    array of shape (N, O, {spatial})

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError
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
        rank, True, operands, TRANSPOSED_ARGUMENTS, values, formats, activation, out, stream, algorithm, backend
    )


conv1d = at_rank("conv{}", _conv, 1)
conv2d = at_rank("conv{}", _conv, 2)
conv3d = at_rank("conv{}", _conv, 3)
conv_transpose1d = at_rank("conv_transpose{}", _conv_transpose, 1)
conv_transpose2d = at_rank("conv_transpose{}", _conv_transpose, 2)
conv_transpose3d = at_rank("conv_transpose{}", _conv_transpose, 3)
