"""The three primitives as a callback of JAX's into the host's memory.

`jax.pure_callback` hands its function arrays of JAX's, to be copied by threads that callbacks hold while they wait for
such copies: where all of them wait, nothing goes on (seen with one core, and arrays of a megabyte). So there is a
primitive here that is lowered as `jax.pure_callback` is, and hands over NumPy's arrays as they come.

Whether JAX has 64-bit types can differ between threads (``with jax.enable_x64(True)``), and callbacks run in threads
of JAX's own, where results of 64 bits would become narrower. They come back as words of 32 bits, which stay what they
are, and are put together where the program is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir, xla

from ...backends.subnormals import flush_subnormals
from ...backward import scaled_gradient
from .. import spec as primitives
from ..activations import activation_of
from ..spec import Spec, name_of

__all__ = ["Call", "run"]


@dataclass(frozen=True)
class Call:
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
    precision: str
    flushes: bool

    @property
    def formats(self) -> tuple[bool, str | None]:
        return self.channels_last, self.weight_format

    @property
    def how(self) -> dict[str, Any]:
        return {"backend": self.backend, "precision": self.precision}

    def plain(self) -> Call:
        """Without an activation, or an algorithm of its own."""
        return replace(self, activation="", algorithm=None)

    def linear(self) -> Call:
        """Without what padding adds, either."""
        spec = self.spec.without_value()
        return replace(self.plain(), spec=spec, value=repr(spec.padding_value))


def _batched(call: Call, axes: int) -> bool:
    return axes == len(call.spec.stride) + 2


def _conj(value: Any) -> Any:
    return np.conj(value) if np.iscomplexobj(value) else value


@dataclass(frozen=True)
class Host:
    """What a callback runs: one of the primitives, over the axes that `jax.vmap` puts in front.

    Attributes
    ----------
    call : Call
    primitive : str
    axes : tuple of int
        Of each array, without mapped ones; 0 for an array that is not there.
    size : tuple of int
        The result's shape, without mapped axes.
    dtype : str
        The result's.
    """

    call: Call
    primitive: str
    axes: tuple[int, ...]
    size: tuple[int, ...]
    dtype: str

    def __call__(self, *given: Any) -> np.ndarray:
        with flush_subnormals(self.call.flushes):
            return self._run(given)

    def _run(self, given: tuple[Any, ...]) -> np.ndarray:
        rest = iter(given)
        arrays = [next(rest) if count else None for count in self.axes]
        fronts = [
            () if each is None else each.shape[: each.ndim - count]
            for each, count in zip(arrays, self.axes, strict=True)
        ]
        front = np.broadcast_shapes(*fronts)
        found = self._together(arrays, fronts, front) if front else self._one(arrays, self.size)
        if found is None:
            found = np.empty((*front, *self.size), jnp.dtype(self.dtype))
            for at in np.ndindex(front):
                entries = [
                    None if each is None else each[tuple(i if n > 1 else 0 for i, n in zip(at, own, strict=True))]
                    for each, own in zip(arrays, fronts, strict=True)
                ]
                found[at] = self._one(entries, self.size)
        found = found.astype(jnp.dtype(self.dtype), copy=False)
        words = self.words
        return np.ascontiguousarray(found)[..., None].view(np.uint32).reshape(*found.shape, *words) if words else found

    @property
    def words(self) -> tuple[int, ...]:
        """The axes of words behind those of a result: real and imaginary part, and halves of 64 bits."""
        dtype = jnp.dtype(self.dtype)
        parts = (2,) if dtype.kind == "c" else ()
        return (*parts, 2) if dtype.itemsize == 8 * (len(parts) + 1) else ()

    def result(self, words: Any) -> Any:
        """The result, of the words of it."""
        if not self.words:
            return words
        dtype = jnp.dtype(self.dtype)
        parts = jax.lax.bitcast_convert_type(words, np.float64 if dtype.kind == "c" else dtype)
        return jax.lax.complex(parts[..., 0], parts[..., 1]) if dtype.kind == "c" else parts

    def _together(self, arrays: list[Any], fronts: list[Any], front: tuple[int, ...]) -> np.ndarray | None:
        """One call with mapped axes as part of the batch, where only one array has them; None where that is not so."""
        one = 0 if self.primitive == "convolve" else 1  # the data; the other is the weight
        alone = all(n == 1 for at, own in enumerate(fronts) if at != one for n in own)
        lone = self.primitive in ("convolve", "by_input") and _batched(self.call, self.axes[one])
        if not (alone and lone) or (self.primitive == "convolve" and arrays[3] is not None) or 0 in front:
            return None
        entries = [
            None
            if each is None
            else each.reshape(each.shape[len(own) :] if at != one else (-1, *each.shape[len(own) + 1 :]))
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
                **call.how,
            )
        # Conjugates of what numbaconv conjugates: the sums have plain products.
        elif self.primitive == "by_input":
            found = primitives.by_input(call.spec, size, _conj(first), second, *call.formats, **call.how)
        elif self.primitive == "by_weight":
            spec = call.spec._replace(padding_value=_conj(call.spec.padding_value))
            found = primitives.by_weight(spec, _conj(first), size, second, *call.formats, **call.how)
        else:
            activation = activation_of(call.activation)
            found, fill = scaled_gradient(name_of(call.spec), _conj(first), activation, second, None, call.backend)
            fill()
            found = _conj(found)
        result: np.ndarray = found
        return result


_callback: Any = Primitive("numbaconv")
_callback.def_impl(lambda *arrays, **given: xla.apply_primitive(_callback, *arrays, **given))


@_callback.def_abstract_eval
def _(*arrays: Any, host: Host, front: tuple[int, ...]) -> Any:
    return jax.core.ShapedArray((*front, *host.size, *host.words), jnp.uint32 if host.words else jnp.dtype(host.dtype))


def _lowered(context: Any, *arrays: Any, host: Host, front: tuple[int, ...]) -> Any:
    results, _, _ = mlir.emit_python_callback(
        context,
        lambda *given: (host(*given),),
        None,
        list(arrays),
        context.avals_in,
        context.avals_out,
        has_side_effect=False,
        returns_token=False,
    )
    return results


def _mapped(arrays: Any, dims: Any, *, host: Host, front: tuple[int, ...]) -> tuple[Any, int]:
    """Mapped axes are put in front; an array that is not mapped has an extent of one there."""
    (size,) = {each.shape[dim] for each, dim in zip(arrays, dims, strict=True) if dim is not None}
    given = [
        jnp.expand_dims(each, 0) if dim is None else jnp.moveaxis(each, dim, 0)
        for each, dim in zip(arrays, dims, strict=True)
    ]
    return _callback.bind(*given, host=host, front=(size, *front)), 0


mlir.register_lowering(_callback, _lowered, cacheable=False)
batching.primitive_batchers[_callback] = _mapped


def run(call: Call, primitive: str, size: Any, dtype: Any, *arrays: Any) -> Any:
    """A primitive of these arrays, some of which may be None."""
    # Wider than JAX has without ``jax_enable_x64`` is as wide as it has.
    wide = jax.dtypes.canonicalize_dtype(dtype)
    axes = tuple(0 if each is None else each.ndim for each in arrays)
    host = Host(call, primitive, axes, tuple(size), wide.name)
    return host.result(_callback.bind(*(each for each in arrays if each is not None), host=host, front=()))
