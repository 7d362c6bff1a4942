"""Memory is addressed by pointers that are made from operands' own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_no_kernel_makes_a_pointer_of_an_integer(dtype):
    """LLVM 22 may build such an address anew on a null base where it unrolls a loop: a crash, or another array's cells.

    What is looked at is the code as it is written, before any optimisation: there it does not depend on what one
    release of LLVM makes of it, and a pointer that is one in the beginning remains one.
    """
    program = Path(__file__).with_name("emitted.py")
    done = subprocess.run([sys.executable, str(program), dtype], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    kernels = [json.loads(line) for line in done.stdout.splitlines()]
    names = {name.rsplit(".", 1)[-1] for name, _, _ in kernels}
    assert {"forward_tasks", "input_grad_tasks", "weight_grad_tasks", "fan_out"} <= names
    if dtype != "int64":
        assert {"depthwise_tasks", "patch_gemm_tasks", "transform_tasks", "small_gemm_tasks"} <= names
    assert all(functions > 0 for _, functions, _ in kernels)
    assert {name: lines for name, _, lines in kernels if lines} == {}
