"""The implicit GEMM algorithm of WEIGHT_GRAD on the device: chunks of positions, tables, two kernels launched."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ...plan import ConvPlan
from ..base import Direction, any_order_factor
from ..tables import fill_value
from .device import Tensor, empty, settled
from .division import inverse
from .epilogue import DeviceEpilogue
from .gather import forward_axis
from .implicit_gemm import (
    BESIDE_CHANNELS,
    GATHERED,
    MOST_ENTRIES,
    common_refusal,
    is_aligned,
    reachable,
    steps_of_sample,
)
from .launching import THREADS, blocks_for, launch
from .running import algorithm
from .scratch import Kept
from .tiles import DEPTH, SMALL, WEIGHT_TILES, choose_tile
from .weight_gemm import EACH, HEAD, QUADS, sum_kernel, weight_kernel

__all__ = ["IMPLICIT_GEMM_WEIGHT", "Weight", "WeightProduct", "refusal_of_weight", "worthwhile"]

#: Chunks are as many as make so many tiles of 64x64 weights, of at least so many positions each.
_TILES, _LEAST_POSITIONS, _LARGEST_CHUNK = 528, 256, 2**30
#: Rows and columns of a group's weights below which a tile would be mostly empty.
_LEAST_ROWS, _LEAST_COLUMNS = 4, 4


def chunk_length(plan: ConvPlan, depth: int) -> int:
    """Positions of a chunk, whole steps, by the plan alone: neither the device nor the tile changes the sums."""
    positions = plan.batch * prod(plan.y_shape[2:])
    rows, columns = plan.y_channels // plan.groups, prod(plan.w_shape[1:])
    tiles = plan.groups * -(-rows // 64) * -(-columns // 64)
    chunks = max(min(-(-_TILES // max(tiles, 1)), positions // _LEAST_POSITIONS), 1)
    length = -(-positions // chunks)
    return min(max(-(-length // depth), 1) * depth, _LARGEST_CHUNK)


class _Made(NamedTuple):
    """What follows from the plan and the operands' layouts."""

    table: Any
    sum_table: Any
    tile: Any
    blocks: int
    sums: int
    how: str
    numbers: tuple[int, ...]


class WeightProduct:
    """What `Weight` does without tensor cores: its steps, tiles and kernels; ``depth``: of a step."""

    depth = DEPTH

    def __init__(self, plan: ConvPlan):
        self.compute = np.dtype(plan.compute_dtype)

    def fill(self, plan: ConvPlan) -> Any:
        """What constant padding holds, as kernels take it."""
        return fill_value(plan, self.compute)

    def tile(self, rows: int, columns: int, copies: int) -> Any:
        """The tile for ``copies`` products of so many rows and columns."""
        return choose_tile(WEIGHT_TILES[self.compute.itemsize], rows, columns, copies, SMALL)

    def way(self, last: bool, quads: bool) -> str:
        """How to gather, if channels are neighbours, and if quads of them may be read in one access."""
        return QUADS if quads else EACH

    def operand(self, tensor: Tensor, stream: Any) -> Tensor:
        """An operand as kernels take it."""
        return tensor

    def kernel(self, made: _Made, x: Tensor, y: Tensor) -> Any:
        """The kernel for these operands."""
        return weight_kernel(made.tile, x.dtype.name, y.dtype.name, made.how, self.compute.name)


class Weight:
    """WEIGHT_GRAD of one plan; what is kept on the device is kept for a few layouts."""

    def __init__(self, product: Callable[[ConvPlan], WeightProduct], plan: ConvPlan):
        self.plan, self.product = plan, product(plan)
        self.compute = np.dtype(plan.compute_dtype)
        self.fill = self.product.fill(plan)
        self._made: Kept[_Made] = Kept()

    def made(self, x: Tensor, w: Tensor, y: Tensor, stream: Any) -> _Made:
        """Tables and tile for these operands."""
        aligned = is_aligned(x, BESIDE_CHANNELS) and is_aligned(y, BESIDE_CHANNELS)
        return self._made.of((x.strides, w.strides, y.strides, aligned), self._make, x, w, y, aligned, stream)

    def _make(self, x: Tensor, w: Tensor, y: Tensor, aligned: bool, stream: Any) -> _Made:
        plan = self.plan
        outputs, inputs = plan.y_channels // plan.groups, plan.x_channels // plan.groups
        taps = prod(plan.w_shape[2:])
        columns = inputs * taps
        last = x.strides[1] == 1 and x.shape[1] > 1
        quads = last and aligned and y.strides[1] == 1 and outputs % 4 == 0 and inputs % 4 == 0
        length = chunk_length(plan, self.product.depth)
        chunks = -(-plan.batch * prod(plan.y_shape[2:]) // length)
        tile = self.product.tile(outputs, columns, plan.groups * chunks)
        row_blocks, column_blocks = -(-outputs // tile.rows), -(-columns // tile.columns)
        values = self._table(steps_of_sample(x), steps_of_sample(y), last, (row_blocks, column_blocks), length)
        weights = plan.groups * outputs * columns
        height, width = plan.w_shape[3:]
        of_sums = [weights, chunks, columns, taps, int(last), *w.strides[:2]]
        of_sums += [height * width, w.strides[2], width, w.strides[3], w.strides[4]]
        return _Made(
            settled(values, stream),
            settled(np.array(of_sums, np.int64), stream),
            tile,
            row_blocks * column_blocks * plan.groups * chunks,
            chunks * weights,
            self.product.way(last, quads),
            (outputs, columns, steps_of_sample(y)[0], *steps_of_sample(x)[1:]),
        )

    def _table(
        self, x_steps: tuple[int, ...], y_steps: tuple[int, ...], last: bool, blocks: tuple[int, int], length: int
    ) -> np.ndarray:
        """The integers that the kernel reads; `weight_gemm` says where each is."""
        plan = self.plan
        outputs, inputs = plan.y_channels // plan.groups, plan.x_channels // plan.groups
        phases = [forward_axis(axis).phases[0] for axis in plan.axes3]
        _, height, width = (phase.positions for phase in phases)
        along = np.meshgrid(*([at for _, at in phase.taps] for phase in phases), indexing="ij")
        offsets = np.stack(along, axis=-1).reshape(-1, 3)
        channels = np.arange(inputs, dtype=np.int64) * x_steps[0]
        lines_at = HEAD + np.cumsum([0, *(phase.line.size for phase in phases)])
        gap = -int(lines_at[3]) % 4
        entries = np.empty((inputs, len(offsets), 4), np.int64)
        entries[..., 0], entries[..., 1:] = channels[:, None], offsets
        if last:
            entries = entries.swapaxes(0, 1)
        positions = prod(plan.y_shape[2:])
        head = [*blocks, plan.groups, positions, length, int(lines_at[3]) + gap, plan.batch]
        for extent in (positions, width, height):
            head += inverse(extent)
        head += [width, height, *y_steps[1:], inputs * x_steps[0], outputs * y_steps[0]]
        head += [*lines_at[:3].tolist(), *(phase.step for phase in phases)]
        pieces = [head, *(phase.line for phase in phases), [0] * gap, np.ravel(entries)]
        values = np.concatenate([np.asarray(piece, np.int64) for piece in pieces])
        return values.astype(np.uint32).view(np.int32)

    def __call__(self, x: Tensor, w: Tensor, y: Tensor, epilogue: DeviceEpilogue, stream: Any) -> None:
        x, y = (reachable(self.product.operand(each, stream), stream) for each in (x, y))
        made = self.made(x, w, y, stream)
        sums = empty((made.sums,), self.compute, stream).data
        kernel = self.product.kernel(made, x, y)
        numbers = (x.strides[0], y.strides[0], self.fill, *made.numbers)
        launch(kernel, made.blocks, made.tile.threads, stream, x.data, y.data, sums, made.table, *numbers)
        total = sum_kernel(w.dtype.name, self.compute.name)
        launch(total, blocks_for(w.size), THREADS, stream, sums, w.data, made.sum_table)


def refusal_of_weight(plan: ConvPlan) -> str | None:
    """Why a weight gradient's tables do not suit a plan, if they do not."""
    taps, columns = prod(plan.w_shape[2:]), prod(plan.w_shape[1:])
    if max(8 * taps, columns) >= MOST_ENTRIES:
        return f"it has tables for {MOST_ENTRIES // 8} taps at most, not for {taps} and {columns} weights of a result"
    return common_refusal(plan)


def worthwhile(plan: ConvPlan) -> str | None:
    rows, columns = plan.y_channels // plan.groups, prod(plan.w_shape[1:])
    if rows < _LEAST_ROWS or columns < _LEAST_COLUMNS:
        return f"a group has {rows} result channels of {columns} weights, of which most of a tile would be empty"
    return None


#: The algorithm.
IMPLICIT_GEMM_WEIGHT = algorithm(
    "implicit_gemm",
    Direction.WEIGHT_GRAD,
    partial(Weight, WeightProduct),
    refusal_of_weight,
    partial(any_order_factor, Direction.WEIGHT_GRAD),
    worthwhile=worthwhile,
    about=GATHERED,
)
