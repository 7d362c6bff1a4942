"""Implicit GEMM: FORWARD and INPUT_GRAD as products of packed weights and gathered positions.

For each sample and group, ``out[m, p] = sum over (c, t) of w[m, (c, t)] * source[c, cell(p, t)]``: rows ``m`` are
result channels, columns ``p`` positions (one stride phase's, in INPUT_GRAD), and the depth runs over source
channels and taps. The matrix of gathered cells never exists: a block of it is packed when it is used::

                       positions  ->  COLUMNS, a block of vectors
                     +-----+-----+---+
        depth DEPTH  |panel|panel|   |   packed: each panel (depth, 3 vectors), in the first-level cache
             |       +-----+-----+---+
        +----+       +-----+-----+---+
        |rows|  x    |tile |tile |   |   ROWS x 3 vectors of accumulators in registers
        |rows|       |tile |tile |   |
        +----+       +-----+-----+---+
    packed weights: panels (depth, ROWS)

A task is one sample, group, block of positions and block of rows. Sums run over the depth in order, in blocks of
DEPTH whose totals are added in order: the same for every split into tasks, hence the same bits.

Error factor: as for any order of summation (Higham 2002, section 4.2), the number of products plus three.
"""

import numpy as np

from .gather import build_runs, pack_line, phase_of, phased_axis
from .jit import inner, kernel, part
from .simd import ROWS, VECTORS, call_row, fma_tile

__all__ = [
    "COLUMNS",
    "DEPTH",
    "add_stretch",
    "flat_taps",
    "gemm_tasks",
    "pack_weights_tasks",
    "panel_width",
]

#: Products summed in registers before a tile is written back.
DEPTH = 256
#: Vectors of positions in a block.
COLUMNS = 24


@part
def panel_width(left):
    """Vectors in the next panel when ``left`` remain: 3, but never a last one of 1, which would run at half rate."""
    if left == 4:
        return 2
    return min(left, VECTORS)


@part
def flat_taps(taps, depth, height, width, pd, ph, pw, height_kernel, width_kernel):
    """A phase's taps as offsets in a pair of channels' kernel; how many there are."""
    count = 0
    for kd in depth.tap[depth.taps[pd] : depth.taps[pd + 1]]:
        for kh in height.tap[height.taps[ph] : height.taps[ph + 1]]:
            for kw in width.tap[width.taps[pw] : width.taps[pw + 1]]:
                taps[count] = (kd * height_kernel + kh) * width_kernel + kw
                count += 1
    return count


@kernel
def pack_weights_tasks(begin, end, w, packed, starts, shape, axes):
    """For each phase, panels ``(channels * taps, ROWS)`` of each group's weights; rows past the last are zero.

    ``shape``: groups, rows, channels, steps in ``w`` from row to row, channel to channel and group to group, and
    extents of the kernel's height and width. ``starts`` holds where each phase's panels begin.
    """
    groups, rows, channels, row_step, channel_step, group_step, height_kernel, width_kernel = shape
    depth, height, width = phased_axis(axes, 0), phased_axis(axes, 1), phased_axis(axes, 2)
    panels = -(-rows // ROWS)
    taps = np.empty(max(depth.tap.size * height.tap.size * width.tap.size, 1), np.int64)
    for task in range(begin, end):
        rest, panel = divmod(task, panels)
        phase, g = divmod(rest, groups)
        rest, pw = divmod(phase, width.positions.size)
        pd, ph = divmod(rest, height.positions.size)
        count = flat_taps(taps, depth, height, width, pd, ph, pw, height_kernel, width_kernel)
        first = starts[phase] + (g * panels + panel) * channels * count * ROWS
        source = g * group_step + panel * ROWS * row_step
        some = min(ROWS, rows - panel * ROWS)
        for c in range(channels):
            for t in range(count):
                at, cell = first + (c * count + t) * ROWS, source + c * channel_step + taps[t]
                if some == ROWS:
                    for r in range(ROWS):
                        packed[np.uintp(at + r)] = w[np.uintp(cell + r * row_step)]
                else:
                    for r in range(some):
                        packed[np.uintp(at + r)] = w[np.uintp(cell + r * row_step)]
                    for r in range(some, ROWS):
                        packed[np.uintp(at + r)] = 0


@inner
def _copy_panels(b, k, line, start, depth, vectors, lanes, length):
    """Step ``k`` of every panel from a line; what is past its length is zero."""
    v = 0
    while v < vectors:
        across = panel_width(vectors - v)
        width, at = across * lanes, v * lanes
        to = at * depth + k * width
        some = min(width, length - at)
        for i in range(some):
            b[np.uintp(to + i)] = line[np.uintp(start + at + i)]
        for i in range(some, width):
            b[np.uintp(to + i)] = 0
        v += across


@part
def _pack_block(b, line, source, first_plane, plane, runs, counts, taps, k0, depth, vectors, lanes, length, step, fill):
    """Pack steps ``k0 .. k0 + depth - 1`` of a block of positions into panels."""
    for k in range(depth):
        c, t = divmod(k0 + k, taps)
        if counts[t, 0] == 1 and counts[t, 1] == length and step == 1 and runs[t, 0, 1] >= 0:
            # One stretch of memory, as for every 1x1 kernel: no line in between.
            _copy_panels(b, k, source, first_plane + c * plane + runs[t, 0, 1], depth, vectors, lanes, length)
            continue
        pack_line(line, 0, source, first_plane + c * plane, runs, counts, t, length, step, fill)
        _copy_panels(b, k, line, 0, depth, vectors, lanes, vectors * lanes)


@part
def _multiply(a, a_at, a_panel, b, depth, c, keep, panels, vectors, lanes):
    """The product of a block, added to what there is if ``keep``: every panel of rows with every panel of positions."""
    v = 0
    while v < vectors:
        across = panel_width(vectors - v)
        for p in range(panels):
            tile = (p * vectors + v) * ROWS * lanes
            from_a, from_b = a_at + p * a_panel, v * lanes * depth
            fma_tile(a, from_a, ROWS, 1, b, from_b, depth, c, tile, keep, ROWS, across)
        v += across


@inner
def add_stretch(row, start, length, residual, at, step):
    """Add a stretch of the residual to a row."""
    for i in range(length):
        row[np.uintp(start + i)] += residual[np.uintp(at + i * step)]


@inner
def _store_stretch(row, start, length, out, at, step):
    """Bring a stretch of a finished row to its place."""
    if step == 1:
        for i in range(length):
            out[np.uintp(at + i)] = row[np.uintp(start + i)]
    else:
        for i in range(length):
            out[np.uintp(at + i * step)] = row[np.uintp(start + i)]


@inner
def _store_positions(row, begin, length, residual, activation, out, plane, depth, height, width, target):
    """The epilogue of one channel's positions, and their way to their places.

    ``target``: extents of the result's height and width. Rows whose positions are neighbours in the result are
    one stretch of memory.
    """
    whole = width.target_step == 1 and height.target_step == 1 and depth.target_step == 1
    step, at = width.target_step, 0
    while residual.size and at < length:
        first, cells = _stretch(begin + at, length - at, whole, depth, height, width, target)
        add_stretch(row, at, cells, residual, plane + first, step)
        at += cells
    if activation[0] and call_row(activation, row, 0, length):
        activation[1] = 1  # it raised; every task writes the same value
    at = 0
    while at < length:
        first, cells = _stretch(begin + at, length - at, whole, depth, height, width, target)
        _store_stretch(row, at, cells, out, plane + first, step)
        at += cells


@inner
def _stretch(position, left, whole, depth, height, width, target):
    """Where a position is stored in its plane, and how many that follow are evenly spaced from it."""
    if whole:
        return position, left
    rest, o = divmod(position, width.positions)
    od, oh = divmod(rest, height.positions)
    d = depth.target_first + od * depth.target_step
    h = height.target_first + oh * height.target_step
    w = width.target_first + o * width.target_step
    return (d * target[0] + h) * target[1] + w, min(width.positions - o, left)


@kernel
def gemm_tasks(
    begin,
    end,
    source,
    packed,
    starts,
    bias,
    residual,
    out,
    shape,
    target,
    axes,
    fill,
    activation,
):
    """A task: a phase and block of positions, one sample and group, a block of rows.

    ``shape``: samples, groups, source channels of a group, rows, positions of a block, blocks, blocks of rows, lanes.

    ``target``: extents of the result's height and width, and of its whole plane. ``starts``: where each phase's
    packed weights begin. ``axes``: depth, height and width, merged.
    """
    batch, groups, channels, rows, block, blocks, row_blocks, lanes = shape
    depths, heights, widths = phased_axis(axes, 0), phased_axis(axes, 1), phased_axis(axes, 2)
    source_plane = depths.cells * heights.cells * widths.cells
    all_panels = -(-rows // ROWS)
    block_panels = -(-all_panels // row_blocks)
    taps = depths.tap.size * heights.tap.size * widths.tap.size
    runs = np.empty((max(taps, 1), block, 3), np.int64)
    counts = np.zeros((taps, 2), np.int64)
    line = np.zeros(block, out.dtype)
    b = np.empty(min(DEPTH, max(channels * taps, 1)) * block, out.dtype)
    c = np.empty(block_panels * ROWS * block, out.dtype)
    row = np.empty(block, out.dtype)
    built, steps, length = -1, 0, 0
    depth, height, width = phase_of(depths, 0), phase_of(heights, 0), phase_of(widths, 0)
    for task in range(begin, end):
        # Row blocks, samples and groups of one block of positions follow each other and share its runs.
        rest, row_block = divmod(task, row_blocks)
        rest, g = divmod(rest, groups)
        rest, n = divmod(rest, batch)
        phase, position_block = divmod(rest, blocks)
        first = position_block * block
        if rest != built:
            inner, pw = divmod(phase, widths.positions.size)
            pd, ph = divmod(inner, heights.positions.size)
            depth, height, width = phase_of(depths, pd), phase_of(heights, ph), phase_of(widths, pw)
            steps = channels * depth.tap.size * height.tap.size * width.tap.size
            length = min(block, depth.positions * height.positions * width.positions - first)
            if length > 0:
                build_runs(runs, counts, first, length, depth, height, width)
            built = rest
        first_panel = row_block * block_panels
        panels = min(block_panels, all_panels - first_panel)
        if length <= 0 or panels <= 0:
            continue
        vectors = -(-length // lanes)
        line[length : vectors * lanes] = 0
        if steps == 0:
            c[: panels * ROWS * vectors * lanes] = 0
        planes = (n * groups + g) * channels * source_plane
        for k0 in range(0, steps, DEPTH):
            deep = min(DEPTH, steps - k0)
            _pack_block(
                b,
                line,
                source,
                planes,
                source_plane,
                runs,
                counts,
                depth.tap.size * height.tap.size * width.tap.size,
                k0,
                deep,
                vectors,
                lanes,
                length,
                width.step,
                fill,
            )
            a_at = starts[phase] + ((g * all_panels + first_panel) * steps + k0) * ROWS
            _multiply(packed, a_at, steps * ROWS, b, deep, c, k0, panels, vectors, lanes)
        for m in range(first_panel * ROWS, min((first_panel + panels) * ROWS, rows)):
            channel = g * rows + m
            _collect(row, c, m - first_panel * ROWS, vectors, lanes, bias[channel] if bias.size else row.dtype.type(0))
            plane = (n * groups * rows + channel) * target[2]
            _store_positions(row, first, length, residual, activation, out, plane, depth, height, width, target)


@inner
def _collect(row, c, m, vectors, lanes, offset):
    """One row's positions from its tiles, with its channel's bias."""
    p, r = divmod(m, ROWS)
    v = 0
    while v < vectors:
        across = panel_width(vectors - v) * lanes
        at = (p * vectors + v) * ROWS * lanes + r * across
        for i in range(across):
            row[np.uintp(v * lanes + i)] = c[np.uintp(at + i)] + offset
        v += panel_width(vectors - v)
