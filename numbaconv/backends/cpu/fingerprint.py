"""What a kernel is compiled from, as a digest: whether code on disk is still what would be compiled.

- The text of the kernel's file and of every file of `backends` that it imports, directly or not. A helper that changed
  in another file is noticed; a file that no kernel imports may change as it likes. Text, not times: layers of a
  container image cut times to seconds or set them all to one date, and an edit that leaves a file's size is not rare.
  Reading takes about a millisecond a process.
- The numbers that these files take from elsewhere, `plan` above all.

Texts are read when a kernel is decorated, as near to their import as can be; numbers when the first is asked for, since
modules are whole then.
"""

import hashlib
import os
import re
import sys
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

from numba.core.serialize import dumps

__all__ = ["fingerprint_of"]

_BACKENDS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_PACKAGE = __name__.split(".", 1)[0]
#: ``from .place import names``, by the dots, the place and the names.
_IMPORT = re.compile(rb"^from (\.+)([\w.]*) import ([\w, ]+|\([^)]*\))", re.MULTILINE)


def _text(path: str) -> bytes:
    """A file of this package, which may be in an archive; what stands for all of them where a program was frozen."""
    loader: Any = __spec__.loader if __spec__ else None  # type: ignore[name-defined]
    try:
        return bytes(loader.get_data(path))
    except (OSError, AttributeError):
        frozen = os.stat(sys.executable)
        return f"{frozen.st_size} {frozen.st_mtime_ns}".encode()


@cache
def _read(path: str) -> tuple[bytes, tuple[str, ...]]:
    """The digest of a file's text, and the files of `backends` that it imports."""
    text, found = _text(path), []
    for dots, place, names in _IMPORT.findall(text):
        folder = path
        for _ in dots:
            folder = os.path.dirname(folder)
        parts = place.decode().split(".") if place else []
        each = (
            [parts] if parts else [[name.split()[0]] for name in names.decode().strip("()").split(",") if name.strip()]
        )
        found += [os.path.join(folder, *below) + ".py" for below in each]
    return hashlib.sha256(text).digest(), tuple(name for name in found if name.startswith(_BACKENDS + os.sep))


def _files(path: str) -> list[str]:
    """A file and what it imports of `backends`, itself or through others."""
    found, waiting = set(), [path]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += _read(each)[1]
    return sorted(found)


def _is_number(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_number, value))
    return isinstance(value, int | float | complex | str)


def _numbers(values: dict[str, Any]) -> str:
    """The constants of a module, its own and others'."""
    found = ((name, value) for name, value in values.items() if name.isupper() and _is_number(value))
    return repr(sorted(found))


@cache
def _numbers_of(path: str) -> str:
    """The constants of a module of `backends` that is imported."""
    name = os.path.relpath(path, os.path.dirname(_BACKENDS)).removesuffix(".py").replace(os.sep, ".")
    return _numbers(vars(sys.modules[f"{_PACKAGE}.{name}"]))


def fingerprint_of(function: FunctionType) -> Callable[[], bytes]:
    """A function's digest, to be asked for when all is imported."""
    path = os.path.abspath(function.__code__.co_filename)
    files = _files(path)
    texts = b"".join(_read(each)[0] for each in files)
    closure = [cell.cell_contents for cell in function.__closure__ or ()]
    own = function.__code__.co_code + (dumps(closure) if closure else b"")

    @cache
    def found() -> bytes:
        numbers = [_numbers(function.__globals__), *(_numbers_of(each) for each in files if each != path)]
        return hashlib.sha256(b"\n".join((texts, own, *(each.encode() for each in numbers)))).digest()

    return found
