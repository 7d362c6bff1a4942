"""Scratch memory that calls reuse: fresh pages cost more to map than to fill.

A buffer of some megabytes comes from the system page by page, at each page's first touch; packing weights into one took
three times as long as into memory that is there. A few buffers of bounded size are kept for the next call.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ...arrays import Array
from ...memory import check_bytes

__all__ = ["aligned_empty", "workspace"]

_LINE = 64
#: Smaller buffers are the allocator's business, larger ones are not kept.
_LEAST_BYTES, _MOST_BYTES = 1 << 17, 48 << 20
#: How many buffers wait; threads that convolve at once each take their own.
_KEPT = 4

# Appending and popping are atomic, so threads need no lock, and a forked child inherits none.
_waiting: deque[Array] = deque(maxlen=_KEPT)


def _aligned(raw: Array, size: int, dtype: np.dtype) -> Array:
    """Elements from the first cache line on: vectors that cross lines are loaded and stored in two steps."""
    first = -raw.ctypes.data % _LINE
    return raw[first : first + size * dtype.itemsize].view(dtype)


def aligned_empty(size: int, dtype: np.dtype) -> Array:
    """A flat array that starts on a cache line."""
    return _aligned(_allocated(size * dtype.itemsize + _LINE), size, dtype)


def _take(wanted: int) -> Array:
    for _ in range(len(_waiting)):
        try:
            raw = _waiting.popleft()
        except IndexError:  # another thread was faster
            break
        if wanted <= raw.size <= 4 * wanted:
            return raw
        _waiting.append(raw)
    return _allocated(wanted)


def _allocated(wanted: int) -> Array:
    if wanted > _MOST_BYTES:
        check_bytes("backend 'cpu': scratch memory", wanted)
    return np.empty(wanted, np.uint8)


@contextmanager
def workspace(size: int, dtype: np.dtype) -> Iterator[Array]:
    """A flat array of unknown contents, for the time of the block."""
    wanted = size * dtype.itemsize + _LINE
    raw = _take(wanted)
    try:
        yield _aligned(raw, size, dtype)
    finally:
        if _LEAST_BYTES <= raw.size <= _MOST_BYTES:
            _waiting.append(raw)
