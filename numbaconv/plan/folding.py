"""Spatial axes folded together: the three axes that algorithms see, made of the one to three that a call has.

An axis is *plain* where each output cell reads its own cell alone: one tap, stride 1, no padding. Neighbouring plain
axes are one axis, and one of a single cell is none. Plain cells behind an axis with taps belong to it::

    (256, 256, 256), kernel (25, 1, 1)     256 rows of 65536 cells                    (256, 65536), kernel (25, 1)
    (256, 256, 1),   kernel (25, 1, 1)     256 rows of 256 cells                      (256, 256),   kernel (25, 1)
    (512, 512, 3),   kernel (9, 9, 1)      rows of 1536 cells, taps 3 cells apart     (512, 1536),  kernel (9, 9)

Lanes lie along the last axis, which should be long. The last fold makes it so and costs reading what lies between
taps, so it is for few cells. It needs stride 1. Behind an axis with a stride, the shortest become the first, where each
group has one channel::

    (256, 256, 3),   kernel (9, 9, 1), stride (2, 2, 1)      (3, 256, 256), kernel (1, 9, 9), stride (1, 2, 2)
    (256, 256, 3),   kernel (3, 3, 3), stride (2, 2, 2)      (3, 256, 256), kernel (3, 3, 3), stride (2, 2, 2)

That is a view, of cells apart in memory, which kernels copy. With more cells, other groups or stride 1 some directions
gain by it and others lose, and a plan is for all three.

Folding may change the order in which a result's products are summed. It does not look at how many cells the first axis
has where that would move taps to another axis, so that a stream has the bits of the whole (hence at rank 2 no axis
becomes the first: whether the other one is longer is not to be asked); and whoever cuts a problem along other axes
folds the parts as the whole (`folded_as`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod
from typing import TypeAlias

from .axis import Axis

__all__ = ["Folds", "axes_folded", "folded_as", "folds_of", "scoped_folds", "unfolded"]

#: For depth, height and width: the spatial axes that are folded into it, which are neighbours. Each group's are beside
#: the next's, but for a last axis that is the first.
Folds: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

#: Cells of a last axis up to which they belong to the taps of the one before; and where each group has one channel, so
#: that lanes lie along that axis whatever computes: fewer than a vector has.
_SHORT, _SHORT_ALONE = 8, 15
#: Cells of a last axis up to which it becomes the first, and how many times as many the one before it has then.
_FEW, _LONGER = 3, 4


#: How calls within a block of `folded_as` fold their axes.
scoped_folds: ContextVar[Folds | None] = ContextVar("numbaconv folds", default=None)


@contextmanager
def folded_as(folds: Folds) -> Iterator[None]:
    """Calls within fold their axes as a larger problem of which they compute a part."""
    token = scoped_folds.set(folds)
    try:
        yield
    finally:
        scoped_folds.reset(token)


def unfolded(rank: int) -> Folds:
    """Each axis by itself."""
    depth, height, width = ((),) * (3 - rank) + tuple((at,) for at in range(rank))
    return depth, height, width


def _is_plain(axis: Axis) -> bool:
    steps = axis.stride if axis.input > 1 else 1
    return axis.kernel == steps == 1 and axis.pad_before == axis.pad_after == 0 and axis.input == axis.output


def _joins(first: list[Axis], second: list[Axis], short: int) -> bool:
    """Whether two groups of neighbouring axes become one; ``short``: how many cells may join taps."""
    if not all(map(_is_plain, second)):
        return all(_is_plain(axis) and axis.input == 1 for axis in first)
    cells = prod(axis.input for axis in second)
    taps = next((axis for axis in first if not _is_plain(axis)), None)
    return taps is None or cells == 1 or (cells <= short and taps.stride == 1)


def _should_be_first(before: Axis, last: Axis) -> bool:
    """Whether a last axis is so much shorter than the one before it, of a stride, that lanes should lie along that."""
    cells = max(last.input, last.output)
    return before.stride > 1 and cells <= _FEW and min(before.input, before.output) >= _LONGER * cells


def folds_of(axes: tuple[Axis, ...], alone_in_groups: bool) -> Folds:
    """How the axes of a problem are folded; ``alone_in_groups``: groups have one channel on both sides."""
    alone = unfolded(len(axes))
    short = _SHORT_ALONE if alone_in_groups else _SHORT
    if all(map(_is_plain, axes)) and not (alone_in_groups and axes[-1].input <= short):
        return alone  # positions are one stretch for whoever cares
    groups = [[at] for at in range(len(axes))]
    at = len(groups) - 2
    while at >= 0:
        first, second = ([axes[each] for each in group] for group in groups[at : at + 2])
        if _joins(first, second, short if at + 2 == len(groups) else 1):
            groups[at : at + 2] = [groups[at] + groups[at + 1]]
            at = min(at, len(groups) - 2)
        else:
            at -= 1
    if alone_in_groups and groups[-1] == [2] and _should_be_first(*axes[1:]):
        groups = [[2], *[[]] * (3 - len(groups)), *groups[:-1]]
    depth, height, width = ((),) * (3 - len(groups)) + tuple(map(tuple, groups))
    found = (depth, height, width)
    return alone if _extents(axes, found) == _extents(axes, alone) else found


def _extents(axes: tuple[Axis, ...], folds: Folds) -> list[tuple[int, int, int]]:
    """Of the axes that algorithms see: cells of input and output, taps."""
    return [(axis.input, axis.output, axis.kernel) for axis in axes_folded(axes, folds)]


def axes_folded(axes: tuple[Axis, ...], folds: Folds) -> tuple[Axis, Axis, Axis]:
    """Depth, height and width, made of the axes of a problem."""
    depth, height, width = (_folded([axes[at] for at in group]) for group in folds)
    return depth, height, width


def _folded(axes: list[Axis]) -> Axis:
    """Axes as one, of which one at most is not plain."""
    if len(axes) == 1:
        return axes[0]
    at = next((at for at, axis in enumerate(axes) if not _is_plain(axis)), None)
    if at is None:
        cells = prod(axis.input for axis in axes)
        return Axis(cells, cells, mode=axes[-1].mode if axes else "zeros")  # of padding that there is none of
    taps, cells = axes[at], prod(axis.input for axis in axes[at + 1 :])
    return Axis(
        input=taps.input * cells,
        output=taps.output * cells,
        kernel=taps.kernel,
        stride=taps.stride,
        dilation=taps.dilation * cells if taps.kernel > 1 else 1,
        pad_before=taps.pad_before * cells,
        pad_after=taps.pad_after * cells,
        mode=taps.mode,
        unit=cells if taps.maps_padding else 1,
    )
