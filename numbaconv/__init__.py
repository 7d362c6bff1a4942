"""Convolution for NumPy arrays: Numba kernels, forward and gradient, without a deep-learning framework.

Importing this package imports neither Numba nor any backend; the first convolution does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import errors, functional, grad
from ._version import __version__
from .backends.registry import (
    get_backend,
    get_precision,
    register_backend,
    set_backend,
    use_backend,
    use_precision,
)
from .backends.subnormals import flush_subnormals
from .errors import AlgorithmError, ArgumentError, BackendError, ConvError, DTypeError, ShapeError
from .explain import Explanation, explain
from .functional import (
    conv,
    conv1d,
    conv2d,
    conv3d,
    conv_transpose,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    depthwise_conv,
    depthwise_conv1d,
    depthwise_conv2d,
    depthwise_conv3d,
    fold,
    separable_conv,
    separable_conv1d,
    separable_conv2d,
    separable_conv3d,
    unfold,
)
from .plan import ConvPlan, ReceptiveField, count_parameters, output_shape, plan_conv, receptive_field
from .prepared import PreparedConv, prepare
from .streaming import StreamingConv, StreamState
from .tuning import Tuning, tune

if TYPE_CHECKING:
    from . import interop, jit, layers, plot, progress
    from .backends.registry import backends
else:  # the package of backends, which can be called as that function
    from . import backends

#: Modules that are imported when they are first asked for.
_LATER = ("interop", "jit", "layers", "plot", "progress")


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What completion offers: the public names, also of what is not imported yet."""
    return sorted(__all__)


__all__ = [
    "AlgorithmError",
    "ArgumentError",
    "BackendError",
    "ConvError",
    "ConvPlan",
    "DTypeError",
    "Explanation",
    "PreparedConv",
    "ReceptiveField",
    "ShapeError",
    "StreamState",
    "StreamingConv",
    "Tuning",
    "__version__",
    "backends",
    "conv",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "count_parameters",
    "depthwise_conv",
    "depthwise_conv1d",
    "depthwise_conv2d",
    "depthwise_conv3d",
    "errors",
    "explain",
    "flush_subnormals",
    "fold",
    "functional",
    "get_backend",
    "get_precision",
    "grad",
    "interop",
    "jit",
    "layers",
    "output_shape",
    "plan_conv",
    "plot",
    "prepare",
    "progress",
    "receptive_field",
    "register_backend",
    "separable_conv",
    "separable_conv1d",
    "separable_conv2d",
    "separable_conv3d",
    "set_backend",
    "tune",
    "unfold",
    "use_backend",
    "use_precision",
]
