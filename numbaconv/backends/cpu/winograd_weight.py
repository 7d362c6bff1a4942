"""Winograd's minimal filtering for WEIGHT_GRAD: the weight is the output, the output gradient the filter.

A tap's gradient sums products of the input and the output gradient over all positions. Cut into the tiles of
`winograd`, each tile of the output gradient filters its tile of the input to give as many outputs as the kernel has
taps: ``F(taps, outputs)`` where FORWARD uses ``F(outputs, taps)``, with the same points, hence the same transformed
input. Tiles are summed frequency by frequency before the way back, which is taken once for the whole problem::

    V[f] (tiles, source channels)      one frequency: an outer product a tile
    Y[f] panel (tiles, 3 vectors of result channels)

                            panel of Y: tiles x 3 vectors
                          +----------+
      8 source channels   |  accum.  |   depth: up to DEPTH tiles
                          +----------+   S[f] (channels, panel)  --A^T s A-->  weight

All this for some result channels and some tiles at a time: the sums S of a whole weight, 36 numbers for 9, went to
memory and back (8 ms where it is 5 now, 14x14x512).

Error factor: see `winograd_weight_conv`.
"""

import numpy as np

from .channels import deliver_panel
from .jit import kernel
from .simd import ROWS, fma_tile
from .simd_tiles import OUTPUT_OF_TAPS, linear_tile
from .winograd import panel_around, panel_at, panels_of

__all__ = ["back_tasks", "sum_tiles_tasks"]

#: Tiles multiplied before sums are written back.
_DEPTH = 256


@kernel
def sum_tiles_tasks(begin, end, v, y, sums, shape):
    """``shape``: groups, channels and rows of a group, channels with padding, cells from one frequency of ``v``, ``y``
    and ``sums`` to the next, tiles, whether sums are kept, lanes.

    ``sums`` is ``(f, group, panel, channel, panel width)`` with ROWS channels to spare. A task is a frequency, a group,
    a panel.
    """
    groups, channels, rows, padded, v_frequency, y_frequency, s_frequency, tiles, keep, lanes = shape
    vectors = rows // lanes
    panels = panels_of(vectors)
    for task in range(begin, end):
        rest, panel = divmod(task, panels)
        f, g = divmod(rest, groups)
        vector, across = panel_at(vectors, panel)
        breadth, first = across * lanes, (g * vectors + vector) * lanes
        for k0 in range(0, tiles, _DEPTH):
            depth, c, left = min(_DEPTH, tiles - k0), 0, -(-channels // ROWS)
            while c < channels:
                some = max(-(-(channels - c) // left), ROWS // 2)
                from_v = f * v_frequency + k0 * padded + g * channels + c
                from_y = f * y_frequency + first * tiles + k0 * breadth
                to = f * s_frequency + first * (channels + ROWS) + c * breadth
                fma_tile(v, from_v, padded, 1, y, from_y, depth, sums, to, keep + k0, some, across)
                c, left = c + some, max(left - 1, 1)


@kernel
def back_tasks(begin, end, sums, w, shape, spoiled):
    """The weight ``(groups * rows, channels * taps)`` from its sums over tiles.

    ``shape``: mode, groups, channels and rows of a group, taps down and across, products across, cells from one
    frequency to the next, lanes. A task is a group, a vector of rows, and as many channels as it has lanes. It sets
    ``spoiled[0]`` where it finds something that is not finite.
    """
    mode, _, channels, rows, height, width, products_across, frequency, lanes = shape
    vectors, blocks, taps = rows // lanes, -(-channels // lanes), height * width
    stage, block = np.empty((lanes * taps + lanes) * lanes, w.dtype), np.empty(lanes * lanes, w.dtype)
    for task in range(begin, end):
        rest, channel_block = divmod(task, blocks)
        g, vector = divmod(rest, vectors)
        v, across = panel_around(vectors, vector)
        breadth, first = across * lanes, channel_block * lanes
        some = min(lanes, channels - first)
        at = (g * vectors + v) * lanes * (channels + ROWS) + (vector - v) * lanes
        clean = 1
        for c in range(some):
            clean &= linear_tile(
                sums,
                at + (first + c) * breadth,
                products_across * frequency,
                frequency,
                stage,
                c * taps * lanes,
                width * lanes,
                lanes,
                OUTPUT_OF_TAPS,
                mode,
            )
        if not clean:
            spoiled[0] = 1  # every task writes the same value
        to = (g * rows + vector * lanes) * channels * taps + first * taps
        deliver_panel(w, to, channels * taps, stage, 0, some * taps, lanes, 1, lanes, lanes, block)
