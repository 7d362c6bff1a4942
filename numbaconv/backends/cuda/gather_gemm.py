"""FORWARD and INPUT_GRAD as a product of packed weights and gathered patches.

A row is a result channel, a column a position of a sample, the depth runs over taps and, for each, over channels::

                        columns: positions of all samples, one after another
                        +-------------+
                        |  patches    |  gathered: cell = line[position * step + tap] along each axis
             depth      +-------------+
          +-----------+ +-------------+
     rows |  weights  | |  results    |  bias, residual and activation on the way out
          +-----------+ +-------------+

Both operands go through two buffers in shared memory, ``DEPTH`` products at a time: while a block multiplies what is
in one buffer, its threads hold what comes next in registers, and store it into the other. A thread gathers for one
column, whose place along each axis it finds once; so padding of whatever kind costs three look-ups in the plan's tables
(``line``) for each tap, not each channel. Strides of an input gradient are phases, each a product of its own with its
own taps; the blocks of all phases are in one grid.

Three ways to gather, by the plan:

``each``   a tap at a time; consecutive threads read consecutive positions, one element each.
``quads``  the same for channels last: a thread reads four channels in one access.
``flat``   few channels, of which a tap at a time would leave much of the depth empty: every element finds its own tap.

Sums: one accumulator, products in ascending order of taps, then channels, each by a fused multiply-add. So neither the
tile nor the batch changes a bit. Error factor: as any sum of n products in some order (``any_order_factor``).

Found without a device, from the machine code for sm_80 and sm_90 (128x128 tile, 8x8 sums a thread; 512 multiply-adds):
offsets that are constants belong into the address and not the index, which may wrap around in 32 bits (512 of 750
instructions of the main loop before, of 690 since, at 150 and 127 registers); bounds for two blocks of 256 threads on a
multiprocessor cost no spill; one copy of the eight steps, with the loads of the next step under a condition, is half
the code of a loop with a last step behind it; a loop over the results to store is unrolled only with a short epilogue,
and puts the sums into memory with bfloat16's. Not tried: steps 16 deep, whose loads would need another 8 registers.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from .elements import BFLOAT16, number, reader, writer
from .gather import (
    BATCH,
    CHANNELS,
    COLUMN_BLOCKS,
    CONSTANT_CODE,
    GROUP_SIZE,
    GROUPS,
    PACKED_FROM,
    PADDED_ROWS,
    POSITIONS,
    RECORD,
    RECORDS,
    ROW_BLOCKS,
    ROWS,
    SOURCE,
    STEPS,
    TAPS,
    TARGET,
    VECTOR,
)
from .intrinsics import inlined, load4, shared_tile, store4
from .jit import kernel, newest
from .lookups import cell_at, column_at
from .products import kernel_function, place_of, steps_of
from .tiles import DEPTH, Tile

__all__ = ["EACH", "FLAT", "QUADS", "gather_kernel", "pack_kernel", "store_of"]

EACH, QUADS, FLAT = "each", "quads", "flat"


@newest
def gather_kernel(tile: Tile, dtype: str, out_dtype: str, how: str, last: bool, compute: str, finish: Any) -> Any:
    """The kernel for one tile, dtypes of source and result, way to gather, layout of the result, and epilogue.

    ``last``: result channels are neighbours. Its arguments: source, packed weights, result, the epilogue's extras, the
    table of `gather.Gather`, elements from one sample to the next of source and result, what constant padding holds.
    It runs on blocks of ``tile.threads`` threads.
    """
    scalar = number(compute)
    read, deliver = reader(dtype), _deliver_of(tile, out_dtype, last, finish)
    rows, columns, threads = tile.rows, tile.columns, tile.threads
    thread_rows, thread_columns = tile.thread_rows, tile.thread_columns
    left_size, right_size = DEPTH * rows, DEPTH * columns
    buffer_size = left_size + right_size
    left_quads = left_size // 4
    left_loads = -(-left_quads // threads)
    held_left = 4 * left_loads
    apart = threads // columns  # how many depths apart a thread's elements of its column are
    right_loads = right_size // threads // (4 if how == QUADS else 1)
    held_right = right_size // threads
    sums_size = thread_rows * thread_columns
    quads, flat = how == QUADS, how == FLAT
    memory = shared_tile(2 * buffer_size, scalar)
    place, steps = place_of(tile), steps_of(tile, 0, rows, left_size, columns)
    zero = scalar(0)

    def gather(source, packed, out, extras, table, source_batch, out_batch, fill):
        shared = memory()
        offsets = cuda.shared.array(columns, np.int64)
        sums = cuda.local.array(sums_size, scalar)
        left = cuda.local.array(thread_rows, scalar)
        right = cuda.local.array(thread_columns, scalar)
        next_left = cuda.local.array(held_left, scalar)
        next_right = cuda.local.array(held_right, scalar)
        thread = np.uint32(cuda.threadIdx.x)
        block = np.uint32(cuda.blockIdx.x)
        row_blocks, column_blocks = np.uint32(table[ROW_BLOCKS]), np.uint32(table[COLUMN_BLOCKS])
        groups, group_rows = np.uint32(table[GROUPS]), np.uint32(table[ROWS])
        first_row = np.uint32(block % row_blocks * np.uint32(rows))
        block = np.uint32(block // row_blocks)
        first = np.uint64(block % column_blocks) * np.uint64(columns)
        block = np.uint32(block // column_blocks)
        group = np.uint32(block % groups)
        record = RECORDS + np.int32(block // groups) * RECORD
        positions = np.uint64(table[record + POSITIONS])
        total = positions * np.uint64(table[BATCH])
        if first >= total:
            return

        # The column that this thread gathers for, and the first cell that it reads along each axis' line.
        own = np.uint32(thread % np.uint32(columns))
        column = first + np.uint64(own)
        there = column < total
        if not there:
            column = first
        sample, line_d, line_h, line_w, target = column_at(table, record, column, out_batch)
        if thread < np.uint32(columns):
            target += np.uint64(np.uint32(group * group_rows * np.uint32(table[TARGET])))
            offsets[thread] = np.int64(target) if there else np.int64(-1)

        channels, channel_step = np.uint32(table[CHANNELS]), np.uint32(table[SOURCE])
        step_d, step_h, step_w = (
            np.uint32(table[SOURCE + 1]),
            np.uint32(table[SOURCE + 2]),
            np.uint32(table[SOURCE + 3]),
        )
        start = sample * np.uint64(source_batch) + np.uint64(np.uint32(group * channels * channel_step))
        own_depth = np.uint32(thread // np.uint32(columns))
        padded_rows = np.uint32(table[PADDED_ROWS])
        packed_at = np.uint32(
            group * np.uint32(table[GROUP_SIZE]) + np.uint32(table[record + PACKED_FROM]) * padded_rows + first_row
        )
        tap_at = np.uint32(table[record + TAPS])
        count = np.uint32(table[record + STEPS])
        place_row, place_column = place(thread)
        for i in range(sums_size):
            sums[i] = zero
        for i in range(held_right):
            next_right[i] = zero
        for i in range(held_left):
            next_left[i] = zero
        channel, cell, padding = np.uint32(0), np.uint32(0), zero
        covered = False
        buffer = np.uint32(0)
        for step_number in range(count + np.uint32(1)):
            if step_number < count:
                for i in range(left_loads):
                    quad_at = np.uint32(thread + np.uint32(i * threads))
                    row = np.uint32(quad_at % np.uint32(rows // 4) * np.uint32(4))
                    depth = np.uint32(quad_at // np.uint32(rows // 4))
                    if depth < np.uint32(DEPTH) and np.uint32(first_row + row) < padded_rows:
                        quad = load4(packed, np.uint32(packed_at + depth * padded_rows + row), 0)
                        for j in range(4):
                            next_left[4 * i + j] = quad[j]
                packed_at = np.uint32(packed_at + np.uint32(DEPTH) * padded_rows)
                if flat:
                    for i in range(right_loads):
                        depth = np.uint32(own_depth + np.uint32(i * apart))
                        entry = load4(table, np.uint32(tap_at + np.uint32(4) * depth), 0)
                        value = zero
                        if entry[0] >= 0:
                            at = cell_at(table, line_d, line_h, line_w, entry, step_d, step_h, step_w)
                            if at >= 0:
                                value = scalar(read(source, start + np.uint64(at)))
                            elif at == CONSTANT_CODE:
                                value = fill
                        next_right[i] = value
                    tap_at = np.uint32(tap_at + np.uint32(4 * DEPTH))
                else:
                    if channel == np.uint32(0):
                        entry = load4(table, tap_at, 0)
                        d = table[np.uint32(line_d + np.uint32(entry[1]))]
                        h = table[np.uint32(line_h + np.uint32(entry[2]))]
                        w = table[np.uint32(line_w + np.uint32(entry[3]))]
                        covered = (d | h | w) >= 0
                        code = w if w < 0 else (h if h < 0 else d)
                        padding = fill if code == CONSTANT_CODE else zero
                        if covered:
                            cell = np.uint32(np.uint32(d) * step_d + np.uint32(h) * step_h + np.uint32(w) * step_w)
                        tap_at = np.uint32(tap_at + np.uint32(4))
                    if quads:
                        for i in range(right_loads):
                            at = np.uint32(channel + np.uint32(4) * np.uint32(own_depth + np.uint32(i * apart)))
                            if at < channels and covered:
                                quad = load4(source, start + np.uint64(np.uint32(cell + at)), 0)
                                for j in range(4):
                                    next_right[4 * i + j] = scalar(read(quad, j))
                            else:
                                for j in range(4):
                                    next_right[4 * i + j] = padding if at < channels else zero
                    else:
                        for i in range(right_loads):
                            at = np.uint32(channel + np.uint32(own_depth + np.uint32(i * apart)))
                            value = padding if at < channels else zero
                            if at < channels and covered:
                                value = scalar(read(source, start + np.uint64(np.uint32(cell + at * channel_step))))
                            next_right[i] = value
                    channel = np.uint32(channel + np.uint32(DEPTH))
                    if channel >= channels:
                        channel = np.uint32(0)
            if step_number > 0:
                from_buffer = np.uint32(np.uint32(buffer_size) - buffer)
                steps(
                    shared, np.uint32(from_buffer + place_row), np.uint32(from_buffer + place_column), sums, left, right
                )
            if step_number < count:
                for i in range(left_loads):
                    quad_at = np.uint32(thread + np.uint32(i * threads))
                    if quad_at < np.uint32(left_quads):
                        store4(
                            shared,
                            np.uint32(buffer + np.uint32(4) * quad_at),
                            next_left[4 * i],
                            next_left[4 * i + 1],
                            next_left[4 * i + 2],
                            next_left[4 * i + 3],
                        )
                for i in range(right_loads):
                    depth = np.uint32(own_depth + np.uint32(i * apart))
                    to = np.uint32(buffer + np.uint32(left_size) + own)
                    if quads:
                        for j in range(4):
                            depth_at = np.uint32(np.uint32(4) * depth + np.uint32(j))
                            shared[np.uint32(to + depth_at * np.uint32(columns))] = next_right[4 * i + j]
                    else:
                        shared[np.uint32(to + depth * np.uint32(columns))] = next_right[i]
                buffer = np.uint32(np.uint32(buffer_size) - buffer)
            cuda.syncthreads()

        row = np.uint32(first_row + place_row)
        channel = np.uint32(group * group_rows + row)
        row_step, left_over = np.int64(table[TARGET]), np.int64(group_rows) - np.int64(row)
        deliver(out, extras, table[VECTOR] != 0, sums, offsets, place_column, channel, row, left_over, row_step)

    # Threads that gather for a whole column beside 64 sums have more to hold than 128 registers.
    return kernel_function(gather, tile, np.dtype(compute).itemsize, apart == 1 and sums_size == 64)


@newest
def store_of(out_dtype: str, finish: Any) -> Any:
    """A device function: four sums, finished, to their places, of which the first is one and negative ones are none.

    Where ``vector`` says so they are neighbours, and one access. Their channels are ``channel_step`` apart.
    """
    write, held = writer(out_dtype), np.uint16 if out_dtype == BFLOAT16 else number(out_dtype)

    @inlined
    def store(out, extras, vector, channel, channel_step, at0, at1, at2, at3, v0, v1, v2, v3):
        v0 = finish(v0, channel, np.uint64(at0), extras)
        channel = np.uint32(channel + channel_step)
        if at1 >= 0:
            v1 = finish(v1, channel, np.uint64(at1), extras)
        channel = np.uint32(channel + channel_step)
        if at2 >= 0:
            v2 = finish(v2, channel, np.uint64(at2), extras)
        channel = np.uint32(channel + channel_step)
        if at3 >= 0:
            v3 = finish(v3, channel, np.uint64(at3), extras)
        if vector:
            quad = cuda.local.array(4, held)
            write(quad, 0, v0)
            write(quad, 1, v1)
            write(quad, 2, v2)
            write(quad, 3, v3)
            store4(out, np.uint64(at0), quad[0], quad[1], quad[2], quad[3])
        else:
            write(out, np.uint64(at0), v0)
            if at1 >= 0:
                write(out, np.uint64(at1), v1)
            if at2 >= 0:
                write(out, np.uint64(at2), v2)
            if at3 >= 0:
                write(out, np.uint64(at3), v3)

    return store


@newest
def _deliver_of(tile: Tile, out_dtype: str, last: bool, finish: Any) -> Any:
    """A device function: a thread's sums, finished, to their places, in quads along the neighbours of the result.

    The sums of a thread are its rows one after another. ``offsets`` say where the tile's columns begin in the result,
    negative ones that there is none; ``row``, ``channel`` and ``left_over`` belong to the thread's first row.
    """
    store = store_of(out_dtype, finish)
    rows, columns = tile.thread_rows, tile.thread_columns
    down, across = tile.rows // (rows // 4), tile.columns // (columns // 4)
    two, eight = (rows == 8, columns == 8) if last else (columns == 8, rows == 8)

    if last:

        @inlined
        def one(j, i, out, extras, vector, sums, offsets, place, channel, row, left_over, step):
            at = offsets[np.uint32(place + np.uint32(j // 4 * across + j % 4))]
            further, left = i * down, left_over - i * down
            if at >= 0 and left > 0:
                at += (np.int64(row) + further) * step
                at1 = at + step if left > 1 else np.int64(-1)
                at2 = at + 2 * step if left > 2 else np.int64(-1)
                at3 = at + 3 * step if left > 3 else np.int64(-1)
                v0, v1 = sums[4 * i * columns + j], sums[(4 * i + 1) * columns + j]
                v2, v3 = sums[(4 * i + 2) * columns + j], sums[(4 * i + 3) * columns + j]
                channel = np.uint32(channel + np.uint32(further))
                store(out, extras, vector, channel, np.uint32(1), at, at1, at2, at3, v0, v1, v2, v3)

    else:

        @inlined
        def one(i, j, out, extras, vector, sums, offsets, place, channel, row, left_over, step):
            column = np.uint32(place + np.uint32(j * across))
            at = offsets[column]
            further = i // 4 * down + i % 4
            if at >= 0 and left_over > further:
                up = (np.int64(row) + further) * step
                at1, at2 = offsets[np.uint32(column + np.uint32(1))], offsets[np.uint32(column + np.uint32(2))]
                at3 = offsets[np.uint32(column + np.uint32(3))]
                at1 = at1 + up if at1 >= 0 else at1
                at2 = at2 + up if at2 >= 0 else at2
                at3 = at3 + up if at3 >= 0 else at3
                v0, v1 = sums[i * columns + 4 * j], sums[i * columns + 4 * j + 1]
                v2, v3 = sums[i * columns + 4 * j + 2], sums[i * columns + 4 * j + 3]
                channel = np.uint32(channel + np.uint32(further))
                store(out, extras, vector, channel, np.uint32(0), at + up, at1, at2, at3, v0, v1, v2, v3)

    @inlined
    def line(i, out, extras, vector, sums, offsets, place, channel, row, left_over, step):
        one(i, 0, out, extras, vector, sums, offsets, place, channel, row, left_over, step)
        if two:
            one(i, 1, out, extras, vector, sums, offsets, place, channel, row, left_over, step)

    @inlined
    def deliver(out, extras, vector, sums, offsets, place, channel, row, left_over, step):
        # With a long epilogue a loop would not be unrolled, and the sums would be in memory to be indexed.
        line(0, out, extras, vector, sums, offsets, place, channel, row, left_over, step)
        line(1, out, extras, vector, sums, offsets, place, channel, row, left_over, step)
        line(2, out, extras, vector, sums, offsets, place, channel, row, left_over, step)
        line(3, out, extras, vector, sums, offsets, place, channel, row, left_over, step)
        if eight:
            line(4, out, extras, vector, sums, offsets, place, channel, row, left_over, step)
            line(5, out, extras, vector, sums, offsets, place, channel, row, left_over, step)
            line(6, out, extras, vector, sums, offsets, place, channel, row, left_over, step)
            line(7, out, extras, vector, sums, offsets, place, channel, row, left_over, step)

    return deliver


@cache
def pack_kernel(dtype: str, compute: str) -> Any:
    """The kernel that packs a weight: ``packed[group, depth, row]``, rows padded to quads. A thread an element.

    ``places[depth // unit]`` is where a tap's weights begin, or negative; channels of a unit follow. ``table``:
    elements, depths, unit, channels, rows, padded rows; elements from row to row, channel to channel, group to group.
    """
    read, scalar = reader(dtype), number(compute)

    @kernel
    def pack(w, packed, places, table):
        at = np.int64(cuda.blockIdx.x) * np.int64(cuda.blockDim.x) + np.int64(cuda.threadIdx.x)
        if at < table[0]:
            row, rest = at % table[5], at // table[5]
            depth, group = rest % table[1], rest // table[1]
            channel, place = depth % table[2], np.int64(places[depth // table[2]])
            value = scalar(0)
            if row < table[4] and channel < table[3] and place >= 0:
                from_w = place + group * table[8] + row * table[6] + channel * table[7]
                value = scalar(read(w, np.uint64(from_w)))
            packed[at] = value

    return pack
