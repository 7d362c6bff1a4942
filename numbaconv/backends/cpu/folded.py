"""Stride phases as result channels: INPUT_GRAD with a stride as one product instead of one for each phase.

At a stride, cells of the result fall into phases that different taps reach. Computed apart, each phase is a product
with few columns; a first layer's 3 result channels fill 3 lanes of a vector. Folded, a position stands for a cell of
the stride's grid, and its result channels are the channels times the phases (the sub-pixel convolution of Shi et al.
2016, section 3.2, read backwards)::

    7x7, stride 2, 3 channels      four products, 3 lanes of 16     16 + 12 + 12 + 9 taps
    folded                         one product, 12 lanes of 16      4 x 4 taps, 15 of 64 weights zero

Taps that a phase does not have are zeros in its weights, so folding is chosen where lanes gained outweigh them. Zeros
make NaN of a NaN or infinity, in results that do not read it: an algorithm that folds over them is spreading.
"""

from math import prod
from typing import NamedTuple

import numpy as np

from ...arrays import Array
from .gather import PhasedAxis
from .gathered import Axes

__all__ = ["Fold", "fold", "folded_weight"]


class Fold(NamedTuple):
    """Axes of one phase each; for each axis, the kernel's tap of a phase and folded tap, or -1; what kernels store by.

    ``table``: phases of the three axes, distances in the result from one position to the next, then for each phase
    its positions and where its first is stored.
    """

    axes: Axes
    taps: tuple[Array, Array, Array]
    table: Array

    @property
    def phases(self) -> int:
        return prod(len(taps) for taps in self.taps)

    @property
    def has_zeros(self) -> bool:
        """Whether a phase lacks any of the folded taps."""
        return any(bool((taps < 0).any()) for taps in self.taps)


def _fold_axis(axis: PhasedAxis) -> tuple[PhasedAxis, Array]:
    positions = int(axis.positions.max())
    back, place = np.unique(-axis.base, return_inverse=True)  # from the last on, as taps ascend in a phase by itself
    base = -back
    taps = np.full((axis.positions.size, base.size), -1)
    taps[np.repeat(np.arange(axis.positions.size), np.diff(axis.taps)), place] = axis.tap
    first = np.clip(-base, 0, positions)
    folded = axis._replace(
        positions=np.array([positions]),
        target_first=np.array([0]),
        taps=np.array([0, base.size]),
        tap=np.arange(base.size),
        first=first,
        last=np.clip(axis.cells - base, first, positions),
        base=base,
    )
    return folded, taps


def fold(axes: Axes, rows: int, lanes: int, zeros: bool, gain: int = 1) -> Fold | None:
    """The axes folded, if for ``rows`` result channels phase by phase takes ``gain`` times its products of vectors.

    ``zeros``: whether it is for an algorithm that folds over missing taps, or for one that must not.
    """
    if all(axis.positions.size == 1 for axis in axes) or not all(axis.positions.size for axis in axes):
        return None
    found = [_fold_axis(axis) for axis in axes]
    phases = prod(len(taps) for _, taps in found)
    apart = -(-rows // lanes) * prod(axis.tap.size for axis in axes)
    together = -(-rows * phases // lanes) * prod(axis.base.size for axis, _ in found)
    if not together or together * gain > apart:
        return None
    depth, height, width = (axis for axis, _ in found)
    numbers = [axis.positions.size for axis in axes] + [axis.target_step for axis in axes]
    stored = [table for axis in axes for table in (axis.positions, axis.target_first)]
    folded = Fold(
        (depth, height, width),
        (found[0][1], found[1][1], found[2][1]),
        np.concatenate([np.array(numbers, np.int64), *stored]),
    )
    return folded if folded.has_zeros == zeros else None


def folded_weight(w: Array, found: Fold) -> Array:
    """``(output channels, input channels * phases, folded taps)`` of a weight; a view where no tap is missing."""
    depth, height, width = found.taps
    folded = [taps.shape[1] for taps in found.taps]
    shape = (w.shape[0], w.shape[1] * found.phases, *folded)
    whole = all(taps.shape[1] == 1 and np.array_equal(taps[:, 0], np.arange(len(taps))) for taps in found.taps)
    if whole and w.shape[2:] == tuple(len(taps) for taps in found.taps):
        return w.reshape(shape)
    places = (
        depth[:, None, None, :, None, None],
        height[None, :, None, None, :, None],
        width[None, None, :, None, None, :],
    )
    present = (places[0] >= 0) & (places[1] >= 0) & (places[2] >= 0)
    return np.where(present, w[:, :, *places], w.dtype.type(0)).reshape(shape)
