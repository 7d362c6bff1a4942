"""What gradients need besides the primitives: products with derivatives, conjugates, sums over channels' positions."""

from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any

import numpy as np
from numba import cuda

from ...arrays import Array
from ...device_arrays import DeviceArray, device_array
from ..base import Residence
from . import device
from .direct import sum_kernel
from .elements import number, reader, storage, writer
from .epilogue import compiled
from .jit import kernel, newest
from .launching import THREADS, blocks_for, launch
from .scratch import Kept, Lease

__all__ = ["RESIDENCE", "activation_grad"]

#: Positions of a channel that one thread sums at least, and threads that share a channel's at most.
_LEAST_CELLS, _MOST_CHUNKS = 64, 512


@newest
def _scale_kernel(function: Any, compute: str, dtypes: tuple[str, str, str], conjugate: bool) -> Any:
    """``out = grad * derivative(saved)``, or by the derivative's conjugate."""
    derivative, scalar = compiled("derivative", function, compute), number(compute)
    read_grad, read_saved, write = reader(dtypes[0]), reader(dtypes[1]), writer(dtypes[2])
    if conjugate:

        @kernel
        def scale(grad, saved, out, count):
            at = cuda.grid(1)
            if at < count:
                factor = scalar(derivative(scalar(read_saved(saved, np.uint64(at)))))
                write(out, np.uint64(at), scalar(scalar(read_grad(grad, np.uint64(at))) * factor.conjugate()))

    else:

        @kernel
        def scale(grad, saved, out, count):
            at = cuda.grid(1)
            if at < count:
                factor = scalar(derivative(scalar(read_saved(saved, np.uint64(at)))))
                write(out, np.uint64(at), scalar(scalar(read_grad(grad, np.uint64(at))) * factor))

    return scale


@kernel
def _conjugate(array, out, count):
    at = cuda.grid(1)
    if at < count:
        out[np.uint64(at)] = array[np.uint64(at)].conjugate()


@cache
def _channel_kernel(compute: str, dtype: str) -> Any:
    """The sum of each chunk of each channel's positions. ``table``: channels, chunks, positions of a channel, the
    extents of samples and three axes, five strides."""
    scalar, read = number(compute), reader(dtype)

    @kernel
    def sums_of_chunks(array, sums, table):
        at = cuda.grid(1)
        if at < table[0] * table[1]:
            chunk = at // table[0]
            c = at - chunk * table[0]
            total = scalar(0)
            for position in range(chunk * table[2] // table[1], (chunk + 1) * table[2] // table[1]):
                rest, place = position, c * table[8]
                for k in range(3):
                    extent = table[6 - k]
                    place += rest % extent * table[11 - k]
                    rest = rest // extent
                total += scalar(read(array, np.uint64(place + rest * table[7])))
            sums[np.uint64(at)] = total

    return sums_of_chunks


#: The tables of the newest sums over channels' positions.
_tables: Kept[Any] = Kept(256)


def _five(array: DeviceArray) -> DeviceArray:
    """With axes of extent 1 behind, up to five."""
    return array[(*(slice(None),) * array.ndim, *(None,) * (5 - array.ndim))]


def _dense(array: DeviceArray, stream: Any) -> Any:
    """The elements in C order, as a flat device array."""
    found = device.adopt(_five(array), stream)
    return (found if found.channels_first else device.in_canonical_order(found, stream)).data


def _made(like: DeviceArray, shape: tuple[int, ...], dtype: np.dtype) -> DeviceArray:
    """New memory on an array's device, in C order; from its library's pool, if that has one."""
    with device.placed(like.device):
        if like.library.pools:
            found = device_array(like.library.empty(shape, dtype, like.device, like.stream))
            assert found is not None
            return found.on(like.stream)
        return _described(device.memory(prod(shape), dtype, device.stream_of(like.stream)), shape, dtype, like)


def _described(memory: Any, shape: tuple[int, ...], dtype: np.dtype, like: DeviceArray | None) -> DeviceArray:
    flat = device_array(memory)
    assert flat is not None
    place, stream, library = (-1, 0, flat.library) if like is None else (like.device, like.stream, like.library)
    return DeviceArray(memory, flat.address, shape, None, dtype, place, stream, library)


def upload(array: Array, place: int) -> DeviceArray:
    """A host array's elements on a device."""
    with device.placed(place):
        made = device.upload(array, tuple(range(array.ndim)))
        found = _described(made.data, array.shape, array.dtype, None)
        found.device = place
        return found


def download(array: DeviceArray) -> Array:
    """A copy in the host's memory."""
    with device.placed(array.device):
        flat = _dense(array, device.stream_of(array.stream)).copy_to_host(stream=device.stream_of(array.stream))
        device.synchronize(array.stream)
    found: Array = flat[: array.size].view(array.dtype).reshape(array.shape)
    return found


def conjugate(array: DeviceArray) -> DeviceArray:
    """The complex conjugates, in new memory."""
    made, stream = _made(array, array.shape, array.dtype), device.stream_of(array.stream)
    with device.placed(array.device):
        out = device.adopt(_five(made), stream).data
        launch(_conjugate, blocks_for(array.size), THREADS, stream, _dense(array, stream), out, array.size)
    return made


def scale(
    derivative: Any, grad: DeviceArray, saved: DeviceArray, dtype: np.dtype, compute: str
) -> tuple[DeviceArray, Callable[[], None]]:
    """New memory, and what fills it with ``grad * conj(derivative(saved))``, in a dtype."""
    made, stream = _made(grad, grad.shape, dtype), device.stream_of(grad.stream)
    names = (grad.dtype.name, saved.dtype.name, dtype.name)
    found = _scale_kernel(derivative, compute, names, compute.startswith("complex"))

    def fill() -> None:
        with device.placed(grad.device):
            if saved.stream != grad.stream:
                device.wait_for(saved.stream, stream)
            with Lease(made):
                operands = (_dense(grad, stream), _dense(saved, stream), device.adopt(_five(made), stream).data)
                launch(found, blocks_for(grad.size), THREADS, stream, *operands, grad.size)
            if saved.stream != grad.stream:
                device.wait_for(grad.stream, device.stream_of(saved.stream))

    return made, fill


def channel_sum(view: DeviceArray, sums: DeviceArray, compute: str) -> None:
    """The sums of a canonical view over all axes but the second: chunks first, then those of a channel in order."""
    stream = device.stream_of(view.stream)
    with device.placed(view.device), Lease(sums):
        tensor, out = device.adopt(_five(view), stream), device.adopt(_five(sums), stream)
        batch, channels, *extents = tensor.shape
        cells = batch * prod(extents)
        chunks = max(min(cells // _LEAST_CELLS, _MOST_CHUNKS), 1)
        values = (channels, chunks, cells, batch, *extents, *tensor.strides)
        table = _tables.of(values, device.settled, np.array(values, np.int64), stream)
        partial = device.memory(chunks * channels, np.dtype(compute), stream)
        summed = _channel_kernel(compute, view.dtype.name)
        launch(summed, blocks_for(chunks * channels), THREADS, stream, tensor.data, partial, table)
        total = sum_kernel(compute, sums.dtype.name, False)
        launch(total, blocks_for(channels), THREADS, stream, partial, out.data, channels, chunks)


def activation_grad(derivative: Any, grad: Array, saved: Array, out: Array) -> None:
    """``out = grad * derivative(saved)``, elementwise, for host arrays in the compute dtype."""
    compute = grad.dtype.name
    found = _scale_kernel(derivative, compute, (compute, compute, compute), False)
    result = np.empty(grad.shape, grad.dtype)
    memory = device.memory(grad.size, grad.dtype, 0)
    launch(found, blocks_for(grad.size), THREADS, 0, *(_sent(each) for each in (grad, saved)), memory, grad.size)
    if grad.size:
        memory.copy_to_host(result.reshape(-1))
    with np.errstate(over="ignore"):
        out[...] = result


def _sent(array: Array) -> Any:
    return cuda.to_device(np.ascontiguousarray(array).reshape(-1).view(storage(array.dtype)))


def synchronize(array: DeviceArray) -> None:
    """Wait until an array has been computed."""
    with device.placed(array.device):
        device.synchronize(array.stream)


RESIDENCE = Residence(upload, download, conjugate, scale, channel_sum, synchronize)
