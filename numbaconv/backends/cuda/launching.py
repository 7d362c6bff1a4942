"""Launch geometry, and the launch itself."""

from typing import Any

from ...compiling import compiling
from .jit import SIMULATED, config
from .scratch import drop_oldest

__all__ = ["THREADS", "blocks_for", "launch"]

#: Threads of a block where nothing speaks for another number.
THREADS = 128
#: Kernels with their geometry that are kept.
_MOST = 4096
_configured: dict[tuple[Any, int, int, Any], Any] = {}
#: Whether Numba warns of launches of few blocks, as it was found: threads that launch at once must not keep a change.
_WARNS = config.CUDA_LOW_OCCUPANCY_WARNINGS


def blocks_for(elements: int, threads: int = THREADS) -> int:
    """Blocks that have a thread for each element."""
    return -(-elements // threads)


def launch(kernel: Any, blocks: int, threads: int, stream: Any, *arguments: Any) -> None:
    """Run a kernel in so many blocks of so many threads; nothing at all where there are no blocks."""
    if not blocks:
        return
    configured = _configured.get((kernel, blocks, threads, stream))
    if configured is None:
        configured = _configure(kernel, blocks, threads, stream)
        if not SIMULATED and not kernel.overloads:  # its first launch compiles it
            with compiling(f"{kernel.py_func.__name__} for the device", ""):
                configured(*arguments)
            return
    configured(*arguments)


def _configure(kernel: Any, blocks: int, threads: int, stream: Any) -> Any:
    """A kernel with its geometry: kept here, since Numba keeps 128 of all kernels together, and a network has more.

    Numba warns of launches of few blocks, as it finds; here they are meant. The simulator's kernels cannot be kept:
    each remembers one geometry.
    """
    config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
    try:
        configured = kernel[blocks, threads, stream]
    finally:
        config.CUDA_LOW_OCCUPANCY_WARNINGS = _WARNS
    if not SIMULATED:
        _configured[kernel, blocks, threads, stream] = configured
        while len(_configured) > _MOST:
            drop_oldest(_configured)
    return configured
