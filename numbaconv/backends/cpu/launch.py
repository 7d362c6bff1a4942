"""Kernels as pairs: a loop over tasks, and the same loop under ``prange``; compiled once a dtype."""

import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core.compiler_lock import global_compiler_lock

from .spread import RUN_CHUNKS, run_chunks, spread, symbol_of
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


# One compilation at a time, and none during a fork: a child would inherit the locks of a compiler that is not there.
_compiling = threading.RLock()


def _before_fork() -> None:
    _compiling.acquire()
    global_compiler_lock.acquire()


def _after_fork() -> None:
    global_compiler_lock.release()
    _compiling.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def _spread_over(serial: Any, operands: tuple) -> Callable[..., None]:
    """``parallel(tasks, chunks, *operands)`` for a compiled task loop."""
    run_chunks.compile(types.void(*RUN_CHUNKS))
    types_of_spread = (*[types.int64] * 4, types.Tuple(operands[2:]))
    spread.compile(types.void(*types_of_spread))
    call: Callable[..., None] = spread.overloads[types_of_spread].entry_point
    function, run = symbol_of(serial, operands), symbol_of(run_chunks, RUN_CHUNKS)

    def parallel(tasks: int, chunks: int, *values: Any) -> None:
        call(function, run, tasks, chunks, values)

    return parallel


class Kernel:
    """A task loop and its parallel form, with one signature a dtype.

    Numba would compile again for each combination of read-only, contiguous and strided operands. Here the
    signature is given, operands are converted to it, and the compiled function is called directly: nothing is
    compiled by surprise, and no call waits for Numba to find out the types of its many operands.

    Parameters
    ----------
    serial : dispatcher
        ``serial(begin, end, *operands)`` runs tasks ``begin .. end - 1``.
    parallel : dispatcher, optional
        ``parallel(tasks, chunks, *operands)`` runs all tasks; without one, `spread` does, which compiles nothing twice.
    signature : callable
        The operands' Numba types, given the compute dtype's.
    """

    def __init__(self, serial: Any, parallel: Any, signature: Callable[[Any], tuple]):
        self._dispatchers, self._signature = (serial, parallel), signature
        self._ready: dict[np.dtype, tuple[Callable[..., None], Callable[..., None]]] = {}

    def _compile(self, dtype: np.dtype) -> tuple[Callable[..., None], Callable[..., None]]:
        with _compiling:
            if dtype not in self._ready:
                operands = (types.int64, types.int64, *self._signature(numba.from_dtype(dtype)))
                serial, parallel = self._dispatchers
                serial.compile(types.void(*operands))
                if parallel is None:
                    spreading = _spread_over(serial, operands)
                else:
                    parallel.compile(types.void(*operands))
                    spreading = parallel.overloads[operands].entry_point
                self._ready[dtype] = (serial.overloads[operands].entry_point, spreading)
            return self._ready[dtype]

    def __call__(self, dtype: np.dtype, tasks: int, work: int, *operands: Any) -> None:
        """Run ``tasks`` tasks of ``work`` multiply-accumulates in all."""
        serial, parallel = self._ready.get(dtype) or self._compile(dtype)
        threads = parallel_threads() if tasks > 1 and work > _SERIAL_WORK else 1
        if threads == 1:
            serial(0, tasks, *operands)
        else:
            parallel(tasks, min(tasks, _CHUNKS_PER_THREAD * threads), *operands)
