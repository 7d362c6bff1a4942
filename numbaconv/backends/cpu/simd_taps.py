"""LLVM IR of the depthwise sweeps: a few vectors of a row, taken down the rows of a plane.

Rows are given by addresses, in tables of int64, since rows of padding lie elsewhere than rows of the plane. Vectors
that stand over an edge are read and written under masks (one bit a lane), so that a plane is read where it is and a
row of any length is whole vectors. AVX-512 has masks for nothing and AVX2 for little; elsewhere a masked access is
a branch to single lanes, taken at edges alone.

Numbers of taps are constants of a loop, whose weights, masks and offsets stay in registers: one loop is emitted for
each of a few shapes and a switch chooses. Loops over the taps at run time took 1.3 times as long, those over rows in
tiles of 4 read every row 1.5 times.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .simd import VECTOR_BYTES, accumulate, multiply_add_of, splat_of, vector_type

__all__ = ["ACROSS", "LONG", "TALL", "TAPS", "address", "sweep_dots", "sweep_rows"]

#: The most taps of one sweep along a column and along a row, where both have several.
TAPS = 3
#: Taller columns, whose rows have at most 2 taps in one sweep, and longer rows, where there is one tap in a column. A
#: tall sweep reads each row once for all its taps.
TALL, LONG = (5, 7), (5, 7)
#: The most vectors of a row in one sweep. Their cells under all taps stay in registers, of which AVX-512 has 32.
ACROSS = 2 if VECTOR_BYTES == 64 else 1

_SQUARES = [(height, width) for height in range(1, TAPS + 1) for width in range(1, TAPS + 1)]
_TALL, _LONG = [(height, width) for height in TALL for width in (1, 2)], [(1, width) for width in LONG]

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


def _choose(builder, rows, columns, stride, vectors, variants, emit):
    """``emit(rows, columns, stride, vectors)`` for each of the variants, behind a switch."""

    def code(rows, columns, stride, vectors):
        return ((rows * 16 + columns) * 4 + stride) * 4 + vectors

    value = rows
    for factor, digit in ((16, columns), (4, stride), (4, vectors)):
        value = builder.add(builder.mul(value, _constant(factor)), digit)
    done = builder.append_basic_block("swept")
    switch = builder.switch(value, done)
    for variant in variants:
        block = builder.append_basic_block("taps_{}_{}_by_{}_{}".format(*variant))
        switch.add_case(_constant(code(*variant)), block)
        builder.position_at_end(block)
        emit(*variant)
        builder.branch(done)
    builder.position_at_end(done)


class _Cells:
    """What the taps of a row read, for vectors of columns.

    At a stride of 2 the taps are neighbours: two taps are the even and odd cells of two vectors, side by side.
    """

    def __init__(self, builder, masks, lines, starts, places, masks_at, width, stride):
        self.builder, self.masks, self.lines, self.width, self.stride = builder, masks, lines, width, stride
        starts = builder.inttoptr(starts, _INDEX.as_pointer())
        self.offsets, self.edges = [], []
        for t in range(0, width, stride):
            start = builder.load(builder.gep(starts, [_constant(t)]))
            columns = places
            if stride == 2:
                first = builder.mul(places[0], _constant(2))
                columns = [first, builder.add(first, _constant(masks.kind.count))]
            self.offsets += [builder.add(start, each) for each in columns]
            self.edges += [masks.read(masks_at, _constant(t // stride * 2 + v)) for v in range(len(columns))]

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


def _apart(context, builder, signature, args, name, emit):
    """``emit(builder, args)`` in a function of its own, called here.

    Inside the kernel's loops the many variants took its registers: that doubled the time of a small plane.
    """
    module, zero = builder.module, args[0]
    name = f"numbaconv.{name}.{zero.type}"
    function = module.globals.get(name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [each.type for each in args]), name)
        function.linkage = "linkonce_odr"
        function.attributes.add("noinline")
        inside = ir.IRBuilder(function.append_basic_block())
        emit(inside, function.args)
        inside.ret_void()
    builder.call(function, args)
    return context.get_dummy_value()


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
    stride,
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
    addresses: every ``lines_step``-th is taken, ``lines_pitch`` bytes later at each row, and of a row every
    ``stride``-th cell, 1 or 2. Rows of ``out`` and ``initial`` lie their pitch apart; where ``follow`` is 0,
    ``initial`` is a single vector. The ``vectors`` vectors stand at ``column`` and ``second``. ``masks`` addresses two
    masks for each tap: of each vector that is read, or at a stride of 2 of the two vectors that a tap and the next
    share; ``tails`` one a vector of what is stored.
    """
    signature = types.void(zero, *[types.int64] * 19)

    def generate(builder, args):
        zero, lines, lines_step, lines_pitch, out, out_pitch, initial, initial_pitch, follow, count = args[:10]
        starts, stride, column, second, vectors, masks_at, tails_at, weights, along_column, along_row = args[10:]
        element = zero.type
        kind, size = vector_type(element)
        multiply_add, masks = multiply_add_of(builder, kind), _Masks(builder, kind, size)
        lines = _Rows(builder, element, lines, lines_pitch, lines_step)
        outs, initials = _Rows(builder, element, out, out_pitch), _Rows(builder, element, initial, initial_pitch)
        masks_at, tails_at = (builder.inttoptr(place, _BITS.as_pointer()) for place in (masks_at, tails_at))
        weights = builder.inttoptr(weights, element.as_pointer())

        def emit(height, width, stride, across):
            columns = [column, second][:across]
            firsts = [builder.mul(each, follow) for each in columns]
            tails = [masks.read(tails_at, _constant(v)) for v in range(across)]
            cells = _Cells(builder, masks, lines, starts, columns, masks_at, width, stride)
            factors = [
                splat_of(builder, builder.load(builder.gep(weights, [_constant(position)])), kind)
                for position in range(height * width)
            ]

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

        variants = [(*shape, 1, across) for shape in _SQUARES + _LONG for across in range(1, ACROSS + 1)]
        variants += [(*shape, 1, 1) for shape in _TALL] + [(*shape, 2, 1) for shape in _SQUARES]
        _choose(builder, along_column, along_row, stride, vectors, variants, emit)

    return signature, lambda *given: _apart(*given, "sweep_rows", generate)


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
    stride,
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
    signature = types.void(zero, *[types.int64] * 14)

    def generate(builder, args):
        zero, lines, lines_step, lines_pitch, rows, rows_pitch, count = args[:7]
        starts, stride, column, masks_at, tail_at, sums_at, along_column, along_row = args[7:]
        element = zero.type
        kind, size = vector_type(element)
        multiply_add, masks = multiply_add_of(builder, kind), _Masks(builder, kind, size)
        lines = _Rows(builder, element, lines, lines_pitch, lines_step)
        rows = _Rows(builder, element, rows, rows_pitch)
        masks_at, tail_at = (builder.inttoptr(place, _BITS.as_pointer()) for place in (masks_at, tail_at))
        sums_at = builder.inttoptr(sums_at, kind.as_pointer())

        def emit(height, width, stride, _):
            tail = masks.read(tail_at, _constant(0))
            cells = _Cells(builder, masks, lines, starts, [column], masks_at, width, stride)
            places = [builder.gep(sums_at, [_constant(position)]) for position in range(height * width)]

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

        variants = [(*shape, 1, 1) for shape in _SQUARES + _LONG + _TALL] + [(*shape, 2, 1) for shape in _SQUARES]
        _choose(builder, along_column, along_row, stride, _constant(1), variants, emit)

    return signature, lambda *given: _apart(*given, "sweep_dots", generate)
