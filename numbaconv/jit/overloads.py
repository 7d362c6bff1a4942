"""Overloads: for each public function one that checks a call's types and compiles the call of it."""

import inspect
import re
from collections.abc import Callable
from typing import Any

from numba import types
from numba.core.errors import TypingError
from numba.extending import overload

from ..backward import ConvGradients
from .arguments import Given, constants, result_type
from .calls import Spot, entry, fail

__all__ = ["register"]

#: A stream is for arrays on a device, which compiled code does not have.
_LEFT_OUT = ("stream",)


def _parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """The parameters' names and defaults; ``...`` for a keyword that only its presence tells."""
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.name not in _LEFT_OUT}


def _signature(parameters: dict[str, Any]) -> str:
    """As source. Numba folds arguments into a signature without keyword-only ones."""
    heads = []
    for name, default in parameters.items():
        shown = None if default is ... else default
        heads.append(name if default is inspect.Parameter.empty else f"{name}={shown!r}")
    return ", ".join(heads)


def _is_left_out(kind: Any, default: Any) -> bool:
    """Whether an argument has its default, which the function then takes itself."""
    if isinstance(kind, types.Omitted) or not isinstance(kind, types.Type):  # Numba gives a default as it is
        return True
    return isinstance(kind, types.NoneType) and (default is None or default is ...)


class _Compiling:
    """One call of a public function, with the types of its arguments."""

    def __init__(self, module: str, function: str, rank: int, produces: str, given: Given):
        self.op, self._place = function, (module, function)
        self._known = constants(function, rank, given)
        self._dynamic = tuple(name for name in given if name not in self._known)
        self._result = result_type(function, produces, rank, given)
        self._all = produces == "backward"
        self._out = "out" in self._dynamic
        mask = given.get("output_mask")
        self._mask = (True, True, True) if mask is None else tuple(each.literal_value for each in mask)

    def implementation(self, parameters: dict[str, Any]) -> Callable[..., Any]:
        """What the overload returns: a function of the same arguments."""
        answered = self._result
        if self._all:
            kinds = [kind if wanted else types.none for kind, wanted in zip(self._result, self._mask, strict=True)]
            answered = types.NamedTuple(kinds, ConvGradients)
        elif self._out:
            answered = types.none
        spot = Spot(*self._place, self._dynamic, self._known)
        given = "".join(f"{name}, " for name in self._dynamic)
        lines = [
            f"def {self.op}({_signature(parameters)}):",
            f"    worked, found = _enter(({given}))",
            "    if not worked:",
            "        _fail()",
            f"    return {'out' if self._out else 'found'}",
        ]
        space: dict[str, Any] = {"_enter": entry(spot, answered), "_fail": fail, "__name__": __name__}
        exec("\n".join(lines), space)
        made: Callable[..., Any] = space[self.op]
        return made


def register(function: Callable[..., Any]) -> None:
    """Make a public function known to Numba, whose name says its rank and what it returns."""
    parameters, module, name = _parameters(function), function.__module__, function.__name__
    found = re.fullmatch(r"conv(?:_transpose)?(\d)d(?:_(\w+))?", name)
    assert found is not None, name
    rank, produces = int(found[1]), found[2] or "output"

    refused: list[tuple[list[Any], TypingError]] = []

    def compiling(kinds: dict[str, Any]) -> Callable[..., Any]:
        given = {each: kind for each, kind in kinds.items() if not _is_left_out(kind, parameters[each])}
        # Numba asks twice, with constants as types of their own and without, and is content if one answer is good.
        # A name that is wrong must not pass as a string of whatever value.
        plain = [(each, types.unliteral(kind)) for each, kind in given.items()]
        last = refused.pop() if refused else None
        if last is not None and last[0] == plain:
            raise last[1]
        try:
            return _Compiling(module, name, rank, produces, given).implementation(parameters)
        except TypingError as error:
            refused.append((plain, error))
            raise

    space: dict[str, Any] = {"_compiling": compiling, "__name__": __name__}
    exec(f"def {name}({_signature(parameters)}):\n    return _compiling(dict(locals()))", space)
    overload(function, prefer_literal=True)(space[name])
