"""unfold and fold: against sliding windows, as adjoints, and as im2col for a matrix product."""

import numpy as np
import pytest

import numbaconv
import oracle
from problems import draw

CASES = [
    ((2, 3, 9), (3,), {}),
    ((2, 3, 9), (3,), {"stride": 2, "padding": 2, "dilation": 2}),
    ((1, 2, 6, 7), (2, 3), {"stride": (2, 1), "padding": ((1, 0), (0, 2))}),
    ((2, 2, 5, 6), (3, 3), {"padding": "same", "stride": 2}),
    ((1, 2, 4, 5, 3), (2, 2, 2), {"stride": (1, 2, 1), "padding": 1, "dilation": (2, 1, 1)}),
    ((0, 2, 5), (2,), {}),
    ((1, 2, 3), (1,), {"padding": 4, "stride": 3}),
]


def gathered(x, kernel, **geometry):
    """Columns, one convolution with a one-hot weight a row."""
    taps, channels = int(np.prod(kernel)), x.shape[1]
    w = np.eye(channels * taps).reshape(channels * taps, channels, *kernel)
    y = numbaconv.conv(x, w, backend="reference", **geometry)
    return y.reshape(*y.shape[:2], int(np.prod(y.shape[2:])))


@pytest.mark.parametrize(("shape", "kernel", "geometry"), CASES)
def test_unfold(shape, kernel, geometry):
    x = draw(np.random.default_rng(51), shape, np.float64, 9)
    np.testing.assert_array_equal(numbaconv.unfold(x, kernel, **geometry), gathered(x, kernel, **geometry))


@pytest.mark.parametrize(("shape", "kernel", "geometry"), CASES)
def test_fold_is_adjoint(shape, kernel, geometry):
    rng = np.random.default_rng(52)
    x = draw(rng, shape, np.float64, 9)
    columns = numbaconv.unfold(x, kernel, **geometry)
    c = draw(rng, columns.shape, np.float64, 9)
    back = numbaconv.fold(c, shape[2:], kernel, **geometry)
    assert back.shape == x.shape
    assert np.vdot(columns, c) == np.vdot(x, back)


def test_matrix_product_of_columns_is_the_convolution():
    rng = np.random.default_rng(53)
    x, w = draw(rng, (2, 3, 8, 7), np.float64, 4), draw(rng, (5, 3, 3, 2), np.float64, 4)
    columns = numbaconv.unfold(x, (3, 2), stride=2, padding=1)
    y = (w.reshape(5, -1) @ columns).reshape(2, 5, 4, 4)
    arguments = {"stride": (2, 2), "dilation": (1, 1), "groups": 1, "pads": ((1, 1), (1, 1)), "modes": ("zeros",) * 2}
    np.testing.assert_array_equal(y, oracle.forward(x, w, **arguments))


def test_without_a_batch_axis():
    x = np.arange(2 * 4 * 5.0).reshape(2, 4, 5)
    columns = numbaconv.unfold(x, 2)
    np.testing.assert_array_equal(columns, numbaconv.unfold(x[None], 2)[0])
    np.testing.assert_array_equal(numbaconv.fold(columns, (4, 5), 2), numbaconv.fold(columns[None], (4, 5), 2)[0])


def test_a_single_integer_is_a_rank():
    assert numbaconv.unfold(np.zeros((1, 2, 4, 5)), 2).shape == (1, 8, 12)
    assert numbaconv.unfold(np.zeros((1, 2, 3, 4, 5)), 2).shape == (1, 16, 24)
    assert numbaconv.unfold(np.zeros((1, 2, 5)), (2,)).shape == (1, 4, 4)


def test_dtypes():
    x = np.ones((1, 1, 4), np.int8)
    columns = numbaconv.unfold(x, (2,))
    assert columns.dtype == np.int8
    folded = numbaconv.fold(np.full((1, 2, 3), 100, np.int8), (4,), (2,))
    assert folded.dtype == np.int32
    np.testing.assert_array_equal(folded, [[[100, 200, 200, 100]]])
    half = np.full((1, 2048, 1), 1, np.float16)
    np.testing.assert_array_equal(numbaconv.fold(half, (2048,), (2048,)).dtype, np.float16)


def test_what_is_summed_has_the_accumulators_dtype():
    """NumPy warns of overflow; warnings are errors here."""
    np.testing.assert_array_equal(numbaconv.fold(np.full((1, 2, 3), 2**40, np.uint64), (4,), (2,))[0, 0, 1], 2**41)
    assert numbaconv.fold(np.ones((1, 2, 3), np.uint64), (4,), (2,)).dtype == np.uint64
    large = numbaconv.fold(np.full((1, 2, 3), 3e38, np.float32), (4,), (2,))
    np.testing.assert_array_equal(np.isinf(large), [[[False, True, True, False]]])
    assert np.isnan(numbaconv.fold(np.array([[[0, np.inf], [-np.inf, 0]]]), (3,), (2,))[0, 0, 1])
