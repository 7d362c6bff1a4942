"""Intrinsics: the fallbacks in the simulator against NumPy, and the instructions that the compiler makes of them."""

from pathlib import Path

import compile_check
import pytest
from simulation import SIMULATOR, simulate

PROGRAM = Path(__file__).with_name("simulated_intrinsics.py")

#: The operations that each kernel must contain, by architecture; and its arguments.
WANTED = {
    "product_tf32": ({(8, 0): ("HMMA.1688.F32.TF32",), (9, 0): ("HMMA.1688.F32.TF32",)}, ("f4", "f4", "f4")),
    "product_f16": ({(8, 0): ("HMMA.16816.F32",), (9, 0): ("HMMA.16816.F32",)}, ("u4", "u4", "f4")),
    "product_bf16": ({(8, 0): ("HMMA.16816.F32.BF16",), (9, 0): ("HMMA.16816.F32.BF16",)}, ("u4", "u4", "f4")),
    "matrices": (dict.fromkeys(((7, 5), (8, 0), (9, 0)), ("LDSM.16.M88.4", "STG.E.128")), ("u2", "u4")),
    "copies": (dict.fromkeys(((8, 0), (9, 0)), ("LDGSTS.E", "LDGDEPBAR", "LDS.128", "STG.E.128")), ("f4", "f4", "i4")),
    "vectors": (
        dict.fromkeys(((7, 5), (8, 0), (9, 0)), ("LDG.E.128", "LDG.E.64", "STG.E.128", "STG.E.64")),
        ("f4", "f4"),
    ),
}


@SIMULATOR
def test_fallbacks():
    found = simulate(PROGRAM)
    assert not found["wrong"]
    assert found["compared"] >= 150


@pytest.mark.skipif(compile_check.missing() is not None, reason=str(compile_check.missing()))
@pytest.mark.parametrize("name", WANTED)
def test_instructions(name):
    import intrinsic_kernels
    from numba.cuda import types

    architectures, arguments = WANTED[name]
    names = {"f4": types.float32, "u4": types.uint32, "u2": types.uint16}
    kinds = [types.Array(names[each], 1, "C") if each in names else types.int32 for each in arguments]
    signature = types.void(*kinds)
    codes = compile_check.to_ltoir(getattr(intrinsic_kernels, name), signature, min(architectures))
    for cc, operations in architectures.items():
        found = compile_check.link(codes, cc)
        assert (found.spilled, found.stack) == (0, 0)
        for operation in operations:
            assert any(each.startswith(operation) for each in found.operations), f"{operation}: {found.operations}"
