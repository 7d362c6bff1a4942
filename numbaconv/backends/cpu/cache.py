"""Compiled kernels on disk: one file each, found by what it was compiled for, read wherever it is.

Numba's own cache takes the first folder that can be written to, and has an index a function: of two processes that
write at once one may name the other's code as its own. Here a file's name is a digest of what its kernel was compiled
for: signature, target, width of vectors, versions. So processes with different targets share a folder, and each finds
its own. The file begins with a digest of its content and of what the kernel was compiled from (`fingerprint`): one that
does not fit, or was cut off, is as good as none, and is replaced.

Folders are read whether or not they can be written to; only a kernel that was compiled is written, to the first of them
that takes it.
"""

import hashlib
import os
import pickle
import sys
import uuid
import warnings
from contextlib import suppress
from types import FunctionType
from typing import Any

import llvmlite
import numba
from numba import config
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

from ..._version import __version__
from ...errors import ArgumentError
from ...files import opened
from .fingerprint import fingerprint_of
from .target import VECTOR_BYTES, target_of

__all__ = ["KernelCache", "not_stored"]

_DIGEST_BYTES = hashlib.sha256().digest_size
_VERSIONS = (__version__, numba.__version__, llvmlite.__version__, sys.implementation.cache_tag, sys.abiflags)

#: Why kernels of this process were not stored, by the folder that was tried last for one.
_failures: dict[str, OSError] = {}


def not_stored() -> list[str]:
    """Each folder that could not be written to in this process, with the reason."""
    return [f"{folder}: {error.strerror or error}" for folder, error in _failures.items()]


def _folders(source: str) -> list[str]:
    """Where kernels of a file may be: in ``NUMBA_CACHE_DIR`` alone, or else beside the file and in the user's cache."""
    folder = os.path.dirname(source)
    below = f"{os.path.basename(folder)}_{hashlib.sha1(folder.encode()).hexdigest()}"
    if config.CACHE_DIR:
        return [os.path.join(config.CACHE_DIR, below)]
    beside = [os.path.join(folder, "__pycache__")] if os.path.isdir(folder) else []
    return [*beside, os.path.join(AppDirs(appname="numba", appauthor=False).user_cache_dir, below)]


def _read(path: str, fingerprint: bytes) -> bytes | None:
    """What a file holds, if it is whole and of this fingerprint."""
    try:
        with opened("kernel", path) as file:
            found = file.read()
    except (OSError, ArgumentError):  # the latter: a FIFO in its place, which would be waited for
        return None
    digest, content = found[:_DIGEST_BYTES], found[_DIGEST_BYTES:]
    return content if digest == hashlib.sha256(fingerprint + content).digest() else None


def _write(folder: str, name: str, fingerprint: bytes, content: bytes) -> None:
    """All of a file or nothing, whatever others write meanwhile."""
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    made = f"{path}.{uuid.uuid4().hex[:16]}.tmp"
    try:
        with open(made, "wb") as file:
            file.write(hashlib.sha256(fingerprint + content).digest() + content)
        os.replace(made, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(made)
        raise


def _may_write(folder: str) -> bool:
    """Whether a folder, or one to be made, can be written to as far as its rights tell."""
    while not os.path.exists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return os.path.isdir(folder) and os.access(folder, os.W_OK)


def _warn() -> None:
    """Say once what was tried."""
    warnings.warn(
        "a compiled kernel cannot be stored, so that each process compiles its own; tried "
        + "; ".join(not_stored())
        + ". NUMBA_CACHE_DIR can name a folder, and `numbaconv warmup` fills one beforehand",
        RuntimeWarning,
        stacklevel=2,
    )


class KernelCache(NullCache):  # type: ignore[misc]
    """What a dispatcher asks before it compiles, and tells afterwards.

    Parameters
    ----------
    function : function
        What the dispatcher compiles.

    Attributes
    ----------
    folders : list of str
        Where its kernels may be, in the order of looking.
    """

    def __init__(self, function: FunctionType):
        self._source = os.path.abspath(function.__code__.co_filename)
        self._stem = f"{os.path.splitext(os.path.basename(self._source))[0]}.{function.__qualname__}"
        self._stem = self._stem.replace("<", "").replace(">", "")
        self._fingerprint = fingerprint_of(function)
        self._enabled = True

    @property
    def folders(self) -> list[str]:
        return _folders(self._source)

    @property
    def cache_path(self) -> str:
        """The folder that the next kernel will be in, as a dispatcher's ``stats`` tell it; empty if there is none."""
        return next(filter(_may_write, self.folders), "")

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def flush(self) -> None:
        """Remove this function's files, before it is compiled anew."""
        for folder in self.folders:
            with suppress(OSError):
                for name in os.listdir(folder):
                    if name.startswith(f"{self._stem}-") and name.endswith(".nbc"):
                        os.unlink(os.path.join(folder, name))

    def name_of(self, signature: Any, codegen: Any) -> str:
        """The file of a kernel: its function, and all that tells its code from other code of the same function."""
        told = "\n".join(map(repr, (self._stem, _VERSIONS, target_of(codegen), VECTOR_BYTES, signature)))
        return f"{self._stem}-{hashlib.sha256(told.encode()).hexdigest()[:24]}.nbc"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        if not self._enabled:
            return None
        target_context.refresh()  # Numba's cache does it, too: the code may call what nothing has needed so far
        name = self.name_of(sig, target_context.codegen())
        for folder in self.folders:
            content = _read(os.path.join(folder, name), self._fingerprint())
            if content is not None:
                return CompileResult._rebuild(target_context, *pickle.loads(content))
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if not self._enabled or data.lifted or data.library.has_dynamic_globals:  # code that holds addresses
            return
        name, content = self.name_of(sig, data.codegen), dumps(data._reduce())
        failures: dict[str, OSError] = {}
        for folder in self.folders:
            try:
                _write(folder, name, self._fingerprint(), content)
                return
            except OSError as error:
                failures[folder] = error
        first = not _failures
        _failures.update(failures)
        if first:
            _warn()
