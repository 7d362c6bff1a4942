"""The road of a call: arrays, plan, backend, algorithm, result; for a call like an earlier one, its route at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .arrays import (
    Array,
    View,
    as_array,
    asked_dtype,
    asked_result,
    like_result,
    promote,
    view_of_data,
    view_of_weight,
)
from .backends.activations import Activation, resolve_activation
from .backends.base import Algorithm, Backend, Direction
from .backends.pieces import converting
from .backends.registry import (
    AUTOMATIC,
    AUTOMATIC_ON_DEVICE,
    choices,
    disabled_algorithms,
    forced_algorithm,
    is_in_use,
    resolve,
    resolve_precision,
)
from .backends.subnormals import as_asked
from .backends.winners import recall, tuning_mode
from .device_arrays import DeviceArray, found_on_device, on_device
from .error_state import undisturbed
from .errors import ArgumentError, BackendError, DTypeError, ShapeError
from .memory import check_fits, fits
from .plan import ConvPlan, Geometry, dtype_name, make_plan, rank_of, scoped_folds
from .plan.arguments import shape
from .plan.layout import is_channels_last, weight_order
from .routes import GIVEN_NAMES, DeviceRoute, Memory, Route, Site, asked_key, call_key

__all__ = [
    "Admitted",
    "Call",
    "Judged",
    "admit",
    "choose",
    "find_route",
    "judge",
    "may_be_remembered",
    "named_backend",
    "plan_of",
]


@dataclass(frozen=True, slots=True)
class Call:
    """What was called: its name in messages, and what every step of the road needs to know of it."""

    site: Site
    op: str
    rank: int
    geometry: Geometry
    data_format: str | None
    weight_format: str | None

    @classmethod
    def of(
        cls,
        site: Site,
        rank: int | None,
        weight: object,
        arguments: Mapping[str, Any],
        data_format: str | None,
        weight_format: str | None,
    ) -> "Call":
        """Check a call's plain arguments. ``weight`` is an array or a shape; without a rank, it gives one."""
        if rank is None:
            name = site.op(None)
            rank = rank_of(name, _extents_of(name, weight))
        op = site.op(rank)
        weight_order(op, rank, weight_format, is_channels_last(op, rank, data_format))  # checks both names
        return cls(site, op, rank, Geometry.of(op, rank, **arguments), data_format, weight_format)


def _extents_of(op: str, weight: object) -> tuple[int, ...]:
    """The shape of a weight, given as an array or as a shape."""
    if isinstance(weight, list | tuple) and weight and np.ndim(weight[0]) == 0:
        return shape(op, "weight_size", weight)
    extents: tuple[int, ...] = as_array(op, "weight", weight, True).shape
    return extents


def _check_given(op: str, plan: ConvPlan, shapes: Mapping[str, tuple[int, ...]]) -> None:
    found = shapes.get("output")
    if found is not None and found != plan.output_shape:
        raise ShapeError(
            f"{op}: grad_output has shape {found}, but the output has {plan.output_shape} "
            f"(input {plan.input_shape}, weight {plan.weight_shape})"
        )


def choose(
    op: str,
    plan: ConvPlan,
    direction: Direction,
    backend: str | None,
    algorithm: str | None,
    on_device: bool = False,
    measured: bool = True,
) -> tuple[Backend, Algorithm]:
    """The backend and algorithm that a call gets.

    ``measured`` is whether a plan may be measured now, where the environment asks for that.
    """
    chosen = named_backend(op, backend, on_device)
    if algorithm is not None and not isinstance(algorithm, str):
        raise DTypeError(f"{op}: algorithm must be a name, but is {algorithm!r}")
    forced, disabled = forced_algorithm(algorithm), disabled_algorithms()
    tuned = None if forced is not None else _tuned(chosen, plan, direction, disabled, measured)
    return chosen, chosen.select(op, plan, direction, forced, disabled, tuned)


def _tuned(
    backend: Backend, plan: ConvPlan, direction: Direction, disabled: frozenset[str], measured: bool
) -> str | None:
    """The algorithm that is remembered as the fastest, or None; measured now if the environment asks for that."""
    mode = tuning_mode()
    if mode == "off":
        return None
    winner = recall(backend, plan, direction)
    if winner is None and mode == "measure" and measured:
        from .measure import measure_first  # rarely needed

        winner = measure_first(backend, plan, direction, disabled)
    return None if winner is None else winner.algorithm


def named_backend(op: str, backend: str | None, on_device: bool = False) -> Backend:
    """The backend of a call, given its ``backend=`` argument and whether its arrays are on a device."""
    if backend is not None and not isinstance(backend, str):
        raise DTypeError(f"{op}: backend must be a name, but is {backend!r}")
    chosen = resolve(backend, AUTOMATIC_ON_DEVICE if on_device else AUTOMATIC)
    if on_device and chosen.residence is None:
        raise BackendError(
            f"{op}: the arrays are on a device, but backend {chosen.name!r} computes in the host's memory; "
            f"choose backend {AUTOMATIC_ON_DEVICE!r}, or bring them to the host"
        )
    return chosen


def plan_of(
    call: Call,
    shapes: Mapping[str, tuple[int, ...]],
    operands: dict[str, np.dtype],
    extras: dict[str, np.dtype],
    precision: str | None,
    asked: np.dtype | None = None,
) -> tuple[ConvPlan, np.dtype]:
    """The plan of a call, and the dtype of its result.

    ``shapes`` has those of ``input`` and ``weight``; ``operands`` and ``extras`` (bias and residual) dtypes by the
    names that messages use. ``asked`` is the result's dtype where the call says it.
    """
    if asked is None:
        common = promote(call.op, operands)
        dtype = like_result(call.op, operands, extras)
    else:
        common, dtype = asked_result(call.op, asked, operands, extras), asked
    plan = make_plan(
        call.op,
        call.rank,
        call.site.transposed,
        shapes["input"],
        shapes["weight"],
        call.geometry,
        call.data_format,
        call.weight_format,
        "bias" in extras,
        dtype_name(common),
        dtype_name(dtype),
        resolve_precision(call.op, precision),
        scoped_folds.get(),
    )
    return plan, dtype


class Judged(NamedTuple):
    """All that follows from a call's shapes, dtypes and arguments, and its arrays, checked.

    ``arrays`` are the operands by the site's names, ``extras`` bias and residual as far as they were given.
    """

    op: str
    plan: ConvPlan
    dtype: np.dtype
    engine: Backend
    algorithm: Algorithm
    activation: Activation | None
    arrays: dict[str, Array]
    extras: dict[str, Array]
    on_device: bool


def judge(
    site: Site,
    rank: int | None,
    first: object,
    second: object,
    names: tuple[str, ...],
    arguments: tuple[Any, ...],
    *,
    data_format: str | None = None,
    weight_format: str | None = None,
    size: object = None,
    bias: object = None,
    residual: object = None,
    activation: object = None,
    backend: str | None = None,
    algorithm: str | None = None,
    precision: str | None = None,
    dtype: object = None,
    stand_in: Callable[[ConvPlan], ConvPlan] | None = None,
    fresh: bool = True,
) -> Judged:
    """Check all of a call but ``out``, and choose what computes it.

    ``first`` and ``second`` are what the site reads, ``size`` is the shape of what it produces where that is an
    operand's gradient, ``names`` and ``arguments`` are those of `Geometry`, ``dtype`` is the result's where the call
    asks for it. No element is read. ``stand_in`` is for calls too large to make tables of: it gives the plan that the
    choice is made by, and nothing is measured for it. ``fresh`` is whether the result is to be allocated, as a whole,
    in the host's memory; else it may be of any size.
    """
    named = {site.reads[0]: first, site.reads[1]: second, site.produces: size}
    call = Call.of(site, rank, named["weight"], dict(zip(names, arguments, strict=True)), data_format, weight_format)
    op, arrays, shapes = call.op, {}, {}
    wanted, asked = asked_dtype(op, dtype), dtype is not None
    for name in GIVEN_NAMES:
        if name in site.reads:
            arrays[name] = as_array(op, GIVEN_NAMES[name], named[name], asked)
            shapes[name] = arrays[name].shape
        elif name != "output":
            shapes[name] = shape(op, f"{name}_size", size)
    extras = {
        name: as_array(op, name, value, asked)
        for name, value in (("bias", bias), ("residual", residual))
        if value is not None
    }
    plan, result = plan_of(
        call,
        shapes,
        {GIVEN_NAMES[name]: array.dtype for name, array in arrays.items()},
        {name: array.dtype for name, array in extras.items()},
        precision,
        wanted,
    )
    there = found_on_device(op, {**{GIVEN_NAMES[name]: each for name, each in arrays.items()}, **extras})
    _check_given(op, plan, shapes)
    _check_padding_value(op, plan)
    found = resolve_activation(op, activation, plan.compute_dtype)
    _check_extras(op, plan, extras)
    if fresh and stand_in is None and not there:
        _check_result(op, plan, site, result)
    decisive, measured = (plan, True) if stand_in is None else (stand_in(plan), False)
    with np.errstate(all="ignore"):  # algorithms make tables
        engine, chosen = choose(op, decisive, site.direction, backend, algorithm, there, measured)
    if found is not None:
        engine.check_activation(found, plan.compute_dtype)
    return Judged(op, plan, result, engine, chosen, found, arrays, extras, there)


def _result_shape(plan: ConvPlan, site: Site) -> tuple[int, ...]:
    shapes = {"input": plan.input_shape, "weight": plan.weight_shape, "output": plan.output_shape}
    return shapes[site.produces]


def _check_result(op: str, plan: ConvPlan, site: Site, dtype: np.dtype) -> None:
    shapes = f" (input {plan.input_shape}, weight {plan.weight_shape})"
    check_fits(op, "the result", _result_shape(plan, site), dtype.itemsize, shapes)


class Admitted(NamedTuple):
    """A call's route, and its arrays as the route takes them."""

    route: Route
    first: Array
    second: Array
    bias: Array | None
    residual: Array | None


def admit(
    site: Site,
    rank: int | None,
    first: object,
    second: object,
    names: tuple[str, ...],
    arguments: tuple[Any, ...],
    **options: Any,
) -> Admitted:
    """`judge` a call, and make the route of it and of all calls like it."""
    found = judge(site, rank, first, second, names, arguments, **options)
    kind = DeviceRoute if found.on_device else Route
    arrays, extras = found.arrays, found.extras
    with np.errstate(all="ignore"):
        route = _route(kind, site, found, _leaves_numpy_alone(site, found))
    return Admitted(route, arrays[site.reads[0]], arrays[site.reads[1]], extras.get("bias"), extras.get("residual"))


def _leaves_numpy_alone(site: Site, found: Judged) -> bool:
    """Whether no element goes through NumPy's arithmetic or conversions, whose error state is the caller's."""
    if not found.engine.compiled:
        return False
    compute = found.plan.compute_dtype
    arrays = (*found.arrays.values(), *found.extras.values())
    return dtype_name(found.dtype) == compute and all(dtype_name(array.dtype) == compute for array in arrays)


def _route(kind: type[Route], site: Site, found: Judged, quiet: bool) -> Route:
    plan, chosen = found.plan, found.algorithm
    data = tuple(array.dtype for name, array in found.arrays.items() if name != "weight")
    run = converting(chosen, plan, site.direction, data) if found.engine.compiled else chosen.runner(plan)
    see = {"x": view_of_data(plan, "x"), "w": view_of_weight(plan), "y": view_of_data(plan, "y")}
    views: list[View | None] = [see["xwy"[site.order.index(at)]] for at in range(3)]
    if chosen.flat:
        views = [view and view.reordered() for view in views]
    if kind is not DeviceRoute:
        run = as_asked(found.op, run)
    if not quiet:
        run = undisturbed(run)
    return kind(
        site=site,
        op=found.op,
        plan=plan,
        engine=found.engine,
        algorithm=chosen,
        run=run,
        quiet=quiet,
        activation=found.activation,
        shape=_result_shape(plan, site),
        dtype=found.dtype,
        views=(views[0], views[1], views[2]),
        residual_view=see[site.direction.value],
    )


#: The routes of the newest calls.
_routes: Memory[Route] = Memory(1024)


def find_route(
    site: Site,
    rank: int | None,
    first: object,
    second: object,
    names: tuple[str, ...],
    arguments: tuple[Any, ...],
    data_format: str | None,
    weight_format: str | None,
    backend: str | None,
    algorithm: str | None,
    precision: str | None,
    bias: object = None,
    residual: object = None,
    activation: object = None,
    size: object = None,
    out: object = None,
    dtype: object = None,
    automatic: str = AUTOMATIC,
) -> tuple[Route, Any, Any, Any, Any]:
    """Check all of a call but ``out``, and choose what computes it; or know it from a call like this one.

    Parameters are `admit`'s, and so is what is returned, as a plain tuple: ``route, *arrays``, for `Route.call` or
    `Route.job` to take with ``out``, which here says whether memory is needed for the result. ``automatic`` is the
    backend where none was chosen.
    """
    if type(first) is DeviceArray:  # some callers have looked at it already
        automatic = AUTOMATIC_ON_DEVICE
    name, forced, disabled, rounding, tuning = choices(backend, algorithm, precision, automatic)
    values = (*arguments, data_format, weight_format, name, forced, disabled, rounding)
    if dtype is not None:
        tuning = asked_key(tuning, dtype)
    key = call_key(site, rank, names, first, second, values, tuning, size, bias, residual, activation)
    if key is not None:
        route = _routes.get(key)
        if route is not None and is_in_use(name, route.engine):
            return route, first, second, bias, residual
    elif automatic is AUTOMATIC:
        there = _seen_on_device(site, rank, first, second, bias, residual, dtype is not None)
        if there is not None:
            first, second, bias, residual = there
            return find_route(
                site,
                rank,
                first,
                second,
                names,
                arguments,
                data_format,
                weight_format,
                backend,
                algorithm,
                precision,
                bias,
                residual,
                activation,
                size,
                out,
                dtype,
                AUTOMATIC_ON_DEVICE,
            )
    admitted = admit(
        site,
        rank,
        first,
        second,
        names,
        arguments,
        data_format=data_format,
        weight_format=weight_format,
        size=size,
        bias=bias,
        residual=residual,
        activation=activation,
        backend=backend,
        algorithm=algorithm,
        precision=precision,
        fresh=out is None,
        dtype=dtype,
    )
    given = (first, second, bias, residual)
    as_given = all(found is each for found, each in zip(admitted[1:], given, strict=True))
    if key is not None and as_given and may_be_remembered(admitted.route):
        _routes.put(key, admitted.route)
    return admitted


def may_be_remembered(route: Route) -> bool:
    """Whether any call like it may have the route: none may allocate a result that is larger than all memory."""
    return fits(route.shape, route.dtype.itemsize)


def _seen_on_device(
    site: Site, rank: int | None, first: object, second: object, bias: object, residual: object, asked: bool
) -> tuple[DeviceArray, DeviceArray, DeviceArray | None, DeviceArray | None] | None:
    """A call's arrays where they are on a device, so that the second call like it finds its route, too."""
    named = {site.reads[0]: first, site.reads[1]: second, "bias": bias, "residual": residual}
    found: dict[str, Any] = {}
    for name, value in named.items():
        if value is not None:
            there: Any = (
                as_array(site.op(rank), GIVEN_NAMES.get(name, name), value, asked) if on_device(value) else None
            )
            if not isinstance(there, DeviceArray):
                return None
            found[name] = there
    return found[site.reads[0]], found[site.reads[1]], found.get("bias"), found.get("residual")


def _check_padding_value(op: str, plan: ConvPlan) -> None:
    value = plan.padding_value
    try:
        complex(value)
    except OverflowError:
        raise ArgumentError(f"{op}: padding_value has {len(str(value))} digits, too many for {plan.dtype}") from None
    if isinstance(value, complex) and not plan.compute_dtype.startswith("complex"):
        raise DTypeError(f"{op}: padding_value is {value}, but the operands are {plan.dtype}")
    if plan.compute_dtype in _INTEGERS and (
        value != value
        or abs(value) == float("inf")
        or value != int(value.real)
        or int(value.real) not in _INTEGERS[plan.compute_dtype]
    ):
        raise DTypeError(
            f"{op}: padding_value is {value}, but the operands are {plan.dtype} and sums {plan.compute_dtype}"
        )


_INTEGERS = {
    "int32": range(-(2**31), 2**31),
    "int64": range(-(2**63), 2**63),
    "uint64": range(2**64),
}


def _check_extras(op: str, plan: ConvPlan, extras: Mapping[str, Array]) -> None:
    bias, residual = extras.get("bias"), extras.get("residual")
    if bias is not None and bias.shape != (plan.out_channels,):
        raise ShapeError(f"{op}: bias has shape {bias.shape}, but there are {plan.out_channels} output channels")
    if residual is not None and residual.shape != plan.output_shape:
        raise ShapeError(
            f"{op}: residual has shape {residual.shape}, but the output has {plan.output_shape} "
            f"(input {plan.input_shape}, weight {plan.weight_shape})"
        )
