"""Arrays at the border: what is accepted, dtype promotion, canonical views, results to fill.

Canonical data is ``(N, C, D, H, W)`` and canonical weights ``(O, I, KD, KH, KW)``; both are views that copy
nothing, whatever the rank and layout of the array behind them. Where a plan folds axes together, that takes an array
whose cells along them are evenly spaced, as in each array that is one stretch of memory; others are copied.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import numpy as np

from .device_arrays import DeviceArray, device_array, merges
from .errors import ArgumentError, DTypeError, ShapeError
from .extras import dtype_named
from .plan import ASKED, ConvPlan, accumulator, dtype_name, dtype_rule, holds

__all__ = [
    "Array",
    "View",
    "as_array",
    "asked_dtype",
    "asked_result",
    "compute_dtype",
    "data_view",
    "given_dtype",
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


def as_array(op: str, name: str, value: object, asked: bool = False) -> Array:
    """An operand as an aligned array in native byte order, copied only if it is neither.

    ``asked``: the call says what dtype its result shall have, so that bool is an operand, too.

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
    there: Any = _on_device(op, name, value, asked)
    if there is not None:
        return there  # type: ignore[no-any-return]
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:  # whatever another library's array answers
        hint = "; numbaconv.interop.torch has the functions that record gradients" if _needs_gradient(value) else ""
        raise DTypeError(f"{op}: {name} is no array: {error}{hint}") from error
    rule = dtype_rule(op, name, array.dtype, asked)
    if array.dtype.isnative:
        if rule.output:  # bool is usable in some calls alone
            _usable.add(array.dtype)
    else:
        array = array.astype(array.dtype.newbyteorder("="))
    return array if array.flags.aligned else array.copy()


def _needs_gradient(value: object) -> bool:
    return bool(getattr(value, "requires_grad", False))


def host_array(op: str, name: str, value: object, asked: bool = False) -> Array:
    """As `as_array`, for what has no kernels on a device.

    Raises
    ------
    DTypeError
        Also for an array on a device.
    """
    array: Any = as_array(op, name, value, asked)
    if isinstance(array, DeviceArray):
        raise DTypeError(f"{op}: {name} is on a device, but {op} computes in the host's memory; bring it there")
    found: Array = array
    return found


def _on_device(op: str, name: str, value: object, asked: bool) -> DeviceArray | None:
    """An operand on a device, or None where it is not on one."""
    try:
        there = device_array(value)
    except DTypeError as error:
        raise DTypeError(f"{op}: {name} is on a device, but {error}") from error
    if there is None:
        return None
    dtype_rule(op, name, there.dtype, asked)
    if not there.dtype.isnative or not there.aligned:
        raise DTypeError(f"{op}: {name} is on a device, where it must be aligned and in native byte order")
    return there


#: What bfloat16 holds the values of.
_WITHIN_BFLOAT16 = frozenset(("bool", "int8", "uint8", "bfloat16"))


def _common(dtypes: Iterable[np.dtype]) -> np.dtype:
    """``numpy.result_type``, and for bfloat16, which is none of NumPy's, a rule of our own.

    bfloat16 with what it holds the values of remains bfloat16; else it counts as float32. What releases of ml_dtypes
    say of it differs.
    """
    given = list(dtypes)
    if not any(dtype_name(dtype) == "bfloat16" for dtype in given):
        return np.result_type(*given)
    others = [dtype for dtype in given if dtype_name(dtype) not in _WITHIN_BFLOAT16]
    if others:
        return np.result_type(np.float32, *others)
    return next(dtype for dtype in given if dtype_name(dtype) == "bfloat16")


def promote(op: str, dtypes: dict[str, np.dtype]) -> np.dtype:
    """The common dtype of named ones: ``numpy.result_type``, where bfloat16 counts as float32 beside what exceeds it.

    Raises
    ------
    DTypeError
        If there is no convolution in it, or if they are integers without a common one: uint64 and a signed one.
    """
    common = _common(dtypes.values())
    if common.kind == "f" and all(dtype.kind in "iu" for dtype in dtypes.values()):
        named = ", ".join(f"{name} {dtype_name(dtype)}" for name, dtype in dtypes.items())
        raise DTypeError(
            f"{op}: there is no integer dtype for {named} together, of which NumPy makes {dtype_name(common)}; "
            "convert one of them, or ask for a result with dtype="
        )
    dtype_rule(op, " and ".join(dtypes), common)
    return common


def like_result(op: str, operands: dict[str, np.dtype], extras: dict[str, np.dtype]) -> np.dtype:
    """The result's dtype, from those of the operands and of bias and residual.

    uint8 with int8, which NumPy makes int16 of, has sums like each of them.
    """
    common = promote(op, operands)
    bytes_alone = common.kind in "iu" and all(dtype.itemsize == 1 for dtype in operands.values())
    name = "int32" if bytes_alone else dtype_rule(op, "operand", common).output
    output = common if name == dtype_name(common) else np.dtype(name)
    return promote(op, {"result": output, **extras}) if extras else output


def given_dtype(op: str, dtype: object) -> np.dtype:
    """The dtype that an argument names.

    Raises
    ------
    DTypeError
        If there is no such dtype.
    """
    try:
        return dtype_named(op, dtype) if isinstance(dtype, str) else np.dtype(dtype)  # type: ignore[call-overload]
    except TypeError:
        raise DTypeError(f"{op}: dtype is {dtype!r}, which NumPy does not know") from None


def asked_dtype(op: str, dtype: object) -> np.dtype | None:
    """The dtype that a call asks for with ``dtype=``, in native byte order; None where it asks for none.

    Raises
    ------
    DTypeError
        If there is no such dtype, or if sums are not returned in it.
    """
    if dtype is None:
        return None
    found = given_dtype(op, dtype)
    if dtype_name(found) not in ASKED:
        raise DTypeError(
            f"{op}: dtype is {dtype_name(found)}, but sums are returned in {', '.join(ASKED)}; ask for one of these "
            "and convert the result"
        )
    return found if found.isnative else found.newbyteorder("=")


def asked_result(op: str, asked: np.dtype, operands: dict[str, np.dtype], extras: dict[str, np.dtype]) -> np.dtype:
    """The operands' common dtype, where a call asks for its result's.

    Raises
    ------
    DTypeError
        If an operand, the bias or the residual is not of the same kind as what was asked for, or of a kind that it
        holds: bool, unsigned integers, integers, floating point, complex.
    """
    for name, dtype in {**operands, **extras}.items():
        if not holds(dtype_name(asked), dtype_name(dtype)):
            raise DTypeError(
                f"{op}: dtype is {dtype_name(asked)}, but {name} has dtype {dtype_name(dtype)}, which that does not "
                "hold; convert it, or ask for another"
            )
    common = _common(operands.values())
    integers = all(dtype.kind in "biu" for dtype in operands.values())
    return asked if integers and common.kind == "f" else common


def compute_dtype(asked: np.dtype) -> np.dtype:
    """The dtype of the sums behind a result of the dtype that was asked for."""
    return np.dtype(accumulator(dtype_name(asked)))


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
    first = 1 + batched
    order = (*order[:first], *(order[first + axis] for group in plan.folds for axis in group))
    brought = None if order == tuple(range(len(order))) else order
    if plan.is_folded:
        places = iter(range(first, len(order)))
        spatial = (tuple(islice(places, len(group))) for group in plan.folds)
        front = ((0,), (1,)) if batched else ((), (0,))
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
