"""Direct convolution along rows: every mode, every dtype, every direction; the end of every table.

A row runs along the last axis (width). All three primitives reduce to rows of one tap each::

    FORWARD      acc[o]      += w[k] * line[at(k) + o]     line: the input row, padded, one stride phase
    INPUT_GRAD   acc[at(k)+o] += w[k] * row[o]             after another; acc has the line's layout
    WEIGHT_GRAD  w[k]        += sum_o row[o] * line[at(k) + o]

    input row     a b c d e f g h i          stride 2, pad 1, kernel 3
    padded        . a b c d e f g h i .
    line          . b d f h .  a c e g i     phase 0, then phase 1
                  ^            ^             at(0) = 0, at(1) = 6,
                    ^                        at(2) = 1: every tap reads consecutive cells

So strides, dilation and every padding mode are settled when a line is packed (once for a block of output
channels and all taps of a row), and the inner loops are dense and vectorised. Work is split over samples,
channel blocks, the outer spatial axes and tiles of a row. Integers are converted as they are packed or multiplied, so
that no copy of the data is made for it.

Error factor: a sum of n products in some order is off by at most n roundings of partial sums (Higham 2002,
Accuracy and Stability, section 4.2), each product by one more, bias and residual by one each.

Tried: a block of one channel packs each line again for every output channel; on 64 channels of 56x56 with
3x3 taps FORWARD took 2.0 times as long and WEIGHT_GRAD 2.9 times (INPUT_GRAD, which packs nothing, 1.1).
Rows shorter than a vector or two (7x7 maps) spend most of their time between the inner loops.
"""

import numpy as np

from ...plan import CONSTANT, ZERO
from .gather import code_of
from .jit import inner, kernel, part, reduction
from .simd import call_row

__all__ = [
    "BLOCK",
    "forward_tasks",
    "input_grad_tasks",
    "weight_grad_tasks",
]

#: Output channels (INPUT_GRAD: input channels) that share a packed line.
BLOCK = 8


@inner
def _axpy(acc, at, factor, line, start, count):
    """``acc[at : at + count] += factor * line[start : start + count]``; unsigned indices do not wrap around."""
    for o in range(count):
        acc[np.uintp(at + o)] += factor * line[np.uintp(start + o)]


@inner
def _axpy_row(acc, at, factor, y, n, c, d, h, start, count):
    """``acc[at : at + count] += factor * y[n, c, d, h, start : start + count]``."""
    for o in range(count):
        acc[np.uintp(at + o)] += factor * acc.dtype.type(y[n, c, d, h, np.uintp(start + o)])


@reduction
def _dot(y, n, c, d, h, start, line, at, count):
    """``sum(y[n, c, d, h, start : start + count] * line[at : at + count])``."""
    total = line.dtype.type(0)
    for o in range(count):
        total += line.dtype.type(y[n, c, d, h, np.uintp(start + o)]) * line[np.uintp(at + o)]
    return total


@inner
def _source(axis, position):
    """The input cell at a padded position, or ``ZERO`` or ``CONSTANT``."""
    return code_of(position - axis.pad, axis.input, axis.border, axis.used - axis.pad)


@part
def _pack(line, x, n, c, d, h, width, begin, cells, fill):
    """Pack ``cells`` cells of each segment of a padded row, from output position ``begin`` on.

    ``d`` and ``h`` are input indices or, on padding, ``ZERO`` or ``CONSTANT``; where two axes are outside,
    the later one decides, as if each axis were padded after the one before.
    """
    zero = line.dtype.type(0)
    outside = d < 0 or h < 0
    row_fill = fill if (h if h < 0 else d) == CONSTANT else zero
    stride = width.stride
    for f in range(width.segments.size):
        start, at = width.segments[f], f * cells
        first = min(max(-((start - width.pad) // stride) - begin, 0), cells)
        last = min(max(-((start - width.pad - width.input) // stride) - begin, first), cells)
        base = begin * stride + start - width.pad
        if outside:
            for q in range(first, last):
                line[at + q] = row_fill
        elif stride == 1:
            for q in range(first, last):
                line[np.uintp(at + q)] = x[n, c, d, h, np.uintp(base + q)]
        else:
            for q in range(first, last):
                line[np.uintp(at + q)] = x[n, c, d, h, np.uintp(base + q * stride)]
        for q in range(first + cells - last):
            cell = q if q < first else q + last - first
            source = code_of(base + cell * stride, width.input, width.border, width.used - width.pad)
            if source >= 0:
                line[at + cell] = row_fill if outside else line.dtype.type(x[n, c, d, h, source])
            else:
                line[at + cell] = fill if source == CONSTANT else zero


@part
def _store(row, at, count, bias, residual, activation, out, n, c, d, h, start):
    """The epilogue: a finished row, with bias, residual and activation, to its place."""
    if bias.size:
        for o in range(count):
            row[at + o] += bias[c]
    if residual.size:
        for o in range(count):
            row[at + o] += residual[n, c, d, h, start + o]
    if activation[0] and call_row(activation, row, at, count):
        activation[1] = 1  # it raised; every task writes the same value
    for o in range(count):
        out[n, c, d, h, start + o] = row[at + o]


@kernel
def forward_tasks(begin, end, x, w, bias, residual, y, groups, depth, height, width, fill, activation):
    """A task: a block of output channels, one sample, one depth and height, one tile of a row."""
    group_in, group_out = w.shape[1], w.shape[0] // groups
    blocks = -(-group_out // BLOCK)
    tile = width.tile
    tiles = -(-width.output // tile)
    cells = tile + width.reach
    line = np.empty(width.segments.size * cells, y.dtype)
    acc = np.empty(min(BLOCK, max(group_out, 1)) * tile, y.dtype)
    for task in range(begin, end):
        rest, t = divmod(task, tiles)
        rest, oh = divmod(rest, height.output)
        rest, od = divmod(rest, depth.output)
        rest, b = divmod(rest, blocks)
        n, g = divmod(rest, groups)
        o0 = t * tile
        count = min(tile, width.output - o0)
        c0 = g * group_out + b * BLOCK
        block = min(BLOCK, (g + 1) * group_out - c0)
        acc[:] = 0
        for kd in range(depth.kernel):
            d = _source(depth, od * depth.stride + kd * depth.dilation)
            for kh in range(height.kernel):
                h = _source(height, oh * height.stride + kh * height.dilation)
                if (h if h < 0 else d) == ZERO and not width.constant:
                    continue
                for c in range(group_in):
                    _pack(line, x, n, g * group_in + c, d, h, width, o0, cells, fill)
                    for j in range(block):
                        for k in range(width.kernel):
                            at = width.segment[k] * cells + width.reads[k]
                            _axpy(acc, j * tile, w[c0 + j, c, kd, kh, k], line, at, count)
        for j in range(block):
            _store(acc, j * tile, count, bias, residual, activation, y, n, c0 + j, od, oh, o0)


@part
def _first_of(table, value):
    """The place of the first in an ascending table that is not less than a value."""
    low, high = 0, table.size
    while low < high:
        middle = (low + high) // 2
        if table[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@part
def _position(axis, i, extra, at):
    """The padded position ``at`` of those that hold cell ``i``, whose entries elsewhere begin at ``extra``."""
    if not axis.own:
        return axis.extra_position[extra + at]
    return axis.extra_position[extra + at - 1] if at else i + axis.pad


@part
def _output_at(axis, position, tap):
    """The output whose tap reads a padded position, or -1."""
    distance = position - tap * axis.grad_dilation
    if distance < 0 or distance % axis.grad_stride:
        return -1
    output = distance // axis.grad_stride
    return output if output < axis.output else -1


@part
def _add_output_row(acc, cells, tile, w, y, n, g, b, group_in, group_out, kd, kh, od, oh, begin, width):
    """Add one output row, through the taps ``kd, kh``, to the lines of a block of input channels."""
    block = min(BLOCK, group_in - b * BLOCK)
    for c in range(g * group_out, (g + 1) * group_out):
        for j in range(block):
            for k in range(width.kernel):
                first = max(begin - width.shift[k], 0)
                last = min(begin + cells - width.shift[k], width.output)
                at = j * tile + width.slot[k] * cells + first + width.shift[k] - begin
                _axpy_row(acc, at, w[c, b * BLOCK + j, kd, kh, k], y, n, c, od, oh, first, last - first)


@part
def _unpack(row, acc, at, cells, begin, first, last, width):
    """Collect input cells ``first .. last - 1`` from the line that starts at ``acc[at]``."""
    stride, pad = width.grad_stride, width.pad
    for i in range(last - first):
        row[i] = 0
    if width.own:
        for slot in range(width.phases.size):
            phase, start = width.phases[slot], at + slot * cells - begin
            q = -((phase - first - pad) // stride)
            i = q * stride + phase - pad
            while i < last:
                row[i - first] = acc[start + q]
                i += stride
                q += 1
    for e in range(width.extra_cell.size):
        q, phase = divmod(width.extra_position[e], stride)
        slot = _first_of(width.phases, phase)
        if slot < width.phases.size and width.phases[slot] == phase:
            row[width.extra_cell[e] - first] += acc[at + slot * cells + q]


@kernel
def input_grad_tasks(begin, end, x, w, bias, residual, y, groups, depth, height, width, fill, activation):
    """A task: a block of input channels, one sample, one depth and height, one tile of a row.

    Where padding repeats cells, an input cell gathers from the whole line, which is then one tile.
    """
    group_in, group_out = w.shape[1], w.shape[0] // groups
    blocks = -(-group_in // BLOCK)
    cells, stride = width.grad_tile, width.grad_stride
    tiles = -(-width.steps // cells)
    tile = width.phases.size * cells
    acc = np.empty(min(BLOCK, max(group_in, 1)) * tile, x.dtype)
    row = np.empty(width.input if width.mapped else min(width.input, cells * stride), x.dtype)
    for task in range(begin, end):
        rest, t = divmod(task, tiles)
        rest, ih = divmod(rest, height.input)
        rest, d = divmod(rest, depth.input)
        rest, b = divmod(rest, blocks)
        n, g = divmod(rest, groups)
        q0 = width.first_step + t * cells
        first, last = 0, width.input
        if not width.mapped:
            first = max(q0 * stride - width.pad, 0)
            last = min((q0 + cells) * stride - width.pad, width.input)
        acc[:] = 0
        extra_d, extra_h = _first_of(depth.extra_cell, d), _first_of(height.extra_cell, ih)
        for pd in range(depth.own + _first_of(depth.extra_cell, d + 1) - extra_d):
            for kd in range(depth.kernel):
                od = _output_at(depth, _position(depth, d, extra_d, pd), kd)
                if od < 0:
                    continue
                for ph in range(height.own + _first_of(height.extra_cell, ih + 1) - extra_h):
                    for kh in range(height.kernel):
                        oh = _output_at(height, _position(height, ih, extra_h, ph), kh)
                        if oh >= 0:
                            _add_output_row(
                                acc, cells, tile, w, y, n, g, b, group_in, group_out, kd, kh, od, oh, q0, width
                            )
        for j in range(min(BLOCK, group_in - b * BLOCK)):
            _unpack(row, acc, j * tile, cells, q0, first, last, width)
            c = g * group_in + b * BLOCK + j
            _store(row, 0, last - first, bias, residual, activation, x, n, c, d, ih, first)


@kernel
def weight_grad_tasks(begin, end, x, y, partial, groups, depth, height, width, fill):
    """A task: one input channel, a block of output channels, one chunk of the output rows.

    ``partial[chunk]`` has the weight's shape; chunks are summed by the caller, as a fixed tree.
    """
    group_in, group_out = partial.shape[2], partial.shape[1] // groups
    chunks, blocks = partial.shape[0], -(-group_out // BLOCK)
    rows = y.shape[0] * depth.output * height.output
    tile = width.tile
    cells = tile + width.reach
    line = np.empty(width.segments.size * cells, partial.dtype)
    for task in range(begin, end):
        rest, c = divmod(task, group_in)
        rest, b = divmod(rest, blocks)
        chunk, g = divmod(rest, groups)
        c0 = g * group_out + b * BLOCK
        block = min(BLOCK, (g + 1) * group_out - c0)
        partial[chunk, c0 : c0 + block, c] = 0
        for r in range(chunk * rows // chunks, (chunk + 1) * rows // chunks):
            rest, oh = divmod(r, height.output)
            n, od = divmod(rest, depth.output)
            for kd in range(depth.kernel):
                d = _source(depth, od * depth.stride + kd * depth.dilation)
                for kh in range(height.kernel):
                    h = _source(height, oh * height.stride + kh * height.dilation)
                    if (h if h < 0 else d) == ZERO and not width.constant:
                        continue
                    for o0 in range(0, width.output, tile):
                        count = min(tile, width.output - o0)
                        _pack(line, x, n, g * group_in + c, d, h, width, o0, cells, fill)
                        for j in range(block):
                            for k in range(width.kernel):
                                at = width.segment[k] * cells + width.reads[k]
                                partial[chunk, c0 + j, c, kd, kh, k] += _dot(y, n, c0 + j, od, oh, o0, line, at, count)
