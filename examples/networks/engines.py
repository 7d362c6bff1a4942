"""The steps of a network in numbaconv and NumPy, and the same in PyTorch."""

from typing import Any

import numpy as np

import numbaconv
from network import Array


class Numbaconv:
    """Convolutions by numbaconv, the few things between them by NumPy."""

    def array(self, values: Array) -> Array:
        return values

    def conv(
        self,
        x: Array,
        residual: Array | None = None,
        *,
        weight: Array,
        bias: Array,
        plan: Any,
        activation: Any,
        arguments: Any,
    ) -> Array:
        function = getattr(numbaconv, f"conv{plan.rank}d")
        return function(x, weight, bias, **arguments, activation=activation, residual=residual)

    def conv_transpose(
        self, x: Array, *, weight: Array, bias: Array, plan: Any, activation: Any, arguments: Any
    ) -> Array:
        function = getattr(numbaconv, f"conv_transpose{plan.rank}d")
        return function(x, weight, bias, **arguments, activation=activation)

    def max_pool(self, x: Array, *, kernel: int, stride: int, padding: tuple[int, int]) -> Array:
        return _pooled(x, kernel, stride, padding, np.maximum, -np.inf)

    def avg_pool(self, x: Array, *, kernel: int, stride: int, padding: tuple[int, int]) -> Array:
        total = _pooled(x, kernel, stride, padding, np.add, 0)
        return total / _pooled(np.ones_like(x[:1, :1]), kernel, stride, padding, np.add, 0)

    def concat(self, *parts: Array) -> Array:
        return np.concatenate(parts, axis=1)

    def crop(self, x: Array, *, before: int, extent: int) -> Array:
        cells = slice(before, before + extent)
        return x[:, :, cells, cells]

    def gate(self, x: Array) -> Array:
        filtered, gated = np.split(x, 2, axis=1)
        return np.tanh(filtered) / (1 + np.exp(-gated))

    def resize(self, x: Array, *, extent: int) -> Array:
        rows, columns = (_interpolation(n, extent) for n in x.shape[2:])
        return rows @ x @ columns.T


def _pooled(x: Array, kernel: int, stride: int, padding: tuple[int, int], reduce: Any, nothing: float) -> Array:
    """One tap after the other, over all cells at once."""
    padded = np.pad(x, ((0, 0), (0, 0), padding, padding), constant_values=nothing)
    height, width = ((n - kernel) // stride + 1 for n in padded.shape[2:])
    found = None
    for i in range(kernel):
        for j in range(kernel):
            rows, columns = (slice(at, at + (n - 1) * stride + 1, stride) for at, n in ((i, height), (j, width)))
            tap = padded[:, :, rows, columns]
            found = tap.copy() if found is None else reduce(found, tap, out=found)
    assert found is not None
    return found


def _interpolation(old: int, new: int) -> Array:
    """The matrix of linear interpolation from ``old`` cells to ``new``, first cell on first, last on last."""
    at = np.arange(new) * (old - 1) / max(new - 1, 1)
    below = np.minimum(at.astype(int), max(old - 2, 0))
    matrix = np.zeros((new, old), np.float32)
    matrix[np.arange(new), below] = 1 - (at - below)
    matrix[np.arange(new), np.minimum(below + 1, old - 1)] += at - below
    return matrix


class Torch:
    """The same with ``torch.nn.functional``; ``torch`` must be installed."""

    def __init__(self) -> None:
        import torch

        self.torch, self.f = torch, torch.nn.functional
        self.activations = {
            None: lambda y: y,
            "relu": self.f.relu,
            "relu6": self.f.relu6,
            "tanh": torch.tanh,
        }

    def array(self, values: Array) -> Any:
        return self.torch.from_numpy(values)

    def conv(
        self, x: Any, residual: Any = None, *, weight: Any, bias: Any, plan: Any, activation: Any, arguments: Any
    ) -> Any:
        function = getattr(self.f, f"conv{plan.rank}d")
        stride, dilation = (tuple(getattr(axis, name) for axis in plan.axes) for name in ("stride", "dilation"))
        padded = self.f.pad(x, [cells for axis in plan.axes[::-1] for cells in (axis.pad_before, axis.pad_after)])
        y = function(padded, weight, bias, stride=stride, dilation=dilation, groups=plan.groups)
        return self.activations[activation](y if residual is None else y + residual)

    def conv_transpose(self, x: Any, *, weight: Any, bias: Any, plan: Any, activation: Any, arguments: Any) -> Any:
        function = getattr(self.f, f"conv_transpose{plan.rank}d")
        y = function(x, weight, None, stride=tuple(axis.stride for axis in plan.axes), groups=plan.groups)
        cells = [slice(axis.pad_before, axis.pad_before + axis.input) for axis in plan.axes]
        y = y[(slice(None), slice(None), *cells)] + bias.reshape(-1, *(1,) * plan.rank)
        return self.activations[activation](y)

    def max_pool(self, x: Any, *, kernel: int, stride: int, padding: tuple[int, int]) -> Any:
        return self.f.max_pool2d(self.f.pad(x, padding * 2, value=float("-inf")), kernel, stride)

    def avg_pool(self, x: Any, *, kernel: int, stride: int, padding: tuple[int, int]) -> Any:
        assert padding[0] == padding[1], "PyTorch leaves out padding only where it is even"
        return self.f.avg_pool2d(x, kernel, stride, padding[0], count_include_pad=False)

    def concat(self, *parts: Any) -> Any:
        return self.torch.cat(parts, 1)

    def crop(self, x: Any, *, before: int, extent: int) -> Any:
        return x[:, :, before : before + extent, before : before + extent]

    def gate(self, x: Any) -> Any:
        filtered, gated = x.chunk(2, 1)
        return self.torch.tanh(filtered) * self.torch.sigmoid(gated)

    def resize(self, x: Any, *, extent: int) -> Any:
        return self.f.interpolate(x, size=(extent, extent), mode="bilinear", align_corners=True)
