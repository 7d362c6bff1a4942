"""Tiles of dot products for WEIGHT_GRAD: chunks of positions fixed by the plan, partial sums added as a tree."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import About, Direction
from . import dot_gemm
from .gather import TABLE, merged
from .gathered import Axes, weight_gradient
from .implicit_gemm import refusal
from .launch import Kernel, integers, reads
from .operands import chunk_count, deliver, fill_value, flat_source, source_dtype, tree_sum
from .simd import VECTOR_BYTES

__all__ = ["DOT_GEMM"]

#: Tasks below this are split over chunks of positions, by the plan alone: never by threads.
_LEAST_TASKS = 32


def _dot_signature(kind: Any, sources: tuple | None = None) -> tuple:
    x, y = sources or (kind, kind)
    return (reads(x, 1), reads(y, 1), types.Array(kind, 3, "C"), integers(6), TABLE, kind)


_dot_kernel = Kernel(dot_gemm.dot_gemm_tasks, _dot_signature)


class _Launch(NamedTuple):
    """What follows from a plan alone; ``kernel`` is bound to its tasks."""

    dtype: np.dtype
    source: np.dtype
    sums: tuple[int, ...]
    shape: tuple[int, ...]
    axes: Array
    fill: Any
    kernel: Callable[..., None]


def _launch(plan: ConvPlan, axes: Axes) -> _Launch:
    dtype, source, groups = np.dtype(plan.compute_dtype), source_dtype(plan), plan.groups
    channels, rows = plan.x_channels // groups, plan.y_channels // groups
    columns = channels * prod(plan.w_shape[2:])
    tiles = groups * -(-rows // dot_gemm.MOST_ROWS) * -(-columns // dot_gemm.MOST_COLUMNS)
    blocks = -(-plan.batch * prod(plan.y_shape[2:]) // dot_gemm.LENGTH)
    chunks = chunk_count(tiles, blocks, _LEAST_TASKS)
    return _Launch(
        dtype=dtype,
        source=source,
        sums=(chunks, plan.y_channels, columns),
        shape=(plan.batch, groups, channels, rows, chunks, VECTOR_BYTES // dtype.itemsize),
        axes=merged(axes),
        fill=fill_value(plan, dtype),
        kernel=_dot_kernel.reading(dtype, source, source).bound(dtype, chunks * tiles, plan.macs),
    )


def _run(launch: _Launch, x: Array, w: Array, y: Array) -> None:
    dtype, in_place = launch.dtype, launch.sums[0] == 1 and w.dtype == launch.dtype and w.flags.c_contiguous
    sums = w.reshape(launch.sums) if in_place else np.empty(launch.sums, dtype)
    launch.kernel(
        flat_source(x, launch.source), flat_source(y, launch.source), sums, launch.shape, launch.axes, launch.fill
    )
    if not in_place:
        deliver(tree_sum(sums).reshape(w.shape), w)


#: For groups of few result channels, which would leave vectors of them empty.
DOT_GEMM = weight_gradient(
    "dot_gemm",
    partial(refusal, Direction.WEIGHT_GRAD),
    _run,
    _launch,
    flat=True,
    reads_integers=True,
    about=About(
        does="weight gradients as dot products over positions",
        cost="the definition's products; each cell is copied once for every tap that reads it",
        chosen="weight gradients of few result channels",
    ),
)
