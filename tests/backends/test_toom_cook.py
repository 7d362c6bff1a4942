"""The matrices of minimal filtering: that they filter."""

import numpy as np
import pytest

from numbaconv.backends import toom_cook


@pytest.mark.parametrize(("outputs", "taps"), [(2, 3), (4, 3), (3, 2), (3, 4), (2, 5)])
def test_matrices_filter(outputs, taps):
    back, weight, data = toom_cook.matrices(outputs, taps)
    rng = np.random.default_rng(3)
    cells, kernel = rng.standard_normal(outputs + taps - 1), rng.standard_normal(taps)
    found = back @ ((weight @ kernel) * (data @ cells))
    np.testing.assert_allclose(found, np.correlate(cells, kernel), rtol=0, atol=1e-13)
