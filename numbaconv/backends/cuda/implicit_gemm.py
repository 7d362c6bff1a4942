"""The implicit GEMM algorithm on the device: tables made, tiles chosen, weights packed, kernels launched."""

from collections.abc import Callable, Hashable
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ...plan import ConvPlan
from ..base import About, Algorithm, Direction, PackedWeight, any_order_factor
from ..tables import fill_value
from .device import Tensor, empty, in_layout_of, settled, span
from .epilogue import DeviceEpilogue
from .gather import COLUMN_BLOCKS, ROW_BLOCKS, STEP_OF_TILES, Gather, Step, gather_of, gather_phases
from .gather_gemm import EACH, FLAT, QUADS, gather_kernel, pack_kernel
from .launching import THREADS, blocks_for, launch
from .running import Launch, algorithm, packing
from .scratch import Kept, context
from .tiles import SMALL, TILES, choose_tile

__all__ = [
    "BESIDE_CHANNELS",
    "GATHERED",
    "IMPLICIT_GEMM",
    "LEAST_ROWS",
    "MOST_ELEMENTS",
    "MOST_ENTRIES",
    "PackTables",
    "Product",
    "common_refusal",
    "forward_launch",
    "gathered",
    "is_aligned",
    "reachable",
    "refusal_of_gather",
    "steps_of_sample",
]

#: Elements of a sample, and of a weight, that 32-bit offsets reach.
MOST_ELEMENTS = 2**30
#: Phases, and table entries for each depth, above which tables would outgrow what they are for.
_MOST_PHASES, MOST_ENTRIES = 2**12, 2**20
#: Result channels of a group from which a tile is worth its empty rows.
LEAST_ROWS = 4


#: The axes along which a step must be a whole number of quads: those beside the channels, or beside the positions.
BESIDE_CHANNELS, BESIDE_POSITIONS = (0, 2, 3, 4), (0, 1)


def is_aligned(tensor: Tensor, beside: tuple[int, ...], count: int = 4) -> bool:
    """Whether ``count`` neighbours may begin at the first element, and wherever steps along these axes lead."""
    pointer = getattr(tensor.data, "device_ctypes_pointer", None)  # the simulator's memory has no such requirements
    first = 0 if pointer is None else pointer.value or 0
    steps = (tensor.strides[axis] for axis in beside if tensor.shape[axis] > 1)
    return first % min(count * tensor.dtype.itemsize, 16) == 0 and all(step % count == 0 for step in steps)


def steps_of_sample(tensor: Tensor) -> tuple[int, ...]:
    """Elements from one channel to the next, and from one cell to the next along each axis; 0 where there is one."""
    return tuple(step if n > 1 else 0 for n, step in zip(tensor.shape[1:], tensor.strides[1:], strict=True))


def reachable(tensor: Tensor, stream: Any) -> Tensor:
    """The tensor itself where 32-bit offsets reach all of a sample, or a copy that is one stretch of memory."""
    if span(tensor.shape[1:], tensor.strides[1:]) < 2**31:
        return tensor
    strides = tuple(prod(tensor.shape[axis + 1 :]) for axis in range(5))
    return in_layout_of(tensor, Tensor(None, tensor.dtype, tensor.shape, strides), stream)


def dense_positions(tensor: Tensor) -> bool:
    """Whether a channel's positions are one stretch of memory."""
    step = 1
    for n, stride in zip(tensor.shape[:1:-1], tensor.strides[:1:-1], strict=True):
        if n > 1 and stride != step:
            return False
        step *= n
    return True


class _Made(NamedTuple):
    """What follows from the plan and the operands' layouts."""

    gather: Gather
    table: Any
    tile: Any
    blocks: int
    how: str
    last: bool


class Product:
    """What `Gathered` does without tensor cores: its steps, tiles, packed weights and kernels.

    Attributes
    ----------
    step : Step
    piece : int
        Neighbouring channels that are read in one access.
    filled : bool
        Whether padding may hold something that accesses of several channels cannot bring.
    """

    step, piece, filled = STEP_OF_TILES, 4, False

    def __init__(self, plan: ConvPlan):
        self.compute = np.dtype(plan.compute_dtype)

    def fill(self, plan: ConvPlan) -> Any:
        """What constant padding holds, as kernels take it."""
        return fill_value(plan, self.compute)

    def tile(self, rows: int, columns: int, copies: int) -> Any:
        """The tile for ``copies`` products of so many rows and columns."""
        return choose_tile(TILES[self.compute.itemsize], rows, columns, copies, SMALL)

    def operand(self, tensor: Tensor, stream: Any) -> Tensor:
        """An operand as kernels take it."""
        return tensor

    def packed(self, tables: "PackTables", w: Tensor, stream: Any) -> Any:
        """A weight as the kernels read it."""
        packed = empty((tables.elements,), self.compute, stream).data
        kernel = pack_kernel(w.dtype.name, self.compute.name)
        launch(kernel, blocks_for(tables.elements), THREADS, stream, w.data, packed, tables.places, tables.numbers)
        return packed

    def kernel(self, made: _Made, source: Tensor, out: Tensor, finish: Any) -> Any:
        """The kernel for these operands."""
        return gather_kernel(
            made.tile, source.dtype.name, out.dtype.name, made.how, made.last, self.compute.name, finish
        )


class Gathered:
    """FORWARD and INPUT_GRAD of one plan; what is kept on the device is kept for a few layouts."""

    def __init__(self, by_input: bool, product: Callable[[ConvPlan], Product], plan: ConvPlan):
        self.plan, self.by_input, self.product = plan, by_input, product(plan)
        self.fill = self.product.fill(plan)
        self._made: Kept[_Made] = Kept()
        self._tables: Kept[PackTables] = Kept()

    def packed(self, w: Tensor, stream: Any) -> Any:
        """A weight that was not prepared."""
        step = self.product.step
        tables = self._tables.of(w.strides, _pack_tables, self.plan, self.by_input, step, w.strides, stream)
        return self.product.packed(tables, w, stream)

    def made(self, source: Tensor, out: Tensor, stream: Any) -> _Made:
        """Tables and tile for these operands."""
        last = out.strides[1] == 1 and out.shape[1] > 1
        beside = BESIDE_CHANNELS if last else BESIDE_POSITIONS
        aligned = is_aligned(source, BESIDE_CHANNELS, self.product.piece), is_aligned(out, beside)
        return self._made.of((source.strides, out.strides, aligned), self._make, source, out, last, *aligned, stream)

    def _make(self, source: Tensor, out: Tensor, last: bool, quads: bool, stores: bool, stream: Any) -> _Made:
        plan = self.plan
        rows, positions = out.shape[1] // plan.groups, prod(out.shape[2:])
        if last:
            vector = stores and rows % 4 == 0
        else:
            one_phase = not self.by_input or all(axis.stride == 1 for axis in plan.axes3)
            vector = stores and one_phase and positions % 4 == 0 and dense_positions(out)
        product = self.product
        gather = gather_of(plan, self.by_input, product.step, steps_of_sample(source), steps_of_sample(out), vector)
        in_quads = quads and source.strides[1] == 1 and gather.channels % product.piece == 0 and not product.filled
        how = FLAT if gather.flat else QUADS if in_quads else EACH
        columns, copies = gather.largest * plan.batch, plan.groups * gather.phases
        tile = product.tile(rows, columns, copies)
        row_blocks, column_blocks = -(-rows // tile.rows), -(-columns // tile.columns)
        gather.table[ROW_BLOCKS], gather.table[COLUMN_BLOCKS] = row_blocks, column_blocks
        table = settled(gather.table, stream)
        return _Made(gather, table, tile, row_blocks * column_blocks * copies, how, last)

    def __call__(self, x: Tensor, w: Any, y: Tensor, epilogue: DeviceEpilogue, stream: Any) -> None:
        source, out = (y, x) if self.by_input else (x, y)
        source = reachable(self.product.operand(source, stream), stream)
        made = self.made(source, out, stream)
        packed = w.arrays[0] if isinstance(w, PackedWeight) else self.packed(w, stream)
        launch(
            self.product.kernel(made, source, out, epilogue.finish),
            made.blocks,
            made.tile.threads,
            stream,
            source.data,
            packed,
            out.data,
            epilogue.extras,
            made.table,
            source.strides[0],
            out.strides[0],
            self.fill,
        )


def forward_launch(plan: ConvPlan) -> Launch:
    """FORWARD of a plan that is not refused, for other algorithms that come down to one."""
    return Gathered(False, Product, plan)


def _packing_key(by_input: bool, product: Callable[[ConvPlan], Product], plan: ConvPlan) -> Hashable:
    """What packed weights depend on besides the weight: the taps, their order, and how depths pad."""
    step = product(plan).step
    phases = gather_phases(plan, by_input, step)
    return context(), by_input, step, phases.flat, phases.unit, phases.taps


class PackTables(NamedTuple):
    """What packs weights with the strides that it was made for; ``row``: depths, the elements of a packed row."""

    elements: int
    row: int
    places: Any
    numbers: Any


def _pack_tables(plan: ConvPlan, by_input: bool, step: Step, strides: tuple[int, ...], stream: Any) -> PackTables:
    phases = gather_phases(plan, by_input, step)
    row_step, channel_step = (strides[1], strides[0]) if by_input else (strides[0], strides[1])
    places = [
        -1 if tap is None else sum(at * step for at, step in zip(tap, (*strides[2:], channel_step), strict=True))
        for tap in phases.taps
    ]
    elements = plan.groups * phases.depths * phases.padded_rows
    numbers = (elements, phases.depths, phases.unit, phases.channels, phases.rows, phases.padded_rows)
    steps = row_step, channel_step, plan.y_channels // plan.groups * strides[0]
    return PackTables(
        elements,
        phases.depths,
        settled(np.array(places or [-1], np.int64), stream),
        settled(np.array([*numbers, *steps], np.int64), stream),
    )


def _pack(by_input: bool, product: Callable[[ConvPlan], Product], plan: ConvPlan, w: Tensor) -> Any:
    chosen = product(plan)
    return chosen.packed(_pack_tables(plan, by_input, chosen.step, w.strides, 0), w, 0)


def common_refusal(plan: ConvPlan) -> str | None:
    """Why 32-bit offsets and floating-point tiles do not suit a plan, if they do not."""
    if plan.compute_dtype not in ("float32", "float64"):
        return f"its tiles are of float32 and float64, not {plan.compute_dtype}"
    for what, shape in (("input", plan.x_shape[1:]), ("output", plan.y_shape[1:]), ("weight", plan.w_shape)):
        if prod(shape) >= MOST_ELEMENTS:
            return f"its offsets reach {MOST_ELEMENTS} elements, but the {what} has {prod(shape)}"
    longest = max(axis.padded + axis.extent for axis in plan.axes3)
    if longest >= MOST_ENTRIES:
        return f"an axis has tables of {MOST_ENTRIES} entries at most, not {longest}"
    return None


def refusal_of_gather(by_input: bool, plan: ConvPlan) -> str | None:
    """Why a plan's stride phases and taps do not suit, if they do not."""
    refusal = common_refusal(plan)
    if refusal is not None:
        return refusal
    if by_input and any(axis.maps_padding for axis in plan.axes):
        return "padding that repeats cells adds several positions to one"
    phases = prod(min(axis.stride, axis.input) for axis in plan.axes3) if by_input else 1
    if phases > _MOST_PHASES:
        return f"there are tables for {_MOST_PHASES} stride phases at most, not {phases}"
    taps, channels = prod(axis.kernel for axis in plan.axes), prod(plan.w_shape[:2])
    if taps * 8 * max(channels, 1) >= MOST_ELEMENTS or taps * 64 >= MOST_ENTRIES:
        return f"its packed weights would have tables for {taps} taps of {channels} channels"
    return None


def _worthwhile(by_input: bool, plan: ConvPlan) -> str | None:
    rows = (plan.x_channels if by_input else plan.y_channels) // plan.groups
    if rows < LEAST_ROWS:
        return f"a group has {rows} result channels, of which most of a tile would be empty"
    return None


#: What is said of it in the documentation, of all directions.
GATHERED = About(
    does="products of tiles in shared memory and registers, gathered by tables of distances",
    cost="the definition's products; rows and columns that a tile has too many are computed and dropped",
    chosen="groups of enough channels to fill a tile",
)


def gathered(
    name: str,
    direction: Direction,
    product: Callable[[ConvPlan], Product],
    accepts: Callable[[bool, ConvPlan], str | None],
    error_factor: Callable[[Direction, ConvPlan], float],
    worthwhile: Callable[[bool, ConvPlan], str | None],
    **options: Any,
) -> Algorithm:
    """An algorithm of FORWARD or INPUT_GRAD; what it asks about a plan, it asks with whether it is the latter."""
    by_input = direction is Direction.INPUT_GRAD
    return algorithm(
        name,
        direction,
        partial(Gathered, by_input, product),
        partial(accepts, by_input),
        partial(error_factor, direction),
        packing=packing(partial(_packing_key, by_input, product), partial(_pack, by_input, product)),
        worthwhile=partial(worthwhile, by_input),
        **options,
    )


#: The algorithm, for each direction.
IMPLICIT_GEMM = {
    direction: gathered(
        "implicit_gemm", direction, Product, refusal_of_gather, any_order_factor, _worthwhile, about=GATHERED
    )
    for direction in (Direction.FORWARD, Direction.INPUT_GRAD)
}
