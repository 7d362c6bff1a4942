"""Gradients of convolutions, with the names and meaning of ``torch.nn.grad``.

For complex operands the gradients are PyTorch's: by the conjugate (Wirtinger), so that
``<conv(x, w), g> = <x, conv_input(g, w)>`` holds for the complex inner product.
"""

from __future__ import annotations

from typing import Unpack

from .arrays import Array
from .backward import (
    BiasOptions,
    ConvBackwardOptions,
    ConvGradients,
    ConvGradOptions,
    TransposedBackwardOptions,
    TransposedGradOptions,
    backward,
    bias_gradient,
    gradient,
)
from .plan import Ints, Padding
from .ranks import at_rank
from .routes import Site

__all__ = [
    "ConvGradients",
    "conv1d_backward",
    "conv1d_bias",
    "conv1d_input",
    "conv1d_weight",
    "conv2d_backward",
    "conv2d_bias",
    "conv2d_input",
    "conv2d_weight",
    "conv3d_backward",
    "conv3d_bias",
    "conv3d_input",
    "conv3d_weight",
    "conv_transpose1d_backward",
    "conv_transpose1d_bias",
    "conv_transpose1d_input",
    "conv_transpose1d_weight",
    "conv_transpose2d_backward",
    "conv_transpose2d_bias",
    "conv_transpose2d_input",
    "conv_transpose2d_weight",
    "conv_transpose3d_backward",
    "conv_transpose3d_bias",
    "conv_transpose3d_input",
    "conv_transpose3d_weight",
]

#: The names of what shapes a convolution, in the order in which calls give it.
_CONV_ARGUMENTS = ("stride", "padding", "dilation", "groups")
_TRANSPOSED_ARGUMENTS = ("stride", "padding", "output_padding", "groups", "dilation")

_CONV_INPUT = Site("conv{}_input", False, "input")
_CONV_WEIGHT = Site("conv{}_weight", False, "weight")
_CONV_BACKWARD = Site("conv{}_backward", False, "input"), Site("conv{}_backward", False, "weight")
_CONV_TRANSPOSE_INPUT = Site("conv_transpose{}_input", True, "input")
_CONV_TRANSPOSE_WEIGHT = Site("conv_transpose{}_weight", True, "weight")
_CONV_TRANSPOSE_BACKWARD = (
    Site("conv_transpose{}_backward", True, "input"),
    Site("conv_transpose{}_backward", True, "weight"),
)


def _conv_input(
    rank: int | None,
    input_size: Ints,
    weight: object,
    grad_output: object,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    **options: Unpack[ConvGradOptions],
) -> Array:
    """Gradient of `numbaconv.conv{d}` by its input: ``torch.nn.grad.conv{d}_input``.

    Parameters
    ----------
    input_size : shape of the input, (N, C, {spatial})
    weight : array of shape (O, C / groups, {kernel})
    grad_output : array of the output's shape
        Gradient by the output.
    stride, padding, dilation, groups, padding_mode, padding_value, data_format, weight_format
        As in the forward call.
    activation : str or (function, derivative), optional
        As in the forward call; a function comes with its derivative by the pre-activation.
    pre_activation, output : array of the output's shape, optional
        What the forward call saved: one of them is needed with an activation. From ``output`` alone the
        derivatives of relu, relu6, leaky_relu, tanh and sigmoid are known.
    out : array of the input's shape and the result's dtype, optional
    stream, algorithm, backend, precision, dtype
        As in the forward call.

    Returns
    -------
    array of shape ``input_size``

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError, AlgorithmError
        As in the forward call; also if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> from numbaconv import grad
    >>> w, g = np.ones((4, 2, {threes}), np.float32), np.ones((1, 4, {threes}), np.float32)
    >>> grad.conv{rank}d_input((1, 2, {fives}), w, g).shape
    (1, 2, {fives})
    """
    return gradient(
        _CONV_INPUT,
        rank,
        weight,
        grad_output,
        input_size,
        _CONV_ARGUMENTS,
        (stride, padding, dilation, groups),
        **options,
    )


def _conv_weight(
    rank: int | None,
    input: object,
    weight_size: Ints,
    grad_output: object,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    **options: Unpack[ConvGradOptions],
) -> Array:
    """Gradient of `numbaconv.conv{d}` by its weight: ``torch.nn.grad.conv{d}_weight``.

    Parameters
    ----------
    input : array of shape (N, C, {spatial})
    weight_size : shape of the weight, in the order of ``weight_format``
    grad_output : array of the output's shape
    stride, padding, dilation, groups, padding_mode, padding_value, data_format, weight_format, activation, \
pre_activation, output, stream, algorithm, backend, precision, dtype
        As in `numbaconv.grad.conv{rank}d_input`.
    out : array of the weight's shape and the result's dtype, optional

    Returns
    -------
    array of shape ``weight_size``

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError, AlgorithmError
        As in the forward call; also if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> from numbaconv import grad
    >>> x, g = np.ones((1, 2, {fives}), np.float32), np.ones((1, 4, {threes}), np.float32)
    >>> grad.conv{rank}d_weight(x, (4, 2, {threes}), g).shape
    (4, 2, {threes})
    """
    return gradient(
        _CONV_WEIGHT,
        rank,
        input,
        grad_output,
        weight_size,
        _CONV_ARGUMENTS,
        (stride, padding, dilation, groups),
        **options,
    )


def _conv_transpose_input(
    rank: int | None,
    input_size: Ints,
    weight: object,
    grad_output: object,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    **options: Unpack[TransposedGradOptions],
) -> Array:
    """Gradient of `numbaconv.conv_transpose{d}` by its input, which is a convolution.

    Parameters
    ----------
    input_size : shape of the input, (N, C, {spatial})
    weight : array of shape (C, O / groups, {kernel})
    grad_output : array of the output's shape
    stride, padding, output_padding, groups, dilation, output_size, padding_mode, data_format, weight_format
        As in the forward call.
    activation, pre_activation, output, out, stream, algorithm, backend, precision, dtype
        As in `numbaconv.grad.conv{rank}d_input`.

    Returns
    -------
    array of shape ``input_size``

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError, AlgorithmError
        As in the forward call; also if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> from numbaconv import grad
    >>> w, g = np.ones((2, 4, {twos}), np.float32), np.ones((1, 4, {tens}), np.float32)
    >>> grad.conv_transpose{rank}d_input((1, 2, {fives}), w, g, stride=2).shape
    (1, 2, {fives})
    """
    return gradient(
        _CONV_TRANSPOSE_INPUT,
        rank,
        weight,
        grad_output,
        input_size,
        _TRANSPOSED_ARGUMENTS,
        (stride, padding, output_padding, groups, dilation),
        **options,
    )


def _conv_transpose_weight(
    rank: int | None,
    input: object,
    weight_size: Ints,
    grad_output: object,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    **options: Unpack[TransposedGradOptions],
) -> Array:
    """Gradient of `numbaconv.conv_transpose{d}` by its weight.

    Parameters
    ----------
    input : array of shape (N, C, {spatial})
    weight_size : shape of the weight, in the order of ``weight_format``
    grad_output : array of the output's shape
    stride, padding, output_padding, groups, dilation, output_size, padding_mode, data_format, weight_format
        As in the forward call.
    activation, pre_activation, output, out, stream, algorithm, backend, precision, dtype
        As in `numbaconv.grad.conv{rank}d_weight`.

    Returns
    -------
    array of shape ``weight_size``

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError, AlgorithmError
        As in the forward call; also if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> from numbaconv import grad
    >>> x, g = np.ones((1, 2, {fives}), np.float32), np.ones((1, 4, {tens}), np.float32)
    >>> grad.conv_transpose{rank}d_weight(x, (2, 4, {twos}), g, stride=2).shape
    (2, 4, {twos})
    """
    return gradient(
        _CONV_TRANSPOSE_WEIGHT,
        rank,
        input,
        grad_output,
        weight_size,
        _TRANSPOSED_ARGUMENTS,
        (stride, padding, output_padding, groups, dilation),
        **options,
    )


def _conv_bias(rank: int | None, grad_output: object, **options: Unpack[BiasOptions]) -> Array:
    """Gradient of a rank-{rank} convolution, transposed or not, by its bias: the sum over all but channels.

    Parameters
    ----------
    grad_output : array of shape (N, O, {spatial}), or (O, {spatial})
        For ``data_format`` channels last: (N, {spatial}, O).
    data_format, activation, pre_activation, output, stream, backend
        As in `numbaconv.grad.conv{rank}d_input`.

    Returns
    -------
    array of shape (O,)
        Summed in double precision; integers return int32 or int64, as convolutions do.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError
        As in the forward call.

    Examples
    --------
    >>> import numpy as np
    >>> from numbaconv import grad
    >>> grad.{name}(np.ones((2, 3, {ones}), np.float32))
    array([2., 2., 2.], dtype=float32)
    """
    return bias_gradient("conv{}_bias", rank, grad_output, **options)


def _conv_transpose_bias(rank: int | None, grad_output: object, **options: Unpack[BiasOptions]) -> Array:
    return bias_gradient("conv_transpose{}_bias", rank, grad_output, **options)


_conv_transpose_bias.__doc__ = _conv_bias.__doc__


def _conv_backward(
    rank: int | None,
    grad_output: object,
    input: object,
    weight: object,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    **options: Unpack[ConvBackwardOptions],
) -> ConvGradients:
    """All gradients of `numbaconv.conv{d}`: ``torch.ops.aten.convolution_backward``.

    Parameters
    ----------
    grad_output : array of the output's shape
    input : array of shape (N, C, {spatial})
    weight : array of shape (O, C / groups, {kernel})
    stride, padding, dilation, groups, padding_mode, padding_value, data_format, weight_format, activation, \
pre_activation, output, stream, algorithm, backend, precision, dtype
        As in `numbaconv.grad.conv{rank}d_input`; the activation's derivative is taken once.
    output_mask : three bools
        Which of the gradients by input, weight and bias to compute.

    Returns
    -------
    ConvGradients
        ``input``, ``weight``, ``bias``. The gradient by a residual is the pre-activation's.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError, AlgorithmError
        As in the forward call; also if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> from numbaconv import conv{rank}d, grad
    >>> x, w = np.ones((1, 2, {fives}), np.float32), np.ones((4, 2, {threes}), np.float32)
    >>> y = conv{rank}d(x, w, activation="relu")
    >>> gradients = grad.conv{rank}d_backward(np.ones_like(y), x, w, activation="relu", output=y)
    >>> gradients.input.shape, gradients.weight.shape, gradients.bias.shape
    ((1, 2, {fives}), (4, 2, {threes}), (4,))
    """
    return backward(
        *_CONV_BACKWARD,
        rank,
        grad_output,
        input,
        weight,
        _CONV_ARGUMENTS,
        (stride, padding, dilation, groups),
        **options,
    )


def _conv_transpose_backward(
    rank: int | None,
    grad_output: object,
    input: object,
    weight: object,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    **options: Unpack[TransposedBackwardOptions],
) -> ConvGradients:
    """All gradients of `numbaconv.conv_transpose{d}`.

    Parameters
    ----------
    grad_output : array of the output's shape
    input : array of shape (N, C, {spatial})
    weight : array of shape (C, O / groups, {kernel})
    stride, padding, output_padding, groups, dilation, output_size, padding_mode, data_format, \
weight_format, activation, pre_activation, output, stream, algorithm, backend, precision, dtype
        As in `numbaconv.grad.conv_transpose{rank}d_input`; the activation's derivative is taken once.
    output_mask : three bools
        Which of the gradients by input, weight and bias to compute.

    Returns
    -------
    ConvGradients
        ``input``, ``weight``, ``bias``.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError, AlgorithmError
        As in the forward call; also if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> from numbaconv import grad
    >>> x, w = np.ones((1, 2, {fives}), np.float32), np.ones((2, 4, {twos}), np.float32)
    >>> gradients = grad.conv_transpose{rank}d_backward(np.ones((1, 4, {tens}), np.float32), x, w, stride=2)
    >>> gradients.input.shape, gradients.weight.shape, gradients.bias.shape
    ((1, 2, {fives}), (2, 4, {twos}), (4,))
    """
    return backward(
        *_CONV_TRANSPOSE_BACKWARD,
        rank,
        grad_output,
        input,
        weight,
        _TRANSPOSED_ARGUMENTS,
        (stride, padding, output_padding, groups, dilation),
        **options,
    )


conv1d_input = at_rank("conv{}_input", _conv_input, 1)
conv2d_input = at_rank("conv{}_input", _conv_input, 2)
conv3d_input = at_rank("conv{}_input", _conv_input, 3)
conv1d_weight = at_rank("conv{}_weight", _conv_weight, 1)
conv2d_weight = at_rank("conv{}_weight", _conv_weight, 2)
conv3d_weight = at_rank("conv{}_weight", _conv_weight, 3)
conv1d_bias = at_rank("conv{}_bias", _conv_bias, 1)
conv2d_bias = at_rank("conv{}_bias", _conv_bias, 2)
conv3d_bias = at_rank("conv{}_bias", _conv_bias, 3)
conv1d_backward = at_rank("conv{}_backward", _conv_backward, 1)
conv2d_backward = at_rank("conv{}_backward", _conv_backward, 2)
conv3d_backward = at_rank("conv{}_backward", _conv_backward, 3)
conv_transpose1d_input = at_rank("conv_transpose{}_input", _conv_transpose_input, 1)
conv_transpose2d_input = at_rank("conv_transpose{}_input", _conv_transpose_input, 2)
conv_transpose3d_input = at_rank("conv_transpose{}_input", _conv_transpose_input, 3)
conv_transpose1d_weight = at_rank("conv_transpose{}_weight", _conv_transpose_weight, 1)
conv_transpose2d_weight = at_rank("conv_transpose{}_weight", _conv_transpose_weight, 2)
conv_transpose3d_weight = at_rank("conv_transpose{}_weight", _conv_transpose_weight, 3)
conv_transpose1d_bias = at_rank("conv_transpose{}_bias", _conv_transpose_bias, 1)
conv_transpose2d_bias = at_rank("conv_transpose{}_bias", _conv_transpose_bias, 2)
conv_transpose3d_bias = at_rank("conv_transpose{}_bias", _conv_transpose_bias, 3)
conv_transpose1d_backward = at_rank("conv_transpose{}_backward", _conv_transpose_backward, 1)
conv_transpose2d_backward = at_rank("conv_transpose{}_backward", _conv_transpose_backward, 2)
conv_transpose3d_backward = at_rank("conv_transpose{}_backward", _conv_transpose_backward, 3)
