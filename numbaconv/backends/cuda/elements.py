"""Elements of arrays as kernels see them: compute dtypes, and what reads and writes each storage dtype.

A bfloat16 array is passed as uint16, the upper half of a float32's bits; all other dtypes are Numba's own.
"""

from typing import Any

import numpy as np

from .jit import SIMULATED, scalar_function

__all__ = ["BFLOAT16", "number", "reader", "storage", "writer"]

BFLOAT16 = "bfloat16"

if SIMULATED:

    def _float_of_bits(bits):
        return np.int32(bits).view(np.float32)

    def _bits_of_float(value):
        return np.float32(value).view(np.int32)

else:
    from numba.cuda import libdevice

    _float_of_bits, _bits_of_float = libdevice.int_as_float, libdevice.float_as_int


def number(dtype: str) -> Any:
    """A compute dtype's scalar type, which converts inside kernels, too."""
    return np.dtype(dtype).type


def storage(dtype: np.dtype) -> np.dtype:
    """The dtype in which an array of this dtype is passed to kernels."""
    return np.dtype({BFLOAT16: np.uint16, "bool": np.uint8}.get(dtype.name, dtype))


@scalar_function
def _read(array, at):
    return array[at]


@scalar_function
def _read_bfloat16(array, at):
    return _float_of_bits(np.int32(np.int32(array[at]) << 16))


@scalar_function
def _write(array, at, value):
    array[at] = value


@scalar_function
def _write_bfloat16(array, at, value):
    """To the nearest, ties to even; what is NaN stays NaN."""
    bits = np.int64(_bits_of_float(np.float32(value))) & 0xFFFFFFFF
    if (bits & 0x7FFFFFFF) > 0x7F800000:
        array[at] = np.uint16((bits >> 16) | 64)
    else:
        array[at] = np.uint16((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)


def reader(dtype: str) -> Any:
    """``read(array, at)`` for kernels: the element, of a type that converts to the compute dtype."""
    return _read_bfloat16 if dtype == BFLOAT16 else _read


def writer(dtype: str) -> Any:
    """``write(array, at, value)`` for kernels: a value of the compute dtype, rounded once."""
    return _write_bfloat16 if dtype == BFLOAT16 else _write
