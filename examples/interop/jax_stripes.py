"""Train a small network in JAX whose convolutions are numbaconv's: one jitted step, gradients by `jax.grad`.

Stripes of four directions in noise. The gradient of the last step is compared with that of the same network built from
`jax.lax.conv_general_dilated`.

    pip install 'numbaconv[jax]'
    python examples/interop/jax_stripes.py [--steps N]
"""

import argparse
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from numbaconv.interop.jax import conv2d
from numbaconv.progress import compiling_bar

#: float32 rounding, relative to the largest gradient.
TOLERANCE = 1e-4
Parameters = dict[str, jax.Array]


def stripes(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of 16 by 16 pixels, and which of four directions their stripes have."""
    direction = rng.integers(4, size=count)
    angle = (direction * np.pi / 4)[:, None, None]
    y, x = np.mgrid[:16, :16]
    clean = np.sin(x * np.cos(angle) + y * np.sin(angle) + 6.3 * rng.random((count, 1, 1)))
    return (clean + 0.5 * rng.standard_normal(clean.shape))[:, None].astype(np.float32), direction


def ours(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    """A layer: one call."""
    return conv2d(x, w, b, stride=2, padding=1, activation="relu")


def theirs(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    """The same layer with JAX's convolution."""
    found = jax.lax.conv_general_dilated(x, w, (2, 2), [(1, 1), (1, 1)])
    return jax.nn.relu(found + b[:, None, None])


def loss(parameters: Parameters, layer: Callable[..., jax.Array], x: jax.Array, direction: jax.Array) -> jax.Array:
    """Cross entropy of the network's answers."""
    x = layer(x, parameters["w1"], parameters["b1"])
    x = layer(x, parameters["w2"], parameters["b2"])
    answers = jax.nn.log_softmax(x.reshape(len(x), -1) @ parameters["w3"])
    return -jnp.take_along_axis(answers, direction[:, None], 1).mean()


def initial(rng: np.random.Generator) -> Parameters:
    """Parameters with the usual variances."""

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape, dtype=np.float32) / np.sqrt(np.prod(shape[1:])))

    return {
        "w1": draw(8, 1, 3, 3),
        "b1": jnp.zeros(8),
        "w2": draw(16, 8, 3, 3),
        "b2": jnp.zeros(16),
        "w3": draw(4, 256).T,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    steps = parser.parse_args().steps
    rng = np.random.default_rng(0)
    parameters = initial(rng)

    @jax.jit
    def step(parameters: Parameters, x: jax.Array, direction: jax.Array) -> tuple[jax.Array, Parameters, Parameters]:
        value, gradients = jax.value_and_grad(loss)(parameters, ours, x, direction)
        return value, jax.tree.map(lambda p, g: p - 0.2 * g, parameters, gradients), gradients

    first = value = jnp.inf
    for at in range(steps):
        x, direction = stripes(64, rng)
        before = parameters
        value, parameters, gradients = step(before, x, direction)
        first = value if at == 0 else first
        if at % 10 == 0 or at == steps - 1:
            print(f"step {at:3}: loss {value:.6f}")
    wanted = jax.grad(loss)(before, theirs, x, direction)
    largest = max(float(abs(each).max()) for each in wanted.values())
    difference = max(float(abs(gradients[name] - wanted[name]).max()) for name in wanted) / largest
    print(f"greatest difference of a gradient from JAX's own: {difference:.1e} of the largest")
    return int(difference > TOLERANCE or not value < first / 2)


if __name__ == "__main__":
    with compiling_bar():
        sys.exit(main())
