"""The processor that kernels are compiled for: Numba's target, which need not be the processor they are compiled on.

``NUMBA_CPU_NAME``, ``NUMBA_CPU_FEATURES`` and the file ``.numba_config.yaml`` aim at another. A name alone leaves Numba
the features of this machine, so a name is read once more without them: ``NUMBA_CPU_NAME=haswell`` has vectors of 32
bytes wherever it is set.
"""

from functools import cache
from typing import Any, NamedTuple

import llvmlite.binding as llvm
from numba import config
from numba.core.registry import cpu_target

__all__ = ["VECTOR_BYTES", "target", "target_of"]

#: One addition whose machine code shows how wide registers are.
_SUM = """
define <16 x i32> @sum(<16 x i32> %a, <16 x i32> %b) {
  %c = add <16 x i32> %a, %b
  ret <16 x i32> %c
}
"""


class Target(NamedTuple):
    """What code is generated for: the kind of machine, the processor's name and features, and Numba's switches."""

    triple: str
    name: str
    features: str
    switches: tuple[Any, ...]


def target_of(codegen: Any) -> Target:
    """The target of one of Numba's code generators."""
    triple, name, features = codegen.magic_tuple()
    return Target(triple, name, features, (str(config.OPT), bool(config.USING_SVML)))


@cache
def target() -> Target:
    """The target of every kernel of this process."""
    return target_of(cpu_target.target_context.codegen())


def _register_bytes(triple: str, name: str, features: str) -> int:
    """Bytes of the widest registers that LLVM adds integers in: 16 (SSE, NEON), 32 (AVX2) or 64 (AVX-512)."""
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=name, features=features, opt=0)
    code = machine.emit_assembly(llvm.parse_assembly(_SUM))
    return 64 if "zmm" in code else 32 if "ymm" in code else 16


def _vector_bytes() -> int:
    triple, name, features, _ = target()
    if not triple.startswith("x86_64"):
        return 16
    found = _register_bytes(triple, name, features)
    if config.CPU_NAME is not None and config.CPU_FEATURES is None:
        found = min(found, _register_bytes(triple, name, "+64bit"))  # unknown names are the oldest, of 32 bits
    return found


VECTOR_BYTES = _vector_bytes()
