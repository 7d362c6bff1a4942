"""``unfold`` (im2col) and ``fold`` (col2im): patches as columns, and columns summed back."""

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any

import numpy as np

from .arrays import Array, asked_dtype, asked_result, compute_dtype, host_array, like_result
from .backends.subnormals import mode_asked
from .border import bordered
from .errors import ArgumentError, ShapeError
from .memory import check_fits
from .plan import ConvPlan, Geometry, Ints, Padding, check_axes, dtype_name, make_plan
from .plan.arguments import integers

__all__ = ["fold", "unfold"]


def _rank(op: str, name: str, extents: object, ndim: int) -> int:
    """The rank that a size stands for; a single integer means 2, as in PyTorch, but 3 for five axes."""
    try:
        rank = len(extents)  # type: ignore[arg-type]
    except TypeError:
        return 3 if ndim == 5 else 2
    if rank not in (1, 2, 3):
        raise ArgumentError(f"{op}: {name} has {rank} entries {extents}, but must have 1, 2 or 3")
    return rank


def _plan(
    op: str, rank: int, shape: tuple[int, ...], kernel: tuple[int, ...], dtypes: tuple[str, str], **geometry: object
) -> ConvPlan:
    """The convolution that reads these patches; its weight is never made. ``dtypes``: its operands', its result's."""
    check_axes(op, "input", shape, rank, False)
    channels = shape[-rank - 1]
    checked = Geometry.of(op, rank, **geometry)  # type: ignore[arg-type]
    return make_plan(op, rank, False, shape, (1, channels, *kernel), checked, None, None, False, *dtypes)


def _operand(op: str, input: object, dtype: object) -> tuple[Array, tuple[str, str], np.dtype]:
    """The array, the names of its dtype and of its sums' result, and the result's dtype."""
    asked = asked_dtype(op, dtype)
    array = host_array(op, "input", input, asked is not None)
    if asked is None:
        output = like_result(op, {"input": array.dtype}, {})
    else:
        output, _ = asked, asked_result(op, asked, {"input": array.dtype}, {})
    return array, (dtype_name(array.dtype), dtype_name(output)), output


def _patches(plan: ConvPlan) -> Iterator[tuple[Any, Any]]:
    """For each tap: the index of its cells among the columns, and of the input cells that they hold."""
    for tap in product(*(range(axis.kernel) for axis in plan.axes)):
        outputs, inputs = [], []
        for axis, k in zip(plan.axes, tap, strict=True):
            first, last = axis.tap_range(k)
            begin = first * axis.stride + k * axis.dilation - axis.pad_before
            outputs.append(slice(first, last))
            inputs.append(slice(begin, begin + (last - first) * axis.stride, axis.stride))
        if all(cells.start < cells.stop for cells in outputs):
            every = slice(None)
            yield (every, every, *tap, *outputs), (every, every, *inputs)


def _columns_shape(plan: ConvPlan) -> tuple[int, ...]:
    return (
        plan.batch,
        plan.x_channels,
        *(axis.kernel for axis in plan.axes),
        *(axis.output for axis in plan.axes),
    )


@bordered
def unfold(
    input: object,
    kernel_size: Ints,
    dilation: Ints = 1,
    padding: Padding = 0,
    stride: Ints = 1,
    *,
    dtype: object = None,
) -> Array:
    """Patches of the input as columns: im2col, the meaning of ``torch.nn.functional.unfold`` at ranks 1 to 3.

    Parameters
    ----------
    input : array of shape (N, C, *spatial), or (C, *spatial)
        Of any supported dtype.
    kernel_size : int or sequence of int
        Its length is the rank. A single integer means rank 2, and rank 3 for an input of five axes.
    dilation, padding, stride : int, one an axis, or (padding) pairs or a name
        As in `numbaconv.conv`; padding is zeros.
    dtype : dtype, optional
        Of the columns, of those that `numbaconv.conv` may be asked for.

    Returns
    -------
    array of shape (N, C * taps, output cells), or (C * taps, output cells)
        Of the input's dtype, or the one asked for. Rows run over channels, then taps; columns over output cells in C
        order.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError
        As `numbaconv.conv` does for the convolution that would read the same patches.

    Examples
    --------
    >>> import numpy as np, numbaconv
    >>> numbaconv.unfold(np.arange(6.0).reshape(1, 1, 6), (3,), stride=2)
    array([[[0., 2.],
            [1., 3.],
            [2., 4.]]])
    """
    op = "unfold"
    array, dtypes, found = _operand(op, input, dtype)
    found = array.dtype if dtype is None else found
    rank = _rank(op, "kernel_size", kernel_size, array.ndim)
    kernel = integers(op, "kernel_size", kernel_size, rank, 1)
    plan = _plan(
        op,
        rank,
        array.shape,
        kernel,
        dtypes,
        dilation=dilation,
        padding=padding,
        stride=stride,
    )
    check_fits(op, "the result", _columns_shape(plan), found.itemsize, f" (input {array.shape})")
    cells = array if plan.batched else array[np.newaxis]
    columns = np.zeros(_columns_shape(plan), found)
    with np.errstate(all="ignore"):
        for outputs, inputs in _patches(plan):
            columns[outputs] = cells[inputs]
    flat = columns.reshape(plan.batch, plan.x_channels * prod(kernel), prod(plan.y_shape[2:]))
    return flat if plan.batched else flat[0]


@bordered
def fold(
    input: object,
    output_size: Ints,
    kernel_size: Ints,
    dilation: Ints = 1,
    padding: Padding = 0,
    stride: Ints = 1,
    *,
    dtype: object = None,
) -> Array:
    """Columns summed back into their places: col2im, the meaning of ``torch.nn.functional.fold``, ranks 1 to 3.

    The adjoint of `unfold`: cells that several patches share receive the sum.

    Parameters
    ----------
    input : array of shape (N, C * taps, output cells), or (C * taps, output cells)
        As `unfold` returns it.
    output_size : int or sequence of int
        Spatial extents of the result. Its length is the rank; a single integer means rank 2.
    kernel_size, dilation, padding, stride
        As given to `unfold`.
    dtype : dtype, optional
        Of the sums and of the result, as in `numbaconv.conv`.

    Returns
    -------
    array of shape (N, C, *output_size), or (C, *output_size)
        Dtypes as in `numbaconv.conv`.

    Raises
    ------
    ShapeError
        If the columns are not those of an input of this size.

    Examples
    --------
    >>> import numpy as np, numbaconv
    >>> numbaconv.fold(np.ones((1, 3, 2)), (6,), (3,), stride=2)
    array([[[1., 1., 2., 1., 1., 0.]]])
    """
    op = "fold"
    array, dtypes, output = _operand(op, input, dtype)
    rank = _rank(op, "output_size", output_size, 0)
    size = integers(op, "output_size", output_size, rank, 1)
    kernel = integers(op, "kernel_size", kernel_size, rank, 1)
    if array.ndim not in (2, 3):
        raise ShapeError(f"{op}: input must have 3 axes, or 2 without a batch axis, but has shape {array.shape}")
    rows, taps = array.shape[-2], prod(kernel)
    if rows % taps:
        raise ShapeError(
            f"{op}: input has {rows} rows, not divisible by the kernel's {taps} taps (input {array.shape})"
        )
    shape = (*array.shape[:-2], rows // taps, *size)
    plan = _plan(op, rank, shape, kernel, dtypes, dilation=dilation, padding=padding, stride=stride)
    if array.shape[-1] != prod(plan.y_shape[2:]):
        raise ShapeError(
            f"{op}: input has {array.shape[-1]} columns, but a result of {size} with kernel {kernel} has "
            f"{tuple(axis.output for axis in plan.axes)} = {prod(plan.y_shape[2:])} positions (input {array.shape})"
        )
    summed, compute = (plan.batch, plan.x_channels, *size), compute_dtype(output)
    check_fits(op, "the result", summed, compute.itemsize, f" (input {array.shape})")
    columns = array.reshape(_columns_shape(plan))
    total = np.zeros(summed, compute)
    with mode_asked(op), np.errstate(all="ignore"):
        for outputs, inputs in _patches(plan):
            total[inputs] += columns[outputs].astype(total.dtype, copy=False)
        folded = total.astype(output, copy=False)
    return folded if plan.batched else folded[0]
