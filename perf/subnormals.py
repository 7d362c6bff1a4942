"""What subnormal operands cost, for each algorithm and direction, without and with `numbaconv.flush_subnormals`.

    python perf/subnormals.py [--dtype float32] [--only TEXT] [--output perf/results]

Times on one thread, as multiples of the time with normal operands: with every value of the source subnormal, and with
every second one, where sums go back and forth between both kinds. Flushed, at most 1.2 is asked for. On some processors
nothing is to be seen (AMD Zen 5: at most 1.3 without flushing, for FFT), on others both columns without flushing are in
the hundreds (Intel Sapphire and Emerald Rapids).
"""

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from rich.table import Table

import numbaconv
from command import console, progress, save
from numbaconv import grad
from numbaconv.backends.base import Direction
from numbaconv.backends.cpu import BACKEND


class Problem(NamedTuple):
    """A problem of a few milliseconds at most."""

    input: tuple[int, ...]
    weight: tuple[int, ...]
    options: dict[str, Any]


DENSE = Problem((5, 24, 19, 27), (48, 24, 3, 3), {"padding": 1})
PROBLEMS = {
    "fft": Problem((3, 5, 3000), (6, 5, 200), {}),
    "depthwise": Problem((5, 24, 41, 50), (24, 1, 3, 3), {"padding": 1, "groups": 24}),
    "small_gemm": Problem((13, 56, 9, 10), (72, 56, 1, 1), {}),
    "folded_gemm": Problem((3, 3, 61, 70), (20, 3, 7, 7), {"padding": 3, "stride": 2}),
    "direct": Problem((2, 8, 19, 27), (8, 8, 3, 3), {"padding": 1}),
}
#: Operands: every so many values of the source are subnormal.
KINDS = {"normal": 0, "every value": 1, "every second": 2}


def call_of(problem: Problem, direction: Direction, algorithm: str, dtype: str, every: int) -> Callable[[], object]:
    """A call whose source has subnormal values."""
    rng = np.random.default_rng(0)
    output = numbaconv.output_shape(problem.input, problem.weight, **problem.options)
    x, w, g = (rng.standard_normal(shape).astype(dtype) for shape in (problem.input, problem.weight, output))
    source = g if direction is Direction.INPUT_GRAD else x
    if every:
        source.reshape(-1)[::every] *= np.finfo(dtype).smallest_normal / 64
    options = {**problem.options, "algorithm": algorithm, "backend": "cpu"}
    name = f"conv{x.ndim - 2}d"
    if direction is Direction.FORWARD:
        return lambda: getattr(numbaconv, name)(x, w, **options)
    if direction is Direction.INPUT_GRAD:
        return lambda: getattr(grad, f"{name}_input")(x.shape, w, g, **options)
    return lambda: getattr(grad, f"{name}_weight")(x, w.shape, g, **options)


def least_times(calls: dict[str, Callable[[], object]], rounds: int = 7) -> dict[str, float]:
    """The least time of each call; they take turns."""
    found = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            found[name] = min(found[name], time.perf_counter() - begin)
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    options.add_argument("--only", default="", help="algorithms whose name contains this")
    options.add_argument("--output", type=Path, help="a folder for what is measured, e.g. perf/results")
    arguments = options.parse_args()
    numba.set_num_threads(1)
    algorithms = [
        (direction, each.name)
        for direction, table in BACKEND.tables.items()
        for each in table
        if arguments.only in each.name
    ]
    heads = [f"{how}: {kind}" for how in ("as usual", "flushed") for kind in list(KINDS)[1:]]
    table, records = Table("direction", "algorithm", "normal, ms", *heads, "flushed: normal"), []
    for direction, name in progress(algorithms):
        problem, found = PROBLEMS.get(name, DENSE), {}
        for how in ("as usual", "flushed"):
            calls = {k: call_of(problem, direction, name, arguments.dtype, each) for k, each in KINDS.items()}
            with numbaconv.flush_subnormals() if how == "flushed" else nullcontext():
                found |= {f"{how}: {kind}": seconds for kind, seconds in least_times(calls).items()}
        normal = found["as usual: normal"]
        ratios = {head: found[head] / normal for head in (*heads, "flushed: normal")}
        records.append({"direction": direction.name, "algorithm": name, "normal": normal, **ratios})
        table.add_row(direction.name, name, f"{normal * 1e3:.2f}", *(f"{value:.2f}" for value in ratios.values()))
    console().print(table)
    save(arguments.output, "subnormals", {"dtype": arguments.dtype, "records": records})


if __name__ == "__main__":
    main()
