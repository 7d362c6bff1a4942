"""Activations compiled into C functions over a row, for kernels to call by address.

Numba never gives back the memory of what it has compiled: each function costs most of a megabyte for as long as the
process lives, also after it was forgotten here. So equal functions are compiled once (`backends.functions`), and who
compiles very many different ones is told.
"""

import warnings
from collections.abc import Callable
from functools import lru_cache
from itertools import count
from types import FunctionType
from typing import Any

import numba
import numpy as np
from numba import carray, cfunc, types
from numba.core.dispatcher import Dispatcher

from ...arrays import Array
from ...compiling import compiling
from ...errors import ArgumentError, DTypeError
from ..activations import Activation, not_compiled
from .jit import called, scalar

__all__ = ["ACTIVATION", "activation_grad", "check_activation", "check_raised", "compiled_row"]

#: Numba's type of what a kernel gets: the address of a row function (0: none), and whether it has raised.
ACTIVATION = types.Array(types.int64, 1, "C")

#: Rows and loops that are kept, of all functions and dtypes: the newest.
_MOST_KEPT = 256
#: So many compiled functions are more than a program has layers: values that vary were written into functions.
_MANY = 500


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

        wrapped, plain = (called(plain) if isinstance(plain, FunctionType) else plain), call
    kind = numba.from_dtype(dtype)
    try:
        compiled = called(plain)
        compiled.compile((kind,))
    except Exception as error:  # Numba's own, and what looking at the function's names raises
        raise not_compiled(what, _name(function), dtype.name, error) from None
    result = compiled.overloads[(kind,)].signature.return_type
    holds = {"i": (), "u": (), "f": (types.Float,), "c": (types.Float, types.Complex)}[dtype.kind]
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


#: How many functions were compiled so far, as the next number.
_compiled_functions = count(1)


def _count(function: Any) -> None:
    if next(_compiled_functions) == _MANY:
        warnings.warn(
            f"{_MANY} activation functions were compiled, of which Numba keeps nearly a megabyte each; the newest is "
            f"{_name(function)!r}. A number that varies from call to call belongs into a bias or a weight, not into a "
            "function",
            RuntimeWarning,
            stacklevel=2,
        )


@lru_cache(maxsize=_MOST_KEPT)
def _row(function: Any, dtype: np.dtype) -> Any:
    _count(function)
    with compiling(f"activation {_name(function)!r} for {dtype.name}"):
        return _make_row(function, dtype)


@lru_cache(maxsize=_MOST_KEPT)
def _loop(derivative: Any, dtype: np.dtype) -> Any:
    _count(derivative)
    with compiling(f"derivative {_name(derivative)!r} for {dtype.name}"):
        return _make_loop(derivative, dtype)


def _kept(cache: Callable[[Any, np.dtype], Any], function: Any, dtype: np.dtype) -> Any:
    """What is made of a function, once a function and dtype while it is among the newest."""
    try:
        hash(function)
    except TypeError:
        raise DTypeError(f"activation {_name(function)!r} cannot be hashed; pass a function") from None
    return cache(function, dtype)


class _Place(bytearray):
    """Memory of two integers that keeps a row alive: who holds the address may run it, whatever is forgotten."""

    row: Any = None


def compiled_row(activation: Activation | None, dtype: np.dtype) -> Array:
    """What kernels take for an activation: the address of its row function, and a place to say that it raised.

    Raises
    ------
    DTypeError
        If the function cannot be compiled or does not give a result of the dtype.
    """
    if activation is None:
        return np.zeros(2, np.int64)
    place = _Place(16)
    place.row = _kept(_row, activation.function, dtype)
    found: Array = np.frombuffer(place, np.int64)
    found[0] = place.row.address
    return found


def check_activation(activation: Activation, compute_dtype: str) -> None:
    """Compile an activation before any work, so that one which cannot be raises then."""
    compiled_row(activation, np.dtype(compute_dtype))


def check_raised(activation: Activation | None, row: Array) -> None:
    """Turn an exception inside an activation, which cannot leave a kernel, into one here."""
    if activation is not None and row[1]:
        raise ArgumentError(f"activation {activation.name!r} raised an exception; the result is not valid")


def _make_loop(derivative: Any, dtype: np.dtype) -> Any:
    compiled, unsigned = _compiled("derivative", derivative, dtype), dtype.kind == "u"

    @scalar
    def loop(grad, saved, out):
        for i in range(out.size):
            out[i] = grad[i] * (out.dtype.type(compiled(saved[i])) if unsigned else compiled(saved[i]))

    return loop


def activation_grad(derivative: Callable[..., Any], grad: Array, saved: Array, out: Array) -> None:
    """``out = grad * derivative(saved)``, elementwise."""
    result = np.empty(out.size, grad.dtype)
    _kept(_loop, derivative, grad.dtype)(np.ravel(grad), np.ravel(saved), result)
    out[...] = result.reshape(out.shape)
