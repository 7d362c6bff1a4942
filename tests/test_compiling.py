"""Compiling is said as it begins: in the log, and as a bar of its own."""

import gc
import importlib.util
import io
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.errors import LiveError
from rich.progress import Progress

import numbaconv
from numbaconv import compiling, progress
from numbaconv.backends.cpu.launch import Kernel
from numbaconv.bench.workers import Worker

X, W = np.ones((1, 2, 9)), np.ones((2, 2, 3))

PROGRAM = """
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")
import numpy as np
import numbaconv
from numbaconv import compiling

sizes = []
def listen(what, folder):
    sizes.append(what)
with compiling.told(listen):
    numbaconv.conv1d(np.ones((1, 2, 9), np.float32), np.ones((2, 2, 3), np.float32), algorithm="direct")
from numba import njit
njit(lambda v: v + 1)(2.0)  # the user's own
print("last", sizes)
"""


def test_the_log_says_what_is_compiled_but_not_what_is_loaded(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    said = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=300, check=True
        )
        said.append(done.stdout.splitlines())
    (first, last), again = said
    where = f"once: later processes load it from {tmp_path}"
    assert first.startswith(f"numbaconv INFO compiling forward_tasks for float32, {where}")
    assert last == "last ['forward_tasks for float32', None]"
    assert again == ["last []"]


def test_activations_are_said(caplog):
    with caplog.at_level(logging.INFO, "numbaconv"):
        for _ in range(2):
            numbaconv.conv1d(X, W, activation=lambda v: v * 7.125)
    assert [each for each in caplog.messages if "activation" in each] == [
        "compiling activation '<lambda>' for float64, once a process"
    ]


def screen(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)


def test_a_bar_while_something_is_compiled():
    console = screen(True)
    with progress.compiling_bar(console):
        console.print("before")
        with compiling.compiling("some_tasks for float32", "here"), compiling.compiling("inner", "here"):
            pass
        console.print("after")
    compiling.begin("nobody listens")
    shown = console.file.getvalue()
    assert shown.startswith("before\n")
    assert shown.endswith("after\n")
    assert "compiling kernels, once: some_tasks for float32" in shown
    assert "listens" not in shown


def test_nothing_is_shown_where_nothing_is_compiled():
    console = screen(True)
    with progress.compiling_bar(console):
        pass
    assert not console.file.getvalue()


def test_a_line_where_there_is_no_terminal():
    console = screen(False)
    with progress.compiling_bar(console):
        with compiling.compiling("activation 'a' for float32"):  # a moment
            pass
        for name in ("one_tasks", "two_tasks"):
            with compiling.compiling(name, "here"):
                pass
    assert (
        console.file.getvalue() == "compiling kernels, once: one_tasks and what else is needed; this may take minutes\n"
    )


def test_a_line_beside_another_bar(monkeypatch):
    """Older releases of rich have one at a time."""

    def start(self):
        raise LiveError

    monkeypatch.setattr(Progress, "start", start)
    console = screen(True)
    with progress.compiling_bar(console), compiling.compiling("one_tasks", "here"):
        pass
    assert "compiling kernels, once: one_tasks and what else" in console.file.getvalue()


def test_without_rich(monkeypatch, capsys):
    def missing(*names):
        raise ImportError

    monkeypatch.setattr(progress, "require", missing)
    steps = [1, 2]
    assert progress.tracked(steps, "steps") is steps
    with progress.compiling_bar(), compiling.compiling("one_tasks", ""):
        pass
    assert capsys.readouterr().err.startswith("compiling kernels, once: one_tasks")


def test_steps_with_a_bar_of_their_own(monkeypatch):
    console = screen(True)
    monkeypatch.setattr(progress, "_screen", lambda given: console)
    found = []
    for step in progress.tracked(["a", "b"], "layers"):
        with compiling.compiling(f"{step}_tasks", "here"):
            found.append(step)
    assert found == ["a", "b"]
    assert "layers" in console.file.getvalue()


def test_what_another_process_compiles(tmp_path):
    """The benchmark's processes pass it on."""
    file = tmp_path / "worker.py"
    file.write_text(
        textwrap.dedent(
            """
            from numbaconv.bench.workers import serve
            from numbaconv.compiling import compiling

            def answer(request):
                with compiling("some_tasks", "there"):
                    return {"found": request["given"] + 1}

            serve(answer)
            """
        )
    )
    root = str(Path(numbaconv.__file__).parent.parent)
    worker, told = Worker(str(file), threads=1, environment={"PYTHONPATH": root}), []
    with compiling.told(lambda what, folder: told.append((what, folder))):
        assert [worker.ask(given=given) for given in (1, 2)] == [{"found": 2}, {"found": 3}]
    worker.close()
    assert told == [("some_tasks", "there"), (None, None)] * 2


def kernels():
    """Every compiled function of every kernel."""
    found = [each for each in gc.get_objects() if type(each) is Kernel]
    return sorted((each._dispatcher.py_func.__name__, len(each._ready), len(each._fanned)) for each in found)


@pytest.mark.parametrize("images", [96, 110])
def test_the_example_compiles_before_it_shows_epochs(images):
    """The first command of the README: no epoch waits for a compiler."""
    path = Path(__file__).parent.parent / "examples" / "digits_cnn.py"
    spec = importlib.util.spec_from_file_location("digits_cnn_for_test", path)
    digits = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(digits)
    rng = np.random.default_rng(0)
    x, labels = rng.random((images, 1, 8, 8), np.float32), rng.integers(0, 10, images)
    before = []
    prepare = digits.compile_kernels
    digits.compile_kernels = lambda *given: (prepare(*given), before.append(kernels()))
    digits.forward(digits.train(x, labels, 1, 0, screen(False)), x)
    assert before == [kernels()]
