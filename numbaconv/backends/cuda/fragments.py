"""Products of warps on tensor cores: from tiles in shared memory to sums in registers.

A lane ``4 g + t`` holds of a 16x8 product the rows ``g`` and ``g + 8`` of columns ``2 t`` and ``2 t + 1``.

Halves and tf32 are multiplied into the sums themselves. With ``3xtf32`` a float32 is ``high + low / 1024``, both tf32:
``high`` the nearest, ``low`` of what is left the upper 11 bits, and a product ``high high + (high low + low high) /
1024``. What is left is an eleventh bit and twelve more, of which one is lost at most; ``low low``, which is left out,
is less than ``2**-22`` of the product.

Infinity is in ``low``, beside a ``high`` of zero; what rounds to it keeps the largest tf32. So where it is multiplied
by zero or subtracted from itself is what it is with float32 (but by factors under ``2**-137``, whose ``high`` is 0).
A main sum that is infinite has overflowed, and is the result. Scaled as it is, ``low`` has all its bits down to
``2**-125``, and loses up to ``2**-146`` below; being at most half as large as what is split, it overflows nothing.

Tensor cores cut off sums, always toward zero: an error that grows with the number of products, not with its root. So
``high high`` goes into sums that begin with zero and end after a step of 16 products, two instructions; a float32
addition, which rounds, adds them to the main sums. The other two, whose errors are a thousandth, have sums of their
own.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from .intrinsics import (
    absolute,
    float_of_word,
    inlined,
    larger,
    ldmatrix4,
    mma_bf16,
    mma_f16,
    mma_tf32,
    round_tf32,
    word_of_float,
)
from .tensor_tiles import WORDS, Kind, TensorTile

__all__ = ["finish_sums", "multiply_of", "piece_at", "place_of_lane", "split", "to_tf32"]

_MULTIPLY = {"float16": mma_f16, "bfloat16": mma_bf16, "tf32": mma_tf32, "3xtf32": mma_tf32}

#: The largest float32 that rounds to a finite tf32, the largest of all, and ``low`` in units of what is left.
_LARGEST, _MOST, _SCALE = np.uint32(0x7F7FEFFF).view(np.float32), np.finfo(np.float32).max, np.float32(1024)


@inlined
def _split_near(word):
    """A float32 that rounds to no infinity as two tf32, the second for what is left, ``_SCALE`` times as large."""
    high = np.uint32(np.uint32(word + np.uint32(0x1000)) & np.uint32(0xFFFFE000))
    return high, word_of_float(np.float32(np.float32(float_of_word(word) - float_of_word(high)) * _SCALE))


@inlined
def split(word):
    """A float32 as two tf32."""
    size = absolute(float_of_word(word))
    if size > _LARGEST:
        if size > _MOST:
            return np.uint32(0), word
        high = np.uint32(word & np.uint32(0xFFFFE000))
        return high, word_of_float(np.float32(np.float32(float_of_word(word) - float_of_word(high)) * _SCALE))
    return _split_near(word)


@inlined
def _split4(a, b, c, d):
    """`split` of four; that one may be large is looked up once."""
    size = larger(larger(float_of_word(a), float_of_word(b)), larger(float_of_word(c), float_of_word(d)))
    if size > _LARGEST:
        s0, s1, s2, s3 = split(a), split(b), split(c), split(d)
    else:
        s0, s1, s2, s3 = _split_near(a), _split_near(b), _split_near(c), _split_near(d)
    return (s0[0], s1[0], s2[0], s3[0]), (s0[1], s1[1], s2[1], s3[1])


@inlined
def to_tf32(word):
    """A float32 as the nearest tf32."""
    return round_tf32(float_of_word(word))


@inlined
def piece_at(row, chunk):
    """The word where a piece of a row or column is."""
    key = np.uint32((row & np.uint32(2)) | np.uint32(np.uint32(row >> np.uint32(2)) & np.uint32(1)))
    return np.uint32(row * np.uint32(WORDS) + np.uint32(4) * np.uint32(chunk ^ key))


@cache
def place_of_lane(tile: TensorTile) -> Any:
    """A device function: the first row and column of a thread's warp in the tile, and what it gives ``ldmatrix``.

    That is one piece of each of the first 16 rows, then the next piece; and four pieces of each of 8 columns.
    """
    across = tile.columns // tile.warp_columns
    warp_rows, warp_columns = tile.warp_rows, tile.warp_columns

    @inlined
    def place(thread):
        warp, lane = np.uint32(thread // np.uint32(32)), np.uint32(thread % np.uint32(32))
        row = np.uint32(warp // np.uint32(across) * np.uint32(warp_rows))
        column = np.uint32(warp % np.uint32(across) * np.uint32(warp_columns))
        left = piece_at(np.uint32(row + lane % np.uint32(16)), np.uint32(lane // np.uint32(16)))
        right = piece_at(np.uint32(column + lane % np.uint32(8)), np.uint32(lane // np.uint32(8)))
        return row, column, left, right

    return place


@cache
def multiply_of(tile: TensorTile, kind: Kind, packed: bool, turns: int = 1) -> Any:
    """A device function: ``sums += left right`` over a step, by a warp.

    ``left`` and ``right``: the words of this lane (`place_of_lane`) in the rows and columns; the second part of packed
    rows begins ``tile.rows`` rows further. ``sums[4 (i n + j) + register]`` and ``cross``, which split operands
    need, belong to the product of 16 rows ``i`` and 8 columns ``j`` of ``n``. ``packed``: rows are tf32, or split.
    ``turns``: in how many parts a warp takes its columns. Each reads the rows again, and needs so many fewer registers.
    """
    row_products, column_products = tile.warp_rows // 16, tile.warp_columns // 8
    mma, further = _MULTIPLY[kind.name], tile.rows * WORDS
    parts, rounds = kind.parts, kind.name == "tf32"
    here = column_products // turns  # columns of a turn, by eights
    held = 4 * here

    @inlined
    def add(sums, at, found):
        for e in range(4):
            sums[at + e] = found[e]

    @inlined
    def of_half(i, k, turn, words, left, sums, high):
        """Sixteen rows by the columns of a turn, half a step: registers ``k`` and ``k + 1`` of the columns'."""
        a = ldmatrix4(words, left, i * 16 * WORDS)
        if rounds and not packed:
            a = (to_tf32(a[0]), to_tf32(a[1]), to_tf32(a[2]), to_tf32(a[3]))
        for j in range(here):
            at = 4 * (i * column_products + turn * here + j)
            found = (sums[at], sums[at + 1], sums[at + 2], sums[at + 3])
            add(sums, at, mma(found, a, (high[4 * j + k], high[4 * j + k + 1])))

    @inlined
    def of_row(i, turn, words, left0, left1, sums, cross, high, low):
        """Sixteen rows by the columns of a turn; ``left0`` and ``left1`` are a lane's places for either half step."""
        if parts == 1:
            of_half(i, 0, turn, words, left0, sums, high)
            of_half(i, 2, turn, words, left1, sums, high)
        else:
            a0 = ldmatrix4(words, left0, i * 16 * WORDS)
            a1 = ldmatrix4(words, left1, i * 16 * WORDS)
            if packed:
                low0 = ldmatrix4(words, left0, further + i * 16 * WORDS)
                low1 = ldmatrix4(words, left1, further + i * 16 * WORDS)
            else:
                a0, low0 = _split4(a0[0], a0[1], a0[2], a0[3])
                a1, low1 = _split4(a1[0], a1[1], a1[2], a1[3])
            for j in range(here):
                at = 4 * (i * column_products + turn * here + j)
                zero = np.float32(0)
                high0, high1 = (high[4 * j], high[4 * j + 1]), (high[4 * j + 2], high[4 * j + 3])
                found = mma((zero, zero, zero, zero), a0, high0)
                found = mma(found, a1, high1)
                other = (cross[at], cross[at + 1], cross[at + 2], cross[at + 3])
                other = mma(other, low0, high0)
                other = mma(other, low1, high1)
                other = mma(other, a0, (low[4 * j], low[4 * j + 1]))
                add(cross, at, mma(other, a1, (low[4 * j + 2], low[4 * j + 3])))
                for e in range(4):
                    sums[at + e] = np.float32(sums[at + e] + found[e])

    @inlined
    def of_columns(turn, words, left, right, sums, cross):
        other_left = np.uint32(left ^ np.uint32(8))
        high = cuda.local.array(held, np.uint32)
        low = cuda.local.array(held, np.uint32)
        for j in range(here):
            found = ldmatrix4(words, right, (turn * here + j) * 8 * WORDS)
            rest = found
            if parts == 2:
                found, rest = _split4(found[0], found[1], found[2], found[3])
            for e in range(4):
                high[4 * j + e] = to_tf32(found[e]) if rounds else found[e]
                low[4 * j + e] = rest[e]
        of_row(0, turn, words, left, other_left, sums, cross, high, low)
        of_row(1, turn, words, left, other_left, sums, cross, high, low)
        if row_products == 4:
            of_row(2, turn, words, left, other_left, sums, cross, high, low)
            of_row(3, turn, words, left, other_left, sums, cross, high, low)

    @inlined
    def multiply(words, left, right, sums, cross):
        of_columns(0, words, left, right, sums, cross)
        if turns == 2:
            of_columns(1, words, left, right, sums, cross)

    return multiply


@cache
def finish_sums(count: int, kind: Kind) -> Any:
    """A device function: ``cross`` added to so many sums."""
    parts = kind.parts

    @inlined
    def finish(sums, cross):
        if parts == 2:
            for i in range(count):
                if absolute(sums[i]) <= _MOST:
                    sums[i] = np.float32(sums[i] + cross[i] * (np.float32(1) / _SCALE))

    return finish
