"""Files: replaced as a whole or left alone, links and rights kept, and nothing that is waited for."""

import errno
import os
import resource
import stat
import subprocess
import sys
import textwrap
import warnings
import zipfile

import numpy as np
import pytest

from numbaconv import ArgumentError, DTypeError, plot
from numbaconv.backends import winners
from numbaconv.backends.base import Direction
from numbaconv.backends.reference import BACKEND
from numbaconv.environment import CACHE_VARIABLE
from numbaconv.files import opened, replaced
from numbaconv.layers import Conv2d, load_arrays, save_arrays
from numbaconv.plan import plan_conv

ENDINGS = (".npz", ".safetensors")
#: What may stand where a file is expected, but would be waited for or cannot be replaced.
WRONG = ("fifo", "directory", "loop", "device")


def saved(path):
    pytest.importorskip("safetensors")
    save_arrays(path, {"weight": np.arange(6.0)})
    return path.read_bytes()


def put(kind, path):
    """Put something that is no file under a name."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    else:
        path.symlink_to("/dev/null")


@pytest.fixture
def only_files(monkeypatch):
    """Whatever was opened with waiting would hang the test; a second is far more than any of this takes."""
    import signal

    def late(*_):
        raise AssertionError("waited for a second")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 5)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_leaves_the_old_file(tmp_path, ending):
    """The limit on the size of files stands for the disk: both refuse a write half-way."""
    path = tmp_path / f"a{ending}"
    before = saved(path)
    program = f"""
        import resource, signal, numpy as np
        from numbaconv.layers import save_arrays
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            save_arrays({str(path)!r}, {{"weight": np.ones(100_000)}})
        except OSError as error:
            print(error.errno)
    """
    done = subprocess.run(
        [sys.executable, "-B", "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == str(errno.EFBIG)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096


def test_a_kill_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.npz"
    before = saved(path)
    program = f"""
        import os, signal
        from numbaconv.files import replaced
        with replaced("test", {str(path)!r}) as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False, timeout=60)
    assert done.returncode == -9
    assert path.read_bytes() == before


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("exists", [True, False])
def test_what_fails_leaves_nothing(tmp_path, error, exists, monkeypatch):
    path = tmp_path / "a.txt"
    if exists:
        path.write_text("old")

    def full(handle):
        raise error

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(type(error)), replaced("test", path) as file:
        file.write(b"new")
    assert [each.read_text() for each in tmp_path.iterdir()] == ["old"] * exists


def test_rights_and_links(tmp_path, monkeypatch):
    """A new file gets what the umask leaves; an old one keeps its rights; a link keeps leading where it leads."""
    folder = tmp_path / "there"
    folder.mkdir()
    path, link = folder / "a.npz", tmp_path / "link.npz"
    link.symlink_to("there/a.npz")  # to nothing yet
    before = os.umask(0o027)
    try:
        save_arrays(link, {"weight": np.zeros(1)})
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    finally:
        os.umask(before)
    path.chmod(0o604)
    save_arrays(link, {"weight": np.ones(3)})
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert load_arrays(path)["weight"].tolist() == [1, 1, 1]
    assert os.listdir(folder) == ["a.npz"]
    monkeypatch.chdir(folder)
    save_arrays("a.npz", {"weight": np.zeros(2)})  # a name without a folder
    assert load_arrays("a.npz")["weight"].size == 2


def test_a_file_that_may_not_be_written(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    before = saved(path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anything
    with pytest.raises(PermissionError, match=r"a\.npz"):
        save_arrays(path, {"weight": np.zeros(1)})
    assert path.read_bytes() == before


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", WRONG)
def test_no_file_is_an_error_at_once(tmp_path, kind, ending, only_files):
    pytest.importorskip("safetensors")
    path = tmp_path / f"a{ending}"
    put(kind, path)
    for call in (lambda: load_arrays(path), lambda: save_arrays(path, {"weight": np.zeros(1)})):
        with pytest.raises((ArgumentError, OSError), match=rf"a\{ending}"):
            call()
    assert os.listdir(tmp_path) == [path.name]


def test_a_missing_file_is_python_s_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.npz"):
        Conv2d(1, 1, 1).load(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError):
        save_arrays(tmp_path / "nowhere" / "a.npz", {"weight": np.zeros(1)})


def test_what_is_opened_counts(tmp_path, monkeypatch, only_files):
    """A FIFO that comes after the look at the file is not waited for either."""
    monkeypatch.setattr("numbaconv.files.check_regular", lambda *_: None)
    os.mkfifo(tmp_path / "a")
    with pytest.raises(ArgumentError, match="a FIFO"):
        opened("test", tmp_path / "a")


def damaged(kind, path):
    """Write a file of some kind under the name of an archive, and return what the error says of it."""
    if kind == "void":
        np.savez(path, weight=np.zeros(3, "V2"))
        return DTypeError, "weight .* raw bytes .* bfloat16"
    if kind == "records":
        np.savez(path, weight=np.zeros(3, [("a", "f4"), ("b", "i4")]))
        return DTypeError, "weight .* records"
    if kind == "objects":
        np.savez(path, weight=np.array([{}, None]))
        return DTypeError, "weight .* Python objects"
    if kind == "one array":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
        return ArgumentError, r"one array \(.npy\)"
    save_arrays(path, {"weight": np.arange(1000.0), "bias": np.arange(1000.0)})
    content = path.read_bytes()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif kind == "bits":
        path.write_bytes(content[:2000] + b"\xff" * 8 + content[2008:])
    elif kind == "pickle":
        path.write_bytes(b"\x80\x04K\x01.")
    elif kind in ("header", "huge", "no array"):
        claim = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1125899906842624,)}"
        entry = {
            "header": b"\x93NUMPY\x01\x00\x06\x00{'a':1",
            "huge": b"\x93NUMPY\x01\x00" + bytes([len(claim), 0]) + claim,
            "no array": b"hello",
        }[kind]
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("weight.npy", entry)
    return ArgumentError, "damaged"


DAMAGES = ("void", "records", "objects", "one array", "empty", "truncated", "text", "bits", "pickle", "header", "huge")


@pytest.mark.parametrize("kind", [*DAMAGES, "no array"])
def test_damaged_archives(tmp_path, kind):
    path = tmp_path / "model.npz"
    error, says = damaged(kind, path)
    layer = Conv2d(1, 1, 1, seed=0)
    before = layer.weight.copy()
    for call in (lambda: load_arrays(path), lambda: layer.load(path)):
        with pytest.raises(error, match=says) as caught:
            call()
        assert "model.npz" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    assert (layer.weight == before).all()


@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"\xff" * 64, b"\x08" + b"\x00" * 7 + b"{}..x,,}"])
def test_damaged_safetensors(tmp_path, content):
    pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ArgumentError, match=r"model\.safetensors"):
        load_arrays(path)


@pytest.mark.parametrize("array", [np.array([{}]), np.zeros(2, "V3"), np.zeros(2, [("a", "f4")])])
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_cannot_be_loaded_is_not_saved(tmp_path, array, ending):
    with pytest.raises(DTypeError, match="weight"):
        save_arrays(tmp_path / f"a{ending}", {"weight": array})
    assert not os.listdir(tmp_path)


def test_raw_bytes_are_no_parameters():
    with pytest.raises(DTypeError, match="weight has dtype"):
        Conv2d(1, 1, 1, bias=False).load_state_dict({"weight": np.zeros((1, 1, 1, 1), "V2")})


WINNER = winners.Winner("direct", 1, {"direct": 0.1})
PLAN = plan_conv((1, 1, 5), (1, 1, 3))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(winners, "_warned", set())
    return tmp_path / "cache"


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", ["tuned.json", "tuned.lock", ""])
def test_no_tuning_file_is_a_warning_at_once(cache, kind, name, only_files):
    if name:
        cache.mkdir()
    elif kind == "directory":
        kind = "fifo"
    put(kind, cache / name if name else cache)

    def use():
        winners.recall(BACKEND, PLAN, Direction.FORWARD)
        winners.remember(BACKEND, PLAN, Direction.FORWARD, WINNER)

    with pytest.warns(RuntimeWarning, match="the file of tuned algorithms"):
        use()
    assert winners.recall(BACKEND, PLAN, Direction.FORWARD) == WINNER  # here at least


def test_a_lock_that_is_never_released(cache, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(winners, "_PATIENCE", 0.05)
    cache.mkdir()
    with open(cache / "tuned.lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.warns(RuntimeWarning, match="another process held"):
            winners.remember(BACKEND, PLAN, Direction.FORWARD, WINNER)
    assert not (cache / "tuned.json").exists()
    winners.remember(BACKEND, PLAN, Direction.FORWARD, WINNER)
    assert sorted(os.listdir(cache)) == ["tuned.json", "tuned.lock"]


def test_a_full_disk_leaves_what_was_tuned(cache, monkeypatch):
    winners.remember(BACKEND, PLAN, Direction.FORWARD, WINNER)
    before = (cache / "tuned.json").read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(RuntimeWarning, match="No space left"):
        winners.remember(BACKEND, plan_conv((1, 1, 9), (1, 1, 3)), Direction.FORWARD, WINNER)
    assert (cache / "tuned.json").read_bytes() == before
    assert sorted(os.listdir(cache)) == ["tuned.json", "tuned.lock"]


def test_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    figure = plot.filters(np.ones((2, 1, 3, 3)))
    for name, begins in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.PDF", b"%PDF"), ("plain", b"\x89PNG")):
        plot.save(figure, tmp_path / "new" / name)
        path = tmp_path / "new" / (name if "." in name else f"{name}.png")
        assert path.read_bytes().startswith(begins)
        assert len(os.listdir(tmp_path / "new")) == 1
        path.unlink()
    (tmp_path / "a.png").write_bytes(b"old")
    with pytest.raises(ValueError, match="nonsense"):
        plot.save(figure, tmp_path / "a.nonsense")
    assert os.listdir(tmp_path) == ["new", "a.png"] or sorted(os.listdir(tmp_path)) == ["a.png", "new"]


def test_nothing_is_said_where_all_is_well(cache):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        winners.remember(BACKEND, PLAN, Direction.FORWARD, WINNER)
        assert winners.recall(BACKEND, PLAN, Direction.FORWARD) == WINNER
