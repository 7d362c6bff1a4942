"""Depthwise and pointwise algorithm fused: pieces that fit the cache, tasks counted, kernel launched."""

from math import lcm, prod
from typing import Any

from numba import types

from ...arrays import Array
from ...plan import Axis, ConvPlan
from ..base import Direction, Epilogue, Fusion, Runner, Weight
from . import separable
from .activation import ACTIVATION, check_raised
from .depthwise_conv import DEPTHWISE, DEPTHWISE_KERNEL
from .gather import TABLE, forward_axis, merged
from .gathered import axes_of
from .launch import Kernel, integers, reads
from .operands import contiguous, deliver, fill_value
from .patch_gemm_conv import (
    PATCH_GEMM,
    PATCH_GEMM_KERNEL,
    POSITIONS,
    panels_of_task,
    patch_launch,
    result_of,
    store_address,
    stretch_of,
    with_panels,
)
from .plane_gemm_conv import PLANE_GEMM
from .simd import VECTOR_BYTES
from .sweep import SWEEPS, WIDEST, make_sweeps
from .threads import parallel_threads

__all__ = ["SEPARABLE"]

#: Bytes between the two steps, of one task: about half of a second-level cache, whose rest is for weights and sums.
_BETWEEN = 1 << 19
#: Rows of a piece below which its columns are cut: each piece reads again what its neighbours read beyond its edges.
_LEAST_ROWS = 4
#: Channels between the steps above which the product takes so long that bringing them to it does not count; but with
#: channels last, two steps transpose what is between them.
_MOST_CHANNELS = 128


def _signature(kind: Any) -> tuple:
    flat, out, starts = reads(kind, 1), types.Array(kind, 1, "C"), types.Array(types.int64, 1, "C")
    tuples = (integers(9), integers(5), integers(3), integers(5))
    return (flat, flat, flat, starts, flat, flat, out, *tuples, SWEEPS, TABLE, kind, ACTIVATION, integers(3))


_kernel = Kernel(separable.separable_tasks, _signature)


def _pieces(plan: ConvPlan, lanes: int, stretch: int | None) -> tuple[int, int, int]:
    """Samples, rows and columns of a task. Columns are all, or whole strips and whole stretches.

    No sum depends on them, so that they may be as few as it takes to occupy the threads.
    """
    _, channels, deep, high, wide = plan.y_shape
    cells = max(_BETWEEN // (channels * VECTOR_BYTES // lanes), 1)
    rows, columns = min(cells // wide, high), wide
    if rows < min(_LEAST_ROWS, high):
        unit = lcm(WIDEST * lanes, stretch or 1)
        columns = min(max(cells // min(high, 2 * _LEAST_ROWS) // unit, 1) * unit, wide)
        rows = min(max(cells // columns, 1), high)
    samples = min(max(cells // (high * wide), 1), plan.batch) if rows == high and columns == wide else 1
    least_tasks = 2 * parallel_threads()

    def tasks() -> int:
        return -(-plan.batch // samples) * deep * -(-high // rows) * -(-wide // columns)

    while tasks() < least_tasks and samples > 1:
        samples = -(-samples // 2)
    while tasks() < least_tasks and rows > _LEAST_ROWS // 2:
        rows = -(-rows // 2)
    return -(-plan.batch // -(-plan.batch // samples)), -(-high // -(-high // rows)), columns


def _ready(first: ConvPlan, second: ConvPlan) -> Runner:
    launch = patch_launch(second, False, axes_of(Direction.FORWARD, second))
    dtype, lanes = launch.dtype, launch.lanes
    stretch = stretch_of(launch.largest[1])
    taps = prod(first.w_shape[2:])
    between = first.y_channels
    depthwise = (between, between // first.groups, 1, lanes, 0)
    extents = (first.y_shape[3], first.y_shape[4], taps)
    task_panels = panels_of_task(launch.panels)
    panel_blocks = -(-launch.panels // task_panels)
    work, fill, point = first.macs + second.macs, fill_value(first, dtype), merged([forward_axis(Axis())] * 3)

    def run(x: Array, weights: tuple[Array, Weight], y: Array, epilogue: Epilogue) -> None:
        if not y.size:
            return
        result = result_of(y, epilogue, dtype)
        planes = result.strides[1] != 1 or result.strides[4] == 1
        along_rows = planes and epilogue.activation is not None
        together, rows, columns = _pieces(first, lanes, stretch if along_rows else None)
        sweeps = make_sweeps("forward", lanes, 1, first.axes3, (rows, columns))
        tasks = -(-first.batch // together) * sweeps.depth_slots * sweeps.bands * sweeps.blocks
        outputs = second.y_channels
        tiles = (stretch, POSITIONS, task_panels, panel_blocks, lanes)
        shape = (first.batch, together, between, outputs, *tiles)
        steps = (DEPTHWISE_KERNEL.address(dtype), PATCH_GEMM_KERNEL.address(dtype))
        addresses = (*steps, store_address(launch, result))
        flat_x, flat_w = contiguous(x, dtype).ravel(), contiguous(weights[0], dtype).ravel()

        def multiply(packed: Array) -> None:
            operands = (flat_x, flat_w, packed, launch.starts, result.bias, result.residual, result.flat, shape)
            rest = (depthwise, extents, result.strides, sweeps, point, fill, result.activation, addresses)
            _kernel(dtype, tasks, work, *operands, *rest)

        with_panels(weights[1], launch, multiply)
        check_raised(epilogue.activation, result.activation)
        deliver(result.target, y)

    return run


def _accepts(first: ConvPlan, second: ConvPlan) -> str | None:
    if not first.output_dtype == first.compute_dtype == second.compute_dtype:
        return f"the first step's results are rounded to {first.output_dtype} for sums in {second.compute_dtype}"
    if first.y_channels > _MOST_CHANNELS and not second.channels_last:
        return f"a product of {first.y_channels} channels takes much longer than bringing them to it"
    return None


#: Depthwise, then pointwise, by the kernel of `patch_gemm`; `plane_gemm` adds in the same order, so it has its bits.
SEPARABLE = tuple(
    Fusion((DEPTHWISE[Direction.FORWARD].name, pointwise[Direction.FORWARD].name), accepts=_accepts, ready=_ready)
    for pointwise in (PATCH_GEMM, PLANE_GEMM)
)
