"""Convolutions as functions of arrays, with the names and meaning of ``torch.nn.functional``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .arrays import Array
from .columns import fold, unfold
from .dispatch import find_route
from .plan import Ints, Padding, PaddingMode, Scalar
from .ranks import at_rank
from .routes import Site
from .separable import depthwise_operands, separable

__all__ = [
    "conv",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "depthwise_conv",
    "depthwise_conv1d",
    "depthwise_conv2d",
    "depthwise_conv3d",
    "fold",
    "separable_conv",
    "separable_conv1d",
    "separable_conv2d",
    "separable_conv3d",
    "unfold",
]

#: The names of what shapes a convolution, in the order in which calls give it.
CONV_ARGUMENTS = ("stride", "padding", "dilation", "groups", "padding_mode", "padding_value")
TRANSPOSED_ARGUMENTS = ("stride", "padding", "dilation", "groups", "padding_mode", "output_padding", "output_size")

CONV = Site("conv{}", False, "output")
CONV_TRANSPOSE = Site("conv_transpose{}", True, "output")
_DEPTHWISE_CONV = Site("depthwise_conv{}", False, "output")

Activation = str | Callable[..., Any] | tuple[Callable[..., Any], Callable[..., Any]] | None


def _conv(
    rank: int | None,
    input: object,
    weight: object,
    bias: object = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    padding_value: Scalar = 0,
    data_format: str | None = None,
    weight_format: str | None = None,
    activation: Activation = None,
    residual: object = None,
    out: Array | None = None,
    stream: object = None,
    algorithm: str | None = None,
    backend: str | None = None,
    precision: str | None = None,
    dtype: object = None,
) -> Array:
    """Convolution (cross-correlation) of an input with a weight: ``torch.nn.functional.conv{d}``, and more.

    ``activation(sum over channels and taps of input * weight + bias + residual)``, the activation applied
    as each result is stored.

    Parameters
    ----------
    input : array of shape (N, C, {spatial}), or (C, {spatial}) without a batch axis
        Any strides; never modified. For ``data_format`` channels last: (N, {spatial}, C).
    weight : array of shape (O, C / groups, {kernel})
        For channels last: ({kernel}, C / groups, O). The axis order is ``weight_format``'s.
    bias : array of shape (O,), optional
    stride : int or one int an axis
    padding : int, one int an axis, one (before, after) pair an axis, or a name
        "valid": none. "same": ceil(input / stride) outputs, the extra cell after (TensorFlow's SAME).
        "same_lower": the extra cell before. "causal": all of it before, so that no output looks ahead.
    dilation : int or one int an axis
        Input cells from one tap to the next; 1 is dense.
    groups : int
        Channel groups convolved apart; it divides C and O.
    padding_mode : str or one str an axis
        "zeros", "constant" (``padding_value``), "reflect", "replicate", "circular", "symmetric"; the
        meaning of ``numpy.pad`` (whose "edge" is "replicate", and "wrap" is "circular"), axis after axis, without
        a padded copy. SciPy's "reflect" is "symmetric", its "mirror" is "reflect".
    padding_value : number
        For ``padding_mode="constant"``.
    data_format : str, optional
        "NCHW" or "channels_first" (default), "NHWC" or "channels_last"; rank 1 NCW/NWC, rank 3 NCDHW/NDHWC.
    weight_format : str, optional
        "OIHW" (default for channels first), "HWIO" (for channels last), "OHWI", and their like at ranks 1
        and 3.
    activation : str or function, optional
        "relu", "relu6", "leaky_relu" (slope 0.01), "silu" or "swish", "gelu" (exact), "tanh", "sigmoid",
        "hardswish" or "hard_swish", or a scalar function that Numba can compile, plain or ``@njit``.
    residual : array of the output's shape, optional
    out : array of the output's shape and dtype, optional
        Written and returned. It may be ``residual``.
    stream : CUDA stream or its handle, optional
        For arrays on a device: where they are read and the result is computed, all that concerns them being done or
        in order there. Else their library's current one.
    algorithm, backend : str, optional
        Force one by name; see `numbaconv.explain` and `numbaconv.backends`.
    precision : {{"strict", "float32", "tf32"}}, optional
        "strict" computes nothing through transforms (Winograd, FFT), whose errors are relative to the largest values
        nearby: an error is then relative to what its result reads, for every dtype. "tf32" allows that float32 operands
        are rounded to TF32, with 10 bits of mantissa, as they are multiplied, where a device is faster with it; sums
        remain float32. Where nothing else says so: "float32". See `numbaconv.use_precision`.
    dtype : dtype, optional
        Of the sums and of the result, as ``dtype`` of ``numpy.sum``: float16 and bfloat16 (summed in float32), float32,
        float64, complex64, complex128, int32, int64 or uint64. Operands, bias and residual are of the same kind or of a
        lesser one (bool, unsigned, integer, floating point, complex); bool operands need it.

    Returns
    -------
    array of shape (N, O, {spatial})
        In the input's layout. float16 and bfloat16 accumulate in float32; integers of 8 bits accumulate and return
        int32, uint64 itself, others int64, and wrap there. Mixed dtypes follow ``numpy.result_type``, but uint64 with
        signed integers is refused; float16 with bfloat16 gives float32.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError
        Before any work, ``out`` untouched, with the rule and both numbers; but an ArgumentError because an
        activation raised comes at the end. A result that is larger than memory and swap is a ShapeError, unless
        ``out`` is given.
    BackendError, AlgorithmError
        If the one asked for is unknown or does not apply.

    Examples
    --------
    >>> import numpy as np, numbaconv
    >>> x = np.ones((1, 2, {fives}), np.float32)
    >>> w = np.ones((4, 2, {threes}), np.float32)
    >>> numbaconv.conv{d}(x, w, padding=1, stride=2, activation="relu").shape
    (1, 4, {threes})
    """
    values = (stride, padding, dilation, groups, padding_mode, padding_value)
    route, first, second, bias, residual = find_route(
        CONV,
        rank,
        input,
        weight,
        CONV_ARGUMENTS,
        values,
        data_format,
        weight_format,
        backend,
        algorithm,
        precision,
        bias,
        residual,
        activation,
        None,
        out,
        dtype=dtype,
    )
    return route.call(first, second, bias, residual, out, stream)


def _conv_transpose(
    rank: int | None,
    input: object,
    weight: object,
    bias: object = None,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    output_size: Ints | None = None,
    padding_mode: PaddingMode = "zeros",
    data_format: str | None = None,
    weight_format: str | None = None,
    activation: Activation = None,
    residual: object = None,
    out: Array | None = None,
    stream: object = None,
    algorithm: str | None = None,
    backend: str | None = None,
    precision: str | None = None,
    dtype: object = None,
) -> Array:
    """Transposed convolution: ``torch.nn.functional.conv_transpose{d}``, and more.

    The adjoint of the convolution with the same weight: it maps that convolution's outputs to its inputs.

    Parameters
    ----------
    input : array of shape (N, C, {spatial}), or (C, {spatial}) without a batch axis
    weight : array of shape (C, O / groups, {kernel})
        For channels last: ({kernel}, O / groups, C), as in TensorFlow. The letters of ``weight_format`` name
        the axes of the convolution that is transposed: O is this function's C.
    bias : array of shape (O,), optional
    stride, dilation : int or one int an axis
    padding : int, one int an axis, one (before, after) pair an axis, or a name
        Cells removed from the full result. "same" and "same_lower": output = input * stride.
    output_padding : int or one int an axis
        Cells added after; smaller than stride or dilation.
    groups : int
    output_size : int or one int an axis, optional
        Spatial extents of the result, instead of ``output_padding``.
    padding_mode : str or one str an axis
        The adjoint of the convolution with that mode: what falls on padding is added to the cell that the
        padding repeats. "constant" is refused: it has no adjoint.
    data_format, weight_format, activation, residual, out, stream, algorithm, backend, precision, dtype
        As in `numbaconv.conv{d}`.

    Returns
    -------
    array of shape (N, O, {spatial})
        Each extent ``(input - 1) * stride - padding before - padding after + dilation * (kernel - 1) +
        output_padding + 1``. Dtypes as in `numbaconv.conv{d}`.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError, AlgorithmError
        As in `numbaconv.conv{d}`.

    Examples
    --------
    >>> import numpy as np, numbaconv
    >>> x = np.ones((1, 2, {fives}), np.float32)
    >>> w = np.ones((2, 3, {twos}), np.float32)
    >>> numbaconv.conv_transpose{d}(x, w, stride=2).shape
    (1, 3, {tens})
    """
    values = (stride, padding, dilation, groups, padding_mode, output_padding, output_size)
    route, first, second, bias, residual = find_route(
        CONV_TRANSPOSE,
        rank,
        input,
        weight,
        TRANSPOSED_ARGUMENTS,
        values,
        data_format,
        weight_format,
        backend,
        algorithm,
        precision,
        bias,
        residual,
        activation,
        None,
        out,
        dtype=dtype,
    )
    return route.call(first, second, bias, residual, out, stream)


def _depthwise_conv(
    rank: int | None,
    input: object,
    weight: object,
    bias: object = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    padding_value: Scalar = 0,
    data_format: str | None = None,
    weight_format: str | None = None,
    activation: Activation = None,
    residual: object = None,
    out: Array | None = None,
    stream: object = None,
    algorithm: str | None = None,
    backend: str | None = None,
    precision: str | None = None,
    dtype: object = None,
) -> Array:
    """Depthwise convolution: each input channel with its own filters (``groups`` = input channels).

    Parameters
    ----------
    input : array of shape (N, C, {spatial}), or (C, {spatial}) without a batch axis
    weight : array of shape (C * multiplier, 1, {kernel})
        For channels last: ({kernel}, 1, C * multiplier), or Keras' ({kernel}, C, multiplier).
    bias : array of shape (C * multiplier,), optional
    stride, padding, dilation, padding_mode, padding_value, data_format, weight_format, activation, \
residual, out, stream, algorithm, backend, precision, dtype
        As in `numbaconv.conv{d}`.

    Returns
    -------
    array of shape (N, C * multiplier, {spatial})

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError, AlgorithmError
        As in `numbaconv.conv{d}`.

    Examples
    --------
    >>> import numpy as np, numbaconv
    >>> x = np.ones((1, 2, {fives}), np.float32)
    >>> w = np.ones((6, 1, {threes}), np.float32)
    >>> numbaconv.depthwise_conv{d}(x, w, padding="same").shape
    (1, 6, {fives})
    """
    op = f"depthwise_conv{rank}d" if rank else "depthwise_conv"
    rank, x, w, groups = depthwise_operands(op, rank, input, weight, data_format, weight_format, dtype is not None)
    values = (stride, padding, dilation, groups, padding_mode, padding_value)
    route, first, second, bias, residual = find_route(
        _DEPTHWISE_CONV,
        rank,
        x,
        w,
        CONV_ARGUMENTS,
        values,
        data_format,
        weight_format,
        backend,
        algorithm,
        precision,
        bias,
        residual,
        activation,
        None,
        out,
        dtype=dtype,
    )
    return route.call(first, second, bias, residual, out, stream)


def _separable_conv(
    rank: int | None,
    input: object,
    depthwise_weight: object,
    pointwise_weight: object,
    bias: object = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    padding_value: Scalar = 0,
    data_format: str | None = None,
    weight_format: str | None = None,
    activation: Activation = None,
    residual: object = None,
    out: Array | None = None,
    stream: object = None,
    algorithm: str | None = None,
    backend: str | None = None,
    precision: str | None = None,
    dtype: object = None,
) -> Array:
    """Depthwise-separable convolution: a depthwise one, then a pointwise (1x1) one (Chollet 2017, Xception).

    Nothing happens between the two, so that 8 bit integers, int32 after the first, return int64; bias,
    residual and activation follow the pointwise one. The meaning of ``tf.nn.separable_conv2d``.

    Parameters
    ----------
    input : array of shape (N, C, {spatial}), or (C, {spatial}) without a batch axis
    depthwise_weight : array of shape (C * multiplier, 1, {kernel})
        For channels last: ({kernel}, 1, C * multiplier), or Keras' ({kernel}, C, multiplier).
    pointwise_weight : array of shape (O, C * multiplier, {ones})
        For channels last: ({ones}, C * multiplier, O).
    bias : array of shape (O,), optional
    stride, padding, dilation, padding_mode, padding_value
        Of the depthwise convolution, as in `numbaconv.conv{d}`.
    data_format, weight_format, activation, residual, out, stream, algorithm, backend, precision, dtype
        As in `numbaconv.conv{d}`; a forced algorithm is forced on both, and ``dtype`` is that of both.

    Returns
    -------
    array of shape (N, O, {spatial})

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError, AlgorithmError
        As in `numbaconv.conv{d}`.

    Examples
    --------
    >>> import numpy as np, numbaconv
    >>> x = np.ones((1, 2, {fives}), np.float32)
    >>> depthwise, pointwise = np.ones((2, 1, {threes}), np.float32), np.ones((8, 2, {ones}), np.float32)
    >>> numbaconv.separable_conv{d}(x, depthwise, pointwise, padding="same").shape
    (1, 8, {fives})
    """
    return separable(
        rank,
        input,
        depthwise_weight,
        pointwise_weight,
        CONV_ARGUMENTS[:3] + CONV_ARGUMENTS[4:],
        (stride, padding, dilation, padding_mode, padding_value),
        data_format=data_format,
        weight_format=weight_format,
        bias=bias,
        residual=residual,
        activation=activation,
        out=out,
        stream=stream,
        backend=backend,
        algorithm=algorithm,
        precision=precision,
        dtype=dtype,
    )


conv = at_rank("conv{}", _conv, None)
conv1d = at_rank("conv{}", _conv, 1)
conv2d = at_rank("conv{}", _conv, 2)
conv3d = at_rank("conv{}", _conv, 3)
conv_transpose = at_rank("conv_transpose{}", _conv_transpose, None)
conv_transpose1d = at_rank("conv_transpose{}", _conv_transpose, 1)
conv_transpose2d = at_rank("conv_transpose{}", _conv_transpose, 2)
conv_transpose3d = at_rank("conv_transpose{}", _conv_transpose, 3)
depthwise_conv = at_rank("depthwise_conv{}", _depthwise_conv, None)
depthwise_conv1d = at_rank("depthwise_conv{}", _depthwise_conv, 1)
depthwise_conv2d = at_rank("depthwise_conv{}", _depthwise_conv, 2)
depthwise_conv3d = at_rank("depthwise_conv{}", _depthwise_conv, 3)
separable_conv = at_rank("separable_conv{}", _separable_conv, None)
separable_conv1d = at_rank("separable_conv{}", _separable_conv, 1)
separable_conv2d = at_rank("separable_conv{}", _separable_conv, 2)
separable_conv3d = at_rank("separable_conv{}", _separable_conv, 3)
