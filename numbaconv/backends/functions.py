"""What a function computes, as a key: functions of the same code that read the same values are one.

A lambda written where it is used is another object at each call, and compiling takes ten thousand times as long as a
small call. So a function is known by its code, its defaults, the values that it closes over and the globals that it
reads, each with its type (``1``, ``1.0`` and ``True`` are equal); functions among these, plain or made by ``njit``, are
known by the same rule. The key is made anew at each call, so a global that has changed since is noticed.

What is compiled is a copy, `frozen`, that has these values as they were: whatever happens to the original later, the
copy computes what its key says, for each dtype that it comes to be compiled for.

Known by their identity, and shared with the copy: ufuncs, builtins, modules (of which attributes that a function names
are part of its key), classes, lists and other objects that Numba does not compile as constants, functions that write
where others can read, and those that Numba compiled for given signatures, which hold what they had then.
"""

import builtins
import sys
from collections.abc import Hashable, Iterator
from dis import get_instructions
from functools import lru_cache
from hashlib import sha256
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np

__all__ = ["frozen", "function_key"]

#: Copies that are kept; what backends compile of them is bounded by the backends.
_MOST_COPIES = 512
#: Types whose values are constants, and equal only if they are the same.
_CONSTANT = frozenset((int, bool, str, bytes, type(None)))
#: Bytes of an array that are part of a key as they are; of more it is a digest.
_MOST_BYTES = 256
#: What a function does that others can see; one that writes to its own variables alone has none of these.
_WRITES = frozenset(
    ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_ATTR", "DELETE_ATTR", "STORE_SUBSCR", "DELETE_SUBSCR", "IMPORT_NAME")
)
_MISSING, _EMPTY = "missing", "empty"


class _Reads(NamedTuple):
    """What a code object, with those inside of it, takes from outside: names of globals and of attributes."""

    names: tuple[str, ...]
    attributes: tuple[str, ...]
    writes: bool


class _Same:
    """An object as itself: another one is never equal, and it lives as long as the key does."""

    __slots__ = ("value",)

    def __init__(self, value: object):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


@lru_cache(maxsize=1024)
def _reads(code: CodeType) -> _Reads:
    names: dict[str, None] = {}
    attributes: dict[str, None] = {}
    writes = False
    for each in _codes(code):
        for step in get_instructions(each):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                names[str(step.argval)] = None
            elif step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                attributes[str(step.argval)] = None
            writes = writes or step.opname in _WRITES
            writes = writes or (step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in code.co_freevars)
    return _Reads(tuple(names), tuple(attributes), writes)


def _resolved(function: FunctionType, name: str) -> Any:
    """The global that a function reads, or else the builtin."""
    found = function.__globals__.get(name, _MISSING)
    return getattr(builtins, name, _MISSING) if found is _MISSING else found


def _cell(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


def _is_compiled(value: Any) -> bool:
    """Whether ``njit`` made this, to compile itself for whatever types it is called with."""
    core: Any = sys.modules.get("numba.core.registry")  # there is none of these before there is Numba
    return core is not None and type(value) is core.CPUDispatcher and bool(value._can_compile)


def _options(value: Any) -> Any:
    """How a function was compiled; where it is cached makes no difference to what it computes."""
    return {name: given for name, given in value.targetoptions.items() if name != "cache"}


class _Key:
    """The key of one function: a walk through everything that it reads, each function once."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}

    def of(self, value: Any, attributes: tuple[str, ...] = ()) -> Hashable:
        kind = type(value)
        if kind in _CONSTANT:
            return kind, value
        if kind is float or kind is complex:
            return kind, repr(value)  # NaN is not equal to itself, and 0.0 is to -0.0
        if kind is FunctionType:
            return self._of_function(value)
        if isinstance(value, ModuleType):
            if id(value) in self._seen:
                return _Same(value)
            self._seen[id(value)] = len(self._seen)
            found = vars(value)
            read = [(name, self.of(found[name], attributes)) for name in attributes if name in found]
            return _Same(value), *read
        if isinstance(value, tuple):
            return kind, *[self.of(each, attributes) for each in value]
        if isinstance(value, np.generic | np.ndarray) and not value.dtype.hasobject:
            data: Any = value.tobytes()
            data = data if len(data) <= _MOST_BYTES else sha256(data).digest()
            return kind, value.dtype, value.shape, data
        if _is_compiled(value):
            return kind, repr(sorted(_options(value).items())), self._of_function(value.py_func)
        return _Same(value)

    def _of_function(self, function: FunctionType) -> Hashable:
        seen = self._seen.get(id(function))
        if seen is not None:
            return "again", seen
        self._seen[id(function)] = len(self._seen)
        code = function.__code__
        reads = _reads(code)
        if reads.writes:
            return _Same(function)
        found: list[Hashable] = [function.__name__, code]
        for name in reads.names:
            found.append(self.of(_resolved(function, name), reads.attributes))
        if function.__closure__:
            found.extend([self.of(_cell(cell), reads.attributes) for cell in function.__closure__])
        if function.__defaults__:
            found.append(self.of(function.__defaults__))
        if function.__kwdefaults__:
            found.append(self.of(tuple(function.__kwdefaults__.items())))
        return tuple(found)


class _Copy:
    """Copies of a function and of all functions that it reads, which read these values whatever becomes of them."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}

    def of(self, value: Any) -> Any:
        if type(value) is FunctionType:
            return self._of_function(value)
        if type(value) is tuple:
            return tuple(map(self.of, value))
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            made = value.copy(order="K")
            made.flags.writeable = False
            return made
        if _is_compiled(value):
            return self._of_dispatcher(value)
        return value

    def _of_dispatcher(self, value: Any) -> Any:
        from numba import njit  # there is one already

        made = self._made.get(id(value))
        if made is None:
            options = {name: given for name, given in _options(value).items() if name != "nopython"}
            made = self._made[id(value)] = njit(**options)(self._of_function(value.py_func))
        return made

    def _of_function(self, function: FunctionType) -> Any:
        made = self._made.get(id(function))
        if made is not None:
            return made
        reads = _reads(function.__code__)
        if reads.writes:
            return function
        space = {"__builtins__": builtins, "__name__": function.__globals__.get("__name__")}
        cells = tuple(CellType() for _ in function.__closure__ or ())
        made = FunctionType(function.__code__, space, function.__name__, None, cells)
        self._made[id(function)] = made  # before what it reads, which may be itself
        made.__qualname__, made.__module__ = function.__qualname__, function.__module__
        made.__defaults__ = self.of(function.__defaults__)
        if function.__kwdefaults__:
            made.__kwdefaults__ = {name: self.of(value) for name, value in function.__kwdefaults__.items()}
        for name in reads.names:
            if name in function.__globals__:
                space[name] = self.of(function.__globals__[name])
        for cell, given in zip(cells, function.__closure__ or (), strict=True):
            value = _cell(given)
            if value is not _EMPTY:
                cell.cell_contents = self.of(value)
        return made


def function_key(function: object) -> Hashable:
    """What a function computes now: equal keys for functions that are one. What the key names lives as long as it."""
    return _Key().of(function)


class _Described:
    """A function by its key, until the copy is made."""

    __slots__ = ("function", "key")

    def __init__(self, function: Any):
        self.function, self.key = function, function_key(function)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Described) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@lru_cache(maxsize=_MOST_COPIES)
def _copied(described: _Described) -> Any:
    made = _Copy().of(described.function)
    described.function = None  # the copy is what lives as long as the key
    return made


def frozen(function: Any) -> Any:
    """A function as it is now: the same object for all functions of one key, as long as it is among the newest.

    Parameters
    ----------
    function : callable

    Returns
    -------
    callable
        A copy of a plain function or of one made by ``njit``; anything else as it is.
    """
    return _copied(_Described(function))
