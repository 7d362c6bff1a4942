"""The Winograd algorithm on the device: tiles cut, tables made, their pieces transformed, multiplied, transformed back.

`winograd_kernels` says what is computed, and why so. The tiles of all samples are one row, cut into pieces; which tile
shares a piece with which changes no bit, so pieces may follow from the batch.
"""

from functools import lru_cache, partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ...arrays import Array
from ...plan import ConvPlan, plan_conv
from ..base import NO_EPILOGUE, About, Algorithm, Direction, PackedWeight
from ..tables import fill_value, stepping
from ..toom_cook import error_factor
from .device import Tensor, empty, settled
from .division import divisor
from .epilogue import DeviceEpilogue, finisher
from .gather import GatheredAxis, forward_axis, input_grad_axis
from .implicit_gemm import common_refusal, forward_launch, is_aligned, reachable, steps_of_sample
from .launching import blocks_for, launch
from .running import Launch, algorithm, packing
from .scratch import Kept, context, settled_words
from .tiles import DEPTH
from .winograd_kernels import HEAD, THREADS, grid_of, result_kernel, source_kernel, weight_kernel

__all__ = ["WINOGRAD"]

#: Elements of scratch memory, 64 MiB of float32: what a kernel takes to move its half is then about what Python takes
#: to launch it (12 us), and an H100's second-level cache holds most of it. No piece has fewer tiles than the second.
_SCRATCH, _LEAST_TILES = 2**24, 128
#: Elements that 32-bit offsets reach.
_MOST_ELEMENTS = 2**31

_TAPS = 3

#: The choice, by a model of the time for a sample in multiply-adds of float32, which nobody has measured yet.
#: ``_PLAIN``: what a multiply-add of `implicit_gemm` takes beside one of the products here, whose kernel is the same;
#: a tenth less, since errors are larger here. Where something else computes plain products faster, this is to change.
#: ``_PER_BYTE``: what a byte of scratch memory takes (an H100: 33e12 multiply-adds a second and, from its second-level
#: cache, some 4e12 bytes). ``_LAUNCHES``: what two more launches take (6 us). Weights and launches are those of a
#: batch, of which the choice must not know: ``_SAMPLES`` share them.
_PLAIN, _PER_BYTE, _LAUNCHES, _SAMPLES = 0.9, 8.0, 2e8, 8


class _Tiling(NamedTuple):
    """A plan cut into tiles; extents are of the direction that it was made for, channels those of a group.

    ``axes``: depth, height and width. ``tiles``: of a sample, along depth, height and width.
    """

    outputs: int
    groups: int
    channels: int
    rows: int
    axes: tuple[GatheredAxis, GatheredAxis, GatheredAxis]
    tiles: tuple[int, int, int]

    @property
    def area(self) -> int:
        """Frequencies."""
        return (self.outputs + _TAPS - 1) ** 2

    @property
    def of_sample(self) -> int:
        """Tiles of a sample."""
        return prod(self.tiles)

    @property
    def depths(self) -> int:
        """Channels of a group in the packed weight: as `implicit_gemm` pads them."""
        return -(-self.channels // DEPTH) * DEPTH

    @property
    def padded_rows(self) -> int:
        """Rows of the packed weight: whole quads."""
        return -(-self.rows // 4) * 4

    @property
    def weight_size(self) -> int:
        """Elements of one frequency of the packed weight."""
        return self.groups * self.depths * self.padded_rows

    @property
    def moved(self) -> int:
        """Elements of scratch memory for each tile."""
        return self.area * self.groups * (self.channels + self.rows)

    def pieces(self, batch: int) -> tuple[int, int]:
        """Tiles of a piece, whole quads, and pieces, for so many samples."""
        tiles = self.of_sample * batch
        most = max(_SCRATCH // max(self.moved, 1), _LEAST_TILES)
        pieces = max(-(-tiles // most), 1)
        pitch = max(-(-tiles // (4 * pieces)), 1) * 4
        return pitch, -(-tiles // pitch)


@lru_cache(maxsize=1024)
def _tiling(by_input: bool, outputs: int, plan: ConvPlan) -> _Tiling:
    """How a plan that is not refused is cut."""
    in_x, in_y = plan.x_channels // plan.groups, plan.y_channels // plan.groups
    channels, rows = (in_y, in_x) if by_input else (in_x, in_y)
    deep, down, across = ((input_grad_axis if by_input else forward_axis)(axis) for axis in plan.axes3)
    rows_of_tiles, along = (-(-axis.phases[0].positions // outputs) for axis in (down, across))
    tiles = deep.phases[0].positions, rows_of_tiles, along
    return _Tiling(outputs, plan.groups, channels, rows, (deep, down, across), tiles)


class _Made(NamedTuple):
    """What follows from the plan and the operands' layouts. ``wide``: neighbours that one access stores."""

    table: Any
    pitch: int
    pieces: int
    blocks: tuple[int, int]
    last: tuple[bool, bool]
    wide: int


def _line(axis: GatheredAxis, length: int, step: int) -> Array:
    """Offsets of the cells along an axis, or codes, as far as its tiles reach."""
    line = axis.phases[0].line[:length]
    cells = np.full(length, -1, np.int64)
    cells[: line.size] = np.where(line < 0, line, line * step)
    return cells


class _Winograd:
    """FORWARD and INPUT_GRAD of one plan; what is kept on the device is kept for a few layouts."""

    def __init__(self, by_input: bool, outputs: int, plan: ConvPlan):
        self.plan, self.by_input = plan, by_input
        self.tiling = tiling = _tiling(by_input, outputs, plan)
        self.compute = np.dtype(plan.compute_dtype)
        self.fill = fill_value(plan, self.compute)
        self.constant = not by_input and any(axis.mode == "constant" for axis in plan.axes)
        self.pitch, self.pieces = tiling.pieces(plan.batch)
        many = tiling.area * tiling.groups
        self.shapes = [(1, many * each, 1, 1, self.pitch) for each in (tiling.channels, tiling.rows)]
        self.multiply = forward_launch(
            plan_conv(
                (1, many * tiling.channels, self.pitch),
                (many * tiling.rows, tiling.channels, 1),
                groups=many,
                dtype=self.compute.name,
            )
        )
        self.unfinished = DeviceEpilogue(finisher(self.compute.name, NO_EPILOGUE), ())
        self._made: Kept[_Made] = Kept()
        self._tables: Kept[Any] = Kept()

    def made(self, source: Tensor, out: Tensor, stream: Any) -> _Made:
        """The table, and what kernels are compiled for, for these operands."""
        last = tuple(each.strides[1] == 1 and each.shape[1] > 1 for each in (source, out))
        wide = 1
        if out.strides[4] == 1 and not last[1]:
            possible = (each for each in (4, 2) if each <= self.tiling.outputs and out.shape[4] % each == 0)
            wide = next((each for each in possible if is_aligned(out, (0, 1, 2, 3), each)), 1)
        key = source.strides, out.strides, wide
        return self._made.of(key, self._make, source, out, (last[0], last[1]), wide, stream)

    def _make(self, source: Tensor, out: Tensor, last: tuple[bool, bool], wide: int, stream: Any) -> _Made:
        tiling = self.tiling
        x_steps, y_steps = steps_of_sample(source), steps_of_sample(out)
        deep, down, across = tiling.tiles
        lengths = (deep, down * tiling.outputs + _TAPS - 1, across * tiling.outputs + _TAPS - 1)
        lines = [
            _line(axis, length, step) for axis, length, step in zip(tiling.axes, lengths, x_steps[1:], strict=True)
        ]
        grids = [grid_of(each, at == 1) for at, each in enumerate(last)]
        channels = tiling.groups * tiling.channels, tiling.groups * tiling.rows
        across_blocks = [-(-each // grid[1]) for each, grid in zip(channels, grids, strict=True)]
        blocks = [each * -(-self.pitch // grid[0]) for each, grid in zip(across_blocks, grids, strict=True)]
        begins = np.cumsum([HEAD, *(line.size for line in lines[:2])])
        head = [self.pitch, *divisor(tiling.of_sample), *divisor(across), *divisor(down)]
        head += [across_blocks[0], channels[0], x_steps[0], *begins]
        head += [across_blocks[1], channels[1], *y_steps, *out.shape[3:]]
        return _Made(settled_words([head, *lines], stream), self.pitch, self.pieces, (blocks[0], blocks[1]), last, wide)

    def __call__(self, x: Tensor, w: Any, y: Tensor, epilogue: DeviceEpilogue, stream: Any) -> None:
        source, out = (y, x) if self.by_input else (x, y)
        source = reachable(source, stream)
        made, tiling, compute = self.made(source, out, stream), self.tiling, self.compute.name
        packed = w if isinstance(w, PackedWeight) else PackedWeight((self._packed(w, stream),))
        there = source_kernel(tiling.outputs, source.dtype.name, made.last[0], self.constant, compute)
        back = result_kernel(tiling.outputs, out.dtype.name, made.last[1], made.wide, compute, epilogue.finish)
        tiles = tiling.of_sample * self.plan.batch
        v, products = (empty(shape, self.compute, stream) for shape in self.shapes)
        for first in range(0, tiles, self.pitch):
            place = (*divmod(first, tiling.of_sample), min(self.pitch, tiles - first))
            read = source.data, v.data, made.table, source.strides[0], *place, self.fill
            launch(there, made.blocks[0], THREADS, stream, *read)
            self.multiply(v, packed, products, self.unfinished, stream)
            written = products.data, out.data, epilogue.extras, made.table, out.strides[0], *place
            launch(back, made.blocks[1], THREADS, stream, *written)

    def _packed(self, w: Tensor, stream: Any) -> Any:
        """A weight that was not prepared."""
        table = self._tables.of(w.strides, _weight_table, self.by_input, self.tiling, self.plan, w.strides, stream)
        return _packed(self.tiling, self.compute, table, w, stream)


def _weight_table(by_input: bool, tiling: _Tiling, plan: ConvPlan, strides: tuple[int, ...], stream: Any) -> Any:
    """What transforms weights with the strides that it was made for."""
    row_step, channel_step = (strides[1], strides[0]) if by_input else (strides[0], strides[1])
    # Taps by the cells that they meet, of which those of an input gradient are in descending order.
    down, across = ([k for k, _ in sorted(axis.phases[0].taps, key=lambda tap: tap[1])] for axis in tiling.axes[1:])
    taps = [i * strides[3] + j * strides[4] for i in down for j in across]
    sizes = tiling.weight_size, tiling.depths, tiling.channels, tiling.rows, tiling.padded_rows
    steps = row_step, channel_step, plan.y_channels // plan.groups * strides[0]
    return settled(np.array([*sizes, *steps, *taps], np.int64), stream)


def _packed(tiling: _Tiling, compute: np.dtype, table: Any, w: Tensor, stream: Any) -> Any:
    """A transformed weight, as the kernel of the products reads it."""
    packed = empty((tiling.area * tiling.weight_size,), compute, stream).data
    kernel = weight_kernel(tiling.outputs, w.dtype.name, compute.name)
    launch(kernel, blocks_for(tiling.weight_size, THREADS), THREADS, stream, w.data, packed, table)
    return packed


def _pack(by_input: bool, outputs: int, plan: ConvPlan, w: Tensor) -> Any:
    tiling = _tiling(by_input, outputs, plan)
    return _packed(tiling, np.dtype(plan.compute_dtype), _weight_table(by_input, tiling, plan, w.strides, 0), w, 0)


def _refusal(by_input: bool, outputs: int, plan: ConvPlan) -> str | None:
    refusal = common_refusal(plan)
    if refusal is not None:
        return refusal
    kernel = tuple(axis.kernel for axis in plan.axes3)
    if kernel != (1, _TAPS, _TAPS):
        return f"it filters kernels of 3x3, not of {'x'.join(str(axis.kernel) for axis in plan.axes)}"
    if any(stepping(axis).stride != 1 for axis in plan.axes3):
        return "tiles overlap at a stride of 1 alone"
    if any(axis.dilation != 1 for axis in plan.axes3):
        return "the cells of a tile are neighbours, but its taps are dilated"
    if by_input and any(axis.maps_padding for axis in plan.axes):
        return "padding that repeats cells adds several positions to one"
    tiling = _tiling(by_input, outputs, plan)
    most = tiling.area * tiling.groups * max(tiling.channels, tiling.rows) * _LEAST_TILES
    for what, elements in (("weight", tiling.area * tiling.weight_size), (f"piece of {_LEAST_TILES} tiles", most)):
        if elements >= _MOST_ELEMENTS:
            return f"its offsets reach {_MOST_ELEMENTS} elements, but a transformed {what} has {elements}"
    return None


def _error_factor(by_input: bool, outputs: int, plan: ConvPlan) -> float:
    channels = (plan.y_channels if by_input else plan.x_channels) // plan.groups
    return error_factor((outputs, _TAPS), (outputs, _TAPS), channels)


def _cost(tiling: _Tiling, itemsize: int) -> float:
    """The estimated time for a sample, in multiply-adds."""
    products = tiling.area * tiling.of_sample * tiling.groups * tiling.channels * tiling.rows
    # Written and read; of the weight, which may be prepared, only read.
    scratch = 2 * tiling.moved * tiling.of_sample + tiling.area * tiling.weight_size / _SAMPLES
    return products + scratch * itemsize * _PER_BYTE + _LAUNCHES / _SAMPLES


def _worthwhile(by_input: bool, outputs: int, plan: ConvPlan) -> str | None:
    """Whether the estimate is below that of `implicit_gemm`, and of tiles of the other size."""
    itemsize = np.dtype(plan.compute_dtype).itemsize
    tiling = _tiling(by_input, outputs, plan)
    positions = prod(axis.phases[0].positions for axis in tiling.axes)
    plain = _PLAIN * positions * _TAPS**2 * tiling.groups * tiling.channels * tiling.rows
    cost = _cost(tiling, itemsize)
    if cost >= plain:
        return f"its transforms and products are estimated at {_ratio(cost, plain)} times the cost of plain products"
    for other in _OUTPUTS.values():
        less = _cost(_tiling(by_input, other, plan), itemsize)
        if less < cost:
            return f"it is estimated at {_ratio(cost, less)} times the cost of tiles of {other}x{other} results"
    return None


def _ratio(cost: float, other: float) -> str:
    return f"{cost / other:.2f}" if other else "infinitely many"


def _winograd(direction: Direction, name: str, outputs: int) -> Algorithm:
    by_input = direction is Direction.INPUT_GRAD

    def make(plan: ConvPlan) -> Launch:
        return _Winograd(by_input, outputs, plan)

    return algorithm(
        name,
        direction,
        make,
        partial(_refusal, by_input, outputs),
        partial(_error_factor, by_input, outputs),
        packing=packing(lambda plan: (context(), by_input, outputs), partial(_pack, by_input, outputs)),
        spreading=True,
        worthwhile=partial(_worthwhile, by_input, outputs),
        family="winograd",
        about=_ABOUT[outputs],
    )


#: What is said of them in the documentation, by the results of a tile along an axis.
_ABOUT = {
    4: About(
        does="minimal filtering: F(4x4, 3x3), whose products are those of `implicit_gemm`",
        cost="36 products instead of 144 a tile; transforms of input, weight and result, and scratch memory between",
        chosen="3x3 kernels of stride 1 and enough channels, by a model of products and bytes",
        bound="of the largest values: `a (n + 40)` for `n` channels, `a` = 176",
        reach="errors, NaN and infinity, over a tile of results, in its group's channels",
    ),
    2: About(
        does="minimal filtering: F(2x2, 3x3), whose products are those of `implicit_gemm`",
        cost="16 products instead of 36 a tile; the transforms and scratch memory of `winograd`",
        chosen="where its tiles fit a small result better",
        bound="of the largest values: `a (n + 40)` for `n` channels, `a` = 16",
        reach="errors, NaN and infinity, over a tile of results, in its group's channels",
    ),
}

#: Results of a tile along both axes, by the names of the algorithms.
_OUTPUTS = {"winograd": 4, "winograd_2x2": 2}

#: The algorithms, for each direction.
WINOGRAD = {
    direction: tuple(_winograd(direction, name, outputs) for name, outputs in _OUTPUTS.items())
    for direction in (Direction.FORWARD, Direction.INPUT_GRAD)
}
