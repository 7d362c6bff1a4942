"""What the tools of this folder share: options, the choice of layers, files of results."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

from numbaconv.bench import layer_table
from numbaconv.bench.layer_table import Layer
from numbaconv.bench.machine import machine
from numbaconv.bench.ratios import DIRECTIONS

Step = TypeVar("Step")


def parser(description: str | None, directions: bool = True) -> argparse.ArgumentParser:
    """The options that choose layers."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--table", default="speed.csv", help="a file of numbaconv/bench/layers/")
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


def console() -> Console:
    """Where tables go: wide enough for them in a file."""
    return Console(width=None if sys.stdout.isatty() else 180)


def progress(steps: Sequence[Step]) -> Iterable[Step]:
    """The steps, with a bar on standard error, so that tables can be sent to a file."""
    return track(steps, "layers", console=Console(stderr=True))


def save(folder: Path | None, name: str, content: dict[str, Any]) -> None:
    """Write ``name.json`` with the machine's description, if there is a folder to write it to."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"machine": machine(), **content}, indent=1)
        (folder / f"{name}.json").write_text(text + "\n")
