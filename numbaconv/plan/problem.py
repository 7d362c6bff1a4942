"""``ConvPlan``: one problem as integers, and the only place where shapes are judged.

A plan always describes a *forward* convolution ``y = conv(x, w)``. A convolution's input is ``x`` and its
output ``y``; a transposed convolution's input is ``y`` and its output ``x``. Gradients have the plan of the
call whose gradient they are.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import prod

from ..border import bordered
from ..errors import DTypeError, ShapeError
from .arguments import DEFAULT_PRECISION, Geometry, Ints, Padding, PaddingMode, Scalar, check_precision, shape
from .axis import Axis
from .build import axis_of
from .dtypes import ASKED, accumulator, dtype_name, dtype_rule, holds
from .folding import Folds, axes_folded, folds_of, unfolded
from .hints import axes_rule, channels_hint, kernel_hint
from .layout import channels_last, is_channels_last, weight_order

__all__ = ["ConvPlan", "check_axes", "make_plan", "plan_conv", "rank_of"]

_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class ConvPlan:
    """A convolution's extents, costs and layout: frozen, hashable, printable.

    Attributes
    ----------
    rank : int
        Spatial axes: 1, 2 or 3.
    transposed : bool
        Whether the planned call is a transposed convolution: its input is ``y``, its output ``x``.
    batched : bool
        Whether the arrays have a batch axis.
    channels_last : bool
        Layout of the data arrays.
    weight_axes : tuple of int
        The stored weight's axes in the order ``O, I, spatial...``.
    batch, x_channels, y_channels, groups : int
        Of the forward convolution.
    axes : tuple of Axis
        One a spatial axis, first to last.
    padding_value : int, float or complex
        What ``padding_mode="constant"`` puts into padding.
    has_bias : bool
        Counted as parameters.
    dtype, compute_dtype, output_dtype : str
        Of the operands, the accumulator and the result.
    folds : tuple of three tuples of int
        Which of ``axes`` are folded into depth, height and width, as algorithms see them. It follows from the axes; a
        part of a larger problem has that of the whole, so that its sums have the same order.
    precision : str
        ``"strict"`` where nothing may be computed through transforms; ``"tf32"`` where float32 operands may be rounded
        to TF32 as they are multiplied; else ``"float32"``, for every other dtype, too.
    """

    rank: int
    transposed: bool
    batched: bool
    channels_last: bool
    weight_axes: tuple[int, ...]
    batch: int
    x_channels: int
    y_channels: int
    groups: int
    axes: tuple[Axis, ...]
    padding_value: Scalar
    has_bias: bool
    dtype: str
    compute_dtype: str
    output_dtype: str
    folds: Folds
    precision: str = DEFAULT_PRECISION

    @cached_property
    def _hash(self) -> int:
        # Integers alone: it travels with a pickled plan, and hashes of strings differ from process to process.
        return hash((self.input_shape, self.weight_shape, self.output_shape, self.groups))

    def __hash__(self) -> int:
        """Of what tells most plans apart, found once: what is made of a plan is looked up by it in each call."""
        return self._hash

    @cached_property
    def axes3(self) -> tuple[Axis, Axis, Axis]:
        """Depth, height, width, as the axes are folded; those that are left have extent 1, kernel 1 and no padding."""
        return axes_folded(self.axes, self.folds)

    @property
    def own_folds(self) -> Folds:
        """How its axes are folded where it is no part of a larger problem."""
        return folds_of(self.axes, self.x_channels == self.y_channels == self.groups)

    @cached_property
    def is_folded(self) -> bool:
        """Whether algorithms see other axes than those of the call."""
        return self.folds != unfolded(self.rank)

    @cached_property
    def x_shape(self) -> tuple[int, ...]:
        """``(N, C, D, H, W)`` of the forward convolution's input."""
        return (self.batch, self.x_channels, *(axis.input for axis in self.axes3))

    @cached_property
    def y_shape(self) -> tuple[int, ...]:
        """``(N, C, D, H, W)`` of the forward convolution's output."""
        return (self.batch, self.y_channels, *(axis.output for axis in self.axes3))

    @cached_property
    def w_shape(self) -> tuple[int, ...]:
        """``(O, I / groups, KD, KH, KW)`` of the weight."""
        group_channels = self.x_channels // self.groups
        return (self.y_channels, group_channels, *(axis.kernel for axis in self.axes3))

    @cached_property
    def converts_integers(self) -> bool:
        """Whether operands are integers of another dtype than the sums."""
        return self.dtype != self.compute_dtype and self.dtype.startswith(("bool", "int", "uint"))

    def _stored(self, channels: int, extents: tuple[int, ...]) -> tuple[int, ...]:
        full = (self.batch, channels, *extents)
        if self.channels_last:
            full = channels_last(full)
        return full if self.batched else full[1:]

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the call's input, in its own layout."""
        if self.transposed:
            return self._stored(self.y_channels, tuple(axis.output for axis in self.axes))
        return self._stored(self.x_channels, tuple(axis.input for axis in self.axes))

    @cached_property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the call's output, in its own layout."""
        if self.transposed:
            return self._stored(self.x_channels, tuple(axis.input for axis in self.axes))
        return self._stored(self.y_channels, tuple(axis.output for axis in self.axes))

    @cached_property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight as it is stored."""
        ordered = (*self.w_shape[:2], *(axis.kernel for axis in self.axes))
        stored = [0] * len(ordered)
        for extent, axis in zip(ordered, self.weight_axes, strict=True):
            stored[axis] = extent
        return tuple(stored)

    @property
    def out_channels(self) -> int:
        """Channels of the call's output, which is the length of its bias."""
        return self.x_channels if self.transposed else self.y_channels

    @property
    def macs(self) -> int:
        """Multiply-accumulates, taps on padding included, as papers count them."""
        return prod(self.y_shape) * prod(self.w_shape[1:])

    @property
    def flops(self) -> int:
        """Two for each multiply-accumulate, whatever the dtype."""
        return 2 * self.macs

    @property
    def parameters(self) -> int:
        """Elements of the weight, and of the bias if there is one."""
        return prod(self.w_shape) + (self.out_channels if self.has_bias else 0)

    @property
    def least_bytes(self) -> int:
        """Bytes that must move at least: each operand read once, the result written once."""
        operand, result = (
            dtype_rule("plan", "operand", self.dtype, True),
            dtype_rule("plan", "result", self.output_dtype),
        )
        elements = prod(self.input_shape) + prod(self.w_shape)
        return (
            elements * operand.itemsize
            + (prod(self.output_shape) + (self.out_channels if self.has_bias else 0)) * result.itemsize
        )

    @property
    def arithmetic_intensity(self) -> float:
        """FLOPs for each of the least bytes (Williams, Waterman and Patterson 2009, the roofline model)."""
        return self.flops / self.least_bytes if self.least_bytes else 0.0

    def __str__(self) -> str:
        name = f"conv_transpose{self.rank}d" if self.transposed else f"conv{self.rank}d"
        padding = ", ".join(f"({axis.pad_before}, {axis.pad_after})" for axis in self.axes)
        modes = {axis.mode for axis in self.axes}
        return "\n".join(
            [
                f"{name}  {self.input_shape} * {self.weight_shape} -> {self.output_shape}  {self.dtype}",
                f"  stride {tuple(axis.stride for axis in self.axes)}  padding {padding} {'/'.join(sorted(modes))}"
                f"  dilation {tuple(axis.dilation for axis in self.axes)}  groups {self.groups}",
                f"  accumulates in {self.compute_dtype}, returns {self.output_dtype}"
                + {"tf32": ", may round operands to TF32", "strict": ", without transforms"}.get(self.precision, ""),
                f"  {self.flops:,} FLOPs, {self.least_bytes:,} bytes at least, "
                f"{self.arithmetic_intensity:.1f} FLOPs per byte, {self.parameters:,} parameters",
            ]
        )


def _check_channels(
    op: str, transposed: bool, groups: int, channels: int, weight: tuple[int, ...], shapes: str
) -> None:
    """The channel rule. ``weight`` is ordered ``O, I, spatial...``."""
    if transposed:
        if channels != weight[0]:
            raise ShapeError(f"{op}: weight takes {weight[0]} input channels, but input has {channels} {shapes}")
        if channels % groups:
            raise ShapeError(f"{op}: input has {channels} channels, not divisible by groups {groups} {shapes}")
        return
    if channels % groups:
        raise ShapeError(f"{op}: input has {channels} channels, not divisible by groups {groups} {shapes}")
    if weight[0] % groups:
        raise ShapeError(f"{op}: weight has {weight[0]} output channels, not divisible by groups {groups} {shapes}")
    if weight[1] != channels // groups:
        raise ShapeError(
            f"{op}: weight has {weight[1]} channels per group, but input has {channels} channels / "
            f"{groups} groups = {channels // groups} {shapes}"
        )


def check_axes(op: str, name: str, shape: tuple[int, ...], rank: int, last: bool, shapes: str | None = None) -> None:
    """The rule of how many axes data has. ``shapes`` are those that the message ends with; else its own.

    Raises
    ------
    ShapeError
        For any number but the rank and one or two.
    """
    if len(shape) not in (rank + 1, rank + 2):
        rule, hint = axes_rule(name, shape, rank, last)
        raise ShapeError(f"{op}: {rule}{f' ({name} {shape})' if shapes is None else shapes}{hint}")


def _check_extents(op: str, what: str, extents: tuple[int, ...], shapes: str) -> None:
    for axis, extent in enumerate(extents):
        if extent == 0:
            raise ShapeError(f"{op}: {what} has extent 0 on spatial axis {axis}, but must have at least 1 {shapes}")


def _check_sizes(op: str, plan: ConvPlan, shapes: str) -> None:
    itemsize = max(dtype_rule(op, "operand", name, True).itemsize for name in (plan.dtype, plan.output_dtype))
    for what, extents in (
        ("input", plan.input_shape),
        ("weight", plan.weight_shape),
        ("output", plan.output_shape),
        ("padded input", (plan.batch, plan.x_channels, *(axis.padded for axis in plan.axes))),
    ):
        if prod(extents) * itemsize > _LARGEST:
            raise ShapeError(
                f"{op}: {what} of shape {extents} has {prod(extents)} elements of {itemsize} bytes, "
                f"but at most {_LARGEST} bytes can be addressed {shapes}"
            )


@lru_cache(maxsize=4096)
def make_plan(
    op: str,
    rank: int,
    transposed: bool,
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    geometry: Geometry,
    data_format: str | None,
    weight_format: str | None,
    has_bias: bool,
    dtype: str,
    output_dtype: str | None,
    precision: str = DEFAULT_PRECISION,
    folds: Folds | None = None,
) -> ConvPlan:
    """The plan of a call, from arguments that are checked one by one already.

    ``output_dtype`` overrides the dtype rule's, where the call asks for one, or a bias or residual promotes the result;
    ``folds`` is that of a larger problem, of which this one is a part.
    """
    shapes = f"(input {input_shape}, weight {weight_shape})"
    last = is_channels_last(op, rank, data_format)
    order = weight_order(op, rank, weight_format, last)
    if len(weight_shape) != rank + 2:
        raise ShapeError(
            f"{op}: weight must have {rank + 2} axes, but has {len(weight_shape)} {shapes}"
            f"{kernel_hint('weight', len(weight_shape), rank, last)}"
        )
    check_axes(op, "input", input_shape, rank, last, f" {shapes}")
    batched = len(input_shape) == rank + 2
    full = input_shape if batched else (1, *input_shape)
    channels, extents = (full[-1], full[1:-1]) if last else (full[1], full[2:])
    weight = tuple(weight_shape[axis] for axis in order)
    _check_extents(op, "weight", weight[2:], shapes)
    _check_extents(op, "input", extents, shapes)
    try:
        _check_channels(op, transposed, geometry.groups, channels, weight, shapes)
    except ShapeError as error:
        groups = 1 if transposed else geometry.groups
        inner = 0 if transposed else 1
        hint = channels_hint(
            op, rank, full, batched, lambda axes: weight_shape[axes[inner]] * groups, last, weight_format
        )
        raise ShapeError(f"{error}{hint}") from None
    result = dtype_rule(op, "input", dtype).output if output_dtype is None else output_dtype
    compute = accumulator(result)
    axes = tuple(
        axis_of(op, transposed, extent, weight[2 + at], geometry, at, shapes) for at, extent in enumerate(extents)
    )
    plan = ConvPlan(
        rank=rank,
        transposed=transposed,
        batched=batched,
        channels_last=last,
        weight_axes=order,
        batch=full[0],
        x_channels=weight[1] * geometry.groups if transposed else channels,
        y_channels=weight[0],
        groups=geometry.groups,
        axes=axes,
        padding_value=geometry.padding_value,
        has_bias=has_bias,
        dtype=dtype,
        compute_dtype=compute,
        output_dtype=result,
        precision=DEFAULT_PRECISION if precision == "tf32" and not dtype == compute == "float32" else precision,
        folds=unfolded(rank) if folds is None else folds,
    )
    if folds is None:
        plan = replace(plan, folds=plan.own_folds)
    _check_sizes(op, plan, shapes)
    return plan


@bordered
def plan_conv(
    input_shape: Ints,
    weight_shape: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    padding_mode: PaddingMode = "zeros",
    padding_value: Scalar = 0,
    output_padding: Ints = 0,
    output_size: Ints | None = None,
    data_format: str | None = None,
    weight_format: str | None = None,
    transposed: bool = False,
    bias: bool = False,
    dtype: object = "float32",
    output_dtype: object = None,
    precision: str = DEFAULT_PRECISION,
) -> ConvPlan:
    """Plan a convolution from shapes alone, without any array.

    Parameters
    ----------
    input_shape, weight_shape : sequence of int
        As the arrays would have them; the rank is the weight's axes less two.
    stride, padding, dilation, groups, padding_mode, padding_value, output_padding, output_size, \
data_format, weight_format
        As in `numbaconv.conv` and `numbaconv.conv_transpose`.
    transposed : bool
        Plan a transposed convolution.
    bias : bool
        Count a bias among the parameters.
    dtype : str, numpy.dtype or scalar type
        Of input and weight.
    output_dtype : str, numpy.dtype or scalar type, optional
        Of the result, where the call asks for it with ``dtype=``.
    precision : {"strict", "float32", "tf32"}
        As in `numbaconv.conv`, but without asking the environment. "tf32" concerns float32 operands alone.

    Returns
    -------
    ConvPlan

    Raises
    ------
    ShapeError, ArgumentError, DTypeError
        For every problem that the convolution itself would refuse.

    Examples
    --------
    >>> from numbaconv import plan_conv
    >>> plan = plan_conv((1, 64, 56, 56), (64, 64, 3, 3), padding=1)
    >>> plan.output_shape, plan.flops, plan.parameters
    ((1, 64, 56, 56), 231211008, 36864)
    >>> print(plan)
    conv2d  (1, 64, 56, 56) * (64, 64, 3, 3) -> (1, 64, 56, 56)  float32
      stride (1, 1)  padding (1, 1), (1, 1) zeros  dilation (1, 1)  groups 1
      accumulates in float32, returns float32
      231,211,008 FLOPs, 1,753,088 bytes at least, 131.9 FLOPs per byte, 36,864 parameters
    """
    op = "plan_conv"
    for name, flag in (("transposed", transposed), ("bias", bias)):
        if flag not in (True, False):
            raise DTypeError(f"{op}: {name} must be a bool, but is {flag!r}")
    weight = shape(op, "weight_shape", weight_shape)
    rank = rank_of(op, weight)
    geometry = Geometry.of(
        op,
        rank,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        padding_value=padding_value,
        output_padding=output_padding,
        output_size=output_size,
    )
    weight_order(op, rank, weight_format, is_channels_last(op, rank, data_format))  # checks both names
    return make_plan(
        op,
        rank,
        bool(transposed),
        shape(op, "input_shape", input_shape),
        weight,
        geometry,
        data_format,
        weight_format,
        bool(bias),
        dtype_name(dtype),
        None if output_dtype is None else _asked(op, output_dtype, dtype_name(dtype)),
        check_precision(op, "precision", precision),
    )


def _asked(op: str, output_dtype: object, dtype: str) -> str:
    """The name of a result's dtype, where it may be asked for with operands of a dtype."""
    name = dtype_name(output_dtype)
    dtype_rule(op, "input", dtype, True)
    if name not in ASKED or not holds(name, dtype):
        raise DTypeError(
            f"{op}: output_dtype is {name}, but must be one of {', '.join(ASKED)} which holds the operands' {dtype}"
        )
    return name


def rank_of(op: str, weight: tuple[int, ...]) -> int:
    """The rank that a weight's shape stands for."""
    if len(weight) not in (3, 4, 5):
        hint = kernel_hint("weight", len(weight), len(weight), False) if len(weight) in (1, 2) else ""
        raise ShapeError(
            f"{op}: weight must have 3, 4 or 5 axes (rank 1, 2 or 3), but has {len(weight)}: {weight}{hint}"
        )
    return len(weight) - 2
