"""No tests: programs that run in Numba's simulator, in processes of their own."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

#: Numba's own simulator is deprecated, and numba-cuda's is what the kernels are written for.
SIMULATOR = pytest.mark.skipif(
    find_spec("numba_cuda") is None, reason="the simulator of numba-cuda is needed: install numbaconv[test-cuda]"
)


def one_core():
    """For ``preexec_fn``: the simulator's threads take turns, which takes twice as long where they change cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def simulate(program, *names):
    """What a program that runs in the simulator says of some of its checks."""
    done = subprocess.run(
        [sys.executable, str(program), *names], capture_output=True, text=True, timeout=500, preexec_fn=one_core
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
