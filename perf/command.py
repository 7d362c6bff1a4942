"""What the tools of this folder share: options, the choice of layers, worker processes, files of results."""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

import layer_table
from layer_table import Layer

HERE = Path(__file__).parent
Step = TypeVar("Step")
DIRECTIONS = ("forward", "input", "weight")


def parser(description: str | None, directions: bool = True) -> argparse.ArgumentParser:
    """The options that choose layers."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--table", default="speed.csv", help="a file of layers/")
    made.add_argument("--layers", nargs="*", default=[""], help="only layers whose name contains one of these")
    if directions:
        made.add_argument("--directions", nargs="+", default=list(DIRECTIONS), choices=DIRECTIONS)
    made.add_argument("--output", type=Path, help="a folder for what is measured, e.g. perf/results")
    return made


def chosen(arguments: argparse.Namespace) -> list[tuple[int, Layer]]:
    """The layers that the options choose, each with its row in the table."""
    rows = enumerate(layer_table.read(arguments.table))
    found = [(row, layer) for row, layer in rows if any(part in layer.name for part in arguments.layers)]
    if not found:
        raise SystemExit(f"no layer of {arguments.table} is called {' or '.join(arguments.layers)}")
    return found


def cases(arguments: argparse.Namespace) -> list[tuple[int, Layer, str]]:
    """Row, layer and direction of everything to measure."""
    return [(row, layer, direction) for direction in arguments.directions for row, layer in chosen(arguments)]


class Worker:
    """A process that answers requests: one line of JSON for each."""

    def __init__(self, script: str, *arguments: str, threads: int, environment: dict[str, str] | None = None):
        count = str(threads)
        variables = {**os.environ, "OMP_NUM_THREADS": count, "NUMBA_NUM_THREADS": count, **(environment or {})}
        self._command = [sys.executable, str(HERE / script), *arguments]
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            print(json.dumps(request), file=stdin, flush=True)
            answer = stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise SystemExit(f"{' '.join(self._command)} ended; see its message above")
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        self._process.communicate()


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer requests until the input ends; what runs in a `Worker`'s process."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


def console() -> Console:
    """Where tables go: wide enough for them in a file."""
    return Console(width=None if sys.stdout.isatty() else 180)


def progress(steps: Sequence[Step]) -> Iterable[Step]:
    """The steps, with a bar on standard error, so that tables can be sent to a file."""
    return track(steps, "layers", console=Console(stderr=True))


def geometric_mean(values: Iterable[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    found: dict[str, Any] = {
        "processor": llvm.get_host_cpu_name(),
        "vectors": "AVX-512" if features.get("avx512f") else "AVX2" if features.get("avx2") else "128 bits",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    for package in ("numbaconv", "numba", "numpy", "torch", "onnxruntime"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def save(folder: Path | None, name: str, content: dict[str, Any]) -> None:
    """Write ``name.json`` with the machine's description, if there is a folder to write it to."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"machine": machine(), **content}, indent=1)
        (folder / f"{name}.json").write_text(text + "\n")
