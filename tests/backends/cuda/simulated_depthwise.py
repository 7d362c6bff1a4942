"""The depthwise algorithm in Numba's simulator: a program, since the simulator is chosen before Numba is imported.

Arguments are names of checks below; it prints, as JSON, how many results each compared, and what was wrong.
"""

import json
import os
import sys

os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
sys.path[:0] = [os.path.join(os.path.dirname(__file__), *up) for up in (("..", ".."), ())]

import ml_dtypes  # noqa: E402
import numpy as np  # noqa: E402
from turns import take_turns  # noqa: E402

import numbaconv  # noqa: E402
from numbaconv.backends.base import Direction  # noqa: E402
from numbaconv.backends.cuda import depthwise  # noqa: E402
from numbaconv.backends.cuda.walks import forward_walk, input_walk  # noqa: E402
from problems import Problem, expected, operands, run, run_last  # noqa: E402

take_turns()
_P = Problem
FORCED = {"backend": "cuda", "algorithm": "depthwise"}


def _depthwise(spatial, kernel, groups=2, times=1, **options):
    return _P(spatial, kernel, c_in=groups, c_out=times * groups, groups=groups, **options)


#: Each visits an edge: of walks, chunks of taps, tiles of taps, phases, multipliers, and padding.
PROBLEMS = {
    "down and along": _depthwise((6, 5), (3, 3), groups=3, batch=2, pads=((1, 1), (1, 1))),
    "a height under a thread's results": _depthwise((3, 9), (2, 3), pads=((0, 0), (1, 1))),
    "a multiplier": _depthwise((5, 4), (2, 3), times=3, batch=2, pads=((1, 0), (1, 1))),
    "several inputs, one output": _P((5, 4), (2, 2), c_in=6, c_out=2, groups=2, pads=((1, 0), (0, 1))),
    "one group": _P((4, 3), (3, 1), c_in=1, c_out=3, pads=((1, 1), (0, 0))),
    "strided": _depthwise((7, 8), (3, 3), stride=(2, 2), pads=((1, 1), (0, 1))),
    "strided down": _depthwise((9, 3), (3, 2), stride=(2, 1), pads=((2, 1), (0, 1))),
    "stride 3, dilated": _depthwise((11, 9), (2, 3), stride=(3, 3), dilation=(1, 2), pads=((0, 0), (2, 2))),
    "stride 4 over the kernel": _depthwise((13,), (2,), stride=(4,), pads=((1, 0),)),
    "stride 5": _depthwise((6, 12), (1, 3), stride=(1, 5), pads=((0, 0), (2, 1))),
    "far apart": _depthwise((24,), (3,), dilation=(9,), pads=((4, 2),)),
    "far apart, strided": _depthwise((40,), (3,), stride=(2,), dilation=(13,), pads=((5, 2),)),
    "long": _depthwise((12,), (19,), pads=((9, 9),)),
    "long, strided, dilated": _depthwise((25,), (11,), stride=(2,), dilation=(3,), pads=((12, 11),)),
    "a large kernel": _depthwise((8, 7), (9, 7), groups=1, pads=((4, 4), (3, 3))),
    "three axes": _depthwise((3, 4, 5), (2, 3, 2), pads=((1, 0), (1, 1), (0, 1))),
    "three axes, strided": _depthwise((5, 4, 6), (3, 2, 3), stride=(2, 1, 2), pads=((1, 1), (0, 0), (1, 1))),
    "constant": _depthwise((5, 4), (3, 3), pads=((2, 1), (1, 2)), modes=("constant",) * 2, value=3),
    "constant rows, zero columns": _depthwise(
        (5, 4), (3, 3), pads=((2, 1), (1, 2)), modes=("constant", "zeros"), value=5
    ),
    "zero rows, constant columns": _depthwise(
        (5, 4), (3, 3), pads=((2, 1), (1, 2)), modes=("zeros", "constant"), value=-2
    ),
    "constant fronts, walked": _depthwise(
        (4, 3, 4),
        (3, 1, 2),
        pads=((2, 1), (1, 1), (1, 1)),
        modes=("constant", "zeros", "constant"),
        value=3,
        dilation=(1, 2, 1),
    ),
    "zero fronts, walked": _depthwise(
        (4, 3, 4), (3, 1, 2), pads=((2, 1), (1, 0), (1, 1)), modes=("zeros", "constant", "zeros"), value=3
    ),
    "constant rows, no taps across": _depthwise(
        (3, 4, 3), (2, 3, 1), pads=((1, 1), (2, 1), (1, 1)), modes=("zeros", "constant", "zeros"), value=-2
    ),
    "reflect, circular": _depthwise((4, 5), (3, 3), pads=((2, 3), (4, 1)), modes=("reflect", "circular")),
    "replicate, symmetric": _depthwise((3, 4), (3, 2), pads=((2, 3), (4, 1)), modes=("replicate", "symmetric")),
    "empty batch": _depthwise((4, 4), (3, 3), batch=0),
    "one cell": _P((1,), (1,)),
}

found = {"compared": 0, "wrong": []}


def note(right, *label):
    """Count a comparison."""
    found["compared"] += 1
    if not right:
        found["wrong"].append(" ".join(map(str, label)))


def small_blocks():
    """Fewer threads, whose barriers take the simulator long; what they do has the same shape."""
    depthwise.THREADS, depthwise.BESIDE = 8, 2


def primitives(problem):
    """The directions that the algorithm accepts."""
    for direction in Direction:
        if depthwise.DEPTHWISE[direction].accepts(problem.plan("float32")) is None:
            yield direction


def exact(name, problem, dtype=np.float32, runs=(run, run_last)):
    """Sums of small integers are exact."""
    x, w, g = operands(problem, np.random.default_rng(5), dtype, 3)
    for direction in primitives(problem):
        for each in runs:
            answer = each(direction, problem, x, w, g, **FORCED)
            wanted = expected(direction, problem, x, w, g).astype(answer.dtype)
            note(np.array_equal(answer, wanted), name, direction.name, each.__name__, np.dtype(dtype).name)


def check_problems():
    """Every problem, channels first and last."""
    small_blocks()
    for name, problem in PROBLEMS.items():
        exact(name, problem)


def check_dtypes():
    """Every dtype."""
    small_blocks()
    for name in ("strided", "constant"):
        for dtype in (np.float64, np.float16, ml_dtypes.bfloat16):
            exact(name, PROBLEMS[name], dtype)


def check_real_blocks():
    """Blocks as they are on a device, more than one of a sample, the last not full."""
    exact("real blocks", _depthwise((8, 9), (2, 2), groups=9, pads=((1, 0), (1, 0))))


def check_walks():
    """The problems visit every kind of walk: cells shared or apart, one chunk of taps or several."""
    for make, walks in ((forward_walk, 4), (input_walk, 4)):
        axes = [axis for problem in PROBLEMS.values() for axis in problem.plan().axes if not axis.maps_padding]
        made = [make(axis) for axis in axes if axis.output]
        note(len({(walk.pattern.results > 1, walk.chunks > 1) for walk in made}) == walks, make.__name__)


def bits(problem):
    """Results of every direction on values that round."""
    x, w, g = operands(problem, np.random.default_rng(6), np.float32)
    return {direction: run(direction, problem, x, w, g, **FORCED) for direction in primitives(problem)}


def check_bits():
    """The same bits whatever the samples beside one, and the run."""
    small_blocks()
    problem = _depthwise((6, 5), (3, 3), batch=3, times=2, stride=(1, 2), pads=((1, 1), (1, 1)))
    wanted = bits(problem)
    for direction, again in bits(problem).items():
        note(np.array_equal(again, wanted[direction]), "again", direction.name)
    x, w, g = operands(problem, np.random.default_rng(6), np.float32)
    for n in range(problem.batch):
        for direction in (Direction.FORWARD, Direction.INPUT_GRAD):
            one = run(direction, problem, x[n : n + 1], w, g[n : n + 1], **FORCED)
            note(np.array_equal(one[0], wanted[direction][n]), "one sample", n, direction.name)


def check_chunks():
    """A weight gradient of many chunks, more than the second kernel's sums, that begin within samples."""
    small_blocks()
    depthwise._LEAST_UNITS = 1
    exact("chunks", _depthwise((9, 7), (3, 2), groups=3, batch=7, pads=((1, 0), (0, 1))))
    length, chunks = depthwise._Weight(PROBLEMS["one cell"].plan("float32"))._chunks(3, 8, 7 * 14)
    note(chunks > 8 and 14 % length, "chunks are many and begin within samples")


def check_epilogue():
    """Bias, residual and activation, on arrays that held NaN, with a weight prepared or not."""
    small_blocks()
    rng = np.random.default_rng(7)
    x, w = rng.standard_normal((2, 3, 5, 6)).astype("f4"), rng.standard_normal((6, 1, 3, 3)).astype("f4")
    bias, residual = rng.standard_normal(6).astype("f4"), rng.standard_normal((2, 6, 5, 6)).astype("f4")
    options = {"padding": 1, "activation": "silu", "groups": 3}
    wanted = numbaconv.conv2d(x, w, bias, residual=residual, backend="reference", **options)
    out = np.full(wanted.shape, np.nan, np.float32)
    numbaconv.conv2d(x, w, bias, residual=residual, out=out, **options, **FORCED)
    note(np.allclose(out, wanted, rtol=1e-5, atol=1e-5), "epilogue")
    layer = numbaconv.prepare(w, bias, **options, **FORCED)
    note(np.array_equal(layer(x, residual), out), "prepared")
    last = {"data_format": "NHWC", "weight_format": "OIHW"}
    moved = [np.ascontiguousarray(np.moveaxis(each, 1, -1)) for each in (x, residual)]
    answer = numbaconv.conv2d(moved[0], w, bias, residual=moved[1], **options, **last, **FORCED)
    note(np.allclose(np.moveaxis(answer, -1, 1), wanted, rtol=1e-5, atol=1e-5), "channels last")


def check_strides():
    """Operands whose elements are apart, of every axis."""
    small_blocks()
    rng = np.random.default_rng(8)
    x = rng.integers(-3, 4, (4, 8, 8, 10)).astype("f4")[::2, ::2, ::2, ::2]
    w = np.asfortranarray(rng.integers(-3, 4, (4, 1, 3, 2)).astype("f4"))
    g = rng.integers(-3, 4, (2, 8, 4, 8)).astype("f4")[:, ::2, :, ::2]
    problem = _P(x.shape[2:], (3, 2), batch=2, c_in=4, c_out=4, groups=4, pads=((1, 1), (0, 0)))
    for direction in Direction:
        answer = run(direction, problem, x, w, g, **FORCED)
        note(np.array_equal(answer, expected(direction, problem, x, w, g)), "strides", direction.name)


def check_nan():
    """NaN and infinity stay in the results that read them."""
    small_blocks()
    for problem in (
        _depthwise((5, 6), (3, 2), batch=2, times=2, pads=((1, 1), (0, 1))),
        _depthwise((9, 7), (3, 3), batch=2, stride=(2, 3), pads=((1, 1), (1, 1))),
        _depthwise((14,), (11,), batch=2, stride=(2,), pads=((3, 3),)),
    ):
        for each in (run, run_last):
            x, w, g = operands(problem, np.random.default_rng(11), np.float32, 3)
            x[1, 1, ..., -1], g[1, 1, ..., -1] = np.nan, np.inf
            _same_places(problem, each, x, w, g)
    # The last cell along a walk, which outputs past the last one would read, too, with other taps.
    for problem, at in (
        (_depthwise((1, 7), (1, 3)), (..., -1)),
        (_depthwise((7, 2), (3, 1)), (..., -1, slice(None))),
    ):
        for each in (run, run_last):
            x, w, g = operands(problem, np.random.default_rng(12), np.float32, 3)
            x[at] = np.nan
            _same_places(problem, each, x, w, g)


def _same_places(problem, each, x, w, g):
    for direction in Direction:
        answer = each(direction, problem, x, w, g, **FORCED)
        wanted = each(direction, problem, x, w, g, backend="reference")
        right = np.array_equal(np.isfinite(answer), np.isfinite(wanted))
        note(right, "NaN", problem, direction.name, each.__name__)


CHECKS = {name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")}

if __name__ == "__main__":
    for name in sys.argv[1:]:
        CHECKS[name]()
    print(json.dumps(found))  # noqa: T201
