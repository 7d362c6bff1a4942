"""An axis's padding as NumPy index tables: the one place where ``plan.Axis.source`` becomes an array."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

import numpy as np

from ..arrays import Array
from ..plan import CONSTANT, ZERO, Axis

__all__ = ["keep_small", "preimages", "source_table", "stepping"]

#: Cells of an axis up to which what is made of it stays in memory.
_LARGEST_KEPT = 2**16

T = TypeVar("T")


def keep_small(make: Callable[[Axis], T]) -> Callable[[Axis], T]:
    """Remember what is made of an axis, unless it is large, when making it is quick beside the convolution."""
    kept = lru_cache(maxsize=1024)(make)

    def get(axis: Axis) -> T:
        return kept(axis) if axis.used + axis.input <= _LARGEST_KEPT else make(axis)

    return get


def stepping(axis: Axis) -> Axis:
    """The same relation with a stride of 1 where there is no second output to step to.

    A stride may be any integer there; nothing should be as long as it.
    """
    return replace(axis, stride=1) if axis.output <= 1 and axis.stride > 1 else axis


def source_table(axis: Axis) -> Array:
    """For each padded position that is used, the input cell there, or ``ZERO`` or ``CONSTANT``."""
    table = np.arange(-axis.pad_before, axis.used - axis.pad_before, dtype=np.int64)
    for outside in (table[: axis.pad_before], table[axis.pad_before + axis.input :]):
        if axis.maps_padding:
            outside[:] = [axis.source(position + axis.pad_before) for position in outside.tolist()]
        else:
            outside[:] = CONSTANT if axis.mode == "constant" else ZERO
    return table


def preimages(axis: Axis) -> tuple[Array, Array]:
    """The inverse of `source_table`: ``positions[start[i] : start[i + 1]]`` hold input cell ``i``."""
    table = source_table(axis)
    positions = np.argsort(table, kind="stable")
    positions = positions[np.count_nonzero(table < 0) :]
    start = np.searchsorted(table[positions], np.arange(axis.input + 1)).astype(np.int64)
    return start, positions.astype(np.int64)
