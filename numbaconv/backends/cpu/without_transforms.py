"""Results that a transform spoiled, computed again without transforms.

Inside a transform values grow: a tile's by a few times, a spectrum's by the cells of its block. Where that overflows,
or an operand holds NaN or infinity, sums come out that are not finite although the results are, or although they do not
read what is not finite. Nothing else is lost so: an infinity never becomes finite again. So kernels look at sums where
they store them, before an activation could hide them, and say which are not finite. Those are computed again here, by
the first algorithm without transforms that accepts a single sample of the problem: which results are, depends neither
on the batch nor on threads, and in the end NaN and infinity are in the results that read them alone.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numba import types

from ...arrays import Array
from ...plan import ConvPlan
from ..base import NO_EPILOGUE, Algorithm, Direction, PackedWeight, Weight
from ..registry import disabled_algorithms
from . import fourier
from .activation import ACTIVATION
from .depthwise_conv import DEPTHWISE
from .dot_gemm_conv import DOT_GEMM
from .implicit_gemm import IMPLICIT_GEMM
from .launch import Kernel, reads
from .patch_gemm_conv import PATCH_GEMM
from .patch_weight_conv import PATCH_GEMM_WEIGHT
from .plane_gemm_conv import PLANE_GEMM
from .rows import DIRECT
from .small_gemm_conv import SMALL_GEMM

__all__ = ["FINISH", "WITHOUT_TRANSFORMS", "any_spoiled", "mend_rows", "mend_weight", "sums_of_sample"]

#: For each direction what it is computed by, in the order of the backend's table.
WITHOUT_TRANSFORMS = {
    direction: tuple(each[direction] for each in (DEPTHWISE, SMALL_GEMM, PLANE_GEMM, PATCH_GEMM, IMPLICIT_GEMM, DIRECT))
    for direction in (Direction.FORWARD, Direction.INPUT_GRAD)
}
WITHOUT_TRANSFORMS[Direction.WEIGHT_GRAD] = (
    DEPTHWISE[Direction.WEIGHT_GRAD],
    PATCH_GEMM_WEIGHT,
    DOT_GEMM,
    DIRECT[Direction.WEIGHT_GRAD],
)


def _finish_signature(kind: types.Type) -> tuple:
    flat = reads(kind, 1)
    return (types.Array(kind, 1, "C"), flat, flat, types.int64, types.int64, ACTIVATION)


#: The epilogue of sums that are stored already.
FINISH = Kernel(fourier.finish_tasks, _finish_signature)


def any_spoiled(spoiled: Array) -> bool:
    """Whether any of a kernel's marks is set: a search in bytes takes a twentieth of NumPy's ``any``."""
    return b"\1" in spoiled.tobytes()


@lru_cache(maxsize=256)
def _choice(direction: Direction, plan: ConvPlan, disabled: frozenset[str]) -> Algorithm:
    """The first that accepts and is worthwhile, or accepts; what is disabled only if nothing else is left."""
    able = [each for each in WITHOUT_TRANSFORMS[direction] if each.accepts(plan) is None]
    allowed = [each for each in able if not each.is_among(disabled)] or able
    return next((each for each in allowed if each.worthwhile(plan) is None), allowed[0])


def _compute(direction: Direction, plan: ConvPlan, x: Array, w: Array, y: Array) -> None:
    plan = replace(plan, batch=len(x), output_dtype=plan.compute_dtype, precision="strict")
    _choice(direction, plan, disabled_algorithms()).run(plan, x, w, y, NO_EPILOGUE)


def mend_weight(plan: ConvPlan, x: Array, w: Array, y: Array) -> None:
    """Replace what is not finite in a weight gradient: each element sums over all samples, so all are computed."""
    found = np.empty(w.shape, plan.compute_dtype)
    _compute(Direction.WEIGHT_GRAD, plan, x, found, y)
    np.copyto(w, found, where=~np.isfinite(w))


def sums_of_sample(direction: Direction, plan: ConvPlan, sample: int, source: Array, w: Weight) -> Array:
    """The sums of a sample's results in the compute dtype, before any epilogue: ``(1, K, D, H, W)``."""
    weight = w.given if isinstance(w, PackedWeight) else w
    assert weight is not None
    shape = plan.x_shape if direction is Direction.INPUT_GRAD else plan.y_shape
    found: Array = np.empty((1, *shape[1:]), plan.compute_dtype)
    given = source[sample : sample + 1]
    x, y = (found, given) if direction is Direction.INPUT_GRAD else (given, found)
    _compute(direction, plan, x, weight, y)
    return found


def mend_rows(
    direction: Direction,
    plan: ConvPlan,
    source: Array,
    w: Weight,
    target: Array,
    spoiled: Array,
    lengths: Array,
    bias: Array,
    residual: Array,
    activation: Array,
) -> None:
    """Fill pieces of rows that a kernel marked instead of storing them, epilogue included.

    Parameters
    ----------
    target : array of shape (N, K, D, H, W)
        One stretch of memory in the compute dtype. It may be the residual, of which marked pieces are as they were.
    spoiled : array of shape (N, K, D, H, pieces)
    lengths : array of shape (pieces,)
        Cells of each piece.
    bias, residual, activation
        As kernels take them.
    """
    residuals = residual.reshape(target.shape) if residual.size else None
    for sample in np.flatnonzero(spoiled.reshape(len(spoiled), -1).any(axis=1)).tolist():
        marked = np.repeat(spoiled[sample] != 0, lengths, axis=-1)
        values = sums_of_sample(direction, plan, sample, source, w)[0][marked]
        with np.errstate(all="ignore"):
            if bias.size:
                values += np.repeat(bias, marked.reshape(len(bias), -1).sum(axis=1))
            if residuals is not None:
                values += residuals[sample][marked]
        nothing = np.empty(0, values.dtype)
        FINISH(values.dtype, 1, 0, values, nothing, nothing, 1, values.size, activation)
        target[sample][marked] = values
