"""Lanes of channels: panels of result channels, and rows of cells turned into vectors of channels."""

import numpy as np

from .gemm import panel_width
from .jit import inner
from .simd import ROWS, gather_tile
from .simd_tiles import transpose_lanes

__all__ = ["gather_rows", "panel_of", "stage_rows"]


@inner
def stage_rows(stage, s_at, pitch, source, at, row_step, rows, length, lanes):
    """``length`` neighbouring cells of each of some rows, as vectors of rows; rows past the last are zero.

    Vectors are ``pitch`` apart; ``stage`` has room for ``length`` rounded up to whole blocks of ``lanes``.
    """
    for q in range(0, length, lanes):
        if rows == lanes and at + (lanes - 1) * row_step + q + lanes <= source.size:
            transpose_lanes(source, at + q, row_step, stage, s_at + q * pitch, pitch)
        else:
            for i in range(q, min(q + lanes, length)):
                for r in range(rows):
                    stage[np.uintp(s_at + i * pitch + r)] = source[np.uintp(at + r * row_step + i)]
                for r in range(rows, lanes):
                    stage[np.uintp(s_at + i * pitch + r)] = 0


@inner
def panel_of(vectors, panel):
    """The first vector of a panel, and how many it has."""
    vector = 0
    for _ in range(panel):
        vector += panel_width(vectors - vector)
    return vector, panel_width(vectors - vector)


@inner
def gather_rows(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, rows, vectors):
    """A tile of `gather_tile`: from half of ROWS up to ROWS rows, one panel across."""
    if vectors == 3:
        if ROWS == 8:
            if rows == 8:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 8, 3)
            elif rows == 7:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 7, 3)
            elif rows == 6:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 6, 3)
            elif rows == 5:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 5, 3)
            else:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 4, 3)
        else:
            if rows == 4:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 4, 3)
            elif rows == 3:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 3, 3)
            else:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 2, 3)
    elif vectors == 2:
        if ROWS == 8:
            if rows == 8:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 8, 2)
            elif rows == 7:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 7, 2)
            elif rows == 6:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 6, 2)
            elif rows == 5:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 5, 2)
            else:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 4, 2)
        else:
            if rows == 4:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 4, 2)
            elif rows == 3:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 3, 2)
            else:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 2, 2)
    else:
        if ROWS == 8:
            if rows == 8:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 8, 1)
            elif rows == 7:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 7, 1)
            elif rows == 6:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 6, 1)
            elif rows == 5:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 5, 1)
            else:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 4, 1)
        else:
            if rows == 4:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 4, 1)
            elif rows == 3:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 3, 1)
            else:
                gather_tile(a, at, places, p_at, offsets, o_at, b, b_at, depth, c, to, keep, 2, 1)
