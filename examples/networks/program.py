"""What each example does as a program: count, run, compare with PyTorch where it is installed."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
from rich.console import Console

from engines import Numbaconv, Torch
from network import Network, Published, show
from numbaconv.progress import compiling_bar

#: How far results may be apart, of the largest: two libraries add in different orders.
TOLERANCE = 1e-4


def compare(network: Network, seed: int = 0) -> tuple[np.ndarray, float | None]:
    """The output for one input, and how far PyTorch's is from it, of the largest value; None without PyTorch."""
    rng, weights = np.random.default_rng(seed), network.weights(seed)
    x = rng.standard_normal((1, *network.steps[0].shape), np.float32)
    y = network.run(Numbaconv(), weights, x)
    try:
        torch = Torch()
    except ImportError:
        return y, None
    other = network.run(torch, weights, x)
    return y, float(abs(y - other).max() / abs(other).max())


def main(build: Callable[[], Network], published: Sequence[Published]) -> None:
    """Run an example's network; the process ends with 1 if a published number or PyTorch disagrees."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the input")
    arguments = parser.parse_args()
    console = Console()
    network = build()
    good = show(network, published, console)
    start = time.perf_counter()
    with compiling_bar(console):
        y, apart = compare(network, arguments.seed)
    taken = time.perf_counter() - start
    console.print(f"ran on one input in {taken:.1f} s with weights from seed {arguments.seed}: output {y.shape}")
    if apart is None:
        console.print("PyTorch is not installed: not compared")
    else:
        good = good and apart <= TOLERANCE
        console.print(f"PyTorch's output is {apart:.1e} of the largest value away")
    sys.exit(0 if good else 1)
