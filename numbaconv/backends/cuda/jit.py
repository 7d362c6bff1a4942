"""Numba's CUDA target: where it comes from, its flags, and whether it is the simulator."""

import sys
from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
from numba import cuda

try:
    from numba.cuda.core import config  # numba-cuda's own
except ImportError:
    from numba.core import config

__all__ = ["SIMULATED", "config", "device_function", "kernel", "newest", "scalar_function"]

# numba-cuda compiles against `numpy.row_stack`, which NumPy 2.5 removed; it was another name of this function.
vars(np).setdefault("row_stack", np.vstack)

#: Whether kernels run in Numba's simulator: threads of the interpreter, and arrays in the host's memory.
SIMULATED = bool(config.ENABLE_CUDASIM)

if SIMULATED:
    _making = Lock()

    def _shared_array(self, shape, dtype):  # type: ignore[no-untyped-def]
        """The simulator's own looks for an array and then makes one: two threads at once got one each."""
        made_at = sys._getframe(1)
        key = made_at.f_code.co_filename, made_at.f_lineno
        with _making:
            if key not in self._allocations:
                self._allocations[key] = np.empty(shape, dtype)
            return self._allocations[key]

    cuda.simulator.kernelapi.FakeCUDAShared.array = _shared_array

#: Remembers what is made for an epilogue. There may be any number of activations, so only the newest are kept.
newest: Callable[[Callable[..., Any]], Callable[..., Any]] = lru_cache(maxsize=1024)

#: A kernel. Products and sums may be contracted to one rounding (the compiler's default); nothing else may change.
kernel: Callable[..., Any] = cuda.jit

#: A function that kernels call and that uses ``cuda`` itself.
device_function: Callable[..., Any] = cuda.jit(device=True)


def scalar_function(function: Callable[..., Any]) -> Any:
    """A function that kernels call and that does not use ``cuda``.

    The simulator runs it as it is: its own wrapper around a device function takes longer than most of these.
    """
    return function if SIMULATED else device_function(function)
