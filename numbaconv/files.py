"""Files that are read and written: whole or not at all, and never waited for.

A file is written beside the one that it replaces, brought to the disk, and put into its place in one step, so that a
full disk, an exception or a kill leaves the old one as it was. Only regular files are read and written: opening a FIFO
would wait for whoever is at its other end.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from .errors import ArgumentError

__all__ = ["check_regular", "opened", "replaced"]

#: What stands in a file's place, as `stat` tells it.
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def _check_kind(op: str, path: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for matches, name in _KINDS if matches(mode)), "no regular file")
        raise ArgumentError(f"{op}: {path!r} is {kind}, but must be a regular file")


def check_regular(op: str, path: str | os.PathLike[str]) -> os.stat_result | None:
    """The facts of a file, following links, or None where there is none.

    Raises
    ------
    ArgumentError
        For a directory, a FIFO, a socket or a device.
    OSError
        For what cannot be looked at, as a link that leads back to itself.
    """
    name = os.fspath(path)
    try:
        found = os.stat(name)
    except FileNotFoundError:
        return None
    _check_kind(op, name, found.st_mode)
    return found


def opened(op: str, path: str | os.PathLike[str]) -> BinaryIO:
    """A regular file, open for reading.

    Raises
    ------
    ArgumentError
        For a directory, a FIFO, a socket or a device.
    OSError
        As `open`.
    """
    name = os.fspath(path)
    check_regular(op, name)  # some devices act when they are opened
    handle = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check_kind(op, name, os.fstat(handle).st_mode)  # what was opened is what counts
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _beside(target: str, old: os.stat_result | None) -> tuple[str, int]:
    """A new file in the target's folder, with the rights that the target has or would get."""
    name = os.path.join(os.path.dirname(target), f".numbaconv-{os.urandom(8).hex()}.part")
    mode = 0o666 if old is None else 0o600  # the system takes away what the user's umask says
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    if old is not None and hasattr(os, "fchmod"):
        with suppress(OSError):  # another user's file, or a file system without owners
            if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(handle, old.st_uid, old.st_gid)
        with suppress(OSError):
            os.fchmod(handle, stat.S_IMODE(old.st_mode))
    return name, handle


def _settle_folder(folder: str) -> None:
    """Bring a folder's new entry to the disk, where the system can."""
    if os.name == "nt":
        return
    with suppress(OSError):
        handle = os.open(folder or ".", os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def replaced(op: str, path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of ``path`` when the block ends, and is removed if the block raises.

    A link keeps leading where it leads, to the new contents; rights are the old file's. Where the process is killed, a
    file ``.numbaconv-….part`` may be left in the folder, and the old one is whole.

    Raises
    ------
    ArgumentError
        For a directory, a FIFO, a socket or a device.
    OSError
        As `open` and `os.replace`; also for a file that may not be written.
    """
    old = check_regular(op, path)
    target = os.path.realpath(path)
    if old is not None and not os.access(target, os.W_OK):
        raise PermissionError(13, "Permission denied", os.fspath(path))
    name, handle = _beside(target, old)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    _settle_folder(os.path.dirname(target))
