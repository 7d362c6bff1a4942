"""Activations in other libraries' graphs: names for what graphs cannot hold, and derivatives that can be derived again.

The kernels' own derivatives (`numbaconv.backends.activations`) are scalar functions with branches. A gradient of a
gradient needs them as expressions of the other library; those here are written for any that has NumPy's names.
"""

import math
from collections import OrderedDict
from collections.abc import Hashable
from itertools import count
from typing import Any

from ..backends.activations import ACTIVATIONS, frozen_activation, resolve_activation
from ..backends.functions import function_key
from ..errors import ArgumentError

__all__ = ["activation_of", "derivative", "from_output", "is_named", "token"]

#: Functions that were given as activations, as they were then, with their keys, by their names in graphs: those that
#: were used last. A graph that runs now and then keeps its own among them.
_functions: OrderedDict[str, tuple[Hashable, Any]] = OrderedDict()
_names: dict[Hashable, str] = {}
_MOST = 4096
_numbers = count()


def token(op: str, activation: Any) -> str:
    """The string by which a graph holds an activation; "" for none. Functions that are one have one.

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
    key = function_key(activation)
    name = _names.get(key) or _names.setdefault(key, f"@{found.name},{next(_numbers)}")
    _functions.setdefault(name, (key, frozen_activation(activation)))
    _functions.move_to_end(name)
    while len(_functions) > _MOST:
        _, (gone, _) = _functions.popitem(last=False)
        _names.pop(gone, None)
    return name


def activation_of(name: str) -> Any:
    """What `token` was given.

    Raises
    ------
    ArgumentError
        If that was too long ago.
    """
    if not name.startswith("@"):
        return name or None
    try:
        found = _functions[name][1]
        _functions.move_to_end(name)
    except KeyError:
        raise ArgumentError(
            f"activation {name[1:].split(',')[0]!r} of a graph is no longer known: at least {_MOST} other functions "
            "were activations since it was last used"
        ) from None
    return found


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
