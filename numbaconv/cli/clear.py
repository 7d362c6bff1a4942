"""``numbaconv clear-cache``: remove compiled kernels, and what was tuned."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from ..backends.winners import tuned_file
from .answers import Answer
from .kernels import kernel_files

__all__ = ["add", "run"]


def add(commands: Any) -> Any:
    """Its options."""
    parser = commands.add_parser("clear-cache", help="remove compiled kernels, and what was tuned")
    parser.add_argument("--kernels", action="store_true", help="compiled kernels alone")
    parser.add_argument("--tuned", action="store_true", help="what was tuned alone")
    return parser


def run(options: Namespace) -> Answer:
    """What was removed; both, unless one is named."""
    both = options.kernels == options.tuned
    kernels = kernel_files() if both or options.kernels else []
    tuned = [file for file in (tuned_file(),) if file.is_file()] if both or options.tuned else []
    data = {"kernels": _removed(kernels), "tuned": _removed(tuned)}
    return Answer(data, lambda screen: screen.print("\n".join(_said(data)), highlight=False))


def _removed(files: list[Path]) -> dict[str, Any]:
    removed, size = [], 0
    left: dict[str, str] = {}
    for file in files:
        try:
            found = file.stat().st_size
            file.unlink()
        except FileNotFoundError:  # another process clears, too
            continue
        except OSError as error:
            left[str(file.parent)] = error.strerror or str(error)
        else:
            removed.append(file)
            size += found
    folders = sorted({str(file.parent) for file in removed})
    return {"files": len(removed), "bytes": size, "folders": folders, "left": left}


def _said(data: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for name, title in (("kernels", "compiled kernels"), ("tuned", "tuned algorithms")):
        found = data[name]
        where = f" from {', '.join(found['folders'])}" if found["folders"] else ""
        lines.append(f"{title}: removed {found['files']} files, {found['bytes'] / 2**20:.1f} MiB{where}")
        lines += [f"{title}: left what is in {folder}: {reason}" for folder, reason in found["left"].items()]
    return lines
