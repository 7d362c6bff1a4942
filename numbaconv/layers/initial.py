"""Initial parameters, drawn from a seed or a generator."""

from math import prod, sqrt
from typing import Any, TypeAlias

import numpy as np

from ..arrays import Array
from ..error_state import undisturbed
from ..errors import DTypeError
from ..memory import check_fits
from ..plan import dtype_name

__all__ = ["Seed", "fan_in_uniform", "glorot_uniform", "parameter_dtype"]

Seed: TypeAlias = int | np.random.Generator | None

_FLOATING = ("float16", "bfloat16", "float32", "float64")


def parameter_dtype(op: str, dtype: Any) -> np.dtype:
    """The dtype of a layer's parameters: a real floating one."""
    try:
        found: np.dtype = np.dtype(dtype)
    except TypeError:
        raise DTypeError(f"{op}: dtype is {dtype!r}, which NumPy does not know") from None
    if dtype_name(found) not in _FLOATING:
        raise DTypeError(f"{op}: dtype is {dtype_name(found)}, but parameters are one of {', '.join(_FLOATING)}")
    return found


@undisturbed
def _uniform(seed: Seed, shape: tuple[int, ...], bound: float, dtype: np.dtype) -> Array:
    """Values in [-bound, bound), drawn in single precision unless the dtype is wider."""
    drawn = np.dtype(np.float64 if dtype == np.float64 else np.float32)
    check_fits("initial values", "a parameter", shape, drawn.itemsize)
    values: Array = np.random.default_rng(seed).random(shape, drawn)  # type: ignore[arg-type]
    values *= drawn.type(2 * bound)
    values -= drawn.type(bound)
    return values.astype(dtype, copy=False)


def fan_in_uniform(seed: Seed, shape: tuple[int, ...], fan_in: int, dtype: np.dtype) -> Array:
    """PyTorch's initial weights and biases: uniform in +-1 / sqrt(fan_in).

    That is He, Zhang, Ren and Sun 2015, "Delving Deep into Rectifiers", for a leaky slope of sqrt(5): a gain of
    sqrt(2 / (1 + 5)), whose uniform distribution reaches to sqrt(3) times its deviation.
    """
    return _uniform(seed, shape, 1 / sqrt(fan_in), dtype)


def glorot_uniform(seed: Seed, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """Keras' initial kernels, of shape (*kernel, I, O): uniform in +-sqrt(6 / (fan_in + fan_out)).

    Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks", equation 16.
    """
    taps = prod(shape[:-2])
    return _uniform(seed, shape, sqrt(6 / (taps * (shape[-2] + shape[-1]))), dtype)
