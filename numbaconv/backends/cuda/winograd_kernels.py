"""Winograd's minimal filtering of 3x3 kernels: the three transforms. The products between them are `gather_gemm`'s.

Lavin and Gray (2016), section 4.1: a tile of ``m`` x ``m`` results is computed from ``n`` x ``n`` cells, n = m + 2,
with ``n * n`` products a channel instead of ``9 m * m``: 2.25 times fewer for F(2x2), 4 times fewer for F(4x4)::

    source            a thread: one tile of one channel
    +--+--+--+        n x n cells, which overlap by 2      V[f, c, t]  = (B^T d B)[f]
    |  |  |  |                                                  |
    +--+--+--+   U[f, c, k] = (G g G^T)[f]  ---------->    M[f, k, t]  = sum over c of U[f, c, k] V[f, c, t]
    |  |  |  |   (the packed weight)                            |
    +--+--+--+                                             A^T M A, epilogue: m x m results of tile t, channel k

The products of all ``n * n`` frequencies and groups are a convolution with 1x1 kernels and as many groups, so the
kernel of `implicit_gemm` computes them, and U lies as its packed weights do. V and M are scratch memory, a piece of the
tiles at a time.

Why three kernels and not one. In float32 a result and source channel cost, beside the products, ``n^2 / m^2`` elements
of V or M written and read once: 18 bytes for F(4x4), 32 for F(2x2); with as many source as result channels, twice that
for a result. F(4x4) saves 6.75 of 9 multiply-adds for each source channel, so at 8 multiply-adds a byte (an H100 from
its second-level cache) it is worth it from some 40 channels on. One kernel for F(2x2), transforming in shared memory,
would move no scratch, but saves 5 of 9 at most, repeats the transform of a tile for each block of rows, and reads the
weights, four times as large, for each block of 32 tiles (16 frequencies of 32 x 32 sums fill the registers of 256
threads): 1/32 element for each multiply-add and so more than the plain product's 2/128, for which there is no room
beside the rest. And it would be a second main loop.

A thread of a transform has ``n * n`` cells in registers. Threads lie so that what they write is whole sectors of 32
bytes: neighbouring tiles of a channel, or, where channels are neighbours in memory, 8 tiles by 4 channels on the way in
and 4 by 8 on the way out. A warp's 36 loads for F(4x4), 16 bytes apart, are 144 accesses of the first-level cache and
its stores 36: less than what lies beyond takes for them.

Machine code for sm_90, float32: nothing on the stack. Of a tile of F(4x4) the way in is 816 instructions (65 loads, 168
of arithmetic, 36 stores) at 89 registers, the way out 378 to 449 (120 of arithmetic) at 48; of F(2x2) 390 at 40 and 200
at 32. Sharing even and odd halves leaves 14 operations for 6 cells instead of 16.
No kernel here was timed on a device yet.

Cells are read wherever they are, from a place inside the source, and replaced where there is padding: no load waits for
a condition. Error factor: see `toom_cook`.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from ...plan import CONSTANT
from ..toom_cook import matrices
from .division import remainder
from .elements import BFLOAT16, number, reader, writer
from .intrinsics import inlined, store2, store4
from .jit import SIMULATED, kernel, newest
from .linear_maps import tile_of

__all__ = ["HEAD", "THREADS", "grid_of", "result_kernel", "source_kernel", "weight_kernel"]

#: Threads of a block; the simulator takes time for each.
THREADS = 32 if SIMULATED else 128

#: Places in the table of the transforms of source and result. ``PITCH``: tiles of a piece, padded. ``SPLIT``: tiles of
#: a sample, of a row, rows of tiles, each as `divisor` has it. Then for each of the two kernels: blocks that lie along
#: the channels, channels, elements from channel to channel; of the source where its lines begin, which hold offsets, of
#: the result elements along the axes and the extents of the last two.
PITCH, SPLIT = 0, 1
SOURCE_BLOCKS, SOURCE_CHANNELS, SOURCE_STEP, LINES = 10, 11, 12, 13
RESULT_BLOCKS, RESULT_CHANNELS, RESULT_STEPS, EXTENTS = 16, 17, 18, 22
HEAD = 24


def grid_of(last: bool, out: bool) -> tuple[int, int]:
    """Tiles and channels of a block, by whether channels are neighbours in the operand, and whether that is written."""
    if not last:
        return THREADS // 4, 4
    return (THREADS // 8, 8) if out else (8, THREADS // 8)


@cache
def _places(last: bool, out: bool, blocks_at: int) -> Any:
    """A device function: a thread's channel, and its tile within the piece."""
    tiles, channels = grid_of(last, out)

    @inlined
    def places(table):
        thread, block = np.uint32(cuda.threadIdx.x), np.uint32(cuda.blockIdx.x)
        across = np.uint32(table[blocks_at])
        further = np.uint32(block // across)
        beside = np.uint32(block - np.uint32(further * across))
        if last and out:
            channel, tile = np.uint32(thread % np.uint32(channels)), np.uint32(thread // np.uint32(channels))
        else:
            channel, tile = np.uint32(thread // np.uint32(tiles)), np.uint32(thread % np.uint32(tiles))
        channel = np.uint32(channel + np.uint32(beside * np.uint32(channels)))
        return channel, np.uint32(tile + np.uint32(further * np.uint32(tiles)))

    return places


@inlined
def _position(tile, table):
    """Of a tile, counted from the first one of a piece's first sample: sample, depth, row and column of tiles."""
    sample, rest = remainder(tile, table, SPLIT)
    rest, across = remainder(rest, table, SPLIT + 3)
    deep, down = remainder(rest, table, SPLIT + 6)
    return sample, deep, down, across


@cache
def source_kernel(outputs: int, dtype: str, last: bool, constant: bool, compute: str) -> Any:
    """The transform of a piece of the source: ``V[f, c, t]``. ``constant``: whether padding may hold a constant.

    Its arguments: source, V, table, elements from one sample to the next, the piece's first sample and first tile in
    it, its tiles, what constant padding holds. What V has beyond the piece's tiles is zero.
    """
    cells = outputs + 2
    area = cells * cells
    data = matrices(outputs, 3)[2]
    transform, places = tile_of(data, data, compute), _places(last, False, SOURCE_BLOCKS)
    read, scalar = reader(dtype), number(compute)
    zero = scalar(0)

    @inlined
    def line(i, source, start, deep, height, widths, values, fill):
        """A row of a tile's cells."""
        code_of_row = height if height < 0 else deep
        from_row = start + np.uint64(np.uint32(np.uint32(max(deep, 0)) + np.uint32(max(height, 0))))
        for j in range(cells):
            width = widths[j]
            value = scalar(read(source, from_row + np.uint64(np.uint32(max(width, 0)))))
            code = width if width < 0 else code_of_row
            padding = zero
            if constant:
                padding = fill if code == CONSTANT else zero
            values[i * cells + j] = value if code >= 0 else padding

    @kernel
    def transform_source(source, v, table, source_batch, first_sample, first_tile, tiles, fill):
        channel, tile = places(table)
        channels, pitch = np.uint32(table[SOURCE_CHANNELS]), np.uint32(table[PITCH])
        if channel < channels and tile < pitch:
            values = cuda.local.array(area, scalar)
            found = cuda.local.array(area, scalar)
            widths = cuda.local.array(cells, np.int32)
            if tile < np.uint32(tiles):
                sample, deep, down, across = _position(np.uint32(np.uint32(first_tile) + tile), table)
                start = (np.uint64(first_sample) + np.uint64(sample)) * np.uint64(source_batch)
                start += np.uint64(np.uint32(channel * np.uint32(table[SOURCE_STEP])))
                deep = table[np.uint32(np.uint32(table[LINES]) + deep)]
                down = np.uint32(np.uint32(table[LINES + 1]) + np.uint32(down * np.uint32(outputs)))
                across = np.uint32(np.uint32(table[LINES + 2]) + np.uint32(across * np.uint32(outputs)))
                for j in range(cells):
                    widths[j] = table[np.uint32(across + np.uint32(j))]
                for i in range(cells):
                    height = table[np.uint32(down + np.uint32(i))]
                    line(i, source, start, deep, height, widths, values, fill)
                transform(values, found)
            else:
                for f in range(area):
                    found[f] = zero
            at = np.uint32(np.uint32(channel * pitch) + tile)
            step = np.uint32(channels * pitch)
            for f in range(area):
                v[np.uint32(at + np.uint32(np.uint32(f) * step))] = found[f]

    return transform_source


@newest
def result_kernel(outputs: int, out_dtype: str, last: bool, wide: int, compute: str, finish: Any) -> Any:
    """The transform of a piece's products to results, finished. ``wide``: how many neighbours one access stores.

    Its arguments: M, result, the epilogue's extras, table, elements from one sample to the next, the piece's first
    sample and first tile in it, its tiles.
    """
    cells = outputs + 2
    area, results = cells * cells, outputs * outputs
    back = matrices(outputs, 3)[0]
    transform, places = tile_of(back, back, compute), _places(last, True, RESULT_BLOCKS)
    write, scalar = writer(out_dtype), number(compute)
    held = np.uint16 if out_dtype == BFLOAT16 else number(out_dtype)

    @inlined
    def store(i, j, found, out, extras, channel, at, step):
        """One result, or ``wide`` neighbours."""
        if wide == 1:
            to = at + np.uint64(np.uint32(np.uint32(j) * step))
            write(out, to, finish(found[i * outputs + j], channel, to, extras))
        else:
            to, some = at + np.uint64(j), cuda.local.array(4, held)
            for each in range(wide):
                write(some, each, finish(found[i * outputs + j + each], channel, to + np.uint64(each), extras))
            if wide == 4:
                store4(out, to, some[0], some[1], some[2], some[3])
            else:
                store2(out, to, some[0], some[1])

    @inlined
    def line(i, found, out, extras, channel, at, first, extent, step):
        """A row of a tile's results; the first of a row of the tile lies inside."""
        store(i, 0, found, out, extras, channel, at, step)
        if wide < 2 and first + np.uint32(1) < extent:
            store(i, 1, found, out, extras, channel, at, step)
        if wide < 4 and outputs > 2 and first + np.uint32(2) < extent:
            store(i, 2, found, out, extras, channel, at, step)
        if wide < 2 and outputs > 2 and first + np.uint32(3) < extent:
            store(i, 3, found, out, extras, channel, at, step)

    @kernel
    def transform_result(products, out, extras, table, out_batch, first_sample, first_tile, tiles):
        channel, tile = places(table)
        channels, pitch = np.uint32(table[RESULT_CHANNELS]), np.uint32(table[PITCH])
        if channel < channels and tile < np.uint32(tiles):
            values = cuda.local.array(area, scalar)
            found = cuda.local.array(results, scalar)
            at = np.uint32(np.uint32(channel * pitch) + tile)
            step = np.uint32(channels * pitch)
            for f in range(area):
                values[f] = products[np.uint32(at + np.uint32(np.uint32(f) * step))]
            transform(values, found)
            sample, deep, down, across = _position(np.uint32(np.uint32(first_tile) + tile), table)
            down, across = np.uint32(down * np.uint32(outputs)), np.uint32(across * np.uint32(outputs))
            height, width = np.uint32(table[EXTENTS]), np.uint32(table[EXTENTS + 1])
            row_step, step = np.uint32(table[RESULT_STEPS + 2]), np.uint32(table[RESULT_STEPS + 3])
            inside = np.uint32(
                channel * np.uint32(table[RESULT_STEPS])
                + deep * np.uint32(table[RESULT_STEPS + 1])
                + down * row_step
                + across * step
            )
            to = (np.uint64(first_sample) + np.uint64(sample)) * np.uint64(out_batch) + np.uint64(inside)
            line(0, found, out, extras, channel, to, across, width, step)
            if down + np.uint32(1) < height:
                line(1, found, out, extras, channel, to + np.uint64(row_step), across, width, step)
            if outputs > 2:
                if down + np.uint32(2) < height:
                    line(2, found, out, extras, channel, to + np.uint64(np.uint32(2) * row_step), across, width, step)
                if down + np.uint32(3) < height:
                    line(3, found, out, extras, channel, to + np.uint64(np.uint32(3) * row_step), across, width, step)

    return transform_result


#: Places in the table of the transform of weights. ``DEPTHS``: channels of a group as products pad them; ``ROWS``, and
#: padded rows; elements in the weight from row to row, channel to channel, group to group; the taps' offsets.
ELEMENTS, DEPTHS, CHANNELS, ROWS, PADDED_ROWS, ROW_STEP, CHANNEL_STEP, GROUP_STEP, TAPS = range(9)


@cache
def weight_kernel(outputs: int, dtype: str, compute: str) -> Any:
    """The kernel that transforms a weight: ``U[f, group, channel, row]``, rows padded to quads. A thread a kernel.

    Its arguments: weight, U, table.
    """
    area = (outputs + 2) ** 2
    weight = matrices(outputs, 3)[1]
    transform = tile_of(weight, weight, compute)
    read, scalar = reader(dtype), number(compute)
    zero = scalar(0)

    @kernel
    def transform_weight(w, packed, table):
        at = np.int64(cuda.blockIdx.x) * np.int64(cuda.blockDim.x) + np.int64(cuda.threadIdx.x)
        elements = table[ELEMENTS]
        if at < elements:
            values = cuda.local.array(9, scalar)
            found = cuda.local.array(area, scalar)
            row, rest = at % table[PADDED_ROWS], at // table[PADDED_ROWS]
            channel, group = rest % table[DEPTHS], rest // table[DEPTHS]
            there = row < table[ROWS] and channel < table[CHANNELS]
            start = group * table[GROUP_STEP] + row * table[ROW_STEP] + channel * table[CHANNEL_STEP]
            for tap in range(9):
                values[tap] = zero
                if there:
                    values[tap] = scalar(read(w, np.uint64(start + table[TAPS + tap])))
            transform(values, found)
            for f in range(area):
                packed[np.uint64(at + f * elements)] = found[f]

    return transform_weight
