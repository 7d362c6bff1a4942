"""Kernels are announced as Numba begins to compile them: its own event, which is not sent for what its cache has."""

import threading
from typing import Any

from numba import types
from numba.core import event

from ...compiling import begin, end

__all__ = ["announce"]

_PACKAGE = __name__.split(".")[0]
_COMPILE = "numba:compile"


def _dtype_of(kinds: Any) -> str | None:
    """The dtype of the first array among Numba's types."""
    for kind in kinds:
        found = str(kind.dtype) if isinstance(kind, types.Array) else None
        found = _dtype_of(kind) if found is None and isinstance(kind, types.BaseTuple) else found
        if found is not None:
            return found
    return None


class _Announcing(event.Listener):  # type: ignore[misc]
    """Says what a thread compiles, if it is of this package and not part of something else that is being compiled."""

    def __init__(self) -> None:
        self._here = threading.local()

    def on_start(self, event: Any) -> None:
        depth = self._here.depth = getattr(self._here, "depth", 0) + 1
        if depth == 1:
            self._here.said = False
        dispatcher: Any = event.data.get("dispatcher")
        function: Any = getattr(dispatcher, "py_func", None)
        module: str = getattr(function, "__module__", None) or ""
        # What is made at run time, which activations are, is announced by who makes it.
        if depth > 1 or module.split(".")[0] != _PACKAGE or "<locals>" in function.__qualname__:
            return
        dtype = _dtype_of(event.data.get("args", ()))
        self._here.said = True
        begin(f"{function.__name__}{f' for {dtype}' if dtype else ''}", dispatcher.stats.cache_path or "")

    def on_end(self, event: Any) -> None:
        self._here.depth -= 1
        if self._here.depth == 0 and self._here.said:
            end()


_listener: _Announcing | None = None


def announce() -> None:
    """From now on, say it."""
    global _listener
    if _listener is None:
        _listener = _Announcing()
        event.register(_COMPILE, _listener)
