"""Bars for work that takes a while, on standard error: one for the work, and one of its own for compiling kernels.

They need rich (``pip install 'numbaconv[cli]'``); without it, and where standard error is no terminal, compiling is a
line of text, and the work has no bar.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .compiling import LOGGER
from .extras import require

__all__ = ["compiling_bar", "tracked"]

_TITLE = "compiling kernels, once"


class _Heard(logging.Handler):
    """Calls a function with what is compiled, as it begins."""

    def __init__(self, tell: Callable[[str], None]):
        super().__init__(logging.INFO)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        what = getattr(record, "compiling", None)
        if what is not None:
            self._tell(what)


@contextmanager
def _hearing(tell: Callable[[str], None]) -> Iterator[None]:
    """Whatever is compiled meanwhile is told. What the log shows elsewhere stays as it is."""
    handler, level, propagates = _Heard(tell), LOGGER.level, LOGGER.propagate
    if LOGGER.getEffectiveLevel() > logging.INFO:
        LOGGER.setLevel(logging.INFO)
        LOGGER.propagate = False  # nobody else has asked for these
    LOGGER.addHandler(handler)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagates


def _screen(console: Any) -> Any:
    """A console of rich's, or None where there is no rich."""
    if console is not None:
        return console
    try:
        return require("rich.console", "cli", "a progress bar").Console(stderr=True)
    except ImportError:
        return None


def _lines(write: Callable[[str], object]) -> Callable[[str], None]:
    """Tell of the first kernel only, for where lines cannot be written over."""
    told: list[str] = []

    def tell(what: str) -> None:
        if not told:
            write(f"{_TITLE}: {what} and others, which takes a while\n")
        told.append(what)

    return tell


@contextmanager
def compiling_bar(console: Any = None) -> Iterator[None]:
    """Show a bar as long as a ``with`` block lasts, from the first kernel on that is compiled in it.

    Parameters
    ----------
    console : rich.console.Console, optional
        Standard error, unless given.

    Examples
    --------
    >>> import numpy as np
    >>> import numbaconv
    >>> from numbaconv.progress import compiling_bar
    >>> with compiling_bar():  # calls like those to come
    ...     y = numbaconv.conv1d(np.ones((1, 1, 8)), np.ones((1, 1, 3)))
    """
    screen = _screen(console)
    if screen is None or not screen.is_terminal:
        with _hearing(_lines(sys.stderr.write if screen is None else lambda text: screen.print(text, end=""))):
            yield
        return
    rich = require("rich.progress", "cli", "a progress bar")
    columns = rich.TextColumn("{task.description}"), rich.BarColumn(), rich.TimeElapsedColumn()
    bar = rich.Progress(*columns, console=screen, transient=True)
    tasks: list[Any] = []

    def tell(what: str) -> None:
        if not tasks:
            bar.start()
            tasks.append(bar.add_task(_TITLE, total=None))
        bar.update(tasks[0], description=f"{_TITLE}: {what}")

    try:
        with _hearing(tell):
            yield
    finally:
        if tasks:
            bar.stop()


def tracked(steps: Sequence[Any], title: str) -> Iterable[Any]:
    """The steps with a bar, and below it one for kernels that a step compiles.

    Parameters
    ----------
    steps : sequence
    title : str
    """
    screen = _screen(None)
    if screen is None:
        return steps
    return _tracked(steps, title, screen)


def _tracked(steps: Sequence[Any], title: str, screen: Any) -> Iterator[Any]:
    rich = require("rich.progress", "cli", "a progress bar")
    with rich.Progress(console=screen, transient=True) as bar:
        task = bar.add_task(title, total=len(steps))
        compiling = bar.add_task(_TITLE, total=None, visible=False)
        with _hearing(lambda what: bar.update(compiling, description=f"{_TITLE}: {what}", visible=True)):
            for step in steps:
                yield step
                bar.update(task, advance=1)
                bar.update(compiling, visible=False)
