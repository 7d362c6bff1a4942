"""WEIGHT_GRAD as outer products of packed panels, one step a position.

For each group and tap, ``w[m, c] = sum over (n, p) of y[n, m, p] * x[n, c, cell(p)]``. Both operands are turned once
into panels whose fastest axis is a few channels, as channels last would have them; a tap then reads whole rows of
the input's panel, so that nothing is gathered cell by cell::

    y panels  (positions, ROWS)             x panels  (cells, width)   width: 1 to 3 vectors of channels
              p0  m m m m                             cell(p0)  c c c c c c
              p1  m m m m        x   rows of x        cell(p1)  c c c c c c
              ..                     for one tap      ..
                                     = a tile of ROWS x width accumulators in registers

A task is one chunk of the positions, one group and tap, and up to PANELS panels of channels. Chunks are fixed by the
plan and summed as a tree, so threads do not change a bit.

Error factor: as for any order of summation (Higham 2002, section 4.2), the number of products plus three.

Tried: tiles of dot products along positions (`dot_gemm`) need no panels, but gather every tap's cells and add up
lanes at the end, which is much where positions are few. They remain for groups of few channels.
"""

import numpy as np
from numba import prange

from ...plan import CONSTANT
from .gather import build_runs, phase_of
from .jit import inner, kernel, parallel_kernel
from .simd import ROWS, fma_tile

__all__ = ["DEPTH", "PANELS", "STRETCH", "outer_gemm_parallel", "outer_gemm_tasks", "panels_parallel", "panels_tasks"]

#: Positions multiplied before a tile is written back.
DEPTH = 256
#: Panels of input channels in a task.
PANELS = 4
#: Positions that are turned into panels at a time.
STRETCH = 64


@kernel
def panels_tasks(begin, end, source, target, shape):
    """Turn ``(samples, groups, channels, plane)`` into panels ``(groups, panels, samples, plane, width)``.

    ``shape``: samples, groups, channels, plane, width. Channels past the last are zero.
    """
    samples, groups, channels, plane, width = shape
    panels, stretches = -(-channels // width), -(-plane // STRETCH)
    for task in range(begin, end):
        rest, stretch = divmod(task, stretches)
        rest, n = divmod(rest, samples)
        g, panel = divmod(rest, panels)
        first, last = stretch * STRETCH, min((stretch + 1) * STRETCH, plane)
        source_at = ((n * groups + g) * channels + panel * width) * plane
        target_at = ((g * panels + panel) * samples + n) * plane * width
        count = min(width, channels - panel * width)
        for p in range(first, last):
            to = target_at + p * width
            for r in range(count):
                target[np.uintp(to + r)] = source[np.uintp(source_at + r * plane + p)]
            for r in range(count, width):
                target[np.uintp(to + r)] = 0


@inner
def _pack_cells(b, to, x, panel_at, width, runs, count, covered, length, step, fill):
    """Rows of an input panel that one tap reads at consecutive positions, to ``b[to]``."""
    if covered < length:
        for i in range(length * width):
            b[np.uintp(to + i)] = 0
    for r in range(count):
        at, cell, cells = to + runs[r, 0] * width, runs[r, 1], runs[r, 2]
        if cell == CONSTANT:
            for i in range(cells * width):
                b[np.uintp(at + i)] = fill
        elif step == 1:
            for i in range(cells * width):
                b[np.uintp(at + i)] = x[np.uintp(panel_at + cell * width + i)]
        else:
            for k in range(cells):
                source = panel_at + (cell + k * step) * width
                for i in range(width):
                    b[np.uintp(at + k * width + i)] = x[np.uintp(source + i)]


@kernel
def _multiply(a, a_at, a_panel, row_panels, b, b_panel, column_panels, depth, c, keep, vectors, lanes, tile_size):
    for q in range(column_panels):
        for p in range(row_panels):
            tile, from_a = (p * column_panels + q) * tile_size, a_at + p * a_panel
            if vectors == 3:
                fma_tile(a, from_a, ROWS, 1, b, q * b_panel, depth, c, tile, keep, ROWS, 3)
            elif vectors == 2:
                fma_tile(a, from_a, ROWS, 1, b, q * b_panel, depth, c, tile, keep, ROWS, 2)
            else:
                fma_tile(a, from_a, ROWS, 1, b, q * b_panel, depth, c, tile, keep, ROWS, 1)


@kernel
def outer_gemm_tasks(begin, end, x, y, partial, shape, depths, heights, widths, fill):
    """``shape``: samples, groups, channels, rows, chunks, vectors of a panel, lanes; channels and rows of a group.

    ``x`` and ``y`` are panels, ``partial`` is ``(chunks, groups * rows, taps, channels)``.
    """
    samples, groups, channels, rows, chunks, vectors, lanes = shape
    depth, height, width = phase_of(depths, 0), phase_of(heights, 0), phase_of(widths, 0)
    positions = depth.positions * height.positions * width.positions
    cells = depth.cells * height.cells * width.cells
    taps = partial.shape[2]
    panel = vectors * lanes
    all_panels, row_panels = -(-channels // panel), -(-rows // ROWS)
    panel_blocks = -(-all_panels // PANELS)
    block = min(DEPTH, positions)
    blocks = -(-positions // block) * samples
    b = np.empty(PANELS * block * panel, x.dtype)
    c = np.empty(row_panels * ROWS * PANELS * panel, x.dtype)
    runs, counts = np.empty((taps, block, 3), np.int64), np.zeros((taps, 2), np.int64)
    built = -1
    for task in range(begin, end):
        rest, panel_block = divmod(task, panel_blocks)
        rest, t = divmod(rest, taps)
        chunk, g = divmod(rest, groups)
        first_panel = panel_block * PANELS
        panels = min(PANELS, all_panels - first_panel)
        first_block, last_block = chunk * blocks // chunks, (chunk + 1) * blocks // chunks
        if first_block == last_block:
            c[: row_panels * ROWS * panels * panel] = 0
        for each in range(first_block, last_block):
            part, n = divmod(each, samples)
            first = part * block
            length = min(block, positions - first)
            if part != built:
                build_runs(runs, counts, first, length, depth, height, width)
                built = part
            for q in range(panels):
                panel_at = ((g * all_panels + first_panel + q) * samples + n) * cells * panel
                _pack_cells(
                    b,
                    q * length * panel,
                    x,
                    panel_at,
                    panel,
                    runs[t],
                    counts[t, 0],
                    counts[t, 1],
                    length,
                    width.step,
                    fill,
                )
            a_at = ((g * row_panels * samples + n) * positions + first) * ROWS
            a_panel = samples * positions * ROWS
            _multiply(
                y,
                a_at,
                a_panel,
                row_panels,
                b,
                length * panel,
                panels,
                length,
                c,
                each - first_block,
                vectors,
                lanes,
                ROWS * panel,
            )
        for m in range(rows):
            p, r = divmod(m, ROWS)
            for q in range(panels):
                channel = (first_panel + q) * panel
                at = (p * panels + q) * ROWS * panel + r * panel
                for i in range(min(panel, channels - channel)):
                    partial[chunk, g * rows + m, t, channel + i] = c[at + i]


@parallel_kernel
def panels_parallel(tasks, chunks, source, target, shape):
    for i in prange(chunks):
        panels_tasks(i * tasks // chunks, (i + 1) * tasks // chunks, source, target, shape)


@parallel_kernel
def outer_gemm_parallel(tasks, chunks, x, y, partial, shape, depths, heights, widths, fill):
    for i in prange(chunks):
        outer_gemm_tasks(
            i * tasks // chunks,
            (i + 1) * tasks // chunks,
            x,
            y,
            partial,
            shape,
            depths,
            heights,
            widths,
            fill,
        )
