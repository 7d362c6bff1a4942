"""What the documentation takes from the code and from files of this repository, as Markdown.

    python docs/generated.py [--check]

writes the README's generated tables, between ``<!-- generated: NAME -->`` and ``<!-- end -->``; ``--check`` fails where
they are not what the code says. Pages of the site have the first marker alone: `hooks.py` puts the text there when the
site is built.
"""

import argparse
import contextlib
import io
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

from numbaconv import plan_conv
from numbaconv.backends import cpu, cuda, reference
from numbaconv.backends.base import Algorithm, Direction
from numbaconv.cli import main as command_line
from numbaconv.environment import NUMBA_VARIABLES, VARIABLES

__all__ = ["ROOT", "expanded", "rewritten", "text"]

ROOT = Path(__file__).parent.parent
_MARKER = re.compile(r"^<!-- generated: (.+?) -->$", flags=re.MULTILINE)
_WRITTEN = re.compile(r"^(<!-- generated: (.+?) -->\n).*?^(<!-- end -->)$", flags=re.MULTILINE | re.DOTALL)

_BACKENDS = {"cpu": cpu.BACKEND, "cuda": cuda.BACKEND, "reference": reference.BACKEND}
_DIRECTIONS = {
    Direction.FORWARD: "forward",
    Direction.INPUT_GRAD: "by the input",
    Direction.WEIGHT_GRAD: "by the weight",
}
#: What an extra is for. Those for work on this package itself are not for users, and have no row.
_EXTRAS = {
    "cli": "the command `numbaconv`, progress bars",
    "plot": "`numbaconv.plot`, `numbaconv bench --plot`",
    "bfloat16": "arrays of bfloat16, which NumPy alone does not have",
    "safetensors": "`.safetensors` files of layers",
    "torch": "`numbaconv.interop.torch`: operators of PyTorch",
    "jax": "`numbaconv.interop.jax`: functions of JAX",
    "onnx": "`numbaconv.interop.onnx`: operators for ONNX's reference evaluator, a backend",
    "dask": "`numbaconv.interop.dask`: convolutions of Dask arrays",
    "bench": "`numbaconv bench` against PyTorch and ONNX Runtime",
    "cu12": "the `cuda` backend, CUDA 12",
    "cu13": "the `cuda` backend, CUDA 13",
    "examples": "the programs in `examples/`",
}
_OWN_EXTRAS = {"docs", "lint", "package", "perf", "test", "test-cuda", "test-interop", "test-torch"}


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _variables() -> str:
    rows = [(f"`{each.name}`", each.meaning) for each in VARIABLES]
    rows += [(f"`{each.name}`", f"Numba's: {each.meaning}") for each in NUMBA_VARIABLES]
    return _table(("environment variable", ""), rows)


def _algorithms(backend: str) -> dict[str, dict[Direction, Algorithm]]:
    """The algorithms of a backend, in an order that each direction's table has."""
    order: list[str] = []
    found: dict[str, dict[Direction, Algorithm]] = {}
    for direction, table in _BACKENDS[backend].tables.items():
        at = 0
        for each in table:
            if each.name not in found:
                order.insert(at, each.name)
            found.setdefault(each.name, {})[direction] = each
            at = order.index(each.name) + 1
    if not found:
        raise LookupError(f"backend {backend!r} has no algorithms here: {_BACKENDS[backend].unavailable()}")
    return {name: found[name] for name in order}


def _about(backend: str) -> Iterable[tuple[str, Iterable[Direction], Algorithm]]:
    for name, directions in _algorithms(backend).items():
        first = next(iter(directions.values()))
        if first.about is None:
            raise LookupError(f"algorithm {name!r} of backend {backend!r} says nothing of itself: Algorithm.about")
        yield name, directions, first


def _short_algorithms(backend: str) -> str:
    head = ("algorithm", "what it does", "chosen", "error bound relative to direct", "spreads")
    return _table(head, ((f"`{name}`", *_short(each)) for name, _, each in _about(backend)))


def _short(algorithm: Algorithm) -> tuple[str, ...]:
    about = algorithm.about
    assert about is not None
    return about.does, about.chosen, about.bound, about.reach


def _choices(backend: str) -> str:
    rows = []
    for name, directions, each in _about(backend):
        assert each.about is not None
        where = "all" if len(directions := list(directions)) == 3 else ", ".join(_DIRECTIONS[d] for d in directions)
        rows.append((f"`{name}`", each.about.does, where, each.about.chosen))
    return _table(("algorithm", "what it does", "directions", "chosen"), rows)


def _costs(backend: str) -> str:
    """Costs and bounds, and the factor of one layer of each kind."""
    rows = []
    for name, _, each in _about(backend):
        assert each.about is not None
        rows.append((f"`{name}`", each.about.cost, each.about.bound, _factor(each), each.about.reach))
    return _table(("algorithm", "cost", "error bound", "factor", "spreads"), rows)


def _factor(algorithm: Algorithm) -> str:
    """The factor of 64 to 64 channels, 3x3 taps or, for what needs long kernels, 31 along one axis."""
    for shapes in (((1, 64, 56, 56), (64, 64, 3, 3)), ((1, 64, 4096), (64, 64, 31)), ((1, 64, 56, 56), (64, 1, 3, 3))):
        plan = plan_conv(*shapes, groups=64 // shapes[1][1], padding="same")
        if algorithm.accepts(plan) is None:
            return f"{algorithm.error_factor(plan):,.0f}"
    return "as `patch_gemm`"


def _extras() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    if unknown := set(extras) ^ (set(_EXTRAS) | _OWN_EXTRAS):
        raise LookupError(f"extras of pyproject.toml and of docs/generated.py differ: {sorted(unknown)}")
    rows = ((f"`pip install 'numbaconv[{name}]'`", what, ", ".join(extras[name])) for name, what in _EXTRAS.items())
    return _table(("command", "for", "brings"), rows)


def _help(command: str) -> str:
    """What a command says of itself."""
    os.environ["COLUMNS"] = "100"
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        command_line([*command.split(), "--help"])
    return f"```text\n{shown.getvalue().strip()}\n```"


def _file(path: str) -> str:
    return (ROOT / path).read_text()


def _section(path: str, heading: str) -> str:
    """The section of a page under a heading, without it."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", _file(path), flags=re.MULTILINE | re.DOTALL)
    if found is None:
        raise LookupError(f"{path} has no section {heading!r}")
    return found[1].strip()


_SECTIONS: dict[str, Callable[..., str]] = {
    "variables": _variables,
    "algorithms": _short_algorithms,
    "choices": _choices,
    "costs": _costs,
    "extras": _extras,
    "help": _help,
    "file": _file,
    "section": _section,
}


def text(marker: str) -> str:
    """What a marker stands for: a name, and after colons what it is of."""
    name, *arguments = (part.strip() for part in marker.split("::"))
    return _SECTIONS[name](*arguments)


def expanded(page: str) -> str:
    """A page with the text of its markers."""
    return _MARKER.sub(lambda found: text(found[1]), page)


def rewritten(page: str) -> str:
    """A page with what is between its markers written anew."""
    return _WRITTEN.sub(lambda found: f"{found[1]}{text(found[2])}\n{found[3]}", page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something would change")
    check, readme = parser.parse_args().check, ROOT / "README.md"
    before = readme.read_text()
    after = rewritten(before)
    if check and after != before:
        sys.stderr.write("README.md is not what the code says: python docs/generated.py\n")
        return 1
    if not check:
        readme.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
