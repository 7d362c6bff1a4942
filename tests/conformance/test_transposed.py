"""Transposed convolutions against stamping the kernel and cutting the padding off; their gradients by adjoints."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numbaconv
import oracle
from numbaconv import grad, plan_conv
from numbaconv.backends.base import Direction
from problems import BACKENDS, algorithms, assert_exact, draw, spread_magnitude

CASES = {
    "2x2, stride 2": ((2, 4, 5, 6), (4, 3, 2, 2), {"stride": (2, 2)}),
    "4x4, stride 2, padding 1": ((1, 3, 4, 4), (3, 5, 4, 4), {"stride": (2, 2), "pads": ((1, 1), (1, 1))}),
    "output padding": ((1, 2, 4, 3), (2, 2, 3, 3), {"stride": (2, 3), "output_padding": (1, 2)}),
    "output padding below dilation": ((1, 2, 5), (2, 2, 3), {"dilation": (3,), "output_padding": (2,)}),
    "kernel below stride": ((1, 2, 4, 3), (2, 3, 2, 1), {"stride": (3, 4), "output_padding": (2, 3)}),
    "16x16, stride 8": ((1, 2, 3, 4), (2, 2, 16, 16), {"stride": (8, 8), "pads": ((4, 4), (4, 4))}),
    "uneven padding": ((2, 2, 6), (2, 3, 4), {"stride": (2,), "pads": ((0, 3),)}),
    "dilated": ((1, 2, 5, 4), (2, 2, 3, 2), {"stride": (2, 1), "dilation": (2, 3), "pads": ((1, 2), (0, 1))}),
    "groups": ((1, 6, 4, 4), (6, 2, 3, 3), {"stride": (2, 2), "groups": 3}),
    "depthwise": ((1, 4, 7), (4, 1, 3), {"stride": (2,), "groups": 4, "pads": ((1, 1),)}),
    "rank 3": ((1, 2, 3, 4, 2), (2, 3, 2, 3, 2), {"stride": (2, 1, 2), "pads": ((0, 1), (1, 1), (0, 0))}),
    "long row": ((1, 1, 900), (1, 2, 5), {"stride": (2,), "pads": ((2, 2),), "output_padding": (1,)}),
    "empty batch": ((0, 2, 5), (2, 3, 3), {"stride": (2,)}),
    "more channels than a block": ((1, 9, 3, 4), (9, 21, 2, 2), {"stride": (2, 2)}),
}


def complete(rank, arguments):
    defaults = {"stride": (1,) * rank, "dilation": (1,) * rank, "groups": 1}
    return {**defaults, "pads": ((0, 0),) * rank, "output_padding": (0,) * rank, **arguments}


def public(arguments):
    return {("padding" if name == "pads" else name): value for name, value in arguments.items()}


def check(x_shape, w_shape, arguments, seed=31):
    rank, rng = len(x_shape) - 2, np.random.default_rng(seed)
    x, w = draw(rng, x_shape, np.float64, 4), draw(rng, w_shape, np.float64, 4)
    wanted = oracle.conv_transpose(x, w, **arguments)
    g = draw(rng, wanted.shape, np.float64, 4)
    function, gradients = (
        getattr(numbaconv, f"conv_transpose{rank}d"),
        getattr(grad, f"conv_transpose{rank}d_backward"),
    )
    plan = plan_conv(x_shape, w_shape, transposed=True, dtype="float64", **public(arguments))
    for backend in BACKENDS:
        for algorithm in algorithms(backend, Direction.INPUT_GRAD):
            if algorithm.accepts(plan) is not None:
                continue
            options = {"backend": backend, **public(arguments)}
            y = function(x, w, algorithm=algorithm.name, **options)
            factor = algorithm.error_factor(plan) * np.finfo(np.float64).eps
            assert_exact(
                y,
                wanted.astype(np.float64),
                algorithm,
                lambda factor=factor: factor * spread_magnitude(Direction.INPUT_GRAD, plan, x, w),
                f"{backend} {algorithm.name}",
            )
            found = gradients(g, x, w, **options)
            assert np.vdot(g, wanted.astype(np.float64)) == np.vdot(found.input, x) == np.vdot(found.weight, w)
            assert found.input.shape == x.shape
            assert found.weight.shape == w.shape
            np.testing.assert_array_equal(found.bias, g.sum(axis=(0, *range(2, g.ndim))))


@pytest.mark.parametrize("name", CASES)
def test_transposed(name):
    x_shape, w_shape, arguments = CASES[name]
    check(x_shape, w_shape, complete(len(x_shape) - 2, arguments))


@settings(max_examples=400, deadline=None, print_blob=True)
@given(data=st.data())
def test_random_transposed(data):
    rank = data.draw(st.integers(1, 3))

    def per_axis(low, high):
        return tuple(data.draw(st.tuples(*[st.integers(low, high)] * rank)))

    groups = data.draw(st.integers(1, 2))
    spatial, kernel, stride, dilation = per_axis(1, 5), per_axis(1, 4), per_axis(1, 4), per_axis(1, 3)
    extra = tuple(data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    full = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(spatial, stride, dilation, kernel, strict=True)]
    pads = []
    for extent in full:
        before = data.draw(st.integers(0, min(extent - 1, 4)))
        pads.append((before, data.draw(st.integers(0, min(extent - 1 - before, 4)))))
    arguments = {"stride": stride, "dilation": dilation, "groups": groups, "pads": tuple(pads), "output_padding": extra}
    channels = [groups * data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))]
    check((data.draw(st.integers(1, 2)), channels[0], *spatial), (*channels, *kernel), arguments)


def test_output_size_is_output_padding():
    x, w = np.ones((1, 2, 4, 5)), np.ones((2, 3, 3, 3))
    for extra in (0, 1):
        plain = numbaconv.conv_transpose2d(x, w, stride=2, padding=1, output_padding=extra)
        sized = numbaconv.conv_transpose2d(x, w, stride=2, padding=1, output_size=plain.shape[2:])
        np.testing.assert_array_equal(plain, sized)
        by_padding = grad.conv_transpose2d_backward(plain, x, w, stride=2, padding=1, output_padding=extra)
        by_size = grad.conv_transpose2d_backward(plain, x, w, stride=2, padding=1, output_size=plain.shape[2:])
        np.testing.assert_array_equal(by_padding.input, by_size.input)


@pytest.mark.parametrize("name", ["same", "same_lower"])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_is_input_times_stride(name, kernel, stride, dilation):
    """And the adjoint of the convolution with the same padding."""
    rng = np.random.default_rng(32)
    x, w = draw(rng, (1, 2, 6), np.float64, 4), draw(rng, (2, 3, kernel), np.float64, 4)
    arguments = {"stride": stride, "padding": name, "dilation": dilation}
    y = numbaconv.conv_transpose1d(x, w, **arguments)
    assert y.shape == (1, 3, 6 * stride)
    g = draw(rng, y.shape, np.float64, 4)
    down = numbaconv.conv1d(g, w, **arguments)
    assert down.shape == x.shape
    assert np.vdot(down, x) == np.vdot(g, y)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular", "symmetric"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_modes_are_adjoint(mode, backend):
    rng = np.random.default_rng(33)
    x, w = draw(rng, (2, 3, 4, 5), np.float64, 4), draw(rng, (3, 2, 3, 3), np.float64, 4)
    arguments = {"stride": (2, 1), "padding": ((2, 1), (1, 2)), "padding_mode": mode, "backend": backend}
    y = numbaconv.conv_transpose2d(x, w, **arguments)
    g = draw(rng, y.shape, np.float64, 4)
    assert np.vdot(numbaconv.conv2d(g, w, **arguments), x) == np.vdot(g, y)
    found = grad.conv_transpose2d_backward(g, x, w, **arguments)
    assert np.vdot(g, y) == np.vdot(found.input, x) == np.vdot(found.weight, w)


def test_bias_residual_activation():
    rng = np.random.default_rng(34)
    x, w, b = draw(rng, (2, 3, 4, 5), np.float64, 4), draw(rng, (3, 2, 3, 3), np.float64, 4), np.array([3.0, -40.0])
    for backend in BACKENDS:
        plain = numbaconv.conv_transpose2d(x, w, stride=2, backend=backend)
        residual = draw(rng, plain.shape, np.float64, 50)
        y = numbaconv.conv_transpose2d(x, w, b, stride=2, residual=residual, activation="relu6", backend=backend)
        np.testing.assert_array_equal(y, np.clip(plain + b[:, None, None] + residual, 0, 6))


def test_depthwise_rows_that_lie_outside():
    """One source row and a dilation: most rows that taps read are padding, in every phase."""
    x, w = np.arange(1.0, 6).reshape(1, 1, 1, 5), np.arange(1.0, 7).reshape(1, 1, 3, 2)
    arguments = {"stride": (1, 2), "dilation": (2, 3)}
    wanted = numbaconv.conv_transpose2d(x, w, backend="reference", **arguments)
    for backend in BACKENDS:
        for algorithm in ("depthwise", None) if backend == "cpu" else (None,):
            answer = numbaconv.conv_transpose2d(x, w, backend=backend, algorithm=algorithm, **arguments)
            np.testing.assert_array_equal(answer, wanted)
