"""What Keras-style layers share: parameters made at the first call, Keras' names of activations, order of weights."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ...arrays import Array
from ...border import bordered
from ...errors import ArgumentError, ShapeError
from ...functional import Activation
from ...plan import Ints, check_axes
from ...plan.arguments import integers, shape
from ...plan.axis import kernel_extent
from ...plan.layout import is_channels_last
from ..base import Layer
from ..initial import Seed, glorot_uniform, parameter_dtype

__all__ = ["Built", "Fill"]

#: Keras' order of a kernel's axes, whatever the order of the data.
_WEIGHT_FORMAT = {1: "WIO", 2: "HWIO", 3: "DHWIO"}

#: Makes an array of parameters of a shape.
Fill = Callable[[tuple[int, ...]], Array]


def _leaky_relu(v: Any) -> Any:
    return v * 0.2 if v < 0 else v


def _leaky_relu_derivative(v: Any) -> Any:
    return 1.0 if v > 0 else 0.2


#: Where Keras has another name than this package, or the same one for something else.
_ACTIVATIONS: dict[str, Activation] = {
    "linear": None,
    "leaky_relu": (_leaky_relu, _leaky_relu_derivative),
}


class Built(Layer):
    """What layers that learn their input's channels from the first call share.

    Attributes
    ----------
    built : bool
    """

    _in_channels: int | None = None
    use_bias: bool
    _seed: Seed
    _dtype: np.dtype

    def _begin(
        self,
        kernel_size: Ints,
        activation: Activation,
        data_format: str | None,
        use_bias: bool,
        dtype: Any,
        seed: Seed,
        backend: str | None,
        precision: str | None,
    ) -> None:
        """What every constructor does."""
        known = _ACTIVATIONS.get(activation, activation) if isinstance(activation, str) else activation
        Layer.__init__(self, known, data_format or "channels_last", _WEIGHT_FORMAT[self.rank], backend, precision)
        self.kernel_size = integers(self._op, "kernel_size", kernel_size, self.rank, 1)
        self.use_bias, self._seed = bool(use_bias), seed
        self._dtype = parameter_dtype(self._op, dtype)

    @property
    def built(self) -> bool:
        """Whether there are parameters."""
        return self._in_channels is not None

    @bordered
    def build(self, input_shape: Ints | Sequence[int | None]) -> None:
        """Make the parameters, as the first call does.

        Parameters
        ----------
        input_shape : sequence of int or None
            Of an input; only its channels matter afterwards. None stands for extents that are not known yet.

        Raises
        ------
        ShapeError, ArgumentError
            As a call with such an input; also if the layer is built already.
        """
        if self.built:
            raise ArgumentError(f"{self._op}: the layer is built already, for {self._in_channels} input channels")
        known = self._with_extents(input_shape)
        self.plans(known)
        rng = np.random.default_rng(self._seed)
        self._make(self._channels_of(known), partial(_glorot, rng, self._dtype), _zeros(self._dtype))

    def _with_extents(self, input_shape: Any) -> Ints:
        """A shape in which extents that are not known are one sample, and as many cells as the kernel reads."""
        if not isinstance(input_shape, list | tuple) or None not in input_shape:
            return input_shape  # type: ignore[no-any-return]
        steps = self._arguments["dilation"]
        cells = [kernel_extent(taps, step) for taps, step in zip(self.kernel_size, steps, strict=True)]
        last = is_channels_last(self._op, self.rank, self._formats["data_format"])
        small: list[Any] = [*cells, None] if last else [None, *cells]
        small = [1] * (len(input_shape) - len(small)) + small
        return tuple(b if a is None else a for a, b in zip(input_shape, small, strict=False))

    def _channels_of(self, input_shape: Ints) -> int:
        extents = shape(self._op, "input_shape", input_shape)
        last = is_channels_last(self._op, self.rank, self._formats["data_format"])
        check_axes(self._op, "input", extents, self.rank, last)
        return extents[-1 if last else -1 - self.rank]

    @abstractmethod
    def _make(self, channels: int, weights: Fill, biases: Fill) -> None:
        """Make the parameters for an input of this many channels."""

    def plans(self, input_shape: Ints) -> tuple[Any, ...]:
        if self.built:
            return super().plans(input_shape)  # type: ignore[safe-super]
        shapes_only, nothing = copy.copy(self), partial(np.broadcast_to, self._dtype.type(0))
        shapes_only._make(self._channels_of(input_shape), nothing, nothing)
        return shapes_only.plans(input_shape)

    plans.__doc__ = Layer.plans.__doc__

    def __call__(self, input: object) -> Array:
        if not self.built:
            self.build(getattr(input, "shape", None) or np.shape(input))  # type: ignore[call-overload]
        return self._called(input)

    __call__.__doc__ = Layer.__call__.__doc__

    def __getattr__(self, name: str) -> Any:
        """What is missing: most likely parameters of a layer that was not built."""
        if name in type(self)._names.values():
            raise AttributeError(f"{type(self).__name__} has no {name} before its first call, or build(input_shape)")
        raise AttributeError(f"{type(self).__name__} has no attribute {name}")

    def state_dict(self) -> dict[str, Array]:
        if not self.built:
            raise ArgumentError(f"{self._op}: there are no parameters before the first call, or build(input_shape)")
        return super().state_dict()

    state_dict.__doc__ = Layer.state_dict.__doc__

    def _in_order(self, attribute: str, array: Array) -> Array:
        if array.ndim == 1:
            return array
        return array.transpose(self.rank + 1, self.rank, *range(self.rank))

    def get_weights(self) -> list[Array]:
        """Copies of the parameters in Keras' order and shapes: kernels, then the bias.

        Returns
        -------
        list of arrays
        """
        return [array.copy() for array in self._in_keras_shape()]

    def set_weights(self, weights: Sequence[object]) -> None:
        """Copy parameters in Keras' order and shapes into the layer.

        Parameters
        ----------
        weights : sequence of arrays
            What `get_weights` of a layer like this one, or of Keras', returns.

        Raises
        ------
        ArgumentError, ShapeError, DTypeError
            If their number or shapes differ from the layer's, or they are not real; before anything is copied.
        """
        mine, arrays = self._in_keras_shape(), [np.asarray(each) for each in weights]
        if [each.shape for each in mine] != [each.shape for each in arrays]:
            raise ShapeError(
                f"{self._op}: weights have shapes {[each.shape for each in arrays]}, but the layer's have "
                f"{[each.shape for each in mine]}"
            )
        made = [self._converted("a weight", new, old.dtype) for old, new in zip(mine, arrays, strict=True)]
        for old, new in zip(mine, made, strict=True):
            old[...] = new

    def _in_keras_shape(self) -> list[Array]:
        """The parameters, as views: kernels of depthwise convolutions are (*kernel, C, multiplier)."""
        self.state_dict()  # that there are any
        found = []
        for attribute in self._names.values():
            array: Array | None = getattr(self, attribute)
            if array is not None:
                found.append(self._keras_view(attribute, array))
        return found

    def _keras_view(self, attribute: str, array: Array) -> Array:
        if attribute != self._depthwise_attribute:
            return array
        assert self._in_channels is not None
        return array.reshape(*array.shape[: self.rank], self._in_channels, array.shape[-1] // self._in_channels)

    #: The attribute, if any, that is a depthwise kernel.
    _depthwise_attribute: str | None = None


def _glorot(rng: np.random.Generator, dtype: np.dtype, extents: tuple[int, ...]) -> Array:
    return glorot_uniform(rng, extents, dtype)


def _zeros(dtype: np.dtype) -> Fill:
    return partial(np.zeros, dtype=dtype)
