"""The Winograd algorithms in Numba's simulator: a program, since the simulator is chosen before Numba is imported.

Arguments are names of checks below; it prints, as JSON, how many results each compared, and what was wrong.
"""

import json
import os
import sys

os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
sys.path[:0] = [os.path.join(os.path.dirname(__file__), *up) for up in (("..", ".."), ())]

from dataclasses import replace  # noqa: E402

import ml_dtypes  # noqa: E402
import numpy as np  # noqa: E402
from turns import take_turns  # noqa: E402

import numbaconv  # noqa: E402
import oracle  # noqa: E402
from numbaconv.backends.base import NO_EPILOGUE, Direction  # noqa: E402
from numbaconv.backends.cuda import implicit_gemm, scratch, tiles, winograd  # noqa: E402
from numbaconv.backends.registry import resolve  # noqa: E402
from numbaconv.plan import plan_conv  # noqa: E402
from problems import Problem, error_bound, expected, magnitude, operands, run, run_last  # noqa: E402

take_turns()
FORWARD, INPUT_GRAD = Direction.FORWARD, Direction.INPUT_GRAD
NAMES = ("winograd", "winograd_2x2")


def _same(spatial, **options):
    return Problem(spatial, (3, 3), **{"pads": ((1, 1), (1, 1)), **options})


#: Each visits an edge: of tiles of both sizes in both directions, of channels, rows, groups, and padding. Modes that
#: are not here are in the conformance tests, which `test_simulator.py` runs.
PROBLEMS = {
    "tiles that end early": _same((5, 6), c_in=3, c_out=5),
    "whole tiles": _same((8, 4), c_in=8, c_out=4),
    "one row of one channel": _same((1, 6), c_in=2),
    "less than a tile": _same((1, 3), batch=2, c_in=2, c_out=1),
    "no padding": _same((4, 3), c_in=2, c_out=3, pads=((0, 0), (0, 0))),
    "uneven padding": _same((3, 4), c_in=2, c_out=2, pads=((3, 0), (1, 4))),
    "rows and channels over a tile of the products": _same((2, 2), c_in=10, c_out=18),
    "groups": _same((4, 3), batch=2, c_in=6, c_out=9, groups=3),
    "constant": _same((3, 4), c_in=2, c_out=2, pads=((2, 1), (1, 2)), modes=("constant",) * 2, value=3),
    "constant rows, zero columns": _same((3, 2), pads=((2, 2), (2, 2)), modes=("constant", "zeros"), value=5),
    "symmetric, circular": _same((3, 5), c_in=2, c_out=2, pads=((2, 1), (3, 1)), modes=("symmetric", "circular")),
    "slices": Problem((2, 3, 3), (1, 3, 3), batch=2, c_in=2, c_out=2, pads=((1, 0), (1, 1), (0, 1))),
    "empty batch": _same((3, 3), batch=0, c_in=3, c_out=2),
    "a stride that leads nowhere": _same((2, 3), c_in=2, c_out=2, stride=(5, 1)),
}

found = {"compared": 0, "wrong": []}


def note(right, *label):
    """Count a comparison."""
    found["compared"] += 1
    if not right:
        found["wrong"].append(" ".join(map(str, label)))


def forced(name):
    return {"backend": "cuda", "algorithm": name}


def algorithm(direction, name):
    return next(each for each in resolve("cuda").tables[direction] if each.name == name)


def primitives(problem, name):
    """The directions that the algorithm accepts."""
    return [each for each in (FORWARD, INPUT_GRAD) if algorithm(each, name).accepts(problem.plan("float32")) is None]


def close(name, problem, dtype=np.float32, ways=None):
    """Within the algorithm's bound, and a bound that any wrong cell or weight would exceed.

    ``ways``: how each direction is run; one is run with channels first and one with channels last.
    """
    x, w, g = operands(problem, np.random.default_rng(5), dtype)
    for at, chosen in enumerate(NAMES):
        for direction in primitives(problem, chosen):
            turn = (at + (direction is FORWARD) + len(name)) % 2
            for each in ways or ((run, run_last)[turn],):
                answer = oracle.wide(each(direction, problem, x, w, g, **forced(chosen)))
                wanted = expected(direction, problem, x, w, g)
                bound = error_bound(direction, algorithm(direction, chosen), problem, dtype, x, w, g)
                eps = np.float64(ml_dtypes.finfo(dtype).eps)
                size = magnitude(direction, problem, x, w, g).max(initial=0)
                off = np.abs(answer - wanted)
                label = name, chosen, direction.name, each.__name__, np.dtype(dtype).name
                note(np.all(off <= bound + eps * np.abs(wanted)), *label, "bound")
                note(np.all(off <= 100 * eps * size), *label, "close", off.max(initial=0), size)


def check_problems():
    """Every problem, in both directions, with both tiles, channels first and last in turns."""
    for name, problem in PROBLEMS.items():
        close(name, problem)


def check_layouts():
    """Channels first and last, each way, where tiles end early in all that there is."""
    close("both layouts", _same((3, 5), batch=2, c_in=3, c_out=5), ways=(run, run_last))


def check_dtypes():
    """Every dtype."""
    for dtype in (np.float64, np.float16, ml_dtypes.bfloat16):
        close("dtypes", PROBLEMS["constant"], dtype)


def results(problem, x, w, g):
    """Of both directions and tiles, made ready anew, on arrays that held NaN."""
    plan, answers = problem.plan("float32"), {}
    for name in NAMES:
        for direction in primitives(problem, name):
            out = np.full(x.shape if direction is INPUT_GRAD else g.shape, np.nan, np.float32)
            x_at, y_at = (out, g) if direction is INPUT_GRAD else (x, out)
            algorithm(direction, name).run(plan, x_at[:, :, None], w[:, :, None], y_at[:, :, None], NO_EPILOGUE)
            answers[direction, name] = out
    return answers


def check_bits():
    """The same bits for each run, however tiles are cut into pieces, multiplied in blocks, and beside which samples."""
    problem = _same((3, 9), batch=2, c_in=3, c_out=4)
    x, w, g = operands(problem, np.random.default_rng(6), np.float32)
    wanted = results(problem, x, w, g)

    def same(what, answers, at=slice(None)):
        for each, answer in answers.items():
            note(np.array_equal(answer, wanted[each][at]), what, *each)

    same("again", results(problem, x, w, g))
    winograd._SCRATCH, winograd._LEAST_TILES = 1, 5
    for each in (2, 4):
        tiling = winograd._tiling(False, each, problem.plan("float32"))
        pitch, pieces = tiling.pieces(problem.batch)
        assert pitch % tiling.of_sample, "a piece shall begin inside a sample"
        assert pieces > 1
    same("pieces", results(problem, x, w, g))
    winograd._SCRATCH, winograd._LEAST_TILES = 2**24, 128
    implicit_gemm.choose_tile = lambda *arguments: tiles.Tile(32, 16, 4, 8)
    same("another tile", results(problem, x, w, g))
    implicit_gemm.choose_tile = tiles.choose_tile
    same("one sample", results(replace(problem, batch=1), x[1:], w, g[1:]), slice(1, 2))


def check_epilogue():
    """Bias, residual, activation; rows of results in quads, in pairs, alone; on NaN; with a weight prepared or not."""
    rng = np.random.default_rng(7)
    for name, width in (("winograd", 4), ("winograd", 6), ("winograd", 7), ("winograd_2x2", 6), ("winograd_2x2", 5)):
        x, w = rng.standard_normal((2, 3, 3, width)).astype("f4"), rng.standard_normal((5, 3, 3, 3)).astype("f4")
        bias, residual = rng.standard_normal(5).astype("f4"), rng.standard_normal((2, 5, 3, width)).astype("f4")
        options = {"padding": 1, "activation": "silu"}
        wanted = numbaconv.conv2d(x, w, bias, residual=residual, backend="reference", **options)
        out = np.full(wanted.shape, np.nan, np.float32)
        numbaconv.conv2d(x, w, bias, residual=residual, out=out, **options, **forced(name))
        note(np.allclose(out, wanted, rtol=2e-5, atol=2e-5), "epilogue", name, width)
        layer = numbaconv.prepare(w, bias, **options, **forced(name))
        note(np.array_equal(layer(x, residual), out), "prepared", name, width)
        last = {"data_format": "NHWC", "weight_format": "OIHW"}
        moved = [np.ascontiguousarray(np.moveaxis(each, 1, -1)) for each in (x, residual)]
        answer = numbaconv.conv2d(moved[0], w, bias, residual=moved[1], **options, **last, **forced(name))
        note(np.array_equal(np.moveaxis(answer, -1, 1), out), "channels last", name, width)


def check_strides():
    """Operands whose elements are apart, of every axis."""
    rng = np.random.default_rng(8)
    x = rng.standard_normal((4, 6, 8, 10)).astype("f4")[::2, ::2, ::2, ::2]
    w = np.asfortranarray(rng.standard_normal((5, 3, 3, 3)).astype("f4"))
    g = rng.standard_normal((2, 10, 4, 10)).astype("f4")[:, ::2, :, ::2]
    problem = _same(x.shape[2:], batch=2, c_in=3, c_out=5)
    for (direction, name), answer in results(problem, x, w, g).items():
        wanted = expected(direction, problem, x, w, g)
        note(np.allclose(answer, wanted, rtol=1e-4, atol=1e-4), "strides", direction.name, name)


def check_nan():
    """NaN and infinity stay in their group and sample, and none comes from scratch memory or from behind the source."""
    problem = _same((3, 5), batch=2, c_in=4, c_out=6, groups=2)
    for each in (run, run_last):
        x, w, g = operands(problem, np.random.default_rng(11), np.float32)
        x[1, 2:, 2, 4], g[1, 3:, 0, 0] = np.nan, np.inf
        for name in NAMES:
            for direction in (FORWARD,) if (each is run) == (name == NAMES[0]) else (INPUT_GRAD,):
                each(direction, problem, x, w, g, **forced(name))
                for blocks in scratch._idle.values():
                    for block in blocks:
                        block.copy_to_device(np.full(block.shape, np.nan, block.dtype))
                answer = each(direction, problem, x, w, g, **forced(name))
                wanted = each(direction, problem, x, w, g, backend="reference")
                finite = np.isfinite(answer)
                note(not finite[~np.isfinite(wanted)].any(), "NaN is lost", name, direction.name, each.__name__)
                half = answer.shape[1] // 2
                note(finite[0].all() and finite[1, :half].all(), "NaN", name, direction.name, each.__name__)


def check_choice():
    """By the plan without its batch; where it is taken if there are no tensor cores, and the sentences where not."""
    table = resolve("cuda").tables[FORWARD]

    def answers(channels, extent, batch=1, **options):
        plan = plan_conv((batch, channels, extent, extent), (channels, channels, 3, 3), padding=1, **options)
        return plan, {each.name: each.worthwhile(plan) for each in table if each.name in NAMES}

    for channels, extent, chosen in ((256, 14, "winograd"), (1024, 6, "winograd_2x2"), (8, 14, "implicit_gemm")):
        for batch in (1, 32):
            plan, _ = answers(channels, extent, batch)
            found = resolve("cuda").select("conv2d", plan, FORWARD, None, frozenset({"tensor_core"}))
            note(found.name == chosen, "choice", channels, extent)
    _, said = answers(8, 14)
    note(all("times the cost of plain products" in each for each in said.values()), said)
    _, said = answers(256, 56)
    note("times the cost of tiles of 4x4 results" in (said["winograd_2x2"] or ""), said)
    for x_shape, w_shape, options, word in (
        ((1, 8, 9, 9), (8, 8, 3, 3), {"stride": 2}, "stride of 1"),
        ((1, 8, 9, 9), (8, 8, 3, 3), {"dilation": 2}, "dilated"),
        ((1, 8, 9, 9), (8, 8, 3, 3), {"dtype": "complex64"}, "complex64"),
        ((1, 8, 9, 9), (8, 8, 5, 3), {}, "not of 5x3"),
        ((1, 2**19, 9, 9), (1, 2**19, 3, 3), {}, "piece of 128 tiles"),
        ((1, 2**14, 9, 9), (2**12, 2**14, 3, 3), {}, "transformed weight"),
    ):
        refusal = algorithm(FORWARD, "winograd").accepts(plan_conv(x_shape, w_shape, **options))
        note(word in (refusal or ""), refusal, word)
    plan = plan_conv((1, 8, 9, 9), (8, 8, 3, 3), padding=1, padding_mode="circular")
    note("repeats cells" in (algorithm(INPUT_GRAD, "winograd").accepts(plan) or ""), "circular")


CHECKS = {name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")}

if __name__ == "__main__":
    for name in sys.argv[1:]:
        CHECKS[name]()
    print(json.dumps(found))  # noqa: T201
