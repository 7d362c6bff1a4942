"""Spectra of blocks of real rows, their products, and the way back: kernels of the FFT algorithm.

A real row of ``2 half`` cells is transformed as ``half`` complex values, its even and odd cells, in two passes over a
matrix whose rows are vectors, so that every step is one on whole vectors and none needs another order of cells::

    cells m * lanes + l        rows of vectors               columns of vectors
    +---lanes---+              +-----------+   twist         +---- rows ----+
    | m = 0     |   transform  | k1        |   (factors,     | l            |  transform   frequency
    | m = 1     |   along m -> |           |   transposed)-> |              |  along l ->  k1 + rows * k2
    +-----------+              +-----------+                 +--------------+

Each pass is a transform in stages of radix 4 (Stockham's: from one buffer to another, in order), followed by the step
from the spectrum of even and odd cells to that of the row. All of it stays in the first-level cache up to 4096 cells.
Spectra are kept for products: for each vector of frequencies all that is summed over is one stretch::

    spectra   row 0 | vector 0: step 0 (re, im), step 1 (re, im), ... | vector 1: ... |
              row 1 | ...
    a tile    TILE_ROWS x TILE_COLUMNS complex accumulators in registers, over DEPTH steps

Products are added in the order of the steps, in blocks of DEPTH, whatever the split into tasks: the same bits.
"""

import numpy as np

from ...plan import CONSTANT
from .gather import code_of
from .gemm import add_stretch
from .jit import inner, kernel, part
from .simd import call_row
from .simd_complex import (
    TILE_COLUMNS,
    TILE_ROWS,
    complex_tile,
    from_real_halves,
    radix2,
    radix4,
    to_real_halves,
    twist,
)
from .simd_finite import all_finite

__all__ = [
    "TILE_ROWS",
    "finish_tasks",
    "multiply_tasks",
    "transform_tasks",
]

#: Products summed in registers before a tile is written back.
DEPTH = 64


@inner
def _stages(cells, x, y, plane, points, apart, lanes, table, t):
    """Transforms of ``points`` values ``apart`` cells from each other, each with its neighbours; where they end."""
    while points >= 4:
        quarter = points // 4
        for p in range(quarter):
            for q in range(0, apart, lanes):
                at, to = x + p * apart + q, y + 4 * p * apart + q
                if quarter > 1:
                    radix4(cells, at, to, plane, apart * quarter, apart, table, t + 6 * p, 1)
                else:
                    radix4(cells, at, to, plane, apart, apart, table, t, 0)
        t += 6 * quarter
        x, y, points, apart = y, x, quarter, 4 * apart
    if points == 2:
        for q in range(0, apart, lanes):
            radix2(cells, x + q, y + q, plane, apart)
        x = y
    return x


@part
def transform(cells, x, y, plane, half, lanes, table):
    """Transform ``half`` complex values at ``x``, with ``y`` as room; where the result is."""
    rows = half // lanes
    at = _stages(cells, x, y, plane, rows, lanes, lanes, table, 0)
    to, t = x + y - at, 2 * (rows + lanes)
    for k in range(0, rows, lanes):
        twist(cells, at + k * lanes, to + k, plane, rows, table, t + k * lanes, half)
    return _stages(cells, to, at, plane, lanes, rows, lanes, table, 2 * rows)


@inner
def _clamp(value, low, high):
    return min(max(value, low), high)


@inner
def _read_row(cells, real, imaginary, source, base, first, step, count, half, extent, pad):
    """Even cells of a stretch to the real parts, odd ones to the imaginary parts; zeros where there is no cell.

    Returns which cells ``[begin, end)`` of the stretch lie in the source.
    """
    begin = _clamp(-((first - pad) // step), 0, count)
    end = _clamp(-((first - pad - extent) // step), begin, count)
    low = (begin + 1) // 2
    high = max(end // 2, low)
    for n in range(low):
        cells[np.uintp(real + n)] = 0
        cells[np.uintp(imaginary + n)] = 0
    at = base + first - pad
    if step == 1:
        for n in range(low, high):
            cells[np.uintp(real + n)] = source[np.uintp(at + 2 * n)]
            cells[np.uintp(imaginary + n)] = source[np.uintp(at + 2 * n + 1)]
    else:
        for n in range(low, high):
            cells[np.uintp(real + n)] = source[np.uintp(at + 2 * n * step)]
            cells[np.uintp(imaginary + n)] = source[np.uintp(at + (2 * n + 1) * step)]
    for n in range(high, half):
        cells[np.uintp(real + n)] = 0
        cells[np.uintp(imaginary + n)] = 0
    if begin < end and begin % 2:
        cells[imaginary + begin // 2] = source[at + begin * step]
    if begin < end and end % 2:
        cells[real + end // 2] = source[at + (end - 1) * step]
    return begin, end


@part
def _read_border(cells, real, imaginary, source, base, first, step, count, begin, end, extent, border, limit, fill):
    """What padding other than zeros puts beside the source's cells; ``first`` is a cell, ``limit`` as in `gather`."""
    for i in range(count - end + begin):
        cell = i if i < begin else i + end - begin
        code = code_of(first + cell * step, extent, border, limit)
        if code == CONSTANT or code >= 0:
            to = imaginary if cell % 2 else real
            cells[to + cell // 2] = fill if code == CONSTANT else cells.dtype.type(source[base + code])


@inner
def _line(digits, number):
    """Three sums over the digits of a number: ``digits[d]`` is an extent and what one step of it adds to each."""
    first, second, third = 0, 0, 0
    for d in range(len(digits) - 1, -1, -1):
        extent = digits[d, 0]
        rest = number // extent
        digit = number - rest * extent
        first += digit * digits[d, 1]
        second += digit * digits[d, 2]
        third += digit * digits[d, 3]
        number = rest
    return first, second, third


@kernel
def transform_tasks(begin, end, source, lines, spectra, shape, table, fill, scales):
    """A task: the spectrum of one stretch of a row, zeros behind it.

    ``lines``, by the digits of a task's number: where the row starts, the padded position of its stretch, and where
    its spectrum goes. ``shape``: complex values of a transform, lanes, distance between cells, cells of a stretch,
    cells of a row, padding before it, distance between vectors of a spectrum, the number of the first task, what is
    added to its stretch's position and taken from its spectrum's place, and the padding's mode and limit (`gather`).
    """
    half, lanes, step, count, extent, pad, vector_step, first_task, shift, skipped, border, limit = shape
    plane = half + lanes
    cells = np.empty(4 * plane, spectra.dtype)
    post = 2 * (half // lanes + lanes) + 2 * half
    for task in range(begin, end):
        base, first, to = _line(lines, first_task + task)
        first += shift
        to -= skipped
        some, more = _read_row(cells, 0, plane, source, base, first, step, count, half, extent, pad)
        if border:
            at = first - pad
            _read_border(cells, 0, plane, source, base, at, step, count, some, more, extent, border, limit, fill)
        at = transform(cells, 0, 2 * plane, plane, half, lanes, table)
        cells[at + half], cells[at + plane + half] = cells[at], cells[at + plane]
        for k in range(0, half, lanes):
            back = at + half - k - lanes + 1
            from_real_halves(cells, at + k, back, plane, table, post + k, half, spectra, to, scales[0], scales[1])
            to += vector_step
        spectra[to : to + 2 * lanes] = 0
        spectra[to] = 2 * scales[0] * (cells[at] - cells[at + plane])


@inner
def _tile(a, a_at, a_step, b, b_at, b_step, depth, c, c_at, row_step, column_step, plane, rows, columns):
    """A tile of products, of any size up to the largest."""
    m = 0
    while m < rows:
        high = TILE_ROWS if rows - m >= TILE_ROWS else 2 if rows - m >= 2 else 1
        n = 0
        while n < columns:
            some = min(TILE_COLUMNS, columns - n)
            at, left, right = c_at + m * row_step + n * column_step, a_at + m * a_step, b_at + n * b_step
            if high == TILE_ROWS and some == TILE_COLUMNS:
                complex_tile(
                    a,
                    left,
                    a_step,
                    b,
                    right,
                    b_step,
                    depth,
                    c,
                    at,
                    row_step,
                    column_step,
                    plane,
                    TILE_ROWS,
                    TILE_COLUMNS,
                )
            elif some == TILE_COLUMNS and high == 2:
                complex_tile(
                    a, left, a_step, b, right, b_step, depth, c, at, row_step, column_step, plane, 2, TILE_COLUMNS
                )
            elif some == TILE_COLUMNS:
                complex_tile(
                    a, left, a_step, b, right, b_step, depth, c, at, row_step, column_step, plane, 1, TILE_COLUMNS
                )
            elif high == TILE_ROWS:
                complex_tile(
                    a, left, a_step, b, right, b_step, depth, c, at, row_step, column_step, plane, TILE_ROWS, 1
                )
            elif high == 2:
                complex_tile(a, left, a_step, b, right, b_step, depth, c, at, row_step, column_step, plane, 2, 1)
            else:
                complex_tile(a, left, a_step, b, right, b_step, depth, c, at, row_step, column_step, plane, 1, 1)
            n += some
        m += high


@inner
def _write_row(out, at, step, cells, real, imaginary, first, count):
    """``count`` cells from cell ``first`` on, even ones from the real parts, odd ones from the imaginary parts."""
    i = 0
    if first % 2 and count:
        out[at] = cells[imaginary + first // 2]
        i = 1
    low, pairs = (first + i) // 2, (count - i) // 2
    if step == 1:
        for n in range(pairs):
            out[np.uintp(at + i + 2 * n)] = cells[np.uintp(real + low + n)]
            out[np.uintp(at + i + 2 * n + 1)] = cells[np.uintp(imaginary + low + n)]
    else:
        for n in range(pairs):
            out[np.uintp(at + (i + 2 * n) * step)] = cells[np.uintp(real + low + n)]
            out[np.uintp(at + (i + 2 * n + 1) * step)] = cells[np.uintp(imaginary + low + n)]
    i += 2 * pairs
    if i < count:
        out[at + i * step] = cells[real + (first + i) // 2]


@inner
def _inverse(y, at, cells, plane, half, lanes, table):
    """The real row behind the spectrum at ``y[at:]``, as even and odd cells; where their planes are."""
    post = 2 * (half // lanes + lanes) + 2 * half
    for k in range(0, half, lanes):
        to_real_halves(y, at + k, at + half - k - lanes + 1, plane, table, post + k, half, cells, k, plane)
    return transform(cells, plane, 3 * plane, -plane, half, lanes, table) - plane


@kernel
def multiply_tasks(begin, end, a, b, out, row_lines, column_lines, shape, blocks, place, table, spoiled):
    """A task: products of a block of rows with a block of columns over a chunk of the depth, transformed back.

    ``row_lines`` and ``column_lines``, by the digits of a row's and a column's number: where the result's line starts,
    and the position of its first cell; both are added up. ``shape``: complex values of a transform, lanes, groups,
    rows and columns of a group, depth, chunks. ``blocks``: rows and columns of a block. ``place``: first cell that is
    valid, how many are, the distance between their positions, how many positions there are, what is added to the first
    position, what a chunk's results are from the next's, and the number of the first column. ``spoiled``: a mark for
    each third number of a column's line, set where cells to store are not finite.
    """
    half, lanes, groups, rows, columns, depth, chunks = shape
    some_rows, some_columns = blocks
    first, valid, step, extent, shift, chunk_size, first_column = place
    vectors, plane = half // lanes + 1, half + lanes
    row_blocks, column_blocks = -(-rows // some_rows), -(-columns // some_columns)
    y_step = 2 * plane
    sums = np.empty(some_rows * some_columns * y_step, out.dtype)
    cells = np.empty(4 * plane, out.dtype)
    for task in range(begin, end):
        rest, row_block = divmod(task, row_blocks)
        rest, column_block = divmod(rest, column_blocks)
        chunk, g = divmod(rest, groups)
        k0, k1 = chunk * depth // chunks, (chunk + 1) * depth // chunks
        m0, n0 = row_block * some_rows, column_block * some_columns
        high, across = min(some_rows, rows - m0), min(some_columns, columns - n0)
        sums[: high * some_columns * y_step] = 0
        spectrum = vectors * depth * 2 * lanes
        for f in range(vectors):
            for k in range(k0, k1, DEPTH):
                at = (f * depth + k) * 2 * lanes
                _tile(
                    a,
                    (g * rows + m0) * spectrum + at,
                    spectrum,
                    b,
                    (g * columns + n0) * spectrum + at,
                    spectrum,
                    min(DEPTH, k1 - k),
                    sums,
                    f * lanes,
                    some_columns * y_step,
                    y_step,
                    plane,
                    high,
                    across,
                )
        for m in range(high):
            row_base, row_position, _ = _line(row_lines, g * rows + m0 + m)
            for n in range(across):
                base, position, mark = _line(column_lines, first_column + n0 + n)
                base += row_base + chunk * chunk_size
                position += row_position + shift
                skipped = _clamp(-(position // step), 0, valid)
                stop = _clamp(-((position - extent) // step), skipped, valid)
                if skipped < stop:
                    real = _inverse(sums, (m * some_columns + n) * y_step, cells, plane, half, lanes, table)
                    at = base + position + skipped * step
                    _write_row(out, at, step, cells, real, real + plane, first + skipped, stop - skipped)
                    low, pairs = (first + skipped) // 2, (first + stop + 1) // 2 - (first + skipped) // 2
                    if not (all_finite(cells, real + low, pairs) and all_finite(cells, real + plane + low, pairs)):
                        spoiled[mark] = 1  # every task writes the same value


@kernel
def finish_tasks(begin, end, out, bias, residual, channels, length, activation):
    """A task: the epilogue of one channel of one sample."""
    for task in range(begin, end):
        at = task * length
        offset = bias[task % channels] if bias.size else out.dtype.type(0)
        for i in range(length):
            out[np.uintp(at + i)] += offset
        if residual.size:
            add_stretch(out, at, length, residual, at, 1)
        if activation[0] and call_row(activation, out, at, length):
            activation[1] = 1  # it raised; every task writes the same value
