"""The matrix algorithms in Numba's simulator: a program, since the simulator is chosen before Numba is imported.

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
from numbaconv.backends.cuda import implicit_gemm, implicit_weight, tiles  # noqa: E402
from problems import Problem, expected, operands, run, run_last  # noqa: E402

take_turns()
_P = Problem
FORCED = {"backend": "cuda", "algorithm": "implicit_gemm"}

#: Each visits an edge: of tiles in rows and columns, of the depth, of quads, of phases, groups, and padding.
PROBLEMS = {
    "rows over a tile, few channels": _P((5, 3), (2, 2), batch=2, c_in=3, c_out=19, pads=((1, 0), (0, 1))),
    "channels over the depth": _P((3, 4), (2, 1), batch=2, c_in=16, c_out=8, pads=((1, 0), (0, 0))),
    "channels that end inside the depth": _P((3, 4), (1, 2), c_in=15, c_out=5),
    "quads that end inside the depth": _P((2, 2), (1, 1), c_in=28, c_out=28),
    "whole quads": _P((4, 4), (3, 3), batch=2, c_in=8, c_out=12, pads=((1, 1), (1, 1))),
    "whole quads, rows over a tile": _P((2, 6), (1, 3), c_in=8, c_out=20, pads=((0, 0), (1, 1))),
    "groups": _P((4, 3), (2, 2), batch=2, c_in=16, c_out=24, groups=2, pads=((1, 0), (1, 0))),
    "strided, groups": _P((5, 6), (3, 3), c_in=6, c_out=10, groups=2, stride=(2, 3), pads=((1, 1), (2, 1))),
    "strided, whole quads": _P((5, 6), (3, 2), c_in=8, c_out=8, stride=(2, 2), pads=((1, 1), (1, 1))),
    "stride over kernel": _P((7,), (2,), batch=2, c_in=3, c_out=4, stride=(4,)),
    "stride and dilation": _P((14,), (4,), c_in=3, c_out=5, stride=(3,), dilation=(2,), pads=((3, 4),)),
    "three axes": _P((3, 2, 4), (2, 2, 3), c_in=2, c_out=5, stride=(1, 1, 2), pads=((1, 0), (1, 1), (0, 2))),
    "constant": _P((3, 4), (3, 3), c_in=8, c_out=4, pads=((2, 1), (1, 2)), modes=("constant",) * 2, value=3),
    "constant, few channels": _P(
        (3, 4), (3, 3), c_in=2, c_out=4, pads=((2, 1), (1, 2)), modes=("constant",) * 2, value=-2
    ),
    "constant rows, zero columns": _P(
        (3, 4), (3, 3), c_in=2, pads=((2, 2), (2, 2)), modes=("constant", "zeros"), value=5
    ),
    "constant rows, zero columns, a tap at a time": _P(
        (3, 4), (3, 3), c_in=16, pads=((2, 2), (2, 2)), modes=("constant", "zeros"), value=5
    ),
    "zero rows, constant columns, a tap at a time": _P(
        (3, 4), (3, 3), c_in=16, pads=((2, 2), (2, 2)), modes=("zeros", "constant"), value=5
    ),
    "reflect, circular": _P((4, 5), (3, 3), c_in=8, c_out=4, pads=((2, 3), (4, 1)), modes=("reflect", "circular")),
    "replicate, symmetric": _P(
        (3, 4), (3, 2), c_in=3, c_out=4, pads=((2, 3), (4, 1)), modes=("replicate", "symmetric")
    ),
    "no input channels": _P((3, 3), (2, 2), c_in=0, c_out=5),
    "empty batch": _P((3, 3), (2, 2), batch=0, c_in=3, c_out=5),
    "one cell": _P((1,), (1,)),
}

found = {"compared": 0, "wrong": []}


def note(right, *label):
    """Count a comparison."""
    found["compared"] += 1
    if not right:
        found["wrong"].append(" ".join(map(str, label)))


def use(tile):
    """Let the algorithms choose this tile, or with None what they would."""
    for module in (implicit_gemm, implicit_weight):
        module.choose_tile = tiles.choose_tile if tile is None else lambda *arguments: tile


def primitives(problem):
    """The directions that the algorithm accepts."""
    table = numbaconv.backends.registry.resolve("cuda").tables
    for direction in Direction:
        accepts = {each.name: each.accepts for each in table[direction]}["implicit_gemm"]
        if accepts(problem.plan("float32")) is None:
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
    for name, problem in PROBLEMS.items():
        exact(name, problem)


def check_dtypes():
    """Every dtype, through every way to gather."""
    for name in ("whole quads, rows over a tile", "channels that end inside the depth", "constant, few channels"):
        for dtype in (np.float64, np.float16, ml_dtypes.bfloat16):
            exact(name, PROBLEMS[name], dtype)


def check_tiles():
    """Tiles whose threads have other shapes, their second quads in use."""
    for tile, c_out, width in (
        (tiles.Tile(32, 16, 8, 4), 20, 9),
        (tiles.Tile(32, 16, 4, 8), 20, 9),
        (tiles.Tile(64, 8, 8, 8), 36, 5),
        (tiles.Tile(16, 64, 4, 4), 20, 35),
    ):
        use(tile)
        exact(f"tile {tile}", _P((1, width), (1, 2), batch=2, c_in=8, c_out=c_out, pads=((0, 0), (1, 0))))
    use(None)


def check_real_tile():
    """The largest tile as it is on a device, all of a thread's quads in use."""
    use(tiles.TILES[4][0])
    exact("the largest tile", _P((1, 67), (1, 1), c_in=8, c_out=68), runs=(run,))
    use(None)


def bits(problem, **options):
    """Results of every direction on values that round."""
    x, w, g = operands(problem, np.random.default_rng(6), np.float32)
    return {direction: run(direction, problem, x, w, g, **FORCED) for direction in primitives(problem)}


def check_bits():
    """The same bits whatever the tile, the samples beside one, and the run."""
    problem = _P((4, 5), (3, 3), batch=3, c_in=8, c_out=9, stride=(2, 1), pads=((1, 1), (1, 1)))
    wanted = bits(problem)
    for direction, again in bits(problem).items():
        note(np.array_equal(again, wanted[direction]), "again", direction.name)
    use(tiles.Tile(32, 16, 4, 8))
    for direction, other in bits(problem).items():
        note(np.array_equal(other, wanted[direction]), "another tile", direction.name)
    use(None)
    x, w, g = operands(problem, np.random.default_rng(6), np.float32)
    for n in range(problem.batch):
        for direction in (Direction.FORWARD, Direction.INPUT_GRAD):
            one = run(direction, problem, x[n : n + 1], w, g[n : n + 1], **FORCED)
            note(np.array_equal(one[0], wanted[direction][n]), "one sample", n, direction.name)


def check_chunks():
    """A weight gradient of many chunks, more than the second kernel's sums, and of a chunk that ends early."""
    implicit_weight._LEAST_POSITIONS = 16
    for name, problem in {
        "chunks": _P((9, 5), (2, 2), batch=5, c_in=3, c_out=5, pads=((1, 0), (0, 1))),
        "chunks of quads": _P((9, 5), (1, 2), batch=5, c_in=8, c_out=8),
    }.items():
        assert -(-problem.plan().batch * 45 // implicit_weight.chunk_length(problem.plan(), tiles.DEPTH)) > 8
        exact(name, problem)


def check_epilogue():
    """Bias, residual and activation, aligned and not, on arrays that held NaN, with a weight prepared or not."""
    rng = np.random.default_rng(7)
    for c_out, width in ((8, 4), (7, 5)):
        x, w = rng.standard_normal((2, 8, 3, width)).astype("f4"), rng.standard_normal((c_out, 8, 1, 3)).astype("f4")
        bias, residual = rng.standard_normal(c_out).astype("f4"), rng.standard_normal((2, c_out, 3, width)).astype("f4")
        options = {"padding": (0, 1), "activation": "silu"}
        wanted = numbaconv.conv2d(x, w, bias, residual=residual, backend="reference", **options)
        out = np.full(wanted.shape, np.nan, np.float32)
        numbaconv.conv2d(x, w, bias, residual=residual, out=out, **options, **FORCED)
        note(np.allclose(out, wanted, rtol=1e-5, atol=1e-5), "epilogue", c_out)
        layer = numbaconv.prepare(w, bias, **options, **FORCED)
        note(np.array_equal(layer(x, residual), out), "prepared", c_out)
        last = {"data_format": "NHWC", "weight_format": "OIHW"}
        moved = [np.ascontiguousarray(np.moveaxis(each, 1, -1)) for each in (x, residual)]
        answer = numbaconv.conv2d(moved[0], w, bias, residual=moved[1], **options, **last, **FORCED)
        note(np.array_equal(np.moveaxis(answer, -1, 1), out), "channels last", c_out)


def check_strides():
    """Operands whose elements are apart, of every axis."""
    rng = np.random.default_rng(8)
    x = rng.integers(-3, 4, (4, 16, 8, 10)).astype("f4")[::2, ::2, ::2, ::2]
    w = np.asfortranarray(rng.integers(-3, 4, (5, 8, 3, 2)).astype("f4"))
    g = rng.integers(-3, 4, (2, 10, 4, 8)).astype("f4")[:, ::2, :, ::2]
    problem = _P(x.shape[2:], (3, 2), batch=2, c_in=8, c_out=5, pads=((1, 1), (0, 0)))
    for direction in Direction:
        answer = run(direction, problem, x, w, g, **FORCED)
        note(np.array_equal(answer, expected(direction, problem, x, w, g)), "strides", direction.name)


def check_nan():
    """NaN and infinity stay in their group and sample, whatever of the tile's depth is empty."""
    for inside, outside in ((15, 4), (28, 8), (3, 5)):
        problem = _P((2, 3), (1, 2), batch=2, c_in=2 * inside, c_out=2 * outside, groups=2)
        for each in (run, run_last):
            x, w, g = operands(problem, np.random.default_rng(11), np.float32, 3)
            x[1, inside:, 0, 0], g[1, outside:, 0, 0] = np.nan, np.inf
            for direction in Direction:
                answer = each(direction, problem, x, w, g, **FORCED)
                wanted = each(direction, problem, x, w, g, backend="reference")
                right = np.array_equal(np.isfinite(answer), np.isfinite(wanted))
                note(right, "NaN", inside, direction.name, each.__name__)
    for channels in (28, 15):
        problem = _P(
            (2, 3),
            (1, 2),
            batch=2,
            c_in=channels,
            c_out=4,
            pads=((0, 0), (1, 0)),
            modes=("constant",) * 2,
            value=np.inf,
        )
        for each in (run, run_last):
            ones = [np.abs(array) + 1 for array in operands(problem, np.random.default_rng(12), np.float32, 3)]
            ones[2][:, 0] = np.inf
            for direction in (Direction.FORWARD, Direction.WEIGHT_GRAD):
                answer = each(direction, problem, *ones, **FORCED)
                wanted = each(direction, problem, *ones, backend="reference")
                note(np.isinf(wanted).any() and np.array_equal(answer, wanted), "infinities", direction.name)


CHECKS = {name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")}

if __name__ == "__main__":
    for name in sys.argv[1:]:
        CHECKS[name]()
    print(json.dumps(found))  # noqa: T201
