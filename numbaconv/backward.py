"""What every gradient function does: the activation's derivative, then a primitive or a sum."""

from __future__ import annotations

from typing import Any, NamedTuple, TypedDict

import numpy as np

from .arrays import Array, as_array, data_view
from .dispatch import Call, Job, named_backend, prepare_job, scaled_gradient
from .errors import ArgumentError, DTypeError, ShapeError
from .functional import Activation
from .plan import Ints, PaddingMode, Scalar, dtype_name, dtype_rule
from .plan.layout import is_channels_last

__all__ = [
    "BiasOptions",
    "ConvBackwardOptions",
    "ConvGradOptions",
    "ConvGradients",
    "TransposedBackwardOptions",
    "TransposedGradOptions",
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
    """Keyword arguments that every gradient by input or weight takes."""

    padding_mode: PaddingMode
    data_format: str | None
    weight_format: str | None
    activation: Activation
    pre_activation: object
    output: object
    algorithm: str | None
    backend: str | None


class ConvGradOptions(GradOptions, total=False):
    """Those of a convolution's gradient by input or weight."""

    padding_value: Scalar
    out: Array | None


class ConvBackwardOptions(GradOptions, total=False):
    """Those of a function that returns all gradients of a convolution."""

    padding_value: Scalar
    output_mask: tuple[bool, bool, bool]


class TransposedGradOptions(GradOptions, total=False):
    """Those of a transposed convolution's gradient by input or weight."""

    output_size: Ints | None
    out: Array | None


class TransposedBackwardOptions(GradOptions, total=False):
    """Those of a function that returns all gradients of a transposed convolution."""

    output_size: Ints | None
    output_mask: tuple[bool, bool, bool]


class BiasOptions(TypedDict, total=False):
    """Those of a gradient by the bias."""

    data_format: str | None
    activation: Activation
    pre_activation: object
    output: object
    backend: str | None


def _conjugate(value: Any) -> Any:
    return np.conj(value) if np.iscomplexobj(value) else value


def _prepare(
    op: str,
    rank: int | None,
    transposed: bool,
    produces: str,
    operands: dict[str, object],
    *,
    data_format: str | None = None,
    weight_format: str | None = None,
    out: Array | None = None,
    algorithm: str | None = None,
    backend: str | None = None,
    **geometry: Any,
) -> Job:
    """The primitive that produces an operand's gradient; conjugation makes it the adjoint."""
    other = "weight" if produces == "input" else "input"
    array = as_array(op.format(f"{rank}d"), other, operands[other])
    grad: Any = operands["output"]
    if (
        np.iscomplexobj(array) or np.iscomplexobj(grad)
    ) and "padding_value" in geometry:  # padding is part of the input
        geometry["padding_value"] = _conjugate(geometry["padding_value"])
    given = {**operands, other: _conjugate(array)}
    call = Call.of(op, rank, given["weight"], transposed, produces, data_format, weight_format, **geometry)
    return prepare_job(call, given, out=out, algorithm=algorithm, backend=backend)


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
    **options: Any,
) -> Array:
    """One gradient: the activation's derivative first, then the primitive that produces the operand."""
    name, backend = op.format(f"{rank}d"), options.get("backend")
    grad, fill = scaled_gradient(name, operands["output"], activation, pre_activation, output, backend)
    job = _prepare(op, rank, transposed, produces, {**operands, "output": grad}, **options)
    fill()
    return job.execute()


def bias_gradient(
    op: str,
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
    op = op.format(f"{rank}d")
    named_backend(op, backend)
    grad, fill = scaled_gradient(op, grad_output, activation, pre_activation, output, backend)
    if grad.ndim not in (rank + 1, rank + 2):
        raise ShapeError(
            f"{op}: grad_output must have {rank + 2} axes, or {rank + 1} without a batch axis, "
            f"but has shape {grad.shape}"
        )
    view = data_view(grad, is_channels_last(op, rank, data_format), grad.ndim == rank + 2)
    fill()
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
    """All gradients that are asked for, everything checked first, the activation's derivative taken once."""
    name, backend = op.format(f"{rank}d"), options.get("backend")
    wanted = _mask(name, output_mask)
    grad, fill = scaled_gradient(name, operands["output"], activation, pre_activation, output, backend)
    arrays = {each: as_array(name, each, operands[each]) for each in ("input", "weight")}
    jobs = {}
    for produces, array in arrays.items():
        given = {**arrays, "output": grad, produces: array.shape}
        job = _prepare(op, rank, transposed, produces, given, **options)
        if wanted[produces]:
            jobs[produces] = job
    fill()
    found = {produces: job.execute() for produces, job in jobs.items()}
    if wanted["bias"]:
        found["bias"] = bias_gradient(op, rank, grad, data_format=options.get("data_format"), backend=backend)
    return ConvGradients(found.get("input"), found.get("weight"), found.get("bias"))


def _mask(op: str, output_mask: object) -> dict[str, bool]:
    if not isinstance(output_mask, tuple | list):
        raise DTypeError(f"{op}: output_mask must be three bools, but is {output_mask!r}")
    if len(output_mask) != 3:
        raise ArgumentError(f"{op}: output_mask must have 3 entries, but has {len(output_mask)}: {output_mask}")
    return dict(zip(("input", "weight", "bias"), map(bool, output_mask), strict=True))
