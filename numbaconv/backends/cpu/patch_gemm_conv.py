"""The patch GEMM algorithm of FORWARD and INPUT_GRAD: blocks of positions, packed weights, tasks counted."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import About, Direction, Epilogue, PackedWeight, Weight
from . import patch_gemm, patch_store
from .activation import ACTIVATION, check_raised
from .folded import Fold, fold, folded_weight
from .gather import TABLE, PhasedAxis, merged
from .gathered import Axes, axes_of, both_directions, gather_refusal
from .launch import Kernel, integers, reads
from .operands import contiguous, deliver, either_layout, fill_value, flat_epilogue, flat_strides, is_channels_last
from .simd import ROWS, VECTOR_BYTES, VECTORS
from .threads import parallel_threads
from .workspace import aligned_empty, workspace

__all__ = [
    "FOLDED_GEMM",
    "PATCHES",
    "PATCH_GEMM",
    "PATCH_GEMM_KERNEL",
    "POSITIONS",
    "PatchLaunch",
    "Result",
    "all_inside",
    "lanes_worthwhile",
    "panels_of_task",
    "patch_launch",
    "result_of",
    "store_address",
    "stretch_of",
    "with_panels",
]

#: Positions of a task: enough to use each panel of weights often, few enough for the second-level cache.
POSITIONS = 192
#: Of folded phases, the share of products that are not with zeros or empty lanes.
_LEAST_FILLED = 0.35
#: How many cells that no tap reads are worth a patch, for each tap and vector of result channels.
_SPARE = 0.75
#: Vectors of result channels of a task.
_VECTORS = 24

_NOT_FOLDED = np.empty(0, np.int64)
_STARTS = types.Array(types.int64, 1, "C")


def _pack_signature(kind: Any) -> tuple:
    return (reads(kind, 1), types.Array(kind, 1, "C"), _STARTS, integers(10), TABLE)


def _signature(kind: Any) -> tuple:
    flat, out = reads(kind, 1), types.Array(kind, 1, "C")
    tuples = (integers(14), integers(5), integers(5))
    return (flat, flat, _STARTS, flat, flat, out, *tuples, TABLE, TABLE, kind, ACTIVATION, types.int64)


_pack_kernel = Kernel(patch_gemm.pack_tasks, _pack_signature)
PATCH_GEMM_KERNEL = Kernel(patch_gemm.patch_gemm_tasks, _signature)


def _sums_signature(kind: Any) -> tuple:
    held, integer = types.Array(kind, 1, "C"), types.int64
    return (held, held, integer, held, integer, integer, integer)


def _phases_signature(kind: Any) -> tuple:
    held, integer = types.Array(kind, 1, "C"), types.int64
    rest = (held, reads(kind, 1), ACTIVATION, held, integer, integers(3))
    return (*_sums_signature(kind), TABLE, TABLE, integer, integers(2), *rest)


def _folded_signature(kind: Any) -> tuple:
    held, integer = types.Array(kind, 1, "C"), types.int64
    rest = (reads(kind, 1), integer, reads(kind, 1), ACTIVATION, held, integer, integers(5))
    return (*_sums_signature(kind), TABLE, integers(3), integers(3), *rest)


_phases_kernel = Kernel(patch_store.store_phases, _phases_signature)
_folded_kernel = Kernel(patch_store.store_folded, _folded_signature)


class PatchLaunch(NamedTuple):
    """What follows from a plan alone, found once for many calls.

    ``extents``: samples, groups, channels and rows. ``tasks``: without blocks. ``starts``: where each phase's packed
    weights begin. ``axes``, merged, are folded where ``fold`` is not None, and rows are channels times phases.
    """

    dtype: np.dtype
    axes: Array
    fold: Fold | None
    extents: tuple[int, int, int, int]
    largest: tuple[int, int]
    width_phases: int
    width_step: int
    tasks: int
    panels: int
    lanes: int
    in_place: int
    work: int
    fill: Any
    starts: Array
    pack_tasks: int
    pack_shape: tuple[int, ...]


def patch_launch(plan: ConvPlan, by_input: bool, axes: Axes, zeros: bool = False) -> PatchLaunch:
    dtype, groups = np.dtype(plan.compute_dtype), plan.groups
    lanes = VECTOR_BYTES // dtype.itemsize
    outputs, inputs = plan.y_channels // groups, plan.x_channels // groups
    rows, channels = (inputs, outputs) if by_input else (outputs, inputs)
    kernel = plan.w_shape[2:]
    found = fold(axes, rows, lanes, zeros, 1 if zeros else _gain(plan))
    if found is not None:
        axes, rows, kernel = found.axes, rows * found.phases, tuple(axis.base.size for axis in found.axes)
    vectors = -(-rows // lanes)
    taps = [np.diff(axis.taps) for axis in axes]
    sizes = np.multiply.outer(np.multiply.outer(taps[0], taps[1]), taps[2]).ravel()
    starts = np.zeros(sizes.size + 1, np.int64)
    np.cumsum(sizes * (groups * vectors * lanes * channels), out=starts[1:])
    inner = prod(kernel)
    outer = (rows if by_input else inputs) * inner
    # By input, rows are input channels and the depth runs over output channels.
    steps = (inner, outer, outputs * outer) if by_input else (outer, inner, outputs * outer)
    depth, height, width = axes
    return PatchLaunch(
        dtype=dtype,
        axes=merged(axes),
        fold=found,
        extents=(plan.batch, groups, channels, rows),
        largest=(int(height.positions.max(initial=1)), int(width.positions.max(initial=1))),
        width_phases=width.positions.size,
        width_step=width.target_step,
        tasks=groups * depth.positions.size * height.positions.size * int(depth.positions.max(initial=1)),
        panels=-(-vectors // VECTORS),
        lanes=lanes,
        in_place=int(all(all_inside(axis) for axis in axes)),
        work=plan.macs,
        fill=fill_value(plan, dtype),
        starts=starts,
        pack_tasks=groups * vectors * -(-channels // lanes),
        pack_shape=(groups, rows, channels, *steps, *kernel, lanes),
    )


def _pack(plan: ConvPlan, w: Array, by_input: bool, launch: PatchLaunch) -> PackedWeight:
    """All phases' packed weights."""
    packed = aligned_empty(int(launch.starts[-1]), launch.dtype)
    _pack_into(packed, w, launch)
    return PackedWeight((packed,))


def _pack_into(packed: Array, w: Array, launch: PatchLaunch) -> None:
    if launch.fold is not None:
        w = folded_weight(w, launch.fold)
    operands = (contiguous(w, launch.dtype).reshape(-1), packed, launch.starts, launch.pack_shape, launch.axes)
    _pack_kernel(launch.dtype, launch.pack_tasks, packed.size, *operands)


def all_inside(axis: PhasedAxis) -> bool:
    """Whether every tap reads a cell of the source at every position."""
    whole = np.repeat(axis.positions, np.diff(axis.taps))
    return bool(np.all(axis.first == 0) and np.all(axis.last == whole))


def panels_of_task(panels: int) -> int:
    """Panels of a task where there are tasks enough."""
    return min(panels, _VECTORS // VECTORS)


def _blocks(launch: PatchLaunch) -> tuple[int, int, int, int]:
    """Samples, rows, columns and panels of a task.

    An activation runs along a row of a task, so columns follow from the plan alone; the others may be as few as it
    takes to occupy the threads, since a position's sum does not depend on its neighbours.
    """
    batch, (height, width), panels = launch.extents[0], launch.largest, launch.panels
    columns = stretch_of(width)
    most = max(POSITIONS // launch.width_phases, columns)
    rows = min(max(most // columns, 1), height)
    rows = -(-height // -(-height // rows))
    samples = min(max(most // (rows * columns), 1), batch) if rows == height and columns == width else 1
    samples = -(-batch // -(-batch // samples))
    task_panels = panels_of_task(panels)
    least_tasks = 2 * parallel_threads()

    def tasks() -> int:
        blocks = -(-batch // samples) * -(-height // rows) * -(-width // columns) * -(-panels // task_panels)
        return launch.tasks * blocks

    while tasks() < least_tasks and samples > 1:
        samples = -(-samples // 2)
    while tasks() < least_tasks and rows * columns > 4 * ROWS and rows > 1:
        rows = -(-rows // 2)
    while tasks() < least_tasks and task_panels > 1:
        task_panels = -(-task_panels // 2)
    return samples, rows, columns, task_panels


class Result(NamedTuple):
    """A result to fill, with its epilogue, as the kernel takes them; ``target`` is brought to where it belongs."""

    target: Array
    flat: Array
    strides: tuple[int, ...]
    bias: Array
    residual: Array
    activation: Array


def result_of(out: Array, epilogue: Epilogue, dtype: np.dtype) -> Result:
    """What a kernel fills for ``out``."""
    target = either_layout(out, dtype) if out.dtype == dtype else np.empty(out.shape, dtype)
    bias, residual, activation = flat_epilogue(epilogue, dtype)
    if epilogue.residual is not None and is_channels_last(target):
        residual = contiguous(np.moveaxis(epilogue.residual, 1, -1), dtype).reshape(-1)
    return Result(target, *flat_strides(target), bias, residual, activation)


def store_address(launch: PatchLaunch, result: Result) -> int:
    """Where the function is that stores the sums, if rows of positions are not rows of the result as they are."""
    if launch.fold is not None:
        return _folded_kernel.address(launch.dtype)
    if result.strides[1] == 1 and result.strides[4] != 1:
        return 0
    plain = launch.width_phases == 1 and launch.width_step == 1 and not result.residual.size
    return 0 if plain and not result.activation[0] else _phases_kernel.address(launch.dtype)


def with_panels(w: Weight, launch: PatchLaunch, multiply: Callable[[Array], None]) -> None:
    """``multiply(panels)`` of a weight, which are no longer there afterwards."""
    if isinstance(w, PackedWeight):
        multiply(w.arrays[0])
    else:
        with workspace(int(launch.starts[-1]), launch.dtype) as packed:
            _pack_into(packed, w, launch)
            multiply(packed)


def stretch_of(width: int) -> int:
    """Columns of a task, along which an activation runs: they follow from the plan alone."""
    return -(-width // -(-width // POSITIONS))


def _run(
    plan: ConvPlan, source: Array, w: Weight, out: Array, epilogue: Epilogue, by_input: bool, launch: PatchLaunch
) -> None:
    if not out.size:
        return
    dtype = launch.dtype
    result = result_of(out, epilogue, dtype)
    flat, strides = flat_strides(either_layout(source, dtype))
    samples, rows, columns, task_panels = _blocks(launch)
    height, width = launch.largest
    blocks = (-(-plan.batch // samples), -(-height // rows), -(-width // columns))
    panel_blocks = -(-launch.panels // task_panels)
    sizes = (samples, rows, columns, *blocks, task_panels, panel_blocks)
    shape = (*launch.extents, *sizes, launch.in_place, launch.lanes)
    tasks = launch.tasks * prod(blocks) * panel_blocks

    store = store_address(launch, result)

    def multiply(packed: Array) -> None:
        operands = (flat, packed, launch.starts, result.bias, result.residual, result.flat, shape, strides)
        folded = _NOT_FOLDED if launch.fold is None else launch.fold.table
        axes = (result.strides, launch.axes, folded)
        PATCH_GEMM_KERNEL(dtype, tasks, launch.work, *operands, *axes, launch.fill, result.activation, store)

    with_panels(w, launch, multiply)
    check_raised(epilogue.activation, result.activation)
    deliver(result.target, out)


def lanes_worthwhile(rows: int, dtype: str) -> str | None:
    """Whether the result channels of a group fill enough of their vectors."""
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    filled = rows / max(-(-rows // lanes) * lanes, 1)
    return None if filled > 0.5 or not rows else f"{rows} result channels fill {filled:.0%} of its vectors"


def _worthwhile(direction: Direction, plan: ConvPlan) -> str | None:
    rows = (plan.x_channels if direction is Direction.INPUT_GRAD else plan.y_channels) // plan.groups
    if _fold(direction, plan, False, _gain(plan)) is not None:
        return None
    return lanes_worthwhile(rows, plan.compute_dtype) or _patch_worthwhile(axes_of(direction, plan), rows, plan)


def _patch_worthwhile(axes: Axes, rows: int, plan: ConvPlan) -> str | None:
    """Whether the cells of a patch that no tap reads cost little beside the products: strides step over them.

    With 64 result channels, 3x3 kernels of stride 6 take the same either way, those of stride 16 a quarter of the time
    gathered; with 256, those of stride 8 take the same.
    """
    if all(all_inside(axis) for axis in axes):
        return None
    cells, taps = 1.0, 1.0
    for axis in axes:
        positions = max(int(axis.positions.max(initial=1)), 1)
        cells *= ((positions - 1) * axis.step + int(np.ptp(axis.base)) + 1) / positions if axis.base.size else 1
        taps *= axis.tap.size / max(axis.positions.size, 1)
    vectors = -(-rows * np.dtype(plan.compute_dtype).itemsize // VECTOR_BYTES)
    if cells - taps <= taps * max(vectors, 1) * _SPARE:
        return None
    return f"a patch has about {cells:.0f} cells for a position's {taps:.0f} taps"


def _gain(plan: ConvPlan) -> int:
    """What folding must gain to be chosen: channels last, results of a phase are apart in memory."""
    return 2 if plan.channels_last else 1


def _fold(direction: Direction, plan: ConvPlan, zeros: bool, gain: int) -> Fold | None:
    rows, lanes = plan.x_channels // plan.groups, VECTOR_BYTES // np.dtype(plan.compute_dtype).itemsize
    return fold(axes_of(direction, plan), rows, lanes, zeros, gain)


def _folded_refusal(direction: Direction, plan: ConvPlan) -> str | None:
    refused = gather_refusal(direction, plan)
    if refused is None and _fold(direction, plan, True, 1) is None:
        return "folding its stride phases into channels gains nothing"
    return refused


def _folded_worthwhile(direction: Direction, plan: ConvPlan) -> str | None:
    rows, lanes = plan.x_channels // plan.groups, VECTOR_BYTES // np.dtype(plan.compute_dtype).itemsize
    found = _fold(direction, plan, True, _gain(plan))
    if found is None:
        return "channels last, it gains too little"
    products = -(-rows * found.phases // lanes) * lanes * prod(axis.base.size for axis in found.axes)
    filled = rows * prod(axis.tap.size for axis in axes_of(direction, plan)) / products
    return None if filled > _LEAST_FILLED else f"{filled:.0%} of its products would count"


#: What is said of it in the documentation, of all directions.
PATCHES = About(
    does="products over patches, vectors of result channels",
    cost="the definition's products; cells are copied once for a block of positions, weights once a call, or once "
    "in all by `prepare`",
    chosen="result channels fill over half of their vectors",
)
#: The algorithm, for the two directions it computes.
PATCH_GEMM = both_directions(
    "patch_gemm",
    gather_refusal,
    _run,
    _pack,
    patch_launch,
    worthwhile=_worthwhile,
    about=PATCHES,
)

_FOLDED = both_directions(
    "folded_gemm",
    _folded_refusal,
    _run,
    _pack,
    partial(patch_launch, zeros=True),
    worthwhile=_folded_worthwhile,
    about=About(
        does="`patch_gemm` of input gradients and transposed convolutions with a stride, whose phases are result "
        "channels",
        cost="as `patch_gemm`, and products with zeros for the taps that a phase does not have",
        chosen="few channels, where lanes gained outweigh products with zeros",
        reach="NaN and infinity, to the cells of a stride beside those that read them",
    ),
)
#: INPUT_GRAD with stride phases as channels, zeros for the taps that a phase does not have.
FOLDED_GEMM = replace(_FOLDED[Direction.INPUT_GRAD], spreading=True)
