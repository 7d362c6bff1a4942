"""No tests: random calls, in memory and of Dask arrays in random chunks."""

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from numbaconv.plan import PADDING_MODES

SPATIAL = {1: "W", 2: "HW", 3: "DHW"}


@dataclass
class Problem:
    """A call: ``stem`` is conv or conv_transpose, ``options`` shape it, ``epilogue`` is what the forward adds."""

    rank: int
    stem: str
    x: np.ndarray
    w: np.ndarray
    options: dict[str, Any]
    epilogue: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.stem}{self.rank}d"


def values(rng, shape, dtype):
    """Random numbers of any dtype; small integers."""
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        return rng.integers(0 if dtype.kind == "u" else -9, 9, shape).astype(dtype)
    found = rng.standard_normal(shape)
    return (found + 1j * rng.standard_normal(shape) if dtype.kind == "c" else found).astype(dtype)


def chunked(draw, array):
    """A Dask array in random chunks along every axis."""
    import dask.array as da  # here, so that this file can be read where it is missing

    return da.from_array(array, chunks=tuple(_chunks(draw, extent) for extent in array.shape))


def _chunks(draw, extent):
    if draw.random() < 0.4:
        return (extent,)
    found = []
    while extent:
        found.append(min(draw.randint(1, 14), extent))
        extent -= found[-1]
    return tuple(found)


def problem(seed, dtype):
    """Any rank, stride, dilation, groups, padding, mode and layout; ``draw`` goes on with what is random about it."""
    draw, rng = random.Random(seed), np.random.default_rng(seed)
    rank = draw.choice([1, 2, 2, 3])
    transposed, last, batched = draw.random() < 0.4, draw.random() < 0.25, draw.random() < 0.9
    groups, inner, outer = draw.choice([1, 1, 2, 3]), draw.randint(1, 4), draw.randint(1, 5)
    if draw.random() < 0.3:
        groups, inner, outer = draw.randint(3, 6), 1, draw.randint(1, 3)
    kernel = [draw.randint(1, 3 if rank == 3 else 7) for _ in range(rank)]
    stride, dilation = (tuple(draw.randint(1, 3) for _ in range(rank)) for _ in range(2))
    least = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    extents = [extent + draw.randint(1, {1: 90, 2: 30, 3: 9}[rank]) for extent in least]
    modes = [mode for mode in PADDING_MODES if not (transposed and mode == "constant")]
    mode = tuple(draw.choice(modes) if draw.random() < 0.6 else "zeros" for _ in range(rank))
    few, many = (tuple((draw.randint(0, 4), draw.randint(0, most)) for _ in range(rank)) for most in (4, 9))
    options: dict[str, Any] = {
        "stride": stride,
        "padding": draw.choice(["same", "valid", few, many]),
        "dilation": dilation,
        "groups": groups,
        "padding_mode": mode,
        "data_format": "channels_last" if last else None,
        "weight_format": "OI" + SPATIAL[rank],
    }
    if "constant" in mode:
        options["padding_value"] = 2
    if transposed and not isinstance(options["padding"], str) and draw.random() < 0.4:
        options["output_padding"] = tuple(draw.randint(0, s - 1) for s in stride)
    x = values(rng, (draw.randint(1, 3), groups * inner, *extents), dtype)
    x = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if last else x
    channels = (groups * inner, outer) if transposed else (groups * outer, inner)
    w = values(rng, (*channels, *kernel), dtype)
    stem = "conv_transpose" if transposed else "conv"
    found = Problem(rank, stem, x if batched else x[0], w, options)
    if draw.random() < 0.5:
        found.epilogue["bias"] = values(rng, (groups * outer,), dtype)
    if np.dtype(dtype).kind == "f" and draw.random() < 0.4:
        found.epilogue["activation"] = draw.choice(["relu", "tanh"])
    return found, draw, rng
