"""What a tap reads of a block of positions, as runs of cells, from the plan's axes.

FORWARD and INPUT_GRAD are the same dense problem once stride phases are apart::

    FORWARD      position o reads cell  o * stride + k * dilation - pad        of x, for every tap k
    INPUT_GRAD   position q reads cell  q + (first of the phase) - shift(k)    of y, for the taps of a phase

so along each axis a tap reads ``base + step * position`` while ``first <= position < last``, and padding (or
nothing) elsewhere. Positions of a block are numbered row by row; a run is a stretch of them that reads
evenly spaced cells.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import CONSTANT, ZERO, Axis, border_cell
from ..tables import keep, stepping
from .jit import inner, part

__all__ = [
    "PHASED",
    "TABLE",
    "GatherAxis",
    "PhasedAxis",
    "axis_tables",
    "build_runs",
    "code_of",
    "forward_axis",
    "input_grad_axis",
    "merged",
    "pack_line",
    "phase_of",
    "phased_axis",
    "set_positions",
]


class PhasedAxis(NamedTuple):
    """One axis of a gather, in all its stride phases; FORWARD has a single one.

    ``step``: source cells from one position to the next. ``target_step``: the distance in the result from one
    position to the next. Per phase: ``positions``, how many there are; ``target_first``, where the first is
    stored; ``taps[phase] .. taps[phase + 1]``, its taps. Per tap: ``tap``, its index in the weight; ``first``,
    ``last`` and ``base`` as above. ``bordered``: what padding holds, as in `plan.border_cell`, where it is not
    zeros, else 0; ``limit``: the cell behind the last that is read, in padding or not.
    """

    cells: int
    step: int
    target_step: int
    bordered: int
    limit: int
    positions: Array
    target_first: Array
    taps: Array
    tap: Array
    first: Array
    last: Array
    base: Array


class GatherAxis(NamedTuple):
    """One phase of a `PhasedAxis`."""

    positions: int
    cells: int
    step: int
    target_first: int
    target_step: int
    bordered: int
    limit: int
    tap: Array
    first: Array
    last: Array
    base: Array


#: The Numba type of axes that are `merged`.
TABLE = types.Array(types.int64, 1, "C")
#: The Numba type of a phased axis.
PHASED = types.NamedTuple([types.int64] * 5 + [TABLE] * 7, PhasedAxis)

#: A merged axis begins with its integers, then says where each of its tables begins and the last ends.
_INTEGERS, _TABLES = 5, 7
_HEAD = _INTEGERS + _TABLES + 1


def _table(values: list[int]) -> Array:
    return np.array(values, np.int64)


@keep
def forward_axis(axis: Axis) -> PhasedAxis:
    """How FORWARD reads an axis of the input."""
    axis = stepping(axis)
    tap = np.arange(axis.kernel, dtype=np.int64)
    base = tap * axis.dilation - axis.pad_before
    first = np.clip(-(base // axis.stride), 0, axis.output)
    return PhasedAxis(
        cells=axis.input,
        step=axis.stride,
        target_step=1,
        bordered=axis.border,
        limit=axis.used - axis.pad_before,
        positions=_table([axis.output]),
        target_first=_table([0]),
        taps=_table([0, axis.kernel]),
        tap=tap,
        first=first,
        last=np.clip(-((base - axis.input) // axis.stride), first, axis.output),
        base=base,
    )


@keep
def input_grad_axis(axis: Axis) -> PhasedAxis:
    """How INPUT_GRAD reads an axis of the output gradient: a phase for each that has input cells."""
    axis = stepping(axis)
    stride, pad, cells = axis.stride, axis.pad_before, axis.input
    few = np.sort((np.arange(cells, dtype=np.int64) + pad) % stride) if cells < stride else None
    phases = np.arange(stride, dtype=np.int64) if few is None else few
    begin = -((phases - pad) // stride)  # the first q with stride * q + phase >= pad
    target = begin * stride + phases - pad
    positions = -((target - cells) // stride)
    shift, of_tap = np.divmod(np.arange(axis.kernel, dtype=np.int64) * axis.dilation, stride)
    slot = np.minimum(np.searchsorted(phases, of_tap), phases.size - 1)
    tap = np.flatnonzero(phases[slot] == of_tap)
    tap = tap[np.argsort(slot[tap], kind="stable")]
    slot, shift = slot[tap], shift[tap]
    first = np.clip(shift - begin[slot], 0, positions[slot])
    return PhasedAxis(
        cells=axis.output,
        step=1,
        target_step=stride,
        bordered=0,
        limit=axis.output,
        positions=positions,
        target_first=target,
        taps=np.concatenate([_table([0]), np.cumsum(np.bincount(slot, minlength=phases.size))]),
        tap=tap,
        first=first,
        last=np.clip(axis.output - begin[slot] + shift, first, positions[slot]),
        base=begin[slot] - shift,
    )


def axis_tables(axis: PhasedAxis) -> tuple[Array, ...]:
    """What an axis has besides integers."""
    tables: tuple[Any, ...] = axis[_INTEGERS:]
    return tables


def merged(axes: Iterable[PhasedAxis]) -> Array:
    """Axes as one array, for `phased_axis` to take apart: a kernel's call takes a third of a microsecond an axis
    to find out what is in it otherwise, which is much where a convolution takes four.
    """
    every = [(axis, axis_tables(axis)) for axis in axes]
    heads, end = [], _HEAD * len(every)
    for axis, tables in every:
        bounds = [end + sum(table.size for table in tables[:at]) for at in range(_TABLES + 1)]
        heads.append(np.array([*axis[:_INTEGERS], *bounds], np.int64))
        end = bounds[-1]
    return np.concatenate([*heads, *(table for _, tables in every for table in tables)])


@inner
def phased_axis(table, number):
    """One of the axes that were merged."""
    at = number * _HEAD
    bound = at + _INTEGERS
    return PhasedAxis(
        table[at],
        table[at + 1],
        table[at + 2],
        table[at + 3],
        table[at + 4],
        table[table[bound] : table[bound + 1]],
        table[table[bound + 1] : table[bound + 2]],
        table[table[bound + 2] : table[bound + 3]],
        table[table[bound + 3] : table[bound + 4]],
        table[table[bound + 4] : table[bound + 5]],
        table[table[bound + 5] : table[bound + 6]],
        table[table[bound + 6] : table[bound + 7]],
    )


@inner
def set_positions(table, number, positions):
    """Give the only phase of one of the axes that were merged other positions."""
    table[table[number * _HEAD + _INTEGERS]] = positions


@part
def phase_of(axis, phase):
    """One phase of a phased axis."""
    begin, end = axis.taps[phase], axis.taps[phase + 1]
    return GatherAxis(
        axis.positions[phase],
        axis.cells,
        axis.step,
        axis.target_first[phase],
        axis.target_step,
        axis.bordered,
        axis.limit,
        axis.tap[begin:end],
        axis.first[begin:end],
        axis.last[begin:end],
        axis.base[begin:end],
    )


_border_cell = part(border_cell)


@inner
def code_of(cell, cells, bordered, limit):
    """The cell itself if it lies in the source, else what padding says."""
    if 0 <= cell < cells:
        return cell
    if bordered and cell < limit:
        return _border_cell(bordered, cell, cells)
    return ZERO


@inner
def _cell(axis, position, t):
    """The cell that tap ``t`` reads from a position, or ``ZERO`` or ``CONSTANT``."""
    if axis.first[t] <= position < axis.last[t]:
        return axis.base[t] + axis.step * position
    return code_of(axis.base[t] + axis.step * position, axis.cells, axis.bordered, axis.limit)


@inner
def _add_run(runs, tap, count, at, source, length):
    runs[tap, count, 0], runs[tap, count, 1], runs[tap, count, 2] = at, source, length
    return count + 1


@inner
def _row_runs(runs, tap, count, at, d, h, first, length, plane_row, width, t):
    """Runs of one row's positions ``first .. first + length - 1``, numbered from ``at``, for one tap."""
    outside = d < 0 or h < 0
    code = h if h < 0 else d
    begin = min(max(width.first[t], first), first + length)
    end = min(max(width.last[t], begin), first + length)
    if end > begin:
        place = at + begin - first
        if not outside:
            count = _add_run(runs, tap, count, place, plane_row + width.base[t] + width.step * begin, end - begin)
        elif code == CONSTANT:
            count = _add_run(runs, tap, count, place, CONSTANT, end - begin)
    if width.bordered:
        for o in range(first, first + length):
            if begin <= o < end:
                continue
            cell = code_of(width.base[t] + o * width.step, width.cells, width.bordered, width.limit)
            if cell == CONSTANT or (cell >= 0 and outside and code == CONSTANT):
                count = _add_run(runs, tap, count, at + o - first, CONSTANT, 1)
            elif cell >= 0 and not outside:
                count = _add_run(runs, tap, count, at + o - first, plane_row + cell, 1)
    return count


@part
def build_runs(runs, counts, begin, length, depth, height, width):
    """The runs of positions ``begin .. begin + length - 1`` for each tap.

    ``runs[t, r]`` is (position in the block, first cell in a channel's plane or ``CONSTANT``, length); what no
    run covers is zero. ``counts[t]`` is (how many runs, how many positions they cover).
    """
    taps = 0
    rest, first_o = divmod(begin, width.positions)
    first_od, first_oh = divmod(rest, height.positions)
    for td in range(depth.tap.size):
        for th in range(height.tap.size):
            for tw in range(width.tap.size):
                count, at, o, oh, od = 0, 0, first_o, first_oh, first_od
                while at < length:
                    row = min(width.positions - o, length - at)
                    d, h = _cell(depth, od, td), _cell(height, oh, th)
                    plane_row = (d * height.cells + h) * width.cells
                    count = _row_runs(runs, taps, count, at, d, h, o, row, plane_row, width, tw)
                    # Counted, not divided: where rows are short, divisions took most of the time.
                    at, o, oh = at + row, 0, oh + 1
                    if oh == height.positions:
                        oh, od = 0, od + 1
                counts[taps, 0] = count
                covered = 0
                for r in range(count):
                    covered += runs[taps, r, 2]
                counts[taps, 1] = covered
                taps += 1


@inner
def pack_line(line, at, source, plane, runs, counts, t, length, step, fill):
    """What tap ``t`` reads of one channel, as a line of ``length`` cells at ``line[at]``."""
    if counts[t, 1] < length:
        for i in range(length):
            line[np.uintp(at + i)] = 0
    for r in range(counts[t, 0]):
        to, cell, cells = at + runs[t, r, 0], runs[t, r, 1], runs[t, r, 2]
        if cell == CONSTANT:
            for i in range(cells):
                line[np.uintp(to + i)] = fill
        elif step == 1:
            for i in range(cells):
                line[np.uintp(to + i)] = source[np.uintp(plane + cell + i)]
        else:
            for i in range(cells):
                line[np.uintp(to + i)] = source[np.uintp(plane + cell + i * step)]
