"""The Winograd algorithm of FORWARD and INPUT_GRAD: tiles from the plan, parts that fit a cache, kernels launched.

Error factor: transforms, products and sums are sums of products; each rounding is amplified by at most the entries of
the three matrices together. With ``a = max over outputs i and taps k of sum over f of |A^T[i, f]| |G[f, k]| sum over j
of |B^T[f, j]|``, squared for two axes, an output's error is at most ``a * (n + 40)`` roundings of ``max|x| * sum|w|``,
where n is the number of channels and depth taps summed (Higham 2002, section 3.1, for the sums; 40 bounds the
additions and multiplications of all three transforms of both axes). It spreads over the neighbourhood: an
element may be off by roundings of its neighbours, and NaN or infinity in the input reach a whole tile.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from math import prod
from typing import Any

import numba
import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import Algorithm, Direction, Epilogue, PackedWeight, Packing, Weight
from . import winograd
from .activation import ACTIVATION, check_raised
from .gather import PhasedAxis
from .gathered import axes_of
from .launch import Kernel, reads
from .operands import contiguous, deliver, flat_epilogue, flat_target
from .simd import ROWS, VECTOR_BYTES, VECTORS
from .toom_cook import matrices
from .workspace import aligned_empty, workspace

__all__ = [
    "WINOGRAD",
    "Part",
    "Tiling",
    "amplification",
    "frequency_cells",
    "mode_of",
    "parts_of",
    "tiling_of",
    "transform",
    "unsuited",
]

#: Bytes of transformed source at a time.
_PART_BYTES = 6 << 20
#: Transformed weights of more bytes, used by one part alone, are made panel by panel when they are used: they would go
#: to memory and back.
_TRANSIENT_BYTES = 2 << 20
#: Tiles of a task of products: enough to use each panel of weights often, few enough for the second-level cache.
_TASK_TILES = 56

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


def _tile_starts(extent: int, outputs: int, dilation: int) -> Array:
    """Where tiles start so that each position lies in one: interleaved where dilated, in order."""
    starts = [
        phase + dilation * first
        for phase in range(dilation)
        for first in range(0, -((phase - extent) // dilation), outputs)
    ]
    return np.array(sorted(starts), np.int64)


@dataclass(frozen=True)
class Tiling:
    """A plan as tiles; every extent is of the direction that it was made for."""

    mode: int
    dtype: np.dtype
    groups: int
    channels: int
    rows: int
    depth_taps: Array
    origins: tuple[int, int]
    steps: tuple[int, int]
    downs: Array
    acrosses: Array
    cells: tuple[int, int, int]
    target: tuple[int, int, int]
    lanes: int

    @property
    def products(self) -> tuple[int, int]:
        (down, down_taps), (across, across_taps) = winograd.MODES[self.mode]
        return down + down_taps - 1, across + across_taps - 1

    @property
    def outputs(self) -> tuple[int, int]:
        (down, _), (across, _) = winograd.MODES[self.mode]
        return down, across

    @property
    def row_vectors(self) -> int:
        """Vectors of a group's result channels."""
        return -(-self.rows // self.lanes)

    @property
    def weight_frequency(self) -> int:
        """Cells from one frequency of the weights to the next; odd in vectors, so that they fall into other sets."""
        cells = self.groups * self.row_vectors * self.lanes * self.depth_taps.size * self.channels
        return cells + self.lanes * (1 - cells // self.lanes % 2)

    @property
    def weight_size(self) -> int:
        return prod(self.products) * self.weight_frequency

    @property
    def padded_channels(self) -> int:
        return -(-self.groups * self.channels // self.lanes) * self.lanes


def _steps(axis: PhasedAxis) -> int:
    """The distance of neighbouring taps' cells; 1 where there is one tap."""
    return int(abs(axis.base[1] - axis.base[0])) if axis.base.size > 1 else 1


@lru_cache(maxsize=1024)
def tiling_of(direction: Direction, mode: int, plan: ConvPlan) -> Tiling:
    by_input = direction is Direction.INPUT_GRAD
    depth, height, width = axes_of(direction, plan)
    (down, _), (across, _) = winograd.MODES[mode]
    x_channels, y_channels = plan.x_channels // plan.groups, plan.y_channels // plan.groups
    steps = (_steps(height), _steps(width))
    dtype = np.dtype(plan.compute_dtype)
    return Tiling(
        mode=mode,
        dtype=dtype,
        groups=plan.groups,
        channels=y_channels if by_input else x_channels,
        rows=x_channels if by_input else y_channels,
        depth_taps=depth.base,
        origins=(int(height.base.min()), int(width.base.min())),
        steps=steps,
        downs=_tile_starts(int(height.positions[0]), down, steps[0]),
        acrosses=_tile_starts(int(width.positions[0]), across, steps[1]),
        cells=(depth.cells, height.cells, width.cells),
        target=(int(depth.positions[0]), int(height.positions[0]), int(width.positions[0])),
        lanes=VECTOR_BYTES // dtype.itemsize,
    )


def _weights_shape(direction: Direction, tiling: Tiling, w_shape: tuple[int, ...]) -> tuple[int, ...]:
    """How kernels read and transform weights."""
    by_input = direction is Direction.INPUT_GRAD
    inner = prod(w_shape[2:])
    outer = w_shape[1] * inner
    group = w_shape[0] // tiling.groups * outer
    steps = (inner, outer, group) if by_input else (outer, inner, group)
    extents = (tiling.mode, tiling.groups, tiling.channels, tiling.rows, tiling.depth_taps.size)
    return (*extents, *steps, w_shape[3], w_shape[4], int(by_input), tiling.products[1], tiling.lanes)


def _transform_weights(direction: Direction, tiling: Tiling, w: Array, packed: Array) -> None:
    shape = _weights_shape(direction, tiling, w.shape)
    tasks = tiling.groups * tiling.row_vectors * -(-tiling.channels // tiling.lanes)
    flat = contiguous(w, tiling.dtype).reshape(-1)
    _weights_kernel(tiling.dtype, tasks, packed.size, flat, packed, tiling.weight_frequency, shape)


def _pack(direction: Direction, mode: int, plan: ConvPlan, w: Array) -> PackedWeight:
    """The transformed weights."""
    tiling = tiling_of(direction, mode, plan)
    packed = aligned_empty(tiling.weight_size, tiling.dtype)
    _transform_weights(direction, tiling, w, packed)
    return PackedWeight((packed,))


@dataclass(frozen=True)
class Part:
    """A range of samples, of result depths with the slices that they read, and of rows of tiles."""

    first_sample: int
    samples: int
    first_depth: int
    depths: int
    first_slice: int
    slices: int
    first_row: int
    rows: int


def _slices(tiling: Tiling, first: int, depths: int) -> tuple[int, int]:
    """The slices ``[first, last)`` that result depths read."""
    begin = max(first + int(tiling.depth_taps.min()), 0)
    end = min(first + depths - 1 + int(tiling.depth_taps.max()) + 1, tiling.cells[0])
    return begin, max(end, begin)


def parts_of(tiling: Tiling, batch: int) -> Iterator[Part]:
    """The problem in parts whose transformed source is small: samples first, then depths, then rows of tiles.

    Results do not depend on it: an element is summed within one tile.
    """
    depths, all_rows = tiling.target[0], tiling.downs.size
    row_bytes = prod(tiling.products) * tiling.acrosses.size * tiling.padded_channels * tiling.dtype.itemsize
    slices = max(_slices(tiling, 0, depths)[1] - _slices(tiling, 0, depths)[0], 1)
    samples = min(max(_PART_BYTES // (row_bytes * all_rows * slices), 1), batch)
    taps = int(tiling.depth_taps.max() - tiling.depth_taps.min())
    deep = min(max(_PART_BYTES // (row_bytes * all_rows) - taps, 1), depths) if samples == 1 else depths
    rows = min(max(_PART_BYTES // (row_bytes * (taps + 1)), 1), all_rows) if deep == 1 else all_rows
    for n in range(0, batch, samples):
        for d in range(0, depths, deep):
            begin, end = _slices(tiling, d, min(deep, depths - d))
            for row in range(0, all_rows, rows):
                yield Part(
                    n,
                    min(samples, batch - n),
                    d,
                    min(deep, depths - d),
                    begin,
                    end - begin,
                    row,
                    min(rows, all_rows - row),
                )


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


def transform(tiling: Tiling, part: Part, source: Array, v: Array, frequency: int, panel_rows: int = 0) -> None:
    """Transform a part of the source, or of an output gradient in groups of ``panel_rows`` channels."""
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
    _transform_kernel(tiling.dtype, tasks, work, source, v, shape, *geometry)


def _run_part(
    tiling: Tiling,
    part: Part,
    source: Array,
    v: Array,
    operands: tuple,
    weights_shape: tuple[int, ...],
    activation: Array,
) -> None:
    tiles, padded = tiling.acrosses.size, tiling.padded_channels
    rows_of_tiles = part.samples * part.slices * part.rows
    v_frequency = frequency_cells(rows_of_tiles * tiles + ROWS, padded, tiling.lanes)
    macs = prod(tiling.products) * rows_of_tiles * tiles * tiling.channels * tiling.groups * tiling.rows
    if rows_of_tiles:
        transform(tiling, part, source, v, v_frequency)
    _multiply_part(tiling, part, v_frequency, (v, *operands), weights_shape, macs, activation)


def _multiply_part(
    tiling: Tiling,
    part: Part,
    v_frequency: int,
    operands: tuple,
    weights_shape: tuple[int, ...],
    macs: int,
    activation: Array,
) -> None:
    tiles, padded = tiling.acrosses.size, tiling.padded_channels
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
    tasks = others * -(-part.rows // task_rows)
    _multiply_kernel(tiling.dtype, tasks, macs, *operands, shape, bounds, weights_shape, *geometry, activation)


def frequency_cells(rows: int, padded: int, lanes: int) -> int:
    """Cells from one frequency of the transformed source to the next; odd in vectors, as for the weights."""
    cells = rows * padded
    return cells + lanes * (1 - cells // lanes % 2)


def _run(direction: Direction, mode: int, plan: ConvPlan, x: Array, w: Weight, y: Array, epilogue: Epilogue) -> None:
    source, out = (y, x) if direction is Direction.INPUT_GRAD else (x, y)
    if not out.size:
        return
    tiling = tiling_of(direction, mode, plan)
    bias, residual, activation = flat_epilogue(epilogue, tiling.dtype)
    target = flat_target(out, tiling.dtype)
    flat = contiguous(source, tiling.dtype).reshape(-1)
    parts = list(parts_of(tiling, plan.batch))
    most = max((part.samples * part.slices * part.rows for part in parts), default=0)
    size = prod(tiling.products) * frequency_cells(
        most * tiling.acrosses.size + ROWS, tiling.padded_channels, tiling.lanes
    )
    with ExitStack() as stack:
        raw = packed = np.empty(0, tiling.dtype)
        if isinstance(w, PackedWeight):
            packed = w.arrays[0]
        elif len(parts) == 1 and tiling.weight_size * tiling.dtype.itemsize > _TRANSIENT_BYTES:
            raw = contiguous(w, tiling.dtype).reshape(-1)
        else:
            packed = stack.enter_context(workspace(tiling.weight_size, tiling.dtype))
            _transform_weights(direction, tiling, w, packed)
        v = stack.enter_context(workspace(size, tiling.dtype))
        operands = (packed, raw, bias, residual, target.reshape(-1))
        weights_shape = _weights_shape(direction, tiling, plan.w_shape)
        for part in parts:
            _run_part(tiling, part, flat, v, operands, weights_shape, activation)
    check_raised(epilogue.activation, activation)
    deliver(target, out)


def _kernel_of(mode: int) -> tuple[int, int]:
    (_, down), (_, across) = winograd.MODES[mode]
    return down, across


def mode_of(plan: ConvPlan, tile: int) -> int | None:
    """The filtering for a plan's kernel, of ``tile`` outputs along an axis of 3 taps."""
    kernel = tuple(axis.kernel for axis in plan.axes3[1:])
    for mode, ((down, _), (across, _)) in enumerate(winograd.MODES):
        if _kernel_of(mode) == kernel and (tile == 2) == (max(down, across) == 2 and kernel == (3, 3)):
            return mode
    return None


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
        _run(direction, mode(plan), plan, x, w, y, epilogue)

    return Algorithm(
        name,
        partial(_refusal, direction, tile),
        run,
        partial(_error_factor, direction, tile),
        Packing(mode, lambda plan, w: _pack(direction, mode(plan), plan, w)),
        spreading=True,
        worthwhile=partial(_worthwhile, direction, tile),
        family="winograd",
    )


#: For each direction: tiles of 4 outputs along an axis of 3 taps (2 for 5 taps), and of 2.
WINOGRAD = {
    direction: (_algorithm("winograd", direction, 4), _algorithm("winograd_2x2", direction, 2))
    for direction in (Direction.FORWARD, Direction.INPUT_GRAD)
}
