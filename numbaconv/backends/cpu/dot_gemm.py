"""WEIGHT_GRAD as tiles of dot products over positions.

For each group, ``w[m, (c, t)] = sum over (n, p) of y[n, m, p] * x[n, c, cell(p, t)]``. Both factors are read along
positions, which are neighbours in memory, so vectors run along the sum and nothing is transposed::

                 LENGTH positions of one or more samples
        y row m  ======================   ROWS lines  \\
        x (c,t)  ======================   3 lines      > a tile of vector accumulators, lanes added up at the end
                 (gathered by runs)                   /

A task is one chunk of the positions, one group, MOST_ROWS rows and MOST_COLUMNS columns (channel and tap). Lines
of a block are packed once for the task; accumulators stay in the second-level cache. Chunks are fixed by the plan
and summed as a tree, so threads do not change a bit.

Error factor: as for any order of summation (Higham 2002, section 4.2), the number of products plus three.
"""

import numpy as np

from .gather import build_runs, pack_line, phase_of, phased_axis
from .jit import kernel, part
from .simd import ROWS, add_lanes, dot_tile

__all__ = ["LENGTH", "MOST_COLUMNS", "MOST_ROWS", "dot_gemm_tasks"]

#: Positions in a block of lines.
LENGTH = 512
MOST_ROWS = 128
MOST_COLUMNS = 48


@part
def _pack_rows(a, y, n, first_row, rows, plane, at, begin, length, line):
    """Copy positions ``begin .. begin + length - 1`` of sample ``n`` to ``at`` in each row's line."""
    for r in range(rows):
        source = (n + first_row + r) * plane + begin
        to = r * line + at
        for i in range(length):
            a[np.uintp(to + i)] = y[np.uintp(source + i)]


@part
def _pack_columns(b, x, plane, first_plane, column, columns, runs, counts, at, length, line, step, fill):
    """Gather a stretch of positions for each column (channel and tap) to ``at`` in its line."""
    taps = counts.shape[0]
    for j in range(columns):
        c, t = divmod(column + j, taps)
        pack_line(
            b,
            j * line + at,
            x,
            first_plane + c * plane,
            runs,
            counts,
            t,
            length,
            step,
            fill,
        )


@part
def _clear_tails(lines, count, all_lines, used, line):
    """Zeros behind what was packed, and in the lines that only fill up a tile."""
    for r in range(all_lines):
        for i in range(used if r < count else 0, line):
            lines[r * line + i] = 0


@kernel
def dot_gemm_tasks(begin, end, x, y, partial, shape, axes, fill):
    """``shape``: samples, groups, channels, rows, chunks, lanes; channels and rows of a group.

    ``partial`` is ``(chunks, groups * rows, channels * taps)``. ``axes``: depth, height and width, merged.
    """
    samples, groups, channels, rows, chunks, lanes = shape
    depth, height = phase_of(phased_axis(axes, 0), 0), phase_of(phased_axis(axes, 1), 0)
    width = phase_of(phased_axis(axes, 2), 0)
    positions = depth.positions * height.positions * width.positions
    x_plane = depth.cells * height.cells * width.cells
    taps = depth.tap.size * height.tap.size * width.tap.size
    all_columns = channels * taps
    row_blocks, column_blocks = -(-rows // MOST_ROWS), -(-all_columns // MOST_COLUMNS)
    length = min(LENGTH, -(-max(samples * positions, 1) // lanes) * lanes)
    blocks = -(-samples * positions // length)
    most_rows, most_columns = min(MOST_ROWS, rows) + ROWS, min(MOST_COLUMNS, all_columns) + 3
    a, b = np.empty(most_rows * length, partial.dtype), np.empty(most_columns * length, partial.dtype)
    c = np.empty(most_rows * most_columns * lanes, partial.dtype)
    runs, counts = np.empty((taps, min(length, positions), 3), np.int64), np.zeros((taps, 2), np.int64)
    built_begin, built_length = -1, -1
    for task in range(begin, end):
        rest, column_block = divmod(task, column_blocks)
        rest, row_block = divmod(rest, row_blocks)
        chunk, g = divmod(rest, groups)
        first_row, column = row_block * MOST_ROWS, column_block * MOST_COLUMNS
        count, columns = min(MOST_ROWS, rows - first_row), min(MOST_COLUMNS, all_columns - column)
        row_tiles, column_tiles = -(-count // ROWS), -(-columns // 3)
        c[: row_tiles * column_tiles * ROWS * 3 * lanes] = 0
        for block in range(chunk * blocks // chunks, (chunk + 1) * blocks // chunks):
            start = block * length
            used = min(length, samples * positions - start)
            at = 0
            while at < used:
                n, p = divmod(start + at, positions)
                stretch = min(positions - p, used - at)
                if p != built_begin or stretch != built_length:
                    build_runs(runs, counts, p, stretch, depth, height, width)
                    built_begin, built_length = p, stretch
                _pack_rows(a, y, (n * groups + g) * rows, first_row, count, positions, at, p, stretch, length)
                planes = (n * groups + g) * channels * x_plane
                _pack_columns(
                    b, x, x_plane, planes, column, columns, runs, counts, at, stretch, length, width.step, fill
                )
                at += stretch
            _clear_tails(a, count, row_tiles * ROWS, used, length)
            _clear_tails(b, columns, column_tiles * 3, used, length)
            vectors = -(-used // lanes)
            for q in range(column_tiles):
                for r in range(row_tiles):
                    tile = (r * column_tiles + q) * ROWS * 3 * lanes
                    dot_tile(a, r * ROWS * length, length, b, q * 3 * length, length, vectors, c, tile, ROWS, 3)
        for m in range(count):
            for j in range(columns):
                tile = m // ROWS * column_tiles + j // 3
                total = add_lanes(c, (tile * ROWS * 3 + m % ROWS * 3 + j % 3) * lanes)
                partial[chunk, g * rows + first_row + m, column + j] = total
