"""The documentation: every block of code does what its page says; what pages take from the code is there and true."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numba
import pytest

import numbaconv
from numbaconv.backends import cpu, cuda, reference
from numbaconv.environment import NUMBA_VARIABLES, VARIABLES
from pages import ROOT, SIMULATOR, blocks, missing, run_page

PACKAGE = Path(numbaconv.__file__).parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
IN_SIMULATOR = [page for page in PAGES if page.read_text(encoding="utf-8").startswith(SIMULATOR)]
#: Pages with blocks that need more than the extra "test": each is run again with what they need.
NEEDS = sorted(
    {(page, need) for page in PAGES for block in blocks(page) for need in block.needs}, key=lambda pair: str(pair)
)
#: Set in CI, where a library that a page needs must be installed.
REQUIRED = bool(os.environ.get("NUMBACONV_REQUIRE_LIBRARIES"))


def name(page):
    return str(page.relative_to(ROOT)) if isinstance(page, Path) else page


@pytest.fixture(autouse=True)
def restored(monkeypatch, tmp_path):
    """Pages register backends, choose them, tune, and set the number of threads."""
    monkeypatch.setenv("NUMBACONV_CACHE_DIR", str(tmp_path / "tuned"))
    modules, threads = dict(numbaconv.backends.registry._modules), numba.get_num_threads()
    yield
    numbaconv.backends.registry._modules.clear()
    numbaconv.backends.registry._modules.update(modules)
    numbaconv.set_backend(None)
    numba.set_num_threads(threads)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in IN_SIMULATOR], ids=name)
def test_page(page, tmp_path):
    run_page(page, tmp_path)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")  # Keras'
@pytest.mark.parametrize(("page", "library"), NEEDS, ids=name)
def test_page_with(page, library, tmp_path, monkeypatch):
    """The blocks that need a library, and those that need none."""
    wanted = {library} | ({"torch"} if library == "keras" else set())  # Keras computes with PyTorch here
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    if absent := missing(wanted):
        assert not REQUIRED, f"{name(page)} needs {absent}"
        pytest.skip(f"{name(page)} needs {', '.join(sorted(absent))}")
    assert run_page(page, tmp_path, wanted) > sum(not block.needs for block in blocks(page))


@pytest.mark.parametrize("page", IN_SIMULATOR, ids=name)
def test_page_in_simulator(page):
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "pages.py"), str(page)],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_are_of_known_kinds(page):
    """Each block runs, or is a command that installs, whose extras there are, and runs files that there are."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    found = list(blocks(page))
    fences = len(re.findall(r"^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert fences == 2 * len(found) + 2 * sum(block.printed is not None for block in found)
    for block in found:
        assert block.language in {"python", "console", "bash", "dockerfile"}, (
            f"{name(page)}:{block.line}: {block.language}"
        )
    for command in re.findall(r"numbaconv\[([\w,-]+)\]|-e \"?\.\[([\w,-]+)\]", page.read_text(encoding="utf-8")):
        for extra in ",".join(filter(None, command)).split(","):
            assert extra in extras, f"{name(page)} names the extra {extra}"
    for file in re.findall(r"python (\S+\.py)", page.read_text(encoding="utf-8")):
        assert (ROOT / file).is_file(), f"{name(page)} names {file}"


def generator(*arguments):
    return subprocess.run(
        [sys.executable, str(DOCS / "generated.py"), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_readme_has_what_the_code_says():
    done = generator("--check")
    assert done.returncode == 0, done.stderr


def test_every_marker_of_a_page_stands_for_something(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import generated

    monkeypatch.setenv("COLUMNS", "100")
    for page in PAGES[1:]:
        made = generated.expanded(page.read_text(encoding="utf-8"))
        assert not re.search(r"^<!-- generated:", made, flags=re.MULTILINE), name(page)
    before = (ROOT / "README.md").read_text(encoding="utf-8")
    spoiled = before.replace(f"| `{VARIABLES[0].name}` |", "| `SOMETHING` |")
    assert spoiled != before
    assert generated.rewritten(spoiled) == before


def test_every_variable_is_declared_in_one_place():
    declared = {each.name for each in (*VARIABLES, *NUMBA_VARIABLES)}
    assert len(declared) == len(VARIABLES) + len(NUMBA_VARIABLES)
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert set(re.findall(r"\bNUMBACONV_[A-Z_]+\b", source)) <= declared, path
        if path.name != "environment.py":
            assert not re.search(r"[\"']NUMBACONV_[A-Z_]+[\"']", source), f"{path} spells a variable's name itself"


def test_every_algorithm_says_what_it_is():
    for backend in (cpu.BACKEND, cuda.BACKEND, reference.BACKEND):
        for table in backend.tables.values():
            for each in table:
                assert each.about is not None, f"{backend.name}: {each.name}"
                assert all(each.about), f"{backend.name}: {each.name}"
        abouts = {(each.name, each.about) for table in backend.tables.values() for each in table}
        assert len({name for name, _ in abouts}) == len(abouts), f"{backend.name}: two rows of one name"


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"- ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert listed == {str(page.relative_to(DOCS)) for page in PAGES[1:]}
