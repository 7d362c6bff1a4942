"""The two pictures of a bench file: the ratio of each layer, and the roofline."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..bench.ratios import (
    COMPARISONS,
    DRAWN,
    Record,
    compares,
    directions_of,
    gflops,
    of_direction,
    summary,
)
from ..bench.ratios import ratio as ratio_of
from ..errors import ArgumentError
from .figures import new_figure

__all__ = ["ratios", "roofline"]

#: A bench file, what it holds, or its records.
Bench: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | list[Record]

LABELS = {
    "numbaconv": "numbaconv",
    "numbaconv_prepared": "numbaconv, prepared",
    "torch": "PyTorch",
    "onnxruntime": "ONNX Runtime",
}
TITLES = {"forward": "forward", "input": "gradient by the input", "weight": "gradient by the weight"}
COLOURS = {"torch": "tab:orange", "onnxruntime": "tab:green", "numbaconv": "tab:blue", "numbaconv_prepared": "navy"}
MARKS = {"torch": "o", "onnxruntime": "s", "numbaconv": "^", "numbaconv_prepared": "D"}


def _records(op: str, bench: Bench) -> list[Record]:
    if isinstance(bench, str | os.PathLike):
        bench = json.loads(Path(bench).read_text(encoding="utf-8"))
    records = bench.get("records") if isinstance(bench, Mapping) else bench
    if not isinstance(records, list) or not records:
        raise ArgumentError(f"{op}: a bench file has records, but none were found")
    return records


def ratios(bench: Bench) -> Any:
    """Times of peers over numbaconv's, layer by layer, a panel for each direction.

    Parameters
    ----------
    bench : path, dict or list
        What ``numbaconv bench --output`` or ``perf/compare_peers.py`` wrote, or its content, or its records.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentError
        If there is nothing to compare in it.
    ImportError
        Without matplotlib.

    Examples
    --------
    >>> from numbaconv import plot
    >>> times = {"numbaconv": [1e-3, 1.1e-3], "torch": [1.5e-3, 1.6e-3]}
    >>> record = {"layer": "mine/conv1", "direction": "forward", "flops": 1e8, "intensity": 30.0, "times": times}
    >>> figure = plot.ratios([record])
    >>> len(figure.axes)
    1
    """
    records = _records("ratios", bench)
    drawn = [each for each in COMPARISONS if each.title in DRAWN]
    directions = [
        direction
        for direction in directions_of(records)
        if any(compares(record, each) for record in of_direction(records, direction) for each in drawn)
    ]
    if not directions:
        raise ArgumentError("ratios: the records have no times of numbaconv's and of another library's together")
    most = max(len(of_direction(records, direction)) for direction in directions)
    figure = new_figure("ratios", (5.5 * len(directions) + 1.5, 0.24 * most + 2))
    panels = figure.subplots(1, len(directions), squeeze=False, sharex=True, sharey=True)
    for panel, direction in zip(panels[0], directions, strict=True):
        _draw_ratios(panel, of_direction(records, direction), direction, most)
    panels[0][0].invert_yaxis()
    return figure


def _draw_ratios(panel: Any, chosen: list[Record], direction: str, most: int) -> None:
    shown = [each for each in COMPARISONS if each.title in DRAWN and compares(chosen[0], each)]
    height = 0.8 / max(len(shown), 1)
    for offset, comparison in enumerate(shown):
        places = [at + height * offset for at in range(len(chosen))]
        ahead = [ratio_of(record, comparison) - 1 for record in chosen]
        label = f"{LABELS[comparison.peers[0]]} / {LABELS[comparison.ours]}"
        panel.barh(places, ahead, left=1, height=height, label=label, color=COLOURS[comparison.peers[0]])
    panel.set_yticks(range(len(chosen)), [record["layer"].split("/", 1)[-1] for record in chosen], fontsize=7)
    panel.axvline(1, color="black", linewidth=0.8)
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter("{x:g}")
    panel.set_xlabel("time ratio (right of 1: numbaconv is faster)")
    panel.grid(axis="x", alpha=0.3)
    # Outside, since bars fill what is inside.
    panel.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1 + 0.28 / most), fontsize=8, ncols=2, title=TITLES[direction]
    )


def roofline(bench: Bench) -> Any:
    """GFLOP/s over arithmetic intensity under the measured peak and bandwidth, a panel for each direction.

    Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model".

    Parameters
    ----------
    bench : path, dict or list
        As for `ratios`, with samples of the machine's peak.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentError
        If the records have no peak.
    ImportError
        Without matplotlib.

    Examples
    --------
    >>> from numbaconv import plot
    >>> peak = {"gflops_1": [50.0], "gflops": [100.0], "gbytes": [20.0]}
    >>> record = {"layer": "mine/conv1", "direction": "forward", "flops": 1e8, "intensity": 30.0, "peak": peak}
    >>> figure = plot.roofline([{**record, "times": {"numbaconv_prepared": [2e-3]}}])
    >>> figure.axes[0].get_ylabel()
    'GFLOP/s'
    """
    records = _records("roofline", bench)
    if not all("peak" in record for record in records):
        raise ArgumentError("roofline: the records have no samples of the machine's peak")
    found, directions = summary(records), directions_of(records)
    figure = new_figure("roofline", (5.5 * len(directions), 5))
    panels = figure.subplots(1, len(directions), squeeze=False, sharey=True)
    edges = [record["intensity"] for record in records]
    intensity = np.geomspace(min(edges) / 2, max(edges) * 2, 200)
    roof = np.minimum(found["gflops"], found["gbytes"] * intensity)
    for panel, direction in zip(panels[0], directions, strict=True):
        label = f"{found['gflops']:.0f} GFLOP/s, {found['gbytes']:.0f} GB/s, measured"
        panel.plot(intensity, roof, color="black", linewidth=1, label=label)
        for name in ("torch", "numbaconv_prepared" if direction == "forward" else "numbaconv"):
            chosen = [record for record in of_direction(records, direction) if name in record["times"]]
            points = [(record["intensity"], gflops(record, name)) for record in chosen]
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
    return figure
