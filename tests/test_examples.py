"""Every example runs as a user would run it, and does what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# A pool's idle threads would spin while other processes, such as pytest-xdist's, want the cores.
ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "passive", "COLUMNS": "120", "PYTHONIOENCODING": "utf-8"}


def _run(example: Path, picture: Path) -> str:
    """What the example prints; it must succeed and save the picture."""
    command = [sys.executable, str(example), "--output", str(picture)]
    finished = subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        env=ENVIRONMENT,
        cwd=picture.parent.parent,
        timeout=900,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    content = picture.read_bytes()
    assert content.startswith(PNG_SIGNATURE)
    assert 30_000 < len(content) < 5_000_000
    return finished.stdout


def _digits(printed: str) -> None:
    accuracy = re.search(r"held-out accuracy: ([\d.]+)%", printed)
    assert accuracy, printed
    assert float(accuracy[1]) >= 98


def _filters(printed: str) -> None:
    differences = [float(each) for each in re.findall(r"\d\.\de[+-]\d\d", printed)]
    assert len(differences) == 7, printed
    assert max(differences) <= 1e-5


def _same_bits(printed: str) -> None:
    assert re.search(r"the same bits .*: yes", printed), printed


#: What each example must have printed. One without an entry fails.
CHECKS = {
    "digits_cnn.py": _digits,
    "njit_reaction.py": _same_bits,
    "photo_filters.py": _filters,
    "streaming_filter.py": _same_bits,
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example(example: Path, tmp_path: Path) -> None:
    assert example.name in CHECKS, f"{example.name} has no check in tests/test_examples.py"
    CHECKS[example.name](_run(example, tmp_path / "new folder" / "picture.png"))


def test_every_checked_example_exists() -> None:
    assert {path.name for path in EXAMPLES} == set(CHECKS)
