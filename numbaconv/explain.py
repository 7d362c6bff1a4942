"""What would run and why, from shapes alone."""

from dataclasses import dataclass
from math import prod
from typing import Any

from .backends.base import Algorithm, Candidate, Direction
from .backends.registry import disabled_algorithms, forced_algorithm, resolve, resolve_precision
from .backends.winners import Winner, recall, tuning_mode
from .border import bordered, check_passed_on
from .error_state import undisturbed
from .errors import AlgorithmError, ArgumentError
from .plan import ConvPlan, Ints, dtype_rule, plan_conv
from .routes import direction_of

__all__ = ["Explanation", "explain", "explain_plan"]

_PRODUCES = {"forward": "output", "input": "input", "weight": "weight"}


@dataclass(frozen=True)
class Explanation:
    """A plan, the backend it would run on, every candidate's answer, and the choice.

    Attributes
    ----------
    plan : ConvPlan
    direction : Direction
        The primitive that the call comes down to.
    backend : str
    candidates : tuple of Candidate
        In the order in which they are asked; ``refusal`` is None or a sentence, and so is ``passed_over``, which
        says why one that can is not chosen by itself.
    algorithm : str or None
        The choice; None where a forced algorithm does not apply.
    note : str
        Why this one.
    transfers : tuple of int, optional
        Of a backend of a device: bytes that go there and that come back where the arrays are the host's.
    rounding : str, optional
        Where float32 operands may be rounded to TF32: whether the choice does that.
    spreading : str, optional
        What the choice spreads to results that do not read where it comes from, and what avoids that.
    """

    plan: ConvPlan
    direction: Direction
    backend: str
    candidates: tuple[Candidate, ...]
    algorithm: str | None
    note: str
    transfers: tuple[int, int] | None = None
    rounding: str | None = None
    spreading: str | None = None

    def __str__(self) -> str:
        lines = [str(self.plan), *_folding(self.plan), f"  {self.direction.name} on backend {self.backend!r}"]
        for each in self.candidates:
            answer = "accepts" if each.refusal is None else f"refuses: {each.refusal}"
            if each.passed_over is not None and each.name != self.algorithm:
                answer = f"not chosen: {each.passed_over}"
            lines.append(f"    {'->' if each.name == self.algorithm else '  '} {each.name}: {answer}")
        if self.transfers is not None:
            there, back = self.transfers
            lines.append(f"  arrays of the host: {there:,} bytes to the device, {back:,} back")
        lines += [f"  {each}" for each in (self.rounding, self.spreading) if each is not None]
        return "\n".join([*lines, f"  {self.note}"])


def _folding(plan: ConvPlan) -> list[str]:
    """A line on the axes that algorithms see, where these are others than the call's."""
    if not plan.is_folded:
        return []
    folded = [axis for axis, group in zip(plan.axes3, plan.folds, strict=True) if group]
    cells, taps, steps = (tuple(getattr(axis, name) for axis in folded) for name in ("input", "kernel", "dilation"))
    apart = f" at dilation {steps}" if max(steps) > 1 else ""
    return [f"  computed as spatial axes {cells} and kernel {taps}{apart}"]


@bordered
def explain(
    input_shape: Ints,
    weight_shape: Ints,
    *,
    direction: str = "forward",
    backend: str | None = None,
    algorithm: str | None = None,
    precision: str | None = None,
    **arguments: Any,
) -> Explanation:
    """What a convolution of these shapes would run, and every candidate's acceptance or refusal.

    Parameters
    ----------
    input_shape, weight_shape : sequence of int
    direction : {"forward", "input", "weight"}
        The call itself, or its gradient by input or weight.
    backend, algorithm, precision : str, optional
        As in `numbaconv.conv`.
    **arguments
        As in `numbaconv.plan_conv`.

    Returns
    -------
    Explanation
        Print it.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError
        As the call itself; an algorithm that does not apply is part of the explanation.

    Examples
    --------
    >>> from numbaconv import explain
    >>> print(explain((1, 64, 56, 56), (64, 64, 3, 3), padding=1, backend="reference"))
    conv2d  (1, 64, 56, 56) * (64, 64, 3, 3) -> (1, 64, 56, 56)  float32
      stride (1, 1)  padding (1, 1), (1, 1) zeros  dilation (1, 1)  groups 1
      accumulates in float32, returns float32
      231,211,008 FLOPs, 1,753,088 bytes at least, 131.9 FLOPs per byte, 36,864 parameters
      FORWARD on backend 'reference'
        -> numpy: accepts
      'numpy' is the first that accepts and is worth it
    """
    check_passed_on("explain", arguments, "plan_conv")
    plan = plan_conv(input_shape, weight_shape, precision=resolve_precision("explain", precision), **arguments)
    return explain_plan(plan, primitive_of("explain", plan, direction), backend, algorithm)


def primitive_of(op: str, plan: ConvPlan, direction: object) -> Direction:
    """The primitive that a call, or its gradient by an operand, comes down to."""
    if not isinstance(direction, str) or direction not in _PRODUCES:
        raise ArgumentError(f"{op}: direction is {direction!r}, but must be one of {', '.join(_PRODUCES)}")
    return direction_of(plan.transposed, _PRODUCES[direction])


def _times(winner: Winner) -> str:
    return ", ".join(f"{name} {taken * 1e3:.3g} ms" for name, taken in sorted(winner.seconds.items(), key=_by_time))


def _by_time(entry: tuple[str, float]) -> float:
    return entry[1]


@undisturbed
def explain_plan(plan: ConvPlan, primitive: Direction, backend: str | None, algorithm: str | None) -> Explanation:
    """What one primitive of a plan would run."""
    chosen, forced, disabled = resolve(backend), forced_algorithm(algorithm), disabled_algorithms()
    winner = recall(chosen, plan, primitive) if tuning_mode() != "off" else None
    tuned = None if winner is None else winner.algorithm
    candidates = tuple(chosen.candidates(plan, primitive, disabled))
    rounding = spreading = None
    try:
        found = chosen.select("explain", plan, primitive, forced, disabled, tuned)
        name: str | None = found.name
        rounding, spreading = _rounding(plan, chosen.name, found), _spreading(found)
        worth = any(each.name == name and each.passed_over is None for each in candidates)
        first = f"{name!r} is the first that accepts" + (" and is worth it" if worth else "; none is worth it")
        note = f"{name!r} is forced" if forced else first
        if winner is not None and not forced and name == tuned:
            note = f"tuned: {name!r} was the fastest at batch {winner.batch} ({_times(winner)})"
    except AlgorithmError as error:
        name, note = None, str(error)
    transfers = None if chosen.residence is None else _transfers(plan, primitive)
    return Explanation(plan, primitive, chosen.name, candidates, name, note, transfers, rounding, spreading)


def _spreading(algorithm: Algorithm) -> str | None:
    """What an algorithm spreads, and the remedy."""
    if not algorithm.spreading:
        return None
    what = "errors" if algorithm.about is None else algorithm.about.reach
    return f"{algorithm.name!r} spreads {what}; precision='strict' avoids it"


def _rounding(plan: ConvPlan, backend: str, algorithm: Algorithm) -> str | None:
    """What becomes of the permission to round operands to TF32."""
    if plan.precision != "tf32":
        return None
    if algorithm.rounds_to_tf32(plan):
        return f"precision 'tf32': {algorithm.name!r} rounds operands to TF32 as it multiplies them"
    return f"precision 'tf32' is allowed, but {algorithm.name!r} on backend {backend!r} keeps float32"


def _transfers(plan: ConvPlan, primitive: Direction) -> tuple[int, int]:
    """Bytes of what a primitive reads, and of what it produces."""
    elements = {"x": prod(plan.x_shape), "w": prod(plan.w_shape), "y": prod(plan.y_shape)}
    back = elements.pop(primitive.value) * dtype_rule("explain", "result", plan.output_dtype).itemsize
    bias = plan.out_channels if plan.has_bias and primitive is direction_of(plan.transposed, "output") else 0
    return (sum(elements.values()) + bias) * dtype_rule("explain", "operand", plan.dtype).itemsize, back
