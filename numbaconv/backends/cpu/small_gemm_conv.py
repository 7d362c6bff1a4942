"""The small GEMM algorithm of FORWARD and INPUT_GRAD: one table made of a plan, and one call of one kernel."""

from collections.abc import Callable
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import CONSTANT, ZERO, ConvPlan
from ..base import NO_EPILOGUE, About, Direction, Epilogue
from ..tables import codes_of
from . import small_gemm
from .activation import ACTIVATION, check_raised
from .gather import TABLE, PhasedAxis
from .gathered import Axes, both_directions, gather_refusal, phase_count
from .launch import Kernel, reads
from .operands import deliver, fill_value, flat, flat_epilogue, flat_target
from .patch_gemm_conv import lanes_worthwhile
from .simd import ROWS, VECTOR_BYTES

__all__ = ["SMALL_GEMM"]

#: Cells of a patch, of all its channels, and elements of a group's weight.
_MOST_CELLS, _MOST_WEIGHTS = 2**15, 2**13
#: Multiply-accumulates of a sample up to which it gains; the second where the patch GEMM would leave lanes empty.
_MOST_WORK, _MOST_WORK_OF_FEW = 2**18, 2**20
#: Stride phases, each of which takes some 50 us to plan; 1600 of them delayed the first call by 84 ms.
_MOST_PHASES = 64


def _signature(kind: Any) -> tuple:
    flat, out = reads(kind, 1), types.Array(kind, 1, "C")
    return (flat, flat, flat, flat, out, TABLE, kind, ACTIVATION)


_kernel = Kernel(small_gemm.small_gemm_tasks, _signature)


class _Line(NamedTuple):
    """One stride phase of one axis: what its patch holds along it, and where its taps read.

    ``cells[f, q]``: the source cell at place ``q`` of patch phase ``f``, or ``ZERO`` or ``CONSTANT``. ``taps``: of each
    its index in the weight, its patch phase, and its distance there.
    """

    positions: int
    target: int
    cells: Array
    taps: list[tuple[int, int, int]]


def _lines(axis: PhasedAxis) -> list[_Line]:
    found = []
    for phase in range(axis.positions.size):
        begin, end = axis.taps[phase], axis.taps[phase + 1]
        bases, indices = axis.base[begin:end].tolist(), axis.tap[begin:end].tolist()
        least, positions = min(bases, default=0), int(axis.positions[phase])
        taps = [(tap, *divmod(base - least, axis.step)[::-1]) for base, tap in zip(bases, indices, strict=True)]
        slots = sorted({slot for _, slot, _ in taps})  # of a patch's phases, those that a tap reads
        places = positions + max((shift for _, _, shift in taps), default=0)
        cells = least + np.arange(places, dtype=np.int64) * axis.step + np.array(slots, np.int64)[:, None]
        unread = cells >= max(axis.limit, axis.cells)
        cells = np.where(unread, ZERO, codes_of(axis.bordered, cells, axis.cells))
        taps = [(tap, slots.index(slot), shift) for tap, slot, shift in taps]
        found.append(_Line(positions, int(axis.target_first[phase]), cells, taps))
    return found


def _runs(depth: Array, height: Array, width: Array, axes: Axes) -> tuple[Array, int]:
    """Runs of cells in a patch of one channel (place, first cell in the source's plane, count), and its size."""
    d, h = depth[:, None, None, :, None, None], height[:, None, None, :, None]
    w = width[:, None, None, :]
    inside = (d * axes[1].cells + h) * axes[2].cells + w
    # Axes are padded one after the other: where several are outside, the last of them decides.
    codes = np.where(w < 0, w, np.where(h < 0, h, np.where(d < 0, d, inside))).ravel()
    before, after = codes[:-1], codes[1:]
    goes_on = (before >= 0) & (after == before + axes[2].step) | (before == CONSTANT) & (after == CONSTANT)
    starts = np.flatnonzero(np.append(True, ~goes_on)) if codes.size else np.empty(0, np.int64)
    runs = np.stack([starts, codes[starts], np.diff(starts, append=codes.size)], axis=1)
    return runs[runs[:, 1] != ZERO], codes.size


class _Phase(NamedTuple):
    """A phase's record but for where its tables are, those tables, and how much scratch memory it takes."""

    record: tuple[int, ...]
    runs: Array
    factors: Array
    cells: Array
    patch: int
    vectors: int
    positions: int


def _phase(
    lines: tuple[_Line, _Line, _Line], plan: ConvPlan, axes: Axes, extents: tuple[int, ...], lanes: int
) -> _Phase:
    """``extents``: source channels, elements of the weight from one to the next, the result's height and width."""
    channels, channel_step, out_height, out_width = extents
    depth, height, width = lines
    runs, pitch = _runs(depth.cells, height.cells, width.cells, axes)
    (_, kernel_height, kernel_width), (_, rows), (_, places) = plan.w_shape[2:], height.cells.shape, width.cells.shape
    volume, row_pitch, plane_pitch = depth.cells.shape[1] * rows * places, places, rows * places
    factors, cells = [], []
    for (d, d_slot, d_shift), (h, h_slot, h_shift), (w, w_slot, w_shift) in product(*(line.taps for line in lines)):
        factors.append((d * kernel_height + h) * kernel_width + w)
        slot = (d_slot * len(height.cells) + h_slot) * len(width.cells) + w_slot
        cells.append(slot * volume + d_shift * plane_pitch + h_shift * row_pitch + w_shift)
    channel = np.arange(channels)[:, None]
    deep, high, wide = (line.positions for line in lines)
    deep_step, high_step, wide_step = (axis.target_step for axis in axes)
    deep_step, high_step = deep_step * out_height * out_width, high_step * out_width
    target = (depth.target * out_height + height.target) * out_width + width.target
    count = deep * high * wide
    length = (deep - 1) * plane_pitch + (high - 1) * row_pitch + wide if count else 0
    if row_pitch == wide and high_step == wide * wide_step:  # rows that are one stretch of memory
        wide, high = wide * high, 1
        if plane_pitch == wide and deep_step == wide * wide_step:
            wide, deep = wide * deep, 1
    return _Phase(
        record=(deep, high, wide, plane_pitch, row_pitch, target, deep_step, high_step, wide_step),
        runs=runs.ravel(),
        factors=(channel * channel_step + np.array(factors, np.int64)).ravel(),
        cells=(channel * pitch + np.array(cells, np.int64)).ravel(),
        patch=pitch,
        vectors=-(-length // lanes),
        positions=count,
    )


class _Launch(NamedTuple):
    """What follows from a plan alone. ``nothing``: an epilogue of nothing."""

    dtype: np.dtype
    kernel: Callable[..., None]
    table: Array
    fill: Any
    nothing: tuple[Array, Array, Array]


def _launch(plan: ConvPlan, by_input: bool, axes: Axes) -> _Launch:
    dtype, groups = np.dtype(plan.compute_dtype), plan.groups
    lanes = VECTOR_BYTES // dtype.itemsize
    outputs, inputs, taps = plan.y_channels // groups, plan.x_channels // groups, prod(plan.w_shape[2:])
    # By input, rows are input channels and the depth runs over output channels.
    rows, channels = (inputs, outputs) if by_input else (outputs, inputs)
    row_step, channel_step = (taps, inputs * taps) if by_input else (inputs * taps, taps)
    source, result = (plan.y_shape, plan.x_shape) if by_input else (plan.x_shape, plan.y_shape)
    extents = (channels, channel_step, *result[3:])
    phases = [
        _phase((depth, height, width), plan, axes, extents, lanes)
        for depth, height, width in product(*map(_lines, axes))
    ]
    rows_at = small_gemm.HEAD + len(phases) * small_gemm.RECORD
    tables = [np.minimum(np.arange(-(-rows // ROWS) * ROWS), rows - 1) * row_step]
    records, end = [], rows_at + tables[0].size
    for each in phases:
        factors_at = end + each.runs.size
        cells_at = factors_at + each.factors.size
        sizes = (each.runs.size // 3, each.patch, each.vectors, each.factors.size)
        records += [end, *sizes, factors_at, cells_at, *each.record]
        tables += [each.runs, each.factors, each.cells]
        end = cells_at + each.cells.size
    head = [groups, channels, rows, prod(source[2:]), prod(result[2:]), outputs * inputs * taps, len(phases)]
    head += [axes[2].step, lanes, rows_at]
    head.append(channels * max((each.patch for each in phases), default=0) + lanes)
    head.append(ROWS * lanes * max((each.vectors for each in phases), default=0))
    head.append(max((each.positions for each in phases), default=0))
    return _Launch(
        dtype,
        _kernel.bound(dtype, plan.batch * groups, plan.macs),
        np.concatenate([np.array(head + records, np.int64), *tables]),
        fill_value(plan, dtype),
        flat_epilogue(NO_EPILOGUE, dtype),
    )


def _run(
    plan: ConvPlan, source: Array, w: Array, out: Array, epilogue: Epilogue, by_input: bool, launch: _Launch
) -> None:
    """Fill ``out`` from a source of samples and channels."""
    dtype, kernel, table, fill, nothing = launch
    bias, residual, activation = nothing
    if epilogue is NO_EPILOGUE and source.dtype is w.dtype is out.dtype is dtype and out.flags.c_contiguous:
        # What follows does the same, but takes a tenth of a tiny call to find that nothing is to be converted.
        kernel(source.ravel(), w.ravel(), bias, residual, out.ravel(), table, fill, activation)
        return
    if epilogue is not NO_EPILOGUE:
        bias, residual, activation = flat_epilogue(epilogue, dtype)
    target = flat_target(out, dtype)
    kernel(flat(source, dtype), flat(w, dtype), bias, residual, target.ravel(), table, fill, activation)
    check_raised(epilogue.activation, activation)
    deliver(target, out)


def _refusal(direction: Direction, plan: ConvPlan) -> str | None:
    refused = gather_refusal(direction, plan)
    if refused is not None:
        return refused
    phases = phase_count(direction, plan)
    if phases > _MOST_PHASES:
        return f"each of {phases} stride phases has a record of its own, which takes longer to make than to use"
    source = plan.y_channels if direction is Direction.INPUT_GRAD else plan.x_channels
    cells = source // plan.groups * prod(max(axis.used, axis.input) for axis in plan.axes3)
    weights = prod(plan.w_shape) // plan.groups
    if cells > _MOST_CELLS or weights > _MOST_WEIGHTS:
        return (
            f"a group has {cells} cells to copy and {weights} factors to read as they lie, "
            f"more than the caches keep at hand ({_MOST_CELLS} and {_MOST_WEIGHTS})"
        )
    return None


def _worthwhile(direction: Direction, plan: ConvPlan) -> str | None:
    rows = (plan.x_channels if direction is Direction.INPUT_GRAD else plan.y_channels) // plan.groups
    most = _MOST_WORK if lanes_worthwhile(rows, plan.compute_dtype) is None else _MOST_WORK_OF_FEW
    work = plan.macs // max(plan.batch, 1)
    return None if work <= most else f"a sample takes {work} products, more than {most}: packing pays"


#: The algorithm, for the two directions it computes.
SMALL_GEMM = both_directions(
    "small_gemm",
    _refusal,
    _run,
    launch=_launch,
    flat=True,
    worthwhile=_worthwhile,
    about=About(
        does="products over shifted patches, vectors of positions, weights read as they are given",
        cost="the definition's products, and those of cells between rows; one kernel call, nothing packed but a patch",
        chosen=f"up to {_MOST_WORK:,} products a sample; up to {_MOST_WORK_OF_FEW:,} with few result channels",
    ),
)
