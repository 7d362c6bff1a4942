"""Depthwise convolution: planes packed row by row, a vector of positions accumulated over all taps at once.

Each group has one channel on one side, so no operand is shared between result channels and a product is bound by
loads. A band of rows of one channel is packed with its padding, one stride phase of the width after another, so that
every tap of every result row reads consecutive cells::

    packed band   row 0   . a c e g . | b d f h .      (stride 2: two phases)
                  row 1   . ...
                  offset of a tap = its depth and row in the band + its phase + its shift

    result row    [vectors of accumulators]  +=  weight[t] * band[row start + offset[t] :]      for all t

FORWARD and INPUT_GRAD are the same loop over gathers from the plan (one for each stride phase of INPUT_GRAD);
WEIGHT_GRAD keeps an accumulator for each of a few taps and runs along a row.

Error factor: as for any order of summation (Higham 2002, section 4.2), the number of products plus three.
"""

import numpy as np

from ...plan import CONSTANT, ZERO
from .gather import phase_of
from .gemm import add_stretch, store_stretch
from .jit import inner, kernel
from .simd import add_lanes, call_row, tap_dots, tap_tile

__all__ = ["BAND", "depthwise_tasks", "depthwise_weight_tasks"]

#: Vectors that share one reading of the weights.
_VECTORS = 4
#: Result rows of a band.
BAND = 16


@kernel
def _least(axis):
    """The first cell that any tap reads from position 0."""
    least = axis.base[0]
    for base in axis.base:
        least = min(least, base)
    return least


@kernel
def _cell(axis, least, j):
    """The cell at distance ``j`` from the first that is read, or ``ZERO`` or ``CONSTANT``."""
    cell = least + j
    if 0 <= cell < axis.cells:
        return cell
    return axis.source[j] if axis.bordered and j < axis.source.size else ZERO


@kernel
def _band_shape(depth, height, width, lanes):
    """Rows of a band, slots of a row (stride phases that are read), cells of a slot, and cells of a row."""
    least, most = _least(height), _least(height)
    for base in height.base:
        most = max(most, base)
    band = min(BAND, height.positions)
    rows = (band - 1) * height.step + most - least + 1
    least, most = _least(width), _least(width)
    for base in width.base:
        most = max(most, base)
    slots = min(width.step, most - least + 1)
    cells = -(-width.positions // lanes) * lanes + (most - least) // width.step
    return band, rows, slots, cells


@kernel
def _tap_offsets(offsets, depth, height, width, rows, slots, cells):
    """Where each tap reads in a packed band, from the start of the result row's first packed row."""
    least_height, least_width = _least(height), _least(width)
    t = 0
    for td in range(depth.tap.size):
        for th in range(height.tap.size):
            for tw in range(width.tap.size):
                shift, slot = divmod(width.base[tw] - least_width, width.step)
                row = td * rows + height.base[th] - least_height
                offsets[t] = (row * slots + slot) * cells + shift
                t += 1


@inner
def _fill_row(packed, at, cells, value):
    for q in range(cells):
        packed[np.uintp(at + q)] = value


@kernel
def _slot_edges(edges, width, slots, cells):
    """For each slot, the cells ``[first, last)`` that lie in the source."""
    least = _least(width)
    for slot in range(slots):
        origin = least + slot
        edges[slot, 0] = min(max(-(origin // width.step), 0), cells)
        edges[slot, 1] = min(max(-((origin - width.cells) // width.step), edges[slot, 0]), cells)


@inner
def _pack_row(packed, at, source, start, outside, inside_value, step, least, edges, slots, cells):
    """One source row between zeros, phase after phase, from its first cell at ``source[start]``.

    ``outside``: the whole row is padding, of ``inside_value``. Operands are arrays and integers alone: tables of
    arrays would be counted as referenced at each call, which took longer than packing a short row.
    """
    zero = packed.dtype.type(0)
    for slot in range(slots):
        to, origin = at + slot * cells, start + least + slot
        first, last = edges[slot, 0], edges[slot, 1]
        _fill_row(packed, to, first, zero)
        _fill_row(packed, to + last, cells - last, zero)
        if outside:
            _fill_row(packed, to + first, last - first, inside_value)
        elif step == 1:
            for q in range(first, last):
                packed[np.uintp(to + q)] = source[np.uintp(origin + q)]
        else:
            for q in range(first, last):
                packed[np.uintp(to + q)] = source[np.uintp(origin + q * step)]


@kernel
def _pack_border(packed, at, source, start, outside, inside_value, step, table, edges, slots, cells, fill):
    """What padding other than zeros puts beside a packed row."""
    for slot in range(slots):
        to, first, last = at + slot * cells, edges[slot, 0], edges[slot, 1]
        for q in range(cells - last + first):
            cell = q if q < first else q + last - first
            j = slot + cell * step
            code = table[j] if j < table.size else ZERO
            if code == CONSTANT:
                packed[to + cell] = fill
            elif code >= 0:
                packed[to + cell] = inside_value if outside else source[start + code]


@kernel
def _pack_band(packed, source, plane, od, first_row, rows, depth, height, width, edges, slots, cells, fill):
    """The source rows that a band of result rows reads: for each depth tap, ``rows`` rows."""
    least_depth, least_height, least_width = _least(depth), _least(height), _least(width)
    step, table = width.step, width.source
    for td in range(depth.tap.size):
        d = _cell(depth, least_depth, od * depth.step + depth.base[td] - least_depth)
        for j in range(rows):
            h = _cell(height, least_height, first_row * height.step + j)
            at = (td * rows + j) * slots * cells
            outside = d < 0 or h < 0
            value = fill if (h if h < 0 else d) == CONSTANT else packed.dtype.type(0)
            start = plane + (d * height.cells + h) * width.cells
            _pack_row(packed, at, source, start, outside, value, step, least_width, edges, slots, cells)
            if width.bordered:
                _pack_border(packed, at, source, start, outside, value, step, table, edges, slots, cells, fill)


@kernel
def _tap_weights(weights, w, o, i, depth, height, width):
    """The weights of one pair of channels, for the taps of a phase."""
    t = 0
    for kd in depth.tap:
        for kh in height.tap:
            for kw in width.tap:
                weights[t] = w[o, i, kd, kh, kw]
                t += 1


@inner
def _add_taps(sums, to, vectors, lanes, weights, packed, at, offsets, taps):
    v = 0
    while v + _VECTORS <= vectors:
        tap_tile(weights, 0, packed, at + v * lanes, offsets, taps, sums, to + v * lanes, _VECTORS)
        v += _VECTORS
    if v + 2 <= vectors:
        tap_tile(weights, 0, packed, at + v * lanes, offsets, taps, sums, to + v * lanes, 2)
        v += 2
    if v < vectors:
        tap_tile(weights, 0, packed, at + v * lanes, offsets, taps, sums, to + v * lanes, 1)


@kernel
def depthwise_tasks(
    begin, end, source, w, bias, residual, out, shape, target, depths, heights, widths, fill, activation
):
    """A task: one phase, sample, result channel, depth and band of rows.

    ``shape``: samples, groups, source channels and result channels of a group, bands, lanes, whether rows are the
    weight's input channels. ``target``: extents of the result's height and width, and of its whole plane.
    """
    samples, groups, channels, rows, bands, lanes, by_input = shape
    plane = depths.cells * heights.cells * widths.cells
    most_depths = depths.positions.max()
    taps = depths.tap.size * heights.tap.size * widths.tap.size
    offsets, weights = np.empty(max(taps, 1), np.int64), np.empty(max(taps, 1), out.dtype)
    depth, height, width = phase_of(depths, 0), phase_of(heights, 0), phase_of(widths, 0)
    packed, sums, edges = np.empty(0, out.dtype), np.empty(0, out.dtype), np.empty((0, 2), np.int64)
    built, some, band_rows, slots, cells, vectors = -1, 0, 0, 0, 0, 0
    for task in range(begin, end):
        rest, band_number = divmod(task, bands)
        rest, od = divmod(rest, most_depths)
        rest, m = divmod(rest, rows)
        rest, g = divmod(rest, groups)
        phase, n = divmod(rest, samples)
        if phase != built:
            inner, pw = divmod(phase, widths.positions.size)
            pd, ph = divmod(inner, heights.positions.size)
            depth, height, width = phase_of(depths, pd), phase_of(heights, ph), phase_of(widths, pw)
            some = depth.tap.size * height.tap.size * width.tap.size
            vectors = -(-width.positions // lanes)
            sums = np.empty(BAND * vectors * lanes, out.dtype)
            if some:
                _, band_rows, slots, cells = _band_shape(depth, height, width, lanes)
                packed = np.empty(depth.tap.size * band_rows * slots * cells, out.dtype)
                edges = np.empty((slots, 2), np.int64)
                _tap_offsets(offsets, depth, height, width, band_rows, slots, cells)
                _slot_edges(edges, width, slots, cells)
            built = phase
        first_row = band_number * BAND
        if od >= depth.positions or first_row >= height.positions:
            continue
        last_row = min(first_row + BAND, height.positions)
        channel = g * rows + m
        _fill_row(sums, 0, (last_row - first_row) * vectors * lanes, bias[channel] if bias.size else out.dtype.type(0))
        if some:
            for c in range(channels):
                o, i = (g * channels + c, m) if by_input else (g * rows + m, c)
                _tap_weights(weights, w, o, i, depth, height, width)
                channel_plane = ((n * groups + g) * channels + c) * plane
                _pack_band(
                    packed,
                    source,
                    channel_plane,
                    od,
                    first_row,
                    band_rows,
                    depth,
                    height,
                    width,
                    edges,
                    slots,
                    cells,
                    fill,
                )
                for oh in range(first_row, last_row):
                    at = (oh - first_row) * height.step * slots * cells
                    to = (oh - first_row) * vectors * lanes
                    _add_taps(sums, to, vectors, lanes, weights, packed, at, offsets, some)
        result_plane = (n * groups * rows + channel) * target[2]
        d = depth.target_first + od * depth.target_step
        for oh in range(first_row, last_row):
            to = (oh - first_row) * vectors * lanes
            h = height.target_first + oh * height.target_step
            place = result_plane + (d * target[0] + h) * target[1] + width.target_first
            if residual.size:
                add_stretch(sums, to, width.positions, residual, place, width.target_step)
            if activation[0] and call_row(activation[0], sums, to, width.positions):
                activation[1] = 1  # it raised; every task writes the same value
            store_stretch(sums, to, width.positions, out, place, width.target_step)


@inner
def _dots(row, vectors, lanes, packed, at, offsets, taps, c):
    t = 0
    while t + 9 <= taps:
        tap_dots(row, 0, packed, at, offsets, t, vectors, c, t * lanes, 9)
        t += 9
    while t + 3 <= taps:
        tap_dots(row, 0, packed, at, offsets, t, vectors, c, t * lanes, 3)
        t += 3
    while t < taps:
        tap_dots(row, 0, packed, at, offsets, t, vectors, c, t * lanes, 1)
        t += 1


@kernel
def depthwise_weight_tasks(begin, end, source, y, partial, shape, depths, heights, widths, fill):
    """A task: one chunk of the samples, depths and bands of rows, one result channel (each with one source channel).

    ``shape``: samples, groups, result channels of a group, bands, chunks, lanes. ``partial`` is ``(chunks,
    result channels, taps)``.
    """
    samples, groups, rows, bands, chunks, lanes = shape
    depth, height, width = phase_of(depths, 0), phase_of(heights, 0), phase_of(widths, 0)
    plane = depth.cells * height.cells * width.cells
    positions = depth.positions * height.positions * width.positions
    taps = partial.shape[2]
    _, band_rows, slots, cells = _band_shape(depth, height, width, lanes)
    vectors = -(-width.positions // lanes)
    offsets, c = np.empty(taps, np.int64), np.empty(taps * lanes, partial.dtype)
    packed = np.empty(depth.tap.size * band_rows * slots * cells, partial.dtype)
    row = np.zeros(vectors * lanes, partial.dtype)
    edges = np.empty((slots, 2), np.int64)
    _tap_offsets(offsets, depth, height, width, band_rows, slots, cells)
    _slot_edges(edges, width, slots, cells)
    units = samples * depth.positions * bands
    for task in range(begin, end):
        chunk, channel = divmod(task, groups * rows)
        g = channel // rows
        c[:] = 0
        for unit in range(chunk * units // chunks, (chunk + 1) * units // chunks):
            rest, band_number = divmod(unit, bands)
            n, od = divmod(rest, depth.positions)
            first_row = band_number * BAND
            channel_plane = (n * groups + g) * plane
            _pack_band(
                packed, source, channel_plane, od, first_row, band_rows, depth, height, width, edges, slots, cells, fill
            )
            y_at = (n * groups * rows + channel) * positions + od * height.positions * width.positions
            for oh in range(first_row, min(first_row + BAND, height.positions)):
                for i in range(width.positions):
                    row[i] = y[np.uintp(y_at + oh * width.positions + i)]
                at = (oh - first_row) * height.step * slots * cells
                _dots(row, vectors, lanes, packed, at, offsets, taps, c)
        for t in range(taps):
            partial[chunk, channel, t] = add_lanes(c, t * lanes)
