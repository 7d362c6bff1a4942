"""No tests: threads of the simulator that take turns, each running up to the next barrier (``pytest -p turns``).

Numba's simulator polls its threads, all of which compete for the interpreter: a barrier takes it half a millisecond a
thread. With one lock a thread it takes ten microseconds. And each thread runs alone to the next barrier, first to last
and then last to first: what another one was to bring and did not yet, because there is no barrier, is found missing.
Which of the two comes first changes from block to block.
"""

import threading
from itertools import count

import numpy as np
from numba.cuda.simulator import kernel as simulator

__all__ = ["take_turns"]


_BLOCKS = count()


def _synchronize(thread):
    thread._manager.back.release()
    thread.turn.acquire()
    if thread.abort:
        raise RuntimeError("another thread of the block raised")


def _run_block(manager, grid_point, *arguments):
    manager.back = threading.Semaphore(0)
    threads = []
    for place in np.ndindex(*manager._block_dim):

        def target():
            thread = threading.current_thread()
            thread.turn.acquire()
            try:
                if not thread.abort:
                    manager._f(*arguments)
            finally:
                thread.ended = True
                manager.back.release()

        thread = simulator.BlockThread(target, manager, grid_point, place, manager._debug)
        thread.turn, thread.ended = threading.Semaphore(0), False
        threads.append(thread)
        thread.start()
    alive = threads[:: 1 if next(_BLOCKS) % 2 else -1]
    while alive:
        for thread in alive:
            thread.turn.release()
            manager.back.acquire()
            if thread.ended:
                thread.join()
                if thread.exception is not None:
                    for other in threads:
                        other.abort = True
        alive = [thread for thread in alive[::-1] if not thread.ended]
    for thread in threads:
        if thread.exception is not None:
            raise thread.exception[0].with_traceback(thread.exception[1])


def take_turns():
    """Let the simulator's threads take turns from now on."""
    simulator.BlockThread.syncthreads = _synchronize
    simulator.BlockManager.run = _run_block


def pytest_configure():
    take_turns()
