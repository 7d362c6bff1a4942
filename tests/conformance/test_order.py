"""The order in which an element's products are added follows from the kernel, strides and modes, never from extents.

So what is computed of a part has the bits of the whole: results one at a time, as pushes of a stream complete them.
"""

from itertools import product

import numpy as np
import pytest

import numbaconv
from numbaconv import AlgorithmError
from numbaconv.backends import registry
from numbaconv.backends.base import Direction
from problems import draw

CPU = registry.resolve("cpu").tables
SUMS = {
    direction: [each.name for each in CPU[direction] if not each.spreading]
    for direction in (Direction.FORWARD, Direction.INPUT_GRAD)
}
KERNELS = {1: [(3,), (5,), (9,), (70,)], 2: [(3, 3), (7, 2), (9, 5), (1, 9)], 3: [(2, 5, 3), (3, 7, 2)]}
STEPS = [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2), (2, 3)]
#: Groups, channels of a group on both sides.
CHANNELS = [(1, 1, 1), (3, 1, 1), (2, 1, 2), (1, 5, 3)]
RNG = np.random.default_rng(719)


def cases(rank, counts):
    for kernel, (stride, dilation), (groups, inputs, outputs) in product(KERNELS[rank], STEPS, CHANNELS):
        strides = ((stride,) * rank, (*(1,) * (rank - 1), stride), (stride, *(1,) * (rank - 1)))
        for each in strides[: 1 if rank == 1 else 3]:
            weight = draw(RNG, (groups * outputs, inputs, *kernel), np.float32)
            options = {"stride": each, "dilation": dilation, "groups": groups}
            extents = [dilation * (k - 1) + 1 + (n - 1) * s for k, n, s in zip(kernel, counts, each, strict=True)]
            yield weight, options, groups * inputs, extents


def accepted(call, *operands, **options):
    try:
        return call(*operands, **options)
    except AlgorithmError:  # a forced algorithm that refuses this plan
        return None


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("algorithm", SUMS[Direction.FORWARD])
def test_results_one_at_a_time(algorithm, rank):
    """Along each axis by itself and along all of them."""
    compared = 0
    counts = (3, 4, 5)[:rank]
    for weight, options, channels, extents in cases(rank, counts):
        x = draw(RNG, (1, channels, *extents), np.float32)
        whole = accepted(numbaconv.conv, x, weight, algorithm=algorithm, **options)
        if whole is None:
            continue
        for alone in {(True,) * rank, *(tuple(a == b for b in range(rank)) for a in range(rank))}:
            place = [count - 2 if one else slice(None) for count, one in zip(counts, alone, strict=True)]
            cells, results = [slice(None)] * 2, [slice(None)] * 2
            for at, extent, count, stride in zip(place, extents, counts, options["stride"], strict=True):
                span = extent - (count - 1) * stride
                cells.append(at if isinstance(at, slice) else slice(at * stride, at * stride + span))
                results.append(at if isinstance(at, slice) else slice(at, at + 1))
            part = x[tuple(cells)]
            answer = accepted(numbaconv.conv, part, weight, algorithm=algorithm, **options)
            if answer is not None:
                compared += 1
                np.testing.assert_array_equal(answer, whole[tuple(results)], err_msg=f"{weight.shape} {options}")
    assert compared or rank > 1


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("algorithm", SUMS[Direction.INPUT_GRAD])
def test_transposed_of_one_cell_along_an_axis(algorithm, rank):
    """One row of the input between zeros, and alone: what is added besides are zeros."""
    counts = (3, 4, 5)[:rank]
    for weight, options, _channels, _extents in cases(rank, counts):
        y = draw(RNG, (1, weight.shape[0], *counts), np.float32)
        for axis in range(rank):
            lone = np.zeros_like(y)
            row = tuple(slice(1, 2) if at == axis + 2 else slice(None) for at in range(rank + 2))
            lone[row] = y[row]
            whole = accepted(numbaconv.conv_transpose, lone, weight, algorithm=algorithm, **options)
            alone = accepted(numbaconv.conv_transpose, y[row], weight, algorithm=algorithm, **options)
            if whole is None or alone is None:
                continue
            stride = options["stride"][axis]
            cells = [slice(None)] * (rank + 2)
            cells[axis + 2] = slice(stride, stride + alone.shape[axis + 2])
            np.testing.assert_array_equal(alone, whole[tuple(cells)], err_msg=f"{weight.shape} {options} axis {axis}")


@pytest.mark.parametrize("algorithm", SUMS[Direction.INPUT_GRAD])
def test_a_few_cells_of_a_transposed_result(algorithm):
    """Padding leaves few cells of the result, and so few of the stride phases: their sums are as in the whole."""
    for weight, options, _channels, extents in cases(2, (3, 4)):
        y = draw(RNG, (1, weight.shape[0], 3, 4), np.float32)
        whole = accepted(numbaconv.conv_transpose, y, weight, algorithm=algorithm, **options)
        before = extents[0] // 2
        padding = ((before, extents[0] - before - 1), (0, 0))
        part = accepted(numbaconv.conv_transpose, y, weight, padding=padding, algorithm=algorithm, **options)
        if whole is not None and part is not None:
            np.testing.assert_array_equal(part, whole[:, :, before : before + 1], err_msg=f"{weight.shape} {options}")


def streamed(stream, pieces):
    return np.concatenate([stream.push(piece) for piece in pieces], 2)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("algorithm", SUMS[Direction.FORWARD])
def test_streams_that_complete_one_result_a_push(algorithm, rank):
    for weight, options, channels, extents in cases(rank, (4, 3, 2)[:rank]):
        signal = draw(RNG, (1, channels, *extents), np.float32)
        causal = ((options["dilation"] * (weight.shape[2] - 1), 0), *[(0, 0)] * (rank - 1))
        stream = numbaconv.StreamingConv(
            weight, padding="causal" if rank == 1 else "valid", algorithm=algorithm, **options
        )
        step = options["stride"][0]
        pieces = [signal[:, :, :1], *np.split(signal[:, :, 1:], range(step, extents[0], step), axis=2)]
        answer = accepted(streamed, stream, pieces)
        whole = accepted(numbaconv.conv, signal, weight, padding=causal, algorithm=algorithm, **options)
        if answer is not None and whole is not None:
            np.testing.assert_array_equal(answer, whole, err_msg=f"{weight.shape} {options}")
