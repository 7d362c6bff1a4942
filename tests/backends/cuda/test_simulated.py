"""The checks of ``simulated_*.py``, programs that run in Numba's simulator: each check is a process."""

from pathlib import Path

import pytest
from simulation import SIMULATOR, simulate

#: The programs, their checks, and how many comparisons each must have made at least.
PROGRAMS = {
    "simulated_gemm.py": {
        "problems": 98,
        "dtypes": 50,
        "tiles": 24,
        "real_tile": 3,
        "bits": 12,
        "chunks": 12,
        "epilogue": 6,
        "strides": 3,
        "nan": 26,
    },
    "simulated_depthwise.py": {
        "problems": 158,
        "dtypes": 36,
        "real_blocks": 6,
        "walks": 2,
        "bits": 9,
        "chunks": 7,
        "epilogue": 3,
        "strides": 3,
        "nan": 30,
    },
    "simulated_order.py": {
        "direct": 60,
        "depthwise_forward": 50,
        "depthwise_input": 100,
        "implicit_gemm": 24,
        "tensor_core": 18,
        "absurd": 70,
    },
    "simulated_tensor.py": {
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
    },
    "simulated_winograd.py": {
        "problems": 100,
        "layouts": 16,
        "dtypes": 24,
        "bits": 16,
        "epilogue": 15,
        "strides": 4,
        "nan": 8,
        "choice": 15,
    },
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_check_is_listed(program):
    lines = Path(__file__).with_name(program).read_text().splitlines()
    defined = {line[len("def check_") : line.index("(")] for line in lines if line.startswith("def check_")}
    assert defined == PROGRAMS[program].keys()


@SIMULATOR
@pytest.mark.parametrize(("program", "name"), [(program, name) for program in PROGRAMS for name in PROGRAMS[program]])
def test_in_the_simulator(program, name):
    found = simulate(Path(__file__).with_name(program), name)
    assert not found["wrong"]
    assert found["compared"] >= PROGRAMS[program][name]
