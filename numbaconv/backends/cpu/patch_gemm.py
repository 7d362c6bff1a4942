"""Patch GEMM: FORWARD and INPUT_GRAD as products whose lanes are result channels and whose rows are positions.

``out[p, m] = sum over (c, t) of source[c, cell(p) + distance(c, t)] * w[(c, t), m]``. Neither the matrix of gathered
cells nor a copy for each tap exists: a factor is one cell, and a table holds the distance of each channel and tap::

                               panel of weights: (c, t) x 3 vectors of result channels
                             +----------------+
      patch, some channels   |  w  w  w       |
     . . . . . . .           +----------------+
     . p0 p1 p2 .            |  accumulators  |  4 to 8 positions of a row, as evenly many as the row allows
     . . . . . . .           +----------------+

A stride is a distance between rows of the tile, a dilation one between taps, a phase of INPUT_GRAD a subset of the
taps. Where no tap reads padding the source is its own patch. Channels may be the slowest axis of source and result or
the fastest; only results that are not channels last are transposed, at the end, in registers.

A task is a phase, a sample, a group, a depth, some rows of positions (or a stretch of one), some panels. Sums run over
channels and taps in order, in blocks whose totals are added in order: the plan's, whatever the split into tasks.

Error factor: as for any order of summation (Higham 2002, section 4.2), the number of products plus three.
"""

import numpy as np

from .channels import multiply_tiles, panel_of, stage_rows
from .fan_out import call_tasks
from .gather import phase_of, phased_axis
from .gemm import flat_taps, panel_width
from .jit import kernel, part
from .patch import fill_places, least, pack_patch, span, tap_offsets
from .patch_store import store_last, store_transposed
from .simd import ROWS, copy_vector, writable

__all__ = ["DEPTH", "pack_tasks", "patch_gemm_tasks"]

#: Products summed in registers before a tile is written back: whole channels, this many or a few more.
DEPTH = 256


@kernel
def pack_tasks(begin, end, w, packed, starts, shape, axes):
    """For each phase and group, panels ``(channels * taps, panel width)``; rows past the last are zero.

    ``shape``: groups, rows, channels, steps in ``w`` from row to row, channel to channel and group to group, extents of
    the kernel, lanes. ``axes``: depth, height and width, merged. A task is a group, a vector of rows, and as many
    channels as it has lanes.
    """
    depth, height, width = phased_axis(axes, 0), phased_axis(axes, 1), phased_axis(axes, 2)
    _, rows, channels, row_step, channel_step, group_step, deep, high, wide, lanes = shape
    vectors, blocks, cells = -(-rows // lanes), -(-channels // lanes), deep * high * wide
    phases = starts.size - 1
    taps, firsts = np.empty(max(cells, 1), np.int64), np.zeros(phases + 1, np.int64)
    for phase in range(phases):
        rest, pw = divmod(phase, width.positions.size)
        pd, ph = divmod(rest, height.positions.size)
        count = flat_taps(taps[firsts[phase] :], depth, height, width, pd, ph, pw, high, wide)
        firsts[phase + 1] = firsts[phase] + count
    together = lanes if channel_step == cells else 1  # channels that are neighbours in memory
    stage = np.empty((together * cells + lanes) * lanes, packed.dtype)
    for task in range(begin, end):
        rest, block = divmod(task, blocks)
        g, vector = divmod(rest, vectors)
        v = 0
        while v + panel_width(vectors - v) <= vector:
            v += panel_width(vectors - v)
        panel = panel_width(vectors - v) * lanes
        first, last = block * lanes, min((block + 1) * lanes, channels)
        for c0 in range(first, last, together):
            some = min(together, last - c0)
            source = g * group_step + vector * lanes * row_step + c0 * channel_step
            if row_step == 1 and rows - vector * lanes >= lanes:
                copy_vector(w, source, stage, 0)  # a 1x1 kernel's rows are neighbours: nothing to transpose
            else:
                stage_rows(stage, 0, lanes, w, source, row_step, min(lanes, rows - vector * lanes), some * cells, lanes)
            for phase in range(phases):
                count = firsts[phase + 1] - firsts[phase]
                to = starts[phase] + (g * vectors + v) * lanes * channels * count + (vector - v) * lanes
                for c in range(some):
                    for t in range(count):
                        at = (c * cells + taps[firsts[phase] + t]) * lanes
                        copy_vector(stage, at, packed, to + ((c0 + c) * count + t) * panel)


@part
def _most_taps(depth, height, widths):
    """The taps of the phase of the width that has most."""
    most = 0
    for pw in range(widths.positions.size):
        most = max(most, widths.taps[pw + 1] - widths.taps[pw])
    return depth.base.size * height.base.size * most


@part
def _together(depth, height, widths, channels):
    """Channels that are summed in registers: about DEPTH products, whatever the split into tasks."""
    taps = _most_taps(depth, height, widths)
    return max(min(max(DEPTH // max(taps, 1), 1), channels), 1)


@kernel
def patch_gemm_tasks(
    begin,
    end,
    source,
    packed,
    starts,
    bias,
    residual,
    out,
    shape,
    strides,
    out_strides,
    axes,
    fold,
    fill,
    activation,
    store,
):
    """``shape``: samples, groups, source channels and rows of a group, samples, rows and columns of positions of a
    task, blocks of each, panels of a task, blocks of panels, whether the source is its own patch, lanes.

    ``strides``: of the source; ``out_strides``: of the result and the residual. ``starts``: where each phase's packed
    weights begin. ``axes``: depth, height and width, merged. Phases of the width are computed together, so that rows of
    the result are whole; ``fold``, where it has any elements, says which result channels are phases (`folded.Fold`).
    ``store``: the address of `store_folded` if so, of `store_phases` if rows are not stored as they are, or 0.
    """
    depths, heights, widths = phased_axis(axes, 0), phased_axis(axes, 1), phased_axis(axes, 2)
    batch, groups, channels, rows, task_samples, task_rows, task_columns = shape[:7]
    _, row_blocks, column_blocks, task_panels, panel_blocks, in_place, lanes = shape[7:]
    phases, vectors, panels, vector = widths.positions.size, -(-rows // lanes), 0, 0
    while vector < vectors:
        vector, panels = vector + panel_width(vectors - vector), panels + 1
    most_depth, longest, step, together = 1, 1, widths.step, 1
    wide_span, wide_least = span(widths.base), least(widths.base)
    most_wide = (task_columns - 1) * step + wide_span
    for pd in range(depths.positions.size):
        for ph in range(heights.positions.size):
            depth, height = phase_of(depths, pd), phase_of(heights, ph)
            high = (task_rows - 1) * height.step + span(height.base)
            together = _together(depth, height, widths, channels)
            longest = max(longest, depth.base.size * high * most_wide * together)
            most_depth = max(most_depth, together * _most_taps(depth, height, widths))
    patch = np.zeros(1 if in_place else longest * task_samples + lanes, out.dtype)
    a = writable(source) if in_place else patch
    most_positions = task_samples * task_rows * task_columns + ROWS
    offsets, places = np.zeros(phases * most_depth, np.int64), np.zeros(phases * most_positions, np.int64)
    positions = most_positions + lanes
    c_phase = positions * min(task_panels * 3, vectors) * lanes
    c = np.empty(phases * c_phase, out.dtype)
    length = -(-positions // lanes) * lanes
    lines, block = np.empty(phases * 3 * lanes * length, out.dtype), np.empty(lanes * lanes, out.dtype)
    whole_width = widths.target_step * widths.positions.max() + phases
    line, offset = np.empty(max(whole_width, 3 * lanes), out.dtype), np.zeros(3 * lanes, out.dtype)
    columns, taps, firsts = np.zeros(phases, np.int64), np.zeros(phases, np.int64), widths.target_first
    depth, height, all_widths = phase_of(depths, 0), phase_of(heights, 0), phase_of(widths, 0)
    last_channels = strides[1] == 1 and strides[4] != 1
    pitches, sample_pitch = strides[1:], strides[0]
    built, shaped, deepest = -1, (-1, -1, -1), depths.positions.max()
    outer_phases = depths.positions.size * heights.positions.size
    for task in range(begin, end):
        rest, panel_block = divmod(task, panel_blocks)
        rest, column_block = divmod(rest, column_blocks)
        # Phases have unlike numbers of taps, down to none: they take turns, so that threads get equal shares.
        rest, phase = divmod(rest, outer_phases)
        rest, row_block = divmod(rest, row_blocks)
        rest, od = divmod(rest, deepest)
        sample_block, g = divmod(rest, groups)
        if phase != built:
            pd, ph = divmod(phase, heights.positions.size)
            depth, height = phase_of(depths, pd), phase_of(heights, ph)
            together = _together(depth, height, widths, channels)
            if not in_place:
                high = (task_rows - 1) * height.step + span(height.base)
                wide = most_wide
                if last_channels:
                    pitches = (1, high * wide * together, wide * together, together)
                else:
                    pitches = (depth.base.size * high * wide, high * wide, wide, 1)
                sample_pitch = depth.base.size * high * wide * together
            for pw in range(phases):
                width = phase_of(widths, pw)
                taps[pw] = depth.base.size * height.base.size * width.base.size
                shift = (least(width.base) - wide_least) * pitches[3]
                tap_offsets(offsets, pw * most_depth, together, pitches, in_place, depth, height, width, shift)
            built, shaped = phase, (-1, -1, -1)
        first_sample, first_row = sample_block * task_samples, row_block * task_rows
        first_column = column_block * task_columns
        samples, count = min(task_samples, batch - first_sample), min(task_rows, height.positions - first_row)
        if od >= depth.positions or count <= 0:
            continue
        widest = 0
        for pw in range(phases):
            columns[pw] = max(min(task_columns, widths.positions[pw] - first_column), 0)
            widest = max(widest, columns[pw])
        if shaped != (samples, count, first_column):
            for pw in range(phases):
                fill_places(
                    places,
                    pw * most_positions,
                    samples,
                    sample_pitch,
                    count,
                    height.step * pitches[2],
                    columns[pw],
                    step * pitches[3],
                )
            shaped = (samples, count, first_column)
        high, wide = (count - 1) * height.step + span(height.base), (widest - 1) * step + wide_span
        plane = first_sample * strides[0] + g * channels * strides[1]
        if in_place:
            plane += (od * depth.step + least(depth.base)) * strides[2]
            plane += (first_row * height.step + least(height.base)) * strides[3]
            plane += (first_column * step + wide_least) * strides[4]
        first_panel = panel_block * task_panels
        last_panel = min(first_panel + task_panels, panels)
        first_vector = panel_of(vectors, first_panel)[0]
        phase *= phases
        some_taps = _most_taps(depth, height, widths) > 0
        for c0 in range(0, channels if some_taps else 0, together):
            some = min(together, channels - c0)
            for n in range(0 if in_place else samples):
                pack_patch(
                    patch,
                    n * sample_pitch,
                    pitches,
                    source,
                    plane + n * strides[0] + c0 * strides[1],
                    strides[1:],
                    some,
                    od,
                    first_row,
                    high,
                    first_column * step + wide_least,
                    wide,
                    depth,
                    height,
                    all_widths,
                    fill,
                )
            for pw in range(phases):
                if taps[pw] == 0:
                    continue
                weights = starts[phase + pw] + g * vectors * lanes * channels * taps[pw]
                for panel in range(first_panel, last_panel):
                    vector, across = panel_of(vectors, panel)
                    multiply_tiles(
                        a,
                        plane + c0 * strides[1] if in_place else 0,
                        places,
                        pw * most_positions,
                        samples * count * columns[pw],
                        offsets,
                        pw * most_depth,
                        packed,
                        weights + vector * lanes * channels * taps[pw] + c0 * taps[pw] * across * lanes,
                        some * taps[pw],
                        c,
                        pw * c_phase + (vector - first_vector) * lanes * positions,
                        c0,
                        across,
                        lanes,
                    )
        for pw in range(phases):
            if taps[pw] == 0 or channels == 0:
                c[pw * c_phase : (pw + 1) * c_phase] = 0
        place = first_sample * out_strides[0] + (depth.target_first + od * depth.target_step) * out_strides[2]
        place += (height.target_first + first_row * height.target_step) * out_strides[3]
        row_step = height.target_step * out_strides[3]
        for panel in range(first_panel, last_panel):
            vector, across = panel_of(vectors, panel)
            channel, at = g * rows + vector * lanes, (vector - first_vector) * lanes * positions
            breadth = across * lanes
            valid, to = min(breadth, rows - vector * lanes), place + channel * out_strides[1]
            for m in range(valid if bias.size and not fold.size else 0):
                offset[m] = bias[channel + m]
            if fold.size:
                own = rows // (fold[0] * fold[1] * fold[2])
                extents, begins = (samples, count, columns[0]), (od, first_row, first_column)
                to = first_sample * out_strides[0] + g * own * out_strides[1]
                sums = (line, lines, length, c, at, breadth, lanes)
                rest = (fold, extents, begins, bias, g * own, residual, activation, out, to, out_strides)
                call_tasks(store, vector * lanes, valid, (*sums, *rest))
            elif store:
                to += first_column * widths.target_step
                distances = (out_strides[1], out_strides[0], row_step)
                sums = (line, lines, length, c, at, breadth, lanes)
                rest = (columns, firsts, widths.target_step, (samples, count), offset, residual, activation, out)
                call_tasks(store, c_phase, valid, (*sums, *rest, to, distances))
            elif out_strides[1] == 1 and out_strides[4] != 1:
                for pw in range(phases):
                    store_last(
                        line,
                        c,
                        pw * c_phase + at,
                        breadth,
                        valid,
                        (samples, count, columns[pw]),
                        offset,
                        residual,
                        activation,
                        out,
                        to + (firsts[pw] + first_column * widths.target_step) * out_strides[4],
                        (out_strides[0], row_step, widths.target_step * out_strides[4]),
                    )
            else:
                whole = columns[0] == out_strides[3] and row_step == columns[0]
                stretches = (samples, 1, count * columns[0]) if whole else (samples, count, columns[0])
                steps = (out_strides[0], row_step)
                to += first_column
                store_transposed(block, c, at, breadth, valid, lanes, stretches, offset, out, to, steps, out_strides[1])
