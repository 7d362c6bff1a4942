"""Activations in other libraries' graphs: names for what graphs cannot hold, and derivatives that can be derived again.

The kernels' own derivatives (`numbaconv.backends.activations`) are scalar functions with branches. A gradient of a
gradient needs them as expressions of the other library; those here are written for any that has NumPy's names.
"""

import math
from typing import Any

from ..backends.activations import ACTIVATIONS, resolve_activation

__all__ = ["activation_of", "derivative", "from_output", "is_named", "token"]

#: Functions that were given as activations, by their names in graphs. They live as long as the process, as what is
#: compiled of them does; so no other function can have the same identity.
_functions: dict[str, Any] = {}


def token(op: str, activation: Any) -> str:
    """The string by which a graph holds an activation; "" for none.

    Raises
    ------
    ArgumentError, DTypeError
        If it is none that the functions of `numbaconv` know.
    """
    found = resolve_activation(op, activation, "float32")
    if found is None:
        return ""
    if isinstance(activation, str):
        return found.name
    parts = activation if isinstance(activation, tuple) else (activation,)
    name = "@" + ",".join([found.name, *(f"{id(each):x}" for each in parts)])
    _functions.setdefault(name, activation)
    return name


def activation_of(name: str) -> Any:
    """What `token` was given."""
    return _functions[name] if name.startswith("@") else name or None


def is_named(name: str) -> bool:
    """Whether it is one of the activations that have a name of their own, and derivatives of every order here."""
    return not name.startswith("@")


def from_output(name: str) -> bool:
    """Whether an activation's derivative follows from its result."""
    return is_named(name) and ACTIVATIONS[name].derivative_from_output is not None


def derivative(m: Any, name: str, v: Any) -> Any:
    """The derivative of a named activation at ``v``: the result if `from_output`, else the pre-activation.

    ``m`` is a library with NumPy's names, and ``erfc`` and ``sigmoid``.
    """
    zeros, ones = m.zeros_like(v), m.ones_like(v)
    if name == "relu":
        return m.where(v <= 0, zeros, ones)
    if name == "relu6":
        return m.where((v <= 0) | (v >= 6), zeros, ones)
    if name == "leaky_relu":
        return m.where(v > 0, ones, m.full_like(v, 0.01))
    if name == "tanh":
        return 1 - v * v
    if name == "sigmoid":
        return v * (1 - v)
    if name == "hardswish":
        return m.where(v <= -3, zeros, m.where(v >= 3, ones, (2 * v + 3) / 6))
    # Beyond these bounds the second terms are nothing, and infinity times nothing would be NaN.
    if name == "silu":
        s, near = m.sigmoid(v), m.where(m.abs(v) < 1e4, v, zeros)
        return s + near * s * (1 - s)
    assert name == "gelu", name
    near = m.where(m.abs(v) < 40, v, zeros)
    return 0.5 * m.erfc(-v * math.sqrt(0.5)) + near * m.exp(-0.5 * near * near) / math.sqrt(2 * math.pi)
