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
    size = sum(file.stat().st_size for file in files)
    for file in files:
        file.unlink(missing_ok=True)  # another process may clear, too
    return {"files": len(files), "bytes": size, "folders": sorted({str(file.parent) for file in files})}


def _said(data: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for name, title in (("kernels", "compiled kernels"), ("tuned", "tuned algorithms")):
        found = data[name]
        where = f" from {', '.join(found['folders'])}" if found["folders"] else ""
        lines.append(f"{title}: removed {found['files']} files, {found['bytes'] / 2**20:.1f} MiB{where}")
    return lines
