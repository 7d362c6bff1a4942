"""The CUDA backend: ``@cuda.jit`` kernels, the ordered table of algorithms, and why it may not be there.

Kernels need Numba's CUDA target, which is the package numba-cuda; in the simulator Numba's own will do. Importing this
package imports it, but asks no driver for anything: that happens when the backend is first asked for.
"""

from typing import Any

from ..base import Algorithm, Backend, Direction
from .availability import device_name, unavailable

__all__ = ["BACKEND"]

_problem: ImportError | None = None
_tables: dict[Direction, tuple[Algorithm, ...]] = dict.fromkeys(Direction, ())
_options: dict[str, Any] = {"activation_grad": None}
try:
    from .depthwise import DEPTHWISE
    from .direct_conv import DIRECT
    from .elementwise import RESIDENCE, activation_grad
    from .epilogue import check_activation
    from .implicit_gemm import IMPLICIT_GEMM
    from .implicit_weight import IMPLICIT_GEMM_WEIGHT
    from .tensor_core import TENSOR_CORE, TENSOR_CORE_3XTF32
    from .winograd import WINOGRAD
except ImportError as error:
    _problem = error
else:
    _options = {"activation_grad": activation_grad, "check_activation": check_activation, "residence": RESIDENCE}
    _tables = {
        direction: (
            DEPTHWISE[direction],
            TENSOR_CORE[direction],
            TENSOR_CORE_3XTF32[direction],
            *WINOGRAD.get(direction, ()),
            gemm,
            DIRECT[direction],
        )
        for direction, gemm in {**IMPLICIT_GEMM, Direction.WEIGHT_GRAD: IMPLICIT_GEMM_WEIGHT}.items()
    }


def _unavailable() -> str | None:
    return unavailable(_problem)


BACKEND = Backend(name="cuda", tables=_tables, unavailable=_unavailable, host=device_name, **_options)
