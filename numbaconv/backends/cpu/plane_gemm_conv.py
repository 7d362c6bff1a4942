"""The plane GEMM algorithm of FORWARD and INPUT_GRAD: blocks of positions, packed weights, tasks counted."""

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import About, Direction, Epilogue, PackedWeight, Weight
from . import plane_gemm
from .activation import ACTIVATION, check_raised
from .gather import TABLE, PhasedAxis, merged
from .gathered import Axes, axes_of, both_directions, gather_refusal
from .implicit_gemm import PACK_KERNEL
from .launch import Kernel, integers, reads, runs_serially
from .operands import deliver, fill_value, flat, flat_epilogue, flat_target
from .patch_gemm_conv import lanes_worthwhile, stretch_of
from .simd import ROWS, VECTOR_BYTES, VECTORS
from .threads import parallel_threads

__all__ = ["PLANE_GEMM"]

#: Positions of a task at least and at most, and cells of its patch at most, which stays in the second-level cache.
_LEAST_POSITIONS, _MOST_POSITIONS, _CELLS = 384, 1536, 2**16
#: Panels of result channels of a task.
_PANELS = 12
#: What a result costs: its products take this much longer than with lanes of channels, and storing it takes as long as
#: so many products: here, here where rows have other cells between them, and with lanes of channels, where it is
#: transposed, and where a patch is packed besides. Measured with AVX-512, 20 to 512 channels.
_SLOWER, _STORE_HERE, _STORE_ROWS, _STORE_THERE, _STORE_PACKED = 1.08, 4, 20, 10, 16
#: Products of a sample below which `implicit_gemm` has less to set up, where channels fill few lanes.
_LEAST_WORK = 20_000
#: What a call takes more with lanes of channels, a part of it, since it is counted for each sample.
_SET_UP_THERE = 20_000
#: The most products for each that counts, where maps are small.
_MOST_EMPTY = 3.0
#: How much longer products take where channels fill a single vector, so that tiles have few accumulators.
_NARROW = 1.1
#: What laying out a vector of cells takes, and one of cells that are apart.
_LAID_OUT, _TAKEN_APART = 3, 24
#: The largest stride whose parts a patch holds.
_MOST_STRIDE = 4


def _signature(kind: Any) -> tuple:
    flat, out = reads(kind, 1), types.Array(kind, 1, "C")
    return (flat, flat, flat, flat, out, integers(11), TABLE, kind, ACTIVATION)


_kernel = Kernel(plane_gemm.plane_gemm_tasks, _signature)


class _Split(NamedTuple):
    """Axes with their positions, and how many rows and columns of these a task has."""

    axes: Array
    positions: tuple[int, int, int]
    rows: int
    columns: int


class _Launch(NamedTuple):
    """What follows from a plan alone; ``pack`` is the packing kernel, bound to its tasks.

    ``plain``: in whole tiles, along the whole plane where it can be; ``activated``: along the stretches of a row that
    an activation runs along in every algorithm, since it may be vectorised.
    """

    dtype: np.dtype
    extents: tuple[int, int, int, int]
    plain: _Split
    activated: _Split
    panels: int
    lanes: int
    work: int
    fill: Any
    packed: int
    pack: Callable[..., None]
    pack_axes: Array
    pack_shape: tuple[int, ...]


def _plain(axes: Axes, channels: int, tile: int) -> _Split:
    axes = _one_line(axes)
    depth, height, width = (int(axis.positions[0]) for axis in axes)
    taps = prod(axis.tap.size for axis in axes)
    together = max(min(plane_gemm.DEPTH // max(taps, 1), channels), 1)
    most = min(max(_CELLS // together, _LEAST_POSITIONS), _MOST_POSITIONS)
    columns = min(-(-_even(width, most) // tile) * tile, width)
    return _Split(merged(axes), (depth, height, width), _even(height, most // columns), columns)


def _activated(axes: Axes) -> _Split:
    depth, height, width = (int(axis.positions[0]) for axis in axes)
    columns = stretch_of(width)
    return _Split(merged(axes), (depth, height, width), _even(height, _LEAST_POSITIONS // columns), columns)


def _one_line(axes: Axes) -> Axes:
    """Axes along which every position reads its own cell, as one axis; others as they are."""
    alone = all(
        axis.tap.size == 1 and axis.step == 1 and axis.base[0] == 0 and axis.cells == axis.positions[0] for axis in axes
    )
    if not alone:
        return axes
    depth, height, width = axes
    cells = depth.cells * height.cells * width.cells
    return _of_cells(depth, 1), _of_cells(height, 1), _of_cells(width, cells)


def _of_cells(axis: PhasedAxis, cells: int) -> PhasedAxis:
    count = np.array([cells])
    return axis._replace(cells=cells, positions=count, last=count)


def _launch(plan: ConvPlan, by_input: bool, axes: Axes) -> _Launch:
    dtype, groups = np.dtype(plan.compute_dtype), plan.groups
    outputs, inputs = plan.y_channels // groups, plan.x_channels // groups
    rows, channels = (inputs, outputs) if by_input else (outputs, inputs)
    panels, taps = -(-rows // ROWS), prod(axis.tap.size for axis in axes)
    packed = groups * panels * channels * taps * ROWS
    inner = prod(plan.w_shape[2:])
    outer = inputs * inner
    # By input, rows are input channels and the depth runs over output channels.
    steps = (inner, outer, outputs * outer) if by_input else (outer, inner, outputs * outer)
    lanes = VECTOR_BYTES // dtype.itemsize
    return _Launch(
        dtype=dtype,
        extents=(plan.batch, groups, channels, rows),
        plain=_plain(axes, channels, VECTORS * lanes),
        activated=_activated(axes),
        panels=panels,
        lanes=lanes,
        work=plan.macs,
        fill=fill_value(plan, dtype),
        packed=packed,
        pack=PACK_KERNEL.bound(dtype, groups * panels, packed),
        pack_axes=merged(axes),
        pack_shape=(groups, rows, channels, *steps, *plan.w_shape[3:]),
    )


def _even(extent: int, most: int) -> int:
    """The extent in as few equal blocks of at most ``most`` as there can be."""
    most = max(min(most, extent), 1)
    return -(-extent // -(-extent // most))


def _packed(w: Array, launch: _Launch) -> Array:
    packed = np.empty(launch.packed, launch.dtype)
    starts = np.array([0, launch.packed])
    launch.pack(flat(w, launch.dtype), packed, starts, launch.pack_shape, launch.pack_axes)
    return packed


def _pack(plan: ConvPlan, w: Array, by_input: bool, launch: _Launch) -> PackedWeight:
    return PackedWeight((_packed(w, launch),))


def _blocks(launch: _Launch, split: _Split) -> tuple[int, int]:
    """Rows and panels of a task, fewer where threads would have nothing to do: no position's sum depends on them.

    An activation runs along a row of a task, so columns follow from the plan alone.
    """
    batch, groups, _, _ = launch.extents
    depth, height, width = split.positions
    rows, panels = split.rows, _even(launch.panels, _PANELS)
    least_tasks = 1 if runs_serially(launch.work) else 2 * parallel_threads()
    others = batch * groups * depth * -(-width // split.columns)

    def tasks() -> int:
        return others * -(-height // rows) * -(-launch.panels // panels)

    while tasks() < least_tasks and panels > 1:
        panels = -(-panels // 2)
    while tasks() < least_tasks and rows > 1:
        rows = -(-rows // 2)
    return rows, panels


def _run(
    plan: ConvPlan, source: Array, w: Weight, out: Array, epilogue: Epilogue, by_input: bool, launch: _Launch
) -> None:
    if not out.size:
        return
    dtype = launch.dtype
    bias, residual, activation = flat_epilogue(epilogue, dtype)
    target = flat_target(out, dtype)
    packed = w.arrays[0] if isinstance(w, PackedWeight) else _packed(w, launch)
    batch, groups, _, _ = launch.extents
    split = launch.plain if epilogue.activation is None else launch.activated
    depth, height, width = split.positions
    rows, panels = _blocks(launch, split)
    blocks = (-(-height // rows), -(-width // split.columns))
    panel_blocks = -(-launch.panels // panels)
    shape = (*launch.extents, rows, split.columns, *blocks, panels, panel_blocks, launch.lanes)
    tasks = batch * groups * depth * prod(blocks) * panel_blocks
    operands = (flat(source, dtype), packed, bias, residual, target.ravel(), shape, split.axes)
    _kernel(dtype, tasks, launch.work, *operands, launch.fill, activation)
    check_raised(epilogue.activation, activation)
    deliver(target, out)


def _refusal(direction: Direction, plan: ConvPlan) -> str | None:
    refused = gather_refusal(direction, plan)
    if refused is not None:
        return refused
    if not prod(plan.w_shape):  # whatever the batch: a forced algorithm takes an empty one too
        return "there is nothing to sum"
    axes = axes_of(direction, plan)
    if any(axis.positions.size != 1 or axis.target_step != 1 for axis in axes):
        return "it computes one stride phase, so that positions are neighbours in the result"
    if any(axis.step > _MOST_STRIDE for axis in axes[1:]):
        return f"a patch holds the parts of strides up to {_MOST_STRIDE}"
    return None


def _worthwhile(direction: Direction, plan: ConvPlan) -> str | None:
    """By what a vector of results costs, in multiplications of vectors, here and with lanes of channels."""
    if plan.channels_last:
        return "channels last, its lanes are apart in memory"
    lanes = VECTOR_BYTES // np.dtype(plan.compute_dtype).itemsize
    rows = (plan.x_channels if direction is Direction.INPUT_GRAD else plan.y_channels) // plan.groups
    if rows < 2:
        return "a group has one result channel, so that no packed cell would be used twice"
    axes = axes_of(direction, plan)
    channels = (plan.y_channels if direction is Direction.INPUT_GRAD else plan.x_channels) // plan.groups
    products = channels * prod(axis.tap.size for axis in axes)
    read = [min(axis.step, int(np.ptp(axis.base)) + 1) for axis in axes[1:]]
    laid_out = channels * axes[0].tap.size * prod(read) * (_LAID_OUT if axes[2].step == 1 else _TAKEN_APART) / rows
    filled = _filled(direction, plan, rows, lanes)
    if filled > _MOST_EMPTY:
        return f"{1 / filled:.0%} of its products would count"
    here = products * filled * _SLOWER + laid_out
    here += _STORE_HERE if _one_line(axes)[1].positions[0] == 1 else _STORE_ROWS
    there = products * -(-rows // lanes) * lanes / rows * (_NARROW if rows <= lanes else 1)
    there += _STORE_PACKED if products > channels else _STORE_THERE
    results = rows * plan.groups * prod(int(axis.positions[0]) for axis in axes)
    if results * products < _LEAST_WORK and lanes_worthwhile(rows, plan.compute_dtype) is not None:
        return "so few products take less than to lay out a patch"
    vectors = results / lanes
    there += _SET_UP_THERE / max(vectors, 1)
    if here > there:
        return f"a result costs about {here:.0f} multiplications, {there:.0f} with channels as lanes"
    return None


def _filled(direction: Direction, plan: ConvPlan, rows: int, lanes: int) -> float:
    """Products that are computed for each that counts: tiles have whole vectors and half of ROWS."""
    axes = _one_line(axes_of(direction, plan))
    split = _plain(axes, 1, VECTORS * lanes)
    _, height, width = split.positions
    if split.rows == 1:
        vectors = height * -(-width // lanes)
    else:
        pitch = split.columns + int(np.ptp(axes[2].base)) // axes[2].step
        blocks, left = divmod(height, split.rows)

        def of(count: int) -> int:
            return -(-((count - 1) * pitch + width) // lanes)

        vectors = blocks * of(split.rows) + (of(left) if left else 0)
    half = ROWS // 2
    return vectors * lanes / max(height * width, 1) * -(-rows // half) * half / rows


#: The algorithm, for the two directions it computes.
PLANE_GEMM = both_directions(
    "plane_gemm",
    _refusal,
    _run,
    _pack,
    _launch,
    flat=True,
    worthwhile=_worthwhile,
    about=About(
        does="products over patches whose strides are taken apart, vectors of positions",
        cost="the definition's products, and those of cells between rows; nothing is transposed",
        chosen="few products a result, or result channels that fill few of their vectors",
    ),
)
