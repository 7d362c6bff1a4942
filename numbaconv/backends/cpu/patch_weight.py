"""WEIGHT_GRAD as products whose lanes are result channels, whose rows are channels and taps, whose depth is positions.

``w[m, (c, t)] = sum over p of x[cell(p) + distance(c, t)] * y[p, m]``. As in `patch_gemm`, a factor is one cell of the
input's patch and nothing is gathered for each tap; only ``y`` is turned, a panel at a time, into vectors of channels::

                                panel of y: positions x 3 vectors of result channels
                              +-----------+
        patch of x            |  p0       |
     (c, t) 4 to 8 rows       |  p1       |   depth: up to POSITIONS, of several rows and samples
                              +-----------+
        distances of rows     | accumul.  |
        and of positions      +-----------+   -> sums (panel, (c, t), lanes), transposed into the weight at the end

A task is a chunk of the positions, a group, a block of source channels with all their taps; its sums stay in the
second-level cache. Chunks are fixed by the plan and summed as a tree, so threads do not change a bit.

Error factor: as for any order of summation (Higham 2002, section 4.2), the number of products plus three.
"""

import numpy as np

from .channels import deliver_panel, multiply_tiles, stage_rows
from .gather import phase_of
from .gemm import panel_width
from .jit import kernel, part
from .patch import fill_places, least, pack_patch, span, tap_offsets
from .simd import ROWS, writable

__all__ = ["patch_weight_tasks"]


@part
def _turn(panel, y, at, strides, samples, rows, columns, whole, breadth, vectors, some, lanes):
    """The output gradient of a unit's positions, as vectors of channels; channels past the last are zero."""
    if strides[1] == 1 and strides[4] != 1:
        for p in range(samples * rows * columns):
            rest, j = divmod(p, columns)
            n, r = divmod(rest, rows)
            start = at + n * strides[0] + r * strides[3] + j * strides[4]
            for m in range(some):
                panel[np.uintp(p * breadth + m)] = y[np.uintp(start + m)]
            for m in range(some, breadth):
                panel[np.uintp(p * breadth + m)] = 0
        return
    stretch, count = (rows * columns, samples) if whole else (columns, samples * rows)
    for s in range(count):
        n, r = (s, 0) if whole else divmod(s, rows)
        start = at + n * strides[0] + r * strides[3]
        for i in range(vectors):
            to = s * stretch * breadth + i * lanes
            valid = min(lanes, some - i * lanes)
            stage_rows(panel, to, breadth, y, start + i * lanes * strides[1], strides[1], valid, stretch, lanes)


@kernel
def patch_weight_tasks(begin, end, x, y, partial, shape, strides, y_strides, depths, heights, widths, fill):
    """``shape``: samples, groups, channels and rows of a group, channels of a task, samples, rows and columns of a unit
    of positions, blocks of each, chunks, whether the input is its own patch, lanes.

    ``partial`` is ``(chunks, groups * rows, channels * taps)``.
    """
    batch, groups, channels, rows, task_channels, unit_samples, unit_rows, unit_columns = shape[:8]
    sample_blocks, row_blocks, column_blocks, chunks, in_place, lanes = shape[8:]
    depth, height, width = phase_of(depths, 0), phase_of(heights, 0), phase_of(widths, 0)
    vectors, blocks = -(-rows // lanes), -(-channels // task_channels)
    taps = depth.base.size * height.base.size * width.base.size
    high = (unit_rows - 1) * height.step + span(height.base)
    wide = (unit_columns - 1) * width.step + span(width.base)
    pitches, sample_pitch = strides[1:], strides[0]
    if not in_place:
        if strides[1] == 1 and strides[4] != 1:
            pitches = (1, high * wide * task_channels, wide * task_channels, task_channels)
        else:
            pitches = (depth.base.size * high * wide, high * wide, wide, 1)
        sample_pitch = depth.base.size * high * wide * task_channels
    patch = np.zeros(1 if in_place else sample_pitch * unit_samples + lanes, partial.dtype)
    a = writable(x) if in_place else patch
    most = unit_samples * unit_rows * unit_columns
    offsets, places = np.zeros(most + ROWS, np.int64), np.zeros(task_channels * taps + ROWS, np.int64)
    tap_offsets(places, 0, task_channels, pitches, in_place, depth, height, width, 0)
    panel_y, block = np.empty((most + lanes) * 3 * lanes, partial.dtype), np.empty(lanes * lanes, partial.dtype)
    sums_rows = task_channels * taps + ROWS + lanes
    sums = np.empty(sums_rows * vectors * lanes, partial.dtype)
    units, row_length = sample_blocks * depth.positions * row_blocks * column_blocks, channels * taps
    shaped = (-1, -1, -1)
    for task in range(begin, end):
        rest, channel_block = divmod(task, blocks)
        chunk, g = divmod(rest, groups)
        c0 = channel_block * task_channels
        some = min(task_channels, channels - c0)
        first_unit, last_unit = chunk * units // chunks, (chunk + 1) * units // chunks
        if first_unit == last_unit:
            sums[:] = 0
        for unit in range(first_unit, last_unit):
            rest, column_block = divmod(unit, column_blocks)
            rest, row_block = divmod(rest, row_blocks)
            sample_block, od = divmod(rest, depth.positions)
            n, row, column = sample_block * unit_samples, row_block * unit_rows, column_block * unit_columns
            samples, count = min(unit_samples, batch - n), min(unit_rows, height.positions - row)
            columns = min(unit_columns, width.positions - column)
            if shaped != (samples, count, columns):
                row_step, step = height.step * pitches[2], width.step * pitches[3]
                fill_places(offsets, 0, samples, sample_pitch, count, row_step, columns, step)
                shaped = (samples, count, columns)
            plane = n * strides[0] + (g * channels + c0) * strides[1]
            for s in range(0 if in_place else samples):
                pack_patch(
                    patch,
                    s * sample_pitch,
                    pitches,
                    x,
                    plane + s * strides[0],
                    strides[1:],
                    some,
                    od,
                    row,
                    (count - 1) * height.step + span(height.base),
                    column * width.step + least(width.base),
                    (columns - 1) * width.step + span(width.base),
                    depth,
                    height,
                    width,
                    fill,
                )
            if in_place:
                plane += (od * depth.step + least(depth.base)) * strides[2]
                plane += (row * height.step + least(height.base)) * strides[3]
                plane += (column * width.step + least(width.base)) * strides[4]
            y_at = n * y_strides[0] + g * rows * y_strides[1] + od * y_strides[2]
            y_at += row * y_strides[3] + column * y_strides[4]
            vector = 0
            while vector < vectors:
                across = panel_width(vectors - vector)
                breadth = across * lanes
                _turn(
                    panel_y,
                    y,
                    y_at + vector * lanes * y_strides[1],
                    y_strides,
                    samples,
                    count,
                    columns,
                    columns == y_strides[3],
                    breadth,
                    across,
                    min(breadth, rows - vector * lanes),
                    lanes,
                )
                multiply_tiles(
                    a,
                    plane if in_place else 0,
                    places,
                    0,
                    some * taps,
                    offsets,
                    0,
                    panel_y,
                    0,
                    samples * count * columns,
                    sums,
                    vector * lanes * sums_rows,
                    unit - first_unit,
                    across,
                    lanes,
                )
                vector += across
        vector = 0
        while vector < vectors:
            across = panel_width(vectors - vector)
            to = ((chunk * groups + g) * rows + vector * lanes) * row_length + c0 * taps
            at, valid = vector * lanes * sums_rows, min(across * lanes, rows - vector * lanes)
            deliver_panel(partial, to, row_length, sums, at, some * taps, across * lanes, across, valid, lanes, block)
            vector += across
