"""The direct algorithm on the device: tables made, chunks counted, kernels launched."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy as np

from ...plan import ConvPlan
from ..base import About, Direction, any_order_factor
from ..tables import fill_value
from . import direct
from .device import Tensor, memory, settled, span
from .epilogue import DeviceEpilogue
from .launching import THREADS, blocks_for, launch
from .running import Launch, algorithm
from .scratch import Kept
from .tables import axes_table, integers

__all__ = ["DIRECT"]

#: Weight-gradient threads below this are multiplied by chunks of positions, of at least so many each, up to so many.
_LEAST_THREADS, _LEAST_CELLS, _MOST_CHUNKS = 65536, 32, 512


class _Direct:
    """What follows from the plan; and, kept by the operands' strides, the integers on the device."""

    by_input = False

    def __init__(self, plan: ConvPlan):
        self.plan = plan
        self._tables: Kept[tuple[Any, bool]] = Kept()

    def table(
        self, threads: int, extents: tuple[int, ...], weights: int, operands: tuple[Tensor, ...], stream: Any
    ) -> tuple[Any, bool]:
        """The integers on the device, and whether they are narrow."""
        strides = tuple(each.strides for each in operands)
        return self._tables.of(strides, self._table, threads, extents, weights, operands, stream)

    def _table(
        self, threads: int, extents: tuple[int, ...], weights: int, operands: tuple[Tensor, ...], stream: Any
    ) -> tuple[Any, bool]:
        plan = self.plan
        cells = plan.batch * prod(plan.y_shape[2:])
        head = [threads, plan.x_channels // plan.groups, plan.y_channels // plan.groups]
        head += [step for each in operands for step in each.strides] + [*extents, weights, cells]
        values = np.concatenate([np.array(head, np.int64), axes_table(plan.axes3, direct.AXES, self.by_input)])
        spans = (span(each.shape, each.strides) for each in operands)
        positions = (max(axis.padded, axis.used) + axis.extent for axis in plan.axes3)
        made = integers(values, *spans, *positions, blocks_for(threads) * THREADS)
        return settled(made.values, stream), made.narrow

    def dtypes(self, *operands: Tensor) -> tuple[str, ...]:
        return tuple(each.dtype.name for each in operands)


def _last(tensor: Tensor) -> bool:
    """Whether channels are the fastest axis of a result."""
    return not tensor.channels_first and tensor.strides[1] == 1


class _Forward(_Direct):
    def __call__(self, x: Tensor, w: Tensor, y: Tensor, epilogue: DeviceEpilogue, stream: Any) -> None:
        plan, threads = self.plan, y.size
        table, narrow = self.table(threads, y.shape, 0, (x, w, y), stream)
        kernel = direct.forward_kernel(plan.compute_dtype, self.dtypes(x, w, y), narrow, _last(y), epilogue.finish)
        fill = fill_value(plan, np.dtype(plan.compute_dtype))
        launch(kernel, blocks_for(threads), THREADS, stream, x.data, w.data, y.data, epilogue.extras, table, fill)


class _InputGrad(_Direct):
    by_input = True

    def __call__(self, x: Tensor, w: Tensor, y: Tensor, epilogue: DeviceEpilogue, stream: Any) -> None:
        plan, threads = self.plan, x.size
        table, narrow = self.table(threads, x.shape, 0, (x, w, y), stream)
        kernel = direct.input_grad_kernel(plan.compute_dtype, self.dtypes(x, w, y), narrow, _last(x), epilogue.finish)
        launch(kernel, blocks_for(threads), THREADS, stream, x.data, w.data, y.data, epilogue.extras, table)


def chunk_count(weights: int, cells: int) -> int:
    """Into how many chunks of positions a weight gradient is split: by the plan, whatever the device."""
    return max(min(-(-_LEAST_THREADS // weights), cells // _LEAST_CELLS, _MOST_CHUNKS), 1)


class _WeightGrad(_Direct):
    def __call__(self, x: Tensor, w: Tensor, y: Tensor, epilogue: DeviceEpilogue, stream: Any) -> None:
        plan, compute = self.plan, np.dtype(self.plan.compute_dtype)
        chunks = chunk_count(w.size, plan.batch * prod(plan.y_shape[2:]))
        rows, taps = w.shape[0] * w.shape[1], w.shape[2:]
        data, dtype = (w.data, w.dtype) if chunks == 1 else (memory(chunks * w.size, compute, stream), compute)
        threads = chunks * w.size
        table, narrow = self.table(threads, (chunks, rows, *taps), w.size, (x, w, y), stream)
        kernel = direct.weight_grad_kernel(compute.name, (x.dtype.name, dtype.name, y.dtype.name), narrow)
        fill = fill_value(plan, compute)
        launch(kernel, blocks_for(threads), THREADS, stream, x.data, data, y.data, table, fill)
        if chunks > 1:
            total = direct.sum_kernel(compute.name, w.dtype.name, narrow)
            launch(total, blocks_for(w.size), THREADS, stream, data, w.data, w.size, chunks)


_MAKERS: dict[Direction, Callable[[ConvPlan], Launch]] = {
    Direction.FORWARD: _Forward,
    Direction.INPUT_GRAD: _InputGrad,
    Direction.WEIGHT_GRAD: _WeightGrad,
}

_ABOUT = About(
    does="a thread for each result: every mode, every dtype",
    cost="the definition's products, each operand read from memory or cache for each",
    chosen="what is left",
    bound="`n + 3`, for `n` products summed",
)
#: The direct algorithm of each direction.
DIRECT = {
    direction: algorithm(
        "direct", direction, make, lambda plan: None, partial(any_order_factor, direction), about=_ABOUT
    )
    for direction, make in _MAKERS.items()
}
