"""The conformance tests again, for the CUDA backend in Numba's simulator, in a process of its own.

Whether there is a simulator is decided when Numba is imported. The problems are those of the other backends, up to a
size; every thread is one of the interpreter's there. Where the extra is installed (``NUMBACONV_TEST_CUDA=1`` says that
it must be), larger problems are visited than with the simulator that some releases of Numba bring themselves.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
#: The tests of each part, and how many must at least have passed.
PARTS = {
    "exact": (["conformance/test_exact.py"], "", 100),
    "bounds": (["conformance/test_bounds.py"], "float32 or complex64 or nan or half or residual", 60),
    "others": (
        ["conformance/test_transposed.py", "conformance/test_random.py", "test_activation.py"],
        # What a function returns is found by compiling, which the simulator does not do.
        "not (random_transposed or derivative_must_fit or output_size_is or same_is_input)",
        60,
    ),
    "arrays": (["backends/cuda/in_simulator.py"], "", 20),
}


def required():
    return os.environ.get("NUMBACONV_TEST_CUDA") == "1"


def has_numba_cuda():
    return find_spec("numba_cuda") is not None


def test_the_extra_is_installed_where_it_must_be():
    if required():
        assert has_numba_cuda(), 'numba-cuda is missing: pip install -e ".[test,cu13]"'


@pytest.mark.parametrize("part", PARTS)
def test_in_the_simulator(part):
    files, chosen, least = PARTS[part]
    environment = {
        **os.environ,
        "NUMBA_ENABLE_CUDASIM": "1",
        "NUMBACONV_TEST_BACKENDS": "cuda",
        "NUMBACONV_TEST_LARGEST": "600000" if required() else "60000",
        "NUMBACONV_TEST_EXAMPLES": "150" if required() else "30",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning"]
    command += [str(TESTS / file) for file in files] + (["-k", chosen] if chosen else [])
    done = subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    summary = done.stdout.strip().splitlines()[-1]
    assert "skipped" not in summary, summary
    assert int(summary.split(" passed")[0].split()[-1]) >= least // (1 if required() else 2), summary
