"""A plan cut for Winograd: tiles of its rows and columns, parts whose transforms fit a cache."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from ...arrays import Array
from ...plan import ConvPlan
from ..base import Direction
from . import winograd
from .gather import PhasedAxis
from .gathered import axes_of
from .simd import VECTOR_BYTES

__all__ = ["Part", "Tiling", "frequency_cells", "mode_of", "parts_of", "tiling_of"]

#: Bytes of transformed source at a time.
_PART_BYTES = 6 << 20


def _tile_starts(extent: int, outputs: int, dilation: int) -> Array:
    """Where tiles start so that each position lies in one: interleaved where dilated, in order."""
    starts = [
        phase + dilation * first
        for phase in range(dilation)
        for first in range(0, -((phase - extent) // dilation), outputs)
    ]
    return np.array(sorted(starts), np.int64)


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


@lru_cache(maxsize=1024)
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


@dataclass(frozen=True)
class Part:
    """A range of samples, of result depths with the slices that they read, and of rows of tiles."""

    first_sample: int
    samples: int
    first_depth: int
    depths: int
    first_slice: int
    slices: int
    first_row: int
    rows: int


def _slices(tiling: Tiling, first: int, depths: int) -> tuple[int, int]:
    """The slices ``[first, last)`` that result depths read."""
    begin = max(first + int(tiling.depth_taps.min()), 0)
    end = min(first + depths - 1 + int(tiling.depth_taps.max()) + 1, tiling.cells[0])
    return begin, max(end, begin)


def parts_of(tiling: Tiling, batch: int) -> Iterator[Part]:
    """The problem in parts whose transformed source is small: samples first, then depths, then rows of tiles.

    Results do not depend on it: an element is summed within one tile.
    """
    depths, all_rows = tiling.target[0], tiling.downs.size
    row_bytes = prod(tiling.products) * tiling.acrosses.size * tiling.padded_channels * tiling.dtype.itemsize
    slices = max(_slices(tiling, 0, depths)[1] - _slices(tiling, 0, depths)[0], 1)
    samples = min(max(_PART_BYTES // (row_bytes * all_rows * slices), 1), batch)
    taps = int(tiling.depth_taps.max() - tiling.depth_taps.min())
    deep = min(max(_PART_BYTES // (row_bytes * all_rows) - taps, 1), depths) if samples == 1 else depths
    rows = min(max(_PART_BYTES // (row_bytes * (taps + 1)), 1), all_rows) if deep == 1 else all_rows
    for n in range(0, batch, samples):
        for d in range(0, depths, deep):
            begin, end = _slices(tiling, d, min(deep, depths - d))
            for row in range(0, all_rows, rows):
                yield Part(
                    n,
                    min(samples, batch - n),
                    d,
                    min(deep, depths - d),
                    begin,
                    end - begin,
                    row,
                    min(rows, all_rows - row),
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
