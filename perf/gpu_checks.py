"""Whether every CUDA algorithm computes a layer rightly: against the CPU backend, and twice against itself.

Operands are rounded to the dtype and then widened: the CPU computes in float64, so that what is found is the device's
error alone. It is held to the algorithm's own bound, which is a multiple of the same sums over
absolute values. Results are filled with NaN before; both runs must agree to the bit.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import cuda

from numbaconv import plan_conv
from numbaconv.backends import registry
from numbaconv.backends.base import Algorithm, Direction
from numbaconv.bench.layer_table import Layer
from numbaconv.bench.peers import Function, numbaconv_function
from numbaconv.device_arrays import device_array
from numbaconv.plan import ConvPlan

__all__ = ["KINDS", "ON_HOST", "OnDevice", "check", "primitive"]

#: What layers are checked and timed in: a dtype, and whether channels are neighbours in memory.
KINDS = {"float32": ("float32", False), "float16 channels last": ("float16", True)}

#: What is right by the CPU: one algorithm for all, since each takes a quarter of a minute to compile.
ON_HOST = {"backend": "cpu", "algorithm": "patch_gemm"}

_PRIMITIVES = {"forward": Direction.FORWARD, "input": Direction.INPUT_GRAD, "weight": Direction.WEIGHT_GRAD}
#: Which of input, weight and output gradient has the shape of a direction's result.
_LIKE = {"forward": 2, "input": 0, "weight": 1}


class OnDevice:
    """A copy of a host array on the device, that any library's arrays could be: memory and an interface.

    Parameters
    ----------
    array : numpy.ndarray
    last : bool
        Whether its second axis lies innermost in memory.
    """

    def __init__(self, array: np.ndarray, last: bool):
        self.order = (0, *range(2, array.ndim), 1) if last else tuple(range(array.ndim))
        laid = np.ascontiguousarray(array.transpose(self.order))
        self.memory = cuda.to_device(laid.reshape(-1))
        self._laid_shape, self.shape = laid.shape, array.shape
        self._back = tuple(np.argsort(self.order))
        there = device_array(self.memory)
        assert there is not None
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "strides": tuple(laid.strides[axis] for axis in self._back),
            "typestr": array.dtype.str,
            "data": (there.address, False),
            "version": 3,
        }

    def fill(self, array: np.ndarray) -> None:
        """Copy a host array of its shape into it."""
        self.memory.copy_to_device(np.ascontiguousarray(array.transpose(self.order)).reshape(-1))

    def host(self) -> np.ndarray:
        """Its elements."""
        cuda.synchronize()
        return self.memory.copy_to_host().reshape(self._laid_shape).transpose(self._back)


def primitive(layer: Layer, direction: str) -> Direction:
    """What a direction of a layer comes down to: a transposed convolution is an input gradient."""
    found = _PRIMITIVES[direction]
    if layer.transposed and found is not Direction.WEIGHT_GRAD:
        return Direction.INPUT_GRAD if found is Direction.FORWARD else Direction.FORWARD
    return found


def check(
    layer: Layer,
    kind: str,
    directions: list[str],
    arrays: Sequence[np.ndarray],
    against: Mapping[str, str],
    without: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """A record for each direction and CUDA algorithm that accepts the layer, but those ``without`` which to go on.

    ``arrays``: input, weight, output gradient. ``against``: options of the call that computes what is right.
    """
    dtype, last = KINDS[kind]
    plan = plan_conv(layer.input_shape, layer.weight_shape, transposed=layer.transposed, dtype=dtype, **layer.arguments)
    given = [each.astype(dtype) for each in arrays]
    there = [OnDevice(each, last) for each in given]
    wide = [each.astype(np.float64) for each in given]
    absolute = [np.abs(each) for each in wide]
    for direction in directions:
        exact = numbaconv_function(layer, direction, **against)
        wanted, magnitude = np.asarray(exact(*wide)), np.asarray(exact(*absolute))
        for algorithm in registry.resolve("cuda").tables[primitive(layer, direction)]:
            if algorithm.name in without or algorithm.accepts(plan) is not None:
                continue
            record = {
                "layer": layer.name,
                "batch": layer.input_shape[0],
                "kind": kind,
                "direction": direction,
                "algorithm": algorithm.name,
            }
            try:
                function = numbaconv_function(layer, direction, backend="cuda", algorithm=algorithm.name)
                runs = [_run(function, there, given[_LIKE[direction]], last) for _ in range(2)]
                record |= _compared(runs, wanted, magnitude, algorithm, plan)
            except Exception as error:  # the report says so, and goes on with the rest
                record |= {"right": False, "error": f"{type(error).__name__}: {error}"}
            yield record


def _run(function: Function, there: list[OnDevice], like: np.ndarray, last: bool) -> np.ndarray:
    out = OnDevice(np.full(like.shape, np.nan, like.dtype), last)
    function(*there, out=out)
    return out.host()


def _compared(
    runs: list[np.ndarray], wanted: np.ndarray, magnitude: np.ndarray, algorithm: Algorithm, plan: ConvPlan
) -> dict[str, Any]:
    """Whether both runs are the same and within the bound, and how much of the bound their error is."""
    first, second = runs
    factor = algorithm.error_factor(plan) * float(np.finfo(plan.compute_dtype).eps)
    if algorithm.spreading:
        magnitude = np.broadcast_to(magnitude.max(initial=0.0), magnitude.shape)
    # Results of another dtype than sums are rounded once more.
    rounding = 0.0 if first.dtype.name == plan.compute_dtype else float(np.finfo(first.dtype).eps) / 2
    least = float(np.finfo(first.dtype).smallest_subnormal)

    def part(at: int) -> tuple[bool, float]:
        bound = factor * magnitude[at]
        bound += rounding * (np.abs(wanted[at]) + bound) + least
        off = np.abs(first[at].astype(np.float64) - wanted[at])
        same = np.array_equal(first[at].view(f"u{first.itemsize}"), second[at].view(f"u{first.itemsize}"))
        return same, float((off / bound).max(initial=0.0))  # not a number, where a result is none

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(part, range(len(first))))
    same, worst = all(same for same, _ in found), float(np.max([worst for _, worst in found], initial=0.0))
    return {"right": same and worst <= 1, "same bits": same, "within the bound": worst <= 1, "of the bound": worst}
