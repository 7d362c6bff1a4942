"""The networks of ``examples/networks`` in PyTorch: the same steps, the same weights, the same output."""

import numpy as np
import pytest

from engines import Numbaconv, Torch
from program import TOLERANCE
from test_example_networks import SMALL, small

torch = pytest.importorskip("torch", minversion="2.0")


@pytest.mark.parametrize("name", SMALL)
def test_like_torch(name):
    torch.set_num_threads(1)
    network = small(name)
    weights = network.weights(3)
    x = np.random.default_rng(4).standard_normal((2, *network.steps[0].shape), np.float32)
    y, other = network.run(Numbaconv(), weights, x), network.run(Torch(), weights, x)
    assert abs(y - other).max() <= TOLERANCE * abs(other).max()
