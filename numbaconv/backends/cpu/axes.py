"""One spatial axis as the direct kernels see it: integers and tables as long as the kernel, from ``plan.Axis``."""

from typing import NamedTuple

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import PADDING_MODES, Axis
from ..tables import dense_steps, keep, numbered_positions, sources, stepping

__all__ = ["AXIS", "AxisTable", "axis_table"]

#: Cells of a row in one task; a block's accumulators then fit the first-level cache.
_TILE = 512
#: Cells of a line, all its segments together, above which tiles are shorter, and the shortest tile.
_LINE, _LEAST_TILE = 2**18, 16
_CONSTANT = PADDING_MODES.index("constant")


class AxisTable(NamedTuple):
    """Extents, and tables of int64.

    ``border``: what padding holds, as in `plan.border_cell`, where an output reads padding that is not zeros, else 0.
    ``constant``: whether that is a constant.

    What FORWARD and WEIGHT_GRAD read: tap ``k`` of output ``o`` reads position ``stride * (o + reads[k]) +
    segments[segment[k]]``. Taps of a stride phase are one segment, unless they are so far apart that what lies
    between them is longer than a tile; ``reach`` is the largest of ``reads``, ``tile`` the outputs of a task.

    What INPUT_GRAD adds to: ``phases``, the stride phases that some tap reads; ``slot[k]`` is tap ``k``'s place among
    them and ``shift[k]`` its shift, so that the same position is ``stride * (o + shift[k]) + phases[slot[k]]``.
    ``first_step`` and ``steps``: of each phase, the positions that hold cells, in steps of the stride; ``grad_tile``
    of these are a task's.

    Where padding repeats cells (``mapped``), a cell stands at more positions than its own (``i + pad``): entry ``e``
    says that cell ``extra_cell[e]``, ascending, stands at ``extra_position[e]``. With ``own`` 0 all of its positions
    are entries: what lies between the positions that are read is left out. Positions are then, in all that
    INPUT_GRAD has, those of ``grad_stride`` and ``grad_dilation``.
    """

    input: int
    output: int
    kernel: int
    stride: int
    dilation: int
    pad: int
    used: int
    reach: int
    tile: int
    border: int
    constant: int
    mapped: int
    own: int
    grad_stride: int
    grad_dilation: int
    first_step: int
    steps: int
    grad_tile: int
    segments: Array
    segment: Array
    reads: Array
    phases: Array
    slot: Array
    shift: Array
    extra_cell: Array
    extra_position: Array


_TABLE = types.Array(types.int64, 1, "C")
#: The table's Numba type.
AXIS = types.NamedTuple([types.int64] * 18 + [_TABLE] * 8, AxisTable)


def _tile(parts: int) -> int:
    return min(_TILE, max(_LINE // parts, _LEAST_TILE))


def _segments(slot: Array, shift: Array, phases: Array, stride: int, tile: int) -> tuple[Array, Array, Array]:
    """``segments``, ``segment`` and ``reads``, whose gaps are ``tile`` at most. Shifts ascend within a phase."""
    order = np.argsort(slot, kind="stable")
    in_order = shift[order]
    apart = (np.diff(slot[order]) != 0) | (np.diff(in_order) > tile)
    begins = np.concatenate([[True], apart])
    number, firsts = np.cumsum(begins) - 1, np.flatnonzero(begins)
    segment, reads = np.empty_like(slot), np.empty_like(shift)
    segment[order], reads[order] = number, in_order - in_order[firsts][number]
    return stride * in_order[firsts] + phases[slot[order]][firsts], segment, reads


def _extras(axis: Axis, step: int, used: int) -> tuple[Array, Array]:
    """``extra_cell`` and ``extra_position``: of the padding, or with a step other than 1 of all that is read."""
    if step == 1:
        after = axis.pad_before + axis.input
        positions = np.concatenate([np.arange(min(axis.pad_before, used)), np.arange(after, max(used, after))])
        cells = sources(axis, positions)
    else:
        positions = np.arange(used)
        cells = sources(axis, numbered_positions(axis, step, used))
    order = np.argsort(cells, kind="stable")
    return cells[order].astype(np.int64), positions[order].astype(np.int64)


@keep
def axis_table(axis: Axis) -> AxisTable:
    """The tables of an axis."""
    axis = stepping(axis)
    none = np.empty(0, np.int64)
    shift, phase = np.divmod(np.arange(axis.kernel, dtype=np.int64) * axis.dilation, axis.stride)
    phases, slot = np.unique(phase, return_inverse=True)
    tile = _tile(1)
    segments, segment, reads = _segments(slot, shift, phases, axis.stride, min(tile, axis.output))
    tile = min(_tile(segments.size), axis.output)
    stride, dilation, used, own, extra_cell, extra_position = axis.stride, axis.dilation, axis.used, 1, none, none
    first_step, last_cell = axis.pad_before // stride, axis.pad_before + axis.input - 1
    if axis.maps_padding:
        stride, dilation, step, used = dense_steps(axis)
        own = int(step == 1)
        extra_cell, extra_position = _extras(axis, step, used)
        first_step, last_cell = 0, max(last_cell, used - 1) if own else used - 1
        shift, phase = np.divmod(np.arange(axis.kernel, dtype=np.int64) * dilation, stride)
        phases, slot = np.unique(phase, return_inverse=True)
    steps = last_cell // stride - first_step + 1
    return AxisTable(
        input=axis.input,
        output=axis.output,
        kernel=axis.kernel,
        stride=axis.stride,
        dilation=axis.dilation,
        pad=axis.pad_before,
        used=axis.used,
        reach=int(reads.max()),
        tile=tile,
        border=axis.border,
        constant=int(axis.border == _CONSTANT),
        mapped=int(axis.maps_padding),
        own=own,
        grad_stride=stride,
        grad_dilation=dilation,
        first_step=first_step,
        steps=steps,
        grad_tile=steps if axis.maps_padding else min(_tile(phases.size), steps),
        segments=segments,
        segment=segment.astype(np.int64),
        reads=reads,
        phases=phases,
        slot=slot.astype(np.int64),
        shift=shift,
        extra_cell=extra_cell,
        extra_position=extra_position,
    )
