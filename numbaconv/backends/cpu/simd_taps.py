"""LLVM IR of the depthwise sweeps: a few vectors of a row, taken down the rows of a plane.

Rows are given by pointers, in a table, since rows of padding lie elsewhere than rows of the plane. A pointer is made
from its array's own, kept as a pointer and moved by bytes: LLVM may take the sum of an integer and an address apart and
build the address anew on another base. Vectors that stand over an edge are read and written under masks (one bit a
lane), so that a plane is read where it is and a row of any length is whole vectors. AVX-512 has masks for nothing and
AVX2 for little; elsewhere a masked access is a branch to single lanes, taken at edges alone.

Numbers of taps are constants of a loop, whose weights, masks and offsets stay in registers: one loop is emitted for
each of a few shapes and a switch chooses. Loops over the taps at run time took 1.3 times as long, those over rows in
tiles of 4 read every row 1.5 times.
"""

from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .simd import VECTOR_BYTES, accumulate, multiply_add_of, splat_of, vector_type

__all__ = ["ACROSS", "LONG", "TALL", "TAPS", "Sweep", "pointer_to", "run_dots", "run_rows", "set_line"]

#: The most taps of one sweep along a column and along a row, where both have several.
TAPS = 3
#: Taller columns, whose rows have at most 2 taps in one sweep, and longer rows, where there is one tap in a column. A
#: tall sweep reads each row once for all its taps.
TALL, LONG = (5, 7), (5, 7)
#: The most vectors of a row in one sweep. Their cells under all taps stay in registers, of which AVX-512 has 32.
ACROSS = 2 if VECTOR_BYTES == 64 else 1


class Sweep(NamedTuple):
    """One sweep: from a kernel's pointers, which rows, columns and taps.

    A line is a source row by its pointer in a table. Bytes: ``line`` in that table to the first line's pointer,
    ``lines_pitch`` and ``out_pitch`` from one row to the next besides the table's, ``out`` to the first result row,
    ``starts`` to the taps' places in a row, ``masks`` and ``tails`` to masks, ``taps`` to weights or sums.
    ``lines_step``: how many lines further the next is. ``fresh``: whether sums start anew, not from the result.
    ``rows``: result rows. ``stride``: cells from one column's to the next's, 1 or 2. ``column``, ``second`` and
    ``vectors``: where a row's vectors stand. ``along_column`` and ``along_row``: taps; none of both, where there is
    nothing to sum. ``inside``: all lanes of neighbouring vectors are read and stored: no masks.
    """

    line: int
    lines_step: int
    lines_pitch: int
    out: int
    out_pitch: int
    fresh: int
    rows: int
    starts: int
    stride: int
    column: int
    second: int
    vectors: int
    masks: int
    tails: int
    taps: int
    along_column: int
    along_row: int
    inside: int


_SQUARES = [(height, width) for height in range(1, TAPS + 1) for width in range(1, TAPS + 1)]
_TALL, _LONG = [(height, width) for height in TALL for width in (1, 2)], [(1, width) for width in LONG]
_INDEX, _BITS, _BYTE = ir.IntType(64), ir.IntType(16), ir.IntType(8)


def _constant(value):
    return ir.Constant(_INDEX, value)


def _moved(builder, pointer, offset, kind=_BYTE):
    """A pointer to bytes, so many bytes further, to values of a kind."""
    moved = builder.gep(pointer, [offset])
    return moved if kind is _BYTE else builder.bitcast(moved, kind.as_pointer())


def _frozen(builder, pointer):
    """The same pointer, of which LLVM does not know that it is a sum.

    It would take sums of all taps of a row apart, which is an addition more for each: a tenth of the time of long rows.
    """
    frozen = ir.Instruction(builder.block, pointer.type, "freeze", [pointer])
    builder._insert(frozen)
    return frozen


@intrinsic
def pointer_to(typingctx, array, at):
    """A pointer to ``array[at]``, for a contiguous array taken as flat; ``at`` may be outside of it."""
    signature = types.voidptr(array, types.int64)

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.bitcast(builder.gep(data, [args[1]]), _BYTE.as_pointer())

    return signature, generate


@intrinsic
def set_line(typingctx, lines, at, pointer, offset):
    """Make a pointer, moved by so many bytes, the line at a place of a table: an array of int64 that holds pointers."""
    signature = types.void(lines, types.int64, types.voidptr, types.int64)

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        place = builder.bitcast(builder.gep(data, [args[1]]), _BYTE.as_pointer().as_pointer())
        builder.store(_moved(builder, *args[2:]), place)
        return context.get_dummy_value()

    return signature, generate


class _Masks:
    """Masked access to vectors of one kind."""

    def __init__(self, builder, kind, size):
        self.builder, self.kind, self.size = builder, kind, size
        self.lanes = ir.VectorType(ir.IntType(1), kind.count)
        self.zero = ir.Constant(kind, [0.0] * kind.count)
        name = f"v{kind.count}f{8 * size}.p0"
        arguments = [kind.as_pointer(), ir.IntType(32), self.lanes]
        load, store = ir.FunctionType(kind, [*arguments, kind]), ir.FunctionType(ir.VoidType(), [kind, *arguments])
        self._load = cgutils.get_or_insert_function(builder.module, load, f"llvm.masked.load.{name}")
        self._store = cgutils.get_or_insert_function(builder.module, store, f"llvm.masked.store.{name}")

    def read(self, table, at):
        """A mask from a table of 16 bits each: its lanes, and whether it has all."""
        builder, count = self.builder, self.kind.count
        bits = builder.load(builder.gep(table, [at]))
        if count < 16:
            bits = builder.trunc(bits, ir.IntType(count))
        full = builder.icmp_unsigned("==", bits, ir.Constant(bits.type, 2**count - 1))
        return builder.bitcast(bits, self.lanes), full

    def load(self, row, column, mask):
        """The vector at a column of a row; 0 where the mask is. All of it without a mask."""
        builder, place = self.builder, self._place(row, column)
        if mask is None:
            return builder.load(place, align=self.size)
        (lanes, full), align = mask, ir.Constant(ir.IntType(32), self.size)
        arguments = [place, align, lanes, self.zero]
        if VECTOR_BYTES > 16:
            return builder.call(self._load, arguments)
        with builder.if_else(full, likely=True) as (whole, part):
            with whole:
                plain, from_whole = builder.load(place, align=self.size), builder.block
            with part:
                masked, from_part = builder.call(self._load, arguments), builder.block
        value = builder.phi(self.kind)
        value.add_incoming(plain, from_whole)
        value.add_incoming(masked, from_part)
        return value

    def store(self, value, row, column, mask):
        builder, place = self.builder, self._place(row, column)
        if mask is None:
            builder.store(value, place, align=self.size)
            return
        (lanes, full), align = mask, ir.Constant(ir.IntType(32), self.size)
        if VECTOR_BYTES == 64:
            builder.call(self._store, [value, place, align, lanes])
            return
        with builder.if_else(full, likely=True) as (whole, part):  # AVX2 of AMD takes 12 cycles for a masked store
            with whole:
                builder.store(value, place, align=self.size)
            with part:
                builder.call(self._store, [value, place, align, lanes])

    def _place(self, row, column):
        return self.builder.bitcast(self.builder.gep(row, [column]), self.kind.as_pointer())


class _Rows:
    """Rows by pointer: row ``i`` at ``base + i * pitch``; if ``base`` is a table, ``base[i * step] + i * pitch``."""

    def __init__(self, builder, element, base, pitch, step=None):
        self.builder, self.element, self.pitch, self.step = builder, element, pitch, step
        self.base = base if step is None else builder.bitcast(base, base.type.as_pointer())

    def __getitem__(self, i):
        builder, start = self.builder, self.base
        if self.step is not None:
            start = builder.load(builder.gep(start, [builder.mul(i, self.step)]))
        row = _frozen(builder, _moved(builder, start, builder.mul(i, self.pitch)))
        return builder.bitcast(row, self.element.as_pointer())


def _choose(builder, sweep, variants, emit):
    """``emit(rows, columns, stride, vectors, inside)`` for each of the variants, behind a switch.

    Strips that are inside are swept under masks where no variant is for them alone.
    """

    def code(rows, columns, stride, vectors, inside):
        return (((rows * 16 + columns) * 4 + stride) * 4 + vectors) * 2 + inside

    value = sweep.along_column
    digits = ((16, sweep.along_row), (4, sweep.stride), (4, sweep.vectors), (2, sweep.inside))
    for factor, digit in digits:
        value = builder.add(builder.mul(value, _constant(factor)), digit)
    done = builder.append_basic_block("swept")
    switch = builder.switch(value, done)
    for variant in variants:
        block = builder.append_basic_block("taps_{}_{}_by_{}_{}_{}".format(*variant))
        switch.add_case(_constant(code(*variant)), block)
        same_inside = (*variant[:4], 1)
        if same_inside not in variants:
            switch.add_case(_constant(code(*same_inside)), block)
        builder.position_at_end(block)
        emit(*variant)
        builder.branch(done)
    builder.position_at_end(done)


class _Cells:
    """What the taps of a row read, for vectors of columns.

    At a stride of 2 the taps are neighbours: two taps are the even and odd cells of two vectors, side by side.
    """

    def __init__(self, builder, masks, lines, starts, places, masks_at, width, stride, inside):
        self.builder, self.masks, self.lines, self.width, self.stride = builder, masks, lines, width, stride
        self.offsets, self.edges = [], []
        for t in range(0, width, stride):
            start = builder.load(builder.gep(starts, [_constant(t)]))
            columns = places
            if stride == 2:
                first = builder.mul(places[0], _constant(2))
                columns = [first, builder.add(first, _constant(masks.kind.count))]
            self.offsets += [builder.add(start, each) for each in columns]
            places_of_masks = [_constant(t // stride * 2 + v) for v in range(len(columns))]
            self.edges += [None if inside else masks.read(masks_at, place) for place in places_of_masks]

    def __call__(self, i):
        row = self.lines[i]
        read = [self.masks.load(row, each, edge) for each, edge in zip(self.offsets, self.edges, strict=True)]
        if self.stride == 1:
            return read
        cells = []
        for t in range(self.width):
            pair = read[t // 2 * 2 : t // 2 * 2 + 2]
            chosen = [2 * q + t % 2 for q in range(self.masks.kind.count)]
            index = ir.Constant(ir.VectorType(ir.IntType(32), len(chosen)), chosen)
            cells.append(self.builder.shuffle_vector(*pair, index))
        return cells


def _for_each_sweep(context, builder, args, name, emit):
    """``emit(builder, args, sweep)`` for each sweep of a program, in a function of its own that is called here.

    ``args``: a zero of the cells' type, pointer to the program, sweeps, and more. Inside the kernel's loops the many
    variants would take its registers: that doubled the time of a small plane.
    """
    module, zero = builder.module, args[0]
    name = f"numbaconv.{name}.{zero.type}"
    function = module.globals.get(name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [each.type for each in args]), name)
        function.linkage = "linkonce_odr"
        function.attributes.add("noinline")
        inside = ir.IRBuilder(function.append_basic_block())
        program = inside.bitcast(function.args[1], _INDEX.as_pointer())
        with cgutils.for_range(inside, function.args[2]) as loop:
            first = inside.gep(program, [inside.mul(loop.index, _constant(len(Sweep._fields)))])
            fields = [inside.load(inside.gep(first, [_constant(i)])) for i in range(len(Sweep._fields))]
            emit(inside, function.args, Sweep(*fields))
        inside.ret_void()
    builder.call(function, args)
    return context.get_dummy_value()


@intrinsic
def run_rows(typingctx, zero, program, count, out, weights, biases, lines, offsets, masks):
    """Run sweeps of ``out[i, :] = initial[i, :] + sum over k, t of weights[k, t] * line[i + k, starts[t] :]``.

    All are pointers, but for ``zero``, whose type is that of the cells, and ``count``, how many sweeps there are.
    ``biases`` is the vector that sums start from. ``masks`` holds two masks for each tap: of each vector that is read,
    or at a stride of 2 of the two vectors that a tap and the next share; and two for the result.
    """
    signature = types.void(zero, types.voidptr, types.int64, *[types.voidptr] * 6)

    def emit_sweep(builder, args, sweep):
        zero, _, _, out, weights, biases, lines, offsets, masks_at = args
        element = zero.type
        kind, size = vector_type(element)
        multiply_add, masks = multiply_add_of(builder, kind), _Masks(builder, kind, size)
        lines = _Rows(builder, element, _moved(builder, lines, sweep.line), sweep.lines_pitch, sweep.lines_step)
        first_row, fresh = _moved(builder, out, sweep.out), builder.icmp_signed("!=", sweep.fresh, _constant(0))
        outs = _Rows(builder, element, first_row, sweep.out_pitch)
        nothing = _constant(0)
        initial = builder.select(fresh, biases, first_row)
        initials = _Rows(builder, element, initial, builder.select(fresh, nothing, sweep.out_pitch))
        edges, tails_at, weights = (
            _moved(builder, base, place, type_of)
            for base, place, type_of in (
                (masks_at, sweep.masks, _BITS),
                (masks_at, sweep.tails, _BITS),
                (weights, sweep.taps, element),
            )
        )
        starts = _moved(builder, offsets, sweep.starts, _INDEX)

        def emit(height, width, stride, across, inside):
            columns = [sweep.column, sweep.second][:across]
            if inside:  # at a constant distance, so that the second takes no registers of its own
                columns = [builder.add(sweep.column, _constant(v * kind.count)) for v in range(across)]
            firsts = [builder.select(fresh, nothing, each) for each in columns]
            tails = [None if inside else masks.read(tails_at, _constant(v)) for v in range(across)]
            cells = _Cells(builder, masks, lines, starts, columns, edges, width, stride, inside)
            factors = [
                splat_of(builder, builder.load(builder.gep(weights, [_constant(position)])), kind)
                for position in range(height * width)
            ]

            def step(i, held):
                if height:
                    held = [*held, *cells(builder.add(i, _constant(height - 1)))]
                row = initials[i]
                sums = [masks.load(row, first, tail) for first, tail in zip(firsts, tails, strict=True)]
                for position, factor in enumerate(factors):
                    for v in range(across):
                        sums[v] = builder.call(multiply_add, [factor, held[position * across + v], sums[v]])
                row = outs[i]
                for total, place, tail in zip(sums, columns, tails, strict=True):
                    masks.store(total, row, place, tail)
                return held[width * across :]

            held = [cell for k in range(height - 1) for cell in cells(_constant(k))]
            accumulate(builder, sweep.rows, held, step)

        both = range(1, ACROSS + 1)
        variants = [(*shape, 1, across, 0) for shape in [*_SQUARES, *_LONG] for across in both]
        variants += [(*shape, 1, 1, 0) for shape in _TALL] + [(*shape, 2, 1, 0) for shape in _SQUARES]
        variants += [(0, 0, stride, across, 0) for stride in (1, 2) for across in both]
        variants += [(*shape, 1, ACROSS, 1) for shape in [*_SQUARES, *_LONG]]
        _choose(builder, sweep, variants, emit)

    def generate(context, builder, signature, args):
        return _for_each_sweep(context, builder, args, "run_rows", emit_sweep)

    return signature, generate


@intrinsic
def run_dots(typingctx, zero, program, count, rows, sums, lines, offsets, masks):
    """Run sweeps of ``sums[k, t] += sum over i of row[i, :] * line[i + k, starts[t] :]``, lane by lane.

    As `run_rows`, with ``rows`` where it has the result, of one vector each; ``sums`` are vectors.
    """
    signature = types.void(zero, types.voidptr, types.int64, *[types.voidptr] * 5)

    def emit_sweep(builder, args, sweep):
        zero, _, _, rows, sums, lines, offsets, masks_at = args
        element = zero.type
        kind, size = vector_type(element)
        multiply_add, masks = multiply_add_of(builder, kind), _Masks(builder, kind, size)
        lines = _Rows(builder, element, _moved(builder, lines, sweep.line), sweep.lines_pitch, sweep.lines_step)
        rows = _Rows(builder, element, _moved(builder, rows, sweep.out), sweep.out_pitch)
        edges, tails_at, sums_at = (
            _moved(builder, base, place, type_of)
            for base, place, type_of in (
                (masks_at, sweep.masks, _BITS),
                (masks_at, sweep.tails, _BITS),
                (sums, sweep.taps, kind),
            )
        )
        starts = _moved(builder, offsets, sweep.starts, _INDEX)

        def emit(height, width, stride, _across, _inside):
            tail = masks.read(tails_at, _constant(0))
            cells = _Cells(builder, masks, lines, starts, [sweep.column], edges, width, stride, False)
            places = [builder.gep(sums_at, [_constant(position)]) for position in range(height * width)]

            def step(i, carried):
                held = [*carried[len(places) :], *cells(builder.add(i, _constant(height - 1)))]
                factor = masks.load(rows[i], sweep.column, tail)
                totals = [
                    builder.call(multiply_add, [factor, cell, total])
                    for cell, total in zip(held, carried[: len(places)], strict=True)
                ]
                return [*totals, *held[width:]]

            totals = [builder.load(place, align=size) for place in places]
            held = [cell for k in range(height - 1) for cell in cells(_constant(k))]
            for place, value in zip(places, accumulate(builder, sweep.rows, totals + held, step), strict=False):
                builder.store(value, place, align=size)

        variants = [(*shape, 1, 1, 0) for shape in _SQUARES + _LONG + _TALL]
        variants += [(*shape, 2, 1, 0) for shape in _SQUARES]
        _choose(builder, sweep, variants, emit)

    def generate(context, builder, signature, args):
        return _for_each_sweep(context, builder, args, "run_dots", emit_sweep)

    return signature, generate
