"""Plane GEMM: FORWARD and INPUT_GRAD as products whose lanes are neighbouring positions and whose rows are channels.

``out[m, p] = sum over (c, t) of w[m, (c, t)] * patch[c, p + distance(t)]``. A patch holds the cells that a block of
positions reads, strides taken apart, so that positions which are neighbours read neighbouring cells, for every tap::

    patch of one channel, stride 2          a row of positions and the next follow each other, with the cells between
      even columns | odd columns            them that only their taps read: a block is one line of positions, some of
      a c e g .    | b d f h .              which nobody wants
      rows of even and of odd number apart
                                            tile: 8 result channels x 3 vectors of positions, in registers

Results lie in memory as they do in registers: nothing is transposed, and where a patch holds all channels and nothing
but a bias follows, a tile is stored to its place at once. That is why it is there: where few products are summed for a
result, and where a group has few channels, `patch_gemm`, whose lanes are channels, transposes or computes for nothing.

A task is a sample, a group, a depth, some rows of positions (or a stretch of one), some panels of result channels. Sums
run over channels and taps in order, in blocks whose totals are added in order: the plan's, whatever the split into
tasks.

Tried, and did not pay: all channels at a few positions before the next positions (each store went to another page: 1.6
times the time where 20 products are summed for a result); masks on every vector that is packed (40 cycles each, with
the divisions of a row); sums of all panels before the first is stored (1.2 times, where rows have cells between them).
Still slower than `patch_gemm`: many products a result, since each panel reads the patch again, and maps of which much
is cells that only taps read, as with 7 taps along rows of 17.

Error factor: as for any order of summation (Higham 2002, section 4.2), the number of products plus three.
"""

import numpy as np

from .gather import phase_of, phased_axis
from .gemm import panel_width
from .jit import kernel
from .planes import further, line_offsets, pack_planes
from .simd import ROWS, call_row
from .simd_tiles import plane_tile

__all__ = ["DEPTH", "plane_gemm_tasks"]

#: Products summed in registers before a tile is written back: whole channels, this many or a few more.
DEPTH = 256
#: Rows of the smaller tiles.
_HALF = ROWS // 2


@kernel
def _multiply(a, a_at, a_panel, panels, rows, patch, offsets, depth, vectors, c, c_at, c_row, bias, f_at, keep, lanes):
    """Panels of result channels with vectors ``vectors[0] .. vectors[1] - 1`` of the patch's positions.

    ``c`` holds a row of these positions for each channel.
    """
    for p in range(panels):
        m, to, f = a_at + p * a_panel, c_at + p * ROWS * c_row, f_at + p * ROWS
        v, height = vectors[0], _HALF if rows - p * ROWS <= _HALF else ROWS
        while v < vectors[1]:
            across, at = panel_width(vectors[1] - v), v * lanes
            plane_tile(a, m, ROWS, patch, at, offsets, 0, depth, c, to, c_row, bias, f, keep, height, across)
            v, to = v + across, to + across * lanes


@kernel
def _store(c, c_row, rows, count, pitch, columns, residual, activation, out, place, plane, row_step):
    """Rows of positions, ``pitch`` apart in each channel's line, with what follows the bias, to their places."""
    for m in range(rows):
        for r in range(count):
            start, to = m * c_row + r * pitch, place + m * plane + r * row_step
            if residual.size:
                for j in range(columns):
                    c[np.uintp(start + j)] += residual[np.uintp(to + j)]
            if activation[0] and call_row(activation, c, start, columns):
                activation[1] = 1  # it raised; every task writes the same value
            for j in range(columns):
                out[np.uintp(to + j)] = c[np.uintp(start + j)]


@kernel
def plane_gemm_tasks(begin, end, source, packed, bias, residual, out, shape, axes, fill, activation):
    """``shape``: samples, groups, source channels and rows of a group, rows and columns of positions of a task, blocks
    of each, panels of a task, blocks of panels, lanes.

    ``axes``: depth, height and width, merged, of a single phase. Source and result have channels first.
    """
    _, groups, channels, rows, task_rows, task_columns, row_blocks, column_blocks = shape[:8]
    task_panels, panel_blocks, lanes = shape[8:]
    depths, heights, widths = phased_axis(axes, 0), phased_axis(axes, 1), phased_axis(axes, 2)
    depth, height, width = phase_of(depths, 0), phase_of(heights, 0), phase_of(widths, 0)
    taps = depth.base.size * height.base.size * width.base.size
    together = max(min(max(DEPTH // max(taps, 1), 1), channels), 1)
    high, pitch = task_rows + further(height.base, height.step), task_columns + further(width.base, width.step)
    part = high * pitch
    deep = part * height.step * width.step
    # An odd number of vectors from channel to channel: else all would fall into the same sets of the cache.
    pitches = (((-(-deep * depth.base.size // lanes)) | 1) * lanes, deep, part, pitch)
    patch = np.zeros(together * pitches[0] + 5 * lanes, out.dtype)
    patch = patch[-patch.ctypes.data // out.itemsize % lanes :]  # from a cache line on
    offsets = np.zeros(together * taps + 1, np.int64)
    line_offsets(offsets, together, pitches, depth, height, width)
    c_row = -(-((task_rows - 1) * pitch + task_columns) // lanes) * lanes
    c = np.empty(task_panels * ROWS * c_row, out.dtype)
    panels = -(-rows // ROWS)
    offset = np.zeros(2 * task_panels * ROWS, out.dtype)  # zeros, then the bias
    strides = (depth.cells * height.cells * width.cells, height.cells * width.cells, width.cells)
    plane = depth.positions * height.positions * width.positions
    at_once = together >= channels and taps > 0 and rows % _HALF == 0
    at_once = at_once and not residual.size and not activation[0] and (task_rows == 1 or pitch == width.positions)
    for task in range(begin, end):
        rest, panel_block = divmod(task, panel_blocks)
        rest, column_block = divmod(rest, column_blocks)
        rest, row_block = divmod(rest, row_blocks)
        rest, od = divmod(rest, depth.positions)
        n, g = divmod(rest, groups)
        first_row, column = row_block * task_rows, column_block * task_columns
        count, columns = min(task_rows, height.positions - first_row), min(task_columns, width.positions - column)
        first_panel = panel_block * task_panels
        some_panels = min(task_panels, panels - first_panel)
        if count <= 0 or columns <= 0 or some_panels <= 0:
            continue
        first_channel = g * rows + first_panel * ROWS
        some_rows = min(some_panels * ROWS, rows - first_panel * ROWS)
        for m in range(some_rows if bias.size else 0):
            offset[task_panels * ROWS + m] = bias[first_channel + m]
        length = (count - 1) * pitch + columns
        vectors = -(-length // lanes)
        whole = length // lanes if at_once else 0
        place = (n * groups * rows + first_channel) * plane
        place += (od * height.positions + first_row) * width.positions + column
        for c0 in range(0, max(channels, 1), together):
            some = min(together, channels - c0)
            pack_planes(
                patch,
                pitches,
                source,
                (n * groups * channels + g * channels + c0) * strides[0],
                strides,
                some,
                od,
                first_row,
                count,
                column,
                columns,
                depth,
                height,
                width,
                fill,
            )
            last = c0 + some >= channels
            # Panel by panel where sums are done at once, since what was just summed is stored best.
            for p in range(0, some_panels, 1 if together >= channels else some_panels):
                group = 1 if together >= channels else some_panels
                a_at = ((g * panels + first_panel + p) * channels + c0) * taps * ROWS
                group_rows, to = min(group * ROWS, some_rows - p * ROWS), place + p * ROWS * plane
                for step in range(2):  # what goes to its place at once, then what does not
                    _multiply(
                        packed,
                        a_at,
                        channels * taps * ROWS,
                        group,
                        group_rows,
                        patch,
                        offsets,
                        some * taps,
                        (whole, vectors) if step else (0, whole),
                        c if step else out,
                        0 if step else to,
                        c_row if step else plane,
                        offset,
                        (task_panels + p) * ROWS if last else 0,
                        c0,
                        lanes,
                    )
                if last and at_once:
                    done = whole * lanes
                    _store(c, c_row, group_rows, 1, 0, length - done, residual, activation, out, to + done, plane, 0)
                elif last:
                    _store(
                        c,
                        c_row,
                        group_rows,
                        count,
                        pitch,
                        columns,
                        residual,
                        activation,
                        out,
                        to,
                        plane,
                        width.positions,
                    )
