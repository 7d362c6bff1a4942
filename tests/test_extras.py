"""Extras: each brings what the code asks for in its name, and what is missing is named with the command."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import numbaconv

PACKAGE = Path(numbaconv.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def brought(extra):
    """The distributions that an extra installs, those of extras that it names included."""
    found = set()
    for requirement in EXTRAS[extra]:
        name, inside = re.match(r"([\w-]+)(?:\[([\w,-]+)\])?", requirement).groups()
        if name == "numbaconv":
            found |= {each for other in inside.split(",") for each in brought(other)}
        else:
            found.add(name)
    return found


def required():
    """Each ``require(module, extra, …)`` in the package, with constant arguments, and the file that it is in."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "require":
                module, extra = (argument.value for argument in node.args[:2])
                yield path.relative_to(PACKAGE), module.split(".")[0], extra


def test_an_extra_brings_what_it_is_named_for():
    found = list(required())
    assert len(found) > 5
    for path, module, extra in found:
        assert module.replace("_", "-") in {name.replace("_", "-") for name in brought(extra)}, (path, module, extra)


#: For each extra of users, the library that is taken away, and what then asks for it.
USES = {
    "bfloat16": ("ml_dtypes", "numbaconv.tune((1, 1, 8), (1, 1, 3), dtype='bfloat16', backend='reference')"),
    "cli": ("rich.console", "from numbaconv.cli import answers; answers.console()"),
    "plot": ("matplotlib.figure", "numbaconv.plot.filters(np.ones((1, 1, 3, 3)))"),
    "safetensors": ("safetensors", "numbaconv.layers.Conv2d(1, 1, 1).save('layer.safetensors')"),
}


@pytest.mark.parametrize("extra", USES)
def test_what_is_missing_is_named_with_its_command(extra, tmp_path):
    library, use = USES[extra]
    program = f"import sys; sys.modules[{library!r}] = None\nimport numpy as np, numbaconv\n{use}"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: ")
    assert f"needs {library.split('.')[0]}: pip install 'numbaconv[{extra}]'" in done.stderr


def test_every_message_names_an_extra_that_there_is():
    for path in PACKAGE.rglob("*.py"):
        for extras in re.findall(r"numbaconv\[([\w,-]+)\]", path.read_text(encoding="utf-8")):
            assert set(extras.split(",")) <= set(EXTRAS), path


def test_the_core_needs_little():
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in PROJECT["dependencies"]}
    assert names == {"numpy", "numba", "platformdirs"}
