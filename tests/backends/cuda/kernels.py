"""No tests: every kernel of the matrix algorithms with the signatures that it is compiled for."""

from dataclasses import dataclass
from itertools import product
from typing import Any

from numba.cuda import types

from numbaconv.backends.base import NO_EPILOGUE
from numbaconv.backends.cuda import (
    depthwise,
    depthwise_kernels,
    gather_gemm,
    tensor_gather,
    tensor_weight,
    weight_gemm,
    winograd_kernels,
)
from numbaconv.backends.cuda.epilogue import finisher
from numbaconv.backends.cuda.tensor_tiles import HALF_TILES, KINDS, SPLIT_TILES
from numbaconv.backends.cuda.tiles import TILES, WEIGHT_TILES
from numbaconv.backends.cuda.walks import forward_walk, input_walk
from numbaconv.plan import Axis

DTYPES = ("float32", "float16", "bfloat16", "float64")
#: How sources are gathered, and whether result channels are neighbours, as they come together.
WAYS = (("each", False), ("each", True), ("quads", True), ("flat", False), ("flat", True))


@dataclass(frozen=True)
class Case:
    """A kernel, its signature, and what its threads and main loop must look like."""

    name: str
    kernel: Any
    signature: Any
    threads: int
    operation: str
    wide: bool
    sums: int = 0
    quads: int = 0

    def __str__(self):
        return self.name


def array(dtype):
    """A flat array of elements of a dtype as kernels get it."""
    return types.Array(types.uint16 if dtype == "bfloat16" else getattr(types, dtype), 1, "C")


def held(tile):
    """What a thread holds: sums, and quads of rows and columns at each depth."""
    return tile.thread_rows * tile.thread_columns, (tile.thread_rows + tile.thread_columns) // 4


def cases():
    """Every tile, dtype and way to gather."""
    for dtype in DTYPES:
        compute = "float64" if dtype == "float64" else "float32"
        scalar, operation = getattr(types, compute), "DFMA" if compute == "float64" else "FFMA"
        steps = types.int64, types.int64, scalar
        table, sums = array("int32"), array(compute)
        finish = finisher(compute, NO_EPILOGUE)
        for tile, (how, last) in product(TILES[scalar.bitwidth // 8], WAYS):
            kernel = gather_gemm.gather_kernel(tile, dtype, dtype, how, last, compute, finish)
            signature = types.void(array(dtype), sums, array(dtype), types.Tuple(()), table, *steps)
            place = "last" if last else "first"
            yield Case(
                f"gather {tile} {dtype} {how} {place}", kernel, signature, tile.threads, operation, True, *held(tile)
            )
        for tile, how in product(WEIGHT_TILES[scalar.bitwidth // 8], ("each", "quads")):
            kernel = weight_gemm.weight_kernel(tile, dtype, dtype, how, compute)
            signature = types.void(array(dtype), array(dtype), sums, table, *steps, *[types.int64] * 6)
            yield Case(
                f"weight {tile} {dtype} {how}", kernel, signature, tile.threads, operation, how == "quads", *held(tile)
            )


def small_cases():
    """Kernels without a main loop: what packs weights and what adds chunks."""
    for dtype in DTYPES:
        compute = "float64" if dtype == "float64" else "float32"
        integers = array("int64")
        pack = types.void(array(dtype), array(compute), integers, integers)
        yield Case(f"pack {dtype}", gather_gemm.pack_kernel(dtype, compute), pack, 128, "", False)
        if dtype != "float64":
            for kind in (KINDS[dtype],) if dtype in KINDS else (KINDS["tf32"], KINDS["3xtf32"]):
                rows = types.void(array(dtype), array("uint16" if kind.per_word == 2 else compute), integers, integers)
                yield Case(f"pack rows {kind.name}", tensor_gather.pack_rows_kernel(kind), rows, 128, "", False)
        add = types.void(array(compute), array(dtype), integers)
        yield Case(f"sum {dtype}", weight_gemm.sum_kernel(dtype, compute), add, 128, "", False)


def tensor_cases():
    """The kernels on tensor cores: every tile, kind of numbers and way to gather; constant padding with two of them.

    Of the main loop for 128x128, compiled for 8.0 and 9.0, instructions of which so many are products::

        float16  quads 186, 190 of which 32    each 347, 350          flat 776, 809          weights 1060 to 1160
        tf32     quads 214 (8.0) of which 32    each 338, 350                                 weights 555 to 820
        3xtf32   quads 663, 671 of which 96    each 734, 739          flat 985, 990          weights 1510 to 1560

    All are counted, executed in each step or not: with 3xtf32 some 170 (weights 450) split large values.
    """
    finish = finisher("float32", NO_EPILOGUE)
    table, sums = array("int32"), array("float32")
    steps = types.int64, types.int64, types.uint32
    for kind in KINDS.values():
        dtype = kind.name if kind.per_word == 2 else "float32"
        packed = array("uint16") if kind.per_word == 2 else sums
        products = 6 if kind.parts == 2 else 2  # of 16x8 results, a step
        for tile, (how, last), filled in product(SPLIT_TILES if kind.parts == 2 else HALF_TILES, WAYS, (False, True)):
            if filled and how == "quads":
                continue
            kernel = tensor_gather.tensor_kernel(tile, kind, dtype, how, filled, last, finish)
            signature = types.void(array(dtype), packed, array(dtype), types.Tuple(()), table, *steps)
            name = f"product {tile} {kind.name} {how} {'last' if last else 'first'}{' filled' * filled}"
            copies = how == "quads" or kind.per_word == 1
            count = products * tile.thread_rows * tile.thread_columns // 4
            yield Case(name, kernel, signature, tile.threads, "HMMA", copies, count)
        for tile, how, filled in product(HALF_TILES, ("first", "last"), (False, True)):
            kernel = tensor_weight.tensor_weight_kernel(tile, kind, how, filled)
            signature = types.void(array(dtype), array(dtype), sums, table, *steps, *[types.int64] * 6)
            name = f"gradient {tile} {kind.name} {how}{' filled' * filled}"
            count = products * tile.thread_rows * tile.thread_columns // 4
            yield Case(name, kernel, signature, tile.threads, "HMMA", kind.per_word == 1, count)


def _axis(kernel, stride=1, dilation=1):
    return Axis(64, 64 // stride, kernel, stride, dilation, kernel // 2, kernel // 2)


#: Walks of the depthwise kernels by name, and whether padding may be constant: few and many taps, phases, taps apart.
SWEEPS = {
    "3 taps": (forward_walk(_axis(3)), "down", False),
    "3 taps of constant padding": (forward_walk(_axis(3)), "along", True),
    "7 taps": (forward_walk(_axis(7)), "last", False),
    "31 taps": (forward_walk(_axis(31)), "along", False),
    "31 taps apart": (forward_walk(_axis(31, dilation=9)), "last", True),
    "phases": (input_walk(_axis(3, stride=2)), "along", False),
    "phases of 4": (input_walk(_axis(7, stride=4)), "last", False),
    "far": (input_walk(_axis(7, stride=8)), "along", False),
}
#: As `SWEEPS`, with the lines of taps in a tile, and the threads beside each other.
DOTS = {
    "3x3": (forward_walk(_axis(3)), "down", False, 3, 1),
    "3x3 of constant padding": (forward_walk(_axis(3)), "last", True, 3, 32),
    "5x5": (forward_walk(_axis(5)), "last", False, 5, 32),
    "7x3": (forward_walk(_axis(7)), "along", False, 3, 1),
    "5x5 apart": (forward_walk(_axis(5, stride=3, dilation=9)), "down", True, 5, 1),
    "25x1": (forward_walk(_axis(1)), "down", False, 25, 1),
}


def depthwise_cases():
    """The depthwise kernels: all that is in registers is indexed by constants, or it would be on the stack."""
    for dtype in DTYPES:
        compute = "float64" if dtype == "float64" else "float32"
        scalar, operation = getattr(types, compute), "DFMA" if compute == "float64" else "FFMA"
        finish = finisher(compute, NO_EPILOGUE)
        steps = types.int64, types.int64, scalar
        for name, (walk, order, constant) in SWEEPS.items():
            walked = 1 if order == depthwise_kernels.DOWN else 2
            chosen = (walk.pattern, order, walked, walk.chunks > 1, constant, (dtype,) * 3, compute, finish)
            signature = types.void(*[array(dtype)] * 3, types.Tuple(()), array("int32"), *steps)
            kernel = depthwise_kernels.sweep_kernel(*chosen)
            yield Case(f"sweep {dtype} {name}", kernel, signature, depthwise.THREADS, operation, False)
        for name, (walk, order, constant, lines, beside) in DOTS.items():
            chosen = (walk.pattern, lines, order, constant, depthwise.THREADS, beside, (dtype,) * 2, compute)
            signature = types.void(array(dtype), array(dtype), array(compute), array("int32"), types.int64, *steps)
            yield Case(
                f"dots {dtype} {name}",
                depthwise_kernels.dots_kernel(*chosen),
                signature,
                depthwise.THREADS,
                operation,
                False,
            )


def winograd_cases():
    """The transforms; ``wide``: whether there are accesses of 128 bits. Their products are a gather's."""
    for dtype, outputs in product(DTYPES, (2, 4)):
        compute = "float64" if dtype == "float64" else "float32"
        scalar, operation = getattr(types, compute), "DADD" if compute == "float64" else "FADD"
        finish, table, sums = finisher(compute, NO_EPILOGUE), array("int32"), array(compute)
        steps, threads = [types.int64] * 4, winograd_kernels.THREADS
        label = f"{dtype} {outputs}x{outputs}"
        for last, constant in ((False, False), (False, True), (True, False)):
            kernel = winograd_kernels.source_kernel(outputs, dtype, last, constant, compute)
            signature = types.void(array(dtype), sums, table, *steps, scalar)
            place = ("last" if last else "first") + (" constant" if constant else "")
            yield Case(f"source {label} {place}", kernel, signature, threads, operation, False)
        for last, wide in ((False, 1), (False, 2), (False, 4), (True, 1)):
            if wide <= outputs:
                kernel = winograd_kernels.result_kernel(outputs, dtype, last, wide, compute, finish)
                signature = types.void(sums, array(dtype), types.Tuple(()), table, *steps)
                place = "last" if last else f"first by {wide}"
                whole = wide * array(dtype).dtype.bitwidth >= 128
                yield Case(f"result {label} {place}", kernel, signature, threads, operation, whole)
        kernel = winograd_kernels.weight_kernel(outputs, dtype, compute)
        yield Case(f"weight {label}", kernel, types.void(array(dtype), sums, array("int64")), threads, operation, False)
