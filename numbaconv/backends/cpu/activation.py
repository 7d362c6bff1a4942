"""Activations compiled into C functions over a row, for kernels to call by address."""

import dis
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import carray, cfunc, types
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError

from ...arrays import Array
from ...errors import DTypeError
from ..activations import Activation
from .jit import scalar

__all__ = ["activation_grad", "row_address"]

# Keyed by the function object, which the compiled row keeps alive anyway.
_rows: dict[tuple[Any, str], Any] = {}
_loops: dict[Any, Any] = {}


def _compiled(function: Callable[..., Any]) -> Any:
    return function if isinstance(function, Dispatcher) else scalar(function)


def _refuse_raise(function: Any) -> None:
    """Refuse functions that raise: inside a C function an exception would be printed and lost."""
    code = getattr(getattr(function, "py_func", function), "__code__", None)
    if code is not None and any(each.opname in ("RAISE_VARARGS", "RERAISE") for each in dis.get_instructions(code)):
        raise DTypeError(f"activation {function.__name__!r} raises; a scalar function inside a kernel cannot")


def _make_row(activation: Activation, dtype: np.dtype) -> Any:
    _refuse_raise(activation.function)
    function, kind = _compiled(activation.function), numba.from_dtype(dtype)
    try:
        function.compile((kind,))
        result = function.overloads[(kind,)].signature.return_type
        convertible = isinstance(result, types.Number | types.Boolean) and (
            isinstance(result, types.Integer | types.Boolean) or dtype.kind != "i"
        )
        if not convertible or (isinstance(result, types.Complex) and dtype.kind != "c"):
            raise DTypeError(
                f"activation {activation.name!r} maps {dtype.name} to {result}, which is no {dtype.name} result"
            )

        @cfunc(types.void(types.CPointer(kind), types.int64), error_model="numpy")
        def row(pointer, count):
            values = carray(pointer, count)
            for i in range(count):
                values[i] = function(values[i])

    except NumbaError as error:
        raise DTypeError(
            f"activation {activation.name!r} cannot be compiled for a {dtype.name} scalar: {error}"
        ) from error
    return row


def row_address(activation: Activation | None, dtype: np.dtype) -> int:
    """The address of a function that applies the activation to a row; 0 for none.

    Raises
    ------
    DTypeError
        If the function cannot be compiled, raises, or does not give a result of the dtype.
    """
    if activation is None:
        return 0
    key = (activation.function, dtype.name)
    row = _rows.get(key)
    if row is None:
        row = _rows[key] = _make_row(activation, dtype)
    return int(row.address)


def _make_loop(derivative: Callable[..., Any]) -> Any:
    _refuse_raise(derivative)
    function = _compiled(derivative)

    @scalar
    def loop(grad, saved, out):
        for i in range(out.size):
            out[i] = grad[i] * function(saved[i])

    return loop


def activation_grad(derivative: Callable[..., Any], grad: Array, saved: Array, out: Array) -> None:
    """``out = grad * derivative(saved)``, elementwise."""
    loop = _loops.get(derivative)
    if loop is None:
        loop = _loops[derivative] = _make_loop(derivative)
    result = np.empty(out.size, grad.dtype)
    try:
        loop(np.ravel(grad), np.ravel(saved), result)
    except NumbaError as error:
        raise DTypeError(f"derivative {derivative.__name__!r} cannot be compiled for {grad.dtype}: {error}") from error
    with np.errstate(over="ignore"):
        out[...] = result.reshape(out.shape)
