"""No tests: how programs are started that run in Numba's simulator."""

import os


def one_core():
    """For ``preexec_fn``: the simulator's threads take turns, which takes twice as long where they change cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
