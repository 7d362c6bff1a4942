"""Kernels: loops over tasks, compiled once a dtype, called serially or fanned out over threads."""

import os
import threading
from collections.abc import Callable
from functools import cache, partial
from time import perf_counter
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core.compiler_lock import global_compiler_lock

from ..float_mode import UsualMode
from .crowd import Crowd
from .fan_out import fan_out
from .threads import only, parallel_threads

__all__ = ["Kernel", "integers", "reads", "runs_serially", "strided"]

#: Below this many multiply-accumulates a kernel runs serially: it would take about as long to start the threads,
#: and on busy cores far longer, since an OpenMP pool waits spinning for the last of them.
_SERIAL_WORK = 1_000_000
#: Up to so many, some milliseconds, a problem takes fewer threads where others keep the machine busy.
_SMALL_WORK = 200_000_000
#: Chunks of tasks for each thread, so that a thread that is held up delays little.
_CHUNKS_PER_THREAD = 4

_crowd = Crowd()


@cache
def reads(dtype: Any, ndim: int) -> types.Array:
    """Numba's type of a contiguous operand that may be read-only."""
    return types.Array(dtype, ndim, "C", readonly=True)


@cache
def strided(dtype: Any, ndim: int, readonly: bool = False) -> types.Array:
    """Numba's type of an array of any strides."""
    return types.Array(dtype, ndim, "A", readonly=readonly)


def integers(count: int) -> types.UniTuple:
    """Numba's type of a tuple of so many integers."""
    return types.UniTuple(types.int64, count)


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


def runs_serially(work: int) -> bool:
    """Whether a kernel of so many multiply-accumulates runs in one thread, whatever the number of threads."""
    return work <= _SERIAL_WORK


def _threads(tasks: int, work: int) -> int:
    """How many threads a kernel of so many tasks and multiply-accumulates uses now."""
    if tasks <= 1 or runs_serially(work):
        return 1
    threads = parallel_threads()
    return threads if threads == 1 or work > _SMALL_WORK else _crowd.threads(threads)


class Kernel:
    """A task loop with one signature a dtype.

    Numba would compile again for each combination of read-only, contiguous and strided operands. Here the
    signature is given, operands are converted to it, and the compiled function is called directly: nothing is
    compiled by surprise, and no call waits for Numba to find out the types of its many operands.

    Parameters
    ----------
    serial : dispatcher
        ``serial(begin, end, *operands)`` runs tasks ``begin .. end - 1``.
    signature : callable
        The operands' Numba types, given the compute dtype's; for `reading` also given those of what is read.
    """

    def __init__(self, serial: Any, signature: Callable[..., tuple]):
        self._dispatcher, self._signature = serial, signature
        self._ready: dict[np.dtype, tuple[Callable[..., None], int]] = {}
        self._fanned: dict[np.dtype, tuple[Callable[..., float], int]] = {}
        self._reading: dict[tuple[np.dtype, ...], Kernel] = {}

    def reading(self, dtype: np.dtype, *sources: np.dtype) -> "Kernel":
        """The kernel that reads data of these dtypes and converts each element to the compute dtype."""
        if all(source == dtype for source in sources):
            return self
        found = self._reading.get(sources)
        if found is None:
            signature = partial(self._signature, sources=tuple(map(numba.from_dtype, sources)))
            found = self._reading.setdefault(sources, Kernel(self._dispatcher, signature))
        return found

    def _compile(self, dtype: np.dtype) -> tuple[Callable[..., None], int]:
        with _compiling, UsualMode():
            if dtype not in self._ready:
                loop = (types.int64, types.int64, *self._signature(numba.from_dtype(dtype)))
                self._dispatcher.compile(types.void(*loop))
                compiled = self._dispatcher.overloads[loop]
                address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
                self._ready[dtype] = compiled.entry_point, address
            return self._ready[dtype]

    def _fan_out(self, dtype: np.dtype) -> tuple[Callable[..., float], int]:
        """The kernel in parallel: its own half a second of compiling, which a process of serial calls does without."""
        with _compiling, UsualMode():
            if dtype not in self._fanned:
                operands = self._signature(numba.from_dtype(dtype))
                fanned = (*[types.int64] * 4, types.Tuple(operands))
                address = self.address(dtype)
                # A parallel loop from Numba's cache starts the pool and with it registers what it calls, but a caller
                # that was compiled against a cached loop does not: the process would end with "LLVM ERROR".
                parallel_threads()
                fan_out.compile(types.float64(*fanned))
                parallel = fan_out.overloads[fanned].entry_point
                self._fanned[dtype] = parallel, address
            return self._fanned[dtype]

    def address(self, dtype: np.dtype) -> int:
        """Where the compiled task loop is, for `fan_out.call_tasks` inside another kernel."""
        return (self._ready.get(dtype) or self._compile(dtype))[1]

    def bound(self, dtype: np.dtype, tasks: int, work: int) -> Callable[..., None]:
        """The kernel for so many tasks and operands to come: the compiled function itself where it runs serially."""
        if not runs_serially(work):
            return partial(self, dtype, tasks, work)
        serial, _ = self._ready.get(dtype) or self._compile(dtype)
        return partial(serial, 0, tasks)

    def __call__(self, dtype: np.dtype, tasks: int, work: int, *operands: Any) -> None:
        """Run ``tasks`` tasks of ``work`` multiply-accumulates in all."""
        threads = _threads(tasks, work)
        self._run(dtype, threads, tasks, work, min(tasks, _CHUNKS_PER_THREAD * threads), operands)

    def run_chunks(self, dtype: np.dtype, tasks: int, work: int, chunks: int, *operands: Any) -> None:
        """Run ``tasks`` tasks, in so many chunks or in one: for kernels whose chunks have scratch of their own."""
        self._run(dtype, _threads(tasks, work), tasks, work, chunks, operands)

    def _run(self, dtype: np.dtype, threads: int, tasks: int, work: int, chunks: int, operands: tuple) -> None:
        if threads == 1 or chunks == 1:
            serial, _ = self._ready.get(dtype) or self._compile(dtype)
            serial(0, tasks, *operands)
            return
        parallel, address = self._fanned.get(dtype) or self._fan_out(dtype)
        begin = perf_counter()
        if _crowd.most is None:
            waited = parallel(threads, tasks, chunks, address, operands)
        else:
            with only(threads):
                waited = parallel(threads, tasks, chunks, address, operands)
        if waited > 1 and work <= _SMALL_WORK:
            _crowd.waited(threads, perf_counter() - begin, waited)
