"""What only a device can show: no memory is leaked over 1,000 calls, and CUDA graphs give the bits of calls."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
#: In a process of its own: a process that has asked a driver cannot be forked for CUDA any more.
PROGRAM = """
import json, sys
sys.path.insert(0, "perf")
import numbaconv
status = numbaconv.backends()["cuda"]
if status.available:
    import gpu_memory
    print(json.dumps(list(gpu_memory.check(True, 1000))))
else:
    print(json.dumps(status.reason))
"""


def test_memory_and_graphs():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    if isinstance(found, str):
        pytest.skip(f"there is no device to leak memory on: {found}")
    assert {record["what"] for record in found} >= {"1,000 calls", "graph"}
    assert not [record for record in found if not record["right"]]
