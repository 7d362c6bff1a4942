"""TBB as pip installs it: Numba asks the loader for the library, which does not look into a virtual environment."""

import sys
from importlib import metadata
from pathlib import Path

__all__ = ["remedy"]

#: The library's file, and the variable with the folders where the loader looks.
_LOOKED_FOR = {
    "linux": ("libtbb.so.12", "LD_LIBRARY_PATH"),
    "darwin": ("libtbb.12.dylib", "DYLD_LIBRARY_PATH"),
    "win32": ("tbb12.dll", "PATH"),
}


def remedy() -> str | None:
    """What lets Numba find a TBB that pip has installed, as the end of a message; None where there is none.

    It is not loaded from there unasked: every parallel loop of the process would change its threading layer.
    """
    library, variable = _LOOKED_FOR.get(sys.platform, ("", ""))
    try:
        files = metadata.files("tbb") or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == library:
            folder = Path(str(file.locate())).resolve().parent
            return f"pip has installed it in {folder}, where the loader does not look: set {variable}={folder}"
    return None
