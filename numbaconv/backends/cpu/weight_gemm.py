"""The GEMM algorithm of WEIGHT_GRAD: chunks of positions fixed by the plan, partial sums added as a tree."""

from functools import partial
from typing import Any

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import Algorithm, Direction, Epilogue, terms_summed
from . import dot_gemm
from .gather import PHASED, forward_axis
from .implicit_gemm import refusal
from .launch import Kernel, reads
from .operands import contiguous, deliver, fill_value, tree_sum
from .simd import VECTOR_BYTES

__all__ = ["WEIGHT_GEMM"]

#: Tasks below this are split over chunks of positions, by the plan alone: never by threads.
_LEAST_TASKS = 32

_SHAPE = types.UniTuple(types.int64, 6)


def _signature(kind: Any) -> tuple:
    return (reads(kind, 1), reads(kind, 1), types.Array(kind, 3, "C"), _SHAPE, PHASED, PHASED, PHASED, kind)


_kernel = Kernel(dot_gemm.dot_gemm_tasks, dot_gemm.dot_gemm_parallel, _signature)


def _weight_grad(plan: ConvPlan, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    dtype = np.dtype(plan.compute_dtype)
    axes = tuple(forward_axis(axis) for axis in plan.axes3)
    groups = plan.groups
    channels, rows = plan.x_channels // groups, plan.y_channels // groups
    columns = channels * int(np.prod(w.shape[2:]))
    tiles = groups * -(-rows // dot_gemm.MOST_ROWS) * -(-columns // dot_gemm.MOST_COLUMNS)
    blocks = -(-plan.batch * int(np.prod(y.shape[2:])) // dot_gemm.LENGTH)
    chunks = max(min(-(-_LEAST_TASKS // max(tiles, 1)), blocks), 1)
    sums = np.empty((chunks, plan.y_channels, columns), dtype)
    shape = (plan.batch, groups, channels, rows, chunks, VECTOR_BYTES // dtype.itemsize)
    operands = (contiguous(x, dtype).ravel(), contiguous(y, dtype).ravel(), sums)
    _kernel(dtype, chunks * tiles, plan.macs, *operands, shape, *axes, fill_value(plan, dtype))
    deliver(tree_sum(sums).reshape(w.shape), w)


def _error_factor(plan: ConvPlan) -> float:
    return terms_summed(plan, Direction.WEIGHT_GRAD) + 3.0


#: The algorithm of WEIGHT_GRAD.
WEIGHT_GEMM = Algorithm("dot_gemm", partial(refusal, Direction.WEIGHT_GRAD), _weight_grad, _error_factor)
