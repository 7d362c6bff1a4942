"""The CUDA backend: ``@cuda.jit`` kernels, the ordered table of algorithms, and why it may not be there.

Kernels need Numba's CUDA target, which is the package numba-cuda, or Numba's own where that still has one. Importing
this package imports it, but asks no driver for anything: that happens when the backend is first asked for.
"""

from ..base import Algorithm, Backend, Direction
from .availability import unavailable

__all__ = ["BACKEND"]

try:
    from .direct_conv import DIRECT
    from .implicit_gemm import IMPLICIT_GEMM
    from .implicit_weight import IMPLICIT_GEMM_WEIGHT
except ImportError as error:
    _problem: ImportError | None = error
    _tables: dict[Direction, tuple[Algorithm, ...]] = dict.fromkeys(Direction, ())
else:
    _problem = None
    _tables = {
        Direction.FORWARD: (IMPLICIT_GEMM[Direction.FORWARD], DIRECT[Direction.FORWARD],),
        Direction.INPUT_GRAD: (IMPLICIT_GEMM[Direction.INPUT_GRAD], DIRECT[Direction.INPUT_GRAD],),
        Direction.WEIGHT_GRAD: (IMPLICIT_GEMM_WEIGHT, DIRECT[Direction.WEIGHT_GRAD],),
    }


def _unavailable() -> str | None:
    return unavailable(_problem)


def _host() -> str:
    from .availability import device_name

    return device_name()


BACKEND = Backend(name="cuda", tables=_tables, activation_grad=None, unavailable=_unavailable, host=_host)
