"""The examples of `examples/interop` that need ONNX or Dask; and what is said where those are missing."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "interop"


def _run(*command):
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def _printed(library, name, *arguments):
    """What an example prints; it must succeed."""
    if os.environ.get("NUMBACONV_REQUIRE_LIBRARIES"):
        import_module(library)
    pytest.importorskip(library)
    done = _run("-W", "error", str(EXAMPLES / name), *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_onnx_evaluator():
    lines = _printed("onnx", "onnx_evaluator.py").splitlines()[1:]
    found = [re.search(r"^(\w+) .* ms +(\d+) x +(\S+)$", line) for line in lines]
    assert all(found), lines
    operators = ["Conv", "Conv", "ConvTranspose", "ConvInteger", "Col2Im", "CausalConvWithState"]
    assert [each[1] for each in found] == operators
    assert max(float(each[3]) for each in found) < 1e-5
    # Loops in Python against compiled ones: whatever else the machine does.
    assert min(int(each[2]) for each in found if each[1] in ("ConvTranspose", "Col2Im")) >= 10


def test_dask_volume():
    printed = _printed("dask.array", "dask_volume.py", "--size", "100", "--chunk", "32")
    assert "volume: 4 MB in 64 chunks" in printed
    assert re.search(r"cells on an edge: \d+\.\d%", printed)
    assert "the bits of the same call in memory: True" in printed


@pytest.mark.parametrize("name", ["onnx", "dask"])
def test_a_missing_library_is_named_with_the_command_that_installs_it(name):
    done = _run("-c", f"import sys; sys.modules[{name!r}] = None; import numbaconv.interop.{name}")
    assert done.returncode == 1
    assert f"ImportError: numbaconv.interop.{name} needs {name}: pip install 'numbaconv[{name}]'" in done.stderr
