"""The GEMM algorithms of WEIGHT_GRAD: chunks of positions fixed by the plan, partial sums added as a tree."""

from functools import partial
from typing import Any

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import Algorithm, Direction, Epilogue, any_order_factor
from . import dot_gemm, outer_gemm
from .gather import PHASED, forward_axis
from .implicit_gemm import refusal
from .launch import Kernel, reads
from .operands import chunk_count, contiguous, deliver, fill_value, tree_sum
from .simd import ROWS, VECTOR_BYTES, VECTORS

__all__ = ["DOT_GEMM", "OUTER_GEMM"]

#: Tasks below this are split over chunks of positions, by the plan alone: never by threads.
_LEAST_TASKS = 32


def _integers(count: int) -> types.UniTuple:
    return types.UniTuple(types.int64, count)


def _dot_signature(kind: Any) -> tuple:
    return (reads(kind, 1), reads(kind, 1), types.Array(kind, 3, "C"), _integers(6), PHASED, PHASED, PHASED, kind)


def _outer_signature(kind: Any) -> tuple:
    return (reads(kind, 1), reads(kind, 1), types.Array(kind, 4, "C"), _integers(7), PHASED, PHASED, PHASED, kind)


def _panels_signature(kind: Any) -> tuple:
    return (reads(kind, 1), types.Array(kind, 1, "C"), _integers(5))


_dot_kernel = Kernel(dot_gemm.dot_gemm_tasks, dot_gemm.dot_gemm_parallel, _dot_signature)
_outer_kernel = Kernel(outer_gemm.outer_gemm_tasks, outer_gemm.outer_gemm_parallel, _outer_signature)
_panels_kernel = Kernel(outer_gemm.panels_tasks, outer_gemm.panels_parallel, _panels_signature)


def _dot(plan: ConvPlan, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    dtype = np.dtype(plan.compute_dtype)
    axes = tuple(forward_axis(axis) for axis in plan.axes3)
    groups = plan.groups
    channels, rows = plan.x_channels // groups, plan.y_channels // groups
    columns = channels * int(np.prod(w.shape[2:]))
    tiles = groups * -(-rows // dot_gemm.MOST_ROWS) * -(-columns // dot_gemm.MOST_COLUMNS)
    blocks = -(-plan.batch * int(np.prod(y.shape[2:])) // dot_gemm.LENGTH)
    chunks = chunk_count(tiles, blocks, _LEAST_TASKS)
    sums = np.empty((chunks, plan.y_channels, columns), dtype)
    shape = (plan.batch, groups, channels, rows, chunks, VECTOR_BYTES // dtype.itemsize)
    operands = (contiguous(x, dtype).ravel(), contiguous(y, dtype).ravel(), sums)
    _dot_kernel(dtype, chunks * tiles, plan.macs, *operands, shape, *axes, fill_value(plan, dtype))
    deliver(tree_sum(sums).reshape(w.shape), w)


def _panels(array: Array, dtype: np.dtype, groups: int, width: int) -> Array:
    """Canonical data as panels of ``width`` channels."""
    samples, channels = array.shape[0], array.shape[1] // groups
    plane, panels = int(np.prod(array.shape[2:])), -(-channels // width)
    found = np.empty(groups * panels * samples * plane * width, dtype)
    tasks = groups * panels * samples * -(-plane // outer_gemm.STRETCH)
    shape = (samples, groups, channels, plane, width)
    _panels_kernel(dtype, tasks, found.size, contiguous(array, dtype).ravel(), found, shape)
    return found


def _panel_vectors(channels: int, lanes: int) -> int:
    """Vectors of a panel: the widest of those that waste the fewest lanes."""
    return min(range(VECTORS, 0, -1), key=lambda vectors: -(-channels // (vectors * lanes)) * vectors)


def _outer(plan: ConvPlan, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    dtype = np.dtype(plan.compute_dtype)
    axes = tuple(forward_axis(axis) for axis in plan.axes3)
    groups, taps = plan.groups, int(np.prod(w.shape[2:]))
    channels, rows = plan.x_channels // groups, plan.y_channels // groups
    lanes = VECTOR_BYTES // dtype.itemsize
    vectors = _panel_vectors(channels, lanes)
    tasks = groups * taps * -(-channels // (vectors * lanes * outer_gemm.PANELS))
    positions = int(np.prod(y.shape[2:]))
    blocks = plan.batch * -(-positions // min(outer_gemm.DEPTH, positions))
    chunks = chunk_count(tasks, blocks, _LEAST_TASKS)
    sums = np.empty((chunks, plan.y_channels, taps, channels), dtype)
    shape = (plan.batch, groups, channels, rows, chunks, vectors, lanes)
    operands = (_panels(x, dtype, groups, vectors * lanes), _panels(y, dtype, groups, ROWS), sums)
    _outer_kernel(dtype, chunks * tasks, plan.macs, *operands, shape, *axes, fill_value(plan, dtype))
    deliver(tree_sum(sums).swapaxes(1, 2).reshape(w.shape), w)


def _outer_refusal(plan: ConvPlan) -> str | None:
    reason = refusal(Direction.WEIGHT_GRAD, plan)
    if reason is not None:
        return reason
    channels, lanes = plan.x_channels // plan.groups, VECTOR_BYTES // np.dtype(plan.compute_dtype).itemsize
    if channels < lanes // 2:
        return f"a vector has {lanes} lanes, and a group only {channels} input channels to fill them"
    return None


_error_factor = partial(any_order_factor, Direction.WEIGHT_GRAD)

#: For groups of many input channels.
OUTER_GEMM = Algorithm("outer_gemm", _outer_refusal, _outer, _error_factor)
#: For groups of few.
DOT_GEMM = Algorithm("dot_gemm", partial(refusal, Direction.WEIGHT_GRAD), _dot, _error_factor)
