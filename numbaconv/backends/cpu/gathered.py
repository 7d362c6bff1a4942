"""What algorithms over gathers share: FORWARD and INPUT_GRAD from one function, and what none of them can do."""

from collections.abc import Callable, Hashable
from functools import partial
from math import prod
from typing import Any

from ...arrays import Array
from ...plan import ConvPlan
from ..base import About, Algorithm, Direction, Epilogue, PackedWeight, Packing, Runner, any_order_factor
from .gather import PhasedAxis, axis_tables, forward_axis, input_grad_axis

__all__ = ["Axes", "axes_of", "both_directions", "gather_refusal", "weight_gradient"]

Axes = tuple[PhasedAxis, PhasedAxis, PhasedAxis]
Run = Callable[[ConvPlan, Array, Any, Array, Epilogue, bool, Any], None]
Pack = Callable[[ConvPlan, Array, bool, Any], PackedWeight]
Launch = Callable[[ConvPlan, bool, Axes], Any]
Refusal = Callable[[Direction, ConvPlan], str | None]

#: Above this many taps their tables would outgrow the caches.
_MOST_TAPS = 512
#: Cells of tables up to which each of many plans may keep its own.
_MOST_KEPT = 2**12


def gather_refusal(direction: Direction, plan: ConvPlan) -> str | None:
    """Why a gather with a vector micro-kernel does not suit a plan, if it does not."""
    taps = prod(axis.kernel for axis in plan.axes)
    if plan.compute_dtype not in ("float32", "float64"):
        return f"its micro-kernel multiplies float32 and float64, not {plan.compute_dtype}"
    if taps > _MOST_TAPS:
        return f"tables are kept for {_MOST_TAPS} taps at most, not {taps}"
    if direction is Direction.INPUT_GRAD and any(axis.maps_padding for axis in plan.axes):
        return "padding that repeats cells adds several positions to one"
    return None


def axes_of(direction: Direction, plan: ConvPlan) -> Axes:
    """How a primitive reads its source, axis by axis; WEIGHT_GRAD reads the input as FORWARD does."""
    make = input_grad_axis if direction is Direction.INPUT_GRAD else forward_axis
    depth, height, width = plan.axes3
    return make(depth), make(height), make(width)


def _taps_key(direction: Direction, plan: ConvPlan) -> Hashable:
    """What a packed weight depends on: which taps each stride phase has, and how phases lie to each other."""
    axes = axes_of(direction, plan)
    return tuple((axis.tap.tobytes(), axis.taps.tobytes(), axis.base.tobytes()) for axis in axes)


def _is_small(axes: Axes) -> bool:
    """Whether tables take so little memory that each of many plans may keep its own."""
    return sum(table.size for axis in axes for table in axis_tables(axis)) <= _MOST_KEPT


def _axes_alone(plan: ConvPlan, by_input: bool, axes: Axes) -> Axes:
    return axes


def both_directions(
    name: str,
    refusal: Refusal,
    run: Run,
    pack: Pack | None = None,
    launch: Launch = _axes_alone,
    flat: bool = False,
    worthwhile: Refusal = lambda direction, plan: None,
    about: About | None = None,
) -> dict[Direction, Algorithm]:
    """An algorithm for FORWARD and INPUT_GRAD.

    ``run(plan, source, w, out, epilogue, by_input, launched)`` fills ``out`` from what axes gather of ``source``;
    ``by_input``: result channels are the weight's input channels, as in INPUT_GRAD. ``launched`` is what
    ``launch(plan, by_input, axes)`` made, once for many calls: the axes and whatever else follows from the plan.
    ``pack(plan, w, by_input, launched)`` prepares a weight. ``flat``, ``worthwhile`` and ``about`` are those of
    the `Algorithm`.
    """

    def algorithm(direction: Direction) -> Algorithm:
        by_input = direction is Direction.INPUT_GRAD

        def launched(plan: ConvPlan) -> Any:
            return launch(plan, by_input, axes_of(direction, plan))

        def take(plan: ConvPlan, x: Array, w: Any, y: Array, epilogue: Epilogue) -> None:
            source, out = (y, x) if by_input else (x, y)
            run(plan, source, w, out, epilogue, by_input, launched(plan))

        def ready(plan: ConvPlan) -> Runner:
            axes = axes_of(direction, plan)
            if not _is_small(axes):
                return partial(take, plan)
            made = launch(plan, by_input, axes)
            if by_input:
                return lambda x, w, y, epilogue: run(plan, y, w, x, epilogue, True, made)
            return lambda x, w, y, epilogue: run(plan, x, w, y, epilogue, False, made)

        packing = None
        if pack is not None:
            packing = Packing(partial(_taps_key, direction), lambda plan, w: pack(plan, w, by_input, launched(plan)))
        factor = partial(any_order_factor, direction)
        return Algorithm(
            name,
            partial(refusal, direction),
            take,
            factor,
            packing,
            worthwhile=partial(worthwhile, direction),
            ready=ready,
            flat=flat,
            about=about,
        )

    return {direction: algorithm(direction) for direction in (Direction.FORWARD, Direction.INPUT_GRAD)}


def weight_gradient(
    name: str,
    refusal: Callable[[ConvPlan], str | None],
    run: Callable[[Any, Array, Array, Array], None],
    launch: Callable[[ConvPlan, Axes], Any],
    flat: bool = False,
    worthwhile: Callable[[ConvPlan], str | None] = lambda plan: None,
    about: About | None = None,
) -> Algorithm:
    """An algorithm for WEIGHT_GRAD: ``run(launched, x, w, y)`` fills ``w``, given what ``launch`` made once."""

    def axes_of_plan(plan: ConvPlan) -> Axes:
        return axes_of(Direction.WEIGHT_GRAD, plan)

    def take(plan: ConvPlan, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
        run(launch(plan, axes_of_plan(plan)), x, w, y)

    def ready(plan: ConvPlan) -> Runner:
        axes = axes_of_plan(plan)
        if not _is_small(axes):
            return partial(take, plan)
        made = launch(plan, axes)
        return lambda x, w, y, epilogue: run(made, x, w, y)

    factor = partial(any_order_factor, Direction.WEIGHT_GRAD)
    return Algorithm(name, refusal, take, factor, worthwhile=worthwhile, ready=ready, flat=flat, about=about)
