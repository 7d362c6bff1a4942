"""The reference backend: NumPy, slow, obvious, complete.

Each primitive is a loop over samples and taps. For one tap, the cells that it reads form a patch of the
output's extents, taken through the axes' source tables, and the channels are contracted by ``einsum``
without BLAS, whose order of summation would depend on the machine's threads.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import ArgumentError, DTypeError
from ..plan import CONSTANT, ConvPlan
from .base import NO_EPILOGUE, About, Algorithm, Backend, Direction, Epilogue, any_order_factor
from .tables import sources

__all__ = ["BACKEND"]

#: Kinds of scalars, each of which holds the ones before.
_RICHNESS = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}


def _taps(plan: ConvPlan) -> Iterator[tuple[int, int, int]]:
    depth, height, width = plan.axes3
    return product(range(depth.kernel), range(height.kernel), range(width.kernel))


def _cells(plan: ConvPlan, tap: tuple[int, int, int]) -> tuple[Array, Array, Array]:
    """Input indices that a tap reads for every output cell, negative on padding, shaped to broadcast."""
    found = []
    for at, (axis, k) in enumerate(zip(plan.axes3, tap, strict=True)):
        step = axis.stride if axis.output > 1 else 0  # whose stride may be too large for an array
        cells = sources(axis, np.arange(axis.output, dtype=np.int64) * step + k * axis.dilation)
        found.append(cells.reshape([-1 if position == at else 1 for position in range(3)]))
    return found[0], found[1], found[2]


def _patch(plan: ConvPlan, x: Array, tap: tuple[int, int, int]) -> Array:
    """What a tap reads of one sample: ``(C, OD, OH, OW)``."""
    cells = _cells(plan, tap)
    inside: Any = (slice(None), *(np.maximum(index, 0) for index in cells))
    patch: Array = x[inside]
    fill = {CONSTANT: np.asarray(plan.padding_value).astype(x.dtype)}
    for index in cells:  # axis after axis: where two axes are outside, the last decides
        for code in np.unique(index[index < 0]):
            patch = np.where(index == code, fill.get(code, x.dtype.type(0)), patch)
    return patch


def _grouped(plan: ConvPlan, array: Array, axis: int) -> Array:
    """Split a channel axis into ``(groups, channels of a group)``."""
    shape = array.shape
    return array.reshape(*shape[:axis], plan.groups, shape[axis] // plan.groups, *shape[axis + 1 :])


def _mapped(what: str, function: Callable[..., object], values: Array) -> Array:
    """As a Numba function would be, a plain one is called with scalars, each by itself."""
    plain = getattr(function, "py_func", function)
    name = getattr(plain, "__name__", plain)
    try:
        found = np.array([plain(value) for value in values.ravel().tolist()]).reshape(values.shape)
    except (ArithmeticError, ValueError) as error:
        raise ArgumentError(f"{what} {name!r} raised an exception: {error}") from error
    if found.size and _RICHNESS.get(found.dtype.kind, 4) > _RICHNESS[values.dtype.kind]:
        raise DTypeError(f"{what} {name!r} maps {values.dtype} to {found.dtype}, not to {values.dtype}")
    return found


def _finish(total: Array, out: Array, epilogue: Epilogue) -> None:
    if epilogue.bias is not None:
        total = total + epilogue.bias.astype(total.dtype)[:, None, None, None]
    if epilogue.residual is not None:
        total = total + epilogue.residual.astype(total.dtype)
    if epilogue.activation is not None:
        total = _mapped("activation", epilogue.activation.function, total).astype(total.dtype)
    out[...] = total


def _forward(plan: ConvPlan, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    w = _grouped(plan, w.astype(plan.compute_dtype), 0)
    x = x.astype(plan.compute_dtype)
    result = np.empty(y.shape, y.dtype)
    for n in range(plan.batch):
        total = np.zeros(_grouped(plan, y[n], 0).shape, plan.compute_dtype)
        for tap in _taps(plan):
            patch = _grouped(plan, _patch(plan, x[n], tap), 0)
            total += np.einsum("gcdhw,goc->godhw", patch, w[(..., *tap)])
        residual = None if epilogue.residual is None else epilogue.residual[n]
        _finish(total.reshape(y.shape[1:]), result[n], Epilogue(epilogue.bias, residual, epilogue.activation))
    y[...] = result


def _input_grad(plan: ConvPlan, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    w = _grouped(plan, w.astype(plan.compute_dtype), 0)
    y = y.astype(plan.compute_dtype)
    result = np.empty(x.shape, x.dtype)
    for n in range(plan.batch):
        total = np.zeros(x.shape[1:], plan.compute_dtype)
        for tap in _taps(plan):
            patch = np.einsum("godhw,goc->gcdhw", _grouped(plan, y[n], 0), w[(..., *tap)])
            cells = np.broadcast_arrays(*_cells(plan, tap))
            inside = np.all([index >= 0 for index in cells], axis=0)
            flat = patch.reshape(plan.x_channels, *inside.shape)[:, inside]
            target: Any = (slice(None), *(index[inside] for index in cells))
            np.add.at(total, target, flat)
        residual = None if epilogue.residual is None else epilogue.residual[n]
        _finish(total, result[n], Epilogue(epilogue.bias, residual, epilogue.activation))
    x[...] = result


def _weight_grad(plan: ConvPlan, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    x, y = x.astype(plan.compute_dtype), y.astype(plan.compute_dtype)
    total = np.zeros(w.shape, plan.compute_dtype)
    for n in range(plan.batch):
        for tap in _taps(plan):
            patch = _grouped(plan, _patch(plan, x[n], tap), 0)
            share = np.einsum("godhw,gcdhw->goc", _grouped(plan, y[n], 0), patch)
            total[(..., *tap)] += share.reshape(w.shape[:2])
    _finish(total, w, NO_EPILOGUE)


def _activation_grad(derivative: Callable[..., object], grad: Array, saved: Array, out: Array) -> None:
    factors = _mapped("derivative", derivative, saved)
    out[...] = (grad * factors).astype(out.dtype)


_RUNS = {Direction.FORWARD: _forward, Direction.INPUT_GRAD: _input_grad, Direction.WEIGHT_GRAD: _weight_grad}

_ABOUT = About(
    does="`einsum` over channels, a loop over samples and taps",
    cost="the definition's products, and a copy of the input for each tap",
    chosen="always",
    bound="`n + 3`, for `n` products summed",
)
BACKEND = Backend(
    name="reference",
    tables={
        direction: (Algorithm("numpy", lambda plan: None, run, partial(any_order_factor, direction), about=_ABOUT),)
        for direction, run in _RUNS.items()
    },
    activation_grad=_activation_grad,
)
