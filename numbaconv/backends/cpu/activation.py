"""Activations compiled into C functions over a row, for kernels to call by address."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numba
import numpy as np
from numba import carray, cfunc, types
from numba.core.dispatcher import Dispatcher

from ...arrays import Array
from ...errors import ArgumentError, DTypeError
from ..activations import Activation, not_compiled
from .jit import scalar

__all__ = ["ACTIVATION", "activation_grad", "check_activation", "check_raised", "compiled_row"]

#: Numba's type of what a kernel gets: the address of a row function (0: none), and whether it has raised.
ACTIVATION = types.Array(types.int64, 1, "C")

# Keyed by the function object, which the compiled row keeps alive anyway.
_rows: dict[tuple[Any, str], Any] = {}
_loops: dict[tuple[Any, str], Any] = {}


def _name(function: Any) -> str:
    return getattr(function, "__name__", None) or repr(function)


def _compiled(what: str, function: Any, dtype: np.dtype) -> Any:
    """A scalar function compiled for a dtype, with this package's error model: division by zero does not raise.

    Raises
    ------
    DTypeError
        If it cannot be compiled or does not give a result that the dtype holds.
    """
    plain = function.py_func if isinstance(function, Dispatcher) else function
    if not isinstance(plain, FunctionType) or plain.__defaults__:  # a ufunc, a builtin, or more than one argument

        def call(value):
            return wrapped(value)

        wrapped, plain = (scalar(plain) if isinstance(plain, FunctionType) else plain), call
    kind = numba.from_dtype(dtype)
    try:
        compiled = scalar(plain)
        compiled.compile((kind,))
    except Exception as error:  # Numba's own, and what looking at the function's names raises
        raise not_compiled(what, _name(function), dtype.name, error) from None
    result = compiled.overloads[(kind,)].signature.return_type
    holds = {"i": (), "f": (types.Float,), "c": (types.Float, types.Complex)}[dtype.kind]
    if not isinstance(result, (types.Integer, types.Boolean, *holds)):
        raise DTypeError(f"{what} {_name(function)!r} maps {dtype.name} to {result}, not to {dtype.name}")
    return compiled


def _make_row(function: Any, dtype: np.dtype) -> Any:
    compiled, kind = _compiled("activation", function, dtype), numba.from_dtype(dtype)

    @cfunc(types.int64(types.CPointer(kind), types.int64), error_model="numpy")
    def row(pointer, count):
        values = carray(pointer, count)
        try:
            for i in range(count):
                values[i] = compiled(values[i])
        except Exception:
            return 1
        return 0

    return row


def _kept(
    cache: dict[tuple[Any, str], Any], make: Callable[[Any, np.dtype], Any], function: Any, dtype: np.dtype
) -> Any:
    """What is made of a function, once a function and dtype."""
    try:
        found = cache.get((function, dtype.name))
    except TypeError:
        raise DTypeError(f"activation {_name(function)!r} cannot be hashed; pass a function") from None
    if found is None:
        found = cache[function, dtype.name] = make(function, dtype)
    return found


def compiled_row(activation: Activation | None, dtype: np.dtype) -> Array:
    """What kernels take for an activation: the address of its row function, and a place to say that it raised.

    Raises
    ------
    DTypeError
        If the function cannot be compiled or does not give a result of the dtype.
    """
    found = np.zeros(2, np.int64)
    if activation is not None:
        found[0] = _kept(_rows, _make_row, activation.function, dtype).address
    return found


def check_activation(activation: Activation, compute_dtype: str) -> None:
    """Compile an activation before any work, so that one which cannot be raises then."""
    compiled_row(activation, np.dtype(compute_dtype))


def check_raised(activation: Activation | None, row: Array) -> None:
    """Turn an exception inside an activation, which cannot leave a kernel, into one here."""
    if activation is not None and row[1]:
        raise ArgumentError(f"activation {activation.name!r} raised an exception; the result is not valid")


def _make_loop(derivative: Any, dtype: np.dtype) -> Any:
    compiled = _compiled("derivative", derivative, dtype)

    @scalar
    def loop(grad, saved, out):
        for i in range(out.size):
            out[i] = grad[i] * compiled(saved[i])

    return loop


def activation_grad(derivative: Callable[..., Any], grad: Array, saved: Array, out: Array) -> None:
    """``out = grad * derivative(saved)``, elementwise."""
    result = np.empty(out.size, grad.dtype)
    _kept(_loops, _make_loop, derivative, grad.dtype)(np.ravel(grad), np.ravel(saved), result)
    with np.errstate(over="ignore"):
        out[...] = result.reshape(out.shape)
