"""All Numba flags, each with its reason."""

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

#: A loop over tasks, called by itself (serially) or from a parallel kernel.
kernel = njit(**_KERNEL)

#: A short helper inside a kernel, always part of its caller: a call would count references to each array operand.
inner = njit(**_KERNEL, forceinline=True)

#: A sum over the elements of one row. The compiler may split it into vector lanes; it does so at compile
#: time, so the order depends on the row's length alone.
reduction = njit(**{**_KERNEL, "fastmath": {"contract", "reassoc"}})

#: ``prange`` over chunks of tasks, and nothing else: compiling a parallel body costs twice a plain one.
parallel_kernel = njit(**{**_KERNEL, "parallel": True})

#: Functions that are made at run time, which Numba's cache on disk cannot find again.
scalar = njit(nogil=True, error_model="numpy")
