"""What every layer shares: its parameters under PyTorch's names, the gradients beside them, files of both."""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..arrays import Array
from ..backends.activations import resolve_activation
from ..border import bordered, outside
from ..dispatch import named_backend
from ..errors import ArgumentError, ConvError, DTypeError, ShapeError
from ..functional import Activation
from ..plan import ConvPlan, Geometry, Ints, ReceptiveField, dtype_name, plan_conv, receptive_field
from ..plan.arguments import check_precision
from ..plan.axis import kernel_extent
from ..plan.layout import is_channels_last
from ..ranks import shape_names
from .files import load_arrays, save_arrays

__all__ = ["Layer"]


class _Call(NamedTuple):
    """What a layer remembers of its newest call: arrays, and the arguments that were not its own."""

    input: Any
    output: Array | None
    changes: dict[str, Any]


class Layer(ABC):
    """A convolution with its parameters, which remembers its newest call for the gradients.

    Attributes
    ----------
    rank : int
        Spatial axes.
    kernel_size : tuple of int
    activation : str, function, (function, derivative) or None
    """

    rank: ClassVar[int]
    transposed: ClassVar[bool] = False
    activation: Activation
    kernel_size: tuple[int, ...]
    #: The arguments of the convolution's functions, checked.
    _arguments: dict[str, Any]
    #: From the names that parameters have in PyTorch to this layer's attributes, whose gradients end in ``_grad``.
    _names: ClassVar[Mapping[str, str]]

    def __init_subclass__(cls, **options: Any) -> None:
        """A class of one rank is documented with that rank's shapes."""
        super().__init_subclass__(**options)
        if "rank" in vars(cls) and not hasattr(cls.__mro__[1], "rank"):
            text = inspect.getdoc(cls.__mro__[1])
            cls.__doc__ = text and text.format(name=cls.__name__, **shape_names(cls.rank))

    def __init__(
        self,
        activation: Activation,
        data_format: str | None,
        weight_format: str,
        backend: str | None,
        precision: str | None,
    ):
        is_channels_last(self._op, self.rank, data_format)  # that there is such a name, and such an activation
        resolve_activation(self._op, activation, "float32")
        if backend is not None:
            named_backend(self._op, backend)
        if precision is not None:
            check_precision(self._op, "precision", precision)
        self.activation = activation
        self._formats: dict[str, Any] = {
            "data_format": data_format,
            "weight_format": weight_format,
            "backend": backend,
            "precision": precision,
        }
        self._newest: _Call | None = None
        for attribute in self._names.values():
            setattr(self, f"{attribute}_grad", None)

    def _settle(self, **arguments: Any) -> None:
        """Check the arguments that shape the convolution, each by itself."""
        geometry = Geometry.of(self._op, self.rank, **arguments)
        self._arguments = {name: getattr(geometry, name) for name in arguments}

    @property
    def _op(self) -> str:
        """What messages call this layer."""
        return type(self).__name__

    def __call__(self, input: object) -> Array:
        """The layer's output.

        Input and output are remembered, not copied: for `backward` they must be as they were.

        Parameters
        ----------
        input : array of shape (N, C, *spatial), or (C, *spatial) without a batch axis
            In the layer's ``data_format``.

        Returns
        -------
        array

        Raises
        ------
        ShapeError, ArgumentError, DTypeError, BackendError
            As the function that computes it.
        """
        return self._called(input)

    def _called(self, input: object, **changes: Any) -> Array:
        """The output, with some of the layer's arguments changed for this call."""
        try:
            output = self._forward(input, self.activation, **changes)
        except ConvError as error:
            raise outside(error)  # noqa: B904 - the context is the caller's
        self._newest = _Call(input, None if self.activation is None else output, changes)
        return output

    @abstractmethod
    def _forward(self, input: object, activation: Activation, **changes: Any) -> Array:
        """The output with another activation, and other arguments."""

    @abstractmethod
    def backward(self, grad: object) -> Array:
        """Gradients of the newest call: by its input, returned, and by the parameters, kept beside them.

        Parameters
        ----------
        grad : array of the output's shape
            The gradient by the output.

        Returns
        -------
        array of the input's shape

        Raises
        ------
        ArgumentError
            Before the first call; for an activation that is a function without a derivative.
        ShapeError, DTypeError
            As `numbaconv.grad`.
        """

    def _newest_call(self) -> _Call:
        if self._newest is None:
            raise ArgumentError(f"{self._op}: backward follows a call of the layer, but there was none")
        return self._newest

    def _activation_options(self, call: _Call) -> dict[str, Any]:
        """What a gradient function needs to know of the layer's activation.

        Some derivatives follow from the output. For the others the convolution runs again without the activation:
        fusing it leaves no pre-activation behind.
        """
        activation = self.activation
        if activation is None:
            return {}
        known = resolve_activation(self._op, activation, "float32") if isinstance(activation, str) else None
        if known is not None and known.derivative_from_output is not None:
            return {"activation": activation, "output": call.output}
        if not isinstance(activation, str | tuple):
            name = getattr(activation, "__name__", "function")
            raise ArgumentError(
                f"{self._op}: activation {name!r} is a function without a derivative; pass (function, derivative)"
            )
        return {"activation": activation, "pre_activation": self._forward(call.input, None, **call.changes)}

    @abstractmethod
    def plans(self, input_shape: Ints) -> tuple[ConvPlan, ...]:
        """The plan of each convolution in the layer, first to last, for an input's shape.

        Parameters
        ----------
        input_shape : sequence of int

        Returns
        -------
        tuple of ConvPlan
            They have FLOPs, bytes and output shapes.

        Raises
        ------
        ShapeError, ArgumentError
            As a call with such an input.
        """

    def _plan(self, input_shape: Ints, weight: Array, bias: bool, **arguments: Any) -> ConvPlan:
        formats = {name: self._formats[name] for name in ("data_format", "weight_format")}
        return plan_conv(
            input_shape,
            weight.shape,
            transposed=self.transposed,
            bias=bias,
            dtype=weight.dtype,
            **arguments,
            **formats,
        )

    @bordered
    def output_shape(self, input_shape: Ints) -> tuple[int, ...]:
        """Shape of the output for an input's shape.

        Parameters
        ----------
        input_shape : sequence of int

        Returns
        -------
        tuple of int

        Raises
        ------
        ShapeError, ArgumentError
            As a call with such an input.
        """
        return self.plans(input_shape)[-1].output_shape

    @property
    def receptive_field(self) -> ReceptiveField:
        """What one output cell sees of the input, as `numbaconv.receptive_field` says it.

        Raises
        ------
        ArgumentError
            For a transposed convolution, which has no single one; and for padding "same" with a stride, where it
            follows from the input's extent: give `plans` of a shape to `numbaconv.receptive_field` instead.
        """
        stride, padding, dilation = (self._arguments[name] for name in ("stride", "padding", "dilation"))
        if str(padding).startswith("same") and max(stride) > 1:
            raise ArgumentError(
                f"{self._op}: padding={padding!r} with stride {stride} depends on the input's extent; "
                "pass layer.plans(input_shape) to numbaconv.receptive_field"
            )
        # One channel, and extents that the kernel fits: neither matters to what is left.
        extents = tuple(kernel_extent(*each) for each in zip(self.kernel_size, dilation, strict=True))
        weight = (1, 1, *self.kernel_size)
        plan = plan_conv(
            (1, 1, *extents), weight, stride=stride, padding=padding, dilation=dilation, transposed=self.transposed
        )
        return receptive_field([plan])

    @property
    def parameter_count(self) -> int:
        """Elements of all parameters."""
        return sum(array.size for array in self.state_dict().values())

    def _in_order(self, attribute: str, array: Array) -> Array:
        """A parameter, or its gradient, as a view in PyTorch's order of axes."""
        return array

    def state_dict(self) -> dict[str, Array]:
        """The parameters under the names that PyTorch gives them, in its order of axes.

        Returns
        -------
        dict of arrays
            The layer's own memory: what is written into them is written into the layer.
        """
        return {
            name: self._in_order(attribute, getattr(self, attribute))
            for name, attribute in self._names.items()
            if getattr(self, attribute) is not None
        }

    def gradients(self) -> dict[str, Array]:
        """The gradients of the newest `backward`, under the names of `state_dict` and in its order of axes.

        Returns
        -------
        dict of arrays
            Empty before the first one.
        """
        found = {name: (attribute, getattr(self, f"{attribute}_grad")) for name, attribute in self._names.items()}
        return {
            name: self._in_order(attribute, array) for name, (attribute, array) in found.items() if array is not None
        }

    @bordered
    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Copy parameters into the layer; converted to its dtype.

        Parameters
        ----------
        state : mapping of arrays
            With the names and shapes of `state_dict`. Arrays of other libraries will do, if NumPy can read them.

        Raises
        ------
        ArgumentError
            For names that are missing or unknown; before anything is copied.
        ShapeError
            For an array of another shape; before anything is copied.
        DTypeError
            For one of complex numbers, or of none; before anything is copied.
        """
        mine = self.state_dict()
        if set(mine) != set(state):
            raise ArgumentError(f"{self._op}: the layer has {sorted(mine)}, but the state has {sorted(state)}")
        arrays = {name: np.asarray(value) for name, value in state.items()}
        for name, array in arrays.items():
            if array.shape != mine[name].shape:
                raise ShapeError(f"{self._op}: {name} has shape {array.shape}, but the layer's has {mine[name].shape}")
        made = {name: self._converted(name, array, mine[name].dtype) for name, array in arrays.items()}
        for name, array in made.items():
            mine[name][...] = array

    def _converted(self, name: str, array: Array, dtype: np.dtype) -> Array:
        """An array as the parameter that it is to become."""
        if array.dtype.kind not in "biuf" and dtype_name(array.dtype) != "bfloat16":
            raise DTypeError(f"{self._op}: {name} has dtype {array.dtype}, but parameters are real numbers")
        with np.errstate(all="ignore"):
            return array.astype(dtype)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `state_dict` to a file, as `numbaconv.layers.save_arrays` does: whole, or not at all.

        Parameters
        ----------
        path : str or path
            Ends in ``.npz`` or ``.safetensors``.

        Raises
        ------
        ArgumentError, DTypeError, OSError
            As `numbaconv.layers.save_arrays`.
        ImportError
            If ``.safetensors`` needs its library.
        """
        save_arrays(path, self.state_dict())

    @bordered
    def load(self, path: str | os.PathLike[str]) -> None:
        """Read the parameters from a file that `save`, NumPy or PyTorch's users wrote.

        Parameters
        ----------
        path : str or path
            Ends in ``.npz`` or ``.safetensors``.

        Raises
        ------
        ArgumentError, ShapeError, DTypeError, OSError
            As `numbaconv.layers.load_arrays` and `load_state_dict`.
        ImportError
            If ``.safetensors`` needs its library.
        """
        self.load_state_dict(load_arrays(path))
