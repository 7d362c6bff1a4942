"""How the planes of a depthwise convolution are swept: everything that follows from the plan, as tables.

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

from functools import lru_cache
from math import lcm
from typing import NamedTuple

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ZERO, Axis
from .gather import PhasedAxis, forward_axis, input_grad_axis
from .simd_taps import ACROSS, LONG, TALL, TAPS

__all__ = ["SWEEP", "Sweep", "make_sweep"]

#: Columns of a block, and cells of a band: the rows of a sweep stay in the first-level cache.
_BLOCK, _CELLS = 4096, 4096


class Sweep(NamedTuple):
    """A gather in all its stride phases (FORWARD has one) as sweeps.

    Attributes
    ----------
    depth_cells, height_cells, width_cells : int
        Of the source.
    height_step, width_step : int
        Source cells from one position to the next.
    height_stride, width_stride : int
        The distance in the result from one position to the next.
    bordered : int
        1 where padding is not zeros on some axis; 2 where on the width.
    packing : int
        Whether rows are packed: where padding is not zeros, the stride is above 2, or 2 with a dilation.
    slots, slot_cells, reach, least : int
        Stride phases of a packed row, cells of each, cells that one column's taps span, and the first of them.
    band, bands, block, blocks : int
        Rows and columns of a task, and how many tasks that makes.
    stride : int
        Of a sweep along a row: 1 or 2.
    across : int
        The most vectors of a strip.
    ordered : int
        Whether the sweeps take the kernel's taps in their own order.
    taps, depth_taps, lines : int
        Taps in all phases; at most in a column of the depth; source rows that a band reads at most.
    slices : array (slots of the result's depth, 3 + depth_taps)
        Depth in the result; phase; how many taps; the source's depth for each, or ``ZERO`` or ``CONSTANT``.
    rows : array (phases of the height, 9)
        Positions, first row in the result, first of ``cells``, cells that one position's taps span, groups from and to,
        result rows and source rows between those of one sweep, taps.
    cells : array
        For each phase, the source rows from the first that is read on, or ``ZERO`` or ``CONSTANT``.
    row_groups : array (groups, 2)
        Source rows before the first tap's, taps.
    columns : array (phases of the width, 9)
        Positions, first column in the result, groups from and to, taps, strips, strips inside from and to, edges from.
    column_groups : array (groups, 3)
        First of ``offsets``, first of ``masks``, taps.
    offsets : array
        Where each tap of a row reads, from a column's own cell.
    edges : array (strips at the ends, 3)
        First and second vector's column, vectors.
    masks : array of uint16 (strips at the ends + 1, taps of a row + 1, 2)
        Lanes that each tap reads, and that are stored; the first for a strip inside.
    order, first_taps : array
        Taps of the kernel in the order of the sweeps; where each phase's begin.
    border : array
        The source cell at each padded position of the width.
    """

    depth_cells: int
    height_cells: int
    width_cells: int
    height_step: int
    width_step: int
    height_stride: int
    width_stride: int
    bordered: int
    packing: int
    slots: int
    slot_cells: int
    reach: int
    least: int
    band: int
    bands: int
    block: int
    blocks: int
    stride: int
    across: int
    ordered: int
    taps: int
    depth_taps: int
    lines: int
    slices: Array
    rows: Array
    cells: Array
    row_groups: Array
    columns: Array
    column_groups: Array
    offsets: Array
    edges: Array
    masks: Array
    order: Array
    first_taps: Array
    border: Array


_LIST, _TABLE = (types.Array(types.int64, ndim, "C") for ndim in (1, 2))
#: The Numba type of a sweep.
SWEEP = types.NamedTuple(
    [types.int64] * 23
    + [_TABLE, _TABLE, _LIST, _TABLE, _TABLE, _TABLE, _LIST, _TABLE]
    + [types.Array(types.uint16, 3, "C")]
    + [_LIST] * 3,
    Sweep,
)

#: A tap: the source cell that position 0 reads, and its index in the weight.
_Tap = tuple[int, int]


class _Phase(NamedTuple):
    """One stride phase of an axis: its taps in groups, and the distances of a sweep's result and source rows."""

    positions: int
    target: int
    taps: list[_Tap]
    groups: list[list[_Tap]]
    apart: int
    lines: int

    @property
    def least(self) -> int:
        return min((base for base, _ in self.taps), default=0)

    @property
    def span(self) -> int:
        return max((base for base, _ in self.taps), default=0) - self.least + 1


def _cut(taps: list[_Tap], sizes: tuple[int, ...]) -> list[list[_Tap]]:
    """Neighbouring taps in groups of the given sizes, the largest first."""
    groups: list[list[_Tap]] = []
    while taps:
        size = max(size for size in sizes if size <= len(taps))
        groups.append(taps[:size])
        taps = taps[size:]
    return groups


def _phases(axis: PhasedAxis, sizes: tuple[int, ...], share: bool) -> list[_Phase]:
    """The phases of an axis, with groups of the given sizes; with ``share``, of taps that share source rows."""
    phases = []
    for phase in range(axis.positions.size):
        begin, end = axis.taps[phase], axis.taps[phase + 1]
        taps = sorted(zip(axis.base[begin:end].tolist(), axis.tap[begin:end].tolist(), strict=True))
        lines, classes = axis.step, 1
        if share and len(taps) > 1:
            spacing = taps[1][0] - taps[0][0]
            lines = lcm(axis.step, spacing)
            classes = lines // spacing
        groups = [group for c in range(classes) for group in _cut(taps[c::classes], sizes)]
        taps = [tap for group in groups for tap in group]
        positions, target = int(axis.positions[phase]), int(axis.target_first[phase])
        phases.append(_Phase(positions, target, taps, groups, lines // axis.step, lines))
    return phases


def _both_phases(height: PhasedAxis, width: PhasedAxis, stride: int) -> tuple[list[_Phase], list[_Phase]]:
    """The phases of height and width, in groups that one sweep can take together."""
    few = tuple(range(1, TAPS + 1))
    heights = _phases(height, few if stride == 2 else (*few, *TALL), True)
    tallest = max((len(group) for phase in heights for group in phase.groups), default=0)
    if tallest > TAPS:
        return heights, _phases(width, (1, 2), False)
    return heights, _phases(width, (*few, *LONG) if tallest == 1 and stride == 1 else few, False)


def _cells(axis: PhasedAxis, first: int, count: int) -> Array:
    """Source cells ``first .. first + count - 1``, or ``ZERO`` or ``CONSTANT`` outside; ``first`` is the first read."""
    cells = np.arange(first, first + count, dtype=np.int64)
    outside = (cells < 0) | (cells >= axis.cells)
    if axis.bordered:
        table = np.full(count, ZERO, np.int64)
        table[: axis.source.size] = axis.source[:count]
        cells[outside] = table[outside]
    else:
        cells[outside] = ZERO
    return cells


def _table(rows: list[list[int]], width: int) -> Array:
    return np.array(rows, np.int64).reshape(-1, width)


def _slices(axis: PhasedAxis, phases: list[_Phase]) -> Array:
    """The table of the depth's slots."""
    most = max(len(phase.taps) for phase in phases)
    rows = []
    for number, phase in enumerate(phases):
        cells = _cells(axis, phase.least, (phase.positions - 1) * axis.step + phase.span)
        for o in range(phase.positions):
            read = [int(cells[o * axis.step + base - phase.least]) for base, _ in phase.taps]
            target = phase.target + o * axis.target_step
            rows.append([target, number, len(read), *read, *[ZERO] * (most - len(read))])
    return _table(rows, 3 + most)


def _row_tables(axis: PhasedAxis, phases: list[_Phase]) -> tuple[Array, Array, Array]:
    """``rows``, ``cells`` and ``row_groups``."""
    rows: list[list[int]] = []
    groups: list[list[int]] = []
    cells: list[Array] = [np.empty(0, np.int64)]
    for phase in phases:
        first = sum(each.size for each in cells)
        cells.append(_cells(axis, phase.least, (phase.positions - 1) * axis.step + phase.span))
        row = [phase.positions, phase.target, first, phase.span, len(groups)]
        groups += [[group[0][0] - phase.least, len(group)] for group in phase.groups]
        rows.append([*row, len(groups), phase.apart, phase.lines, len(phase.taps)])
    return _table(rows, 9), np.concatenate(cells), _table(groups, 2)


def _lanes_within(columns: Array, lanes: int, first: int, last: int) -> Array:
    """For vectors at the columns, the lanes within ``[first, last)`` as bits."""
    low = np.clip(first - columns, 0, lanes)
    high = np.clip(last - columns, low, lanes)
    lanes_of: Array = (np.left_shift(1, high) - np.left_shift(1, low)).astype(np.uint16)
    return lanes_of


class _Strips(NamedTuple):
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


def _edge(strips: _Strips, number: int, positions: int) -> list[int]:
    """The vectors' columns and number of a strip at the end of a row."""
    first = number * strips.across * strips.lanes
    block = first - first % strips.block
    vectors = strips.across if positions - first > strips.lanes else 1
    columns = [first + v * strips.lanes for v in range(vectors)]
    if strips.overlap and columns[-1] + strips.lanes > positions:
        columns[-1] = max(positions - strips.lanes, block)
    return [columns[0], columns[-1], vectors]


def _edge_masks(strips: _Strips, edges: Array, phase: _Phase, cells: int, most: int) -> Array:
    """What a phase's strips at the ends read and store, two masks for each of ``most`` taps."""
    masks = np.zeros((len(edges), most + 1, 2), np.uint16)
    stored = _lanes_within(edges[:, :2], strips.lanes, 0, phase.positions)
    masks[:, len(phase.taps)] = stored
    local = 0
    for group in phase.groups:
        for t, (base, _) in enumerate(group[:: strips.stride]):
            if strips.packing:
                read = np.full_like(stored, (1 << strips.lanes) - 1)
            elif strips.stride == 1:
                read = _lanes_within(edges[:, :2], strips.lanes, -base, cells - base)
                read = read & stored if strips.dots else read
            else:  # two vectors hold the cells of this tap and of the next
                both = 2 * edges[:, :1] + [[0, strips.lanes]]
                last = min(cells - base, 2 * phase.positions) if strips.dots else cells - base
                read = _lanes_within(both, strips.lanes, -base, last)
            masks[:, local + t] = read
        local += len(group)
    return masks


def _column_tables(axis: PhasedAxis, phases: list[_Phase], strips: _Strips) -> tuple[Array, Array, Array, Array]:
    """``columns``, ``column_groups``, ``edges`` and ``masks``."""
    wide, most = strips.across * strips.lanes, max(len(phase.taps) for phase in phases)
    rows: list[list[int]] = []
    groups: list[list[int]] = []
    edges: list[list[int]] = []
    masks = [np.full((1, most + 1, 2), (1 << strips.lanes) - 1, np.uint16)]
    first_tap = 0
    for phase in phases:
        count, begin, end = -(-phase.positions // wide), 0, phase.positions // wide
        if not strips.packing:
            beyond = axis.cells - (phase.least + phase.span - 1) - (strips.stride - 1)
            begin = min(-(min(phase.least, 0) // (wide * strips.stride)), count)
            end = max(min(end, beyond // (wide * strips.stride)), begin)
        row, local = [phase.positions, phase.target, len(groups)], 0
        for group in phase.groups:
            groups.append([first_tap + local, local, len(group)])
            local += len(group)
        first_tap += local
        rows.append([*row, len(groups), len(phase.taps), count, begin, end, len(edges)])
        found = _table([_edge(strips, i, phase.positions) for i in range(count) if not begin <= i < end], 3)
        edges += found.tolist()
        masks.append(_edge_masks(strips, found, phase, axis.cells, most))
    return _table(rows, 9), _table(groups, 3), _table(edges, 3), np.concatenate(masks)


def _tap_order(phases: tuple[list[_Phase], ...], kernel: tuple[int, ...]) -> tuple[Array, Array]:
    """``order`` and ``first_taps``: phase by phase, depth by depth, group by group."""
    order: list[int] = []
    firsts: list[int] = []
    for depth in phases[0]:
        for height in phases[1]:
            for width in phases[2]:
                firsts.append(len(order))
                order += [
                    (d * kernel[1] + h) * kernel[2] + w
                    for _, d in depth.taps
                    for column in height.groups
                    for row in width.groups
                    for _, h in column
                    for _, w in row
                ]
    return np.array(order, np.int64), np.array(firsts, np.int64)


def _split(rows: int, columns: int, wide: int) -> tuple[int, int, int, int]:
    """Rows of a band, bands, columns of a block, blocks.

    By the plan alone, since an activation is vectorised along a stretch. Blocks are whole strips.
    """
    block = columns if columns <= _BLOCK else _BLOCK - _BLOCK % wide
    bands = -(-rows // max(_CELLS // block, 1))
    return -(-rows // bands), bands, block, -(-columns // block)


def _make(kind: str, lanes: int, axes: tuple[Axis, Axis, Axis]) -> Sweep:
    make = input_grad_axis if kind.startswith("input") else forward_axis
    depth, height, width = (make(axis) for axis in axes)
    packing = width.bordered > 0 or width.step > 2 or (width.step == 2 and axes[2].dilation > 1)
    stride = 1 if packing else width.step
    depths = _phases(depth, (1,), False)
    heights, widths = _both_phases(height, width, stride)
    tallest = max((len(group) for phase in heights for group in phase.groups), default=0)
    across = 1 if kind == "weight" or stride == 2 or tallest > TAPS else ACROSS
    rows, columns = (max(phase.positions for phase in phases) for phases in (heights, widths))
    band, bands, block, blocks = _split(rows, columns, across * lanes)
    least = min(phase.least for phase in widths)
    reach = max(phase.least + phase.span for phase in widths) - least
    slots = min(width.step, reach) if packing else 0
    slot_cells = -(-block // lanes) * lanes + (reach - 1) // width.step if packing else 0
    offsets = np.array([base for phase in widths for base, _ in phase.taps], np.int64)
    if packing:
        offsets = (offsets - least) % width.step * slot_cells + (offsets - least) // width.step
    strips = _Strips(lanes, across, block, stride, packing, kind in ("forward", "input"), kind == "weight")
    column_table, column_groups, edges, masks = _column_tables(width, widths, strips)
    order, first_taps = _tap_order((depths, heights, widths), tuple(axis.kernel for axis in axes))
    slices = _slices(depth, depths)
    return Sweep(
        depth.cells,
        height.cells,
        width.cells,
        height.step,
        width.step,
        height.target_step,
        width.target_step,
        2 if width.bordered else int(bool(height.bordered or depth.bordered)),
        int(packing),
        slots,
        slot_cells,
        reach,
        least,
        band,
        bands,
        block,
        blocks,
        stride,
        across,
        int(np.array_equal(order, np.arange(order.size))),
        order.size,
        slices.shape[1] - 3,
        (band - 1) * height.step + max(phase.span for phase in heights),
        slices,
        *_row_tables(height, heights),
        column_table,
        column_groups,
        offsets,
        edges,
        masks,
        order,
        first_taps,
        width.source,
    )


_kept = lru_cache(maxsize=1024)(_make)

#: Cells of an axis up to which its tables stay in memory.
_LARGEST_KEPT = 2**16


def make_sweep(kind: str, lanes: int, axes: tuple[Axis, Axis, Axis]) -> Sweep:
    """How planes are swept.

    ``kind``: ``forward``, ``input`` or ``weight``, for the directions; the first two followed by ``+`` where sums are
    added to what the result holds, so that no cell must be computed twice.
    """
    small = all(axis.used + axis.input <= _LARGEST_KEPT for axis in axes)
    return (_kept if small else _make)(kind, lanes, axes)
