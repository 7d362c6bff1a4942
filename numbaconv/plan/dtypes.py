"""The dtype rule: for each operand dtype, what is accumulated and what is returned."""

from functools import lru_cache
from typing import NamedTuple

from ..errors import DTypeError

__all__ = ["ASKED", "SUPPORTED", "DTypeRule", "accumulator", "dtype_name", "dtype_rule", "holds"]


class DTypeRule(NamedTuple):
    """Bytes of one operand element, and the names of the accumulator's and the result's dtype."""

    itemsize: int
    compute: str
    output: str


#: Half types accumulate in float32 and return themselves. Integers of 8 bits accumulate and return int32, wider ones
#: int64 and uint64 itself: a product of 8-bit operands has 16 bits, and one of 16-bit operands fills int32 by itself.
SUPPORTED: dict[str, DTypeRule] = {
    "float16": DTypeRule(2, "float32", "float16"),
    "bfloat16": DTypeRule(2, "float32", "bfloat16"),
    "float32": DTypeRule(4, "float32", "float32"),
    "float64": DTypeRule(8, "float64", "float64"),
    "complex64": DTypeRule(8, "complex64", "complex64"),
    "complex128": DTypeRule(16, "complex128", "complex128"),
    "int8": DTypeRule(1, "int32", "int32"),
    "uint8": DTypeRule(1, "int32", "int32"),
    "int16": DTypeRule(2, "int64", "int64"),
    "uint16": DTypeRule(2, "int64", "int64"),
    "int32": DTypeRule(4, "int64", "int64"),
    "uint32": DTypeRule(4, "int64", "int64"),
    "int64": DTypeRule(8, "int64", "int64"),
    "uint64": DTypeRule(8, "uint64", "uint64"),
}

#: Dtypes that ``dtype=`` may ask for: those in which sums are returned.
ASKED = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128", "int32", "int64", "uint64")

#: Kinds of dtypes, each of which holds the ones before, as ``same_kind`` casting has it.
_KINDS = {"bool": 0, "uint": 1, "int": 2, "float": 3, "bfloat": 3, "complex": 4}


def holds(asked: str, name: str) -> bool:
    """Whether a dtype that was asked for is of the same kind as another, or of one that holds it."""
    kind, other = (_KINDS[each.rstrip("0123456789")] for each in (asked, name))
    return kind >= other


def accumulator(output: str) -> str:
    """The dtype of the sums that are returned in a dtype."""
    return "float32" if output in ("float16", "bfloat16") else output


def dtype_name(dtype: object) -> str:
    """The name of a dtype given as a string, a NumPy dtype or a scalar type."""
    try:
        return _name(dtype)  # NumPy puts a dtype's name together each time
    except TypeError:  # it cannot be hashed, so it is none
        return str(dtype)


@lru_cache(maxsize=256)
def _name(dtype: object) -> str:
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or dtype
    return str(name)


#: bool has elements, but no sums of its own: its results are of the dtype that a call asks for.
_BOOL = DTypeRule(1, "", "")


def dtype_rule(op: str, what: str, dtype: object, asked: bool = False) -> DTypeRule:
    """The rule of a dtype; ``asked``: the call says what its result shall be, so that bool will do.

    Raises
    ------
    DTypeError
        If convolutions are not defined for it (bool, object, strings, dates, long double, ...).
    """
    name = dtype_name(dtype)
    rule = SUPPORTED.get(name)
    if rule is not None:
        return rule
    if name == "bool":
        if asked:
            return _BOOL
        raise DTypeError(
            f"{op}: {what} has dtype bool, whose sums have no dtype of their own; ask for one with dtype= "
            "(where only shapes are given: output_dtype=)"
        )
    raise DTypeError(f"{op}: {what} has dtype {name}, but must be one of {', '.join(SUPPORTED)}")
