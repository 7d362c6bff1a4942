"""Tiles of dot products for WEIGHT_GRAD: chunks of positions fixed by the plan, partial sums added as a tree."""

from functools import partial
from typing import Any

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import Algorithm, Direction, Epilogue, any_order_factor
from . import dot_gemm
from .gather import PHASED, forward_axis
from .implicit_gemm import refusal
from .launch import Kernel, reads
from .operands import chunk_count, contiguous, deliver, fill_value, tree_sum
from .simd import VECTOR_BYTES

__all__ = ["DOT_GEMM"]

#: Tasks below this are split over chunks of positions, by the plan alone: never by threads.
_LEAST_TASKS = 32


def _integers(count: int) -> types.UniTuple:
    return types.UniTuple(types.int64, count)


def _dot_signature(kind: Any) -> tuple:
    return (reads(kind, 1), reads(kind, 1), types.Array(kind, 3, "C"), _integers(6), PHASED, PHASED, PHASED, kind)


_dot_kernel = Kernel(dot_gemm.dot_gemm_tasks, _dot_signature)


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


#: For groups of few result channels, which would leave vectors of them empty.
DOT_GEMM = Algorithm(
    "dot_gemm", partial(refusal, Direction.WEIGHT_GRAD), _dot, partial(any_order_factor, Direction.WEIGHT_GRAD)
)
