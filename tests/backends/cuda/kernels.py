"""No tests: every kernel of the matrix algorithms with the signatures that it is compiled for."""

from dataclasses import dataclass
from itertools import product
from typing import Any

from numba.cuda import types

from numbaconv.backends.base import NO_EPILOGUE
from numbaconv.backends.cuda import gather_gemm, weight_gemm
from numbaconv.backends.cuda.epilogue import finisher
from numbaconv.backends.cuda.tiles import TILES, WEIGHT_TILES

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
        add = types.void(array(compute), array(dtype), integers)
        yield Case(f"sum {dtype}", weight_gemm.sum_kernel(dtype, compute), add, 128, "", False)
