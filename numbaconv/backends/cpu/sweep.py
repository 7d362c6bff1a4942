"""A depthwise convolution as a list of sweeps: everything that follows from the plan, made once.

A task of a kernel is one piece of a plane: a slot of the depth, a band of rows, a block of columns. Its sweeps depend
on few things (which taps of the depth read the source, how many rows the band has, which masks the block's ends need),
so that pieces share programs, and a kernel only brings the addresses of source rows and runs a program::

    program   strip 0:  taps of the depth  x  groups of a column  x  groups of a row   -> `simd_taps.Sweep` each
              strip 1:  ...

For WEIGHT_GRAD the same list says which sums each sweep adds to.
"""

from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ZERO, Axis
from .gather import PhasedAxis, forward_axis, input_grad_axis
from .simd import VECTOR_BYTES
from .simd_taps import ACROSS, Sweep
from .strips import Cut, Phase, Strip, both_phases, edge_masks, phases_of, source_cells, strips_of

__all__ = ["SWEEPS", "WIDEST", "Sweeps", "make_sweeps"]

#: Columns of a block, and cells and rows of a band: what a sweep reads stays in the first-level cache, and of the rows
#: that it reads few are read again for the next band.
_BLOCK, _CELLS, _ROWS = 4096, 4096, 8
#: Columns of the widest strip, over lanes of a vector.
WIDEST = ACROSS


class Sweeps(NamedTuple):
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
    ordered : int
        Whether the sweeps take the kernel's taps in their own order.
    taps, depth_taps, lines : int
        Taps in all phases; at most in a column of the depth; source rows that a band reads at most.
    slices : array (slots of the result's depth, 3 + depth_taps)
        Depth in the result; class; how many taps; the source's depth for each, or ``ZERO`` or ``CONSTANT``.
    rows : array (phases of the height, 5)
        Positions, first row in the result, first of ``cells``, cells that one position's taps span, taps.
    cells : array
        For each phase, the source rows from the first that is read on, or ``ZERO`` or ``CONSTANT``.
    columns : array (phases of the width, 2)
        Positions, first column in the result.
    of_band, of_block : array
        Classes.
    programs : array (classes of slots, of bands, of blocks, phases of the height, 2)
        The first and last of ``sweeps``.
    sweeps : array (all sweeps, fields of `simd_taps.Sweep`)
    offsets : array
        Where each tap of a row reads, from a column's own cell.
    masks : array of uint16 (strips at the ends + 1, taps of a row + 1, 2)
        Lanes that each tap reads, and that are stored; the first for a strip inside.
    order : array
        Taps of the kernel in the order of the sweeps.
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
    ordered: int
    taps: int
    depth_taps: int
    lines: int
    slices: Array
    rows: Array
    cells: Array
    columns: Array
    of_band: Array
    of_block: Array
    programs: Array
    sweeps: Array
    offsets: Array
    masks: Array
    order: Array
    border: Array


_LIST, _TABLE = (types.Array(types.int64, ndim, "C") for ndim in (1, 2))
#: The Numba type of sweeps.
SWEEPS = types.NamedTuple(
    [types.int64] * 21
    + [_TABLE, _TABLE, _LIST, _TABLE, _LIST, _LIST, types.Array(types.int64, 5, "C"), _TABLE, _LIST]
    + [types.Array(types.uint16, 3, "C"), _LIST, _LIST],
    Sweeps,
)


class _Phases(NamedTuple):
    """The phases of each axis."""

    depth: list[Phase]
    height: list[Phase]
    width: list[Phase]


class _Units(NamedTuple):
    """Bytes of a cell and of what a tap has (a weight, or a vector of sums); cells of the result's rows; channels.

    ``adding``: sums are added to what the result holds.
    """

    cell: int
    tap: int
    result_width: int
    channels: int
    adding: bool


def _table(rows: list[list[int]], width: int) -> Array:
    return np.array(rows, np.int64).reshape(-1, width)


def _slices(axis: PhasedAxis, phases: list[Phase], skipping: bool) -> tuple[Array, list[tuple[int, tuple[int, ...]]]]:
    """The table of the depth's slots, and its classes: the phase, and which of its taps are swept."""
    most = max(len(phase.taps) for phase in phases)
    rows: list[list[int]] = []
    classes: dict[tuple[int, tuple[int, ...]], int] = {}
    for number, phase in enumerate(phases):
        cells = source_cells(axis, phase.least, (phase.positions - 1) * axis.step + phase.span)
        for o in range(phase.positions):
            read = [int(cells[o * axis.step + base - phase.least]) for base, _ in phase.taps]
            swept = tuple(t for t, d in enumerate(read) if d >= 0 or not skipping)
            which = classes.setdefault((number, swept), len(classes))
            target = phase.target + o * axis.target_step
            rows.append([target, which, len(read), *read, *[ZERO] * (most - len(read))])
    return _table(rows, 3 + most), list(classes)


def _row_tables(axis: PhasedAxis, phases: list[Phase]) -> tuple[Array, Array]:
    """``rows`` and ``cells``."""
    rows: list[list[int]] = []
    cells: list[Array] = [np.empty(0, np.int64)]
    for phase in phases:
        rows.append([phase.positions, phase.target, sum(map(len, cells)), phase.span, len(phase.taps)])
        cells.append(source_cells(axis, phase.least, (phase.positions - 1) * axis.step + phase.span))
    return _table(rows, 5), np.concatenate(cells)


def _split(rows: int, columns: int, wide: int) -> tuple[int, int, int, int]:
    """Rows of a band, bands, columns of a block, blocks.

    By the plan alone, since an activation is vectorised along a stretch. Blocks are whole strips.
    """
    block = columns if columns <= _BLOCK else _BLOCK - _BLOCK % wide
    bands = -(-rows // max(_CELLS // block, _ROWS))
    return -(-rows // bands), bands, block, -(-columns // block)


def _first_taps(phases: _Phases) -> dict[tuple[int, int, int], int]:
    """Where each phase's taps begin, in the order of the sweeps."""
    found, at = {}, 0
    for place in product(*(range(len(each)) for each in phases)):
        found[place[0], place[1], place[2]] = at
        at += len(phases[0][place[0]].taps) * len(phases[1][place[1]].taps) * len(phases[2][place[2]].taps)
    return found


def _tap_order(phases: _Phases, kernel: tuple[int, ...]) -> Array:
    """Taps in the order of the sweeps: phase by phase, depth by depth, group by group."""
    order = [
        (d * kernel[1] + h) * kernel[2] + w
        for depth, height, width in product(*phases)
        for _, d in depth.taps
        for column in height.groups
        for row in width.groups
        for _, h in column
        for _, w in row
    ]
    return np.array(order, np.int64)


class _Programs:
    """Makes the programs of all classes of pieces."""

    def __init__(self, phases: _Phases, cut: Cut, units: _Units, height: PhasedAxis, width: PhasedAxis, band: int):
        self.phases, self.cut, self.units, self.height, self.width, self.band = phases, cut, units, height, width, band
        self.most_taps = max(len(phase.taps) for phase in phases.width)
        self.lines = (band - 1) * height.step + max(phase.span for phase in phases.height)
        self.depth_taps = max(len(phase.taps) for phase in phases.depth)
        self.masks = [np.full((1, self.most_taps + 1, 2), (1 << cut.lanes) - 1, np.uint16)]
        self.first_taps = _first_taps(phases)
        self.taps = sum(
            len(depth.taps) * len(height.taps) * len(width.taps) for depth, height, width in product(*phases)
        )

    def block(self, number: int) -> tuple[tuple[Strip, ...], ...]:
        """The strips of a block in each phase of the width, at columns from its own first."""
        found = []
        for phase in self.phases.width:
            masked = sum(map(len, self.masks))
            strips, ends = strips_of(self.cut, phase, self.width.cells, number, masked)
            first = number * self.cut.block
            self.masks.append(edge_masks(self.cut, ends, phase, self.width.cells, self.most_taps))
            found.append(
                tuple(strip._replace(column=strip.column - first, second=strip.second - first) for strip in strips)
            )
        return tuple(found)

    def program(
        self, slot: tuple[int, tuple[int, ...]], rows: tuple[int, ...], block: tuple[tuple[Strip, ...], ...], ph: int
    ) -> list[Sweep]:
        """The sweeps of a piece in one phase of the height."""
        sweeps: list[Sweep] = []
        first_offset = 0
        for pw, strips in enumerate(block):
            for strip in strips if rows[ph] else ():
                sweeps += self._strip(slot, rows[ph], strip, ph, pw, first_offset)
            first_offset += len(self.phases.width[pw].taps)
        return sweeps

    def _strip(
        self, slot: tuple[int, tuple[int, ...]], some: int, strip: Strip, ph: int, pw: int, first_offset: int
    ) -> list[Sweep]:
        """The sweeps of a strip: each source channel, tap of the depth, pair of groups and set of rows."""
        (pd, swept), units, cut = slot, self.units, self.cut
        height, width = self.phases.height[ph], self.phases.width[pw]
        interleaved = self.width.target_step > 1
        out_pitch = (cut.block if interleaved else self.height.target_step * units.result_width) * units.cell
        out = pw * self.band * cut.block if interleaved else height.target * units.result_width
        common = Sweep(
            line=0,
            lines_step=height.lines,
            lines_pitch=0,
            out=out * units.cell,
            out_pitch=height.apart * out_pitch,
            fresh=int(interleaved or not units.adding),
            rows=some,
            starts=0,
            stride=cut.stride,
            column=strip.column,
            second=strip.second,
            vectors=strip.vectors,
            masks=0,
            tails=(strip.masks * (self.most_taps + 1) + len(width.taps)) * 4,
            taps=0,
            along_column=0,
            along_row=0,
        )
        along = some == 1 and len(height.taps) == 1  # a single row: strips inside are swept like rows
        reached = bool(swept and height.taps and width.taps)
        parts = [(strip, strip.run)]
        if strip.run > 1 and not (along and reached):
            parts = [
                (strip._replace(column=strip.column + i * cut.wide, second=strip.second + i * cut.wide), 1)
                for i in range(strip.run)
            ]
        if not reached:
            return [
                common._replace(column=part.column, second=part.second, out_pitch=out_pitch) for part, _ in parts
            ] * common.fresh
        sweeps: list[Sweep] = []
        for part, run in parts:
            fresh = common.fresh
            for c, td in product(range(units.channels), swept):
                for column, row, tap, local in self._pairs(height, width):
                    first_tap = c * self.taps + self.first_taps[pd, ph, pw] + td * len(height.taps) * len(width.taps)
                    line = (c * self.depth_taps + td) * self.lines + column[0][0] - height.least
                    of_pair = common._replace(
                        fresh=fresh,
                        starts=(first_offset + local) * 8,
                        column=part.column,
                        second=part.second,
                        masks=(strip.masks * (self.most_taps + 1) + local) * 4,
                        taps=(first_tap + tap) * units.tap,
                        along_column=len(column),
                        along_row=len(row),
                    )
                    fresh = 0
                    for r in range(min(height.apart, some)):
                        sweeps.append(
                            of_pair._replace(
                                line=(line + r * self.height.step) * 8,
                                out=of_pair.out + r * out_pitch,
                                rows=-(-(some - r) // height.apart),
                            )
                        )
                    if along:
                        pitch = cut.wide * units.cell
                        sweeps[-1] = sweeps[-1]._replace(
                            lines_step=0, lines_pitch=pitch * cut.stride, out_pitch=pitch, rows=run
                        )
        return sweeps

    @staticmethod
    def _pairs(height: Phase, width: Phase) -> list[tuple[list[tuple[int, int]], list[tuple[int, int]], int, int]]:
        """Each group of a column with each of a row: the groups, their first tap, and the row group's first tap."""
        pairs, tap = [], 0
        for column in height.groups:
            local = 0
            for row in width.groups:
                pairs.append((column, row, tap, local))
                tap, local = tap + len(column) * len(row), local + len(row)
        return pairs


def _classes(keys: list[tuple]) -> tuple[Array, list[tuple]]:
    """A number for each key, equal ones for equal keys, and the different keys."""
    found: dict[tuple, int] = {}
    numbers = [found.setdefault(key, len(found)) for key in keys]
    return np.array(numbers, np.int64), list(found)


def _make(
    kind: str, lanes: int, channels: int, axes: tuple[Axis, Axis, Axis], piece: tuple[int, int] | None = None
) -> Sweeps:
    make, dots = (input_grad_axis if kind.startswith("input") else forward_axis), kind == "weight"
    depth, height, width = (make(axis) for axis in axes)
    # By the mode, whether or not there is padding: a stretch of a longer axis then has its order of taps.
    bordering = not kind.startswith("input") and axes[2].mode != "zeros"
    packing = bordering or width.step > 2 or (width.step == 2 and axes[2].dilation > 1)
    stride = 1 if packing else width.step
    heights, widths, tall = both_phases(height, width, stride)
    phases = _Phases(phases_of(depth, (1,), False), heights, widths)
    across = 1 if dots or stride == 2 or tall else ACROSS
    rows, columns = (max(phase.positions for phase in each) for each in (heights, widths))
    band, bands, block, blocks = _split(rows, columns, across * lanes)
    if piece is not None:
        (band, block), bands, blocks = piece, -(-rows // piece[0]), -(-columns // piece[1])
    least = min(phase.least for phase in widths)
    reach = max(phase.least + phase.span for phase in widths) - least
    slots = min(width.step, reach) if packing else 0
    slot_cells = -(-block // lanes) * lanes + (reach - 1) // width.step if packing else 0
    offsets = np.array([base for phase in widths for base, _ in phase.taps], np.int64)
    if packing:
        offsets = (offsets - least) % width.step * slot_cells + (offsets - least) // width.step
    bordered = 2 if width.bordered else int(bool(height.bordered or depth.bordered))
    slices, slot_classes = _slices(depth, phases.depth, not bordered)
    cell = VECTOR_BYTES // lanes
    result_width = block
    if piece is None:
        result_width = axes[2].input if kind.startswith("input") else axes[2].output
    cut = Cut(lanes, across, block, stride, packing, kind in ("forward", "input"), dots)
    units = _Units(cell, VECTOR_BYTES if dots else cell, result_width, channels, kind.endswith("+"))
    programs = _Programs(phases, cut, units, height, width, band)
    of_band, band_classes = _classes(
        [tuple(max(min(band, phase.positions - b * band), 0) for phase in heights) for b in range(bands)]
    )
    of_block, block_classes = _classes([programs.block(b) for b in range(blocks)])
    order = _tap_order(phases, tuple(axis.kernel for axis in axes))
    sweeps: list[Sweep] = []
    bounds: list[list[int]] = []
    for slot, some, strips, ph in product(slot_classes, band_classes, block_classes, range(len(heights))):
        first = len(sweeps)
        sweeps += programs.program(slot, some, strips, ph)
        bounds.append([first, len(sweeps)])
    shape = (len(slot_classes), len(band_classes), len(block_classes), len(heights), 2)
    return Sweeps(
        depth.cells,
        height.cells,
        width.cells,
        height.step,
        width.step,
        height.target_step,
        width.target_step,
        bordered,
        int(packing),
        slots,
        slot_cells,
        reach,
        least,
        band,
        bands,
        block,
        blocks,
        int(np.array_equal(order, np.arange(order.size))),
        order.size,
        slices.shape[1] - 3,
        programs.lines,
        slices,
        *_row_tables(height, heights),
        _table([[phase.positions, phase.target] for phase in widths], 2),
        of_band,
        of_block,
        np.array(bounds, np.int64).reshape(shape),
        np.array(sweeps, np.int64).reshape(-1, len(Sweep._fields)),
        offsets,
        np.concatenate(programs.masks),
        order,
        width.source,
    )


_kept = lru_cache(maxsize=1024)(_make)

#: Cells of an axis up to which its tables stay in memory.
_LARGEST_KEPT = 2**16


def make_sweeps(
    kind: str, lanes: int, channels: int, axes: tuple[Axis, Axis, Axis], piece: tuple[int, int] | None = None
) -> Sweeps:
    """How planes are swept.

    ``kind``: ``forward``, ``input`` or ``weight``, for the directions; the first two followed by ``+`` where sums are
    added to what the result holds, so that no cell must be computed twice. ``channels``: source channels of a result
    channel. ``piece``: rows and columns of a task whose result is an array of this extent, instead of a part of the
    whole; columns are all, or a multiple of `WIDEST`.
    """
    small = all(axis.used + axis.input <= _LARGEST_KEPT for axis in axes)
    return (_kept if small else _make)(kind, lanes, channels, axes, piece)
