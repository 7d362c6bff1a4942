"""Memory that a call takes beyond its operands and its result, numbaconv's and PyTorch's. Linux only.

    python perf/memory.py [--directions forward input weight] [--layers TEXT ...] [--output perf/results]

Each has a process. A layer's call runs once, so that code is loaded and compiled; then numbaconv drops the scratch
buffers that it keeps for later calls, the allocator gives back what is free, ``/proc/self/clear_refs`` sets the
high-water mark of resident memory (VmHWM) to what is resident now, and the call runs again. What the mark rises by,
less the bytes of the result, is what is reported. For the numbers to be those of pages really touched, the allocator
maps each block over 64 KiB by itself (MALLOC_MMAP_THRESHOLD_) and pages are not huge. The system counts pages by
processor, in steps of some dozens: a difference under ``--tolerance`` means nothing.
"""

import ctypes
import gc
import math
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from command import cases, console, parser, progress, save
from numbaconv.bench import layer_table
from numbaconv.bench.layer_table import Layer
from numbaconv.bench.peers import PEERS
from numbaconv.bench.workers import Worker, serve

NAMES = ("numbaconv", "torch")
_DISABLE_HUGE_PAGES = 41  # PR_SET_THP_DISABLE of prctl
_MAP_ALONE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}


def _status(name: str) -> int:
    """Bytes, from /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise SystemExit(f"/proc/self/status has no {name}")


def _settle() -> None:
    """Give back what is free, and start the high-water mark anew."""
    if "numbaconv.backends.cpu.workspace" in sys.modules:
        sys.modules["numbaconv.backends.cpu.workspace"]._waiting.clear()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def _result_bytes(layer: Layer, direction: str) -> int:
    shapes = {"forward": layer.output_shape, "input": layer.input_shape, "weight": layer.weight_shape}
    return 4 * math.prod(shapes[direction])


def _worker(name: str) -> None:
    ctypes.CDLL(None).prctl(_DISABLE_HUGE_PAGES, 1, 0, 0, 0)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        layer = layer_table.read(request["table"])[request["row"]]
        call = PEERS[name](layer, request["direction"])
        call()
        _settle()
        before = _status("VmRSS")
        call()
        return {"beyond": _status("VmHWM") - before - _result_bytes(layer, request["direction"])}

    serve(answer)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--tolerance", type=float, default=0.25, help="MiB")
    options.add_argument("--worker", choices=NAMES, help="answer requests on standard input")
    arguments = options.parse_args()
    if arguments.worker:
        _worker(arguments.worker)
        return
    workers = {
        name: Worker(__file__, "--worker", name, threads=arguments.threads, environment=_MAP_ALONE) for name in NAMES
    }
    records, above = [], {}
    table = Table("layer", "direction", *(f"{name}, MiB" for name in NAMES), "against PyTorch")
    for row, layer, direction in progress(cases(arguments)):
        request = {"table": arguments.table, "row": row, "direction": direction}
        beyond = {name: worker.ask(**request)["beyond"] / 2**20 for name, worker in workers.items()}
        records.append({"layer": layer.name, "direction": direction, "MiB": beyond})
        excess = beyond["numbaconv"] - beyond["torch"]
        if excess > arguments.tolerance:
            above[f"{layer.name} {direction}"] = excess
        figures = (f"{value:.2f}" for value in beyond.values())
        note = "more" if excess > arguments.tolerance else ""
        table.add_row(layer.name.split("/", 1)[-1], direction, *figures, note)
    for worker in workers.values():
        worker.close()
    console().print(table)
    console().print(f"more than PyTorch's on {len(above)} of {len(records)} rows")
    found = {"above": len(above), "rows": len(records), "rows above": above}
    save(arguments.output, "memory", {"threads": arguments.threads, "summary": found, "records": records})


if __name__ == "__main__":
    main()
