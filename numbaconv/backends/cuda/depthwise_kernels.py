"""Depthwise convolution: a few neighbouring results a thread, in registers, along an axis that the layout chooses.

Each group has one channel on one side, so a result reads few cells, each is read by few results, and memory takes the
time. Threads that are neighbours read neighbours in memory, and what a thread reads for one result it keeps for the
next along its *walk* (`walks.py`)::

    channels first, walk down:             channels last, walk along the width:
    neighbouring threads along the width   neighbouring threads are neighbouring channels

         t0 t1 t2 ...                           w0 w1 w2 w3 w4 w5
    h0   x  x  x                           c0   x  x  x  x  x  x   t0
    h1   x  x  x    cells of a thread,     c1   x  x  x  x  x  x   t1
    h2   x  x  x    for each tap across    ...
    h3   x  x  x
    h4   x  x  x    4 results, 3 taps
    h5   x  x  x

FORWARD and INPUT_GRAD are one kernel (``sweep``): for each chunk of taps along the walk, each source channel, and each
pair of taps across from a list, ``sums[j] += cell(j, k) * w[k]``. INPUT_GRAD walks along the width wherever that is
strided, since its phases are then in the code and not in neighbouring threads. The cells' places along the walk are
looked up once for all taps across.

WEIGHT_GRAD (``dots``) has a block for each tile of taps, channels and chunk of positions: up to 25 sums of a thread,
each of whose cells and gradients are read once for all of them. Threads take positions in turn, their sums are added as
a tree in shared memory, and chunks by the second kernel of `weight_gemm.py`. The order follows from the plan and the
layout: no atomics. What lies beyond an axis's last output is not multiplied, since 0 * NaN is not 0.

Machine code for sm_90: nothing on the stack; 56 registers for 3 taps down, 72 for the sums of 3x3 taps, 103 for 5x5,
130 in float64 with 3x7, which is what limits the sums of a thread. No kernel here was timed on a device yet.

Error factor: as any sum of n products in some order (``any_order_factor``).
"""

from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from ...plan import CONSTANT
from .division import divided, remainder
from .elements import number, reader, writer
from .intrinsics import inlined, load2
from .jit import kernel, newest
from .walks import Pattern

__all__ = ["ALONG", "DOTS_HEAD", "DOWN", "LAST", "SWEEP_HEAD", "dots_kernel", "sweep_kernel"]

#: Which axis neighbouring threads lie along, and which is the walk: channels, walk along the width; the width's walk
#: itself; the width, walk down the height.
LAST, ALONG, DOWN = "last", "along", "down"

#: Places in the table of ``sweep``. ``UNITS``: threads of a sample with something to do, in ``BLOCKS``. ``DIVIDE``: the
#: three fastest extents and result channels of a group, each with its inverse and shift. ``SOURCE``, ``TARGET``:
#: elements from channel to channel; the target's also along the walk and across. ``W_GROUP``, ``W_ROW``, ``W_CHANNEL``,
#: ``W_STEP``: the weight's, to the next tap of the walk with the last. ``FIRST_B``, ``FIRST_D``: where the lists
#: begin; their entries are pairs of a cell or code and the tap's weight.
UNITS, BLOCKS, DIVIDE = 0, 1, 2
CHANNELS, SOURCE, TARGET, W_GROUP, W_ROW, W_CHANNEL, W_STEP = 14, 15, 16, 20, 21, 22, 23
START, ADVANCE, UNIT, SHIFT, CHUNKS, KERNEL, WALKED, FIRST_B, FIRST_D = range(24, 33)
SWEEP_HEAD = 33


@cache
def _places(order: str) -> Any:
    """A device function: channel, place of the walk, and places across, of a sample's thread."""
    last, along = order == LAST, order == ALONG

    @inlined
    def places(at, table):
        extent = np.uint32(table[DIVIDE])
        rest = divided(at, np.uint32(table[DIVIDE + 1]), table[DIVIDE + 2])
        first = np.uint32(at - np.uint32(rest * extent))
        extent = np.uint32(table[DIVIDE + 3])
        more = divided(rest, np.uint32(table[DIVIDE + 4]), table[DIVIDE + 5])
        second = np.uint32(rest - np.uint32(more * extent))
        extent = np.uint32(table[DIVIDE + 6])
        fourth = divided(more, np.uint32(table[DIVIDE + 7]), table[DIVIDE + 8])
        third = np.uint32(more - np.uint32(fourth * extent))
        if last:
            return first, second, third, fourth
        if along:
            return fourth, first, second, third
        return fourth, second, first, third

    return places


@cache
def _cell_of(dtype: str, walked: int, gaps: bool, constant: bool, compute: str) -> Any:
    """A device function: what a thread's cell holds, from its place along the walk and its places or codes across.

    ``walked``: which of the three axes the walk is along. ``gaps``: whether there are codes across. ``constant``:
    whether padding may hold a constant; where several axes are outside the last of them decides.
    """
    read, scalar = reader(dtype), number(compute)
    along, front = walked == 2, walked == 0
    zero = scalar(0)

    @inlined
    def cell(source, start, place, b, d, fill):
        value = zero
        if (place | b | d) >= 0 if gaps else place >= 0:
            value = scalar(read(source, start + np.uint64(np.uint32(np.uint32(place) + np.uint32(b) + np.uint32(d)))))
        elif constant:
            width, height = (place, b) if along else (b, d if front else place)
            code = width if width < 0 else (height if height < 0 else (place if front else d))
            value = fill if code == CONSTANT else zero
        return value

    return cell


@newest
def sweep_kernel(
    pattern: Pattern,
    order: str,
    walked: int,
    chunked: bool,
    constant: bool,
    dtypes: tuple[str, str, str],
    compute: str,
    finish: Any,
) -> Any:
    """FORWARD and INPUT_GRAD. ``dtypes``: of source, weight and result; ``constant``: whether padding may be.

    ``walked``: which of the three axes the walk is along.

    Its arguments: source, weight, result, the epilogue's, table, elements from one sample to the next of source and
    result, what constant padding holds.
    """
    results, taps, step, slope, bias, divisor = pattern
    held, scalar = pattern.cells, number(compute)
    read_w, write = reader(dtypes[1]), writer(dtypes[2])
    coordinates, cell = _places(order), _cell_of(dtypes[0], walked, constant, constant, compute)
    zero = scalar(0)

    @inlined
    def add(w, w_at, w_step, left, cells, sums):
        for k in range(taps):
            if not chunked or np.int32(k) < left:
                value = scalar(read_w(w, w_at + np.uint64(np.uint32(np.uint32(k) * w_step))))
                for j in range(results):
                    at = j * step + k * slope + bias
                    if at % divisor == 0:
                        sums[j] += cells[np.uint32(at // divisor)] * value

    @kernel
    def sweep(source, w, out, extras, table, source_batch, out_batch, fill):
        block, thread, threads = (
            np.uint32(cuda.blockIdx.x),
            np.uint32(cuda.threadIdx.x),
            np.uint32(cuda.blockDim.x),
        )
        sample = np.uint32(block // np.uint32(table[BLOCKS]))
        unit_at = np.uint32(np.uint32(block - np.uint32(sample * np.uint32(table[BLOCKS]))) * threads + thread)
        if unit_at < np.uint32(table[UNITS]):
            places = cuda.local.array(held, np.int32)
            cells = cuda.local.array(held, scalar)
            sums = cuda.local.array(results, scalar)
            c, t, b, d = coordinates(unit_at, table)
            group = divided(c, np.uint32(table[DIVIDE + 10]), table[DIVIDE + 11])
            row = np.uint32(c - np.uint32(group * np.uint32(table[DIVIDE + 9])))
            channels, channel_step = np.uint32(table[CHANNELS]), np.uint32(table[SOURCE])
            start = np.uint64(sample) * np.uint64(source_batch)
            start += np.uint64(np.uint32(np.uint32(group * channels) * channel_step))
            w_step, w_start = (
                np.uint32(table[W_STEP]),
                np.uint32(np.uint32(group * np.uint32(table[W_GROUP])) + np.uint32(row * np.uint32(table[W_ROW]))),
            )
            at_b, at_d = np.uint32(np.uint32(table[FIRST_B]) + b), np.uint32(np.uint32(table[FIRST_D]) + d)
            first_b, end_b = table[at_b], table[np.uint32(at_b + np.uint32(1))]
            first_d, end_d = table[at_d], table[np.uint32(at_d + np.uint32(1))]
            line = np.int32(np.int32(table[START]) + np.int32(np.int32(t) * np.int32(table[ADVANCE])))
            left = np.int32(table[KERNEL])
            for j in range(results):
                sums[j] = zero
            for _ in range(table[CHUNKS]):
                for i in range(held):
                    places[i] = table[np.uint32(line + np.int32(i) * np.int32(table[UNIT]))]
                for s in range(channels):
                    from_s = start + np.uint64(np.uint32(np.uint32(s) * channel_step))
                    w_s = np.uint32(w_start + np.uint32(np.uint32(s) * np.uint32(table[W_CHANNEL])))
                    for e in range(first_d, end_d):
                        entry_d = load2(table, np.uint32(np.uint32(2) * np.uint32(e)), 0)
                        w_d = np.uint32(w_s + np.uint32(entry_d[1]))
                        for f in range(first_b, end_b):
                            entry_b = load2(table, np.uint32(np.uint32(2) * np.uint32(f)), 0)
                            for i in range(held):
                                cells[i] = cell(source, from_s, places[i], entry_b[0], entry_d[0], fill)
                            add(w, np.uint64(np.uint32(w_d + np.uint32(entry_b[1]))), w_step, left, cells, sums)
                line = np.int32(line + np.int32(table[SHIFT]))
                left = np.int32(left - np.int32(taps))
                w_start = np.uint32(w_start + np.uint32(np.uint32(taps) * w_step))
            inside = np.uint32(c * np.uint32(table[TARGET]) + np.uint32(b * np.uint32(table[TARGET + 2])))
            inside = np.uint32(inside + np.uint32(d * np.uint32(table[TARGET + 3])))
            to = np.uint64(sample) * np.uint64(out_batch) + np.uint64(inside)
            first = np.uint32(t * np.uint32(results))
            extent, out_step = np.uint32(table[WALKED]), np.uint32(table[TARGET + 1])
            for j in range(results):
                place = np.uint32(first + np.uint32(j))
                if place < extent:
                    at = to + np.uint64(np.uint32(place * out_step))
                    write(out, at, finish(sums[j], c, at, extras))

    return sweep


#: Places in the table of ``dots``. ``PAIRS``: weights of a tap. ``TILES``: of taps along the walk, and across.
#: ``CHUNK``: units of a chunk. ``SPLIT``: units of a sample, the two fastest extents, how many pairs have an input
#: channel and how many an output channel, each with its inverse and shift. ``X_CHANNEL``, ``Y``: elements from channel
#: to channel, the latter's also along the walk and across. ``LINE_B``, ``LINE_D``: where lines begin, their steps from
#: output to output and from tap to tap. ``W_TAPS``: how far apart taps are in the sums, along the walk and across.
PAIRS, TILES, PAIR_BLOCKS, CHUNK, SPLIT, X_CHANNEL, Y = 0, 1, 4, 5, 6, 21, 22
X_START, X_ADVANCE, X_UNIT, X_SHIFT, LINE_B, LINE_D, W_TAPS, TAPS_ALONG, TAPS_ACROSS, TAPS, OUTPUTS = (
    *range(26, 30),
    *range(30, 39, 3),
    *range(39, 43),
)
DOTS_HEAD = 43


@cache
def _dots_of_line(pattern: Pattern, order: str, constant: bool, dtype: str, compute: str, kb: int) -> Any:
    """A device function: a line's cells times the gradients, added to the sums of its tile's taps."""
    results, taps, step, slope, _, _ = pattern
    held, cell = pattern.cells, _cell_of(dtype, 1 if order == DOWN else 2, True, constant, compute)

    @inlined
    def line(x, table, x_at, line_b, d, fill, left, places, cells, grads, sums):
        b = table[np.uint32(line_b + np.uint32(np.uint32(kb) * np.uint32(table[LINE_B + 2])))]
        for i in range(held):
            cells[i] = cell(x, x_at, places[i], b, d, fill)
        for j in range(results):
            if np.uint32(j) < left:
                for k in range(taps):
                    sums[np.uint32(kb * taps + k)] += cells[np.uint32(j * step + k * slope)] * grads[j]

    return line


@cache
def _dots_of_tile(pattern: Pattern, lines: int, order: str, constant: bool, dtype: str, compute: str) -> Any:
    """A device function: `_dots_of_line` for each line of a tile of taps, one inside the other, without a loop."""
    last = _dots_of_line(pattern, order, constant, dtype, compute, lines - 1)
    if lines == 1:
        return last
    before = _dots_of_tile(pattern, lines - 1, order, constant, dtype, compute)

    @inlined
    def tile(x, table, x_at, line_b, d, fill, left, places, cells, grads, sums):
        before(x, table, x_at, line_b, d, fill, left, places, cells, grads, sums)
        last(x, table, x_at, line_b, d, fill, left, places, cells, grads, sums)

    return tile


@cache
def dots_kernel(
    pattern: Pattern,
    lines: int,
    order: str,
    constant: bool,
    threads: int,
    beside: int,
    dtypes: tuple[str, str],
    compute: str,
) -> Any:
    """WEIGHT_GRAD, a sum for each chunk and weight. ``dtypes``: of input and output gradient.

    ``lines``: lines of taps in a tile. ``threads``: of a block, and ``beside`` of them, both powers of two, have
    different channels. Its arguments: input, output gradient, sums, table, units of all samples, elements from one
    sample to the next of input and gradient, what constant padding holds.
    """
    results, taps = pattern.results, pattern.taps
    held, tile_taps, scalar, down = pattern.cells, lines * pattern.taps, number(compute), order == DOWN
    read_y = reader(dtypes[1])
    add = _dots_of_tile(pattern, lines, order, constant, dtypes[0], compute)
    shared_size, zero, in_turn = threads * tile_taps, scalar(0), threads // beside

    @kernel
    def dots(x, y, sums_out, table, units, x_batch, y_batch, fill):
        shared = cuda.shared.array(shared_size, scalar)
        places = cuda.local.array(held, np.int32)
        cells = cuda.local.array(held, scalar)
        grads = cuda.local.array(results, scalar)
        sums = cuda.local.array(tile_taps, scalar)
        thread, block = np.uint32(cuda.threadIdx.x), np.uint32(cuda.blockIdx.x)
        along = np.uint32(block % np.uint32(table[TILES]))
        block = np.uint32(block // np.uint32(table[TILES]))
        across = np.uint32(block % np.uint32(table[TILES + 1]) * np.uint32(lines))
        block = np.uint32(block // np.uint32(table[TILES + 1]))
        kd = np.uint32(block % np.uint32(table[TILES + 2]))
        block = np.uint32(block // np.uint32(table[TILES + 2]))
        first_pair = np.uint32(block % np.uint32(table[PAIR_BLOCKS]) * np.uint32(beside))
        chunk = np.uint32(block // np.uint32(table[PAIR_BLOCKS]))
        for i in range(tile_taps):
            sums[i] = zero
        pair = np.uint32(first_pair + thread % np.uint32(beside))
        if pair < np.uint32(table[PAIRS]):
            begin = np.uint64(chunk) * np.uint64(table[CHUNK])
            length = np.uint32(min(np.uint64(table[CHUNK]), np.uint64(units) - begin))
            first_sample = np.uint64(begin // np.uint64(table[SPLIT]))
            first = np.uint32(begin - first_sample * np.uint64(table[SPLIT]))
            x_channel, _ = remainder(pair, table, SPLIT + 9)
            y_channel, _ = remainder(pair, table, SPLIT + 12)
            x_start = first_sample * np.uint64(x_batch) + np.uint64(np.uint32(x_channel * np.uint32(table[X_CHANNEL])))
            y_start = first_sample * np.uint64(y_batch) + np.uint64(np.uint32(y_channel * np.uint32(table[Y])))
            x_line = np.int32(np.int32(table[X_START]) + np.int32(np.int32(along) * np.int32(table[X_SHIFT])))
            tap_b = np.uint32(np.uint32(table[LINE_B]) + np.uint32(across * np.uint32(table[LINE_B + 2])))
            tap_d = np.uint32(np.uint32(table[LINE_D]) + np.uint32(kd * np.uint32(table[LINE_D + 2])))
            for at in range(thread // np.uint32(beside), length, np.uint32(in_turn)):
                sample, inside = remainder(np.uint32(first + np.uint32(at)), table, SPLIT)
                rest, t = remainder(inside, table, SPLIT + 3)
                d, b = remainder(rest, table, SPLIT + 6)
                if down:
                    t, b = b, t
                x_at = x_start + np.uint64(sample) * np.uint64(x_batch)
                y_at = np.uint32(np.uint32(b * np.uint32(table[Y + 2])) + np.uint32(d * np.uint32(table[Y + 3])))
                first_output = np.uint32(t * np.uint32(results))
                y_at = np.uint32(y_at + np.uint32(first_output * np.uint32(table[Y + 1])))
                y_from = y_start + np.uint64(sample) * np.uint64(y_batch) + np.uint64(y_at)
                left = np.uint32(np.uint32(table[OUTPUTS]) - first_output)
                for j in range(results):
                    grads[j] = zero
                    if np.uint32(j) < left:
                        further = np.uint64(np.uint32(np.uint32(j) * np.uint32(table[Y + 1])))
                        grads[j] = scalar(read_y(y, y_from + further))
                line = np.int32(x_line + np.int32(np.int32(t) * np.int32(table[X_ADVANCE])))
                for i in range(held):
                    places[i] = table[np.uint32(line + np.int32(np.int32(i) * np.int32(table[X_UNIT])))]
                line_b = np.uint32(tap_b + np.uint32(b * np.uint32(table[LINE_B + 1])))
                of_d = table[np.uint32(tap_d + np.uint32(d * np.uint32(table[LINE_D + 1])))]
                add(x, table, x_at, line_b, of_d, fill, left, places, cells, grads, sums)
        for i in range(tile_taps):
            shared[np.uint32(np.uint32(i * threads) + thread)] = sums[i]
        cuda.syncthreads()
        width = np.uint32(threads // 2)
        while width >= np.uint32(beside):
            for item in range(thread, np.uint32(width * np.uint32(tile_taps)), np.uint32(threads)):
                tap = np.uint32(np.uint32(item) // width)
                to = np.uint32(
                    np.uint32(tap * np.uint32(threads)) + np.uint32(np.uint32(item) - np.uint32(tap * width))
                )
                shared[to] += shared[np.uint32(to + width)]
            cuda.syncthreads()
            width = np.uint32(width // np.uint32(2))
        for item in range(thread, np.uint32(beside * tile_taps), np.uint32(threads)):
            tap = np.uint32(np.uint32(item) // np.uint32(beside))
            lane = np.uint32(np.uint32(item) % np.uint32(beside))
            ka = np.uint32(np.uint32(along * np.uint32(taps)) + tap % np.uint32(taps))
            kb = np.uint32(across + tap // np.uint32(taps))
            pair = np.uint32(first_pair + lane)
            there = ka < np.uint32(table[TAPS_ALONG]) and kb < np.uint32(table[TAPS_ACROSS])
            if there and pair < np.uint32(table[PAIRS]):
                to = np.uint32(ka * np.uint32(table[W_TAPS]) + kb * np.uint32(table[W_TAPS + 1]))
                to = np.uint32(to + kd * np.uint32(table[W_TAPS + 2]) + np.uint32(pair * np.uint32(table[TAPS])))
                weights = np.uint64(table[PAIRS]) * np.uint64(table[TAPS])
                sums_out[np.uint64(chunk) * weights + np.uint64(to)] = shared[
                    np.uint32(np.uint32(tap * np.uint32(threads)) + lane)
                ]

    return dots
