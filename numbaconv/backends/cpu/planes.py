"""Patches whose strides are taken apart, so that neighbouring positions read neighbouring cells for every tap.

::

    source, stride 2     a b c d e f        patch    a c e   b d f     rows of even number,
                         g h i j k l                 m o q   n p r     even and odd columns
                         m n o p q r                 g i k   h j l     rows of odd number

A tap is a distance from a position's own cell: its remainders by the strides choose the part, its quotients the row and
the cell. Where the stride is 1 there is one part, the patch as it is.
"""

import numpy as np

from ...plan import CONSTANT
from .gather import code_of
from .jit import inner, kernel
from .patch import least, span
from .simd import VECTOR_BYTES, copy_between, copy_vector

__all__ = ["further", "line_offsets", "pack_planes"]


@kernel
def further(bases, step):
    """Cells behind the last position's own that the taps read in a part of a patch."""
    return (span(bases) - 1) // step


@kernel
def line_offsets(offsets, channels, pitches, depth, height, width):
    """Where each channel and tap reads, from the first position's cell on.

    ``pitches``: distances of channels, depth taps, parts and rows of a patch.
    """
    first_row, first_cell, k = least(height.base), least(width.base), 0
    for c in range(channels):
        for td in range(depth.base.size):
            for th in range(height.base.size):
                down, a = divmod(height.base[th] - first_row, height.step)
                for tw in range(width.base.size):
                    right, b = divmod(width.base[tw] - first_cell, width.step)
                    part = a * width.step + b
                    offsets[k] = c * pitches[0] + td * pitches[1] + part * pitches[2] + down * pitches[3] + right
                    k += 1


@inner
def _pack_bordered(patch, to, source, at, d, h, column, step, columns, fill, width):
    """One row of a part, cell by cell, where padding is not zeros everywhere."""
    # Axes are padded one after the other, the width last: its own padding counts where both do.
    outside = (fill if (h if h < 0 else d) == CONSTANT else patch.dtype.type(0)) if d < 0 or h < 0 else source[at]
    for j in range(columns):
        code = code_of(column + j * step, width.cells, width.bordered, width.limit)
        if code < 0:
            patch[np.uintp(to + j)] = fill if code == CONSTANT else patch.dtype.type(0)
        elif d < 0 or h < 0:
            patch[np.uintp(to + j)] = outside
        else:
            patch[np.uintp(to + j)] = source[np.uintp(at + code)]


@kernel
def pack_planes(
    patch, pitches, source, at, strides, channels, od, first_row, rows, column, columns, depth, height, width, fill
):
    """Cells that positions of depth ``od``, in some rows and columns, read of some channels.

    ``strides``: distances of channels, depths and rows in the source; ``at``: cell 0 of the first channel.
    """
    lanes, step = VECTOR_BYTES // patch.itemsize, width.step
    row, cell = first_row * height.step + least(height.base), column * step + least(width.base)
    bordered = depth.bordered or height.bordered or width.bordered
    high, wide = span(height.base), span(width.base)
    # No function that is inlined here takes an array: counting its references at each row took as long as the copy.
    for c in range(channels):
        for td in range(depth.base.size):
            d = od * depth.step + depth.base[td]
            if bordered:
                d = code_of(d, depth.cells, depth.bordered, depth.limit)
            for a in range(min(height.step, high)):
                for r in range(rows + (high - 1 - a) // height.step):
                    h = row + a + r * height.step
                    if bordered:
                        h = code_of(h, height.cells, height.bordered, height.limit)
                    inside = 0 <= d < depth.cells and 0 <= h < height.cells
                    line = c * pitches[0] + td * pitches[1] + a * step * pitches[2] + r * pitches[3]
                    start = at + c * strides[0] + d * strides[1] + h * strides[2]
                    if step == 1 and not bordered:
                        # Whole vectors: what lies behind the row is packed later, or room to spare.
                        count = columns + wide - 1
                        left = min(max(-cell, 0), count) if inside else 0
                        right = max(min(width.cells - cell, count), left) if inside else 0
                        for j in range(0, count, lanes):
                            if left <= j and j + lanes <= right:
                                copy_vector(source, start + cell + j, patch, line + j)
                            else:
                                copy_between(source, start + cell + j, patch, line + j, left - j, right - j)
                        continue
                    for b in range(min(step, wide)):
                        count, first = columns + (wide - 1 - b) // step, cell + b
                        to = line + b * pitches[2]
                        if bordered:
                            _pack_bordered(patch, to, source, start, d, h, first, step, count, fill, width)
                            continue
                        left = min(max(-(first // step), 0), count)
                        right = max(min(-((first - width.cells) // step), count), left)
                        if not inside:
                            left = right = 0
                        for j in range(left):
                            patch[np.uintp(to + j)] = 0
                        if step == 2:
                            for j in range(left, right):
                                patch[np.uintp(to + j)] = source[np.uintp(start + first + 2 * j)]
                        else:
                            for j in range(left, right):
                                patch[np.uintp(to + j)] = source[np.uintp(start + first + step * j)]
                        for j in range(right, count):
                            patch[np.uintp(to + j)] = 0
