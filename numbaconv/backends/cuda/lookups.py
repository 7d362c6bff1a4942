"""What kernels look up in the tables of `gather.Gather`: where a column is, and where a tap reads."""

import numpy as np

from .gather import FIRST, LINES, POSITIONS, SHAPE, STEP, TARGET, TARGET_STEP
from .intrinsics import inlined

__all__ = ["cell_at", "column_at"]


@inlined
def column_at(table, record, column, out_batch):
    """A column of a phase: its sample, the first cell that it reads along each axis' line, its place in the result.

    The place is that of the first channel.
    """
    positions = np.uint64(table[record + POSITIONS])
    sample = column // positions
    place_in_sample = np.uint32(column - sample * positions)
    extent = np.uint32(table[record + SHAPE + 1])
    ow = np.uint32(place_in_sample % extent)
    place_in_sample = np.uint32(place_in_sample // extent)
    extent = np.uint32(table[record + SHAPE])
    oh, od = np.uint32(place_in_sample % extent), np.uint32(place_in_sample // extent)
    line_d = np.uint32(np.uint32(table[record + LINES]) + od * np.uint32(table[record + STEP]))
    line_h = np.uint32(np.uint32(table[record + LINES + 1]) + oh * np.uint32(table[record + STEP + 1]))
    line_w = np.uint32(np.uint32(table[record + LINES + 2]) + ow * np.uint32(table[record + STEP + 2]))
    od = np.uint32(np.uint32(table[record + FIRST]) + od * np.uint32(table[TARGET_STEP]))
    oh = np.uint32(np.uint32(table[record + FIRST + 1]) + oh * np.uint32(table[TARGET_STEP + 1]))
    ow = np.uint32(np.uint32(table[record + FIRST + 2]) + ow * np.uint32(table[TARGET_STEP + 2]))
    inside = np.uint32(
        od * np.uint32(table[TARGET + 1]) + oh * np.uint32(table[TARGET + 2]) + ow * np.uint32(table[TARGET + 3])
    )
    return sample, line_d, line_h, line_w, sample * np.uint64(out_batch) + np.uint64(inside)


@inlined
def cell_at(table, line_d, line_h, line_w, entry, step_d, step_h, step_w):
    """Where a tap reads in its sample and group, or a negative code."""
    d = table[np.uint32(line_d + np.uint32(entry[1]))]
    h = table[np.uint32(line_h + np.uint32(entry[2]))]
    w = table[np.uint32(line_w + np.uint32(entry[3]))]
    if (d | h | w) >= 0:
        return np.int64(
            np.uint32(np.uint32(entry[0]) + np.uint32(d) * step_d + np.uint32(h) * step_h + np.uint32(w) * step_w)
        )
    return np.int64(w if w < 0 else (h if h < 0 else d))
