"""Arrays in a device's memory, whichever library they belong to, as the front end sees them.

An array is on a device if it is a CUDA tensor of PyTorch, an array of CuPy, or offers ``__cuda_array_interface__`` or,
by its DLPack protocol, CUDA memory. Its library is asked for what it alone knows, and for results, which are its own
arrays; where no library is known, results are Numba's device arrays. Nothing is imported unless such an array comes.
"""

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np

from .errors import ArgumentError, DTypeError, ShapeError
from .extras import dtype_named
from .plan import dtype_name

__all__ = [
    "READY",
    "DeviceArray",
    "device_array",
    "device_result",
    "found_on_device",
    "handle_of",
    "merges",
    "on_device",
    "torch_stream",
]


#: In place of a stream's handle: whatever was to be computed has been.
READY = -1


class _Library(NamedTuple):
    """What makes results: ``empty(shape, dtype, device, stream handle)``; and whether that is from a pool."""

    name: str
    empty: Callable[[tuple[int, ...], np.dtype, int, int], Any]
    pools: bool


class DeviceArray:
    """Memory on a device, seen as an array.

    Attributes
    ----------
    owner : object
        What keeps the memory alive.
    address : int
        Of the element whose indices are all zero.
    shape : tuple of int
    strides : tuple of int
        In bytes.
    dtype : numpy.dtype
    device : int
        The device's number; -1 where its library does not say.
    stream : int
        The handle of the stream on which its elements are computed; 0 is the default stream. Of an operand: `READY`
        where they are there.
    library : _Library
        Which its results belong to.
    writeable : bool
    seen_as : tuple of int or None
        The five extents that kernels are to see, where they fold axes along which cells are not evenly spaced: kernels
        get a copy.
    """

    __slots__ = ("address", "device", "dtype", "library", "owner", "seen_as", "shape", "stream", "strides", "writeable")

    def __init__(
        self,
        owner: object,
        address: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None,
        dtype: np.dtype,
        device: int,
        stream: int,
        library: _Library,
        writeable: bool = True,
    ):
        self.owner, self.address, self.shape, self.dtype = owner, address, shape, dtype
        self.device, self.stream, self.library, self.writeable = device, stream, library, writeable
        self.strides = _dense(shape, dtype.itemsize) if strides is None else strides
        self.seen_as: tuple[int, ...] | None = None

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    def _viewed(self, shape: tuple[int, ...], strides: tuple[int, ...]) -> "DeviceArray":
        return DeviceArray(
            self.owner,
            self.address,
            shape,
            strides,
            self.dtype,
            self.device,
            self.stream,
            self.library,
            self.writeable,
        )

    def transpose(self, order: tuple[int, ...]) -> "DeviceArray":
        """Its axes in another order."""
        return self._viewed(tuple(self.shape[axis] for axis in order), tuple(self.strides[axis] for axis in order))

    def __getitem__(self, index: tuple[Any, ...]) -> "DeviceArray":
        """With new axes of extent 1 where the index has None; its other entries are whole slices."""
        shape, strides, axis = [], [], 0
        for entry in index:
            shape.append(1 if entry is None else self.shape[axis])
            strides.append(0 if entry is None else self.strides[axis])
            axis += entry is not None
        return self._viewed((*shape, *self.shape[axis:]), (*strides, *self.strides[axis:]))

    def folded(self, groups: tuple[tuple[int, ...], ...]) -> "DeviceArray":
        """As kernels are to see it: with neighbouring axes as one, and new ones of extent 1 where there are none."""
        shape = tuple(prod([self.shape[axis] for axis in group]) for group in groups)
        if all(merges(self.shape, self.strides, group) for group in groups):
            return self._viewed(shape, tuple(_step(self.shape, self.strides, group) for group in groups))
        view = self[(None,) * (5 - self.ndim)]
        view.seen_as = shape
        return view

    def reshape(self, *shape: int) -> "DeviceArray":
        """The same elements in other extents; only of one stretch of memory."""
        if self.size and not _is_dense(self):
            raise ArgumentError(f"an array on a device of shape {self.shape} must be contiguous to be seen as {shape}")
        return self._viewed(shape, _dense(shape, self.dtype.itemsize))

    @property
    def aligned(self) -> bool:
        """Whether each element lies at a multiple of its size, as kernels need it."""
        itemsize = self.dtype.itemsize
        return self.address % itemsize == 0 and not any(step % itemsize for step in self.strides)

    def bounds(self) -> tuple[int, int]:
        """Its first address, and the one after its last byte."""
        if not self.size:
            return self.address, self.address
        steps = [(n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)]
        low = sum(step for step in steps if step < 0)
        return self.address + low, self.address + sum(step for step in steps if step > 0) + self.dtype.itemsize

    def on(self, stream: int) -> "DeviceArray":
        """The same memory, to be read or written on a stream."""
        view = self._viewed(self.shape, self.strides)
        view.stream = stream
        return view


def merges(shape: tuple[int, ...], strides: tuple[int, ...], axes: tuple[int, ...]) -> bool:
    """Whether cells along neighbouring axes are evenly spaced, so that these can be seen as one."""
    long = [axis for axis in axes if shape[axis] != 1]
    return all(strides[outer] == shape[inner] * strides[inner] for outer, inner in pairwise(long))


def _step(shape: tuple[int, ...], strides: tuple[int, ...], axes: tuple[int, ...]) -> int:
    """From one cell to the next along axes that are seen as one."""
    return next((strides[axis] for axis in reversed(axes) if shape[axis] != 1), 0)


def _dense(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    strides, step = [], itemsize
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


def _is_dense(array: DeviceArray) -> bool:
    wanted = _dense(array.shape, array.dtype.itemsize)
    return all(n == 1 or a == b for n, a, b in zip(array.shape, array.strides, wanted, strict=True))


def _numba_empty(shape: tuple[int, ...], dtype: np.dtype, device: int, stream: int) -> Any:
    from numba import cuda

    return cuda.device_array(shape, dtype, stream=cuda.external_stream(stream) if stream else 0)


def _torch_empty(shape: tuple[int, ...], dtype: np.dtype, device: int, stream: int) -> Any:
    import torch

    with torch_stream(stream, device):  # the memory belongs to that stream
        return torch.empty(shape, dtype=getattr(torch, dtype.name), device=f"cuda:{device}")


def torch_stream(handle: int, device: Any) -> AbstractContextManager[Any]:
    """Where PyTorch uses a stream, given by its handle; 0 is the default stream.

    ``ExternalStream(0)`` would be some stream of PyTorch's pool.
    """
    import torch

    current = torch.cuda.current_stream(device)
    if current.cuda_stream == handle:
        return nullcontext()
    found: Any = torch.cuda.ExternalStream(handle, device=device) if handle else torch.cuda.default_stream(device)
    context: AbstractContextManager[Any] = torch.cuda.stream(found)
    return context


def _cupy_empty(shape: tuple[int, ...], dtype: np.dtype, device: int, stream: int) -> Any:
    import cupy

    with cupy.cuda.Device(device), cupy.cuda.ExternalStream(stream, device):
        return cupy.empty(shape, dtype)


_NUMBA, _TORCH, _CUPY = (
    _Library("numba", _numba_empty, False),
    _Library("torch", _torch_empty, True),
    _Library("cupy", _cupy_empty, True),
)


def _of_torch(value: Any) -> DeviceArray | None:
    """A tensor of PyTorch, through its own attributes: its array interface knows no bfloat16."""
    if not value.is_cuda:
        return None
    import torch

    if value.requires_grad:
        raise DTypeError("it requires gradients, which are not recorded here; pass tensor.detach()")
    if value.layout != torch.strided:
        raise DTypeError(f"its layout is {value.layout}, but must be strided")
    value = value.resolve_conj().resolve_neg()
    dtype = dtype_named("a PyTorch tensor", str(value.dtype).removeprefix("torch."))
    device = value.device.index
    strides = tuple(step * dtype.itemsize for step in value.stride())
    stream = torch.cuda.current_stream(device).cuda_stream
    return DeviceArray(value, value.data_ptr(), tuple(value.shape), strides, dtype, device, stream, _TORCH)


def _of_interface(value: Any) -> DeviceArray | None:
    """Anything with ``__cuda_array_interface__``."""
    interface = getattr(value, "__cuda_array_interface__", None)
    if interface is None:  # another array of its type has one: of JAX, those on a device do, those of the host do not
        return _of_dlpack(value) if hasattr(value, "__dlpack_device__") else None
    if interface.get("mask") is not None:
        raise DTypeError("it is masked, and its mask would be ignored")
    address, readonly = interface["data"]
    own = getattr(value, "dtype", None)
    dtype = own if isinstance(own, np.dtype) else np.dtype(interface["typestr"])
    if type(value).__module__.partition(".")[0] == "cupy":
        import cupy

        library, device, stream = _CUPY, value.device.id, cupy.cuda.get_current_stream(value.device.id).ptr
    else:
        library, device, stream = _NUMBA, -1, interface.get("stream") or 0
    shape = tuple(interface["shape"])
    return DeviceArray(
        value, address or 0, shape, interface.get("strides"), dtype, device, stream, library, not readonly
    )


def _of_simulator(value: Any) -> DeviceArray | None:
    """A device array of Numba's simulator, which lies in the host's memory."""
    array = value._ary
    address = array.__array_interface__["data"][0]
    return DeviceArray(value, address, array.shape, array.strides, array.dtype, -1, 0, _NUMBA, array.flags.writeable)


class _DLTensor(ctypes.Structure):
    """What a DLPack capsule points to (dlpack.h, version 0)."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


#: DLPack's numbers of memory that kernels can read (CUDA's own and managed), and of kinds of elements.
_CUDA_MEMORY = (2, 13)
_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex"}


def _of_dlpack(value: Any) -> DeviceArray | None:
    """Anything that speaks DLPack; the capsule is kept, and gives the memory back when it goes."""
    place, device = value.__dlpack_device__()
    if int(place) not in _CUDA_MEMORY:
        return None
    capsule = value.__dlpack__(stream=1)  # the elements are there for what the default stream does next
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    address = pointer(capsule, b"dltensor")
    assert address is not None
    tensor = _DLTensor.from_address(address)
    if tensor.lanes != 1 or tensor.code not in _KINDS:
        raise DTypeError(f"its elements are of DLPack's kind {tensor.code} with {tensor.lanes} lanes")
    dtype = dtype_named("DLPack", f"{_KINDS[tensor.code]}{tensor.bits}")
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(s * dtype.itemsize for s in tensor.strides[: tensor.ndim]) if tensor.strides else None
    begin = (tensor.data or 0) + tensor.byte_offset
    return DeviceArray((value, capsule), begin, shape, strides, dtype, int(device), 0, _NUMBA)


#: How arrays of a type are read; None for types that have nothing to do with devices.
_readers: dict[type, Callable[[Any], DeviceArray | None] | None] = {}


def _reader(value: Any) -> Callable[[Any], DeviceArray | None] | None:
    if isinstance(value, np.ndarray | np.generic | list | tuple | int | float | complex):
        return None
    kind = type(value)
    if kind.__module__.partition(".")[0] == "torch" and hasattr(kind, "data_ptr"):
        return _of_torch
    if getattr(kind, "__cuda_ndarray__", False) and not hasattr(kind, "__cuda_array_interface__"):
        return _of_simulator
    if hasattr(value, "__cuda_array_interface__"):
        return _of_interface
    return _of_dlpack if hasattr(kind, "__dlpack_device__") and hasattr(kind, "__dlpack__") else None


def on_device(value: Any) -> bool:
    """Whether a value may be an array on a device, by its type."""
    kind = type(value)
    try:
        return _readers[kind] is not None
    except KeyError:
        read = _reader(value)
        if len(_readers) < 1000:
            _readers[kind] = read
        return read is not None


def device_array(value: Any) -> DeviceArray | None:
    """An array on a device, or None where a value is none.

    Raises
    ------
    DTypeError
        If it is on a device and cannot be used.
    """
    if not on_device(value):
        return None
    read = _readers.get(type(value)) or _reader(value)
    return None if read is None else read(value)


def _itself(value: DeviceArray) -> DeviceArray:
    return value


_readers[DeviceArray] = _itself


def found_on_device(op: str, arrays: dict[str, Any]) -> bool:
    """Whether a call's arrays are on a device: all of them, or none.

    Raises
    ------
    ArgumentError
        If some are and some are not, or if they are on two devices.
    """
    there = {name: array for name, array in arrays.items() if isinstance(array, DeviceArray)}
    if not there:
        return False
    here = [name for name in arrays if name not in there]
    if here:
        raise ArgumentError(
            f"{op}: {' and '.join(there)} {'are' if len(there) > 1 else 'is'} on a device, but {' and '.join(here)} "
            f"{'are' if len(here) > 1 else 'is'} in the host's memory; bring all to one place"
        )
    devices = {array.device for array in there.values() if array.device >= 0}
    if len(devices) > 1:
        where = ", ".join(f"{name} on {array.device}" for name, array in there.items() if array.device >= 0)
        raise ArgumentError(f"{op}: arrays are on different devices: {where}")
    return True


def handle_of(op: str, stream: Any) -> int:
    """The handle of a stream: given as an integer, or by PyTorch, CuPy, Numba or anything that names it as they do.

    Raises
    ------
    DTypeError
        If it is none.
    """
    for name in ("cuda_stream", "ptr", "__cuda_stream__", "handle"):
        found = getattr(stream, name, None)
        if found is not None:
            if callable(found):
                found = found()[1]
            return int(getattr(found, "value", found) or 0)
    if isinstance(stream, int) and not isinstance(stream, bool):
        return stream
    raise DTypeError(f"{op}: stream must be a CUDA stream or its handle, but is {stream!r}")


def device_result(
    op: str,
    out: Any,
    shape: tuple[int, ...],
    dtype: np.dtype,
    operands: list[DeviceArray],
    residual: DeviceArray | None,
) -> tuple[Any, DeviceArray]:
    """The array to return, of the first operand's library or ``out`` itself, and its memory.

    ``out`` may be the residual itself: each element is read before it is written.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        If ``out`` does not fit.
    """
    first = operands[0]
    if out is None:
        made = first.library.empty(shape, dtype, first.device, first.stream)
        found = device_array(made)
        assert found is not None
        return made, found.on(first.stream)
    found = device_array(out)
    if found is None:
        raise DTypeError(f"{op}: the operands are on a device, so out must be, but it is {type(out).__name__}")
    if found.library is _TORCH and type(out) is not DeviceArray and found.owner is not out:
        raise ArgumentError(
            f"{op}: out is a conjugate or negative view, whose elements are computed when they are read"
        )
    if found.shape != shape:
        raise ShapeError(f"{op}: out has shape {found.shape}, but the result has {shape}")
    if found.dtype != dtype:
        raise DTypeError(f"{op}: out has dtype {dtype_name(found.dtype)}, but the result has {dtype_name(dtype)}")
    if not found.writeable:
        raise ArgumentError(f"{op}: out is read-only")
    if not found.aligned:
        raise ArgumentError(f"{op}: out is on a device, where it must be aligned")
    if min(first.device, found.device) >= 0 and first.device != found.device:
        raise ArgumentError(f"{op}: arrays are on different devices: out on {found.device}, others on {first.device}")
    if _overlaps_itself(found):
        raise ArgumentError(f"{op}: out overlaps itself: strides {found.strides} for shape {found.shape}")
    low, high = found.bounds()
    for each in (*operands, residual):
        if each is None or (each is residual and each.address == found.address and each.strides == found.strides):
            continue
        begin, end = each.bounds()
        if begin < high and low < end:
            raise ArgumentError(f"{op}: out overlaps an operand, which is still read while results are written")
    return out, found.on(first.stream)


def _overlaps_itself(array: DeviceArray) -> bool:
    span = array.dtype.itemsize
    for step, extent in sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if step < span:
            return bool(array.size)
        span = step * (extent - 1) + span
    return False
