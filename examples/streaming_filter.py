"""Filter a signal while it comes in: causal convolution with carried state.

A rising tone with noise is cleaned by a low-pass filter of 257 taps, and halved in rate, in packets as a sound card
delivers them: of 10 ms, sometimes two or three at once, now and then none. What comes out is bit for bit what filtering
the whole signal gives. Saves a picture, prints how long a packet takes, and fails if one bit differs.

    python examples/streaming_filter.py [--output PATH]
"""

import argparse
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import numbaconv
from numbaconv.progress import compiling_bar

Array = NDArray[np.float32]

RATE = 16_000
SECONDS = 4
TAPS = 257
#: The filter's edge, as a share of the rate.
EDGE = 0.06


def noisy_tone() -> Array:
    """Two channels of a tone that rises from 100 to 800 Hz, and noise."""
    at = np.arange(RATE * SECONDS) / RATE
    tone = np.sin(2 * np.pi * (100 * at + 700 / (2 * SECONDS) * at**2))
    noise = np.random.default_rng(0).standard_normal((2, at.size))
    return (tone + 0.5 * noise).astype(np.float32)


def low_pass() -> Array:
    """A windowed sinc of sum 1, for each of two channels."""
    at = np.arange(TAPS) - TAPS // 2
    taps = np.sinc(2 * EDGE * at) * np.hamming(TAPS)
    return np.tile((taps / taps.sum()).astype(np.float32), (2, 1, 1))


def main() -> int:
    """Filter packets, compare with the whole, draw; 0 if all bits are the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output" / "streaming_filter.png")
    options = parser.parse_args()
    console = Console()

    signal, taps = noisy_tone(), low_pass()
    stream = numbaconv.StreamingConv(taps, stride=2, groups=2)
    packets = np.split(signal, np.cumsum(np.random.default_rng(1).choice(4, 260) * (RATE // 100)), axis=1)
    stream.push(packets[0][:, :1])  # compiles
    stream.reset()
    begin = time.perf_counter()
    cleaned = np.concatenate([stream.push(packet) for packet in packets], axis=1)
    passed = time.perf_counter() - begin

    whole = numbaconv.conv1d(signal, taps, stride=2, padding="causal", groups=2, algorithm=stream.algorithm)
    same = bool(np.array_equal(cleaned, whole))
    lengths = [packet.shape[1] for packet in packets]
    console.print(f"{len(packets)} packets of {min(lengths)} to {max(lengths)} samples by {stream.algorithm!r}")
    console.print(f"{1e6 * passed / len(packets):.0f} us a packet, {SECONDS / passed:.0f} times as fast as it comes in")
    console.print(f"the same bits as of the whole signal: {'yes' if same else '[red]no'}")

    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 5), sharex=True, layout="constrained")
    above.specgram(signal[0], Fs=RATE, NFFT=512, noverlap=384)
    above.set_title("as it comes in")
    below.specgram(cleaned[0], Fs=RATE // 2, NFFT=256, noverlap=192)
    below.set_title("filtered, at half the rate")
    below.set_xlabel("seconds")
    for axes in (above, below):
        axes.set_ylabel("Hz")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output, dpi=120)
    console.print(f"picture: {options.output}", soft_wrap=True)
    return int(not same)


if __name__ == "__main__":
    with compiling_bar():
        raise SystemExit(main())
