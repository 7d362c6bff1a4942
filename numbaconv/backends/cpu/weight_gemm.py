"""The GEMM algorithms of WEIGHT_GRAD: chunks of positions fixed by the plan, partial sums added as a tree."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import Direction
from . import dot_gemm, outer_gemm
from .gather import PHASED
from .gathered import Axes, weight_gradient
from .implicit_gemm import refusal
from .launch import Kernel, reads
from .operands import chunk_count, deliver, fill_value, flat, tree_sum
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


class _Dot(NamedTuple):
    """What dot products of a plan need beside arrays."""

    dtype: np.dtype
    sums: tuple[int, ...]
    shape: tuple[int, ...]
    axes: Axes
    fill: Any
    kernel: Callable[..., None]


def _dot_launch(plan: ConvPlan, axes: Axes) -> _Dot:
    dtype, groups = np.dtype(plan.compute_dtype), plan.groups
    channels, rows = plan.x_channels // groups, plan.y_channels // groups
    columns = channels * prod(plan.w_shape[2:])
    tiles = groups * -(-rows // dot_gemm.MOST_ROWS) * -(-columns // dot_gemm.MOST_COLUMNS)
    blocks = -(-plan.batch * prod(plan.y_shape[2:]) // dot_gemm.LENGTH)
    chunks = chunk_count(tiles, blocks, _LEAST_TASKS)
    return _Dot(
        dtype,
        (chunks, plan.y_channels, columns),
        (plan.batch, groups, channels, rows, chunks, VECTOR_BYTES // dtype.itemsize),
        axes,
        fill_value(plan, dtype),
        _dot_kernel.bound(dtype, chunks * tiles, plan.macs),
    )


def _dot(launch: _Dot, x: Array, w: Array, y: Array) -> None:
    sums = np.empty(launch.sums, launch.dtype)
    operands = (flat(x, launch.dtype), flat(y, launch.dtype), sums)
    launch.kernel(*operands, launch.shape, *launch.axes, launch.fill)
    deliver(tree_sum(sums).reshape(w.shape), w)


class _Panels(NamedTuple):
    """How an operand becomes panels of ``shape[-1]`` channels."""

    size: int
    shape: tuple[int, ...]
    kernel: Callable[..., None]


def _panels_launch(dtype: np.dtype, full: tuple[int, ...], groups: int, width: int) -> _Panels:
    samples, channels, plane = full[0], full[1] // groups, prod(full[2:])
    panels = -(-channels // width)
    size = groups * panels * samples * plane * width
    tasks = groups * panels * samples * -(-plane // outer_gemm.STRETCH)
    return _Panels(size, (samples, groups, channels, plane, width), _panels_kernel.bound(dtype, tasks, size))


def _panels(launch: _Panels, array: Array, dtype: np.dtype) -> Array:
    """Canonical data as panels."""
    found = np.empty(launch.size, dtype)
    launch.kernel(flat(array, dtype), found, launch.shape)
    return found


def _panel_vectors(channels: int, lanes: int) -> int:
    """Vectors of a panel: the widest of those that waste the fewest lanes."""
    return min(range(VECTORS, 0, -1), key=lambda vectors: -(-channels // (vectors * lanes)) * vectors)


class _Outer(NamedTuple):
    """What outer products of a plan need beside arrays."""

    dtype: np.dtype
    sums: tuple[int, ...]
    shape: tuple[int, ...]
    axes: Axes
    fill: Any
    x: _Panels
    y: _Panels
    kernel: Callable[..., None]


def _outer_launch(plan: ConvPlan, axes: Axes) -> _Outer:
    dtype, groups, taps = np.dtype(plan.compute_dtype), plan.groups, prod(plan.w_shape[2:])
    channels, rows = plan.x_channels // groups, plan.y_channels // groups
    lanes = VECTOR_BYTES // dtype.itemsize
    vectors = _panel_vectors(channels, lanes)
    tasks = groups * taps * -(-channels // (vectors * lanes * outer_gemm.PANELS))
    positions = prod(plan.y_shape[2:])
    blocks = plan.batch * -(-positions // min(outer_gemm.DEPTH, positions))
    chunks = chunk_count(tasks, blocks, _LEAST_TASKS)
    return _Outer(
        dtype,
        (chunks, plan.y_channels, taps, channels),
        (plan.batch, groups, channels, rows, chunks, vectors, lanes),
        axes,
        fill_value(plan, dtype),
        _panels_launch(dtype, plan.x_shape, groups, vectors * lanes),
        _panels_launch(dtype, plan.y_shape, groups, ROWS),
        _outer_kernel.bound(dtype, chunks * tasks, plan.macs),
    )


def _outer(launch: _Outer, x: Array, w: Array, y: Array) -> None:
    dtype = launch.dtype
    sums = np.empty(launch.sums, dtype)
    operands = (_panels(launch.x, x, dtype), _panels(launch.y, y, dtype), sums)
    launch.kernel(*operands, launch.shape, *launch.axes, launch.fill)
    deliver(tree_sum(sums).swapaxes(1, 2).reshape(w.shape), w)


def _outer_refusal(plan: ConvPlan) -> str | None:
    reason = refusal(Direction.WEIGHT_GRAD, plan)
    if reason is not None:
        return reason
    channels, lanes = plan.x_channels // plan.groups, VECTOR_BYTES // np.dtype(plan.compute_dtype).itemsize
    if channels < lanes // 2:
        return f"a vector has {lanes} lanes, and a group only {channels} input channels to fill them"
    return None


#: For groups of many input channels.
OUTER_GEMM = weight_gradient("outer_gemm", _outer_refusal, _outer, _outer_launch, flat=True)
#: For groups of few.
DOT_GEMM = weight_gradient("dot_gemm", partial(refusal, Direction.WEIGHT_GRAD), _dot, _dot_launch, flat=True)
