"""Depthwise convolution: a few vectors of a row at a time, swept down the rows of a plane.

Each group has one channel on one side, so no operand is shared between result channels and a product is bound by
loads. A sweep keeps the weights of up to 3 x 3 taps in registers, and the cells of the last rows under them, so that a
source row is read once for all the taps of a column::

    columns     v  v+1                     a strip: 1 or 2 vectors
    line i     [..][..]  -> registers      cells under each tap of a row, read under the masks of the row's ends
    line i+1   [..][..]  -> registers
    line i+2   [..][..]  -> registers      result row i = initial + all taps x registers; the oldest line is let go

Lines are pointers: rows of the source where they are, a row of zeros (or of the constant) for padding, or packed
rows, one stride phase after another, where the width is strided or its padding repeats cells. Kernels larger than 3 x 3
are several sweeps that add up in the result; how taps are grouped for any stride and dilation is said in `sweep`. A
single row, as of every rank-1 convolution, is swept along: its strips are the rows.

FORWARD and INPUT_GRAD are the same sweeps over gathers from the plan; a strided INPUT_GRAD makes each phase of the
width apart and interleaves them. WEIGHT_GRAD keeps a sum of vectors for each of 3 x 3 taps.

Error factor: as for any order of summation (Higham 2002, section 4.2), the number of products plus three.

Tried, and slower: packing every plane with its padding (1.3 times), loops over taps at run time (1.3), tiles of 4
result rows instead of sweeps (1.2), masks for strips that are inside, too (2.1 on Zen 5 for rows
of 9 taps: two masks for each tap are more than AVX-512 has registers for).
"""

import numpy as np

from ...plan import CONSTANT
from .gather import code_of
from .jit import inner, kernel, part
from .patch import fill_cells
from .simd import add_lanes, call_row
from .simd_taps import pointer_to, run_dots, run_rows, set_line

__all__ = ["depthwise_tasks", "depthwise_weight_tasks"]


@inner
def _pack_line(packed, at, source, start, outside, value, geometry, origin, fill):
    """One source row between its padding, phase after phase, from its first cell at ``source[start]``.

    ``origin``: the first column's own cell in the row. ``outside``: the whole row is padding, of ``value``.
    ``geometry``: cells of a row, step, stride phases, cells of a phase, first cell read, border and limit.
    """
    width, step, slots, cells, least, border, limit = geometry
    for slot in range(slots):
        to, first_cell = at + slot * cells, origin + least + slot
        first = min(max(-(first_cell // step), 0), cells)
        last = min(max(-((first_cell - width) // step), first), cells)
        if outside:
            fill_cells(packed, to + first, last - first, value)
        elif step == 1:
            for q in range(first, last):
                packed[np.uintp(to + q)] = source[np.uintp(start + first_cell + q)]
        else:
            for q in range(first, last):
                packed[np.uintp(to + q)] = source[np.uintp(start + first_cell + q * step)]
        for end in range(2):
            for q in range(last if end else 0, cells if end else first):
                code = code_of(first_cell + q * step, width, border, limit)
                cell = packed.dtype.type(0)
                if code == CONSTANT:
                    cell = fill
                elif code >= 0:
                    cell = value if outside else source[start + code]
                packed[to + q] = cell


@part
def _pack_lines(lines, packed, at, count, source, slice_at, d, rows, first, geometry, origin, zeros, fill):
    """Pack the rows that a band reads of one slice of the depth, and say where they are.

    ``first``: the first of the source rows. ``rows``: how many there are, border and limit. ``zeros``: a pointer to
    a row of zeros.
    """
    width, _step, slots, cells, _least, bordered, _limit = geometry
    zero = packed.dtype.type(0)
    for j in range(count):
        h, to = code_of(first + j, rows[0], rows[1], rows[2]), (at + j) * slots * cells
        outside, start, constant = d < 0 or h < 0, slice_at + h * width, (h if h < 0 else d) == CONSTANT
        if outside and not constant and not bordered:
            set_line(lines, at + j, zeros, 0)
            continue
        value = fill if constant else zero
        _pack_line(packed, to, source, start, outside, value, geometry, origin, fill)
        set_line(lines, at + j, pointer_to(packed, to), 0)


@part
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


@inner
def _class_at(size, first, count, number):
    """Where in ``size`` classes a part's is: of ``count``, the first and last ones have their own, the others one."""
    return number if number < first else max(first, number - (count - size))


@inner
def _slice_of(depths, of_slice, slot):
    """The phase of a slot of the depth, its position in it, and its class."""
    phase = 0
    while slot >= depths[phase, 0]:
        slot -= depths[phase, 0]
        phase += 1
    at = depths[phase, 2] + _class_at(depths[phase, 4], depths[phase, 3], depths[phase, 0], slot)
    return phase, slot, of_slice[at]


@kernel
def depthwise_tasks(begin, end, source, w, bias, residual, out, shape, target, sweeps, fill, activation):
    """A task: one piece of one sample's result channel, in all phases.

    Tasks count pieces ``first_piece .. first_piece + pieces - 1`` of each plane.

    ``shape``: result channels, result and source channels of a group, lanes, whether result channels are the weight's
    input channels. ``target``: extents of the result's height and width, distance of its planes, taps of the kernel,
    first piece, pieces, and what of the result is not there: how many elements come before its first.
    """
    outputs, group_outputs, channels, lanes, by_input = shape
    target_height, target_width, target_plane, kernel_taps, first_piece, pieces, missing = target
    zero, size = out.dtype.type(0), out.itemsize
    band, block, taps = sweeps.band, sweeps.block, sweeps.taps
    most_lines, depth_taps, height_step = sweeps.lines, sweeps.depth_taps, sweeps.height_step
    row_stride, column_stride = sweeps.height_stride, sweeps.width_stride
    depths, of_slice, rows, columns, programs = (
        sweeps.depths,
        sweeps.of_slice,
        sweeps.rows,
        sweeps.columns,
        sweeps.programs,
    )
    of_band, of_block, order = sweeps.of_band, sweeps.of_block, sweeps.order
    high, high_border, high_limit = sweeps.height_cells, sweeps.height_border, sweeps.height_limit
    offsets, masks, sweep_fields = pointer_to(sweeps.offsets, 0), pointer_to(sweeps.masks, 0), sweeps.sweeps.shape[1]
    bordered, packing, height_phases = sweeps.bordered, sweeps.packing, len(rows)
    source_slice, row_bytes = sweeps.height_cells * sweeps.width_cells, sweeps.width_cells * size
    blocks, bands = sweeps.blocks, sweeps.bands
    geometry = (
        sweeps.width_cells,
        sweeps.width_step,
        sweeps.slots,
        sweeps.slot_cells,
        sweeps.least,
        sweeps.width_border,
        sweeps.width_limit,
    )
    weights, biases = np.empty(max(channels * taps, 1), out.dtype), np.empty(lanes, out.dtype)
    lines = np.empty(channels * depth_taps * most_lines, np.int64)
    packed = np.empty(lines.size * sweeps.slots * sweeps.slot_cells, out.dtype)
    blank_cells = max(2 * (block + lanes) + sweeps.reach, sweeps.slots * sweeps.slot_cells)
    blank = np.zeros(2 * blank_cells, out.dtype)
    fill_cells(blank, blank_cells, blank_cells, fill)
    zeros = pointer_to(blank, 0 if packing else -sweeps.least)
    parts = np.empty(len(columns) * band * block if column_stride > 1 else 0, out.dtype)
    weights_at, biases_at, lines_at = pointer_to(weights, 0), pointer_to(biases, 0), pointer_to(lines, 0)
    in_place = sweeps.ordered and channels == 1
    result_plane, piece = divmod(begin, pieces)
    result_plane, channel, piece = result_plane - 1, (result_plane - 1) % outputs, piece - 1 + pieces
    for _ in range(begin, end):
        piece += 1  # counted, since divisions would take as long as a small plane
        if piece >= pieces:
            piece -= pieces
            result_plane += 1
            channel = channel + 1 if channel + 1 < outputs else 0
        slot, band_number, block_number, phase, o, which = 0, 0, 0, 0, 0, of_slice[0]
        if first_piece + pieces > 1:
            rest, block_number = divmod(first_piece + piece, blocks)
            slot, band_number = divmod(rest, bands)
            phase, o, which = _slice_of(depths, of_slice, slot)
        source_group, m = result_plane, 0
        if group_outputs > 1:
            source_group, m = divmod(result_plane, group_outputs)
        first_pair, pair_step = channel * channels, 1
        if by_input:
            first_pair, pair_step = (channel - m) * channels + m, group_outputs
        if in_place:
            weights_at = pointer_to(w, first_pair * kernel_taps)
        else:
            for c in range(channels):
                at = (first_pair + c * pair_step) * kernel_taps
                for t in range(taps):
                    weights[np.uintp(c * taps + t)] = w[np.uintp(at + order[np.uintp(t)])]
        start = bias[channel] if bias.size else zero
        for q in range(lanes):
            biases[np.uintp(q)] = start
        first_row, first_column = band_number * band, block_number * block
        top, left = first_row * row_stride, first_column * column_stride
        down = min(row_stride * band, target_height - top)
        right = min(column_stride * block, target_width - left)
        d = depths[phase, 1] + o * sweeps.depth_stride
        place = result_plane * target_plane + (d * target_height + top) * target_width + left - missing
        stretches = 1 if right == target_width else down
        if residual.size and column_stride == 1:  # sums start from the residual, which may be the result itself
            for i in range(stretches):
                for q in range(down * right // stretches):
                    at = place + i * target_width + q
                    out[np.uintp(at)] = residual[np.uintp(at)] + start
        for ph in range(height_phases):
            some = min(band, rows[ph, 0] - first_row)
            if some <= 0:
                continue
            first, count = rows[ph, 2] + first_row * height_step, (some - 1) * height_step + rows[ph, 3]
            for c in range(channels):
                for td in range(depths[phase, 5]):
                    d, at = depths[phase, 6 + td] + o * sweeps.depth_step, (c * depth_taps + td) * most_lines
                    d = code_of(d, sweeps.depth_cells, sweeps.depth_border, sweeps.depth_limit)
                    if (d < 0 and not bordered) or rows[ph, 4] == 0:
                        continue
                    slice_at = ((source_group * channels + c) * sweeps.depth_cells + d) * source_slice
                    if packing:
                        _pack_lines(
                            lines,
                            packed,
                            at,
                            count,
                            source,
                            slice_at,
                            d,
                            (high, high_border, high_limit),
                            first,
                            geometry,
                            first_column * sweeps.width_step,
                            zeros,
                            fill,
                        )
                        continue
                    start_at = pointer_to(source, slice_at + first_column * sweeps.width_step)
                    for j in range(count):
                        h = code_of(first + j, high, high_border, high_limit)
                        if h < 0 or d < 0:
                            constant = (h if h < 0 else d) == CONSTANT
                            set_line(lines, at + j, zeros, blank_cells * size if constant else 0)
                        else:
                            set_line(lines, at + j, start_at, h * row_bytes)
            of_rows = of_band[_class_at(of_band.size, 0, bands, band_number)]
            of_columns = of_block[_class_at(of_block.size, sweeps.first_blocks, blocks, block_number)]
            first_sweep = programs[which, of_rows, of_columns, ph, 0]
            last_sweep = programs[which, of_rows, of_columns, ph, 1]
            to = pointer_to(parts, 0) if column_stride > 1 else pointer_to(out, place)
            run_rows(
                zero,
                pointer_to(sweeps.sweeps, first_sweep * sweep_fields),
                last_sweep - first_sweep,
                to,
                weights_at,
                biases_at,
                lines_at,
                offsets,
                masks,
            )
            if column_stride > 1:
                at, pitch = place + rows[ph, 1] * target_width, row_stride * target_width
                _interleave(out, at, pitch, parts, columns, first_column, block, band, some, column_stride, residual)
        if activation[0]:
            for i in range(stretches):
                if call_row(activation, out, place + i * target_width, down * right // stretches):
                    activation[1] = 1  # it raised; every task writes the same value
    blank[0] = zero  # it lives until here: a pointer alone does not keep memory from being given to others


@kernel
def depthwise_weight_tasks(begin, end, source, y, partial, shape, sweeps, fill):
    """A task: one result channel (with its source channel) and one chunk of the samples' pieces.

    ``shape``: samples, result channels, result channels of a group, lanes, chunks. ``partial`` is ``(chunks, result
    channels, taps)``.
    """
    samples, outputs, group_outputs, lanes, chunks = shape
    zero, size = partial.dtype.type(0), partial.itemsize
    band, block, depth_taps, most_lines = sweeps.band, sweeps.block, sweeps.depth_taps, sweeps.lines
    depths, of_slice, rows, programs = sweeps.depths, sweeps.of_slice, sweeps.rows, sweeps.programs
    high, high_border, high_limit = sweeps.height_cells, sweeps.height_border, sweeps.height_limit
    of_band, of_block, order = sweeps.of_band, sweeps.of_block, sweeps.order
    offsets, masks, sweep_fields = pointer_to(sweeps.offsets, 0), pointer_to(sweeps.masks, 0), sweeps.sweeps.shape[1]
    bordered, packing, height_step = sweeps.bordered, sweeps.packing, sweeps.height_step
    height, width = rows[0, 0], sweeps.columns[0, 0]
    source_slice, row_bytes = sweeps.height_cells * sweeps.width_cells, sweeps.width_cells * size
    bands, blocks, slots = sweeps.bands, sweeps.blocks, sweeps.depth_slots
    units = samples * slots * bands * blocks
    geometry = (
        sweeps.width_cells,
        sweeps.width_step,
        sweeps.slots,
        sweeps.slot_cells,
        sweeps.least,
        sweeps.width_border,
        sweeps.width_limit,
    )
    sums = np.empty(sweeps.taps * lanes, partial.dtype)
    lines = np.empty(depth_taps * most_lines, np.int64)
    packed = np.empty(lines.size * sweeps.slots * sweeps.slot_cells, partial.dtype)
    blank_cells = max(2 * (block + lanes) + sweeps.reach, sweeps.slots * sweeps.slot_cells)
    blank = np.zeros(2 * blank_cells, partial.dtype)
    fill_cells(blank, blank_cells, blank_cells, fill)
    zeros = pointer_to(blank, 0 if packing else -sweeps.least)
    for task in range(begin, end):
        chunk, channel = divmod(task, outputs)
        source_channel = channel // group_outputs
        for q in range(sums.size):
            sums[np.uintp(q)] = zero
        for unit in range(chunk * units // chunks, (chunk + 1) * units // chunks):
            n, slot, band_number, block_number = unit, 0, 0, 0
            if units > samples:
                rest, block_number = divmod(unit, blocks)
                rest, band_number = divmod(rest, bands)
                n, slot = divmod(rest, slots)
            first_row, first_column = band_number * band, block_number * block
            first, some = rows[0, 2] + first_row * height_step, min(band, height - first_row)
            phase, o, which = _slice_of(depths, of_slice, slot)
            count = (some - 1) * height_step + rows[0, 3]
            for td in range(depth_taps):
                d, at = depths[phase, 6 + td] + o * sweeps.depth_step, td * most_lines
                d = code_of(d, sweeps.depth_cells, sweeps.depth_border, sweeps.depth_limit)
                if d < 0 and not bordered:
                    continue
                slice_at = (n * (outputs // group_outputs) + source_channel) * sweeps.depth_cells + d
                slice_at *= source_slice
                if packing:
                    _pack_lines(
                        lines,
                        packed,
                        at,
                        count,
                        source,
                        slice_at,
                        d,
                        (high, high_border, high_limit),
                        first,
                        geometry,
                        first_column * sweeps.width_step,
                        zeros,
                        fill,
                    )
                    continue
                start_at = pointer_to(source, slice_at + first_column * sweeps.width_step)
                for j in range(count):
                    h = code_of(first + j, high, high_border, high_limit)
                    if h < 0 or d < 0:
                        constant = (h if h < 0 else d) == CONSTANT
                        set_line(lines, at + j, zeros, blank_cells * size if constant else 0)
                    else:
                        set_line(lines, at + j, start_at, h * row_bytes)
            y_at = (((n * outputs + channel) * slots + slot) * height + first_row) * width + first_column
            of_rows = of_band[_class_at(of_band.size, 0, bands, band_number)]
            of_columns = of_block[_class_at(of_block.size, sweeps.first_blocks, blocks, block_number)]
            first_sweep = programs[which, of_rows, of_columns, 0, 0]
            last_sweep = programs[which, of_rows, of_columns, 0, 1]
            run_dots(
                zero,
                pointer_to(sweeps.sweeps, first_sweep * sweep_fields),
                last_sweep - first_sweep,
                pointer_to(y, y_at),
                pointer_to(sums, 0),
                pointer_to(lines, 0),
                offsets,
                masks,
            )
        for t in range(sweeps.taps):
            partial[chunk, channel, order[t]] = add_lanes(sums, t * lanes)
    blank[0] = zero  # as above
