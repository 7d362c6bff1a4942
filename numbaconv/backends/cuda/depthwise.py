"""The depthwise algorithm on the device: walks chosen, tables made, kernels launched."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ...arrays import Array
from ...plan import ConvPlan
from ..base import About, Algorithm, Direction, any_order_factor
from ..tables import fill_value, source_table, stepping
from .depthwise_kernels import ALONG, DOTS_HEAD, DOWN, LAST, SWEEP_HEAD, dots_kernel, sweep_kernel
from .device import Tensor, empty, in_layout_of, settled
from .division import divisor
from .epilogue import DeviceEpilogue
from .implicit_gemm import common_refusal, reachable, steps_of_sample
from .launching import blocks_for, launch
from .running import Launch, algorithm
from .scratch import Kept, settled_words
from .walks import RESULTS, Walk, forward_lists, forward_walk, input_lists, input_walk
from .weight_gemm import sum_kernel

__all__ = ["DEPTHWISE"]

#: Threads of a block, and how many of them at most have different channels in WEIGHT_GRAD.
THREADS, BESIDE = 128, 32
#: Result channels of a group up to which it is worth reading the source again for each.
_MOST_ROWS = 4
#: Entries of a table above which it would outgrow what it is for.
_MOST_ENTRIES = 2**20
#: Sums of a thread of WEIGHT_GRAD; chunks are as many as make so many blocks, of at least so many units a thread.
_MOST_SUMS, _BLOCKS, _LEAST_UNITS = 25, 1056, 4


class _Made(NamedTuple):
    """What follows from the plan and the operands' layouts."""

    kernel: Callable[..., Any]
    table: Any
    blocks: int
    units: int = 0
    sums: int = 0
    sum_table: Any = None


class _Depthwise:
    """One plan; what is kept on the device is kept for a few layouts."""

    def __init__(self, plan: ConvPlan):
        self.plan = plan
        self.compute = np.dtype(plan.compute_dtype)
        self.fill = fill_value(plan, self.compute)
        self.constant = any(axis.mode == "constant" for axis in plan.axes)
        self._made: Kept[_Made] = Kept()

    def made(self, make: Callable[..., _Made], *operands: Tensor, stream: Any) -> _Made:
        """Tables and what the kernel is compiled for, for these operands."""
        layouts = tuple((each.strides, each.dtype) for each in operands)
        return self._made.of(layouts, make, *operands, stream)


def _order(last: bool, along: bool) -> str:
    """How threads lie; ``along``: whether the walk is to be along the width."""
    return LAST if last else ALONG if along else DOWN


def _walked(plan: ConvPlan, by_input: bool, last: bool) -> int:
    """The axis to walk along, whose taps are the innermost of a sum: by what has taps, never by extents.

    Axes without taps may come and go with extents, as plans fold them. It is the last but one with taps, or the last
    one for channels last, and for INPUT_GRAD where that is strided.
    """
    tapped = [at for at, axis in enumerate(plan.axes3) if axis.kernel > 1] or [2]
    strided = by_input and stepping(plan.axes3[tapped[-1]]).stride > 1
    return tapped[-1] if last or strided else tapped[-2:][0]


def _is_last(tensor: Tensor) -> bool:
    return tensor.strides[1] == 1 and tensor.shape[1] > 1


def _offsets(cells: Array, step: int) -> Array:
    """Cells as offsets into a sample; codes as they are."""
    return np.where(cells < 0, cells, cells * step)


class _Sweep(_Depthwise):
    """FORWARD and INPUT_GRAD."""

    def __init__(self, by_input: bool, plan: ConvPlan):
        super().__init__(plan)
        self.by_input = by_input

    def _table(self, source: Tensor, w: Tensor, out: Tensor, order: str, a: int, stream: Any) -> tuple[Any, Walk, int]:
        """The integers that the kernel reads (`depthwise_kernels.py` says where each is), the walk, and the blocks."""
        plan, by_input = self.plan, self.by_input
        outputs, inputs = plan.y_channels // plan.groups, plan.x_channels // plan.groups
        rows, channels = (inputs, outputs) if by_input else (outputs, inputs)
        d, b = (axis for axis in range(3) if axis != a)
        walk = (input_walk if by_input else forward_walk)(plan.axes3[a])
        lists = [
            input_lists(plan.axes3[axis]) if by_input else forward_lists(plan.axes3[axis], self.constant)
            for axis in (b, d)
        ]
        x_steps, y_steps, w_steps = steps_of_sample(source), steps_of_sample(out), w.strides
        extents = {LAST: (out.shape[1], walk.threads, out.shape[2 + b])}
        extents[ALONG] = (walk.threads, out.shape[2 + b], out.shape[2 + d])
        extents[DOWN] = (out.shape[2 + b], walk.threads, out.shape[2 + d])
        units = walk.threads * out.shape[2 + b] * out.shape[2 + d] * out.shape[1]
        blocks = blocks_for(units, THREADS)
        row_step, channel_step = (w_steps[1], w_steps[0]) if by_input else (w_steps[0], w_steps[1])
        head = [units, blocks]
        for extent in (*extents[order], rows):
            head += divisor(extent)
        head += [channels, x_steps[0], y_steps[0], *(y_steps[1 + axis] for axis in (a, b, d))]
        head += [outputs * w_steps[0], row_step, channel_step, w_steps[2 + a]]
        first_b = SWEEP_HEAD + walk.line.size
        first_d = first_b + lists[0].begins.size
        begin = first_d + lists[1].begins.size
        pairs = (begin + 1) // 2
        head += [SWEEP_HEAD + walk.start, walk.advance, walk.unit, walk.shift, walk.chunks]
        head += [plan.axes3[a].kernel, out.shape[2 + a], first_b, first_d]
        pieces: list[Any] = [head, _offsets(walk.line, x_steps[1 + a])]
        entries = []
        for axis, each in zip((b, d), lists, strict=True):
            pieces.append(each.begins + pairs)
            pairs += each.taps.size
            of_cells = _offsets(each.cells, x_steps[1 + axis])
            entries.append(np.stack([of_cells, each.taps * w_steps[2 + axis]], axis=-1).ravel())
        return settled_words([*pieces, [0] * (begin % 2), *entries], stream), walk, blocks

    def _make(self, source: Tensor, w: Tensor, out: Tensor, stream: Any) -> _Made:
        walked = _walked(self.plan, self.by_input, _is_last(out))
        order = _order(_is_last(out), walked == 2)
        table, walk, blocks = self._table(source, w, out, order, walked, stream)
        dtypes = source.dtype.name, w.dtype.name, out.dtype.name
        constant = self.constant and not self.by_input
        walked = walked if constant else 2  # the same kernel for all axes where it makes no difference
        chosen = (walk.pattern, order, walked, walk.chunks > 1, constant, dtypes, self.compute.name)
        return _Made(partial(sweep_kernel, *chosen), table, blocks * self.plan.batch)

    def __call__(self, x: Tensor, w: Tensor, y: Tensor, epilogue: DeviceEpilogue, stream: Any) -> None:
        source, out = (y, x) if self.by_input else (x, y)
        source = reachable(source, stream)
        if w.span >= 2**31:
            w = in_layout_of(w, empty(w.shape, w.dtype, stream), stream)
        made = self.made(self._make, source, w, out, stream=stream)
        numbers = made.table, source.strides[0], out.strides[0], self.fill
        kernel = made.kernel(epilogue.finish)
        launch(kernel, made.blocks, THREADS, stream, source.data, w.data, out.data, epilogue.extras, *numbers)


def _line(axis: Any, tiles: int, lines: int, step: int) -> Array:
    """The offsets that WEIGHT_GRAD reads across the walk, as far as its tiles of taps reach."""
    axis = stepping(axis)
    line = _offsets(source_table(axis), step)
    length = (max(axis.output, 1) - 1) * axis.stride + (tiles * lines - 1) * axis.dilation + 1
    return np.concatenate([line, np.full(max(length - line.size, 0), -1)])


class _Weight(_Depthwise):
    """WEIGHT_GRAD: two kernels."""

    def _chunks(self, blocks: int, lanes: int, units: int) -> tuple[int, int]:
        """Units of a chunk, and chunks, by the plan and the layout alone."""
        chunks = max(min(-(-_BLOCKS // blocks), units // (lanes * _LEAST_UNITS)), 1, units // 2**29)
        length = max(-(-units // chunks), 1)
        return length, max(-(-units // length), 1)

    def _make(self, x: Tensor, w: Tensor, y: Tensor, stream: Any) -> _Made:
        plan = self.plan
        outputs, inputs = plan.y_channels // plan.groups, plan.x_channels // plan.groups
        last = _is_last(x)
        order = _order(last, y.shape[3] < RESULTS)
        a, b, d = (1, 2, 0) if order == DOWN else (2, 1, 0)
        walk, kernel = forward_walk(plan.axes3[a]), tuple(axis.kernel for axis in plan.axes3)
        tiles_b = -(-kernel[b] // max(_MOST_SUMS // walk.pattern.taps, 1))
        lines = -(-kernel[b] // tiles_b)
        pairs, taps = plan.groups * outputs * inputs, prod(kernel)
        beside = min(BESIDE, THREADS, 1 << (pairs - 1).bit_length()) if last else 1
        pair_blocks = -(-pairs // beside)
        of_sample = walk.threads * y.shape[2 + b] * y.shape[2 + d]
        tiles = (walk.chunks, tiles_b, kernel[d])
        length, chunks = self._chunks(prod(tiles) * pair_blocks, THREADS // beside, of_sample * plan.batch)
        extents = (y.shape[2 + b], walk.threads) if order == DOWN else (walk.threads, y.shape[2 + b])
        x_steps, y_steps = steps_of_sample(x), steps_of_sample(y)
        head = [pairs, *tiles, pair_blocks, length]
        for extent in (of_sample, *extents, outputs, inputs):
            head += divisor(extent)
        head += [x_steps[0], y_steps[0], *(y_steps[1 + axis] for axis in (a, b, d))]
        of_lines = [
            _line(plan.axes3[axis], count, deep, x_steps[1 + axis])
            for axis, count, deep in ((b, tiles_b, lines), (d, kernel[d], 1))
        ]
        line_b = DOTS_HEAD + walk.line.size
        head += [DOTS_HEAD + walk.start, walk.advance, walk.unit, walk.shift]
        for axis, at in ((b, line_b), (d, line_b + of_lines[0].size)):
            stepped = stepping(plan.axes3[axis])
            head += [at, stepped.stride, stepped.dilation]
        tap_steps = (kernel[1] * kernel[2], kernel[2], 1)
        head += [*(tap_steps[axis] for axis in (a, b, d)), kernel[a], kernel[b], taps, y.shape[2 + a]]
        columns = inputs * taps
        of_sums = [pairs * taps, chunks, columns, taps, 0, *w.strides[:2]]
        of_sums += [tap_steps[0], w.strides[2], tap_steps[1], w.strides[3], w.strides[4]]
        dtypes = x.dtype.name, y.dtype.name
        chosen = (walk.pattern, lines, order, self.constant, THREADS, beside, dtypes, self.compute.name)
        return _Made(
            partial(dots_kernel, *chosen),
            settled_words([head, _offsets(walk.line, x_steps[1 + a]), *of_lines], stream),
            prod(tiles) * pair_blocks * chunks,
            of_sample * plan.batch,
            chunks * pairs * taps,
            settled(np.array(of_sums, np.int64), stream),
        )

    def __call__(self, x: Tensor, w: Tensor, y: Tensor, epilogue: DeviceEpilogue, stream: Any) -> None:
        x, y = reachable(x, stream), reachable(y, stream)
        made = self.made(self._make, x, w, y, stream=stream)
        sums = empty((made.sums,), self.compute, stream).data
        numbers = made.table, made.units, x.strides[0], y.strides[0], self.fill
        launch(made.kernel(), made.blocks, THREADS, stream, x.data, y.data, sums, *numbers)
        total = sum_kernel(w.dtype.name, self.compute.name)
        launch(total, blocks_for(w.size, THREADS), THREADS, stream, sums, w.data, made.sum_table)


def _refusal(direction: Direction, plan: ConvPlan) -> str | None:
    outputs, inputs = plan.y_channels // plan.groups, plan.x_channels // plan.groups
    if min(outputs, inputs) != 1:
        return f"a group has {inputs} input and {outputs} output channels, and one on neither side"
    refusal = common_refusal(plan)
    if refusal is not None:
        return refusal
    by_input = direction is Direction.INPUT_GRAD
    if by_input and any(axis.maps_padding for axis in plan.axes):
        return "padding that repeats cells adds several positions to one"
    for axis in map(stepping, plan.axes3):
        entries = (axis.input if by_input else axis.output) * axis.kernel
        if max(entries, axis.kernel * (axis.stride + axis.dilation)) >= _MOST_ENTRIES:
            return f"an axis has {_MOST_ENTRIES} pairs of a result and a tap at most, not {entries}"
    return None


def _worthwhile(direction: Direction, plan: ConvPlan) -> str | None:
    rows = (plan.x_channels if direction is Direction.INPUT_GRAD else plan.y_channels) // plan.groups
    if rows > _MOST_ROWS:
        return f"a group has {rows} result channels, each of which would read all cells"
    return None


def _of(direction: Direction) -> Algorithm:
    by_input = direction is Direction.INPUT_GRAD
    make: Callable[[ConvPlan], Launch] = _Weight if direction is Direction.WEIGHT_GRAD else partial(_Sweep, by_input)
    return algorithm(
        "depthwise",
        direction,
        make,
        partial(_refusal, direction),
        partial(any_order_factor, direction),
        worthwhile=partial(_worthwhile, direction),
        about=About(
            does="several neighbouring results a thread, sums in registers",
            cost="the definition's products; each result channel of a group reads the group's input again",
            chosen=f"groups of one channel on one side and up to {_MOST_ROWS} result channels",
        ),
    )


#: The algorithm, for each direction.
DEPTHWISE = {direction: _of(direction) for direction in Direction}
