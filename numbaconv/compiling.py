"""What is said of compiling, as it begins: one line of the log ``numbaconv`` for each kernel, at the level INFO.

A kernel takes seconds to compile, once; what the disk has already is loaded in milliseconds, and nothing is said of it.
``logging.basicConfig(level=logging.INFO)`` shows the lines, `numbaconv.progress` shows them as a bar. A record has the
attributes ``compiling``, what is compiled in a few words, and ``folder``, where it is kept, or None.
"""

import logging

__all__ = ["LOGGER", "say"]

LOGGER = logging.getLogger("numbaconv")


def say(what: str, folder: str | None = None) -> None:
    """Say that something is being compiled from now on.

    Parameters
    ----------
    what : str
    folder : str, optional
        Where later processes find it; None where each process compiles its own.
    """
    if not LOGGER.isEnabledFor(logging.INFO):
        return
    rest = "once a process" if folder is None else f"once; later processes load it from {folder}"
    LOGGER.info("compiling %s, %s", what, rest, extra={"compiling": what, "folder": folder})
