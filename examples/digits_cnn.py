"""Train a convolutional network on scikit-learn's handwritten digits with NumPy and numbaconv alone.

Every layer is a convolution of numbaconv's, and so is its gradient; the softmax cross-entropy, Adam, and the
augmentation are a few lines of NumPy. The network, for 8x8 images:

    3x3, 16 channels, ReLU -> 3x3 stride 2, 64, ReLU -> depthwise-separable 3x3, 64, ReLU -> 4x4, 10 logits

Prints the accuracy on a held-out third of the images, saves a picture of the first layer's filters and of the
feature maps, and fails if the accuracy is under 98 %.

    python examples/digits_cnn.py [--epochs N] [--seed N] [--output PATH]
"""

import argparse
import math
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import numbaconv
from numbaconv import grad
from numbaconv.progress import compiling_bar

Array = NDArray[np.float32]
Tensors = dict[str, Array]

REQUIRED_ACCURACY = 0.98
BATCH_SIZE = 32
LEARNING_RATE = 5e-3
SHAPES = {
    "conv": (16, 1, 3, 3),
    "strided": (64, 16, 3, 3),
    "depthwise": (64, 1, 3, 3),
    "pointwise": (64, 64, 1, 1),
    "head": (10, 64, 4, 4),
}


def initial_parameters(rng: np.random.Generator) -> Tensors:
    """He-normal weights; zero biases, of which the depthwise convolution has none."""
    weights = {
        name: rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / math.prod(shape[1:])))
        for name, shape in SHAPES.items()
    }
    biases = {f"{name}.bias": np.zeros(shape[0], np.float32) for name, shape in SHAPES.items() if name != "depthwise"}
    return weights | biases


def forward(p: Tensors, x: Array) -> Tensors:
    """Every layer's output by its name."""
    y = {"input": x}
    y["conv"] = numbaconv.conv2d(x, p["conv"], p["conv.bias"], padding=1, activation="relu")
    y["strided"] = numbaconv.conv2d(y["conv"], p["strided"], p["strided.bias"], stride=2, padding=1, activation="relu")
    y["separable"] = numbaconv.separable_conv2d(
        y["strided"], p["depthwise"], p["pointwise"], p["pointwise.bias"], padding=1, activation="relu"
    )
    y["logits"] = numbaconv.conv2d(y["separable"], p["head"], p["head.bias"])[:, :, 0, 0]
    return y


def cross_entropy(logits: Array, labels: NDArray[np.intp]) -> tuple[float, Array]:
    """The mean softmax cross-entropy of (N, 10) logits, and its gradient by them."""
    images = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    gradient = np.exp(log_probability)
    gradient[images, labels] -= 1
    return -float(log_probability[images, labels].mean()), gradient / len(labels)


def backward(p: Tensors, y: Tensors, grad_logits: Array) -> Tensors:
    """The gradient by every parameter."""
    g: Tensors = {}
    by_separable, g["head"], g["head.bias"] = grad.conv2d_backward(
        grad_logits[:, :, None, None], y["separable"], p["head"]
    )

    # The separable convolution: first the pointwise one, whose input is computed again, then the depthwise one.
    channels = y["strided"].shape[1]
    intermediate = numbaconv.depthwise_conv2d(y["strided"], p["depthwise"], padding=1)
    by_intermediate, g["pointwise"], g["pointwise.bias"] = grad.conv2d_backward(
        by_separable, intermediate, p["pointwise"], activation="relu", output=y["separable"]
    )
    by_strided, g["depthwise"], _ = grad.conv2d_backward(
        by_intermediate, y["strided"], p["depthwise"], padding=1, groups=channels, output_mask=(True, True, False)
    )

    by_conv, g["strided"], g["strided.bias"] = grad.conv2d_backward(
        by_strided, y["conv"], p["strided"], stride=2, padding=1, activation="relu", output=y["strided"]
    )
    _, g["conv"], g["conv.bias"] = grad.conv2d_backward(
        by_conv, y["input"], p["conv"], padding=1, activation="relu", output=y["conv"], output_mask=(False, True, True)
    )
    return g


class Adam:
    """Kingma & Ba 2015."""

    def __init__(self, parameters: Tensors, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> None:
        self.parameters, self.beta1, self.beta2, self.epsilon, self.steps = parameters, beta1, beta2, epsilon, 0
        self.mean = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.square = {name: np.zeros_like(value) for name, value in parameters.items()}

    def step(self, gradients: Tensors, learning_rate: float) -> None:
        """Update the parameters in place."""
        self.steps += 1
        rate = learning_rate * math.sqrt(1 - self.beta2**self.steps) / (1 - self.beta1**self.steps)
        for name, gradient in gradients.items():
            self.mean[name] += (1 - self.beta1) * (gradient - self.mean[name])
            self.square[name] += (1 - self.beta2) * (gradient**2 - self.square[name])
            self.parameters[name] -= rate * self.mean[name] / (np.sqrt(self.square[name]) + self.epsilon)


def shift_randomly(images: Array, rng: np.random.Generator) -> Array:
    """Each image moved by -1, 0 or 1 pixels along both axes, zeros moving in."""
    n, _, h, w = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows = rng.choice([0, 1, 1, 2], (n, 1, 1)) + np.arange(h)[:, None]
    columns = rng.choice([0, 1, 1, 2], (n, 1, 1)) + np.arange(w)
    return padded[np.arange(n)[:, None, None], 0, rows, columns][:, None]


def compile_kernels(parameters: Tensors, images: Array, labels: NDArray[np.intp], console: Console) -> None:
    """Calls like those of the training, whose results nobody needs: the first of each kind compiles its kernels."""
    with compiling_bar(console):
        for size in {BATCH_SIZE, len(images) % BATCH_SIZE or BATCH_SIZE}:
            outputs = forward(parameters, images[:size])
            backward(parameters, outputs, cross_entropy(outputs["logits"], labels[:size])[1])
        forward(parameters, images)


def train(images: Array, labels: NDArray[np.intp], epochs: int, seed: int, console: Console) -> Tensors:
    """Parameters after ``epochs`` passes over the images, the learning rate falling to zero along a cosine."""
    rng = np.random.default_rng(seed)
    parameters = initial_parameters(rng)
    optimizer = Adam(parameters)
    compile_kernels(parameters, images, labels, console)
    columns = (
        TextColumn("epoch"),
        MofNCompleteColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("loss {task.fields[loss]:.4f}  accuracy {task.fields[accuracy]:.2%}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("train", total=epochs, loss=math.nan, accuracy=math.nan)
        for epoch in range(epochs):
            loss_sum, correct = 0.0, 0
            order = rng.permutation(len(images))
            for first in range(0, len(images), BATCH_SIZE):
                batch = order[first : first + BATCH_SIZE]
                outputs = forward(parameters, shift_randomly(images[batch], rng))
                loss, grad_logits = cross_entropy(outputs["logits"], labels[batch])
                gradients = backward(parameters, outputs, grad_logits)
                done = (epoch + first / len(images)) / epochs
                optimizer.step(gradients, LEARNING_RATE * (1 + math.cos(math.pi * done)) / 2)
                loss_sum += loss * len(batch)
                correct += int((outputs["logits"].argmax(axis=1) == labels[batch]).sum())
            progress.update(task, advance=1, loss=loss_sum / len(images), accuracy=correct / len(images))
    return parameters


def mosaic(maps: Array) -> Array:
    """C maps of (C, H, W) in a square of rows and columns, with an empty line between them."""
    c, h, w = maps.shape
    side = math.isqrt(c)
    framed = np.pad(maps, ((0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    return framed.reshape(side, side, h + 1, w + 1).swapaxes(1, 2).reshape(side * (h + 1), side * (w + 1))[:-1, :-1]


def draw(parameters: Tensors, images: Array, labels: NDArray[np.intp], path: Path) -> None:
    """The first layer's filters, and below each digit every layer's feature maps."""
    outputs = forward(parameters, images)
    predicted = outputs["logits"].argmax(axis=1)
    layers = {"conv": "3x3 convolution", "strided": "3x3, stride 2", "separable": "depthwise-separable 3x3"}
    figure, axes = plt.subplots(
        1 + len(layers),
        1 + len(images),
        figsize=(14, 9.6),
        layout="constrained",
        height_ratios=[0.8, 1, 1, 1],
        gridspec_kw={"wspace": 0.06},
    )
    for axis in axes.flat:
        axis.axis("off")
    for image, axis in enumerate(axes[0, 1:]):
        axis.imshow(images[image, 0], cmap="gray_r")
        axis.set_title(f"{labels[image]}, predicted {predicted[image]}")
    for row, (layer, title) in enumerate(layers.items(), start=1):
        maps = outputs[layer]
        for image, axis in enumerate(axes[row, 1:]):
            axis.imshow(mosaic(maps[image]), cmap="magma", vmin=0, vmax=np.quantile(maps, 0.99))
        text = f"{title}, ReLU:\n{maps.shape[1]} maps of {maps.shape[2]}x{maps.shape[3]}"
        axes[row, 0].text(0.5, 0.5, text, ha="center", va="center", transform=axes[row, 0].transAxes)
    filters = parameters["conv"][:, 0]
    limit = np.abs(filters).max()
    axes[0, 0].imshow(mosaic(filters), cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes[0, 0].set_title("first-layer filters (red > 0)")
    figure.suptitle("Handwritten digits: the first layer's filters and every layer's feature maps", fontsize=15)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> int:
    """Train, evaluate, draw; 0 if the held-out accuracy is high enough."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights, batches and shifts")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output" / "digits_cnn.png")
    options = parser.parse_args()

    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)
    # The split is the same for every seed.
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, digits.target, test_size=1 / 3, stratify=digits.target, random_state=0
    )
    console = Console()
    parameters = train(train_images, train_labels, options.epochs, options.seed, console)

    logits = forward(parameters, test_images)["logits"]
    accuracy = float((logits.argmax(axis=1) == test_labels).mean())
    console.print(f"held-out accuracy: {accuracy:.2%} of {len(test_labels)} images")

    shown = [int(np.flatnonzero(test_labels == digit)[0]) for digit in (0, 3, 4, 7, 8)]
    draw(parameters, test_images[shown], test_labels[shown], options.output)
    console.print(f"picture: {options.output}", soft_wrap=True)
    if accuracy < REQUIRED_ACCURACY:
        console.print(f"[red]under the required {REQUIRED_ACCURACY:.0%}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
