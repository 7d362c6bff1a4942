"""Operands as kernels want them, and results on their way back."""

import numpy as np

from ...arrays import Array
from ...plan import ConvPlan
from ..base import Epilogue, converts_while_reading
from ..tables import fill_value
from .activation import compiled_row

__all__ = [
    "chunk_count",
    "contiguous",
    "deliver",
    "either_layout",
    "fill_value",
    "flat",
    "flat_epilogue",
    "flat_source",
    "flat_strides",
    "flat_target",
    "is_channels_last",
    "read_as_given",
    "source_dtype",
    "target_extents",
    "target_like",
    "tree_sum",
]


def contiguous(array: Array, dtype: np.dtype) -> Array:
    """The array itself, or a copy in C order and the compute dtype."""
    return np.ascontiguousarray(array, dtype)


def flat(array: Array, dtype: np.dtype) -> Array:
    """An array's elements in C order and the compute dtype, as one stretch of memory: itself where it is one."""
    return (array if array.dtype == dtype else np.ascontiguousarray(array, dtype)).ravel()


def read_as_given(plan: ConvPlan, array: Array) -> Array:
    """The array in C order, in the compute dtype, or as it is where kernels convert while they read.

    bool, whose bytes are the same, is seen as uint8.
    """
    dtype = np.dtype(plan.compute_dtype)
    if array.dtype.kind not in "biu" or not converts_while_reading(plan):
        return np.ascontiguousarray(array, dtype)
    found = np.ascontiguousarray(array)
    return found.view(np.uint8) if found.dtype.kind == "b" else found


def source_dtype(plan: ConvPlan) -> np.dtype:
    """The dtype in which kernels that can convert while they read take their data."""
    as_given = converts_while_reading(plan)
    return np.dtype({"bool": "uint8"}.get(plan.dtype, plan.dtype) if as_given else plan.compute_dtype)


def flat_source(array: Array, dtype: np.dtype) -> Array:
    """`flat`, of bool without a copy."""
    if array.dtype.kind == "b" and array.flags.c_contiguous and dtype == np.uint8:
        array = array.view(np.uint8)
    return flat(array, dtype)


def flat_epilogue(epilogue: Epilogue, dtype: np.dtype) -> tuple[Array, Array, Array]:
    """Bias, residual and compiled activation for kernels that take the result as one stretch of memory.

    What is not there has no elements, or no address.
    """
    nothing = np.empty(0, dtype)
    bias = nothing if epilogue.bias is None else contiguous(epilogue.bias, dtype)
    residual = nothing if epilogue.residual is None else contiguous(epilogue.residual, dtype).ravel()
    return bias, residual, compiled_row(epilogue.activation, dtype)


def flat_target(out: Array, dtype: np.dtype) -> Array:
    """``out``, or what is brought to it where it is not one stretch of memory in the compute dtype."""
    return out if out.dtype == dtype and out.flags.c_contiguous else np.empty(out.shape, dtype)


def is_channels_last(array: Array) -> bool:
    """Whether a canonical array's channels are neighbours in one stretch of memory."""
    return array.shape[1] > 1 and not array.flags.c_contiguous and np.moveaxis(array, 1, -1).flags.c_contiguous


def flat_strides(array: Array) -> tuple[Array, tuple[int, ...]]:
    """An array that is one stretch of memory in either layout, flat, and its strides in elements.

    Strides follow from the extents: those that NumPy gives axes of extent 1 are anything.
    """
    _, channels, depth, height, width = array.shape
    plane = depth * height * width
    if array.flags.c_contiguous:
        return array.reshape(-1), (channels * plane, plane, height * width, width, 1)
    strides = (plane * channels, 1, height * width * channels, width * channels, channels)
    return np.moveaxis(array, 1, -1).reshape(-1), strides


def either_layout(array: Array, dtype: np.dtype) -> Array:
    """The array itself where it is one stretch of memory in the compute dtype, in either layout; else a copy."""
    if array.dtype == dtype and (array.flags.c_contiguous or is_channels_last(array)):
        return array
    return np.ascontiguousarray(array, dtype)


def target_extents(out: Array) -> tuple[int, int, int]:
    """Extents of a canonical result's height and width, and of its whole plane."""
    return out.shape[3], out.shape[4], out.shape[2] * out.shape[3] * out.shape[4]


def target_like(out: Array, dtype: np.dtype) -> Array:
    """``out``, or what is rounded into it where its dtype is not the compute dtype."""
    return out if out.dtype == dtype else np.empty(out.shape, dtype)


def deliver(target: Array, out: Array) -> None:
    """Bring a kernel's result to ``out``, unless it is there."""
    if target is not out:
        out[...] = target


def chunk_count(tasks: int, units: int, least_tasks: int) -> int:
    """Into how many chunks a sum over ``units`` is split so that there are enough tasks: by the plan, not threads."""
    return max(min(-(-least_tasks // max(tasks, 1)), units), 1)


def tree_sum(partial_sums: Array) -> Array:
    """The sum over the first axis, in place, as a tree whose shape its length alone decides."""
    count = len(partial_sums)
    if count > 1:
        with np.errstate(all="ignore"):  # as within the sums, which no kernel reports
            while count > 1:
                kept = (count + 1) // 2
                partial_sums[: count - kept] += partial_sums[kept:count]
                count = kept
    total: Array = partial_sums[0]
    return total
