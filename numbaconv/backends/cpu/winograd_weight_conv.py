"""The Winograd algorithm of WEIGHT_GRAD: tiles from the plan, parts that fit a cache, kernels launched.

Error factor: as in `winograd_conv`, with the matrices of ``F(taps, outputs)`` and one product a tile: an element is off
by at most ``a * (n + 40)`` roundings of ``max|x| * sum|y|``, where n is the number of tiles of all samples.
"""

from math import prod
from typing import Any

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import Algorithm, Direction, Epilogue
from . import winograd, winograd_weight
from .launch import Kernel
from .operands import contiguous, deliver
from .simd import ROWS, VECTOR_BYTES, VECTORS
from .winograd_conv import Tiling, amplification, frequency_cells, mode_of, parts_of, tiling_of, transform, unsuited
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


def _run(plan: ConvPlan, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    tiling = _tiling(plan)
    dtype, lanes, across = tiling.dtype, tiling.lanes, tiling.acrosses.size
    source, grad = (contiguous(each, dtype).reshape(-1) for each in (x, y))
    parts = list(parts_of(tiling, plan.batch))
    most = max(part.samples * part.rows * part.slices for part in parts) * across
    frequencies, rows = prod(tiling.products), tiling.groups * tiling.rows
    s_frequency = frequency_cells(tiling.channels + ROWS, rows, lanes)
    v_cells, y_cells = (frequency_cells(most + ROWS, each, lanes) for each in (tiling.padded_channels, rows))
    target = w if w.dtype == dtype and w.flags.c_contiguous else np.empty(w.shape, dtype)
    panels = tiling.groups * -(-tiling.row_vectors // VECTORS)
    with (
        workspace(frequencies * v_cells, dtype) as v,
        workspace(frequencies * y_cells, dtype) as turned,
        workspace(frequencies * s_frequency, dtype) as sums,
    ):
        for number, part in enumerate(parts):
            transform(tiling, part, source, v, v_cells)
            transform(tiling, part, grad, turned, y_cells, tiling.rows)
            tiles = part.samples * part.rows * part.slices * across
            extents = (tiling.groups, tiling.channels, tiling.rows, tiling.padded_channels)
            shape = (*extents, v_cells, y_cells, s_frequency, tiles, number, lanes)
            work = frequencies * tiles * tiling.channels * rows
            _sum_kernel(dtype, frequencies * panels, work, v, turned, sums, shape)
        extents = (tiling.mode, tiling.groups, tiling.channels, tiling.rows, *w.shape[3:])
        tasks = tiling.groups * tiling.row_vectors * -(-tiling.channels // lanes)
        back = (*extents, tiling.products[1], s_frequency, lanes)
        _back_kernel(dtype, tasks, frequencies * w.size, sums, target.reshape(-1), back)
    deliver(target, w)


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
WINOGRAD_WEIGHT = Algorithm("winograd", _refusal, _run, _error_factor, spreading=True, worthwhile=_worthwhile)
