"""What algorithms over gathers share: FORWARD and INPUT_GRAD from one function, and what none of them can do."""

from collections.abc import Callable
from functools import partial
from math import prod

from ...arrays import Array
from ...plan import ConvPlan
from ..base import Algorithm, Direction, Epilogue, any_order_factor
from .gather import PhasedAxis, forward_axis, input_grad_axis

__all__ = ["Axes", "both_directions", "gather_refusal"]

Axes = tuple[PhasedAxis, PhasedAxis, PhasedAxis]
Run = Callable[[ConvPlan, Array, Array, Array, Epilogue, bool, Axes], None]
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


def _forward(run: Run, plan: ConvPlan, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    depth, height, width = (forward_axis(axis) for axis in plan.axes3)
    run(plan, x, w, y, epilogue, False, (depth, height, width))


def _input_grad(run: Run, plan: ConvPlan, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    depth, height, width = (input_grad_axis(axis) for axis in plan.axes3)
    run(plan, y, w, x, epilogue, True, (depth, height, width))


def both_directions(name: str, refusal: Refusal, run: Run) -> dict[Direction, Algorithm]:
    """An algorithm for FORWARD and INPUT_GRAD.

    ``run(plan, source, w, out, epilogue, by_input, axes)`` fills ``out`` from what ``axes`` gather of ``source``;
    ``by_input``: result channels are the weight's input channels, as in INPUT_GRAD.
    """
    return {
        direction: Algorithm(
            name, partial(refusal, direction), partial(take, run), partial(any_order_factor, direction)
        )
        for direction, take in ((Direction.FORWARD, _forward), (Direction.INPUT_GRAD, _input_grad))
    }
