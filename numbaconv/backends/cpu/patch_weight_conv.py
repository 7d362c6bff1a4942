"""The patch GEMM algorithm of WEIGHT_GRAD: blocks of channels and positions, chunks fixed by the plan."""

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import Direction
from . import patch_weight
from .gather import PHASED
from .gathered import Axes, gather_refusal, weight_gradient
from .launch import Kernel, integers, reads
from .operands import chunk_count, deliver, either_layout, fill_value, flat_strides, tree_sum
from .patch_gemm_conv import PATCHES, all_inside, lanes_worthwhile
from .simd import VECTOR_BYTES

__all__ = ["PATCH_GEMM_WEIGHT"]

#: Positions multiplied before sums are written back.
_POSITIONS = 256
#: Bytes of a task's sums.
_SUMS_BYTES = 400_000
#: Tasks below this are split over chunks of positions, by the plan alone: never by threads.
_LEAST_TASKS = 8


def _signature(kind: Any) -> tuple:
    flat, out = reads(kind, 1), types.Array(kind, 1, "C")
    return (flat, flat, out, integers(14), integers(5), integers(5), PHASED, PHASED, PHASED, kind)


_kernel = Kernel(patch_weight.patch_weight_tasks, _signature)


def _even(extent: int, most: int) -> int:
    """The extent in as few equal blocks of at most ``most`` as there can be."""
    most = max(min(most, extent), 1)
    return -(-extent // -(-extent // most))


class _Launch(NamedTuple):
    """What follows from a plan alone; ``kernel`` is bound to its tasks."""

    dtype: np.dtype
    chunks: int
    shape: tuple[int, ...]
    axes: Axes
    fill: Any
    kernel: Callable[..., None]


def _launch(plan: ConvPlan, axes: Axes) -> _Launch:
    dtype, groups = np.dtype(plan.compute_dtype), plan.groups
    _, height, width = plan.axes3
    channels, rows, taps = plan.x_channels // groups, plan.y_channels // groups, prod(plan.w_shape[2:])
    lanes = VECTOR_BYTES // dtype.itemsize
    sum_bytes = taps * -(-rows // lanes) * lanes * dtype.itemsize
    task_channels = _even(channels, _SUMS_BYTES // max(sum_bytes, 1))
    columns = _even(width.output, _POSITIONS)
    unit_rows = _even(height.output, _POSITIONS // columns)
    whole = columns == width.output and unit_rows == height.output
    samples = _even(plan.batch, _POSITIONS // (columns * unit_rows)) if whole else 1
    blocks = (-(-plan.batch // samples), -(-height.output // unit_rows), -(-width.output // columns))
    tasks = groups * -(-channels // task_channels)
    chunks = chunk_count(tasks, prod(blocks) * plan.axes3[0].output, _LEAST_TASKS)
    in_place = int(all(all_inside(axis) for axis in axes))
    shape = (plan.batch, groups, channels, rows, task_channels, samples, unit_rows, columns, *blocks, chunks)
    return _Launch(
        dtype=dtype,
        chunks=chunks,
        shape=(*shape, in_place, lanes),
        axes=axes,
        fill=fill_value(plan, dtype),
        kernel=_kernel.bound(dtype, tasks * chunks, plan.macs),
    )


def _run(launch: _Launch, x: Array, w: Array, y: Array) -> None:
    if not w.size:
        return
    dtype = launch.dtype
    target = w if launch.chunks == 1 and w.flags.c_contiguous and w.dtype == dtype else None
    sums = np.empty((launch.chunks, *w.shape), dtype) if target is None else target[None]
    flat, strides = flat_strides(either_layout(x, dtype))
    flat_y, y_strides = flat_strides(either_layout(y, dtype))
    operands = (flat, flat_y, sums.reshape(-1), launch.shape, strides, y_strides)
    launch.kernel(*operands, *launch.axes, launch.fill)
    if target is None:
        deliver(tree_sum(sums), w)


def _refusal(plan: ConvPlan) -> str | None:
    refusal = gather_refusal(Direction.WEIGHT_GRAD, plan)
    if refusal is None and not plan.macs:
        return "there is nothing to sum"
    return refusal


def _worthwhile(plan: ConvPlan) -> str | None:
    return lanes_worthwhile(plan.y_channels // plan.groups, plan.compute_dtype)


#: The algorithm.
PATCH_GEMM_WEIGHT = weight_gradient("patch_gemm", _refusal, _run, _launch, worthwhile=_worthwhile, about=PATCHES)
