"""What a gather over an axis, a phase and a whole problem needs, from the plan: the tables that kernels read.

FORWARD and INPUT_GRAD are the same dense problem once stride phases are apart: along each axis, tap ``t`` of position
``p`` reads the cell ``line[p * step + offset(t)]``. A line holds cells, or ``ZERO`` or ``CONSTANT``::

    FORWARD      line: the padded axis, whatever its mode     step: the stride     offset: k * dilation
    INPUT_GRAD   line: cells of y around those of a phase     step: 1              offset: from the tap's shift

A table is one array of 32-bit integers: a head, a record for each phase, lines, and four integers for each tap (with
``flat`` for each depth): the channel's offset in the source or -1 for nothing, and the offsets along the lines.
"""

from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ...arrays import Array
from ...plan import CONSTANT, ZERO, Axis, ConvPlan
from ..tables import keep, source_table, stepping
from .tiles import DEPTH

__all__ = [
    "STEP_OF_TILES",
    "Gather",
    "GatherPhases",
    "GatheredAxis",
    "Step",
    "forward_axis",
    "gather_of",
    "gather_phases",
    "input_grad_axis",
]

#: Where the head's integers are. ``SOURCE``: elements from channel to channel and along the axes; so ``TARGET``.
ROW_BLOCKS, COLUMN_BLOCKS, GROUPS, ROWS, CHANNELS, PADDED_ROWS, GROUP_SIZE, BATCH, VECTOR = range(9)
SOURCE, TARGET, TARGET_STEP = 9, 13, 17
#: Where records begin, how long one is, and what it holds: tiles of depth, the first depth in the packed weights, where
#: taps begin, positions; by axis: extents (of height and width), where its line begins, its step, the first target.
RECORDS, RECORD = 20, 16
STEPS, PACKED_FROM, TAPS, POSITIONS, SHAPE, LINES, STEP, FIRST = 0, 1, 2, 3, 4, 6, 9, 12

#: What lines hold where there is no cell.
ZERO_CODE, CONSTANT_CODE = ZERO, CONSTANT


class Phase(NamedTuple):
    """One phase of an axis: positions, the target of the first, its line, its step, and (tap, offset) pairs."""

    positions: int
    first: int
    line: Array
    step: int
    taps: tuple[tuple[int, int], ...]


class GatheredAxis(NamedTuple):
    """An axis in all its phases; positions of a phase are ``target_step`` apart in the result."""

    target_step: int
    phases: tuple[Phase, ...]


@keep
def forward_axis(axis: Axis) -> GatheredAxis:
    """How FORWARD reads an axis of the input: a single phase."""
    axis = stepping(axis)
    taps = tuple((k, k * axis.dilation) for k in range(axis.kernel))
    return GatheredAxis(1, (Phase(axis.output, 0, source_table(axis), axis.stride, taps),))


@keep
def input_grad_axis(axis: Axis) -> GatheredAxis:
    """How INPUT_GRAD reads an axis of the output gradient: a phase for each that has input cells."""
    axis = stepping(axis)
    cells = np.arange(min(axis.input, axis.stride), dtype=np.int64)
    phases = []
    of_phase: dict[int, list[tuple[int, int]]] = {}
    for k in range(axis.kernel):
        phase, shift = axis.tap_phase(k)
        of_phase.setdefault(phase, []).append((k, shift))
    for phase in np.sort((cells + axis.pad_before) % axis.stride).tolist():
        begin = -((phase - axis.pad_before) // axis.stride)  # the first q with stride * q + phase >= pad
        first = begin * axis.stride + phase - axis.pad_before
        count = -((first - axis.input) // axis.stride)
        bases = [(k, begin - shift) for k, shift in of_phase.get(phase, ())]
        lowest = min((base for _, base in bases), default=0)
        highest = max((base for _, base in bases), default=0)
        line = np.arange(lowest, highest + count)
        line[(line < 0) | (line >= axis.output)] = ZERO
        phases.append(Phase(count, first, line, 1, tuple((k, base - lowest) for k, base in bases)))
    return GatheredAxis(axis.stride, tuple(phases))


class GatherPhases(NamedTuple):
    """What a gather is without its operands' layouts, and all that packed weights depend on.

    ``combined``: the phases of depth, height and width. ``unit``: depths of a tap in the packed weights. ``taps``: the
    weight's taps in the packed order, with their first channel; None is a depth that pads. ``begins``: where a phase's
    taps begin, and the end. ``depths``: of the packed weights.
    """

    rows: int
    channels: int
    target_steps: tuple[int, ...]
    combined: tuple[tuple[Phase, ...], ...]
    flat: bool
    unit: int
    taps: tuple[tuple[int, int, int, int] | None, ...]
    begins: tuple[int, ...]

    @property
    def padded_rows(self) -> int:
        """Rows of the packed weights: whole quads."""
        return -(-self.rows // 4) * 4

    @property
    def depths(self) -> int:
        """Depth of the packed weights, all phases together."""
        return len(self.taps) * self.unit


class Gather(NamedTuple):
    """A problem as kernels take it; how many blocks there are is for the owner of the tile to fill in.

    ``largest``: positions of the largest phase in one sample.
    """

    rows: int
    channels: int
    flat: bool
    phases: int
    largest: int
    table: Array


class Step(NamedTuple):
    """How deep a kernel's steps are, and which part of the depth a tap at a time may leave empty."""

    depth: int
    most_empty: float

    def is_flat(self, channels: int) -> bool:
        """Whether a tap at a time would leave too much empty."""
        padded = -(-channels // self.depth) * self.depth
        return padded - channels > self.most_empty * padded


#: The steps of kernels without tensor cores.
STEP_OF_TILES = Step(DEPTH, 1 / 8)


def gather_phases(plan: ConvPlan, by_input: bool, step: Step) -> GatherPhases:
    """The phases of FORWARD, of which there is one, or with ``by_input`` of INPUT_GRAD."""
    outputs, inputs = plan.y_channels // plan.groups, plan.x_channels // plan.groups
    rows, channels = (inputs, outputs) if by_input else (outputs, inputs)
    axes = [(input_grad_axis if by_input else forward_axis)(axis) for axis in plan.axes3]
    flat = step.is_flat(channels)
    combined = tuple(product(*(axis.phases for axis in axes)))
    taps: list[tuple[int, int, int, int] | None] = []
    begins = [0]
    for phases in combined:
        for (kd, _), (kh, _), (kw, _) in product(*(phase.taps for phase in phases)):
            taps += [(kd, kh, kw, c) for c in range(channels if flat else min(channels, 1))]
        if flat:
            taps += [None] * (-len(taps) % step.depth)
        begins.append(len(taps))
    unit = 1 if flat else max(-(-channels // step.depth), 1) * step.depth
    steps = tuple(axis.target_step for axis in axes)
    return GatherPhases(rows, channels, steps, combined, flat, unit, tuple(taps), tuple(begins))


def _entries(phases: tuple[Phase, ...], taps: tuple[tuple[int, int, int, int] | None, ...], step: int) -> list[int]:
    """Four integers for each tap of a phase: its channel's offset, or -1 for nothing, and offsets along the lines."""
    offsets = [dict(phase.taps) for phase in phases]
    entries = []
    for tap in taps:
        if tap is None:
            entries += [-1, 0, 0, 0]
        else:
            entries += [tap[3] * step, *(of_axis[k] for of_axis, k in zip(offsets, tap[:3], strict=True))]
    return entries


def gather_of(
    plan: ConvPlan,
    by_input: bool,
    step: Step,
    source_steps: tuple[int, ...],
    target_steps: tuple[int, ...],
    vector: bool,
) -> Gather:
    """The gather of FORWARD, or with ``by_input`` of INPUT_GRAD.

    Steps are elements from one channel, and along each axis from one cell to the next. ``vector``: whether quads of a
    result (of channels where these are neighbours, else of positions) are aligned stretches of memory.
    """
    made = gather_phases(plan, by_input, step)
    lines = {id(phase.line): phase.line for phases in made.combined for phase in phases}
    at = RECORDS + RECORD * len(made.combined)
    lines_at = {}
    for name, line in lines.items():
        lines_at[name] = at
        at += line.size
    gap = -at % 4
    taps_at = at + gap
    records, entries = [], []
    for phases, begin, end in zip(made.combined, made.begins[:-1], made.begins[1:], strict=True):
        records += [(end - begin) * made.unit // step.depth, begin * made.unit, taps_at + 4 * begin]
        records += [prod(phase.positions for phase in phases), phases[1].positions, phases[2].positions]
        records += [lines_at[id(phase.line)] for phase in phases]
        records += [*(phase.step for phase in phases), *(phase.first for phase in phases), 0]
        entries += _entries(phases, made.taps[begin:end], source_steps[0])
    largest = max((prod(phase.positions for phase in phases) for phases in made.combined), default=0)
    padded_rows = made.padded_rows
    head = [0, 0, plan.groups, made.rows, made.channels, padded_rows, made.depths * padded_rows, plan.batch]
    head += [int(vector), *source_steps, *target_steps, *made.target_steps]
    pieces: list[Any] = [head, records, *lines.values(), [0] * gap, entries]
    table = np.concatenate([np.asarray(piece, np.int64) for piece in pieces]).astype(np.int32)
    return Gather(made.rows, made.channels, made.flat, len(made.combined), largest, table)
