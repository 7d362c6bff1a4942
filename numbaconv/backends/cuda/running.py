"""From `Algorithm.run` to kernels: operands to the device and back, the epilogue, the stream.

An algorithm is written for operands on the device. ``make(plan)`` returns its ``launch(x, w, y, epilogue, stream)``:

- operands are canonical `Tensor`s (flat array, extents, strides in elements), ``w`` may be what the algorithm's own
  packing made of a weight;
- the operand to fill is one stretch of memory, with its axes in some order (`Tensor.is_dense`), and holds anything;
- ``epilogue`` is a `DeviceEpilogue`: kernels call its ``finish`` and hand it ``extras``;
- everything is launched on ``stream``, in order, and nothing waits for it;
- memory from `device.empty` and its like is the call's own and given back when all is launched. What later calls read,
  too, is made by `device.settled` and remembered in a `Kept`: so a second call like the first neither allocates nor
  waits, and can be captured in a CUDA graph (`scratch.py`).
"""

from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

from ...arrays import Array
from ...device_arrays import READY, DeviceArray
from ...plan import ConvPlan
from ..base import Algorithm, Direction, Epilogue, PackedWeight, Packing
from . import device
from .device import Tensor
from .epilogue import DeviceEpilogue, finisher
from .scratch import Lease, context, hold

__all__ = ["Launch", "algorithm", "packing"]

#: ``launch(x, w, y, epilogue, stream)`` on the device.
Launch: TypeAlias = Callable[[Tensor, Any, Tensor, DeviceEpilogue, Any], None]


def packing(key: Callable[[ConvPlan], Hashable], pack: Callable[[ConvPlan, Tensor], Any]) -> Packing:
    """How a weight is kept, from what packs one that is on the device in use."""

    def packed(plan: ConvPlan, w: Array | DeviceArray) -> PackedWeight:
        place, stream = (w.device, w.stream) if isinstance(w, DeviceArray) else (-1, READY)
        with device.placed(place):
            device.synchronize(stream)
            found = pack(plan, _operand(w, 0))
            device.synchronize(0)  # calls to come read it on streams that do not wait for this one
            return PackedWeight((found,))

    return Packing(key, packed)


def _operand(value: Any, stream: Any) -> Any:
    """What a kernel reads, on the device."""
    if isinstance(value, DeviceArray):
        return device.adopt(value, stream)
    if isinstance(value, PackedWeight):
        return value.arrays[0] if len(value.arrays) == 1 and isinstance(value.arrays[0], Tensor) else value
    return device.upload(value, stream=stream)


#: The packing of algorithms that have none of their own: the weight as it is.
_KEPT = packing(lambda plan: ("as it is", context()), lambda plan, w: w)


def _extras(epilogue: Epilogue, target: Tensor, stream: Any) -> tuple[Any, ...]:
    extras = []
    if epilogue.bias is not None:
        extras.append(_operand(epilogue.bias, stream).data)
    if epilogue.residual is not None:
        residual = _operand(epilogue.residual, stream)
        extras.append(device.in_layout_of(residual, target, stream).data)
    return tuple(extras)


class _Runner:
    """An algorithm for one plan, on host arrays and on device arrays."""

    def __init__(self, direction: Direction, make: Callable[[ConvPlan], Launch], plan: ConvPlan):
        self._at = "xwy".index(direction.value)
        self._compute = plan.compute_dtype
        self._launch = make(plan)

    def __call__(self, x: Any, w: Any, y: Any, epilogue: Epilogue) -> None:
        filled = (x, w, y)[self._at]
        if not isinstance(filled, DeviceArray):
            with Lease(None):
                self._run((x, w, y), filled, epilogue, 0)
            return
        with device.placed(filled.device):
            stream = device.stream_of(filled.stream)
            others = {each.stream for each in (x, w, y, *epilogue) if isinstance(each, DeviceArray)}
            others -= {filled.stream, READY}
            for other in others:
                device.wait_for(other, stream)
            with Lease(filled):
                if isinstance(w, PackedWeight):  # a prepared layer keeps it, and a bias
                    hold((w, epilogue.bias))
                self._run((x, w, y), filled, epilogue, stream)
            for other in others:  # where operands may be written, or given to somebody else, as soon as they were read
                device.wait_for(filled.stream, device.stream_of(other))

    def _run(self, operands: tuple[Any, Any, Any], filled: Any, epilogue: Epilogue, stream: Any) -> None:
        target, deliver = device.target(filled, stream)
        tensors = [target if at == self._at else _operand(each, stream) for at, each in enumerate(operands)]
        if target.size:
            finish = finisher(self._compute, epilogue)
            finished = DeviceEpilogue(finish, _extras(epilogue, target, stream))
            self._launch(tensors[0], tensors[1], tensors[2], finished, stream)
        deliver()


def algorithm(
    name: str,
    direction: Direction,
    make: Callable[[ConvPlan], Launch],
    accepts: Callable[[ConvPlan], str | None],
    error_factor: Callable[[ConvPlan], float],
    **options: Any,
) -> Algorithm:
    """An `Algorithm` from its ``make(plan)``; ``options`` are further attributes of `Algorithm`.

    Kernels are compiled for the dtypes of what they read, so that all of them read integers as they are.
    """
    options = {"reads_integers": True, **options}

    def ready(plan: ConvPlan) -> Any:
        return _Runner(direction, make, plan)

    def run(plan: ConvPlan, x: Array, w: Any, y: Array, epilogue: Epilogue) -> None:
        ready(plan)(x, w, y, epilogue)

    if direction is not Direction.WEIGHT_GRAD:
        options = {"packing": _KEPT, **options}
    return Algorithm(name, accepts, run, error_factor, ready=ready, **options)
