"""What is said of compiling, as it begins: one line of the log ``numbaconv`` for each kernel, at the level INFO.

A kernel takes seconds to compile, once; what the disk has already is loaded in milliseconds, and nothing is said of it.
``logging.basicConfig(level=logging.INFO)`` shows the lines, and `numbaconv.progress` shows a bar instead.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Listener", "begin", "compiling", "end", "told"]

_LOGGER = logging.getLogger("numbaconv")
#: Called with what is being compiled and where it is kept, and with None when that is over.
Listener = Callable[[str | None, str | None], object]
_listeners: list[Listener] = []


def begin(what: str, folder: str | None = None) -> None:
    """Say that something is being compiled from now on.

    Parameters
    ----------
    what : str
    folder : str, optional
        Where later processes find it; empty where each process compiles its own; None for what takes a moment only.
    """
    rest = f"once: later processes load it from {folder}" if folder else "once a process"
    _LOGGER.info("compiling %s, %s", what, rest)
    for each in tuple(_listeners):
        each(what, folder)


def end() -> None:
    """It is compiled, or has failed."""
    for each in tuple(_listeners):
        each(None, None)


@contextmanager
def compiling(what: str, folder: str | None = None) -> Iterator[None]:
    """`begin` and `end` around a block."""
    begin(what, folder)
    try:
        yield
    finally:
        end()


@contextmanager
def told(listener: Listener) -> Iterator[None]:
    """Call a function in this block with what is being compiled, as it begins, and with None when that is over."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
