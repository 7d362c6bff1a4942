"""What the tasks do: one call of a public function for each block, with the block's own plan."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ... import functional, grad
from ...arrays import Array
from ...backends.subnormals import flush_subnormals, flushes_subnormals
from ...backward import scaled_gradient
from ...plan import ConvPlan, Geometry, folded_as
from ...routes import Site

__all__ = ["Job", "run_block", "run_scaling", "under"]

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """What all blocks of a call share.

    Attributes
    ----------
    name : str
        Of the function.
    transposed : bool
    produces : str
        ``output``, ``input`` or ``weight``, as `Site` has it.
    geometry : Geometry
    weight_format : str or None
    activation : str, function or None
    backend : str
    flushes : bool
        Whether subnormal numbers count as zeros, as it was asked for where the graph was built.
    dtype : numpy.dtype or None
        Of the result, where the call asks for it.
    """

    name: str
    transposed: bool
    produces: str
    geometry: Geometry
    weight_format: str | None
    activation: Any
    backend: str
    flushes: bool
    dtype: np.dtype | None

    @classmethod
    def of(
        cls,
        site: Site,
        rank: int,
        geometry: Geometry,
        weight_format: str | None,
        activation: Any,
        backend: str,
        dtype: np.dtype | None,
    ) -> "Job":
        """The job of a call."""
        stem = "conv_transpose" if site.transposed else "conv"
        name = f"{stem}{rank}d" + ("" if site.produces == "output" else f"_{site.produces}")
        flushes = flushes_subnormals(name)
        return cls(name, site.transposed, site.produces, geometry, weight_format, activation, backend, flushes, dtype)


def under(flushes: bool, function: Callable[..., T], *given: Any) -> T:
    """Run a task as it was asked for where its graph was built."""
    with flush_subnormals(flushes):
        return function(*given)


def _arguments(job: Job, plan: ConvPlan, algorithm: str | None) -> dict[str, Any]:
    modes = tuple(axis.mode for axis in plan.axes)
    found: dict[str, Any] = {
        "stride": job.geometry.stride,
        "padding": tuple((axis.pad_before, axis.pad_after) for axis in plan.axes),
        "dilation": job.geometry.dilation,
        "groups": plan.groups,
        "padding_mode": modes,
        "data_format": "channels_last" if plan.channels_last else None,
        "weight_format": job.weight_format,
        "algorithm": algorithm,
        "backend": job.backend,
        "precision": plan.precision,
        "dtype": job.dtype,
    }
    if job.transposed:
        found["output_size"] = tuple(axis.input for axis in plan.axes)
    elif "constant" in modes:
        found["padding_value"] = plan.padding_value
    return found


def run_block(
    job: Job,
    plan: ConvPlan,
    algorithm: str | None,
    crop: tuple[slice, ...] | None,
    first: Array,
    second: Array,
    bias: Array | None = None,
    residual: Array | None = None,
) -> Array:
    """A block's part of the result; ``first`` and ``second`` are what the site reads."""
    # With the folds of the whole problem, for the order of its sums.
    with folded_as(plan.folds) if plan.folds != plan.own_folds else nullcontext():
        arguments = _arguments(job, plan, algorithm)
        if job.produces == "weight":
            if plan.output_dtype != plan.compute_dtype:  # half types: rounded once all is summed
                arguments["dtype"] = plan.compute_dtype
            gradient: Array = getattr(grad, job.name)(first, plan.weight_shape, second, **arguments)
            return gradient
        if job.produces == "input":
            result: Array = getattr(grad, job.name)(plan.input_shape, first, second, **arguments)
        else:
            if residual is not None and crop is not None:
                whole = np.zeros(plan.output_shape, residual.dtype)
                whole[crop] = residual
                residual = whole
            function = getattr(functional, job.name)
            result = function(first, second, bias, residual=residual, activation=job.activation, **arguments)
        return result if crop is None else np.ascontiguousarray(result[crop])


def run_scaling(
    op: str,
    activation: Any,
    backend: str | None,
    saved: str,
    dtype: np.dtype | None,
    grad_output: Array,
    values: Array,
) -> Array:
    """A block of the gradient by the pre-activation."""
    pre_activation, output = (values if saved == name else None for name in ("pre_activation", "output"))
    scaled, fill = scaled_gradient(op, grad_output, activation, pre_activation, output, backend, dtype=dtype)
    fill()
    return scaled
