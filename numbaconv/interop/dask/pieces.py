"""One spatial axis in blocks: what each block reads, and the small problem that gives its part of the result.

A block's problem is a convolution of the same kernel, stride and dilation, whose axis is a window of the whole one. All
of it follows from the relation and the table of `numbaconv.plan.Axis`; there is no other rule of extents here.

FORWARD and WEIGHT_GRAD, outputs ``first .. last - 1``: the padded positions that they read become cells, in the order
of the positions, except that zeros and constants at the ends stay padding of the small problem::

    padded   P P 0 1 2 3 4 5 6 7 8 9 P P      two blocks, stride 1, 5 taps
    block 0  P P 0 1 2 3 4 5 6                reads cells 0 to 6, two paddings before
    block 1            3 4 5 6 7 8 9 P P

INPUT_GRAD, cells ``first .. last - 1``: the outputs that read them are the cells' halo, and what they add to other
cells is cut off as padding. Where padding repeats cells, cells near the border get sums over several positions. So that
these are taken in the order in which the whole problem takes them, such a block's problem is the whole one without a
stretch of outputs that do not matter to it, and without as many cells; the block is cropped from its result::

    whole    o o o o o o o o o o o o
    block    o o o . . . . . . o o o          circular: the first cells are read around the end, too
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from ...plan import Axis

__all__ = [
    "Block",
    "Run",
    "Window",
    "forward_blocks",
    "forward_cuts",
    "input_blocks",
    "input_cuts",
    "readable_cuts",
    "shortened",
    "windows_of",
]


class Run(NamedTuple):
    """Cells that follow one another: from the first on, up (``step`` 1) or down (-1), or the first again (0)."""

    first: int
    extent: int
    step: int = 1

    @property
    def span(self) -> tuple[int, int]:
        """The cells that it has, as ``first .. last - 1``."""
        low = self.first - (self.extent - 1 if self.step < 0 else 0)
        return low, low + (self.extent if self.step else min(self.extent, 1))


@dataclass(frozen=True, slots=True)
class Window:
    """Cells of an axis that one block reads: runs, one after the other."""

    runs: tuple[Run, ...]

    @classmethod
    def of(cls, *spans: tuple[int, int]) -> "Window":
        """The cells of these stretches ``first .. last - 1``; empty ones only if there is one alone."""
        runs = tuple(Run(first, last - first) for first, last in spans if first < last or len(spans) == 1)
        return cls(runs)

    @property
    def extent(self) -> int:
        """How many cells the block has."""
        return sum(run.extent for run in self.runs)


@dataclass(frozen=True, slots=True)
class Block:
    """One block's part of an axis.

    Attributes
    ----------
    window : Window
        What it reads: cells of ``x`` in FORWARD and WEIGHT_GRAD, of ``y`` in INPUT_GRAD.
    axis : Axis
        Of the block's own problem.
    crop : (first, last)
        Where its result is in that of its problem.
    result : (first, last)
        Where its result is in the whole one.
    """

    window: Window
    axis: Axis
    crop: tuple[int, int]
    result: tuple[int, int]


def windows_of(cuts: Sequence[int]) -> list[Window]:
    """The stretches between cuts."""
    return [Window.of(pair) for pair in pairwise(cuts)]


def _apart(cuts: Iterable[int], extent: int, least: int) -> list[int]:
    """Cuts that leave no block shorter than ``least``, unless there is only one."""
    found = [0]
    for cut in sorted(set(cuts)):
        if found[-1] + least <= cut <= extent - least:
            found.append(cut)
    return [*found, extent]


def _ceil(value: int, step: int) -> int:
    return -(-value // step)


def forward_cuts(axis: Axis, chunks: Sequence[int]) -> list[int]:
    """Where to cut the outputs of an axis whose input has these chunks.

    An output belongs to the chunk where the middle of its window is; a block that would read padding alone is joined
    to the next.
    """
    middle, cell, found = axis.pad_before - (axis.extent - 1) // 2, 0, []
    for chunk in chunks[:-1]:
        cell += chunk
        found.append(_ceil(cell + middle, axis.stride))
    return readable_cuts(axis, found)


def readable_cuts(axis: Axis, cuts: Iterable[int]) -> list[int]:
    """Those of the cuts of outputs between which each block reads cells, not padding alone.

    With a stride, a block has two outputs at least: one has no stride, and taps may be grouped in another order.
    """
    first, *inner, last = _apart(cuts, axis.output, min(axis.stride, 2))
    return [first, *(cut for cut in inner if _reads_cells(axis, 0, cut) and _reads_cells(axis, cut, last)), last]


def input_cuts(axis: Axis, chunks: Sequence[int]) -> list[int]:
    """Where to cut the cells of an axis whose outputs have these chunks: the inverse of `forward_cuts`."""
    middle, output, found = axis.pad_before - (axis.extent - 1) // 2, 0, []
    for chunk in chunks[:-1]:
        output += chunk
        found.append(output * axis.stride - middle)
    return whole_phases(axis, found)


def whole_phases(axis: Axis, cuts: Iterable[int]) -> list[int]:
    """Those of the cuts of cells between which each block has all stride phases.

    How an algorithm groups taps depends on the phases that there are, and with it the order of sums.
    """
    return _apart(cuts, axis.input, axis.stride)


def _positions(axis: Axis, first: int, last: int) -> tuple[int, int]:
    """The padded positions that outputs span."""
    return first * axis.stride, (last - 1) * axis.stride + axis.extent


def _reads_cells(axis: Axis, first: int, last: int) -> bool:
    begin, end = _positions(axis, first, last)
    return axis.maps_padding or (end > axis.pad_before and begin < axis.pad_before + axis.input)


def forward_blocks(axis: Axis, cuts: Sequence[int]) -> list[Block]:
    """The blocks of an axis whose outputs are cut there."""
    if len(cuts) == 2:
        return [Block(Window.of((0, axis.input)), axis, (0, axis.output), (0, axis.output))]
    return [_forward_block(axis, first, last) for first, last in pairwise(cuts)]


def _forward_block(axis: Axis, first: int, last: int) -> Block:
    begin, end = (position - axis.pad_before for position in _positions(axis, first, last))
    before, after = max(-begin, 0), max(end - axis.input, 0)
    window = Window.of((begin + before, end - after))
    if axis.maps_padding:
        if before or after:
            window = _repeating(axis, begin, end)
        before = after = 0
    outputs = last - first
    own = replace(axis, input=window.extent, output=outputs, pad_before=before, pad_after=after)
    return Block(window, own, (0, outputs), (first, last))


def _repeating(axis: Axis, begin: int, end: int) -> Window:
    """The cells at ``begin .. end - 1`` of an axis whose padding repeats cells; those outside are padding."""
    before = [Run(axis.source(cell + axis.pad_before), 1) for cell in range(begin, min(end, 0))]
    after = [Run(axis.source(cell + axis.pad_before), 1) for cell in range(max(begin, axis.input), end)]
    inside = Run(max(begin, 0), min(end, axis.input) - max(begin, 0))
    runs: list[Run] = []
    for run in (*before, *((inside,) if inside.extent > 0 else ()), *after):
        joined = _joined(runs[-1], run) if runs else None
        runs[-1:] = [joined] if joined else [*runs[-1:], run]
    return Window(tuple(runs))


def _joined(run: Run, more: Run) -> Run | None:
    """Two runs as one, if they are one."""
    if more.extent > 1:
        return (
            Run(run.first, run.extent + more.extent) if run.step == 1 and run.first + run.extent == more.first else None
        )
    step = more.first - run.first if run.extent == 1 else run.step
    if step not in (-1, 0, 1) or more.first != run.first + step * run.extent:
        return None
    return Run(run.first, run.extent + 1, step)


def input_blocks(axis: Axis, cuts: Sequence[int]) -> list[Block]:
    """The blocks of an axis whose cells are cut there."""
    if len(cuts) == 2:
        return [Block(Window.of((0, axis.output)), axis, (0, axis.input), (0, axis.input))]
    repeated = _repeated(axis)
    found = []
    for first, last in pairwise(cuts):
        positions = [position for position, cell in repeated if first <= cell < last]
        found.append(_without_middle(axis, first, last, positions) if positions else _input_block(axis, first, last))
    return found


def shortened(axis: Axis, outputs: int) -> Axis:
    """The axis with this many outputs at most: a stretch of its middle is missing."""
    less = axis.output - outputs
    if less <= 0 or axis.input <= less * axis.stride:
        return axis
    return replace(axis, input=axis.input - less * axis.stride, output=outputs)


def _repeated(axis: Axis) -> list[tuple[int, int]]:
    """The positions of padding that repeats cells, each with its cell, as far as outputs read them."""
    if not axis.maps_padding:
        return []
    padding = (*range(axis.pad_before), *range(axis.pad_before + axis.input, axis.padded))
    return [(position, axis.source(position)) for position in padding if position < axis.used]


def _readers(axis: Axis, begin: int, end: int) -> tuple[int, int]:
    """The outputs whose windows reach positions ``begin .. end - 1``."""
    return max(_ceil(begin - axis.extent + 1, axis.stride), 0), min((end - 1) // axis.stride + 1, axis.output)


def _input_block(axis: Axis, first: int, last: int) -> Block:
    """A block that no repeated padding touches."""
    begin, end = first + axis.pad_before, last + axis.pad_before
    one, two = _readers(axis, begin, end)
    one = min(
        one, begin // axis.stride, axis.output - 1
    )  # between windows, one that ends before: padding is not negative
    two = max(two, one + 1)
    start, stop = _positions(axis, one, two)
    own = replace(
        axis,
        input=last - first,
        output=two - one,
        pad_before=begin - start,
        pad_after=max(stop - end, 0),
        mode="constant" if axis.mode == "constant" else "zeros",
    )
    return Block(Window.of((one, two)), own, (0, last - first), (first, last))


def _without_middle(axis: Axis, first: int, last: int, padding: Sequence[int]) -> Block:
    """A block some of whose cells stand in these positions of padding, too: the whole axis without what is between."""
    begin, end = first + axis.pad_before, last + axis.pad_before
    needed = [_readers(axis, begin, end), *(_readers(axis, each, each + 1) for each in padding)]
    best = None
    for one, two in _gaps(axis, begin, end, needed):
        own = replace(axis, input=axis.input - (two - one) * axis.stride, output=axis.output - (two - one))
        shift = 0 if end <= one * axis.stride else (two - one) * axis.stride
        if _same_sources(axis, own, first, last, shift) and (best is None or own.output < best[1].output):
            best = (Window.of((0, one), (two, axis.output)), own, (first - shift, last - shift))
    if best is None:
        best = (Window.of((0, axis.output)), axis, (first, last))
    window, own, crop = best
    return Block(window, own, crop, (first, last))


def _gaps(axis: Axis, begin: int, end: int, needed: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """Stretches of outputs that a block at positions ``begin .. end - 1`` can do without.

    Windows overlap, so that where the rest is joined, cells get what they should not: those cells are neither the
    block's nor padding.
    """
    spans = sorted(span for span in needed if span[0] < span[1])
    reached, tail = 0, []
    for span in spans:
        tail.append((reached, span[0]))
        reached = max(reached, span[1])
    tail.append((reached, axis.output))
    least = _ceil(axis.pad_before, axis.stride)
    most = (axis.pad_before + axis.input - axis.extent) // axis.stride + 1
    for one, two in tail:
        one, two = max(one, least), min(two, most)
        for low, high in (
            (max(one, _ceil(end, axis.stride)), two),  # the block is before the gap
            (one, min(two, (begin - axis.extent) // axis.stride + 1)),  # or after it
        ):
            if low < high:
                yield low, high


def _same_sources(axis: Axis, own: Axis, first: int, last: int, shift: int) -> bool:
    """Whether padding of a shortened axis repeats the block's cells where that of the whole axis does."""
    if own.input < 1 or own.output < 1 or first - shift < 0 or last - shift > own.input:
        return False
    removed = axis.input - own.input
    for position in (*range(own.pad_before), *range(own.pad_before + own.input, own.padded)):
        whole = axis.source(position if position < own.pad_before else position + removed)
        mine = own.source(position) + shift
        if (first <= whole < last or first <= mine < last) and whole != mine:
            return False
    return True
