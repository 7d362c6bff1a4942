"""Separable convolutions whose two steps run as one: the bits of two steps, whatever the pieces."""

import numba
import numpy as np
import pytest

import numbaconv
from numbaconv import separable
from numbaconv.backends.base import Backend
from numbaconv.backends.cpu import separable_conv


@pytest.fixture(autouse=True)
def _on_cpu(monkeypatch):
    """With the algorithms that are fused, which larger problems than these get by themselves."""
    monkeypatch.setenv("NUMBACONV_DISABLE", "small_gemm")
    with numbaconv.use_backend("cpu"):
        yield


@pytest.fixture
def fused(monkeypatch):
    """Both steps as one, in pieces of few rows and columns, and the same call as two steps."""
    monkeypatch.setattr(separable_conv, "_MOST_CHANNELS", 10**6)
    runs = []
    kernel = separable_conv._kernel
    monkeypatch.setattr(separable_conv, "_kernel", lambda *given: (runs.append(given[1]), kernel(*given)))

    def both(*given, piece=1 << 12, **arguments):
        monkeypatch.setattr(separable_conv, "_BETWEEN", piece)
        separable._routes.clear()
        y = numbaconv.separable_conv(*given, **arguments)
        assert len(runs) == 1, "it ran in two steps"
        runs.clear()
        with monkeypatch.context() as two_steps:
            two_steps.setattr(Backend, "fused", lambda *given: None)
            separable._routes.clear()
            wanted = numbaconv.separable_conv(*given, **{**arguments, "out": None})
        separable._routes.clear()
        assert not runs
        return y, wanted

    return both


def same_bits(one, other):
    assert one.dtype == other.dtype
    return one.tobytes() == other.tobytes()


#: Spatial extents and kernel, channels and multiplier, result channels.
FUSED = [
    ((40,), (3,), 20, 1, 33),
    ((700,), (4,), 7, 2, 48),
    ((13, 21), (3, 3), 20, 1, 64),
    ((9, 450), (5, 2), 6, 3, 16),
    ((3, 8, 9), (2, 3, 3), 17, 1, 40),
    ((7, 7), (3, 3), 300, 1, 24),
]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"stride": 2, "padding": 1, "activation": "gelu"},
        {"padding": "same", "padding_mode": "reflect", "dilation": 2, "activation": "tanh"},
        {"padding": 2, "padding_mode": "constant", "padding_value": 3.0, "stride": 3},
    ],
)
@pytest.mark.parametrize(("spatial", "kernel", "channels", "multiplier", "outputs"), FUSED)
def test_fused_has_the_bits_of_two_steps(fused, spatial, kernel, channels, multiplier, outputs, arguments, dtype, last):
    rng, rank = np.random.default_rng(64), len(spatial)
    between = channels * multiplier
    x = rng.standard_normal((3, channels, *spatial)).astype(dtype)
    depthwise = rng.standard_normal((between, 1, *kernel)).astype(dtype)
    pointwise = rng.standard_normal((outputs, between, *(1,) * rank)).astype(dtype)
    b = rng.standard_normal(outputs).astype(dtype)
    if last:
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        depthwise, pointwise = (np.moveaxis(w, (0, 1), (-1, -2)) for w in (depthwise, pointwise))
        arguments = {**arguments, "data_format": "channels_last"}
    y, wanted = fused(x, depthwise, pointwise, b, **arguments)
    assert same_bits(y, wanted)
    for size in (1 << 9, 1 << 22):  # other pieces
        assert same_bits(fused(x, depthwise, pointwise, b, piece=size, **arguments)[0], wanted)
    assert same_bits(fused(x[1:2], depthwise, pointwise, b, **arguments)[0], wanted[1:2])
    bare, wanted = fused(x, depthwise, pointwise, **arguments)
    assert same_bits(bare, wanted)
    residual = rng.standard_normal(wanted.shape).astype(dtype)
    out = residual.copy()
    y, wanted = fused(x, depthwise, pointwise, b, residual=residual, **arguments)
    assert same_bits(y, wanted)
    y, _ = fused(x, depthwise, pointwise, b, residual=out, out=out, **arguments)
    assert y is out
    assert same_bits(y, wanted)


@pytest.mark.parametrize("threads", [1, 2])
def test_fused_bits_do_not_depend_on_threads(fused, threads):
    if threads > numba.config.NUMBA_NUM_THREADS:
        pytest.skip("no second thread")
    rng = np.random.default_rng(65)
    x = rng.standard_normal((2, 64, 60, 60)).astype(np.float32)
    depthwise = rng.standard_normal((64, 1, 3, 3)).astype(np.float32)
    pointwise = rng.standard_normal((40, 64, 1, 1)).astype(np.float32)
    _, wanted = fused(x, depthwise, pointwise, padding=1, activation="silu")
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        y, two_steps = fused(x, depthwise, pointwise, padding=1, activation="silu", piece=1 << 18)
    finally:
        numba.set_num_threads(before)
    assert same_bits(y, wanted)
    assert same_bits(two_steps, wanted)


def test_fused_out_may_be_the_input(fused):
    rng = np.random.default_rng(66)
    x = rng.standard_normal((2, 24, 20, 20)).astype(np.float32)
    depthwise = rng.standard_normal((24, 1, 3, 3)).astype(np.float32)
    pointwise = rng.standard_normal((24, 24, 1, 1)).astype(np.float32)
    _, wanted = fused(x, depthwise, pointwise, padding=1)
    y, _ = fused(x.copy(), depthwise, pointwise, padding=1)
    assert same_bits(y, wanted)
    y = numbaconv.separable_conv2d(x, depthwise, pointwise, padding=1, out=x)
    assert y is x
    assert same_bits(x, wanted)


def test_half_types_are_rounded_between_the_steps():
    """Fusing them would not give the results of two steps, so that they are not fused."""
    rng = np.random.default_rng(67)
    x, depthwise, pointwise = (
        rng.standard_normal(shape).astype(np.float16) for shape in [(1, 64, 40, 40), (64, 1, 3, 3), (64, 64, 1, 1)]
    )
    y = numbaconv.separable_conv2d(x, depthwise, pointwise)
    np.testing.assert_array_equal(y, numbaconv.conv2d(numbaconv.conv2d(x, depthwise, groups=64), pointwise))


def test_a_call_like_an_earlier_one_is_checked_like_it():
    x, depthwise, pointwise = np.ones((1, 2, 5, 5)), np.ones((2, 1, 3, 3)), np.ones((4, 2, 1, 1))
    for _ in range(2):
        numbaconv.separable_conv2d(x, depthwise, pointwise)
        with pytest.raises(numbaconv.ShapeError, match="out has shape"):
            numbaconv.separable_conv2d(x, depthwise, pointwise, out=np.ones((1, 4, 3, 2)))
        with pytest.raises(numbaconv.ShapeError, match="pointwise_weight takes 3 channels"):
            numbaconv.separable_conv2d(x, depthwise, np.ones((4, 3, 1, 1)))
