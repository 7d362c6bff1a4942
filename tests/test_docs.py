"""Docstrings: each public name has one, with an example that runs. `test_site.py` has the pages."""

import doctest
import inspect
import re
from pathlib import Path

import pytest

import numbaconv
from numbaconv import cli, grad, layers, plot

ROOT = Path(__file__).parent.parent
SECTIONS = ("Parameters", "Returns", "Raises")


def functions():
    for module in (numbaconv, numbaconv.functional, grad, layers, layers.keras, cli, plot):
        for name in getattr(module, "__all__", []):
            value = getattr(module, name)
            # Layers are documented as functions are; what they share is not made by itself.
            if inspect.isfunction(value) or (inspect.isclass(value) and "rank" in vars(value)):
                yield f"{module.__name__}.{name}", value


FUNCTIONS = dict(functions())


@pytest.fixture(autouse=True)
def restored():
    modules = dict(numbaconv.backends.registry._modules)
    yield
    numbaconv.backends.registry._modules.clear()
    numbaconv.backends.registry._modules.update(modules)
    numbaconv.set_backend(None)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_examples_run(name):
    function = FUNCTIONS[name]
    tests = doctest.DocTestFinder(recurse=False).find(function, name, module=False, globs={})
    examples = [example for test in tests for example in test.examples]
    assert examples, f"{name} has no example"
    source = "".join(example.source for example in examples)
    assert name.rsplit(".", 1)[1] in source, f"{name} is not in its example"
    for test in tests:
        assert doctest.DocTestRunner(verbose=False).run(test).failed == 0


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if re.search(r"conv\w*\dd|\.conv", name)])
def test_docstrings_give_shapes_and_errors(name):
    text = FUNCTIONS[name].__doc__
    for section in SECTIONS:
        assert f"{section}\n{'-' * len(section)}" in text, f"{name} has no section {section}"
    assert not re.search(r"\{\w*\}", text), f"{name} has an unfilled field"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_parameter_is_documented(name):
    function = FUNCTIONS[name]
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:
            assert re.search(rf"\b{parameter.name}\b", function.__doc__), f"{name}: {parameter.name}"


def test_the_version_has_one_place():
    assert numbaconv.__version__ in (ROOT / "numbaconv" / "_version.py").read_text()
    assert numbaconv.__version__ not in (ROOT / "pyproject.toml").read_text()
    assert f"## {numbaconv.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_commands_name_files_that_exist():
    commands = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(commands) == 2
    for command in commands:
        for file in re.findall(r"\S+\.py", command):
            assert (ROOT / file).is_file(), file
