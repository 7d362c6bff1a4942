"""All Numba flags, each with its reason."""

from collections.abc import Callable
from typing import Any

from numba import njit
from numba.extending import register_jitable

from .cache import KernelCache

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


def _cached(**flags: Any) -> Callable[[Callable[..., Any]], Any]:
    """``njit`` whose code is kept on disk: a process compiles nothing that an earlier one has compiled."""

    def decorate(function: Any) -> Any:
        made = njit(**flags)(function)
        if made is not function:  # as it is under NUMBA_DISABLE_JIT
            made._cache = KernelCache(function)
        return made

    return decorate


#: A loop over tasks, called by itself (serially) or from a parallel kernel.
kernel = _cached(**_CODE)

#: A function that kernels call, and Python never does: the code by which Python would call it was a fifth of all
#: compiling. Under ``njit`` such a function would end the process if Python called it; this way it runs as Python.
part = register_jitable(**_CODE)

#: A short helper inside a kernel, always part of its caller: a call would count references to each array operand.
inner = register_jitable(**_CODE, forceinline=True)

#: A sum over the elements of one row. The compiler may split it into vector lanes; it does so at compile
#: time, so the order depends on the row's length alone.
reduction = register_jitable(**{**_CODE, "fastmath": {"contract", "reassoc"}})

#: ``prange`` over chunks of tasks, and nothing else: compiling a parallel body costs twice a plain one.
parallel_kernel = _cached(**_CODE, parallel=True)

#: Functions that are made at run time, which Numba's cache on disk cannot find again.
scalar = njit(nogil=True, error_model="numpy")

#: The same for those that only such functions call: half the memory, but Python cannot.
called = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
