"""What a second thread gives: numbaconv with one thread and with two, in one process, taking turns.

    python perf/scaling.py [--least-mflop 100] [--threads 2] [--rounds 5] [--seconds 0.1] [--output perf/results]

The number of threads is `numba.set_num_threads`; the ratio is that of the least times in the same round, the median
over rounds counts. Beside each layer stands what the micro-kernel itself gained in the same rounds: what the machine
allows. Forward calls are prepared. The folder of ``--output`` gets ``scaling.json``.
"""

import argparse
import statistics
from typing import Any

import numba
from rich.table import Table

from command import cases, console, parser, progress, save
from numbaconv.bench.peak import Machine
from numbaconv.bench.peers import Call, measure, numbaconv_call, prepared_call
from numbaconv.bench.ratios import geometric_mean


def gains(call: Call, machine: Machine, arguments: argparse.Namespace) -> dict[str, Any]:
    """Least times by number of threads, one a round, and what the micro-kernel gained."""
    times: dict[int, list[float]] = {1: [], arguments.threads: []}
    rates = []
    for turn in range(arguments.rounds):
        for count in sorted(times, reverse=turn % 2 == 1):
            numba.set_num_threads(count)
            times[count].append(measure(call, arguments.seconds)["least"])
        rates.append(machine.gflops(arguments.threads) / machine.gflops(1))
    pairs = zip(times[1], times[arguments.threads], strict=True)
    return {
        "times": times,
        "ratio": statistics.median(one / more for one, more in pairs),
        "micro-kernel": statistics.median(rates),
    }


def summary(records: list[dict[str, Any]], asked: float) -> dict[str, Any]:
    """Geometric means over all and by direction, and the layers that stay below what is asked."""
    ratios = {(record["layer"], record["direction"]): record["ratio"] for record in records}
    found: dict[str, Any] = {"geometric mean": geometric_mean(ratios.values())}
    for direction in sorted({direction for _, direction in ratios}):
        found[direction] = geometric_mean(ratios[key] for key in ratios if key[1] == direction)
    found["micro-kernel"] = geometric_mean(record["micro-kernel"] for record in records)
    found["below"] = {f"{layer} {direction}": value for (layer, direction), value in ratios.items() if value < asked}
    return found


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--least-mflop", type=float, default=100)
    options.add_argument("--asked", type=float, default=1.85)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=0.1)
    arguments = options.parse_args()
    machine, records = Machine(arguments.threads), []
    chosen = [case for case in cases(arguments) if 2 * case[1].mmac > arguments.least_mflop]
    table = Table("layer", "direction", "ms, 1 thread", f"ms, {arguments.threads} threads", "ratio", "micro-kernel")
    for _, layer, direction in progress(chosen):
        call = (prepared_call if direction == "forward" else numbaconv_call)(layer, direction)
        record = {"layer": layer.name, "direction": direction, **gains(call, machine, arguments)}
        records.append(record)
        milliseconds = [f"{1e3 * min(times):.3f}" for times in record["times"].values()]
        figures = (f"{record[name]:.2f}" for name in ("ratio", "micro-kernel"))
        table.add_row(layer.name.split("/", 1)[-1], direction, *milliseconds, *figures)
    console().print(table)
    if not records:
        raise SystemExit(f"no chosen layer has over {arguments.least_mflop:g} MFLOP")
    found = summary(records, arguments.asked)
    console().print({name: value for name, value in found.items() if name != "below"})
    console().print(f"below {arguments.asked:g}:", found["below"])
    save(arguments.output, "scaling", {"threads": arguments.threads, "summary": found, "records": records})


if __name__ == "__main__":
    main()
