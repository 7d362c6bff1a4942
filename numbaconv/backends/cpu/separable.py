"""Depthwise and pointwise convolution in one pass: what lies between them never leaves the second-level cache.

A task is a piece of the result, all channels of it. Its depthwise sums are made by the tasks of `depthwise`, in memory
of its own, and multiplied by those of `patch_gemm`, as if they were a small image of their own::

    source (N, C, H, W)         between (some samples, C, rows, columns)       result (N, O, H, W)
    . . . . . .
    . +-----+ .   depthwise     +-----+          pointwise                       +-----+
    . |     | .  ----------->   |     |  all C  ----------->  all O              |     |
    . +-----+ .                 +-----+                                          +-----+

Both are called by address, hence are the very machine code of the two steps one after the other, and so the bits are
the same: no sum of either depends on how its problem is split.

Error factor: that of the two steps, each by its own.

Tried: a product whose lanes are positions, which transposes nothing. It took 0.9 of the time where the result stays in
the caches, 1.1 where it does not, since its stores go to many planes at once. Pieces of a quarter of the cache: 1.05
of half of it, since each channel's piece has its start. Where more than about a hundred channels lie between, or come
of it, the product hides the traffic, and nothing is gained in either way.
"""

import numpy as np

from .fan_out import call_tasks
from .gather import set_positions
from .jit import kernel

__all__ = ["separable_tasks"]


@kernel
def separable_tasks(
    begin,
    end,
    source,
    w,
    packed,
    starts,
    bias,
    residual,
    out,
    shape,
    depthwise,
    extents,
    out_strides,
    sweeps,
    axes,
    fill,
    activation,
    addresses,
):
    """``shape``: samples, those of a task, channels between, result channels, columns and most positions of a task of
    the product, its panels, blocks of panels, lanes. ``depthwise``: the first step's own shape. ``extents``: of the
    result's height and width; taps. ``axes``: three of extent 1, merged. ``addresses``: of both steps'
    task loops, and of what stores the second's sums.
    """
    batch, together, channels, rows, stretch, positions, task_panels, panel_blocks, lanes = shape
    high, wide, taps = extents
    band, bands, block, blocks, slots = sweeps.band, sweeps.bands, sweeps.block, sweeps.blocks, sweeps.depth_slots
    plane, zero = -(-(band * block) // lanes) * lanes, out.dtype.type(0)
    plane += (1 - plane // lanes % 2) * lanes  # an odd number of lines, so that planes do not compete for cache sets
    between = np.empty(together * channels * plane, out.dtype)
    nothing, none = between[:0], np.zeros(2, np.int64)
    axes = axes.copy()  # each task has positions of its own
    strides = (channels * plane, plane, plane, block, 1)
    for task in range(begin, end):
        rest, block_number = divmod(task, blocks)
        rest, band_number = divmod(rest, bands)
        sample_block, slot = divmod(rest, slots)
        first = sample_block * together
        samples, top, left = min(together, batch - first), band_number * band, block_number * block
        down, right = min(band, high - top), min(block, wide - left)
        piece = (slot * bands + band_number) * blocks + block_number
        missing = first * channels * plane + (slot * high + top) * wide + left
        target = (high, wide, plane, taps, piece, 1, missing)
        operands = (source, w, nothing, nothing, between, depthwise, target, sweeps, fill, none)
        call_tasks(addresses[0], first * channels, (first + samples) * channels, operands)
        at = first * out_strides[0] + slot * out_strides[2] + top * out_strides[3]
        at += left * out_strides[4]
        columns = min(stretch, right)
        some_rows = min(max(positions // columns, 1), down)
        some_rows = -(-down // -(-down // some_rows))
        some = min(max(positions // (down * right), 1), samples) if some_rows == down and columns == right else 1
        some = -(-samples // -(-samples // some))
        set_positions(axes, 1, down)
        set_positions(axes, 2, right)
        counts = (-(-samples // some), -(-down // some_rows), -(-right // columns))
        sizes = (samples, 1, channels, rows, some, some_rows, columns, *counts, task_panels, panel_blocks, 1, lanes)
        added = residual[at:] if residual.size else residual
        product = (between, packed, starts, bias, added, out[at:], sizes, strides, out_strides, axes)
        tasks = counts[0] * counts[1] * counts[2] * panel_blocks
        call_tasks(addresses[1], 0, tasks, (*product, none[:0], zero, activation, addresses[2]))
