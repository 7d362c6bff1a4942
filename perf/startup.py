"""What the first call of a process costs: with compiled kernels on disk, and without.

    python perf/startup.py [--layers TEXT ...] [--repeats 5] [--output perf/results]

One forward call of one layer in a fresh process, from the process's start to its end, less what a process takes
that imports numba alone; least times of processes that take turns. First with an empty NUMBA_CACHE_DIR (cold, once, and
also the call alone, as the process times it), then with what that has left there (cached). Beside it, what Numba itself
needs (floor): a process that calls one cached parallel function of one array, by Numba alone. Without ``--layers``, the
first layer of the table for each algorithm that is chosen for one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.table import Table

import numbaconv
from command import chosen, console, parser, progress, save
from numbaconv.bench.layer_table import Layer

IMPORT = "import numba"
IMPORT_ALONE = "import time, numpy; begin = time.perf_counter(); import numbaconv; print(time.perf_counter() - begin)"
FLOOR = """
import numba, numpy

@numba.njit(parallel=True, cache=True)
def add_one(array):
    for i in numba.prange(array.size):
        array[i] += 1
"""
CALL_FLOOR = "import sys, numpy; sys.path.insert(0, {folder!r}); import floor; floor.add_one(numpy.zeros(100, 'f4'))"
CALL = """
import time, numpy, numba, numbaconv
x, w = numpy.ones({input}, numpy.float32), numpy.ones({weight}, numpy.float32)
begin = time.perf_counter()
numbaconv.{name}(x, w, **{arguments})
print(time.perf_counter() - begin)
"""


def script(layer: Layer) -> str:
    """A program that makes the call."""
    name = f"conv_transpose{layer.rank}d" if layer.transposed else f"conv{layer.rank}d"
    shapes = {"input": layer.input_shape, "weight": layer.weight_shape}
    return CALL.format(name=name, arguments=layer.arguments, **shapes)


def run(program: str, cache: str) -> tuple[float, float]:
    """Seconds of a process, and those it prints."""
    begin = time.perf_counter()
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(done.stderr)
    return seconds, float(done.stdout or 0)


def cost(layer: Layer, repeats: int) -> dict[str, float]:
    """Seconds beyond numba's import."""
    program = script(layer)
    with tempfile.TemporaryDirectory() as cache:
        run(IMPORT, cache)  # from the disk into memory
        cold, cold_call = run(program, cache)
        Path(cache, "floor.py").write_text(FLOOR)
        floor_program = CALL_FLOOR.format(folder=cache)
        run(floor_program, cache)
        alone, floor, cached = [], [], []
        for _ in range(repeats):
            alone.append(run(IMPORT, cache)[0])
            floor.append(run(floor_program, cache)[0])
            cached.append(run(program, cache)[0])
    least = min(alone)
    beyond = {"floor": min(floor) - least, "cached": min(cached) - least, "cold": cold - least}
    return {"import": least, **beyond, "cold call": cold_call}


def explained(layer: Layer) -> str:
    """The algorithm that is chosen."""
    options = {"transposed": layer.transposed, **layer.arguments}
    return str(numbaconv.explain(layer.input_shape, layer.weight_shape, **options).algorithm)


def layers(arguments: argparse.Namespace) -> list[tuple[str, Layer]]:
    """What to measure, with its algorithm."""
    found = [(explained(layer), layer) for _, layer in chosen(arguments)]
    if arguments.layers != [""]:
        return found
    return list({algorithm: (algorithm, layer) for algorithm, layer in reversed(found)}.values())


def main() -> None:
    options = parser(__doc__, directions=False)
    options.add_argument("--repeats", type=int, default=5)
    arguments = options.parse_args()
    records: list[dict[str, Any]] = []
    costs = (
        "numba's import, s",
        "Numba's floor: beyond it, s",
        "cached: beyond it, s",
        "cold: beyond it, s",
        "cold: the call, s",
    )
    table = Table("layer", "algorithm", *costs)
    for algorithm, layer in progress(layers(arguments)):
        found = cost(layer, arguments.repeats)
        records.append({"layer": layer.name, "algorithm": algorithm, **found})
        table.add_row(layer.name.split("/", 1)[-1], algorithm, *(f"{value:.2f}" for value in found.values()))
    console().print(table)
    with tempfile.TemporaryDirectory() as cache:
        importing = min(run(IMPORT_ALONE, cache)[1] for _ in range(arguments.repeats))
    console().print(f"importing numbaconv beside NumPy: {importing * 1e3:.0f} ms (asked: 50)")
    most = {name: max(record[name] for record in records) for name in ("floor", "cached", "cold", "cold call")}
    save(arguments.output, "startup", {"summary": {**most, "import numbaconv": importing}, "records": records})


if __name__ == "__main__":
    main()
