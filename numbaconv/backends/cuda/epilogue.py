"""The epilogue on the device: ``activation(sum + bias + residual)`` as one function that kernels call."""

from dis import get_instructions
from inspect import getclosurevars
from types import FunctionType
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import cuda, types

from ...compiling import compiling
from ...errors import ArgumentError, DTypeError
from ..activations import Activation, not_compiled
from ..base import Epilogue
from .elements import number, reader
from .jit import SIMULATED, device_function, newest, scalar_function

__all__ = ["DeviceEpilogue", "check_activation", "compiled", "finisher"]


class DeviceEpilogue(NamedTuple):
    """What kernels do to a finished sum.

    Attributes
    ----------
    finish : device function
        ``finish(total, channel, at, extras)`` for a sum in the compute dtype, the index of its result channel and the
        place of its result in the result's flat array: the value to store, in the compute dtype.
    extras : tuple of device arrays
        Handed to ``finish``: the bias, if there is one, then the residual, flat, in the result's memory layout.
    """

    finish: Any
    extras: tuple[Any, ...]


@scalar_function
def _as_it_is(value):
    return value


def _name(function: Any) -> str:
    return getattr(function, "__name__", None) or repr(function)


def _raises(function: Any, seen: set[int]) -> bool:
    """Whether a function, or one that it calls by a name of its module or its closure, has a raise or an assert."""
    plain = getattr(function, "py_func", function)
    if not isinstance(plain, FunctionType) or id(plain) in seen:
        return False
    seen.add(id(plain))
    if any(each.opname in _RAISING for each in get_instructions(plain)):
        return True
    inner = getclosurevars(plain)
    return any(_raises(each, seen) for each in (*inner.nonlocals.values(), *inner.globals.values()))


#: What ``raise`` and ``assert`` compile to.
_RAISING = ("RAISE_VARARGS", "LOAD_ASSERTION_ERROR")


@newest
def compiled(what: str, function: Any, compute: str) -> Any:
    """A scalar function of the user's, compiled for a compute dtype, for kernels to call.

    Raises
    ------
    ArgumentError
        If it may raise: a kernel has nobody to tell, and its result would be whatever the memory held.
    DTypeError
        If it cannot be compiled or does not give a result that the dtype holds.
    """
    plain = getattr(function, "py_func", function)
    if _raises(plain, set()):
        raise ArgumentError(
            f"{what} {_name(function)!r} may raise an exception, which no kernel on a device can report"
        )
    if not isinstance(plain, FunctionType) or plain.__defaults__:  # a ufunc, a builtin, or more than one argument

        def call(value):
            return wrapped(value)

        wrapped, plain = (scalar_function(plain) if isinstance(plain, FunctionType) else plain), call
    if SIMULATED:
        return plain
    kind = numba.from_dtype(np.dtype(compute))
    try:
        with compiling(f"{what} {_name(function)!r} for {compute} on the device"):
            _, result = cuda.compile_for_current_device(plain, (kind,), device=True)
    except Exception as error:  # Numba's own, and what looking at the function's names raises
        raise not_compiled(what, _name(function), compute, error) from None
    holds = {"i": (), "f": (types.Float,), "c": (types.Float, types.Complex)}[np.dtype(compute).kind]
    if not isinstance(result, (types.Integer, types.Boolean, *holds)):
        raise DTypeError(f"{what} {_name(function)!r} maps {compute} to {result}, not to {compute}")
    return device_function(plain)


def check_activation(activation: Activation, compute: str) -> None:
    """Compile an activation before any work, so that one which cannot be raises then."""
    _found("activation", activation.function, compute)


def _found(what: str, function: Any, compute: str) -> Any:
    try:
        return compiled(what, function, compute)
    except TypeError as error:
        if isinstance(error, DTypeError):
            raise
        raise DTypeError(f"{what} {_name(function)!r} cannot be hashed; pass a function") from None


@newest
def _finisher(compute: str, bias: str | None, residual: str | None, function: Any) -> Any:
    scalar, activate = number(compute), _as_it_is if function is None else compiled("activation", function, compute)
    if bias is None and residual is None:
        if function is None:

            def finish(total, channel, at, extras):
                return scalar(total)

        else:

            def finish(total, channel, at, extras):
                return scalar(activate(scalar(total)))

    elif residual is None:
        read_bias = reader(bias or "")

        def finish(total, channel, at, extras):
            return scalar(activate(scalar(total + scalar(read_bias(extras[0], channel)))))

    elif bias is None:
        read_residual = reader(residual)

        def finish(total, channel, at, extras):
            return scalar(activate(scalar(total + scalar(read_residual(extras[0], at)))))

    else:
        read_bias, read_residual = reader(bias), reader(residual)

        def finish(total, channel, at, extras):
            total = total + scalar(read_bias(extras[0], channel)) + scalar(read_residual(extras[1], at))
            return scalar(activate(scalar(total)))

    return scalar_function(finish)


def finisher(compute: str, epilogue: Epilogue) -> Any:
    """The function of an epilogue, the same object for the same dtypes and activation: kernels are kept by it."""
    activation: Activation | None = epilogue.activation
    bias, residual = (None if each is None else each.dtype.name for each in (epilogue.bias, epilogue.residual))
    return _finisher(compute, bias, residual, None if activation is None else activation.function)
