"""No tests: kernels of one warp that use each intrinsic, for the simulator and for the compiler.

Fragments are filled and read by the tables of the PTX ISA, written here a second time, element by element.
"""

import numpy as np
from numba import cuda

from numbaconv.backends.cuda.intrinsics import (
    commit_copies,
    copy4,
    copy16,
    ldmatrix4,
    load2,
    load4,
    mma_bf16,
    mma_f16,
    mma_tf32,
    round_tf32,
    shared_tile,
    store2,
    store4,
    wait_copies,
)
from numbaconv.backends.cuda.products import kernel_function
from numbaconv.backends.cuda.tiles import Tile

WARP = Tile(16, 32, 4, 4)
_halves = shared_tile(4 * 64, np.uint16)
_floats = shared_tile(128 + 32, np.float32)
_wait = wait_copies(0)


def _product_tf32(a, b, c):
    """``c (16x8) += a (16x8) b (8x8)``, row by row in memory."""
    lane = np.uint32(cuda.threadIdx.x)
    g, t = np.uint32(lane // np.uint32(4)), np.uint32(lane % np.uint32(4))
    at = np.uint32(g * np.uint32(8) + t)
    left = (round_tf32(a[at]), round_tf32(a[at + 64]), round_tf32(a[at + 4]), round_tf32(a[at + 68]))
    at = np.uint32(t * np.uint32(8) + g)
    right = (round_tf32(b[at]), round_tf32(b[at + 32]))
    at = np.uint32(g * np.uint32(8) + np.uint32(2) * t)
    found = mma_tf32((c[at], c[at + 1], c[at + 64], c[at + 65]), left, right)
    store2(c, at, found[0], found[1])
    store2(c, np.uint32(at + 64), found[2], found[3])


def _of_halves(multiply):
    def product(a, b, c):
        """``c (16x8) += a (16x16) b (16x8)``; ``a`` row by row, ``b`` column by column, as pairs in uint32."""
        lane = np.uint32(cuda.threadIdx.x)
        g, t = np.uint32(lane // np.uint32(4)), np.uint32(lane % np.uint32(4))
        at = np.uint32(g * np.uint32(8) + t)
        left = (a[at], a[at + 64], a[at + 4], a[at + 68])
        right = (b[at], b[at + 4])
        at = np.uint32(g * np.uint32(8) + np.uint32(2) * t)
        found = multiply((c[at], c[at + 1], c[at + 64], c[at + 65]), left, right)
        store2(c, at, found[0], found[1])
        store2(c, np.uint32(at + 64), found[2], found[3])

    return product


def _matrices(source, out):
    """Four 8x8 matrices of 16 bits to shared memory and into registers, four a lane."""
    shared = _halves()
    lane = np.uint32(cuda.threadIdx.x)
    for i in range(8):
        shared[np.uint32(lane * np.uint32(8) + np.uint32(i))] = source[np.uint32(lane * np.uint32(8) + np.uint32(i))]
    cuda.syncthreads()
    found = ldmatrix4(
        shared, np.uint32(lane % np.uint32(16) * np.uint32(8)), np.int32(128) * np.int32(lane // np.uint32(16))
    )
    store4(out, np.uint32(lane * np.uint32(4)), found[0], found[1], found[2], found[3])


def _copies(source, out, count):
    """Four elements a lane and then one through shared memory; of each four, ``count % 5``."""
    shared = _floats()
    lane = np.uint32(cuda.threadIdx.x)
    quad = np.uint32(lane * np.uint32(4))
    copy16(shared, quad, source, quad, np.int32((lane + np.uint32(count)) % np.uint32(5)))
    copy4(shared, np.uint32(lane + np.uint32(128)), source, lane, np.int32(1))
    commit_copies()
    _wait()
    cuda.syncthreads()
    other = np.uint32((lane + np.uint32(7)) % np.uint32(32))
    values = load4(shared, np.uint32(other * np.uint32(4)), 0)
    store4(out, quad, values[0], values[1], values[2], values[3])
    out[np.uint32(lane + np.uint32(128))] = shared[np.uint32(other + np.uint32(128))]


def _vectors(source, out):
    """Pairs and quads of any element, with an offset, the other way round."""
    lane = np.uint32(cuda.threadIdx.x)
    values = load4(source, np.uint32(lane * np.uint32(4)), 4)
    store4(out, np.uint32(lane * np.uint32(4)), values[3], values[2], values[1], values[0])
    pair = load2(source, np.uint32(lane * np.uint32(2)), 2)
    store2(out, np.uint32(lane * np.uint32(2) + np.uint32(128)), pair[1], pair[0])


product_tf32 = kernel_function(_product_tf32, WARP, 4)
product_f16 = kernel_function(_of_halves(mma_f16), WARP, 4)
product_bf16 = kernel_function(_of_halves(mma_bf16), WARP, 4)
matrices = kernel_function(_matrices, WARP, 4)
copies = kernel_function(_copies, WARP, 4)
vectors = kernel_function(_vectors, WARP, 4)
