"""The machine that figures were measured on."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = ["machine"]


def machine() -> dict[str, Any]:
    """What times depend on: processor, cores, versions."""
    import llvmlite.binding as llvm

    from ..backends.cpu.target import VECTOR_BYTES, target

    found: dict[str, Any] = {
        "processor": llvm.get_host_cpu_name(),
        "kernels for": target().name,
        "vectors": {64: "AVX-512", 32: "AVX2"}.get(VECTOR_BYTES, "128 bits"),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    for package in ("numbaconv", "numba", "numpy", "torch", "onnxruntime"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found
