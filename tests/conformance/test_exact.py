"""Small integers: sums are exact in every dtype, whatever the order, so results must be equal to the bit.

Algorithms that say that errors spread (``spreading``) are not exact; they must stay within their bound.
"""

from functools import partial

import ml_dtypes
import numpy as np
import pytest

from numbaconv.backends.base import Direction
from numbaconv.plan import SUPPORTED
from problems import (
    ALGORITHMS,
    BACKENDS,
    PROBLEMS,
    Problem,
    accepting,
    assert_exact,
    error_bound,
    expected,
    operands,
    run,
    run_last,
    visited,
)

#: What each operand dtype returns, and what it is summed in.
RESULTS = {
    "float16": ("float16", "float32"),
    "bfloat16": ("bfloat16", "float32"),
    "float32": ("float32", "float32"),
    "float64": ("float64", "float64"),
    "complex64": ("complex64", "complex64"),
    "complex128": ("complex128", "complex128"),
    "int8": ("int32", "int32"),
    "uint8": ("int32", "int32"),
    "int16": ("int64", "int64"),
    "uint16": ("int64", "int64"),
    "int32": ("int64", "int64"),
    "uint32": ("int64", "int64"),
    "int64": ("int64", "int64"),
    "uint64": ("uint64", "uint64"),
}
DTYPES = {name: np.dtype(getattr(ml_dtypes, name, name)) for name in RESULTS}


def test_every_dtype_is_listed():
    assert RESULTS.keys() == SUPPORTED.keys()


def check(problem, dtype, largest, run=run):
    rng = np.random.default_rng(17)
    x, w, g = operands(problem, rng, dtype, largest)
    copies = [each.copy() for each in (x, w, g)]
    reached = set()
    result, summed = RESULTS[np.dtype(dtype).name]
    assert problem.plan(dtype).compute_dtype == summed
    for backend, direction, algorithm in accepting(problem, np.dtype(dtype).name):
        answer = run(direction, problem, x, w, g, backend=backend, algorithm=algorithm.name)
        wanted = expected(direction, problem, x, w, g).astype(summed).astype(answer.dtype)
        label = f"{backend} {direction.name} {algorithm.name}"
        assert answer.dtype.name == result, label
        assert answer.shape == wanted.shape, label
        bound = partial(error_bound, direction, algorithm, problem, np.dtype(dtype).name, x, w, g)
        assert_exact(answer, wanted, algorithm, bound, label)
        reached.add((backend, direction))
    # An algorithm that is tested alone may refuse.
    assert ALGORITHMS or reached == {(backend, direction) for backend in BACKENDS for direction in Direction}
    for before, after in zip(copies, (x, w, g), strict=True):
        np.testing.assert_array_equal(before, after, err_msg="an operand was modified")


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem(name):
    check(PROBLEMS[name], np.float64, 4)


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem_with_channels_last(name):
    check(PROBLEMS[name], np.float32, 4, run_last)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "name",
    visited("stride 2", "mapped and strided and dilated", "constant", "groups", "rank 3", "row longer than a tile"),
)
def test_every_dtype(name, dtype):
    check(PROBLEMS[name], DTYPES[dtype], 3)


@pytest.mark.parametrize(
    ("dtype", "largest"),
    [("int8", 127), ("uint8", 255), ("int16", 2**15 - 1), ("uint16", 2**16 - 1), ("int32", 2**24), ("uint64", 2**29)],
)
def test_integers_do_not_wrap_at_their_own_width(dtype, largest):
    check(PROBLEMS["more channels than a block"], np.dtype(dtype), largest)


def test_complex_padding():
    problem = Problem((5,), (3,), batch=2, c_in=2, c_out=2, pads=((1, 2),), modes=("constant",), value=3 - 2j)
    check(problem, np.complex128, 4)
