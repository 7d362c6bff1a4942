"""Problems whose axes fold: every algorithm and direction, arrays of any strides, results in any array.

Half of the axes have one cell, half of the kernels one tap, so that most problems fold some axes together.
"""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import numbaconv
from numbaconv import grad
from numbaconv.backends.base import Direction
from numbaconv.errors import ShapeError
from numbaconv.plan import PADDING_MODES
from problems import BACKENDS, Problem, accepting, assert_exact, error_bound, expected, operands, run, run_last

EXAMPLES = int(os.environ.get("NUMBACONV_TEST_EXAMPLES", 400))
RELAXED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@st.composite
def problems(draw):
    """Problems with axes of one cell and of one tap."""
    rank = draw(st.integers(2, 3))

    def per_axis(values):
        return draw(st.tuples(*[values] * rank))

    kernel = per_axis(st.sampled_from([1, 1, 1, 2, 3]))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    pads = tuple(draw(st.sampled_from([(0, 0), (0, 0), (1, 1), (2, 4), (5, 0)])) for _ in kernel)
    problem = Problem(
        spatial=per_axis(st.sampled_from([1, 1, 2, 3, 5, 8, 20])),
        kernel=kernel,
        batch=draw(st.integers(0, 2)),
        c_in=groups * draw(st.integers(1, 3)),
        c_out=groups * draw(st.sampled_from([1, 1, 2, 3, 9])),
        groups=groups,
        stride=per_axis(st.sampled_from([1, 1, 1, 2, 3])),
        dilation=per_axis(st.sampled_from([1, 1, 2])),
        pads=tuple(
            pad if k > 1 or draw(st.integers(0, 5)) == 0 else (0, 0) for pad, k in zip(pads, kernel, strict=True)
        ),
        modes=per_axis(st.sampled_from(PADDING_MODES)),
        value=draw(st.integers(-3, 3)),
    )
    try:
        problem.plan()
    except ShapeError:
        assume(False)
    return problem


def elsewhere(array, how):
    """The same elements in memory of other strides."""
    if how == "reversed":
        return np.ascontiguousarray(array[(..., *[slice(None, None, -1)] * 2)])[(..., *[slice(None, None, -1)] * 2)]
    if how == "gaps":
        wide = np.full([2 * n for n in array.shape], 77, array.dtype)
        found = wide[(slice(None, None, 2),) * array.ndim]
    elif how == "a gap":  # along one axis alone
        wide = np.full((*array.shape[:-1], array.shape[-1] + 1), 77, array.dtype)
        found = wide[..., :-1]
    elif how == "transposed":
        found = np.full(array.shape[::-1], 77, array.dtype).T
    elif how == "swapped":
        found = np.full((*array.shape[:-2], array.shape[-1], array.shape[-2]), 77, array.dtype).swapaxes(-1, -2)
    else:
        return array
    found[...] = array
    return found


HOW = st.sampled_from(["as it is", "reversed", "gaps", "a gap", "transposed", "swapped"])


def check_every_algorithm(problem, hows, rng):
    """Exact results, of arrays that lie in these ways, into one that does."""
    x, w, g = operands(problem, rng, np.float32, largest=3)
    given_arrays = [elsewhere(each, how) for each, how in zip((x, w, g), hows[:3], strict=True)]
    for backend, direction, algorithm in accepting(problem, "float32"):
        wanted = expected(direction, problem, x, w, g).astype(np.float32)
        out = elsewhere(np.full(wanted.shape, np.nan, np.float32), hows[3])
        options = {"backend": backend, "algorithm": algorithm.name}

        def bound(direction=direction, algorithm=algorithm):
            return error_bound(direction, algorithm, problem, "float32", x, w, g)

        label = f"{backend} {direction.name} {algorithm.name}"
        answer = run(direction, problem, *given_arrays, out=out, **options)
        assert answer is out
        assert_exact(answer, wanted, algorithm, bound, label)
        if hows[3] in ("gaps", "a gap"):  # what lies between the result's elements
            assert set(np.unique(out.base[..., -1:])) <= {np.float32(77)}
        assert_exact(run_last(direction, problem, x, w, g, **options), wanted, algorithm, bound, label + ", last")


@RELAXED
@given(problem=problems(), hows=st.tuples(HOW, HOW, HOW, HOW), seed=st.integers(0, 2**32 - 1))
def test_random_problems(problem, hows, seed):
    check_every_algorithm(problem, hows, np.random.default_rng(seed))


@RELAXED
@given(problem=problems(), how=HOW, seed=st.integers(0, 2**32 - 1))
def test_residuals_and_repeated_elements(problem, how, seed):
    rng = np.random.default_rng(seed)
    _, w, g = operands(problem, rng, np.int16, largest=5)
    line = rng.integers(-4, 5, (*problem.x_shape[:-1], 1)).astype(np.int16)
    x = np.broadcast_to(line, problem.x_shape)
    wanted = expected(Direction.FORWARD, problem, x, w, g) + g
    for backend in BACKENDS:
        convolve = getattr(numbaconv, f"conv{problem.rank}d")
        residual = elsewhere(g.astype(wanted.dtype), how)
        np.testing.assert_array_equal(convolve(x, w, residual=residual, backend=backend, **problem.arguments), wanted)
        same = elsewhere(g.astype(convolve(x, w, backend=backend, **problem.arguments).dtype), how)
        found = convolve(x, w, residual=same, out=same, backend=backend, **problem.arguments)
        assert found is same
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_result_over_its_own_operand(backend):
    """The result's array overlaps the input, whose axes fold."""
    rng = np.random.default_rng(1)
    memory = rng.integers(-4, 5, (1, 1, 6, 5, 4)).astype(np.float32)
    w = rng.integers(-4, 5, (1, 1, 3, 1, 1)).astype(np.float32)
    wanted = numbaconv.conv3d(memory.copy(), w, padding=(1, 0, 0), backend=backend)
    found = numbaconv.conv3d(memory, w, padding=(1, 0, 0), out=memory[..., ::-1], backend=backend)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_axes_of_one_cell_make_no_difference_to_the_bits(backend, where):
    """A problem of rank 2 with one more axis, wherever it is."""
    problem = Problem(
        (9, 14), (3, 4), c_in=6, c_out=6, stride=(2, 1), pads=((1, 2), (2, 1)), modes=("reflect", "zeros")
    )
    rng = np.random.default_rng(2)
    x, w, g = operands(problem, rng, np.float32)
    deeper = {
        name: (
            *values[:where],
            {"spatial": 1, "kernel": 1, "pads": (0, 0), "modes": "zeros"}.get(name, 3),
            *values[where:],
        )
        for name, values in (
            ("spatial", problem.spatial),
            ("kernel", problem.kernel),
            ("stride", problem.stride),
            ("pads", problem.pads),
            ("modes", problem.modes),
        )
    }
    deep = Problem(**deeper, c_in=6, c_out=6)
    lifted = [np.expand_dims(each, 2 + where) for each in (x, w, g)]
    for name, direction, algorithm in accepting(problem, "float32"):
        if name == backend:
            options = {"backend": backend, "algorithm": algorithm.name}
            wanted = run(direction, problem, x, w, g, **options)
            found = run(direction, deep, *lifted, **options)
            np.testing.assert_array_equal(found, np.expand_dims(wanted, 2 + where))


SHORT = [
    Problem((9, 30, 3), (3, 4, 1), batch=2, c_in=3, c_out=3, groups=3, stride=(2, 2, 1), pads=((1, 2), (2, 1), (0, 0))),
    Problem((9, 34, 2), (2, 3, 2), stride=(1, 3, 2), pads=((1, 1),) * 3, modes=("circular",) * 3),
    Problem((1, 30, 3), (1, 5, 3), c_in=2, c_out=2, groups=2, stride=(2, 2, 2), pads=((0, 0), (2, 2), (1, 1)), batch=2),
]


@pytest.mark.parametrize("hows", [(how,) * 4 for how in ("as it is", "reversed", "gaps", "transposed", "swapped")])
@pytest.mark.parametrize("problem", SHORT)
def test_a_short_last_axis_that_becomes_the_first(problem, hows):
    assert problem.plan().folds[0] == (2,)
    check_every_algorithm(problem, hows, np.random.default_rng(7))


def test_prepared_weights_are_those_of_the_order_of_axes():
    """Kernels of equal extents, packed for a last axis that becomes the first and for one that does not."""
    rng = np.random.default_rng(8)
    w = rng.standard_normal((4, 1, 3, 3, 3)).astype(np.float32)
    prepared = numbaconv.prepare(w, stride=2, groups=4)
    for last in (3, 30, 3):
        x = rng.standard_normal((1, 4, 7, 30, last)).astype(np.float32)
        np.testing.assert_array_equal(prepared(x), numbaconv.conv3d(x, w, stride=2, groups=4))


@pytest.mark.parametrize("transposed", [False, True])
def test_prepared_weights_are_those_of_the_folds(transposed):
    """One weight for inputs whose axes fold in different ways."""
    rng = np.random.default_rng(3)
    w = rng.standard_normal((24, 24, 3, 3, 1)).astype(np.float32)
    convolve = numbaconv.conv_transpose3d if transposed else numbaconv.conv3d
    prepared = numbaconv.prepare(w, transposed=transposed)
    for last in (1, 3, 30, 1, 8, 9):
        for algorithm in ("patch_gemm", None):
            x = rng.standard_normal((1, 24, 7, 12, last)).astype(np.float32)
            asked = prepared if algorithm is None else numbaconv.prepare(w, transposed=transposed, algorithm=algorithm)
            wanted = convolve(x, w, algorithm=algorithm)
            np.testing.assert_array_equal(asked(x), wanted)


def test_gradients_of_products_of_axes():
    """A separable filter, axis by axis, and its gradient, are those of the whole filter."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((1, 1, 9, 10, 11))
    taps = [rng.standard_normal(5) for _ in range(3)]
    whole = np.einsum("a,b,c->abc", *taps)[None, None]
    y, g = x, None
    for at, each in enumerate(taps):
        shape = [1, 1, 1, 1, 1]
        shape[2 + at] = 5
        y = numbaconv.conv3d(y, each.reshape(shape), padding="same", padding_mode="symmetric")
    np.testing.assert_allclose(
        y, numbaconv.conv3d(x, whole, padding="same", padding_mode="symmetric"), rtol=1e-12, atol=1e-12
    )
    g = rng.standard_normal(y.shape)
    wanted = grad.conv3d_input(x.shape, whole, g, padding="same", padding_mode="symmetric")
    for at, each in reversed(list(enumerate(taps))):
        shape = [1, 1, 1, 1, 1]
        shape[2 + at] = 5
        g = grad.conv3d_input(g.shape, each.reshape(shape), g, padding="same", padding_mode="symmetric")
    np.testing.assert_allclose(g, wanted, rtol=1e-12, atol=1e-12)
