"""Convolutions and transposed convolutions with Keras' constructor arguments."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...border import bordered
from ...errors import ArgumentError
from ...functional import Activation
from ...plan import Ints, layer_weight_shape
from ...plan.arguments import integers
from ...plan.axis import kernel_extent
from ..core import ConvCore
from ..initial import Seed
from .built import Built, Fill

__all__ = ["Conv1D", "Conv1DTranspose", "Conv2D", "Conv2DTranspose", "Conv3D", "Conv3DTranspose"]


class _Conv(Built, ConvCore):
    """Convolution as a layer: ``keras.layers.{name}``.

    Parameters
    ----------
    filters : int
    kernel_size, strides, dilation_rate : int or one int an axis
    padding : str
        "valid", "same" or "causal"; also what `numbaconv.conv{d}` takes.
    data_format : str, optional
        "channels_last" unless given. The kernel is ({kernel}, C / groups, filters) in either.
    groups : int
    activation : str, function or (function, derivative), optional
        A name of Keras' (whose leaky_relu has a slope of 0.2), or as in `numbaconv.conv{d}`.
    use_bias : bool
    dtype : dtype
        Of the parameters: float16, bfloat16, float32 or float64.
    seed : int or numpy.random.Generator, optional
        What the kernel is drawn from: Glorot uniform, as Keras'. A bias begins with zeros.
    backend, precision : str, optional
        As in `numbaconv.conv{d}`.

    Raises
    ------
    ArgumentError, DTypeError, BackendError
        For what is wrong whatever the input.

    Examples
    --------
    >>> import numpy as np
    >>> from numbaconv.layers.keras import {name}
    >>> layer = {name}(4, 3, padding="same", activation="relu", seed=0)
    >>> y = layer(np.ones((1, {fives}, 2), np.float32))
    >>> layer.backward(np.ones_like(y)).shape, layer.weight_grad.shape
    ((1, {fives}, 2), ({threes}, 2, 4))
    """

    @bordered
    def __init__(
        self,
        filters: int,
        kernel_size: Ints,
        strides: Ints = 1,
        padding: Any = "valid",
        data_format: str | None = None,
        dilation_rate: Ints = 1,
        groups: int = 1,
        activation: Activation = None,
        use_bias: bool = True,
        *,
        dtype: Any = np.float32,
        seed: Seed = None,
        backend: str | None = None,
        precision: str | None = None,
    ):
        self._begin(kernel_size, activation, data_format, use_bias, dtype, seed, backend, precision)
        layer_weight_shape(self._op, groups, filters, self.kernel_size, groups, self.rank)
        self.filters = filters
        self._settle(stride=strides, padding=padding, dilation=dilation_rate, groups=groups)

    def _make(self, channels: int, weights: Fill, biases: Fill) -> None:
        groups = self._arguments["groups"]
        outer = layer_weight_shape(self._op, channels, self.filters, self.kernel_size, groups, self.rank)
        self.weight = weights((*outer[2:], outer[1], outer[0]))
        self.bias = biases((self.filters,)) if self.use_bias else None
        self._in_channels = channels


class _ConvTranspose(Built, ConvCore):
    """Transposed convolution as a layer: ``keras.layers.{name}``.

    Parameters
    ----------
    filters : int
    kernel_size, strides, dilation_rate : int or one int an axis
    padding : {{"valid", "same"}}
        "same": output = input * strides.
    output_padding : int or one int an axis, optional
        The output has ``(input - 1) * strides + extent + output_padding`` cells for "valid", and for "same"
        ``(input - 1) * strides + extent % 2 + output_padding``, for a dilated kernel's extent.
    data_format, activation, use_bias, dtype, seed, backend, precision
        As in `numbaconv.layers.keras.Conv{rank}D`. The kernel is ({kernel}, filters, C).

    Raises
    ------
    ArgumentError, DTypeError, BackendError
        For what is wrong whatever the input.

    Examples
    --------
    >>> import numpy as np
    >>> from numbaconv.layers.keras import {name}
    >>> layer = {name}(4, 3, strides=2, padding="same", seed=0)
    >>> layer(np.ones((1, {fives}, 2), np.float32)).shape, layer.weight.shape
    ((1, {tens}, 4), ({threes}, 4, 2))
    """

    transposed = True

    @bordered
    def __init__(
        self,
        filters: int,
        kernel_size: Ints,
        strides: Ints = 1,
        padding: str = "valid",
        output_padding: Ints | None = None,
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
        layer_weight_shape(self._op, 1, filters, self.kernel_size, 1, self.rank)
        self.filters = filters
        self._settle(stride=strides, padding=padding, dilation=dilation_rate, output_padding=0)
        if padding not in ("valid", "same"):
            raise ArgumentError(f"{self._op}: padding is {padding!r}, but must be 'valid' or 'same'")
        if output_padding is not None or padding == "valid":
            extra = output_padding
            if extra is not None:
                extra = integers(self._op, "output_padding", output_padding, self.rank, 0)
            self._settle_padding(padding, extra)

    def _settle_padding(self, padding: str, output_padding: tuple[int, ...] | None) -> None:
        """Keras' rule of extents as cells removed before and after, or added after."""
        strides, dilation = self._arguments["stride"], self._arguments["dilation"]
        pairs, added = [], []
        for axis, (taps, step, stride) in enumerate(zip(self.kernel_size, dilation, strides, strict=True)):
            extent = kernel_extent(taps, step)
            if output_padding is None:
                removed = min(extent - stride, 0)
            elif padding == "valid":
                removed = -output_padding[axis]
            else:
                removed = extent - extent % 2 - output_padding[axis]
            before = max(removed, 0) // 2
            pairs.append((before, max(removed, 0) - before))
            added.append(max(-removed, 0))
        self._settle(stride=strides, padding=tuple(pairs), dilation=dilation, output_padding=tuple(added))

    def _make(self, channels: int, weights: Fill, biases: Fill) -> None:
        outer = layer_weight_shape(self._op, channels, self.filters, self.kernel_size, 1, self.rank, transposed=True)
        self.weight = weights((*outer[2:], outer[1], outer[0]))
        self.bias = biases((self.filters,)) if self.use_bias else None
        self._in_channels = channels


class Conv1D(_Conv):
    rank = 1


class Conv2D(_Conv):
    rank = 2


class Conv3D(_Conv):
    rank = 3


class Conv1DTranspose(_ConvTranspose):
    rank = 1


class Conv2DTranspose(_ConvTranspose):
    rank = 2


class Conv3DTranspose(_ConvTranspose):
    rank = 3

    @bordered
    def __init__(
        self,
        filters: int,
        kernel_size: Ints,
        strides: Ints = 1,
        padding: str = "valid",
        data_format: str | None = None,  # before output_padding, in Keras too: there alone
        output_padding: Ints | None = None,
        dilation_rate: Ints = 1,
        activation: Activation = None,
        use_bias: bool = True,
        **options: Any,
    ):
        geometry = (strides, padding, output_padding, data_format, dilation_rate)
        super().__init__(filters, kernel_size, *geometry, activation, use_bias, **options)
