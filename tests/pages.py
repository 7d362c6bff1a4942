"""The code of Markdown pages, and how to run it: no tests; `test_site.py` uses it.

A page's ``python`` blocks run in order, in one namespace, in a folder of their own; a ``text`` block right after one
is what that one prints. ``console`` blocks are calls of the command line, each line after a ``$``. A comment before a
block says more::

    <!-- needs: torch -->      it runs where that library can be imported, and in CI, where it must be
    <!-- file: name.py -->     it is a module, which later blocks import

``<!-- run: simulator -->`` at the top of a page: all of it runs in Numba's CUDA simulator, in a process of its own,
which ``python tests/pages.py PAGE`` is.
"""

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Collection, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(
    r"^(?:<!-- (?P<key>needs|file): (?P<value>[^\n]+?) -->\n)?"
    r"^```(?P<language>[^\n]*)\n(?P<code>.*?)^```$(?:\n\n^```text\n(?P<printed>.*?)^```$)?",
    flags=re.MULTILINE | re.DOTALL,
)
SIMULATOR = "<!-- run: simulator -->"


class Block(NamedTuple):
    """A block of code: what it is written in, the file that it is, what it needs, what it prints."""

    line: int
    language: str
    code: str
    file: str | None
    needs: frozenset[str]
    printed: str | None


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        value = found["value"] if found["key"] else None
        yield Block(
            text[: found.start("code")].count("\n") + 1,
            found["language"],
            found["code"],
            value if found["key"] == "file" else None,
            frozenset(value.split() if value and found["key"] == "needs" else ()),
            found["printed"],
        )


def missing(libraries: Collection[str]) -> set[str]:
    """Those that cannot be imported here."""
    return {name for name in libraries if find_spec(name) is None}


def run_page(page: Path, folder: Path, libraries: Collection[str] = ()) -> int:
    """Run what needs nothing, or none but these libraries; how many blocks that were.

    Raises
    ------
    AssertionError
        If a block prints something else than the page says.
    """
    sys.path.insert(0, str(folder))
    namespace: dict[str, object] = {"__name__": "__page__"}
    made, count = [], 0
    try:
        with contextlib.chdir(folder):
            for block in blocks(page):
                if not block.needs <= set(libraries):
                    continue
                if block.file is not None:
                    (folder / block.file).write_text(block.code, encoding="utf-8")
                    made.append(Path(block.file).stem)
                elif block.language == "python":
                    _run(page, block, namespace)
                elif block.language == "console":
                    _call(page, block)
                count += 1
    finally:
        sys.path.remove(str(folder))
        for name in made:
            sys.modules.pop(name, None)
    return count


def _run(page: Path, block: Block, namespace: dict[str, object]) -> None:
    shown = io.StringIO()
    # Blank lines put the code where it is on the page, so that tracebacks name the line.
    code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
    with contextlib.redirect_stdout(shown):
        exec(code, namespace)
    if block.printed is not None:
        assert shown.getvalue() == block.printed, f"{page.name}:{block.line} prints\n{shown.getvalue()}"


def _call(page: Path, block: Block) -> None:
    from numbaconv.cli import main

    for line in block.code.splitlines():
        assert line.startswith("$ numbaconv "), f"{page.name}:{block.line} is no call of the command line: {line}"
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            code = main(shlex.split(line)[2:])
        assert code == 0, f"{page.name}:{block.line}: {line} ends with {code}"
        assert shown.getvalue().strip(), f"{page.name}:{block.line}: {line} prints nothing"


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        run_page(Path(sys.argv[1]), Path(made))
