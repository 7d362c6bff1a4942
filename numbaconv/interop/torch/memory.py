"""Tensors as arrays and back: the same memory, on the CPU and on CUDA devices."""

from typing import Any

import numpy as np
import torch

from ...errors import ArgumentError, DTypeError
from ...extras import dtype_named
from ..spec import Spec

__all__ = ["channel_axis", "channels_to_end", "is_channels_last", "to_array", "to_tensor"]


def to_array(tensor: torch.Tensor) -> Any:
    """What numbaconv's functions take for a tensor: its memory, as a NumPy array or where it is on a device.

    Only a tensor that is to be conjugated or negated when read is copied.

    Raises
    ------
    DTypeError
        For sparse tensors, and dtypes that NumPy does not know.
    ArgumentError
        If it is neither in the host's memory nor on a CUDA device.
    """
    tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        raise DTypeError(f"a tensor's layout is {tensor.layout}, but must be torch.strided")
    if tensor.is_cuda:
        return tensor  # numbaconv reads its address, strides and stream
    if tensor.device.type != "cpu":
        raise ArgumentError(f"a tensor is on device {tensor.device}, but must be on the CPU or a CUDA device")
    tensor = tensor.resolve_conj().resolve_neg()
    if tensor.dtype is torch.bfloat16:  # NumPy's arrays of it are ml_dtypes'
        bits = tensor.view(torch.uint16).numpy()
        return bits.view(dtype_named("numbaconv.interop.torch", "bfloat16"))
    try:
        return tensor.numpy()
    except TypeError as error:
        raise DTypeError(f"a tensor has dtype {tensor.dtype}, which NumPy has not: {error}") from None


def to_tensor(array: Any) -> torch.Tensor:
    """A result as a tensor of the same memory."""
    if isinstance(array, torch.Tensor):
        return array
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def channel_axis(spec: Spec, axes: int) -> int:
    """Where channels are in data of so many axes: behind the batch axis, if there is one."""
    return axes - len(spec.stride) - 1


def channels_to_end(spec: Spec, tensor: torch.Tensor) -> torch.Tensor:
    """A view with channels last."""
    return tensor.movedim(channel_axis(spec, tensor.dim()), -1)


def is_channels_last(spec: Spec, tensor: torch.Tensor) -> bool:
    """Whether memory has channels last, as ``torch.channels_last`` says it of rank 2; here of any rank."""
    return not tensor.is_contiguous() and channels_to_end(spec, tensor).is_contiguous()
