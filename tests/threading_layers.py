"""No tests: Numba's threading layers, and the environment in which a process finds each of them."""

import os
import subprocess
import sys
from functools import cache
from importlib import import_module, metadata
from pathlib import Path

import pytest

__all__ = ["LAYERS", "environment_of"]

LAYERS = ("workqueue", "omp", "tbb")
#: The file that Numba asks the loader for, and the variable with the folders where the loader looks.
_TBB = {
    "linux": ("libtbb.so.12", "LD_LIBRARY_PATH"),
    "darwin": ("libtbb.12.dylib", "DYLD_LIBRARY_PATH"),
    "win32": ("tbb12.dll", "PATH"),
}


@cache
def _folder_of_tbb() -> str | None:
    """Where pip has put TBB's library, which no loader looks into by itself; None where pip has not."""
    library, _ = _TBB[sys.platform]
    try:
        files = metadata.files("tbb") or []
    except metadata.PackageNotFoundError:
        return None
    return next((str(Path(str(file.locate())).resolve().parent) for file in files if file.name == library), None)


def _variables(layer: str) -> dict[str, str]:
    found = {"NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "2"}
    if layer == "tbb" and (folder := _folder_of_tbb()) is not None:
        _, variable = _TBB[sys.platform]
        found[variable] = os.pathsep.join(filter(None, [folder, os.environ.get(variable)]))
    return found


@cache
def _missing(layer: str) -> str | None:
    """Why a process cannot have a layer, or None."""
    if layer != "tbb":
        try:
            import_module({"omp": "numba.np.ufunc.omppool", "workqueue": "numba.np.ufunc.workqueue"}[layer])
        except ImportError as error:
            return str(error)
        return None
    program = (
        "from numba.np.ufunc import parallel; parallel._check_tbb_version_compatible(); import numba.np.ufunc.tbbpool"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, **_variables(layer)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


def environment_of(layer: str) -> dict[str, str]:
    """The environment of a process with a layer and two threads.

    A layer that is not there skips the test, with the reason; TBB that pip has installed must be there.
    """
    reason = _missing(layer)
    if reason is not None:
        assert layer != "tbb" or _folder_of_tbb() is None, f"pip has installed tbb, but {reason}"
        pytest.skip(f"there is no threading layer {layer} here: {reason}")
    return {**os.environ, **_variables(layer)}
