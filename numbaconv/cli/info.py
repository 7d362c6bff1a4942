"""``numbaconv info``: what a report of a bug needs."""

import os
import platform
from argparse import Namespace
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .._version import __version__
from ..backends.registry import backends, get_backend, get_precision, resolve
from ..backends.winners import tuned_file, tuning_mode
from ..errors import ConvError
from .answers import Answer, table
from .kernels import kernel_files

__all__ = ["add", "run"]

_PACKAGES = (
    *("numpy", "numba", "llvmlite", "numba-cuda", "cupy", "tbb", "ml_dtypes", "scipy", "safetensors", "matplotlib"),
    *("torch", "jax", "jaxlib", "keras", "onnx", "onnxruntime", "dask", "distributed", "zarr"),
)


def add(commands: Any) -> Any:
    """It has no options of its own."""
    return commands.add_parser("info", help="what a report of a bug needs: versions, backends, threads, caches")


def run(options: Namespace) -> Answer:
    """Everything, by topic."""
    data = {
        "versions": _versions(),
        "machine": _machine(),
        "threads": _threads(),
        "backends": {name: status.reason or "can be used" for name, status in backends().items()},
        "chosen": {
            "backend": _told(get_backend),
            "runs on": _told(lambda: resolve(None).host()),
            "tuning": _told(tuning_mode),
            "precision": _told(get_precision),
        },
        "caches": _caches(),
        "environment": {name: os.environ[name] for name in sorted(os.environ) if name.startswith(("NUMBA", "OMP_"))},
    }
    return Answer(data, lambda screen: _show(screen, data))


def _told(ask: Callable[[], Any]) -> Any:
    """An answer; or, where something is set wrongly, what is wrong, which is what the report is about."""
    try:
        return ask()
    except (ConvError, ImportError, OSError, ValueError) as error:  # Numba has ValueError for its own variables
        return " ".join(str(error).split())


def _versions() -> dict[str, str]:
    found = {"numbaconv": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _machine() -> dict[str, str]:
    found = {"system": platform.platform(), "processor": platform.machine()}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):  # Linux alone has it
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        found[f"level {level} cache, {kind.lower()}"] = size
    return found


def _threads() -> dict[str, Any]:
    def layer() -> str:
        import numba

        numba.get_num_threads()  # starts the pool, which then has a layer
        return str(numba.threading_layer())

    def threads() -> int:
        import numba

        return int(numba.get_num_threads())

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"threads": _told(threads), "layer": _told(layer), "cores": cores}


def _caches() -> dict[str, Any]:
    files, tuned = kernel_files(), tuned_file()
    return {
        "compiled kernels": {
            "folders": sorted({str(file.parent) for file in files}),
            "files": len(files),
            "bytes": sum(file.stat().st_size for file in files),
        },
        "tuned algorithms": {"file": str(tuned), "bytes": tuned.stat().st_size if tuned.is_file() else 0},
    }


def _show(screen: Any, data: dict[str, Any]) -> None:
    for topic, facts in data.items():
        if facts:
            screen.print(table(None, (topic, ""), ((name, _flat(value)) for name, value in facts.items()), "left"))


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_flat(each)}" for name, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
