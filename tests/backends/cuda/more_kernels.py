"""No tests: the kernels that are compiled beside `kernels.py`: whole epilogues, the direct algorithm, what is between.

An epilogue is compiled into the kernel that stores through it: bias with a known activation, and bias with a residual
and a function of the user's, which divides.
"""

from itertools import product
from types import SimpleNamespace

import compile_check
from kernels import DTYPES, SWEEPS, Case, array, held
from numba.cuda import types

from numbaconv.backends.activations import resolve_activation
from numbaconv.backends.base import NO_EPILOGUE, Epilogue
from numbaconv.backends.cuda import copying, depthwise, depthwise_kernels, direct, elementwise, gather_gemm
from numbaconv.backends.cuda.epilogue import finisher
from numbaconv.backends.cuda.tiles import TILES

#: What ``direct`` has beside those of the tiles: its dtypes, and in which they are summed.
SUMMED_IN = {
    "float32": "float32",
    "float16": "float32",
    "bfloat16": "float32",
    "float64": "float64",
    "complex64": "complex64",
    "complex128": "complex128",
    "int8": "int32",
    "uint64": "int64",
}
THREADS = 128


def softsign(v):
    """A user's function."""
    return v / (1 + abs(v))


def numpy_array(dtype):
    """An array as an epilogue has it, of which the dtype's name counts."""

    return SimpleNamespace(dtype=SimpleNamespace(name=dtype))


def epilogues(dtype, compute):
    """By name: a device function, and the type of what it gets."""
    one = numpy_array(dtype)
    relu, function = (resolve_activation("kernels", each, compute) for each in ("relu", softsign))
    with compile_check.architecture((8, 0)):
        yield "bias, relu", finisher(compute, Epilogue(one, None, relu)), types.UniTuple(array(dtype), 1)
        yield "bias, residual, user's", finisher(compute, Epilogue(one, one, function)), types.UniTuple(array(dtype), 2)


def epilogue_cases():
    """Kernels that end in one, by tile and layout of the result."""
    for dtype in DTYPES:
        compute = "float64" if dtype == "float64" else "float32"
        scalar, operation = getattr(types, compute), "DFMA" if compute == "float64" else "FFMA"
        steps = types.int64, types.int64, scalar
        table, packed = array("int32"), array(compute)
        for name, finish, extras in epilogues(dtype, compute):
            for tile, last in product(TILES[scalar.bitwidth // 8], (False, True)):
                kernel = gather_gemm.gather_kernel(tile, dtype, dtype, "each", last, compute, finish)
                signature = types.void(array(dtype), packed, array(dtype), extras, table, *steps)
                label = f"gather {tile} {dtype} each {'last' if last else 'first'}: {name}"
                yield Case(label, kernel, signature, tile.threads, operation, True, *held(tile))
            for walk_name in ("3 taps", "7 taps"):
                walk, order, constant = SWEEPS[walk_name]
                walked = 1 if order == depthwise_kernels.DOWN else 2
                chosen = (walk.pattern, order, walked, walk.chunks > 1, constant, (dtype,) * 3, compute, finish)
                signature = types.void(*[array(dtype)] * 3, extras, table, *steps)
                kernel = depthwise_kernels.sweep_kernel(*chosen)
                yield Case(f"sweep {dtype} {walk_name}: {name}", kernel, signature, depthwise.THREADS, operation, False)


def direct_cases():
    """Every direction and dtype, with 32 and 64 bits to count in, and with epilogues."""
    for (dtype, compute), narrow in product(SUMMED_IN.items(), (True, False)):
        scalar, table = getattr(types, compute), array("int32" if narrow else "int64")
        ends = [("", finisher(compute, NO_EPILOGUE), types.Tuple(()))]
        if compute.startswith("float"):
            ends += [(f": {name}", *rest) for name, *rest in epilogues(dtype, compute)]
        operand, result = array(dtype), array(compute if compute.startswith("int") else dtype)
        out = compute if compute.startswith("int") else dtype
        width = "32 bits" if narrow else "64 bits"
        for name, finish, extras in ends:
            kernel = direct.forward_kernel(compute, (dtype, dtype, out), narrow, not narrow, finish)
            signature = types.void(operand, operand, result, extras, table, scalar)
            yield Case(f"direct forward {dtype} {width}{name}", kernel, signature, THREADS, "", False)
            kernel = direct.input_grad_kernel(compute, (out, dtype, dtype), narrow, not narrow, finish)
            signature = types.void(result, operand, operand, extras, table)
            yield Case(f"direct input {dtype} {width}{name}", kernel, signature, THREADS, "", False)
        kernel = direct.weight_grad_kernel(compute, (dtype, compute, dtype), narrow)
        signature = types.void(operand, array(compute), operand, table, scalar)
        yield Case(f"direct weight {dtype} {width}", kernel, signature, THREADS, "", False)
        kernel = direct.sum_kernel(compute, out, narrow)
        signature = types.void(array(compute), result, types.int64, types.int64)
        yield Case(f"direct sum {dtype} {width}", kernel, signature, THREADS, "", False)


def elementwise_cases():
    """What is done to gradients and between layouts."""
    with compile_check.architecture((8, 0)):
        for dtype, compute in SUMMED_IN.items():
            kernel = elementwise._channel_kernel(compute, dtype)
            signature = types.void(array(dtype), array(compute), array("int64"))
            yield Case(f"channel sums {dtype}", kernel, signature, THREADS, "", False)
            if compute.startswith("int"):
                continue
            derivative = resolve_activation("kernels", (softsign, softsign), compute).derivative
            kernel = elementwise._scale_kernel(derivative, compute, (dtype,) * 3, compute.startswith("complex"))
            signature = types.void(*[array(dtype)] * 3, types.int64)
            yield Case(f"scale {dtype}", kernel, signature, THREADS, "", False)
        for dtype in ("float32", "float16", "complex128"):
            signature = types.void(array(dtype), array(dtype), array("int64"))
            yield Case(f"copy {dtype}", copying._copy, signature, THREADS, "", False)
        signature = types.void(array("complex64"), array("complex64"), types.int64)
        yield Case("conjugate complex64", elementwise._conjugate, signature, THREADS, "", False)
