"""Axes that fold, against the same work as the views that a user would write by hand.

    python perf/folded_axes.py

Each row is a call whose axes have one tap, or few cells, and the one of the lowest rank that does the same: a volume
filtered along one axis as a stack or a plane, an image with its colours last as planes. Milliseconds are the least of
some calls in turns; the ratio should be 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

import numbaconv
from numbaconv import grad

ROUNDS, SECONDS = 7, 0.5


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def line(axis: int, taps: int, rank: int = 3) -> np.ndarray:
    """A kernel along one axis."""
    return random(1, 1, *(taps if at == axis else 1 for at in range(rank)))


def rows() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    found: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {}
    thin, column = random(1, 1, 256, 256, 1), line(0, 25)
    found["256 x 256 x 1, kernel (25, 1, 1)"] = (
        lambda: numbaconv.conv3d(thin, column, padding=(12, 0, 0)),
        lambda: numbaconv.conv2d(thin[..., 0], column[..., 0], padding=(12, 0)),
    )
    found["  gradient by input"] = (
        lambda: grad.conv3d_input(thin.shape, column, thin, padding=(12, 0, 0)),
        lambda: grad.conv2d_input(thin.shape[:-1], column[..., 0], thin[..., 0], padding=(12, 0)),
    )
    found["  gradient by weight"] = (
        lambda: grad.conv3d_weight(thin, column.shape, thin, padding=(12, 0, 0)),
        lambda: grad.conv2d_weight(thin[..., 0], column.shape[:-1], thin[..., 0], padding=(12, 0)),
    )
    volume = random(1, 1, 256, 256, 256)
    views = [
        (volume.reshape(1, 1, 256, 65536), (25, 1)),
        (volume.reshape(256, 1, 256, 256), (25, 1)),
        (volume.reshape(1, 1, 65536, 256), (1, 25)),
    ]
    for axis, (view, shape) in enumerate(views):
        kernel = line(axis, 25)
        flat = kernel.reshape(1, 1, *shape)
        for mode in ("zeros", "reflect"):
            found[f"256^3, 25 taps along axis {axis}, {mode}"] = (
                lambda kernel=kernel, mode=mode: numbaconv.conv3d(volume, kernel, padding="same", padding_mode=mode),  # type: ignore[misc]
                lambda view=view, flat=flat, mode=mode: numbaconv.conv2d(view, flat, padding="same", padding_mode=mode),  # type: ignore[misc]
            )
    for colours in (1, 3, 8, 15):
        image, kernel = random(1, 1, 512, 512, colours), random(1, 1, 9, 9, 1)
        planes = np.ascontiguousarray(image[0].transpose(3, 0, 1, 2))
        found[f"512 x 512 x {colours}, kernel (9, 9, 1)"] = (
            lambda image=image, kernel=kernel: numbaconv.conv3d(image, kernel, padding=(4, 4, 0)),  # type: ignore[misc]
            lambda planes=planes, kernel=kernel: numbaconv.conv2d(planes, kernel[..., 0], padding=4),  # type: ignore[misc]
        )
    rgb = random(1, 1, 256, 256, 3)
    first = rgb.transpose(0, 1, 4, 2, 3)
    for taps, steps, pads in (((9, 9, 1), (2, 2, 1), (4, 4, 0)), ((3, 3, 3), (2, 2, 2), (1, 1, 1))):
        kernel = random(1, 1, *taps)
        turned, of_view = kernel.transpose(0, 1, 4, 2, 3), {"stride": steps[::-1], "padding": pads[::-1]}
        found[f"256 x 256 x 3, kernel {taps}, stride {steps}"] = (
            lambda kernel=kernel, steps=steps, pads=pads: numbaconv.conv3d(rgb, kernel, stride=steps, padding=pads),  # type: ignore[misc]
            lambda turned=turned, of_view=of_view: numbaconv.conv3d(first, turned, **of_view),  # type: ignore[misc]
        )
    slices, nine = random(1, 1, 32, 1024, 1024), line(0, 9)
    found["32 x 1024 x 1024, 9 taps along axis 0"] = (
        lambda: numbaconv.conv3d(slices, nine, padding=(4, 0, 0)),
        lambda: numbaconv.conv2d(slices.reshape(1, 1, 32, -1), nine[..., 0], padding=(4, 0)),
    )
    scaled, scale = random(1, 32, 256, 256, 1), random(32, 1, 1, 1, 1)
    found["32 channels, 256 x 256 x 1, depthwise 1 x 1"] = (
        lambda: numbaconv.conv3d(scaled, scale, groups=32),
        lambda: numbaconv.conv2d(scaled[..., 0], scale[..., 0], groups=32),
    )
    layer, weight = random(1, 64, 64, 64, 1), random(64, 64, 3, 3, 1)
    found["64 -> 64 channels, 64 x 64 x 1, kernel (3, 3, 1)"] = (
        lambda: numbaconv.conv3d(layer, weight, padding=(1, 1, 0)),
        lambda: numbaconv.conv2d(layer[..., 0], weight[..., 0], padding=1),
    )
    return found


def least(calls: tuple[Callable[[], object], ...]) -> list[float]:
    """The least milliseconds of each, in turns."""
    for call in calls:
        call()
    best, spent = [float("inf")] * len(calls), 0.0
    for turn in range(1000):
        if turn >= ROUNDS and spent > SECONDS:
            break
        for at, call in enumerate(calls):
            start = time.perf_counter()
            call()
            taken = time.perf_counter() - start
            best[at], spent = min(best[at], taken), spent + taken
    return [each * 1e3 for each in best]


def main() -> None:
    print(f"{'':52}{'as it is':>10}{'as views':>10}{'ratio':>8}")
    for name, calls in rows().items():
        here, there = least(calls)
        print(f"{name:52}{here:8.3f}ms{there:8.3f}ms{here / there:8.2f}", flush=True)


if __name__ == "__main__":
    main()
