"""What algorithms over gathers share: FORWARD and INPUT_GRAD from one function, and what none of them can do."""

from collections.abc import Callable, Hashable
from functools import partial
from math import prod
from typing import Any

from ...arrays import Array
from ...plan import ConvPlan
from ..base import Algorithm, Direction, Epilogue, PackedWeight, Packing, any_order_factor
from .gather import PhasedAxis, forward_axis, input_grad_axis

__all__ = ["Axes", "axes_of", "both_directions", "gather_refusal"]

Axes = tuple[PhasedAxis, PhasedAxis, PhasedAxis]
Run = Callable[[ConvPlan, Array, Any, Array, Epilogue, bool, Axes], None]
Pack = Callable[[ConvPlan, Array, bool, Axes], PackedWeight]
Refusal = Callable[[Direction, ConvPlan], str | None]

#: Above this many taps their tables would outgrow the caches.
_MOST_TAPS = 512


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
    """How FORWARD or INPUT_GRAD reads its source, axis by axis."""
    make = input_grad_axis if direction is Direction.INPUT_GRAD else forward_axis
    depth, height, width = plan.axes3
    return make(depth), make(height), make(width)


def _taps_key(direction: Direction, plan: ConvPlan) -> Hashable:
    """What a packed weight depends on: which taps each stride phase has."""
    return tuple((axis.tap.tobytes(), axis.taps.tobytes()) for axis in axes_of(direction, plan))


def both_directions(name: str, refusal: Refusal, run: Run, pack: Pack | None = None) -> dict[Direction, Algorithm]:
    """An algorithm for FORWARD and INPUT_GRAD.

    ``run(plan, source, w, out, epilogue, by_input, axes)`` fills ``out`` from what ``axes`` gather of ``source``;
    ``by_input``: result channels are the weight's input channels, as in INPUT_GRAD. ``pack(plan, w, by_input,
    axes)`` prepares a weight.
    """

    def algorithm(direction: Direction) -> Algorithm:
        by_input = direction is Direction.INPUT_GRAD

        def take(plan: ConvPlan, x: Array, w: Any, y: Array, epilogue: Epilogue) -> None:
            source, out = (y, x) if by_input else (x, y)
            run(plan, source, w, out, epilogue, by_input, axes_of(direction, plan))

        packing = None
        if pack is not None:
            packing = Packing(
                partial(_taps_key, direction), lambda plan, w: pack(plan, w, by_input, axes_of(direction, plan))
            )
        return Algorithm(name, partial(refusal, direction), take, partial(any_order_factor, direction), packing)

    return {direction: algorithm(direction) for direction in (Direction.FORWARD, Direction.INPUT_GRAD)}
