"""Direct convolution, one thread a result: every mode, every dtype, every direction; the end of every table.

A thread gathers all products of its result, taps outside, channels inside. Threads that are neighbours have results
that are neighbours in memory, so that in every step they read neighbouring elements::

    FORWARD      y[n, c, o]: all taps k, channels i      x[n, i, source(o * stride + k * dilation)] * w[c, i, k]
    INPUT_GRAD   x[n, c, i]: all positions of cell i, outputs o and taps k that meet there, channels j
                                                         y[n, j, o] * w[j, c, k]
    WEIGHT_GRAD  w[c, i, k]: a chunk of all n and o      y[n, c, o] * x[n, i, source(o * stride + k * dilation)]

The sums of WEIGHT_GRAD's chunks are added by a second kernel, first to last; chunks follow from the plan alone. There
are no atomics anywhere, and nothing depends on how threads are scheduled.

``table`` holds all integers (`tables.py`): the header below, three axes, their index tables. Indices are unsigned,
since Numba lets signed ones count from the end, which takes instructions; 32 bits wide where everything fits.

Tried, in the simulator's steps: INPUT_GRAD over all taps, where the outputs are far fewer (a kernel as long as its
input): 1300 steps a thread instead of 1.

Error factor: a sum of n products in some order is off by at most n roundings of partial sums (Higham 2002,
Accuracy and Stability, section 4.2), each product by one more, bias and residual by one each.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from ...plan import CONSTANT
from .elements import number, reader, writer
from .jit import kernel, newest, scalar_function
from .tables import (
    DILATION,
    FIELDS,
    KERNEL,
    NOT_MAPPED,
    OUTPUT,
    PAD,
    POSITIONS,
    STARTS,
    STRIDE,
    source,
)

__all__ = ["AXES", "forward_kernel", "input_grad_kernel", "sum_kernel", "weight_grad_kernel"]

#: Places in ``table``: threads with something to do; channels of a group; five strides of each operand; five extents of
#: the result (of WEIGHT_GRAD: chunks, rows of taps, taps); WEIGHT_GRAD's weights and positions; then the axes.
THREADS, GROUP_IN, GROUP_OUT, X, W, Y, EXTENTS, WEIGHTS, CELLS = 0, 1, 2, 3, 8, 13, 18, 23, 24
AXES = 25
_DEPTH, _HEIGHT, _WIDTH = (AXES + axis * FIELDS for axis in range(3))


@scalar_function
def _outside(d, h, w):
    """Of three cells or codes: the code where one is outside, the last axis deciding; else something not negative."""
    return w if w < 0 else (h if h < 0 else d)


@scalar_function
def _positions(table, axis, cell):
    """How many used padded positions hold an input cell."""
    starts = table[np.uint32(axis + STARTS)]
    if starts == NOT_MAPPED:
        return np.int64(1)
    return np.int64(table[np.uint32(starts + cell + 1)] - table[np.uint32(starts + cell)])


@scalar_function
def _position(table, axis, cell, which):
    """One of the padded positions that hold an input cell."""
    starts = table[np.uint32(axis + STARTS)]
    if starts == NOT_MAPPED:
        return np.int64(cell + table[np.uint32(axis + PAD)])
    return np.int64(table[np.uint32(table[np.uint32(axis + POSITIONS)] + table[np.uint32(starts + cell)] + which)])


def _integer_types(narrow: bool) -> tuple[Any, Any]:
    """Signed integers for arithmetic, unsigned ones for indices and divisions."""
    return (np.int32, np.uint32) if narrow else (np.int64, np.uint64)


@cache
def _coordinates(narrow: bool, last: bool) -> Any:
    """``coordinates(at, table)``: where a thread's result is, channels being the fastest axis of five or the second."""
    signed, unsigned = _integer_types(narrow)

    if last:

        def coordinates(at, table):
            extent = unsigned(table[EXTENTS + 1])
            rest = unsigned(at // extent)
            c = signed(at - rest * extent)
            extent = unsigned(table[EXTENTS + 4])
            n = unsigned(rest // extent)
            w = signed(rest - n * extent)
            extent = unsigned(table[EXTENTS + 3])
            rest = unsigned(n // extent)
            h = signed(n - rest * extent)
            extent = unsigned(table[EXTENTS + 2])
            n = unsigned(rest // extent)
            d = signed(rest - n * extent)
            return signed(n), c, d, h, w

    else:

        def coordinates(at, table):
            extent = unsigned(table[EXTENTS + 4])
            rest = unsigned(at // extent)
            w = signed(at - rest * extent)
            extent = unsigned(table[EXTENTS + 3])
            n = unsigned(rest // extent)
            h = signed(rest - n * extent)
            extent = unsigned(table[EXTENTS + 2])
            rest = unsigned(n // extent)
            d = signed(n - rest * extent)
            extent = unsigned(table[EXTENTS + 1])
            n = unsigned(rest // extent)
            c = signed(rest - n * extent)
            return signed(n), c, d, h, w

    return scalar_function(coordinates)


@scalar_function
def _steps(table, axis):
    """How many candidates there are for the pairs of an output and a tap that meet at a position."""
    return min(table[np.uint32(axis + OUTPUT)], table[np.uint32(axis + KERNEL)])


@cache
def _meeting(narrow: bool) -> Any:
    """``meeting(table, axis, position, step)``: an output and the tap with which it reads a padded position, or -1, -1.

    Steps count outputs or taps, whichever are fewer, and the other is what is left. Outputs are counted from the last
    one, so that taps ascend either way: the order of sums does not depend on how many outputs there are.
    """
    signed, unsigned = _integer_types(narrow)

    def meeting(table, axis, position, step):
        of_outputs = table[np.uint32(axis + OUTPUT)] < table[np.uint32(axis + KERNEL)]
        stride, dilation = table[np.uint32(axis + STRIDE)], table[np.uint32(axis + DILATION)]
        taken, divisor, most = dilation, stride, table[np.uint32(axis + OUTPUT)]
        if of_outputs:
            step = most - 1 - step
            taken, divisor, most = stride, dilation, table[np.uint32(axis + KERNEL)]
        distance = signed(position - step * taken)
        if distance < 0:
            return signed(-1), signed(-1)
        found = signed(unsigned(distance) // unsigned(divisor))
        if signed(found * divisor) != distance or found >= most:
            return signed(-1), signed(-1)
        if of_outputs:
            return signed(step), found
        return found, signed(step)

    return scalar_function(meeting)


@newest
def forward_kernel(compute: str, dtypes: tuple[str, str, str], narrow: bool, last: bool, finish: Any) -> Any:
    """FORWARD. ``dtypes``: of ``x``, ``w`` and ``y``."""
    scalar, (signed, unsigned), coordinates = number(compute), _integer_types(narrow), _coordinates(narrow, last)
    read_x, read_w, write = reader(dtypes[0]), reader(dtypes[1]), writer(dtypes[2])

    @kernel
    def forward(x, w, y, extras, table, fill):
        at = unsigned(unsigned(cuda.blockIdx.x) * unsigned(cuda.blockDim.x) + unsigned(cuda.threadIdx.x))
        if at < unsigned(table[THREADS]):
            n, c, od, oh, ow = coordinates(at, table)
            channels = signed(table[GROUP_IN])
            group = signed(unsigned(c) // unsigned(table[GROUP_OUT]))
            from_x = signed(n * table[X] + group * channels * table[X + 1])
            from_w = signed(c * table[W])
            total = scalar(0)
            for kd in range(table[_DEPTH + KERNEL]):
                d = source(table, _DEPTH, od * table[_DEPTH + STRIDE] + kd * table[_DEPTH + DILATION])
                for kh in range(table[_HEIGHT + KERNEL]):
                    h = source(table, _HEIGHT, oh * table[_HEIGHT + STRIDE] + kh * table[_HEIGHT + DILATION])
                    for kw in range(table[_WIDTH + KERNEL]):
                        v = source(table, _WIDTH, ow * table[_WIDTH + STRIDE] + kw * table[_WIDTH + DILATION])
                        outside = _outside(d, h, v)
                        i = signed(from_w + kd * table[W + 2] + kh * table[W + 3] + kw * table[W + 4])
                        if outside >= 0:
                            j = signed(from_x + d * table[X + 2] + h * table[X + 3] + v * table[X + 4])
                            for _ in range(channels):
                                total += scalar(read_x(x, unsigned(j))) * scalar(read_w(w, unsigned(i)))
                                j = signed(j + table[X + 1])
                                i = signed(i + table[W + 1])
                        elif outside == CONSTANT:
                            for _ in range(channels):
                                total += fill * scalar(read_w(w, unsigned(i)))
                                i = signed(i + table[W + 1])
            to = n * table[Y] + c * table[Y + 1] + od * table[Y + 2] + oh * table[Y + 3] + ow * table[Y + 4]
            write(y, unsigned(to), finish(total, unsigned(c), unsigned(to), extras))

    return forward


@newest
def input_grad_kernel(compute: str, dtypes: tuple[str, str, str], narrow: bool, last: bool, finish: Any) -> Any:
    """INPUT_GRAD. ``dtypes``: of ``x``, ``w`` and ``y``."""
    scalar, (signed, unsigned), coordinates = number(compute), _integer_types(narrow), _coordinates(narrow, last)
    read_y, read_w, write, meeting = reader(dtypes[2]), reader(dtypes[1]), writer(dtypes[0]), _meeting(narrow)

    @kernel
    def input_grad(x, w, y, extras, table):
        at = unsigned(unsigned(cuda.blockIdx.x) * unsigned(cuda.blockDim.x) + unsigned(cuda.threadIdx.x))
        if at < unsigned(table[THREADS]):
            n, c, d, h, v = coordinates(at, table)
            channels = signed(table[GROUP_OUT])
            group = signed(unsigned(c) // unsigned(table[GROUP_IN]))
            from_y = signed(n * table[Y] + group * channels * table[Y + 1])
            from_w = signed(group * channels * table[W] + (c - group * table[GROUP_IN]) * table[W + 1])
            total = scalar(0)
            for pd in range(_positions(table, _DEPTH, d)):
                for sd in range(_steps(table, _DEPTH)):
                    od, kd = meeting(table, _DEPTH, _position(table, _DEPTH, d, pd), sd)
                    if od < 0:
                        continue
                    for ph in range(_positions(table, _HEIGHT, h)):
                        for sh in range(_steps(table, _HEIGHT)):
                            oh, kh = meeting(table, _HEIGHT, _position(table, _HEIGHT, h, ph), sh)
                            if oh < 0:
                                continue
                            for pw in range(_positions(table, _WIDTH, v)):
                                for sw in range(_steps(table, _WIDTH)):
                                    ow, kw = meeting(table, _WIDTH, _position(table, _WIDTH, v, pw), sw)
                                    if ow < 0:
                                        continue
                                    i = signed(from_w + kd * table[W + 2] + kh * table[W + 3] + kw * table[W + 4])
                                    j = signed(from_y + od * table[Y + 2] + oh * table[Y + 3] + ow * table[Y + 4])
                                    for _ in range(channels):
                                        total += scalar(read_y(y, unsigned(j))) * scalar(read_w(w, unsigned(i)))
                                        j = signed(j + table[Y + 1])
                                        i = signed(i + table[W])
            to = n * table[X] + c * table[X + 1] + d * table[X + 2] + h * table[X + 3] + v * table[X + 4]
            write(x, unsigned(to), finish(total, unsigned(c), unsigned(to), extras))

    return input_grad


@cache
def weight_grad_kernel(compute: str, dtypes: tuple[str, str, str], narrow: bool) -> Any:
    """WEIGHT_GRAD, a sum for each chunk and weight. ``dtypes``: of ``x``, the sums and ``y``."""
    scalar, (signed, unsigned), coordinates = number(compute), _integer_types(narrow), _coordinates(narrow, False)
    read_x, read_y, write = reader(dtypes[0]), reader(dtypes[2]), writer(dtypes[1])

    @kernel
    def weight_grad(x, sums, y, table, fill):
        at = unsigned(unsigned(cuda.blockIdx.x) * unsigned(cuda.blockDim.x) + unsigned(cuda.threadIdx.x))
        if at < unsigned(table[THREADS]):
            chunk, row, kd, kh, kw = coordinates(at, table)
            inside = signed(table[GROUP_IN])
            o = signed(unsigned(row) // unsigned(inside))
            i = signed(row - o * inside)
            group = signed(unsigned(o) // unsigned(table[GROUP_OUT]))
            from_x, from_y = signed((group * inside + i) * table[X + 1]), signed(o * table[Y + 1])
            cells, chunks = np.int64(table[CELLS]), np.int64(table[EXTENTS])
            begin, end = signed(chunk * cells // chunks), signed((chunk + 1) * cells // chunks)
            width, height, depth = table[_WIDTH + OUTPUT], table[_HEIGHT + OUTPUT], table[_DEPTH + OUTPUT]
            above = signed(unsigned(begin) // unsigned(width))
            ow = signed(begin - above * width)
            front = signed(unsigned(above) // unsigned(height))
            oh = signed(above - front * height)
            n = signed(unsigned(front) // unsigned(depth))
            od = signed(front - n * depth)
            total = scalar(0)
            for _ in range(begin, end):
                d = source(table, _DEPTH, od * table[_DEPTH + STRIDE] + kd * table[_DEPTH + DILATION])
                h = source(table, _HEIGHT, oh * table[_HEIGHT + STRIDE] + kh * table[_HEIGHT + DILATION])
                v = source(table, _WIDTH, ow * table[_WIDTH + STRIDE] + kw * table[_WIDTH + DILATION])
                outside = _outside(d, h, v)
                k = from_y + n * table[Y] + od * table[Y + 2] + oh * table[Y + 3] + ow * table[Y + 4]
                if outside >= 0:
                    j = from_x + n * table[X] + d * table[X + 2] + h * table[X + 3] + v * table[X + 4]
                    total += scalar(read_x(x, unsigned(j))) * scalar(read_y(y, unsigned(k)))
                elif outside == CONSTANT:
                    total += fill * scalar(read_y(y, unsigned(k)))
                ow = signed(ow + 1)
                if ow == width:
                    ow, oh = signed(0), signed(oh + 1)
                    if oh == height:
                        oh, od = signed(0), signed(od + 1)
                        if od == depth:
                            od, n = signed(0), signed(n + 1)
            to = o * table[W] + i * table[W + 1] + kd * table[W + 2] + kh * table[W + 3] + kw * table[W + 4]
            write(sums, unsigned(chunk * table[WEIGHTS] + to), scalar(total))

    return weight_grad


@cache
def sum_kernel(compute: str, dtype: str, narrow: bool) -> Any:
    """The sums of all chunks, first to last, into a weight gradient of a dtype; one thread a weight."""
    scalar, (signed, unsigned), write = number(compute), _integer_types(narrow), writer(dtype)

    @kernel
    def sum_chunks(sums, w, count, chunks):
        at = unsigned(unsigned(cuda.blockIdx.x) * unsigned(cuda.blockDim.x) + unsigned(cuda.threadIdx.x))
        if at < unsigned(count):
            total = scalar(0)
            for chunk in range(chunks):
                total += sums[unsigned(signed(chunk) * signed(count) + signed(at))]
            write(w, unsigned(at), scalar(total))

    return sum_chunks
