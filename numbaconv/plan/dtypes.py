"""The dtype rule: for each operand dtype, what is accumulated and what is returned."""

from functools import lru_cache
from typing import NamedTuple

from ..errors import DTypeError

__all__ = ["SUPPORTED", "DTypeRule", "dtype_name", "dtype_rule"]


class DTypeRule(NamedTuple):
    """Bytes of one operand element, and the names of the accumulator's and the result's dtype."""

    itemsize: int
    compute: str
    output: str


#: Half types accumulate in float32 and return themselves. Integers of 8 and 16 bits accumulate and return
#: int32, wider ones int64, so that sums do not wrap at the operands' width.
SUPPORTED: dict[str, DTypeRule] = {
    "float16": DTypeRule(2, "float32", "float16"),
    "bfloat16": DTypeRule(2, "float32", "bfloat16"),
    "float32": DTypeRule(4, "float32", "float32"),
    "float64": DTypeRule(8, "float64", "float64"),
    "complex64": DTypeRule(8, "complex64", "complex64"),
    "complex128": DTypeRule(16, "complex128", "complex128"),
    "int8": DTypeRule(1, "int32", "int32"),
    "uint8": DTypeRule(1, "int32", "int32"),
    "int16": DTypeRule(2, "int32", "int32"),
    "uint16": DTypeRule(2, "int32", "int32"),
    "int32": DTypeRule(4, "int64", "int64"),
    "uint32": DTypeRule(4, "int64", "int64"),
    "int64": DTypeRule(8, "int64", "int64"),
    "uint64": DTypeRule(8, "int64", "int64"),
}


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


def dtype_rule(op: str, what: str, dtype: object) -> DTypeRule:
    """The rule of a dtype.

    Raises
    ------
    DTypeError
        If convolutions are not defined for it (bool, object, strings, dates, long double, ...).
    """
    rule = SUPPORTED.get(dtype_name(dtype))
    if rule is None:
        raise DTypeError(f"{op}: {what} has dtype {dtype_name(dtype)}, but must be one of {', '.join(SUPPORTED)}")
    return rule
