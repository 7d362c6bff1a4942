"""The direct algorithm: operands made contiguous in the compute dtype, tasks counted, kernels launched."""

from functools import partial
from typing import Any

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import About, Algorithm, Direction, Epilogue, any_order_factor
from . import direct
from .activation import ACTIVATION, check_raised, compiled_row
from .axes import AXIS, axis_table
from .launch import Kernel, reads, strided
from .operands import chunk_count, contiguous, deliver, fill_value, read_as_given, target_like, tree_sum

__all__ = ["DIRECT"]

#: Weight-gradient tasks below this are split over output rows, by the plan alone: never by threads.
_LEAST_TASKS = 64

_ROWS = (AXIS, AXIS, AXIS)


def _forward_signature(kind: Any, sources: tuple | None = None) -> tuple:
    (source,) = sources or (kind,)
    operands = (reads(source, 5), reads(kind, 5), reads(kind, 1), strided(kind, 5, readonly=True), strided(kind, 5))
    return (*operands, types.int64, *_ROWS, kind, ACTIVATION)


def _input_grad_signature(kind: Any, sources: tuple | None = None) -> tuple:
    (source,) = sources or (kind,)
    operands = (strided(kind, 5), reads(kind, 5), reads(kind, 1), strided(kind, 5, readonly=True), reads(source, 5))
    return (*operands, types.int64, *_ROWS, kind, ACTIVATION)


def _weight_grad_signature(kind: Any, sources: tuple | None = None) -> tuple:
    x, y = sources or (kind, kind)
    return (reads(x, 5), reads(y, 5), types.Array(kind, 6, "C"), types.int64, *_ROWS, kind)


_forward_kernel = Kernel(direct.forward_tasks, _forward_signature)
_input_grad_kernel = Kernel(direct.input_grad_tasks, _input_grad_signature)
_weight_grad_kernel = Kernel(direct.weight_grad_tasks, _weight_grad_signature)


def _epilogue_operands(epilogue: Epilogue, dtype: np.dtype) -> tuple[Array, Array, Array]:
    bias = np.empty(0, dtype) if epilogue.bias is None else contiguous(epilogue.bias, dtype)
    residual = np.empty((0,) * 5, dtype) if epilogue.residual is None else epilogue.residual.astype(dtype, copy=False)
    return bias, residual, compiled_row(epilogue.activation, dtype)


def _geometry(plan: ConvPlan, dtype: np.dtype) -> tuple[Any, ...]:
    return (plan.groups, *(axis_table(axis) for axis in plan.axes3), fill_value(plan, dtype))


def _blocks(channels: int) -> int:
    return -(-channels // direct.BLOCK)


def _forward(plan: ConvPlan, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    dtype = np.dtype(plan.compute_dtype)
    bias, residual, activation = _epilogue_operands(epilogue, dtype)
    target, (depth, height, width) = target_like(y, dtype), plan.axes3
    tiles = -(-width.output // axis_table(width).tile)
    channels = plan.groups * _blocks(plan.y_channels // plan.groups)
    tasks = plan.batch * channels * depth.output * height.output * tiles
    source = read_as_given(plan, x)
    operands = (source, contiguous(w, dtype), bias, residual, target)
    _forward_kernel.reading(dtype, source.dtype)(
        dtype, tasks, plan.macs, *operands, *_geometry(plan, dtype), activation
    )
    check_raised(epilogue.activation, activation)
    deliver(target, y)


def _input_grad(plan: ConvPlan, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    dtype = np.dtype(plan.compute_dtype)
    bias, residual, activation = _epilogue_operands(epilogue, dtype)
    target, (depth, height, _) = target_like(x, dtype), plan.axes3
    width = axis_table(plan.axes3[2])
    tiles = -(-width.steps // width.grad_tile)
    channels = plan.groups * _blocks(plan.x_channels // plan.groups)
    tasks = plan.batch * channels * depth.input * height.input * tiles
    source = read_as_given(plan, y)
    operands = (target, contiguous(w, dtype), bias, residual, source)
    _input_grad_kernel.reading(dtype, source.dtype)(
        dtype, tasks, plan.macs, *operands, *_geometry(plan, dtype), activation
    )
    check_raised(epilogue.activation, activation)
    deliver(target, x)


def _weight_grad(plan: ConvPlan, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    dtype = np.dtype(plan.compute_dtype)
    channels = plan.x_channels * _blocks(plan.y_channels // plan.groups)
    rows = plan.batch * plan.axes3[0].output * plan.axes3[1].output
    chunks = chunk_count(channels, rows, _LEAST_TASKS)
    sums = np.empty((chunks, *w.shape), dtype)
    sources = read_as_given(plan, x), read_as_given(plan, y)
    operands = (*sources, sums)
    _weight_grad_kernel.reading(dtype, sources[0].dtype, sources[1].dtype)(
        dtype, chunks * channels, plan.macs, *operands, *_geometry(plan, dtype)
    )
    deliver(tree_sum(sums), w)


_RUNS = {Direction.FORWARD: _forward, Direction.INPUT_GRAD: _input_grad, Direction.WEIGHT_GRAD: _weight_grad}

_ABOUT = About(
    does="loops along rows: every mode, every dtype",
    cost=f"the definition's products; a row is copied once for {direct.BLOCK} result channels",
    chosen="what is left: integers, complex, gradients of padding that repeats cells",
    bound="`n + 3`, for `n` products summed",
)
#: The direct algorithm of each direction.
DIRECT = {
    direction: Algorithm(
        "direct", lambda plan: None, run, partial(any_order_factor, direction), about=_ABOUT, reads_integers=True
    )
    for direction, run in _RUNS.items()
}
