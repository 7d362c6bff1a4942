"""The implicit GEMM algorithm of FORWARD and INPUT_GRAD: gathers from the plan, weights packed, tasks counted."""

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import NO_EPILOGUE, About, Direction, Epilogue, PackedWeight, Weight
from . import gemm
from .activation import ACTIVATION, check_raised
from .gather import TABLE, merged
from .gathered import Axes, both_directions, gather_refusal
from .launch import Kernel, integers, reads, runs_serially
from .operands import deliver, fill_value, flat, flat_epilogue, flat_source, flat_target, source_dtype
from .simd import ROWS, VECTOR_BYTES
from .threads import parallel_threads

__all__ = ["IMPLICIT_GEMM", "PACK_KERNEL", "refusal"]

_SHAPE = integers(8)
_TARGET = integers(3)
_STARTS = types.Array(types.int64, 1, "C")


def _gemm_signature(kind: Any, sources: tuple | None = None) -> tuple:
    flat, out = reads(kind, 1), types.Array(kind, 1, "C")
    (source,) = sources or (kind,)
    return (reads(source, 1), flat, _STARTS, flat, flat, out, _SHAPE, _TARGET, TABLE, kind, ACTIVATION)


def _pack_signature(kind: Any) -> tuple:
    return (reads(kind, 1), types.Array(kind, 1, "C"), _STARTS, _SHAPE, TABLE)


_gemm_kernel = Kernel(gemm.gemm_tasks, _gemm_signature)
PACK_KERNEL = Kernel(gemm.pack_weights_tasks, _pack_signature)


class _Launch(NamedTuple):
    """What follows from a plan alone: the kernels' operands but for arrays, and how many tasks there are.

    ``shape``: the first six integers that the kernel gets. ``source``: the dtype in which it reads data. ``tasks``:
    tasks for each block of rows. ``pack``: the packing kernel, bound to its tasks. ``gemm``: the product's kernel and
    its whole shape, where these do not depend on the number of threads. ``nothing``: an epilogue of nothing.
    """

    dtype: np.dtype
    source: np.dtype
    axes: Array
    shape: tuple[int, ...]
    tasks: int
    work: int
    panels: int
    lanes: int
    fill: Any
    target: tuple[int, int, int]
    starts: Array
    packed: int
    pack: Callable[..., None]
    pack_shape: tuple[int, ...]
    gemm: tuple[Callable[..., None], tuple[int, ...]] | None
    nothing: tuple[Array, Array, Array]


def _blocks(positions: int, lanes: int) -> tuple[int, int]:
    """Positions of a block, blocks of positions.

    Blocks of positions follow from the positions alone, a power of two while they are few, so that they occupy
    threads evenly: an activation may be vectorised along a block, which must not depend on threads or batch.
    """
    vectors = -(-positions // lanes)
    blocks = -(-vectors // gemm.COLUMNS)
    if vectors > gemm.COLUMNS // 2:
        blocks = max(1 << (blocks - 1).bit_length(), 2) if blocks < 8 else blocks + blocks % 2
    block = -(-vectors // blocks) * lanes
    return block, -(-positions // block)


def _for_threads(launch: _Launch) -> tuple[Callable[..., None], tuple[int, ...]]:
    """The kernel and its shape; rows are whole in any split, so it has as many blocks as occupy the threads."""
    threads = 1 if runs_serially(launch.work) else parallel_threads()
    row_blocks = max(min(-(-threads // max(launch.tasks, 1)), launch.panels), 1)
    kernel = _gemm_kernel.reading(launch.dtype, launch.source).bound(
        launch.dtype, launch.tasks * row_blocks, launch.work
    )
    return kernel, (*launch.shape, row_blocks, launch.lanes)


def _launch(plan: ConvPlan, by_input: bool, axes: Axes) -> _Launch:
    dtype, groups = np.dtype(plan.compute_dtype), plan.groups
    outputs, inputs = plan.y_channels // groups, plan.x_channels // groups
    rows, channels = (inputs, outputs) if by_input else (outputs, inputs)
    lanes, panels = VECTOR_BYTES // dtype.itemsize, -(-rows // ROWS)
    phases = prod(axis.positions.size for axis in axes)
    largest = prod(int(axis.positions.max(initial=0)) for axis in axes)
    block, blocks = _blocks(max(largest, 1), lanes)
    taps = [np.diff(axis.taps) for axis in axes]
    sizes = np.multiply.outer(np.multiply.outer(taps[0], taps[1]), taps[2]).ravel()
    starts = np.zeros(sizes.size + 1, np.int64)
    np.cumsum(sizes * (groups * panels * channels * ROWS), out=starts[1:])
    kernel_depth, kernel_height, kernel_width = plan.w_shape[2:]
    inner = kernel_depth * kernel_height * kernel_width
    outer = inputs * inner
    # By input, rows are input channels and the depth runs over output channels.
    steps = (inner, outer, outputs * outer) if by_input else (outer, inner, outputs * outer)
    depth, height, width = (plan.x_shape if by_input else plan.y_shape)[2:]
    packed = int(starts[-1])
    launch = _Launch(
        dtype,
        source_dtype(plan),
        merged(axes),
        (plan.batch, groups, channels, rows, block, blocks),
        plan.batch * groups * phases * blocks,
        plan.macs,
        panels,
        lanes,
        fill_value(plan, dtype),
        (height, width, depth * height * width),
        starts,
        packed,
        PACK_KERNEL.bound(dtype, sizes.size * groups * panels, packed),
        (groups, rows, channels, *steps, kernel_height, kernel_width),
        None,
        flat_epilogue(NO_EPILOGUE, dtype),
    )
    return launch._replace(gemm=_for_threads(launch)) if runs_serially(launch.work) else launch


def _packed(w: Array, launch: _Launch) -> Array:
    """All phases' packed weights."""
    packed = np.empty(launch.packed, launch.dtype)
    launch.pack(flat(w, launch.dtype), packed, launch.starts, launch.pack_shape, launch.axes)
    return packed


def _pack(plan: ConvPlan, w: Array, by_input: bool, launch: _Launch) -> PackedWeight:
    return PackedWeight((_packed(w, launch),))


def _run(
    plan: ConvPlan, source: Array, w: Weight, out: Array, epilogue: Epilogue, by_input: bool, launch: _Launch
) -> None:
    """Fill ``out`` from a source of samples and channels."""
    dtype = launch.dtype
    bias, residual, activation = launch.nothing if epilogue is NO_EPILOGUE else flat_epilogue(epilogue, dtype)
    target = flat_target(out, dtype)
    packed = w.arrays[0] if isinstance(w, PackedWeight) else _packed(w, launch)
    gemm, shape = launch.gemm or _for_threads(launch)
    gemm(
        flat_source(source, launch.source),
        packed,
        launch.starts,
        bias,
        residual,
        target.ravel(),
        shape,
        launch.target,
        launch.axes,
        launch.fill,
        activation,
    )
    check_raised(epilogue.activation, activation)
    deliver(target, out)


def refusal(direction: Direction, plan: ConvPlan) -> str | None:
    """Why a packed product does not suit a plan, if it does not."""
    rows = (plan.x_channels if direction is Direction.INPUT_GRAD else plan.y_channels) // plan.groups
    if rows < 2:
        return "a group has one result channel, so that no packed cell would be used twice"
    return gather_refusal(direction, plan)


#: The algorithm, for the two directions it computes.
IMPLICIT_GEMM = both_directions(
    "implicit_gemm",
    refusal,
    _run,
    _pack,
    _launch,
    flat=True,
    reads_integers=True,
    about=About(
        does="products over gathered rows, vectors of positions",
        cost="the definition's products; each cell is copied once for every tap that reads it",
        chosen="few result channels in several stride phases",
    ),
)
