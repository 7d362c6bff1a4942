"""Layers whatever their spelling: one convolution, or a depthwise and a pointwise one. Subclasses make parameters."""

from __future__ import annotations

from typing import Any, ClassVar

from .. import functional, grad
from ..arrays import Array
from ..functional import Activation
from ..plan import ConvPlan, Ints
from ..prepared import PreparedConv, prepare
from .base import Layer

__all__ = ["ConvCore", "SeparableCore"]


class ConvCore(Layer):
    """One convolution, transposed or not.

    Attributes
    ----------
    weight, bias : array, bias may be None
    weight_grad, bias_grad : array or None
        Of the newest `backward`.
    """

    _names: ClassVar = {"weight": "weight", "bias": "bias"}
    weight: Array
    bias: Array | None
    weight_grad: Array | None
    bias_grad: Array | None

    def _function(self, name: str) -> Any:
        """The function of this rank: ``{}`` stands for ``conv2d`` and its like, alone or in a gradient's name."""
        title = name.format(f"conv_transpose{self.rank}d" if self.transposed else f"conv{self.rank}d")
        return getattr(functional if name == "{}" else grad, title)

    def _forward(self, input: object, activation: Activation, **changes: Any) -> Array:
        arguments = {**self._arguments, **changes}
        found: Array = self._function("{}")(
            input, self.weight, self.bias, **arguments, **self._formats, activation=activation
        )
        return found

    def backward(self, grad: object) -> Array:
        call = self._newest_call()
        found = self._function("{}_backward")(
            grad,
            call.input,
            self.weight,
            **{**self._arguments, **call.changes},
            **self._formats,
            **self._activation_options(call),
            output_mask=(True, True, self.bias is not None),
        )
        self.weight_grad, self.bias_grad = found.weight, found.bias
        by_input: Array = found.input
        return by_input

    backward.__doc__ = Layer.backward.__doc__

    def plans(self, input_shape: Ints) -> tuple[ConvPlan, ...]:
        return (self._plan(input_shape, self.weight, self.bias is not None, **self._arguments),)

    plans.__doc__ = Layer.plans.__doc__

    def prepared(self) -> PreparedConv:
        """The convolution with its weight packed once, for inference: `numbaconv.prepare`.

        Returns
        -------
        PreparedConv
            With copies of the parameters as they are now; later changes make no difference to it.
        """
        return prepare(
            self.weight,
            self.bias,
            transposed=self.transposed,
            activation=self.activation,
            **self._arguments,
            **self._formats,
        )


class SeparableCore(Layer):
    """A depthwise convolution, then a pointwise one, as `numbaconv.separable_conv` runs them.

    Attributes
    ----------
    depthwise_weight, pointwise_weight, bias : array, bias may be None
        The bias is the pointwise convolution's; the other has none.
    depthwise_weight_grad, pointwise_weight_grad, bias_grad : array or None
        Of the newest `backward`.
    """

    _names: ClassVar = {
        "depthwise.weight": "depthwise_weight",
        "pointwise.weight": "pointwise_weight",
        "pointwise.bias": "bias",
    }
    depthwise_weight: Array
    pointwise_weight: Array
    bias: Array | None
    depthwise_weight_grad: Array | None
    pointwise_weight_grad: Array | None
    bias_grad: Array | None
    _channels: int

    def _forward(self, input: object, activation: Activation, **changes: Any) -> Array:
        function = getattr(functional, f"separable_conv{self.rank}d")
        weights = self.depthwise_weight, self.pointwise_weight, self.bias
        found: Array = function(input, *weights, **self._arguments, **self._formats, activation=activation)
        return found

    def backward(self, grad: object) -> Array:
        """As that of one convolution; what lies between the two steps is computed again.

        Parameters
        ----------
        grad : array of the output's shape

        Returns
        -------
        array of the input's shape
        """
        call = self._newest_call()
        depthwise = getattr(functional, f"depthwise_conv{self.rank}d")
        between = depthwise(call.input, self.depthwise_weight, **self._arguments, **self._formats)
        second = self._gradients(
            grad,
            between,
            self.pointwise_weight,
            output_mask=(True, True, self.bias is not None),
            **self._activation_options(call),
        )
        first = self._gradients(
            second.input,
            call.input,
            self.depthwise_weight,
            output_mask=(True, True, False),
            groups=self._channels,
            **self._arguments,
        )
        self.depthwise_weight_grad, self.pointwise_weight_grad = first.weight, second.weight
        self.bias_grad = second.bias
        by_input: Array = first.input
        return by_input

    def _gradients(self, given: object, input: object, weight: Array, **options: Any) -> Any:
        return getattr(grad, f"conv{self.rank}d_backward")(given, input, weight, **self._formats, **options)

    def plans(self, input_shape: Ints) -> tuple[ConvPlan, ...]:
        first = self._plan(input_shape, self.depthwise_weight, False, **self._arguments, groups=self._channels)
        return first, self._plan(first.output_shape, self.pointwise_weight, self.bias is not None)

    plans.__doc__ = Layer.plans.__doc__
