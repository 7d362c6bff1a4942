"""A plan cut for Winograd: tiles of its rows and columns."""

from dataclasses import dataclass
from math import prod

import numpy as np

from ...arrays import Array
from ...plan import ConvPlan
from ..base import Direction
from ..tables import keep
from . import winograd
from .gather import PhasedAxis
from .gathered import axes_of
from .simd import VECTOR_BYTES

__all__ = ["Tiling", "frequency_cells", "mode_of", "tiling_of"]


def _tile_starts(extent: int, outputs: int, dilation: int) -> Array:
    """Where tiles start so that each position lies in one: interleaved where dilated, in order."""
    positions = np.arange(extent, dtype=np.int64)
    starts: Array = positions[positions // dilation % outputs == 0]
    return starts


@dataclass(frozen=True)
class Tiling:
    """A plan as tiles; every extent is of the direction that it was made for."""

    mode: int
    dtype: np.dtype
    groups: int
    channels: int
    rows: int
    depth_taps: Array
    origins: tuple[int, int]
    steps: tuple[int, int]
    downs: Array
    acrosses: Array
    cells: tuple[int, int, int]
    target: tuple[int, int, int]
    lanes: int

    @property
    def products(self) -> tuple[int, int]:
        (down, down_taps), (across, across_taps) = winograd.MODES[self.mode]
        return down + down_taps - 1, across + across_taps - 1

    @property
    def outputs(self) -> tuple[int, int]:
        (down, _), (across, _) = winograd.MODES[self.mode]
        return down, across

    @property
    def taps(self) -> int:
        """Taps of a slice of the kernel."""
        (_, down), (_, across) = winograd.MODES[self.mode]
        return down * across

    @property
    def row_vectors(self) -> int:
        """Vectors of a group's result channels."""
        return -(-self.rows // self.lanes)

    @property
    def weight_frequency(self) -> int:
        """Cells from one frequency of the weights to the next; odd in vectors, so that they fall into other sets."""
        cells = self.groups * self.row_vectors * self.lanes * self.depth_taps.size * self.channels
        return cells + self.lanes * (1 - cells // self.lanes % 2)

    @property
    def weight_size(self) -> int:
        return prod(self.products) * self.weight_frequency

    @property
    def padded_channels(self) -> int:
        return -(-self.groups * self.channels // self.lanes) * self.lanes


def _steps(axis: PhasedAxis) -> int:
    """The distance of neighbouring taps' cells; 1 where there is one tap."""
    return int(abs(axis.base[1] - axis.base[0])) if axis.base.size > 1 else 1


@keep
def tiling_of(direction: Direction, mode: int, plan: ConvPlan) -> Tiling:
    by_input = direction is Direction.INPUT_GRAD
    depth, height, width = axes_of(direction, plan)
    (down, _), (across, _) = winograd.MODES[mode]
    x_channels, y_channels = plan.x_channels // plan.groups, plan.y_channels // plan.groups
    steps = (_steps(height), _steps(width))
    dtype = np.dtype(plan.compute_dtype)
    return Tiling(
        mode=mode,
        dtype=dtype,
        groups=plan.groups,
        channels=y_channels if by_input else x_channels,
        rows=x_channels if by_input else y_channels,
        depth_taps=depth.base,
        origins=(int(height.base.min()), int(width.base.min())),
        steps=steps,
        downs=_tile_starts(int(height.positions[0]), down, steps[0]),
        acrosses=_tile_starts(int(width.positions[0]), across, steps[1]),
        cells=(depth.cells, height.cells, width.cells),
        target=(int(depth.positions[0]), int(height.positions[0]), int(width.positions[0])),
        lanes=VECTOR_BYTES // dtype.itemsize,
    )


def frequency_cells(rows: int, padded: int, lanes: int) -> int:
    """Cells from one frequency of the transformed source to the next; odd in vectors, as for the weights."""
    cells = rows * padded
    return cells + lanes * (1 - cells // lanes % 2)


def _kernel_of(mode: int) -> tuple[int, int]:
    (_, down), (_, across) = winograd.MODES[mode]
    return down, across


def mode_of(plan: ConvPlan, tile: int) -> int | None:
    """The filtering for a plan's kernel, of ``tile`` outputs along an axis of 3 taps."""
    kernel = tuple(axis.kernel for axis in plan.axes3[1:])
    for mode, ((down, _), (across, _)) in enumerate(winograd.MODES):
        if _kernel_of(mode) == kernel and (tile == 2) == (max(down, across) == 2 and kernel == (3, 3)):
            return mode
    return None
