"""Along which axis a thread's results lie, and what it reads there: from the plan, for the depthwise kernels.

Results of a thread are neighbours along one axis, the *walk*, so that taps share cells, which are in registers. What a
kernel is compiled for is a `Pattern`: tap ``k`` of result ``j`` is of the thread's cell number
``(j * step + k * slope + bias) / divisor``, and is none where that is no integer::

    FORWARD, stride 1, 3 taps                INPUT_GRAD, stride 2, 3 taps, padding 1
    results   0 1 2 3                        results       0   1   2   3
    cells   0 1 2 3 4 5                      cells         0       1       2
    taps    k k k                            taps of 0     k=1
                                             taps of 1     k=2     k=0

So the stride phases of INPUT_GRAD along the walk are in the compiled code, and no zeros are multiplied. Where cells are
too far apart to be shared, a thread has one result, and ``unit`` says how far. Long kernels are several *chunks* of
taps, each ``shift`` further along the line.
"""

from math import gcd
from typing import Any, NamedTuple

import numpy as np

from ...arrays import Array
from ...plan import ZERO, Axis
from ..tables import source_table, stepping

__all__ = ["RESULTS", "Pattern", "TapLists", "Walk", "forward_lists", "forward_walk", "input_lists", "input_walk"]

#: Results of a thread, taps of a chunk, and cells that a thread holds at most: each cell takes two registers.
RESULTS, _MOST_TAPS, _MOST_CELLS = 4, 8, 16


class Pattern(NamedTuple):
    """What kernels are compiled for."""

    results: int
    taps: int
    step: int
    slope: int
    bias: int
    divisor: int

    @property
    def cells(self) -> int:
        """How many cells a thread holds."""
        furthest = (self.results - 1) * self.step + max(self.slope, 0) * (self.taps - 1) + self.bias
        return furthest // self.divisor + 1


class Walk(NamedTuple):
    """A walk: cell ``i`` of thread ``t`` in chunk ``c`` is ``line[start + t * advance + i * unit + c * shift]``.

    The line has cells, or ``ZERO`` or ``CONSTANT``, for each of ``threads``.
    """

    pattern: Pattern
    threads: int
    advance: int
    unit: int
    shift: int
    chunks: int
    start: int
    line: Array


class TapLists(NamedTuple):
    """For each result along an axis the taps that meet something there, ascending, and the cells or codes there.

    Those of result ``i`` are at ``begins[i] : begins[i + 1]``.
    """

    begins: Array
    taps: Array
    cells: Array


def _chunks(kernel: int, multiple: int) -> tuple[int, int]:
    """Taps of a chunk, a multiple where there are several, and chunks."""
    chunks = -(-kernel // _MOST_TAPS)
    if chunks == 1:
        return kernel, 1
    each = -(-kernel // chunks)
    taps = -(-each // multiple) * multiple
    return taps, -(-kernel // taps)


def _walk(pattern: Pattern, extent: int, advance: int, unit: int, shift: int, chunks: int, cell: Any) -> Walk:
    """A walk over a line of ``cell(places)``, as long as it has to be."""
    threads = -(-extent // pattern.results)
    ends = [(0, max(threads - 1, 0) * advance), (0, (pattern.cells - 1) * unit), (0, (chunks - 1) * shift)]
    lowest, highest = (sum(each(pair) for pair in ends) for each in (min, max))
    line = cell(np.arange(lowest, highest + 1))
    return Walk(pattern, threads, advance, unit, shift, chunks, -lowest, line)


def forward_walk(axis: Axis) -> Walk:
    """How FORWARD, and WEIGHT_GRAD, walks an axis: results are outputs, cells the input's."""
    axis = stepping(axis)
    table = source_table(axis)

    def cell(places: Array) -> Array:
        found = np.full(places.size, ZERO)
        there = places < table.size
        found[there] = table[places[there]]
        return found

    taps, chunks = _chunks(axis.kernel, 1)
    shift = taps * axis.dilation
    pattern = Pattern(RESULTS, taps, axis.stride, axis.dilation, 0, 1)
    if pattern.cells <= _MOST_CELLS:
        return _walk(pattern, axis.output, RESULTS * axis.stride, 1, shift, chunks, cell)
    return _walk(Pattern(1, taps, 0, 1, 0, 1), axis.output, axis.stride, axis.dilation, shift, chunks, cell)


def input_walk(axis: Axis) -> Walk:
    """How INPUT_GRAD walks an axis: results are cells of the input, a line's those of the output gradient."""
    axis = stepping(axis)
    stride, dilation = axis.stride, axis.dilation
    if stride <= RESULTS:
        taps, chunks = _chunks(axis.kernel, stride // gcd(stride, dilation))
        back = -((axis.pad_before - (taps - 1) * dilation) // stride)  # cells before a thread's first own
        results = RESULTS // stride * stride
        pattern = Pattern(results, taps, 1, -dilation, axis.pad_before + stride * back, stride)
        widest = pattern._replace(bias=(taps - 1) * dilation + stride - 1)  # with any padding: the order is one
        if widest.cells <= _MOST_CELLS:
            shift = -(taps * dilation // stride)

            def near(places: Array) -> Array:
                return _outputs(axis, (places - back) * stride)

            return _walk(pattern, axis.input, results // stride, 1, shift, chunks, near)

    def far(places: Array) -> Array:
        return _outputs(axis, places + axis.pad_before)

    taps, chunks = _chunks(axis.kernel, 1) if stride == 1 else (1, axis.kernel)
    return _walk(Pattern(1, taps, 0, 1, 0, 1), axis.input, 1, -dilation, -taps * dilation, chunks, far)


def _outputs(axis: Axis, positions: Array) -> Array:
    """The outputs whose first tap is at padded positions, or ``ZERO``."""
    outputs = positions // axis.stride
    outputs[(positions % axis.stride != 0) | (outputs < 0) | (outputs >= axis.output)] = ZERO
    return outputs


def _lists(cells: Array, keep: Array) -> TapLists:
    """Lists from a table of results and taps, of what is kept."""
    begins = np.concatenate([[0], np.cumsum(np.count_nonzero(keep, axis=1))])
    return TapLists(begins, np.nonzero(keep)[1], cells[keep])


def forward_lists(axis: Axis, zeros: bool) -> TapLists:
    """What FORWARD reads across the walk; taps on padding with zeros are kept where ``zeros`` says so."""
    axis = stepping(axis)
    places = np.arange(axis.output)[:, None] * axis.stride + np.arange(axis.kernel) * axis.dilation
    cells = source_table(axis)[places]
    return _lists(cells, np.full(cells.shape, True) if zeros else cells != ZERO)


def input_lists(axis: Axis) -> TapLists:
    """What INPUT_GRAD reads across the walk: the taps of a cell's stride phase."""
    axis = stepping(axis)
    places = np.arange(axis.input)[:, None] + axis.pad_before - np.arange(axis.kernel) * axis.dilation
    cells = _outputs(axis, places)
    return _lists(cells, cells != ZERO)
