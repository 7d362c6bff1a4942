"""What convolutions and their gradients are, in loops over groups and taps that share no code with the package.

Shapes are counted, not computed by formula; padding is ``numpy.pad``, axis after axis. Arrays are
``(N, C, *spatial)`` and weights ``(O, C / groups, *kernel)``. Sums are taken in a wider type.
"""

from itertools import product
from math import prod

import numpy as np

_PAD_MODES = {
    "zeros": "constant",
    "constant": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
    "symmetric": "symmetric",
}


def wide(array):
    """The same values in a type whose rounding does not matter (for integers: int64)."""
    kind = np.asarray(array).dtype.kind
    return np.asarray(array).astype({"c": np.clongdouble, "i": np.int64, "u": np.int64}.get(kind, np.longdouble))


def _padded(x, pads, modes, value):
    for at, ((before, after), mode) in enumerate(zip(pads, modes, strict=True)):
        width = [(0, 0)] * x.ndim
        width[2 + at] = (before, after)
        extra = {"constant_values": value if mode == "constant" else 0} if _PAD_MODES[mode] == "constant" else {}
        x = np.pad(x, width, mode=_PAD_MODES[mode], **extra)
    return x


def _cells(extent, kernel, stride, dilation):
    """First positions at which the dilated kernel fits, one for each output cell."""
    return [start for start in range(0, extent, stride) if start + dilation * (kernel - 1) < extent]


def _windows(padded_extents, kernel, stride, dilation):
    """For each tap, the index of the padded cells that it reads; and the output extents."""
    starts = [_cells(*each) for each in zip(padded_extents, kernel, stride, dilation, strict=True)]
    outputs = tuple(len(each) for each in starts)
    windows = []
    for tap in product(*(range(extent) for extent in kernel)):
        index = tuple(
            slice(first[0] + k * d, first[-1] + k * d + 1, s) if first else slice(0, 0)
            for first, k, d, s in zip(starts, tap, dilation, stride, strict=True)
        )
        windows.append((tap, (slice(None), slice(None), *index)))
    return windows, outputs


def _groups(x_channels, w, groups):
    per_in, per_out = w.shape[1], w.shape[0] // groups
    assert per_in * groups == x_channels
    for g in range(groups):
        yield slice(g * per_in, (g + 1) * per_in), slice(g * per_out, (g + 1) * per_out)


def forward(x, w, *, stride, dilation, groups, pads, modes, value=0):
    """The convolution, with its output extents counted."""
    x, w = wide(x), wide(w)
    padded = _padded(x, pads, modes, value)
    windows, outputs = _windows(padded.shape[2:], w.shape[2:], stride, dilation)
    y = np.zeros((x.shape[0], w.shape[0], *outputs), np.result_type(x, w))
    if not (x.size and w.size):  # NumPy's einsum can corrupt memory on empty clongdouble arrays
        return y
    for inside, outside in _groups(x.shape[1], w, groups):
        for tap, window in windows:
            y[:, outside] += np.einsum("nc...,oc->no...", padded[window][:, inside], w[(outside, slice(None), *tap)])
    return y


def input_grad(g, w, x_shape, *, stride, dilation, groups, pads, modes, value=0):
    """The adjoint by the input: every product goes back to the cells that padding read it from."""
    g, w = wide(g), wide(w)
    extents = [n + before + after for n, (before, after) in zip(x_shape[2:], pads, strict=True)]
    windows, _ = _windows(extents, w.shape[2:], stride, dilation)
    total = np.zeros((*x_shape[:2], *extents), np.result_type(g, w))
    if not (g.size and w.size):
        return np.zeros(x_shape, total.dtype)
    for inside, outside in _groups(x_shape[1], w, groups):
        for tap, window in windows:
            part = total[window]
            part[:, inside] += np.einsum("no...,oc->nc...", g[:, outside], w[(outside, slice(None), *tap)])
    for at, (n, pad, mode) in enumerate(zip(x_shape[2:], pads, modes, strict=True)):
        extra = {"constant_values": -1} if _PAD_MODES[mode] == "constant" else {}
        sources = np.pad(np.arange(n), pad, mode=_PAD_MODES[mode], **extra)
        folded = np.zeros((*total.shape[: 2 + at], n, *total.shape[3 + at :]), total.dtype)
        for position, source in enumerate(sources):
            if source >= 0:
                where = (slice(None),) * (2 + at)
                folded[(*where, source)] += total[(*where, position)]
        total = folded
    return total


def weight_grad(x, g, w_shape, *, stride, dilation, groups, pads, modes, value=0):
    """The adjoint by the weight: each tap meets the input cells that it read."""
    x, g = wide(x), wide(g)
    padded = _padded(x, pads, modes, value)
    windows, _ = _windows(padded.shape[2:], w_shape[2:], stride, dilation)
    w = np.zeros(w_shape, np.result_type(x, g))
    if not (x.size and g.size):
        return w
    for inside, outside in _groups(x.shape[1], w, groups):
        for tap, window in windows:
            read, against = (
                each.reshape(*each.shape[:2], prod(each.shape[2:]))
                for each in (padded[window][:, inside], g[:, outside])
            )
            w[(outside, slice(None), *tap)] += np.einsum("ncp,nop->oc", read, against)
    return w


def conv_transpose(x, w, *, stride, dilation, groups, pads, output_padding):
    """Every input cell stamps the kernel onto the full result, of which the padding is cut off."""
    x, w = wide(x), wide(w)
    kernel = w.shape[2:]
    extents = [
        (n - 1) * s + d * (k - 1) + 1 + extra
        for n, s, d, k, extra in zip(x.shape[2:], stride, dilation, kernel, output_padding, strict=True)
    ]
    per_in, per_out = w.shape[0] // groups, w.shape[1]
    full = np.zeros((x.shape[0], per_out * groups, *extents), np.result_type(x, w))
    for g in range(groups):
        inside, outside = slice(g * per_in, (g + 1) * per_in), slice(g * per_out, (g + 1) * per_out)
        for tap in product(*(range(extent) for extent in kernel)):
            index = tuple(
                slice(k * d, k * d + (n - 1) * s + 1, s)
                for k, d, n, s in zip(tap, dilation, x.shape[2:], stride, strict=True)
            )
            stamp = np.einsum("nc...,co->no...", x[:, inside], w[(inside, slice(None), *tap)])
            full[(slice(None), outside, *index)] += stamp
    crop = tuple(slice(before, extent - after) for (before, after), extent in zip(pads, extents, strict=True))
    return full[(slice(None), slice(None), *crop)]
