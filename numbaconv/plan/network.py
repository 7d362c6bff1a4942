"""Facts of whole layers and stacks of layers: output shapes, parameter counts, receptive fields."""

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, NamedTuple

from ..border import bordered, check_passed_on
from ..errors import ArgumentError, DTypeError
from .arguments import Ints, integers
from .axis import kernel_extent
from .problem import ConvPlan, plan_conv

__all__ = ["ReceptiveField", "count_parameters", "layer_weight_shape", "output_shape", "receptive_field"]


@bordered
def output_shape(input_shape: Ints, weight_shape: Ints, **arguments: Any) -> tuple[int, ...]:
    """Shape of a convolution's output.

    Parameters
    ----------
    input_shape, weight_shape : sequence of int
        As the arrays would have them.
    **arguments
        Those of `plan_conv`.

    Returns
    -------
    tuple of int
        In the layout of ``data_format``.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError
        For every problem that the convolution itself would refuse.

    Examples
    --------
    >>> from numbaconv import output_shape
    >>> output_shape((1, 3, 32, 32), (8, 3, 3, 3), padding=1)
    (1, 8, 32, 32)
    >>> output_shape((1, 32, 32, 3), (3, 3, 3, 8), stride=2, padding="same", data_format="NHWC")
    (1, 16, 16, 8)
    """
    check_passed_on("output_shape", arguments, "plan_conv")
    return plan_conv(input_shape, weight_shape, **arguments).output_shape


@bordered
def count_parameters(
    in_channels: int,
    out_channels: int,
    kernel_size: Ints,
    *,
    groups: int = 1,
    bias: bool = True,
    rank: int = 2,
) -> int:
    """Parameters of a convolutional layer, transposed or not.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or sequence of int
        Taps, one for all axes or one an axis.
    groups : int
    bias : bool
    rank : int
        Spatial axes, where ``kernel_size`` is a single integer.

    Raises
    ------
    ArgumentError
        If groups do not divide both channel counts.

    Examples
    --------
    >>> from numbaconv import count_parameters
    >>> count_parameters(64, 128, 3)
    73856
    >>> count_parameters(32, 32, 3, groups=32, bias=False)
    288
    """
    op = "count_parameters"
    _check_rank(op, rank)
    taps = tuple(kernel_size) if isinstance(kernel_size, Iterable) else (kernel_size,) * rank
    shape = layer_weight_shape(op, in_channels, out_channels, taps, groups, len(taps), least=0)
    return prod(shape) + (shape[0] if bias else 0)


def layer_weight_shape(
    op: str,
    in_channels: object,
    out_channels: object,
    kernel_size: object,
    groups: object,
    rank: int,
    *,
    transposed: bool = False,
    least: int = 1,
) -> tuple[int, ...]:
    """Shape of a layer's weight, ``(O, I / groups, *kernel)`` or transposed ``(I, O / groups, *kernel)``.

    ``kernel_size`` has one entry for all axes or one an axis; channels are at least ``least``.

    Raises
    ------
    ArgumentError
        If groups do not divide both channel counts.
    """
    taken, given = integers(op, "channels", (in_channels, out_channels), 2, least)
    (parts,) = integers(op, "groups", groups, 1, 1)
    if taken % parts or given % parts:
        raise ArgumentError(f"{op}: groups {parts} must divide {taken} input and {given} output channels")
    kernel = integers(op, "kernel_size", kernel_size, rank, 1)
    return (taken, given // parts, *kernel) if transposed else (given, taken // parts, *kernel)


def _check_rank(op: str, rank: object) -> None:
    if rank not in (1, 2, 3):
        raise ArgumentError(f"{op}: rank is {rank!r}, but must be 1, 2 or 3")


class ReceptiveField(NamedTuple):
    """What one output cell of a stack sees of the input, one entry an axis.

    ``size`` input cells, moving by ``stride`` from one output cell to the next; the first output cell's
    field begins at input cell ``offset`` (negative: in padding).
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: tuple[int, ...]


@bordered
def receptive_field(layers: Iterable[ConvPlan | Mapping[str, Any]], *, rank: int = 2) -> ReceptiveField:
    """Receptive field of a stack of convolution or pooling layers, first layer first.

    The recurrence of Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural
    Networks", Distill 2019, equations 2 to 4.

    Parameters
    ----------
    layers : iterable of mapping or ConvPlan
        A mapping has ``kernel_size`` and may have ``stride``, ``dilation`` (1 unless given) and
        ``padding`` (cells before, 0 unless given), each one integer or one an axis.
    rank : int
        Spatial axes; that of the plans where there are any.

    Raises
    ------
    ArgumentError
        For a transposed layer, unknown keys, or values out of range.

    Examples
    --------
    >>> from numbaconv import receptive_field
    >>> receptive_field([{"kernel_size": 3}] * 3)
    ReceptiveField(size=(7, 7), stride=(1, 1), offset=(0, 0))
    >>> receptive_field([{"kernel_size": 7, "stride": 2, "padding": 3}, {"kernel_size": 3, "stride": 2, "padding": 1}])
    ReceptiveField(size=(11, 11), stride=(4, 4), offset=(-5, -5))
    """
    op = "receptive_field"
    _check_rank(op, rank)
    stack = list(layers) if isinstance(layers, Iterable) else [layers]
    ranks = {layer.rank for layer in stack if isinstance(layer, ConvPlan)}
    if len(ranks) > 1:
        raise ArgumentError(f"{op}: layers have ranks {sorted(ranks)}, but must all have the same")
    rank = ranks.pop() if ranks else rank
    size, jump, start = [1] * rank, [1] * rank, [0] * rank
    for layer in stack:
        for at, (kernel, stride, dilation, before) in enumerate(_steps(op, layer, rank)):
            size[at] += (kernel_extent(kernel, dilation) - 1) * jump[at]
            start[at] -= before * jump[at]
            jump[at] *= stride
    return ReceptiveField(tuple(size), tuple(jump), tuple(start))


def _steps(op: str, layer: ConvPlan | Mapping[str, Any], rank: int) -> list[tuple[int, int, int, int]]:
    """Kernel, stride, dilation and padding before, for each axis of a layer."""
    if isinstance(layer, ConvPlan):
        if layer.transposed:
            raise ArgumentError(f"{op}: a transposed convolution has no single receptive field: {layer}")
        return [(axis.kernel, axis.stride, axis.dilation, axis.pad_before) for axis in layer.axes]
    known = {"kernel_size", "stride", "dilation", "padding"}
    if not isinstance(layer, Mapping):
        raise DTypeError(f"{op}: a layer must be a mapping or a ConvPlan, but is {layer!r}")
    if "kernel_size" not in layer or not known.issuperset(layer):
        raise ArgumentError(
            f"{op}: a layer has the keys {sorted(layer)}, but needs kernel_size and may have {sorted(known)}"
        )
    columns = [
        integers(op, name, layer.get(name, default), rank, least)
        for name, default, least in (
            ("kernel_size", 1, 1),
            ("stride", 1, 1),
            ("dilation", 1, 1),
            ("padding", 0, 0),
        )
    ]
    return list(zip(*columns, strict=True))
