"""One spatial axis as kernels see it: integers and index tables, from ``plan.Axis``."""

from typing import NamedTuple

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import CONSTANT, Axis
from ..tables import keep_small, preimages, source_table, stepping

__all__ = ["AXIS", "AxisTable", "axis_table"]


class AxisTable(NamedTuple):
    """Extents, and tables of int64.

    ``source``: the input cell at each used padded position, or ``ZERO`` or ``CONSTANT``.
    ``phases``: the stride phases that some tap reads; ``slot[k]`` is tap ``k``'s place among them,
    ``slot_of_phase[phase]`` a phase's (-1: no tap reads it), and ``shift[k]`` the tap's shift, so that tap
    ``k`` of output ``o`` reads position ``stride * (o + shift[k]) + phases[slot[k]]``.
    ``preimage[preimage_start[i] : preimage_start[i + 1]]``: the padded positions that hold input cell ``i``,
    where padding repeats cells (``mapped``); elsewhere the only one is ``i + pad``.
    """

    input: int
    output: int
    kernel: int
    stride: int
    dilation: int
    pad: int
    used: int
    reach: int
    mapped: int
    constant: int
    source: Array
    phases: Array
    slot: Array
    slot_of_phase: Array
    shift: Array
    preimage_start: Array
    preimage: Array


_TABLE = types.Array(types.int64, 1, "C")
#: The table's Numba type.
AXIS = types.NamedTuple([types.int64] * 10 + [_TABLE] * 7, AxisTable)


@keep_small
def axis_table(axis: Axis) -> AxisTable:
    """The tables of an axis."""
    axis = stepping(axis)
    taps = [axis.tap_phase(k) for k in range(axis.kernel)]
    phases = sorted({phase for phase, _ in taps})
    slot_of_phase = np.full(axis.stride, -1, np.int64)
    slot_of_phase[phases] = np.arange(len(phases))
    nothing = np.zeros(1, np.int64)
    start, positions = preimages(axis) if axis.maps_padding else (nothing, nothing)
    source = source_table(axis)
    return AxisTable(
        input=axis.input,
        output=axis.output,
        kernel=axis.kernel,
        stride=axis.stride,
        dilation=axis.dilation,
        pad=axis.pad_before,
        used=axis.used,
        reach=max(shift for _, shift in taps),
        mapped=int(axis.maps_padding),
        constant=int(bool((source == CONSTANT).any())),
        source=source,
        phases=np.array(phases, np.int64),
        slot=slot_of_phase[[phase for phase, _ in taps]],
        slot_of_phase=slot_of_phase,
        shift=np.array([shift for _, shift in taps], np.int64),
        preimage_start=start,
        preimage=positions,
    )
