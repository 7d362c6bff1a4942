"""The depthwise algorithm in all directions: gathers from the plan, tasks counted, kernels launched."""

from functools import partial
from math import prod
from typing import Any

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import About, Algorithm, Direction, Epilogue, any_order_factor
from . import depthwise
from .activation import ACTIVATION, check_raised
from .gathered import Axes, both_directions, gather_refusal, phase_count
from .launch import Kernel, integers, reads
from .operands import chunk_count, contiguous, deliver, fill_value, flat_epilogue, flat_target, target_extents, tree_sum
from .simd import VECTOR_BYTES
from .sweep import SWEEPS, make_sweeps

__all__ = ["DEPTHWISE", "DEPTHWISE_KERNEL"]

#: Weight-gradient tasks below this are split over chunks of rows, by the plan alone: never by threads.
_LEAST_TASKS = 32

#: Output channels of a group, each of which packs the group's input again.
_MOST_MULTIPLIER = 4

#: Stride phases, for each of which there are sweeps; of more than few, results of each that are worth making them.
_MOST_PHASES, _FEW_PHASES, _LEAST_RESULTS = 256, 16, 16

_FIVE, _SEVEN = (integers(count) for count in (5, 7))


def _signature(kind: Any) -> tuple:
    flat, out = reads(kind, 1), types.Array(kind, 1, "C")
    return (flat, flat, flat, flat, out, _FIVE, _SEVEN, SWEEPS, kind, ACTIVATION)


def _weight_signature(kind: Any) -> tuple:
    flat = reads(kind, 1)
    return (flat, flat, types.Array(kind, 3, "C"), _FIVE, SWEEPS, kind)


DEPTHWISE_KERNEL = Kernel(depthwise.depthwise_tasks, _signature)
_weight_kernel = Kernel(depthwise.depthwise_weight_tasks, _weight_signature)


def _run(plan: ConvPlan, source: Array, w: Array, out: Array, epilogue: Epilogue, by_input: bool, _: Axes) -> None:
    dtype, groups = np.dtype(plan.compute_dtype), plan.groups
    lanes = VECTOR_BYTES // dtype.itemsize
    kind = "input" if by_input else "forward"
    channels, rows = source.shape[1] // groups, out.shape[1] // groups
    sweeps = make_sweeps(kind if epilogue.residual is None else f"{kind}+", lanes, channels, plan.axes3)
    bias, residual, activation = flat_epilogue(epilogue, dtype)
    target = flat_target(out, dtype)
    shape = (groups * rows, rows, channels, lanes, int(by_input))
    pieces = sweeps.depth_slots * sweeps.bands * sweeps.blocks
    extents = (*target_extents(out), w.shape[2] * w.shape[3] * w.shape[4], 0, pieces, 0)
    operands = (contiguous(source, dtype).ravel(), contiguous(w, dtype).ravel(), bias, residual, target.reshape(-1))
    tasks = plan.batch * groups * rows * pieces
    DEPTHWISE_KERNEL(dtype, tasks, plan.macs, *operands, shape, extents, sweeps, fill_value(plan, dtype), activation)
    check_raised(epilogue.activation, activation)
    deliver(target, out)


def _weight_grad(plan: ConvPlan, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    dtype = np.dtype(plan.compute_dtype)
    lanes = VECTOR_BYTES // dtype.itemsize
    sweeps = make_sweeps("weight", lanes, 1, plan.axes3)
    units = plan.batch * sweeps.depth_slots * sweeps.bands * sweeps.blocks
    chunks = chunk_count(plan.y_channels, units, _LEAST_TASKS)
    sums = np.empty((chunks, plan.y_channels, sweeps.taps), dtype)
    shape = (plan.batch, plan.y_channels, plan.y_channels // plan.groups, lanes, chunks)
    operands = (contiguous(x, dtype).ravel(), contiguous(y, dtype).ravel(), sums, shape, sweeps)
    _weight_kernel(dtype, chunks * plan.y_channels, plan.macs, *operands, fill_value(plan, dtype))
    deliver(tree_sum(sums).reshape(w.shape), w)


def _refusal(direction: Direction, plan: ConvPlan) -> str | None:
    channels, rows = plan.x_channels // plan.groups, plan.y_channels // plan.groups
    if channels != 1 or not 1 <= rows <= _MOST_MULTIPLIER:
        most = f"1 to {_MOST_MULTIPLIER}"
        return f"a group has {channels} input and {rows} output channels, but must have 1 and {most}"
    phases = phase_count(direction, plan)
    if phases > _MOST_PHASES:
        return f"each of {phases} stride phases has sweeps of its own, which take longer to make than to use"
    return gather_refusal(direction, plan)


def _worthwhile(direction: Direction, plan: ConvPlan) -> str | None:
    phases, results = phase_count(direction, plan), prod(axis.input for axis in plan.axes)
    if phases > _FEW_PHASES and results < phases * _LEAST_RESULTS:
        return f"{phases} stride phases have {results} results of a channel, and sweeps of their own, which take longer"
    return None


_ABOUT = About(
    does="a few vectors of a row, swept down the planes",
    cost="the definition's products; each result channel of a group reads the group's input again",
    chosen=f"groups of one input channel and up to {_MOST_MULTIPLIER} output channels",
)
#: The algorithm of each direction.
DEPTHWISE = {
    **both_directions("depthwise", _refusal, _run, worthwhile=_worthwhile, about=_ABOUT),
    Direction.WEIGHT_GRAD: Algorithm(
        "depthwise",
        partial(_refusal, Direction.WEIGHT_GRAD),
        _weight_grad,
        partial(any_order_factor, Direction.WEIGHT_GRAD),
        about=_ABOUT,
    ),
}
