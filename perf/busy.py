"""Small calls on a busy machine: alone, two copies at once, and beside programs that only take time.

    python perf/busy.py [--seconds 2] [--programs 2] [--only TEXT] [--output perf/results]

Each process computes one layer over and over. Shown are calls a second, the median call, the worst one as a multiple of
it, and how many in a million took over 20 times the median; for two copies also their calls together as a multiple of
those of one alone (asked: at least 0.8). A call that the system interrupts for another program takes milliseconds,
whatever it computes: compare with ``NUMBA_NUM_THREADS=1``.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from command import console, progress, save


class Problem(NamedTuple):
    """A convolution of 3x3 taps."""

    channels: int
    outputs: int
    extent: int


PROBLEMS = {
    "8 -> 8, 64x64": Problem(8, 8, 64),
    "32 -> 32, 56x56": Problem(32, 32, 56),
    "64 -> 64, 112x112": Problem(64, 64, 112),
}
BUSY = "while True: pass"


def repeat(problem: Problem, seconds: float) -> dict[str, float]:
    """What one process finds; it starts when it is told to."""
    import numpy as np

    import numbaconv

    x = np.ones((1, problem.channels, problem.extent, problem.extent), np.float32)
    w = np.ones((problem.outputs, problem.channels, 3, 3), np.float32)
    for _ in range(20):
        numbaconv.conv2d(x, w, padding=1)
    print("ready", flush=True)
    sys.stdin.readline()
    times, last = [], time.perf_counter()
    end = last + seconds
    while last < end:
        numbaconv.conv2d(x, w, padding=1)
        now = time.perf_counter()
        times.append(now - last)
        last = now
    times.sort()
    median = times[len(times) // 2]
    over = sum(each > 20 * median for each in times)
    return {"rate": len(times) / seconds, "median": median, "worst": times[-1] / median, "over": over / len(times)}


def together(name: str, seconds: float, copies: int, programs: int) -> list[dict[str, float]]:
    """What copies of a process find at once, beside so many programs."""
    command = [sys.executable, __file__, "--only", name, "--seconds", str(seconds), "--repeat"]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(copies)
    ]
    others = []
    try:
        for each in processes:
            if each.stdout.readline().strip() != "ready":
                raise SystemExit("a copy did not start")
        others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(programs)]
        for each in processes:
            each.stdin.write("\n")
            each.stdin.flush()
        return [json.loads(each.communicate()[0]) for each in processes]
    finally:
        for each in (*processes, *others):
            each.kill()
            each.wait()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--output", type=Path, help="a folder for what is measured, e.g. perf/results")
    options.add_argument("--seconds", type=float, default=2.0)
    options.add_argument("--programs", type=int, default=os.cpu_count())
    options.add_argument("--only", default="", help="problems whose name contains this")
    options.add_argument("--repeat", action="store_true", help="be one of the processes")
    arguments = options.parse_args()
    problems = {name: each for name, each in PROBLEMS.items() if arguments.only in name}
    if arguments.repeat:
        print(json.dumps(repeat(next(iter(problems.values())), arguments.seconds)))
        return
    table = Table("3x3", "beside it", "calls a second", "of one alone", "median, ms", "worst / median", "over 20, ppm")
    records: list[dict[str, Any]] = []
    for name in progress(list(problems)):
        alone = 0.0
        rows = {"nothing": (1, 0), "a copy": (2, 0), f"{arguments.programs} programs": (1, arguments.programs)}
        for beside, (copies, programs) in rows.items():
            found = together(name, arguments.seconds, copies, programs)
            rate = sum(each["rate"] for each in found)
            alone = alone or rate
            worst, over = max(each["worst"] for each in found), max(each["over"] for each in found)
            record = {"rate": rate, "share": rate / alone, "median": found[0]["median"], "worst": worst, "over": over}
            records.append({"problem": name, "beside": beside, **record})
            numbers = (f"{rate / alone:.2f}", f"{record['median'] * 1e3:.3f}", f"{worst:.0f}", f"{over * 1e6:.0f}")
            table.add_row(name, beside, f"{rate:.0f}", *numbers)
    console().print(table)
    save(arguments.output, "busy", {"records": records})


if __name__ == "__main__":
    main()
