"""The epilogue on the device: ``activation(sum + bias + residual)`` as one function that kernels call."""

from functools import cache
from typing import Any, NamedTuple

from ..activations import Activation
from ..base import Epilogue
from .elements import number, reader
from .jit import SIMULATED, device_function, scalar_function

__all__ = ["DeviceEpilogue", "finisher"]


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


@cache
def _activate(function: Any) -> Any:
    plain = getattr(function, "py_func", function)
    return plain if SIMULATED else device_function(plain)


@cache
def _finisher(compute: str, bias: str | None, residual: str | None, function: Any) -> Any:
    scalar, activate = number(compute), _as_it_is if function is None else _activate(function)
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
