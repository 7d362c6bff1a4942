"""Lanes of channels: panels of result channels, and rows of cells turned into vectors of channels."""

import numpy as np

from .gemm import panel_width
from .jit import inner, part
from .simd import ROWS, gather_tile
from .simd_tiles import transpose_lanes

__all__ = ["deliver_panel", "multiply_tiles", "panel_of", "stage_rows"]


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


@part
def multiply_tiles(a, at, places, p_at, positions, offsets, o_at, b, b_at, depth, c, c_at, keep, vectors, lanes):
    """A panel of ``c`` by tiles of rows, each from half of ROWS up to ROWS rows, as evenly many as there can be.

    As `gather_tile` for ``positions`` rows. Every tile but the last has exactly its rows, since a sum that is kept must
    not be added twice; ``places`` and ``c`` have room for half of ROWS.
    """
    position, left = 0, -(-positions // ROWS)
    while position < positions:
        some = max(-(-(positions - position) // left), ROWS // 2)
        to = c_at + position * vectors * lanes
        gather_tile(a, at, places, p_at + position, offsets, o_at, b, b_at, depth, c, to, keep, some, vectors)
        position, left = position + some, max(left - 1, 1)


@part
def deliver_panel(partial, to, row_length, sums, at, rows, breadth, vectors, some, lanes, block):
    """The sums of one panel, transposed into rows of the weight."""
    for i in range(vectors):
        valid = min(lanes, some - i * lanes)
        for r in range(0, rows, lanes):
            place, count = to + i * lanes * row_length + r, min(lanes, rows - r)
            if valid == lanes and count == lanes:
                transpose_lanes(sums, at + r * breadth + i * lanes, breadth, partial, place, row_length)
            else:
                transpose_lanes(sums, at + r * breadth + i * lanes, breadth, block, 0, lanes)
                for m in range(valid):
                    for j in range(count):
                        partial[np.uintp(place + m * row_length + j)] = block[np.uintp(m * lanes + j)]
