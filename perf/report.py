"""What the files of perf/results say: the numbers to reach beside those reached, and the layers that are lost.

python perf/report.py [--results perf/results]             prints
python perf/report.py --markdown                           prints what perf/README.md has under its last heading
python perf/report.py --update                             puts it there
python perf/report.py --pictures                           draws the pictures again
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from command import console
from numbaconv import plot
from numbaconv.bench.ratios import COMPARISONS, summary
from numbaconv.bench.tables import SHARE, print_peers

HERE = Path(__file__).parent
FILES = ("peers", "scaling", "memory", "startup")
#: Where ``--update`` writes, in perf/README.md.
BEGIN, END = "<!-- report.py writes from here -->", "<!-- to here -->"
BEST = "prepared vs best of both"
Results = dict[str, dict[str, Any]]


class Goal(NamedTuple):
    """A number to reach."""

    what: str
    file: str
    value: Callable[[dict[str, Any]], float]
    asked: float
    stretch: float | None = None
    unit: str = ""
    at_least: bool = True

    def shown(self, value: float) -> str:
        if self.unit == "%":
            return f"{100 * value:.0f} %"
        return f"{value:.0f}" if self.unit == "layers" else f"{value:.2f} {self.unit}".rstrip()

    def reached(self, value: float, bound: float | None) -> bool:
        return bound is not None and (value >= bound if self.at_least else value <= bound)


def _mean(title: str) -> Callable[[dict[str, Any]], float]:
    return lambda found: found[title]["geometric mean"]


GOALS = (
    Goal("forward, weights passed in each call, vs PyTorch", "peers", _mean("forward vs torch"), 1.5, 2.0),
    Goal("forward, prepared, vs ONNX Runtime's session", "peers", _mean("prepared vs onnxruntime"), 1.2, 1.5),
    Goal(
        "forward, prepared, best of both peers: layers lost by more than 5 %",
        "peers",
        lambda found: len(found[BEST]["lost by more than 5 %"]),
        4,
        0,
        "layers",
        at_least=False,
    ),
    Goal("gradient by the input vs PyTorch", "peers", _mean("INPUT_GRAD vs torch"), 1.4, 1.8),
    Goal("gradient by the weight vs PyTorch", "peers", _mean("WEIGHT_GRAD vs torch"), 1.4, 1.8),
    Goal("mean share of the peak, dense 3x3 and 1x1, 64 channels and more", "peers", _mean(SHARE), 0.8, 0.9, "%"),
    Goal("1 to 2 threads, over 100 MFLOP", "scaling", lambda found: found["geometric mean"], 1.85, 1.95),
    Goal(
        "memory beyond inputs and output: rows over PyTorch's",
        "memory",
        lambda found: found["above"],
        0,
        None,
        "layers",
        at_least=False,
    ),
    Goal(
        "first call in a fresh process, cached, beyond numba's import",
        "startup",
        lambda found: found["cached"],
        0.5,
        None,
        "s",
        at_least=False,
    ),
    Goal(
        "cold compile of one float32 forward call",
        "startup",
        lambda found: found["cold"],
        15,
        None,
        "s",
        at_least=False,
    ),
)


def load(folder: Path) -> Results:
    """The results that there are, by file."""
    paths = {name: folder / f"{name}.json" for name in FILES}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def _rows(results: Results) -> list[tuple[str, str, str, str, str]]:
    """What, asked, stretch, measured, verdict."""
    rows = []
    for goal in GOALS:
        try:
            value = goal.value(results[goal.file]["summary"])
        except KeyError:  # this was not measured
            continue
        sign = ">=" if goal.at_least else "<="
        verdict = "stretch" if goal.reached(value, goal.stretch) else "reached"
        if not goal.reached(value, goal.asked):
            verdict = "missed"
        asked = f"{sign} {goal.shown(goal.asked)}"
        stretch = "" if goal.stretch is None else goal.shown(goal.stretch)
        rows.append((goal.what, asked, stretch, goal.shown(value), verdict))
    return rows


def print_numbers(results: Results, screen: Console) -> None:
    table = Table("number", "asked", "stretch", "measured", "")
    for row in _rows(results):
        table.add_row(*row)
    screen.print(table)


def markdown(results: Results) -> str:
    """The section of perf/README.md."""
    lines = ["| number | asked | stretch | measured | |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in _rows(results)]
    if "peers" in results:
        lines += ["", *_of_peers(results["peers"])]
    if "memory" in results:
        above = results["memory"]["summary"]["rows above"]
        if above:
            lines += ["", f"More scratch memory than PyTorch: {_listed(above, 'MiB more')}."]
    return "\n".join(lines) + "\n"


def _of_peers(peers: dict[str, Any]) -> list[str]:
    machine, found = peers["machine"], peers["summary"]
    libraries = ", ".join(f"{name} {machine[name]}" for name in ("numba", "numpy", "torch", "onnxruntime"))
    lines = [
        f"Cores: {machine['cores']} ({machine['processor']}, {machine['vectors']}), {peers['threads']} threads; "
        f"Python {machine['python']}, {libraries}. The micro-kernel reaches {found['gflops_1']:.0f} GFLOP/s on one "
        f"thread and {found['gflops']:.0f} on all, memory {found['gbytes']:.0f} GB/s (medians over the run).",
        "",
        "| time of the peer over numbaconv's | geometric mean | lost by more than 5 % |",
        "|---|---|---|",
    ]
    shown = [each.title for each in COMPARISONS if each.title in found]
    for title in shown:
        values = found[title]
        lost = len(values["lost by more than 5 %"])
        lines.append(f"| {title} | {values['geometric mean']:.2f} | {lost} of {values['layers']} |")
    for title in shown:
        lost_layers = found[title]["lost by more than 5 %"]
        if lost_layers and title != "forward vs onnxruntime":
            lines += ["", f"Lost, {title}: {_listed(lost_layers, '')}."]
    if SHARE in found:
        lines += ["", f"Shares of the peak: {_listed(found[SHARE]['layers'], '%')}."]
    return lines


def _listed(values: dict[str, float], unit: str) -> str:
    def shown(value: float) -> str:
        return f"{100 * value:.0f} %" if unit == "%" else f"{value:.2f} {unit}".rstrip()

    return ", ".join(f"{name.split('/', 1)[-1]} ({shown(value)})" for name, value in values.items())


def update(path: Path, text: str) -> None:
    """Put the section where the marks are."""
    before, rest = path.read_text().split(BEGIN)
    _, after = rest.split(END)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--pictures", action="store_true")
    arguments = parser.parse_args()
    results = load(arguments.results)
    records = results["peers"]["records"] if "peers" in results else []
    if records:
        results["peers"]["summary"] = summary(records)
    if arguments.markdown:
        print(markdown(results))
    elif arguments.update:
        update(HERE / "README.md", markdown(results))
    elif arguments.pictures:
        plot.save(plot.ratios(records), arguments.results / "peers.png")
        plot.save(plot.roofline(records), arguments.results / "roofline.png")
    else:
        if records:
            print_peers(records, results["peers"]["summary"], console())
        print_numbers(results, console())


if __name__ == "__main__":
    main()
