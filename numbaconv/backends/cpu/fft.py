"""The FFT algorithm of all directions: a plan's rows and blocks (`overlap`), their spectra and products (`fourier`).

A *unit* is a block of a row: a sample, a place on the other axes, a class and a block. Products of spectra are a
matrix product for each frequency::

                 rows                  columns               summed over
    FORWARD      output channels       units of x            input channels and phases
    INPUT_GRAD   input channels and    units of y            output channels
                 phases
    WEIGHT_GRAD  output channels       input channels and    units of x and y
                                       phases

Error factor: a transform of ``n`` values by butterflies is off by ``log2(n)`` times ``3.35 eps`` of its result, in the
2-norm (Higham 2002, Accuracy and Stability of Numerical Algorithms, theorem 24.2, with factors rounded once; the
real transform counts as one more stage), a product of spectra by ``terms + 2`` times ``sqrt(2) eps``. Two transforms,
the products and the transform back make a block's largest error at most ``(10 log2(n) + 2 terms + 18) eps`` times
``|x|_2 |w|_1`` summed over channels, and ``|x|_2 <= sqrt(n) max |x|``. Overflow is met earlier than by sums of
products, since a spectrum is up to ``n`` times as large as its row: `without_transforms` has what happens then.

Tried and not kept: numpy.fft and scipy.fft, whose transforms of these lengths take 2.5 to 3 and 1.6 to 2 times as long
in float32, serially, and whose bits are those of the installation; spectra of two rows as one complex
transform, which needs both halves of the weight's spectrum and an even number of blocks.
"""

from collections.abc import Hashable
from functools import lru_cache, partial
from math import log2, prod
from typing import Any

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import About, Algorithm, Direction, Epilogue, PackedWeight, Packing, Weight
from . import fourier
from .activation import check_raised
from .launch import Kernel, integers, reads
from .operands import (
    chunk_count,
    contiguous,
    deliver,
    fill_value,
    flat_epilogue,
    flat_target,
    read_as_given,
    tree_sum,
)
from .overlap import long_axis, refusal, rows_of, worthwhile
from .simd import VECTOR_BYTES
from .threads import parallel_threads
from .without_transforms import FINISH, any_spoiled, mend_weight, sums_of_sample

__all__ = ["FFT"]

#: Bytes of spectra that are kept at a time: little memory, and the last cache holds them until they are multiplied.
_SLAB_BYTES = 2**23
_LEAST_SLAB = 32
#: Bytes of products that a task keeps, in the second-level cache.
_TASK_BYTES = 2**18
#: Weight-gradient tasks below this are split over chunks of units, by the plan alone: never by threads.
_LEAST_TASKS = 32

_LINES = types.Array(types.int64, 2, "C")


def _transform_signature(kind: Any, sources: tuple | None = None) -> tuple:
    flat, spectra = reads(kind, 1), types.Array(kind, 1, "C")
    (source,) = sources or (kind,)
    return (reads(source, 1), _LINES, spectra, integers(12), flat, kind, types.UniTuple(kind, 2))


def _multiply_signature(kind: Any) -> tuple:
    flat, out = reads(kind, 1), types.Array(kind, 1, "C")
    marks = types.Array(types.uint8, 1, "C")
    return (flat, flat, out, _LINES, _LINES, integers(7), integers(2), integers(7), flat, marks)


_transform_kernel = Kernel(fourier.transform_tasks, _transform_signature)
_multiply_kernel = Kernel(fourier.multiply_tasks, _multiply_signature)


@lru_cache(maxsize=64)
def _factors(half: int, dtype: np.dtype) -> Array:
    """The complex factors of a transform of ``half`` values, in the order in which `fourier` reads them."""
    lanes = VECTOR_BYTES // dtype.itemsize
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
    found: Array = table.astype(dtype)
    return found


def _long_last(array: Array, at: int) -> Array:
    """A canonical array with the long axis last."""
    return array if at == 2 else np.moveaxis(array, 2 + at, 4)


def _digits(*lines: tuple[int, int, int, int]) -> Array:
    return np.array(lines, np.int64)


class _Job:
    """A plan's rows, and tables by which the kernels number units, channels and phases."""

    def __init__(self, direction: Direction, plan: ConvPlan):
        self.plan, self.at, self.dtype = plan, long_axis(plan), np.dtype(plan.compute_dtype)
        self.rows = rows_of(direction, plan)
        self.groups = plan.groups
        self.inputs, self.outputs = plan.x_channels // plan.groups, plan.y_channels // plan.groups
        self.planes = prod(axis.input for at, axis in enumerate(plan.axes3) if at != self.at)
        self.x_plane, self.y_plane = self.planes * self.rows.axis.input, self.planes * self.rows.axis.output
        self.units = plan.batch * self.planes * self.rows.classes * self.rows.blocks
        self.half, self.lanes = self.rows.block // 2, VECTOR_BYTES // self.dtype.itemsize
        self.cell = 2 * self.lanes  # elements of a step: a vector of real and one of imaginary parts
        # Both spectra are twice too large, so is the transform back, and it is not divided: a power of two.
        self.scale = 1.0 / (8 * self.half)

    def flat(self, array: Array) -> Array:
        return contiguous(_long_last(array, self.at), self.dtype).reshape(-1)

    def source(self, array: Array) -> Array:
        """`flat`, but integers as they are, which the transform converts as it reads."""
        found = _long_last(array, self.at)
        return read_as_given(self.plan, found).reshape(-1)

    def spectrum(self, depth: int) -> int:
        """Elements of the spectra of ``depth`` steps; one more vector holds the highest frequency."""
        return (self.half // self.lanes + 1) * depth * self.cell

    def slabs(self, spectra: int, depth: int) -> list[tuple[int, int]]:
        """Ranges of units whose spectra are kept at a time, by the plan alone."""
        size = max(_SLAB_BYTES // max(spectra * self.spectrum(depth) * self.dtype.itemsize, 1), _LEAST_SLAB)
        return [(first, min(first + size, self.units)) for first in range(0, self.units, size)]

    def unit_digits(self, channels: int, row: int, of_class: int, of_block: int, to: int) -> list[Any]:
        """Sample, plane, class and block, for rows of ``row`` cells; ``to`` is from one unit to the next."""
        rows, planes = self.rows, self.planes
        return [
            (self.plan.batch, channels * planes * row, 0, planes * rows.classes * rows.blocks * to),
            (planes, row, 0, rows.classes * rows.blocks * to),
            (rows.classes, 0, of_class, rows.blocks * to),
            (rows.blocks, 0, of_block, to),
        ]

    def x_units(self, to: int) -> list[Any]:
        """Units by their rows of ``x`` and their padded positions."""
        axis = self.rows.axis
        return self.unit_digits(self.plan.x_channels, axis.input, axis.stride, self.rows.step * self.rows.used, to)

    def y_units(self, to: int) -> list[Any]:
        """Units by their rows of ``y`` and their output cells."""
        rows = self.rows
        return self.unit_digits(self.plan.y_channels, rows.axis.output, 1, rows.class_step * rows.used, to)

    def transform(
        self,
        source: Array,
        lines: Array,
        tasks: int,
        spectra: Array,
        depth: int,
        *,
        step: int,
        count: int,
        extent: int,
        first_task: int = 0,
        shift: int = 0,
        skipped: int = 0,
        pad: int = 0,
        border: int = 0,
        limit: int = 0,
        fill: Any = 0,
        sign: int = 1,
        scale: float = 1.0,
    ) -> None:
        """Spectra of what ``lines`` say, see `fourier.transform_tasks`; conjugate where the sign is -1."""
        kind = self.dtype.type
        shape = (
            *(self.half, self.lanes, step, count, extent, pad, depth * self.cell),
            *(first_task, shift, skipped, border, limit),
        )
        work, scales = tasks * self.rows.block * 16, (kind(scale), kind(sign * scale))
        operands = (source, lines, spectra, shape, _factors(self.half, self.dtype), kind(fill), scales)
        _transform_kernel.reading(self.dtype, source.dtype)(self.dtype, tasks, work, *operands)

    def transform_x(self, x: Array, lines: Array, slab: tuple[int, int], spectra: Array, depth: int, to: int) -> None:
        """Spectra of the units of a slab, whose tasks number units, groups, channels and phases."""
        each, axis = self.groups * self.inputs * self.rows.phases, self.rows.axis
        self.transform(
            x,
            lines,
            (slab[1] - slab[0]) * each,
            spectra,
            depth,
            step=self.rows.step,
            count=self.rows.block,
            extent=axis.input,
            first_task=slab[0] * each,
            skipped=slab[0] * to,
            pad=axis.pad_before,
            border=axis.border,
            limit=axis.used - axis.pad_before,
            fill=fill_value(self.plan, self.dtype),
        )

    def multiply(
        self,
        a: Array,
        b: Array,
        out: Array,
        row_lines: Array,
        column_lines: Array,
        extents: tuple[int, int, int, int],
        place: tuple[int, int, int, int, int, int, int],
        spoiled: Array,
    ) -> None:
        """Products of spectra and their way to ``out``, see `fourier.multiply_tasks`.

        ``extents``: rows and columns of a group, depth, chunks. ``spoiled``: a mark for each sample, see there.
        """
        rows, columns, depth, chunks = extents
        blocks = self.task_blocks(rows, columns, chunks)
        tasks = chunks * self.groups * -(-rows // blocks[0]) * -(-columns // blocks[1])
        work = self.groups * rows * columns * self.rows.block * (2 * depth + 16)
        shape, factors = (self.half, self.lanes, self.groups, *extents), _factors(self.half, self.dtype)
        operands = (a, b, out, row_lines, column_lines, shape, blocks, place, factors, spoiled)
        _multiply_kernel(self.dtype, tasks, work, *operands)

    def task_blocks(self, rows: int, columns: int, chunks: int) -> tuple[int, int]:
        """Rows and columns of a task: near a square, in the cache, and enough tasks. Results do not depend on it."""
        fit = max(_TASK_BYTES // (self.rows.block * self.dtype.itemsize), 4)
        some_rows = max(min(rows, max(fourier.TILE_ROWS, int(fit**0.5) // fourier.TILE_ROWS * fourier.TILE_ROWS)), 1)
        some_columns = max(min(columns, fit // some_rows), 2)
        threads = parallel_threads()
        others = chunks * self.groups * -(-rows // some_rows)
        while some_columns > 2 and others * -(-columns // some_columns) < 4 * threads:
            some_columns = -(-some_columns // 4) * 2
        return some_rows, some_columns


def _packing_key(direction: Direction, plan: ConvPlan) -> Hashable:
    """What the weight's spectra depend on: the taps of each phase, and the block."""
    rows = rows_of(direction, plan)
    return rows.block, rows.phases, rows.phase_step


def _pack(direction: Direction, plan: ConvPlan, w: Array) -> PackedWeight:
    """The weight's spectra: rows are result channels, steps what is summed over."""
    job = _Job(direction, plan)
    rows, inputs, outputs, cell = job.rows, job.inputs, job.outputs, job.cell
    kernel, phases = rows.axis.kernel, rows.phases
    if direction is Direction.FORWARD:
        depth, count, sign = inputs * phases, outputs, -1  # a correlation
        spectrum = job.spectrum(depth)
        steps = (outputs * spectrum, spectrum, phases * cell, cell)
    else:
        depth, count, sign = outputs, inputs * phases, 1
        spectrum = job.spectrum(depth)
        steps = (inputs * phases * spectrum, cell, phases * spectrum, spectrum)
    lines = _digits(
        (job.groups, outputs * inputs * kernel, 0, steps[0]),
        (outputs, inputs * kernel, 0, steps[1]),
        (inputs, kernel, 0, steps[2]),
        (phases, 0, 1, steps[3]),
    )
    packed = np.empty(job.groups * count * spectrum, job.dtype)
    job.transform(
        job.flat(w),
        lines,
        job.groups * outputs * inputs * phases,
        packed,
        depth,
        step=rows.phase_step,
        count=rows.taps,
        extent=kernel,
        sign=sign,
        scale=job.scale,
    )
    return PackedWeight((packed,), w)


def _residual_apart(epilogue: Epilogue, at: int, target: Array) -> Epilogue:
    """The epilogue with the long axis last, its residual copied where sums would be written over it."""
    residual = epilogue.residual
    if residual is not None:
        residual = _long_last(residual, at)
        if np.may_share_memory(residual, target):
            residual = residual.copy()
    return Epilogue(epilogue.bias, residual, epilogue.activation)


def _of_samples(lines: list[Any]) -> Array:
    """Lines of columns whose third number is the sample."""
    found = _digits(*lines)
    found[0, 3] = 1
    return found


def _mend(direction: Direction, job: _Job, source: Array, w: Weight, target: Array, spoiled: Array) -> None:
    """Replace sums that are not finite, of the samples that have any."""
    if not any_spoiled(spoiled):
        return
    for sample in np.flatnonzero(spoiled).tolist():
        sums, found = sums_of_sample(direction, job.plan, sample, source, w), target[sample : sample + 1]
        np.copyto(found, _long_last(sums, job.at), where=~np.isfinite(found))


def _finish(job: _Job, epilogue: Epilogue, target: Array) -> None:
    bias, residual, activation = flat_epilogue(epilogue, job.dtype)
    if not (bias.size or residual.size or epilogue.activation is not None):
        return
    channels, length = target.shape[1], prod(target.shape[2:])
    operands = (target.reshape(-1), bias, residual, channels, length, activation)
    FINISH(job.dtype, len(target) * channels, 4 * target.size, *operands)
    check_raised(epilogue.activation, activation)


def _forward(plan: ConvPlan, x: Array, w: Weight, y: Array, epilogue: Epilogue) -> None:
    if not y.size:
        return
    job, spoiled = _Job(Direction.FORWARD, plan), np.zeros(plan.batch, np.uint8)
    rows, axis, y = job.rows, job.rows.axis, _long_last(y, job.at)
    (packed,) = (w if isinstance(w, PackedWeight) else _pack(Direction.FORWARD, plan, w)).arrays
    target, source = flat_target(y, job.dtype), job.source(x)
    epilogue = _residual_apart(epilogue, job.at, target)
    depth = job.inputs * rows.phases
    unit = job.spectrum(depth)
    row_lines = _digits((job.groups, job.outputs * job.y_plane, 0, 0), (job.outputs, job.y_plane, 0, 0))
    column_lines = _of_samples(job.y_units(0))
    for first, last in job.slabs(job.groups, depth):
        lines = _digits(
            *job.x_units(unit),
            (job.groups, job.inputs * job.x_plane, 0, (last - first) * unit),
            (job.inputs, job.x_plane, 0, rows.phases * job.cell),
            (rows.phases, 0, axis.dilation, job.cell),
        )
        spectra = np.empty(job.groups * (last - first) * unit, job.dtype)
        job.transform_x(source, lines, (first, last), spectra, depth, unit)
        extents = (job.outputs, last - first, depth, 1)
        place = (0, rows.used, rows.class_step, axis.output, 0, 0, first)
        job.multiply(packed, spectra, target.reshape(-1), row_lines, column_lines, extents, place, spoiled)
    _mend(Direction.FORWARD, job, x, w, target, spoiled)
    _finish(job, epilogue, target)
    deliver(target, y)


def _input_grad(plan: ConvPlan, x: Array, w: Weight, y: Array, epilogue: Epilogue) -> None:
    if not x.size:
        return
    job, spoiled = _Job(Direction.INPUT_GRAD, plan), np.zeros(plan.batch, np.uint8)
    rows, axis, x = job.rows, job.rows.axis, _long_last(x, job.at)
    (packed,) = (w if isinstance(w, PackedWeight) else _pack(Direction.INPUT_GRAD, plan, w)).arrays
    target, source = flat_target(x, job.dtype), job.source(y)
    epilogue = _residual_apart(epilogue, job.at, target)
    target[...] = 0  # there may be cells that no tap reaches
    depth = job.outputs
    unit, each = job.spectrum(depth), job.groups * job.outputs
    row_lines = _digits(
        (job.groups, job.inputs * job.x_plane, 0, 0),
        (job.inputs, job.x_plane, 0, 0),
        (rows.phases, 0, axis.dilation, 0),
    )
    column_lines = _of_samples(job.x_units(0))
    for first, last in job.slabs(job.groups, depth):
        lines = _digits(
            *job.y_units(unit),
            (job.groups, job.outputs * job.y_plane, 0, (last - first) * unit),
            (job.outputs, job.y_plane, 0, job.cell),
        )
        spectra = np.empty(job.groups * (last - first) * unit, job.dtype)
        job.transform(
            source,
            lines,
            (last - first) * each,
            spectra,
            depth,
            step=rows.class_step,
            count=rows.block,
            extent=axis.output,
            first_task=first * each,
            shift=rows.class_step * (rows.begin - rows.taps + 1),
            skipped=first * unit,
        )
        extents = (job.inputs * rows.phases, last - first, depth, 1)
        shift = rows.step * rows.begin - axis.pad_before
        place = (rows.taps - 1, rows.used, rows.step, axis.input, shift, 0, first)
        job.multiply(packed, spectra, target.reshape(-1), row_lines, column_lines, extents, place, spoiled)
    _mend(Direction.INPUT_GRAD, job, y, w, target, spoiled)
    _finish(job, epilogue, target)
    deliver(target, x)


def _weight_grad(plan: ConvPlan, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    job = _Job(Direction.WEIGHT_GRAD, plan)
    rows, axis, groups, weight, w = job.rows, job.rows.axis, job.groups, w, _long_last(w, job.at)
    x_source, y_source = job.source(x), job.source(y)
    total = np.zeros(w.size, job.dtype)
    columns, each = job.inputs * rows.phases, groups * job.outputs
    row_lines = _digits(
        (groups, job.outputs * job.inputs * axis.kernel, 0, 0), (job.outputs, job.inputs * axis.kernel, 0, 0)
    )
    column_lines = _digits((job.inputs, axis.kernel, 0, 0), (rows.phases, 0, 1, 0))
    for first, last in job.slabs(groups * (columns + job.outputs), 1):
        depth = last - first
        whole = job.spectrum(depth)
        lines = _digits(
            *job.y_units(job.cell),
            (groups, job.outputs * job.y_plane, 0, job.outputs * whole),
            (job.outputs, job.y_plane, 0, whole),
        )
        a = np.empty(each * whole, job.dtype)
        job.transform(
            y_source,
            lines,
            depth * each,
            a,
            depth,
            step=rows.class_step,
            count=rows.used,
            extent=axis.output,
            first_task=first * each,
            skipped=first * job.cell,
            sign=-1,
            scale=job.scale,
        )
        lines = _digits(
            *job.x_units(job.cell),
            (groups, job.inputs * job.x_plane, 0, columns * whole),
            (job.inputs, job.x_plane, 0, rows.phases * whole),
            (rows.phases, 0, axis.dilation, whole),
        )
        b = np.empty(groups * columns * whole, job.dtype)
        job.transform_x(x_source, lines, (first, last), b, depth, job.cell)
        chunks = chunk_count(each * columns, depth // _LEAST_SLAB, _LEAST_TASKS)
        sums = np.empty((chunks, w.size), job.dtype)
        place = (0, rows.taps, rows.phase_step, axis.kernel, 0, w.size, 0)
        extents = (job.outputs, columns, depth, chunks)
        job.multiply(a, b, sums.reshape(-1), row_lines, column_lines, extents, place, np.zeros(1, np.uint8))
        with np.errstate(all="ignore"):
            total += tree_sum(sums)
    found = np.moveaxis(total.reshape(w.shape), 4, 2 + job.at)
    if not np.isfinite(total).all():
        mend_weight(plan, x, found, y)
    deliver(found, weight)


def _error_factor(direction: Direction, plan: ConvPlan) -> float:
    rows = rows_of(direction, plan)
    terms = (plan.x_channels // plan.groups) * rows.phases
    if direction is Direction.INPUT_GRAD:
        terms = plan.y_channels // plan.groups
    if direction is Direction.WEIGHT_GRAD:
        terms = plan.batch * prod(axis.input for axis in plan.axes3) * rows.blocks * rows.classes
    return float(rows.block**0.5 * (10 * log2(rows.block) + 2 * terms + 18))


_RUNS = {Direction.FORWARD: _forward, Direction.INPUT_GRAD: _input_grad, Direction.WEIGHT_GRAD: _weight_grad}


def _algorithm(direction: Direction) -> Algorithm:
    return Algorithm(
        "fft",
        partial(refusal, direction),
        _RUNS[direction],
        partial(_error_factor, direction),
        None
        if direction is Direction.WEIGHT_GRAD
        else Packing(partial(_packing_key, direction), partial(_pack, direction)),
        spreading=True,
        worthwhile=partial(worthwhile, direction),
        reads_integers=True,
        about=About(
            does="overlap-save with real transforms along one axis",
            cost="transforms of `log2 b` steps a cell, for blocks of `b` cells, and for each frequency a complex "
            "product of each pair of channels; the number of taps matters little",
            chosen="16 and more taps along one axis, where clearly faster",
            bound="of the largest values: `sqrt(b) (10 log2 b + 2n + 18)` for blocks of `b` cells and `n` channels",
            reach="errors, over a block, in its group's channels",
        ),
    )


#: The algorithm of each direction.
FFT = {direction: _algorithm(direction) for direction in Direction}
