"""Who asks that subnormal numbers count as zeros: ``with flush_subnormals():``, then the environment."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TypeVar

from ..environment import FLUSH_VARIABLE
from ..errors import ArgumentError, DTypeError

__all__ = ["as_asked", "flush_subnormals", "flushes_subnormals", "mode_asked", "scoped_flushing"]

T = TypeVar("T")

#: What the block around a call says; None where there is none.
scoped_flushing: ContextVar[bool | None] = ContextVar("numbaconv_flush_subnormals", default=None)


@contextmanager
def flush_subnormals(on: bool = True) -> Iterator[None]:
    """Take subnormal numbers for zeros inside a ``with`` block, for this thread or task.

    Subnormal numbers are those between zero and ``numpy.finfo(dtype).smallest_normal`` (1.2e-38 in float32, 2.2e-308 in
    float64). There are processors that take a hundred times as long over each. In the block, a convolution in the
    host's memory reads them as zeros, and what would become one is a zero. Results that are normal numbers differ by no
    more than that. Calls to a device are not concerned. ``NUMBACONV_FLUSH_SUBNORMALS=1`` does the same for every
    thread.

    The processor's mode is set while a convolution runs, in the threads that compute it, and is what it was afterwards:
    other code in the block computes as before.

    Parameters
    ----------
    on : bool
        False: not, whatever is around the block or in the environment.

    Raises
    ------
    DTypeError
        If ``on`` is no bool.
    BackendError
        On processors other than x86-64 and AArch64, and where ``NUMBA_DISABLE_JIT`` is set.

    Examples
    --------
    >>> import numpy as np, numbaconv
    >>> tiny = np.full((1, 1, 4), 1e-40, np.float32)
    >>> one = np.ones((1, 1, 1), np.float32)
    >>> with numbaconv.flush_subnormals():
    ...     numbaconv.conv1d(tiny, one)
    array([[[0., 0., 0., 0.]]], dtype=float32)
    """
    if not isinstance(on, bool):
        raise DTypeError(f"flush_subnormals: on must be a bool, but is {on!r}")
    if on:
        from .float_mode import check_available  # brings in Numba

        check_available()
    token = scoped_flushing.set(on)
    try:
        yield
    finally:
        scoped_flushing.reset(token)


def flushes_subnormals(op: str) -> bool:
    """Whether a call is to take subnormal numbers for zeros.

    Raises
    ------
    ArgumentError
        If the environment says neither.
    """
    scoped = scoped_flushing.get()
    if scoped is not None:
        return scoped
    value = os.environ.get(FLUSH_VARIABLE) or "0"
    if value not in ("0", "1"):
        raise ArgumentError(f"{op}: {FLUSH_VARIABLE} must be '0' or '1', but is {value!r}")
    return value == "1"


def as_asked(op: str, function: Callable[..., T]) -> Callable[..., T]:
    """A function that computes in the mode that is asked for now."""
    if not flushes_subnormals(op):
        return function
    from .float_mode import check_available, flushed

    check_available()
    return flushed(function)


def mode_asked(op: str) -> AbstractContextManager[None]:
    """A block that computes in the mode that is asked for."""
    if not flushes_subnormals(op):
        return nullcontext()
    from .float_mode import Flushing

    return Flushing()
