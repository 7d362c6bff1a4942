"""Depthwise and depthwise-separable convolutions: groups, multipliers, both layouts of the weights."""

import numpy as np
import pytest

import numbaconv
from problems import BACKENDS, draw


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request):
    with numbaconv.use_backend(request.param):
        yield request.param


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("multiplier", [1, 2, 3])
def test_depthwise_is_groups(rank, multiplier):
    rng = np.random.default_rng(61)
    x = draw(rng, (2, 4, 6, 5, 4)[: rank + 2], np.float64, 4)
    w = draw(rng, (4 * multiplier, 1, 3, 2, 3)[: rank + 2], np.float64, 4)
    b = draw(rng, (4 * multiplier,), np.float64, 4)
    arguments = {"stride": 2, "padding": 1, "dilation": 1, "padding_mode": "replicate", "activation": "relu"}
    y = getattr(numbaconv, f"depthwise_conv{rank}d")(x, w, b, **arguments)
    np.testing.assert_array_equal(y, numbaconv.conv(x, w, b, groups=4, **arguments))
    np.testing.assert_array_equal(y, numbaconv.depthwise_conv(x, w, b, **arguments))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_keras_weights(rank):
    """(*kernel, C, multiplier) and (*kernel, 1, C * multiplier) hold the same elements in the same order."""
    rng = np.random.default_rng(62)
    x = draw(rng, (2, *(6, 5, 4)[:rank], 3), np.float64, 4)
    keras = draw(rng, (*(3, 2, 3)[:rank], 3, 2), np.float64, 4)
    function = getattr(numbaconv, f"depthwise_conv{rank}d")
    y = function(x, keras, data_format="channels_last", padding="same")
    grouped = keras.reshape(*keras.shape[:-2], 1, 6)
    np.testing.assert_array_equal(y, function(x, grouped, data_format="channels_last", padding="same"))
    for c in range(3):  # output channel c * multiplier + m is input channel c with filter [..., c, m]
        for m in range(2):
            alone = numbaconv.conv(
                x[..., [c]], keras[..., [c], :][..., [m]], data_format="channels_last", padding="same"
            )
            np.testing.assert_array_equal(y[..., c * 2 + m], alone[..., 0])


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("last", [False, True])
def test_separable_is_two_steps(rank, last):
    rng = np.random.default_rng(63)
    x = draw(rng, (2, 3, 7, 5, 4)[: rank + 2], np.float64, 3)
    depthwise = draw(rng, (6, 1, 3, 2, 2)[: rank + 2], np.float64, 3)
    pointwise = draw(rng, (5, 6, *(1,) * rank), np.float64, 3)
    b = draw(rng, (5,), np.float64, 3)
    geometry = {"stride": 2, "padding": 1, "padding_mode": "reflect"}
    middle = numbaconv.conv(x, depthwise, groups=3, **geometry)
    wanted = numbaconv.conv(middle, pointwise, b)
    residual = draw(rng, wanted.shape, np.float64, 9)
    wanted = np.maximum(wanted + residual, 0)
    function = getattr(numbaconv, f"separable_conv{rank}d")
    if last:
        x, residual = np.moveaxis(x, 1, -1), np.moveaxis(residual, 1, -1)
        depthwise, pointwise = (np.moveaxis(w, (0, 1), (-1, -2)) for w in (depthwise, pointwise))
        geometry["data_format"] = "channels_last"
        wanted = np.moveaxis(wanted, 1, -1)
    out = np.full(wanted.shape, np.nan)
    y = function(x, depthwise, pointwise, b, residual=residual, activation="relu", out=out, **geometry)
    assert y is out
    np.testing.assert_array_equal(y, wanted)
    alone = function(x[0], depthwise, pointwise, **geometry)
    np.testing.assert_array_equal(alone, function(x, depthwise, pointwise, **geometry)[0])


def test_an_error_of_the_second_step_comes_before_the_first():
    x, depthwise, pointwise = np.ones((1, 2, 5, 5)), np.ones((2, 1, 3, 3)), np.ones((4, 2, 1, 1))
    out = np.full((1, 4, 3, 3), 7.0)
    with pytest.raises(numbaconv.ShapeError, match=r"separable_conv2d: bias has shape \(3,\)"):
        numbaconv.separable_conv2d(x, depthwise, pointwise, np.ones(3), out=out)
    assert (out == 7).all()
