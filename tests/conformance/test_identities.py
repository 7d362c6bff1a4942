"""What must hold between the primitives, whatever computes them."""

import numpy as np
import pytest

import numbaconv
from numbaconv.backends.base import Direction
from problems import BACKENDS, PROBLEMS, Problem, accepting, operands, run

LINEAR = {name: problem for name, problem in PROBLEMS.items() if "constant" not in problem.modes}
RANK_1_AND_2 = {name: problem for name, problem in PROBLEMS.items() if problem.rank < 3}


def inner(a, b):
    return np.vdot(a, b)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("backend", BACKENDS)
def test_adjoint(backend, name, dtype):
    """<g, conv(x, w)> = <input_grad(g, w), x> = <weight_grad(x, g), w>."""
    problem, rng = LINEAR[name], np.random.default_rng(3)
    x, w, g = operands(problem, rng, dtype)
    left = inner(g, run(Direction.FORWARD, problem, x, w, g, backend=backend))
    by_input = inner(run(Direction.INPUT_GRAD, problem, x, w, g, backend=backend), x)
    by_weight = inner(run(Direction.WEIGHT_GRAD, problem, x, w, g, backend=backend), w)
    size = np.linalg.norm(g) * np.linalg.norm(x) * np.linalg.norm(w) + 1
    assert abs(left - by_input) <= 1e-13 * size
    assert abs(left - by_weight) <= 1e-13 * size


@pytest.mark.parametrize("name", [name for name, problem in PROBLEMS.items() if problem.batch and problem.c_in])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_derivatives(backend, name):
    """Central differences of a smooth function of the output, in random directions, float64."""
    problem, rng = PROBLEMS[name], np.random.default_rng(4)
    x, w, _ = operands(problem, rng, np.float64)

    def loss(x, w):
        return np.sum(np.sin(run(Direction.FORWARD, problem, x, w, None, backend=backend)))

    g = np.cos(run(Direction.FORWARD, problem, x, w, None, backend=backend))
    step = 1e-5
    for direction, at in ((Direction.INPUT_GRAD, 0), (Direction.WEIGHT_GRAD, 1)):
        gradient = run(direction, problem, x, w, g, backend=backend)
        for _ in range(2):
            move = [np.zeros_like(x), np.zeros_like(w)]
            move[at] = rng.standard_normal(move[at].shape)
            move[at] /= max(np.linalg.norm(move[at]), 1)
            moved = [loss(x + sign * step * move[0], w + sign * step * move[1]) for sign in (1, -1)]
            slope = (moved[0] - moved[1]) / (2 * step)
            scale = np.abs(gradient).sum() + 1
            assert abs(slope - inner(gradient, move[at])) <= 1e-7 * scale


@pytest.mark.parametrize("name", RANK_1_AND_2)
@pytest.mark.parametrize("backend", BACKENDS)
def test_rank_embedding(backend, name):
    """A problem with leading axes of extent 1 is the same problem, to the bit."""
    problem, rng = RANK_1_AND_2[name], np.random.default_rng(8)
    x, w, g = operands(problem, rng, np.float32)
    deep = problem.at_rank3()
    lift = (slice(None), slice(None), *(None,) * (3 - problem.rank))
    for name_, direction, algorithm in accepting(problem, "float32"):
        if name_ == backend:
            options = {"backend": backend, "algorithm": algorithm.name}
            flat = run(direction, problem, x, w, g, **options)
            lifted = run(direction, deep, x[lift], w[lift], g[lift], **options)
            np.testing.assert_array_equal(flat[lift], lifted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_transposed_is_the_gradient(backend):
    rng = np.random.default_rng(9)
    g, w = rng.standard_normal((2, 4, 5, 6)), rng.standard_normal((4, 3, 3, 2))
    arguments = {"stride": (2, 3), "padding": ((1, 0), (0, 1)), "dilation": (1, 2), "groups": 1}
    up = numbaconv.conv_transpose2d(g, w, output_padding=(1, 0), backend=backend, **arguments)
    down = numbaconv.grad.conv2d_input(up.shape, w, g, backend=backend, **arguments)
    np.testing.assert_array_equal(up, down)


def threads_problem():
    """Large enough that the CPU backend runs it in parallel."""
    return Problem((24, 40), (3, 3), batch=4, c_in=12, c_out=20, pads=((1, 1), (1, 1)))


#: Epilogues of FORWARD and INPUT_GRAD as a transposed convolution, and dtypes.
VARIANTS = [("float32", None), ("float32", "gelu"), ("float64", "tanh"), ("complex64", None), ("float16", "silu")]


@pytest.mark.parametrize(("dtype", "activation"), VARIANTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_bits_do_not_depend_on_threads_batch_or_run(backend, dtype, activation):
    import numba

    problem, rng = threads_problem(), np.random.default_rng(10)
    x, w, g = operands(problem, rng, dtype)
    available = numba.get_num_threads()
    epilogue = {"activation": activation} if activation else {}
    for name, direction, algorithm in accepting(problem, dtype):
        if name != backend:
            continue
        options = {"backend": backend, "algorithm": algorithm.name}
        if direction is Direction.FORWARD:
            options |= epilogue
        first = run(direction, problem, x, w, g, **options)
        for threads in sorted({1, 2, available}):
            if threads <= available:
                numba.set_num_threads(threads)
                try:
                    np.testing.assert_array_equal(first, run(direction, problem, x, w, g, **options))
                finally:
                    numba.set_num_threads(available)
        if direction is not Direction.WEIGHT_GRAD:  # which sums over the batch
            for n in range(problem.batch):
                alone = run(direction, problem, x[n : n + 1], w, g[n : n + 1], **options)
                np.testing.assert_array_equal(first[n : n + 1], alone)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bits_of_a_batch_that_is_parallel_and_a_sample_that_is_not(backend):
    problem = Problem((12, 11), (3, 3), batch=24, c_in=6, c_out=10, pads=((1, 1), (1, 1)))
    x, w, g = operands(problem, np.random.default_rng(11), np.float32)
    for name, direction, algorithm in accepting(problem, "float32"):
        if name == backend and direction is not Direction.WEIGHT_GRAD:
            options = {"backend": backend, "algorithm": algorithm.name}
            whole = run(direction, problem, x, w, g, **options)
            for n in (0, 13, 23):
                alone = run(direction, problem, x[n : n + 1], w, g[n : n + 1], **options)
                np.testing.assert_array_equal(whole[n : n + 1], alone)
