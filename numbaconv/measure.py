"""Measuring which algorithm is the fastest for a plan: each runs by itself, on operands made up for it."""

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .arrays import Array, view_of_data, view_of_weight
from .backends.base import NO_EPILOGUE, Algorithm, Backend, Direction
from .backends.winners import Winner, recall, remember
from .error_state import undisturbed
from .extras import dtype_named
from .memory import check_fits
from .plan import ConvPlan

__all__ = ["measure", "measure_first"]

#: Rounds in which candidates take turns, the seconds after which a candidate has had enough, and by how many times
#: the best it may take after one round.
_ROUNDS, _ENOUGH, _HOPELESS = 7, 0.3, 1.5
#: What a winner must save over the automatic choice, so that noise alone changes nothing.
_SAVES = 0.03

_measuring = threading.RLock()


def _after_fork_in_child() -> None:
    global _measuring
    _measuring = threading.RLock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def measure_first(backend: Backend, plan: ConvPlan, direction: Direction, disabled: frozenset[str]) -> Winner | None:
    """What `measure` finds, if there is something to measure and nothing to choose it by yet."""
    if not plan.macs or len(_candidates(backend, plan, direction, disabled)) < 2:
        return None
    with _measuring:  # another thread may have been first
        return recall(backend, plan, direction) or measure(backend, plan, direction, disabled)


@undisturbed
def measure(backend: Backend, plan: ConvPlan, direction: Direction, disabled: frozenset[str]) -> Winner:
    """Time every algorithm that accepts a plan, and remember the fastest."""
    with _measuring:
        candidates = _candidates(backend, plan, direction, disabled)
        automatic = backend.select("tune", plan, direction, None, disabled).name
        seconds = _race({each.name: _call(backend, each, plan, direction) for each in candidates})
        fastest = min(seconds, key=lambda name: seconds[name])
        name = fastest if seconds[fastest] < (1 - _SAVES) * seconds[automatic] else automatic
        winner = Winner(name, plan.batch, seconds)
        remember(backend, plan, direction, winner)
        return winner


def _candidates(backend: Backend, plan: ConvPlan, direction: Direction, disabled: frozenset[str]) -> list[Algorithm]:
    return [each for each in backend.tables[direction] if not each.is_among(disabled) and each.refusal(plan) is None]


def _race(calls: dict[str, Callable[[], None]]) -> dict[str, float]:
    """The least time of each, in turns, so that a slow moment of the machine slows all."""
    for call in calls.values():
        call()  # compiles, and touches the memory
    least, spent, running = dict.fromkeys(calls, float("inf")), dict.fromkeys(calls, 0.0), list(calls)
    for _ in range(_ROUNDS):
        for name in running:
            start = time.perf_counter()
            calls[name]()
            taken = time.perf_counter() - start
            least[name], spent[name] = min(least[name], taken), spent[name] + taken
        best = min(least.values())
        running = [name for name in running if least[name] <= _HOPELESS * best and spent[name] < _ENOUGH]
    return least


def _call(backend: Backend, algorithm: Algorithm, plan: ConvPlan, direction: Direction) -> Callable[[], None]:
    """A call of an algorithm as its users make it: operands in their own layout, memory of its own.

    For a backend of a device they are there, and the call ends when the result is.
    """
    input_shape, output_shape = plan.input_shape, plan.output_shape
    shapes = {"w": plan.weight_shape, "x": input_shape, "y": output_shape}
    if plan.transposed:
        shapes |= {"x": output_shape, "y": input_shape}
    views = {"w": view_of_weight(plan), "x": view_of_data(plan, "x"), "y": view_of_data(plan, "y")}
    dtypes = dict.fromkeys("xwy", plan.dtype) | {direction.value: plan.output_dtype}
    arrays: list[Any] = [_made_up(shapes[role], dtype_named("tune", dtypes[role])) for role in "xwy"]
    residence = backend.residence
    if residence is not None:
        arrays = [residence.upload(each, -1) for each in arrays]
    x, w, y = (views[role].of(array) for role, array in zip("xwy", arrays, strict=True))
    run = partial(algorithm.runner(plan), x, w, y, NO_EPILOGUE)
    if residence is None:
        return run
    wait = partial(residence.synchronize, arrays["xwy".index(direction.value)])

    def run_and_wait() -> None:
        run()
        wait()

    return run_and_wait


def _made_up(shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """An array of a few ordinary values over and over, which takes no time to make."""
    check_fits("tune", "an operand", shape, dtype.itemsize)
    values: Any = (np.random.default_rng(0).standard_normal(4099) * 4).astype(dtype)
    found: Array = np.empty(shape, dtype)  # which says so if there is not enough memory; np.resize may not
    flat = found.reshape(-1)
    times, rest = divmod(flat.size, values.size)
    flat[: flat.size - rest].reshape(times, values.size)[...] = values
    flat[flat.size - rest :] = values[:rest]
    return found
