"""Where compiled kernels lie on disk, of all targets and versions: files of this package's modules."""

import pkgutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ..backends.registry import backends

__all__ = ["kernel_files", "not_stored"]


def kernel_files() -> list[Path]:
    """Every file of kernels of the backends that can be used here, in each folder where kernels are looked for."""
    folders: set[Path] = set()
    stems: set[str] = set()
    for module in _modules():
        stems.add(module.__name__.rsplit(".", 1)[-1])
        for value in vars(module).values():
            cache = getattr(value, "_cache", None)
            for path in getattr(cache, "folders", [getattr(cache, "cache_path", None)]):
                if isinstance(path, str):
                    folders.add(Path(path))
    found = (file for folder in folders if folder.is_dir() for file in folder.glob("*.nb[ic]"))
    return sorted(file for file in found if file.name.split(".", 1)[0] in stems)


def not_stored() -> list[str]:
    """The folders that a kernel of this process could not be written to, with the reason; none, where one took it."""
    cache: Any = sys.modules.get("numbaconv.backends.cpu.cache")
    return list(cache.not_stored()) if cache else []


def _modules() -> Iterator[ModuleType]:
    """The modules of each backend of this package."""
    for name, status in backends().items():
        package: Any = _imported(name) if status.available else None
        for each in pkgutil.iter_modules(getattr(package, "__path__", ())):
            yield import_module(f"{package.__name__}.{each.name}")


def _imported(name: str) -> ModuleType | None:
    """A backend's package; plug-ins keep their kernels themselves."""
    try:
        return import_module(f"numbaconv.backends.{name}")
    except ModuleNotFoundError:
        return None
