"""MobileNet's depthwise-separable layers, both convolutions in one call and as two: the same bits, other times.

`numbaconv.separable_conv2d` has nothing between its two convolutions, as ``tf.nn.separable_conv2d``; where that is
faster it runs both over a piece of the image that stays in the cache. (MobileNet itself has a ReLU in between: its
layers are two calls, as in mobilenet_v1.py.)
"""

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

import numbaconv
from mobilenet_v1 import LAYERS


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


def main() -> int:
    """Print the table; 0 if both ways give the same bits in every layer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=224, help="rows and columns of the image")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, console, same, totals = np.random.default_rng(options.seed), Console(), True, np.zeros(2)
    table = Table(title=f"MobileNet's separable layers, {options.size}x{options.size} image")
    for column in ("channels", "extent", "stride", "one call, ms", "two calls, ms", "two / one"):
        table.add_column(column, justify="right")
    for taken, channels, extent, stride in layers(options.size):
        x = rng.standard_normal((1, taken, extent, extent), np.float32)
        depthwise = rng.standard_normal((taken, 1, 3, 3), np.float32)
        pointwise = rng.standard_normal((channels, taken, 1, 1), np.float32)
        bias = rng.standard_normal(channels, np.float32)

        def one(x=x, depthwise=depthwise, pointwise=pointwise, bias=bias, stride=stride):
            return numbaconv.separable_conv2d(x, depthwise, pointwise, bias, stride, "same", activation="relu")

        def two(x=x, depthwise=depthwise, pointwise=pointwise, bias=bias, stride=stride):
            between = numbaconv.depthwise_conv2d(x, depthwise, None, stride, "same")
            return numbaconv.conv2d(between, pointwise, bias, activation="relu")

        same = same and bool((one() == two()).all())
        times = least([one, two], options.rounds)
        totals += times
        cells = f"{taken} -> {channels}", f"{extent}", f"{stride}", *(f"{taken_ * 1e3:.3f}" for taken_ in times)
        table.add_row(*cells, f"{times[1] / times[0]:.2f}")
    table.add_section()
    table.add_row("all", "", "", *(f"{total * 1e3:.3f}" for total in totals), f"{totals[1] / totals[0]:.2f}")
    console.print(table)
    console.print("the same bits in every layer" if same else "[red]the bits differ")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
