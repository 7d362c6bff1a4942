"""The Winograd algorithm of WEIGHT_GRAD: tiles from the plan, parts and pieces, kernels launched.

Error factor: see `toom_cook`, with the matrices of ``F(taps, outputs)``; what is summed are the tiles of all samples,
and the bound is relative to ``max|x| * sum|y|``.
"""

from functools import lru_cache, partial
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import Algorithm, Direction, Epilogue, Runner
from ..toom_cook import error_factor
from . import winograd, winograd_weight
from .launch import Kernel, integers
from .operands import contiguous, deliver
from .simd import ROWS, VECTOR_BYTES
from .winograd_conv import MARKS, TRANSFORM, WINOGRADS, unsuited
from .winograd_schedule import NEAR, bundle_of
from .winograd_tiling import Tiling, frequency_cells, mode_of, tiling_of
from .without_transforms import any_spoiled, mend_weight
from .workspace import workspace

__all__ = ["WINOGRAD_WEIGHT"]

_TILE = 4
#: Into how many parts tiles are divided, and into how many pieces the result.
_PARTS, _PIECES = (1, 2, 3, 4, 5, 7, 10, 14, 20, 28, 40, 64), (1, 2, 3, 4, 6, 8, 12, 16, 32)
#: Nanoseconds: the launches of a part; a vector of channels of a tile
#: transformed, for each frequency; a sum that is read and written.
_LAUNCHES, _SOURCE, _SUM = 30_000, 7, 0.15
#: How often the source is transformed at most: 8 times took a third longer than plain products (960 -> 256 channels).
_MOST_REPEATS = 6

#: Tasks, work, and a kernel's operands after its arrays.
KernelCall = tuple[int, int, tuple]


def _sum_signature(kind: Any) -> tuple:
    flat = types.Array(kind, 1, "C")
    return (flat, flat, flat, integers(10))


def _back_signature(kind: Any) -> tuple:
    flat = types.Array(kind, 1, "C")
    return (flat, flat, integers(9), MARKS)


_sum_kernel = Kernel(winograd_weight.sum_tiles_tasks, _sum_signature)
_back_kernel = Kernel(winograd_weight.back_tasks, _back_signature)


def _tiling(plan: ConvPlan) -> Tiling:
    mode = mode_of(plan, _TILE)
    assert mode is not None
    return tiling_of(Direction.FORWARD, mode, plan)


class _Part(NamedTuple):
    """A range of samples, of slices, of rows of tiles and of tiles in them."""

    sample: tuple[int, int]
    slice: tuple[int, int]
    row: tuple[int, int]
    tile: tuple[int, int]

    @property
    def tiles(self) -> int:
        return prod(last - first for first, last in self)


class _Piece(NamedTuple):
    """Whole groups, or some vectors of one group's result channels."""

    group: int
    groups: int
    row: int
    rows: int


def _ranges(extent: int, most: int) -> list[tuple[int, int]]:
    """As evenly as can be."""
    count = -(-extent // most)
    return [(i * extent // count, (i + 1) * extent // count) for i in range(count)]


def _tile_parts(tiling: Tiling, batch: int, most: int) -> list[_Part]:
    """All tiles in parts of about ``most``."""
    tiles, all_rows, depths = tiling.acrosses.size, tiling.downs.size, tiling.target[0]
    across = min(most, tiles)
    rows = min(max(most // across, 1), all_rows) if across == tiles else 1
    deep = min(max(most // (rows * across), 1), depths) if rows == all_rows else 1
    some = min(max(most // (deep * rows * across), 1), batch) if deep == depths else 1
    sizes = ((batch, some), (depths, deep), (all_rows, rows), (tiles, across))
    return [_Part(*ranges) for ranges in product(*(_ranges(extent, each) for extent, each in sizes))]


def _pieces(tiling: Tiling, count: int) -> list[_Piece]:
    """The result channels in about so many pieces; of groups, only such whose channels are whole vectors."""
    bundle, lanes = bundle_of(tiling), tiling.lanes
    bundles = tiling.groups // bundle
    if count <= bundles or bundle > 1:
        most = -(-bundles // min(count, bundles)) * bundle
        return [_Piece(first, last - first, 0, tiling.rows) for first, last in _ranges(tiling.groups, most)]
    most = -(-tiling.row_vectors // (count // bundles))
    cuts = [(first * lanes, last * lanes) for first, last in _ranges(tiling.row_vectors, most)]
    return [_Piece(g, 1, first, last - first) for g in range(tiling.groups) for first, last in cuts]


class _Cells(NamedTuple):
    """From one frequency to the next: of the transformed source, of the transformed output gradient, of the sums."""

    source: int
    grad: int
    sums: int


def _cells_of(tiling: Tiling, parts: list[_Part], pieces: list[_Piece]) -> _Cells:
    lanes, most = tiling.lanes, max(part.tiles for part in parts) + ROWS
    groups, rows = max(piece.groups for piece in pieces), max(piece.groups * piece.rows for piece in pieces)
    padded = -(-groups * tiling.channels // lanes) * lanes
    return _Cells(
        frequency_cells(most, padded, lanes),
        frequency_cells(most, rows, lanes),
        frequency_cells(tiling.channels + ROWS, rows, lanes),
    )


def _budget(tiling: Tiling, batch: int) -> float:
    """Bytes of scratch that are no reason to divide further: less than other libraries' copies of the operands."""
    source = batch * tiling.groups * tiling.channels * prod(tiling.cells)
    grad = batch * tiling.groups * tiling.rows * prod(tiling.target)
    weights = tiling.groups * tiling.rows * tiling.channels * tiling.taps
    return max((0.9 * source + 0.45 * grad + 0.75 * weights) * tiling.dtype.itemsize, 1_530_000)


class _Cut(NamedTuple):
    """Parts of the tiles, pieces of the result, and how often the source is transformed."""

    parts: list[_Part]
    pieces: list[_Piece]
    repeats: int


@lru_cache(maxsize=1024)
def _cut(plan: ConvPlan, batch: int) -> _Cut:
    """Scratch as small as a copy of the operands, the least work.

    In nanoseconds: the source is transformed for each piece anew, sums are read and written for each part, and each
    launch takes its time. By the plan alone, since the parts rule the order in which tiles are summed.
    """
    tiling = _tiling(plan)
    all_tiles = batch * tiling.target[0] * tiling.downs.size * tiling.acrosses.size
    frequencies, size = prod(tiling.products), tiling.dtype.itemsize
    sums = frequencies * tiling.channels * tiling.groups * tiling.rows
    vectors = tiling.groups * tiling.channels / tiling.lanes
    budget = _budget(tiling, batch)
    found: list[tuple[float, float, _Cut]] = []
    for number, count in product(_PARTS, _PIECES):
        if number > all_tiles or count > tiling.groups * tiling.row_vectors:
            continue
        parts, pieces = _tile_parts(tiling, batch, -(-all_tiles // number)), _pieces(tiling, count)
        scratch = sum(_cells_of(tiling, parts, pieces)) * frequencies * size
        repeats = max(len(pieces) // tiling.groups, 1) if len(parts) > 1 else 1
        cost = repeats * all_tiles * vectors * frequencies * _SOURCE
        cost += sums * len(parts) * (_SUM if scratch < NEAR else 2 * _SUM) + len(pieces) * len(parts) * _LAUNCHES
        found.append((max(scratch - budget, 0), cost, _Cut(parts, pieces, repeats)))
    return min(found, key=lambda each: each[:2])[2]


class _Launch(NamedTuple):
    """What follows from a plan alone, found once for many calls.

    ``cells``: of the transformed source, of the transformed output gradient, of the sums. ``steps``: for each piece,
    for each part tasks, work and operands of both transforms (of the source only where it is not there yet) and of the
    sums; then those of the transform back, and where the piece begins in the weight.
    """

    plan: ConvPlan
    dtype: np.dtype
    cells: tuple[int, int, int]
    steps: tuple[tuple[tuple[tuple[KernelCall | None, KernelCall, KernelCall], ...], KernelCall, int], ...]


def _transform_call(tiling: Tiling, part: _Part, frequency: int, piece: _Piece, of_grad: bool) -> KernelCall:
    """What transforms a part of the source, or of an output gradient, in the channels of a piece."""
    lanes = tiling.lanes
    if of_grad:
        first, channels, all_channels = piece.group * tiling.rows + piece.row, piece.groups * piece.rows, tiling.rows
    else:
        first, channels, all_channels = piece.group * tiling.channels, piece.groups * tiling.channels, tiling.channels
    (n, end), (s, last_slice), (row, last_row), (tile, last_tile) = part
    padded, task_rows = -(-channels // lanes) * lanes, min(max(56 // (last_tile - tile), 1), last_row - row)
    shape = (
        *(tiling.mode, n, end - n, s, last_slice - s, row, last_row - row, task_rows, tiling.groups * all_channels),
        *(first, channels, padded, frequency, tiling.products[1]),
        *(tiling.outputs if of_grad else tiling.products),
        *(lanes, piece.rows if of_grad else 0),
    )
    tasks = (end - n) * (last_slice - s) * -(-(last_row - row) // task_rows) * (padded // lanes)
    cells, origins = (tiling.target, (0, 0)) if of_grad else (tiling.cells, tiling.origins)
    geometry = (cells, origins, tiling.steps, tiling.downs, tiling.acrosses[tile:last_tile])
    return tasks, 4 * prod(tiling.products) * part.tiles * padded, (shape, *geometry)


def _launch(plan: ConvPlan) -> _Launch:
    tiling = _tiling(plan)
    lanes, frequencies = tiling.lanes, prod(tiling.products)
    parts, pieces, _ = _cut(plan, plan.batch)
    found = _cells_of(tiling, parts, pieces)
    row_cells, steps = tiling.channels * tiling.taps, []
    held = (-1, -1)  # the groups whose transformed source is there
    for piece in pieces:
        of_parts = []
        padded = -(-piece.groups * tiling.channels // lanes) * lanes
        panels = piece.groups * winograd.panels_of(piece.rows // lanes)
        extents = (piece.groups, tiling.channels, piece.rows)
        for number, part in enumerate(parts):
            there = held == piece[:2] and len(parts) == 1
            of_source = None if there else _transform_call(tiling, part, found.source, piece, False)
            of_grad = _transform_call(tiling, part, found.grad, piece, True)
            shape = (*extents, padded, *found, part.tiles, number, lanes)
            work = frequencies * part.tiles * tiling.channels * piece.groups * piece.rows
            of_parts.append((of_source, of_grad, (frequencies * panels, work, (shape,))))
        held = piece[:2]
        back_tasks = piece.groups * (piece.rows // lanes) * -(-tiling.channels // lanes)
        back = (tiling.mode, *extents, *plan.w_shape[3:], tiling.products[1], found.sums, lanes)
        work = 6 * frequencies * tiling.channels * piece.groups * piece.rows
        steps.append(
            (tuple(of_parts), (back_tasks, work, (back,)), (piece.group * tiling.rows + piece.row) * row_cells)
        )
    cells = (frequencies * found.source, frequencies * found.grad, frequencies * found.sums)
    return _Launch(plan, tiling.dtype, cells, tuple(steps))


def _run(launch: _Launch, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    dtype = launch.dtype
    source, grad = (contiguous(each, dtype).reshape(-1) for each in (x, y))
    target = w if w.dtype == dtype and w.flags.c_contiguous else np.empty(w.shape, dtype)
    v_cells, y_cells, s_cells = launch.cells
    spoiled = np.zeros(1, np.uint8)
    with (
        workspace(v_cells, dtype) as v,
        workspace(y_cells, dtype) as turned,
        workspace(s_cells, dtype) as sums,
    ):
        for parts, (back_tasks, back_work, back_numbers), first in launch.steps:
            for of_source, of_grad, (tasks, work, numbers) in parts:
                if of_source is not None:
                    TRANSFORM(dtype, *of_source[:2], source, v, *of_source[2])
                TRANSFORM(dtype, *of_grad[:2], grad, turned, *of_grad[2])
                _sum_kernel(dtype, tasks, work, v, turned, sums, *numbers)
            _back_kernel(dtype, back_tasks, back_work, sums, target.reshape(-1)[first:], *back_numbers, spoiled)
    if any_spoiled(spoiled):
        mend_weight(launch.plan, x, target, y)
    deliver(target, w)


def _run_once(plan: ConvPlan, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    _run(_launch(plan), x, w, y, epilogue)


def _ready(plan: ConvPlan) -> Runner:
    launch = _launch(plan)
    return partial(_run, launch)


def _refusal(plan: ConvPlan) -> str | None:
    lanes, rows = VECTOR_BYTES // np.dtype(plan.compute_dtype).itemsize, plan.y_channels // plan.groups
    if not plan.macs:
        return "there is nothing to sum"
    if plan.w_shape[2] != 1:
        return f"tiles have two axes, but the kernel has a depth of {plan.w_shape[2]}"
    if plan.axes3[0].padded != plan.axes3[0].input:
        return "tiles have two axes, but the depth is padded"
    if not rows or rows % lanes:
        return f"{rows} result channels of a group are not whole vectors of {lanes}"
    return unsuited(_TILE, plan.x_channels, plan)


def _worthwhile(plan: ConvPlan) -> str | None:
    """Whether an estimate in vector operations, for one sample, is below that of plain products."""
    tiling = _tiling(plan)
    if tiling.channels < ROWS:
        return f"{tiling.channels} source channels of a group do not fill its tiles of registers"
    tiles, vectors = tiling.downs.size * tiling.acrosses.size * tiling.target[0], tiling.groups * tiling.row_vectors
    turned = tiles * (tiling.padded_channels // tiling.lanes * 6 + vectors * 5)
    products = tiles * tiling.channels * vectors / 0.8
    back = tiling.channels * vectors * 21  # sums leave the caches where there are many
    cost = prod(tiling.products) * (turned + products + back)
    taps = prod(plan.w_shape[2:])
    plain = prod(tiling.target) * taps * tiling.channels * vectors / 0.8 + tiling.channels * taps * vectors * 3
    repeats = _cut(plan, 1).repeats
    if repeats > _MOST_REPEATS:
        return f"its source would be transformed {repeats} times, lest scratch memory exceed a copy of the operands"
    if cost < plain:
        return None
    return f"its transforms and products are estimated at {cost / plain:.2f} times the cost of plain products"


def _error_factor(plan: ConvPlan) -> float:
    if mode_of(plan, _TILE) is None:
        return 0.0
    tiling = _tiling(plan)
    (down, down_taps), (across, across_taps) = winograd.MODES[tiling.mode]
    tiles = plan.batch * tiling.target[0] * tiling.downs.size * tiling.acrosses.size
    return error_factor((down_taps, down), (across_taps, across), tiles)


#: The algorithm.
WINOGRAD_WEIGHT = Algorithm(
    "winograd",
    _refusal,
    _run_once,
    _error_factor,
    spreading=True,
    worthwhile=_worthwhile,
    ready=_ready,
    about=WINOGRADS,
)
