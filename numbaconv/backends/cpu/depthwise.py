"""Depthwise convolution: a few vectors of a row at a time, swept down the rows of a plane.

Each group has one channel on one side, so no operand is shared between result channels and a product is bound by
loads. A sweep keeps the weights of up to 3 x 3 taps in registers, and the cells of the last rows under them, so that a
source row is read once for all the taps of a column::

    columns     v  v+1                     a strip: 1 or 2 vectors
    line i     [..][..]  -> registers      cells under each tap of a row, read under the masks of the row's ends
    line i+1   [..][..]  -> registers
    line i+2   [..][..]  -> registers      result row i = initial + all taps x registers; the oldest line is let go

Lines are addresses: rows of the source where they are, a row of zeros (or of the constant) for padding, or packed
rows, one stride phase after another, where the width is strided or its padding repeats cells. Kernels larger than 3 x 3
are several sweeps that add up in the result; how taps are grouped for any stride and dilation is said in `sweep`. A
single row, as of every rank-1 convolution, is swept along: its strips are the rows.

FORWARD and INPUT_GRAD are the same sweeps over gathers from the plan; a strided INPUT_GRAD makes each phase of the
width apart and interleaves them. WEIGHT_GRAD keeps a sum of vectors for each of 3 x 3 taps.

Error factor: as for any order of summation (Higham 2002, section 4.2), the number of products plus three.

Tried, and slower: packing every plane with its padding (1.3 times), loops over taps at run time (1.3), tiles of 4
result rows instead of sweeps (1.2).
"""

import numpy as np

from ...plan import CONSTANT, ZERO
from .jit import inner, kernel
from .simd import add_lanes, call_row
from .simd_taps import address, sweep_dots, sweep_rows

__all__ = ["depthwise_tasks", "depthwise_weight_tasks"]


@inner
def _fill(row, at, count, value):
    for q in range(count):
        row[np.uintp(at + q)] = value


@inner
def _pack_line(packed, at, source, start, outside, value, border, geometry, origin, fill):
    """One source row between its padding, phase after phase, from its first cell at ``source[start]``.

    ``origin``: the first column's own cell in the row. ``outside``: the whole row is padding, of ``value``.
    ``geometry``: cells of a row, step, stride phases, cells of a phase, first cell read, whether there is a border.
    """
    width, step, slots, cells, least, bordered = geometry
    for slot in range(slots):
        to, first_cell = at + slot * cells, origin + least + slot
        first = min(max(-(first_cell // step), 0), cells)
        last = min(max(-((first_cell - width) // step), first), cells)
        if outside:
            _fill(packed, to + first, last - first, value)
        elif step == 1:
            for q in range(first, last):
                packed[np.uintp(to + q)] = source[np.uintp(start + first_cell + q)]
        else:
            for q in range(first, last):
                packed[np.uintp(to + q)] = source[np.uintp(start + first_cell + q * step)]
        for end in range(2):
            for q in range(last if end else 0, cells if end else first):
                j = origin + slot + q * step
                code = border[j] if bordered and j < border.size else ZERO
                cell = packed.dtype.type(0)
                if code == CONSTANT:
                    cell = fill
                elif code >= 0:
                    cell = value if outside else source[start + code]
                packed[to + q] = cell


@kernel
def _pack_lines(
    lines, packed, at, count, source, slice_at, d, rows, first, border, geometry, origin, zeros, ahead, fill
):
    """Pack the rows that a band reads of one slice of the depth, and say where they are.

    ``rows[first : first + count]``: the source rows. ``ahead``: how far a column's number is ahead of its place in a
    packed row, in bytes. ``zeros``: the address of a row of zeros, ahead as well.
    """
    width, _step, slots, cells, _least, bordered = geometry
    zero = packed.dtype.type(0)
    for j in range(count):
        h, to = rows[first + j], (at + j) * slots * cells
        outside, start, constant = d < 0 or h < 0, slice_at + h * width, (h if h < 0 else d) == CONSTANT
        if outside and not constant and not bordered:
            lines[at + j] = zeros
            continue
        value = fill if constant else zero
        _pack_line(packed, to, source, start, outside, value, border, geometry, origin, fill)
        lines[at + j] = address(packed, to) - ahead


@kernel
def _interleave(out, at, pitch, parts, columns, first, block, band, rows, step, residual):
    """Bring rows of each phase of the width to their columns, with the residual that belongs there."""
    for i in range(rows):
        to, start, part = at + i * pitch, i * block, band * block
        if residual.size:
            for pw in range(len(columns)):
                for q in range(min(block, columns[pw, 0] - first)):
                    parts[start + pw * part + q] += residual[to + columns[pw, 1] + q * step]
        if step == 2 and len(columns) == 2:
            even = 0 if columns[0, 1] == 0 else 1
            from_even, from_odd = start + even * part, start + (1 - even) * part
            evens, odds = min(block, columns[even, 0] - first), min(block, columns[1 - even, 0] - first)
            for q in range(odds):
                out[np.uintp(to + q * 2)] = parts[np.uintp(from_even + q)]
                out[np.uintp(to + q * 2 + 1)] = parts[np.uintp(from_odd + q)]
            if evens > odds:
                out[to + odds * 2] = parts[from_even + odds]
        else:
            for pw in range(len(columns)):
                for q in range(min(block, columns[pw, 0] - first)):
                    out[np.uintp(to + columns[pw, 1] + q * step)] = parts[np.uintp(start + pw * part + q)]


@kernel
def depthwise_tasks(begin, end, source, w, bias, residual, out, shape, target, sweep, fill, activation):
    """A task: one sample and result channel; one slot of the depth, band of rows and block of columns, in all phases.

    ``shape``: result channels, result and source channels of a group, lanes, whether result channels are the weight's
    input channels. ``target``: extents of the result's height and width and of its whole plane; taps of the kernel.
    """
    outputs, group_outputs, channels, lanes, by_input = shape
    target_height, target_width, target_plane, kernel_taps = target
    zero, size, wide, across = out.dtype.type(0), out.itemsize, sweep.across * lanes, sweep.across
    band, block, most_lines, depth_taps, taps = sweep.band, sweep.block, sweep.lines, sweep.depth_taps, sweep.taps
    row_stride, column_stride = sweep.height_stride, sweep.width_stride
    slices, rows, cells, row_groups = sweep.slices, sweep.rows, sweep.cells, sweep.row_groups
    columns, column_groups, edges, order, border = (
        sweep.columns,
        sweep.column_groups,
        sweep.edges,
        sweep.order,
        sweep.border,
    )
    first_taps, offsets_at, first_masks = sweep.first_taps, address(sweep.offsets, 0), address(sweep.masks, 0)
    mask_bytes = sweep.masks.shape[1] * 4
    height_phases, width_phases, bordered, packing = len(rows), len(columns), sweep.bordered, sweep.packing
    source_slice, row_bytes = sweep.height_cells * sweep.width_cells, sweep.width_cells * size
    bands, blocks, pieces = sweep.bands, sweep.blocks, len(slices) * sweep.bands * sweep.blocks
    row_step, column_step, least = sweep.height_step, sweep.width_step, sweep.least
    geometry = (sweep.width_cells, column_step, sweep.slots, sweep.slot_cells, least, bordered == 2)
    weights, biases = np.empty(max(channels * taps, 1), out.dtype), np.empty(lanes, out.dtype)
    lines = np.empty(channels * depth_taps * most_lines, np.int64)
    packed = np.empty(lines.size * sweep.slots * sweep.slot_cells, out.dtype)
    blank_cells = max((block + lanes) * sweep.stride + sweep.reach, sweep.slots * sweep.slot_cells)
    blank = np.zeros(2 * blank_cells, out.dtype)
    _fill(blank, blank_cells, blank_cells, fill)
    parts = np.empty(width_phases * band * block if column_stride > 1 else 0, out.dtype)
    weights_at, biases_at, lines_at = address(weights, 0), address(biases, 0), address(lines, 0)
    in_place = sweep.ordered and channels == 1
    result_plane, piece = divmod(begin, pieces)
    result_plane, channel, piece = result_plane - 1, (result_plane - 1) % outputs, piece - 1 + pieces
    for _ in range(begin, end):
        piece += 1  # counted, since divisions would take as long as a small plane
        if piece >= pieces:
            piece -= pieces
            result_plane += 1
            channel = channel + 1 if channel + 1 < outputs else 0
        slot, band_number, block_number = 0, 0, 0
        if pieces > 1:
            rest, block_number = divmod(piece, blocks)
            slot, band_number = divmod(rest, bands)
        first_row, first_column = band_number * band, block_number * block
        source_group, m = result_plane, 0
        if group_outputs > 1:
            source_group, m = divmod(result_plane, group_outputs)
        first_pair, pair_step = channel * channels, 1
        if by_input:
            first_pair, pair_step = (channel - m) * channels + m, group_outputs
        if in_place:
            weights_at = address(w, first_pair * kernel_taps)
        else:
            for c in range(channels):
                at = (first_pair + c * pair_step) * kernel_taps
                for t in range(taps):
                    weights[np.uintp(c * taps + t)] = w[np.uintp(at + order[np.uintp(t)])]
        start = bias[channel] if bias.size else zero
        for q in range(lanes):
            biases[np.uintp(q)] = start
        pd, reads = slices[slot, 1], slices[slot, 2]
        any_inside = False
        for td in range(reads):
            any_inside |= slices[slot, 3 + td] >= 0
        skipping = any_inside and not bordered
        top, left = first_row * row_stride, first_column * column_stride
        down = min(row_stride * band, target_height - top)
        right = min(column_stride * block, target_width - left)
        place = result_plane * target_plane + (slices[slot, 0] * target_height + top) * target_width + left
        stretches = 1 if right == target_width else down
        adding = residual.size > 0 and column_stride == 1
        if adding:  # sums start from the residual, which may be the result itself
            for i in range(stretches):
                for q in range(down * right // stretches):
                    at = place + i * target_width + q
                    out[np.uintp(at)] = residual[np.uintp(at)] + start
        zeros = address(blank, 0) - (0 if packing else (first_column * column_step + least) * size)
        for ph in range(height_phases):
            some, row_taps = min(band, rows[ph, 0] - first_row), rows[ph, 8]
            if some <= 0:
                continue
            to = place + rows[ph, 1] * target_width
            apart, line_step = rows[ph, 6], rows[ph, 7]
            along = some == 1 and row_taps == 1  # a single row: strips inside are swept like rows
            first, count = rows[ph, 2] + first_row * row_step, (some - 1) * row_step + rows[ph, 3]
            for c in range(channels):
                for td in range(reads):
                    d, at = slices[slot, 3 + td], (c * depth_taps + td) * most_lines
                    if row_taps == 0 or (skipping and d < 0):
                        continue
                    slice_at = ((source_group * channels + c) * sweep.depth_cells + d) * source_slice
                    if packing:
                        ahead = first_column * size
                        _pack_lines(
                            lines,
                            packed,
                            at,
                            count,
                            source,
                            slice_at,
                            d,
                            cells,
                            first,
                            border,
                            geometry,
                            first_column * column_step,
                            zeros - ahead,
                            ahead,
                            fill,
                        )
                        continue
                    start_at = address(source, slice_at)
                    for j in range(count):
                        h = cells[np.uintp(first + j)]
                        constant = (h if h < 0 else d) == CONSTANT
                        outside = zeros + (blank_cells * size if constant else 0)
                        lines[np.uintp(at + j)] = outside if h < 0 or d < 0 else start_at + h * row_bytes
            for pw in range(width_phases):
                some_columns, column_taps = min(block, columns[pw, 0] - first_column), columns[pw, 4]
                if some_columns <= 0:
                    continue
                if reads * row_taps * column_taps == 0:  # cells that no tap reaches
                    for i in range(some):
                        if column_stride > 1:
                            _fill(parts, (pw * band + i) * block, some_columns, start)
                        elif not adding:
                            _fill(out, to + i * row_stride * target_width, some_columns, start)
                    continue
                result, out_pitch = address(out, to), row_stride * target_width * size
                if column_stride > 1:
                    result, out_pitch = address(parts, pw * band * block), block * size
                result -= first_column * size
                first_tap = first_taps[(pd * height_phases + ph) * width_phases + pw]
                first_inside, last_inside, first_edge = columns[pw, 6], columns[pw, 7], columns[pw, 8]
                strip, last_strip = first_column // wide, (first_column + some_columns + wide - 1) // wide
                while strip < last_strip:
                    column, vectors, run, run_pitch, masks = strip * wide, across, 1, 0, first_masks
                    second = column + lanes
                    if first_inside <= strip < last_inside:
                        if along:
                            run, run_pitch = min(last_strip, last_inside) - strip, wide * size
                    else:
                        edge = first_edge + (strip if strip < first_inside else strip - last_inside + first_inside)
                        column, second, vectors = edges[edge, 0], edges[edge, 1], edges[edge, 2]
                        masks += (edge + 1) * mask_bytes
                    fresh = not adding
                    for c in range(channels):
                        for td in range(reads):
                            if skipping and slices[slot, 3 + td] < 0:
                                continue
                            weight = weights_at + (c * taps + first_tap + td * row_taps * column_taps) * size
                            for gh in range(rows[ph, 4], rows[ph, 5]):
                                line = lines_at + ((c * depth_taps + td) * most_lines + row_groups[gh, 0]) * 8
                                for gw in range(columns[pw, 2], columns[pw, 3]):
                                    for r in range(min(apart, some)):
                                        to_row = result + r * out_pitch
                                        pitch = run_pitch if along else apart * out_pitch
                                        sweep_rows(
                                            zero,
                                            line + r * row_step * 8,
                                            0 if along else line_step,
                                            run_pitch * sweep.stride,
                                            to_row,
                                            pitch,
                                            biases_at if fresh else to_row,
                                            0 if fresh else pitch,
                                            0 if fresh else 1,
                                            run if along else (some - r + apart - 1) // apart,
                                            offsets_at + column_groups[gw, 0] * 8,
                                            sweep.stride,
                                            column,
                                            second,
                                            vectors,
                                            masks + column_groups[gw, 1] * 4,
                                            masks + column_taps * 4,
                                            weight,
                                            row_groups[gh, 1],
                                            column_groups[gw, 2],
                                        )
                                    fresh = False
                                    weight += row_groups[gh, 1] * column_groups[gw, 2] * size
                    strip += run
            if column_stride > 1:
                pitch = row_stride * target_width
                _interleave(out, to, pitch, parts, columns, first_column, block, band, some, column_stride, residual)
        if activation[0]:
            for i in range(stretches):
                if call_row(activation[0], out, place + i * target_width, down * right // stretches):
                    activation[1] = 1  # it raised; every task writes the same value


@kernel
def depthwise_weight_tasks(begin, end, source, y, partial, shape, sweep, fill):
    """A task: one result channel (with its source channel) and one chunk of the samples, depths, bands and blocks.

    ``shape``: samples, result channels, result channels of a group, lanes, chunks. ``partial`` is ``(chunks, result
    channels, taps)``.
    """
    samples, outputs, group_outputs, lanes, chunks = shape
    zero, size = partial.dtype.type(0), partial.itemsize
    band, block, most_lines, depth_taps = sweep.band, sweep.block, sweep.lines, sweep.depth_taps
    slices, rows, cells, row_groups = sweep.slices, sweep.rows, sweep.cells, sweep.row_groups
    columns, column_groups, edges, border = sweep.columns, sweep.column_groups, sweep.edges, sweep.border
    offsets_at, first_masks = address(sweep.offsets, 0), address(sweep.masks, 0)
    mask_bytes = sweep.masks.shape[1] * 4
    bordered, packing = sweep.bordered, sweep.packing
    height, width, row_taps, column_taps = rows[0, 0], columns[0, 0], rows[0, 8], columns[0, 4]
    apart, line_step = rows[0, 6], rows[0, 7]
    first_inside, last_inside, first_edge = columns[0, 6], columns[0, 7], columns[0, 8]
    source_slice, row_bytes = sweep.height_cells * sweep.width_cells, sweep.width_cells * size
    bands, blocks, slots = sweep.bands, sweep.blocks, len(slices)
    units = samples * slots * bands * blocks
    row_step, column_step, least = sweep.height_step, sweep.width_step, sweep.least
    geometry = (sweep.width_cells, column_step, sweep.slots, sweep.slot_cells, least, bordered == 2)
    sums = np.empty(sweep.taps * lanes, partial.dtype)
    lines = np.empty(depth_taps * most_lines, np.int64)
    packed = np.empty(lines.size * sweep.slots * sweep.slot_cells, partial.dtype)
    blank_cells = max((block + lanes) * sweep.stride + sweep.reach, sweep.slots * sweep.slot_cells)
    blank = np.zeros(2 * blank_cells, partial.dtype)
    _fill(blank, blank_cells, blank_cells, fill)
    lines_at, sums_at = address(lines, 0), address(sums, 0)
    for task in range(begin, end):
        chunk, channel = divmod(task, outputs)
        source_channel = channel // group_outputs
        for q in range(sums.size):
            sums[np.uintp(q)] = zero
        for unit in range(chunk * units // chunks, (chunk + 1) * units // chunks):
            rest, block_number = divmod(unit, blocks)
            rest, band_number = divmod(rest, bands)
            n, slot = divmod(rest, slots)
            first_row, first_column = band_number * band, block_number * block
            some = min(band, height - first_row)
            along = some == 1 and row_taps == 1
            zeros = address(blank, 0) - (0 if packing else (first_column * column_step + least) * size)
            first, count = first_row * row_step, (some - 1) * row_step + rows[0, 3]
            for td in range(depth_taps):
                d, at = slices[slot, 3 + td], td * most_lines
                if d < 0 and not bordered:
                    continue
                source_plane = n * (outputs // group_outputs) + source_channel
                slice_at = (source_plane * sweep.depth_cells + d) * source_slice
                if packing:
                    ahead = first_column * size
                    _pack_lines(
                        lines,
                        packed,
                        at,
                        count,
                        source,
                        slice_at,
                        d,
                        cells,
                        first,
                        border,
                        geometry,
                        first_column * column_step,
                        zeros - ahead,
                        ahead,
                        fill,
                    )
                    continue
                start_at = address(source, slice_at)
                for j in range(count):
                    h = cells[np.uintp(first + j)]
                    constant = (h if h < 0 else d) == CONSTANT
                    outside = zeros + (blank_cells * size if constant else 0)
                    lines[np.uintp(at + j)] = outside if h < 0 or d < 0 else start_at + h * row_bytes
            y_row = ((n * outputs + channel) * slots + slot) * height + first_row
            y_at, y_pitch = address(y, y_row * width), width * size
            strip, last_strip = first_column // lanes, (min(first_column + block, width) + lanes - 1) // lanes
            while strip < last_strip:
                column, run, run_pitch, masks = strip * lanes, 1, 0, first_masks
                if first_inside <= strip < last_inside:
                    if along:
                        run, run_pitch = min(last_strip, last_inside) - strip, lanes * size
                else:
                    edge = first_edge + (strip if strip < first_inside else strip - last_inside + first_inside)
                    column = edges[edge, 0]
                    masks += (edge + 1) * mask_bytes
                for td in range(depth_taps):
                    if slices[slot, 3 + td] < 0 and not bordered:
                        continue
                    sums_of = sums_at + td * row_taps * column_taps * lanes * size
                    for gh in range(rows[0, 5]):
                        line = lines_at + (td * most_lines + row_groups[gh, 0]) * 8
                        for gw in range(columns[0, 3]):
                            for r in range(min(apart, some)):
                                sweep_dots(
                                    zero,
                                    line + r * row_step * 8,
                                    0 if along else line_step,
                                    run_pitch * sweep.stride,
                                    y_at + r * y_pitch,
                                    run_pitch if along else apart * y_pitch,
                                    run if along else (some - r + apart - 1) // apart,
                                    offsets_at + column_groups[gw, 0] * 8,
                                    sweep.stride,
                                    column,
                                    masks + column_groups[gw, 1] * 4,
                                    masks + column_taps * 4,
                                    sums_of,
                                    row_groups[gh, 1],
                                    column_groups[gw, 2],
                                )
                            sums_of += row_groups[gh, 1] * column_groups[gw, 2] * lanes * size
                strip += run
        for t in range(sweep.taps):
            partial[chunk, channel, sweep.order[t]] = add_lanes(sums, t * lanes)
