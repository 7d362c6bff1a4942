"""Activations: values against definitions in NumPy, derivatives, the user's own functions, both backends."""

import math

import numba
import numpy as np
import pytest
from scipy import special

import numbaconv
from numbaconv import grad
from numbaconv.backends.activations import ACTIVATIONS
from problems import BACKENDS

#: Each activation and its derivative, written with NumPy and SciPy in float64.
DEFINITIONS = {
    "relu": (lambda v: np.maximum(v, 0), lambda v: (v > 0) * 1.0),
    "relu6": (lambda v: np.clip(v, 0, 6), lambda v: ((v > 0) & (v < 6)) * 1.0),
    "leaky_relu": (lambda v: np.where(v > 0, v, 0.01 * v), lambda v: np.where(v > 0, 1, 0.01)),
    "silu": (
        lambda v: v * special.expit(v),
        lambda v: special.expit(v) * (1 + v * (1 - special.expit(v))),
    ),
    "gelu": (
        lambda v: v * special.ndtr(v),
        lambda v: special.ndtr(v) + v * np.exp(-(v**2) / 2) / math.sqrt(2 * math.pi),
    ),
    "tanh": (np.tanh, lambda v: 1 - np.tanh(v) ** 2),
    "sigmoid": (special.expit, lambda v: special.expit(v) * special.expit(-v)),
    "hardswish": (
        lambda v: v * np.clip(v + 3, 0, 6) / 6,
        lambda v: np.where(v <= -3, 0, np.where(v >= 3, 1, (2 * v + 3) / 6)),
    ),
}

VALUES = np.concatenate([np.linspace(-9, 9, 181), [-200, -88.5, -38.2, 38.2, 88.5, 200, -1e30, 1e30, 0.0]])
ONE = np.ones((1, 1, 1))


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request):
    with numbaconv.use_backend(request.param):
        yield request.param


def close(found, wanted, dtype):
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(found, wanted, rtol=16 * eps, atol=4 * eps)


def test_every_activation_is_defined_here():
    assert DEFINITIONS.keys() == ACTIVATIONS.keys()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", DEFINITIONS)
def test_values(name, dtype):
    x = VALUES.astype(dtype)[None, None]
    y = numbaconv.conv1d(x, ONE.astype(dtype), activation=name)
    assert y.dtype == dtype
    close(y, DEFINITIONS[name][0](x.astype(np.float64)), dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", DEFINITIONS)
def test_derivatives(name, dtype):
    v = VALUES.astype(dtype)[None, None]
    g = np.linspace(-2, 2, v.size, dtype=dtype).reshape(v.shape)
    wanted = g.astype(np.float64) * DEFINITIONS[name][1](v.astype(np.float64))
    found = grad.conv1d_input(v.shape, ONE.astype(dtype), g, activation=name, pre_activation=v)
    assert found.dtype == dtype
    # A derivative is a difference of values near 1.
    rtol = 2e-4 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=32 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", ["relu", "relu6", "leaky_relu", "tanh", "sigmoid"])
def test_derivatives_from_the_output(name):
    x = np.linspace(-4, 7, 50)[None, None]
    y = numbaconv.conv1d(x, ONE, activation=name)
    by_output = grad.conv1d_input(x.shape, ONE, np.ones_like(x), activation=name, output=y)
    by_input = grad.conv1d_input(x.shape, ONE, np.ones_like(x), activation=name, pre_activation=x)
    np.testing.assert_allclose(by_output, by_input, rtol=1e-10, atol=1e-15)


def test_nan_is_kept():
    x = np.array([[[np.nan, 1.0]]])
    for name in ACTIVATIONS:
        y = numbaconv.conv1d(x, ONE, activation=name)
        assert np.isnan(y[0, 0, 0]), name
        assert not np.isnan(y[0, 0, 1]), name


def softsign(v):
    return v / (1 + abs(v))


def softsign_derivative(v):
    return 1 / (1 + abs(v)) ** 2


@pytest.mark.parametrize("function", [softsign, numba.njit(softsign), lambda v: v / (1 + abs(v))])
def test_a_function_of_ones_own(function):
    rng = np.random.default_rng(41)
    x, w, b, r = (rng.standard_normal(shape) for shape in ((2, 3, 9), (4, 3, 3), (4,), (2, 4, 7)))
    plain = numbaconv.conv1d(x, w, b) + r
    y = numbaconv.conv1d(x, w, b, residual=r, activation=function)
    np.testing.assert_allclose(y, plain / (1 + abs(plain)), rtol=1e-14)
    np.testing.assert_array_equal(y, numbaconv.conv1d(x, w, b, residual=r, activation=(function, softsign_derivative)))


def test_the_gradient_of_a_function_of_ones_own():
    rng = np.random.default_rng(42)
    x, w, b = rng.standard_normal((2, 3, 9)), rng.standard_normal((4, 3, 3)), rng.standard_normal(4)
    pre = numbaconv.conv1d(x, w, b)
    g = rng.standard_normal(pre.shape)
    scaled = g / (1 + abs(pre)) ** 2
    found = grad.conv1d_backward(g, x, w, activation=(softsign, softsign_derivative), pre_activation=pre)
    wanted = grad.conv1d_backward(scaled, x, w)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    single = grad.conv1d_weight(x, w.shape, g, activation=(softsign, softsign_derivative), pre_activation=pre)
    np.testing.assert_array_equal(single, found.weight)
    np.testing.assert_array_equal(
        grad.conv1d_bias(g, activation=(softsign, softsign_derivative), pre_activation=pre), found.bias
    )


def test_complex_function():
    x = np.array([[[1 + 2j, -3j, 2]]])
    y = numbaconv.conv1d(x, ONE, activation=lambda v: v * v)
    np.testing.assert_allclose(y, x * x)


@pytest.mark.parametrize("name", ["relu", "relu6"])
def test_integers(name):
    x = np.array([[[-5, 3, 9]]], np.int8)
    y = numbaconv.conv1d(x, np.ones((1, 1, 1), np.int8), activation=name)
    assert y.dtype == np.int32
    np.testing.assert_array_equal(y, DEFINITIONS[name][0](x))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_order_is_bias_residual_activation(rank):
    x, w, one = np.ones((1, 1, *(2,) * rank)), np.ones((1, 1, *(2,) * rank)), np.ones((1, 1, *(1,) * rank))
    function = getattr(numbaconv, f"conv{rank}d")
    y = function(x, w, np.array([-20.0]), residual=14.5 * one, activation="relu")
    np.testing.assert_array_equal(y, max(2**rank - 5.5, 0) * one)


def fussy(v):
    if v > 3:
        raise ValueError("too large")
    return v


jitted_fussy = numba.njit(fussy)


@pytest.mark.parametrize("function", [fussy, numba.njit(fussy), numba.njit(lambda v: jitted_fussy(v) + v)])
def test_an_exception_inside_a_kernel_is_one_here(function):
    x = np.arange(2000.0).reshape(1, 1, -1)
    for rows in (1, 40):  # serial, and parallel where there are threads
        with pytest.raises(ValueError, match=r"raised? an exception|too large"):
            numbaconv.conv1d(np.repeat(x, rows, axis=0), np.ones((40, 1, 3)), activation=function)


@pytest.mark.parametrize("function", [np.tanh, abs])
def test_ufuncs_and_builtins(function):
    x = np.linspace(-2, 2, 9)[None, None]
    np.testing.assert_allclose(numbaconv.conv1d(x, ONE, activation=function), function(x), rtol=1e-15)


def test_a_keyword_that_no_gradient_has():
    says = r"conv1d_input\(\) got unexpected keyword argument 'output_size' \(conv_transpose1d takes it\)"
    with pytest.raises(TypeError, match=says):
        grad.conv1d_input((1, 1, 3), ONE, np.ones((1, 1, 3)), output_size=3)


def test_complex_derivatives_are_conjugated():
    """d|f|^2 by central differences in the real and imaginary part of each input."""
    rng = np.random.default_rng(43)
    x, w = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape) for shape in ((1, 1, 4), (2, 1, 2)))
    activation = (lambda v: v * v, lambda v: 2 * v)

    def loss(x):
        return (abs(numbaconv.conv1d(x, w, activation=activation)) ** 2).sum()

    pre = numbaconv.conv1d(x, w)
    g = 2 * pre * pre
    found = grad.conv1d_input(x.shape, w, g, activation=activation, pre_activation=pre)
    for i in range(4):
        for unit in (1, 1j):
            step = np.zeros_like(x)
            step[0, 0, i] = 1e-6 * unit
            slope = (loss(x + step) - loss(x - step)) / 2e-6
            np.testing.assert_allclose(slope, (np.conj(unit) * found[0, 0, i]).real, rtol=1e-6)


def test_a_derivative_must_fit_the_dtype():
    ones = np.ones((1, 1, 4), np.int64)
    options = {"activation": (lambda v: v, lambda v: 0.5), "pre_activation": ones}
    with pytest.raises(numbaconv.DTypeError, match=r"derivative .* maps int64 to float64"):
        grad.conv1d_input((1, 1, 4), ONE.astype(np.int64), ones, **options)


def test_functions_with_defaults():
    x = np.linspace(-2, 2, 9)[None, None]
    np.testing.assert_array_equal(numbaconv.conv1d(x, ONE, activation=lambda v, slope=0.5: v * slope), x / 2)


def test_everything_is_checked_before_a_derivative_is_taken():
    called = []

    def derivative(v):
        called.append(v)
        return 1.0

    options = {"activation": (abs, derivative), "pre_activation": ONE, "backend": "reference", "stride": 0}
    with pytest.raises(numbaconv.ArgumentError, match="stride"):
        grad.conv1d_backward(ONE, ONE, ONE, **options)
    assert not called
