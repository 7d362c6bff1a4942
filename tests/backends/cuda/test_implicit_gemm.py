"""The matrix algorithms in Numba's simulator: each check is a process, see `simulated_gemm`."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from one_core import one_core

PROGRAM = Path(__file__).with_name("simulated_gemm.py")

#: How many comparisons each check must have made at least.
CHECKS = {
    "problems": 98,
    "dtypes": 50,
    "tiles": 24,
    "real_tile": 3,
    "bits": 12,
    "chunks": 12,
    "epilogue": 6,
    "strides": 3,
    "nan": 26,
}

#: Numba's own simulator is deprecated, and numba-cuda's is what the kernels are written for.
SIMULATOR = pytest.mark.skipif(
    find_spec("numba_cuda") is None, reason="the simulator of numba-cuda is needed: install numbaconv[test-cuda]"
)


def simulate(program, *names):
    """What a program that runs in the simulator says of some of its checks."""
    done = subprocess.run(
        [sys.executable, str(program), *names], capture_output=True, text=True, timeout=500, preexec_fn=one_core
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_check_is_listed():
    source = PROGRAM.read_text()
    assert {
        line[len("def check_") : line.index("(")] for line in source.splitlines() if line.startswith("def check_")
    } == (CHECKS.keys())


@SIMULATOR
@pytest.mark.parametrize("name", CHECKS)
def test_in_the_simulator(name):
    found = simulate(PROGRAM, name)
    assert not found["wrong"]
    assert found["compared"] >= CHECKS[name]
