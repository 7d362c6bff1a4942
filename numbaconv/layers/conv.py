"""Layers with the constructor arguments and initial parameters of ``torch.nn``."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..arrays import Array
from ..border import bordered
from ..errors import ArgumentError
from ..functional import Activation
from ..plan import Geometry, Ints, Padding, PaddingMode, layer_weight_shape
from ..plan.layout import is_channels_last
from .core import ConvCore, SeparableCore
from .initial import Seed, fan_in_uniform, parameter_dtype

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "SeparableConv1d",
    "SeparableConv2d",
    "SeparableConv3d",
]

#: PyTorch's order of a weight's axes, which a layer keeps whatever the order of its data.
_WEIGHT_FORMAT = {1: "OIW", 2: "OIHW", 3: "OIDHW"}


def _parameters(
    seed: Seed, weights: list[tuple[int, ...]], bias: int, dtype: np.dtype
) -> tuple[list[Array], Array | None]:
    """PyTorch's initial weights, and a bias (of no elements: none) for the last of them."""
    rng = np.random.default_rng(seed)
    fans = [prod(shape[1:]) for shape in weights]
    found = [fan_in_uniform(rng, shape, fan, dtype) for shape, fan in zip(weights, fans, strict=True)]
    return found, fan_in_uniform(rng, (bias,), fans[-1], dtype) if bias else None


def _described(layer: Any) -> str:
    """A layer as its constructor would be called."""
    parts = [str(layer.in_channels), str(layer.out_channels), f"kernel_size={layer.kernel_size}"]
    usual = Geometry.of(layer._op, layer.rank)
    for name, value in layer._arguments.items():
        if value != getattr(usual, name):
            parts.append(f"{name}={value!r}")
    if layer.bias is None:
        parts.append("bias=False")
    if layer.activation is not None:
        parts.append(f"activation={layer.activation!r}")
    return f"{layer._op}({', '.join(parts)})"


class _Conv(ConvCore):
    """Convolution as a layer: ``torch.nn.{name}``.

    Call it, then give `backward` the gradient by its output: the gradient by its input is returned, those by its
    parameters are in ``weight_grad`` and ``bias_grad``, replaced by each `backward`.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or one int an axis
    stride, padding, dilation, groups, padding_mode
        As in `numbaconv.conv{d}`.
    bias : bool
    dtype : dtype
        Of the parameters: float16, bfloat16, float32 or float64.
    seed : int or numpy.random.Generator, optional
        What initial parameters are drawn from: uniform in +-1 / sqrt(fan in), as PyTorch's.
    activation : str, function or (function, derivative), optional
        As in `numbaconv.conv{d}`; `backward` needs a derivative.
    data_format : str, optional
        As in `numbaconv.conv{d}`. The weight keeps PyTorch's order of axes, (O, C / groups, {kernel}).
    backend, precision : str, optional
        As in `numbaconv.conv{d}`.

    Raises
    ------
    ArgumentError, DTypeError, BackendError
        For what is wrong whatever the input.

    Examples
    --------
    >>> import numpy as np
    >>> from numbaconv.layers import {name}
    >>> layer = {name}(2, 4, 3, padding=1, activation="relu", seed=0)
    >>> y = layer(np.ones((1, 2, {fives}), np.float32))
    >>> layer.backward(np.ones_like(y)).shape, layer.weight_grad.shape
    ((1, 2, {fives}), (4, 2, {threes}))
    """

    @bordered
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        dtype: Any = np.float32,
        seed: Seed = None,
        activation: Activation = None,
        data_format: str | None = None,
        backend: str | None = None,
        precision: str | None = None,
    ):
        super().__init__(activation, data_format, _WEIGHT_FORMAT[self.rank], backend, precision)
        shape = layer_weight_shape(self._op, in_channels, out_channels, kernel_size, groups, self.rank)
        self._settle(stride=stride, padding=padding, dilation=dilation, groups=groups, padding_mode=padding_mode)
        self.kernel_size = shape[2:]
        self.in_channels, self.out_channels = shape[1] * self._arguments["groups"], shape[0]
        drawn = _parameters(seed, [shape], shape[0] if bias else 0, parameter_dtype(self._op, dtype))
        (self.weight,), self.bias = drawn

    def __repr__(self) -> str:
        return _described(self)


class _ConvTranspose(ConvCore):
    """Transposed convolution as a layer: ``torch.nn.{name}``.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or one int an axis
    stride, padding, output_padding, groups, dilation, padding_mode
        As in `numbaconv.conv_transpose{d}`.
    bias, dtype, seed, activation, data_format, backend, precision
        As in `numbaconv.layers.Conv{d}`. The weight is (C, O / groups, {kernel}), and the fan in of its initial
        values is PyTorch's: that of its second axis.

    Raises
    ------
    ArgumentError, DTypeError, BackendError
        For what is wrong whatever the input.

    Examples
    --------
    >>> import numpy as np
    >>> from numbaconv.layers import {name}
    >>> layer = {name}(2, 4, 2, stride=2, seed=0)
    >>> y = layer(np.ones((1, 2, {fives}), np.float32))
    >>> y.shape, layer.backward(np.ones_like(y)).shape, layer.weight_grad.shape
    ((1, 4, {tens}), (1, 2, {fives}), (2, 4, {twos}))
    """

    transposed = True

    @bordered
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        output_padding: Ints = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Ints = 1,
        padding_mode: PaddingMode = "zeros",
        *,
        dtype: Any = np.float32,
        seed: Seed = None,
        activation: Activation = None,
        data_format: str | None = None,
        backend: str | None = None,
        precision: str | None = None,
    ):
        super().__init__(activation, data_format, _WEIGHT_FORMAT[self.rank], backend, precision)
        shape = layer_weight_shape(self._op, in_channels, out_channels, kernel_size, groups, self.rank, transposed=True)
        self._settle(
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            groups=groups,
            dilation=dilation,
            padding_mode=padding_mode,
        )
        self.kernel_size = shape[2:]
        self.in_channels, self.out_channels = shape[0], shape[1] * self._arguments["groups"]
        drawn = _parameters(seed, [shape], self.out_channels if bias else 0, parameter_dtype(self._op, dtype))
        (self.weight,), self.bias = drawn

    def __call__(self, input: object, output_size: Ints | None = None) -> Array:
        """The layer's output, as any layer's.

        Parameters
        ----------
        input : array of shape (N, C, *spatial), or (C, *spatial) without a batch axis
        output_size : one int an axis, or the output's whole shape, optional
            Instead of the layer's ``output_padding``.

        Returns
        -------
        array

        Raises
        ------
        ShapeError, ArgumentError, DTypeError, BackendError
            As `numbaconv.conv_transpose`.
        """
        if output_size is None:
            return self._called(input)
        extents = output_size
        if np.ndim(output_size) == 1 and np.size(output_size) == np.ndim(input):  # type: ignore[arg-type]
            whole = tuple(np.asarray(output_size).tolist())
            last = is_channels_last(self._op, self.rank, self._formats["data_format"])
            extents = whole[-1 - self.rank : -1] if last else whole[-self.rank :]
        return self._called(input, output_padding=0, output_size=extents)

    def __repr__(self) -> str:
        return _described(self)


class _SeparableConv(SeparableCore):
    """Depthwise-separable convolution as a layer: two modules ``depthwise`` and ``pointwise`` of ``torch.nn``, in one.

    Nothing happens between the two; bias and activation follow the second. On the CPU both run piece by piece where
    that is faster.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or one int an axis
        The depthwise convolution's; the other has one tap.
    stride, padding, dilation, padding_mode
        The depthwise convolution's, as in `numbaconv.separable_conv{d}`.
    depth_multiplier : int
        Channels that the depthwise convolution makes of each.
    bias, dtype, seed, activation, data_format, backend, precision
        As in `numbaconv.layers.Conv{d}`. The weights are (C * multiplier, 1, {kernel}) and (O, C * multiplier, {ones}).

    Raises
    ------
    ArgumentError, DTypeError, BackendError
        For what is wrong whatever the input.

    Examples
    --------
    >>> import numpy as np
    >>> from numbaconv.layers import {name}
    >>> layer = {name}(2, 8, 3, padding="same", seed=0)
    >>> y = layer(np.ones((1, 2, {fives}), np.float32))
    >>> layer.backward(np.ones_like(y)).shape, list(layer.gradients())
    ((1, 2, {fives}), ['depthwise.weight', 'pointwise.weight', 'pointwise.bias'])
    """

    @bordered
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        depth_multiplier: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        dtype: Any = np.float32,
        seed: Seed = None,
        activation: Activation = None,
        data_format: str | None = None,
        backend: str | None = None,
        precision: str | None = None,
    ):
        super().__init__(activation, data_format, _WEIGHT_FORMAT[self.rank], backend, precision)
        op = self._op
        if depth_multiplier < 1:
            raise ArgumentError(f"{op}: depth_multiplier must be at least 1, but is {depth_multiplier}")
        between = in_channels * depth_multiplier
        depthwise = layer_weight_shape(op, in_channels, between, kernel_size, in_channels, self.rank)
        pointwise = layer_weight_shape(op, between, out_channels, 1, 1, self.rank)
        self._settle(stride=stride, padding=padding, dilation=dilation, padding_mode=padding_mode)
        self.kernel_size = depthwise[2:]
        self.in_channels, self.out_channels, self._channels = in_channels, pointwise[0], in_channels
        drawn = _parameters(seed, [depthwise, pointwise], pointwise[0] if bias else 0, parameter_dtype(op, dtype))
        (self.depthwise_weight, self.pointwise_weight), self.bias = drawn

    def __repr__(self) -> str:
        return _described(self)


class Conv1d(_Conv):
    rank = 1


class Conv2d(_Conv):
    rank = 2


class Conv3d(_Conv):
    rank = 3


class ConvTranspose1d(_ConvTranspose):
    rank = 1


class ConvTranspose2d(_ConvTranspose):
    rank = 2


class ConvTranspose3d(_ConvTranspose):
    rank = 3


class SeparableConv1d(_SeparableConv):
    rank = 1


class SeparableConv2d(_SeparableConv):
    rank = 2


class SeparableConv3d(_SeparableConv):
    rank = 3
