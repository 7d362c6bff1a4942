"""Kernels as pairs: a loop over tasks, and the same loop under ``prange``; compiled once a dtype."""

import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import types

from .threads import parallel_threads

__all__ = ["Kernel", "reads", "strided"]

#: Below this many multiply-accumulates a kernel runs serially: it would take about as long to start the threads,
#: and on busy cores far longer, since an OpenMP pool waits spinning for the last of them.
_SERIAL_WORK = 1_000_000
#: Chunks of tasks for each thread, so that a thread that is held up delays little.
_CHUNKS_PER_THREAD = 4


@cache
def reads(dtype: Any, ndim: int) -> types.Array:
    """Numba's type of a contiguous operand that may be read-only."""
    return types.Array(dtype, ndim, "C", readonly=True)


@cache
def strided(dtype: Any, ndim: int, readonly: bool = False) -> types.Array:
    """Numba's type of an array of any strides."""
    return types.Array(dtype, ndim, "A", readonly=readonly)


class Kernel:
    """A task loop and its parallel form, with one signature a dtype.

    Numba would compile again for each combination of read-only, contiguous and strided operands. Here the
    signature is given, everything is converted to it, and nothing is compiled by surprise.

    Parameters
    ----------
    serial : dispatcher
        ``serial(begin, end, *operands)`` runs tasks ``begin .. end - 1``.
    parallel : dispatcher
        ``parallel(tasks, chunks, *operands)`` runs all tasks.
    signature : callable
        The operands' Numba types, given the compute dtype's.
    """

    def __init__(self, serial: Any, parallel: Any, signature: Callable[[Any], tuple]):
        self._serial, self._parallel, self._signature = serial, parallel, signature
        self._ready: set[str] = set()
        self._lock = threading.Lock()

    def _compile(self, dtype: np.dtype) -> None:
        with self._lock:
            if dtype.name in self._ready:
                return
            operands = self._signature(numba.from_dtype(dtype))
            for dispatcher in (self._serial, self._parallel):
                dispatcher.disable_compile(False)
                dispatcher.compile(types.void(types.int64, types.int64, *operands))
                dispatcher.disable_compile()
            self._ready.add(dtype.name)

    def __call__(self, dtype: np.dtype, tasks: int, work: int, *operands: Any) -> None:
        """Run ``tasks`` tasks of ``work`` multiply-accumulates in all."""
        if dtype.name not in self._ready:
            self._compile(dtype)
        threads = parallel_threads() if tasks > 1 and work > _SERIAL_WORK else 1
        if threads == 1:
            self._serial(0, tasks, *operands)
        else:
            self._parallel(tasks, min(tasks, _CHUNKS_PER_THREAD * threads), *operands)
