"""Edges in a volume that is never in memory as a whole, with Dask: gradients by three Gaussian-derivative kernels.

The volume is made chunk by chunk, convolved chunk by chunk with its halos, and reduced to one number for each slice.
Part of it is then computed in memory, and compared to the bit.

    pip install 'numbaconv[dask]'
    python examples/interop/dask_volume.py --size 1000
"""

from __future__ import annotations

import argparse
import time

import dask.array as da
import numpy as np

import numbaconv
from numbaconv.interop import dask as lazily
from numbaconv.progress import compiling_bar


def kernels(radius: int = 2, sigma: float = 1.0) -> np.ndarray:
    """Derivatives of a Gaussian along each axis, as a weight of three result channels."""
    at = np.arange(-radius, radius + 1)
    smooth = np.exp(-(at**2) / (2 * sigma**2))
    smooth /= smooth.sum()
    slope = -at / sigma**2 * smooth
    axes = [[slope if axis == along else smooth for axis in range(3)] for along in range(3)]
    return np.stack([np.einsum("i,j,k->ijk", *each) for each in axes])[:, None].astype(np.float32)


def balls(block: np.ndarray, block_info: dict | None = None) -> np.ndarray:
    """A lattice of balls, computed from where the chunk is."""
    (front, _), (top, _), (left, _) = block_info[0]["array-location"][2:] if block_info else [(0, 0)] * 3
    firsts = zip((front, top, left), block.shape[2:], strict=True)
    z, y, x = np.ogrid[tuple(slice(first, first + extent) for first, extent in firsts)]
    return ((z % 40 - 20) ** 2 + (y % 40 - 20) ** 2 + (x % 40 - 20) ** 2 < 15**2)[None, None].astype(np.float32)


def main() -> None:
    """Print what is there, what it becomes, and how long that takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=200, help="cells along each axis (default: %(default)s)")
    parser.add_argument("--chunk", type=int, default=64, help="cells of a chunk along each axis (default: %(default)s)")
    arguments = parser.parse_args()
    size, chunk = arguments.size, arguments.chunk
    volume = da.zeros((1, 1, size, size, size), dtype=np.float32, chunks=(1, 1, chunk, chunk, chunk))
    volume = volume.map_blocks(balls, dtype=np.float32)
    gradients = lazily.conv3d(volume, kernels(), padding="same", padding_mode="reflect")
    edges = (gradients**2).sum(axis=1) > 0.01
    print(f"volume: {volume.nbytes / 1e6:.0f} MB in {volume.npartitions} chunks; {len(gradients.dask)} tasks")

    start = time.perf_counter()
    share = edges.mean(axis=(0, 2, 3)).compute()
    print(f"computed in {time.perf_counter() - start:.1f} s; cells on an edge: {share.mean():.1%}")

    corner = min(size, 2 * chunk)
    part = volume[..., : corner + 2, : corner + 2, : corner + 2].compute()
    wanted = numbaconv.conv3d(part, kernels(), padding="same", padding_mode="reflect")[..., :corner, :corner, :corner]
    found = gradients[..., :corner, :corner, :corner].compute()
    print(f"a corner of {corner} cells has the bits of the same call in memory: {np.array_equal(found, wanted)}")


if __name__ == "__main__":
    with compiling_bar():
        main()
