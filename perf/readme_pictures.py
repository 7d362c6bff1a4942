"""The pictures of layers in the README: a real photograph, convolved by numbaconv, drawn by `numbaconv.plot`.

    python perf/readme_pictures.py [--output perf/results]

``filters.png`` and ``feature_maps.png``: twelve orientations of a Gabor filter, as AlexNet's first layer learns them,
and what they find in a photograph. ``receptive_field.png``: what one cell of VGG-16's last map sees of it. Those of the
comparison with peers are drawn by ``report.py --pictures``.
"""

import argparse
from pathlib import Path

import numpy as np
from skimage import data

import numbaconv
from numbaconv import plot

ORIENTATIONS, EXTENT, WAVELENGTH = 12, 15, 6.0
#: VGG-16 up to its fifth pool: convolutions of each stage, then a 2x2 pool.
VGG_16 = [
    layer
    for depth in (2, 2, 3, 3, 3)
    for layer in ([{"kernel_size": 3, "padding": 1}] * depth + [{"kernel_size": 2, "stride": 2}])
]


def gabor_filters() -> np.ndarray:
    """A wave under a Gaussian, at each orientation, without a mean: shape (orientations, 1, extent, extent)."""
    at = np.arange(EXTENT) - EXTENT // 2
    y, x = np.meshgrid(at, at, indexing="ij")
    angle = np.pi * np.arange(ORIENTATIONS)[:, None, None] / ORIENTATIONS
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    wave = np.exp(-(along**2 + (0.6 * across) ** 2) / (2 * 3.0**2)) * np.cos(2 * np.pi * along / WAVELENGTH)
    wave -= wave.mean(axis=(1, 2), keepdims=True)
    return (wave / abs(wave).sum(axis=(1, 2), keepdims=True)).astype(np.float32)[:, None]


def draw(folder: Path) -> None:
    """Write the pictures."""
    photo = data.astronaut()
    grey = (photo[:280, 80:360].mean(axis=2) / 255).astype(np.float32)[None, None]
    bank = gabor_filters()
    maps = numbaconv.conv2d(grey, bank, padding="same", padding_mode="reflect", activation="relu")
    plot.save(plot.filters(bank, columns=6, title="Gabor filters"), folder / "filters.png")
    plot.save(plot.feature_maps(maps[0], columns=6, clip=0.995), folder / "feature_maps.png")
    pools = [depth for depth, layer in enumerate(VGG_16, start=1) if layer["kernel_size"] == 2]
    title = "what one cell sees after each pool of VGG-16"
    field = plot.receptive_field(VGG_16, photo, cell=(7, 7), frames=pools, title=title)
    plot.save(field, folder / "receptive_field.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    draw(parser.parse_args().output)


if __name__ == "__main__":
    main()
