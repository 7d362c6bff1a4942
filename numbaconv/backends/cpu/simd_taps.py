"""LLVM IR of the depthwise sweeps: a few vectors of a row, taken down the rows of a plane.

Rows are given by addresses, in tables of int64, since rows of padding lie elsewhere than rows of the plane. Vectors
that stand over an edge are read and written under masks (one bit a lane), so that a plane is read where it is and a
row of any length is whole vectors. AVX-512 has masks for nothing and AVX2 for little; elsewhere a masked access is
a branch to single lanes, taken at edges alone.

Numbers of taps are constants of a loop, whose weights, masks and offsets stay in registers: one loop is emitted for
each combination up to `TAPS` and a switch chooses. Loops over the taps at run time took 1.3 times as long, those over
rows in tiles of 4 read every row 1.5 times.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .simd import VECTOR_BYTES, accumulate, multiply_add_of, splat_of, vector_type

__all__ = ["ACROSS", "TAPS", "address", "split_row", "sweep_dots", "sweep_rows"]

#: The most taps along a column, and along a row, of one sweep.
TAPS = 3
#: The most vectors of a row in one sweep. Their cells under all taps stay in registers, of which AVX-512 has 32.
ACROSS = 2 if VECTOR_BYTES == 64 else 1

_INDEX, _BITS = ir.IntType(64), ir.IntType(16)


def _constant(value):
    return ir.Constant(_INDEX, value)


@intrinsic
def address(typingctx, array, at):
    """The address of ``array[at]``, for a contiguous array."""
    signature = types.int64(array, types.int64)

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(builder.gep(data, [args[1]]), _INDEX)

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
        """The vector at a column of a row; 0 where the mask is."""
        builder, (lanes, full) = self.builder, mask
        place, align = self._place(row, column), ir.Constant(ir.IntType(32), self.size)
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
        builder, (lanes, full) = self.builder, mask
        place, align = self._place(row, column), ir.Constant(ir.IntType(32), self.size)
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
    """Rows by address: row ``i`` at ``base + i * pitch``, or where a table is given ``base[i * step] + i * pitch``."""

    def __init__(self, builder, element, base, pitch, step=None):
        self.builder, self.element, self.pitch, self.step = builder, element, pitch, step
        self.base = base if step is None else builder.inttoptr(base, _INDEX.as_pointer())

    def __getitem__(self, i):
        builder, start = self.builder, self.base
        if self.step is not None:
            start = builder.load(builder.gep(start, [builder.mul(i, self.step)]))
        return builder.inttoptr(builder.add(start, builder.mul(i, self.pitch)), self.element.as_pointer())


def _for_each_shape(builder, rows, columns, emit):
    """``emit(rows, columns)`` for each number of taps up to `TAPS`, behind a switch."""
    shape = builder.add(builder.mul(rows, _constant(TAPS)), columns)
    done = builder.append_basic_block("swept")
    switch = builder.switch(shape, done)
    for height in range(1, TAPS + 1):
        for width in range(1, TAPS + 1):
            block = builder.append_basic_block(f"taps_{height}_{width}")
            switch.add_case(_constant(height * TAPS + width), block)
            builder.position_at_end(block)
            emit(height, width)
            builder.branch(done)
    builder.position_at_end(done)


@intrinsic
def sweep_rows(
    typingctx,
    zero,
    lines,
    lines_step,
    lines_pitch,
    out,
    out_pitch,
    initial,
    initial_pitch,
    follow,
    count,
    starts,
    column,
    second,
    vectors,
    masks,
    tails,
    weights,
    along_column,
    along_row,
):
    """``out[i, :] = initial[i, :] + sum over k, t of weights[k, t] * line[i + k, starts[t] :]`` for a few vectors.

    Everything but ``zero``, whose type is that of the cells, is an int64. ``lines`` addresses a table of row
    addresses: every ``lines_step``-th is taken, ``lines_pitch`` bytes later at each row. Rows of ``out`` and
    ``initial`` lie their pitch apart; where ``follow`` is 0, ``initial`` is a single vector. The ``vectors`` vectors
    stand at ``column`` and ``second``. ``masks`` addresses ``(along_row, ACROSS)`` masks of what is read, ``tails``
    one a vector of what is stored.
    """
    signature = types.void(zero, *[types.int64] * 18)

    def generate(context, builder, signature, args):
        zero, lines, lines_step, lines_pitch, out, out_pitch, initial, initial_pitch, follow, count = args[:10]
        starts, column, second, vectors, masks_at, tails_at, weights, along_column, along_row = args[10:]
        element = zero.type
        kind, size = vector_type(element)
        multiply_add, masks = multiply_add_of(builder, kind), _Masks(builder, kind, size)
        lines = _Rows(builder, element, lines, lines_pitch, lines_step)
        outs, initials = _Rows(builder, element, out, out_pitch), _Rows(builder, element, initial, initial_pitch)
        starts = builder.inttoptr(starts, _INDEX.as_pointer())
        masks_at, tails_at = (builder.inttoptr(place, _BITS.as_pointer()) for place in (masks_at, tails_at))
        weights = builder.inttoptr(weights, element.as_pointer())

        def emit(height, width, across):
            columns = [column, second][:across]
            firsts = [builder.mul(each, follow) for each in columns]
            tails = [masks.read(tails_at, _constant(v)) for v in range(across)]
            offsets, edges = [], []
            for t in range(width):
                start = builder.load(builder.gep(starts, [_constant(t)]))
                offsets += [builder.add(start, each) for each in columns]
                edges += [masks.read(masks_at, _constant(t * ACROSS + v)) for v in range(across)]
            factors = [
                splat_of(builder, builder.load(builder.gep(weights, [_constant(position)])), kind)
                for position in range(height * width)
            ]

            def cells(i):
                row = lines[i]
                return [masks.load(row, offset, edge) for offset, edge in zip(offsets, edges, strict=True)]

            def step(i, held):
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
            accumulate(builder, count, held, step)

        def emit_for(across):
            _for_each_shape(builder, along_column, along_row, lambda height, width: emit(height, width, across))

        if ACROSS == 1:
            emit_for(1)
        else:
            with builder.if_else(builder.icmp_signed("==", vectors, _constant(2))) as (two, one):
                with two:
                    emit_for(2)
                with one:
                    emit_for(1)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def sweep_dots(
    typingctx,
    zero,
    lines,
    lines_step,
    lines_pitch,
    rows,
    rows_pitch,
    count,
    starts,
    column,
    masks,
    tail,
    sums,
    along_column,
    along_row,
):
    """``sums[k, t] += sum over i of row[i, :] * line[i + k, starts[t] :]``, lane by lane, for one vector of columns.

    As `sweep_rows`, with ``rows`` their pitch apart; ``sums`` addresses vectors ``(along_column, along_row)``.
    """
    signature = types.void(zero, *[types.int64] * 13)

    def generate(context, builder, signature, args):
        zero, lines, lines_step, lines_pitch, rows, rows_pitch, count = args[:7]
        starts, column, masks_at, tail_at, sums_at, along_column, along_row = args[7:]
        element = zero.type
        kind, size = vector_type(element)
        multiply_add, masks = multiply_add_of(builder, kind), _Masks(builder, kind, size)
        lines = _Rows(builder, element, lines, lines_pitch, lines_step)
        rows = _Rows(builder, element, rows, rows_pitch)
        starts = builder.inttoptr(starts, _INDEX.as_pointer())
        masks_at, tail_at = (builder.inttoptr(place, _BITS.as_pointer()) for place in (masks_at, tail_at))
        sums_at = builder.inttoptr(sums_at, kind.as_pointer())

        def emit(height, width):
            tail = masks.read(tail_at, _constant(0))
            offsets = [builder.add(builder.load(builder.gep(starts, [_constant(t)])), column) for t in range(width)]
            edges = [masks.read(masks_at, _constant(t * ACROSS)) for t in range(width)]
            places = [builder.gep(sums_at, [_constant(position)]) for position in range(height * width)]

            def cells(i):
                row = lines[i]
                return [masks.load(row, offset, edge) for offset, edge in zip(offsets, edges, strict=True)]

            def step(i, carried):
                held = [*carried[len(places) :], *cells(builder.add(i, _constant(height - 1)))]
                factor = masks.load(rows[i], column, tail)
                totals = [
                    builder.call(multiply_add, [factor, cell, total])
                    for cell, total in zip(held, carried[: len(places)], strict=True)
                ]
                return [*totals, *held[width:]]

            totals = [builder.load(place, align=size) for place in places]
            held = [cell for k in range(height - 1) for cell in cells(_constant(k))]
            for place, value in zip(places, accumulate(builder, count, totals + held, step), strict=False):
                builder.store(value, place, align=size)

        _for_each_shape(builder, along_column, along_row, emit)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def split_row(typingctx, zero, source, first, last, even, odd, count):
    """Cells ``2 q`` and ``2 q + 1`` of a row to ``even[q]`` and ``odd[q]``, for ``count`` vectors of each.

    ``source``, ``even`` and ``odd`` are addresses; cells outside ``[first, last)`` are not read, but 0.
    """
    signature = types.void(zero, *[types.int64] * 6)

    def generate(context, builder, signature, args):
        zero, source, first, last, even, odd, count = args
        element = zero.type
        kind, size = vector_type(element)
        masks, narrow = _Masks(builder, kind, size), ir.IntType(32)
        numbers = ir.VectorType(_INDEX, kind.count)
        lane = ir.Constant(numbers, list(range(kind.count)))
        source, even, odd = (builder.inttoptr(place, element.as_pointer()) for place in (source, even, odd))

        def lanes_from(column):
            """The mask of the vector at a column."""
            cells = builder.add(splat_of(builder, column, numbers), lane)
            after = builder.icmp_signed(">=", cells, splat_of(builder, first, numbers))
            before = builder.icmp_signed("<", cells, splat_of(builder, last, numbers))
            beyond = builder.add(column, _constant(kind.count))
            full = builder.and_(builder.icmp_signed(">=", column, first), builder.icmp_signed("<=", beyond, last))
            return builder.and_(after, before), full

        def pick(low, high, parity):
            chosen = [ir.Constant(narrow, 2 * q + parity) for q in range(kind.count)]
            return builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(narrow, kind.count), chosen))

        def step(i, nothing):
            column = builder.mul(i, _constant(2 * kind.count))
            columns = [column, builder.add(column, _constant(kind.count))]
            low, high = (masks.load(source, each, lanes_from(each)) for each in columns)
            to = builder.mul(i, _constant(kind.count))
            for target, parity in ((even, 0), (odd, 1)):
                place = builder.bitcast(builder.gep(target, [to]), kind.as_pointer())
                builder.store(pick(low, high, parity), place, align=size)
            return []

        accumulate(builder, count, [], step)
        return context.get_dummy_value()

    return signature, generate
