"""The depthwise algorithm in Numba's simulator: each check is a process, see `simulated_depthwise`."""

from pathlib import Path

import pytest
from test_implicit_gemm import SIMULATOR, simulate

PROGRAM = Path(__file__).with_name("simulated_depthwise.py")

#: How many comparisons each check must have made at least.
CHECKS = {
    "problems": 140,
    "dtypes": 36,
    "real_blocks": 6,
    "walks": 2,
    "bits": 9,
    "chunks": 7,
    "epilogue": 3,
    "strides": 3,
    "nan": 30,
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
