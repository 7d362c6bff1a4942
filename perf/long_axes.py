"""Time long axes and long kernels: no jump where an axis grows, and what NumPy takes for the same.

python perf/long_axes.py [--repeats N]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

import numbaconv
from numbaconv import grad


def seconds(run: Callable[[], object], other: Callable[[], object] | None, repeats: int) -> tuple[float, float]:
    """Medians of two calls in turns, after two calls of each."""
    calls = [run] if other is None else [run, other]
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 2):
        for call, found in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if turn > 1:
                found.append(time.perf_counter() - start)
    medians = [statistics.median(found) for found in times]
    return medians[0], medians[-1]


def rows() -> list[tuple[str, Callable[[], object], Callable[[], object] | None]]:
    """What is timed: a name, a call, and what else computes it."""
    rng = np.random.default_rng(1)

    def noise(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    five, nine, filter_ = noise(1, 1, 5), noise(2, 1, 9), noise(1, 1, 44_100)
    found: list[tuple[str, Callable[[], object], Callable[[], object] | None]] = []
    for n in (32_000, 33_000, 1_000_000):
        x = noise(1, 1, n)
        found.append(
            (
                f"{n:,} samples, 5 taps; np.convolve",
                lambda x=x: numbaconv.conv1d(x, five, padding=2),
                lambda x=x: np.convolve(x[0, 0], five[0, 0], "same"),
            )
        )
    x, y = noise(1, 1, 1_000_000), noise(1, 1, 1_000_000)
    for name, options in (("stride 2", {"stride": 2}), ("reflect", {"padding_mode": "reflect"})):
        found.append((f"  {name}", lambda options=options: numbaconv.conv1d(x, five, padding=2, **options), None))
    found += [
        ("  transposed", lambda: numbaconv.conv_transpose1d(x, five, padding=2), None),
        ("  gradient by the input", lambda: grad.conv1d_input(x.shape, five, y, padding=2), None),
        (
            "  gradient by the input, reflect",
            lambda: grad.conv1d_input(x.shape, five, y, padding=2, padding_mode="reflect"),
            None,
        ),
        ("  gradient by the weight", lambda: grad.conv1d_weight(x, five.shape, y, padding=2), None),
    ]
    minute, pair = noise(1, 2, 2_646_000), noise(2, 1, 2_646_000)
    found += [
        ("a stereo minute of 44.1 kHz, 9 taps", lambda: numbaconv.conv1d(minute, nine, groups=2, padding=4), None),
        ("  as a batch of two", lambda: numbaconv.conv1d(pair, nine[:1], padding=4), None),
    ]
    for channels in (1, 2):
        stream = numbaconv.StreamingConv(np.repeat(filter_, channels, 0), groups=channels)
        block = noise(1, channels, 512)
        found.append((f"44,100 taps, a block of 512, {channels} channels", lambda s=stream, b=block: s.push(b), None))
    for stride in (5_000, 20_000):
        few, pair_of_taps = noise(1, 1, 3), noise(1, 1, 2)
        found.append(
            (
                f"transposed, stride {stride:,}, 3 cells, 2 taps",
                lambda f=few, p=pair_of_taps, s=stride: numbaconv.conv_transpose1d(f, p, stride=s),
                None,
            )
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    for name, run, other in rows():
        ours, theirs = seconds(run, other, repeats)
        beside = "" if other is None else f"   {theirs * 1e3:9.3f} ms   ratio {ours / theirs:.2f}"
        print(f"{name:48} {ours * 1e3:9.3f} ms{beside}")


if __name__ == "__main__":
    main()
