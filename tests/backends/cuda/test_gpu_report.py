"""``perf/gpu_report.py`` from end to end in the simulator, so that it works on the day that there is a GPU."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest
from simulation import SIMULATOR, one_core

from numbaconv.backends.cuda import BACKEND

PROGRAM = Path(__file__).parents[3] / "perf" / "gpu_report.py"
#: What it must do without: neither this package nor what only other tools need is there.
HIDDEN = ("ml_dtypes", "matplotlib", "platformdirs", "rich")
#: Runs the program with the rest of its arguments where these modules cannot be imported.
WITHOUT = f"""
import os, runpy, sys
for name in {HIDDEN}:
    sys.modules[name] = None
turns = sys.argv.pop(1)
if turns:
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
    sys.path.insert(0, turns)
    from turns import take_turns
    take_turns()
sys.path.insert(0, sys.argv[1].rpartition("/")[0])
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def report(*arguments, turns=""):
    """Run the program; in the simulator in turns, where ``turns`` is this folder."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBACONV_", "NUMBA_"))}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, turns, PROGRAM.as_posix(), *map(str, arguments)],
        env=clean,
        cwd=PROGRAM.parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=one_core,
    )


def content(path):
    page = path.read_text(encoding="utf-8")
    return json.loads(page.partition('id="report">')[2].rpartition("</script>")[0])


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The files of both halves of a run."""
    found = [tmp_path_factory.mktemp("report") / f"{part}.html" for part in (1, 2)]
    for part, path in enumerate(found, 1):
        done = report("--smoke", "--part", f"{part}/2", "--output", path, turns=str(Path(__file__).parent))
        assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return found


@SIMULATOR
def test_end_to_end(tmp_path, parts):
    whole = tmp_path / "whole.html"
    done = report("--merge", *parts, "--output", whole)
    assert done.returncode == 0, done.stderr[-3000:]
    found = content(whole)
    layers = {"toy/strided", "toy/3x3", "toy/depthwise", "toy/transposed"}
    assert {record["layer"] for record in found["checks"]} == layers
    assert {record["algorithm"] for record in found["checks"]} >= {
        "direct",
        "implicit_gemm",
        "tensor_core_3xtf32",
        "winograd",
        "winograd_2x2",
    }
    assert {record["direction"] for record in found["checks"]} == {"forward", "input", "weight"}
    assert {record["batch"] for record in found["checks"]} == {1, 2}
    assert all(record["same bits"] and 0 <= record["of the bound"] <= 1 for record in found["checks"])
    assert {record["what"] for record in found["memory"]} == {"1 calls", "graph"}
    assert {record["algorithm"] for record in found["memory"]} == {
        each.name for table in BACKEND.tables.values() for each in table
    }
    assert done.stdout.count("0 wrong") == 3
    assert not found["not reached"]
    if find_spec("torch") is None:
        assert not found["times"]
        return
    assert len(found["times"]) == 4 * 3 * 2
    assert not any(record["errors"] for record in found["times"])
    assert {name for record in found["times"] for name in record["times"]} == {
        "numbaconv",
        "numbaconv_prepared",
        "numbaconv_prepared graph",
        *(f"{peer}{how}" for peer in ("cudnn", "cudnn_tf32", "cudnn_f16") for how in ("", " graph")),
    }
    assert "depthwise, prepared, kernels alone, vs cuDNN" in found["summary"]
    assert "<svg" in whole.read_text(encoding="utf-8")


@SIMULATOR
def test_a_smoke_test_finds_the_simulator_itself(tmp_path):
    path = tmp_path / "none.html"
    done = report("--smoke", "--only", "times", "--seconds", "0", "--output", path)
    assert done.returncode == 1, done.stderr[-3000:]  # nothing was checked
    assert content(path)["simulated"]
    assert len(content(path)["not reached"]) == 4


@SIMULATOR
def test_what_is_wrong_is_said(tmp_path, parts):
    """A result outside its bound, one that differs from run to run, and a leak are named, and end with a status."""
    path = tmp_path / "wrong.html"
    page = parts[0].read_text(encoding="utf-8")
    found = content(parts[0])
    found["checks"][0] |= {"right": False, "same bits": False}
    found["memory"][0] |= {"right": False, "error": "2 allocations were left behind"}
    head = page[: page.index('id="report">') + len('id="report">')]
    path.write_text(head + json.dumps(found) + "</script>", encoding="utf-8")
    done = report("--merge", path, "--output", tmp_path / "again.html")
    assert done.returncode == 1
    assert done.stdout.count("1 wrong") == 2
    wrong = found["memory"][0]
    place = f"{wrong['layer']} {wrong['kind']} {wrong['direction']} {wrong['algorithm']}"
    assert f"WRONG {place}: 2 allocations were left behind" in done.stdout
    wrong = found["checks"][0]
    assert f"WRONG {wrong['layer']} x{wrong['batch']}" in done.stdout


def test_parts_that_are_none(tmp_path):
    for part in ("3/2", "0/2", "x"):
        done = report("--smoke", "--part", part, "--output", tmp_path / "none.html")
        assert done.returncode == 2
        assert "--part must be I/N" in done.stderr


@pytest.fixture
def program(monkeypatch):
    """The report's program as a module, and arguments for it."""
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    spec = spec_from_file_location("gpu_report", PROGRAM)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def empty_report():
    return {name: [] for name in ("checks", "memory", "times", "not reached", "failed", "lost")}


def test_what_fails_leaves_the_rest(program, monkeypatch):
    """An exception beside the algorithms' own: of the host's, of PyTorch's, of memory that is not there."""
    layers = [SimpleNamespace(name="one"), SimpleNamespace(name="two")]

    def records(layer, arguments, timer):
        if layer.name == "one":
            raise MemoryError("no room")
        yield "checks", {"layer": layer.name, "direction": "forward", "algorithm": "direct", "right": True}

    monkeypatch.setattr(program, "_records", records)
    monkeypatch.setattr(program, "_is_lost", lambda: None)
    found = empty_report()
    for layer in layers:
        program._of_layer(layer, None, None, found)
    assert [each["layer"] for each in found["checks"]] == ["two"]
    assert found["failed"] == [{"layer": "one", "what": "one", "error": "MemoryError: no room"}]


def test_a_pytorch_that_cannot_be_used(program, monkeypatch):
    class Timer:
        def __init__(self, there):
            raise RuntimeError("Torch not compiled with CUDA enabled")

    monkeypatch.setitem(sys.modules, "gpu_times", SimpleNamespace(Timer=Timer))
    found = empty_report()
    assert program._timer(SimpleNamespace(only=None, smoke=False), found) is None
    assert "not compiled with CUDA" in found["failed"][0]["error"]


def test_a_lost_device(program, monkeypatch, tmp_path):
    """What a process cannot go on with is measured by another, from the same layer, without what went wrong."""
    layers = [SimpleNamespace(name=name) for name in ("one", "two", "three")]
    begun, record = [], {"direction": "forward", "kind": "float32", "batch": 1}

    def records(layer, arguments, timer):
        begun.append(layer.name)
        yield "checks", {**record, "layer": layer.name, "algorithm": "direct", "right": True}
        if layer.name == "two":
            yield "checks", {**record, "layer": "two", "algorithm": "winograd", "right": False, "error": "illegal"}
            pytest.fail("the process went on")

    commands = []

    def run(command, **options):
        commands.append((command, options["env"]["NUMBACONV_DISABLE"]))

        class Done:
            returncode = 1

        return Done

    monkeypatch.setattr(program, "_records", records)
    monkeypatch.setattr(program, "_is_lost", lambda: "illegal address")
    monkeypatch.setattr(program, "_layers", lambda arguments: layers)
    monkeypatch.setattr(program, "_new_report", lambda arguments: empty_report())
    monkeypatch.setattr(program.subprocess, "run", run)
    arguments = SimpleNamespace(
        only="checks", smoke=True, seconds=100, begin=0, without=["direct"], part=(1, 1), output=tmp_path / "x"
    )
    found = program._measured(arguments, lambda path, report: None)
    assert begun == ["one", "two"]
    assert [each["layer"] for each in found["checks"]] == ["one"]
    assert [(each["algorithm"], each["error"]) for each in found["lost"]] == [("winograd", "illegal")]
    ((command, disabled),) = commands
    assert command[command.index("--begin") + 1] == "1"
    assert command[command.index("--without") + 1 :] == ["direct", "winograd"]
    assert disabled == "direct,winograd"
    assert found["failed"][0]["error"] == "another process ended with status 1"
    import gpu_file

    assert not gpu_file.is_right(found)
