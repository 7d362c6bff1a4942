"""The CPU backend: ``@njit(parallel=True)`` kernels, and for each direction the ordered table of algorithms."""

import numba

from ..base import Backend, Direction
from .activation import activation_grad, check_activation
from .announcing import announce
from .depthwise_conv import DEPTHWISE
from .dot_gemm_conv import DOT_GEMM
from .fft import FFT
from .implicit_gemm import IMPLICIT_GEMM
from .patch_gemm_conv import FOLDED_GEMM, PATCH_GEMM
from .patch_weight_conv import PATCH_GEMM_WEIGHT
from .plane_gemm_conv import PLANE_GEMM
from .rows import DIRECT
from .separable_conv import SEPARABLE
from .simd import VECTOR_BYTES
from .small_gemm_conv import SMALL_GEMM
from .target import target
from .winograd_conv import WINOGRAD
from .winograd_weight_conv import WINOGRAD_WEIGHT

__all__ = ["BACKEND"]


def _unavailable() -> str | None:
    return "NUMBA_DISABLE_JIT is set, and its kernels are nothing uncompiled" if numba.config.DISABLE_JIT else None


def _host() -> str:
    return f"{target().name} with vectors of {VECTOR_BYTES} bytes"


announce()

BACKEND = Backend(
    name="cpu",
    tables={
        Direction.FORWARD: (
            FFT[Direction.FORWARD],
            DEPTHWISE[Direction.FORWARD],
            SMALL_GEMM[Direction.FORWARD],
            *WINOGRAD[Direction.FORWARD],
            PLANE_GEMM[Direction.FORWARD],
            PATCH_GEMM[Direction.FORWARD],
            IMPLICIT_GEMM[Direction.FORWARD],
            DIRECT[Direction.FORWARD],
        ),
        Direction.INPUT_GRAD: (
            FFT[Direction.INPUT_GRAD],
            DEPTHWISE[Direction.INPUT_GRAD],
            SMALL_GEMM[Direction.INPUT_GRAD],
            *WINOGRAD[Direction.INPUT_GRAD],
            FOLDED_GEMM,
            PLANE_GEMM[Direction.INPUT_GRAD],
            PATCH_GEMM[Direction.INPUT_GRAD],
            IMPLICIT_GEMM[Direction.INPUT_GRAD],
            DIRECT[Direction.INPUT_GRAD],
        ),
        Direction.WEIGHT_GRAD: (
            FFT[Direction.WEIGHT_GRAD],
            DEPTHWISE[Direction.WEIGHT_GRAD],
            WINOGRAD_WEIGHT,
            PATCH_GEMM_WEIGHT,
            DOT_GEMM,
            DIRECT[Direction.WEIGHT_GRAD],
        ),
    },
    fusions=SEPARABLE,
    activation_grad=activation_grad,
    check_activation=check_activation,
    unavailable=_unavailable,
    host=_host,
    compiled=True,
)
