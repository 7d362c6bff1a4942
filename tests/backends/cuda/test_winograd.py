"""The Winograd algorithms in Numba's simulator: each check is a process, see `simulated_winograd`."""

from pathlib import Path

import numpy as np
import pytest
from test_implicit_gemm import SIMULATOR, simulate

from numbaconv.backends import toom_cook

PROGRAM = Path(__file__).with_name("simulated_winograd.py")

#: How many comparisons each check must have made at least.
CHECKS = {
    "problems": 108,
    "layouts": 16,
    "dtypes": 24,
    "bits": 16,
    "epilogue": 15,
    "strides": 4,
    "nan": 8,
    "choice": 15,
}


def test_every_check_is_listed():
    source = PROGRAM.read_text()
    assert {
        line[len("def check_") : line.index("(")] for line in source.splitlines() if line.startswith("def check_")
    } == CHECKS.keys()


@SIMULATOR
@pytest.mark.parametrize("name", CHECKS)
def test_in_the_simulator(name):
    found = simulate(PROGRAM, name)
    assert not found["wrong"]
    assert found["compared"] >= CHECKS[name]


@pytest.mark.parametrize(("outputs", "taps"), [(2, 3), (4, 3), (3, 2), (3, 4), (2, 5)])
def test_matrices_filter(outputs, taps):
    back, weight, data = toom_cook.matrices(outputs, taps)
    rng = np.random.default_rng(3)
    cells, kernel = rng.standard_normal(outputs + taps - 1), rng.standard_normal(taps)
    found = back @ ((weight @ kernel) * (data @ cells))
    np.testing.assert_allclose(found, np.correlate(cells, kernel), rtol=0, atol=1e-13)
