"""The Winograd algorithm of FORWARD and INPUT_GRAD: tiles from the plan, blocks, kernels launched.

Error factor: see `toom_cook`; what is summed are channels and depth taps.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import About, Algorithm, Direction, Epilogue, PackedWeight, Packing, Runner, Weight
from ..toom_cook import error_factor
from . import winograd, winograd_product
from .activation import ACTIVATION, check_raised
from .launch import Kernel, integers, reads
from .operands import contiguous, deliver, flat_epilogue, flat_target
from .simd import ROWS, VECTOR_BYTES
from .threads import parallel_threads
from .winograd_schedule import bundle_of, schedule_of, stretch_of
from .winograd_tiling import Tiling, mode_of, tiling_of
from .without_transforms import any_spoiled, mend_rows
from .workspace import aligned_empty, workspace

__all__ = ["MARKS", "TRANSFORM", "WINOGRAD", "WINOGRADS", "unsuited"]

_INTEGERS = types.Array(types.int64, 1, "C")
#: Numba's type of the marks of what is not finite.
MARKS = types.Array(types.uint8, 1, "C")


def _weights_signature(kind: Any) -> tuple:
    return (reads(kind, 1), types.Array(kind, 1, "C"), types.int64, types.int64, integers(13))


def _transform_signature(kind: Any) -> tuple:
    tables = (integers(3), integers(2), integers(2), _INTEGERS, _INTEGERS)
    return (reads(kind, 1), types.Array(kind, 1, "C"), integers(18), *tables)


def _multiply_signature(kind: Any) -> tuple:
    flat, out = reads(kind, 1), types.Array(kind, 1, "C")
    numbers = (integers(12), integers(11), integers(9), integers(13), integers(3), integers(3), integers(2))
    tables = (_INTEGERS, integers(2), _INTEGERS, _INTEGERS, ACTIVATION)
    return (flat, out, flat, flat, flat, out, out, *numbers, *tables, types.int64, MARKS)


_weights_kernel = Kernel(winograd.weights_tasks, _weights_signature)
#: Of the source, and of output gradients; a kernel of its own, and part of the products by its address.
TRANSFORM = Kernel(winograd.transform_tasks, _transform_signature)
_multiply_kernel = Kernel(winograd_product.multiply_tasks, _multiply_signature)


def _weights_shape(direction: Direction, tiling: Tiling, w_shape: tuple[int, ...]) -> tuple[int, ...]:
    """How kernels read and transform weights."""
    by_input = direction is Direction.INPUT_GRAD
    inner = prod(w_shape[2:])
    outer = w_shape[1] * inner
    group = w_shape[0] // tiling.groups * outer
    steps = (inner, outer, group) if by_input else (outer, inner, group)
    extents = (tiling.mode, tiling.groups, tiling.channels, tiling.rows, tiling.depth_taps.size)
    return (*extents, *steps, w_shape[3], w_shape[4], int(by_input), tiling.products[1], tiling.lanes)


def _transform_weights(
    tiling: Tiling, shape: tuple[int, ...], flat: Array, packed: Array, frequency: int, first: int, vectors: int
) -> None:
    """Of some vectors of rows, counted through all groups."""
    tasks = vectors * -(-tiling.channels // tiling.lanes)
    work = 6 * vectors * tiling.lanes * tiling.channels * tiling.depth_taps.size * prod(tiling.products)
    _weights_kernel(tiling.dtype, tasks, work, flat, packed, frequency, first, shape)


def _pack(direction: Direction, mode: int, plan: ConvPlan, w: Array) -> PackedWeight:
    """The transformed weights."""
    tiling = tiling_of(direction, mode, plan)
    packed = aligned_empty(tiling.weight_size, tiling.dtype)
    shape, vectors = _weights_shape(direction, tiling, w.shape), tiling.groups * tiling.row_vectors
    flat = contiguous(w, tiling.dtype).reshape(-1)
    _transform_weights(tiling, shape, flat, packed, tiling.weight_frequency, 0, vectors)
    return PackedWeight((packed,), w)


class _Call(NamedTuple):
    """What one part of the weights needs beside arrays.

    ``made``: the first vector of rows and how many are transformed before, if they are; ``tasks``, ``work``, ``chunks``
    and ``numbers``: of the products.
    """

    made: tuple[int, int] | None
    tasks: int
    work: int
    chunks: int
    numbers: tuple


class _Calls(NamedTuple):
    """For a number of threads: cells of scratch and of transformed weights, the latter's frequency, and the calls."""

    scratch: int
    weights: int
    frequency: int
    transient: bool
    calls: tuple[_Call, ...]


def _calls(launch: "_Launch", threads: int, prepared: bool) -> _Calls:
    tiling, batch = launch.tiling, launch.batch
    schedule = schedule_of(tiling, batch, threads, prepared)
    blocks, bundle, frequencies = schedule.blocks, bundle_of(tiling), prod(tiling.products)
    shape = (
        *(tiling.mode, tiling.groups, tiling.channels, tiling.rows, bundle, *tiling.products, *tiling.outputs),
        *(*tiling.products, tiling.lanes),
    )
    v, m = frequencies * schedule.v_frequency, frequencies * schedule.m_frequency
    u = frequencies * schedule.u_frequency if schedule.transient else 0
    tables = (tiling.cells, tiling.origins, tiling.depth_taps, tiling.steps, tiling.downs, tiling.acrosses)
    extents = (batch, blocks.samples, tiling.target[0], blocks.depths, tiling.downs.size, blocks.rows)
    stretch = stretch_of(tiling)
    tiles = batch * tiling.target[0] * tiling.downs.size * tiling.acrosses.size * tiling.depth_taps.size
    calls, most = [], 0
    for part in schedule.parts:
        tasks = part.bundles * blocks.count * part.panels
        chunks = min(tasks, threads)
        most = max(most, chunks)
        bounds = (*extents, stretch, part.first_bundle, part.first_panel, part.panels, max(1, 28 // stretch))
        first = 0 if prepared else part.first_vector
        sizes = (
            schedule.v_frequency,
            schedule.u_frequency,
            schedule.m_frequency,
            v,
            u,
            v + u + m,
            tasks,
            chunks,
            first,
        )
        work = frequencies * tiles * tiling.channels * part.vectors * tiling.lanes
        numbers = (shape, bounds, sizes, launch.weights_shape, tiling.target, *tables)
        made = None if prepared or schedule.transient else (part.first_vector, part.vectors)
        calls.append(_Call(made, tasks, work, chunks, numbers))
    weights = 0 if prepared or schedule.transient else frequencies * schedule.u_frequency
    return _Calls(most * (v + u + m), weights, schedule.u_frequency, schedule.transient, tuple(calls))


@dataclass(frozen=True)
class _Launch:
    """What follows from a plan alone, found once for many calls.

    ``lengths``: cells of the stretches of a row. ``calls``: by the number of threads, and whether weights are prepared.
    """

    direction: Direction
    plan: ConvPlan
    tiling: Tiling
    batch: int
    lengths: Array
    weights_shape: tuple[int, ...]
    calls: dict[tuple[int, bool], _Calls]

    def calls_now(self, prepared: bool) -> _Calls:
        key = (parallel_threads(), prepared)
        found = self.calls.get(key)
        if found is None:
            found = self.calls[key] = _calls(self, *key)
        return found


def _launch(direction: Direction, mode: int, plan: ConvPlan) -> _Launch:
    tiling = tiling_of(direction, mode, plan)
    lengths = np.diff(tiling.acrosses[:: stretch_of(tiling)], append=tiling.target[2])
    weights_shape = _weights_shape(direction, tiling, plan.w_shape)
    return _Launch(direction, plan, tiling, plan.batch, lengths, weights_shape, {})


def _run(launch: _Launch, x: Array, w: Weight, y: Array, epilogue: Epilogue) -> None:
    source, out = (y, x) if launch.direction is Direction.INPUT_GRAD else (x, y)
    if not out.size:
        return
    tiling, dtype = launch.tiling, launch.tiling.dtype
    bias, residual, activation = flat_epilogue(epilogue, dtype)
    target = flat_target(out, dtype)
    flat = contiguous(source, dtype).reshape(-1)
    spoiled = np.zeros((*target.shape[:4], launch.lengths.size), np.uint8)
    prepared = isinstance(w, PackedWeight)
    now = launch.calls_now(prepared)
    address, marks = TRANSFORM.address(dtype), spoiled.reshape(-1)
    with ExitStack() as stack:
        raw = packed = np.empty(0, dtype)
        if isinstance(w, PackedWeight):
            packed = w.arrays[0]
        else:
            raw = contiguous(w, dtype).reshape(-1)
            if now.weights:
                packed = stack.enter_context(workspace(now.weights, dtype))
        scratch = stack.enter_context(workspace(now.scratch, dtype))
        operands = (flat, packed, raw, bias, residual, target.reshape(-1), scratch)
        for made, tasks, work, chunks, numbers in now.calls:
            if made is not None:
                _transform_weights(tiling, launch.weights_shape, raw, packed, now.frequency, *made)
            _multiply_kernel.run_chunks(dtype, tasks, work, chunks, *operands, *numbers, activation, address, marks)
    if any_spoiled(spoiled):
        of_epilogue = (bias, residual, activation)
        mend_rows(launch.direction, launch.plan, source, w, target, spoiled, launch.lengths, *of_epilogue)
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


def _error_factor(direction: Direction, tile: int, plan: ConvPlan) -> float:
    mode = mode_of(plan, tile)
    if mode is None:
        return 0.0
    tiling = tiling_of(direction, mode, plan)
    down, across = winograd.MODES[mode]
    return error_factor(down, across, tiling.channels * tiling.depth_taps.size)


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


#: What is said of it in the documentation, of all directions.
WINOGRADS = About(
    does="minimal filtering: F(4x4, 3x3), F(2x2, 5x5), 3 taps along one axis, depths summed",
    cost="36 products instead of 144 a tile (3x3) or 100 (5x5), 6 instead of 12 along one axis; transforms of input, "
    "weight and result",
    chosen="stride 1, zero padding, where its transforms pay",
    bound="of the largest values: `a (n + 40)` for `n` channels, `a` = 176; 14 along one axis",
    reach="errors, over a tile of results, in its group's channels",
)
_OF_SMALL_TILES = About(
    does="F(2x2, 3x3): less gain, smaller errors",
    cost="16 products instead of 36 a tile, and the transforms",
    chosen="where that tile pays and the larger does not",
    bound="as `winograd`, `a` = 16",
    reach=WINOGRADS.reach,
)


def _algorithm(name: str, direction: Direction, tile: int, about: About) -> Algorithm:
    def mode(plan: ConvPlan) -> int:
        found = mode_of(plan, tile)
        assert found is not None
        return found

    def run(plan: ConvPlan, x: Array, w: Weight, y: Array, epilogue: Epilogue) -> None:
        _run(_launch(direction, mode(plan), plan), x, w, y, epilogue)

    def ready(plan: ConvPlan) -> Runner:
        launch = _launch(direction, mode(plan), plan)
        return partial(_run, launch)

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
        about=about,
    )


#: For each direction: tiles of 4 outputs along an axis of 3 taps (2 for 5 taps), and of 2.
WINOGRAD = {
    direction: (
        _algorithm("winograd", direction, 4, WINOGRADS),
        _algorithm("winograd_2x2", direction, 2, _OF_SMALL_TILES),
    )
    for direction in (Direction.FORWARD, Direction.INPUT_GRAD)
}
