"""What commands answer, and the screen that they answer on."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ..extras import require

__all__ = ["Answer", "CommandError", "console", "table"]


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


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[object]], justify: str = "right") -> Any:
    """A table whose first column is to the left."""
    made = require("rich.table", "cli", "the command line").Table(title=title)
    for number, column in enumerate(columns):
        made.add_column(column, justify=justify if number else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(str, row))
    return made
