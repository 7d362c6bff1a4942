"""Winograd's minimal filtering for small dense kernels of stride 1: FORWARD and INPUT_GRAD.

Lavin and Gray (2016), section 4.1: overlapping tiles of the source are transformed, multiplied with transformed weights
frequency by frequency, summed over channels, and transformed back. Lanes are channels throughout, so tiles may lie
anywhere (borders, dilation, other samples) and no lane is wasted on small maps::

    source (C, H, W) --transpose--> patch (rows, columns, lanes) --B^T d B--> V[f] (tiles, channels)

    for each frequency f       U[f] panel (channels, 3 vectors of result channels)
                             +------+
           V[f] 4 to 8 rows  | tile |  accumulators in registers, summed over the channels in order
                             +------+
    M (f, tiles, panel) --A^T m A--> rows (positions, lanes) --transpose--> epilogue, result (K, H, W)

Depth taps (and only they) are summed in the product: a tile of depth ``o`` multiplies the slices ``o + k``. A dilated
axis is a set of dense ones, whose tiles are interleaved. Two kernels run one after the other over a part of the
problem small enough for the shared cache: all transforms of the source, then all products.

Error factor: see `winograd_conv`.

Tried: lanes of neighbouring tiles instead of channels need no transposition, but gathers with a stride and leave lanes
empty where maps are small.
"""

import numpy as np

from .channels import panel_of, stage_rows
from .gemm import add_stretch, panel_width
from .jit import inner, kernel, part
from .simd import ROWS, call_row, fma_tile
from .simd_tiles import DATA, OUTPUT, WEIGHT, linear_tile, transpose_lanes

__all__ = [
    "MODES",
    "multiply_tasks",
    "rows_product",
    "transform_tasks",
    "weights_tasks",
]

#: Channels summed in registers before a tile is written back.
_DEPTH = 256

#: The filterings there are: (outputs, taps) down and across. A kernel gets one by its number.
MODES = (((4, 3), (4, 3)), ((2, 3), (2, 3)), ((1, 1), (4, 3)), ((4, 3), (1, 1)), ((2, 5), (2, 5)))


@inner
def _data_tile(mode, a, at, row, column, b, to, to_row, to_column):
    if mode == 0:
        linear_tile(a, at, row, column, b, to, to_row, to_column, DATA, 4, 3, 4, 3)
    elif mode == 1:
        linear_tile(a, at, row, column, b, to, to_row, to_column, DATA, 2, 3, 2, 3)
    elif mode == 2:
        linear_tile(a, at, row, column, b, to, to_row, to_column, DATA, 1, 1, 4, 3)
    elif mode == 3:
        linear_tile(a, at, row, column, b, to, to_row, to_column, DATA, 4, 3, 1, 1)
    else:
        linear_tile(a, at, row, column, b, to, to_row, to_column, DATA, 2, 5, 2, 5)


@inner
def _grad_tile(mode, a, at, row, column, b, to, to_row, to_column):
    """For the gradient by the weight outputs and taps change places: a tile of the output gradient is the filter."""
    if mode == 0:
        linear_tile(a, at, row, column, b, to, to_row, to_column, WEIGHT, 3, 4, 3, 4)
    elif mode == 1:
        linear_tile(a, at, row, column, b, to, to_row, to_column, WEIGHT, 3, 2, 3, 2)
    elif mode == 2:
        linear_tile(a, at, row, column, b, to, to_row, to_column, WEIGHT, 1, 1, 3, 4)
    elif mode == 3:
        linear_tile(a, at, row, column, b, to, to_row, to_column, WEIGHT, 3, 4, 1, 1)
    else:
        linear_tile(a, at, row, column, b, to, to_row, to_column, WEIGHT, 5, 2, 5, 2)


@inner
def _weight_tile(mode, a, at, row, column, b, to, to_row, to_column):
    if mode == 0:
        linear_tile(a, at, row, column, b, to, to_row, to_column, WEIGHT, 4, 3, 4, 3)
    elif mode == 1:
        linear_tile(a, at, row, column, b, to, to_row, to_column, WEIGHT, 2, 3, 2, 3)
    elif mode == 2:
        linear_tile(a, at, row, column, b, to, to_row, to_column, WEIGHT, 1, 1, 4, 3)
    elif mode == 3:
        linear_tile(a, at, row, column, b, to, to_row, to_column, WEIGHT, 4, 3, 1, 1)
    else:
        linear_tile(a, at, row, column, b, to, to_row, to_column, WEIGHT, 2, 5, 2, 5)


@inner
def _output_tile(mode, a, at, row, column, b, to, to_row, to_column):
    if mode == 0:
        linear_tile(a, at, row, column, b, to, to_row, to_column, OUTPUT, 4, 3, 4, 3)
    elif mode == 1:
        linear_tile(a, at, row, column, b, to, to_row, to_column, OUTPUT, 2, 3, 2, 3)
    elif mode == 2:
        linear_tile(a, at, row, column, b, to, to_row, to_column, OUTPUT, 1, 1, 4, 3)
    elif mode == 3:
        linear_tile(a, at, row, column, b, to, to_row, to_column, OUTPUT, 4, 3, 1, 1)
    else:
        linear_tile(a, at, row, column, b, to, to_row, to_column, OUTPUT, 2, 5, 2, 5)


@part
def _transform_weights(stage, w, packed, to, panel, frequency, g, vector, vectors, first, last, shape):
    """Channels ``first .. last - 1`` of some vectors of rows, to a panel of which they are a part.

    ``shape`` as for `weights_tasks`; ``to``: the place of the first vector in its panel, of channel and depth tap 0.
    """
    mode, _, channels, rows, depth_taps, row_step, channel_step, group_step = shape[:8]
    height, width, backwards, products, lanes = shape[8:]
    taps, sign = height * width, -lanes if backwards else lanes
    together = lanes if channel_step == depth_taps * taps else 1  # channels that are neighbours in memory
    for c0 in range(first, last, together):
        some = min(together, last - c0)
        for i in range(vectors):
            row = (vector + i) * lanes
            source = g * group_step + row * row_step + c0 * channel_step
            stage_rows(stage, 0, lanes, w, source, row_step, min(lanes, rows - row), some * depth_taps * taps, lanes)
            for c in range(some):
                for kd in range(depth_taps):
                    at = ((c * depth_taps + kd) * taps + (taps - 1 if backwards else 0)) * lanes
                    place = to + i * lanes + (kd * channels + c0 + c) * panel
                    _weight_tile(mode, stage, at, sign * width, sign, packed, place, products * frequency, frequency)


@inner
def _stage_size(shape):
    depth_taps, height, width, lanes = shape[4], shape[8], shape[9], shape[12]
    return (lanes * depth_taps * height * width + lanes) * lanes


@kernel
def weights_tasks(begin, end, w, packed, frequency, shape):
    """Transformed weights ``(f, group, panel, depth tap, channel, panel width)``; channels past the last are zero.

    ``frequency``: cells from one frequency to the next. ``shape``: mode, groups, channels, rows, depth taps, steps in
    ``w`` from row to row, channel to channel and group to group, the kernel's height and width, whether taps are read
    backwards, products across, lanes. A task is a group, a vector of rows, and as many channels as it has lanes.
    """
    channels, rows, depth_taps, lanes = shape[2], shape[3], shape[4], shape[12]
    vectors, blocks = -(-rows // lanes), -(-channels // lanes)
    stage = np.empty(_stage_size(shape), w.dtype)
    for task in range(begin, end):
        rest, block = divmod(task, blocks)
        g, vector = divmod(rest, vectors)
        v = 0
        while v + panel_width(vectors - v) <= vector:
            v += panel_width(vectors - v)
        panel = panel_width(vectors - v) * lanes
        to = (g * vectors + v) * lanes * depth_taps * channels + (vector - v) * lanes
        first, last = block * lanes, min((block + 1) * lanes, channels)
        _transform_weights(stage, w, packed, to, panel, frequency, g, vector, 1, first, last, shape)


@inner
def _load_row(patch, to, source, at, step, cells, block, lanes):
    """A row of ``cells`` cells of some channels, ``step`` apart, as vectors of channels."""
    done = 0
    while done + lanes <= cells:
        transpose_lanes(source, at + done, step, patch, to + done * lanes, lanes)
        done += lanes
    if done < cells and cells >= lanes:  # the last block overlaps the one before
        done = cells - lanes
        transpose_lanes(source, at + done, step, patch, to + done * lanes, lanes)
    elif done < cells and at + (lanes - 1) * step + lanes <= source.size:  # reads on into what follows the row
        transpose_lanes(source, at, step, block, 0, lanes)
        for i in range(cells * lanes):
            patch[np.uintp(to + i)] = block[np.uintp(i)]
    elif done < cells:
        for i in range(cells):
            for r in range(lanes):
                patch[np.uintp(to + i * lanes + r)] = source[np.uintp(at + r * step + i)]


@kernel
def transform_tasks(begin, end, source, v, shape, cells, origins, steps, downs, acrosses):
    """The transformed source ``(f, sample, slice, row of tiles, tile, channel)`` of one part of a problem.

    Of an output gradient instead, where groups of its channels have ``panel_rows``: ``(f, group, panel, sample, slice,
    row of tiles, tile, panel width)``.

    ``shape``: mode, first sample, samples, first slice, slices, first row of tiles, rows of tiles, rows of a task, all
    channels, channels with padding, cells from one frequency to the next, products across, cells of a tile down and
    across, lanes, panel rows (0: the source). ``cells``: of the source's depth, height, width; ``origins``: what tap 0
    of position 0 reads; ``steps``: the dilations; ``downs`` and ``acrosses``: where tiles start. A task is a sample, a
    slice, some rows of tiles, a vector of channels.
    """
    mode, first_sample, samples, first_slice, slices, first_row, rows, task_rows, channels = shape[:9]
    padded, frequency, products_across, cells_down, cells_across, lanes, panel_rows = shape[9:]
    blocks, groups = -(-channels // lanes), -(-rows // task_rows)
    tiles = acrosses.size
    pitch = acrosses[tiles - 1] + steps[1] * (cells_across - 1) + 1
    left = min(max(-origins[1], 0), pitch)
    right = max(min(pitch, cells[2] - origins[1]), left)
    span = 0
    for group in range(groups):
        last = first_row + min((group + 1) * task_rows, rows) - 1
        span = max(span, downs[last] - downs[first_row + group * task_rows] + steps[0] * (cells_down - 1) + 1)
    patch, block = np.zeros(span * pitch * lanes, source.dtype), np.empty(lanes * lanes, source.dtype)
    plane, all_tiles = cells[0] * cells[1] * cells[2], samples * slices * rows * tiles
    for task in range(begin, end):
        rest, channel = divmod(task, blocks)
        rest, group = divmod(rest, groups)
        n, s = divmod(rest, slices)
        base, tile_step = min(channel * lanes, channels - lanes), padded
        if panel_rows:
            vectors = panel_rows // lanes
            g, vector = divmod(channel, vectors)
            v0 = 0
            while v0 + panel_width(vectors - v0) <= vector:
                v0 += panel_width(vectors - v0)
            tile_step = panel_width(vectors - v0) * lanes
            base = (g * vectors + v0) * lanes * all_tiles + (vector - v0) * lanes
        channel = min(channel * lanes, channels - lanes)
        begin_row, end_row = first_row + group * task_rows, first_row + min((group + 1) * task_rows, rows)
        top = downs[begin_row]
        at = ((first_sample + n) * channels + channel) * plane + (first_slice + s) * cells[1] * cells[2]
        for i in range(downs[end_row - 1] - top + steps[0] * (cells_down - 1) + 1):
            h, to = top + i + origins[0], i * pitch * lanes
            if h < 0 or h >= cells[1]:
                for j in range(pitch * lanes):
                    patch[np.uintp(to + j)] = 0
            else:
                start = at + h * cells[2] + left + origins[1]
                _load_row(patch, to + left * lanes, source, start, plane, right - left, block, lanes)
        row_step, step = steps[0] * pitch * lanes, steps[1] * lanes
        for row in range(begin_row, end_row):
            tile_at = (downs[row] - top) * pitch * lanes
            to = ((n * slices + s) * rows + row - first_row) * tiles * tile_step + base
            for t in range(tiles):
                cell = tile_at + acrosses[t] * lanes
                place, down = to + t * tile_step, products_across * frequency
                if panel_rows:
                    _grad_tile(mode, patch, cell, row_step, step, v, place, down, frequency)
                else:
                    _data_tile(mode, patch, cell, row_step, step, v, place, down, frequency)


@inner
def rows_product(a, at, a_step, a_row, b, b_at, depth, c, to, keep, rows, vectors):
    """From half of ROWS up to ROWS rows of a panel."""
    if vectors == 3:
        if ROWS == 8:
            if rows == 8:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 8, 3)
            elif rows == 7:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 7, 3)
            elif rows == 6:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 6, 3)
            elif rows == 5:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 5, 3)
            else:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 4, 3)
        else:
            if rows == 4:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 4, 3)
            elif rows == 3:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 3, 3)
            else:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 2, 3)
    elif vectors == 2:
        if ROWS == 8:
            if rows == 8:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 8, 2)
            elif rows == 7:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 7, 2)
            elif rows == 6:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 6, 2)
            elif rows == 5:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 5, 2)
            else:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 4, 2)
        else:
            if rows == 4:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 4, 2)
            elif rows == 3:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 3, 2)
            else:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 2, 2)
    else:
        if ROWS == 8:
            if rows == 8:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 8, 1)
            elif rows == 7:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 7, 1)
            elif rows == 6:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 6, 1)
            elif rows == 5:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 5, 1)
            else:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 4, 1)
        else:
            if rows == 4:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 4, 1)
            elif rows == 3:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 3, 1)
            else:
                fma_tile(a, at, a_step, a_row, b, b_at, depth, c, to, keep, 2, 1)


@inner
def _multiply(a, at, a_row, tiles, b, b_at, panel, vectors, channels, c, to, keep):
    """One frequency: every tile with one panel, summed over the channels of one slice.

    Every tile of rows but the last has exactly its rows, since a sum that is kept must not be added twice.
    """
    for k0 in range(0, channels, _DEPTH):
        depth, row, left = min(_DEPTH, channels - k0), 0, -(-tiles // ROWS)
        while row < tiles:
            some = max(-(-(tiles - row) // left), ROWS // 2)
            from_a, from_b = at + row * a_row + k0, b_at + k0 * panel
            rows_product(a, from_a, 1, a_row, b, from_b, depth, c, to + row * panel, keep + k0, some, vectors)
            row, left = row + some, max(left - 1, 1)


@inner
def _store_rows(rows, stride, pitch, first, count, offset, residual, activation, out, place, cells, step, limit):
    """The epilogue of one channel's rows of a row of tiles, and their way to the result."""
    for i in range(count):
        if first + i * step[0] >= limit:
            break
        at, to = stride + i * pitch, place + i * step[0] * step[1]
        if residual.size or activation[0]:
            for j in range(cells):
                rows[np.uintp(at + j)] += offset
            if residual.size:
                add_stretch(rows, at, cells, residual, to, 1)
            if activation[0] and call_row(activation[0], rows, at, cells):
                activation[1] = 1  # it raised; every task writes the same value
            for j in range(cells):
                out[np.uintp(to + j)] = rows[np.uintp(at + j)]
        else:
            for j in range(cells):
                out[np.uintp(to + j)] = rows[np.uintp(at + j)] + offset


@kernel
def multiply_tasks(
    begin,
    end,
    v,
    u,
    w,
    bias,
    residual,
    out,
    shape,
    part,
    weights,
    target,
    origins,
    steps,
    downs,
    acrosses,
    activation,
):
    """The products, transformed back, of one part of a problem.

    ``shape``: mode, groups, channels and rows of a group, channels with padding, cells from one frequency of ``v`` and
    of ``u`` to the next, products down and across, outputs of a tile down and across, lanes. ``part``: first sample,
    samples, first depth, depths, first slice, slices, first row of tiles, rows of tiles, rows and tiles of a task.
    ``weights``: as in `weights_tasks`; where ``u`` is empty, panels are transformed from ``w`` when they are used.
    ``target``: the result's depth, height, width; ``origins``: the slice that each depth tap reads from depth 0. A
    task is a group, a panel, a sample, a depth, some rows of tiles (or a stretch of one).
    """
    mode, groups, channels, rows, padded, v_frequency, u_frequency, products_down, products_across = shape[:9]
    tile_down, tile_across, lanes = shape[9:]
    first_sample, samples, first_depth, depths, first_slice, slices, first_row, all_rows, task_rows, task_tiles = part
    tiles, vectors, frequencies = acrosses.size, -(-rows // lanes), products_down * products_across
    panels, row_groups, stretches = 0, -(-all_rows // task_rows), -(-tiles // task_tiles)
    vector = 0
    while vector < vectors:
        vector, panels = vector + panel_width(vectors - vector), panels + 1
    depth_taps, height, width = origins.size, target[1], target[2]
    most = task_rows * task_tiles + 8
    m_frequency = most * 3 * lanes + lanes
    m = np.empty(frequencies * m_frequency, out.dtype)
    pitch = 0
    for stretch in range(stretches):
        last = min((stretch + 1) * task_tiles, tiles) - 1
        pitch = max(pitch, acrosses[last] - acrosses[stretch * task_tiles] + steps[1] * (tile_across - 1) + 1)
    positions = -(-tile_down * pitch // lanes) * lanes
    y = np.zeros(positions * 3 * lanes, out.dtype)
    lines = np.empty(3 * lanes * positions, out.dtype)
    transient = u.size == 0
    panels_of_u, stage, built = u, u, -1
    if transient:
        u_frequency = depth_taps * channels * 3 * lanes + lanes
        panels_of_u, stage = np.empty(frequencies * u_frequency, w.dtype), np.empty(_stage_size(weights), w.dtype)
    for task in range(begin, end):
        rest, stretch = divmod(task, stretches)
        rest, row_group = divmod(rest, row_groups)
        rest, d = divmod(rest, depths)
        rest, n = divmod(rest, samples)
        g, panel = divmod(rest, panels)
        vector, across = panel_of(vectors, panel)
        breadth = across * lanes
        panel_at = 0 if transient else (g * vectors + vector) * lanes * depth_taps * channels
        if transient and rest != built:
            _transform_weights(stage, w, panels_of_u, 0, breadth, u_frequency, g, vector, across, 0, channels, weights)
            built = rest
        begin_row, end_row = row_group * task_rows, min((row_group + 1) * task_rows, all_rows)
        begin_tile, end_tile = stretch * task_tiles, min((stretch + 1) * task_tiles, tiles)
        count = (end_row - begin_row - 1) * tiles + end_tile - begin_tile
        found = 0
        for kd in range(depth_taps):
            s = first_depth + d + origins[kd] - first_slice
            if s < 0 or s >= slices:
                continue
            at = ((n * slices + s) * all_rows + begin_row) * tiles + begin_tile
            for f in range(frequencies):
                _multiply(
                    v,
                    f * v_frequency + at * padded + g * channels,
                    padded,
                    count,
                    panels_of_u,
                    f * u_frequency + panel_at + kd * channels * breadth,
                    breadth,
                    across,
                    channels,
                    m,
                    f * m_frequency,
                    found,
                )
            found += 1
        if not found:
            m[:] = 0
        left = acrosses[begin_tile]
        cells = (acrosses[end_tile] if end_tile < tiles else width) - left
        for row in range(begin_row, end_row):
            for t in range(begin_tile, end_tile):
                at, to = ((row - begin_row) * tiles + t - begin_tile) * breadth, (acrosses[t] - left) * breadth
                for i in range(across):
                    _output_tile(
                        mode,
                        m,
                        at + i * lanes,
                        products_across * m_frequency,
                        m_frequency,
                        y,
                        to + i * lanes,
                        pitch * breadth,
                        steps[1] * breadth,
                    )
            for i in range(across):
                for p in range(0, positions, lanes):
                    transpose_lanes(y, p * breadth + i * lanes, breadth, lines, i * lanes * positions + p, positions)
            top = downs[first_row + row]
            for r in range(min(breadth, rows - vector * lanes)):
                channel = g * rows + vector * lanes + r
                plane = ((first_sample + n) * groups * rows + channel) * target[0] + first_depth + d
                _store_rows(
                    lines,
                    r * positions,
                    pitch,
                    top,
                    tile_down,
                    bias[channel] if bias.size else out.dtype.type(0),
                    residual,
                    activation,
                    out,
                    (plane * height + top) * width + left,
                    cells,
                    (steps[0], width),
                    height,
                )
