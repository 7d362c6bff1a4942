"""The Winograd algorithm of FORWARD and INPUT_GRAD: tiles from the plan, parts that fit a cache, kernels launched.

Error factor: transforms, products and sums are sums of products; each rounding is amplified by at most the entries of
the three matrices together. With ``a = max over outputs i and taps k of sum over f of |A^T[i, f]| |G[f, k]| sum over j
of |B^T[f, j]|``, squared for two axes, an output's error is at most ``a * (n + 40)`` roundings of ``max|x| * sum|w|``,
where n is the number of channels and depth taps summed (Higham 2002, section 3.1, for the sums; 40 bounds the
additions and multiplications of all three transforms of both axes). It spreads over the neighbourhood: an
element may be off by roundings of its neighbours, and NaN or infinity in the input reach a whole tile.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import Algorithm, Direction, Epilogue, PackedWeight, Packing, Runner, Weight
from . import winograd
from .activation import ACTIVATION, check_raised
from .launch import Kernel, reads
from .operands import contiguous, deliver, flat_epilogue, flat_target
from .simd import ROWS, VECTOR_BYTES, VECTORS
from .toom_cook import matrices
from .winograd_tiling import Part, Tiling, frequency_cells, mode_of, parts_of, tiling_of
from .workspace import aligned_empty, workspace

__all__ = ["MOST_KEPT", "WINOGRAD", "KernelCall", "amplification", "transform", "transform_call", "unsuited"]

#: Transformed weights of more bytes, used by one part alone, are made panel by panel when they are used: they would go
#: to memory and back.
_TRANSIENT_BYTES = 2 << 20
#: Tiles of a task of products: enough to use each panel of weights often, few enough for the second-level cache.
_TASK_TILES = 56
#: Parts of which a remembered call keeps what its kernels are given.
MOST_KEPT = 16

_INTEGERS = types.Array(types.int64, 1, "C")


def _tuple(count: int) -> types.UniTuple:
    return types.UniTuple(types.int64, count)


def _weights_signature(kind: Any) -> tuple:
    return (reads(kind, 1), types.Array(kind, 1, "C"), types.int64, _tuple(13))


def _transform_signature(kind: Any) -> tuple:
    tables = (_tuple(3), _tuple(2), _tuple(2), _INTEGERS, _INTEGERS)
    return (reads(kind, 1), types.Array(kind, 1, "C"), _tuple(16), *tables)


def _multiply_signature(kind: Any) -> tuple:
    flat, out = reads(kind, 1), types.Array(kind, 1, "C")
    tables = (_tuple(12), _tuple(10), _tuple(13), _tuple(3), _INTEGERS, _tuple(2), _INTEGERS, _INTEGERS, ACTIVATION)
    return (flat, out, flat, flat, flat, out, *tables)


_weights_kernel = Kernel(winograd.weights_tasks, _weights_signature)
_transform_kernel = Kernel(winograd.transform_tasks, _transform_signature)
_multiply_kernel = Kernel(winograd.multiply_tasks, _multiply_signature)


def _weights_shape(direction: Direction, tiling: Tiling, w_shape: tuple[int, ...]) -> tuple[int, ...]:
    """How kernels read and transform weights."""
    by_input = direction is Direction.INPUT_GRAD
    inner = prod(w_shape[2:])
    outer = w_shape[1] * inner
    group = w_shape[0] // tiling.groups * outer
    steps = (inner, outer, group) if by_input else (outer, inner, group)
    extents = (tiling.mode, tiling.groups, tiling.channels, tiling.rows, tiling.depth_taps.size)
    return (*extents, *steps, w_shape[3], w_shape[4], int(by_input), tiling.products[1], tiling.lanes)


def _transform_weights(tiling: Tiling, shape: tuple[int, ...], w: Array, packed: Array) -> None:
    tasks = tiling.groups * tiling.row_vectors * -(-tiling.channels // tiling.lanes)
    flat = contiguous(w, tiling.dtype).reshape(-1)
    _weights_kernel(tiling.dtype, tasks, packed.size, flat, packed, tiling.weight_frequency, shape)


def _pack(direction: Direction, mode: int, plan: ConvPlan, w: Array) -> PackedWeight:
    """The transformed weights."""
    tiling = tiling_of(direction, mode, plan)
    packed = aligned_empty(tiling.weight_size, tiling.dtype)
    _transform_weights(tiling, _weights_shape(direction, tiling, w.shape), w, packed)
    return PackedWeight((packed,))


def _task_tiles(tiling: Tiling) -> int:
    """Tiles of a row that are computed together: by the plan alone, since an activation runs along them."""
    tiles, step = tiling.acrosses.size, tiling.steps[1]
    if tiles <= 2 * _TASK_TILES or step > _TASK_TILES:
        return tiles
    return _TASK_TILES // step * step  # whole sets of interleaved tiles: their positions are neighbours


def _task_rows(tiling: Tiling, part: Part, task_tiles: int, others: int) -> int:
    """Rows of tiles in a task of products: few, and so that tiles of registers are full and threads occupied."""
    if task_tiles < tiling.acrosses.size:
        return 1
    threads: int = numba.get_num_threads()
    most = min(max(_TASK_TILES // task_tiles, 1), part.rows)
    while most > 1 and others * -(-part.rows // most) < 2 * threads:
        most -= 1

    def waste(rows: int) -> float:
        tiles = rows * task_tiles
        return max(-(-tiles // ROWS) * ROWS / tiles, ROWS / 2 / tiles) + 0.25 / rows

    return min(range(most, 0, -1), key=waste)


#: Tasks, work, and a kernel's operands after its arrays.
KernelCall = tuple[int, int, tuple]


def transform(dtype: np.dtype, call: KernelCall, source: Array, v: Array) -> None:
    """Transform a part of the source, or of an output gradient."""
    tasks, work, numbers = call
    _transform_kernel(dtype, tasks, work, source, v, *numbers)


def transform_call(tiling: Tiling, part: Part, frequency: int, panel_rows: int = 0) -> KernelCall:
    """What `transform` is given for a part of the source, or of an output gradient in groups of ``panel_rows``."""
    tiles, channels, grads = tiling.acrosses.size, tiling.groups * (panel_rows or tiling.channels), panel_rows > 0
    task_rows = min(max(_TASK_TILES // tiles, 1), part.rows)
    blocks, padded = -(-channels // tiling.lanes), -(-channels // tiling.lanes) * tiling.lanes
    first_slice, slices = (part.first_depth, part.depths) if grads else (part.first_slice, part.slices)
    shape = (
        *(tiling.mode, part.first_sample, part.samples, first_slice, slices, part.first_row, part.rows, task_rows),
        *(channels, padded, frequency, tiling.products[1], *(tiling.outputs if grads else tiling.products)),
        *(tiling.lanes, panel_rows),
    )
    tasks = part.samples * slices * -(-part.rows // task_rows) * blocks
    work = prod(tiling.products) * part.samples * slices * part.rows * tiles * padded
    cells, origins = (tiling.target, (0, 0)) if grads else (tiling.cells, tiling.origins)
    geometry = (cells, origins, tiling.steps, tiling.downs, tiling.acrosses)
    return tasks, work, (shape, *geometry)


class _Call(NamedTuple):
    """What the kernels of one part are given beside arrays: tasks, work, operands."""

    transform: KernelCall | None
    multiply: KernelCall


def _call(tiling: Tiling, part: Part, weights_shape: tuple[int, ...]) -> _Call:
    tiles, padded = tiling.acrosses.size, tiling.padded_channels
    rows_of_tiles = part.samples * part.slices * part.rows
    v_frequency = frequency_cells(rows_of_tiles * tiles + ROWS, padded, tiling.lanes)
    macs = prod(tiling.products) * rows_of_tiles * tiles * tiling.channels * tiling.groups * tiling.rows
    panels = -(-tiling.row_vectors // VECTORS)
    task_tiles = _task_tiles(tiling)
    others = tiling.groups * panels * part.samples * part.depths * -(-tiles // task_tiles)
    task_rows = _task_rows(tiling, part, task_tiles, others)
    shape = (
        *(tiling.mode, tiling.groups, tiling.channels, tiling.rows, padded, v_frequency, tiling.weight_frequency),
        *(*tiling.products, *tiling.outputs, tiling.lanes),
    )
    bounds = (
        *(part.first_sample, part.samples, part.first_depth, part.depths, part.first_slice, part.slices),
        *(part.first_row, part.rows, task_rows, task_tiles),
    )
    geometry = (tiling.target, tiling.depth_taps, tiling.steps, tiling.downs, tiling.acrosses)
    return _Call(
        transform_call(tiling, part, v_frequency) if rows_of_tiles else None,
        (others * -(-part.rows // task_rows), macs, (shape, bounds, weights_shape, *geometry)),
    )


@dataclass(frozen=True)
class _Launch:
    """What follows from a plan alone, found once for many calls; ``calls``: by the number of threads."""

    direction: Direction
    tiling: Tiling
    weights_shape: tuple[int, ...]
    parts: tuple[Part, ...]
    cells: int
    calls: dict[int, tuple[_Call, ...]]

    @property
    def is_transient(self) -> bool:
        return len(self.parts) == 1 and self.tiling.weight_size * self.tiling.dtype.itemsize > _TRANSIENT_BYTES

    def calls_now(self) -> tuple[_Call, ...]:
        threads: int = numba.get_num_threads()
        found = self.calls.get(threads)
        if found is None:
            found = tuple(_call(self.tiling, part, self.weights_shape) for part in self.parts)
            self.calls[threads] = found
        return found


def _launch(direction: Direction, mode: int, plan: ConvPlan) -> _Launch:
    tiling = tiling_of(direction, mode, plan)
    parts = tuple(parts_of(tiling, plan.batch)) if plan.batch and prod(tiling.target) else ()
    most = max((part.samples * part.slices * part.rows for part in parts), default=0)
    rows = most * tiling.acrosses.size + ROWS
    cells = prod(tiling.products) * frequency_cells(rows, tiling.padded_channels, tiling.lanes)
    return _Launch(direction, tiling, _weights_shape(direction, tiling, plan.w_shape), parts, cells, {})


def _run(launch: _Launch, x: Array, w: Weight, y: Array, epilogue: Epilogue) -> None:
    source, out = (y, x) if launch.direction is Direction.INPUT_GRAD else (x, y)
    if not out.size:
        return
    tiling, dtype = launch.tiling, launch.tiling.dtype
    bias, residual, activation = flat_epilogue(epilogue, dtype)
    target = flat_target(out, dtype)
    flat = contiguous(source, dtype).reshape(-1)
    with ExitStack() as stack:
        raw = packed = np.empty(0, dtype)
        if isinstance(w, PackedWeight):
            packed = w.arrays[0]
        elif launch.is_transient:
            raw = contiguous(w, dtype).reshape(-1)
        else:
            packed = stack.enter_context(workspace(tiling.weight_size, dtype))
            _transform_weights(tiling, launch.weights_shape, w, packed)
        v = stack.enter_context(workspace(launch.cells, dtype))
        operands = (v, packed, raw, bias, residual, target.reshape(-1))
        for transformed, (tasks, macs, numbers) in launch.calls_now():
            if transformed is not None:
                transform(dtype, transformed, flat, v)
            _multiply_kernel(dtype, tasks, macs, *operands, *numbers, activation)
    check_raised(epilogue.activation, activation)
    deliver(target, out)


def unsuited(tile: int, channels: int, plan: ConvPlan) -> str | None:
    """Why tiles of a source of so many channels cannot be filtered for a plan, if they cannot."""
    kernel = tuple(axis.kernel for axis in plan.axes3[1:])
    if plan.compute_dtype not in ("float32", "float64"):
        return f"its transforms are of float32 and float64, not {plan.compute_dtype}"
    if mode_of(plan, tile) is None:
        return f"there is no filtering of {tile} outputs for a kernel of {kernel[0]}x{kernel[1]}"
    if any(axis.stride != 1 for axis in plan.axes3):
        return "tiles overlap at a stride of 1 alone"
    if any(axis.mode != "zeros" and axis.padded > axis.input for axis in plan.axes3):
        return "its padding is zeros"
    lanes = VECTOR_BYTES // np.dtype(plan.compute_dtype).itemsize
    return None if channels >= lanes else f"a vector takes {lanes} channels, but there are {channels}"


def _refusal(direction: Direction, tile: int, plan: ConvPlan) -> str | None:
    return unsuited(tile, plan.y_channels if direction is Direction.INPUT_GRAD else plan.x_channels, plan)


def amplification(outputs: int, taps: int) -> float:
    """How much the three matrices of a filtering can amplify a rounding."""
    output, weight, data = (np.abs(matrix) for matrix in matrices(outputs, taps))
    return float(np.max(np.einsum("if,fk,fj->ik", output, weight, data)))


def _error_factor(direction: Direction, tile: int, plan: ConvPlan) -> float:
    mode = mode_of(plan, tile)
    if mode is None:
        return 0.0
    tiling = tiling_of(direction, mode, plan)
    down, across = winograd.MODES[mode]
    return amplification(*down) * amplification(*across) * (tiling.channels * tiling.depth_taps.size + 40)


def _cost(direction: Direction, mode: int, plan: ConvPlan) -> float:
    """Estimated vector operations for one sample, weights transformed with it.

    Transforms and transpositions were measured in units of one multiply-add of a vector: for each frequency about 6 a
    tile and vector of channels on the way in, 5 on the way out, and 5 a channel and vector of rows for the weights.
    """
    tiling = tiling_of(direction, mode, plan)
    tiles = tiling.downs.size * tiling.acrosses.size
    vectors = tiling.groups * tiling.row_vectors
    taps = tiling.depth_taps.size
    data = tiles * tiling.cells[0] * (tiling.padded_channels // tiling.lanes) * 6.0
    products = max(tiles, ROWS // 2) * tiling.target[0] * taps * tiling.channels * vectors / 0.85
    output = tiles * tiling.target[0] * vectors * 5.0
    weights = tiling.channels * taps * vectors * 5.0
    return prod(tiling.products) * (data + products + output + weights)


def _worthwhile(direction: Direction, tile: int, plan: ConvPlan) -> str | None:
    """Whether the estimate is below that of a plain product, which reaches about 3/4 of the peak."""
    mode = mode_of(plan, tile)
    assert mode is not None
    tiling = tiling_of(direction, mode, plan)
    if min(tiling.channels, tiling.rows) < tiling.lanes // 2:
        return f"groups of {tiling.channels} to {tiling.rows} channels leave its vectors empty"
    rows = -(-tiling.rows // ROWS) * ROWS
    positions = prod(tiling.target) / tiling.lanes
    taps = prod(axis.kernel for axis in plan.axes)
    plain = positions * taps * tiling.groups * tiling.channels * rows / 0.75
    cost = _cost(direction, mode, plan)
    if cost < plain:
        return None
    return f"its transforms and products are estimated at {cost / plain:.2f} times the cost of plain products"


def _algorithm(name: str, direction: Direction, tile: int) -> Algorithm:
    def mode(plan: ConvPlan) -> int:
        found = mode_of(plan, tile)
        assert found is not None
        return found

    def run(plan: ConvPlan, x: Array, w: Weight, y: Array, epilogue: Epilogue) -> None:
        _run(_launch(direction, mode(plan), plan), x, w, y, epilogue)

    def ready(plan: ConvPlan) -> Runner:
        launch = _launch(direction, mode(plan), plan)
        return partial(_run, launch) if len(launch.parts) <= MOST_KEPT else partial(run, plan)

    return Algorithm(
        name,
        partial(_refusal, direction, tile),
        run,
        partial(_error_factor, direction, tile),
        Packing(mode, lambda plan, w: _pack(direction, mode(plan), plan, w)),
        spreading=True,
        worthwhile=partial(_worthwhile, direction, tile),
        ready=ready,
        family="winograd",
    )


#: For each direction: tiles of 4 outputs along an axis of 3 taps (2 for 5 taps), and of 2.
WINOGRAD = {
    direction: (_algorithm("winograd", direction, 4), _algorithm("winograd_2x2", direction, 2))
    for direction in (Direction.FORWARD, Direction.INPUT_GRAD)
}
