"""Small GEMM: FORWARD and INPUT_GRAD of convolutions so small that preparing operands would cost more than they do.

``out[m, p] = sum over (c, t) of w[m, (c, t)] * patch[c, p + distance(t)]``: rows ``m`` are result channels, lanes are
positions ``p``. Source channels are copied once, between their padding, and the positions of a row are numbered on
through the cells between that row and the next, so that every tap of every position reads at one distance::

    patch, one channel     . . . . . .        position (row, column) = row * pitch + column
                           . a b c d .        tap (i, j) = i * pitch + j further on
                           . e f g h .
                           . . . . . .        positions, 2 x 4:   p p p p - - p p p p - -

So vectors of positions are read where they lie, factors are read from the weight as it is given, and nothing is packed
but the patch. What falls between rows (-) is computed and dropped. A stride takes a patch apart into phases, in each of
which its positions are neighbours; a phase of INPUT_GRAD is a problem of its own.

All of it follows from the plan: which cells are copied where, each tap's distances in the patch and in the weight. It
lies in one table of integers, made once for many calls::

    head | a record for each phase | rows' distances in the weight | runs of cells, distances of taps, phase by phase

A task is a sample and a group. Each sum is one chain over channels and taps in order, in registers.

Error factor: as for any order of summation (Higham 2002, section 4.2), the number of products plus three.

Tried: taking two steps at once, as the compiler does unasked, spills vectors to memory (8 -> 32 channels of 14x14, 3x3:
14.2 us in the products instead of 8.8). Beyond the work that `small_gemm_conv` allows, transforming or packing weights
pays: 32 -> 32 channels of 14x14, 3x3, in a batch of 8 takes 1.6 times as long as Winograd.
"""

import numpy as np

from ...plan import CONSTANT
from .gemm import panel_width
from .jit import kernel
from .simd import ROWS, call_row, copy_between, shifted_tile

__all__ = ["HEAD", "RECORD", "small_gemm_tasks"]

#: Integers of the table's head, and of a phase's record.
HEAD, RECORD = 13, 16


@kernel
def small_gemm_tasks(begin, end, source, w, bias, residual, out, table, fill, activation):
    """``table``: what `small_gemm_conv` makes of a plan; the names here say what is in it."""
    groups, channels, rows, source_plane, out_plane = table[0], table[1], table[2], table[3], table[4]
    group_step, phases, step, lanes, rows_at = table[5], table[6], table[7], table[8], table[9]
    patch_cells, tile_cells, line_cells = table[10], table[11], table[12]
    scratch = np.empty(patch_cells + tile_cells + line_cells, out.dtype)
    tile, line = patch_cells, patch_cells + tile_cells
    plain = not residual.size and not activation[0]
    for task in range(begin, end):
        g = task % groups
        for phase in range(phases):
            at = HEAD + phase * RECORD
            runs, run_count, pitch, vectors, depth = (
                table[at],
                table[at + 1],
                table[at + 2],
                table[at + 3],
                table[at + 4],
            )
            factors, cells, deep, high, wide = table[at + 5], table[at + 6], table[at + 7], table[at + 8], table[at + 9]
            plane_pitch, row_pitch, target = table[at + 10], table[at + 11], table[at + 12]
            deep_step, high_step, wide_step = table[at + 13], table[at + 14], table[at + 15]
            scratch[:patch_cells] = 0
            for c in range(channels):
                plane = (task * channels + c) * source_plane
                for run in range(runs, runs + 3 * run_count, 3):
                    to, first, count = c * pitch + table[run], table[run + 1], table[run + 2]
                    if first == CONSTANT:
                        for i in range(count):
                            scratch[np.uintp(to + i)] = fill
                    elif step == 1:
                        # Whole vectors: what lies behind a run is copied later, or padding, or room to spare.
                        for i in range(0, count, lanes):
                            copy_between(source, plane + first + i, scratch, to + i, 0, count - i)
                    else:
                        for i in range(count):
                            scratch[np.uintp(to + i)] = source[np.uintp(plane + first + i * step)]
            tile_row, a_at = vectors * lanes, g * group_step
            for m0 in range(0, rows, ROWS):
                v, places = 0, rows_at + m0
                while v < vectors:
                    across, b_at = panel_width(vectors - v), v * lanes
                    c_at = tile + b_at
                    shifted_tile(
                        w,
                        a_at,
                        table,
                        places,
                        factors,
                        scratch,
                        b_at,
                        cells,
                        depth,
                        scratch,
                        c_at,
                        tile_row,
                        ROWS,
                        across,
                    )
                    v += across
                for m in range(m0, min(m0 + ROWS, rows)):
                    offset = bias[g * rows + m] if bias.size else out.dtype.type(0)
                    sums, to = tile + (m - m0) * tile_row, (task * rows + m) * out_plane + target
                    at = line
                    for d in range(deep):
                        for h in range(high):
                            read = sums + d * plane_pitch + h * row_pitch
                            place = to + d * deep_step + h * high_step
                            if not plain:
                                for i in range(wide):
                                    scratch[np.uintp(at + i)] = scratch[np.uintp(read + i)] + offset
                                for i in range(wide if residual.size else 0):
                                    scratch[np.uintp(at + i)] += residual[np.uintp(place + i * wide_step)]
                                at += wide
                            elif wide_step == 1:
                                for i in range(wide):
                                    out[np.uintp(place + i)] = scratch[np.uintp(read + i)] + offset
                            else:
                                for i in range(wide):
                                    out[np.uintp(place + i * wide_step)] = scratch[np.uintp(read + i)] + offset
                    if plain:
                        continue
                    if activation[0] and call_row(activation, scratch, line, at - line):
                        activation[1] = 1  # it raised; every task writes the same value
                    at = line
                    for d in range(deep):
                        for h in range(high):
                            place = to + d * deep_step + h * high_step
                            for i in range(wide):
                                out[np.uintp(place + i * wide_step)] = scratch[np.uintp(at + i)]
                            at += wide
