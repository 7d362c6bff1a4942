"""How one axis of a depthwise convolution is cut for sweeps: taps into groups, a row's columns into strips.

A sweep goes down the rows of a plane. Taps ``k`` and ``k'`` of a column read the same source rows, a few result rows
apart, where the rows that they read from one position are a multiple of ``stride`` apart. With taps ``spacing`` cells
apart and ``lcm = lcm(stride, spacing)``::

    stride 1, dilation 1    one group of neighbours                     k0 k1 k2          every row after the other
    stride 2, dilation 1    every lcm / spacing = 2nd tap is a group    k0 k2 | k1        every row after the other
    stride 1, dilation 2    one group                                   k0 k1 k2          every lcm / stride = 2nd row

so any stride and dilation is sweeps of groups of neighbours. Groups are cut to what one sweep can keep.

Columns are swept in strips of one or two vectors. A strip whose taps all read cells of the source is *inside*; the
others, at both ends of a row, have masks::

    strip       0       1       2       3       4
              |..-----|-------|-------|-------|--..|     inside: strips 1 to 3
"""

from math import gcd, lcm
from typing import NamedTuple

import numpy as np

from ...arrays import Array
from ...plan import Axis
from ..tables import stepping
from .gather import PhasedAxis
from .simd_taps import LONG, TALL, TAPS

__all__ = ["Cut", "Phase", "Strip", "both_phases", "edge_masks", "phases_of", "row_taps", "strips_of"]


class Phase(NamedTuple):
    """One stride phase of an axis: its taps in groups, and the distances of a sweep's result and source rows.

    ``taps``: for each, group after group, the source cell that position 0 reads and its index in the weight;
    ``sizes`` of the groups. Arrays, since Python objects for each of a filter's 44,100 taps took 0.1 s to make.
    ``least``: the first source cell that position 0 reads; ``span``: how many one position's taps span.
    """

    positions: int
    target: int
    taps: Array
    sizes: Array
    apart: int
    lines: int
    least: int
    span: int


def _cut(taps: int, sizes: tuple[int, ...]) -> Array:
    """The groups of so many neighbouring taps, of the given sizes, the largest first."""
    whole, left = divmod(taps, max(sizes))
    groups = [max(sizes)] * whole
    while left:
        groups.append(max(size for size in sizes if size <= left))
        left -= groups[-1]
    return np.array(groups, np.int64)


def phases_of(axis: PhasedAxis, sizes: tuple[int, ...], share: bool) -> list[Phase]:
    """The phases of an axis, with groups of the given sizes; with ``share``, of taps that share source rows."""
    phases = []
    for phase in range(axis.positions.size):
        begin, end = axis.taps[phase], axis.taps[phase + 1]
        order = begin + np.argsort(axis.base[begin:end])
        taps = np.stack([axis.base[order], axis.tap[order]], axis=1)
        least, last = (int(taps[0, 0]), int(taps[-1, 0])) if len(taps) else (0, 0)
        lines, classes = axis.step, 1
        if share and len(taps) > 1:
            spacing = int(taps[1, 0] - taps[0, 0])
            lines = lcm(axis.step, spacing)
            classes = lines // spacing
        parts = [taps[c::classes] for c in range(min(classes, max(len(taps), 1)))]
        groups = np.concatenate([_cut(len(part), sizes) for part in parts])
        taps = np.concatenate(parts)
        positions, target = int(axis.positions[phase]), int(axis.target_first[phase])
        phases.append(Phase(positions, target, taps, groups, lines // axis.step, lines, least, last - least + 1))
    return phases


def _sharing(axis: Axis) -> int:
    """The most taps a whole number of strides apart: by input those of a phase, else those that share source rows.

    It follows from the kernel and its steps: the order of sums must not follow from which phases have positions.
    """
    axis = stepping(axis)
    return -(-axis.kernel // (axis.stride // gcd(axis.stride, axis.dilation)))


def row_taps(axis: Axis, by_input: bool) -> int:
    """Taps of a position along a row."""
    return _sharing(axis) if by_input else axis.kernel


def both_phases(
    axis: Axis, height: PhasedAxis, width: PhasedAxis, stride: int
) -> tuple[list[Phase], list[Phase], bool]:
    """The phases of height and width, in groups that one sweep can take together, and whether some are tall.

    ``axis``: the height's.
    """
    few = tuple(range(1, TAPS + 1))
    of_height = few if stride == 2 else (*few, *TALL)
    heights = phases_of(height, of_height, True)
    tallest = max(size for size in of_height if size <= _sharing(axis))
    sizes = few
    if tallest > TAPS:
        sizes = (1, 2)
    elif tallest == 1 and stride == 1:
        sizes = (*few, *LONG)
    return heights, phases_of(width, sizes, False), tallest > TAPS


class Cut(NamedTuple):
    """Lanes of a vector and vectors of a strip; columns of a block; source cells between columns; whether packed.

    ``overlap``: the last vector goes back over the one before it, whose cells it computes again. ``dots``: nothing
    is read beside a cell that is not there.
    """

    lanes: int
    across: int
    block: int
    stride: int
    packing: bool
    overlap: bool
    dots: bool

    @property
    def wide(self) -> int:
        """Columns of a strip."""
        return self.across * self.lanes

    @property
    def full(self) -> int:
        """Strips of a block, where it is whole strips; else 0."""
        return 0 if self.block % self.wide else self.block // self.wide


class Strip(NamedTuple):
    """The columns of a strip's first and last vector; vectors; row of masks; strips side by side that are inside."""

    column: int
    second: int
    vectors: int
    masks: int
    run: int


def strips_of(cut: Cut, phase: Phase, cells: int, block: int, masked: int) -> tuple[list[Strip], list[Strip]]:
    """The strips of a block of columns, those inside as one; and the ones at the ends, whose masks are made next.

    ``cells``: of the source. ``masked``: rows of masks that there are.
    """
    first, last = block * cut.block, min((block + 1) * cut.block, phase.positions)
    begin, end = first // cut.wide, last // cut.wide
    if not cut.packing:
        beyond = cells - (phase.least + phase.span - 1) - (cut.stride - 1)
        begin = max(begin, -(min(phase.least, 0) // (cut.wide * cut.stride)))
        end = min(end, beyond // (cut.wide * cut.stride))
    strips: list[Strip] = []
    ends: list[Strip] = []
    number, count = first // cut.wide, -(-last // cut.wide)
    while number < count:
        column = number * cut.wide
        if begin <= number < end:
            strips.append(Strip(column, column + cut.lanes, cut.across, 0, end - number))
            number = end
            continue
        vectors = cut.across if last - column > cut.lanes else 1
        columns = [column + v * cut.lanes for v in range(vectors)]
        if cut.overlap and columns[-1] + cut.lanes > last:
            columns[-1] = max(last - cut.lanes, first)
        ends.append(Strip(columns[0], columns[-1], vectors, masked + len(ends), 1))
        strips.append(ends[-1])
        number += 1
    return strips, ends


def _lanes_within(columns: Array, lanes: int, first: int, last: int) -> Array:
    """For vectors at the columns, the lanes within ``[first, last)`` as bits."""
    low = np.clip(first - columns, 0, lanes)
    high = np.clip(last - columns, low, lanes)
    bits: Array = (np.left_shift(1, high) - np.left_shift(1, low)).astype(np.uint16)
    return bits


def edge_masks(cut: Cut, ends: list[Strip], phase: Phase, cells: int, most: int) -> Array:
    """What strips at the ends read and store: two masks for each of ``most`` taps, then two for the result."""
    columns = np.array([strip[:2] for strip in ends], np.int64).reshape(-1, 2)
    masks = np.zeros((len(ends), most + 1, 2), np.uint16)
    stored = masks[:, len(phase.taps)] = _lanes_within(columns, cut.lanes, 0, phase.positions)
    if cut.packing:  # rows have cells beside the source's
        reads = masks[:, : len(phase.taps)]
        reads[...] = (1 << cut.lanes) - 1
        if cut.dots:
            reads &= stored[:, None]
        return masks
    local = 0
    for size in phase.sizes.tolist():
        for t, base in enumerate(phase.taps[local : local + size : cut.stride, 0].tolist()):
            if cut.stride == 1:
                read = _lanes_within(columns, cut.lanes, -base, cells - base)
            else:  # two vectors hold the cells of this tap and of the next
                both = 2 * columns[:, :1] + [[0, cut.lanes]]
                last = min(cells - base, 2 * phase.positions) if cut.dots else cells - base
                read = _lanes_within(both, cut.lanes, -base, last)
            masks[:, local + t] = read & stored if cut.dots and cut.stride == 1 else read
        local += size
    return masks
