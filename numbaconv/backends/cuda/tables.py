"""Axes as kernels see them: integers, and index tables for what padding repeats, in one array a plan.

Kernels take few arguments, since each costs time at every launch: everything that follows from the plan and from the
strides of the operands is one array of integers on the device, which stays there for later calls.
"""

from typing import NamedTuple

import numpy as np

from ...arrays import Array
from ...plan import CONSTANT, ZERO, Axis
from ..tables import preimages, sources, unit_stepping
from .jit import scalar_function

__all__ = [
    "DILATION",
    "FIELDS",
    "INPUT",
    "KERNEL",
    "NOT_MAPPED",
    "OUTPUT",
    "OUTSIDE",
    "PAD",
    "POSITIONS",
    "STARTS",
    "STRIDE",
    "axes_table",
    "integers",
    "source",
]

#: Where an axis's integers are, from its first on: extents and steps; then where the tables begin in the whole array.
#: ``OUTSIDE``: the input cells at padded positions before the input, then at those after it; or, where padding repeats
#: nothing, ``ZERO`` or ``CONSTANT`` itself. ``STARTS`` and ``POSITIONS``: the padded positions that hold an input
#: cell, as `preimages` has them; ``NOT_MAPPED`` where the only one is the cell's own.
INPUT, OUTPUT, KERNEL, STRIDE, DILATION, PAD, OUTSIDE, STARTS, POSITIONS = range(9)
FIELDS = 9
NOT_MAPPED = -1


class _Integers(NamedTuple):
    values: Array
    narrow: bool


def axes_table(axes: tuple[Axis, ...], begin: int) -> list[int]:
    """Three axes' integers, one axis after another, then their tables, as they stand from place ``begin`` on."""
    head: list[int] = []
    tail: list[int] = []
    place = begin + FIELDS * len(axes)
    for axis in map(unit_stepping, axes):
        outside = starts = positions = NOT_MAPPED
        if axis.maps_padding:
            outside = place + len(tail)
            after = axis.pad_before + axis.input
            for read in (np.arange(min(axis.pad_before, axis.used)), np.arange(after, max(axis.used, after))):
                tail += sources(axis, read).tolist()
            first, held = preimages(axis)
            starts = place + len(tail)
            tail += first.tolist()
            positions = place + len(tail)
            tail += held.tolist()
        else:
            outside = CONSTANT if axis.mode == "constant" else ZERO
        fields = (axis.input, axis.output, axis.kernel, axis.stride, axis.dilation, axis.pad_before)
        head += [*fields, outside, starts, positions]
    return head + tail


def integers(values: list[int], *largest: int) -> _Integers:
    """As 32 bits where these, and ``largest``, which are what kernels come to compute, leave room; else as 64."""
    narrow = max(map(abs, (*values, *largest))) < 2**31
    return _Integers(np.array(values, np.int32 if narrow else np.int64), narrow)


@scalar_function
def source(table, axis, position):
    """The input cell at a padded position, or ``ZERO`` or ``CONSTANT``. ``axis``: where the axis's integers begin."""
    cell = position - table[np.uint32(axis + PAD)]
    extent = table[np.uint32(axis + INPUT)]
    if cell >= 0 and cell < extent:
        return cell
    outside = table[np.uint32(axis + OUTSIDE)]
    if outside < 0:
        return outside
    return table[np.uint32(outside + (position if cell < 0 else position - extent))]
