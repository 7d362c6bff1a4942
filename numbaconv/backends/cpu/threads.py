"""When a kernel may run in parallel.

Numba's threading layers differ in what kills the process:

================ ================================= ===================== =====================
layer            after ``fork()``                  calls from 2 threads  call inside a prange
================ ================================= ===================== =====================
omp (GNU)        the child is killed               fine                  fine (runs serially)
tbb              may hang, if it was busy          fine                  fine
workqueue        fine                              the process aborts    the process aborts
================ ================================= ===================== =====================

Where a layer would kill, kernels run serially, with the same bits. Under workqueue that is: always, unless
this is the process's only Python thread. A thread that Numba started and that entered Python (object mode
inside a user's ``prange``) counts as one, so a nested call is never mistaken for a lone one.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numba

from ...errors import BackendError
from ..float_mode import UsualMode
from .tbb import remedy

__all__ = ["only", "parallel_threads"]

#: How often a thread of GNU's OpenMP looks for work before it sleeps: 0.2 to 0.5 ms, instead of its 300,000 times,
#: 10 ms, for which it keeps a core from those that have work.
_SPINS = "10000"
#: The variables by which users say that.
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")

_forked_with_pool = False


def _pool_started() -> bool:
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    return bool(getattr(parallel, "_is_initialized", False))


def _after_fork_in_child() -> None:
    global _forked_with_pool
    _forked_with_pool = _forked_with_pool or _pool_started()


def _lost_its_pool() -> bool:
    """Whether the pool was started before this module was imported, in a parent process.

    The hook above was not registered then. A pool has threads of its own, a forked child has one thread.
    """
    try:
        native = len(os.listdir("/proc/self/task"))
    except OSError:
        return False
    return _pool_started() and native == 1 and numba.config.NUMBA_NUM_THREADS > 1


if hasattr(os, "register_at_fork"):
    _forked_with_pool = _lost_its_pool()
    os.register_at_fork(after_in_child=_after_fork_in_child)


@contextmanager
def _spinning_less() -> Iterator[None]:
    """A block in which the environment says how long threads spin, unless the user has said it.

    GNU's OpenMP reads that once, as it is loaded.
    """
    if any(name in os.environ for name in _WAITING):
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = _SPINS
    try:
        yield
    finally:
        os.environ.pop("GOMP_SPINCOUNT", None)


def _start_pool() -> int:
    """Start the pool, and return how many threads it may use."""
    with UsualMode(), _spinning_less():
        threads: int = numba.get_num_threads()
    return threads


@contextmanager
def _masked(threads: int, before: int) -> Iterator[None]:
    numba.set_num_threads(threads)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def only(threads: int) -> AbstractContextManager[None]:
    """A block in which parallel loops use so many threads."""
    before = numba.get_num_threads()
    return nullcontext() if threads >= before else _masked(threads, before)


def parallel_threads() -> int:
    """How many threads a kernel may use now; 1 means that it must be called serially."""
    if numba.config.NUMBA_NUM_THREADS == 1:
        # The pool would have nothing to do, and on one core tbb's keeps the process from ending where a thread other
        # than the main one started it.
        return 1
    if _forked_with_pool and numba.threading_layer() != "workqueue":
        return 1
    try:
        threads: int = numba.get_num_threads() if _pool_started() else _start_pool()
    except ValueError as error:
        found = remedy() if "TBB" in str(error) else None
        raise BackendError(f"backend 'cpu': {error}{f'; {found}' if found else ''}") from error
    if threads == 1:
        return 1
    if numba.threading_layer() == "workqueue":
        lone = threading.active_count() == 1 and not isinstance(threading.current_thread(), threading._DummyThread)
        return threads if lone else 1
    return threads
