"""All Numba flags, each with its reason."""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

from numba import njit

__all__ = ["inner", "kernel", "parallel_kernel", "reduction", "scalar"]

_KERNEL = {
    "cache": True,  # a process compiles nothing that an earlier one has compiled
    "nogil": True,  # Python threads convolve side by side
    "error_model": "numpy",  # no branch for division by zero in every loop
    "boundscheck": False,  # the plan has checked
    # One rounding for a multiply and add. Nothing else: reassociation would let the compiler choose an
    # order of summation, and ignoring NaN or infinity would change results.
    "fastmath": {"contract"},
}


@cache
def _warn() -> None:
    warnings.warn(
        "Numba finds no folder that it can write compiled kernels to, so that each process compiles its own; "
        "NUMBA_CACHE_DIR can name one",
        RuntimeWarning,
        stacklevel=3,
    )


def _cached(**flags: Any) -> Callable[[Callable[..., Any]], Any]:
    """``njit``, without its cache where there is no place for one: Numba refuses to decorate at all then."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return njit(**flags)(function)
        except RuntimeError:
            _warn()
            return njit(**{**flags, "cache": False})(function)

    return decorate


#: A loop over tasks, called by itself (serially) or from a parallel kernel.
kernel = _cached(**_KERNEL)

#: A short helper inside a kernel, always part of its caller: a call would count references to each array operand.
inner = _cached(**_KERNEL, forceinline=True)

#: A sum over the elements of one row. The compiler may split it into vector lanes; it does so at compile
#: time, so the order depends on the row's length alone.
reduction = _cached(**{**_KERNEL, "fastmath": {"contract", "reassoc"}})

#: ``prange`` over chunks of tasks, and nothing else: compiling a parallel body costs twice a plain one.
parallel_kernel = _cached(**{**_KERNEL, "parallel": True})

#: Functions that are made at run time, which Numba's cache on disk cannot find again.
scalar = njit(nogil=True, error_model="numpy")
