"""Grids of small images: what a layer makes of an input, and what it looks for."""

import math
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import ArgumentError, DTypeError, ShapeError
from .figures import new_figure

__all__ = ["feature_maps", "filters"]

_INCHES = 1.5


def feature_maps(
    maps: object,
    *,
    columns: int | None = None,
    colours: str = "magma",
    clip: float = 1.0,
    title: str | None = None,
) -> Any:
    """A layer's output, channel by channel, on one scale of colours.

    Parameters
    ----------
    maps : array of shape (C, height, width), or (C, width)
        Of one sample, channels first; of rank 1 each channel is a curve.
    columns : int, optional
        As many as make the grid about square, unless given.
    colours : str
        A colour map of matplotlib's.
    clip : float
        The part of the values that colours tell apart: with 0.99 the highest hundredth has one colour.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ShapeError
        For other numbers of axes: choose a sample, or a slice of a volume.
    ArgumentError
        For no columns, and a clip out of range.
    DTypeError
        For complex numbers.
    ImportError
        Without matplotlib.

    Examples
    --------
    >>> import numpy as np
    >>> from numbaconv import plot
    >>> figure = plot.feature_maps(np.random.default_rng(0).random((6, 8, 8)), columns=3)
    >>> len([axes for axes in figure.axes if axes.images])
    6
    """
    values: Array = np.asarray(maps)
    if values.ndim not in (2, 3) or not values.size:
        raise ShapeError(
            f"feature_maps: maps must be (C, height, width) or (C, width), and not empty, but have shape {values.shape}"
        )
    if not 0 < clip <= 1:
        raise ArgumentError(f"feature_maps: clip must be over 0 and at most 1, but is {clip}")
    rows, columns = _grid("feature_maps", len(values), columns)
    figure = new_figure("feature_maps", (_INCHES * columns + 0.8, _INCHES * rows + 0.5))
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    shown = _real("feature_maps", "maps", values)
    finite = shown[np.isfinite(shown)]  # what is not stays blank
    low, high = (float(finite.min()), float(np.quantile(finite, clip))) if finite.size else (0.0, 1.0)
    for channel, panel in enumerate(panels.flat):
        panel.set_axis_off()
        if channel >= len(values):
            continue
        if values.ndim == 2:
            panel.plot(shown[channel], linewidth=0.8)
        else:
            image = panel.imshow(shown[channel], cmap=colours, vmin=low, vmax=high)
        panel.set_title(str(channel), fontsize=6, pad=2)
    if values.ndim == 3:
        figure.colorbar(image, ax=panels, shrink=0.8, fraction=0.05)
    return _titled(figure, title)


def filters(weight: object, *, columns: int | None = None, most: int = 256, title: str | None = None) -> Any:
    """A layer's filters: red where a tap is positive, blue where negative; as colours where they read three channels.

    Parameters
    ----------
    weight : array of shape (O, C / groups, height, width)
        In PyTorch's order of axes, as `numbaconv.layers.Layer.state_dict` has it. Filters that read three channels are
        shown as red, green and blue; of others each channel is an image.
    columns : int, optional
        Unless given: input channels side by side where there are several, else what makes the grid about square.
    most : int
        Images to draw at most.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ShapeError
        For other numbers of axes.
    DTypeError
        For complex numbers.
    ImportError
        Without matplotlib.

    Examples
    --------
    >>> import numpy as np
    >>> from numbaconv import plot
    >>> weight = np.random.default_rng(0).standard_normal((8, 3, 5, 5))
    >>> len(plot.filters(weight).axes)
    9
    """
    values: Array = np.asarray(weight)
    if values.ndim != 4 or not values.size:
        raise ShapeError(
            f"filters: weight must be (O, C / groups, height, width), and not empty, but has shape {values.shape}"
        )
    scaled = _real("filters", "weight", values)
    limit = float(abs(scaled[np.isfinite(scaled)]).max(initial=0)) or 1.0
    if values.shape[1] == 3:
        images = list(np.moveaxis(scaled / (2 * limit) + 0.5, 1, -1))
    else:
        images = list(scaled.reshape(-1, *values.shape[2:]))
        columns = columns or (values.shape[1] if values.shape[1] > 1 else None)
    images = images[:most]
    rows, columns = _grid("filters", len(images), columns)
    figure = new_figure("filters", (0.6 * columns + 0.6, 0.6 * rows + 0.5))
    panels = figure.subplots(rows, columns, squeeze=False)
    for number, panel in enumerate(panels.flat):
        panel.set_axis_off()
        if number < len(images):
            panel.imshow(images[number], cmap="RdBu_r", vmin=-limit, vmax=limit)
    return _titled(figure, title)


def _real(op: str, name: str, values: Array) -> Array:
    if np.iscomplexobj(values):
        raise DTypeError(f"{op}: {name} is {values.dtype}; draw its real part, or np.abs of it")
    return values.astype(np.float64)


def _grid(op: str, count: int, columns: int | None) -> tuple[int, int]:
    if columns is not None and columns < 1:
        raise ArgumentError(f"{op}: columns must be at least 1, but is {columns}")
    wide = min(columns or math.ceil(math.sqrt(count)), count)
    return -(-count // wide), wide


def _titled(figure: Any, title: str | None) -> Any:
    if title is not None:
        figure.suptitle(title)
    return figure
