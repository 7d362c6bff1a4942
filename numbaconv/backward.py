"""What every gradient function does: the activation's derivative, then a primitive or a sum."""

from __future__ import annotations

from typing import Any, NamedTuple, TypedDict

import numpy as np

from .arrays import Array, as_array, data_view
from .dispatch import Call, run, scaled_gradient
from .errors import ShapeError
from .functional import Activation
from .plan import Ints, PaddingMode, Scalar, dtype_name, dtype_rule
from .plan.layout import is_channels_last

__all__ = [
    "BackwardOptions",
    "ConvGradients",
    "InputGradOptions",
    "TransposedBackwardOptions",
    "TransposedOptions",
    "backward",
    "bias_gradient",
    "gradient",
]


class ConvGradients(NamedTuple):
    """Gradients by input, weight and bias; None where ``output_mask`` leaves one out."""

    input: Array | None
    weight: Array | None
    bias: Array | None


class GradOptions(TypedDict, total=False):
    """Keyword arguments that every gradient takes."""

    padding_mode: PaddingMode
    padding_value: Scalar
    data_format: str | None
    weight_format: str | None
    activation: Activation
    pre_activation: object
    output: object
    algorithm: str | None
    backend: str | None


class InputGradOptions(GradOptions, total=False):
    """Those of a gradient that returns one array."""

    out: Array | None


class BackwardOptions(GradOptions, total=False):
    """Those of a function that returns all gradients."""

    output_mask: tuple[bool, bool, bool]


class TransposedOptions(InputGradOptions, total=False):
    """Those of a transposed convolution's gradient."""

    output_size: Ints | None


class TransposedBackwardOptions(BackwardOptions, total=False):
    """Those of a function that returns all gradients of a transposed convolution."""

    output_size: Ints | None


def _conjugate(array: object) -> object:
    values: Any = array
    return np.conj(values) if np.asarray(values).dtype.kind == "c" else array


def gradient(
    op: str,
    rank: int | None,
    transposed: bool,
    produces: str,
    operands: dict[str, object],
    *,
    activation: Activation = None,
    pre_activation: object = None,
    output: object = None,
    data_format: str | None = None,
    weight_format: str | None = None,
    out: Array | None = None,
    algorithm: str | None = None,
    backend: str | None = None,
    **geometry: Any,
) -> Array:
    """One gradient: the activation's derivative first, then the primitive that produces the operand."""
    grad = scaled_gradient(op.format(f"{rank}d"), operands["output"], activation, pre_activation, output, backend)
    other = "weight" if produces == "input" else "input"
    given = {produces: operands[produces], other: _conjugate(operands[other]), "output": grad}
    if "padding_value" in geometry:  # padding is part of the input
        geometry["padding_value"] = _conjugate(geometry["padding_value"])
    call = Call.of(op, rank, given["weight"], transposed, produces, data_format, weight_format, **geometry)
    return run(call, given, out=out, algorithm=algorithm, backend=backend)


def bias_gradient(
    rank: int | None,
    grad_output: object,
    *,
    data_format: str | None = None,
    activation: Activation = None,
    pre_activation: object = None,
    output: object = None,
    backend: str | None = None,
) -> Array:
    """The sum of the gradient by the pre-activation over all axes but the channels."""
    assert rank is not None
    op = f"conv{rank}d_bias"
    grad = as_array(op, "grad_output", scaled_gradient(op, grad_output, activation, pre_activation, output, backend))
    if grad.ndim not in (rank + 1, rank + 2):
        raise ShapeError(
            f"{op}: grad_output must have {rank + 2} axes, or {rank + 1} without a batch axis, "
            f"but has shape {grad.shape}"
        )
    view = data_view(grad, is_channels_last(op, rank, data_format), grad.ndim == rank + 2)
    rule = dtype_rule(op, "grad_output", grad.dtype)
    wide = np.result_type(np.dtype(rule.compute), np.float64) if np.dtype(rule.compute).kind in "fc" else rule.compute
    total = view.sum(axis=(0, *range(2, rank + 2)), dtype=wide)
    with np.errstate(over="ignore"):  # half types round to infinity
        result: Array = total.astype(grad.dtype if rule.output == dtype_name(grad.dtype) else rule.output)
    return result


def backward(
    op: str,
    rank: int | None,
    transposed: bool,
    operands: dict[str, object],
    *,
    activation: Activation = None,
    pre_activation: object = None,
    output: object = None,
    output_mask: tuple[bool, bool, bool] = (True, True, True),
    **options: Any,
) -> ConvGradients:
    """All gradients that are asked for, the activation's derivative taken once."""
    name, backend = op.format(f"{rank}d"), options.get("backend")
    grad = scaled_gradient(name, operands["output"], activation, pre_activation, output, backend)
    arrays = {each: as_array(name, each, operands[each]) for each in ("input", "weight")}
    found: dict[str, Array] = {}
    for produces, wanted in zip(("input", "weight"), output_mask, strict=False):
        if wanted:
            given = {**arrays, "output": grad, produces: arrays[produces].shape}
            found[produces] = gradient(op, rank, transposed, produces, given, **options)
    by_bias = (
        bias_gradient(rank, grad, data_format=options.get("data_format"), backend=backend) if output_mask[2] else None
    )
    return ConvGradients(found.get("input"), found.get("weight"), by_bias)
