"""Calls on a driver without a device: what Numba and its bindings are asked for, of which the simulator knows nothing.

The simulator has arrays, streams and contexts of its own, and takes any arguments. Here Numba's own are used, down to
the driver (`driver.c`), which does all but run kernels. It is compiled by ``cc``, and needs the extra ``test-cuda``.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import compile_check
import pytest

HERE = Path(__file__).parent


def test_calls_on_a_driver_without_a_device(tmp_path):
    absent = compile_check.missing() or (None if shutil.which("cc") else "cc, a C compiler, is not found")
    if absent is not None:
        message = f"there is no driver to be made: {absent}"
        if os.environ.get("NUMBACONV_REQUIRE_CUDA"):
            pytest.fail(message)
        pytest.skip(message)
    library = tmp_path / "libcuda.so.1"
    flags = ["-shared", "-fPIC", "-O1", "-w", "-o", str(library)]
    subprocess.run(["cc", *flags, str(HERE / "driver.c"), "-ldl"], check=True)
    (tmp_path / "libcuda.so").symlink_to(library)
    paths = [str(tmp_path), os.environ.get("LD_LIBRARY_PATH", "")]
    environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "on_driver.py")],
        env=environment,
        cwd=HERE.parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
