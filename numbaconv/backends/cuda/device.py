"""Operands in the device's memory as kernels take them: a flat array, extents, and strides counted in elements."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from typing import Any

import numpy as np
from numba import cuda

from ...arrays import Array
from ...device_arrays import READY, DeviceArray
from .copying import copy_elements
from .elements import storage
from .jit import SIMULATED
from .scratch import at_address, context, settled, take

__all__ = [
    "Tensor",
    "adopt",
    "empty",
    "fresh",
    "in_canonical_order",
    "in_layout_of",
    "memory",
    "placed",
    "settled",
    "span",
    "stream_of",
    "synchronize",
    "target",
    "upload",
    "wait_for",
]


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A canonical operand on the device.

    Attributes
    ----------
    data : device array
        One axis, from the first element to the last, or longer; bfloat16 as uint16.
    dtype : numpy.dtype
    shape : tuple of int
    strides : tuple of int
        In elements, none negative; those of axes of extent 1 are anything.
    owner : object
        What keeps memory alive that is not the array's own.
    """

    data: Any
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    owner: Any = None

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def span(self) -> int:
        """Elements of memory from the first to the last."""
        return span(self.shape, self.strides)

    def is_dense(self, order: tuple[int, ...]) -> bool:
        """Whether elements are neighbours in one stretch of memory, with the axes in this order, slowest first."""
        step = 1
        for axis in reversed(order):
            if self.shape[axis] > 1 and self.strides[axis] != step:
                return False
            step *= self.shape[axis]
        return True

    @property
    def channels_first(self) -> bool:
        """Whether it is one stretch of memory in canonical order."""
        return self.is_dense((0, 1, 2, 3, 4))

    @property
    def channels_last(self) -> bool:
        """Whether it is one stretch of memory in which channels are neighbours."""
        return self.is_dense((0, 2, 3, 4, 1))


def span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements of memory from the first to the last element; no stride is negative."""
    return 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) if prod(shape) else 0


def _memory_order(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    """The axes, slowest first, as they lie in memory; those of extent 1 last."""
    return tuple(sorted(range(len(shape)), key=lambda axis: (shape[axis] == 1, -abs(strides[axis]))))


def _dense_strides(shape: tuple[int, ...], order: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of one stretch of memory with the axes in an order."""
    strides, step = [0] * len(shape), 1
    for axis in reversed(order):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)


def memory(elements: int, dtype: np.dtype, stream: Any) -> Any:
    """New memory, at least so much, as long as the call runs that asks for it; never none, which has no address."""
    return take(max(elements, 1), storage(dtype), stream)


def empty(shape: tuple[int, ...], dtype: np.dtype, stream: Any = 0) -> Tensor:
    """New memory in canonical order."""
    return fresh(shape, dtype, tuple(range(len(shape))), stream)


def fresh(shape: tuple[int, ...], dtype: np.dtype, order: tuple[int, ...], stream: Any = 0) -> Tensor:
    """New memory with the axes in an order, slowest first."""
    return Tensor(memory(prod(shape), dtype, stream), dtype, shape, _dense_strides(shape, order))


def _flat(array: Array, order: tuple[int, ...]) -> Array:
    """A host array's elements with the axes in an order, as one stretch of memory: itself where it is one."""
    return np.ascontiguousarray(array.transpose(order)).reshape(-1).view(storage(array.dtype))


def upload(array: Array, order: tuple[int, ...] | None = None, stream: Any = 0) -> Tensor:
    """A host array on the device, in its own memory layout or with the axes in an order."""
    if order is None:
        order = _memory_order(array.shape, array.strides)
    data = cuda.to_device(_flat(array, order), stream=stream) if array.size else memory(0, array.dtype, stream)
    return Tensor(data, array.dtype, array.shape, _dense_strides(array.shape, order))


def like_host(array: Array, stream: Any = 0) -> Tensor:
    """New memory on the device in a host array's layout."""
    return fresh(array.shape, array.dtype, _memory_order(array.shape, array.strides), stream)


def download(tensor: Tensor, array: Array, stream: Any = 0) -> None:
    """Copy what `like_host` made of a host array into it."""
    if not array.size:
        return
    view = array.transpose(_memory_order(array.shape, array.strides))
    data = tensor.data if tensor.data.size == array.size else tensor.data[: array.size]
    if view.flags.c_contiguous:
        data.copy_to_host(view.reshape(-1).view(storage(array.dtype)), stream=stream)
    else:
        view[...] = data.copy_to_host(stream=stream).view(array.dtype).reshape(view.shape)


@cache
def stream_of(handle: int) -> Any:
    """Numba's stream with a handle."""
    return cuda.external_stream(handle) if handle else 0


def wait_for(other: int, stream: Any) -> None:
    """Let a stream wait for what another one, given by its handle, has been told so far."""
    event = cuda.event(timing=False)
    event.record(stream_of(other))
    event.wait(stream)


def synchronize(handle: int) -> None:
    """Wait until a stream, given by its handle, has done what it was told."""
    if handle == READY:
        return
    stream = stream_of(handle)
    if stream:
        stream.synchronize()
    else:
        cuda.synchronize()


def placed(device: int) -> AbstractContextManager[Any]:
    """Where memory is made and kernels are launched: on a device by its number; -1 is the current one."""
    if SIMULATED or device < 0 or context() == device:
        return nullcontext()
    found: AbstractContextManager[Any] = cuda.gpus[device]
    return found


def _at(array: DeviceArray, first: int, elements: int) -> Any:
    """So many elements of an array's memory from one on, counted from its first, as a flat device array."""
    dtype = storage(array.dtype)
    return at_address(array.address + first * dtype.itemsize, elements, dtype, array.owner)


def adopt(array: DeviceArray, stream: Any) -> Tensor:
    """A device array as it is, or a copy in canonical order where a stride is negative or axes must be folded."""
    itemsize = array.dtype.itemsize
    strides = tuple(step // itemsize for step in array.strides)
    if not array.size:
        return Tensor(memory(0, array.dtype, stream), array.dtype, _seen(array), strides)
    if min(strides, default=0) >= 0 and array.seen_as is None:
        data = _at(array, 0, span(array.shape, strides))
        return Tensor(data, array.dtype, array.shape, strides, array.owner)
    first = sum((n - 1) * s for n, s in zip(array.shape, strides, strict=True) if s < 0)
    count = span(array.shape, tuple(map(abs, strides)))
    whole = _at(array, first, count)
    made = empty(_seen(array), array.dtype, stream)
    dense = _dense_strides(array.shape, tuple(range(array.ndim)))
    copy_elements(whole, strides, -first, made.data, dense, 0, array.shape, stream)
    return made


def _seen(array: DeviceArray) -> tuple[int, ...]:
    """The extents that kernels see."""
    return array.shape if array.seen_as is None else array.seen_as


def target(array: Any, stream: Any) -> tuple[Tensor, Callable[[], None]]:
    """The tensor to fill for a result, one stretch of memory; and what brings it there afterwards."""
    if not isinstance(array, DeviceArray):
        made = like_host(array, stream)
        return made, partial(download, made, array, stream)
    itemsize = array.dtype.itemsize
    strides = tuple(step // itemsize for step in array.strides)
    if min(strides, default=0) >= 0 and array.seen_as is None:
        made = adopt(array, stream)
        # Kernels count in 32 bits inside a sample: with samples side by side it may reach across all of the result.
        near = span(made.shape[1:], made.strides[1:]) < 2**31
        if near and made.is_dense(_memory_order(made.shape, made.strides)):
            return made, _nothing
    made = empty(_seen(array), array.dtype, stream)
    return made, partial(_give_back, made, array, stream)


def _nothing() -> None:
    """What brings a result where it is already."""


def _give_back(made: Tensor, array: DeviceArray, stream: Any) -> None:
    """Copy a tensor in canonical order into a device array."""
    itemsize = array.dtype.itemsize
    strides = tuple(step // itemsize for step in array.strides)
    first = sum((n - 1) * s for n, s in zip(array.shape, strides, strict=True) if s < 0)
    count = span(array.shape, tuple(map(abs, strides)))
    whole = _at(array, first, count)
    dense = _dense_strides(array.shape, tuple(range(array.ndim)))
    copy_elements(made.data, dense, 0, whole, strides, -first, array.shape, stream)


def in_canonical_order(tensor: Tensor, stream: Any) -> Tensor:
    """The same elements in canonical order, in new memory."""
    return in_layout_of(tensor, empty(tensor.shape, tensor.dtype, stream), stream)


def in_layout_of(tensor: Tensor, other: Tensor, stream: Any) -> Tensor:
    """The same elements in another tensor's memory layout: itself where it has that."""
    same = all(n == 1 or a == b for n, a, b in zip(tensor.shape, tensor.strides, other.strides, strict=True))
    if same:
        return tensor
    made = Tensor(memory(other.span, tensor.dtype, stream), tensor.dtype, other.shape, other.strides)
    copy_elements(tensor.data, tensor.strides, 0, made.data, made.strides, 0, tensor.shape, stream)
    return made
