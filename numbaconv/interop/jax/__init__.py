"""Convolutions of JAX's arrays: under `jax.jit`, `jax.vmap`, and `jax.grad` any number of times."""

from ...extras import require

require("jax", "jax", "numbaconv.interop.jax")

from .functions import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d  # noqa: E402

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]
