"""Named paddings: TensorFlow's SAME, its mirror image, causal and valid, against counting."""

import numpy as np
import pytest

import numbaconv
from numbaconv import output_shape, plan_conv
from problems import BACKENDS, draw


@pytest.mark.parametrize("n", [1, 4, 5, 7])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same(n, kernel, stride, dilation):
    arguments = {"stride": stride, "dilation": dilation}
    for name in ("same", "same_lower"):
        plan = plan_conv((1, 1, n), (1, 1, kernel), padding=name, **arguments)
        (axis,) = plan.axes
        assert axis.output == -(-n // stride)
        small, large = sorted((axis.pad_before, axis.pad_after))
        assert large - small <= 1
        assert (axis.pad_before, axis.pad_after) == ((small, large) if name == "same" else (large, small))
        # No less padding would do.
        assert small + large == 0 or (axis.output - 1) * stride + axis.extent == n + small + large


def test_same_as_tensorflow_documents_it():
    """tf.nn's note on padding: 13 cells, kernel 6, stride 5 are padded by 1 before and 2 after."""
    (axis,) = plan_conv((1, 1, 13), (1, 1, 6), stride=5, padding="SAME").axes
    assert (axis.pad_before, axis.pad_after, axis.output) == (1, 2, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_causal_never_looks_ahead(backend):
    rng = np.random.default_rng(1)
    x, w = draw(rng, (1, 2, 20), np.float64, 4), draw(rng, (3, 2, 3), np.float64, 4)
    arguments = {"dilation": 4, "padding": "causal", "backend": backend}
    y = numbaconv.conv1d(x, w, **arguments)
    assert y.shape == (1, 3, 20)
    for t in range(20):
        later = x.copy()
        later[..., t + 1 :] = 99
        np.testing.assert_array_equal(numbaconv.conv1d(later, w, **arguments)[..., : t + 1], y[..., : t + 1])


def test_causal_stride():
    assert output_shape((1, 1, 9), (1, 1, 4), stride=2, padding="causal") == (1, 1, 5)


def test_valid_is_no_padding():
    assert plan_conv((1, 1, 9), (1, 1, 4), padding="valid") == plan_conv((1, 1, 9), (1, 1, 4))


def test_forms_of_integers():
    shapes = ((1, 1, 9, 9), (1, 1, 3, 3))
    one = plan_conv(*shapes, padding=1)
    for same in ((1,), (1, 1), ((1, 1), (1, 1)), [1, 1], np.array([1, 1]), np.int64(1), np.array(1)):
        assert plan_conv(*shapes, padding=same) == one
    assert plan_conv(*shapes, stride=[2, 1]).output_shape == (1, 1, 4, 7)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular", "symmetric"])
@pytest.mark.parametrize("name", ["same", "causal"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_names_with_modes(mode, name, backend):
    rng = np.random.default_rng(2)
    x, w = draw(rng, (1, 2, 7), np.float64, 4), draw(rng, (3, 2, 4), np.float64, 4)
    pads = {"same": (1, 2), "causal": (3, 0)}[name]
    numpy_mode = {"replicate": "edge", "circular": "wrap"}.get(mode, mode)
    padded = np.pad(x, ((0, 0), (0, 0), pads), mode=numpy_mode)
    np.testing.assert_array_equal(
        numbaconv.conv1d(x, w, padding=name, padding_mode=mode, backend=backend),
        numbaconv.conv1d(padded, w, backend=backend),
    )
