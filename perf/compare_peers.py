"""numbaconv against its peers on real layers: one process each, taking turns on the same cores, paired ratios.

    python perf/compare_peers.py [--table speed.csv] [--directions forward input weight] [--layers TEXT]
                                 [--rounds 3] [--seconds 0.15] [--output perf/results/NAME]

A ratio is the peer's time over numbaconv's in the same round (over 1: numbaconv is faster), of the least time of a
call in each; the median over rounds counts. Writes ``NAME.json`` and ``NAME.png``.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

import layer_table
from peers import DIRECTIONS, PEERS

HERE = Path(__file__).parent
OURS = "numbaconv"


class Worker:
    """A peer's process."""

    def __init__(self, name: str, threads: int):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
        command = [sys.executable, str(HERE / "peers.py"), name]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def time(self, table: str, row: int, direction: str, seconds: float) -> float:
        """The least time of a call."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        request = {"table": table, "row": row, "direction": direction, "seconds": seconds}
        print(json.dumps(request), file=stdin, flush=True)
        answer = stdout.readline()
        if not answer:
            raise SystemExit("a peer's process ended; see its message above")
        least: float = json.loads(answer)["least"]
        return least

    def close(self) -> None:
        self._process.communicate()


def compare(arguments: argparse.Namespace) -> list[dict]:
    """A record for each layer and direction: times by peer, in seconds, one a round."""
    rows = layer_table.read(arguments.table)
    chosen = [row for row, layer in enumerate(rows) if arguments.layers in layer.name]
    names = [OURS, *arguments.peers]
    workers = {name: Worker(name, arguments.threads) for name in names}
    records = []
    cases = [(direction, row) for direction in arguments.directions for row in chosen]
    for direction, row in track(cases, "layers", console=Console(stderr=True)):
        present = [name for name in names if direction == "forward" or name != "onnxruntime"]
        times: dict[str, list[float]] = {name: [] for name in present}
        for turn in range(arguments.rounds):
            for name in present if turn % 2 == 0 else present[::-1]:
                times[name].append(workers[name].time(arguments.table, row, direction, arguments.seconds))
        layer = rows[row]
        records.append({"layer": layer.name, "direction": direction, "mmac": layer.mmac, "times": times})
    for worker in workers.values():
        worker.close()
    return records


def ratio(record: dict, peer: str) -> float:
    """The peer's time over numbaconv's: median over paired rounds."""
    pairs = zip(record["times"][peer], record["times"][OURS], strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)


def gflops(record: dict, name: str) -> float:
    return 2 * record["mmac"] / 1e3 / min(record["times"][name])


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def summary(records: list[dict]) -> dict[str, dict[str, float]]:
    """Geometric means and counts, by direction and peer."""
    found = {}
    for direction in DIRECTIONS:
        chosen = [record for record in records if record["direction"] == direction]
        for peer in PEERS:
            ratios = [ratio(record, peer) for record in chosen if peer != OURS and peer in record["times"]]
            if ratios:
                lost = sum(each < 1 / 1.05 for each in ratios)
                found[f"{direction} vs {peer}"] = {
                    "geometric mean": geometric_mean(ratios),
                    "layers": len(ratios),
                    "lost by more than 5 %": lost,
                }
    return found


def report(records: list[dict], console: Console) -> None:
    """The table of layers, and the summary."""
    for direction in DIRECTIONS:
        chosen = [record for record in records if record["direction"] == direction]
        if not chosen:
            continue
        peers = [name for name in chosen[0]["times"] if name != OURS]
        table = Table(title=f"{direction}: GFLOP/s, and time of the peer over numbaconv's")
        for column in ("layer", OURS, *(f"{peer} {what}" for peer in peers for what in ("GFLOP/s", "ratio"))):
            table.add_column(column, justify="left" if column == "layer" else "right")
        for record in chosen:
            cells = [record["layer"], f"{gflops(record, OURS):.1f}"]
            for peer in peers:
                cells += [f"{gflops(record, peer):.1f}", f"{ratio(record, peer):.2f}"]
            table.add_row(*cells)
        console.print(table)
    for name, values in summary(records).items():
        console.print(name, {key: round(value, 2) for key, value in values.items()})


def draw(records: list[dict], path: Path) -> None:
    """Ratio by layer, a panel for each direction."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    directions = [each for each in DIRECTIONS if any(record["direction"] == each for record in records)]
    figure, panels = plt.subplots(1, len(directions), figsize=(6 * len(directions), 10), squeeze=False, sharey=True)
    for panel, direction in zip(panels[0], directions, strict=True):
        chosen = [record for record in records if record["direction"] == direction]
        peers = [name for name in chosen[0]["times"] if name != OURS]
        for offset, peer in enumerate(peers):
            places = [at + 0.4 * offset for at in range(len(chosen))]
            ahead = [ratio(record, peer) - 1 for record in chosen]
            panel.barh(places, ahead, left=1, height=0.38, label=f"{peer} / {OURS}")
        panel.set_yticks(range(len(chosen)), [record["layer"].split("/")[-1] for record in chosen], fontsize=7)
        panel.axvline(1, color="black", linewidth=0.8)
        panel.set_xscale("log", base=2)
        panel.set_xlabel("time ratio (right of 1: numbaconv is faster)")
        panel.set_title(direction)
        panel.legend(loc="lower right")
    panels[0][0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def machine() -> dict[str, str]:
    """What the figures depend on."""
    from importlib.metadata import version

    import llvmlite.binding

    found = {
        "processor": llvmlite.binding.get_host_cpu_name(),
        "system": platform.platform(),
        "python": sys.version.split()[0],
    }
    for package in ("numba", "numpy", "torch", "onnxruntime"):
        found[package] = version(package)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", default="speed.csv")
    parser.add_argument("--directions", nargs="+", default=list(DIRECTIONS), choices=DIRECTIONS)
    parser.add_argument("--peers", nargs="*", default=[name for name in PEERS if name != OURS])
    parser.add_argument("--layers", default="", help="only layers whose name contains this")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.15, help="for a peer's turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="JSON and picture, without suffix")
    arguments = parser.parse_args()
    records = compare(arguments)
    report(records, Console(width=130))
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        content = {"machine": machine(), "threads": arguments.threads, "summary": summary(records), "records": records}
        arguments.output.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
        draw(records, arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
