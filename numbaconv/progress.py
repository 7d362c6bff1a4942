"""Bars for work that takes a while, on standard error: one for the work, and one of its own for compiling kernels.

They need rich (``pip install 'numbaconv[cli]'``). Without it, or where there is no terminal, the first kernel that is
compiled is a line of text, and the work has no bar.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .compiling import Listener, told
from .extras import require

__all__ = ["compiling_bar", "tracked"]

_TITLE = "compiling kernels, once"


def _screen(console: Any) -> Any:
    """A console of rich's, or None where there is no rich."""
    if console is not None:
        return console
    try:
        return require("rich.console", "cli", "a progress bar").Console(stderr=True)
    except ImportError:
        return None


class _Line:
    """Tells of the first kernel that takes a while, for where lines cannot be written over."""

    def __init__(self, write: Callable[[str], object]):
        self._write, self._told = write, False

    def __call__(self, what: str | None, folder: str | None) -> None:
        if not self._told and folder is not None:
            self._told = True
            self._write(f"{_TITLE}: {what} and what else is needed; this may take minutes")


class _Bar:
    """A bar that is there while something is compiled; a line where another display does not let it."""

    def __init__(self, screen: Any):
        rich = require("rich.progress", "cli", "a progress bar")
        columns = rich.TextColumn("{task.description}"), rich.BarColumn(), rich.TimeElapsedColumn()
        self._bar = rich.Progress(*columns, console=screen, transient=True)
        self._busy = require("rich.errors", "cli", "a progress bar").LiveError
        self._line, self._task, self._depth = _Line(lambda text: screen.print(text, soft_wrap=True)), None, 0

    def __call__(self, what: str | None, folder: str | None) -> None:
        self._depth = max(self._depth + (1 if what is not None else -1), 0)
        if what is None:
            if not self._depth:
                self._bar.stop()
            return
        if self._task is None:
            self._task = self._bar.add_task(_TITLE, total=None)
        self._bar.update(self._task, description=f"{_TITLE}: {what}")
        if self._depth == 1:
            try:
                self._bar.start()
            except self._busy:
                self._line(what, folder)


@contextmanager
def compiling_bar(console: Any = None) -> Iterator[None]:
    """Show a bar whenever a ``with`` block compiles kernels.

    Parameters
    ----------
    console : rich.console.Console, optional
        Standard error, unless given.

    Examples
    --------
    >>> import numpy as np
    >>> import numbaconv
    >>> from numbaconv.progress import compiling_bar
    >>> with compiling_bar():
    ...     y = numbaconv.conv1d(np.ones((1, 1, 8)), np.ones((1, 1, 3)))
    """
    screen = _screen(console)
    if screen is None:
        shown: Listener = _Line(lambda text: sys.stderr.write(f"{text}\n"))
    else:
        shown = _Bar(screen) if screen.is_terminal else _Line(lambda text: screen.print(text, soft_wrap=True))
    with told(shown):
        yield


def tracked(steps: Sequence[Any], title: str) -> Iterable[Any]:
    """The steps with a bar, and below it one for the kernels that a step compiles.

    Parameters
    ----------
    steps : sequence
    title : str
    """
    screen = _screen(None)
    return steps if screen is None else _tracked(steps, title, screen)


def _tracked(steps: Sequence[Any], title: str, screen: Any) -> Iterator[Any]:
    rich = require("rich.progress", "cli", "a progress bar")
    with rich.Progress(console=screen, transient=True) as bar:
        task = bar.add_task(title, total=len(steps))
        below = bar.add_task(_TITLE, total=None, visible=False)

        def show(what: str | None, folder: str | None) -> None:
            bar.update(below, description=f"{_TITLE}: {what or ''}", visible=what is not None)

        with told(show):
            for step in steps:
                yield step
                bar.update(task, advance=1)
