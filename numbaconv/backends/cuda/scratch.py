"""Memory that a call needs beside its operands, kept from one call to the next; and what CUDA graphs hold on to.

An allocation takes longer than a small convolution, giving memory back makes the device wait, and neither is allowed
while a stream is captured in a graph. So a call *leases* its memory::

    with Lease(result):          kernels of another call on the same stream run before or after, so that a block
        take -> kernels          which was given back can be taken at once; two threads that launch on one stream
        take -> kernels          at the same time never have the same block
                                 <- everything is given back

Operands of PyTorch and CuPy: the blocks are those of their own pools, which know streams and captures. Else they are of
a pool here, by device and stream, of `MOST_BYTES` at most; what was unused for longest goes first.

A graph reads and writes the same addresses whenever it runs, on whatever stream. So what a captured call takes from
the pool here, of any of the device's streams, is that graph's from then on; and so are the tables (`Kept`) and packed
weights that it reads. Nobody says when a graph is gone: `free_scratch` does.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, Generic, TypeVar

import numpy as np
from numba import cuda

from ...arrays import Array
from ...device_arrays import DeviceArray, device_array
from ...errors import BackendError
from .jit import SIMULATED

__all__ = [
    "MOST_BYTES",
    "Kept",
    "Lease",
    "at_address",
    "context",
    "drop_oldest",
    "free_scratch",
    "hold",
    "settled",
    "settled_words",
    "take",
]

T = TypeVar("T")

#: Bytes of idle blocks that are kept, of all devices and streams.
MOST_BYTES = 2**29

#: Flat device arrays that are kept for memory which is somebody's.
_MOST_VIEWS = 512

_BYTES = np.dtype(np.uint8)
_local = threading.local()
_views: dict[tuple[Any, int, int, np.dtype], Any] = {}
_lock = threading.Lock()
#: Idle blocks by context, stream, dtype and elements; the newest last.
_idle: dict[tuple[Any, Hashable, str, int], list[Any]] = {}
_idle_bytes = 0
#: What captures hold: by context, capture and stream.
_captured: dict[tuple[Any, int, int], "_Capture"] = {}


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def context() -> int:
    """The number of the device that is in use, to which memory belongs; the simulator has one.

    Numba uses one context of each device; these cannot be keys, since they compare and have no hash.
    """
    return 0 if SIMULATED else int(cuda.current_context().device.id)


class _Capture:
    """Blocks that a capture took and gave back, for its next calls; and what must not be forgotten."""

    def __init__(self) -> None:
        self.blocks: dict[tuple[str, int], list[Any]] = {}
        self.held: dict[int, object] = {}


def capture_of(handle: int) -> int:
    """The number of the graph that a stream is being captured in; 0: none. The default stream cannot be."""
    if SIMULATED or handle in (0, 1):
        return 0
    driver = _driver()
    if not hasattr(driver, "cuStreamIsCapturing"):  # a target without that function
        return 0
    if int(driver.cuStreamIsCapturing(handle)) != _CAPTURED:
        return 0
    return int(driver.cuStreamGetCaptureInfo(handle)[1])


#: The driver's number for a stream that is being captured.
_CAPTURED = 1
#: The handle by which every thread means another stream, its own default one.
_OF_THREAD = 2


def _driver() -> Any:
    return cuda.cudadrv.driver.driver


def at_address(address: int, elements: int, dtype: np.dtype, owner: Any) -> Any:
    """Memory that is the owner's, as a flat device array; who uses it keeps the owner alive.

    Making one takes longer than launching a kernel, and operands come back at the same addresses: so the newest are
    kept, without their owners. In the simulator they have them.
    """
    if SIMULATED:
        memory = (ctypes.c_char * (elements * dtype.itemsize)).from_address(address)
        memory._owner = owner  # type: ignore[attr-defined]
        return cuda.simulator.cudadrv.devicearray.FakeCUDAArray(np.frombuffer(memory, dtype=dtype))  # type: ignore[call-overload]
    key = context(), address, elements, dtype
    found = _views.get(key)
    if found is None:
        interface = {
            "shape": (elements,),
            "strides": None,
            "typestr": dtype.str,
            "data": (address, False),
            "version": 2,
        }
        found = _views[key] = cuda.from_cuda_array_interface(interface, sync=False)
        while len(_views) > _MOST_VIEWS:
            drop_oldest(_views)
    return found


def drop_oldest(entries: dict[Any, Any]) -> None:
    """Forget what was remembered first, whatever other threads do."""
    with suppress(RuntimeError, StopIteration):  # another thread was there in between
        entries.pop(next(iter(entries)), None)


def _room(elements: int) -> int:
    """Elements of a block for so many: up to a quarter more, so that problems of like sizes share blocks.

    In the simulator exactly so many: there, what lies beyond is found out.
    """
    if SIMULATED:
        return elements
    step = 1 << max(elements.bit_length() - 3, 0)
    return -(-elements // step) * step


def _thread() -> object:
    """What stands for this thread, and for no other one, not even after it has ended, as its number might."""
    found = getattr(_local, "thread", None)
    if found is None:
        found = _local.thread = object()
    return found


class Lease:
    """The memory of one call, from its first launch to its last: a context manager.

    Parameters
    ----------
    array : DeviceArray, optional
        The result: whose library, device and stream it is; None for arrays of the host.
    """

    __slots__ = ("_context", "_handle", "_outer", "_owners", "_result", "_stream", "_taken", "capture")

    def __init__(self, array: DeviceArray | None):
        self._result = array
        self._handle = 0 if array is None else array.stream
        self._stream: Hashable = _thread() if self._handle == _OF_THREAD else self._handle
        self._taken: list[tuple[str, int, Any]] = []
        self._owners: list[Any] = []

    def __enter__(self) -> "Lease":
        self._context = context()
        self._outer: Lease | None = getattr(_local, "lease", None)
        self.capture: _Capture | None = None
        number = capture_of(self._handle)
        if number:
            with _lock:
                self.capture = _captured.setdefault((self._context, number, self._handle), _Capture())
        _local.lease = self
        return self

    def __exit__(self, *raised: object) -> None:
        _local.lease = self._outer
        self._owners.clear()
        if self._taken:
            with _lock:
                for dtype, elements, block in self._taken:
                    if self.capture is not None:
                        self.capture.blocks.setdefault((dtype, elements), []).append(block)
                    else:
                        _put((self._context, self._stream, dtype, elements), block)

    def take(self, elements: int, dtype: np.dtype) -> Any:
        """A flat device array of at least so many elements, which hold anything."""
        result = self._result
        if result is not None and result.library.pools:
            made = result.library.empty((elements * dtype.itemsize,), _BYTES, result.device, self._handle)
            there = device_array(made)
            assert there is not None
            self._owners.append(made)
            return at_address(there.address, elements, dtype, made)
        room = _room(elements)
        with _lock:
            block = self._found(dtype.str, room)
        if block is None:
            _refuse_captured("scratch memory")
            block = cuda.device_array(room, dtype, stream=0 if result is None else _stream(self._handle))
        self._taken.append((dtype.str, room, block))
        return block

    def _found(self, dtype: str, room: int) -> Any:
        """An idle block, or None."""
        if self.capture is None:
            return _popped((self._context, self._stream, dtype, room))
        mine = self.capture.blocks.get((dtype, room))
        if mine:
            return mine.pop()
        for key in list(_idle):  # whoever captures has waited for all that was launched before
            if (key[0], *key[2:]) == (self._context, dtype, room):
                return _popped(key)
        return None


def _stream(handle: int) -> Any:
    return cuda.external_stream(handle) if handle else 0


def _popped(key: tuple[Any, Hashable, str, int]) -> Any:
    global _idle_bytes
    blocks = _idle.get(key)
    if not blocks:
        return None
    block = blocks.pop()
    if not blocks:
        del _idle[key]
    _idle_bytes -= block.nbytes
    return block


def _put(key: tuple[Any, Hashable, str, int], block: Any) -> None:
    global _idle_bytes
    blocks = _idle.pop(key, [])
    blocks.append(block)
    _idle[key] = blocks
    _idle_bytes += block.nbytes
    while _idle_bytes > MOST_BYTES:
        _popped(next(iter(_idle)))


def take(elements: int, dtype: np.dtype, stream: Any) -> Any:
    """Memory for a flat device array: the running call's, or where none runs, new memory for whoever holds it."""
    lease: Lease | None = getattr(_local, "lease", None)
    if lease is None:
        return cuda.device_array(elements, dtype, stream=stream)
    return lease.take(elements, dtype)


def _refuse_captured(what: str) -> None:
    """Say that a call cannot be captured before it was made once.

    Raises
    ------
    BackendError
        If the running call is being captured.
    """
    lease: Lease | None = getattr(_local, "lease", None)
    if lease is not None and lease.capture is not None:
        raise BackendError(
            f"the stream is being captured in a CUDA graph, but there is no {what} for this call yet, and none can be "
            "made now: make the same call once before, and wait for it"
        )


def settled(values: Array, stream: Any) -> Any:
    """A table on the device that later calls read too, on whatever stream: it is there when this returns."""
    _refuse_captured("tables")
    found = cuda.to_device(values, stream=stream)
    if stream:
        stream.synchronize()
    elif hasattr(cuda, "default_stream"):  # not in the simulator that Numba brings itself
        cuda.default_stream().synchronize()  # the last part of the copy may still be under way
    return found


def settled_words(pieces: list[Any], stream: Any) -> Any:
    """Integers, signed and unsigned ones, as a table of 32 bits each, as `settled`."""
    values = np.concatenate([np.asarray(piece, np.int64) for piece in pieces])
    return settled(values.astype(np.uint32).view(np.int32), stream)


def hold(thing: object) -> None:
    """Keep something as long as the graph that the running call is being captured in, if it is."""
    lease: Lease | None = getattr(_local, "lease", None)
    if lease is not None and lease.capture is not None:
        lease.capture.held[id(thing)] = thing


class Kept(Generic[T]):
    """What follows from a plan and a few layouts, on the device: the newest ``most`` of them.

    Parameters
    ----------
    most : int
        Operands have another layout now and then, and there are a few devices.
    """

    def __init__(self, most: int = 8):
        self._most = most
        self._found: dict[Hashable, T] = {}

    def of(self, key: Hashable, make: Callable[..., T], *arguments: Any) -> T:
        """What was made for a key on the current device, or is made now by ``make(*arguments)``."""
        place = context(), key
        found = self._found.get(place)
        if found is None:
            found = self._found[place] = make(*arguments)
            while len(self._found) > self._most:
                drop_oldest(self._found)
        hold(found)
        return found


def free_scratch(*, captured: bool = False) -> None:
    """Give back the memory that calls left for later ones.

    Parameters
    ----------
    captured : bool
        Also what CUDA graphs hold on to: none that was captured before may run again.

    Examples
    --------
    >>> from numbaconv.backends.cuda.scratch import free_scratch
    >>> free_scratch()
    """
    global _idle_bytes
    with _lock:
        _idle.clear()
        _idle_bytes = 0
        if captured:
            _captured.clear()
