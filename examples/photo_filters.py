"""Filter a photograph with numbaconv, and compare every result with scipy.ndimage.

Blur, motion blur, edges, emboss, an a trous wavelet detail (a dilated filter), a strided reduction, and bilinear
enlargement (a transposed convolution), each with another treatment of the image's border. The photograph is
scikit-image's astronaut (NASA, public domain). Saves one picture, prints the greatest differences from scipy.ndimage,
and fails if one is more than float32 rounding.

    python examples/photo_filters.py [--output PATH]
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from skimage import color, data

import numbaconv
from numbaconv.progress import compiling_bar

Array = NDArray[np.floating]

#: Pixels are in [0, 1]; a float32 sum of the 625 products of the largest kernel loses some 1e-6.
TOLERANCE = 1e-5


class Filtered(NamedTuple):
    """A filter's result and what it is compared with."""

    title: str
    border: str
    result: Array
    expected: Array
    scipy_call: str
    shown: Array


def per_channel(kernel: Array) -> Array:
    """The same kernel for red, green and blue, as a depthwise weight (height, width, 1, 3)."""
    return np.repeat(kernel[:, :, None, None], 3, axis=3).astype(np.float32)


def with_zeros_inserted(kernel: Array, dilation: int) -> Array:
    """The dense kernel that equals a dilated one."""
    dense = np.zeros([dilation * (extent - 1) + 1 for extent in kernel.shape])
    dense[::dilation, ::dilation] = kernel
    return dense


def gaussian_blur(photo: Array, sigma: float = 4.0) -> Filtered:
    """A Gaussian cut off at three standard deviations, on each colour."""
    radius = round(3 * sigma)
    profile = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = np.outer(profile, profile) / profile.sum() ** 2
    result = numbaconv.depthwise_conv2d(
        photo, per_channel(kernel), padding="same", padding_mode="symmetric", data_format="NHWC"
    )
    expected = ndimage.gaussian_filter(photo, sigma, mode="reflect", radius=radius, axes=(0, 1), output=np.float64)
    return Filtered("Gaussian blur", "symmetric", result, expected, "gaussian_filter, reflect", result)


def motion_blur(photo: Array, length: int = 25) -> Filtered:
    """The mean along a diagonal, on each colour; what lies outside the photograph is white."""
    kernel = np.eye(length) / length
    result = numbaconv.depthwise_conv2d(
        photo, per_channel(kernel), padding="same", padding_mode="constant", padding_value=1, data_format="NHWC"
    )
    expected = ndimage.correlate(photo, kernel[:, :, None], mode="constant", cval=1, output=np.float64)
    return Filtered("Motion blur", "constant 1", result, expected, "correlate, constant", result)


def sobel_edges(gray: Array) -> Filtered:
    """The gradient's magnitude; one convolution with two output channels gives both derivatives."""
    across = np.outer([1, 2, 1], [-1, 0, 1])
    weight = np.stack([across, across.T])[:, None].astype(np.float32)
    result = np.hypot(*numbaconv.conv2d(gray[None], weight, padding=1, padding_mode="reflect"))
    derivatives = [ndimage.sobel(gray, axis, mode="mirror", output=np.float64) for axis in (1, 0)]
    return Filtered("Sobel edges", "reflect", result, np.hypot(*derivatives), "sobel, mirror", result)


def emboss(photo: Array) -> Filtered:
    """Light from the upper left, on each colour."""
    kernel = np.array([[-2.0, -1, 0], [-1, 1, 1], [0, 1, 2]])
    result = numbaconv.depthwise_conv2d(
        photo, per_channel(kernel), padding=1, padding_mode="replicate", data_format="NHWC"
    )
    expected = ndimage.correlate(photo, kernel[:, :, None], mode="nearest", output=np.float64)
    return Filtered("Emboss", "replicate", result, expected, "correlate, nearest", result.clip(0, 1))


def wavelet_detail(gray: Array, dilation: int = 4) -> Filtered:
    """The image less its B3-spline smoothing "with holes": a plane of the starlet transform."""
    spline = np.array([1, 4, 6, 4, 1]) / 16
    kernel = -np.outer(spline, spline)
    kernel[2, 2] += 1
    result = numbaconv.conv2d(
        gray[None], kernel[None, None].astype(np.float32), padding="same", dilation=dilation, padding_mode="circular"
    )[0]
    expected = ndimage.correlate(gray, with_zeros_inserted(kernel, dilation), mode="wrap", output=np.float64)
    shown = (0.5 + 2 * result).clip(0, 1)
    return Filtered("À trous detail", "circular", result, expected, "correlate, wrap", shown)


def reduce(photo: Array, factor: int = 8) -> Filtered:
    """The mean of every block of pixels: a strided convolution."""
    kernel = np.full((factor, factor), 1 / factor**2)
    result = numbaconv.depthwise_conv2d(photo, per_channel(kernel), stride=factor, data_format="NHWC")
    means = ndimage.uniform_filter(photo, factor, axes=(0, 1), output=np.float64)
    expected = means[factor // 2 :: factor, factor // 2 :: factor]
    return Filtered(f"Reduced, stride {factor}", "none", result, expected, "uniform_filter", result)


def enlarge(small: Array, factor: int = 8) -> Filtered:
    """Bilinear interpolation: each pixel spreads as a triangle two factors wide. Black lies outside."""
    triangle = 1 - np.abs(np.arange(2 * factor) + 0.5 - factor) / factor
    weight = per_channel(np.outer(triangle, triangle))
    result = numbaconv.conv_transpose2d(small, weight, stride=factor, padding=factor // 2, groups=3, data_format="NHWC")
    expected = ndimage.zoom(
        small, (factor, factor, 1), order=1, mode="grid-constant", grid_mode=True, output=np.float64
    )
    return Filtered(f"Enlarged, stride {factor}", "zeros", result, expected, "zoom, grid-constant", result)


def draw(photo: Array, results: list[Filtered], path: Path) -> None:
    """The photograph and all results in one picture."""
    figure, axes = plt.subplots(2, 4, figsize=(15, 8.2), layout="constrained")
    axes[0, 0].imshow(photo)
    axes[0, 0].set_title(f"Photograph {photo.shape[1]}x{photo.shape[0]}")
    for axis, each in zip(axes.flat[1:], results, strict=True):
        axis.imshow(each.shown, cmap="gray")
        axis.set_title(f"{each.title}\npadding: {each.border}")
    for axis in axes.flat:
        axis.axis("off")
    figure.suptitle("Filters of a photograph as convolutions", fontsize=15)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> int:
    """Filter, compare, draw; 0 if every difference is within the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output" / "photo_filters.png")
    options = parser.parse_args()

    photo = (data.astronaut() / 255).astype(np.float32)
    gray = color.rgb2gray(photo)
    face = photo[:256, 96:352]
    reduced = reduce(face)
    results = [
        gaussian_blur(photo),
        motion_blur(photo),
        sobel_edges(gray),
        emboss(photo),
        wavelet_detail(gray),
        reduced,
        enlarge(reduced.result),
    ]

    table = Table(title=f"Greatest difference from scipy.ndimage (at most {TOLERANCE:g})")
    for heading in ("filter", "padding", "scipy.ndimage, mode", "difference"):
        table.add_column(heading)
    failed = False
    for each in results:
        assert each.result.dtype == np.float32
        assert each.result.shape == each.expected.shape
        difference = float(np.abs(each.result - each.expected).max())
        accepted = difference <= TOLERANCE
        failed |= not accepted
        style = "green" if accepted else "red"
        table.add_row(each.title, each.border, each.scipy_call, f"[{style}]{difference:.1e}")
    console = Console()
    console.print(table)

    draw(photo, results, options.output)
    console.print(f"picture: {options.output}", soft_wrap=True)
    return int(failed)


if __name__ == "__main__":
    with compiling_bar():
        sys.exit(main())
