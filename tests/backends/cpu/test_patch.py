"""Patches where channels are neighbours: what is left over of a block of channels keeps the block's distances."""

import numpy as np
import pytest

from numbaconv.backends.base import Direction
from problems import Problem, expected, operands, run_last


@pytest.mark.parametrize(
    "problem",
    [
        Problem((8, 9), (7, 7), batch=2, c_in=16, c_out=16, pads=((3, 3), (3, 3))),  # blocks of 5 channels
        Problem((30,), (100,), c_in=5, c_out=3, pads=((60, 50),)),  # of 2
        Problem((8, 8), (7, 7), c_in=7, c_out=672, pads=((1, 0), (0, 1))),  # of 3, by the size of WEIGHT_GRAD's sums
    ],
)
@pytest.mark.parametrize("direction", Direction)
def test_one_channel_is_left_over(direction, problem):
    x, w, g = operands(problem, np.random.default_rng(90), np.float32, largest=3)
    answer = run_last(direction, problem, x, w, g, algorithm="patch_gemm")
    np.testing.assert_array_equal(answer, expected(direction, problem, x, w, g))
