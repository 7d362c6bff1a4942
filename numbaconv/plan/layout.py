"""Names of memory layouts, and the axis orders they stand for.

Data is ``N C D H W`` inside the plan and weights ``O I D H W``; ``O`` and ``I`` are the channels of the
*forward* convolution, so a transposed convolution's weight has its input channels at ``O``. That is
PyTorch's ``(in, out / groups, kH, kW)`` under ``OIHW`` and TensorFlow's ``(kH, kW, out, in)`` under
``HWIO``.
"""

from functools import cache

from ..errors import ArgumentError, DTypeError

__all__ = ["channels_last", "data_format_of", "is_channels_last", "weight_format_of", "weight_order"]

_SPATIAL = {1: ("W", "L"), 2: ("HW",), 3: ("DHW",)}


def _names(rank: int, pattern: str) -> list[str]:
    return [pattern.replace("*", spatial) for spatial in _SPATIAL[rank]]


def _check_name(op: str, what: str, value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise DTypeError(f"{op}: {what} must be a name, but is {value!r}")


def is_channels_last(op: str, rank: int, data_format: str | None) -> bool:
    """Whether a data format name puts channels last; ``None`` means channels first."""
    _check_name(op, "data_format", data_format)
    return _is_last(op, rank, data_format)


def weight_order(op: str, rank: int, weight_format: str | None, last: bool) -> tuple[int, ...]:
    """The axes of a stored weight in the order ``O, I, spatial...``."""
    _check_name(op, "weight_format", weight_format)
    return _order(op, rank, weight_format, last)


@cache
def _is_last(op: str, rank: int, data_format: str | None) -> bool:
    first, last = _names(rank, "NC*"), _names(rank, "N*C")
    if data_format is None or data_format in (*first, "channels_first"):
        return False
    if data_format in (*last, "channels_last"):
        return True
    known = ", ".join([*first, "channels_first", *last, "channels_last"])
    raise ArgumentError(f"{op}: data_format is {data_format!r}, but must be one of {known} for rank {rank}")


@cache
def _order(op: str, rank: int, weight_format: str | None, last: bool) -> tuple[int, ...]:
    axes = rank + 2
    orders: dict[str, tuple[int, ...]] = {}
    for name in _names(rank, "OI*"):
        orders[name] = tuple(range(axes))
    for name in _names(rank, "*IO"):
        orders[name] = (axes - 1, axes - 2, *range(rank))
    for name in _names(rank, "O*I"):
        orders[name] = (0, axes - 1, *range(1, axes - 1))
    if weight_format is None:
        return orders[weight_format_of(rank, last)]
    if weight_format not in orders:
        known = ", ".join(orders)
        raise ArgumentError(f"{op}: weight_format is {weight_format!r}, but must be one of {known} for rank {rank}")
    return orders[weight_format]


def data_format_of(rank: int, last: bool) -> str:
    """The first name of a layout of data."""
    return _names(rank, "N*C" if last else "NC*")[0]


def weight_format_of(rank: int, last: bool) -> str:
    """The first name of the weight's layout that goes with one of data."""
    return _names(rank, "*IO" if last else "OI*")[0]


def channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """``(N, C, spatial...)`` as ``(N, spatial..., C)``."""
    return (shape[0], *shape[2:], shape[1])
