"""The order of sums in Numba's simulator: a program, since the simulator is chosen before Numba is imported.

Arguments are names of checks below; it prints, as JSON, how many results each compared, and what was wrong. What is
computed of a part must have the bits of the whole: the order follows from kernels, strides and dilations, never from
extents or padding. There are fewer threads than on a device, whose barriers take the simulator long.
"""

import json
import os
import sys
from itertools import product

os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
sys.path[:0] = [os.path.join(os.path.dirname(__file__), *up) for up in (("..", ".."), ())]

import numpy as np  # noqa: E402
from turns import take_turns  # noqa: E402

import numbaconv  # noqa: E402
from numbaconv import AlgorithmError, grad  # noqa: E402
from numbaconv.backends.base import Direction  # noqa: E402
from numbaconv.backends.cuda import depthwise  # noqa: E402
from numbaconv.backends.cuda.tables import axes_table  # noqa: E402
from numbaconv.plan import PADDING_MODES  # noqa: E402
from problems import draw  # noqa: E402

take_turns()
depthwise.THREADS, depthwise.BESIDE = 8, 2

found = {"compared": 0, "wrong": []}
RNG = np.random.default_rng(720)
#: Kernel, stride, dilation; groups, and channels of a group on both sides.
DEPTHWISE = [
    (kernel, stride, dilation, channels)
    for kernel, stride, dilation in (
        ((3,), (2,), 1),
        ((3,), (6,), 1),
        ((9,), (3,), 2),
        ((3, 3), (2, 2), 1),
        ((3, 3), (1, 1), 1),
        ((3, 3), (1, 2), 1),
        ((4, 3), (3, 3), 2),
        ((3, 4), (5, 5), 1),
        ((2, 9), (1, 1), 1),
        ((1, 9), (1, 2), 1),
        ((2, 3, 3), (2, 2, 2), 1),
        ((2, 1, 9), (1, 1, 1), 1),
        ((2, 9, 1), (1, 2, 1), 1),
    )
    for channels in ((2, 1, 1), (1, 1, 2))
]
PRODUCTS = [
    ((3,), (2,), 1, (1, 5, 4)),
    ((5,), (4,), 2, (1, 3, 5)),
    ((3, 3), (2, 2), 1, (1, 5, 4)),
    ((3, 2), (3, 1), 1, (1, 8, 4)),
    ((2, 3), (1, 7), 2, (2, 3, 4)),
]


def note(right, *label):
    """Count a comparison."""
    found["compared"] += 1
    if not right:
        found["wrong"].append(" ".join(map(str, label)))


def accepted(call, *operands, **options):
    """The result of a forced algorithm, or None where it refuses this plan."""
    try:
        return call(*operands, backend="cuda", **options)
    except AlgorithmError:
        return None


def part_of(whole, axis, at):
    """A single row, as an array."""
    return whole[tuple(slice(at, at + 1) if a == axis + 2 else slice(None) for a in range(whole.ndim))]


def one_result(kernel, strides, dilation, channels, dtype, algorithm, **layout):
    """FORWARD: each axis in turn with a single result."""
    groups, inputs, outputs = channels
    rank = len(kernel)
    counts = (3, 5, 2)[:rank]
    weight = draw(RNG, (groups * outputs, inputs, *kernel), dtype)
    extents = [dilation * (k - 1) + 1 + (n - 1) * s for k, n, s in zip(kernel, counts, strides, strict=True)]
    x = draw(RNG, (1, groups * inputs, *extents), dtype)
    options = {"stride": strides, "dilation": dilation, "groups": groups, "algorithm": algorithm}
    whole = accepted(numbaconv.conv, x, weight, **options)
    for axis in range(rank):
        first = strides[axis]
        cells = [slice(None)] * (rank + 2)
        cells[axis + 2] = slice(first, first + dilation * (kernel[axis] - 1) + 1)
        alone = accepted(numbaconv.conv, x[tuple(cells)], weight, **options)
        if whole is not None and alone is not None:
            note(np.array_equal(alone, part_of(whole, axis, 1)), algorithm, dtype, kernel, options, axis)


def one_cell(kernel, strides, dilation, channels, dtype, algorithm):
    """INPUT_GRAD: a row between zeros and alone, and of many results one, for which padding leaves no others."""
    groups, inputs, outputs = channels
    rank = len(kernel)
    counts = (3, 5, 2)[:rank]
    weight = draw(RNG, (groups * outputs, inputs, *kernel), dtype)
    y = draw(RNG, (1, groups * outputs, *counts), dtype)
    options = {"stride": strides, "dilation": dilation, "groups": groups, "algorithm": algorithm}
    every = accepted(numbaconv.conv_transpose, y, weight, **options)
    for axis in range(rank):
        row = part_of(y, axis, 1)
        lone = np.zeros_like(y)
        part_of(lone, axis, 1)[...] = row
        whole, alone = (accepted(numbaconv.conv_transpose, each, weight, **options) for each in (lone, row))
        if whole is not None and alone is not None:
            cells = [slice(None)] * (rank + 2)
            cells[axis + 2] = slice(strides[axis], strides[axis] + alone.shape[axis + 2])
            note(np.array_equal(alone, whole[tuple(cells)]), algorithm, dtype, kernel, options, axis)
        if every is None:
            continue
        extent = every.shape[axis + 2]
        padding = [(0, 0)] * rank
        padding[axis] = (extent // 2, extent - extent // 2 - 1)
        few = accepted(numbaconv.conv_transpose, y, weight, padding=padding, **options)
        if few is not None:
            note(np.array_equal(few, part_of(every, axis, extent // 2)), algorithm, dtype, kernel, options, padding)


def check_direct():
    """Every thread sums by itself."""
    for each in (*PRODUCTS, *DEPTHWISE[::3]):
        one_result(*each, np.float32, "direct")
        one_cell(*each, np.float32, "direct")


def check_depthwise_forward():
    """Walks down and along, cells shared or apart, several chunks of taps."""
    for each in DEPTHWISE:
        one_result(*each, np.float32, "depthwise")


def check_depthwise_input():
    """Strides in the compiled code, and those too large for that."""
    for each in DEPTHWISE:
        one_cell(*each, np.float32, "depthwise")


def check_implicit_gemm():
    """Stride phases, each with depths of its own."""
    for each in PRODUCTS:
        one_result(*each, np.float32, "implicit_gemm")
        one_cell(*each, np.float32, "implicit_gemm")


def check_tensor_core():
    """An instruction's products are summed in no order that is told: depths must have the same neighbours."""
    for dtype, algorithm in ((np.float16, "tensor_core"), (np.float32, "tensor_core_3xtf32")):
        for each in PRODUCTS[:4:3]:
            one_result(*each, dtype, algorithm)
            one_cell(*each, dtype, algorithm)


def small_tables(direction, problem):
    """Whether no table is longer than a few times what the problem's arrays hold."""
    plan = numbaconv.plan_conv(*problem[:2], dtype="float32", **problem[2])
    return axes_table(plan.axes3, 0, direction is Direction.INPUT_GRAD).size < 200


def check_absurd():
    """Dilations, paddings and strides that nobody means: as on the CPU, and no table as long as they are."""
    x, w, g = (draw(RNG, shape, np.float32, 3) for shape in ((1, 1, 5), (1, 1, 3), (1, 1, 5)))
    for huge, mode in product((10**8, 2**40), PADDING_MODES):
        far = {"dilation": huge, "padding": huge, "padding_mode": mode}
        for direction in Direction:
            note(small_tables(direction, (x.shape, w.shape, far)), "table", direction.name, far)
        for call, operands in (
            (numbaconv.conv1d, (x, w)),
            (grad.conv1d_input, (x.shape, w, g)),
            (grad.conv1d_weight, (x, w.shape, g)),
        ):
            answer = call(*operands, backend="cuda", **far)
            note(np.array_equal(answer, call(*operands, algorithm="direct", **far)), call.__name__, far)
    for algorithm in (None, "direct", "depthwise", "implicit_gemm"):
        options = {"stride": 600, "padding": 599, "algorithm": algorithm}
        answer = accepted(numbaconv.conv_transpose1d, x, w, **options)
        if answer is not None:
            note(np.array_equal(answer, numbaconv.conv_transpose1d(x, w, stride=600, padding=599)), options)


CHECKS = {name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")}

if __name__ == "__main__":
    for name in sys.argv[1:]:
        CHECKS[name]()
    print(json.dumps(found))  # noqa: T201
