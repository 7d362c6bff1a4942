"""Why the backend cannot be used here, as a sentence."""

import os

__all__ = ["device_name", "unavailable"]

#: The process that has initialised the driver.
_initialised: int | None = None


def unavailable(problem: ImportError | None) -> str | None:
    """None where kernels can run; ``problem`` is what importing them raised."""
    global _initialised
    if problem is not None:
        return f"Numba's CUDA target cannot be imported ({problem}); install numbaconv[cu12] or numbaconv[cu13]"
    from .jit import SIMULATED

    if SIMULATED:
        return None
    if _initialised is not None:
        if _initialised != os.getpid():
            return "CUDA was in use when this process was forked, and cannot be used in it; start it by spawn"
        return None
    from numba import cuda

    try:
        cuda.current_context()
    except Exception as error:
        return f"no device can be used: {error}"
    _initialised = os.getpid()
    return None


def device_name() -> str:
    """What measured times hold for."""
    from numba import cuda

    from .jit import SIMULATED

    if SIMULATED:
        return "Numba's simulator"
    name = cuda.get_current_device().name
    return name.decode() if isinstance(name, bytes) else str(name)
