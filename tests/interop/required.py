"""No tests: what tests of each library need. Without it they are skipped; where it must be there they fail."""

import doctest
import inspect
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "interop"


def library(name):
    """The library; `NUMBACONV_REQUIRE_LIBRARIES` says that it must be there."""
    if os.environ.get("NUMBACONV_REQUIRE_LIBRARIES"):
        return import_module(name)
    return pytest.importorskip(name)


def example(name):
    """What an example prints; it must succeed."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        env={**os.environ, "OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def documented(module):
    """The functions of a module that its users call, with their examples run."""
    for name in module.__all__:
        value = getattr(module, name)
        if not inspect.isfunction(value):
            continue
        tests = doctest.DocTestFinder(recurse=False).find(value, name, module=False, globs={})
        assert any(each.examples for each in tests), f"{name} has no example"
        assert all(doctest.DocTestRunner(verbose=False).run(each).failed == 0 for each in tests), name
        for section in ("Parameters", "Returns", "Raises"):
            assert f"{section}\n{'-' * len(section)}" in inspect.getdoc(value), f"{name} has no section {section}"
        assert not re.search(r"\{\w*\}", value.__doc__) or name in ("patch", "unpatch"), f"{name}: an unfilled field"
        for parameter in inspect.signature(value).parameters:
            assert re.search(rf"\b{parameter}\b", value.__doc__), f"{name}: {parameter}"
        yield name


def message_without(module, library):
    """What importing a module says in a process that has not the library."""
    program = f"import sys; sys.modules[{library!r}] = None; import {module}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]
