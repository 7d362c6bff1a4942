"""Subnormal values cost about what normal ones cost: no algorithm's time may depend much on what is in the arrays."""

import time

import numba
import numpy as np
import pytest

import bits
from numbaconv.backends.base import Direction
from numbaconv.backends.cpu import BACKEND

#: A problem for each algorithm, of a few milliseconds at most.
PROBLEMS = {
    "fft": "long kernel",
    "depthwise": "depthwise",
    "small_gemm": "pointwise",
    "winograd": "dense",
    "winograd_2x2": "dense",
    "patch_gemm": "dense",
    "folded_gemm": "first layer",
    "plane_gemm": "dense",
    "implicit_gemm": "dense",
    "dot_gemm": "dense",
}
#: How much more they may take, and how often a moment of noise is forgiven.
_MOST, _TRIES = 2, 4


def _least_times(calls, rounds=7):
    """The least time of each of some calls, which take turns."""
    least = [float("inf")] * len(calls)
    for _ in range(rounds):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            least[i] = min(least[i], time.perf_counter() - start)
    return least


@pytest.mark.parametrize(
    ("direction", "algorithm"),
    [
        (direction, algorithm)
        for direction, table in BACKEND.tables.items()
        for algorithm in table
        if algorithm.name != "direct"
    ],
    ids=lambda each: each.name,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_they_cost_little_more(dtype, direction, algorithm):
    """Every value of the source, and every second one, where sums go back and forth between both kinds."""
    case = bits.Case(PROBLEMS[algorithm.name], direction, algorithm)
    calls = [bits.Call(case, dtype) for _ in range(3)]
    tiny = np.finfo(dtype).tiny
    for call, every in zip(calls[1:], (1, 2), strict=True):
        source = call.g if direction is Direction.INPUT_GRAD else call.x
        source.reshape(-1)[::every] *= tiny / 64
        assert (np.abs(source) < tiny).mean() > 0.9 / every
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        for call in calls:
            call()
        for _ in range(_TRIES):
            normal, *subnormal = _least_times(calls)
            if max(subnormal) < _MOST * normal:
                return
    finally:
        numba.set_num_threads(before)
    pytest.fail(f"{subnormal} s instead of {normal} s")
