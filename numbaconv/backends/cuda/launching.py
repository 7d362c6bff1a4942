"""Launch geometry, and the launch itself."""

from typing import Any

from .jit import config

__all__ = ["THREADS", "blocks_for", "launch"]

#: Threads of a block where nothing speaks for another number.
THREADS = 128
#: Whether Numba warns of launches of few blocks, as it was found: threads that launch at once must not keep a change.
_WARNS = config.CUDA_LOW_OCCUPANCY_WARNINGS


def blocks_for(elements: int, threads: int = THREADS) -> int:
    """Blocks that have a thread for each element."""
    return -(-elements // threads)


def launch(kernel: Any, blocks: int, threads: int, stream: Any, *arguments: Any) -> None:
    """Run a kernel in so many blocks of so many threads; nothing at all where there are no blocks.

    Numba warns of launches of few blocks, as it finds; here they are meant.
    """
    if not blocks:
        return
    config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
    try:
        configured = kernel[blocks, threads, stream]
    finally:
        config.CUDA_LOW_OCCUPANCY_WARNINGS = _WARNS
    configured(*arguments)
