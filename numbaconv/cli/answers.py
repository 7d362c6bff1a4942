"""What commands answer, and the screen that they answer on."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ..extras import require

__all__ = ["Answer", "CommandError", "console", "progress", "table"]


class CommandError(Exception):
    """A command line that means nothing, or cannot be done."""


class Answer(NamedTuple):
    """What a command found: ``data`` for programs, ``show(console)`` for people."""

    data: dict[str, Any]
    show: Callable[[Any], None]


def console() -> Any:
    """Standard output, wide enough for tables where it is no terminal."""
    return require("rich.console", "cli", "the command line").Console(
        width=None if sys.stdout.isatty() else 160, soft_wrap=not sys.stdout.isatty()
    )


def progress(steps: Sequence[Any], title: str) -> Iterable[Any]:
    """The steps with a bar on standard error, so that standard output stays what it is."""
    try:
        bar = require("rich.progress", "cli", "a progress bar")
    except ImportError:  # ``--json`` needs no screen
        return steps
    on_errors = require("rich.console", "cli", "a progress bar").Console(stderr=True)
    tracked: Iterable[Any] = bar.track(steps, title, console=on_errors, transient=True)
    return tracked


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[object]], justify: str = "right") -> Any:
    """A table whose first column is to the left."""
    made = require("rich.table", "cli", "the command line").Table(title=title)
    for number, column in enumerate(columns):
        made.add_column(column, justify=justify if number else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(str, row))
    return made
