"""|error| <= c * eps * (|x| conv |w|), with the c that each algorithm states, on ordinary values."""

import ml_dtypes
import numpy as np
import pytest

import numbaconv
import oracle
from numbaconv.backends import registry
from numbaconv.backends.base import Direction
from numbaconv.plan import plan_conv
from problems import BACKENDS, PROBLEMS, accepting, draw, expected, magnitude, operands, run


def assert_within(answer, wanted, bound, label):
    excess = np.abs(oracle.wide(answer) - wanted) - bound
    assert not answer.size or excess.max() <= 0, f"{label}: over the bound by {excess.max()}"


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_error_bound(name, dtype):
    problem, rng = PROBLEMS[name], np.random.default_rng(5)
    x, w, g = operands(problem, rng, dtype)
    eps = np.finfo(dtype).eps
    for backend, direction, algorithm in accepting(problem, dtype):
        answer = run(direction, problem, x, w, g, backend=backend, algorithm=algorithm.name)
        factor = algorithm.error_factor(problem.plan(dtype))
        # A complex product is four real ones.
        bound = factor * eps * (4 if dtype.startswith("complex") else 1) * magnitude(direction, problem, x, w, g)
        assert_within(answer, expected(direction, problem, x, w, g), bound, f"{backend} {direction.name}")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_rounded_once(dtype):
    half = getattr(ml_dtypes, dtype, None) or np.dtype(dtype)
    problem, rng = PROBLEMS["more channels than a block"], np.random.default_rng(6)
    x, w, g = operands(problem, rng, half)
    singles = [each.astype(np.float32) for each in (x, w, g)]
    for backend, direction, algorithm in accepting(problem, dtype):
        options = {"backend": backend, "algorithm": algorithm.name}
        answer = run(direction, problem, x, w, g, **options)
        np.testing.assert_array_equal(answer, run(direction, problem, *singles, **options).astype(half))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_bound_with_bias_and_residual(backend, dtype):
    rng = np.random.default_rng(7)
    x, w, b, r = (
        draw(rng, shape, dtype) * scale
        for shape, scale in (((2, 5, 9, 8), 1), ((4, 5, 3, 3), 1), ((4,), 100), ((2, 4, 7, 6), 100))
    )
    arguments = {"stride": (1, 1), "dilation": (1, 1), "groups": 1, "pads": ((0, 0),) * 2, "modes": ("zeros",) * 2}
    wanted = oracle.forward(x, w, **arguments) + oracle.wide(b)[:, None, None] + oracle.wide(r)
    size = oracle.forward(abs(x), abs(w), **arguments) + abs(b)[:, None, None] + abs(r)
    plan = plan_conv(x.shape, w.shape, dtype=dtype, bias=True)
    for algorithm in registry.resolve(backend).tables[Direction.FORWARD]:
        if algorithm.accepts(plan) is None:
            y = numbaconv.conv2d(x, w, b, residual=r, backend=backend, algorithm=algorithm.name)
            bound = algorithm.error_factor(plan) * np.finfo(dtype).eps * size
            assert_within(y, wanted, bound, algorithm.name)
