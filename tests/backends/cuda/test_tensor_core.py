"""The tensor core algorithms in Numba's simulator: each check is a process, see `simulated_tensor`."""

from pathlib import Path

import pytest
from test_implicit_gemm import SIMULATOR, simulate

PROGRAM = Path(__file__).with_name("simulated_tensor.py")

#: How many comparisons each check must have made at least.
CHECKS = {
    "problems": 58,
    "kinds": 24,
    "tiles": 9,
    "most_sums": 4,
    "chunks": 4,
    "bits": 14,
    "errors": 14,
    "shallow": 4,
    "extremes": 226,
    "split": 601,
    "nan": 16,
    "epilogue": 12,
    "choice": 8,
    "banks": 48,
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
