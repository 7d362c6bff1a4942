"""The road of a call: arrays, plan, backend, algorithm, result.

Which primitive a call is follows from the operand that it produces and from whether it is transposed::

                     input   weight   output
    conv               x       w        y        the plan's names
    conv_transpose     y       w        x

Producing ``y`` is FORWARD, ``x`` INPUT_GRAD, ``w`` WEIGHT_GRAD.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from .arrays import Array, as_array, canonical_data, canonical_weight, like_result, promote, result
from .backends.activations import resolve_activation
from .backends.base import NO_EPILOGUE, Algorithm, Backend, Direction, Epilogue
from .backends.registry import disabled_algorithms, forced_algorithm, resolve
from .errors import ArgumentError, DTypeError, ShapeError
from .plan import ConvPlan, Geometry, dtype_name, dtype_rule, make_plan, rank_of
from .plan.arguments import shape
from .plan.layout import is_channels_last, weight_order

__all__ = ["Call", "Job", "choose", "direction_of", "named_backend", "prepare_job", "run", "scaled_gradient"]

_ROLES = {
    False: {"input": "x", "weight": "w", "output": "y"},
    True: {"input": "y", "weight": "w", "output": "x"},
}


def direction_of(transposed: bool, produces: str) -> Direction:
    """The primitive that produces an operand of a convolution or transposed convolution."""
    return Direction(_ROLES[transposed][produces])


@dataclass(frozen=True, slots=True)
class Call:
    """What was called: its name in messages, and what every step of the road needs to know of it."""

    op: str
    rank: int
    transposed: bool
    produces: str
    geometry: Geometry
    data_format: str | None
    weight_format: str | None

    @classmethod
    def of(
        cls,
        name: str,
        rank: int | None,
        weight: object,
        transposed: bool,
        produces: str,
        data_format: str | None,
        weight_format: str | None,
        **geometry: Any,
    ) -> "Call":
        """Check a call's plain arguments. ``weight`` is an array or a shape; without a rank, it gives one.

        ``{}`` in the name stands for the rank.
        """
        if rank is None:
            rank = rank_of(name.format(""), _extents_of(name.format(""), weight))
        op = name.format(f"{rank}d")
        weight_order(op, rank, weight_format, is_channels_last(op, rank, data_format))  # checks both names
        checked = Geometry.of(op, rank, **geometry)
        return cls(op, rank, transposed, produces, checked, data_format, weight_format)


def _extents_of(op: str, weight: object) -> tuple[int, ...]:
    """The shape of a weight, given as an array or as a shape."""
    if isinstance(weight, list | tuple) and weight and np.ndim(weight[0]) == 0:
        return shape(op, "weight_size", weight)
    extents: tuple[int, ...] = as_array(op, "weight", weight).shape
    return extents


@dataclass(slots=True)
class _Operands:
    """Arrays by public name, sizes where a gradient is given a shape instead, and their dtypes."""

    arrays: dict[str, Array] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)


#: What messages call the operand that stands for a convolution's output, in a gradient.
_GIVEN_NAMES = {"input": "input", "weight": "weight", "output": "grad_output"}


def _gather(call: Call, operands: Mapping[str, object]) -> _Operands:
    found = _Operands()
    for name, value in operands.items():
        if name == call.produces:
            found.shapes[name] = shape(call.op, f"{name}_size", value)
        else:
            found.arrays[name] = as_array(call.op, _GIVEN_NAMES[name], value)
            found.shapes[name] = found.arrays[name].shape
    return found


def _vector(call: Call, bias: object, length: int) -> Array:
    vector = as_array(call.op, "bias", bias)
    if vector.shape != (length,):
        raise ShapeError(f"{call.op}: bias has shape {vector.shape}, but there are {length} output channels")
    return vector


def _view(plan: ConvPlan, name: str, array: Array) -> Array:
    return canonical_weight(plan, array) if name == "weight" else canonical_data(plan, array)


def _check_given(call: Call, plan: ConvPlan, shapes: Mapping[str, tuple[int, ...]]) -> None:
    found = shapes.get("output")
    if found is not None and found != plan.output_shape:
        raise ShapeError(
            f"{call.op}: grad_output has shape {found}, but the output has {plan.output_shape} "
            f"(input {plan.input_shape}, weight {plan.weight_shape})"
        )


def choose(
    op: str, plan: ConvPlan, direction: Direction, backend: str | None, algorithm: str | None
) -> tuple[Backend, Algorithm]:
    """The backend and algorithm that a call gets."""
    chosen = named_backend(op, backend)
    if algorithm is not None and not isinstance(algorithm, str):
        raise DTypeError(f"{op}: algorithm must be a name, but is {algorithm!r}")
    return chosen, chosen.select(op, plan, direction, forced_algorithm(algorithm), disabled_algorithms())


def named_backend(op: str, backend: str | None) -> Backend:
    """The backend of a call, given its ``backend=`` argument."""
    if backend is not None and not isinstance(backend, str):
        raise DTypeError(f"{op}: backend must be a name, but is {backend!r}")
    return resolve(backend)


@dataclass(frozen=True, slots=True)
class Job:
    """A call with everything checked and its result allocated: all that is left is to run it."""

    algorithm: Algorithm
    plan: ConvPlan
    roles: dict[str, Array]
    epilogue: Epilogue
    returned: Array
    filled: Array

    def execute(self) -> Array:
        """Fill and return the result."""
        self.algorithm.run(self.plan, self.roles["x"], self.roles["w"], self.roles["y"], self.epilogue)
        if self.filled is not self.returned:
            self.returned[...] = self.filled
        return self.returned


def prepare_job(
    call: Call,
    operands: Mapping[str, object],
    *,
    bias: object = None,
    residual: object = None,
    activation: object = None,
    out: object = None,
    backend: str | None = None,
    algorithm: str | None = None,
) -> Job:
    """Check one primitive and choose its algorithm.

    ``operands`` has arrays under two of the names ``input``, ``weight``, ``output``; a gradient has the
    shape of what it produces under the third.
    """
    op, given = call.op, _gather(call, operands)
    common = promote(op, {_GIVEN_NAMES[name]: array.dtype for name, array in given.arrays.items()})
    extras = {
        name: as_array(op, name, value) for name, value in (("bias", bias), ("residual", residual)) if value is not None
    }
    dtype = like_result(op, common, {name: array.dtype for name, array in extras.items()})
    plan = make_plan(
        op,
        call.rank,
        call.transposed,
        given.shapes["input"],
        given.shapes["weight"],
        call.geometry,
        call.data_format,
        call.weight_format,
        bias is not None,
        dtype_name(common),
        dtype_name(dtype),
    )
    _check_given(call, plan, given.shapes)
    _check_padding_value(op, plan)
    epilogue = _epilogue(call, plan, extras, activation)
    engine, chosen = choose(op, plan, direction_of(call.transposed, call.produces), backend, algorithm)
    if epilogue.activation is not None:
        engine.check_activation(epilogue.activation, plan.compute_dtype)
    wanted = {"input": plan.input_shape, "weight": plan.weight_shape, "output": plan.output_shape}[call.produces]
    reads = [*given.arrays.values(), *(extras[name] for name in extras if name != "residual")]
    returned, filled = result(op, out, wanted, dtype, reads, extras.get("residual"))
    roles = {_ROLES[call.transposed][name]: _view(plan, name, array) for name, array in given.arrays.items()}
    roles[_ROLES[call.transposed][call.produces]] = _view(plan, call.produces, filled)
    return Job(chosen, plan, roles, epilogue, returned, filled)


def run(call: Call, operands: Mapping[str, object], **options: Any) -> Array:
    """Run one primitive, given as to `prepare_job`."""
    return prepare_job(call, operands, **options).execute()


def _check_padding_value(op: str, plan: ConvPlan) -> None:
    value = plan.padding_value
    try:
        complex(value)
    except OverflowError:
        raise ArgumentError(f"{op}: padding_value has {len(str(value))} digits, too many for {plan.dtype}") from None
    if isinstance(value, complex) and not plan.compute_dtype.startswith("complex"):
        raise DTypeError(f"{op}: padding_value is {value}, but the operands are {plan.dtype}")
    if plan.compute_dtype.startswith("int") and (
        value != value
        or abs(value) == float("inf")
        or value != int(value.real)
        or abs(value) > _INT_MAX[plan.compute_dtype]
    ):
        raise DTypeError(
            f"{op}: padding_value is {value}, but the operands are {plan.dtype} and sums {plan.compute_dtype}"
        )


_INT_MAX = {"int32": 2**31 - 1, "int64": 2**63 - 1}


def _epilogue(call: Call, plan: ConvPlan, extras: Mapping[str, Array], activation: object) -> Epilogue:
    found = resolve_activation(call.op, activation, plan.compute_dtype)
    if not extras and found is None:
        return NO_EPILOGUE
    bias, residual = extras.get("bias"), extras.get("residual")
    if bias is not None:
        bias = _vector(call, bias, plan.out_channels)
    if residual is not None:
        if residual.shape != plan.output_shape:
            raise ShapeError(
                f"{call.op}: residual has shape {residual.shape}, but the output has {plan.output_shape} "
                f"(input {plan.input_shape}, weight {plan.weight_shape})"
            )
        residual = canonical_data(plan, residual)
    return Epilogue(bias, residual, found)


@lru_cache(maxsize=64)
def _compute_dtype(op: str, name: str) -> np.dtype:
    return np.dtype(dtype_rule(op, "grad_output", name).compute)


def scaled_gradient(
    op: str,
    grad_output: object,
    activation: object,
    pre_activation: object,
    output: object,
    backend: str | None,
) -> tuple[Array, Callable[[], None]]:
    """The gradient by the pre-activation, ``grad_output * activation'(saved)``, and what fills it.

    Checking and filling are apart so that a caller can check everything else before any work.

    Raises
    ------
    ArgumentError
        If what the derivative needs was not saved.
    """
    grad: Array = as_array(op, "grad_output", grad_output)
    if activation is None:
        if pre_activation is not None or output is not None:
            raise ArgumentError(f"{op}: a saved array was given, but no activation")
        return grad, lambda: None
    chosen = named_backend(op, backend)
    arrays = {"grad_output": grad}
    for name, saved in (("pre_activation", pre_activation), ("output", output)):
        if saved is not None:
            arrays[name] = as_array(op, name, saved)
    common = promote(op, {name: array.dtype for name, array in arrays.items()})
    compute = _compute_dtype(op, dtype_name(common))
    found = resolve_activation(op, activation, compute.name)
    assert found is not None
    if found.derivative is None:
        raise ArgumentError(
            f"{op}: activation {found.name!r} is a function without a derivative; pass (function, derivative)"
        )
    if "pre_activation" in arrays:
        name, derivative = "pre_activation", found.derivative
    elif "output" in arrays and found.derivative_from_output is not None:
        name, derivative = "output", found.derivative_from_output
    else:
        either = "pre_activation" if found.derivative_from_output is None else "pre_activation or output"
        raise ArgumentError(
            f"{op}: the derivative of activation {found.name!r} needs {either}, saved from the forward call"
        )
    values = arrays[name]
    if values.shape != grad.shape:
        raise ShapeError(f"{op}: {name} has shape {values.shape}, but grad_output has {grad.shape}")
    scaled = np.empty(grad.shape, common)

    def fill() -> None:
        # The derivative of a holomorphic function acts by its conjugate: conj(conj(g) * d) = g * conj(d).
        factor = np.conj(grad) if compute.kind == "c" else grad
        chosen.activation_grad(derivative, factor.astype(compute), values.astype(compute), scaled)
        if compute.kind == "c":
            np.conj(scaled, out=scaled)

    return scaled, fill
