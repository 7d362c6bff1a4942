"""From the sums of a patch GEMM's task to the result: bias, residual, activation, and the order of the result.

::

    sums of a panel: positions x channels        channels last: as they are
         +--------+                              channels first: transposed in registers, a vector of positions each
      p0 | m m m  |                              stride phases: rows of each phase, then woven into rows of the result
      p1 | m m m  |
         +--------+

The last way, and that of folded phases, are called by address (`fan_out.call_tasks`): most calls need neither, and
compiling them would take as long as a quarter of the rest. Loops over rows are in here, not around a call: a function
counts the references to its arrays at each call, which took up to a third of the time of transposed convolutions.
"""

import numpy as np

from .jit import kernel, part
from .simd import call_row
from .simd_tiles import transpose_lanes, transpose_sum

__all__ = ["store_folded", "store_last", "store_phases", "store_transposed"]


@part
def store_last(line, c, at, breadth, valid, extents, offset, residual, activation, out, place, steps):
    """Positions of a panel where channels are neighbours.

    ``extents``: samples, rows and columns of positions; ``steps``: their distances in the result.
    """
    samples, rows, columns = extents
    plain = not residual.size and not activation[0]
    for n in range(samples):
        for r in range(rows):
            for j in range(columns):
                start, to = at + ((n * rows + r) * columns + j) * breadth, place + n * steps[0] + r * steps[1]
                to += j * steps[2]
                if plain:
                    for m in range(valid):
                        out[np.uintp(to + m)] = c[np.uintp(start + m)] + offset[np.uintp(m)]
                    continue
                for m in range(valid):
                    line[np.uintp(m)] = c[np.uintp(start + m)] + offset[np.uintp(m)]
                if residual.size:
                    for m in range(valid):
                        line[np.uintp(m)] += residual[np.uintp(to + m)]
                if activation[0] and call_row(activation, line, 0, valid):
                    activation[1] = 1  # it raised; every task writes the same value
                for m in range(valid):
                    out[np.uintp(to + m)] = line[np.uintp(m)]


@part
def store_transposed(block, c, at, breadth, valid, lanes, extents, offset, out, place, steps, plane):
    """Positions of a panel, transposed on the way to the result; nothing but the bias follows.

    ``extents`` and ``steps``: stretches of positions, and how many there are in each of two loops around them.
    """
    samples, rows, cells = extents
    for n in range(samples):
        for r in range(rows):
            for i in range(0, valid, lanes):
                start = at + (n * rows + r) * cells * breadth + i
                to, some = place + n * steps[0] + r * steps[1] + i * plane, min(lanes, valid - i)
                for done in range(0, cells, lanes):
                    if some == lanes and cells >= lanes:
                        first = min(done, cells - lanes)  # the last block overlaps the one before
                        transpose_sum(c, start + first * breadth, breadth, offset, i, out, to + first, plane)
                        continue
                    transpose_sum(c, start + done * breadth, breadth, offset, i, block, 0, lanes)
                    for m in range(some):
                        for j in range(min(lanes, cells - done)):
                            out[np.uintp(to + m * plane + done + j)] = block[np.uintp(m * lanes + j)]


@part
def _turn_phases(lines, length, c, at, breadth, c_phase, positions, across, lanes):
    """For each stride phase and channel of a panel, a line of its positions."""
    for phase in range(positions.size):
        for i in range(across):
            to = (phase * across + i) * lanes * length
            for p in range(0, positions[phase], lanes):
                start = phase * c_phase + at + p * breadth + i * lanes
                transpose_lanes(c, start, breadth, lines, to + p, length)


@part
def _weave(target, to, steps, lines, at, line_phase, length, columns, firsts, step, offset, extents):
    """Rows of the result from those of its stride phases, an offset added.

    ``extents``: channels, samples and rows; ``steps``: their distances in the target. Row 0 starts at ``to``.
    """
    channels, samples, rows = extents
    phases = columns.size
    low = 0 if firsts[0] == 0 else 1
    pair = step == 2 and phases == 2 and firsts[0] + firsts[1] == 1
    for m in range(channels):
        for n in range(samples):
            for r in range(rows):
                row = n * rows + r
                place, line = to + m * steps[0] + n * steps[1] + r * steps[2], at + m * length
                if pair:
                    one = line + low * line_phase + row * columns[low]
                    other = line + (1 - low) * line_phase + row * columns[1 - low]
                    both = min(columns[0], columns[1])
                    for j in range(both):
                        target[np.uintp(place + 2 * j)] = lines[np.uintp(one + j)] + offset[m]
                        target[np.uintp(place + 2 * j + 1)] = lines[np.uintp(other + j)] + offset[m]
                    for j in range(both, columns[low]):
                        target[place + 2 * j] = lines[one + j] + offset[m]
                    for j in range(both, columns[1 - low]):
                        target[place + 2 * j + 1] = lines[other + j] + offset[m]
                else:
                    for p in range(phases):
                        start = line + p * line_phase + row * columns[p]
                        for j in range(columns[p]):
                            target[np.uintp(place + firsts[p] + j * step)] = lines[np.uintp(start + j)] + offset[m]


@part
def _finish_row(line, cells, residual, activation, out, place):
    """Residual, activation and store of a row."""
    if residual.size:
        for j in range(cells):
            line[np.uintp(j)] += residual[np.uintp(place + j)]
    if activation[0] and call_row(activation, line, 0, cells):
        activation[1] = 1  # it raised; every task writes the same value
    for j in range(cells):
        out[np.uintp(place + j)] = line[np.uintp(j)]


@kernel
def store_phases(
    c_phase,
    valid,
    line,
    lines,
    length,
    c,
    at,
    breadth,
    lanes,
    columns,
    firsts,
    step,
    extents,
    offset,
    residual,
    activation,
    out,
    place,
    steps,
):
    """Positions of a panel in all stride phases of the width, whole rows of the result.

    ``columns`` and ``firsts``: positions of each phase in a row, and the first cell that they are stored to, ``step``
    apart. ``extents``: samples and rows. ``steps``: distances of channels, samples and rows in the result.
    """
    samples, rows = extents
    across, phases = -(-valid // lanes), columns.size
    positions, cells = np.empty(phases, np.int64), 0
    for phase in range(phases):
        positions[phase] = samples * rows * columns[phase]
        if columns[phase]:
            cells = max(cells, firsts[phase] + (columns[phase] - 1) * step + 1)
    line_phase = across * lanes * length
    _turn_phases(lines, length, c, at, breadth, c_phase, positions, across, lanes)
    if not residual.size and not activation[0]:
        whole = (valid, samples, rows)
        _weave(out, place, steps, lines, 0, line_phase, length, columns, firsts, step, offset, whole)
        return
    for m in range(valid):
        for n in range(samples):
            for r in range(rows):
                for p in range(phases):
                    start = p * line_phase + m * length + (n * rows + r) * columns[p]
                    for j in range(columns[p]):
                        line[np.uintp(firsts[p] + j * step)] = lines[np.uintp(start + j)] + offset[m]
                to = place + m * steps[0] + n * steps[1] + r * steps[2]
                _finish_row(line, cells, residual, activation, out, to)


@kernel
def store_folded(
    first,
    valid,
    line,
    lines,
    length,
    c,
    at,
    breadth,
    lanes,
    fold,
    extents,
    begins,
    bias,
    b_at,
    residual,
    activation,
    out,
    place,
    steps,
):
    """Positions of a panel whose result channels are channels times stride phases, to their places.

    ``first``: the panel's first result channel; ``fold``: the table of `folded.Fold`; ``extents``: samples, rows and
    columns of positions; ``begins``: the depth, the first row and the first column. ``b_at``: the group's first bias,
    ``place``: its first channel's first cell. ``steps``: the result's distances of samples, channels, depths, rows,
    cells.
    """
    samples, rows, columns = extents
    od, first_row, first_column = begins
    deep, high, wide = fold[0], fold[1], fold[2]
    of_depth, of_height, of_width = 6, 6 + 2 * deep, 6 + 2 * (deep + high)
    count = samples * rows * columns
    for i in range(0, valid, lanes):
        for p in range(0, count, lanes):
            transpose_lanes(c, at + p * breadth + i, breadth, lines, i * length + p, length)
    bare = not residual.size and not activation[0]
    cell = fold[5] * steps[4]
    pairs = bare and wide == 2 and fold[5] == 2 and steps[4] == 1 and first % 2 == 0
    low = 0 if fold[of_width + wide] == 0 else 1  # of a pair, the phase that is stored first
    for m in range(valid):
        rest, pw = divmod(first + m, wide)
        rest, ph = divmod(rest, high)
        channel, pd = divmod(rest, deep)
        if pairs and pw == 1:
            continue  # stored with the phase before
        if pairs:
            pw = low
        cells = min(columns, fold[of_width + pw] - first_column)
        offset = bias[b_at + channel] if bias.size else out.dtype.type(0)
        for n in range(samples if od < fold[of_depth + pd] else 0):
            for r in range(min(rows, fold[of_height + ph] - first_row)):
                start = m * length + (n * rows + r) * columns
                to = place + n * steps[0] + channel * steps[1]
                to += (fold[of_depth + deep + pd] + od * fold[3]) * steps[2]
                to += (fold[of_height + high + ph] + (first_row + r) * fold[4]) * steps[3]
                to += (fold[of_width + wide + pw] + first_column * fold[5]) * steps[4]
                if pairs:
                    both = min(cells, max(fold[of_width + 1 - low] - first_column, 0))
                    one, other = start + low * length, start + (1 - low) * length
                    for j in range(both):
                        out[np.uintp(to + 2 * j)] = lines[np.uintp(one + j)] + offset
                        out[np.uintp(to + 2 * j + 1)] = lines[np.uintp(other + j)] + offset
                    for j in range(both, cells):
                        out[to + 2 * j] = lines[one + j] + offset
                elif bare:
                    for j in range(cells):
                        out[np.uintp(to + j * cell)] = lines[np.uintp(start + j)] + offset
                else:
                    for j in range(cells):
                        line[np.uintp(j)] = lines[np.uintp(start + j)] + offset
                    if residual.size:
                        for j in range(cells):
                            line[np.uintp(j)] += residual[np.uintp(to + j * cell)]
                    if activation[0] and call_row(activation, line, 0, cells):
                        activation[1] = 1  # it raised; every task writes the same value
                    for j in range(cells):
                        out[np.uintp(to + j * cell)] = line[np.uintp(j)]
