"""What a backend is made of: directions, algorithms in ordered tables, and the epilogue."""

import platform
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from math import prod
from typing import Any, NamedTuple, TypeAlias

from ..arrays import Array
from ..environment import DISABLE_VARIABLE
from ..errors import AlgorithmError
from ..plan import SUPPORTED, ConvPlan
from .activations import Activation

__all__ = [
    "MOST_CONVERTED",
    "NO_EPILOGUE",
    "About",
    "Algorithm",
    "Backend",
    "Candidate",
    "Direction",
    "Epilogue",
    "Fusion",
    "PackedWeight",
    "Packing",
    "Residence",
    "Runner",
    "Weight",
    "any_order_factor",
    "converts_while_reading",
    "sample_bytes",
    "terms_summed",
]


#: Why an algorithm is not chosen that the user switched off.
DISABLED = f"disabled by {DISABLE_VARIABLE}"


class Direction(Enum):
    """The three primitives over a plan, by the operand that each produces."""

    FORWARD = "y"
    INPUT_GRAD = "x"
    WEIGHT_GRAD = "w"


class Epilogue(NamedTuple):
    """What happens to a finished sum before it is stored: ``activation(sum + bias + residual)``.

    ``bias`` has one element a result channel; ``residual`` is canonical, in the result's shape.
    """

    bias: Array | None = None
    residual: Array | None = None
    activation: Activation | None = None


NO_EPILOGUE = Epilogue()


def terms_summed(plan: ConvPlan, direction: Direction) -> int:
    """An upper bound on the products summed into one result element."""
    taps, cells, repeats = 1, 1, 1
    for axis in plan.axes:
        taps, cells = taps * axis.kernel, cells * axis.output
        if axis.mode == "replicate":
            repeats *= axis.pad_before + 1 + axis.pad_after
        elif axis.maps_padding:
            repeats *= axis.padded // axis.input + 2
    if direction is Direction.FORWARD:
        return taps * (plan.x_channels // plan.groups)
    if direction is Direction.INPUT_GRAD:
        return taps * (plan.y_channels // plan.groups) * repeats
    return cells * plan.batch


#: Bytes up to which data is copied to be converted at a time, but for a sample that is larger by itself.
MOST_CONVERTED = 2**24


def sample_bytes(plan: ConvPlan) -> int:
    """Bytes of a sample of the input or of the result, whichever are more, in the dtype of the sums."""
    return max(prod(plan.x_shape[1:]), prod(plan.y_shape[1:])) * SUPPORTED[plan.compute_dtype].itemsize


def converts_while_reading(plan: ConvPlan) -> bool:
    """Whether a sample of integers is too large to be copied into the dtype of the sums.

    Kernels that convert each element as they read it are compiled for each dtype and, reading one sample, take up to
    four times as long as a copy and a kernel without conversions.
    """
    return plan.converts_integers and sample_bytes(plan) > MOST_CONVERTED


def any_order_factor(direction: Direction, plan: ConvPlan) -> float:
    """The error factor of an algorithm that sums the products themselves, in whatever order.

    A sum of n products is off by at most n roundings of partial sums (Higham 2002, Accuracy and Stability of
    Numerical Algorithms, section 4.2), each product by one more, and bias and residual by one each.
    """
    return terms_summed(plan, direction) + 3.0


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A weight as one algorithm wants it: packed or transformed, in the compute dtype.

    ``given`` is what it was made of, canonical, where the algorithm may come to need that: no copy of it.
    """

    arrays: tuple[Array, ...]
    given: Array | None = None


#: What an algorithm gets for ``w`` where it reads the weight: canonical, or as its own `Packing` made it.
Weight: TypeAlias = Array | PackedWeight


#: An algorithm made ready for one plan: ``runner(x, w, y, epilogue)`` fills the operand that it produces.
Runner: TypeAlias = Callable[[Array, Any, Array, Epilogue], None]


@dataclass(frozen=True, slots=True)
class Packing:
    """How an algorithm prepares a weight that many calls share.

    Attributes
    ----------
    key : callable
        ``key(plan)``: for plans of one weight and compute dtype, equal keys mean equal packed weights. Where it
        matters for these, the plan's precision is part of it.
    pack : callable
        ``pack(plan, w)`` for a canonical ``w`` of any strides and any supported dtype.
    """

    key: Callable[[ConvPlan], Hashable]
    pack: Callable[[ConvPlan, Array], PackedWeight]


class About(NamedTuple):
    """What the documentation says of an algorithm: one row of a table, in Markdown.

    Attributes
    ----------
    does : str
    cost : str
        Products and what else takes time, beside those of the definition.
    chosen : str
        When the automatic choice takes it.
    bound : str
        Its ``error_factor`` in words, beside the direct algorithm's.
    reach : str
        What spreads to results that do not read where it comes from, errors or NaN and infinity, and how far.
    """

    does: str
    cost: str
    chosen: str
    bound: str = "the same"
    reach: str = "nothing"


def _always_worthwhile(plan: ConvPlan) -> str | None:
    return None


def _never_rounds(plan: ConvPlan) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One way to compute one primitive.

    Attributes
    ----------
    name : str
    accepts : callable
        ``accepts(plan)`` is None, or the reason for a refusal as a sentence.
    run : callable
        ``run(plan, x, w, y, epilogue)`` fills the operand that the direction produces. Operands are
        canonical views of any strides and any supported dtype; the one to fill may hold NaN. A weight that
        is read may be what ``packing`` made of it.
    error_factor : callable
        ``c`` of the bound ``|error| <= c * (eps * (|x| conv |w| + |bias| + |residual|) + tiny)``, with ``eps`` of the
        compute dtype and ``tiny`` its smallest subnormal number, which matters where products are that small alone;
        before the activation and the rounding to the result's dtype. The algorithm's file gives the reason.

        Where subnormal numbers are flushed to zero, and in algorithms that are ``spreading``, ``tiny`` is the smallest
        normal number times ``1 + sum |x| + sum |w|``, over what a result could read.
    packing : Packing, optional
        How it prepares a weight; without one it reads the weight as it is.
    spreading : bool
        Whether results are computed through transforms, or with products that are none of theirs, so that what is in
        one cell touches results that do not read it: rounding errors spread over a tile or a block, and NaN and
        infinity unless the algorithm sees to that; ``about.reach`` says which. No plan of precision "strict" gets such
        an algorithm. Through transforms sums of integers are not exact, and ``|x| conv |w|`` in the bound stands for
        its largest conceivable value at any position: the sum over a result's source channels of the channel's largest
        ``|x|`` (padding included) times the sum of ``|w|`` over all taps. In INPUT_GRAD and WEIGHT_GRAD, ``y`` stands
        for ``x``, and ``y`` for ``w``.
    worthwhile : callable
        ``worthwhile(plan)`` is None, or a sentence why an accepted plan is not worth this algorithm; it matters
        to the automatic choice alone. Like every choice it must not depend on the batch size or on threads.
    ready : callable, optional
        ``ready(plan)`` does what follows from the plan alone, once for many calls, and returns ``run`` without
        its plan. What it keeps must be small: it lives as long as the memory of the call does.
    family : str, optional
        A name that variants of one method share; in ``NUMBACONV_DISABLE`` it stands for all of them.
    reads_integers : bool
        Whether it reads integers as they are where a sample is too large to be copied: `converts_while_reading`.
    flat : bool
        Whether such a runner takes operands as elements in canonical order alone, so that they need not have
        the axes of extent 1 which make them canonical.
    rounds_to_tf32 : callable
        ``rounds_to_tf32(plan)``: whether it makes use of the permission to round float32 operands to TF32, where the
        plan's precision gives it. Its ``error_factor`` knows of that, too.
    about : About, optional
        Its row in the documentation; this package's algorithms all have one.
    """

    name: str
    accepts: Callable[[ConvPlan], str | None]
    run: Callable[[ConvPlan, Array, Any, Array, Epilogue], None]
    error_factor: Callable[[ConvPlan], float]
    packing: Packing | None = None
    spreading: bool = False
    worthwhile: Callable[[ConvPlan], str | None] = _always_worthwhile
    ready: Callable[[ConvPlan], Runner] | None = None
    flat: bool = False
    family: str | None = None
    rounds_to_tf32: Callable[[ConvPlan], bool] = _never_rounds
    about: About | None = None
    reads_integers: bool = False

    def passed_over(self, plan: ConvPlan) -> str | None:
        """Why the automatic choice should not take it for a plan that it accepts, as a sentence, or None."""
        if not self.reads_integers and converts_while_reading(plan):
            return (
                f"it copies samples to convert them, each of {sample_bytes(plan):,} bytes in {plan.compute_dtype}, "
                f"more than {MOST_CONVERTED:,}"
            )
        return self.worthwhile(plan)

    def refusal(self, plan: ConvPlan) -> str | None:
        """Why it must not compute a plan, which ``accepts`` and the plan's precision say; None where it may."""
        if self.spreading and plan.precision == "strict":
            return "its errors spread to results that do not read what they come from, which precision 'strict' forbids"
        return self.accepts(plan)

    def is_among(self, names: frozenset[str]) -> bool:
        """Whether its name or its family's is one of these."""
        return self.name in names or self.family in names

    def runner(self, plan: ConvPlan) -> Runner:
        """``run`` for one plan."""
        return partial(self.run, plan) if self.ready is None else self.ready(plan)


@dataclass(frozen=True, slots=True)
class Fusion:
    """Two FORWARD problems, the second of the first's result, in one run that keeps no whole first result.

    Attributes
    ----------
    algorithms : tuple of str
        The names of the two that it stands for; it gives their results, bit for bit.
    accepts : callable
        ``accepts(first plan, second plan)`` is None, or why they are two steps, as a sentence. Like every choice it
        must not depend on the batch size or on threads.
    ready : callable
        ``ready(first plan, second plan)`` is a runner whose ``w`` is a tuple of both weights. As `Algorithm.ready`.
    """

    algorithms: tuple[str, str]
    accepts: Callable[[ConvPlan, ConvPlan], str | None]
    ready: Callable[[ConvPlan, ConvPlan], Runner]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An algorithm's answer to a plan: can compute it where ``refusal`` is None.

    ``passed_over`` is why one that can is not chosen by itself, or None.
    """

    name: str
    refusal: str | None
    passed_over: str | None = None


class Residence(NamedTuple):
    """What a backend of a device does for operands that are there; all are `DeviceArray`s.

    Attributes
    ----------
    upload : callable
        ``upload(array, device)``: a host array's elements on a device (-1: the current one).
    download : callable
        ``download(array)``: a copy in the host's memory.
    conjugate : callable
        ``conjugate(array)``: the complex conjugates, in new memory.
    scale : callable
        ``scale(derivative, grad, saved, dtype, compute)``: new memory of a dtype, and what fills it with
        ``grad * conj(derivative(saved))``, elementwise, computed in another dtype.
    channel_sum : callable
        ``channel_sum(view, sums, compute)`` fills ``sums`` with the sums of ``view`` over all axes but the second.
    synchronize : callable
        ``synchronize(array)`` waits until the array has been computed.
    """

    upload: Callable[[Array, int], Any]
    download: Callable[[Any], Array]
    conjugate: Callable[[Any], Any]
    scale: Callable[[Callable[..., object], Any, Any, Any, str], tuple[Any, Callable[[], None]]]
    channel_sum: Callable[[Any, Any, str], None]
    synchronize: Callable[[Any], None]


@dataclass(frozen=True)
class Backend:
    """A named set of algorithms.

    Attributes
    ----------
    name : str
    tables : mapping
        For each direction the algorithms in order of preference; the last accepts everything, and is always
        worthwhile.
    activation_grad : callable
        ``activation_grad(derivative, grad, saved, out)`` fills ``out = grad * derivative(saved)``,
        elementwise, with a scalar function.
    check_activation : callable
        ``check_activation(activation, compute_dtype)`` raises where the activation cannot be used.
    unavailable : callable
        None where the backend can be used, else the reason as a sentence.
    fusions : tuple of Fusion
    residence : Residence, optional
        Of a backend that takes arrays on a device, besides those of the host.
    compiled : bool
        Whether its runners leave all arithmetic to compiled code, or keep it from NumPy's error state themselves, but
        for conversions of operands and results: calls without those need not be kept from it. Data that is converted
        is copied, in pieces.
    host : callable
        What measured times hold for, as a short text: the processor, as far as this backend uses it.
    """

    name: str
    tables: Mapping[Direction, tuple[Algorithm, ...]]
    activation_grad: Callable[[Callable[..., object], Array, Array, Array], None]
    check_activation: Callable[[Activation, str], None] = lambda activation, dtype: None
    unavailable: Callable[[], str | None] = lambda: None
    fusions: tuple[Fusion, ...] = ()
    residence: Residence | None = None
    host: Callable[[], str] = platform.machine
    compiled: bool = False

    def candidates(
        self, plan: ConvPlan, direction: Direction, disabled: frozenset[str] = frozenset()
    ) -> list[Candidate]:
        """Every algorithm's answer, in the order of the table."""
        return [_candidate(each, plan, disabled) for each in self.tables[direction]]

    def select(
        self,
        op: str,
        plan: ConvPlan,
        direction: Direction,
        forced: str | None,
        disabled: frozenset[str] = frozenset(),
        tuned: str | None = None,
    ) -> Algorithm:
        """The forced algorithm; or the tuned one, if it accepts; or the first that accepts and is worthwhile.

        Failing all, the first that accepts. One whose name or family is in ``disabled`` is never chosen.

        Raises
        ------
        AlgorithmError
            If the forced algorithm is unknown, disabled, or refuses, or if nothing is left.
        """
        table = self.tables[direction]
        if forced is not None:
            return self._forced(op, plan, direction, forced, disabled)
        allowed = [algorithm for algorithm in table if not algorithm.is_among(disabled)] if disabled else table
        if tuned is not None:
            for algorithm in allowed:
                if algorithm.name == tuned and algorithm.refusal(plan) is None:
                    return algorithm
        possible = None
        for algorithm in allowed:
            if algorithm.refusal(plan) is None:
                if algorithm.passed_over(plan) is None:
                    return algorithm
                possible = possible or algorithm
        if possible is not None:
            return possible
        but = _but_disabled({each.name for each in table if each.is_among(disabled)})
        raise AlgorithmError(f"{op}: no algorithm of backend {self.name!r}{but} accepts {plan}")

    def fused(self, first: tuple[ConvPlan, Algorithm], second: tuple[ConvPlan, Algorithm]) -> Runner | None:
        """One run instead of these two chosen algorithms, the second on the first's result; or None."""
        for fusion in self.fusions:
            if fusion.algorithms == (first[1].name, second[1].name) and fusion.accepts(first[0], second[0]) is None:
                return fusion.ready(first[0], second[0])
        return None

    def _forced(
        self, op: str, plan: ConvPlan, direction: Direction, forced: str, disabled: frozenset[str]
    ) -> Algorithm:
        for algorithm in self.tables[direction]:
            if algorithm.name == forced:
                if algorithm.is_among(disabled):
                    raise AlgorithmError(
                        f"{op}: algorithm {forced!r} of backend {self.name!r} is forced, but {DISABLED}"
                    )
                refusal = algorithm.refusal(plan)
                if refusal is not None:
                    raise AlgorithmError(f"{op}: algorithm {forced!r} of backend {self.name!r} refuses: {refusal}")
                return algorithm
        known = ", ".join(each.name for each in self.tables[direction])
        raise AlgorithmError(
            f"{op}: algorithm {forced!r} is unknown to backend {self.name!r}, which has {known} for {direction.name}"
        )


def _candidate(algorithm: Algorithm, plan: ConvPlan, disabled: frozenset[str]) -> Candidate:
    refusal = algorithm.refusal(plan)
    if refusal is not None:
        return Candidate(algorithm.name, refusal)
    return Candidate(algorithm.name, None, DISABLED if algorithm.is_among(disabled) else algorithm.passed_over(plan))


def _but_disabled(names: set[str]) -> str:
    return f", {' and '.join(sorted(names))} being {DISABLED}," if names else ""
