"""The CUDA backend on a GPU: whether it is right, whether it is the same each time, and how fast it is.

    python perf/gpu_report.py --output gpu.html [--part 1/3] [--only checks|times] [--layers TEXT ...] [--seconds 450]
    python perf/gpu_report.py --merge gpu1.html gpu2.html --output gpu.html
    python perf/gpu_report.py --smoke --output smoke.html

It needs numba, numba-cuda, numpy and, for times, PyTorch; nothing has to be installed from this checkout. The one file
that it writes has a picture, the tables that it prints, and all that was measured, as JSON. It is written again after
each layer, and no layer is begun after ``--seconds``: what was not reached is listed. Much of the time is compiling
kernels, so ``--part 2/3``, every third layer from the second on, takes more than a third of it. ``--smoke`` runs all of
it in Numba's simulator on layers of a few cells, where times mean nothing. The exit status is 1 if anything was wrong.

What fails is written down, and the rest goes on: an exception, and an access that is not allowed, after which CUDA
refuses everything in a process. The rest is then measured by another one, without the algorithm that was running. A
kernel that does not end ends the program a minute after ``--seconds``.

`gpu_checks` and `gpu_memory` say what is checked, the latter with the first part alone; `gpu_times` what is timed.
"""

import argparse
import faulthandler
import os
import subprocess
import sys
import tempfile
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
    parser.add_argument("--begin", type=int, help="layers to pass over, and what is checked before the first one")
    parser.add_argument("--without", nargs="+", default=[], help="algorithms that are left out")
    arguments = parser.parse_args()
    try:
        part, parts = map(int, arguments.part.split("/"))
    except ValueError:
        parser.error(f"--part must be I/N, but is {arguments.part}")
    if not 1 <= part <= parts:
        parser.error(f"--part must be I/N with I from 1 to N, but is {arguments.part}")
    arguments.part = part, parts
    return arguments


class LostDeviceError(Exception):
    """The device refuses everything, since a kernel did what is not allowed; its argument is that one's record."""


def _measured(arguments: argparse.Namespace, write: Any) -> dict[str, Any]:
    """Every layer's checks and times."""
    begin = time.perf_counter()
    if not arguments.smoke:
        faulthandler.dump_traceback_later(arguments.seconds + 60, exit=True)
    report = _new_report(arguments)
    timer = _timer(arguments, report)
    layers = _layers(arguments)
    first = at = arguments.begin or 0
    try:
        if arguments.only != "times" and arguments.part[0] == 1 and arguments.begin is None:
            _memory(arguments, report)
            _say(begin, "memory and graphs")
        for at in range(first, len(layers)):
            if time.perf_counter() - begin > arguments.seconds:
                report["not reached"] += [layer.name for layer in layers[at:]]
                break
            _of_layer(layers[at], arguments, timer, report)
            report["seconds"] = time.perf_counter() - begin
            write(arguments.output, report)
            _say(begin, layers[at].name)
    except LostDeviceError as lost:
        (record,) = lost.args
        report["lost"].append(record)
        write(arguments.output, report)
        # What was checked of this layer is checked again, without what went wrong.
        known = record.get("algorithm")
        left = arguments.seconds - (time.perf_counter() - begin)
        if known:
            for kind in ("checks", "times"):
                report[kind] = [each for each in report[kind] if each["layer"] != layers[at].name]
        faulthandler.cancel_dump_traceback_later()
        report = _elsewhere(report, at if known else at + 1, [*arguments.without, *([known] if known else [])], left)
    faulthandler.cancel_dump_traceback_later()
    return report


def _new_report(arguments: argparse.Namespace) -> dict[str, Any]:
    """A report of nothing, and where it is of."""
    import numbaconv
    from numbaconv.bench.machine import machine

    status = numbaconv.backends()["cuda"]
    if not status.available:
        raise SystemExit(status.reason)
    from numbaconv.backends.registry import resolve

    return {
        "device": resolve("cuda").host(),
        "machine": machine(),
        "simulated": arguments.smoke,
        "peak": {},
        **{name: [] for name in ("checks", "memory", "times", "not reached", "failed", "lost")},
    }


def _say(begin: float, what: str) -> None:
    print(f"\n{time.perf_counter() - begin:5.0f} s  {what}", file=sys.stderr, flush=True)


def _timer(arguments: argparse.Namespace, report: dict[str, Any]) -> Any:
    """What times, if times are wanted and PyTorch can be used; and what it measures first."""
    if arguments.only == "checks":
        return None
    try:
        from gpu_times import Timer
    except ImportError as error:
        print(f"no times: {error}", file=sys.stderr)
        return None
    timer = None
    try:
        timer = Timer(not arguments.smoke)
        report["peak"] = timer.peak()
    except Exception as error:  # a PyTorch that does not know the device, say: the rest goes on
        report["failed"].append({"what": "PyTorch's products", "error": f"{type(error).__name__}: {error}"})
    return timer


def _memory(arguments: argparse.Namespace, report: dict[str, Any]) -> None:
    import gpu_memory

    for record in gpu_memory.check(not arguments.smoke, 1 if arguments.smoke else 1000):
        report["memory"].append(record)
        _check_device(record, not record["right"])


def _of_layer(layer: Any, arguments: argparse.Namespace, timer: Any, report: dict[str, Any]) -> None:
    """A layer's records; whatever else fails is written down."""
    try:
        for kind, record in _records(layer, arguments, timer):
            report[kind].append(record)
            if kind == "checks":
                print(f" {record['direction']}/{record['algorithm']}", end="", file=sys.stderr, flush=True)
            _check_device(record, "error" in record or any(record.get("errors", ())))
    except LostDeviceError:
        raise
    except Exception as error:
        record = {"layer": layer.name, "what": layer.name, "error": f"{type(error).__name__}: {error}"}
        report["failed"].append(record)
        _check_device(record, True)


def _check_device(record: dict[str, Any], failed: bool) -> None:
    """Raise if something failed and the device refuses everything since."""
    reason = _is_lost() if failed else None
    if reason is not None:
        raise LostDeviceError({**record, "error": record.get("error") or reason})


def _is_lost() -> str | None:
    """Why the device refuses everything, if it does."""
    from numba import cuda

    try:
        cuda.synchronize()
    except Exception as error:  # whatever its bindings raise
        return str(error)
    return None


def _elsewhere(report: dict[str, Any], begin: int, without: list[str], seconds: float) -> dict[str, Any]:
    """The report, and what another process measures from a layer on."""
    import gpu_file

    environment = {**os.environ, "NUMBACONV_DISABLE": ",".join(without)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rest.html"
        command = [sys.executable, __file__, *sys.argv[1:], "--output", str(path)]
        command += ["--begin", str(begin), "--seconds", str(max(seconds, 0.0))]
        command += ["--without", *without] if without else []
        done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
        if path.exists():
            return gpu_file.merged([report, gpu_file.read(path)])
    report["failed"].append({"what": "the rest", "error": f"another process ended with status {done.returncode}"})
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
                for record in gpu_checks.check(
                    layer.of_batch(each), kind, arguments.directions, arrays, against, arguments.without
                ):
                    yield "checks", record
    if timer:
        for kind in gpu_checks.KINDS:
            for direction in arguments.directions:
                yield "times", timer.time(layer.of_batch(batch), kind, direction)


if __name__ == "__main__":
    sys.exit(main())
