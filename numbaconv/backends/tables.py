"""Padding as NumPy arrays and values: the one place where ``plan.Axis.source`` becomes index tables."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from ..arrays import Array
from ..plan import CONSTANT, ZERO, Axis, ConvPlan

__all__ = ["fill_value", "keep_small", "outside_table", "preimages", "source_table", "stepping"]

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


def outside_table(axis: Axis) -> tuple[Array, Array]:
    """What `source_table` has before the input's cells, and after them."""
    first = min(axis.pad_before, axis.used)
    after = axis.pad_before + axis.input
    found = []
    for positions in (range(first), range(after, max(axis.used, after))):
        if axis.maps_padding:
            found.append(np.array([axis.source(position) for position in positions], np.int64))
        else:
            found.append(np.full(len(positions), CONSTANT if axis.mode == "constant" else ZERO, np.int64))
    return found[0], found[1]


def source_table(axis: Axis) -> Array:
    """For each padded position that is used, the input cell there, or ``ZERO`` or ``CONSTANT``."""
    table = np.arange(-axis.pad_before, axis.used - axis.pad_before, dtype=np.int64)
    before, after = outside_table(axis)
    table[: before.size] = before
    if after.size:
        table[-after.size :] = after
    return table


def fill_value(plan: ConvPlan, dtype: np.dtype) -> Any:
    """What constant padding holds, in the compute dtype."""
    if type(plan.padding_value) is int and not plan.padding_value:
        return dtype.type(0)
    with np.errstate(over="ignore"):  # as an array's own values would
        value: Any = np.asarray(plan.padding_value).astype(dtype)[()]
    return value


def preimages(axis: Axis) -> tuple[Array, Array]:
    """The inverse of `source_table`: ``positions[start[i] : start[i + 1]]`` hold input cell ``i``."""
    table = source_table(axis)
    positions = np.argsort(table, kind="stable")
    positions = positions[np.count_nonzero(table < 0) :]
    start = np.searchsorted(table[positions], np.arange(axis.input + 1)).astype(np.int64)
    return start, positions.astype(np.int64)
