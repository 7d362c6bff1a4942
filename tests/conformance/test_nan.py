"""Where NaN and infinity go: with the sums that read them, and no further unless the algorithm says that it spreads.

Vectors are loaded whole and masked, edges of tiles hold anything: a NaN in a neighbouring channel, row or sample, in
front of or behind an operand, in scratch memory or in the result must not come in through a product with zero.
"""

from dataclasses import replace

import numpy as np
import pytest

import oracle
from numbaconv import grad
from numbaconv.backends.base import Direction
from numbaconv.backends.cpu import workspace
from problems import PROBLEMS, Problem, accepting, expected, operands, run, run_last, spreads_nan

#: Channels that leave lanes and rows of tiles empty, in every kind of geometry.
EDGES = {
    "dense": Problem((9, 11), (3, 3), batch=3, c_in=21, c_out=19, pads=((1, 1), (1, 1))),
    "dense, groups": Problem((8, 9), (3, 3), batch=2, c_in=38, c_out=34, groups=2, pads=((1, 1), (1, 1))),
    "strided": Problem((12, 13), (3, 3), batch=2, c_in=18, c_out=17, stride=(2, 2), pads=((1, 1), (1, 1))),
    "dilated": Problem((11, 12), (3, 3), batch=2, c_in=17, c_out=18, dilation=(2, 3), pads=((2, 2), (3, 3))),
    "pointwise": Problem((3, 5), (1, 1), batch=3, c_in=19, c_out=23),
    "pointwise, strided": Problem((7, 6), (1, 1), batch=2, c_in=19, c_out=23, stride=(2, 2)),
    "upsampling": Problem((12, 10), (2, 2), batch=2, c_in=18, c_out=20, stride=(2, 2)),
    "wide kernel": Problem((9, 40), (1, 7), batch=2, c_in=3, c_out=18, pads=((0, 0), (3, 3))),
    "depthwise": Problem((9, 35), (3, 3), batch=2, c_in=5, c_out=5, groups=5, pads=((1, 1), (1, 1))),
    "depthwise, strided": Problem(
        (9, 35), (5, 5), batch=2, c_in=5, c_out=10, groups=5, stride=(2, 2), pads=((2, 2),) * 2
    ),
    "depthwise, dilated": Problem((70,), (5,), batch=2, c_in=4, c_out=4, groups=4, dilation=(3,), pads=((6, 6),)),
    "three dimensions": Problem((4, 5, 6), (3, 3, 3), batch=2, c_in=17, c_out=18, pads=((1, 1),) * 3),
}
ALL = {**PROBLEMS, **EDGES}
#: Neither empty nor, for the loops of the oracle, long.
SOME = {
    name: problem
    for name, problem in ALL.items()
    if problem.batch and problem.c_in and problem.c_out and max(problem.kernel) <= 130
}


def corners(shape):
    """The first and the last cell of the first and the last channel and sample."""
    return [(at, other, *(at,) * (len(shape) - 2)) for at in (0, -1) for other in (0, -1)]


def scattered(shape):
    rng = np.random.default_rng(len(shape))
    return [tuple(rng.integers(0, shape)) for _ in range(3)]


PLACES = {
    "corners": corners,
    "middle": lambda shape: [(0, shape[1] // 2, *(extent // 2 for extent in shape[2:]))],
    "scattered": scattered,
    "a channel": lambda shape: [(0, shape[1] // 2)],
    "a sample": lambda shape: [(shape[0] - 1,)],
}


def reading_no_padding(problem, x, w, g):
    """Which elements of a weight gradient sum a product of an input's cell and a g that is not finite."""
    mask, ones = (~np.isfinite(g)).astype(np.int64), np.ones(x.shape, np.int64)
    return expected(Direction.WEIGHT_GRAD, replace(problem, value=1), ones, w, mask) > 0


def compare(found, wanted, spreading, label):
    """The same elements are NaN, infinite and finite; from a spreading algorithm, at least these are not finite."""
    if spreading:
        assert not np.isfinite(found[~np.isfinite(wanted)]).any(), label
        return
    for kind in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(kind(found), kind(wanted), err_msg=f"{label} {kind.__name__}")


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize(
    ("value", "place"), [*((np.nan, place) for place in PLACES), (np.inf, "corners"), (np.inf, "scattered")]
)
@pytest.mark.parametrize("name", SOME)
def test_of_the_source(name, value, place):
    """In the input of FORWARD and WEIGHT_GRAD and in the output gradient of INPUT_GRAD: as the definition has it."""
    problem, rng = SOME[name], np.random.default_rng(80)
    x, w, g = operands(problem, rng, np.float32)
    w.reshape(-1)[::3] = 0  # nothing may be skipped for being multiplied by zero
    changed = [x.copy(), g.copy()]
    for each in changed:
        for at in PLACES[place](each.shape):
            each[at] = value
    wanted = {}
    for backend, direction, algorithm in accepting(problem, "float32"):
        given = (x, w, changed[1]) if direction is Direction.INPUT_GRAD else (changed[0], w, g)
        if direction not in wanted:
            wanted[direction] = expected(direction, problem, *given)
        options, label = (
            {"backend": backend, "algorithm": algorithm.name},
            f"{backend} {direction.name} {algorithm.name}",
        )
        compare(run(direction, problem, *given, **options), wanted[direction], spreads_nan(algorithm), label)
        if backend == "reference":
            continue
        last = run_last(direction, problem, *given, **options)
        compare(last, wanted[direction], spreads_nan(algorithm), f"{label}, channels last")


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", SOME)
def test_of_the_output_gradient_in_weight_gradients(name, place):
    """Products with padding may be skipped; without them, the definition's."""
    problem, rng = SOME[name], np.random.default_rng(81)
    x, w, g = operands(problem, rng, np.float32)
    for at in PLACES[place](g.shape):
        g[at] = np.nan
    most = np.isnan(expected(Direction.WEIGHT_GRAD, problem, x, w, g))
    least = reading_no_padding(problem, x, w, g)
    assert most[least].all()
    for backend, direction, algorithm in accepting(problem, "float32"):
        if direction is Direction.WEIGHT_GRAD:
            found = np.isnan(run(direction, problem, x, w, g, backend=backend, algorithm=algorithm.name))
            assert found[least].all(), algorithm.name
            assert spreads_nan(algorithm) or most[found].all(), algorithm.name


def test_infinities_that_meet_do_not_warn():
    """Sums over chunks are NumPy's, which warns of what no kernel reports; warnings are errors here."""
    problem = Problem((20, 30), (3, 3), batch=4, c_in=2, c_out=4)
    x, w, g = (np.ones(each.shape, np.float32) for each in operands(problem, np.random.default_rng(83), np.float32))
    g[0], g[-1] = np.inf, -np.inf
    for backend, direction, algorithm in accepting(problem, "float32"):
        if backend == "cpu" and direction is Direction.WEIGHT_GRAD:
            assert np.isnan(run(direction, problem, x, w, g, backend=backend, algorithm=algorithm.name)).all()
    assert np.isnan(grad.conv2d_bias(g)).all()


@pytest.mark.parametrize("name", SOME)
def test_other_samples_and_groups_never_have_it(name):
    """From algorithms that spread it, too."""
    problem, rng = SOME[name], np.random.default_rng(82)
    x, w, g = operands(problem, rng, np.float32)
    first = [each.copy() for each in (x, g)]
    for each in first:
        each[0, : each.shape[1] // problem.groups] = np.nan
    for backend, direction, algorithm in accepting(problem, "float32"):
        options = {"backend": backend, "algorithm": algorithm.name}
        clean = run(direction, problem, x, w, g, **options)
        found = run(direction, problem, first[0], w, first[1], **options)
        per_group = clean.shape[0 if direction is Direction.WEIGHT_GRAD else 1] // problem.groups
        if direction is Direction.WEIGHT_GRAD:
            parts = [(slice(per_group, None),)]
        else:
            parts = [(slice(1, None),), (slice(0, 1), slice(per_group, None))]
        for part in parts:
            np.testing.assert_array_equal(found[part], clean[part], err_msg=f"{backend} {direction.name} {algorithm}")


def guarded(array):
    """The same values between others that are NaN."""
    room = np.full(array.size + 4096, np.nan, array.dtype)
    inside = room[2048 : 2048 + array.size].reshape(array.shape)
    inside[...] = array
    return inside


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("name", SOME)
def test_of_memory_that_is_nobodys(name, last, monkeypatch):
    """Around operands, in scratch memory and in the result: the same bits."""
    problem, rng = SOME[name], np.random.default_rng(83)
    x, w, g = operands(problem, rng, np.float32)
    dirty = tuple(guarded(each) for each in (x, w, g))
    call, empty, take = run_last if last else run, np.empty, workspace._take

    def filled(*arguments, **options):
        made = empty(*arguments, **options)
        if made.dtype.kind in "fu":
            made.view(np.uint8)[...] = 255  # a NaN in every floating type
        return made

    def taken(wanted):
        raw = take(wanted)
        raw[...] = 255
        return raw

    for backend, direction, algorithm in accepting(problem, "float32"):
        options = {"backend": backend, "algorithm": algorithm.name}
        clean = call(direction, problem, x, w, g, **options)  # compiles whatever is not compiled
        with monkeypatch.context() as patch:
            patch.setattr(np, "empty", filled)
            patch.setattr(workspace, "_take", taken)
            found = call(direction, problem, *dirty, **options)
        np.testing.assert_array_equal(found, clean, err_msg=f"{backend} {direction.name} {algorithm.name}")


def test_the_oracle_of_this_file():
    """What the tests above expect, on a problem that can be read."""
    problem = Problem((5,), (3,), pads=((1, 1),))
    x, w, g = np.zeros((1, 1, 5)), np.array([[[1.0, 0, -1]]]), np.zeros((1, 1, 5))
    x[0, 0, 0] = np.inf
    with np.errstate(invalid="ignore"):
        found = oracle.forward(x, w, **problem.oracle_arguments)[0, 0]
    assert np.isnan(found[0])
    assert np.isposinf(found[1])
    np.testing.assert_array_equal(found[2:], 0)
    g[0, 0, 0] = np.nan
    np.testing.assert_array_equal(reading_no_padding(problem, x, w, g)[0, 0], [False, True, True])
