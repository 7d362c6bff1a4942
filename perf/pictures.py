"""The two pictures of a comparison: the ratio of each layer, and the roofline."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from ratios import COMPARISONS, DRAWN, Record, compares, directions_of, gflops, of_direction, ratio

mpl.use("Agg")

from matplotlib import pyplot as plt

LABELS = {
    "numbaconv": "numbaconv",
    "numbaconv_prepared": "numbaconv, prepared",
    "torch": "PyTorch",
    "onnxruntime": "ONNX Runtime",
}
TITLES = {"forward": "forward", "input": "gradient by the input", "weight": "gradient by the weight"}
COLOURS = {"torch": "tab:orange", "onnxruntime": "tab:green", "numbaconv": "tab:blue", "numbaconv_prepared": "navy"}
MARKS = {"torch": "o", "onnxruntime": "s", "numbaconv": "^", "numbaconv_prepared": "D"}


def draw_ratios(records: list[Record], path: Path) -> None:
    """Ratio by layer, a panel for each direction."""
    directions = directions_of(records)
    most = max(len(of_direction(records, direction)) for direction in directions)
    size = (5.5 * len(directions) + 1.5, 0.24 * most + 2)
    figure, panels = plt.subplots(1, len(directions), figsize=size, squeeze=False, sharex=True, sharey=True)
    for panel, direction in zip(panels[0], directions, strict=True):
        chosen = of_direction(records, direction)
        shown = [each for each in COMPARISONS if each.title in DRAWN and compares(chosen[0], each)]
        height = 0.8 / max(len(shown), 1)
        for offset, comparison in enumerate(shown):
            places = [at + height * offset for at in range(len(chosen))]
            ahead = [ratio(record, comparison) - 1 for record in chosen]
            label = f"{LABELS[comparison.peers[0]]} / {LABELS[comparison.ours]}"
            panel.barh(places, ahead, left=1, height=height, label=label, color=COLOURS[comparison.peers[0]])
        panel.set_yticks(range(len(chosen)), [record["layer"].split("/", 1)[-1] for record in chosen], fontsize=7)
        panel.axvline(1, color="black", linewidth=0.8)
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set_xlabel("time ratio (right of 1: numbaconv is faster)")
        panel.grid(axis="x", alpha=0.3)
        if shown:  # outside, since bars fill what is inside
            panel.legend(
                loc="lower center", bbox_to_anchor=(0.5, 1 + 0.28 / most), fontsize=8, ncols=2, title=TITLES[direction]
            )
    panels[0][0].invert_yaxis()
    _write(figure, path)


def draw_roofline(records: list[Record], found: dict[str, Any], path: Path) -> None:
    """GFLOP/s over arithmetic intensity under the measured peak and bandwidth, a panel for each direction."""
    directions = directions_of(records)
    size = (5.5 * len(directions), 5)
    figure, panels = plt.subplots(1, len(directions), figsize=size, squeeze=False, sharey=True)
    edges = [record["intensity"] for record in records]
    intensity = np.geomspace(min(edges) / 2, max(edges) * 2, 200)
    roof = np.minimum(found["gflops"], found["gbytes"] * intensity)
    for panel, direction in zip(panels[0], directions, strict=True):
        chosen = of_direction(records, direction)
        label = f"{found['gflops']:.0f} GFLOP/s, {found['gbytes']:.0f} GB/s, measured"
        panel.plot(intensity, roof, color="black", linewidth=1, label=label)
        for name in ("torch", "numbaconv_prepared" if direction == "forward" else "numbaconv"):
            points = [(record["intensity"], gflops(record, name)) for record in chosen if name in record["times"]]
            if points:
                style = {"s": 20, "alpha": 0.8, "color": COLOURS[name], "marker": MARKS[name]}
                panel.scatter(*zip(*points, strict=True), label=LABELS[name], **style)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel("FLOPs for each byte of operands and result")
        panel.set_title(TITLES[direction])
        panel.grid(alpha=0.3)
        panel.legend(loc="lower right", fontsize=8)
    panels[0][0].set_ylabel("GFLOP/s")
    _write(figure, path)


def _write(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=90, bbox_inches="tight")
    plt.close(figure)
