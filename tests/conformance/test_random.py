"""Hypothesis over whole problems: every backend, algorithm and direction must equal the oracle to the bit.

Those that say that errors spread (``spreading``) must stay within their bound.
"""

import os
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numbaconv.errors import ShapeError
from numbaconv.plan import PADDING_MODES
from problems import Problem, accepting, assert_exact, error_bound, expected, operands, run

EXAMPLES = int(os.environ.get("NUMBACONV_TEST_EXAMPLES", 2000))


@st.composite
def problems(draw):
    """Problems of every rank and mode, small enough that thousands can be checked."""
    rank = draw(st.integers(1, 3))
    longest = {1: 24, 2: 9, 3: 5}[rank]

    def per_axis(values):
        return draw(st.tuples(*[values] * rank))

    groups = draw(st.integers(1, 3))
    return Problem(
        spatial=per_axis(st.integers(1, longest)),
        kernel=per_axis(st.integers(1, 4 if rank < 3 else 3)),
        batch=draw(st.integers(0, 3)),
        c_in=groups * draw(st.integers(0, 3)),
        c_out=groups * draw(st.integers(0, 3) if rank > 1 else st.integers(0, 10)),
        groups=groups,
        stride=per_axis(st.integers(1, 4)),
        dilation=per_axis(st.integers(1, 3)),
        pads=per_axis(st.tuples(st.integers(0, 5), st.integers(0, 5))),
        modes=per_axis(st.sampled_from(PADDING_MODES)),
        value=draw(st.integers(-3, 3)),
    )


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
def test_random_problems(problem, seed):
    spans = [d * (k - 1) + 1 for k, d in zip(problem.kernel, problem.dilation, strict=True)]
    padded = [before + n + after for n, (before, after) in zip(problem.spatial, problem.pads, strict=True)]
    if any(span > extent for span, extent in zip(spans, padded, strict=True)):
        with pytest.raises(ShapeError, match="spans"):
            problem.plan()
        return
    rng = np.random.default_rng(seed)
    x, w, g = operands(problem, rng, np.float32, largest=3)
    for backend, direction, algorithm in accepting(problem, "float32"):
        answer = run(direction, problem, x, w, g, backend=backend, algorithm=algorithm.name)
        wanted = expected(direction, problem, x, w, g).astype(np.float32)
        bound = partial(error_bound, direction, algorithm, problem, "float32", x, w, g)
        assert_exact(answer, wanted, algorithm, bound, f"{backend} {direction.name} {algorithm.name}")
