"""All Numba flags, each with its reason."""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

from numba import njit
from numba.extending import register_jitable

__all__ = ["called", "inner", "kernel", "parallel_kernel", "part", "reduction", "scalar"]

_CODE = {
    "nogil": True,  # Python threads convolve side by side
    "error_model": "numpy",  # no branch for division by zero in every loop
    "boundscheck": False,  # the plan has checked
    # One rounding for a multiply and add. Nothing else: reassociation would let the compiler choose an
    # order of summation, and ignoring NaN or infinity would change results.
    "fastmath": {"contract"},
    "no_cfunc_wrapper": True,  # kernels are called by the address of the function itself
}
_KERNEL = {**_CODE, "cache": True}  # a process compiles nothing that an earlier one has compiled


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

#: A function that kernels call, and Python never does: the code by which Python would call it was a fifth of all
#: compiling. Under ``njit`` such a function would end the process if Python called it; this way it runs as Python.
part = register_jitable(**_CODE)

#: A short helper inside a kernel, always part of its caller: a call would count references to each array operand.
inner = register_jitable(**_CODE, forceinline=True)

#: A sum over the elements of one row. The compiler may split it into vector lanes; it does so at compile
#: time, so the order depends on the row's length alone.
reduction = register_jitable(**{**_CODE, "fastmath": {"contract", "reassoc"}})

#: ``prange`` over chunks of tasks, and nothing else: compiling a parallel body costs twice a plain one.
parallel_kernel = _cached(**{**_KERNEL, "parallel": True})

#: Functions that are made at run time, which Numba's cache on disk cannot find again.
scalar = njit(nogil=True, error_model="numpy")

#: The same for those that only such functions call: half the memory, but Python cannot.
called = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
