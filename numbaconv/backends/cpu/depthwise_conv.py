"""The depthwise algorithm in all directions: gathers from the plan, tasks counted, kernels launched."""

from functools import partial
from typing import Any

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import Algorithm, Direction, Epilogue, any_order_factor
from . import depthwise
from .activation import ACTIVATION, check_raised
from .gather import PHASED, PhasedAxis, forward_axis
from .gathered import Axes, both_directions, gather_refusal
from .launch import Kernel, reads
from .operands import chunk_count, contiguous, deliver, fill_value, flat_epilogue, flat_target, target_extents, tree_sum
from .simd import VECTOR_BYTES

__all__ = ["DEPTHWISE"]

#: Weight-gradient tasks below this are split over chunks of rows, by the plan alone: never by threads.
_LEAST_TASKS = 32

#: Output channels of a group, each of which packs the group's input again.
_MOST_MULTIPLIER = 4

_TARGET = types.UniTuple(types.int64, 3)


def _signature(kind: Any) -> tuple:
    flat, out, shape = reads(kind, 1), types.Array(kind, 1, "C"), types.UniTuple(types.int64, 7)
    return (flat, reads(kind, 5), flat, flat, out, shape, _TARGET, PHASED, PHASED, PHASED, kind, ACTIVATION)


def _weight_signature(kind: Any) -> tuple:
    flat, shape = reads(kind, 1), types.UniTuple(types.int64, 6)
    return (flat, flat, types.Array(kind, 3, "C"), shape, PHASED, PHASED, PHASED, kind)


_kernel = Kernel(depthwise.depthwise_tasks, _signature)
_weight_kernel = Kernel(depthwise.depthwise_weight_tasks, _weight_signature)


def _bands(axis: PhasedAxis) -> int:
    return -(-int(axis.positions.max()) // depthwise.BAND)


def _run(plan: ConvPlan, source: Array, w: Array, out: Array, epilogue: Epilogue, by_input: bool, axes: Axes) -> None:
    dtype, groups = np.dtype(plan.compute_dtype), plan.groups
    channels, rows = source.shape[1] // groups, out.shape[1] // groups
    bias, residual, activation = flat_epilogue(epilogue, dtype)
    target = flat_target(out, dtype)
    depth, height, width = axes
    bands, phases = _bands(height), depth.positions.size * height.positions.size * width.positions.size
    shape = (plan.batch, groups, channels, rows, bands, VECTOR_BYTES // dtype.itemsize, int(by_input))
    extents = target_extents(out)
    operands = (contiguous(source, dtype).ravel(), contiguous(w, dtype), bias, residual, target.reshape(-1))
    tasks = phases * plan.batch * groups * rows * int(depth.positions.max()) * bands
    _kernel(dtype, tasks, plan.macs, *operands, shape, extents, *axes, fill_value(plan, dtype), activation)
    check_raised(epilogue.activation, activation)
    deliver(target, out)


def _weight_grad(plan: ConvPlan, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    dtype, groups = np.dtype(plan.compute_dtype), plan.groups
    depth, height, width = (forward_axis(axis) for axis in plan.axes3)
    rows, bands = plan.y_channels // groups, _bands(height)
    units = plan.batch * int(depth.positions.max()) * bands
    chunks = chunk_count(plan.y_channels, units, _LEAST_TASKS)
    sums = np.empty((chunks, plan.y_channels, int(np.prod(w.shape[2:]))), dtype)
    shape = (plan.batch, groups, rows, bands, chunks, VECTOR_BYTES // dtype.itemsize)
    operands = (contiguous(x, dtype).ravel(), contiguous(y, dtype).ravel(), sums)
    tasks = chunks * plan.y_channels
    _weight_kernel(dtype, tasks, plan.macs, *operands, shape, depth, height, width, fill_value(plan, dtype))
    deliver(tree_sum(sums).reshape(w.shape), w)


def _refusal(direction: Direction, plan: ConvPlan) -> str | None:
    channels, rows = plan.x_channels // plan.groups, plan.y_channels // plan.groups
    if channels != 1 or not 1 <= rows <= _MOST_MULTIPLIER:
        most = f"1 to {_MOST_MULTIPLIER}"
        return f"a group has {channels} input and {rows} output channels, but must have 1 and {most}"
    return gather_refusal(direction, plan)


#: The algorithm of each direction.
DEPTHWISE = {
    **both_directions("depthwise", _refusal, _run),
    Direction.WEIGHT_GRAD: Algorithm(
        "depthwise",
        partial(_refusal, Direction.WEIGHT_GRAD),
        _weight_grad,
        partial(any_order_factor, Direction.WEIGHT_GRAD),
    ),
}
