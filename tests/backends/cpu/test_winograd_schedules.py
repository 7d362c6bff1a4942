"""Winograd's products have the same bits however a schedule divides them; so has its transformed source."""

from dataclasses import replace
from math import prod

import numba
import numpy as np
import pytest

from numbaconv.backends.base import NO_EPILOGUE, Direction
from numbaconv.backends.cpu import BACKEND, launch, winograd_conv, winograd_schedule, winograd_weight_conv
from problems import Problem, operands

#: Bundles of groups, several depths with padding and without, few tiles, wide rows, dilations, both tiles of 3x3.
CASES = {
    "rows in blocks": (Problem((21, 18), (3, 3), batch=3, c_in=9, c_out=41, pads=((1, 1), (2, 0))), "winograd"),
    "more channels than a sum": (Problem((9, 10), (3, 3), batch=2, c_in=131, c_out=19), "winograd_2x2"),
    "bundles": (Problem((11, 9), (3, 3), batch=2, c_in=12, c_out=32, groups=4, pads=((1, 1),) * 2), "winograd"),
    "groups": (Problem((9, 8), (5, 5), batch=3, c_in=24, c_out=99, groups=3, pads=((2, 2),) * 2), "winograd"),
    "wide": (Problem((3, 700), (1, 3), c_in=8, c_out=9, pads=((0, 0), (1, 1))), "winograd"),
    "wide, dilated": (Problem((7, 523), (3, 3), c_in=8, c_out=3, dilation=(2, 3), pads=((2, 2), (3, 3))), "winograd"),
    "deep": (Problem((7, 9, 11), (3, 3, 3), batch=2, c_in=8, c_out=33, pads=((1, 1),) * 3), "winograd"),
    "deep, dilated": (
        Problem((8, 6, 9), (2, 3, 3), batch=2, c_in=9, c_out=8, dilation=(3, 1, 2), pads=((4, 2), (1, 1), (0, 3))),
        "winograd_2x2",
    ),
    "few tiles": (Problem((5, 3, 4), (3, 3, 3), batch=3, c_in=8, c_out=25, pads=((2, 2), (1, 1), (1, 1))), "winograd"),
    "a tile": (Problem((2, 3), (3, 3), batch=5, c_in=17, c_out=50, pads=((1, 1),) * 2), "winograd"),
}


def _schedules(monkeypatch, tiling, batch, threads, prepared):
    """All that a call could choose from, and more, each once."""
    monkeypatch.setattr(winograd_schedule, "_TILES", (1, 4, 8, 16, 28, 42, 56, 84, 10**6))
    found = {}
    for each in winograd_schedule._candidates(tiling, batch, threads, prepared):
        found[each.blocks, each.parts, each.transient] = each
    return list(found.values())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("direction", [Direction.FORWARD, Direction.INPUT_GRAD])
def test_every_schedule_gives_the_same_bits(monkeypatch, direction, name):
    problem, chosen = CASES[name]
    if direction is Direction.INPUT_GRAD:
        problem = replace(problem, c_in=problem.c_out, c_out=problem.c_in)
    problem = problem.at_rank3()
    plan = problem.plan("float64")
    (algorithm,) = (each for each in BACKEND.tables[direction] if each.name == chosen)
    assert algorithm.accepts(plan) is None
    x, w, g = operands(problem, np.random.default_rng(91), np.float64)
    monkeypatch.setattr(launch, "_SERIAL_WORK", 0)  # chunks in parallel, each with scratch of its own
    wanted, visited, choose = None, set(), winograd_schedule.schedule_of
    threads = numba.get_num_threads()
    for prepared in (False, True):
        weight = algorithm.packing.pack(plan, w) if prepared else w
        schedules = []

        def forced(tiling, batch, threads, prepared, schedules=schedules):
            if not schedules:
                schedules += _schedules(monkeypatch, tiling, batch, threads, prepared)
                schedules.append(choose(tiling, batch, threads, prepared))
            return schedules[-1]

        monkeypatch.setattr(winograd_conv, "schedule_of", forced)
        while True:
            result = np.full(g.shape if direction is Direction.FORWARD else x.shape, np.nan, np.float64)
            given = (x, weight, result) if direction is Direction.FORWARD else (result, weight, g)
            algorithm.run(plan, *given, NO_EPILOGUE)
            wanted = result if wanted is None else wanted
            used = schedules.pop()
            visited.add((prepared, used.transient, len(used.parts) > 1))
            np.testing.assert_array_equal(result.view(np.int64), wanted.view(np.int64), err_msg=f"{threads} {used}")
            if not schedules:
                break
    assert np.isfinite(wanted).all()
    assert {(False, True, False), (False, False, False), (True, False, False)} <= visited


@pytest.mark.parametrize("name", ["rows in blocks", "bundles", "groups", "wide, dilated", "a tile"])
def test_every_cut_gives_the_same_bits(monkeypatch, name):
    """Pieces of the result of WEIGHT_GRAD; its parts rule the order of sums and are the plan's."""
    problem, _ = CASES[name]
    problem = replace(problem, c_out=16 * problem.groups).at_rank3()
    plan = problem.plan("float64")
    (algorithm,) = (each for each in BACKEND.tables[Direction.WEIGHT_GRAD] if each.name == "winograd")
    assert algorithm.accepts(plan) is None
    x, w, g = operands(problem, np.random.default_rng(92), np.float64)
    tiling = winograd_weight_conv._tiling(plan)
    tiles = problem.batch * prod((tiling.target[0], tiling.downs.size, tiling.acrosses.size))
    for number in (1, 2, 3, 7, tiles):
        parts, wanted = winograd_weight_conv._tile_parts(tiling, problem.batch, -(-tiles // number)), None
        for count in (1, 2, 3, 4, 8):
            cut = winograd_weight_conv._Cut(parts, winograd_weight_conv._pieces(tiling, count), 1)
            monkeypatch.setattr(winograd_weight_conv, "_cut", lambda plan, batch, cut=cut: cut)
            result = np.full_like(w, np.nan)
            algorithm.run(plan, x, result, g, NO_EPILOGUE)
            wanted = result if wanted is None else wanted
            np.testing.assert_array_equal(result.view(np.int64), wanted.view(np.int64), err_msg=f"{number} {count}")
        assert np.isfinite(wanted).all()
