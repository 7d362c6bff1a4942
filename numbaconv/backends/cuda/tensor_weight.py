"""WEIGHT_GRAD on tensor cores: a product of output gradients and gathered patches, split over positions.

The problem, its chunks and tables are those of `weight_gemm`, whose second kernel adds the chunks; tiles are stored as
`tensor_tiles` shows, both operands with their positions side by side, and multiplied by `fragments`::

                              columns: channels, and for each its taps (channels last: taps, and for each its channels)
               positions      +-------------+
               of a chunk     |  patches    |  16 words of positions for each column, a step at a time
          +-----------+       +-------------+
     rows | output gradient | |  sums       |  sums[chunk, group, row, column]
          +-----------------+ +-------------+

Which thread brings what depends on what is side by side in memory:

``first``  positions: consecutive lanes take consecutive positions of a row or column.
``last``   channels: consecutive lanes take eight rows or columns; the tile is transposed on the way.

float32 goes by copies of 4 bytes, with zeros where there is nothing; halves through registers, eight positions to a
store. Threads, as many as a step has positions, find these for all, a step ahead.

Error factors: see `tensor_core`. Not tried: halves of channels last by copies of 16 bytes, which ``ldmatrix`` could
transpose.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from .fragments import finish_sums, multiply_of, piece_at, place_of_lane
from .gather import CONSTANT_CODE, ZERO_CODE
from .intrinsics import commit_copies, copy4, inlined, load4, load_half, shared_tile, store2, store4, wait_copies
from .lookups import cell_at
from .products import bounded_kernel
from .tensor_tiles import CHUNKS, WORDS, Kind, TensorTile, stages_of
from .weight_gemm import (
    BATCH,
    COLUMN_BLOCKS,
    ENTRIES,
    FIRST_SPOT,
    GROUPS,
    LENGTH,
    POSITIONS,
    ROW_BLOCKS,
    SPOTS,
    X_GROUP,
    Y_GROUP,
    find,
)

__all__ = ["FIRST", "LAST", "tensor_weight_kernel"]

FIRST, LAST = "first", "last"


@cache
def tensor_weight_kernel(tile: TensorTile, kind: Kind, how: str, filled: bool) -> Any:
    """The kernel for one tile and kind of numbers, and way to gather.

    ``filled``: padding may hold something else than zeros.
    Its arguments are those of `weight_gemm.weight_kernel`, with what constant padding holds as a word.
    """
    rows, columns, threads = tile.rows, tile.columns, tile.threads
    halves, depth, last = kind.per_word == 2, kind.depth, how == LAST
    left_words = WORDS * rows
    stage_words = left_words + WORDS * columns
    spots_size, lines_size = SPOTS + 2 * 2 * depth, 2 * 3 * depth
    stages = stages_of(rows + columns, 2 * spots_size + lines_size)
    # float32: turns in which a thread has one position; rows that lie between those of a thread. Halves: pieces.
    warps = threads // 32
    side_by_side = min(warps, CHUNKS)
    turns = CHUNKS // side_by_side if last else 1
    apart = 8 * (warps // side_by_side) if last else threads // WORDS
    left_loads, right_loads = rows // apart, columns // apart
    apart_halves = threads // CHUNKS
    left_pieces, right_pieces = rows // apart_halves, columns // apart_halves
    assert left_pieces in (1, 2, 4), "pieces are gathered one by one below"
    assert right_pieces in (1, 2), "pieces are gathered one by one below"
    held_size = 4 * (left_pieces + right_pieces) if halves else 1
    sums_size = tile.thread_rows * tile.thread_columns
    cross_size = sums_size if kind.parts == 2 else 1
    column_products, row_products = tile.warp_columns // 8, tile.warp_rows // 16
    memory, wait = shared_tile(stages * stage_words, np.uint32), wait_copies(stages - 2)
    place, multiply, finish_all = place_of_lane(tile), multiply_of(tile, kind, False), finish_sums(sums_size, kind)
    none = np.uint32(0)

    @inlined
    def spot(spots, slot, e, which):
        """Where position ``e`` of a step begins in the input (0) or in the gradient (1)."""
        return spots[np.uint32(np.uint32(2) * np.uint32(slot + e) + np.uint32(SPOTS + which))]

    @inlined
    def cell_of(table, lines, slot, e, entry, steps):
        """Where a column reads at position ``e`` of a step."""
        at = np.uint32(np.uint32(3) * np.uint32(slot + e))
        return cell_at(
            table,
            lines[at],
            lines[np.uint32(at + np.uint32(1))],
            lines[np.uint32(at + np.uint32(2))],
            entry,
            steps[0],
            steps[1],
            steps[2],
        )

    @inlined
    def left_half(e, y, spots, slot, there, offset):
        found = none
        if there > e:
            found = load_half(y, spot(spots, slot, e, 1) + np.uint64(offset))
        return found

    @inlined
    def right_half(e, x, table, spots, lines, slot, there, entry, steps, fill):
        found = none
        if there > e:
            cell = cell_of(table, lines, slot, e, entry, steps)
            if cell >= 0:
                found = load_half(x, spot(spots, slot, e, 0) + np.uint64(cell))
            elif filled and cell == CONSTANT_CODE:
                found = fill
        return found

    @inlined
    def left_word(i, j, held, y, spots, slot, there, offset, e):
        """Two positions of a row; ``there``: how many of the step there are, none for a row that is not there."""
        e = np.uint32(e + np.uint32(2 * j))
        low = left_half(e, y, spots, slot, there, offset)
        high = left_half(np.uint32(e + np.uint32(1)), y, spots, slot, there, offset)
        held[4 * i + j] = np.uint32(low | np.uint32(high << np.uint32(16)))

    @inlined
    def left_piece(i, held, y, spots, slot, there, first_row, all_rows, row_step, beside, e):
        row = np.uint32(first_row + beside + np.uint32(i * apart_halves))
        if row >= all_rows:
            there = np.uint32(0)
        offset = np.uint32(row * row_step)
        left_word(i, 0, held, y, spots, slot, there, offset, e)
        left_word(i, 1, held, y, spots, slot, there, offset, e)
        left_word(i, 2, held, y, spots, slot, there, offset, e)
        left_word(i, 3, held, y, spots, slot, there, offset, e)

    @inlined
    def right_word(i, j, held, x, table, spots, lines, slot, there, entry, steps, fill, e):
        e = np.uint32(e + np.uint32(2 * j))
        low = right_half(e, x, table, spots, lines, slot, there, entry, steps, fill)
        high = right_half(np.uint32(e + np.uint32(1)), x, table, spots, lines, slot, there, entry, steps, fill)
        held[4 * (left_pieces + i) + j] = np.uint32(low | np.uint32(high << np.uint32(16)))

    @inlined
    def right_piece(i, held, x, table, spots, lines, slot, there, entries_at, left_over, steps, fill, beside, e):
        column = np.uint32(beside + np.uint32(i * apart_halves))
        if column >= left_over:
            there = np.uint32(0)
            column = np.uint32(0)
        entry = load4(table, np.uint32(entries_at + np.uint32(4) * column), 0)
        right_word(i, 0, held, x, table, spots, lines, slot, there, entry, steps, fill, e)
        right_word(i, 1, held, x, table, spots, lines, slot, there, entry, steps, fill, e)
        right_word(i, 2, held, x, table, spots, lines, slot, there, entry, steps, fill, e)
        right_word(i, 3, held, x, table, spots, lines, slot, there, entry, steps, fill, e)

    @inlined
    def store_line(i, h, sums, sums_out, part, row, all_rows, column, all_columns):
        """A row of a thread's sums."""
        row = np.uint32(row + np.uint32(16 * i + 8 * h))
        if row < all_rows:
            to_row = (part + np.uint64(row)) * np.uint64(all_columns)
            for j in range(column_products):
                at = np.uint32(column + np.uint32(8 * j))
                a = 4 * (i * column_products + j) + 2 * h
                if all_columns % np.uint32(2) == np.uint32(0):
                    if at < all_columns:
                        store2(sums_out, to_row + np.uint64(at), sums[a], sums[a + 1])
                else:
                    if at < all_columns:
                        sums_out[to_row + np.uint64(at)] = sums[a]
                    if np.uint32(at + np.uint32(1)) < all_columns:
                        sums_out[to_row + np.uint64(np.uint32(at + np.uint32(1)))] = sums[a + 1]

    def weight(
        x, y, sums_out, table, x_batch, y_batch, fill, of_rows, of_columns, of_row_step, of_step_d, of_step_h, of_step_w
    ):
        words = memory()
        spots = cuda.shared.array(spots_size, np.uint64)
        lines = cuda.shared.array(lines_size, np.uint32)
        sums = cuda.local.array(sums_size, np.float32)
        cross = cuda.local.array(cross_size, np.float32)
        held = cuda.local.array(held_size, np.uint32)
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
        row_step = np.uint32(of_row_step)
        steps = np.uint32(of_step_d), np.uint32(of_step_h), np.uint32(of_step_w)
        place_row, place_column, left_place, right_place = place(thread)
        right_place = np.uint32(right_place + np.uint32(left_words))
        lane, warp = np.uint32(thread % np.uint32(32)), np.uint32(thread // np.uint32(32))
        if halves:
            if last:
                beside = np.uint32(np.uint32(8) * warp + lane % np.uint32(8))
                own_piece = np.uint32(lane // np.uint32(8))
            else:
                beside, own_piece = np.uint32(thread // np.uint32(CHUNKS)), np.uint32(thread % np.uint32(CHUNKS))
        elif last:
            beside = np.uint32(np.uint32(8) * np.uint32(warp // np.uint32(side_by_side)) + lane % np.uint32(8))
            own_piece = np.uint32(warp % np.uint32(side_by_side))
        else:
            beside = np.uint32(thread // np.uint32(WORDS))
            own_piece = np.uint32(thread % np.uint32(WORDS) // np.uint32(4))
        word = np.uint32(lane // np.uint32(8)) if last else np.uint32(thread % np.uint32(4))
        for i in range(sums_size):
            sums[i] = np.float32(0)
        for i in range(cross_size):
            cross[i] = np.float32(0)
        count = np.uint32((length + np.uint32(depth - 1)) // np.uint32(depth))
        if thread == np.uint32(0):
            from_x = np.uint64(np.uint32(group * np.uint32(table[X_GROUP])))
            from_y = np.uint64(np.uint32(group * np.uint32(table[Y_GROUP])))
            spots[FIRST_SPOT] = from_x + first_sample * np.uint64(x_batch)
            spots[FIRST_SPOT + 1] = from_y + first_sample * np.uint64(y_batch)
        cuda.syncthreads()
        if thread < np.uint32(depth) and thread < length:
            find(table, spots, lines, thread, np.uint32(first_position + thread), x_batch, y_batch)
        entries_at = np.uint32(np.uint32(table[ENTRIES]) + np.uint32(4) * first_column)
        columns_left = np.uint32(all_columns - first_column)
        at_depth, slot = np.uint32(0), np.uint32(0)
        to, from_words = np.uint32(0), np.uint32(0)
        for number_of_step in range(count + np.uint32(stages - 1)):
            wait()
            cuda.syncthreads()
            there_is_more = number_of_step < count
            if there_is_more:
                there = np.uint32(length - at_depth)  # positions of this step, or more
                if halves:
                    e = np.uint32(np.uint32(8) * own_piece)
                    left_piece(0, held, y, spots, slot, there, first_row, all_rows, row_step, beside, e)
                    if left_pieces > 1:
                        left_piece(1, held, y, spots, slot, there, first_row, all_rows, row_step, beside, e)
                    if left_pieces > 2:
                        left_piece(2, held, y, spots, slot, there, first_row, all_rows, row_step, beside, e)
                        left_piece(3, held, y, spots, slot, there, first_row, all_rows, row_step, beside, e)
                    right_piece(
                        0, held, x, table, spots, lines, slot, there, entries_at, columns_left, steps, fill, beside, e
                    )
                    if right_pieces > 1:
                        right_piece(
                            1,
                            held,
                            x,
                            table,
                            spots,
                            lines,
                            slot,
                            there,
                            entries_at,
                            columns_left,
                            steps,
                            fill,
                            beside,
                            e,
                        )
                else:
                    for turn in range(turns):
                        chunk_at = np.uint32(own_piece + np.uint32(turn * side_by_side))
                        e = np.uint32(np.uint32(4) * chunk_at + word)
                        has = there > e
                        at = spot(spots, slot, e, 1)
                        for i in range(left_loads):
                            row = np.uint32(beside + np.uint32(i * apart))
                            at_word = np.uint32(to + piece_at(row, chunk_at) + word)
                            row = np.uint32(first_row + row)
                            copy4(
                                words,
                                at_word,
                                y,
                                at + np.uint64(np.uint32(row * row_step)),
                                np.int32(1 if has and row < all_rows else 0),
                            )
                        at = spot(spots, slot, e, 0)
                        for i in range(right_loads):
                            column = np.uint32(beside + np.uint32(i * apart))
                            at_word = np.uint32(to + np.uint32(left_words) + piece_at(column, chunk_at) + word)
                            cell = np.int64(ZERO_CODE)
                            constant = False
                            if has and column < columns_left:
                                entry = load4(table, np.uint32(entries_at + np.uint32(4) * column), 0)
                                cell = cell_of(table, lines, slot, e, entry, steps)
                                constant = filled and cell == CONSTANT_CODE
                            if filled and constant:
                                words[at_word] = fill
                            else:
                                copy4(
                                    words,
                                    at_word,
                                    x,
                                    at + np.uint64(max(cell, np.int64(0))),
                                    np.int32(1 if cell >= 0 else 0),
                                )
                at_depth = np.uint32(at_depth + np.uint32(depth))
                slot = np.uint32(np.uint32(depth) - slot)
                if np.uint32(at_depth + thread) < length and thread < np.uint32(depth):
                    position = np.uint32(first_position + np.uint32(at_depth + thread))
                    find(table, spots, lines, np.uint32(slot + thread), position, x_batch, y_batch)
            commit_copies()
            if number_of_step >= stages - 1:
                left = np.uint32(from_words + left_place)
                multiply(words, left, np.uint32(from_words + right_place), sums, cross)
                from_words = np.uint32(from_words + np.uint32(stage_words))
                if from_words == np.uint32(stages * stage_words):
                    from_words = np.uint32(0)
            if there_is_more:
                if halves:
                    for i in range(left_pieces):
                        row = np.uint32(beside + np.uint32(i * apart_halves))
                        at = np.uint32(to + piece_at(row, own_piece))
                        store4(words, at, held[4 * i], held[4 * i + 1], held[4 * i + 2], held[4 * i + 3])
                    for i in range(right_pieces):
                        column = np.uint32(beside + np.uint32(i * apart_halves))
                        at = np.uint32(to + np.uint32(left_words) + piece_at(column, own_piece))
                        k = 4 * (left_pieces + i)
                        store4(words, at, held[k], held[k + 1], held[k + 2], held[k + 3])
                to = np.uint32(to + np.uint32(stage_words))
                if to == np.uint32(stages * stage_words):
                    to = np.uint32(0)

        finish_all(sums, cross)
        part = np.uint64(np.uint64(chunk) * np.uint64(table[GROUPS]) + np.uint64(group)) * np.uint64(all_rows)
        row = np.uint32(first_row + place_row + np.uint32(lane // np.uint32(4)))
        column = np.uint32(first_column + place_column + np.uint32(2) * np.uint32(lane % np.uint32(4)))
        store_line(0, 0, sums, sums_out, part, row, all_rows, column, all_columns)
        store_line(0, 1, sums, sums_out, part, row, all_rows, column, all_columns)
        store_line(1, 0, sums, sums_out, part, row, all_rows, column, all_columns)
        store_line(1, 1, sums, sums_out, part, row, all_rows, column, all_columns)
        if row_products == 4:
            store_line(2, 0, sums, sums_out, part, row, all_rows, column, all_columns)
            store_line(2, 1, sums, sums_out, part, row, all_rows, column, all_columns)
            store_line(3, 0, sums, sums_out, part, row, all_rows, column, all_columns)
            store_line(3, 1, sums, sums_out, part, row, all_rows, column, all_columns)

    return bounded_kernel(weight, threads, 256 // threads)
