"""Arguments as callers write them, turned into tuples of plain integers, or refused by name."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from math import copysign
from operator import index
from typing import SupportsIndex, TypeAlias

from ..errors import ArgumentError, DTypeError
from .axis import PADDING_MODES
from .hints import mode_hint, padding_hint

__all__ = [
    "DEFAULT_PRECISION",
    "PADDING_NAMES",
    "PRECISIONS",
    "Geometry",
    "Ints",
    "Padding",
    "PaddingMode",
    "Scalar",
    "check_precision",
    "integers",
    "shape",
]

Ints: TypeAlias = SupportsIndex | Iterable[SupportsIndex]
Padding: TypeAlias = str | SupportsIndex | Iterable[SupportsIndex] | Iterable[Iterable[SupportsIndex]]
PaddingMode: TypeAlias = str | Iterable[str]
Scalar: TypeAlias = int | float | complex

PADDING_NAMES = ("valid", "same", "same_lower", "causal")
#: How exactly results are computed: without transforms, whose errors spread; with them; and with float32 operands
#: rounded to TF32 (10 bits of mantissa) where that is faster.
PRECISIONS = ("strict", "float32", "tf32")
DEFAULT_PRECISION = "float32"


def _integer(op: str, name: str, value: object) -> int:
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        raise DTypeError(f"{op}: {name} must be an integer, but is the bool {value}")
    try:
        return index(value)  # type: ignore[arg-type]
    except TypeError:
        raise DTypeError(f"{op}: {name} must be an integer, but is {value!r} ({type(value).__name__})") from None


def _sequence(value: object) -> tuple[object, ...] | None:
    """The entries of a sequence, or None for a scalar."""
    if isinstance(value, str | bytes | Mapping | Set) or not isinstance(value, Iterable):
        return None
    try:
        return tuple(value)
    except TypeError:  # a zero-dimensional array calls itself iterable
        return None


def integers(op: str, name: str, value: object, rank: int, least: int) -> tuple[int, ...]:
    """One integer an axis, each at least ``least``, from one integer or one an axis."""
    entries = _sequence(value)
    found = tuple(_integer(op, name, entry) for entry in (entries if entries is not None else (value,)))
    if len(found) == 1:
        found *= max(rank, 1)
    if len(found) != rank:
        raise ArgumentError(f"{op}: {name} has {len(found)} entries {found}, but there are {rank} spatial axes")
    if min(found, default=least) < least:
        raise ArgumentError(f"{op}: {name} must be at least {least}, but is {found}")
    return found


def shape(op: str, name: str, value: object) -> tuple[int, ...]:
    """A shape of non-negative integers."""
    entries = _sequence(value)
    if entries is None:
        raise DTypeError(f"{op}: {name} must be a shape (a sequence of integers), but is {value!r}")
    found = tuple(_integer(op, name, entry) for entry in entries)
    if any(extent < 0 for extent in found):
        raise ArgumentError(f"{op}: {name} must not be negative, but is {found}")
    return found


def check_precision(op: str, name: str, value: object) -> str:
    """A name of `PRECISIONS`. ``name`` is where it was given."""
    listed = f"{', '.join(map(repr, PRECISIONS[:-1]))} or {PRECISIONS[-1]!r}"
    if not isinstance(value, str):
        raise DTypeError(f"{op}: {name} must be {listed}, but is {value!r} ({type(value).__name__})")
    if value not in PRECISIONS:
        raise ArgumentError(f"{op}: {name} must be {listed}, but is {value!r}")
    return str(value)


def _padding(op: str, value: object, rank: int) -> str | tuple[tuple[int, int], ...]:
    if isinstance(value, str):
        name = value.lower()
        if name not in PADDING_NAMES:
            raise ArgumentError(
                f"{op}: padding is {value!r}, but must be integers or one of {', '.join(PADDING_NAMES)}"
                f"{padding_hint(name)}"
            )
        return name
    entries = _sequence(value)
    pairs = None if entries is None else [_sequence(entry) for entry in entries]
    if not pairs or all(pair is None for pair in pairs):
        if pairs is not None and len(pairs) == 2 and rank == 1:
            raise ArgumentError(
                f"{op}: padding has 2 entries {entries}, but there is 1 spatial axis; "
                f"for different padding before and after write ({entries},)"
            )
        amounts = value if entries is None else entries
        return tuple((amount, amount) for amount in integers(op, "padding", amounts, rank, 0))
    if len(pairs) != rank or any(pair is None or len(pair) != 2 for pair in pairs):
        raise ArgumentError(
            f"{op}: padding must be one (before, after) pair for each of {rank} spatial axes, but is {value!r}"
        )
    found = []
    for pair in pairs:
        assert pair is not None
        before, after = (_integer(op, "padding", amount) for amount in pair)
        if min(before, after) < 0:
            raise ArgumentError(f"{op}: padding must be at least 0, but is ({before}, {after})")
        found.append((before, after))
    return tuple(found)


def _modes(op: str, value: object, rank: int) -> tuple[str, ...]:
    entries = (value,) * rank if isinstance(value, str) else _sequence(value)
    if entries is None:
        raise DTypeError(f"{op}: padding_mode must be a name or one name an axis, but is {value!r}")
    if len(entries) != rank:
        raise ArgumentError(f"{op}: padding_mode has {len(entries)} entries, but there are {rank} spatial axes")
    for entry in entries:
        if entry not in PADDING_MODES:
            raise ArgumentError(
                f"{op}: padding_mode is {entry!r}, but must be one of {', '.join(PADDING_MODES)}{mode_hint(entry)}"
            )
    return tuple(str(entry) for entry in entries)


def _padding_value(op: str, value: object, modes: tuple[str, ...]) -> Scalar:
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float | complex):
        raise DTypeError(f"{op}: padding_value must be a number, but is {value!r}")
    if "constant" not in modes and bool(value):
        raise ArgumentError(
            f"{op}: padding_value is {value}, but only padding_mode='constant' uses it; mode is {modes}"
        )
    return value


def _kind(value: Scalar) -> str:
    """What tells a number apart from its equals: its type, and the signs of its zeros."""
    parts = (value.real, value.imag) if isinstance(value, complex) else (value,)
    return type(value).__name__ + "".join("-" for part in parts if isinstance(part, float) and copysign(1, part) < 0)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Every argument that shapes a convolution, checked by itself and hashable."""

    stride: tuple[int, ...]
    padding: str | tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    padding_mode: tuple[str, ...]
    padding_value: Scalar
    padding_kind: str  # tells apart what is equal: 0, 0.0, -0.0 and 0j
    output_padding: tuple[int, ...]
    output_size: tuple[int, ...] | None

    @classmethod
    def of(
        cls,
        op: str,
        rank: int,
        *,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: int = 1,
        padding_mode: PaddingMode = "zeros",
        padding_value: Scalar = 0,
        output_padding: Ints = 0,
        output_size: Ints | None = None,
    ) -> "Geometry":
        """Check and normalise the arguments of a call."""
        groups = _integer(op, "groups", groups)
        if groups < 1:
            raise ArgumentError(f"{op}: groups must be at least 1, but is {groups}")
        modes = _modes(op, padding_mode, rank)
        fill = _padding_value(op, padding_value, modes)
        return cls(
            stride=integers(op, "stride", stride, rank, 1),
            padding=_padding(op, padding, rank),
            dilation=integers(op, "dilation", dilation, rank, 1),
            groups=groups,
            padding_mode=modes,
            padding_value=fill,
            padding_kind=_kind(fill),
            output_padding=integers(op, "output_padding", output_padding, rank, 0),
            output_size=None if output_size is None else integers(op, "output_size", output_size, rank, 1),
        )
