"""How axes are cut into blocks, against the table of the whole axis: every cell, tap and order of summing."""

import os
import random
from importlib import import_module
from itertools import pairwise

import pytest

from numbaconv.plan import PADDING_MODES, Axis
from numbaconv.plan.axis import kernel_extent, output_extent

if os.environ.get("NUMBACONV_REQUIRE_INTEROP"):
    import_module("dask.array")
pytest.importorskip("dask.array")
pieces = import_module("numbaconv.interop.dask.pieces")


def _axis(draw):
    """A random axis, short enough to be counted, with padding up to several times the input."""
    while True:
        kernel, stride, dilation = draw.randint(1, 5), draw.randint(1, 4), draw.randint(1, 3)
        n, extent = draw.randint(1, 30), kernel_extent(kernel, dilation)
        before, after = (draw.randint(0, draw.choice([3, 8, 40])) for _ in range(2))
        outputs = output_extent(before + n + after, extent, stride)
        if outputs:
            return Axis(n, outputs, kernel, stride, dilation, before, after, draw.choice(PADDING_MODES))


def _chunks(draw, extent):
    found = []
    while extent:
        found.append(min(draw.randint(1, extent), draw.choice([3, 100])))
        extent -= found[-1]
    return found


def _cells(window):
    """The cells of a block, one by one."""
    found = []
    for run in window.runs:
        cells = [run.first + at * run.step for at in range(run.extent)]
        assert run.span == (min(cells), max(cells) + 1)
        found += cells
    assert len(found) == window.extent
    return found


@pytest.mark.parametrize("seed", range(8))
def test_blocks_of_outputs_read_what_the_whole_axis_reads(seed):
    draw = random.Random(seed)
    split = 0
    for _ in range(300):
        axis = _axis(draw)
        cuts = pieces.forward_cuts(axis, _chunks(draw, axis.input))
        if draw.random() < 0.3:
            cuts = pieces.readable_cuts(axis, [draw.randint(0, axis.output) for _ in range(3)])
        assert (cuts[0], cuts[-1]) == (0, axis.output)
        assert all(low < high for low, high in pairwise(cuts))
        blocks = pieces.forward_blocks(axis, cuts)
        split += len(blocks) > 1
        for block, span in zip(blocks, pairwise(cuts), strict=True):
            cells, own = _cells(block.window), block.axis
            assert block.result == span
            assert own.input == len(cells) >= 1
            assert own.output == span[1] - span[0] == output_extent(own.padded, own.extent, own.stride)
            for o in range(own.output):
                for tap in range(axis.kernel):
                    there = own.source(o * own.stride + tap * own.dilation)
                    whole = axis.source((span[0] + o) * axis.stride + tap * axis.dilation)
                    assert whole == (cells[there] if there >= 0 else there)
    assert split > 100


def _sums(axis, outputs):
    """For each cell, the outputs and taps whose products are added to it, in the order of positions, then taps.

    ``outputs`` names them: where a block's outputs are in the whole axis.
    """
    found = {cell: [] for cell in range(axis.input)}
    for position in range(max(axis.used, axis.padded)):
        cell = axis.source(position)
        for tap in range(axis.kernel) if cell >= 0 else ():
            o, between = divmod(position - tap * axis.dilation, axis.stride)
            if not between and 0 <= o < axis.output:
                found[cell].append((outputs[o], tap))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_blocks_of_cells_sum_what_the_whole_axis_sums_in_its_order(seed):
    draw = random.Random(100 + seed)
    shortened = 0
    for _ in range(300):
        axis, extra = _axis(draw), 0
        if draw.random() < 0.4:  # a transposed convolution's, with output_padding
            extra = draw.randint(0, max(axis.stride, axis.dilation) - 1)
            n = axis.used - axis.pad_before - axis.pad_after + extra
            if n < 1:
                continue
            axis = Axis(n, *(getattr(axis, name) for name in Axis.__slots__[1:]))
        cuts = pieces.input_cuts(axis, _chunks(draw, axis.output))
        if draw.random() < 0.5:
            cuts = sorted({0, axis.input, *(draw.randint(0, axis.input) for _ in range(3))})
        whole = _sums(axis, range(axis.output))
        for block, span in zip(pieces.input_blocks(axis, cuts), pairwise(cuts), strict=True):
            outputs, own = _cells(block.window), block.axis
            assert block.result == span
            assert own.output == len(outputs) >= 1
            assert block.crop[1] - block.crop[0] == span[1] - span[0]
            beyond = own.input + own.pad_before + own.pad_after - own.used
            assert 0 <= beyond < (max(own.stride, own.dilation) if extra else own.stride)
            mine = _sums(own, outputs)
            shortened += own.maps_padding and own.output < axis.output
            for cell in range(*span):
                assert mine[cell - span[0] + block.crop[0]] == whole[cell]
    assert shortened > 10
