"""The Winograd algorithm of WEIGHT_GRAD: tiles from the plan, parts that fit a cache, kernels launched.

Error factor: as in `winograd_conv`, with the matrices of ``F(taps, outputs)`` and one product a tile: an element is off
by at most ``a * (n + 40)`` roundings of ``max|x| * sum|y|``, where n is the number of tiles of all samples.
"""

from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import Algorithm, Direction, Epilogue, Runner
from . import winograd, winograd_weight
from .launch import Kernel
from .operands import contiguous, deliver
from .simd import ROWS, VECTOR_BYTES, VECTORS
from .winograd_conv import MOST_KEPT, KernelCall, amplification, transform, transform_call, unsuited
from .winograd_tiling import Tiling, frequency_cells, mode_of, parts_of, tiling_of
from .workspace import workspace

__all__ = ["WINOGRAD_WEIGHT"]

_TILE = 4


def _tuple(count: int) -> types.UniTuple:
    return types.UniTuple(types.int64, count)


def _sum_signature(kind: Any) -> tuple:
    flat = types.Array(kind, 1, "C")
    return (flat, flat, flat, _tuple(10))


def _back_signature(kind: Any) -> tuple:
    flat = types.Array(kind, 1, "C")
    return (flat, flat, _tuple(9))


_sum_kernel = Kernel(winograd_weight.sum_tiles_tasks, _sum_signature)
_back_kernel = Kernel(winograd_weight.back_tasks, _back_signature)


def _tiling(plan: ConvPlan) -> Tiling:
    mode = mode_of(plan, _TILE)
    assert mode is not None
    return tiling_of(Direction.FORWARD, mode, plan)


class _Launch(NamedTuple):
    """What follows from a plan alone, found once for many calls.

    ``cells``: of the transformed source, of the transformed output gradient, of the sums. ``parts``: for each, tasks,
    work and operands of both transforms and of the sums. ``back``: those of the transform back.
    """

    dtype: np.dtype
    cells: tuple[int, int, int]
    parts: tuple[tuple[KernelCall, KernelCall, KernelCall], ...]
    back: KernelCall


def _launch(plan: ConvPlan) -> _Launch:
    tiling = _tiling(plan)
    lanes, across = tiling.lanes, tiling.acrosses.size
    parts = list(parts_of(tiling, plan.batch))
    most = max(part.samples * part.rows * part.slices for part in parts) * across
    frequencies, rows = prod(tiling.products), tiling.groups * tiling.rows
    s_frequency = frequency_cells(tiling.channels + ROWS, rows, lanes)
    v_cells, y_cells = (frequency_cells(most + ROWS, each, lanes) for each in (tiling.padded_channels, rows))
    panels = tiling.groups * -(-tiling.row_vectors // VECTORS)
    extents = (tiling.groups, tiling.channels, tiling.rows, tiling.padded_channels)
    calls = []
    for number, part in enumerate(parts):
        tiles = part.samples * part.rows * part.slices * across
        shape = (*extents, v_cells, y_cells, s_frequency, tiles, number, lanes)
        work = frequencies * tiles * tiling.channels * rows
        sums = (frequencies * panels, work, (shape,))
        calls.append((transform_call(tiling, part, v_cells), transform_call(tiling, part, y_cells, tiling.rows), sums))
    back_tasks = tiling.groups * tiling.row_vectors * -(-tiling.channels // lanes)
    back = (tiling.mode, *extents[:3], *plan.w_shape[3:], tiling.products[1], s_frequency, lanes)
    cells = (frequencies * v_cells, frequencies * y_cells, frequencies * s_frequency)
    return _Launch(tiling.dtype, cells, tuple(calls), (back_tasks, frequencies * prod(plan.w_shape), (back,)))


def _run(launch: _Launch, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    dtype = launch.dtype
    source, grad = (contiguous(each, dtype).reshape(-1) for each in (x, y))
    target = w if w.dtype == dtype and w.flags.c_contiguous else np.empty(w.shape, dtype)
    v_cells, y_cells, s_cells = launch.cells
    with (
        workspace(v_cells, dtype) as v,
        workspace(y_cells, dtype) as turned,
        workspace(s_cells, dtype) as sums,
    ):
        for of_source, of_grad, (tasks, work, numbers) in launch.parts:
            transform(dtype, of_source, source, v)
            transform(dtype, of_grad, grad, turned)
            _sum_kernel(dtype, tasks, work, v, turned, sums, *numbers)
        tasks, work, numbers = launch.back
        _back_kernel(dtype, tasks, work, sums, target.reshape(-1), *numbers)
    deliver(target, w)


def _run_once(plan: ConvPlan, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    _run(_launch(plan), x, w, y, epilogue)


def _ready(plan: ConvPlan) -> Runner:
    launch = _launch(plan)
    return partial(_run, launch) if len(launch.parts) <= MOST_KEPT else partial(_run_once, plan)


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
    if cost < plain:
        return None
    return f"its transforms and products are estimated at {cost / plain:.2f} times the cost of plain products"


def _error_factor(plan: ConvPlan) -> float:
    if mode_of(plan, _TILE) is None:
        return 0.0
    tiling = _tiling(plan)
    (down, down_taps), (across, across_taps) = winograd.MODES[tiling.mode]
    tiles = plan.batch * tiling.target[0] * tiling.downs.size * tiling.acrosses.size
    return amplification(down_taps, down) * amplification(across_taps, across) * (tiles + 40)


#: The algorithm.
WINOGRAD_WEIGHT = Algorithm(
    "winograd",
    _refusal,
    _run_once,
    _error_factor,
    spreading=True,
    worthwhile=_worthwhile,
    ready=_ready,
)
