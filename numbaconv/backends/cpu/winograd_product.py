"""Winograd's products, FORWARD and INPUT_GRAD: blocks of tiles in, blocks of results out, in one parallel launch.

A thread takes a block of tiles through the whole way, in scratch memory of its own that stays in its caches::

    source --> V (f, tiles of the block, channels)          once a block
        for each panel of result channels:
            w --> U (f, DEPTH channels, panel)              once a block, unless weights are prepared or shared
            M (f, tiles, panel) += V[f] U[f]
            M --> result

So neither the transformed source nor, where they are large, the transformed weights ever exist as a whole, and no
thread waits for another. Transforms into a cache take 95 ns a vector of a 6x6 tile and 62 ns a vector of
weights, into memory 300 and 230 (Zen 4), so that some of them may be done twice. `winograd_schedule` has the sizes.

Tried: all transforms of the source, then all products, over parts of 6 MiB. It took 8 to 38 MiB of scratch, and three
launches of which the first two were short.
"""

import numpy as np

from .fan_out import call_tasks
from .gemm import add_stretch
from .jit import inner, kernel
from .simd import ROWS, call_row, fma_tile
from .simd_finite import all_finite
from .simd_tiles import OUTPUT, linear_tile, transpose_lanes
from .winograd import panel_at, panels_of, stage_size, transform_weights

__all__ = ["DEPTH", "multiply_tasks"]

#: Channels summed in registers before a tile is written back.
DEPTH = 128


@inner
def _multiply(a, at, a_row, tiles, b, b_at, panel, vectors, depth, c, to, keep):
    """One frequency: every tile with one panel, summed over some channels of one slice.

    Every tile of rows but the last has exactly its rows, since a sum that is kept must not be added twice.
    """
    row, left = 0, -(-tiles // ROWS)
    while row < tiles:
        some = max(-(-(tiles - row) // left), ROWS // 2)
        fma_tile(a, at + row * a_row, 1, a_row, b, b_at, depth, c, to + row * panel, keep, some, vectors)
        row, left = row + some, max(left - 1, 1)


@inner
def _store_rows(
    rows,
    stride,
    pitch,
    first,
    count,
    offset,
    residual,
    activation,
    out,
    place,
    cells,
    step,
    limit,
    clean,
    spoiled,
    mark,
):
    """The epilogue of one channel's rows of a row of tiles, and their way to the result.

    Unless all is known to be ``clean``, a row with a sum that is not finite is marked instead; there are ``step[2]``
    marks from one row of the result to the next.
    """
    for i in range(count):
        if first + i * step[0] >= limit:
            break
        at, to = stride + i * pitch, place + i * step[0] * step[1]
        if not clean and not all_finite(rows, at, cells):
            spoiled[mark + i * step[0] * step[2]] = 1
            continue
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
    source,
    u,
    w,
    bias,
    residual,
    out,
    scratch,
    shape,
    blocks,
    sizes,
    weights,
    target,
    cells,
    origins,
    depth_origins,
    steps,
    downs,
    acrosses,
    activation,
    transform,
    spoiled,
):
    """Results of some blocks of tiles: their source transformed, multiplied, transformed back.

    ``shape``: mode, groups, channels and rows of a group, groups of a bundle (whose channels are whole vectors),
    products down and across, outputs of a tile down and across, cells of a tile down and across, lanes.

    ``blocks``: samples and in how many blocks they are, depths likewise, rows of tiles likewise; tiles of a stretch of
    a row; first bundle, first panel of a bundle, panels of each; rows of tiles that are transformed at a time.

    ``sizes``: cells from one frequency of transformed source, weights and products to the next; cells of transformed
    source and weights of a thread; of all its scratch; tasks, chunks; the vector of rows that ``u`` begins with.

    ``weights``: as in `weights_tasks`; where ``u`` is empty, they are transformed from ``w`` when they are used.
    ``target``: the result's depth, height, width; ``cells`` and ``origins``: as in `transform_tasks`, whose address is
    ``transform``; ``depth_origins``: the slice that each depth tap reads from depth 0. A task is a bundle, a block of
    samples, of depths, of rows of tiles, a stretch, and a panel of one of the bundle's groups.

    ``spoiled``: a mark for each stretch of each row of the result, set where sums are not finite; nothing is stored
    there, so that a residual that is the result's memory is there still.
    """
    mode, groups, channels, rows, bundle, products_down, products_across = shape[:7]
    tile_down, tile_across, cells_down, cells_across, lanes = shape[7:]
    samples, sample_blocks, depths, depth_blocks, tile_rows, row_blocks, task_tiles = blocks[:7]
    first_bundle, first_panel, panels, turned_rows = blocks[7:]
    v_frequency, u_frequency, m_frequency, v_cells, u_cells, own_cells, tasks, chunks, first_vector = sizes
    tiles, vectors, frequencies = acrosses.size, -(-rows // lanes), products_down * products_across
    group_panels, stretches = panels_of(vectors), -(-tiles // task_tiles)
    depth_taps, height, width = depth_origins.size, target[1], target[2]
    padded, all_channels = -(-bundle * channels // lanes) * lanes, groups * channels
    own = -(-begin * chunks // tasks) * own_cells  # the place of this chunk's scratch
    v, m = scratch[own : own + v_cells], scratch[own + v_cells + u_cells : own + own_cells]
    transient = u_cells > 0
    panels_of_u, stage = u, v
    if transient:
        panels_of_u, stage = scratch[own + v_cells : own + v_cells + u_cells], np.empty(stage_size(weights), w.dtype)
    pitch = 0
    for stretch in range(stretches):
        last = min((stretch + 1) * task_tiles, tiles) - 1
        pitch = max(pitch, acrosses[last] - acrosses[stretch * task_tiles] + steps[1] * (tile_across - 1) + 1)
    positions = -(-tile_down * pitch // lanes) * lanes
    y = np.zeros(positions * 3 * lanes, out.dtype)
    lines = np.empty(3 * lanes * positions, out.dtype)
    chunks_of_channels = -(-channels // DEPTH)
    lowest, highest = depth_origins.min(), depth_origins.max()
    first_tap, clear = 0, 1
    for kd in range(depth_taps):  # sums begin with a tap that every depth has, or else with zeros
        if clear and depth_origins[kd] >= 0 and depths + depth_origins[kd] <= cells[0]:
            first_tap, clear = kd, 0
    built, some_tiles, unit, first_group = -1, 0, 0, 0
    n0, n1, d0, d1, r0, r1, t0, t1, s0, s1 = 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
    for task in range(begin, end):
        block, panel = divmod(task, panels)
        if block != built:
            built = block
            rest, stretch = divmod(block, stretches)
            rest, row_block = divmod(rest, row_blocks)
            rest, depth_block = divmod(rest, depth_blocks)
            rest, sample_block = divmod(rest, sample_blocks)
            first_group = (first_bundle + rest) * bundle
            n0, n1 = sample_block * samples // sample_blocks, (sample_block + 1) * samples // sample_blocks
            d0, d1 = depth_block * depths // depth_blocks, (depth_block + 1) * depths // depth_blocks
            r0, r1 = row_block * tile_rows // row_blocks, (row_block + 1) * tile_rows // row_blocks
            t0, t1 = stretch * task_tiles, min((stretch + 1) * task_tiles, tiles)
            some_tiles = t1 - t0
            unit = (r1 - r0) * some_tiles
            low, high = max(d0 + lowest, 0), min(d1 + highest, cells[0])
            high = max(low, high)
            if unit >= ROWS // 2:
                s0, s1 = low, high
            else:  # slices of zeros: tiles of registers reach past the depths that a tap has something to add to
                s0, s1 = d0 + lowest, d1 + highest
                v[:] = 0
            if high > low:
                part = (mode, n0, n1 - n0, low, high - low, r0, r1 - r0, turned_rows, all_channels)
                of_bundle = (first_group * channels, bundle * channels, padded, v_frequency, products_across)
                ops = (
                    source,
                    v[(low - s0) * unit * padded :],
                    (*part, *of_bundle, cells_down, cells_across, lanes, 0),
                    cells,
                    origins,
                    steps,
                    downs,
                    acrosses[t0:t1],
                )
                turned = (n1 - n0) * (high - low) * -(-(r1 - r0) // turned_rows) * (padded // lanes)
                call_tasks(transform, 0, turned, ops)
        of_group, panel = divmod(first_panel + panel, group_panels)
        g = first_group + of_group
        vector, across = panel_at(vectors, panel)
        breadth = across * lanes
        panel_at_u = ((g * vectors + vector) - first_vector) * lanes * depth_taps * channels
        units = (n1 - n0) * (d1 - d0) * unit
        if clear:
            for f in range(frequencies):
                for at in range(f * m_frequency, f * m_frequency + units * breadth):
                    m[np.uintp(at)] = 0
        for i in range(depth_taps):
            kd = (first_tap + i) % depth_taps
            first, last = max(d0, s0 - depth_origins[kd]), min(d1, s1 - depth_origins[kd])
            if first >= last:
                continue
            from_v, to = (first + depth_origins[kd] - s0) * unit, (first - d0) * unit
            count = (n1 - n0) * (last - first) * unit  # many samples have one depth alone
            # Weights are read in the order in which they lie: from memory chunk by chunk, else as they are made.
            for step in range(frequencies * chunks_of_channels):
                if transient:
                    chunk, f = divmod(step, frequencies)
                else:
                    f, chunk = divmod(step, chunks_of_channels)
                k0 = chunk * DEPTH
                depth = min(DEPTH, channels - k0)
                u_at = panel_at_u + (kd * channels + k0) * breadth
                if transient:
                    u_at = 0
                    if f == 0:
                        some, tap = (k0, k0 + depth), (kd, kd + 1)
                        transform_weights(
                            stage,
                            w,
                            panels_of_u,
                            -k0 * breadth,
                            breadth,
                            u_frequency,
                            g,
                            vector,
                            across,
                            some,
                            tap,
                            0,
                            weights,
                        )
                _multiply(
                    v,
                    f * v_frequency + from_v * padded + of_group * channels + k0,
                    padded,
                    count,
                    panels_of_u,
                    f * u_frequency + u_at,
                    breadth,
                    across,
                    depth,
                    m,
                    f * m_frequency + to * breadth,
                    k0 + i + clear,
                )
        left = acrosses[t0]
        cells_wide = (acrosses[t1] if t1 < tiles else width) - left
        for line in range((n1 - n0) * (d1 - d0) * (r1 - r0)):
            rest, row = divmod(line, r1 - r0)
            n, d = divmod(rest, d1 - d0)
            clean = 1
            for t in range(some_tiles):
                at, to = (line * some_tiles + t) * breadth, (acrosses[t0 + t] - left) * breadth
                for i in range(across):
                    clean &= linear_tile(
                        m,
                        at + i * lanes,
                        products_across * m_frequency,
                        m_frequency,
                        y,
                        to + i * lanes,
                        pitch * breadth,
                        steps[1] * breadth,
                        OUTPUT,
                        mode,
                    )
            for i in range(across):
                for p in range(0, positions, lanes):
                    transpose_lanes(y, p * breadth + i * lanes, breadth, lines, i * lanes * positions + p, positions)
            top = downs[r0 + row]
            for r in range(min(breadth, rows - vector * lanes)):
                channel = g * rows + vector * lanes + r
                plane = ((n0 + n) * groups * rows + channel) * target[0] + d0 + d
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
                    cells_wide,
                    (steps[0], width, stretches),
                    height,
                    clean,
                    spoiled,
                    (plane * height + top) * stretches + stretch,
                )
