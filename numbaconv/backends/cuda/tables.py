"""Axes as kernels see them: integers, and where INPUT_GRAD finds what padding repeats, in one array a plan.

Kernels take few arguments, since each costs time at every launch: everything that follows from the plan and from the
strides of the operands is one array of integers on the device, which stays there for later calls.
"""

from typing import NamedTuple

import numpy as np

from ...arrays import Array
from ...plan import Axis, border_cell
from ..tables import preimages, stepping
from .jit import scalar_function

__all__ = [
    "BORDER",
    "DILATION",
    "FIELDS",
    "INPUT",
    "KERNEL",
    "NOT_MAPPED",
    "OUTPUT",
    "PAD",
    "POSITIONS",
    "STARTS",
    "STRIDE",
    "axes_table",
    "integers",
    "source",
]

#: Where an axis's integers are, from its first on: extents and steps; what padding holds, as in `plan.border_cell`;
#: then where the tables of INPUT_GRAD begin in the whole array. ``STARTS`` and ``POSITIONS``: where an input cell
#: stands, as `preimages` has it, for the strides and dilations beside; ``NOT_MAPPED`` where that is its own padded
#: position alone.
INPUT, OUTPUT, KERNEL, STRIDE, DILATION, PAD, BORDER, STARTS, POSITIONS = range(9)
FIELDS = 9
NOT_MAPPED = -1


class _Integers(NamedTuple):
    values: Array
    narrow: bool


def axes_table(axes: tuple[Axis, ...], begin: int, by_input: bool) -> Array:
    """Three axes' integers, one axis after another, then their tables, as they stand from place ``begin`` on.

    There are tables with ``by_input`` alone, and no longer than the cells and the pairs of an output and a tap.
    """
    head: list[int] = []
    tail: list[Array] = []
    place = begin + FIELDS * len(axes)
    for axis in map(stepping, axes):
        stride, dilation, starts, positions = axis.stride, axis.dilation, NOT_MAPPED, NOT_MAPPED
        if by_input and axis.maps_padding:
            stride, dilation, first, held = preimages(axis)
            starts, positions = place, place + first.size
            place += first.size + held.size
            tail += [first, held]
        head += [axis.input, axis.output, axis.kernel, stride, dilation, axis.pad_before]
        head += [axis.border, starts, positions]
    return np.concatenate([np.array(head, np.int64), *tail])


def integers(values: Array, *largest: int) -> _Integers:
    """As 32 bits where these, and ``largest``, which are what kernels come to compute, leave room; else as 64."""
    narrow = max(*map(abs, largest), int(values.max()), -int(values.min())) < 2**31
    return _Integers(values.astype(np.int32 if narrow else np.int64), narrow)


_border_cell = scalar_function(border_cell)


@scalar_function
def source(table, axis, position):
    """The input cell at a padded position, or ``ZERO`` or ``CONSTANT``. ``axis``: where the axis's integers begin."""
    cell = position - table[np.uint32(axis + PAD)]
    extent = table[np.uint32(axis + INPUT)]
    if cell >= 0 and cell < extent:
        return cell
    return _border_cell(table[np.uint32(axis + BORDER)], cell, extent)
