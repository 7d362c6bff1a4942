"""Elements copied from one memory layout to another."""

from math import prod
from typing import Any

import numpy as np
from numba import cuda

from .jit import kernel
from .launching import THREADS, blocks_for, launch
from .scratch import Kept, settled

__all__ = ["copy_elements"]


#: The tables of the newest copies.
_tables: Kept[Any] = Kept(256)


@kernel
def _copy(source, target, table):
    """``table``: elements, the extents of five axes, then where to begin and five strides of source and target."""
    rest = cuda.grid(1)
    if rest < table[0]:
        begin, end = table[6], table[12]
        for k in range(5):
            axis = 4 - k
            extent = table[1 + axis]
            at = rest % extent
            rest = rest // extent
            begin += at * table[7 + axis]
            end += at * table[13 + axis]
        target[np.uint64(end)] = source[np.uint64(begin)]


def copy_elements(
    source: Any,
    source_strides: tuple[int, ...],
    source_begin: int,
    target: Any,
    target_strides: tuple[int, ...],
    target_begin: int,
    shape: tuple[int, ...],
    stream: Any,
) -> None:
    """Copy five axes of elements between flat arrays of one dtype; strides may be negative."""
    count = prod(shape)
    entries = (count, *shape, source_begin, *source_strides, target_begin, *target_strides)
    table = _tables.of(entries, settled, np.array(entries, np.int64), stream)
    launch(_copy, blocks_for(count), THREADS, stream, source, target, table)
