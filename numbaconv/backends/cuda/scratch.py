"""Scratch memory that calls take again and again.

Memory from the driver takes longer to get, and to give back, than many a convolution. So what a thread uses on a stream
is kept for its later calls there, whose kernels run after those of the earlier ones. A call that a CUDA graph captures
gets memory of the graph's own, by nodes that allocate and free it: the graph may run at any time, beside other calls.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from threading import Lock, get_ident
from typing import Any

import numpy as np
from numba import cuda

from .device import current, memory, memory_at
from .jit import SIMULATED

__all__ = ["scratch"]

#: Pairs of a thread and a stream that memory is kept for.
_MOST_KEPT = 4

_kept: OrderedDict[Hashable, list[Any]] = OrderedDict()
_lock = Lock()
#: What numba-cuda speaks to the driver by. Numba's own CUDA target does so itself, and knows nothing of captures.
_driver: Any = None
if not SIMULATED and find_spec("cuda") and find_spec("cuda.bindings"):
    _driver = import_module("cuda.bindings.driver")


def _is_captured(stream: Any) -> bool:
    """Whether a graph captures what the stream is told; nothing can capture the default stream."""
    if _driver is None or not stream:
        return False
    error, status = _driver.cuStreamIsCapturing(int(stream))
    return int(error) == 0 and status == _driver.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_ACTIVE


def _check(error: Any, what: str) -> None:
    if int(error):
        raise MemoryError(f"scratch memory in a CUDA graph: {what} failed with {error}")


@contextmanager
def _of_graph(sizes: tuple[int, ...], dtype: np.dtype, stream: Any) -> Iterator[list[Any]]:
    pointers: list[Any] = []
    try:
        for size in sizes:
            error, pointer = _driver.cuMemAllocAsync(max(size, 1) * dtype.itemsize, int(stream))
            _check(error, "cuMemAllocAsync")
            pointers.append(pointer)
        yield [memory_at(int(each), max(size, 1), dtype, None) for each, size in zip(pointers, sizes, strict=True)]
    finally:
        for pointer in pointers:
            _check(_driver.cuMemFreeAsync(pointer, int(stream))[0], "cuMemFreeAsync")


@contextmanager
def scratch(sizes: tuple[int, ...], dtype: np.dtype, stream: Any) -> Iterator[list[Any]]:
    """Flat arrays of at least so many elements, which hold anything, for what is launched on a stream meanwhile."""
    if _is_captured(stream):
        with _of_graph(sizes, dtype, stream) as arrays:
            yield arrays
        return
    context = current() if SIMULATED else cuda.current_context()  # of which the simulator makes one each time
    key = (context, get_ident(), int(stream) if stream else 0, dtype, len(sizes))
    with _lock:
        arrays = _kept.pop(key, [None] * len(sizes))
    for at, size in enumerate(sizes):
        if arrays[at] is None or arrays[at].size < size:
            arrays[at] = None  # given back before more is taken
            arrays[at] = memory(size, dtype, stream)
    yield arrays
    with _lock:
        _kept[key] = arrays
        while len(_kept) > _MOST_KEPT:
            _kept.popitem(last=False)
