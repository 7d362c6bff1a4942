"""A depthwise convolution as a list of sweeps: everything that follows from the plan, made once.

A task of a kernel is one piece of a plane: a slot of the depth, a band of rows, a block of columns. Its sweeps depend
on few things (which taps of the depth read the source, how many rows the band has, which masks the block's ends need),
so that pieces share programs, and a kernel only brings the addresses of source rows and runs a program::

    program   strip 0:  taps of the depth  x  groups of a column  x  groups of a row   -> `simd_taps.Sweep` each
              strip 1:  ...

For WEIGHT_GRAD the same list says which sums each sweep adds to.
"""

from collections.abc import Callable, Hashable
from itertools import product
from typing import NamedTuple

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import Axis
from ..tables import keep
from .gather import PhasedAxis, forward_axis, input_grad_axis
from .simd import VECTOR_BYTES
from .simd_taps import ACROSS, Sweep
from .strips import Cut, Phase, Strip, both_phases, edge_masks, phases_of, row_taps, strips_of

__all__ = ["SWEEPS", "WIDEST", "Sweeps", "make_sweeps"]

#: Columns of a block, and cells and rows of a band: what a sweep reads stays in the first-level cache, and of the rows
#: that it reads few are read again for the next band.
_BLOCK, _CELLS, _ROWS = 4096, 4096, 8
#: Taps of a row up to which vectors that stand over its ends have a mask for each tap, instead of packed rows.
_MOST_MASKED = 64
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
        Whether rows are packed: where padding is not zeros, the stride is above 2, or 2 with a dilation, or a row has
        many taps.
    slots, slot_cells, reach, least : int
        Stride phases of a packed row, cells of each, cells that one column's taps span, and the first of them.
    band, bands, block, blocks : int
        Rows and columns of a task, and how many tasks that makes.
    ordered : int
        Whether the sweeps take the kernel's taps in their own order.
    taps, depth_taps, lines : int
        Taps in all phases; at most in a column of the depth; source rows that a band reads at most.
    depth_slots, depth_step, depth_stride : int
        Slots of the result's depth; as ``height_step`` and ``height_stride``.
    depth_border, depth_limit, height_border, height_limit, width_border, width_limit : int
        As in `gather.PhasedAxis`: of what padding holds, and up to which cell of it.
    first_blocks : int
        Blocks before those inside, see ``of_block``.
    depths : array (phases of the depth, 6 + depth_taps)
        Positions, first depth in the result; of ``of_slice`` where its classes begin, how many come before those of
        the positions inside, and all; taps, and what each reads at position 0.
    of_slice : array
        Classes: of the first positions of a phase, of those inside, of the last.
    rows : array (phases of the height, 5)
        Positions, first row in the result, the source row that is the first of position 0, rows that one position's
        taps span, taps.
    columns : array (phases of the width, 2)
        Positions, first column in the result.
    of_band, of_block : array
        Classes: of the first ones, of all inside, of the last ones.
    programs : array (classes of slots, of bands, of blocks, phases of the height, 2)
        The first and last of ``sweeps``.
    sweeps : array (all sweeps, fields of `simd_taps.Sweep`)
    offsets : array
        Where each tap of a row reads, from a column's own cell.
    masks : array of uint16 (strips at the ends + 1, taps of a row + 1, 2)
        Lanes that each tap reads, and that are stored; the first for a strip inside.
    order : array
        Taps of the kernel in the order of the sweeps.
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
    depth_slots: int
    depth_step: int
    depth_stride: int
    depth_border: int
    depth_limit: int
    height_border: int
    height_limit: int
    width_border: int
    width_limit: int
    first_blocks: int
    depths: Array
    of_slice: Array
    rows: Array
    columns: Array
    of_band: Array
    of_block: Array
    programs: Array
    sweeps: Array
    offsets: Array
    masks: Array
    order: Array


_LIST, _TABLE = (types.Array(types.int64, ndim, "C") for ndim in (1, 2))
#: The Numba type of sweeps.
SWEEPS = types.NamedTuple(
    [types.int64] * 31
    + [_TABLE, _LIST, _TABLE, _TABLE, _LIST, _LIST, types.Array(types.int64, 5, "C"), _TABLE, _LIST]
    + [types.Array(types.uint16, 3, "C"), _LIST],
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


def _depths(
    axis: PhasedAxis, phases: list[Phase], skipping: bool
) -> tuple[Array, Array, list[tuple[int, tuple[int, ...]]]]:
    """``depths`` and ``of_slice``, and the classes: the phase, and which of its taps are swept."""
    most = max(len(phase.taps) for phase in phases)
    rows: list[list[int]] = []
    of_slice: list[int] = []
    classes: dict[tuple[int, tuple[int, ...]], int] = {}
    for number, phase in enumerate(phases):
        begin, end = 0, phase.positions  # of the positions inside, where all taps are swept
        bases: list[int] = phase.taps[:, 0].tolist()
        for base in bases if skipping else ():
            begin = max(begin, min(-(base // axis.step), phase.positions))
            end = min(end, -((base - axis.cells) // axis.step))
        end = max(begin, end)
        inside = range(begin, min(begin + 1, end))
        at = len(of_slice)
        for o in (*range(begin), *inside, *range(end, phase.positions)):
            swept = tuple(t for t, base in enumerate(bases) if not skipping or 0 <= base + o * axis.step < axis.cells)
            of_slice.append(classes.setdefault((number, swept), len(classes)))
        row = [phase.positions, phase.target, at, begin, len(of_slice) - at, len(bases)]
        rows.append([*row, *bases, *[0] * (most - len(bases))])
    return _table(rows, 6 + most), np.array(of_slice, np.int64), list(classes)


def _row_table(phases: list[Phase]) -> Array:
    """``rows``."""
    return _table([[each.positions, each.target, each.least, each.span, len(each.taps)] for each in phases], 5)


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
        ((depth.taps[:, 1, None] * kernel[1]) * kernel[2] + _slice_order(height, width, kernel[2])).ravel()
        for depth, height, width in product(*phases)
    ]
    return np.concatenate(order)


def _slice_order(height: Phase, width: Phase, extent: int) -> Array:
    """The order of a slice's taps: each group of a column with each of a row, row by row of the group."""
    sizes = np.repeat(width.sizes, width.sizes)
    firsts = np.repeat(np.cumsum(width.sizes) - width.sizes, width.sizes)
    within = np.arange(len(width.taps), dtype=np.int64) - firsts
    order = np.empty(len(height.taps) * len(width.taps), np.int64)
    at = 0
    for size in height.sizes.tolist():
        rows = np.arange(size, dtype=np.int64)[:, None]
        to = at * len(width.taps) + size * firsts + rows * sizes + within
        order[to] = height.taps[at : at + size, 1, None] * extent + width.taps[:, 1]
        at += size
    return order


class _Programs:
    """Makes the programs of all classes of pieces."""

    def __init__(self, phases: _Phases, cut: Cut, units: _Units, height: PhasedAxis, width: PhasedAxis, band: int):
        self.phases, self.cut, self.units, self.height, self.width, self.band = phases, cut, units, height, width, band
        self.most_taps = max(len(phase.taps) for phase in phases.width)
        self.lines = (band - 1) * height.step + max(phase.span for phase in phases.height)
        self.depth_taps = max(len(phase.taps) for phase in phases.depth)
        self.masks = [np.full((1, self.most_taps + 1, 2), (1 << cut.lanes) - 1, np.uint16)]
        self.masked = 1
        self._pairs_of: dict[tuple[int, int], Array] = {}
        self.first_taps = _first_taps(phases)
        self.taps = sum(
            len(depth.taps) * len(height.taps) * len(width.taps) for depth, height, width in product(*phases)
        )

    def block(self, number: int) -> tuple[tuple[Strip, ...], ...]:
        """The strips of a block in each phase of the width, at columns from its own first."""
        found = []
        for phase in self.phases.width:
            strips, ends = strips_of(self.cut, phase, self.width.cells, number, self.masked)
            first = number * self.cut.block
            if ends:
                self.masks.append(edge_masks(self.cut, ends, phase, self.width.cells, self.most_taps))
                self.masked += len(ends)
            found.append(
                tuple(strip._replace(column=strip.column - first, second=strip.second - first) for strip in strips)
            )
        return tuple(found)

    def is_inside(self, number: int) -> bool:
        """Whether all columns of a block are inside in each phase, so that it is as its neighbour."""
        each_inside = True
        for phase in self.phases.width:
            strips, ends = strips_of(self.cut, phase, self.width.cells, number, 0)
            each_inside = each_inside and not ends and len(strips) == 1 and strips[0].run == self.cut.full
        return each_inside

    def program(
        self, slot: tuple[int, tuple[int, ...]], rows: tuple[int, ...], block: tuple[tuple[Strip, ...], ...], ph: int
    ) -> list[Array]:
        """The sweeps of a piece in one phase of the height."""
        sweeps: list[Array] = []
        first_offset = 0
        for pw, strips in enumerate(block):
            for strip in strips if rows[ph] else ():
                sweeps.append(self._strip(slot, rows[ph], strip, ph, pw, first_offset))
            first_offset += len(self.phases.width[pw].taps)
        return sweeps

    def _strip(
        self, slot: tuple[int, tuple[int, ...]], some: int, strip: Strip, ph: int, pw: int, first_offset: int
    ) -> Array:
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
            inside=int(strip.masks == 0),
        )
        if not (swept and len(height.taps) and len(width.taps)):
            nothing = np.array([common._replace(out_pitch=out_pitch)] * common.fresh, np.int64)
            return self._side_by_side(nothing.reshape(-1, len(Sweep._fields)), strip.run)
        pairs = self._pairs(ph, pw)
        sets = min(height.apart, some)
        found = np.empty((units.channels, len(swept), len(pairs), sets, len(Sweep._fields)), np.int64)
        found[...] = common
        field = {name: found[..., at] for at, name in enumerate(Sweep._fields)}
        of_pair = pairs[:, None, :]
        of_depth = np.array(swept, np.int64)[:, None, None]
        of_channel = np.arange(units.channels, dtype=np.int64)[:, None, None, None]
        of_set = np.arange(sets, dtype=np.int64)
        first_tap = self.first_taps[pd, ph, pw] + of_depth * len(height.taps) * len(width.taps)
        line = (of_channel * self.depth_taps + of_depth) * self.lines + of_pair[..., 0] - height.least
        field["line"][...] = (line + of_set * self.height.step) * 8
        field["out"] += of_set * out_pitch
        field["rows"][...] = -(-(some - of_set) // height.apart)
        field["starts"][...] = (first_offset + of_pair[..., 4]) * 8
        field["masks"][...] = (strip.masks * (self.most_taps + 1) + of_pair[..., 4]) * 4
        field["taps"][...] = (of_channel * self.taps + first_tap + of_pair[..., 3]) * units.tap
        field["along_column"][...] = of_pair[..., 1]
        field["along_row"][...] = of_pair[..., 2]
        found[..., Sweep._fields.index("fresh")] = 0
        found[0, 0, 0, :, Sweep._fields.index("fresh")] = common.fresh
        if some == 1 and len(height.taps) == 1:  # a single row: strips inside are swept like rows
            pitch = cut.wide * units.cell
            field["lines_step"][...], field["lines_pitch"][...] = 0, pitch * cut.stride
            field["out_pitch"][...], field["rows"][...] = pitch, strip.run
            return found.reshape(-1, len(Sweep._fields))
        return self._side_by_side(found.reshape(-1, len(Sweep._fields)), strip.run)

    def _side_by_side(self, sweeps: Array, run: int) -> Array:
        """The sweeps of each of a run's strips."""
        if run == 1:
            return sweeps
        found = np.repeat(sweeps[None], run, axis=0)
        further = np.arange(run, dtype=np.int64)[:, None] * self.cut.wide
        found[..., Sweep._fields.index("column")] += further
        found[..., Sweep._fields.index("second")] += further
        return found.reshape(-1, sweeps.shape[1])

    def _pairs(self, ph: int, pw: int) -> Array:
        """Each group of a column with each of a row.

        The source row of the column's first tap, the groups' sizes, their first tap, and the row group's first tap.
        """
        found = self._pairs_of.get((ph, pw))
        if found is None:
            height = self.phases.height[ph]
            high, wide = height.sizes[:, None], self.phases.width[pw].sizes
            first = height.taps[np.cumsum(height.sizes) - height.sizes, :1]
            sizes = high * wide
            each = (first, high, wide, (np.cumsum(sizes) - sizes.ravel()).reshape(sizes.shape), np.cumsum(wide) - wide)
            found = np.stack([np.broadcast_to(part, sizes.shape).ravel() for part in each], axis=1)
            self._pairs_of[ph, pw] = found
        return found


def _classes(count: int, first: int, last: int, make: Callable[[int], Hashable]) -> tuple[Array, list]:
    """Classes of ``count`` parts of which all but so many at the ends are alike, and what they are.

    A number for each of the first, for those between, and for each of the last, equal ones for equal keys.
    """
    between = range(first, min(first + 1, count - last))
    found: dict[Hashable, int] = {}
    numbers = [found.setdefault(make(at), len(found)) for at in (*range(first), *between, *range(count - last, count))]
    return np.array(numbers, np.int64), list(found)


def _ends(count: int, is_inside: Callable[[int], bool]) -> tuple[int, int]:
    """How many parts at both ends are not inside."""
    first = next((at for at in range(count) if is_inside(at)), count)
    return first, next((at for at in range(count - first) if is_inside(count - 1 - at)), count - first)


@keep
def make_sweeps(
    kind: str, lanes: int, channels: int, axes: tuple[Axis, Axis, Axis], piece: tuple[int, int] | None = None
) -> Sweeps:
    """How planes are swept.

    ``kind``: ``forward``, ``input`` or ``weight``, for the directions; the first two followed by ``+`` where sums are
    added to what the result holds, so that no cell must be computed twice. ``channels``: source channels of a result
    channel. ``piece``: rows and columns of a task whose result is an array of this extent, instead of a part of the
    whole; columns are all, or a multiple of `WIDEST`.
    """
    make, dots = (input_grad_axis if kind.startswith("input") else forward_axis), kind == "weight"
    depth, height, width = (make(axis) for axis in axes)
    # By the mode, whether or not there is padding: a stretch of a longer axis then has its order of taps.
    bordering = not kind.startswith("input") and axes[2].mode != "zeros"
    packing = bordering or width.step > 2 or (width.step == 2 and axes[2].dilation > 1)
    packing |= row_taps(axes[2], kind.startswith("input")) > _MOST_MASKED
    stride = 1 if packing else width.step
    heights, widths, tall = both_phases(axes[1], height, width, stride)
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
    offsets = np.concatenate([phase.taps[:, 0] for phase in widths])
    if packing:
        offsets = (offsets - least) % width.step * slot_cells + (offsets - least) // width.step
    bordered = 2 if width.bordered else int(bool(height.bordered or depth.bordered))
    depths, of_slice, slot_classes = _depths(depth, phases.depth, not bordered)
    cell = VECTOR_BYTES // lanes
    result_width = block
    if piece is None:
        result_width = axes[2].input if kind.startswith("input") else axes[2].output
    cut = Cut(lanes, across, block, stride, packing, kind in ("forward", "input"), dots)
    units = _Units(cell, VECTOR_BYTES if dots else cell, result_width, channels, kind.endswith("+"))
    programs = _Programs(phases, cut, units, height, width, band)
    full = min(phase.positions for phase in heights) // band
    of_band, band_classes = _classes(
        bands,
        0,
        bands - full,
        lambda b: tuple(max(min(band, phase.positions - b * band), 0) for phase in heights),
    )
    first_blocks, last_blocks = _ends(blocks, programs.is_inside)
    of_block, block_classes = _classes(blocks, first_blocks, last_blocks, programs.block)
    order = _tap_order(phases, tuple(axis.kernel for axis in axes))
    sweeps: list[Array] = [np.empty((0, len(Sweep._fields)), np.int64)]
    bounds: list[list[int]] = []
    end = 0
    for slot, some, strips, ph in product(slot_classes, band_classes, block_classes, range(len(heights))):
        first = end
        made = programs.program(slot, some, strips, ph)
        sweeps += made
        end += sum(map(len, made))
        bounds.append([first, end])
    shape = (len(slot_classes), len(band_classes), len(block_classes), len(heights), 2)
    return Sweeps(
        *(depth.cells, height.cells, width.cells),
        *(height.step, width.step),
        *(height.target_step, width.target_step),
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
        programs.depth_taps,
        programs.lines,
        sum(phase.positions for phase in phases.depth),
        depth.step,
        depth.target_step,
        depth.bordered,
        depth.limit,
        height.bordered,
        height.limit,
        width.bordered,
        width.limit,
        first_blocks,
        depths,
        of_slice,
        _row_table(heights),
        _table([[phase.positions, phase.target] for phase in widths], 2),
        of_band,
        of_block,
        np.array(bounds, np.int64).reshape(shape),
        np.concatenate(sweeps),
        offsets,
        np.concatenate(programs.masks),
        order,
    )
