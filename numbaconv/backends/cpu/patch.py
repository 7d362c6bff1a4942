"""Patches: the cells that a block of positions reads, once each, between their padding.

A tap reads a patch at a distance from the position's own cell that is the same for every position, so a product over
channels and taps needs a table of distances instead of a copy of the patch for each tap::

    patch, one channel     . . . . . . . .      padding
                           . a b c d e f .      cell of (row, column) = row * pitch + column
                           . g h i j k l .      tap (i, j) = i * dilation * pitch + j * dilation further on

Channels are the slowest axis of a patch, or the fastest, as they are in the source: nothing is transposed.
"""

import numpy as np

from ...plan import CONSTANT
from .gather import code_of
from .jit import inner, part
from .simd import ROWS, VECTOR_BYTES, copy_between

__all__ = ["fill_cells", "fill_places", "least", "pack_patch", "span", "tap_offsets"]


@part
def least(bases):
    """The first cell that any tap reads from position 0."""
    found = bases[0] if bases.size else 0
    for base in bases:
        found = min(found, base)
    return found


@part
def span(bases):
    """Cells from the first to the last that the taps read from one position."""
    first = last = bases[0] if bases.size else 0
    for base in bases:
        first, last = min(first, base), max(last, base)
    return last - first + 1


@inner
def fill_cells(patch, at, count, value):
    for i in range(count):
        patch[np.uintp(at + i)] = value


@inner
def _pack_row(patch, to, source, at, step, first_cell, count, cells, bordered, limit, fill):
    """One row of one channel: cells ``first_cell .. first_cell + count - 1``, ``step`` apart in the source."""
    for j in range(count):
        code = code_of(first_cell + j, cells, bordered, limit)
        if code >= 0:
            patch[np.uintp(to + j)] = source[np.uintp(at + code * step)]
        else:
            patch[np.uintp(to + j)] = fill if code == CONSTANT else patch.dtype.type(0)


@inner
def _pack_cells(patch, to, pitch, source, at, step, channels, first_cell, count, cells, bordered, limit, fill):
    """One row of cells whose channels are neighbours."""
    for j in range(count):
        code = code_of(first_cell + j, cells, bordered, limit)
        if code >= 0:
            start = at + code * step
            for c in range(channels):
                patch[np.uintp(to + j * pitch + c)] = source[np.uintp(start + c)]
        else:
            fill_cells(patch, to + j * pitch, channels, fill if code == CONSTANT else patch.dtype.type(0))


@part
def _pack_bordered(
    patch,
    p_at,
    pitches,
    source,
    at,
    strides,
    channels,
    od,
    first_row,
    rows,
    column,
    columns,
    depth,
    height,
    width,
    fill,
):
    """As `pack_patch`, cell by cell: any border, any distance of cells."""
    row = first_row * height.step + least(height.base)
    together = channels if pitches[3] != 1 else 1
    for c in range(0, channels, together):
        for td in range(depth.base.size):
            d = code_of(od * depth.step + depth.base[td], depth.cells, depth.bordered, depth.limit)
            for r in range(rows):
                h = code_of(row + r, height.cells, height.bordered, height.limit)
                to = p_at + c * pitches[0] + td * pitches[1] + r * pitches[2]
                start = at + c * strides[0] + d * strides[1] + h * strides[2]
                value = fill if (h if h < 0 else d) == CONSTANT else patch.dtype.type(0)
                if d < 0 or h < 0:
                    # Axes are padded one after the other, the width last: its own padding counts where both do.
                    for j in range(columns):
                        code = code_of(column + j, width.cells, width.bordered, width.limit)
                        cell = value if code >= 0 else fill if code == CONSTANT else patch.dtype.type(0)
                        fill_cells(patch, to + j * pitches[3], together, cell)
                elif pitches[3] == 1:  # one channel alone may have room for others beside it
                    _pack_row(
                        patch,
                        to,
                        source,
                        start,
                        strides[3],
                        column,
                        columns,
                        width.cells,
                        width.bordered,
                        width.limit,
                        fill,
                    )
                else:
                    _pack_cells(
                        patch,
                        to,
                        pitches[3],
                        source,
                        start,
                        strides[3],
                        channels,
                        column,
                        columns,
                        width.cells,
                        width.bordered,
                        width.limit,
                        fill,
                    )


@part
def pack_patch(
    patch,
    p_at,
    pitches,
    source,
    at,
    strides,
    channels,
    od,
    first_row,
    rows,
    column,
    columns,
    depth,
    height,
    width,
    fill,
):
    """Cells that positions of depth ``od`` and from row ``first_row`` on read, of some channels, from ``column`` on.

    Channels are neighbours in the patch, as they are in the source, unless its cells are. The patch has room for a
    vector more, and what is behind these cells is not kept.

    ``pitches`` and ``strides``: distances of neighbouring channels, depth taps, rows, cells in the patch, and of
    channels, depths, rows, cells in the source. ``at``: cell 0 of the first channel. ``rows`` and ``columns`` are the
    patch's.
    """
    if depth.bordered or height.bordered or width.bordered or pitches[3] != 1 or strides[3] != 1:
        _pack_bordered(
            patch,
            p_at,
            pitches,
            source,
            at,
            strides,
            channels,
            od,
            first_row,
            rows,
            column,
            columns,
            depth,
            height,
            width,
            fill,
        )
        return
    lanes, row = VECTOR_BYTES // patch.itemsize, first_row * height.step + least(height.base)
    left = min(max(-column, 0), columns)
    right = max(min(width.cells - column, columns), left)
    # No function that is inlined here takes an array: counting its references at each row took as long as the copy.
    for c in range(channels):
        for td in range(depth.base.size):
            d = od * depth.step + depth.base[td]
            for r in range(rows):
                h = row + r
                inside = 0 <= d < depth.cells and 0 <= h < height.cells
                first, last = (left, right) if inside else (0, 0)
                to = p_at + c * pitches[0] + td * pitches[1] + r * pitches[2]
                start = at + c * strides[0] + d * strides[1] + h * strides[2] + column
                # Whole vectors: what lies behind the row is packed later, or room to spare.
                for j in range(0, columns, lanes):
                    copy_between(source, start + j, patch, to + j, first - j, last - j)


@part
def tap_offsets(offsets, at, channels, pitches, depth_steps, depth, height, width, shift):
    """Where each channel and tap reads, from the position's own cell, from ``offsets[at]`` on.

    ``depth_steps``: depth taps lie as in the source; ``shift`` is added to all.
    """
    least_depth, least_height, least_width = least(depth.base), least(height.base), least(width.base)
    k = at
    for c in range(channels):
        for td in range(depth.base.size):
            slot = depth.base[td] - least_depth if depth_steps else td
            for th in range(height.base.size):
                row = shift + c * pitches[0] + slot * pitches[1] + (height.base[th] - least_height) * pitches[2]
                for tw in range(width.base.size):
                    offsets[k] = row + (width.base[tw] - least_width) * pitches[3]
                    k += 1


@part
def fill_places(places, at, samples, sample_step, rows, row_step, columns, step):
    """Where each position of a task reads, from its first; what fills up the last tile reads as the first does."""
    p = at
    for n in range(samples):
        for r in range(rows):
            for j in range(columns):
                places[p] = n * sample_step + r * row_step + j * step
                p += 1
    places[p : p + ROWS] = 0
