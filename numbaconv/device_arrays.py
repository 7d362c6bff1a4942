"""Arrays in a device's memory, whichever library they belong to, as the front end sees them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["DeviceArray"]


@dataclass(frozen=True, slots=True, eq=False)
class DeviceArray:
    """Memory on a device, seen as an array.

    Attributes
    ----------
    owner : object
        What keeps the memory alive.
    address : int
        Of the first element.
    shape : tuple of int
    strides : tuple of int
        In bytes.
    dtype : numpy.dtype
    device : int
        The device's number.
    stream : int
        The handle of the stream on which its elements are computed; 0 is the default stream.
    """

    owner: Any
    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype
    device: int
    stream: int

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count

    def _viewed(self, shape: tuple[int, ...], strides: tuple[int, ...]) -> "DeviceArray":
        return DeviceArray(self.owner, self.address, shape, strides, self.dtype, self.device, self.stream)

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
