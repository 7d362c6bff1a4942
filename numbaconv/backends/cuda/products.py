"""The product of two tiles in shared memory by a block of threads: what the matrix kernels have in common."""

from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from .intrinsics import inlined, load4
from .jit import SIMULATED
from .tiles import Tile

__all__ = ["bounded_kernel", "kernel_function", "place_of", "steps_of"]


#: Threads that shall fit on a multiprocessor, by the bytes of a sum: each may then have 128 or 255 registers.
_THREADS = {4: 512, 8: 256}


def kernel_function(function: Any, tile: Tile, itemsize: int, fewer: bool = False) -> Any:
    """A kernel whose registers leave room for several blocks on a multiprocessor; ``fewer``: for half as many."""
    return bounded_kernel(function, tile.threads, _THREADS[itemsize] // tile.threads // (2 if fewer else 1))


def bounded_kernel(function: Any, threads: int, blocks: int) -> Any:
    """A kernel for blocks of so many threads, of which so many shall fit on a multiprocessor."""
    return cuda.jit(function) if SIMULATED else cuda.jit(launch_bounds=(threads, blocks))(function)


@cache
def place_of(tile: Tile) -> Any:
    """A device function: a thread's first row and first column in the tile; warps lie along the columns."""
    down, along = tile.warp
    across = tile.columns // tile.thread_columns // along

    @inlined
    def place(thread):
        warp, lane = thread // np.uint32(down * along), thread % np.uint32(down * along)
        row = warp // np.uint32(across) * np.uint32(down) + lane // np.uint32(along)
        column = warp % np.uint32(across) * np.uint32(along) + lane % np.uint32(along)
        return np.uint32(np.uint32(4) * row), np.uint32(np.uint32(4) * column)

    return place


@cache
def steps_of(tile: Tile, left_begin: int, left_stride: int, right_begin: int, right_stride: int) -> Any:
    """A device function: ``sums += left * right`` over the ``DEPTH`` of a tile.

    At depth ``k`` a thread's first row is ``shared[at_left + left_begin + k * left_stride]``, and so for its first
    column; ``left`` and ``right`` are local arrays for what it reads.
    """
    row_quads, column_quads, across = tile.thread_rows // 4, tile.thread_columns // 4, tile.thread_columns
    next_rows, next_columns = tile.rows // row_quads, tile.columns // column_quads

    @inlined
    def step(depth, shared, at_left, at_right, sums, left, right):
        for i in range(row_quads):
            quad = load4(shared, at_left, left_begin + depth * left_stride + i * next_rows)
            for j in range(4):
                left[4 * i + j] = quad[j]
        for i in range(column_quads):
            quad = load4(shared, at_right, right_begin + depth * right_stride + i * next_columns)
            for j in range(4):
                right[4 * i + j] = quad[j]
        for i in range(4 * row_quads):
            for j in range(across):
                sums[i * across + j] = cuda.fma(left[i], right[j], sums[i * across + j])

    @inlined
    def steps(shared, at_left, at_right, sums, left, right):
        # A loop over these would not be unrolled, and the sums would be in memory to be indexed.
        step(0, shared, at_left, at_right, sums, left, right)
        step(1, shared, at_left, at_right, sums, left, right)
        step(2, shared, at_left, at_right, sums, left, right)
        step(3, shared, at_left, at_right, sums, left, right)
        step(4, shared, at_left, at_right, sums, left, right)
        step(5, shared, at_left, at_right, sums, left, right)
        step(6, shared, at_left, at_right, sums, left, right)
        step(7, shared, at_left, at_right, sums, left, right)

    return steps
