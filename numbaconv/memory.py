"""How much memory there is, and the error of what is larger.

NumPy refuses what the system refuses, but many systems promise more than they have, and end the process that comes to
use it. A result is written in every cell, so that one larger than memory and swap together cannot be computed; it is
refused before anything is allocated, planned or compiled for it. An ``out`` may be of any size: it is there already.
"""

import os
import sys
from functools import cache
from math import prod

from .errors import ShapeError

__all__ = ["check_bytes", "check_fits", "fits", "machine_bytes"]

#: Where Linux says which groups this process is in, and what each of them may use.
_GROUPS, _LIMITS = "/proc/self/cgroup", "/sys/fs/cgroup"


def _lines(path: str) -> list[str]:
    """The lines of a file of the system's, or none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except (OSError, UnicodeError):
        return []


def _number(path: str) -> int | None:
    """The number that a file of the system's holds; None where there is no file or no number."""
    try:
        return int(_lines(path)[0])
    except (IndexError, ValueError):
        return None


def _listed() -> dict[str, int]:
    """Bytes by what Linux calls them."""
    words = (line.split() for line in _lines("/proc/meminfo"))
    return {each[0]: int(each[1]) << 10 for each in words if len(each) == 3}  # NAME: NUMBER kB


def _container_bytes(swap: int) -> int | None:
    """What the groups of this process may use, which is less than the machine has in many containers."""
    found = []
    for line in _lines(_GROUPS):
        _, kinds, place = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        name = "memory.limit_in_bytes" if kinds else "memory.max"  # of the first version of such groups, or the second
        parts = [part for part in place.split("/") if part]
        for length in range(len(parts) + 1):
            folder = os.path.join(_LIMITS, kinds, *parts[:length])
            most = _number(os.path.join(folder, name))
            if most is not None:
                extra = _number(os.path.join(folder, "memory.swap.max"))
                found.append(most + (swap if extra is None else min(extra, swap)))
    return min(found, default=None)


@cache
def machine_bytes() -> int | None:
    """Bytes of memory and swap that this process could have at most; None where the system refuses what is more."""
    if sys.platform == "win32":
        return None
    listed = _listed()
    memory, swap = listed.get("MemTotal:", 0), listed.get("SwapTotal:", 0)
    if not memory:
        try:
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            disk = os.statvfs("/")  # where macOS makes files of swap as it needs them
        except (OSError, ValueError, AttributeError):
            return None
        return memory + disk.f_frsize * disk.f_blocks
    container = _container_bytes(swap)
    return memory + swap if container is None else min(memory + swap, container)


def fits(shape: tuple[int, ...], itemsize: int) -> bool:
    """Whether an array could be in memory."""
    most = machine_bytes()
    return most is None or prod(shape) * itemsize <= most


def check_fits(op: str, what: str, shape: tuple[int, ...], itemsize: int, shapes: str = "") -> None:
    """Refuse an array that could not be in memory. ``shapes`` are those that it follows from.

    Raises
    ------
    ShapeError
        With its shape, its bytes, and those that there are.
    """
    if not fits(shape, itemsize):
        raise ShapeError(
            f"{op}: {what} of shape {shape} takes {prod(shape) * itemsize:,} bytes, but there are {machine_bytes():,} "
            f"bytes of memory and swap{shapes}"
        )


def check_bytes(what: str, count: int) -> None:
    """Refuse to allocate more bytes than there are.

    Raises
    ------
    ShapeError
        With both numbers.
    """
    if not fits((count,), 1):
        raise ShapeError(f"{what} takes {count:,} bytes, but there are {machine_bytes():,} bytes of memory and swap")
