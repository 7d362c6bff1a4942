"""Convolutions with their parameters, gradients and files: ``torch.nn``'s spelling here, Keras' in `layers.keras`."""

from . import keras
from .base import Layer
from .conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    SeparableConv1d,
    SeparableConv2d,
    SeparableConv3d,
)
from .files import load_arrays, save_arrays

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Layer",
    "SeparableConv1d",
    "SeparableConv2d",
    "SeparableConv3d",
    "keras",
    "load_arrays",
    "save_arrays",
]
