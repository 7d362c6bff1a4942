"""Why the backend cannot be used here, as a sentence; found when it is first asked for, not before."""

import os
from inspect import signature

__all__ = ["device_name", "unavailable"]

#: A compute capability that every toolkit knows; naming one needs no context.
_ANY = (8, 0)
_INSTALL = "pip install 'numbaconv[cu13]', or 'numbaconv[cu12]' for CUDA 12"
#: The process that has initialised the driver, and whether everything needed is a simulator.
_initialised: int | None = None
_simulated = False


def unavailable(problem: ImportError | None) -> str | None:
    """None where kernels can run; ``problem`` is what importing them raised.

    The first answer of None initialises the driver, after which no forked process can use CUDA. The context, which
    takes memory on the device, is made by the first call.
    """
    if _initialised is not None:
        if _simulated or _initialised == os.getpid():
            return None
        return "CUDA was in use when this process was forked, and cannot be used in it; start processes by spawn"
    return _refusal(problem)


def _refusal(problem: ImportError | None) -> str | None:
    global _initialised, _simulated
    if problem is not None:
        return f"Numba's CUDA target cannot be imported ({_one_line(problem)}); {_INSTALL}"
    from numba import cuda, types

    from .jit import SIMULATED

    if not SIMULATED:
        try:
            devices = len(cuda.gpus)
        except Exception as error:  # whatever its driver bindings raise
            if "NO_DEVICE" in str(error):  # what a driver says when it is initialised
                return "the driver finds no device"
            return f"there is no usable driver: {_one_line(error)}"
        if not devices:
            return "the driver finds no device"
        lacking = _lacking()
        if lacking:
            return f"kernels cannot be compiled (Numba's own target has no {' and no '.join(lacking)}); {_INSTALL}"
        driver, toolkit = _versions()
        if driver[0] < toolkit[0]:
            known, wanted = (".".join(map(str, version)) for version in (driver, toolkit))
            return (
                f"the driver is of CUDA {known}, and loads no kernels of a toolkit of CUDA {wanted}: install a newer "
                f"driver, or numbaconv[cu{driver[0]}]"
            )
        try:
            cuda.compile_ptx(_nothing, (types.int32,), device=True, cc=_ANY)
        except Exception as error:
            return f"kernels cannot be compiled ({_one_line(error)}); {_INSTALL}"
    _simulated, _initialised = SIMULATED, os.getpid()
    return None


def _lacking() -> list[str]:
    """What kernels are compiled with and Numba's target does not know: its own, which some releases bring, is older."""
    from numba.cuda.dispatcher import _Kernel

    known = signature(_Kernel).parameters
    return [option for option in ("launch_bounds", "forceinline") if option not in known]


def _versions() -> tuple[tuple[int, int], tuple[int, int]]:
    """The driver's CUDA, and that of the toolkit; where none says, the driver's."""
    from numba import cuda

    driver: tuple[int, int] = cuda.cudadrv.driver.driver.get_version()
    try:
        toolkit: tuple[int, int] = cuda.runtime.get_version()
    except Exception:  # whatever its bindings raise; what is missing is found by compiling
        toolkit = driver
    return driver, toolkit


def _nothing(value):
    return value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def device_name() -> str:
    """What measured times hold for."""
    from numba import cuda

    from .jit import SIMULATED

    if SIMULATED:
        return "Numba's simulator"
    name = cuda.get_current_device().name
    return name.decode() if isinstance(name, bytes) else str(name)
