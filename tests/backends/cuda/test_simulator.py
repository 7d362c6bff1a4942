"""The conformance tests again, for the CUDA backend in Numba's simulator, in processes of their own.

Whether there is a simulator is decided when Numba is imported. Every thread is one of the interpreter's there, so that
problems are visited up to a cost: ``direct`` computes all of those, the other algorithms, which have their own tests
beside this file, what is small enough for their tiles. With ``NUMBACONV_REQUIRE_CUDA`` set the extra must be there.
Else the simulator that some releases of Numba bring themselves will do for one part of the tests; where device
functions of several files wait at barriers, it loses track of what they see as ``cuda``.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from simulation import SIMULATOR, one_core

from numbaconv.backends.cuda import BACKEND

TESTS = Path(__file__).parents[2]
REQUIRED = bool(os.environ.get("NUMBACONV_REQUIRE_CUDA"))
#: The tests of each part of ``direct``, which of them, how many must at least have passed, and the cost up to which
#: problems are visited.
PARTS = {
    "exact": (["conformance/test_exact.py"], "", 90, 300_000),
    "bounds": (["conformance/test_bounds.py"], "float32 or nan or half or residual", 40, 300_000),
    "others": (
        [
            "conformance/test_transposed.py",
            "conformance/test_random.py",
            "conformance/test_folded.py",
            "test_activation.py",
        ],
        # What a function returns is found by compiling, which the simulator does not do.
        "not (random_transposed or derivative_must_fit or output_size_is or same_is_input)",
        60,
        600_000,
    ),
    "arrays": (["backends/cuda/in_simulator.py", "backends/cuda/in_simulator_again.py"], "", 60, 600_000),
}
OTHERS = sorted({each.name for table in BACKEND.tables.values() for each in table} - {"direct"})


def simulate(files, chosen, cost, algorithms):
    """Run tests in the simulator; the summary's last line, and how many passed."""
    environment = {
        **os.environ,
        "NUMBA_ENABLE_CUDASIM": "1",
        "NUMBACONV_TEST_BACKENDS": "cuda",
        "NUMBACONV_TEST_ALGORITHMS": algorithms,
        "NUMBACONV_TEST_LARGEST": str(cost),
        "NUMBACONV_TEST_EXAMPLES": "100",
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        ),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "turns",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore::RuntimeWarning",
    ]
    command += [str(TESTS / file) for file in files] + (["-k", chosen] if chosen else [])
    done = subprocess.run(
        command,
        env=environment,
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        preexec_fn=one_core,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    summary = done.stdout.strip().splitlines()[-1]
    assert "skipped" not in summary, summary
    return summary, int(summary.split(" passed")[0].split()[-1])


def test_the_extra_is_installed_where_it_must_be():
    if REQUIRED:
        assert find_spec("numba_cuda"), 'numba-cuda is missing: pip install -e ".[test-cuda]"'


@pytest.mark.parametrize("part", [part if part == "exact" else pytest.param(part, marks=SIMULATOR) for part in PARTS])
def test_direct(part):
    files, chosen, least, cost = PARTS[part]
    summary, passed = simulate(files, chosen, cost, "direct")
    assert passed >= least, summary


@SIMULATOR
def test_the_other_algorithms():
    for name in OTHERS:
        summary, passed = simulate(["conformance/test_exact.py"], "every_problem", 25_000, name)
        assert passed >= 10, summary
