"""What the machine can do: multiply-adds in registers, and bytes from memory.

The peak is that of `fma_tile`, the micro-kernel that every dense algorithm is built around, on operands that stay in
the first-level cache, with as many threads as given, each on its own operands. The bandwidth is the better of a copy
(NumPy; 2 bytes moved for each copied) and a triad ``a = b + s * c`` (3 for each written) over arrays beyond the caches,
a part of them for each thread. A sample is the best of a few rounds of some milliseconds, timed from the first thread's
start to the last one's end. `compare` asks for a sample at every turn, since clocks drift:
``python -m numbaconv.bench.peak THREADS`` answers requests on standard input.
"""

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

import numpy as np
from numba import njit

from ..backends.cpu.simd import ROWS, VECTOR_BYTES, VECTORS, fma_tile
from .workers import serve

__all__ = ["Machine"]

ROUNDS = 4
#: Steps of a tile, few enough that both operands share the first-level cache.
DEPTH = 128
_LANES = VECTOR_BYTES // 4
#: What a round computes or copies takes some milliseconds.
_REPEATS = 20_000
_BYTES = 64 << 20


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _products(a: np.ndarray, b: np.ndarray, c: np.ndarray, repeats: int) -> None:
    for _ in range(repeats):
        fma_tile(a, 0, ROWS, 1, b, 0, DEPTH, c, 0, 0, ROWS, VECTORS)


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _triad(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    for i in range(a.size):
        a[i] = b[i] + np.float32(0.5) * c[i]


def _best_seconds(tasks: Sequence[Callable[[], object]]) -> float:
    """The least time in which all tasks are done, each in its own thread."""
    barrier = Barrier(len(tasks))

    def timed(task: Callable[[], object]) -> tuple[float, float]:
        barrier.wait()
        begin = time.perf_counter()
        task()
        return begin, time.perf_counter()

    best = float("inf")
    with ThreadPoolExecutor(len(tasks)) as pool:
        for _ in range(ROUNDS):
            spans = list(pool.map(timed, tasks))
            best = min(best, max(end for _, end in spans) - min(begin for begin, _ in spans))
    return best


class Machine:
    """Operands for the samples, made once."""

    def __init__(self, threads: int):
        rng = np.random.default_rng(0)
        shapes = (DEPTH * ROWS, DEPTH * VECTORS * _LANES, ROWS * VECTORS * _LANES)
        self._tiles = [[_aligned(rng, size) for size in shapes] for _ in range(threads)]
        self._arrays = [[np.ones(_BYTES // 4 // threads, np.float32) for _ in range(3)] for _ in range(threads)]
        for a, b, c in self._tiles[:1]:
            _products(a, b, c, 1)
        for a, b, c in self._arrays[:1]:
            _triad(a, b, c)

    def gflops(self, threads: int) -> float:
        """The micro-kernel's rate with some threads."""
        tasks = [partial(_products, *tile, _REPEATS) for tile in self._tiles[:threads]]
        flops = 2 * DEPTH * ROWS * VECTORS * _LANES * _REPEATS * threads
        return flops / _best_seconds(tasks) / 1e9

    def gbytes(self, threads: int) -> float:
        """Memory's rate with some threads."""
        copies = [partial(np.copyto, a, b) for a, b, _ in self._arrays[:threads]]
        triads = [partial(_triad, *arrays) for arrays in self._arrays[:threads]]
        moved = threads * self._arrays[0][0].nbytes
        return max(2 * moved / _best_seconds(copies), 3 * moved / _best_seconds(triads)) / 1e9


def _aligned(rng: np.random.Generator, size: int) -> np.ndarray:
    """Numbers from the first cache line on."""
    raw = np.empty(size + 16, np.float32)
    first = -raw.ctypes.data % 64 // 4
    array = raw[first : first + size]
    array[:] = rng.standard_normal(size, dtype=np.float32)
    return array


def _serve(threads: int) -> None:
    machine = Machine(threads)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        return {"gflops_1": machine.gflops(1), "gflops": machine.gflops(threads), "gbytes": machine.gbytes(threads)}

    serve(answer)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
