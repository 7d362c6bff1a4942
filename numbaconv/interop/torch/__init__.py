"""Convolutions of PyTorch's tensors: differentiable operators, and modules that use them."""

from ...extras import require

require("torch", "torch", "numbaconv.interop.torch")

from .functions import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d  # noqa: E402

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]
