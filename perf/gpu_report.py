"""The CUDA backend on a GPU: whether it is right, whether it is the same each time, and how fast it is.

    python perf/gpu_report.py --output gpu.html [--part 1/3] [--only checks|times] [--layers TEXT ...] [--seconds 450]
    python perf/gpu_report.py --merge gpu1.html gpu2.html --output gpu.html
    python perf/gpu_report.py --smoke --output smoke.html

It needs numba, numba-cuda, numpy and, for times, PyTorch; nothing has to be installed from this checkout. The one file
that it writes has a picture, the tables that it prints, and all that was measured, as JSON. It is written again after
each layer, and no layer is begun after ``--seconds``: what was not reached is listed. Much of the time is compiling
kernels, so ``--part 2/3``, every third layer from the second on, takes more than a third of it. ``--smoke`` runs all of
it in Numba's simulator on layers of a few cells, where times mean nothing. The exit status is 1 if anything was wrong.

`gpu_checks` and `gpu_memory` say what is checked, the latter with the first part alone; `gpu_times` what is timed.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DIRECTIONS = ("forward", "input", "weight")


def main() -> int:
    arguments = _arguments()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, not what is installed
    os.environ["NUMBACONV_TUNE"] = "0"  # the automatic choice, whatever was tuned here
    if arguments.smoke:
        os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
        sys.setswitchinterval(1e-4)  # the simulator's threads take turns at barriers
    import gpu_file

    if arguments.merge:
        report = gpu_file.merged([gpu_file.read(path) for path in arguments.merge])
    else:
        report = _measured(arguments, gpu_file.write)
    gpu_file.write(arguments.output, report)
    print(gpu_file.text(report))
    return 0 if gpu_file.is_right(report) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("gpu_report.html"))
    parser.add_argument("--merge", type=Path, nargs="+", help="measure nothing: put these reports together")
    parser.add_argument("--smoke", action="store_true", help="in the simulator, on toy layers")
    parser.add_argument("--part", default="1/1", help="I/N: every Nth layer, from the Ith on")
    parser.add_argument("--only", choices=("checks", "times"))
    parser.add_argument("--table", default="speed.csv", help="a file of numbaconv/bench/layers/")
    parser.add_argument("--layers", nargs="*", default=[""], help="only layers whose name contains one of these")
    parser.add_argument("--directions", nargs="+", default=list(DIRECTIONS), choices=DIRECTIONS)
    parser.add_argument("--batch", type=int, default=32, help="checked beside the layers' own; timed")
    parser.add_argument("--seconds", type=float, default=450, help="after which no layer is begun")
    arguments = parser.parse_args()
    try:
        part, parts = map(int, arguments.part.split("/"))
    except ValueError:
        parser.error(f"--part must be I/N, but is {arguments.part}")
    if not 1 <= part <= parts:
        parser.error(f"--part must be I/N with I from 1 to N, but is {arguments.part}")
    arguments.part = part, parts
    return arguments


def _measured(arguments: argparse.Namespace, write: Any) -> dict[str, Any]:
    """Every layer's checks and times."""
    begin = time.perf_counter()
    import numbaconv
    from numbaconv.bench.machine import machine

    status = numbaconv.backends()["cuda"]
    if not status.available:
        raise SystemExit(status.reason)
    from numbaconv.backends.registry import resolve

    timer = None
    if arguments.only != "checks":
        try:
            from gpu_times import Timer
        except ImportError as error:
            print(f"no times: {error}", file=sys.stderr)
        else:
            timer = Timer(not arguments.smoke)
    report: dict[str, Any] = {
        "device": resolve("cuda").host(),
        "machine": machine(),
        "simulated": arguments.smoke,
        "peak": timer.peak() if timer else {},
        "checks": [],
        "memory": [],
        "times": [],
        "not reached": [],
    }
    if arguments.only != "times" and arguments.part[0] == 1:
        import gpu_memory

        report["memory"] += gpu_memory.check(not arguments.smoke, 1 if arguments.smoke else 1000)
        print(f"{time.perf_counter() - begin:5.0f} s  memory and graphs", file=sys.stderr, flush=True)
    for layer in _layers(arguments):
        if time.perf_counter() - begin > arguments.seconds:
            report["not reached"].append(layer.name)
            continue
        for kind, record in _records(layer, arguments, timer):
            report[kind].append(record)
        report["seconds"] = time.perf_counter() - begin
        write(arguments.output, report)
        print(f"{report['seconds']:5.0f} s  {layer.name}", file=sys.stderr, flush=True)
    return report


def _layers(arguments: argparse.Namespace) -> list[Any]:
    from numbaconv.bench import layer_table

    part, parts = arguments.part
    found = _toys() if arguments.smoke else layer_table.read(arguments.table)
    chosen = [each for each in found if any(word in each.name for word in arguments.layers)][part - 1 :: parts]
    if not chosen:
        raise SystemExit(f"no layer of {arguments.table} is called {' or '.join(arguments.layers)}")
    return chosen


def _toys() -> list[Any]:
    """Layers that the simulator computes in a second or two: strides and uneven padding, 3x3, groups, transposed."""
    from numbaconv.bench.layer_table import Layer

    plain = {"stride": (2, 1), "padding": ((1, 1), (0, 1)), "dilation": (1, 1), "groups": 1}
    grouped = {"stride": (1,), "padding": ((1, 1),), "dilation": (1,), "groups": 4}
    small = {"stride": (1, 1), "padding": ((1, 1), (1, 0)), "dilation": (1, 1), "groups": 1}
    turned = {"stride": (2, 2), "padding": ((1, 1), (0, 0)), "dilation": (1, 1), "groups": 1}
    turned["output_padding"] = (1, 0)
    return [
        Layer("toy/strided", False, (1, 8, 4, 3), (5, 8, 3, 2), plain, (1, 5, 2, 3), 0.0, False),
        Layer("toy/3x3", False, (2, 3, 3, 4), (4, 3, 3, 3), small, (2, 4, 3, 3), 0.0, False),
        Layer("toy/depthwise", False, (1, 4, 5), (4, 1, 3), grouped, (1, 4, 5), 0.0, False),
        Layer("toy/transposed", True, (1, 3, 2, 2), (3, 4, 3, 2), turned, (1, 4, 4, 4), 0.0, False),
    ]


def _records(layer: Any, arguments: argparse.Namespace, timer: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where a record belongs, and the record."""
    import gpu_checks
    from numbaconv.bench.peers import operands

    own, batch = layer.input_shape[0], 2 if arguments.smoke else arguments.batch
    if arguments.only != "times":
        against = {"backend": "reference"} if arguments.smoke else gpu_checks.ON_HOST
        for each in sorted({own, batch}):
            arrays = operands(layer.of_batch(each))
            for kind in gpu_checks.KINDS:
                for record in gpu_checks.check(layer.of_batch(each), kind, arguments.directions, arrays, against):
                    yield "checks", record
    if timer:
        for kind in gpu_checks.KINDS:
            for direction in arguments.directions:
                yield "times", timer.time(layer.of_batch(batch), kind, direction)


if __name__ == "__main__":
    sys.exit(main())
