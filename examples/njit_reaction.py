"""Patterns of two reacting substances: a convolution inside the time loop of a Numba function.

Gray and Scott's model: one substance feeds the other, both diffuse, and spots that divide cover the surface. Each of
several thousand steps is a convolution with a discrete Laplacian, circular at the borders, between a few lines of
arithmetic, all in one function that Numba compiles. Saves a picture, prints how fast the steps are, and fails if some
of them differ in a bit from the same steps outside.

    python examples/njit_reaction.py [--output PATH] [--steps N]
"""

import argparse
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from numba import njit
from numpy.typing import NDArray
from rich.console import Console

from numbaconv.jit import conv2d
from numbaconv.progress import compiling_bar

Array = NDArray[np.float32]

#: The 9-point Laplacian, as a depthwise weight for both substances.
LAPLACIAN = np.tile(np.array([[0.05, 0.2, 0.05], [0.2, -1, 0.2], [0.05, 0.2, 0.05]], np.float32), (2, 1, 1, 1))
#: How fast the substances diffuse, how fast the first is fed and the second removed (spots that divide).
DIFFUSION = np.array([1.0, 0.5], np.float32).reshape(1, 2, 1, 1)
FEED, KILL = np.float32(0.0367), np.float32(0.0649)
#: Steps that are compared with those outside of compiled code.
COMPARED = 20


def steps(state: Array, laplacian: Array, diffusion: Array, count: int) -> Array:
    """So many steps of the model; ``state`` is (1, 2, height, width)."""
    for _ in range(count):
        change = diffusion * conv2d(state, laplacian, padding=1, padding_mode="circular", groups=2)
        first, second = state[:, :1], state[:, 1:]
        reaction = first * second * second
        change[:, :1] += FEED * (np.float32(1) - first) - reaction
        change[:, 1:] += reaction - (FEED + KILL) * second
        state = state + change
    return state


def seeded(extent: int) -> Array:
    """The first substance everywhere, some squares of the second."""
    rng = np.random.default_rng(0)
    state = np.zeros((1, 2, extent, extent), np.float32)
    state[:, 0] = 1
    for row, column in rng.integers(0, extent - 12, (12, 2)):
        state[0, :, row : row + 12, column : column + 12] = np.array([0.5, 0.25], np.float32)[:, None, None]
    return state


def main() -> int:
    """Simulate, compare, draw; 0 if the compared steps have the same bits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output" / "njit_reaction.png")
    parser.add_argument("--steps", type=int, default=6000)
    options = parser.parse_args()
    console = Console()

    start = seeded(160)
    compiled = njit(steps)
    few = compiled(start, LAPLACIAN, DIFFUSION, COMPARED)
    same = bool(np.array_equal(few, steps(start, LAPLACIAN, DIFFUSION, COMPARED)))
    console.print(f"the same bits as outside after {COMPARED} steps: {'yes' if same else '[red]no'}")

    begin = time.perf_counter()
    state = compiled(start, LAPLACIAN, DIFFUSION, options.steps)
    passed = time.perf_counter() - begin
    console.print(
        f"{options.steps} steps of {start.shape[2]} x {start.shape[3]}: {1e6 * passed / options.steps:.0f} us each"
    )

    figure, axes = plt.subplots(figsize=(5, 5))
    axes.imshow(state[0, 1], cmap="magma")
    axes.set_axis_off()
    axes.set_title(f"second substance after {options.steps} steps")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output, dpi=120, bbox_inches="tight")
    console.print(f"picture: {options.output}", soft_wrap=True)
    return int(not same)


if __name__ == "__main__":
    with compiling_bar():
        raise SystemExit(main())
