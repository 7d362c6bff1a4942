"""A convolution along one axis as dense convolutions of rows, cut into blocks that overlap (overlap-save).

Any stride ``s`` and dilation ``d`` is a set of convolutions of stride and dilation 1: with ``S = lcm(s, d)``, output
``o = r + (S / s) q`` and tap ``k = t + (S / d) v`` meet at position ``r s + t d + S (q + v)``. Hence, for each class
``r`` of outputs and each phase ``t`` of taps, with the rows ``x_rt[m] = x[r s + t d + S m]``, ``w_t[v]``, ``y_r[q]``::

    FORWARD       y_r[q]  = sum over t, v of  x_rt[q + v] w_t[v]      every phase is one more input channel
    INPUT_GRAD    x_rt[m] = sum over v of     y_r[m - v] w_t[v]       a pair (r, t) has the cells of one phase of x
    WEIGHT_GRAD   w_t[v]  = sum over r, q of  x_rt[q + v] y_r[q]

A block of ``n`` cells gives ``n - taps + 1`` results without wrapping around; neighbours overlap by ``taps - 1``::

    row     |------------ block ------------|
    results |-------- used --------|
                                   |------------ block ------------|
"""

from dataclasses import dataclass
from functools import lru_cache
from math import lcm, log2, prod

from ...plan import Axis, ConvPlan
from ..base import Direction
from ..tables import stepping

__all__ = ["Rows", "costs", "long_axis", "refusal", "rows_of", "worthwhile"]

#: Cells of the shortest and longest block: the vector steps need a square of vectors, tables fit in 32 bits' worth.
_SHORTEST, _LONGEST = 512, 2**20
#: Above this many taps, sums are left to slower loops.
_MOST_GATHERED = 512
#: Below this many there is little to gain, and errors that spread are not worth it.
_LEAST_TAPS = 16
#: What a call costs besides, and how much faster it must seem.
_OVERHEAD, _CLEARLY = 4e7, 0.8
#: The most classes and phases that a stride and a dilation may make.
_MOST_STEPS = 64


@dataclass(frozen=True, slots=True)
class Rows:
    """A plan's long axis as dense convolutions of rows.

    ``step`` is ``S`` of above, ``classes`` and ``phases`` count ``r`` and ``t``, ``taps`` those of a phase. Of each row
    the results ``begin .. begin + results - 1`` are computed, in blocks of ``block`` cells.
    """

    axis: Axis
    step: int
    classes: int
    phases: int
    taps: int
    begin: int
    results: int
    block: int

    @property
    def used(self) -> int:
        """Results of a block."""
        return self.block - self.taps + 1

    @property
    def blocks(self) -> int:
        """Blocks of a row."""
        return -(-self.results // self.used)

    @property
    def class_step(self) -> int:
        """Outputs from one of a class to the next."""
        return self.step // self.axis.stride

    @property
    def phase_step(self) -> int:
        """Taps from one of a phase to the next."""
        return self.step // self.axis.dilation


def long_axis(plan: ConvPlan) -> int:
    """The axis along which the kernel has most taps."""
    kernels = [axis.kernel for axis in plan.axes3]
    return 2 - kernels[::-1].index(max(kernels))


def refusal(direction: Direction, plan: ConvPlan) -> str | None:
    """Why rows and blocks cannot compute a plan, if they cannot."""
    if plan.compute_dtype not in ("float32", "float64"):
        return f"its transforms are of float32 and float64, not {plan.compute_dtype}"
    at = long_axis(plan)
    for other, axis in enumerate(plan.axes3):
        if other != at and (axis.kernel > 1 or axis.pad_before or axis.pad_after or axis.input != axis.output):
            return "the kernel may have taps, padding and steps along one axis only"
    axis = stepping(plan.axes3[at])
    step = lcm(axis.stride, axis.dilation)
    if direction is Direction.INPUT_GRAD and axis.maps_padding:
        return "padding that repeats cells adds several positions to one"
    if step > _MOST_STEPS:
        return f"stride {axis.stride} and dilation {axis.dilation} leave rows of every {step}th cell"
    if -(-axis.kernel // (step // axis.dilation)) > _LONGEST // 2:
        return f"blocks have {_LONGEST} cells at most, too few for {axis.kernel} taps"
    return None


@dataclass(frozen=True, slots=True)
class _Work:
    """What a sample takes: for each block of a row ``transforms`` of it, ``products`` of spectra and ``sums`` of them;
    and ``weights`` transforms of the weight.
    """

    transforms: int
    products: int
    sums: int
    weights: int
    size: int


def costs(rows: Rows, work: _Work) -> float:
    """Picoseconds, about, of one thread on one sample; measured with AVX-512, but ratios to sums of products travel.

    The weight's spectra cost 1.6 transforms each, since they are written to fresh memory. Half of that is counted: they
    are made once a call, for the whole batch, on which the choice must not depend.
    """
    n = rows.block
    transform = n * log2(n) * (75 if n * work.size <= 2**14 else 125) + 50 * n
    each_block = work.transforms * transform + n * (60 * work.products + 90 * work.sums)
    return (rows.classes * rows.blocks * each_block + work.weights * 0.8 * transform) * work.size / 4


@lru_cache(maxsize=1024)
def _best_rows(direction: Direction, axis: Axis, work: _Work) -> Rows:
    step = lcm(axis.stride, axis.dilation)
    class_step, phase_step = step // axis.stride, step // axis.dilation
    classes, phases, taps = min(class_step, axis.output), min(phase_step, axis.kernel), -(-axis.kernel // phase_step)
    begin, results = 0, -(-axis.output // class_step)
    if direction is Direction.INPUT_GRAD:  # results are cells of x; those in padding are not needed
        furthest = (classes - 1) * axis.stride + (phases - 1) * axis.dilation
        begin = max((axis.pad_before - furthest) // step, 0)
        end = min(results + taps - 1, -(-(axis.pad_before + axis.input) // step))
        results = max(end - begin, 1)
    block, found = max(_SHORTEST, 1 << taps.bit_length()), list[Rows]()
    while not found or (found[-1].blocks > 1 and block <= _LONGEST):
        found.append(Rows(axis, step, classes, phases, taps, begin, results, block))
        block *= 2
    return min(found, key=lambda rows: costs(rows, work))


def _planes(plan: ConvPlan) -> int:
    """Rows of a channel."""
    at = long_axis(plan)
    return prod(axis.input for other, axis in enumerate(plan.axes3) if other != at)


def _work_of(plan: ConvPlan, axis: Axis) -> _Work:
    inputs, outputs = plan.x_channels // plan.groups, plan.y_channels // plan.groups
    phases = min(lcm(axis.stride, axis.dilation) // axis.dilation, axis.kernel)
    pairs = plan.groups * inputs * outputs * phases
    return _Work(
        transforms=plan.groups * (inputs * phases + outputs),
        products=pairs,
        sums=plan.groups * outputs,
        weights=pairs,
        size=4 if plan.compute_dtype == "float32" else 8,
    )


def rows_of(direction: Direction, plan: ConvPlan) -> Rows:
    """The rows of a plan, in blocks of the length that costs least for one sample."""
    axis = stepping(plan.axes3[long_axis(plan)])
    return _best_rows(direction, axis, _work_of(plan, axis))


def _picoseconds(direction: Direction, plan: ConvPlan, axis: Axis) -> float:
    """What a product of float32 costs within sums: tiles have rows of result channels."""
    inputs, outputs = plan.x_channels // plan.groups, plan.y_channels // plan.groups
    if plan.groups > 1 and inputs == outputs == 1:
        return 38.0 if axis.kernel <= _MOST_GATHERED else 55.0
    if axis.kernel > _MOST_GATHERED:
        return 55.0
    rows = {Direction.FORWARD: outputs, Direction.INPUT_GRAD: inputs}.get(direction, max(inputs, outputs))
    return max(20.0, min(160.0 / max(rows, 1), 55.0))


def worthwhile(direction: Direction, plan: ConvPlan) -> str | None:
    """Why a plan is better computed as sums of products, if it is. Decided for one sample, in estimated times."""
    axis = stepping(plan.axes3[long_axis(plan)])
    work = _work_of(plan, axis)
    sample = prod(plan.y_shape[1:]) * prod(plan.w_shape[1:])
    if axis.kernel < _LEAST_TAPS:
        return f"{axis.kernel} taps are too few to gain much; transforms spread rounding errors and NaN over a block"
    products = sample * _picoseconds(direction, plan, axis) * work.size / 4
    transforms = costs(_best_rows(direction, axis, work), work) * _planes(plan) + _OVERHEAD
    if transforms > _CLEARLY * products:
        return (
            f"about {transforms / 1e9:.2g} ms of transforms and their products a sample, "
            f"against {products / 1e9:.2g} ms of sums"
        )
    return None
