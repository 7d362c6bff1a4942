"""Compiled kernels on disk: which are found, by whom, and what happens where nothing can be written."""

import ast
import ctypes
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import numbaconv
from numbaconv.backends.cpu import depthwise, fingerprint, gemm
from numbaconv.backends.cpu.target import VECTOR_BYTES, target
from numbaconv.cli import main

PACKAGE = Path(numbaconv.__file__).parent
#: A depthwise convolution, whose kernel has vectors of the target's width in most of its lines.
CALL = """
import json, sys, warnings
import numpy as np
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import numba.core.event as event
    import numbaconv
    compiled = []
    class Listener(event.Listener):
        def on_start(self, each):
            compiled.append(each.data["dispatcher"].__name__)
        def on_end(self, each):
            pass
    event.register("numba:compile", Listener())
    dtype = sys.argv[1]
    x = (np.arange(2 * 4 * 37) % 7).reshape(2, 4, 37).astype(dtype)
    w = (np.arange(4 * 3) % 5).reshape(4, 1, 3).astype(dtype)
    options = {"groups": 4, "padding": 1}
    y = numbaconv.conv1d(x, w, algorithm=sys.argv[2], **options)
    right = bool((y == numbaconv.conv1d(x, w, backend="reference", **options)).all())
    from numbaconv.backends.cpu.cache import not_stored
    from numbaconv.backends.cpu import BACKEND
messages = [str(each.message) for each in caught if each.category is RuntimeWarning]
found = {"right": right, "compiled": compiled, "warnings": messages, "failed": not_stored(), "host": BACKEND.host()}
print(json.dumps(found))
"""


def call(dtype="float32", algorithm="depthwise", cwd=None, limited=False, **environment):
    """What a process says that makes one call; ``limited``: as a user who writes only where folders allow it."""
    options = {"preexec_fn": _give_up_writing} if limited else {}
    done = subprocess.run(
        [sys.executable, "-c", CALL, dtype, algorithm],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _give_up_writing():
    """Root may write anywhere: give that up (PR_CAPBSET_DROP, CAP_DAC_OVERRIDE), for what is run next."""
    if os.geteuid() == 0 and ctypes.CDLL(None).prctl(24, 1, 0, 0, 0) != 0:
        raise OSError("root's right to write anywhere cannot be given up")


@pytest.fixture
def installed(tmp_path):
    """A copy of the package, with no kernels: its folder, and an environment that imports it and has no home."""
    shutil.copytree(PACKAGE, tmp_path / "site" / "numbaconv", ignore=shutil.ignore_patterns("__pycache__"))
    home = tmp_path / "home"
    home.mkdir()
    names = {"PYTHONPATH": str(tmp_path / "site"), "HOME": str(home), "XDG_CACHE_HOME": str(home)}
    return tmp_path / "site" / "numbaconv", {**names, "NUMBA_CACHE_DIR": "", "PYTHONDONTWRITEBYTECODE": "1"}


def forbid_writing(*roots):
    for root in roots:
        for path in [root, *root.rglob("*")]:
            path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


def allow_writing(*roots):
    for root in roots:
        for path in [root, *root.rglob("*")]:
            path.chmod(path.stat().st_mode | stat.S_IWUSR)


def other_targets():
    """Targets that run here too, all unlike this process's; the last two have one name and the same features."""
    if not target().triple.startswith("x86_64"):
        return []
    found = [("generic", {"NUMBA_CPU_NAME": "generic"}, 16)]
    if VECTOR_BYTES >= 32:
        found.append(("haswell alone", {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""}, 32))
    if VECTOR_BYTES == 64:
        found.append(("haswell", {"NUMBA_CPU_NAME": "haswell"}, 32))
        found.append(("with features", {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": target().features}, 64))
    return found


@pytest.mark.parametrize("backwards", [False, True], ids=["wide-first", "narrow-first"])
def test_targets_share_a_folder(tmp_path, backwards):
    """Each process finds its own kernels, whoever came first, and its vectors are those of its target."""
    targets = [("", {}, VECTOR_BYTES), *other_targets()]
    if backwards:
        targets = targets[::-1]
    for first in (True, False):
        for name, environment, wide in targets:
            found = call(NUMBA_CACHE_DIR=str(tmp_path), **environment)
            assert found["right"], name
            assert bool(found["compiled"]) == first, (name, found["compiled"])
            assert f"vectors of {wide} bytes" in found["host"]
            assert environment.get("NUMBA_CPU_NAME", target().name) in found["host"]
            assert found["warnings"] == []


def test_the_target_of_a_configuration_file(tmp_path):
    """As the environment's: Numba reads it from the current folder."""
    pytest.importorskip("yaml", reason="Numba reads .numba_config.yaml with PyYAML")
    (tmp_path / ".numba_config.yaml").write_text("cpu_name: generic\n")
    path = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    found = call(algorithm="direct", cwd=tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "cache"), PYTHONPATH=path)
    assert found["right"]
    assert found["host"] == "generic with vectors of 16 bytes"


@pytest.mark.skipif(os.name == "nt", reason="folders there have no such modes")
def test_a_filled_cache_is_read_where_nothing_can_be_written(installed):
    """As in a container: filled while the image was built, other times on its files, read-only."""
    package, environment = installed
    assert call(algorithm="direct", cwd=package.parent, **environment)["compiled"]
    for path in package.rglob("*"):
        os.utime(path, (1, 1))
    home = Path(environment["HOME"])
    forbid_writing(package, home)
    try:
        found = call(algorithm="direct", cwd=package.parent, limited=True, **environment)
        assert found["right"]
        assert (found["compiled"], found["warnings"], found["failed"]) == ([], [], [])
        missing = call("float64", "direct", cwd=package.parent, limited=True, **environment)
    finally:
        allow_writing(package, home)
    assert missing["right"]
    assert missing["compiled"]
    (warning,) = missing["warnings"]
    folders = [package / "backends" / "cpu" / "__pycache__", home / "numba"]
    for folder, failed in zip(folders, missing["failed"], strict=True):
        assert failed.startswith(str(folder))
        assert failed.endswith(": Permission denied")
        assert failed in warning
    assert "NUMBA_CACHE_DIR" in warning


@pytest.mark.skipif(os.name == "nt", reason="folders there have no such modes")
def test_warmup_that_cannot_store_is_an_error(installed):
    package, environment = installed
    home = Path(environment["HOME"])
    words = ["warmup", "--algorithms", "direct", "--directions", "forward", "--dtypes", "int32"]
    forbid_writing(package, home)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "numbaconv", *words],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            cwd=home,
            preexec_fn=_give_up_writing,
        )
    finally:
        allow_writing(package, home)
    assert done.returncode == 2
    assert "compiled kernels cannot be stored" in done.stderr
    assert "Permission denied" in done.stderr
    assert str(package) in done.stderr.replace("\n", "")


def test_a_file_that_was_cut_off(tmp_path):
    """It is as good as none, and the next process replaces it."""
    folder = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert call(algorithm="direct", **folder)["compiled"]
    files = list(tmp_path.rglob("*.nbc"))
    for file in files:
        file.write_bytes(file.read_bytes()[:-1])
    assert call(algorithm="direct", **folder)["compiled"]
    assert call(algorithm="direct", **folder)["compiled"] == []
    assert sorted(tmp_path.rglob("*.nbc")) == sorted(files)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
def test_a_fifo_in_the_place_of_a_kernel_is_not_waited_for(tmp_path):
    """It is as good as none, and is replaced."""
    folder = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert call(algorithm="direct", **folder)["compiled"]
    files = list(tmp_path.rglob("*.nbc"))
    for file in files:
        file.unlink()
        os.mkfifo(file)
    assert call(algorithm="direct", **folder)["compiled"]
    assert all(file.is_file() for file in files)


def test_a_helper_that_changed_in_another_file(installed):
    """It is noticed though neither size nor time of the file tell; what no kernel is made of is not."""
    package, environment = installed
    program = "from numbaconv.backends.cpu import gemm, direct\n" + "\n".join(
        f"print({name}._cache._fingerprint().hex())" for name in ("gemm.gemm_tasks", "direct.forward_tasks")
    )

    def digests(path=None, old="", new=""):
        if path is not None:
            before, text = path.stat(), path.read_text()
            assert old in text
            assert len(old) == len(new)
            path.write_text(text.replace(old, new, 1))
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            cwd=package.parent,
            check=True,
        )
        return done.stdout.split()

    folder = package / "backends" / "cpu"
    first = digests()
    assert digests(folder / "implicit_gemm.py", "panels", "Panels") == first
    changed = digests(folder / "simd.py", "an outer product", "An outer product")
    assert changed[0] != first[0]
    assert changed[1] != first[1]


@pytest.mark.parametrize("module", [depthwise, gemm], ids=lambda module: module.__name__.rsplit(".", 1)[-1])
def test_what_a_kernel_is_made_of(module):
    """The files that imports name, as a parser finds them; numbers of other rooms are told by their values."""
    backends = PACKAGE / "backends"

    def imported(path):
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                folder = path.parents[node.level - 1]
                names = [node.module] if node.module else [alias.name for alias in node.names]
                found |= {folder.joinpath(*name.split(".")).with_suffix(".py") for name in names}
        return {each for each in found if each.is_relative_to(backends)}

    expected, waiting = set(), [Path(module.__file__)]
    while waiting:
        path = waiting.pop()
        if path not in expected:
            expected.add(path)
            waiting += imported(path)
    assert set(map(Path, fingerprint._files(module.__file__))) == expected
    assert "('CONSTANT', " in fingerprint._numbers(vars(depthwise))


def test_clear_cache_says_what_it_left(tmp_path, monkeypatch, capsys):
    """As where an image is read-only."""
    file = tmp_path / "kernel.nbc"
    file.write_bytes(b"code")
    monkeypatch.setattr("numbaconv.cli.clear.kernel_files", lambda: [file])

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    assert main(["clear-cache", "--kernels"]) == 0
    printed = capsys.readouterr().out
    assert "removed 0 files" in printed
    assert f"left what is in {tmp_path}: Read-only file system" in printed
