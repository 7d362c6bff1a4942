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
axis is a set of dense ones, whose tiles are interleaved. This file has the way in, of source and weights;
`winograd_product` the products and the way out.

Error factor: see `winograd_conv`.

Tried: lanes of neighbouring tiles instead of channels need no transposition, but gathers with a stride and leave lanes
empty where maps are small.
"""

import numpy as np

from .channels import stage_rows
from .jit import inner, kernel, part
from .simd import VECTORS
from .simd_tiles import DATA, MODES, WEIGHT, WEIGHT_OF_OUTPUTS, linear_tile, transpose_lanes

__all__ = [
    "MODES",
    "panel_around",
    "panel_at",
    "panels_of",
    "stage_size",
    "transform_tasks",
    "transform_weights",
    "weights_tasks",
]


@inner
def panels_of(vectors):
    """Panels of a group's vectors: 3 each or fewer, and an even number of panels where none needs to have 1 for it.

    Two threads then get equal shares.
    """
    panels = -(-vectors // VECTORS)
    return panels + panels % 2 if panels > 1 and vectors >= 2 * (panels + panels % 2) else panels


@inner
def panel_at(vectors, panel):
    """The first vector of a panel, and how many it has: they differ by 1 at most."""
    panels = panels_of(vectors)
    first = panel * vectors // panels
    return first, (panel + 1) * vectors // panels - first


@inner
def panel_around(vectors, vector):
    """The first vector of the panel that a vector is part of, and how many it has."""
    return panel_at(vectors, ((vector + 1) * panels_of(vectors) - 1) // vectors)


@part
def transform_weights(stage, w, to, at, panel, frequency, g, vector, vectors, channel_range, tap_range, pitch, shape):
    """Some channels and depth taps of some vectors of rows, to a panel of which they are a part.

    ``shape`` as for `weights_tasks`; ``at``: the place of the first vector in its panel, of channel and depth tap 0;
    ``pitch``: channels from one depth tap to the next there.
    """
    mode, _, _, rows, _, row_step, channel_step, group_step = shape[:8]
    height, width, backwards, products, lanes = shape[8:]
    first, last = channel_range
    first_tap, last_tap = tap_range
    taps, sign = height * width, -lanes if backwards else lanes
    here = last_tap - first_tap
    together = lanes if channel_step == here * taps else 1  # channels that are neighbours in memory
    for c0 in range(first, last, together):
        some = min(together, last - c0)
        for i in range(vectors):
            row = (vector + i) * lanes
            source = g * group_step + row * row_step + c0 * channel_step + first_tap * taps
            stage_rows(stage, 0, lanes, w, source, row_step, min(lanes, rows - row), some * here * taps, lanes)
            for c in range(some):
                for kd in range(here):
                    cell = ((c * here + kd) * taps + (taps - 1 if backwards else 0)) * lanes
                    place = at + i * lanes + ((first_tap + kd) * pitch + c0 + c) * panel
                    linear_tile(
                        stage, cell, sign * width, sign, to, place, products * frequency, frequency, WEIGHT, mode
                    )


@inner
def stage_size(shape):
    """Cells that `transform_weights` turns at a time."""
    depth_taps, height, width, lanes = shape[4], shape[8], shape[9], shape[12]
    return (lanes * depth_taps * height * width + lanes) * lanes


@kernel
def weights_tasks(begin, end, w, packed, frequency, first_vector, shape):
    """Transformed weights ``(f, group, panel, depth tap, channel, panel width)``; channels past the last are zero.

    ``frequency``: cells from one frequency to the next; ``first_vector``: of all groups' vectors of rows, the one that
    ``packed`` begins with. ``shape``: mode, groups, channels, rows, depth taps, steps in ``w`` from row to row, channel
    to channel and group to group, the kernel's height and width, whether taps are read backwards, products across,
    lanes. A task is a vector of rows, and as many channels as it has lanes.
    """
    channels, rows, depth_taps, lanes = shape[2], shape[3], shape[4], shape[12]
    vectors, blocks = -(-rows // lanes), -(-channels // lanes)
    stage = np.empty(stage_size(shape), w.dtype)
    for task in range(begin, end):
        rest, block = divmod(task, blocks)
        g, vector = divmod(first_vector + rest, vectors)
        v, across = panel_around(vectors, vector)
        at = (g * vectors + v - first_vector) * lanes * depth_taps * channels + (vector - v) * lanes
        some, taps = (block * lanes, min((block + 1) * lanes, channels)), (0, depth_taps)
        transform_weights(stage, w, packed, at, across * lanes, frequency, g, vector, 1, some, taps, channels, shape)


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
    channels, first channel, channels, the same with padding, cells from one frequency to the next, products across,
    cells of a tile down and across, lanes, panel rows (0: the source). ``cells``: of the source's depth, height, width;
    ``origins``: what tap 0 of position 0 reads; ``steps``: the dilations; ``downs`` and ``acrosses``: where tiles
    start. A task is a sample, a slice, some rows of tiles, a vector of channels.
    """
    mode, first_sample, samples, first_slice, slices, first_row, rows, task_rows, all_channels = shape[:9]
    first_channel, channels, padded, frequency, products_across, cells_down, cells_across, lanes, panel_rows = shape[9:]
    blocks, groups = -(-channels // lanes), -(-rows // task_rows)
    tiles, first_cell = acrosses.size, acrosses[0] + origins[1]
    pitch = acrosses[tiles - 1] - acrosses[0] + steps[1] * (cells_across - 1) + 1
    left = min(max(-first_cell, 0), pitch)
    right = max(min(pitch, cells[2] - first_cell), left)
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
            g, vector = divmod(channel, panel_rows // lanes)
            v0, across = panel_around(panel_rows // lanes, vector)
            tile_step = across * lanes
            base = (g * (panel_rows // lanes) + v0) * lanes * all_tiles + (vector - v0) * lanes
        channel = first_channel + min(channel * lanes, channels - lanes)
        begin_row, end_row = first_row + group * task_rows, first_row + min((group + 1) * task_rows, rows)
        top = downs[begin_row]
        at = ((first_sample + n) * all_channels + channel) * plane + (first_slice + s) * cells[1] * cells[2]
        for i in range(downs[end_row - 1] - top + steps[0] * (cells_down - 1) + 1):
            h, to = top + i + origins[0], i * pitch * lanes
            if h < 0 or h >= cells[1]:
                for j in range(pitch * lanes):
                    patch[np.uintp(to + j)] = 0
            else:
                start = at + h * cells[2] + left + first_cell
                _load_row(patch, to + left * lanes, source, start, plane, right - left, block, lanes)
        row_step, step = steps[0] * pitch * lanes, steps[1] * lanes
        for row in range(begin_row, end_row):
            tile_at = (downs[row] - top) * pitch * lanes
            to = ((n * slices + s) * rows + row - first_row) * tiles * tile_step + base
            for t in range(tiles):
                cell = tile_at + (acrosses[t] - acrosses[0]) * lanes
                place, down = to + t * tile_step, products_across * frequency
                if panel_rows:
                    linear_tile(patch, cell, row_step, step, v, place, down, frequency, WEIGHT_OF_OUTPUTS, mode)
                else:
                    linear_tile(patch, cell, row_step, step, v, place, down, frequency, DATA, mode)
