"""Activations as scalar functions, written once: every backend compiles or maps these.

Each is plain Python with ``math`` alone, so that one definition serves the interpreter, Numba's CPU
compiler and device functions. None of them overflows for large arguments.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ArgumentError, DTypeError
from .functions import frozen

__all__ = [
    "ACTIVATIONS",
    "SYNONYMS",
    "Activation",
    "frozen_activation",
    "not_compiled",
    "resolve_activation",
]

Function = Callable[..., Any]

#: What Numba colours words with, on a terminal.
_COLOUR = re.compile("\x1b\\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Activation:
    """A scalar function and its derivatives.

    Attributes
    ----------
    name : str
    function : callable
        Plain or ``@njit`` scalar function of the pre-activation.
    derivative : callable or None
        By the pre-activation.
    derivative_from_output : callable or None
        The same derivative as a function of the activation's output, where that determines it.
    integers : bool
        Whether it maps integers to integers.
    """

    name: str
    function: Function
    derivative: Function | None = None
    derivative_from_output: Function | None = None
    integers: bool = False


def relu(v: Any) -> Any:
    """``max(v, 0)``, NaN kept."""
    return 0 if v < 0 else v


def relu_derivative(v: Any) -> Any:
    return 0 if v <= 0 else 1


def relu6(v: Any) -> Any:
    """``min(max(v, 0), 6)``, NaN kept (Krizhevsky 2010, Convolutional Deep Belief Networks on CIFAR-10)."""
    return 0 if v < 0 else (6 if v > 6 else v)


def relu6_derivative(v: Any) -> Any:
    return 0 if v <= 0 or v >= 6 else 1


def leaky_relu(v: Any) -> Any:
    """``v`` for positive, ``0.01 v`` for negative arguments."""
    return v * 0.01 if v < 0 else v


def leaky_relu_derivative(v: Any) -> Any:
    return 1.0 if v > 0 else 0.01


def sigmoid(v: Any) -> Any:
    """``1 / (1 + exp(-v))``."""
    e = math.exp(-abs(v))
    return e / (1 + e) if v < 0 else 1 / (1 + e)


def sigmoid_derivative(v: Any) -> Any:
    e = math.exp(-abs(v))
    return e / ((1 + e) * (1 + e))


def sigmoid_derivative_from_output(s: Any) -> Any:
    return s * (1 - s)


def silu(v: Any) -> Any:
    """``v * sigmoid(v)`` (Elfwing, Uchibe and Doya 2017)."""
    e = math.exp(-abs(v))
    return v * e / (1 + e) if v < 0 else v / (1 + e)


def silu_derivative(v: Any) -> Any:
    e = math.exp(-abs(v))
    s = e / (1 + e) if v < 0 else 1 / (1 + e)
    return s + v * e / ((1 + e) * (1 + e)) if e > 0 else s


def gelu(v: Any) -> Any:
    """``v * Phi(v)`` with the normal distribution function (Hendrycks and Gimpel 2016), not the tanh fit."""
    return 0.5 * v * math.erfc(-v * 0.7071067811865476)


def gelu_derivative(v: Any) -> Any:
    if abs(v) > 40:
        return 1.0 if v > 0 else 0.0
    return 0.5 * math.erfc(-v * 0.7071067811865476) + v * math.exp(-0.5 * v * v) * 0.3989422804014327


def tanh(v: Any) -> Any:
    return math.tanh(v)


def tanh_derivative(v: Any) -> Any:
    t = math.tanh(v)
    return 1 - t * t


def tanh_derivative_from_output(t: Any) -> Any:
    return 1 - t * t


def hardswish(v: Any) -> Any:
    """``v * relu6(v + 3) / 6`` (Howard et al. 2019, MobileNetV3, section 5.2)."""
    return 0.0 if v <= -3 else (v if v >= 3 else v * (v + 3) / 6)


def hardswish_derivative(v: Any) -> Any:
    return 0.0 if v <= -3 else (1.0 if v >= 3 else (2 * v + 3) / 6)


#: Other names for the same function.
SYNONYMS = {"swish": "silu", "hard_swish": "hardswish", "hard_silu": "hardswish"}

ACTIVATIONS: dict[str, Activation] = {
    each.name: each
    for each in (
        Activation("relu", relu, relu_derivative, relu_derivative, integers=True),
        Activation("relu6", relu6, relu6_derivative, relu6_derivative, integers=True),
        Activation("leaky_relu", leaky_relu, leaky_relu_derivative, leaky_relu_derivative),
        Activation("silu", silu, silu_derivative),
        Activation("gelu", gelu, gelu_derivative),
        Activation("tanh", tanh, tanh_derivative, tanh_derivative_from_output),
        Activation("sigmoid", sigmoid, sigmoid_derivative, sigmoid_derivative_from_output),
        Activation("hardswish", hardswish, hardswish_derivative),
    )
}


def _hint(name: str) -> str:
    """What an unknown name most likely means."""
    plain = name.lower().replace("-", "_")
    if plain in ("linear", "identity", "none", ""):
        return "; for none write activation=None"
    found = {each.replace("_", ""): each for each in (*ACTIVATIONS, *SYNONYMS)}.get(plain.replace("_", ""))
    return f"; {name!r} is {found!r} here" if found else ""


def not_compiled(what: str, name: str, dtype: str, error: Exception) -> DTypeError:
    """The error of a function that Numba cannot compile: the first line of Numba's that says why, and the rule."""
    lines = [_COLOUR.sub("", line).strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith("Failed in")] or [type(error).__name__]
    reason = lines[0]
    if reason.endswith(":") and len(lines) > 1:  # the signature, or the type, that the first line speaks of
        reason = f"{reason} {lines[1].removeprefix('>>> ')}"
    return DTypeError(
        f"{what} {name!r} cannot be compiled for {dtype}: {reason}. It must be a function of one number to one number, "
        "of what Numba knows of Python, math and NumPy"
    )


def _relu_unsigned(v: Any) -> Any:
    return v


def _relu6_unsigned(v: Any) -> Any:
    six = type(v)(6)
    return v if v < six else six


#: Of unsigned integers, which Numba makes floating point of where they meet signed ones.
_UNSIGNED = {
    name: replace(ACTIVATIONS[name], function=function)
    for name, function in (("relu", _relu_unsigned), ("relu6", _relu6_unsigned))
}


def resolve_activation(op: str, activation: object, compute_dtype: str) -> Activation | None:
    """The activation behind a name, a scalar function, or a (function, derivative) pair.

    Functions are taken as they are now (`frozen`).

    Raises
    ------
    ArgumentError
        For an unknown name.
    DTypeError
        For anything else, and for a named activation in a dtype that it is not defined for.
    """
    if activation is None:
        return None
    if isinstance(activation, str):
        found = ACTIVATIONS.get(SYNONYMS.get(activation, activation))
        if found is None:
            raise ArgumentError(
                f"{op}: activation is {activation!r}, but must be one of {', '.join(ACTIVATIONS)}, "
                f"or a scalar function{_hint(activation)}"
            )
        if compute_dtype.startswith("complex") or (compute_dtype.startswith(("int", "uint")) and not found.integers):
            raise DTypeError(f"{op}: activation {activation!r} is not defined for results computed in {compute_dtype}")
        return _UNSIGNED.get(found.name, found) if compute_dtype.startswith("uint") else found
    if callable(activation):
        return Activation(getattr(activation, "__name__", "function"), frozen(activation), integers=True)
    if isinstance(activation, tuple) and len(activation) == 2 and all(callable(each) for each in activation):
        function, derivative = activation
        name = getattr(function, "__name__", "function")
        return Activation(name, frozen(function), frozen(derivative), integers=True)
    raise DTypeError(
        f"{op}: activation must be a name, a scalar function or a (function, derivative) pair, but is {activation!r}"
    )


def frozen_activation(activation: Any) -> Any:
    """An activation as `resolve_activation` takes it, whose functions are as they are now."""
    if isinstance(activation, tuple):
        return tuple(map(frozen, activation))
    return frozen(activation) if callable(activation) else activation
