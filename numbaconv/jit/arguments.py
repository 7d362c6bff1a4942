"""What is known of a call when it is compiled: which arguments are wrong by their types, and the result's type."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numba import types
from numba.core.errors import TypingError
from numba.np.numpy_support import as_dtype, from_dtype

from ..arrays import asked_dtype, asked_result, compute_dtype, like_result, promote
from ..backends.activations import resolve_activation
from ..errors import ConvError
from ..plan import dtype_name, dtype_rule
from ..plan.arguments import PADDING_NAMES
from ..plan.axis import PADDING_MODES
from ..plan.hints import mode_hint, padding_hint
from ..plan.layout import is_channels_last, weight_order

__all__ = ["Given", "constants", "result_type"]

#: The types of a call's arguments by name, without those that it leaves to their defaults.
Given = Mapping[str, Any]

_ARRAYS = ("input", "weight", "bias", "residual", "out", "grad_output", "pre_activation", "output")
_ABSENT = object()


def _refuse(op: str, name: str, wanted: str, found: object) -> TypingError:
    return TypingError(f"{op}: {name} must be {wanted}, but is {found}")


def _is_integer(kind: Any) -> bool:
    return isinstance(kind, types.Integer)


def _are(kind: Any, test: Callable[[Any], bool]) -> bool:
    return isinstance(kind, types.BaseTuple) and all(map(test, kind))


def _integers(kind: Any) -> bool:
    return _is_integer(kind) or _are(kind, _is_integer)


def _sizes(kind: Any) -> bool:
    return _are(kind, _is_integer)


def _text(kind: Any) -> bool:
    return isinstance(kind, types.UnicodeType | types.StringLiteral)


def _texts(kind: Any) -> bool:
    return _text(kind) or _are(kind, _text)


def _padding(kind: Any) -> bool:
    return _text(kind) or _integers(kind) or _are(kind, lambda pair: _are(pair, _is_integer))


def _number(kind: Any) -> bool:
    return isinstance(kind, types.Number) and not isinstance(kind, types.Boolean)


def _activation(kind: Any) -> bool:
    return _text(kind) or isinstance(kind, types.Dispatcher) or _are(kind, lambda it: isinstance(it, types.Dispatcher))


def _mask(kind: Any) -> bool:
    return len(kind) == 3 and _are(kind, lambda flag: isinstance(flag, types.BooleanLiteral))


def _dtype_kind(kind: Any) -> bool:
    return isinstance(kind, types.DType | types.NumberClass | types.StringLiteral)


_INTEGERS = _integers, "an int or a tuple of ints"
_NAME = _text, "a str"
_SIZE = _sizes, "a tuple of ints"
#: What each argument that is no array may be, and what messages call that; None is checked by the call itself.
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "stride": _INTEGERS,
    "dilation": _INTEGERS,
    "output_padding": _INTEGERS,
    "output_size": _INTEGERS,
    "groups": (_is_integer, "an int"),
    "input_size": _SIZE,
    "weight_size": _SIZE,
    "padding": (_padding, "an int, a tuple of ints or of pairs of them, or a str"),
    "padding_mode": (_texts, "a str or a tuple of them"),
    "padding_value": (_number, "a number"),
    "data_format": _NAME,
    "weight_format": _NAME,
    "algorithm": _NAME,
    "backend": _NAME,
    "precision": _NAME,
    "dtype": (_dtype_kind, "a dtype or a scalar type, or the name of one that is written in the call"),
    "activation": (_activation, "a str, a function compiled by njit, or a pair of those"),
    "output_mask": (_mask, "a tuple of three bools that are written in the call"),
}


def _constant(kind: Any) -> Any:
    """The value that a type stands for, or `_ABSENT`."""
    if isinstance(kind, types.NoneType):
        return None
    if isinstance(kind, types.StringLiteral | types.BooleanLiteral | types.IntegerLiteral):
        return kind.literal_value
    if isinstance(kind, types.Dispatcher):
        return kind.dispatcher
    if isinstance(kind, types.DType | types.NumberClass):
        return as_dtype(kind.dtype)
    if isinstance(kind, types.BaseTuple) and len(kind):
        inner = tuple(map(_constant, kind))
        if all(each is not _ABSENT for each in inner):
            return inner
    return _ABSENT


def constants(op: str, rank: int, given: Given) -> dict[str, Any]:
    """Check the types of a call's arguments, and find those whose values are known.

    Raises
    ------
    TypingError
        That names the argument.
    """
    asked = _is_there(given, "dtype")
    for name, kind in given.items():
        if name in _ARRAYS:
            _check_array(op, name, kind, asked)
        elif not isinstance(kind, types.NoneType):
            accepts, wanted = _KINDS[name]
            if not accepts(kind):
                raise _refuse(op, name, wanted, kind)
    known = {name: value for name, kind in given.items() if (value := _constant(kind)) is not _ABSENT}
    _check_names(op, rank, known)
    return known


def _check_array(op: str, name: str, kind: Any, asked: bool) -> None:
    plain = kind.type if isinstance(kind, types.Optional) and name != "out" else kind
    if isinstance(plain, types.NoneType) and name not in ("input", "weight", "grad_output"):
        return
    if not isinstance(plain, types.Array):
        raise _refuse(op, name, "an array", kind)
    if name == "out" and not plain.mutable:
        raise TypingError(f"{op}: out is read-only")
    if plain.dtype == types.float16:
        raise TypingError(f"{op}: {name} is float16, of which Numba has no arrays in compiled code for CPUs")
    try:
        dtype_rule(op, name, as_dtype(plain.dtype), asked)
    except (ConvError, NotImplementedError) as error:
        raise TypingError(str(error)) from None


def _check_names(op: str, rank: int, known: dict[str, Any]) -> None:
    """The names among the arguments, where they are known."""
    padding = known.get("padding")
    if isinstance(padding, str) and padding.lower() not in PADDING_NAMES:
        raise _refuse(
            op,
            "padding",
            f"integers or one of {', '.join(PADDING_NAMES)}",
            repr(padding) + padding_hint(padding.lower()),
        )
    modes = known.get("padding_mode", ())
    for mode in (modes,) if isinstance(modes, str) else modes or ():
        if mode not in PADDING_MODES:
            raise _refuse(op, "padding_mode", f"one of {', '.join(PADDING_MODES)}", repr(mode) + mode_hint(mode))
    activation = known.get("activation")
    try:
        last = is_channels_last(op, rank, known.get("data_format"))
        weight_order(op, rank, known.get("weight_format"), last)
        if isinstance(activation, str):
            resolve_activation(op, activation, "float32")
    except ConvError as error:
        raise TypingError(str(error)) from None
    if isinstance(activation, tuple) and len(activation) != 2:
        raise _refuse(op, "activation", "a pair", f"{len(activation)} functions")


def _dtype(kind: Any) -> np.dtype:
    found: np.dtype = as_dtype((kind.type if isinstance(kind, types.Optional) else kind).dtype)
    return found


def _asked(op: str, given: Given) -> np.dtype | None:
    """The dtype that a call asks for."""
    return asked_dtype(op, _constant(given["dtype"])) if _is_there(given, "dtype") else None


def _is_there(given: Given, name: str) -> bool:
    return name in given and not isinstance(given[name], types.NoneType)


def _scaled(op: str, given: Given) -> np.dtype:
    """The dtype of a gradient times its activation's derivative."""
    names, asked = ["grad_output"], _asked(op, given)
    if _is_there(given, "activation"):
        names += [name for name in ("pre_activation", "output") if _is_there(given, name)]
    dtypes = {name: _dtype(given[name]) for name in names}
    if asked is None:
        return promote(op, dtypes)
    asked_result(op, asked, dtypes, {})
    return compute_dtype(asked) if len(names) > 1 else dtypes["grad_output"]


def _array(op: str, dtype: np.dtype, axes: int) -> types.Array:
    if dtype == np.float16:
        raise TypingError(f"{op}: the result is float16, of which Numba has no arrays in compiled code for CPUs")
    try:
        return types.Array(from_dtype(dtype), axes, "C")
    except NotImplementedError:
        raise TypingError(f"{op}: the result is {dtype_name(dtype)}, of which Numba has no arrays") from None


def _axes(op: str, rank: int, name: str, found: int, batched: bool) -> int:
    """The number of axes of an operand, which must be one of those that a rank has."""
    if found != rank + 2 and not (batched and found == rank + 1):
        without = f", or {rank + 1} without a batch axis" if batched else ""
        raise TypingError(f"{op}: {name} must have {rank + 2} axes{without}, but has {found}")
    return found


def _count(given: Given, name: str) -> int:
    """How many axes an array or a shape has."""
    kind = given[name]
    return len(kind) if isinstance(kind, types.BaseTuple) else kind.ndim


def result_type(op: str, produces: str, rank: int, given: Given) -> Any:
    """The numba type of what a function returns.

    ``produces`` is ``output``, ``input``, ``weight``, ``bias`` or ``backward``: which operand, or all gradients.
    ``given`` has passed `constants`.

    Raises
    ------
    TypingError
        Where operands have no common dtype, or not the number of axes that they need.
    """
    try:
        if produces == "output":
            return _output_type(op, rank, given)
        return _gradient_type(op, produces, rank, given)
    except ConvError as error:
        raise TypingError(str(error)) from None


def _output_type(op: str, rank: int, given: Given) -> Any:
    axes = _axes(op, rank, "input", _count(given, "input"), True)
    _axes(op, rank, "weight", _count(given, "weight"), False)
    operands = {name: _dtype(given[name]) for name in ("input", "weight")}
    extras = {name: _dtype(given[name]) for name in ("bias", "residual") if _is_there(given, name)}
    certain = {name: each for name, each in extras.items() if not isinstance(given[name], types.Optional)}
    dtype = _asked(op, given)
    if dtype is not None:
        asked_result(op, dtype, operands, extras)
    elif like_result(op, operands, certain) != (dtype := like_result(op, operands, extras)):
        names = " or ".join(name for name in extras if name not in certain)
        raise TypingError(f"{op}: {names} may be None, and the result's dtype depends on whether it is")
    found = _array(op, dtype, axes)
    if _is_there(given, "out") and (given["out"].ndim != axes or given["out"].dtype != found.dtype):
        raise TypingError(f"{op}: out is {given['out']}, but the result is {found}")
    return found


def _gradient_type(op: str, produces: str, rank: int, given: Given) -> Any:
    scaled, asked = _scaled(op, given), _asked(op, given)
    _axes(op, rank, "grad_output", _count(given, "grad_output"), True)

    def like(other: str) -> np.dtype:
        dtypes = {other: _dtype(given[other]), "grad_output": scaled}
        if asked is None:
            return like_result(op, dtypes, {})
        asked_result(op, asked, dtypes, {})
        return asked

    by_bias = _array(op, like_result(op, {"grad_output": scaled}, {}) if asked is None else asked, 1)
    if produces == "bias":
        return by_bias
    if produces == "backward":
        _axes(op, rank, "input", _count(given, "input"), True)
        _axes(op, rank, "weight", _count(given, "weight"), False)
        return _array(op, like("weight"), _count(given, "input")), _array(op, like("input"), rank + 2), by_bias
    size, other = f"{produces}_size", "input" if produces == "weight" else "weight"
    _axes(op, rank, size, _count(given, size), produces == "input")
    _axes(op, rank, other, _count(given, other), other == "input")
    found = _array(op, like(other), _count(given, size))
    if _is_there(given, "out") and (given["out"].ndim != found.ndim or given["out"].dtype != found.dtype):
        raise TypingError(f"{op}: out is {given['out']}, but the result is {found}")
    return found
