"""A convolution's arguments as plain values, which the graphs of other libraries can hold, and the three primitives.

    conv           input, weight  -> output     its gradients: by_input, by_weight
    by_input       weight, grad   -> input      its gradients: by_weight, conv
    by_weight      input, grad    -> weight     its gradients: by_input, conv

A convolution is bilinear, so gradients of gradients are these three again. Each is one public function of
`numbaconv.functional` or `numbaconv.grad`.
"""

from typing import Any, NamedTuple

from .. import functional, grad
from ..plan import Geometry, Scalar, make_plan
from ..plan.layout import is_channels_last, weight_order
from ..routes import Memory, plain

__all__ = ["Layout", "Spec", "by_input", "by_weight", "convolve", "name_of", "output_shape", "read"]


class Spec(NamedTuple):
    """Every argument that shapes a convolution, checked; flat, so that a schema of integers and strings holds it.

    Attributes
    ----------
    transposed : bool
    stride : tuple of int
        One an axis.
    padding_name : str
        "" where padding is numbers.
    padding : tuple of int
        Before and after each axis; empty where it is a name.
    dilation : tuple of int
    groups : int
    padding_mode : str
        One name an axis, separated by commas.
    padding_value : number
    output_padding : tuple of int
    output_size : tuple of int
        Empty where it was not given.
    """

    transposed: bool
    stride: tuple[int, ...]
    padding_name: str
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    padding_mode: str
    padding_value: Scalar
    output_padding: tuple[int, ...]
    output_size: tuple[int, ...]

    def without_value(self) -> "Spec":
        """The linear part: padding of a constant as padding of zeros."""
        return self._replace(padding_mode=self.padding_mode.replace("constant", "zeros"), padding_value=0)


class Layout(NamedTuple):
    """How arrays are stored: data with channels last or not, and where the weight has ``O, I, spatial...``."""

    channels_last: bool
    weight_axes: tuple[int, ...]


def name_of(spec: Spec) -> str:
    """The public function that a spec belongs to."""
    return f"conv{'_transpose' if spec.transposed else ''}{len(spec.stride)}d"


_specs: Memory[tuple[Spec, Layout]] = Memory(1024)


def read(
    rank: int,
    transposed: bool,
    data_format: str | None,
    weight_format: str | None,
    names: tuple[str, ...],
    values: tuple[Any, ...],
) -> tuple[Spec, Layout]:
    """The arguments of a call, checked; ``names`` and ``values`` are those of `Geometry`.

    Raises
    ------
    ArgumentError, DTypeError
        As the functions of `numbaconv`.
    """
    key = plain((rank, transposed, data_format, weight_format, names, values))
    found = None if key is None else _specs.get(key)
    if found is not None:
        return found
    op = f"conv{'_transpose' if transposed else ''}{rank}d"
    last = is_channels_last(op, rank, data_format)
    order = weight_order(op, rank, weight_format, last)
    given = Geometry.of(op, rank, **dict(zip(names, values, strict=True)))
    named = isinstance(given.padding, str)
    spec = Spec(
        transposed=transposed,
        stride=given.stride,
        padding_name=str(given.padding) if named else "",
        padding=() if isinstance(given.padding, str) else tuple(cells for pair in given.padding for cells in pair),
        dilation=given.dilation,
        groups=given.groups,
        padding_mode=",".join(given.padding_mode),
        padding_value=given.padding_value,
        output_padding=given.output_padding,
        output_size=given.output_size or (),
    )
    if key is not None:
        _specs.put(key, (spec, Layout(last, order)))
    return spec, Layout(last, order)


def _padding(spec: Spec) -> str | tuple[tuple[int, int], ...]:
    return spec.padding_name or tuple(zip(spec.padding[::2], spec.padding[1::2], strict=True))


def _arguments(spec: Spec, channels_last: bool, weight_format: str | None) -> dict[str, Any]:
    """A spec as keyword arguments of the public functions."""
    found: dict[str, Any] = {
        "stride": spec.stride,
        "padding": _padding(spec),
        "dilation": spec.dilation,
        "groups": spec.groups,
        "padding_mode": tuple(spec.padding_mode.split(",")),
        "data_format": "channels_last" if channels_last else "channels_first",
        "weight_format": weight_format or _OIHW[len(spec.stride)],
    }
    if spec.transposed:
        found["output_padding"] = spec.output_padding
        found["output_size"] = spec.output_size or None
    else:
        found["padding_value"] = spec.padding_value
    return found


#: The order of a weight's axes that PyTorch has.
_OIHW = {1: "OIW", 2: "OIHW", 3: "OIDHW"}


def convolve(
    spec: Spec, x: Any, w: Any, channels_last: bool = False, weight_format: str | None = None, **options: Any
) -> Any:
    """The convolution, transposed or not; ``options`` are ``bias``, ``residual``, ``activation`` and what chooses."""
    function = getattr(functional, name_of(spec))
    return function(x, w, **_arguments(spec, channels_last, weight_format), **options)


def by_input(
    spec: Spec,
    size: Any,
    w: Any,
    g: Any,
    channels_last: bool = False,
    weight_format: str | None = None,
    **options: Any,
) -> Any:
    """Its gradient by the input, of a shape in the data's layout."""
    function = getattr(grad, f"{name_of(spec)}_input")
    return function(size, w, g, **_arguments(spec, channels_last, weight_format), **options)


def by_weight(
    spec: Spec,
    x: Any,
    size: Any,
    g: Any,
    channels_last: bool = False,
    weight_format: str | None = None,
    **options: Any,
) -> Any:
    """Its gradient by the weight, of a shape in the weight's layout."""
    function = getattr(grad, f"{name_of(spec)}_weight")
    return function(x, size, g, **_arguments(spec, channels_last, weight_format), **options)


def output_shape(
    spec: Spec,
    input_shape: tuple[Any, ...],
    weight_shape: tuple[Any, ...],
    dtype: str,
    channels_last: bool = False,
    weight_format: str | None = None,
) -> tuple[Any, ...]:
    """The shape of the result, in the data's layout. Extents may be symbols: the plan's rules then hold for those."""
    op, rank = name_of(spec), len(spec.stride)
    given = _arguments(spec, channels_last, weight_format)
    data_format, weight_format = given.pop("data_format"), given.pop("weight_format")
    geometry = Geometry.of(op, rank, **given)
    # A symbol has no hash, so plans of symbols are not remembered.
    numbers = all(type(extent) is int for extent in (*input_shape, *weight_shape))
    plan = (make_plan if numbers else make_plan.__wrapped__)(
        op,
        rank,
        spec.transposed,
        input_shape,
        weight_shape,
        geometry,
        data_format,
        weight_format,
        False,
        dtype,
        None,
    )
    return plan.output_shape
