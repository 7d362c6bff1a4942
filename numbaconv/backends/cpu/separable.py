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
"""

import numpy as np

from .channels import panel_of
from .fan_out import call_tasks
from .gather import PhasedAxis
from .jit import inner, kernel
from .patch_gemm import DEPTH
from .simd import ROWS, call_row, plane_tile

__all__ = ["separable_tasks"]


@inner
def _along(axis, positions):
    """An axis of extent 1 with other positions; they may change."""
    return PhasedAxis(
        axis.cells,
        axis.step,
        axis.target_step,
        axis.bordered,
        positions,
        axis.target_first,
        axis.taps,
        axis.tap,
        axis.first,
        axis.last,
        axis.base,
        axis.reach,
        axis.source,
    )


@inner
def _tile(packed, a_at, a_step, planes, b_at, b_step, depth, c, c_at, c_step, offsets, o_at, keep, vectors):
    if vectors == 3:
        plane_tile(packed, a_at, a_step, planes, b_at, b_step, depth, c, c_at, c_step, offsets, o_at, keep, ROWS, 3)
    elif vectors == 2:
        plane_tile(packed, a_at, a_step, planes, b_at, b_step, depth, c, c_at, c_step, offsets, o_at, keep, ROWS, 2)
    else:
        plane_tile(packed, a_at, a_step, planes, b_at, b_step, depth, c, c_at, c_step, offsets, o_at, keep, ROWS, 1)


@kernel
def multiply_planes(planes, at, pitch, channels, positions, packed, bias, out, place, plane, rows, lanes, spare):
    """Result planes from a stretch of positions of source planes; lanes are positions, so nothing is transposed.

    Sums are those of `patch_gemm`, in the same order. ``spare``: room for a tile that is not whole.
    """
    wide = 3 * lanes
    offsets = np.zeros(rows + 2 * ROWS, out.dtype)
    offsets[rows + ROWS :] = -offsets[0]  # which changes no sum, not even the sign of a zero
    offsets[: bias.size] = bias
    vectors = -(-rows // lanes)
    for strip in range(0, positions, wide):
        cells = min(wide, positions - strip)
        across = -(-cells // lanes)
        vector = 0
        while vector < vectors:
            _, breadth = panel_of(vectors - vector, 0)
            first, breadth = vector * lanes, breadth * lanes
            weights = first * channels
            for channel in range(first, min(first + breadth, rows), ROWS):
                valid = min(ROWS, rows - channel)
                whole = valid == ROWS and cells == across * lanes
                for c0 in range(0, channels, DEPTH):
                    some = min(DEPTH, channels - c0)
                    of_a, of_b = weights + c0 * breadth + channel - first, at + c0 * pitch + strip
                    o_at = channel if c0 + some == channels else rows + ROWS
                    if whole:
                        to = place + channel * plane + strip
                        _tile(
                            packed, of_a, breadth, planes, of_b, pitch, some, out, to, plane, offsets, o_at, c0, across
                        )
                    else:
                        _tile(
                            packed, of_a, breadth, planes, of_b, pitch, some, spare, 0, wide, offsets, o_at, c0, across
                        )
                if not whole:
                    for m in range(valid):
                        to = place + (channel + m) * plane + strip
                        for j in range(cells):
                            out[np.uintp(to + j)] = spare[np.uintp(m * wide + j)]
            vector += breadth // lanes


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
    axis,
    fill,
    activation,
    addresses,
):
    """``shape``: samples, those of a task, channels between, result channels, columns and most positions of a task of
    the product, its panels, blocks of panels, lanes. ``depthwise``: the first step's own shape. ``extents``: of the
    result's height and width; taps. ``axis``: one of extent 1. ``addresses``: of the task loops of both steps.
    """
    batch, together, channels, rows, stretch, positions, task_panels, panel_blocks, lanes, in_lanes = shape
    high, wide, taps = extents
    band, bands, block, blocks, slots = sweeps.band, sweeps.bands, sweeps.block, sweeps.blocks, len(sweeps.slices)
    plane, zero = -(-(band * block) // lanes) * lanes, out.dtype.type(0)
    plane += (1 - plane // lanes % 2) * lanes  # an odd number of lines, so that planes do not compete for cache sets
    between, spare = np.empty(together * channels * plane + lanes, out.dtype), np.empty(ROWS * 3 * lanes, out.dtype)
    nothing, none = between[:0], np.zeros(2, np.int64)
    one, heights, widths = np.ones(1, np.int64), np.ones(1, np.int64), np.ones(1, np.int64)
    depth, height, width = _along(axis, one), _along(axis, heights), _along(axis, widths)
    strides = (channels * plane, plane, plane, block, 1)
    for task in range(begin, end):
        rest, block_number = divmod(task, blocks)
        rest, band_number = divmod(rest, bands)
        sample_block, slot = divmod(rest, slots)
        first = sample_block * together
        samples, top, left = min(together, batch - first), band_number * band, block_number * block
        down, right = min(band, high - top), min(block, wide - left)
        piece = (slot * bands + band_number) * blocks + block_number
        missing = first * channels * plane + (sweeps.slices[slot, 0] * high + top) * wide + left
        target = (high, wide, plane, taps, piece, 1, missing)
        operands = (source, w, nothing, nothing, between, depthwise, target, sweeps, fill, none)
        call_tasks(addresses[0], first * channels, (first + samples) * channels, operands)
        at = first * out_strides[0] + sweeps.slices[slot, 0] * out_strides[2] + top * out_strides[3]
        at += left * out_strides[4]
        columns = min(stretch, right)
        if in_lanes:
            pieces = 1 if right == wide else down
            for n in range(samples):
                for r in range(pieces):
                    to = at + n * out_strides[0] + r * wide
                    multiply_planes(
                        between,
                        n * channels * plane + r * block,
                        plane,
                        channels,
                        down * right // pieces,
                        packed,
                        bias,
                        out,
                        to,
                        out_strides[1],
                        rows,
                        lanes,
                        spare,
                    )
                if activation[0]:
                    for m in range(rows):
                        for r in range(down):
                            to = at + n * out_strides[0] + m * out_strides[1] + r * wide
                            for j in range(0, right, columns):
                                if call_row(activation[0], out, to + j, min(columns, right - j)):
                                    activation[1] = 1  # it raised; every task writes the same value
            continue
        some_rows = min(max(positions // columns, 1), down)
        some_rows = -(-down // -(-down // some_rows))
        some = min(max(positions // (down * right), 1), samples) if some_rows == down and columns == right else 1
        some = -(-samples // -(-samples // some))
        heights[0], widths[0] = down, right
        counts = (-(-samples // some), -(-down // some_rows), -(-right // columns))
        sizes = (samples, 1, channels, rows, some, some_rows, columns, *counts, task_panels, panel_blocks, 1, lanes)
        added = residual[at:] if residual.size else residual
        product = (between, packed, starts, bias, added, out[at:], sizes, strides, out_strides, depth, height, width)
        tasks = counts[0] * counts[1] * counts[2] * panel_blocks
        call_tasks(addresses[1], 0, tasks, (*product, zero, activation))
