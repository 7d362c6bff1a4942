"""MobileNet's depthwise-separable layers, both convolutions in one call and in two: the same bits, other times.

`numbaconv.separable_conv2d` has nothing between its two convolutions, as ``tf.nn.separable_conv2d``; where that is
faster (channels last, or few of them) it runs both over a piece of the image that stays in the cache. (MobileNet itself
has a ReLU in between: its layers are two calls, as in mobilenet_v1.py.)
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

import numbaconv
from mobilenet_v1 import LAYERS
from numbaconv.progress import compiling_bar


def layers(size: int) -> list[tuple[int, int, int, int]]:
    """Channels in, channels out, extent and stride of each layer."""
    found, taken, extent = [], 32, -(-size // 2)
    for channels, stride in LAYERS:
        found.append((taken, channels, extent, stride))
        taken, extent = channels, -(-extent // stride)
    return found


def least(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """The least time of each, taking turns."""
    best = [float("inf")] * len(calls)
    for turn in range(rounds + 1):
        for at, call in enumerate(calls):
            start = time.perf_counter()
            call()
            if turn:  # the first round compiles
                best[at] = min(best[at], time.perf_counter() - start)
    return best


def ways(layer: tuple[int, int, int, int], last: bool, rng: np.random.Generator) -> list[Callable[[], np.ndarray]]:
    """The layer in one call and in two, channels first or last."""
    taken, channels, extent, stride = layer
    x = rng.standard_normal((1, extent, extent, taken) if last else (1, taken, extent, extent), np.float32)
    depthwise = rng.standard_normal((3, 3, 1, taken) if last else (taken, 1, 3, 3), np.float32)
    pointwise = rng.standard_normal((1, 1, taken, channels) if last else (channels, taken, 1, 1), np.float32)
    bias, layout = rng.standard_normal(channels, np.float32), {"data_format": "NHWC" if last else "NCHW"}

    def one() -> np.ndarray:
        return numbaconv.separable_conv2d(x, depthwise, pointwise, bias, stride, "same", activation="relu", **layout)

    def two() -> np.ndarray:
        between = numbaconv.depthwise_conv2d(x, depthwise, None, stride, "same", **layout)
        return numbaconv.conv2d(between, pointwise, bias, activation="relu", **layout)

    return [one, two]


def main() -> int:
    """Print the table; 0 if both ways give the same bits in every layer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=224, help="rows and columns of the image")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, console, same = np.random.default_rng(options.seed), Console(), True
    table = Table(title=f"MobileNet's separable layers, {options.size}x{options.size} image; milliseconds")
    for column in ("channels", "extent", "stride"):
        table.add_column(column, justify="right", no_wrap=True)
    for layout in ("first", "last"):
        for column in ("one call", "two calls", "two / one"):
            table.add_column(f"{layout}:\n{column}", justify="right", no_wrap=True)
    totals = np.zeros(4)
    for layer in layers(options.size):
        times = []
        for last in (False, True):
            one, two = ways(layer, last, rng)
            same = same and bool((one() == two()).all())
            times += least([one, two], options.rounds)
        totals += times
        taken, channels, extent, stride = layer
        table.add_row(f"{taken} -> {channels}", f"{extent}", f"{stride}", *_cells(times))
    table.add_section()
    table.add_row("all", "", "", *_cells(totals))
    console.print(table)
    console.print("the same bits in every layer" if same else "[red]the bits differ")
    return 0 if same else 1


def _cells(times: Sequence[float]) -> list[str]:
    """Both ways in each layout, and their ratio."""
    cells = []
    for one, two in (times[:2], times[2:]):
        cells += [f"{one * 1e3:.2f}", f"{two * 1e3:.2f}", f"{two / one:.2f}"]
    return cells


if __name__ == "__main__":
    with compiling_bar():
        sys.exit(main())
