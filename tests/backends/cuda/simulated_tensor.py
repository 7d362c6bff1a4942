"""The tensor core algorithms in Numba's simulator: a program, since the simulator is chosen before Numba is imported.

Arguments are names of checks below; it prints, as JSON, how many results each compared, and what was wrong.
"""

import json
import os
import sys
from dataclasses import replace

os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
sys.path[:0] = [os.path.join(os.path.dirname(__file__), *up) for up in (("..", ".."), ())]

import ml_dtypes  # noqa: E402
import numpy as np  # noqa: E402
from turns import take_turns  # noqa: E402

import numbaconv  # noqa: E402
from numbaconv.backends.base import Direction  # noqa: E402
from numbaconv.backends.cuda import implicit_weight, tensor_core, tensor_tiles  # noqa: E402
from numbaconv.backends.cuda.fragments import piece_at, split  # noqa: E402
from problems import Problem, expected, magnitude, operands, run, run_last  # noqa: E402

take_turns()
_P = Problem
BFLOAT16 = ml_dtypes.bfloat16
HALF, SPLIT = {"algorithm": "tensor_core"}, {"algorithm": "tensor_core_3xtf32"}
TF32 = {**HALF, "precision": "tf32"}
#: What each dtype is multiplied by: every kind of numbers once.
KINDS = ((np.float16, HALF), (BFLOAT16, HALF), (np.float32, TF32), (np.float32, SPLIT))

#: Each visits an edge: of tiles in rows and columns, of the depth, of pieces, of phases, groups, and padding.
PROBLEMS = {
    "rows over a tile, few channels": _P((3, 3), (2, 2), batch=2, c_in=3, c_out=35, pads=((1, 0), (0, 1))),
    "channels over the depth": _P((2, 3), (2, 1), c_in=40, c_out=8, pads=((1, 0), (0, 0))),
    "channels that end inside the depth": _P((2, 3), (1, 2), c_in=27, c_out=5),
    "pieces that end inside the depth": _P((2, 2), (1, 1), batch=2, c_in=24, c_out=24),
    "whole pieces": _P((3, 3), (3, 3), batch=2, c_in=16, c_out=12, pads=((1, 1), (1, 1))),
    "groups": _P((3, 3), (2, 2), batch=2, c_in=32, c_out=48, groups=2, pads=((1, 0), (1, 0))),
    "strided, groups": _P((5, 5), (3, 3), c_in=6, c_out=10, groups=2, stride=(2, 3), pads=((1, 1), (2, 1))),
    "strided, whole pieces": _P((4, 5), (3, 2), c_in=16, c_out=16, stride=(2, 2), pads=((1, 1), (1, 1))),
    "stride over kernel": _P((7,), (2,), batch=2, c_in=16, c_out=8, stride=(4,)),
    "stride and dilation": _P((9,), (3,), c_in=3, c_out=8, stride=(3,), dilation=(2,), pads=((3, 4),)),
    "three axes": _P((2, 2, 3), (2, 2, 2), c_in=2, c_out=8, stride=(1, 1, 2), pads=((1, 0), (1, 1), (0, 2))),
    "constant": _P((3, 2), (2, 3), c_in=16, c_out=4, pads=((2, 1), (1, 2)), modes=("constant",) * 2, value=3),
    "constant rows, few channels": _P(
        (2, 3), (2, 2), c_in=2, c_out=4, pads=((1, 1), (1, 1)), modes=("constant", "zeros"), value=-2
    ),
    "reflect, circular": _P((3, 4), (2, 2), c_in=16, c_out=4, pads=((2, 1), (3, 1)), modes=("reflect", "circular")),
    "replicate, symmetric": _P((3, 3), (2, 2), c_in=3, pads=((2, 1), (2, 1)), modes=("replicate", "symmetric")),
    "no input channels": _P((3, 3), (2, 2), c_in=0, c_out=5),
    "empty batch": _P((3, 3), (2, 2), batch=0, c_in=3, c_out=5),
    "one cell": _P((1,), (1,)),
    "constant rows, zero columns": _P(
        (2, 3), (2, 2), c_in=27, c_out=4, pads=((1, 1), (1, 1)), modes=("constant", "zeros"), value=-2
    ),
    "zero rows, constant columns": _P(
        (2, 3), (2, 2), c_in=16, c_out=4, pads=((1, 1), (1, 1)), modes=("zeros", "constant"), value=-2
    ),
}

found = {"compared": 0, "wrong": []}


def note(right, *label):
    """Count a comparison."""
    found["compared"] += 1
    if not right:
        found["wrong"].append(" ".join(map(str, label)))


def algorithm_of(direction, options):
    """The algorithm that options name."""
    table = numbaconv.backends.registry.resolve("cuda").tables[direction]
    return {each.name: each for each in table}[options["algorithm"]]


def directions(problem):
    """Those whose gathers know the problem's padding."""
    maps = any(axis.maps_padding for axis in problem.plan().axes)
    return [each for each in Direction if not (maps and each is Direction.INPUT_GRAD)]


def exact(name, problem, dtype, options, runs):
    """Sums of small integers are exact."""
    x, w, g = operands(problem, np.random.default_rng(5), dtype, 3)
    for direction in directions(problem):
        for each in runs:
            answer = each(direction, problem, x, w, g, backend="cuda", **options)
            wanted = expected(direction, problem, x, w, g).astype(answer.dtype)
            note(np.array_equal(answer, wanted), name, direction.name, each.__name__, np.dtype(dtype).name, options)


def check_problems():
    """Every problem, in one kind of numbers and layout after another."""
    for turn, (name, problem) in enumerate(PROBLEMS.items()):
        dtype, options = KINDS[turn % 3]
        exact(name, problem, dtype, options, (run,) if turn // 3 % 2 else (run_last,))


def check_kinds():
    """Every kind of numbers through every way to gather."""
    for turn, (dtype, options) in enumerate(KINDS):
        exact("kinds", PROBLEMS["whole pieces"], dtype, options, (run,) if turn % 3 else (run_last,))
        exact("kinds", PROBLEMS["constant rows, few channels"], dtype, options, (run_last,) if turn % 3 else (run,))


def check_tiles():
    """Tiles of several warps: their second rows and columns, and warps of 64 rows."""
    for tile, c_out, options, each in (
        (tensor_tiles.TensorTile(64, 32, 32, 16), 70, HALF, run_last),
        (tensor_tiles.TensorTile(64, 16, 64, 8), 70, SPLIT, run),
        (tensor_tiles.TensorTile(64, 16, 64, 8), 40, HALF, run),
    ):
        tensor_core.SMALL_TENSOR = tile
        problem = _P((1, tile.columns + 1), (1, 1), c_in=16, c_out=c_out)
        exact(f"tile {tile}", problem, np.float32 if options is SPLIT else np.float16, options, (each,))
    tensor_core.SMALL_TENSOR = tensor_tiles.SMALL_TENSOR


def check_most_sums():
    """As the largest tile of devices: a warp that takes its columns in two turns, two steps in shared memory."""
    tensor_core.SMALL_TENSOR, most = tensor_tiles.TensorTile(64, 32, 64, 32), tensor_tiles._MOST_STAGES
    tensor_tiles._MOST_STAGES = 2
    for each in (run, run_last):
        problem = _P((1, 33), (1, 1), c_in=40, c_out=66 if each is run else 36)
        x, w, g = operands(problem, np.random.default_rng(5), np.float32, 3)
        for direction in (Direction.FORWARD, Direction.INPUT_GRAD):
            answer = each(direction, problem, x, w, g, backend="cuda", **SPLIT)
            wanted = expected(direction, problem, x, w, g).astype(answer.dtype)
            note(np.array_equal(answer, wanted), "most sums", direction.name, each.__name__)
    tensor_core.SMALL_TENSOR, tensor_tiles._MOST_STAGES = tensor_tiles.SMALL_TENSOR, most


def check_chunks():
    """A weight gradient of many chunks, and of a chunk that ends inside a step."""
    implicit_weight._LEAST_POSITIONS = 32
    problem = _P((9, 5), (1, 2), batch=5, c_in=4, c_out=5)
    for dtype, options in ((np.float16, HALF), (np.float32, SPLIT)):
        x, w, g = operands(problem, np.random.default_rng(5), dtype, 3)
        for each in (run, run_last):
            answer = each(Direction.WEIGHT_GRAD, problem, x, w, g, backend="cuda", **options)
            wanted = expected(Direction.WEIGHT_GRAD, problem, x, w, g).astype(answer.dtype)
            note(np.array_equal(answer, wanted), "chunks", each.__name__, np.dtype(dtype).name)


def check_bits():
    """The same bits whatever the tile, the samples beside one, and the run."""
    problem = _P((3, 4), (2, 2), batch=2, c_in=16, c_out=9, stride=(2, 1), pads=((1, 1), (1, 0)))
    x, w, g = operands(problem, np.random.default_rng(6), np.float32)
    for options in (SPLIT, TF32):
        wanted = {each: run(each, problem, x, w, g, backend="cuda", **options) for each in Direction}
        for direction in (Direction.FORWARD, Direction.INPUT_GRAD):
            for n in range(problem.batch):
                one = run(direction, problem, x[n : n + 1], w, g[n : n + 1], backend="cuda", **options)
                note(np.array_equal(one[0], wanted[direction][n]), "one sample", n, direction.name)
        tensor_core.SMALL_TENSOR = tensor_tiles.TensorTile(32, 32, 32, 16)
        for direction in Direction:
            other = run(direction, problem, x, w, g, backend="cuda", **options)
            note(np.array_equal(other, wanted[direction]), "another tile", direction.name)
        tensor_core.SMALL_TENSOR = tensor_tiles.SMALL_TENSOR


def check_errors():
    """Within each algorithm's bound: ordinary values, all of one sign, and of a wide range.

    Split float32 besides within four times what products and sums of float32, in order, are off by.
    """
    rng = np.random.default_rng(12)
    problem = _P((1, 8), (1, 2), c_in=96, c_out=16)
    shapes = problem.x_shape, problem.w_shape, problem.plan().output_shape
    for kind in ("normal", "positive", "wide"):
        values = [rng.standard_normal(shape) for shape in shapes]
        if kind == "positive":
            values = [rng.uniform(0.5, 1.5, shape) for shape in shapes]
        elif kind == "wide":
            values = [each * 10.0 ** rng.uniform(-15, 15, each.shape) for each in values]
        x, w, g = (each.astype(np.float32) for each in values)
        for direction in Direction if kind == "normal" else (Direction.FORWARD,):
            size = magnitude(direction, problem, x, w, g)
            wanted = expected(direction, problem, x, w, g)
            for options in (SPLIT, TF32) if direction is Direction.FORWARD else (SPLIT,):
                plan = replace(problem.plan("float32"), precision=options.get("precision", "float32"))
                bound = algorithm_of(direction, options).error_factor(plan) * np.finfo(np.float32).eps * size
                off = np.abs(run(direction, problem, x, w, g, backend="cuda", **options) - wanted)
                note((off <= bound).all(), "bound", kind, options, direction.name, (off / bound).max())
                if options is SPLIT and direction is Direction.FORWARD:
                    ours, theirs = off / size, np.abs(in_order(x, w) - wanted) / size
                    note(np.sqrt((ours**2).mean()) <= 4 * np.sqrt((theirs**2).mean()), "four times", kind)
                    note(ours.max() <= 4 * theirs.max(), "four times at most", kind, ours.max(), theirs.max())


def in_order(x, w):
    """Sums of products as `implicit_gemm` adds them: taps in order, and for each the channels, rounded once each."""
    width = x.shape[3] - w.shape[3] + 1
    total = np.zeros((w.shape[0], width), np.float32)
    for k in range(w.shape[3]):
        for c in range(x.shape[1]):
            exact_sum = total + np.outer(w[:, c, 0, k].astype(np.float64), x[0, c, 0, k : k + width])
            total = exact_sum.astype(np.float32)  # a fused multiply-add, but for a rounding of float64
    return total[None, :, None]


def check_shallow():
    """The least depth for which split float32 is chosen is within four times, too."""
    rng = np.random.default_rng(13)
    problem = _P((1, 64), (1, 1), c_in=64, c_out=32)
    for positive in (False, True):
        x, w, g = (
            (rng.uniform(0.5, 1.5, shape) if positive else rng.standard_normal(shape)).astype(np.float32)
            for shape in (problem.x_shape, problem.w_shape, problem.plan().output_shape)
        )
        wanted = expected(Direction.FORWARD, problem, x, w, g)
        size = magnitude(Direction.FORWARD, problem, x, w, g)
        off = np.abs(run(Direction.FORWARD, problem, x, w, g, backend="cuda", **SPLIT) - wanted) / size
        simt = np.abs(in_order(x, w) - wanted) / size
        note(np.sqrt((off**2).mean()) <= 4 * np.sqrt((simt**2).mean()), "four times", positive)
        note(off.max() <= 4 * simt.max(), "four times at most", positive, off.max(), simt.max())


def check_extremes():
    """Split float32 where its parts are: infinity and NaN, the largest values, the smallest, and zeros."""
    most, tiny = np.finfo(np.float32).max, np.finfo(np.float32).tiny
    quiet = np.uint32(0x7FFFFFFF).view(np.float32)  # the NaN that devices make
    values = [np.inf, -np.inf, np.nan, quiet, most, -most, 3.4025e38, tiny, tiny / 1024, 1e-45, 0.0, -0.0, 1.0, 1 / 3]
    x = np.array(values, np.float32)
    w = np.array([1, 0.5, -1 / 3, 2.0**-20, 0, 1e30, 1.0000001, -4097], np.float32)
    for first, second in ((x, w), (w, x)):
        answer = numbaconv.conv1d(first.reshape(1, 1, -1), second.reshape(-1, 1, 1), backend="cuda", **SPLIT)[0]
        for (i, j), value in np.ndenumerate(answer):
            a, b = float(second[i]), float(first[j])
            with np.errstate(over="ignore"):
                want = np.float32(a * b)
            # Besides what rounding is off by, parts of what is smaller than 2**-125 lose up to 2**-146.
            near = abs(float(value) - a * b) <= abs(a * b) * 2.0**-20 + 2.0**-146 * (abs(a) + abs(b) + 1)
            right = value == want or (np.isnan(value) and np.isnan(want)) or (np.isfinite(value) and near)
            note(right, "extreme", a, b, value, want)
    g = np.array([[[most, 1.0]]], np.float32)
    answer = numbaconv.grad.conv1d_weight(
        np.array([[[0.5, np.inf]]], np.float32), (1, 1, 1), g, backend="cuda", **SPLIT
    )
    note(answer[0, 0, 0] == np.inf, "infinity beside the largest")
    pair, ones = np.array([[[np.inf], [quiet]]], np.float32), np.ones((1, 2, 1), np.float32)
    note(np.isnan(numbaconv.conv1d(pair, ones, backend="cuda", **SPLIT)[0, 0, 0]), "infinity beside NaN")


def check_split():
    """A float32 is its two parts but for one of its last bits, and the first is the nearest."""
    rng = np.random.default_rng(14)
    values = (rng.uniform(1, 2, 300) * 2.0 ** rng.integers(-120, 127, 300)).astype(np.float32)
    for value in (*values, *-values, np.finfo(np.float32).max):
        high, low = (np.uint32(part & np.uint32(0xFFFFE000)).view(np.float32) for part in split(value.view(np.uint32)))
        last = np.spacing(np.abs(value)).astype(np.float64)
        left = abs(float(value) - (float(high) + float(low) / 1024)) / last
        most = 2 if abs(value) > 3.4e38 else 1  # what would round to infinity is cut off
        note(left <= most and abs(low) <= abs(value) * most / 2, "split", value, high, low)


def check_nan():
    """NaN and infinity stay in their group and sample, whatever of the tile's depth is empty."""
    for inside, outside, each in ((24, 8, run_last), (3, 5, run)):
        problem = _P((1, 3), (1, 2), batch=2, c_in=2 * inside, c_out=2 * outside, groups=2)
        for dtype, options in ((np.float16, HALF), (np.float32, SPLIT)):
            x, w, g = operands(problem, np.random.default_rng(11), dtype, 3)
            x[1, inside:, 0, 0], g[1, outside:, 0, 0] = np.nan, np.inf
            for direction in Direction:
                answer = each(direction, problem, x, w, g, backend="cuda", **options)
                wanted = each(direction, problem, x, w, g, backend="reference")
                right = np.array_equal(np.isfinite(answer), np.isfinite(wanted))
                note(right, "NaN", inside, direction.name, each.__name__, options)
    problem = _P((2, 3), (1, 2), c_in=27, c_out=4, pads=((0, 0), (1, 0)), modes=("constant",) * 2, value=np.inf)
    for dtype, options in KINDS:
        ones = [np.abs(array) + 1 for array in operands(problem, np.random.default_rng(12), dtype, 3)]
        answer = run(Direction.FORWARD, problem, *ones, backend="cuda", **options)
        wanted = run(Direction.FORWARD, problem, *ones, backend="reference")
        note(np.isinf(wanted).any() and np.array_equal(answer, wanted), "infinities", dtype, options)


def check_epilogue():
    """Bias, residual and activation on arrays that held NaN, with a weight prepared or not; operands of two dtypes."""
    rng = np.random.default_rng(7)
    for c_out, width in ((8, 4), (39, 3)):
        x, w = rng.standard_normal((1, 8, 2, width)).astype("f4"), rng.standard_normal((c_out, 8, 1, 3)).astype("f4")
        bias, residual = rng.standard_normal(c_out).astype("f4"), rng.standard_normal((1, c_out, 2, width)).astype("f4")
        options = {"padding": (0, 1), "activation": "silu"}
        wanted = numbaconv.conv2d(x, w, bias, residual=residual, backend="reference", **options)
        out = np.full(wanted.shape, np.nan, np.float32)
        numbaconv.conv2d(x, w, bias, residual=residual, out=out, backend="cuda", **options, **SPLIT)
        note(np.allclose(out, wanted, rtol=1e-5, atol=1e-5), "epilogue", c_out)
        layer = numbaconv.prepare(w, bias, backend="cuda", **options, **SPLIT)
        note(np.array_equal(layer(x, residual), out), "prepared", c_out)
        last = {"data_format": "NHWC", "weight_format": "OIHW"}
        moved = [np.ascontiguousarray(np.moveaxis(each, 1, -1)) for each in (x, residual)]
        answer = numbaconv.conv2d(moved[0], w, bias, residual=moved[1], backend="cuda", **options, **last, **SPLIT)
        note(np.array_equal(np.moveaxis(answer, -1, 1), out), "channels last", c_out)
        tensor_core.SMALL_TENSOR = tensor_tiles.TensorTile(64, 16, 64, 8)
        other = numbaconv.conv2d(moved[0], w, bias, residual=moved[1], backend="cuda", **options, **last, **SPLIT)
        note(np.array_equal(other, answer), "several quads of channels", c_out)
        tensor_core.SMALL_TENSOR = tensor_tiles.SMALL_TENSOR
        for half in (np.float16, BFLOAT16):
            mixed = numbaconv.conv2d(x.astype(half), w, padding=(0, 1), backend="cuda", **SPLIT)
            wide = numbaconv.conv2d(x.astype(half).astype("f4"), w, padding=(0, 1), backend="cuda", **SPLIT)
            note(np.array_equal(mixed, wide), "two dtypes", c_out, np.dtype(half).name)


def check_choice():
    """What is chosen unasked, by the plan; and what is refused, in words."""

    def chosen(*arguments, **options):
        return numbaconv.explain(*arguments, backend="cuda", **options).algorithm

    note(chosen((1, 64, 8, 8), (64, 64, 3, 3), dtype="float16") == "tensor_core", "float16")
    note(chosen((1, 64, 8, 8), (64, 64, 3, 3)) == "tensor_core_3xtf32", "float32")
    note(chosen((9, 64, 8, 8), (64, 64, 3, 3)) == "tensor_core_3xtf32", "float32, another batch")
    note(chosen((1, 64, 8, 8), (64, 64, 3, 3), precision="tf32") == "tensor_core", "TF32")
    note(chosen((1, 3, 8, 8), (64, 3, 3, 3)) == "implicit_gemm", "few products")
    note(chosen((1, 64, 8, 8), (64, 64, 3, 3), dtype="float64") == "implicit_gemm", "float64")
    before = tensor_core._capability
    tensor_core._capability = lambda: (7, 5)
    plan = _P((8, 8), (3, 3), c_in=64, c_out=64).plan("float32")
    refusal = algorithm_of(Direction.FORWARD, SPLIT).accepts(plan)
    note("need compute capability 8.0, and a device has 7.5" in str(refusal), "capability", refusal)
    tensor_core._capability = before
    padding = {"modes": ("constant",) * 2, "pads": ((1, 1),) * 2, "value": 0.1}
    plan = _P((8, 8), (3, 3), c_in=64, c_out=64, **padding).plan("float16")
    refusal = algorithm_of(Direction.FORWARD, HALF).accepts(plan)
    note("0.1, which is no float16" in str(refusal), "padding value", refusal)


def check_banks():
    """What lanes access together in shared memory lies in different banks: the arithmetic of `tensor_tiles`."""

    def groups(pairs):
        return len({int(piece_at(np.uint32(r), np.uint32(c))) // 4 % 8 for r, c in pairs}) == 8

    for first in range(0, 32, 8):
        for chunk in range(4):
            note(groups([(first + r, chunk) for r in range(8)]), "a piece of 8 rows")
    for first in range(0, 32, 4):
        for chunk in (0, 2):
            note(groups([(first + r, chunk + c) for r in range(4) for c in range(2)]), "two pieces of 4 rows")
    for first in range(0, 32, 2):
        note(groups([(first + r, c) for r in range(2) for c in range(4)]), "four pieces of 2 rows")


CHECKS = {name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")}

if __name__ == "__main__":
    for name in sys.argv[1:]:
        CHECKS[name]()
    print(json.dumps(found))  # noqa: T201
