"""What one output cell of a stack of layers sees, drawn over its input."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import ArgumentError, ShapeError
from ..extras import require
from ..plan import ConvPlan
from ..plan import receptive_field as field_of
from .figures import new_figure

__all__ = ["receptive_field"]


def receptive_field(
    layers: Iterable[ConvPlan | Mapping[str, Any]],
    image: object,
    *,
    cell: tuple[int, int] = (0, 0),
    frames: Iterable[int] | None = None,
    title: str | None = None,
) -> Any:
    """The receptive field of one output cell, over the input, layer by layer.

    Parameters
    ----------
    layers : iterable of mapping or ConvPlan
        As for `numbaconv.receptive_field`, of rank 2, first layer first. A frame is drawn for the output of each.
    image : array of shape (height, width) or (height, width, 3)
        The input.
    cell : two ints
        Row and column of a cell of the last layer's output. Frames of earlier layers are around the centre of what
        the cell sees of their output.
    frames : iterable of int, optional
        After how many layers to draw one; after each, unless given.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ShapeError
        If the image has other axes.
    ArgumentError
        If there is no layer, or not the one for a frame, and as `numbaconv.receptive_field`.
    ImportError
        Without matplotlib.

    Examples
    --------
    >>> import numpy as np
    >>> from numbaconv import plot
    >>> layers = [{"kernel_size": 7, "stride": 2, "padding": 3}, {"kernel_size": 3, "padding": 1}]
    >>> figure = plot.receptive_field(layers, np.zeros((32, 32)), cell=(4, 4))
    >>> [tuple(map(float, (frame.get_width(), frame.get_height()))) for frame in figure.axes[0].patches]
    [(7.0, 7.0), (11.0, 11.0)]
    """
    values: Array = np.asarray(image)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3):
        raise ShapeError(
            f"receptive_field: image must be (height, width) or (height, width, 3), but has shape {values.shape}"
        )
    stack = list(layers)
    if not stack:
        raise ArgumentError("receptive_field: there is no layer")
    fields = [field_of(stack[: depth + 1]) for depth in range(len(stack))]
    if len(fields[-1].size) != 2:
        raise ArgumentError(f"receptive_field: layers have rank {len(fields[-1].size)}, but pictures have 2")
    shown = sorted(set(range(1, len(stack) + 1) if frames is None else frames))
    if not shown or shown[0] < 1 or shown[-1] > len(stack):
        raise ArgumentError(f"receptive_field: frames are {shown}, but there are {len(stack)} layers, counted from 1")
    figure = new_figure("receptive_field", (6, 6 * values.shape[0] / values.shape[1] + 0.6))
    axes = figure.subplots()
    axes.imshow(values, cmap="gray")
    colours = _colours(len(shown))
    last = fields[-1]
    centre = [last.offset[at] + cell[at] * last.stride[at] + (last.size[at] - 1) / 2 for at in range(2)]
    for depth, colour in zip(shown, colours, strict=True):
        field = fields[depth - 1]
        top, left = (centre[at] - field.size[at] / 2 for at in range(2))
        _frame(axes, left, top, field.size, colour, f"{depth} layers: {field.size[0]}x{field.size[1]}")
    # Fields reach into the padding: all of them is shown.
    (height, width), reach = values.shape[:2], [last.size[at] / 2 for at in range(2)]
    axes.set_xlim(min(-0.5, centre[1] - reach[1] - 1), max(width - 0.5, centre[1] + reach[1] + 1))
    axes.set_ylim(max(height - 0.5, centre[0] + reach[0] + 1), min(-0.5, centre[0] - reach[0] - 1))
    axes.legend(fontsize=7, loc="upper right")
    axes.set_title(title if title is not None else f"what output cell {cell} sees", fontsize=10)
    return figure


def _colours(count: int) -> list[tuple[float, ...]]:
    """Colours from blue to red, one a layer."""
    steps = np.linspace(0, 1, count) if count > 1 else np.ones(1)
    return [(float(step), 0.25, float(1 - step), 1.0) for step in steps]


def _frame(axes: Any, left: float, top: float, size: tuple[int, ...], colour: Any, label: str) -> None:
    patches = require("matplotlib.patches", "plot", "numbaconv.plot.receptive_field")
    axes.add_patch(
        patches.Rectangle((left, top), size[1], size[0], fill=False, edgecolor=colour, linewidth=1.5, label=label)
    )
