"""The implicit GEMM algorithm of FORWARD and INPUT_GRAD: gathers from the plan, weights packed, tasks counted."""

from typing import Any

import numba
import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import Direction, Epilogue, PackedWeight, Weight
from . import gemm
from .activation import ACTIVATION, check_raised
from .gather import PHASED
from .gathered import Axes, both_directions, gather_refusal
from .launch import Kernel, reads
from .operands import contiguous, deliver, fill_value, flat_epilogue, flat_target, target_extents
from .simd import ROWS, VECTOR_BYTES

__all__ = ["IMPLICIT_GEMM", "refusal"]

_SHAPE = types.UniTuple(types.int64, 8)
_TARGET = types.UniTuple(types.int64, 3)
_STARTS = types.Array(types.int64, 1, "C")


def _gemm_signature(kind: Any) -> tuple:
    flat, out = reads(kind, 1), types.Array(kind, 1, "C")
    return (flat, flat, _STARTS, flat, flat, out, _SHAPE, _TARGET, PHASED, PHASED, PHASED, kind, ACTIVATION)


def _pack_signature(kind: Any) -> tuple:
    return (reads(kind, 1), types.Array(kind, 1, "C"), _STARTS, _SHAPE, PHASED, PHASED, PHASED)


_gemm_kernel = Kernel(gemm.gemm_tasks, gemm.gemm_parallel, _gemm_signature)
_pack_kernel = Kernel(gemm.pack_weights_tasks, gemm.pack_weights_parallel, _pack_signature)


def _split(positions: int, others: int, lanes: int, panels: int) -> tuple[int, int, int]:
    """Positions of a block, blocks of positions, blocks of rows.

    Blocks of positions follow from the positions alone, a power of two while they are few, so that they occupy
    threads evenly: an activation may be vectorised along a block, which must not depend on threads or batch.
    Rows are whole in any split, so their blocks are as many as it takes to occupy the threads.
    """
    vectors = -(-positions // lanes)
    blocks = -(-vectors // gemm.COLUMNS)
    if vectors > gemm.COLUMNS // 2:
        blocks = max(1 << (blocks - 1).bit_length(), 2) if blocks < 8 else blocks + blocks % 2
    block = -(-vectors // blocks) * lanes
    blocks = -(-positions // block)
    threads: int = numba.get_num_threads()
    row_blocks = 1
    while others * blocks * row_blocks < threads and row_blocks < panels:
        row_blocks += 1
    return block, blocks, row_blocks


def _phase_starts(sizes: Array, cells_of_tap: int) -> Array:
    """Where each phase's packed weights begin, and where the last ends."""
    starts = np.zeros(sizes.size + 1, np.int64)
    np.cumsum(sizes * cells_of_tap, out=starts[1:])
    return starts


def _pack(plan: ConvPlan, w: Array, by_input: bool, axes: Axes) -> PackedWeight:
    """All phases' packed weights, and where each phase's begin."""
    dtype, groups = np.dtype(plan.compute_dtype), plan.groups
    outputs, inputs = plan.y_channels // groups, plan.x_channels // groups
    rows, channels = (inputs, outputs) if by_input else (outputs, inputs)
    panels = -(-rows // ROWS)
    taps = [np.diff(axis.taps) for axis in axes]
    sizes = np.multiply.outer(np.multiply.outer(taps[0], taps[1]), taps[2]).ravel()
    starts = _phase_starts(sizes, groups * panels * channels * ROWS)
    packed = np.empty(int(starts[-1]), dtype)
    inner = w.shape[2] * w.shape[3] * w.shape[4]
    outer = inputs * inner
    # By input, rows are input channels and the depth runs over output channels.
    steps = (inner, outer, outputs * outer) if by_input else (outer, inner, outputs * outer)
    shape = (groups, rows, channels, *steps, w.shape[3], w.shape[4])
    flat = contiguous(w, dtype).reshape(-1)
    _pack_kernel(dtype, sizes.size * groups * panels, packed.size, flat, packed, starts, shape, *axes)
    return PackedWeight((packed, starts))


def _run(plan: ConvPlan, source: Array, w: Weight, out: Array, epilogue: Epilogue, by_input: bool, axes: Axes) -> None:
    """Fill ``out``, which is canonical, from a source of samples and channels."""
    dtype = np.dtype(plan.compute_dtype)
    groups = plan.groups
    rows, channels = out.shape[1] // groups, source.shape[1] // groups
    lanes = VECTOR_BYTES // dtype.itemsize
    bias, residual, activation = flat_epilogue(epilogue, dtype)
    target = flat_target(out, dtype)
    phases = [axis.positions.size for axis in axes]
    largest = int(np.prod([axis.positions.max(initial=0) for axis in axes], dtype=np.int64))
    others = plan.batch * groups * int(np.prod(phases))
    block, blocks, row_blocks = _split(max(largest, 1), max(others, 1), lanes, -(-rows // ROWS))
    packed, starts = (w if isinstance(w, PackedWeight) else _pack(plan, w, by_input, axes)).arrays
    shape = (plan.batch, groups, channels, rows, block, blocks, row_blocks, lanes)
    extents = target_extents(out)
    operands = (contiguous(source, dtype).ravel(), packed, starts, bias, residual, target.reshape(-1))
    tasks = others * blocks * row_blocks
    _gemm_kernel(dtype, tasks, plan.macs, *operands, shape, extents, *axes, fill_value(plan, dtype), activation)
    check_raised(epilogue.activation, activation)
    deliver(target, out)


def refusal(direction: Direction, plan: ConvPlan) -> str | None:
    """Why a packed product does not suit a plan, if it does not."""
    rows = (plan.x_channels if direction is Direction.INPUT_GRAD else plan.y_channels) // plan.groups
    if rows < 2:
        return "a group has one result channel, so that no packed cell would be used twice"
    return gather_refusal(direction, plan)


#: The algorithm, for the two directions it computes.
IMPLICIT_GEMM = both_directions("implicit_gemm", refusal, _run, _pack)
