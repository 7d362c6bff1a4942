"""What algorithms over gathers share: FORWARD and INPUT_GRAD from one function, and what none of them can do."""

from collections.abc import Callable, Hashable
from functools import partial
from math import prod
from typing import Any

from ...arrays import Array
from ...plan import ConvPlan
from ..base import About, Algorithm, Direction, Epilogue, PackedWeight, Packing, Runner, any_order_factor
from ..tables import keep, memory_of, stepping
from .gather import PhasedAxis, forward_axis, input_grad_axis

__all__ = ["Axes", "axes_of", "both_directions", "gather_refusal", "phase_count", "weight_gradient"]

Axes = tuple[PhasedAxis, PhasedAxis, PhasedAxis]
Run = Callable[[ConvPlan, Array, Any, Array, Epilogue, bool, Any], None]
Pack = Callable[[ConvPlan, Array, bool, Any], PackedWeight]
Launch = Callable[[ConvPlan, bool, Axes], Any]
Refusal = Callable[[Direction, ConvPlan], str | None]

#: Bytes of tables up to which each of many plans may keep its own; larger ones share a limit.
_MOST_KEPT = 2**15
#: Cells that a position's taps span, and for each product of a row and a tap, above which a patch would have more of
#: what no tap reads than the result has work.
_MOST_SPANNED, _MOST_APART = 2**16, 16
#: Stride phases, for each of which there are tables, and of their results for each: fewer are quicker one by one.
_MOST_PHASES, _LEAST_RESULTS = 2**10, 16


def gather_refusal(direction: Direction, plan: ConvPlan) -> str | None:
    """Why a gather with a vector micro-kernel does not suit a plan, if it does not."""
    by_input = direction is Direction.INPUT_GRAD
    if plan.compute_dtype not in ("float32", "float64"):
        return f"its micro-kernel multiplies float32 and float64, not {plan.compute_dtype}"
    if by_input and any(axis.maps_padding for axis in plan.axes):
        return "padding that repeats cells adds several positions to one"
    spanned = prod(axis.extent for axis in plan.axes)
    read = prod(axis.kernel * (axis.input if by_input else axis.output) for axis in plan.axes)
    if spanned > max(_MOST_SPANNED, _MOST_APART * read):
        return f"taps span {spanned} cells, of which all positions of a channel read {read} in all"
    phases, results = phase_count(direction, plan), prod(axis.input for axis in plan.axes)
    if phases > max(_MOST_PHASES, results // _LEAST_RESULTS):
        return f"{phases} stride phases have {results} results of a channel"
    return None


def phase_count(direction: Direction, plan: ConvPlan) -> int:
    """How many stride phases a primitive has."""
    if direction is not Direction.INPUT_GRAD:
        return 1
    return prod(min(stepping(axis).stride, axis.input) for axis in plan.axes)


def axes_of(direction: Direction, plan: ConvPlan) -> Axes:
    """How a primitive reads its source, axis by axis; WEIGHT_GRAD reads the input as FORWARD does."""
    make = input_grad_axis if direction is Direction.INPUT_GRAD else forward_axis
    depth, height, width = plan.axes3
    return make(depth), make(height), make(width)


def _taps_key(direction: Direction, plan: ConvPlan) -> Hashable:
    """What a packed weight depends on: which taps each stride phase has, and how phases lie to each other."""
    axes = axes_of(direction, plan)
    return tuple((axis.tap.tobytes(), axis.taps.tobytes(), axis.base.tobytes()) for axis in axes)


def _axes_alone(plan: ConvPlan, by_input: bool, axes: Axes) -> Axes:
    return axes


def both_directions(
    name: str,
    refusal: Refusal,
    run: Run,
    pack: Pack | None = None,
    launch: Launch = _axes_alone,
    flat: bool = False,
    reads_integers: bool = False,
    worthwhile: Refusal = lambda direction, plan: None,
    about: About | None = None,
) -> dict[Direction, Algorithm]:
    """An algorithm for FORWARD and INPUT_GRAD.

    ``run(plan, source, w, out, epilogue, by_input, launched)`` fills ``out`` from what axes gather of ``source``;
    ``by_input``: result channels are the weight's input channels, as in INPUT_GRAD. ``launched`` is what
    ``launch(plan, by_input, axes)`` made, once for many calls: the axes and whatever else follows from the plan.
    ``pack(plan, w, by_input, launched)`` prepares a weight. ``flat``, ``reads_integers``, ``worthwhile`` and
    ``about`` are those of the `Algorithm`.
    """

    def algorithm(direction: Direction) -> Algorithm:
        by_input = direction is Direction.INPUT_GRAD

        @keep
        def launched(plan: ConvPlan) -> Any:
            return launch(plan, by_input, axes_of(direction, plan))

        def take(plan: ConvPlan, x: Array, w: Any, y: Array, epilogue: Epilogue) -> None:
            source, out = (y, x) if by_input else (x, y)
            run(plan, source, w, out, epilogue, by_input, launched(plan))

        def ready(plan: ConvPlan) -> Runner:
            made = launched(plan)
            if memory_of(made) > _MOST_KEPT:
                return partial(take, plan)
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
            reads_integers=reads_integers,
        )

    return {direction: algorithm(direction) for direction in (Direction.FORWARD, Direction.INPUT_GRAD)}


def weight_gradient(
    name: str,
    refusal: Callable[[ConvPlan], str | None],
    run: Callable[[Any, Array, Array, Array], None],
    launch: Callable[[ConvPlan, Axes], Any],
    flat: bool = False,
    reads_integers: bool = False,
    worthwhile: Callable[[ConvPlan], str | None] = lambda plan: None,
    about: About | None = None,
) -> Algorithm:
    """An algorithm for WEIGHT_GRAD: ``run(launched, x, w, y)`` fills ``w``, given what ``launch`` made once."""

    @keep
    def launched(plan: ConvPlan) -> Any:
        return launch(plan, axes_of(Direction.WEIGHT_GRAD, plan))

    def take(plan: ConvPlan, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
        run(launched(plan), x, w, y)

    def ready(plan: ConvPlan) -> Runner:
        made = launched(plan)
        if memory_of(made) > _MOST_KEPT:
            return partial(take, plan)
        return lambda x, w, y, epilogue: run(made, x, w, y)

    factor = partial(any_order_factor, Direction.WEIGHT_GRAD)
    return Algorithm(
        name,
        refusal,
        take,
        factor,
        worthwhile=worthwhile,
        ready=ready,
        flat=flat,
        about=about,
        reads_integers=reads_integers,
    )
