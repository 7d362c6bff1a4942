"""The FFT algorithm of all directions, for kernels that are long along one axis and have one tap along the others.

Any stride ``s`` and dilation ``d`` is a set of dense convolutions of stride and dilation 1: with ``S = lcm(s, d)``,
output ``o = r + (S / s) q`` and tap ``k = t + (S / d) v`` meet at position ``r s + t d + S (q + v)``. Hence for each class
of outputs ``r`` and each phase of taps ``t``, with the rows ``x_rt[m] = x[r s + t d + S m]``, ``w_t[v]``, ``y_r[q]``::

    FORWARD       y_r[q]  = sum over t, v of  x_rt[q + v] w_t[v]      every phase is one more input channel
    INPUT_GRAD    x_rt[m] = sum over v of     y_r[m - v] w_t[v]       a pair (r, t) has the cells of one phase of x
    WEIGHT_GRAD   w_t[v]  = sum over r, q of  x_rt[q + v] y_r[q]

Each row is cut into blocks of ``used`` results; a block's spectrum is multiplied with the weight's (`fourier`).
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from math import gcd, lcm, log2, prod
from typing import Any

import numba
import numpy as np
from numba import types

from ...arrays import Array
from ...plan import Axis, ConvPlan
from ..base import Algorithm, Direction, Epilogue, PackedWeight, Packing, Weight
from ..tables import source_table, stepping
from . import fourier
from .activation import ACTIVATION, check_raised
from .launch import Kernel, reads
from .operands import chunk_count, contiguous, deliver, fill_value, flat_epilogue, flat_target, tree_sum
from .simd import VECTOR_BYTES

__all__ = ["FFT"]

#: Cells of the shortest and longest block.
_SHORTEST, _LONGEST = 512, 2**20
#: The most classes and phases that a stride and a dilation may make.
_MOST_STEPS = 64
#: Bytes of spectra that are kept at a time, which bounds memory and keeps them in the last cache.
_SLAB_BYTES = 2**24
_LEAST_SLAB = 16
#: Bytes of products that a task keeps, in the second-level cache.
_TASK_BYTES = 2**19
_LEAST_TASKS = 32

_TABLE = types.Array(types.int64, 1, "C")
_LINES = types.Array(types.int64, 2, "C")


def _integers(count: int) -> types.UniTuple:
    return types.UniTuple(types.int64, count)


def _transform_signature(kind: Any) -> tuple:
    flat, spectra = reads(kind, 1), types.Array(kind, 1, "C")
    return (flat, _TABLE, _LINES, spectra, _integers(7), flat, kind, types.UniTuple(kind, 2))


def _multiply_signature(kind: Any) -> tuple:
    flat, out = reads(kind, 1), types.Array(kind, 1, "C")
    return (flat, flat, out, _LINES, _LINES, _integers(7), _integers(2), _integers(5), flat)


def _finish_signature(kind: Any) -> tuple:
    flat = reads(kind, 1)
    return (types.Array(kind, 1, "C"), flat, flat, types.int64, types.int64, ACTIVATION)


_transform_kernel = Kernel(fourier.transform_tasks, fourier.transform_parallel, _transform_signature)
_multiply_kernel = Kernel(fourier.multiply_tasks, fourier.multiply_parallel, _multiply_signature)
_finish_kernel = Kernel(fourier.finish_tasks, fourier.finish_parallel, _finish_signature)


@dataclass(frozen=True, slots=True)
class _Rows:
    """A plan as dense convolutions of rows; all but ``block`` follows from its long axis.

    ``step`` is ``S`` of above, ``classes`` and ``phases`` count ``r`` and ``t``, ``taps`` those of a phase. A row's
    results ``begin .. begin + blocks * used - 1`` are computed, in blocks of ``block`` cells.
    """

    axis: Axis
    step: int
    classes: int
    phases: int
    taps: int
    begin: int
    results: int
    block: int

    @property
    def used(self) -> int:
        return self.block - self.taps + 1

    @property
    def blocks(self) -> int:
        return -(-self.results // self.used)

    @property
    def class_step(self) -> int:
        return self.step // self.axis.stride

    @property
    def phase_step(self) -> int:
        return self.step // self.axis.dilation


def _long_axis(plan: ConvPlan) -> int:
    """The axis along which the kernel has most taps."""
    kernels = [axis.kernel for axis in plan.axes3]
    return 2 - kernels[::-1].index(max(kernels))


def _refusal(direction: Direction, plan: ConvPlan) -> str | None:
    if plan.compute_dtype not in ("float32", "float64"):
        return f"its transforms are of float32 and float64, not {plan.compute_dtype}"
    at = _long_axis(plan)
    for other, axis in enumerate(plan.axes3):
        if other != at and (axis.kernel > 1 or axis.pad_before or axis.pad_after or axis.input != axis.output):
            return "the kernel may have taps, padding and steps along one axis only"
    axis = stepping(plan.axes3[at])
    if direction is Direction.INPUT_GRAD and axis.maps_padding:
        return "padding that repeats cells adds several positions to one"
    if lcm(axis.stride, axis.dilation) > _MOST_STEPS:
        return f"stride {axis.stride} and dilation {axis.dilation} leave every {lcm(axis.stride, axis.dilation)}th cell"
    if _taps(axis) > _LONGEST // 2:
        return f"blocks have {_LONGEST} cells at most, too few for {axis.kernel} taps"
    return None


def _taps(axis: Axis) -> int:
    return -(-axis.kernel // (lcm(axis.stride, axis.dilation) // axis.dilation))


@lru_cache(maxsize=1024)
def _rows_of(direction: Direction, axis: Axis, products: int, transforms: int, weights: int) -> _Rows:
    """The rows of a long axis, with the block that costs least.

    ``products``, ``transforms``, ``weights``: how many products of spectra and how many transforms each block needs,
    and how many transforms a call needs anyway.
    """
    axis = stepping(axis)
    step = lcm(axis.stride, axis.dilation)
    class_step, phase_step = step // axis.stride, step // axis.dilation
    classes, phases, taps = min(class_step, axis.output), min(phase_step, axis.kernel), _taps(axis)
    begin, results = 0, -(-axis.output // class_step)
    if direction is Direction.INPUT_GRAD:
        furthest = (classes - 1) * axis.stride + (phases - 1) * axis.dilation
        begin = max((axis.pad_before - furthest) // step, 0)
        end = min(results + taps - 1, -(-(axis.pad_before + axis.input) // step))
        results = max(end - begin, 1)
    block = max(_SHORTEST, 1 << taps.bit_length())
    found = None
    while True:
        rows = _Rows(axis, step, classes, phases, taps, begin, results, block)
        cost = _cost(rows, products, transforms, weights)
        if found is None or cost < found[0]:
            found = cost, rows
        if rows.blocks == 1 or block >= _LONGEST:
            return found[1]
        block *= 2


def _cost(rows: _Rows, products: int, transforms: int, weights: int) -> float:
    """Picoseconds, about, of one thread."""
    size = rows.block
    transform = size * log2(size) * (70 if size <= 4096 else 120)
    return rows.classes * rows.blocks * (transforms * transform + products * size * 30) + weights * transform


def _plan_rows(direction: Direction, plan: ConvPlan) -> _Rows:
    axis = stepping(plan.axes3[_long_axis(plan)])
    inputs, outputs, groups = plan.x_channels // plan.groups, plan.y_channels // plan.groups, plan.groups
    phases = min(lcm(axis.stride, axis.dilation) // axis.dilation, axis.kernel)
    pairs = groups * inputs * outputs * phases
    sides = groups * (inputs * phases + outputs)
    return _rows_of(direction, axis, pairs, sides, pairs)


@lru_cache(maxsize=64)
def _factors(half: int, name: str) -> Array:
    """The complex factors of a transform of ``half`` values, in the order in which `fourier` reads them."""
    lanes = VECTOR_BYTES // np.dtype(name).itemsize
    rows = half // lanes
    table = np.zeros(2 * (rows + lanes) + 4 * half)
    for points, at in ((rows, 0), (lanes, 2 * rows)):
        while points >= 4:
            quarter = points // 4
            turns = np.multiply.outer(np.arange(quarter), np.arange(1, 4)) / points
            factors = table[at : at + 6 * quarter].reshape(quarter, 3, 2)
            factors[..., 0], factors[..., 1] = np.cos(2 * np.pi * turns), -np.sin(2 * np.pi * turns)
            points, at = quarter, at + 6 * quarter
    turns = np.multiply.outer(np.arange(rows), np.arange(lanes)).ravel() / half
    twist, ends = table[2 * (rows + lanes) :].reshape(2, 2, half)
    twist[0], twist[1] = np.cos(2 * np.pi * turns), -np.sin(2 * np.pi * turns)
    turns = np.arange(half) / (2 * half)
    ends[0], ends[1] = -np.sin(2 * np.pi * turns), np.cos(2 * np.pi * turns)
    return table.astype(name)


def _lines(*columns: Any) -> Array:
    """A table of a few integers a line, from arrays that broadcast to the same extents."""
    return np.stack(np.broadcast_arrays(*columns), axis=-1).reshape(-1, len(columns)).astype(np.int64)


def _along(*extents: int) -> list[Array]:
    """Numbers along each of several axes, which broadcast to all of them."""
    return list(np.ogrid[tuple(slice(extent) for extent in extents)])


@dataclass(frozen=True, slots=True)
class _Spectra:
    """What the transforms of one operand have in common."""

    rows: _Rows
    dtype: np.dtype

    @property
    def half(self) -> int:
        return self.rows.block // 2

    @property
    def lanes(self) -> int:
        return VECTOR_BYTES // self.dtype.itemsize

    @property
    def vectors(self) -> int:
        return self.half // self.lanes + 1

    @property
    def cell(self) -> int:
        """Elements of one step: a vector of real and one of imaginary parts."""
        return 2 * self.lanes

    def make(
        self,
        source: Array,
        lines: Array,
        spectra: Array,
        depth: int,
        *,
        step: int,
        count: int,
        extent: int,
        pad: int = 0,
        border: Array | None = None,
        fill: Any = 0,
        scales: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        """Transform what ``lines`` say, see `fourier.transform_tasks`."""
        kind = self.dtype.type
        shape = (self.half, self.lanes, step, count, extent, pad, depth * self.cell)
        table = np.empty(0, np.int64) if border is None else border
        work = len(lines) * self.rows.block * 16
        _transform_kernel(
            self.dtype,
            len(lines),
            work,
            source,
            table,
            lines,
            spectra,
            shape,
            _factors(self.half, self.dtype.name),
            kind(fill),
            (kind(scales[0]), kind(scales[1])),
        )


def _long_last(array: Array, at: int) -> Array:
    """A canonical array with the long axis last."""
    return array if at == 2 else np.moveaxis(array, 2 + at, 4)


class _Job:
    """One call: its rows, operands, and the tables that say what is transformed and where results go."""

    def __init__(self, direction: Direction, plan: ConvPlan):
        self.plan, self.at = plan, _long_axis(plan)
        self.dtype = np.dtype(plan.compute_dtype)
        self.rows = _plan_rows(direction, plan)
        self.spectra = _Spectra(self.rows, self.dtype)
        self.groups = plan.groups
        self.inputs, self.outputs = plan.x_channels // plan.groups, plan.y_channels // plan.groups
        self.planes = prod(axis.input for at, axis in enumerate(plan.axes3) if at != self.at)
        self.units = plan.batch * self.planes * self.rows.classes * self.rows.blocks

    def flat(self, array: Array) -> Array:
        return contiguous(_long_last(array, self.at), self.dtype).reshape(-1)

    def split(self, units: Array) -> tuple[Array, Array, Array, Array]:
        """Sample, plane, class and block of units."""
        rest, block = np.divmod(units, self.rows.blocks)
        rest, of_class = np.divmod(rest, self.rows.classes)
        sample, plane = np.divmod(rest, self.planes)
        return sample, plane, of_class, block

    def x_lines(self, units: Array, group: Array, channel: Array, phase: Array) -> tuple[Array, Array]:
        """Where rows of ``x`` start, and the positions of their blocks."""
        rows, axis = self.rows, self.rows.axis
        sample, plane, of_class, block = self.split(units)
        base = (sample * self.plan.x_channels + group * self.inputs + channel) * self.planes + plane
        first = of_class * axis.stride + phase * axis.dilation + rows.step * block * rows.used
        return base * axis.input, first

    def y_lines(self, units: Array, group: Array, channel: Array, shift: int) -> tuple[Array, Array]:
        """Where rows of ``y`` start, and the output cells of their blocks, ``shift`` cells of a class further."""
        rows, axis = self.rows, self.rows.axis
        sample, plane, of_class, block = self.split(units)
        base = (sample * self.plan.y_channels + group * self.outputs + channel) * self.planes + plane
        return base * axis.output, of_class + rows.class_step * (block * rows.used + shift)

    def border(self) -> Array | None:
        """The table of padding other than zeros."""
        axis = self.rows.axis
        return None if axis.mode == "zeros" else source_table(axis)

    def slabs(self, bytes_of_unit: int) -> list[tuple[int, int]]:
        """Ranges of units whose spectra are kept at a time, by the plan alone."""
        size = max(_SLAB_BYTES // max(bytes_of_unit, 1), _LEAST_SLAB)
        return [(first, min(first + size, self.units)) for first in range(0, self.units, size)]

    def spectrum(self, depth: int) -> int:
        """Elements of the spectra of ``depth`` steps."""
        return self.spectra.vectors * depth * self.spectra.cell

    def multiply(
        self,
        a: Array,
        b: Array,
        out: Array,
        row_lines: Array,
        column_lines: Array,
        depth: int,
        place: tuple[int, int, int, int],
        chunks: int = 1,
        chunk_size: int = 0,
    ) -> None:
        """Products of spectra and their way to ``out``, see `fourier.multiply_tasks`."""
        rows, columns = len(row_lines) // self.groups, len(column_lines) // self.groups
        blocks = self.split_products(rows, columns, chunks)
        tasks = chunks * self.groups * -(-rows // blocks[0]) * -(-columns // blocks[1])
        work = self.groups * rows * columns * self.rows.block * (2 * depth + 16)
        shape = (self.spectra.half, self.spectra.lanes, self.groups, rows, columns, depth, chunks)
        factors = _factors(self.spectra.half, self.dtype.name)
        _multiply_kernel(
            self.dtype, tasks, work, a, b, out, row_lines, column_lines, shape, blocks, (*place, chunk_size), factors
        )

    def split_products(self, rows: int, columns: int, chunks: int) -> tuple[int, int]:
        """Rows and columns of a task: near a square in the cache, but enough tasks. Results do not depend on it."""
        fit = max(_TASK_BYTES // (self.rows.block * self.dtype.itemsize), 4)
        some_rows = min(rows, max(fourier.TILE_ROWS, int(fit**0.5) // fourier.TILE_ROWS * fourier.TILE_ROWS))
        some_columns = min(columns, max(fit // max(some_rows, 1), 2))
        threads: int = numba.get_num_threads()
        while (
            some_columns > 2
            and chunks * self.groups * -(-rows // max(some_rows, 1)) * -(-columns // some_columns) < 4 * threads
        ):
            some_columns = -(-some_columns // 4) * 2
        return max(some_rows, 1), max(some_columns, 1)


def _scale(job: _Job) -> float:
    """Both spectra and the inverse are twice too large, and the transform back is not scaled: a power of two."""
    return 1.0 / (8 * job.spectra.half)


def _pack(direction: Direction, plan: ConvPlan, w: Array) -> PackedWeight:
    """The weight's spectra: rows are result channels, steps what is summed over."""
    job, rows = _Job(direction, plan), _plan_rows(direction, plan)
    kernel = rows.axis.kernel
    group, o, c, phase = _along(job.groups, job.outputs, job.inputs, rows.phases)
    base = ((group * job.outputs + o) * job.inputs + c) * kernel
    inside = c * rows.phases + phase
    if direction is Direction.FORWARD:
        depth, result, step = job.inputs * rows.phases, group * job.outputs + o, inside
    else:
        depth, result, step = job.outputs, group * job.inputs * rows.phases + inside, o
    lines = _lines(base, phase, (result * job.spectra.vectors * depth + step) * job.spectra.cell)
    packed = np.empty(len(lines) // max(depth, 1) * job.spectrum(depth), job.dtype)
    sign = -1 if direction is Direction.FORWARD else 1  # a correlation, or a convolution
    job.spectra.make(
        job.flat(w),
        lines,
        packed,
        depth,
        step=rows.phase_step,
        count=rows.taps,
        extent=kernel,
        scales=(_scale(job), sign * _scale(job)),
    )
    return PackedWeight((packed,))


def _forward(plan: ConvPlan, x: Array, w: Weight, y: Array, epilogue: Epilogue) -> None:
    job = _Job(Direction.FORWARD, plan)
    rows, axis, depth = job.rows, job.rows.axis, job.inputs * job.rows.phases
    (packed,) = (w if isinstance(w, PackedWeight) else _pack(Direction.FORWARD, plan, w)).arrays
    group, o = _along(job.groups, job.outputs)
    row_lines = _lines((group * job.outputs + o) * job.planes * axis.output, 0)

    def steps(first: int, last: int) -> tuple[Array, Array, Array]:
        unit, group, c, phase = _along(last - first, job.groups, job.inputs, rows.phases)
        base, position = job.x_lines(unit + first, group, c, phase)
        to = (
            (group * (last - first) + unit) * job.spectra.vectors * depth + c * rows.phases + phase
        ) * job.spectra.cell
        return base, position, to

    def columns(first: int, last: int) -> tuple[Array, Array]:
        unit = np.arange(first, last)
        sample, plane, of_class, block = job.split(unit)
        base = (sample * plan.y_channels * job.planes + plane) * axis.output
        return base, of_class + rows.class_step * block * rows.used

    reading = {
        "step": rows.step,
        "count": rows.block,
        "extent": axis.input,
        "pad": axis.pad_before,
        "border": job.border(),
        "fill": fill_value(plan, job.dtype),
    }
    place = (0, rows.used, rows.class_step, axis.output)
    _gathered(job, x, packed, y, epilogue, depth, row_lines, steps, columns, reading, place)


def _input_grad(plan: ConvPlan, x: Array, w: Weight, y: Array, epilogue: Epilogue) -> None:
    job = _Job(Direction.INPUT_GRAD, plan)
    rows, axis, depth = job.rows, job.rows.axis, job.outputs
    (packed,) = (w if isinstance(w, PackedWeight) else _pack(Direction.INPUT_GRAD, plan, w)).arrays
    group, c, phase = _along(job.groups, job.inputs, rows.phases)
    row_lines = _lines((group * job.inputs + c) * job.planes * axis.input, phase * axis.dilation - axis.pad_before)

    def steps(first: int, last: int) -> tuple[Array, Array, Array]:
        unit, group, o = _along(last - first, job.groups, job.outputs)
        base, position = job.y_lines(unit + first, group, o, rows.begin - rows.taps + 1)
        to = ((group * (last - first) + unit) * job.spectra.vectors * depth + o) * job.spectra.cell
        return base, position, to

    def columns(first: int, last: int) -> tuple[Array, Array]:
        sample, plane, of_class, block = job.split(np.arange(first, last))
        base = (sample * plan.x_channels * job.planes + plane) * axis.input
        return base, of_class * axis.stride + rows.step * (rows.begin + block * rows.used)

    reading = {"step": rows.class_step, "count": rows.block, "extent": axis.output}
    place = (rows.taps - 1, rows.used, rows.step, axis.input)
    _gathered(job, y, packed, x, epilogue, depth, row_lines, steps, columns, reading, place, clear=True)


def _gathered(
    job: _Job,
    source: Array,
    packed: Array,
    out: Array,
    epilogue: Epilogue,
    depth: int,
    row_lines: Array,
    steps: Any,
    columns: Any,
    reading: dict[str, Any],
    place: tuple[int, int, int, int],
    clear: bool = False,
) -> None:
    """FORWARD or INPUT_GRAD: slab after slab, spectra of the source, products with the weight's, and back."""
    if not out.size:
        return
    out = _long_last(out, job.at)
    target, flat = flat_target(out, job.dtype), job.flat(source)
    bias, residual, activation = _epilogue(job, epilogue, target)
    if clear:  # cells that no tap reaches
        target[...] = 0
    for first, last in job.slabs(job.groups * job.spectrum(depth) * job.dtype.itemsize):
        spectra = np.empty(job.groups * (last - first) * job.spectrum(depth), job.dtype)
        job.spectra.make(flat, _lines(*steps(first, last)), spectra, depth, **reading)
        base, position = columns(first, last)
        each_group = np.broadcast_to(base, (job.groups, last - first)), position
        job.multiply(packed, spectra, target.reshape(-1), row_lines, _lines(*each_group), depth, place)
    if epilogue.bias is not None or epilogue.residual is not None or epilogue.activation is not None:
        channels, length = target.shape[1], prod(target.shape[2:])
        _finish_kernel(
            job.dtype,
            len(target) * channels,
            4 * target.size,
            target.reshape(-1),
            bias,
            residual,
            channels,
            length,
            activation,
        )
        check_raised(epilogue.activation, activation)
    deliver(target, out)


def _epilogue(job: _Job, epilogue: Epilogue, target: Array) -> tuple[Array, Array, Array]:
    residual = epilogue.residual
    if residual is not None:
        residual = _long_last(residual, job.at)
        if np.may_share_memory(residual, target):  # the sums are there before it is read
            residual = residual.copy()
    return flat_epilogue(Epilogue(epilogue.bias, residual, epilogue.activation), job.dtype)


def _weight_grad(plan: ConvPlan, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    job = _Job(Direction.WEIGHT_GRAD, plan)
    rows, axis, groups = job.rows, job.rows.axis, job.groups
    x_flat, y_flat = job.flat(x), job.flat(y)
    total = np.zeros(w.size, job.dtype)
    group, o = _along(groups, job.outputs)
    row_lines = _lines((group * job.outputs + o) * job.inputs * axis.kernel, 0)
    group, c, phase = _along(groups, job.inputs, rows.phases)
    column_lines = _lines(group * 0 + c * axis.kernel, phase)
    place = (0, rows.taps, rows.phase_step, axis.kernel)
    scales = (_scale(job), -_scale(job))
    columns = job.inputs * rows.phases
    for first, last in job.slabs(groups * (columns + job.outputs) * job.spectrum(1) * job.dtype.itemsize):
        depth = last - first
        unit, group, o = _along(depth, groups, job.outputs)
        to = ((group * job.outputs + o) * job.spectra.vectors * depth + unit) * job.spectra.cell
        a = np.empty(groups * job.outputs * job.spectrum(depth), job.dtype)
        lines = _lines(*job.y_lines(unit + first, group, o, 0), to)
        job.spectra.make(
            y_flat, lines, a, depth, step=rows.class_step, count=rows.used, extent=axis.output, scales=scales
        )
        unit, group, c, phase = _along(depth, groups, job.inputs, rows.phases)
        to = (group * columns + c * rows.phases + phase) * job.spectra.vectors * depth + unit
        b = np.empty(groups * columns * job.spectrum(depth), job.dtype)
        lines = _lines(*job.x_lines(unit + first, group, c, phase), to * job.spectra.cell)
        job.spectra.make(
            x_flat,
            lines,
            b,
            depth,
            step=rows.step,
            count=rows.block,
            extent=axis.input,
            pad=axis.pad_before,
            border=job.border(),
            fill=fill_value(plan, job.dtype),
        )
        chunks = chunk_count(groups * job.outputs * columns, depth // _LEAST_SLAB, _LEAST_TASKS)
        sums = np.empty((chunks, w.size), job.dtype)
        job.multiply(a, b, sums.reshape(-1), row_lines, column_lines, depth, place, chunks, w.size)
        total += tree_sum(sums)
    deliver(total.reshape(_long_last(w, job.at).shape), _long_last(w, job.at))


def _error_factor(direction: Direction, plan: ConvPlan) -> float:
    rows = _plan_rows(direction, plan)
    terms = plan.batch * rows.blocks * rows.classes if direction is Direction.WEIGHT_GRAD else 0
    terms += (plan.x_channels // plan.groups) * rows.phases + plan.y_channels // plan.groups
    return rows.block**0.5 * (12 * log2(rows.block) + 2 * terms + 8)


def _algorithm(direction: Direction, run: Any) -> Algorithm:
    packing = None
    if direction is not Direction.WEIGHT_GRAD:
        packing = Packing(partial(_plan_rows, direction), partial(_pack, direction))
    return Algorithm(
        "fft",
        partial(_refusal, direction),
        run,
        partial(_error_factor, direction),
        packing,
        spreading=True,
        worthwhile=lambda plan: "forced only, for now",
    )


#: The algorithm of each direction.
FFT = {
    Direction.FORWARD: _algorithm(Direction.FORWARD, _forward),
    Direction.INPUT_GRAD: _algorithm(Direction.INPUT_GRAD, _input_grad),
    Direction.WEIGHT_GRAD: _algorithm(Direction.WEIGHT_GRAD, _weight_grad),
}
