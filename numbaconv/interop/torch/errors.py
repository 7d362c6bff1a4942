"""Errors as PyTorch's users expect them: also a ``RuntimeError``, which its own convolutions raise."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from ... import errors

__all__ = ["as_torch_errors"]


class ShapeError(errors.ShapeError, RuntimeError):
    """As `numbaconv.ShapeError`."""


class ArgumentError(errors.ArgumentError, RuntimeError):
    """As `numbaconv.ArgumentError`."""


class DTypeError(errors.DTypeError, RuntimeError):
    """As `numbaconv.DTypeError`."""


class BackendError(errors.BackendError, RuntimeError):
    """As `numbaconv.BackendError`."""


class AlgorithmError(errors.AlgorithmError, RuntimeError):
    """As `numbaconv.AlgorithmError`."""


_KINDS: dict[type[Exception], type[Exception]] = {
    errors.ShapeError: ShapeError,
    errors.ArgumentError: ArgumentError,
    errors.DTypeError: DTypeError,
    errors.BackendError: BackendError,
    errors.AlgorithmError: AlgorithmError,
}


def as_torch_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, raising errors that are PyTorch's kind, too."""

    @wraps(function)
    def checked(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except errors.ConvError as error:
            kind = _KINDS.get(type(error))
            if kind is None:
                raise
            raise kind(*error.args) from error.__cause__

    return checked
