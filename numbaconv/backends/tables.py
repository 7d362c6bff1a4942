"""Padding as NumPy arrays and values, and how long what follows from a plan is remembered."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from math import gcd
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from ..arrays import Array
from ..plan import CONSTANT, PADDING_MODES, UNIT_CODE, ZERO, Axis, ConvPlan

__all__ = [
    "codes_of",
    "dense_steps",
    "fill_value",
    "keep",
    "memory_of",
    "numbered_positions",
    "preimages",
    "source_table",
    "sources",
    "stepping",
]

#: Bytes of arrays in all that is kept, and how many things are kept at most.
_BYTES, _ENTRIES = 2**26, 2**14
#: What a thing takes besides its arrays, about.
_OBJECT_BYTES = 2**10
#: A stride from which on all strides are alike to every algorithm, as long as no two taps share a stride phase.
_LEAST_STRIDE = 5

T = TypeVar("T")


def memory_of(found: Any) -> int:
    """Bytes of the arrays in tuples, data classes and their like."""
    if isinstance(found, tuple | list):
        return sum(map(memory_of, found))
    if is_dataclass(found):
        return sum(memory_of(getattr(found, field.name)) for field in fields(found))
    return int(getattr(found, "nbytes", 0))


class _Kept:
    """What was made of plans, the oldest let go where all arrays together would take too much memory."""

    def __init__(self) -> None:
        self.found: dict[Any, Any] = {}
        self._sizes: dict[Any, int] = {}
        self._total, self._lock = 0, Lock()

    def add(self, key: Any, made: Any) -> None:
        size = memory_of(made) + _OBJECT_BYTES
        with self._lock:
            if key in self._sizes:
                return
            self.found[key], self._sizes[key] = made, size
            self._total += size
            while len(self._sizes) > 1 and (self._total > _BYTES or len(self._sizes) > _ENTRIES):
                oldest = next(iter(self._sizes))
                self._total -= self._sizes.pop(oldest)
                self.found.pop(oldest, None)


_kept = _Kept()


def keep(make: Callable[..., T]) -> Callable[..., T]:
    """Remember what is made of hashable arguments, of any size: all that is kept shares one limit of memory.

    A limit for each thing would have it made anew in each call from some size on.
    """
    found = _kept.found

    def get(*arguments: Any) -> T:
        key = (get, arguments)
        made: T | None = found.get(key)
        if made is None:
            made = make(*arguments)
            _kept.add(key, made)
        return made

    return get


def stepping(axis: Axis) -> Axis:
    """The same relation with a smaller stride where there is no second output to step to.

    A stride may be any integer there; nothing should be as long as it. From the kernel's extent on, all strides
    are alike: each tap has a stride phase of its own. A smaller one stays: the taps that share a phase, and with them
    the order of sums, are those of an axis with more outputs.
    """
    most = max(axis.extent, _LEAST_STRIDE)
    return replace(axis, stride=most) if axis.output <= 1 and axis.stride > most else axis


def codes_of(code: int, cells: Array, extent: int) -> Array:
    """The cells themselves where they are ``0 .. extent - 1``, else what `border_cell` says, many at a time."""
    if code >= UNIT_CODE:
        more, code = divmod(code, UNIT_CODE)
        unit = more + 1
        whole: Array = codes_of(code, cells // unit, extent // unit) * unit + cells % unit
        return whole
    inside = (cells >= 0) & (cells < extent)
    name = PADDING_MODES[code]
    if name == "zeros":
        beside: Any = ZERO
    elif name == "constant":
        beside = CONSTANT
    elif name == "replicate":
        beside = np.clip(cells, 0, extent - 1)
    elif name == "circular":
        beside = cells % extent
    else:
        period = 2 * extent if name == "symmetric" else max(2 * (extent - 1), 1)
        folded = cells % period
        beside = np.minimum(folded, period - folded - (name == "symmetric"))
    found: Array = np.where(inside, cells, beside).astype(np.int64, copy=False)
    return found


def sources(axis: Axis, positions: Array) -> Array:
    """`Axis.source` of many positions at a time."""
    return codes_of(axis.code, positions - axis.pad_before, axis.input)


def source_table(axis: Axis) -> Array:
    """For each padded position that is used, the input cell there, or ``ZERO`` or ``CONSTANT``."""
    return sources(axis, np.arange(axis.used, dtype=np.int64))


def fill_value(plan: ConvPlan, dtype: np.dtype) -> Any:
    """What constant padding holds, in the compute dtype."""
    if type(plan.padding_value) is int and not plan.padding_value:
        return dtype.type(0)
    with np.errstate(over="ignore"):  # as an array's own values would
        value: Any = np.asarray(plan.padding_value).astype(dtype)[()]
    return value


def dense_steps(axis: Axis) -> tuple[int, int, int, int]:
    """A stride, a dilation and what one step of them is, and how many positions are used then.

    Outputs and taps meet at the same positions as before, numbered anew, ascending or not, where most positions
    between the first and the last are read by no tap. Of steps without a common divisor, two pairs of an output and a
    tap meet at one position only where there are as many outputs as the dilation, and taps as the stride.
    """
    stride, dilation, pairs = axis.stride, axis.dilation, axis.output * axis.kernel
    if axis.used <= 2 * pairs:
        return stride, dilation, 1, axis.used
    step = gcd(stride, dilation)
    used = (axis.used - 1) // step + 1
    if used <= 2 * pairs:
        return stride // step, dilation // step, step, used
    return axis.kernel, 1, 0, pairs


def numbered_positions(axis: Axis, step: int, used: int) -> Array:
    """The axis's padded position of each number that `dense_steps` gives with this step."""
    numbers = np.arange(used, dtype=np.int64)
    if step:
        return numbers * step
    output, tap = np.divmod(numbers, axis.kernel)
    positions: Array = output * axis.stride + tap * axis.dilation
    return positions


def preimages(axis: Axis) -> tuple[int, int, Array, Array]:
    """Where the input cells stand: a stride, a dilation, and positions of these, ascending for each cell.

    Those of cell ``i`` are ``positions[start[i] : start[i + 1]]``. Output ``o`` and tap ``k`` meet at position
    ``o * stride + k * dilation``; these are the axis's own steps unless most of its positions are read by nobody.
    """
    stride, dilation, step, used = dense_steps(axis)
    cells = sources(axis, numbered_positions(axis, step, used))
    positions = np.argsort(cells, kind="stable")
    positions = positions[np.count_nonzero(cells < 0) :]
    start = np.searchsorted(cells[positions], np.arange(axis.input + 1)).astype(np.int64)
    return stride, dilation, start, positions.astype(np.int64)
