"""WEIGHT_GRAD as a product of output gradients and gathered patches, split over positions, and the sum of the parts.

A row is a result channel of the forward convolution, a column one of its weights, the depth runs over positions::

                              columns: channels, and for each its taps (channels last: taps, and for each its channels)
               positions      +-------------+
               of a chunk     |  patches    |
          +-----------------+ +-------------+
     rows | output gradient | |  sums       |  sums[chunk, group, row, column], added by a second kernel
          +-----------------+ +-------------+

Positions of all samples are in one line, which is cut into chunks by the plan alone; a chunk's products are added in
ascending order by fused multiply-adds, chunks as a tree of a fixed shape. So results have the same bits in each run.
There are no atomics.

Both operands have their depth in memory where the product needs it across, so tiles are transposed on the way into
shared memory. Two ways to gather:

``each``   eight consecutive threads read eight consecutive positions of one row or column: whole sectors where
           positions are neighbours. Rows of the tiles are four elements longer, so that stores go to different banks.
``quads``  channels last: a thread reads four channels in one access, for which nothing has to be transposed.

Where a step's eight positions lie in both operands, eight threads find for all, a step ahead, through shared memory;
they divide by multiplying with inverses, which is exact below 2**31.

Tried (machine code for sm_80 and sm_90, 128x128 tile): every thread for itself looks up 42 integers a step and spills
144 bytes; eight for all, with a chunk's bases in registers, 128 bytes; with these in shared memory and what is the same
for all threads an argument, nothing, but with half types 192 bytes; so one block on a multiprocessor has to do, whose
threads may have 255 registers. 64x128 tiles of 8x8 sums a thread spill 156 bytes: see `tiles.WEIGHT_TILES`.

Error factor: as any sum of n products in some order (``any_order_factor``).
"""

from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from .division import divided
from .elements import number, reader, writer
from .gather import CONSTANT_CODE, ZERO_CODE
from .intrinsics import inlined, load4, shared_tile, store4
from .jit import kernel
from .lookups import cell_at
from .products import kernel_function, place_of, steps_of
from .tiles import DEPTH, Tile

__all__ = ["EACH", "ENTRIES", "FIRST_SPOT", "HEAD", "QUADS", "SPOTS", "find", "sum_kernel", "weight_kernel"]

EACH, QUADS = "each", "quads"

#: Places in the table. ``LENGTH``: positions of a chunk. ``INVERSES``: of the positions of a sample and of the extents
#: of width and height, each with its shift. ``Y``: elements of the gradient from cell to cell along each axis.
#: ``X_GROUP``, ``Y_GROUP``: elements from group to group. ``ENTRIES``: where columns begin.
ROW_BLOCKS, COLUMN_BLOCKS, GROUPS, POSITIONS, LENGTH, ENTRIES, BATCH = range(7)
INVERSES, EXTENTS, Y, X_GROUP, Y_GROUP, LINES, STEP = 7, 13, 15, 18, 19, 20, 23
HEAD = 26
#: Where a chunk's first sample begins in both operands, before the positions of two steps.
FIRST_SPOT, SPOTS = 0, 2


@inlined
def find(table, spots, lines, slot, position, x_batch, y_batch):
    """Where a chunk's position begins in both operands and along the lines, for all threads of the block to read."""
    sample = divided(position, np.uint32(table[INVERSES]), table[INVERSES + 1])
    position = np.uint32(position - sample * np.uint32(table[POSITIONS]))
    above = divided(position, np.uint32(table[INVERSES + 2]), table[INVERSES + 3])
    ow = np.uint32(position - above * np.uint32(table[EXTENTS]))
    od = divided(above, np.uint32(table[INVERSES + 4]), table[INVERSES + 5])
    oh = np.uint32(above - od * np.uint32(table[EXTENTS + 1]))
    inside = np.uint32(od * np.uint32(table[Y]) + oh * np.uint32(table[Y + 1]) + ow * np.uint32(table[Y + 2]))
    at = np.uint32(np.uint32(2) * slot + np.uint32(SPOTS))
    spots[at] = spots[FIRST_SPOT] + np.uint64(sample) * np.uint64(x_batch)
    spots[np.uint32(at + np.uint32(1))] = (
        spots[FIRST_SPOT + 1] + np.uint64(sample) * np.uint64(y_batch) + np.uint64(inside)
    )
    at = np.uint32(np.uint32(3) * slot)
    lines[at] = np.uint32(table[LINES]) + od * np.uint32(table[STEP])
    lines[np.uint32(at + np.uint32(1))] = np.uint32(table[LINES + 1]) + oh * np.uint32(table[STEP + 1])
    lines[np.uint32(at + np.uint32(2))] = np.uint32(table[LINES + 2]) + ow * np.uint32(table[STEP + 2])


@cache
def weight_kernel(tile: Tile, x_dtype: str, y_dtype: str, how: str, compute: str) -> Any:
    """The kernel for one tile, dtypes of the operands, and way to gather.

    Its arguments: input, output gradient, sums, table, elements from one sample to the next of input and gradient,
    what constant padding holds; rows and columns of a group, elements of the gradient from row to row, and of the input
    from cell to cell along each axis. An argument takes no register, where an integer from the table takes one. It runs
    on blocks of ``tile.threads`` threads.
    """
    scalar = number(compute)
    read_x, read_y = reader(x_dtype), reader(y_dtype)
    quads = how == QUADS
    rows, columns, threads = tile.rows, tile.columns, tile.threads
    thread_rows, thread_columns = tile.thread_rows, tile.thread_columns
    left_stride, right_stride = rows + 4, columns + 4
    left_size = DEPTH * left_stride
    buffer_size = left_size + DEPTH * right_stride
    # Elements that a thread loads of each tile a step, and how many lie side by side in one access.
    wide = 4 if quads else 1
    left_loads, right_loads = -(-DEPTH * rows // threads // wide), -(-DEPTH * columns // threads // wide)
    held_left, held_right, sums_size = wide * left_loads, wide * right_loads, thread_rows * thread_columns
    left_across, right_across = rows // 4, columns // 4
    side = threads // DEPTH
    down, across = rows // (thread_rows // 4), columns // (thread_columns // 4)
    column_quads = thread_columns // 4
    memory = shared_tile(2 * buffer_size, scalar)
    place, steps = place_of(tile), steps_of(tile, 0, left_stride, left_size, right_stride)
    zero = scalar(0)
    spots_size, lines_size = SPOTS + 2 * 2 * DEPTH, 2 * 3 * DEPTH

    def weight(
        x, y, sums_out, table, x_batch, y_batch, fill, of_rows, of_columns, of_row_step, of_step_d, of_step_h, of_step_w
    ):
        shared = memory()
        spots = cuda.shared.array(spots_size, np.uint64)
        lines = cuda.shared.array(lines_size, np.uint32)
        sums = cuda.local.array(sums_size, scalar)
        left = cuda.local.array(thread_rows, scalar)
        right = cuda.local.array(thread_columns, scalar)
        next_left = cuda.local.array(held_left, scalar)
        next_right = cuda.local.array(held_right, scalar)
        thread, block = np.uint32(cuda.threadIdx.x), np.uint32(cuda.blockIdx.x)
        first_row = np.uint32(block % np.uint32(table[ROW_BLOCKS]) * np.uint32(rows))
        block = np.uint32(block // np.uint32(table[ROW_BLOCKS]))
        first_column = np.uint32(block % np.uint32(table[COLUMN_BLOCKS]) * np.uint32(columns))
        block = np.uint32(block // np.uint32(table[COLUMN_BLOCKS]))
        group, chunk = np.uint32(block % np.uint32(table[GROUPS])), np.uint32(block // np.uint32(table[GROUPS]))
        all_rows, all_columns = np.uint32(of_rows), np.uint32(of_columns)
        positions = np.uint32(table[POSITIONS])
        begin = np.uint64(chunk) * np.uint64(table[LENGTH])
        cells = np.uint64(positions) * np.uint64(table[BATCH])  # of all samples
        length = np.uint32(min(np.uint64(table[LENGTH]), cells - begin))
        first_sample = np.uint64(begin // np.uint64(positions))
        first_position = np.uint32(begin - first_sample * np.uint64(positions))
        from_x = np.uint64(np.uint32(group * np.uint32(table[X_GROUP])))
        from_y = np.uint64(np.uint32(group * np.uint32(table[Y_GROUP])))
        row_step = np.uint32(of_row_step)
        step_d, step_h, step_w = np.uint32(of_step_d), np.uint32(of_step_h), np.uint32(of_step_w)
        place_row, place_column = place(thread)
        for i in range(sums_size):
            sums[i] = zero
        for i in range(held_left):
            next_left[i] = zero
        for i in range(held_right):
            next_right[i] = zero
        buffer, at_depth = np.uint32(0), np.uint32(0)
        count = np.uint32((length + np.uint32(DEPTH - 1)) // np.uint32(DEPTH))
        if thread == np.uint32(0):
            spots[FIRST_SPOT] = from_x + first_sample * np.uint64(x_batch)
            spots[FIRST_SPOT + 1] = from_y + first_sample * np.uint64(y_batch)
        cuda.syncthreads()
        if thread < np.uint32(DEPTH) and thread < length:
            find(table, spots, lines, thread, np.uint32(first_position + thread), x_batch, y_batch)
        cuda.syncthreads()
        entries_at = np.uint32(np.uint32(table[ENTRIES]) + np.uint32(4) * first_column)
        slot = np.uint32(0)
        for step_number in range(count + np.uint32(1)):
            if step_number < count:
                if quads:
                    for i in range(left_loads):
                        turn = np.uint32(thread + np.uint32(i * threads))
                        depth = np.uint32(turn // np.uint32(left_across))
                        row = np.uint32(first_row + np.uint32(4) * np.uint32(turn % np.uint32(left_across)))
                        if depth < np.uint32(DEPTH) and np.uint32(at_depth + depth) < length and row < all_rows:
                            at = spots[np.uint32(np.uint32(2) * np.uint32(slot + depth) + np.uint32(SPOTS + 1))]
                            quad = load4(y, at + np.uint64(row), 0)
                            for j in range(4):
                                next_left[4 * i + j] = scalar(read_y(quad, j))
                        else:
                            for j in range(4):
                                next_left[4 * i + j] = zero
                    for i in range(right_loads):
                        turn = np.uint32(thread + np.uint32(i * threads))
                        depth = np.uint32(turn // np.uint32(right_across))
                        column = np.uint32(np.uint32(4) * np.uint32(turn % np.uint32(right_across)))
                        cell, value = np.int64(ZERO_CODE), zero
                        from_slot = np.uint32(slot + depth)
                        if (
                            depth < np.uint32(DEPTH)
                            and np.uint32(at_depth + depth) < length
                            and np.uint32(first_column + column) < all_columns
                        ):
                            entry = load4(table, np.uint32(entries_at + np.uint32(4) * column), 0)
                            cell = cell_at(
                                table,
                                lines[np.uint32(np.uint32(3) * from_slot)],
                                lines[np.uint32(np.uint32(3) * from_slot + np.uint32(1))],
                                lines[np.uint32(np.uint32(3) * from_slot + np.uint32(2))],
                                entry,
                                step_d,
                                step_h,
                                step_w,
                            )
                            value = fill if cell == CONSTANT_CODE else zero
                        if cell >= 0:
                            at = spots[np.uint32(np.uint32(2) * from_slot + np.uint32(SPOTS))]
                            quad = load4(x, at + np.uint64(cell), 0)
                            for j in range(4):
                                next_right[4 * i + j] = scalar(read_x(quad, j))
                        else:
                            for j in range(4):
                                next_right[4 * i + j] = value
                else:
                    depth, beside = np.uint32(thread % np.uint32(DEPTH)), np.uint32(thread // np.uint32(DEPTH))
                    there = np.uint32(at_depth + depth) < length
                    from_slot = np.uint32(slot + depth)
                    at = spots[np.uint32(np.uint32(2) * from_slot + np.uint32(SPOTS + 1))]
                    for i in range(left_loads):
                        row = np.uint32(first_row + beside + np.uint32(i * side))
                        value = zero
                        if there and row < all_rows:
                            value = scalar(read_y(y, at + np.uint64(np.uint32(row * row_step))))
                        next_left[i] = value
                    line_d = lines[np.uint32(np.uint32(3) * from_slot)]
                    line_h = lines[np.uint32(np.uint32(3) * from_slot + np.uint32(1))]
                    line_w = lines[np.uint32(np.uint32(3) * from_slot + np.uint32(2))]
                    at = spots[np.uint32(np.uint32(2) * from_slot + np.uint32(SPOTS))]
                    for i in range(right_loads):
                        column = np.uint32(beside + np.uint32(i * side))
                        value = zero
                        if there and np.uint32(first_column + column) < all_columns:
                            entry = load4(table, np.uint32(entries_at + np.uint32(4) * column), 0)
                            cell = cell_at(table, line_d, line_h, line_w, entry, step_d, step_h, step_w)
                            if cell >= 0:
                                value = scalar(read_x(x, at + np.uint64(cell)))
                            elif cell == CONSTANT_CODE:
                                value = fill
                        next_right[i] = value
                at_depth = np.uint32(at_depth + np.uint32(DEPTH))
                slot = np.uint32(np.uint32(DEPTH) - slot)
                if np.uint32(at_depth + thread) < length and thread < np.uint32(DEPTH):
                    position = np.uint32(first_position + np.uint32(at_depth + thread))
                    find(table, spots, lines, np.uint32(slot + thread), position, x_batch, y_batch)
            if step_number > 0:
                from_buffer = np.uint32(np.uint32(buffer_size) - buffer)
                steps(
                    shared,
                    np.uint32(from_buffer + place_row),
                    np.uint32(from_buffer + place_column),
                    sums,
                    left,
                    right,
                )
            if step_number < count:
                if quads:
                    for i in range(left_loads):
                        turn = np.uint32(thread + np.uint32(i * threads))
                        depth = np.uint32(turn // np.uint32(left_across))
                        if depth < np.uint32(DEPTH):
                            to = np.uint32(
                                buffer
                                + depth * np.uint32(left_stride)
                                + np.uint32(4) * np.uint32(turn % np.uint32(left_across))
                            )
                            store4(
                                shared,
                                to,
                                next_left[4 * i],
                                next_left[4 * i + 1],
                                next_left[4 * i + 2],
                                next_left[4 * i + 3],
                            )
                    for i in range(right_loads):
                        turn = np.uint32(thread + np.uint32(i * threads))
                        depth = np.uint32(turn // np.uint32(right_across))
                        if depth < np.uint32(DEPTH):
                            to = np.uint32(
                                buffer
                                + np.uint32(left_size)
                                + depth * np.uint32(right_stride)
                                + np.uint32(4) * np.uint32(turn % np.uint32(right_across))
                            )
                            store4(
                                shared,
                                to,
                                next_right[4 * i],
                                next_right[4 * i + 1],
                                next_right[4 * i + 2],
                                next_right[4 * i + 3],
                            )
                else:
                    depth, beside = np.uint32(thread % np.uint32(DEPTH)), np.uint32(thread // np.uint32(DEPTH))
                    to = np.uint32(buffer + depth * np.uint32(left_stride) + beside)
                    for i in range(left_loads):
                        shared[np.uint32(to + np.uint32(i * side))] = next_left[i]
                    to = np.uint32(buffer + np.uint32(left_size) + depth * np.uint32(right_stride) + beside)
                    for i in range(right_loads):
                        shared[np.uint32(to + np.uint32(i * side))] = next_right[i]
                buffer = np.uint32(np.uint32(buffer_size) - buffer)
            cuda.syncthreads()

        part = np.uint64(np.uint64(chunk) * np.uint64(table[GROUPS]) + np.uint64(group)) * np.uint64(all_rows)
        aligned = all_columns % np.uint32(4) == np.uint32(0)
        for i in range(thread_rows):
            row = np.uint32(first_row + place_row + np.uint32(i // 4 * down + i % 4))
            if row < all_rows:
                to_row = (part + np.uint64(row)) * np.uint64(all_columns)
                for j in range(column_quads):
                    column = np.uint32(first_column + place_column + np.uint32(j * across))
                    if aligned:
                        if column < all_columns:
                            store4(
                                sums_out,
                                to_row + np.uint64(column),
                                sums[i * thread_columns + 4 * j],
                                sums[i * thread_columns + 4 * j + 1],
                                sums[i * thread_columns + 4 * j + 2],
                                sums[i * thread_columns + 4 * j + 3],
                            )
                    else:
                        for k in range(4):
                            if np.uint32(column + np.uint32(k)) < all_columns:
                                sums_out[to_row + np.uint64(np.uint32(column + np.uint32(k)))] = sums[
                                    i * thread_columns + 4 * j + k
                                ]

    # With half types the 128 registers of two blocks would not do.
    fewer = how == EACH and sums_size == 64
    return kernel_function(weight, tile, np.dtype(compute).itemsize, fewer)


@cache
def sum_kernel(dtype: str, compute: str) -> Any:
    """The kernel that adds chunks: eight sums of every eighth chunk, then these as a tree. A thread a weight.

    ``table``: weights, chunks, columns, taps; whether taps are outside channels; elements of the result from row to row
    and from channel to channel; taps of a plane and elements from plane to plane; taps of a line and elements from line
    to line and from tap to tap.
    """
    scalar, write = number(compute), writer(dtype)

    @kernel
    def sum_chunks(sums, w, table):
        at = np.int64(cuda.blockIdx.x) * np.int64(cuda.blockDim.x) + np.int64(cuda.threadIdx.x)
        weights, chunks = table[0], table[1]
        if at < weights:
            found = cuda.local.array(8, scalar)
            for i in range(8):
                found[i] = scalar(0)
            for first in range(0, chunks, 8):
                for i in range(8):
                    if first + i < chunks:
                        found[i] += sums[np.uint64((first + i) * weights + at)]
            total = ((found[0] + found[1]) + (found[2] + found[3])) + ((found[4] + found[5]) + (found[6] + found[7]))
            row, column = at // table[2], at % table[2]
            if table[4]:
                channels = table[2] // table[3]
                tap, channel = column // channels, column % channels
            else:
                channel, tap = column // table[3], column % table[3]
            to = row * table[5] + channel * table[6]
            to += tap // table[7] * table[8]
            tap = tap % table[7]
            to += tap // table[9] * table[10] + tap % table[9] * table[11]
            write(w, np.uint64(to), scalar(total))

    return sum_chunks
