"""Figures of matplotlib's, made without its global state: nothing is shown, and no display is needed."""

import io
import os
from pathlib import Path
from typing import Any

from ..extras import require
from ..files import replaced

__all__ = ["new_figure", "save"]


def new_figure(op: str, size: tuple[float, float]) -> Any:
    """An empty figure of a size in inches."""
    return require("matplotlib.figure", "plot", f"numbaconv.plot.{op}").Figure(figsize=size, layout="constrained")


def save(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure to a file, in the format that its ending names. The file is replaced as a whole.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : str or path
        Folders that are missing are made.

    Examples
    --------
    >>> import numpy as np, os, tempfile
    >>> from numbaconv import plot
    >>> path = os.path.join(tempfile.mkdtemp(), "new", "filters.png")
    >>> plot.save(plot.filters(np.ones((4, 1, 3, 3))), path)
    >>> os.path.getsize(path) > 100
    True
    """
    file, drawn = Path(path), io.BytesIO()
    kind = file.suffix[1:] or figure.canvas.get_default_filetype()
    figure.savefig(drawn, format=kind, dpi=90, bbox_inches="tight")
    file = file if file.suffix else file.with_name(f"{file.name}.{kind}")
    file.parent.mkdir(parents=True, exist_ok=True)
    with replaced("plot.save", file) as stream:
        stream.write(drawn.getbuffer())
