"""Which algorithm was measured as the fastest for a plan: remembered in memory and in a file of the user's.

The file is JSON: for each host (backend, its processor, package version) from a plan's key to the winner. Two
processes may write at once: each reads, adds its own and replaces the file, under a lock. A file that cannot be read or
written is ignored, with one warning: speed depends on it, and which bits a result has, but nothing else.

A key has all of a plan but the batch size, and no number of threads, so that a choice depends on neither.
"""

import errno
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from .._version import __version__
from ..environment import CACHE_VARIABLE, TUNE_VARIABLE
from ..errors import AlgorithmError, ArgumentError
from ..files import check_regular, opened, replaced
from ..plan import DEFAULT_PRECISION, ConvPlan
from .base import Backend, Direction

if TYPE_CHECKING:
    from pathlib import Path  # a tenth of the package's time to import, where no call has been made yet

__all__ = ["Winner", "recall", "remember", "revision", "tuned_file", "tuning_mode"]

_FILE, _FORMAT = "tuned.json", 1

#: Seconds for which a process waits for others that write, which takes each of them some milliseconds.
_PATIENCE = 5.0

#: What the values of ``NUMBACONV_TUNE`` mean.
_MODES = {"": "use", "0": "off", "1": "measure"}


@dataclass(frozen=True, slots=True)
class Winner:
    """The fastest algorithm for a plan, and what was measured.

    Attributes
    ----------
    algorithm : str
    batch : int
        The batch size that it was measured with.
    seconds : dict
        The least time of a call, by the algorithm's name.
    """

    algorithm: str
    batch: int
    seconds: dict[str, float]


_Known = dict[str, dict[str, Winner]]

_lock = threading.RLock()
_known: "dict[Path, _Known]" = {}
_revision = 0
_warned: set[str] = set()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def tuning_mode() -> str:
    """What ``NUMBACONV_TUNE`` says now: ``use`` what is remembered, ``measure`` what is not, or ``off``."""
    value = os.environ.get(TUNE_VARIABLE, "")
    if value not in _MODES:
        raise AlgorithmError(f"{TUNE_VARIABLE} is {value!r}, but must be 0 or 1")
    return _MODES[value]


def revision() -> int:
    """A number that changes whenever something more is remembered."""
    return _revision


def _host(backend: Backend) -> str:
    return f"{backend.name}, {backend.host()}, numbaconv {__version__}"


def _key(plan: ConvPlan, direction: Direction) -> str:
    """All that speed follows from, but the batch size, readable."""
    layout = "last" if plan.channels_last else "first"
    axes = " ".join("/".join(map(str, asdict(axis).values())) for axis in plan.axes)
    weight = "".join(map(str, plan.weight_axes))
    dtypes = f"{plan.dtype}/{plan.compute_dtype}/{plan.output_dtype}"
    if plan.precision != DEFAULT_PRECISION:
        dtypes += f" as {plan.precision}"
    channels = f"{plan.x_channels}-{plan.y_channels} groups {plan.groups} channels {layout} weight {weight}"
    return f"{direction.name} {dtypes} {channels} axes {axes}"


def recall(backend: Backend, plan: ConvPlan, direction: Direction) -> Winner | None:
    """What is remembered for a plan, whatever its batch size."""
    path = tuned_file()
    known = _known.get(path)
    if known is None:
        with _lock:
            known = _known.setdefault(path, _read(path))
    winners = known.get(_host(backend))
    return None if not winners else winners.get(_key(plan, direction))


def remember(backend: Backend, plan: ConvPlan, direction: Direction, winner: Winner) -> None:
    """Remember a winner here, and in the file for other processes."""
    global _revision
    path, host, key = tuned_file(), _host(backend), _key(plan, direction)
    with _lock:
        mine = _known.setdefault(path, {})
        mine.setdefault(host, {})[key] = winner
        try:
            with _locked(path):
                merged = _read(path)
                merged.setdefault(host, {})[key] = winner
                _write(path, merged)
        except (OSError, ArgumentError) as error:
            _warn(path, f"cannot be written, so that what is measured is forgotten when this process ends: {error}")
        _revision += 1


def tuned_file() -> "Path":
    """The file, in the folder that the environment names or the user's."""
    from pathlib import Path

    folder = os.environ.get(CACHE_VARIABLE)
    if folder:
        return Path(folder) / _FILE
    return _user_folder() / _FILE


_found_folder: "Path | None" = None


def _user_folder() -> "Path":
    global _found_folder
    if _found_folder is None:
        from pathlib import Path

        from platformdirs import user_cache_dir  # slow to import beside this package

        _found_folder = Path(user_cache_dir("numbaconv", appauthor=False))
    return _found_folder


def _warn(path: "Path", what: str) -> None:
    if str(path) not in _warned:
        _warned.add(str(path))
        warnings.warn(f"the file of tuned algorithms {path} {what}", RuntimeWarning, stacklevel=2)


def _read(path: "Path") -> _Known:
    """What a file holds; nothing where there is none, or none that can be understood."""
    import json  # only where there is something to read or write

    try:
        with opened("tune", path) as file:
            text = file.read().decode("utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeError, ArgumentError) as error:
        _warn(path, f"cannot be read and is ignored: {error}")
        return {}
    try:
        return _understood(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        _warn(path, f"is damaged and is ignored: {error!r}")
        return {}


def _understood(content: Any) -> _Known:
    if content["format"] != _FORMAT:
        return {}  # another version's, which is none of ours
    return {
        str(host): {str(key): _winner(entry) for key, entry in winners.items()}
        for host, winners in content["hosts"].items()
    }


def _winner(entry: Any) -> Winner:
    seconds = {str(name): float(value) for name, value in entry["seconds"].items()}
    if entry["algorithm"] not in seconds:
        raise ValueError(f"{entry['algorithm']!r} was not measured")
    return Winner(entry["algorithm"], int(entry["batch"]), seconds)


def _write(path: "Path", known: _Known) -> None:
    """Replace the file as a whole: a reader finds the old one or the new one."""
    import json

    hosts = {host: {key: asdict(winner) for key, winner in winners.items()} for host, winners in known.items()}
    text = json.dumps({"format": _FORMAT, "hosts": hosts}, indent=1)
    with replaced("tune", path) as file:
        file.write(text.encode("utf-8"))


@contextmanager
def _locked(path: "Path") -> Iterator[None]:
    """Alone among all processes; the system ends the lock with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_suffix(".lock")
    check_regular("tune", lock)
    with open(lock, "a+b") as file:
        _take(file)
        try:
            yield
        finally:
            if sys.platform == "win32":
                import msvcrt

                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_UN)


def _take(file: BinaryIO) -> None:
    """Take the lock, or give up after some seconds: a process that was stopped may hold it for ever."""
    ends = time.monotonic() + _PATIENCE
    while True:
        try:
            if sys.platform == "win32":
                import msvcrt

                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise
            if time.monotonic() > ends:
                raise TimeoutError(errno.ETIMEDOUT, f"another process held {file.name} for {_PATIENCE} s") from None
        time.sleep(0.01)
