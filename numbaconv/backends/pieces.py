"""Operands that are converted by copying, a few samples at a time: no copy grows with the batch."""

from dataclasses import replace
from typing import Any

import numpy as np

from ..arrays import Array
from ..plan import ConvPlan
from .base import MOST_CONVERTED, Algorithm, Direction, Epilogue, Runner, converts_while_reading, sample_bytes

__all__ = ["converting"]


def converting(algorithm: Algorithm, plan: ConvPlan, direction: Direction, dtypes: tuple[np.dtype, ...]) -> Runner:
    """An algorithm's runner for data of these dtypes, which it may have to convert to the compute dtype.

    Where it does and a converted copy of all samples would be large, samples are taken in pieces, whose number follows
    from the plan. Results of FORWARD and INPUT_GRAD have the bits of one piece; weight gradients are summed piece
    after piece.
    """
    reads_them = algorithm.reads_integers and converts_while_reading(plan)
    if reads_them or all(dtype == plan.compute_dtype for dtype in dtypes):
        return algorithm.runner(plan)
    samples = max(MOST_CONVERTED // max(sample_bytes(plan), 1), 1)
    if plan.batch <= samples:
        return algorithm.runner(plan)
    rest = plan.batch % samples
    plans = [replace(plan, batch=count) for count in (samples, rest) if count]
    packing = algorithm.packing
    if packing is not None and any(packing.key(each) != packing.key(plan) for each in plans):
        return algorithm.runner(plan)  # a weight that is packed for all would not do for a piece
    runners = {each.batch: algorithm.runner(each) for each in plans}
    counts = [samples] * (plan.batch // samples) + [rest] * bool(rest)

    def run(x: Array, w: Any, y: Array, epilogue: Epilogue) -> None:
        begin = 0
        for count in counts:
            cut = slice(begin, begin + count)
            residual = None if epilogue.residual is None else epilogue.residual[cut]
            runners[count](x[cut], w, y[cut], epilogue._replace(residual=residual))
            begin += count

    def add_up(x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
        total, begin = np.zeros(w.shape, plan.compute_dtype), 0
        part = np.empty_like(total)
        for count in counts:
            cut = slice(begin, begin + count)
            runners[count](x[cut], part, y[cut], epilogue)
            total += part
            begin += count
        w[...] = total

    return add_up if direction is Direction.WEIGHT_GRAD else run
