"""Routes: which primitive a call is and what follows from its arguments, found once for all calls like it.

Which primitive a call is follows from the operand that it produces and from whether it is transposed::

                     input   weight   output
    conv               x       w        y        the plan's names
    conv_transpose     y       w        x

Producing ``y`` is FORWARD, ``x`` INPUT_GRAD, ``w`` WEIGHT_GRAD.

A route (plan, algorithm, result) follows from shapes, dtypes and arguments. Its key is those, as they were written:
finding out what they mean is most of what a small convolution costs.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from numpy import ndarray

from .arrays import Array, View, result
from .backends.activations import Activation
from .backends.base import NO_EPILOGUE, Algorithm, Backend, Direction, Epilogue, PackedWeight, Runner
from .backends.functions import function_key
from .device_arrays import DeviceArray, device_array, device_result, handle_of, on_device
from .errors import ArgumentError
from .plan import ConvPlan

__all__ = [
    "GIVEN_NAMES",
    "DeviceRoute",
    "Job",
    "Memory",
    "Route",
    "Site",
    "array_key",
    "asked_key",
    "call_key",
    "direction_of",
    "plain",
]

T = TypeVar("T")

_ROLES = {
    False: {"input": "x", "weight": "w", "output": "y"},
    True: {"input": "y", "weight": "w", "output": "x"},
}
#: What messages call the operand that stands for a convolution's output, in a gradient.
GIVEN_NAMES = {"input": "input", "weight": "weight", "output": "grad_output"}


def direction_of(transposed: bool, produces: str) -> Direction:
    """The primitive that produces an operand of a convolution or transposed convolution."""
    return Direction(_ROLES[transposed][produces])


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A public function as far as it comes down to one primitive.

    Attributes
    ----------
    name : str
        The function's name, ``{}`` for the rank.
    transposed : bool
    produces : str
        What it returns: ``input``, ``weight`` or ``output``.
    reads : tuple of str
        The other two, in this order.
    order : tuple of int
        Where the plan's ``x``, ``w`` and ``y`` are among the first operand, the second and the result.
    """

    name: str
    transposed: bool
    produces: str
    reads: tuple[str, str] = field(init=False)
    order: tuple[int, int, int] = field(init=False)
    _names: dict[int | None, str] = field(init=False)

    def op(self, rank: int | None) -> str:
        """The function's name at a rank, or without one, as messages give it."""
        return self._names[rank]

    @property
    def direction(self) -> Direction:
        """The primitive."""
        return direction_of(self.transposed, self.produces)

    def __post_init__(self) -> None:
        first, second = (name for name in GIVEN_NAMES if name != self.produces)
        roles = [_ROLES[self.transposed][name] for name in (first, second, self.produces)]
        object.__setattr__(self, "reads", (first, second))
        names = {rank: self.name.format(f"{rank}d" if rank else "") for rank in (None, 1, 2, 3)}
        object.__setattr__(self, "_names", names)
        object.__setattr__(self, "order", tuple(roles.index(role) for role in "xwy"))


class Job:
    """A call with everything checked and its result allocated: all that is left is to run it."""

    __slots__ = ("_filled", "_run", "returned")

    def __init__(self, run: Callable[[], None], returned: Array, filled: Array):
        self._run, self.returned, self._filled = run, returned, filled

    def execute(self) -> Array:
        """Fill and return the result."""
        self._run()
        if self._filled is not self.returned:
            self.returned[...] = self._filled
        return self.returned


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """All that follows from a call's shapes, dtypes and arguments: any call that shares them may share it.

    Attributes
    ----------
    site, op, plan, engine, algorithm
        Which call it is, what it comes down to, and what computes it.
    run : callable
        The algorithm for this plan.
    quiet : bool
        Whether it does no arithmetic of NumPy's by itself; else ``run`` keeps that from the caller's error state.
    activation : Activation or None
    shape, dtype
        The result's.
    views : tuple of View
        How the first operand, the second and the result are seen by the algorithm; None: as they are.
    residual_view : View
        How a residual is seen as canonical.
    """

    site: Site
    op: str
    plan: ConvPlan
    engine: Backend
    algorithm: Algorithm
    run: Runner
    quiet: bool
    activation: Activation | None
    shape: tuple[int, ...]
    dtype: np.dtype
    views: tuple[View | None, View | None, View | None]
    residual_view: View

    def job(self, first: Any, second: Any, bias: Any, residual: Any, out: object, stream: object = None) -> Job:
        """The call with these arrays, which have the shapes and dtypes of the route."""
        if stream is not None:
            raise ArgumentError(f"{self.op}: stream is for arrays on a device, but these are in the host's memory")
        returned, filled = self.result((first, second, bias), residual, out, self.views[2])
        return Job(partial(self._fill, first, second, bias, residual, filled), returned, filled)

    def call(self, first: Any, second: Any, bias: Any, residual: Any, out: object, stream: object = None) -> Array:
        """The result of the call with these arrays: a `job` that is executed at once."""
        if out is not None or stream is not None:
            return self.job(first, second, bias, residual, out, stream).execute()
        found: Array = np.empty(self.shape, self.dtype)
        self._fill(first, second, bias, residual, found)
        return found

    def _fill(self, first: Any, second: Any, bias: Any, residual: Any, found: Array) -> None:
        see_first, see_second, see_found = self.views
        if see_first is not None:
            first = see_first.of(first)
        if see_second is not None and type(second) is not PackedWeight:
            second = see_second.of(second)
        given = (first, second, found if see_found is None else see_found.of(found))
        x, w, y = self.site.order
        self.run(given[x], given[w], given[y], self.epilogue(bias, residual))

    def result(self, reads: tuple[Any, ...], residual: Any, out: object, view: View | None) -> tuple[Array, Array]:
        """The array to return and the array to fill through a view, while ``reads`` and the residual are read."""
        if out is None:
            found: Array = np.empty(self.shape, self.dtype)
            return found, found
        arrays = [each for each in reads if isinstance(each, np.ndarray)]
        return result(self.op, out, self.shape, self.dtype, arrays, residual, view)

    def epilogue(self, bias: Any, residual: Any) -> Epilogue:
        """What is done to sums, with these arrays."""
        if bias is None and residual is None and self.activation is None:
            return NO_EPILOGUE
        return Epilogue(bias, None if residual is None else self.residual_view.of(residual), self.activation)


def _seen(value: Any) -> Any:
    """An array on a device as its memory; what is none as it is."""
    return device_array(value) if on_device(value) else value


class DeviceRoute(Route):
    """A route of arrays on a device."""

    __slots__ = ()

    def job(self, first: Any, second: Any, bias: Any, residual: Any, out: object, stream: object = None) -> Job:
        """The call with these arrays, which have the shapes and dtypes of the route."""
        first, second, bias, residual = map(_seen, (first, second, bias, residual))
        if stream is not None:
            handle = handle_of(self.op, stream)
            given = (first, second, bias, residual)
            first, second, bias, residual = (
                each.on(handle) if isinstance(each, DeviceArray) else each for each in given
            )
        reads = [each for each in (first, second, bias) if isinstance(each, DeviceArray)]
        returned, filled = device_result(self.op, out, self.shape, self.dtype, reads, residual)
        memory: Any = filled
        return Job(partial(self._fill, first, second, bias, residual, memory), returned, returned)

    def call(self, first: Any, second: Any, bias: Any, residual: Any, out: object, stream: object = None) -> Array:
        """The result of the call with these arrays: a `job` that is executed at once."""
        return self.job(first, second, bias, residual, out, stream).execute()


#: Types whose equal values mean the same everywhere; ``True``, ``1`` and ``1.0`` are equal, but not all are integers.
_PLAIN = frozenset((int, str, type(None)))
_INTEGERS = frozenset((int,))
#: Sequences in sequences that some argument can be.
_DEEPEST = 3


def plain(values: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Arguments as part of a key: values that are equal only where they mean the same.

    None where there is something that cannot be part of a key, or that is not known to keep its meaning: a call
    with it is looked at anew each time.
    """
    return values if _PLAIN.issuperset(map(type, values)) else _told_apart(values, _DEEPEST)


def _told_apart(values: Iterable[Any], depth: int) -> tuple[Any, ...] | None:
    found: list[Any] = []
    for value in values:
        kind = type(value)
        if kind in _PLAIN:
            found.append(value)
        elif (kind is tuple or kind is list) and depth:
            entries = tuple(value)  # a list that changes later is another key later
            inner = entries if _INTEGERS.issuperset(map(type, entries)) else _told_apart(entries, depth - 1)
            if inner is None:
                return None
            found.append(inner)
        elif (kind is float or kind is complex) and value == value:
            found.append((kind, repr(value)))  # 0.0 and -0.0 are equal
        elif isinstance(value, np.integer) and not isinstance(value, np.timedelta64):  # a subclass, but no integer
            found.append(int(value))
        else:
            return None
    return tuple(found)


def array_key(array: Any) -> tuple[Hashable, ...] | None:
    """What a route depends on in an array, or None where it is no plain, aligned array."""
    if type(array) is ndarray and array.flags.aligned:
        return array.shape, array.dtype
    if type(array) is DeviceArray:
        return array.shape, array.dtype, array.device
    return None


def asked_key(tuning: Hashable, dtype: object) -> Hashable:
    """What ``tuning`` is in the key of a call that asks for a result's dtype."""
    try:
        hash(dtype)
    except TypeError:  # it is none, which the call is going to say
        dtype = repr(dtype)
    return tuning, dtype


def call_key(
    site: Site,
    rank: int | None,
    names: tuple[str, ...],
    first: object,
    second: object,
    values: tuple[Any, ...],
    tuning: Hashable,
    size: object,
    bias: object,
    residual: object,
    activation: object,
) -> tuple[Any, ...] | None:
    """What a call's route follows from, as it was written; None where that cannot be told at a glance.

    ``values`` are the arguments of these names and others that every call has, ``tuning`` is from `choices`.
    """
    one, two, written = array_key(first), array_key(second), plain(values)
    if one is None or two is None or written is None:
        return None
    if size is None and bias is None and residual is None and activation is None:
        return site, rank, names, one, two, written, tuning
    extras = [size, bias, residual]
    for at, each in enumerate(extras):
        if each is not None:
            # A shape may be a subclass: PyTorch's is one.
            extras[at] = array_key(each) if at else plain(tuple(size)) if isinstance(size, tuple | list) else None
            if extras[at] is None:
                return None
    if activation is not None and type(activation) is not str:
        activation = function_key(activation)
    return site, rank, names, one, two, written, tuning, *extras, activation


class Memory(Generic[T]):
    """What was found for a key: the newest ``most`` of them. It takes no lock, which a fork could leave behind.

    Parameters
    ----------
    most : int
        Beyond this many the oldest is forgotten.
    """

    def __init__(self, most: int):
        self._found: dict[Hashable, T] = {}
        self._most = most
        self.get = self._found.get  # bound once: a look-up is one call into a dictionary

    def put(self, key: Hashable, value: T) -> None:
        """Remember a value."""
        self._found[key] = value
        while len(self._found) > self._most:
            try:
                self._found.pop(next(iter(self._found)), None)
            except (RuntimeError, StopIteration):  # another thread was there in between
                continue

    def clear(self) -> None:
        """Forget everything."""
        self._found.clear()

    def __len__(self) -> int:
        return len(self._found)
