"""|error| <= c * (eps * (|x| conv |w|) + tiny), with the c that each algorithm states.

Where NaN goes: with the sums that read it, and no further unless the algorithm says that it spreads.
"""

import ml_dtypes
import numpy as np
import pytest

import numbaconv
import oracle
from numbaconv.backends.base import Direction
from numbaconv.plan import plan_conv
from problems import (
    BACKENDS,
    PROBLEMS,
    accepting,
    algorithms,
    assert_within,
    draw,
    error_bound,
    expected,
    operands,
    run,
    spread_magnitude,
    spreads_nan,
    visited,
)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_error_bound(name, dtype):
    problem, rng = PROBLEMS[name], np.random.default_rng(5)
    x, w, g = operands(problem, rng, dtype)
    for backend, direction, algorithm in accepting(problem, dtype):
        answer = run(direction, problem, x, w, g, backend=backend, algorithm=algorithm.name)
        bound = error_bound(direction, algorithm, problem, dtype, x, w, g)
        assert_within(answer, expected(direction, problem, x, w, g), bound, f"{backend} {direction.name}")


#: What the source, the weight and the output gradient are multiplied by, as powers of the smallest normal number.
SCALES = {
    "subnormal weights": (0, 1.1, 1.1),
    "subnormal sources": (1.1, 0, 0),
    "subnormal products": (0.55, 0.5, 0.5),
    "large times subnormal": (-0.5, 1.05, 1.05),
    "vanishing products": (0.7, 0.7, 0.7),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    "name",
    visited("3x3 same", "more channels than a block", "long kernel", "groups", "depthwise", "stride 2", "rank 3"),
)
def test_error_bound_of_subnormal_values(name, scale, dtype):
    """What underflows is within the bound's last term."""
    problem, rng = PROBLEMS[name], np.random.default_rng(9)
    factors = [np.longdouble(np.finfo(dtype).smallest_normal) ** np.longdouble(power) for power in SCALES[scale]]
    given = [(each * factor).astype(dtype) for each, factor in zip(operands(problem, rng, dtype), factors, strict=True)]
    for backend, direction, algorithm in accepting(problem, dtype):
        answer = run(direction, problem, *given, backend=backend, algorithm=algorithm.name)
        bound = error_bound(direction, algorithm, problem, dtype, *given)
        assert_within(answer, expected(direction, problem, *given), bound, f"{backend} {direction.name}")


@pytest.mark.parametrize(
    "name", visited("3x3 same", "row longer than a tile", "groups", "depthwise", "stride 2", "rank 3")
)
def test_where_nan_goes(name):
    """One NaN in an operand: in the results that read it; others may have it from spreading algorithms alone."""
    problem, rng = PROBLEMS[name], np.random.default_rng(8)
    x, w, g = operands(problem, rng, np.float32)
    for each in (x, g):  # in the middle, where no tap reads padding: products with padding may be skipped
        each[(0, 0, *[extent // 2 for extent in each.shape[2:]])] = np.nan
    for backend, direction, algorithm in accepting(problem, "float32"):
        found = np.isnan(run(direction, problem, x, w, g, backend=backend, algorithm=algorithm.name))
        wanted = np.isnan(expected(direction, problem, x, w, g))
        assert wanted.any()
        if spreads_nan(algorithm):
            assert found[wanted].all(), f"{backend} {direction.name} {algorithm.name}"
        else:
            np.testing.assert_array_equal(found, wanted, err_msg=f"{backend} {direction.name} {algorithm.name}")


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
    size = oracle.forward(abs(x), abs(w), **arguments)
    plan = plan_conv(x.shape, w.shape, dtype=dtype, bias=True)
    for algorithm in algorithms(backend, Direction.FORWARD):
        if algorithm.accepts(plan) is None:
            y = numbaconv.conv2d(x, w, b, residual=r, backend=backend, algorithm=algorithm.name)
            sums = spread_magnitude(Direction.FORWARD, plan, x, w) if algorithm.spreading else size
            bound = algorithm.error_factor(plan) * np.finfo(dtype).eps * (sums + abs(b)[:, None, None] + abs(r))
            assert_within(y, wanted, bound, algorithm.name)
