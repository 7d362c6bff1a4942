"""Depthwise and depthwise-separable convolutions with Keras' constructor arguments."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...border import bordered
from ...functional import Activation
from ...plan import Ints, layer_weight_shape
from ...plan.arguments import integers
from ..core import ConvCore, SeparableCore
from ..initial import Seed
from .built import Built, Fill

__all__ = ["DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"]


class _DepthwiseConv(Built, ConvCore):
    """Depthwise convolution as a layer: ``keras.layers.{name}``.

    Parameters
    ----------
    kernel_size, strides, dilation_rate : int or one int an axis
    padding : str
    depth_multiplier : int
        Output channels of each input channel.
    data_format, activation, use_bias, dtype, seed, backend, precision
        As in `numbaconv.layers.keras.Conv{rank}D`. Keras' kernel, ({kernel}, C, multiplier), is ``weight`` in the form
        of a convolution with a group for each channel, ({kernel}, 1, C * multiplier): the same memory.

    Raises
    ------
    ArgumentError, DTypeError, BackendError
        For what is wrong whatever the input.

    Examples
    --------
    >>> import numpy as np
    >>> from numbaconv.layers.keras import {name}
    >>> layer = {name}(3, padding="same", depth_multiplier=2, seed=0)
    >>> layer(np.ones((1, {fives}, 2), np.float32)).shape, layer.get_weights()[0].shape
    ((1, {fives}, 4), ({threes}, 2, 2))
    """

    _depthwise_attribute = "weight"

    @bordered
    def __init__(
        self,
        kernel_size: Ints,
        strides: Ints = 1,
        padding: Any = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Ints = 1,
        activation: Activation = None,
        use_bias: bool = True,
        *,
        dtype: Any = np.float32,
        seed: Seed = None,
        backend: str | None = None,
        precision: str | None = None,
    ):
        self._begin(kernel_size, activation, data_format, use_bias, dtype, seed, backend, precision)
        (self.depth_multiplier,) = integers(self._op, "depth_multiplier", depth_multiplier, 1, 1)
        self._settle(stride=strides, padding=padding, dilation=dilation_rate)

    def _make(self, channels: int, weights: Fill, biases: Fill) -> None:
        filters = channels * self.depth_multiplier
        outer = layer_weight_shape(self._op, channels, filters, self.kernel_size, channels, self.rank)
        # Drawn in Keras' shape, by whose axes it counts the fans.
        self.weight = weights((*outer[2:], channels, self.depth_multiplier)).reshape(*outer[2:], 1, filters)
        self.bias = biases((filters,)) if self.use_bias else None
        self._arguments = {**self._arguments, "groups": channels}
        self._in_channels = channels


class _SeparableConv(Built, SeparableCore):
    """Depthwise-separable convolution as a layer: ``keras.layers.{name}``.

    Parameters
    ----------
    filters : int
    kernel_size, strides, dilation_rate : int or one int an axis
    padding : str
    depth_multiplier : int
        Channels between the two convolutions for each input channel.
    data_format, activation, use_bias, dtype, seed, backend, precision
        As in `numbaconv.layers.keras.Conv{rank}D`. Keras' depthwise kernel, ({kernel}, C, multiplier), is
        ``depthwise_weight`` in the form of a convolution, ({kernel}, 1, C * multiplier): the same memory.

    Raises
    ------
    ArgumentError, DTypeError, BackendError
        For what is wrong whatever the input.

    Examples
    --------
    >>> import numpy as np
    >>> from numbaconv.layers.keras import {name}
    >>> layer = {name}(8, 3, padding="same", seed=0)
    >>> layer(np.ones((1, {fives}, 2), np.float32)).shape, [each.shape for each in layer.get_weights()]
    ((1, {fives}, 8), [({threes}, 2, 1), ({ones}, 2, 8), (8,)])
    """

    _depthwise_attribute = "depthwise_weight"

    @bordered
    def __init__(
        self,
        filters: int,
        kernel_size: Ints,
        strides: Ints = 1,
        padding: Any = "valid",
        data_format: str | None = None,
        dilation_rate: Ints = 1,
        depth_multiplier: int = 1,
        activation: Activation = None,
        use_bias: bool = True,
        *,
        dtype: Any = np.float32,
        seed: Seed = None,
        backend: str | None = None,
        precision: str | None = None,
    ):
        self._begin(kernel_size, activation, data_format, use_bias, dtype, seed, backend, precision)
        (self.depth_multiplier,) = integers(self._op, "depth_multiplier", depth_multiplier, 1, 1)
        layer_weight_shape(self._op, 1, filters, 1, 1, self.rank)
        self.filters = filters
        self._settle(stride=strides, padding=padding, dilation=dilation_rate)

    def _make(self, channels: int, weights: Fill, biases: Fill) -> None:
        between, ones = channels * self.depth_multiplier, (1,) * self.rank
        layer_weight_shape(self._op, channels, between, self.kernel_size, channels, self.rank)
        drawn = weights((*self.kernel_size, channels, self.depth_multiplier))
        self.depthwise_weight = drawn.reshape(*self.kernel_size, 1, between)
        self.pointwise_weight = weights((*ones, between, self.filters))
        self.bias = biases((self.filters,)) if self.use_bias else None
        self._channels = self._in_channels = channels


class DepthwiseConv1D(_DepthwiseConv):
    rank = 1


class DepthwiseConv2D(_DepthwiseConv):
    rank = 2


class SeparableConv1D(_SeparableConv):
    rank = 1


class SeparableConv2D(_SeparableConv):
    rank = 2
