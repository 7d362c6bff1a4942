"""Arrays at the border: what is accepted, dtype promotion, canonical views, results to fill.

Canonical data is ``(N, C, D, H, W)`` and canonical weights ``(O, I, KD, KH, KW)``; both are views that copy
nothing, whatever the rank and layout of the array behind them. Where a plan folds axes together, that takes an array
whose cells along them are evenly spaced, as in each array that is one stretch of memory; others are copied.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .device_arrays import DeviceArray, device_array, merges
from .errors import ArgumentError, DTypeError, ShapeError
from .plan import ConvPlan, dtype_name, dtype_rule

__all__ = [
    "Array",
    "View",
    "as_array",
    "data_view",
    "host_array",
    "like_result",
    "promote",
    "result",
    "view_of_data",
    "view_of_weight",
]

Array: TypeAlias = np.ndarray[Any, Any]


#: Dtypes that have a convolution, in native byte order, as far as they were met.
_usable: set[np.dtype] = set()


def as_array(op: str, name: str, value: object) -> Array:
    """An operand as an aligned array in native byte order, copied only if it is neither.

    An array on a device stays there, as a `DeviceArray`; what follows tells apart where that makes a difference.

    Raises
    ------
    DTypeError
        For masked arrays (the mask would be lost) and dtypes that have no convolution.
    """
    if type(value) is np.ndarray and value.dtype in _usable and value.flags.aligned:
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise DTypeError(f"{op}: {name} is a masked array, whose mask would be ignored; pass filled values")
    there: Any = _on_device(op, name, value)
    if there is not None:
        return there  # type: ignore[no-any-return]
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:  # whatever another library's array answers
        raise DTypeError(f"{op}: {name} is no array: {error}") from error
    dtype_rule(op, name, array.dtype)
    if array.dtype.isnative:
        _usable.add(array.dtype)
    else:
        array = array.astype(array.dtype.newbyteorder("="))
    return array if array.flags.aligned else array.copy()


def host_array(op: str, name: str, value: object) -> Array:
    """As `as_array`, for what has no kernels on a device.

    Raises
    ------
    DTypeError
        Also for an array on a device.
    """
    array: Any = as_array(op, name, value)
    if isinstance(array, DeviceArray):
        raise DTypeError(f"{op}: {name} is on a device, but {op} computes in the host's memory; bring it there")
    found: Array = array
    return found


def _on_device(op: str, name: str, value: object) -> DeviceArray | None:
    """An operand on a device, or None where it is not on one."""
    try:
        there = device_array(value)
    except DTypeError as error:
        raise DTypeError(f"{op}: {name} is on a device, but {error}") from error
    if there is None:
        return None
    dtype_rule(op, name, there.dtype)
    if not there.dtype.isnative or not there.aligned:
        raise DTypeError(f"{op}: {name} is on a device, where it must be aligned and in native byte order")
    return there


def promote(op: str, dtypes: dict[str, np.dtype]) -> np.dtype:
    """``numpy.result_type`` of named dtypes.

    Raises
    ------
    DTypeError
        If NumPy has no common dtype for them, or there is no convolution in it.
    """
    try:
        common = np.result_type(*dtypes.values())
    except TypeError:
        named = ", ".join(f"{name} {dtype_name(dtype)}" for name, dtype in dtypes.items())
        raise DTypeError(f"{op}: NumPy has no common dtype for {named}; convert one of them") from None
    dtype_rule(op, " and ".join(dtypes), common)
    return common


def like_result(op: str, operand: np.dtype, extras: dict[str, np.dtype]) -> np.dtype:
    """The result's dtype, from the operands' common dtype and those of bias and residual."""
    name = dtype_rule(op, "operand", operand).output
    output = operand if name == dtype_name(operand) else np.dtype(name)
    if not extras:
        return output
    # Sums of integers are int64 at most; NumPy would make floats of int64 and uint64.
    signed = {name: np.dtype(np.int64) if extra == np.uint64 else extra for name, extra in extras.items()}
    return promote(op, {"result": output, **signed})


def data_view(array: Array, channels_last: bool, batched: bool) -> Array:
    """Data in the caller's layout as a ``(N, C, spatial...)`` view."""
    full = array if batched else array[np.newaxis]
    return np.moveaxis(full, -1, 1) if channels_last else full


@dataclass(frozen=True, slots=True)
class View:
    """How stored arrays of one shape and layout are viewed as canonical.

    Attributes
    ----------
    order : tuple of int or None
        Of the axes.
    index : tuple or None
        Where new axes are, then.
    groups : tuple of tuples of int or None
        Which axes, in their new order, become one, for each of the five; instead of ``index``.
    shape : tuple of int or None
        What they become.
    """

    order: tuple[int, ...] | None
    index: tuple[Any, ...] | None
    groups: tuple[tuple[int, ...], ...] | None = None
    shape: tuple[int, ...] | None = None

    def of(self, array: Array) -> Array:
        """The canonical view of an array, or a copy where cells are not evenly spaced along axes that become one."""
        if self.order is not None:
            array = array.transpose(self.order)
        if self.groups is None:
            return array if self.index is None else array[self.index]
        return array.reshape(self.shape) if isinstance(array, np.ndarray) else array.folded(self.groups)

    def copies(self, array: Array) -> bool:
        """Whether `of` would give a copy, which results must not be written to."""
        if self.groups is None:
            return False
        if self.order is not None:
            array = array.transpose(self.order)
        return not all(merges(array.shape, array.strides, group) for group in self.groups)

    def reordered(self) -> "View | None":
        """Without new axes; None where nothing is left to do."""
        return None if self.order is None else View(self.order, None)


def _view(plan: ConvPlan, shape: tuple[int, ...], order: tuple[int, ...], batched: bool) -> View:
    """The view that brings axes into an order, inserts those which the rank lacks, and folds others together."""
    brought = None if order == tuple(range(len(order))) else order
    if plan.is_folded:
        front = ((0,), (1,)) if batched else ((), (0,))
        spatial = (tuple(1 + batched + axis for axis in group) for group in plan.folds)
        return View(brought, None, (*front, *spatial), shape)
    every, missing = slice(None), 5 - len(order) - (not batched)
    given = (every, every) if batched else (np.newaxis, every)
    index = (*given, *(np.newaxis,) * missing) if missing or not batched else None
    return View(brought, index)


def view_of_data(plan: ConvPlan, role: str) -> View:
    """The plan's ``x`` or ``y``, in its layout, as ``(N, C, D, H, W)``."""
    batch = int(plan.batched)
    channel = plan.rank + batch if plan.channels_last else batch
    spatial = (axis for axis in range(batch, plan.rank + batch + 1) if axis != channel)
    order = (*range(batch), channel, *spatial)
    return _view(plan, plan.x_shape if role == "x" else plan.y_shape, order, plan.batched)


def view_of_weight(plan: ConvPlan) -> View:
    """A weight in the plan's layout as ``(O, I, KD, KH, KW)``."""
    return _view(plan, plan.w_shape, plan.weight_axes, True)


def _overlaps_itself(array: Array) -> bool:
    """Whether two elements may share memory: an axis steps inside what the finer axes span."""
    if array.size == 0 or array.flags.c_contiguous:
        return False
    span = array.itemsize
    for step, extent in sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if step < span:
            return True
        span = step * (extent - 1) + span
    return False


def _check_out(op: str, out: object, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise DTypeError(f"{op}: out must be a NumPy array, but is {type(out).__name__}")
    if out.shape != shape:
        raise ShapeError(f"{op}: out has shape {out.shape}, but the result has {shape}")
    if out.dtype.newbyteorder("=") != dtype:
        raise DTypeError(f"{op}: out has dtype {dtype_name(out.dtype)}, but the result has {dtype_name(dtype)}")
    if not out.flags.writeable:
        raise ArgumentError(f"{op}: out is read-only")
    if _overlaps_itself(out):
        raise ArgumentError(f"{op}: out overlaps itself: strides {out.strides} for shape {out.shape}")
    return out


def _same_memory(a: Array, b: Array) -> bool:
    """Whether two arrays are the same elements in the same places."""
    where = [array.__array_interface__["data"][0] for array in (a, b)]
    return where[0] == where[1] and a.shape == b.shape and a.strides == b.strides and a.dtype == b.dtype


def result(
    op: str,
    out: object,
    shape: tuple[int, ...],
    dtype: np.dtype,
    operands: list[Array],
    residual: Array | None,
    view: View | None,
) -> tuple[Array, Array]:
    """The array to return and the array to fill.

    They differ where ``out`` overlaps an operand that is still read while results are written, is unaligned or
    byte-swapped, or is one that the view through which it is filled would copy. ``out`` may be the residual itself:
    each element is read before it is written.
    """
    if out is None:
        fresh = np.empty(shape, dtype)
        return fresh, fresh
    given = _check_out(op, out, shape, dtype)
    read = [*operands]
    if residual is not None and not _same_memory(given, residual):
        read.append(residual)
    clear = given.flags.aligned and given.dtype.isnative and not any(np.may_share_memory(given, a) for a in read)
    clear = clear and (view is None or not view.copies(given))
    return given, given if clear else np.empty(shape, dtype)
