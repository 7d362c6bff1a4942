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

import numba

from ...errors import BackendError
from .tbb import remedy

__all__ = ["parallel_threads"]

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


def parallel_threads() -> int:
    """How many threads a kernel may use now; 1 means that it must be called serially."""
    if numba.config.NUMBA_NUM_THREADS == 1:
        # The pool would have nothing to do, and on one core tbb's keeps the process from ending where a thread other
        # than the main one started it.
        return 1
    if _forked_with_pool and numba.threading_layer() != "workqueue":
        return 1
    try:
        threads: int = numba.get_num_threads()  # starts the pool if nothing has
    except ValueError as error:
        found = remedy() if "TBB" in str(error) else None
        raise BackendError(f"backend 'cpu': {error}{f'; {found}' if found else ''}") from error
    if threads == 1:
        return 1
    if numba.threading_layer() == "workqueue":
        lone = threading.active_count() == 1 and not isinstance(threading.current_thread(), threading._DummyThread)
        return threads if lone else 1
    return threads
