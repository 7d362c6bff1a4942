"""Algorithms on tensor cores: float16 and bfloat16, TF32 where the plan allows it, and float32 as three TF32 products.

Sums are float32. What each result is off by, in units of ``eps |x| conv |w|`` for n products (`error_factor`), where
an instruction cuts off each of its terms, and the sum, below the 24th bit of the largest:

halves   products are exact; 16 of them and the sum so far make an instruction, at most 17 cuts of ``eps`` of what has
         been summed. An instruction may add in smaller parts, down to one by one: ``2 n``.
tf32     besides, each operand is rounded by ``2**-11`` at most: ``2**-10 + 2**-22`` of a product.
3xtf32   what is left out of a product, and the last bit of either lower part: 2 and 2; a run of two instructions of 8
         products: at most 18 cuts of the run's sum (32, if they are added one by one); a float32 rounding for each of
         ``n / 16`` runs; a thousandth of the cuts of other sums, ``4 n`` at most: ``n / 16 + n / 256 + 36`` covers it.

**When three TF32 products are chosen.** No GPU was there to measure. The rule rests on the machine code of the main
loops (instruction counts are in the tests' ``kernels.py``: an instruction of a warp stands for 24 products without
tensor cores, for 50 to 65 with three TF32 products), and on multiply-adds a cycle of a multiprocessor that follow
from the stated peaks; ``mma.sync`` does not reach all of the last:

==========  =======  ======================  ==========
capability  float32  TF32 on tensor cores    three TF32
==========  =======  ======================  ==========
8.0         64       512                     171
8.6, 8.9    128      128 (GeForce) or 256    43 or 85
9.0         128      1024                    341
==========  =======  ======================  ==========

So devices of 8.0 and of 9.0 and newer gain, those of 8.6 to 8.9 lose. A product needs enough depth to make its error
comparable and its pipeline worthwhile: 64 products or more. Weight gradients are chosen by the same rule.
"""

from functools import cache, partial
from math import prod
from typing import Any

import numpy as np
from numba import cuda

from ...plan import ConvPlan
from ..base import About, Direction, terms_summed
from ..tables import fill_value
from .availability import unavailable
from .device import Tensor, empty, memory
from .elements import BFLOAT16, reader
from .gather import Step
from .implicit_gemm import (
    LEAST_ROWS,
    MOST_ELEMENTS,
    PackTables,
    Product,
    gathered,
    refusal_of_gather,
)
from .implicit_weight import Weight, WeightProduct, refusal_of_weight, worthwhile
from .jit import SIMULATED, kernel
from .launching import THREADS, blocks_for, launch
from .running import algorithm
from .tensor_gather import pack_rows_kernel, tensor_kernel
from .tensor_tiles import CHUNKS, HALF_TILES, KINDS, MOST_ROWS, SMALL_TENSOR, SPLIT_TILES, Kind
from .tensor_weight import FIRST, LAST, tensor_weight_kernel
from .tiles import choose_tile

__all__ = ["TENSOR_CORE", "TENSOR_CORE_3XTF32"]

#: The part of the depth that a tap at a time may leave empty: looking up every element costs more than products.
_MOST_EMPTY = 0.5
#: Products of a sum from which three TF32 products are chosen.
_LEAST_DEPTH = 64
#: The oldest devices that have the instructions.
_CAPABILITY = (8, 0)


@cache
def _capability() -> tuple[int, int]:
    """Of the oldest device. The simulator's is what is asked for, and so it is where no device can be asked.

    The latter is for the documentation, which asks what would be accepted: nothing runs there.
    """
    if SIMULATED or unavailable(None) is not None:
        return _CAPABILITY
    return min(tuple(device.compute_capability) for device in cuda.gpus)


def kind_of(plan: ConvPlan) -> Kind:
    """What is multiplied for a plan of float32 or a half type."""
    if plan.dtype == "float32":
        return KINDS["tf32" if plan.precision == "tf32" else "3xtf32"]
    return KINDS[plan.dtype]


class TensorProduct(Product):
    """What `implicit_gemm.Gathered` does with tensor cores."""

    def __init__(self, plan: ConvPlan):
        super().__init__(plan)
        self.kind = kind_of(plan)
        self.step = Step(self.kind.depth, _MOST_EMPTY)
        self.piece = self.kind.depth // CHUNKS
        self.filled = _filled(plan)

    def fill(self, plan: ConvPlan) -> Any:
        """What constant padding holds, as the bits of a word."""
        return _fill(self.kind, plan)

    def operand(self, tensor: Tensor, stream: Any) -> Tensor:
        """An operand as kernels take it: of one dtype."""
        return _operand(self.kind, tensor, stream)

    def tile(self, rows: int, columns: int, copies: int) -> Any:
        """The tile for ``copies`` products of so many rows and columns."""
        tiles = SPLIT_TILES if self.kind.parts == 2 else HALF_TILES
        return choose_tile(tiles, rows, columns, copies, SMALL_TENSOR)

    def packed(self, tables: PackTables, w: Tensor, stream: Any) -> Any:
        """A weight as the kernels read it."""
        w = self.operand(w, stream)
        dtype = np.dtype(np.uint16 if self.kind.per_word == 2 else np.float32)
        # Blocks read whole tiles of rows: at the end, too, there must be something.
        packed = empty((self.kind.parts * tables.elements + tables.row * MOST_ROWS,), dtype, stream).data
        pack = pack_rows_kernel(self.kind)
        launch(pack, blocks_for(tables.elements), THREADS, stream, w.data, packed, tables.places, tables.numbers)
        return packed

    def kernel(self, made: Any, source: Tensor, out: Tensor, finish: Any) -> Any:
        """The kernel for these operands."""
        return tensor_kernel(made.tile, self.kind, out.dtype.name, made.how, self.filled, made.last, finish)


class TensorWeight(WeightProduct):
    """What `implicit_weight.Weight` does with tensor cores."""

    def __init__(self, plan: ConvPlan):
        super().__init__(plan)
        self.kind = kind_of(plan)
        self.depth = self.kind.depth
        self.filled = _filled(plan)

    def fill(self, plan: ConvPlan) -> Any:
        """What constant padding holds, as the bits of a word."""
        return _fill(self.kind, plan)

    def operand(self, tensor: Tensor, stream: Any) -> Tensor:
        """An operand as kernels take it: of one dtype."""
        return _operand(self.kind, tensor, stream)

    def tile(self, rows: int, columns: int, copies: int) -> Any:
        """The tile for ``copies`` products of so many rows and columns."""
        return choose_tile(HALF_TILES, rows, columns, copies, SMALL_TENSOR)

    def way(self, last: bool, quads: bool) -> str:
        """Whether channels are neighbours."""
        return LAST if last else FIRST

    def kernel(self, made: Any, x: Tensor, y: Tensor) -> Any:
        """The kernel for these operands."""
        return tensor_weight_kernel(made.tile, self.kind, made.how, self.filled)


@cache
def _widen(dtype: str) -> Any:
    """The kernel that makes float32 of a half type."""
    read = reader(dtype)

    @kernel
    def widen(source, target, count):
        at = cuda.grid(1)
        if at < count:
            target[np.uint64(at)] = np.float32(read(source, np.uint64(at)))

    return widen


def _operand(kind: Kind, tensor: Tensor, stream: Any) -> Tensor:
    """An operand in the plan's dtype: itself, or, of a half type beside a float32 one, a copy."""
    if kind.per_word == 2 or tensor.dtype == np.float32:
        return tensor
    made = Tensor(memory(tensor.span, np.dtype(np.float32), stream), np.dtype(np.float32), tensor.shape, tensor.strides)
    launch(_widen(tensor.dtype.name), blocks_for(tensor.span), THREADS, stream, tensor.data, made.data, tensor.span)
    return made


def _filled(plan: ConvPlan) -> bool:
    """Whether padding may hold something else than zeros."""
    return bool(plan.padding_value) and any(axis.mode == "constant" for axis in plan.axes)


def _fill(kind: Kind, plan: ConvPlan) -> Any:
    """What constant padding holds, as the bits of a word."""
    value = fill_value(plan, np.dtype(np.float32))
    return value.view(np.uint32) if kind.per_word == 1 else np.uint32(half_bits(value, kind.name) or 0)


def half_bits(value: np.float32, dtype: str) -> int | None:
    """The bits of a half type that hold a value, or None where there are none that hold it exactly; NaN is one."""
    if dtype == BFLOAT16:
        bits = int(value.view(np.uint32))
        if np.isnan(value):
            return 0x7FC0
        return bits >> 16 if bits & 0xFFFF == 0 else None
    with np.errstate(over="ignore"):
        half = value.astype(np.float16)
    return int(half.view(np.uint16)) if half == value or np.isnan(value) else None


def _refusal_of_kind(split: bool, plan: ConvPlan) -> str | None:
    """Why a plan's numbers do not suit, or the devices that are there."""
    if plan.dtype not in ("float32", "float16", "bfloat16"):
        return f"tensor cores multiply float16, bfloat16 and TF32, not {plan.dtype}"
    if plan.compute_dtype != "float32":
        return f"tensor cores sum in float32, not in {plan.compute_dtype}"
    kind = kind_of(plan)
    if (kind.parts == 2) != split:
        return "float32 is split in two TF32 for it" if split else "operands may not be rounded to TF32"
    if kind.per_word == 2 and half_bits(fill_value(plan, np.dtype(np.float32)), plan.dtype) is None:
        return f"constant padding holds {plan.padding_value}, which is no {plan.dtype}"
    capability = _capability()
    if capability < _CAPABILITY:
        return f"its instructions need compute capability 8.0, and a device has {'.'.join(map(str, capability))}"
    return None


def _refusal(split: bool, by_input: bool, plan: ConvPlan) -> str | None:
    refusal = _refusal_of_kind(split, plan) or refusal_of_gather(by_input, plan)
    if refusal is not None:
        return refusal
    rows, channels = (plan.x_channels, plan.y_channels) if by_input else (plan.y_channels, plan.x_channels)
    kind = kind_of(plan)
    unit = kind.depth * -(-channels // plan.groups // kind.depth)
    packed = kind.parts * (rows + 3 * plan.groups) * prod(plan.w_shape[2:]) * unit
    if packed >= MOST_ELEMENTS:
        return f"its offsets reach {MOST_ELEMENTS} elements, but packed weights would have {packed}"
    return None


def _depth_is_worth_it(split: bool, depth: int) -> str | None:
    if split and depth < _LEAST_DEPTH:
        return f"three TF32 products are for sums of {_LEAST_DEPTH} products and more, and here are {depth}"
    if split and not SIMULATED and (8, 0) < _capability() < (9, 0):
        return "on this device three TF32 products take longer than one of float32"
    return None


def _worthwhile(split: bool, by_input: bool, plan: ConvPlan) -> str | None:
    rows, channels = (plan.x_channels, plan.y_channels) if by_input else (plan.y_channels, plan.x_channels)
    if rows // plan.groups < LEAST_ROWS:
        return f"a group has {rows // plan.groups} result channels, of which most of a tile would be empty"
    return _depth_is_worth_it(split, channels // plan.groups * prod(plan.w_shape[2:]))


def _weight_refusal(split: bool, plan: ConvPlan) -> str | None:
    return _refusal_of_kind(split, plan) or refusal_of_weight(plan)


def _weight_worthwhile(split: bool, plan: ConvPlan) -> str | None:
    return worthwhile(plan) or _depth_is_worth_it(split, plan.batch * prod(plan.y_shape[2:]))


def error_factor(direction: Direction, plan: ConvPlan) -> float:
    """See the top of this file."""
    kind, n = kind_of(plan), terms_summed(plan, direction)
    if kind.parts == 2:
        return n / 16 + n / 256 + 36.0 + 3.0
    return 2.0 * n + 3.0 + (2.0**13 + 4.0 if kind.name == "tf32" else 0.0)


def _rounds(plan: ConvPlan) -> bool:
    """Whether operands are rounded where a plan allows it."""
    return plan.dtype == "float32"


_WHOLE = About(
    does="products of fragments on tensor cores (`mma.sync`), sums in float32, copies ahead of use",
    cost="the definition's products, at the rate of tensor cores; results that a tile has too many are dropped",
    chosen="float16 and bfloat16, and float32 whose `precision` allows TF32, on devices of 8.0 and newer",
    bound="`2 n + 3` for `n` products; of float32 rounded to TF32 `2 n + 8199`",
)
_SPLIT = About(
    does="float32 as three products of TF32 on tensor cores; short runs of them are added up in float32",
    cost="three times the definition's products, at the rate of tensor cores",
    chosen="float32 with sums of 64 products or more, on devices of 8.0, and of 9.0 and newer",
    bound="`17 n / 256 + 39` for `n` products",
)


def _table(split: bool, name: str) -> Any:
    options = (
        {"family": "tensor_core", "about": _SPLIT}
        if split
        else {
            "family": "tensor_core",
            "about": _WHOLE,
            "rounds_to_tf32": _rounds,
        }
    )
    found = {
        direction: gathered(
            name,
            direction,
            TensorProduct,
            partial(_refusal, split),
            error_factor,
            partial(_worthwhile, split),
            **options,
        )
        for direction in (Direction.FORWARD, Direction.INPUT_GRAD)
    }
    found[Direction.WEIGHT_GRAD] = algorithm(
        name,
        Direction.WEIGHT_GRAD,
        partial(Weight, TensorWeight),
        partial(_weight_refusal, split),
        partial(error_factor, Direction.WEIGHT_GRAD),
        worthwhile=partial(_weight_worthwhile, split),
        **options,
    )
    return found


#: Half types, and float32 that may be rounded to TF32.
TENSOR_CORE = _table(False, "tensor_core")
#: float32 as three products of TF32.
TENSOR_CORE_3XTF32 = _table(True, "tensor_core_3xtf32")
