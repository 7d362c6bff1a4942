"""Activations compiled into C functions over a row, for kernels to call by address."""

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import numba
import numpy as np
from numba import carray, cfunc, types
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError

from ...arrays import Array
from ...errors import ArgumentError, DTypeError
from ..activations import Activation
from .jit import scalar

__all__ = ["ACTIVATION", "activation_grad", "check_raised", "compiled_row"]

#: Numba's type of what a kernel gets: the address of a row function (0: none), and whether it has raised.
ACTIVATION = types.Array(types.int64, 1, "C")

# Keyed by the function object, which the compiled row keeps alive anyway.
_rows: dict[tuple[Any, str], Any] = {}
_loops: dict[Any, Any] = {}


def _name(function: Any) -> str:
    return getattr(function, "__name__", None) or repr(function)


def _compilable(function: Any) -> Any:
    """The function as a dispatcher, with this package's error model: division by zero does not raise."""
    if isinstance(function, Dispatcher):
        function = function.py_func
    if not isinstance(function, FunctionType):  # a ufunc or builtin, which Numba knows inside a function

        def call(value):
            return wrapped(value)

        wrapped, function = function, call
    return scalar(function)


def _make_row(activation: Activation, dtype: np.dtype) -> Any:
    kind = numba.from_dtype(dtype)
    try:
        function = _compilable(activation.function)
        function.compile((kind,))
        result = function.overloads[(kind,)].signature.return_type
        whole = isinstance(result, types.Integer | types.Boolean)
        fits = whole or (
            isinstance(result, types.Float | types.Complex)
            and dtype.kind in ("c" if isinstance(result, types.Complex) else "fc")
        )
        if not fits:
            raise DTypeError(f"activation {activation.name!r} maps {dtype.name} to {result}, not to {dtype.name}")

        @cfunc(types.int64(types.CPointer(kind), types.int64), error_model="numpy")
        def row(pointer, count):
            values = carray(pointer, count)
            try:
                for i in range(count):
                    values[i] = function(values[i])
            except Exception:
                return 1
            return 0

    except DTypeError:
        raise
    except (NumbaError, TypeError) as error:
        raise DTypeError(f"activation {activation.name!r} cannot be compiled for {dtype.name}: {error}") from error
    return row


def compiled_row(activation: Activation | None, dtype: np.dtype) -> Array:
    """What kernels take for an activation: the address of its row function, and a place to say that it raised.

    Raises
    ------
    DTypeError
        If the function cannot be compiled or does not give a result of the dtype.
    """
    found = np.zeros(2, np.int64)
    if activation is not None:
        key = (activation.function, dtype.name)
        row = _rows.get(key)
        if row is None:
            row = _rows[key] = _make_row(activation, dtype)
        found[0] = row.address
    return found


def check_raised(activation: Activation | None, row: Array) -> None:
    """Turn an exception inside an activation, which cannot leave a kernel, into one here."""
    if row[1]:
        assert activation is not None
        raise ArgumentError(f"activation {activation.name!r} raised an exception; the result is not valid")


def _loop(function, grad, saved, out):
    for i in range(out.size):
        out[i] = grad[i] * function(saved[i])


def activation_grad(derivative: Callable[..., Any], grad: Array, saved: Array, out: Array) -> None:
    """``out = grad * derivative(saved)``, elementwise."""
    result = np.empty(out.size, grad.dtype)
    try:
        loop = _loops.get(derivative)
        if loop is None:
            loop = _loops[derivative] = partial(scalar(_loop), _compilable(derivative))
        loop(np.ravel(grad), np.ravel(saved), result)
    except (NumbaError, TypeError) as error:
        raise DTypeError(f"derivative {_name(derivative)!r} cannot be compiled for {grad.dtype}: {error}") from error
    with np.errstate(over="ignore"):
        out[...] = result.reshape(out.shape)
