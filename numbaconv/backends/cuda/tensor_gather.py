"""FORWARD and INPUT_GRAD on tensor cores: a product of packed weights and gathered patches.

The problem is that of `gather_gemm`, with the same tables; tiles are stored as `tensor_tiles` shows, both operands with
their depth side by side, and multiplied by `fragments`::

                        columns: positions of all samples, one after another
                        +-------------+
                        |  patches    |  16 words of depth for each column, a step at a time
             depth      +-------------+
          +-----------+ +-------------+
     rows |  weights  | |  results    |  bias, residual and activation on the way out
          +-----------+ +-------------+

Several steps are in shared memory: while a block multiplies one, others are on their way to it (``cp.async``), with a
barrier a step. What padding with zeros reads is filled in by the copy itself. Ways to gather:

``quads``  channels last: a thread copies 16 bytes of a position; so weights, always.
``each``   any layout. float32: copies of 4 bytes, for which a warp's lanes take positions side by side, and a word of
           a piece each, in turn. Halves have no such copies: they go through registers, eight to a store.
``flat``   few channels: as ``each``, but every element finds its own tap.

Sums are added in the order of the depth, a step of which is the same for all tiles; neither the tile nor the batch
changes a bit. Error factors: see `tensor_core`.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from .elements import BFLOAT16, number, writer
from .fragments import finish_sums, multiply_of, piece_at, place_of_lane, split, to_tf32
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
    ZERO_CODE,
)
from .gather_gemm import EACH, FLAT, QUADS, store_of
from .intrinsics import (
    commit_copies,
    copy4,
    copy16,
    float_of_word,
    inlined,
    load4,
    load_half,
    shared_tile,
    store2,
    store4,
    wait_copies,
    word_of_float,
)
from .jit import kernel, newest
from .lookups import cell_at, column_at
from .products import bounded_kernel
from .tensor_tiles import CHUNKS, WORDS, Kind, TensorTile, stages_of

__all__ = ["EACH", "FLAT", "QUADS", "pack_rows_kernel", "tensor_kernel"]


@newest
def tensor_kernel(tile: TensorTile, kind: Kind, out_dtype: str, how: str, filled: bool, last: bool, finish: Any) -> Any:
    """The kernel for one tile, kind of numbers, dtype of the result, way to gather, layout of the result, and epilogue.

    ``filled``: padding may hold something else than zeros, which ``quads`` does not know; ``last``: result channels
    are neighbours. Its arguments: source, packed weights, result, the epilogue's extras, the
    table of `gather.Gather`, elements from one sample to the next of source and result, and what constant padding
    holds, as a word. It runs on blocks of ``tile.threads`` threads.
    """
    rows, columns, threads, parts = tile.rows, tile.columns, tile.threads, kind.parts
    quads, flat, halves = how == QUADS, how == FLAT, kind.per_word == 2
    held_size = 1 if quads or not halves else WORDS * columns // threads
    left_words = WORDS * rows * parts
    stage_words = left_words + WORDS * columns
    stages = stages_of(rows * parts + columns)
    left_copies = CHUNKS * rows * parts // threads
    apart = threads // CHUNKS  # rows between those of a thread
    per = threads // columns  # threads of a column
    right_pieces = CHUNKS // per
    depth, piece = kind.depth, kind.depth // CHUNKS
    warp_rows, neighbours = tile.warp_rows, tile.warp_rows // 8
    sums_size = tile.thread_rows * tile.thread_columns
    cross_size = sums_size if parts == 2 else 1
    memory, wait = shared_tile(stages * stage_words, np.uint32), wait_copies(stages - 2)
    turns = 2 if parts == 2 and sums_size == 64 else 1  # beside 128 sums, registers for all columns would be too many
    place, multiply = place_of_lane(tile), multiply_of(tile, kind, True, turns)
    finish_all = finish_sums(sums_size, kind)
    deliver = _deliver_of(tile, out_dtype, last, finish)
    none = np.uint32(0)

    @inlined
    def block_at(table):
        """A block's first row and column, its group, where its phase's record is, and columns of that phase."""
        block = np.uint32(cuda.blockIdx.x)
        row_blocks, column_blocks = np.uint32(table[ROW_BLOCKS]), np.uint32(table[COLUMN_BLOCKS])
        groups = np.uint32(table[GROUPS])
        first_row = np.uint32(block % row_blocks * np.uint32(rows))
        block = np.uint32(block // row_blocks)
        first = np.uint64(block % column_blocks) * np.uint64(columns)
        block = np.uint32(block // column_blocks)
        record = RECORDS + np.int32(block // groups) * RECORD
        total = np.uint64(table[record + POSITIONS]) * np.uint64(table[BATCH])
        return first_row, first, np.uint32(block % groups), record, total

    @inlined
    def after(place):
        """Where the words of the next step are."""
        place = np.uint32(place + np.uint32(stage_words))
        return np.uint32(0) if place == np.uint32(stages * stage_words) else place

    @inlined
    def own_column(thread):
        """The column that a thread gathers for, and its first piece."""
        if quads:
            return np.uint32(thread // np.uint32(per)), np.uint32(thread % np.uint32(per))
        return np.uint32(thread % np.uint32(columns)), np.uint32(thread // np.uint32(columns))

    @inlined
    def row_of_slot(slot):
        """The row whose weights are in a row of shared memory: those of a thread's results are neighbours."""
        in_warp = np.uint32(slot % np.uint32(warp_rows))
        in_order = np.uint32(in_warp % np.uint32(8) * np.uint32(neighbours) + in_warp // np.uint32(8))
        return np.uint32(slot - in_warp + in_order)

    @inlined
    def element(
        e, source, start, table, tap_at, lines, steps, channel, channels, channel_step, covered, cell, padding, fill
    ):
        """The bits of a half, ``e`` deep in the step."""
        found = none
        if flat:
            entry = load4(table, np.uint32(tap_at + np.uint32(4) * e), 0)
            if entry[0] >= 0:
                at = cell_at(table, lines[0], lines[1], lines[2], entry, steps[0], steps[1], steps[2])
                if at >= 0:
                    found = load_half(source, start + np.uint64(at))
                elif filled and at == CONSTANT_CODE:
                    found = fill
        else:
            at = np.uint32(channel + e)
            if at < channels:
                found = padding
                if covered:
                    found = load_half(source, start + np.uint64(np.uint32(cell + at * channel_step)))
        return found

    def product(source, packed, out, extras, table, source_batch, out_batch, fill):
        words = memory()
        sums = cuda.local.array(sums_size, np.float32)
        cross = cuda.local.array(cross_size, np.float32)
        held = cuda.local.array(held_size, np.uint32)
        thread = np.uint32(cuda.threadIdx.x)
        first_row, first, group, record, total = block_at(table)
        if first >= total:
            return

        # The column that this thread gathers for. Pieces of 16 bytes: threads side by side have pieces side by side.
        own, own_piece = own_column(thread)
        column = first + np.uint64(own)
        sample, line_d, line_h, line_w, target = column_at(
            table, record, column if column < total else first, out_batch
        )
        lines = line_d, line_h, line_w

        channels, channel_step = np.uint32(table[CHANNELS]), np.uint32(table[SOURCE])
        start = sample * np.uint64(source_batch) + np.uint64(np.uint32(group * channels * channel_step))
        groups, group_size = np.uint32(table[GROUPS]), np.uint32(table[GROUP_SIZE])
        row_size = np.uint32(group_size // max(np.uint32(table[PADDED_ROWS]), np.uint32(1)))
        part_size = np.uint32(group_size * groups)
        packed_at = np.uint32(
            group * group_size + np.uint32(table[record + PACKED_FROM]) + np.uint32(first_row * row_size)
        )
        tap_at = np.uint32(table[record + TAPS])
        count = np.uint32(table[record + STEPS])
        place_row, place_column, left_place, right_place = place(thread)
        # The packed row, and the place in shared memory, that this thread copies to first.
        slot = np.uint32(thread // np.uint32(CHUNKS))
        packed_at = np.uint32(packed_at + row_of_slot(slot) * row_size + thread % np.uint32(CHUNKS) * np.uint32(piece))
        right_place = np.uint32(right_place + np.uint32(left_words))
        left_to = piece_at(slot, np.uint32(thread % np.uint32(CHUNKS)))
        right_to = np.uint32(np.uint32(left_words) + piece_at(own, own_piece))
        own_depth = np.uint32(own_piece * np.uint32(piece))
        if not quads and not halves:  # eight lanes begin with one word of their pieces, the next eight with another
            turn = np.uint32(np.uint32(thread % np.uint32(32)) // np.uint32(8))
            right_to, own_depth = np.uint32(right_to + turn), np.uint32(own_depth + turn)
        for i in range(sums_size):
            sums[i] = np.float32(0)
        for i in range(cross_size):
            cross[i] = np.float32(0)
        channel, cell, padding = np.uint32(0), np.uint32(0), none
        covered = False
        to = np.uint32(0)
        for number_of_step in range(count + np.uint32(stages - 1)):
            wait()
            cuda.syncthreads()
            there_is_more = number_of_step < count
            if there_is_more:
                for i in range(left_copies):
                    slot = np.uint32(i * apart % rows)  # of the first thread: constants
                    further = row_of_slot(slot)
                    from_packed = np.uint32(packed_at + further * row_size + np.uint32(i * apart // rows) * part_size)
                    at = np.uint32(to + left_to + np.uint32(i * apart * WORDS))
                    copy16(words, at, packed, from_packed, np.int32(piece))
                packed_at = np.uint32(packed_at + np.uint32(depth))
                # Read again each time: there are no registers to keep them in.
                if flat:
                    steps = np.uint32(table[SOURCE + 1]), np.uint32(table[SOURCE + 2]), np.uint32(table[SOURCE + 3])
                elif channel == np.uint32(0):
                    steps = np.uint32(table[SOURCE + 1]), np.uint32(table[SOURCE + 2]), np.uint32(table[SOURCE + 3])
                    entry = load4(table, tap_at, 0)
                    found = cell_at(table, line_d, line_h, line_w, entry, steps[0], steps[1], steps[2])
                    covered = found >= 0
                    if filled:
                        padding = fill if found == CONSTANT_CODE else none
                    cell = np.uint32(max(found, np.int64(0)))
                    tap_at = np.uint32(tap_at + np.uint32(4))
                right_at = np.uint32(to + right_to)
                if quads:
                    for i in range(right_pieces):
                        at = np.uint32(channel + own_depth + np.uint32(i * per * piece))
                        has = piece if covered and at < channels else 0
                        copy16(
                            words,
                            np.uint32(right_at ^ np.uint32(4 * i * per)),
                            source,
                            start + np.uint64(np.uint32(cell + at)),
                            np.int32(has),
                        )
                elif halves:
                    for i in range(right_pieces):
                        for j in range(4):
                            e = np.uint32(own_depth + np.uint32(i * per * piece + 2 * j))
                            low = element(
                                e,
                                source,
                                start,
                                table,
                                tap_at,
                                lines,
                                steps,
                                channel,
                                channels,
                                channel_step,
                                covered,
                                cell,
                                padding,
                                fill,
                            )
                            high = element(
                                np.uint32(e + np.uint32(1)),
                                source,
                                start,
                                table,
                                tap_at,
                                lines,
                                steps,
                                channel,
                                channels,
                                channel_step,
                                covered,
                                cell,
                                padding,
                                fill,
                            )
                            held[4 * i + j] = np.uint32(low | np.uint32(high << np.uint32(16)))
                else:
                    for i in range(right_pieces):
                        for j in range(4):
                            e = np.uint32(own_depth ^ np.uint32(i * per * piece + j))
                            at_word = np.uint32(right_at ^ np.uint32(4 * i * per + j))
                            if flat:
                                entry = load4(table, np.uint32(tap_at + np.uint32(4) * e), 0)
                                found = np.int64(ZERO_CODE)
                                if entry[0] >= 0:
                                    found = cell_at(table, line_d, line_h, line_w, entry, steps[0], steps[1], steps[2])
                                if filled and found == CONSTANT_CODE:
                                    words[at_word] = fill
                                else:
                                    from_start = np.uint64(max(found, np.int64(0)))
                                    copy4(words, at_word, source, start + from_start, np.int32(1 if found >= 0 else 0))
                            else:
                                at = np.uint32(channel + e)
                                if not filled or covered or padding == none or at >= channels:
                                    copy4(
                                        words,
                                        at_word,
                                        source,
                                        start + np.uint64(np.uint32(cell + at * channel_step)),
                                        np.int32(1 if covered and at < channels else 0),
                                    )
                                else:
                                    words[at_word] = padding
                if flat:
                    if not halves:
                        tap_at = np.uint32(tap_at + np.uint32(4 * depth))
                else:
                    channel = np.uint32(channel + np.uint32(depth))
                    if channel >= channels:
                        channel = np.uint32(0)
            commit_copies()
            if number_of_step >= stages - 1:
                oldest = after(to)
                multiply(words, np.uint32(oldest + left_place), np.uint32(oldest + right_place), sums, cross)
            if there_is_more and halves and not quads:
                for i in range(right_pieces):
                    at = np.uint32(np.uint32(to + right_to) ^ np.uint32(4 * i * per))
                    store4(words, at, held[4 * i], held[4 * i + 1], held[4 * i + 2], held[4 * i + 3])
                if flat:
                    tap_at = np.uint32(tap_at + np.uint32(4 * depth))
            to = after(to)

        # Where columns begin in the result goes into the same memory, for all threads to read. It is found again: what
        # would be kept for it takes registers that the loop needs.
        finish_all(sums, cross)
        cuda.syncthreads()
        thread = np.uint32(cuda.threadIdx.x)
        first_row, first, group, record, total = block_at(table)
        group_rows = np.uint32(table[ROWS])
        own, own_piece = own_column(thread)
        column = first + np.uint64(own)
        if own_piece == np.uint32(0):
            there = column < total
            sample, line_d, line_h, line_w, target = column_at(table, record, column if there else first, out_batch)
            target += np.uint64(np.uint32(group * group_rows * np.uint32(table[TARGET])))
            at = np.uint32(np.uint32(2) * own)
            words[at] = np.uint32(target & np.uint64(0xFFFFFFFF)) if there else np.uint32(0xFFFFFFFF)
            words[np.uint32(at + np.uint32(1))] = np.uint32(target >> np.uint64(32)) if there else np.uint32(0xFFFFFFFF)
        cuda.syncthreads()
        place_row, place_column, left_place, right_place = place(thread)
        lane = np.uint32(thread % np.uint32(32))
        row = np.uint32(first_row + place_row + lane // np.uint32(4) * np.uint32(neighbours))
        place_column = np.uint32(place_column + np.uint32(2) * np.uint32(lane % np.uint32(4)))
        channel = np.uint32(group * group_rows + row)
        row_step, left_over = np.int64(table[TARGET]), np.int64(group_rows) - np.int64(row)
        deliver(out, extras, table[VECTOR] != 0, sums, words, place_column, channel, row, left_over, row_step)

    return bounded_kernel(product, threads, (512 if quads and parts == 1 else 256) // threads)


@newest
def _pair_of(out_dtype: str, finish: Any) -> Any:
    """A device function: two sums of a channel, finished, to their places; with ``vector`` these are neighbours."""
    write, held = writer(out_dtype), np.uint16 if out_dtype == BFLOAT16 else number(out_dtype)

    @inlined
    def pair(out, extras, vector, channel, at0, at1, v0, v1):
        if at0 >= 0:
            v0 = finish(v0, channel, np.uint64(at0), extras)
            if at1 >= 0:
                v1 = finish(v1, channel, np.uint64(at1), extras)
            if vector:
                two = cuda.local.array(2, held)
                write(two, 0, v0)
                write(two, 1, v1)
                store2(out, np.uint64(at0), two[0], two[1])
            else:
                write(out, np.uint64(at0), v0)
                if at1 >= 0:
                    write(out, np.uint64(at1), v1)

    return pair


@newest
def _deliver_of(tile: TensorTile, out_dtype: str, last: bool, finish: Any) -> Any:
    """A device function: a thread's sums, finished, to their places, side by side along the result's neighbours.

    ``words`` say where the tile's columns begin in the result, in two words each, of which all bits say that there is
    none; ``row``, ``channel`` and ``left_over`` belong to the thread's first row, ``place`` to its first column.
    """
    column_products, neighbours = tile.warp_columns // 8, tile.warp_rows // 8
    quad, pair = store_of(out_dtype, finish), _pair_of(out_dtype, finish)

    @inlined
    def begin(words, column):
        at = np.uint32(np.uint32(2) * column)
        high = np.int64(words[np.uint32(at + np.uint32(1))])
        return np.int64(np.int64(high << 32) | np.int64(words[at]))

    if last:

        @inlined
        def some(n, out, extras, vector, sums, words, place, channel, row, left_over, step):
            """Quad ``n`` of the channels of all columns."""
            left = left_over - 4 * n
            for j in range(column_products):
                for e in range(2):
                    at = begin(words, np.uint32(place + np.uint32(8 * j + e)))
                    if at >= 0 and left > 0:
                        at += (np.int64(row) + 4 * n) * step
                        at1 = at + step if left > 1 else np.int64(-1)
                        at2 = at + 2 * step if left > 2 else np.int64(-1)
                        at3 = at + 3 * step if left > 3 else np.int64(-1)
                        a, b = 4 * (2 * n * column_products + j) + e, 4 * ((2 * n + 1) * column_products + j) + e
                        here = np.uint32(channel + np.uint32(4 * n))
                        v0, v1, v2, v3 = sums[a], sums[a + 2], sums[b], sums[b + 2]
                        quad(out, extras, vector, here, np.uint32(1), at, at1, at2, at3, v0, v1, v2, v3)

        times = neighbours // 4
    else:

        @inlined
        def some(n, out, extras, vector, sums, words, place, channel, row, left_over, step):
            """Channel ``n`` of all columns."""
            if left_over > n:
                up = (np.int64(row) + n) * step
                for j in range(column_products):
                    column = np.uint32(place + np.uint32(8 * j))
                    at0, at1 = begin(words, column), begin(words, np.uint32(column + np.uint32(1)))
                    at0 = at0 + up if at0 >= 0 else at0
                    at1 = at1 + up if at1 >= 0 else at1
                    a = 4 * (n // 2 * column_products + j) + 2 * (n % 2)
                    here = np.uint32(channel + np.uint32(n))
                    pair(out, extras, vector, here, at0, at1, sums[a], sums[a + 1])

        times = neighbours
    more, most, all_eight = times >= 2, times >= 4, times == 8

    @inlined
    def deliver(out, extras, vector, sums, words, place, channel, row, left_over, step):
        # As in `gather_gemm`: a loop would not be unrolled.
        some(0, out, extras, vector, sums, words, place, channel, row, left_over, step)
        if more:
            some(1, out, extras, vector, sums, words, place, channel, row, left_over, step)
        if most:
            some(2, out, extras, vector, sums, words, place, channel, row, left_over, step)
            some(3, out, extras, vector, sums, words, place, channel, row, left_over, step)
        if all_eight:
            some(4, out, extras, vector, sums, words, place, channel, row, left_over, step)
            some(5, out, extras, vector, sums, words, place, channel, row, left_over, step)
            some(6, out, extras, vector, sums, words, place, channel, row, left_over, step)
            some(7, out, extras, vector, sums, words, place, channel, row, left_over, step)

    return deliver


@cache
def pack_rows_kernel(kind: Kind) -> Any:
    """The kernel that packs a weight: ``packed[part, group, row, depth]``. A thread an element of a part.

    ``places`` and ``table`` are those of `gather_gemm.pack_kernel`.
    """
    halves, two, rounds = kind.per_word == 2, kind.parts == 2, kind.name == "tf32"

    @kernel
    def pack(w, packed, places, table):
        at = np.int64(cuda.blockIdx.x) * np.int64(cuda.blockDim.x) + np.int64(cuda.threadIdx.x)
        if at < table[0]:
            depth, rest = at % table[1], at // table[1]
            row, group = rest % table[5], rest // table[5]
            channel, place = depth % table[2], np.int64(places[depth // table[2]])
            there = row < table[4] and channel < table[3] and place >= 0
            from_w = place + group * table[8] + row * table[6] + channel * table[7] if there else np.int64(0)
            if halves:
                packed[at] = np.uint16(load_half(w, np.uint64(from_w))) if there else np.uint16(0)
            else:
                word = word_of_float(w[np.uint64(from_w)]) if there else np.uint32(0)
                if two:
                    high, low = split(word)
                    packed[at] = float_of_word(high)
                    packed[at + table[0]] = float_of_word(low)
                elif rounds:
                    packed[at] = float_of_word(to_tf32(word))

    return pack
