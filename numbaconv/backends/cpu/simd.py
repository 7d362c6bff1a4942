"""LLVM IR: vectors, which Numba's Python cannot say, and a call by address.

No other files write any but `simd_tiles`, `simd_taps`, `simd_complex` and `simd_finite`, which add intrinsics on small
tiles, depthwise sweeps, complex values and the search for NaN and infinity with the helpers given here, and `fan_out`,
which calls task loops.

The vector width is the host's, read once: 16 bytes (SSE, NEON), 32 (AVX2) or 64 (AVX-512).
"""

import os
from itertools import product

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic

__all__ = [
    "ROWS",
    "VECTORS",
    "VECTOR_BYTES",
    "accumulate",
    "add_lanes",
    "call_row",
    "choose",
    "copy_between",
    "copy_vector",
    "dot_tile",
    "fma_tile",
    "for_sizes",
    "gather_tile",
    "load_vector",
    "masked_load",
    "multiply_add_of",
    "pointers_of",
    "shifted_tile",
    "sizes_of",
    "splat_of",
    "store_vector",
    "vector_type",
    "writable",
]


def _vector_bytes() -> int:
    if os.environ.get("NUMBA_CPU_NAME") == "generic":
        return 16
    features = llvm.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16


VECTOR_BYTES = _vector_bytes()
#: The largest tile of `fma_tile` and `dot_tile`: rows, and vectors across. Its accumulators, one row of vectors
#: and one more fill the 16 registers of AVX2; AVX-512 has 32.
ROWS, VECTORS = (8, 3) if VECTOR_BYTES == 64 else (4, 3)


def vector_type(element):
    size = 4 if isinstance(element, ir.FloatType) else 8
    return ir.VectorType(element, VECTOR_BYTES // size), size


def multiply_add_of(builder, kind):
    """``a * b + c`` in one rounding where the machine can, in two where it cannot."""
    element = "f32" if isinstance(kind.element, ir.FloatType) else "f64"
    name = f"llvm.fmuladd.v{kind.count}{element}"
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)


def splat_of(builder, value, kind):
    index = ir.IntType(32)
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(index, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(index, kind.count), [0] * kind.count))


def load_vector(builder, pointer, offset, kind, size):
    place = builder.bitcast(builder.gep(pointer, [offset]), kind.as_pointer())
    return builder.load(place, align=size)


def store_vector(builder, value, pointer, offset, kind, size):
    place = builder.bitcast(builder.gep(pointer, [offset]), kind.as_pointer())
    builder.store(value, place, align=size)


def _not_unrolled(branch):
    """Keep the loop that a branch closes as it is: two steps at once have more vectors than there are registers."""
    module = branch.module
    loop = ir.MDValue(module, [], name=str(len(module.metadata)))
    disable = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    loop.operands = (loop, disable)  # a loop is named by a node that begins with itself
    branch.set_metadata("llvm.loop", loop)


def accumulate(builder, depth, initial, step):
    """A loop over ``depth`` steps that carries a list of values; ``step(i, values)`` gives the next ones."""
    index = ir.IntType(64)
    before = builder.block
    loop, after = builder.append_basic_block("step"), builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed(">", depth, ir.Constant(index, 0)), loop, after)
    builder.position_at_end(loop)
    i = builder.phi(index)
    i.add_incoming(ir.Constant(index, 0), before)
    carried = [builder.phi(value.type) for value in initial]
    for phi, value in zip(carried, initial, strict=True):
        phi.add_incoming(value, before)
    following = step(i, carried)
    advanced = builder.add(i, ir.Constant(index, 1))
    i.add_incoming(advanced, builder.block)
    for phi, value in zip(carried, following, strict=True):
        phi.add_incoming(value, builder.block)
    end = builder.block
    _not_unrolled(builder.cbranch(builder.icmp_signed("<", advanced, depth), loop, after))
    builder.position_at_end(after)
    results = []
    for value, first in zip(following, initial, strict=True):
        phi = builder.phi(value.type)
        phi.add_incoming(first, before)
        phi.add_incoming(value, end)
        results.append(phi)
    return results


def pointers_of(context, builder, signature, args, places):
    """Pointers to ``array[offset]`` for arrays at ``places``, each followed by its offset."""
    found = []
    for place in places:
        array = context.make_array(signature.args[place])(context, builder, args[place])
        found.append(builder.gep(array.data, [args[place + 1]]))
    return found


def sizes_of(rows, vectors, row_counts=range(ROWS // 2, ROWS + 1)):
    """The rows and vectors that a tile's types allow: a constant's value, or these counts of rows and any of vectors.

    With them come the types for the signature; nothing, where a type is not an integer's.
    """
    sizes, kinds = [], []
    for kind, counts in ((rows, row_counts), (vectors, range(1, VECTORS + 1))):
        if isinstance(kind, types.IntegerLiteral):
            sizes.append((kind.literal_value,))
            kinds.append(kind)
        elif isinstance(kind, types.Integer):
            sizes.append(tuple(counts))
            kinds.append(types.int64)
        else:
            return None
    return sizes, kinds


def choose(builder, number, cases, emit):
    """``emit(*case)`` for each of some cases, of which the one that has the number is run.

    A ladder of ``if`` in Python would repeat the call of an intrinsic; one in a function of its own would count
    references to its arrays each time.
    """
    blocks = [builder.append_basic_block("case") for _ in cases]
    done = builder.append_basic_block("chosen")
    switch = builder.switch(number, blocks[0])
    for (key, case), block in zip(cases.items(), blocks, strict=True):
        switch.add_case(ir.Constant(number.type, key), block)
        builder.position_at_end(block)
        emit(*case)
        builder.branch(done)
    builder.position_at_end(done)


def for_sizes(builder, sizes, given, emit):
    """``emit(rows, vectors)`` for what `sizes_of` allows, where the values given say at run time which one runs."""
    (rows, vectors), pairs = given, list(product(*sizes))
    if len(pairs) == 1:
        emit(*pairs[0])
        return
    step = VECTORS + 1
    number = builder.add(builder.mul(rows, ir.Constant(rows.type, step)), vectors)
    choose(builder, number, {height * step + across: (height, across) for height, across in pairs}, emit)


def outer_sums(builder, columns, column_step, right, right_step, depth, across):
    """A tile of vector accumulators, row by row: the sum over steps of factors times ``across`` vectors.

    ``columns``: for each row, a pointer to its factors; ``column_step(i)``: the offset of step ``i`` in all of them.
    ``right``: a pointer to the vectors, ``right_step(i)``: the offset of those of step ``i``.

    Distances that are not constants halved the rate: they cost registers that the pointers need.
    """
    kind, size = vector_type(columns[0].type.pointee)
    multiply_add = multiply_add_of(builder, kind)

    def step(i, sums):
        row, column = builder.gep(right, [right_step(i)]), column_step(i)
        places = [ir.Constant(ir.IntType(64), v * kind.count) for v in range(across)]
        read = [load_vector(builder, row, place, kind, size) for place in places]
        following = []
        for m, pointer in enumerate(columns):
            factor = splat_of(builder, builder.load(builder.gep(pointer, [column])), kind)
            for v in range(across):
                following.append(builder.call(multiply_add, [factor, read[v], sums[m * across + v]]))
        return following

    nothing = ir.Constant(kind, [0.0] * kind.count)
    return accumulate(builder, depth, [nothing] * (len(columns) * across), step)


def _outer_products(builder, columns, column_step, right, depth, target, keep, across):
    """`outer_sums` of vectors that lie one after the other; then stored so, or added to what is there if ``keep``."""
    kind, size = vector_type(columns[0].type.pointee)

    def constant(value):
        return ir.Constant(ir.IntType(64), value)

    def right_step(i):
        return builder.mul(i, constant(across * kind.count))

    sums = outer_sums(builder, columns, column_step, right, right_step, depth, across)
    places = [constant(position * kind.count) for position in range(len(sums))]
    with builder.if_else(builder.icmp_signed("!=", keep, constant(0))) as (add, replace):
        with add:
            for place, value in zip(places, sums, strict=True):
                total = builder.fadd(load_vector(builder, target, place, kind, size), value)
                store_vector(builder, total, target, place, kind, size)
        with replace:
            for place, value in zip(places, sums, strict=True):
                store_vector(builder, value, target, place, kind, size)


@intrinsic(prefer_literal=True)
def fma_tile(typingctx, a, a_at, a_step, a_row, b, b_at, depth, c, c_at, keep, rows, vectors):
    """``c[m, :] = sum over k of a[k, m] * b[k, :]``: an outer product a step, accumulated in registers.

    ``a[k, m]`` lies at ``a_at + k * a_step + m * a_row``; ``b`` is packed ``(depth, vectors * lanes)``, ``c`` ``(rows,
    vectors * lanes)``, each from its offset on. The sum is added to what ``c`` holds where ``keep`` is not 0. ``rows``
    and ``vectors`` are constants, or from half of ROWS up to ROWS and from 1 up to VECTORS.
    """
    allowed = sizes_of(rows, vectors)
    if allowed is None:
        return None
    sizes, kinds = allowed
    integer = types.int64
    signature = types.void(a, integer, integer, integer, b, integer, integer, c, integer, integer, *kinds)

    def generate(context, builder, signature, args):
        left, right, target = pointers_of(context, builder, signature, args, (0, 4, 7))
        a_step, a_row, depth, keep = (args[place] for place in (2, 3, 6, 9))
        index = ir.IntType(64)

        def column_step(i):
            return builder.mul(i, a_step)

        def tile(height, across):
            columns = [builder.gep(left, [builder.mul(a_row, ir.Constant(index, m))]) for m in range(height)]
            _outer_products(builder, columns, column_step, right, depth, target, keep, across)

        for_sizes(builder, sizes, args[10:], tile)
        return context.get_dummy_value()

    return signature, generate


def _gathered_rows(builder, left, first, height):
    """Where each row's factors begin: ``left`` moved by the places at ``first``."""
    places = [builder.load(builder.gep(first, [ir.Constant(ir.IntType(64), m)])) for m in range(height)]
    return [builder.gep(left, [place]) for place in places]


@intrinsic(prefer_literal=True)
def gather_tile(typingctx, a, a_at, places, p_at, offsets, o_at, b, b_at, depth, c, c_at, keep, rows, vectors):
    """`fma_tile` whose factors lie anywhere: ``a[k, m]`` at ``a_at + places[p_at + m] + offsets[o_at + k]``."""
    allowed = sizes_of(rows, vectors)
    if allowed is None:
        return None
    sizes, kinds = allowed
    integer = types.int64
    operands = (a, integer, places, integer, offsets, integer, b, integer, integer, c, integer, integer)
    signature = types.void(*operands, *kinds)

    def generate(context, builder, signature, args):
        left, first, table, right, target = pointers_of(context, builder, signature, args, (0, 2, 4, 6, 9))
        depth, keep = args[8], args[11]

        def column_step(i):
            return builder.load(builder.gep(table, [i]))

        def tile(height, across):
            columns = _gathered_rows(builder, left, first, height)
            _outer_products(builder, columns, column_step, right, depth, target, keep, across)

        for_sizes(builder, sizes, args[12:], tile)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def shifted_tile(typingctx, a, a_at, table, p_at, o_at, b, b_at, s_at, depth, c, c_at, c_row, rows, vectors):
    """``c[m, :] = sum over k of a[k, m] * b[k, :]`` where both factors lie anywhere, as a table of integers says.

    ``a[k, m]`` lies at ``a_at + table[p_at + m] + table[o_at + k]``, ``b[k, :]`` from ``b_at + table[s_at + k]`` on,
    ``c[m, :]`` from ``c_at + m * c_row`` on. ``rows`` and ``vectors`` as in `fma_tile`.
    """
    allowed = sizes_of(rows, vectors)
    if allowed is None:
        return None
    sizes, kinds = allowed
    integer = types.int64
    operands = (a, integer, table, integer, integer, b, integer, integer, integer, c, integer, integer)
    signature = types.void(*operands, *kinds)

    def generate(context, builder, signature, args):
        left, first, right, target = pointers_of(context, builder, signature, args, (0, 2, 5, 9))
        table, o_at, s_at, depth, c_row = (args[place] for place in (2, 4, 7, 8, 11))
        index = ir.IntType(64)
        start = context.make_array(signature.args[2])(context, builder, table).data
        factors, cells = builder.gep(start, [o_at]), builder.gep(start, [s_at])
        kind, size = vector_type(left.type.pointee)

        def of_table(pointer):
            return lambda i: builder.load(builder.gep(pointer, [i]))

        def tile(height, across):
            columns = _gathered_rows(builder, left, first, height)
            sums = outer_sums(builder, columns, of_table(factors), right, of_table(cells), depth, across)
            for m in range(height):
                row = builder.gep(target, [builder.mul(c_row, ir.Constant(index, m))])
                for v in range(across):
                    store_vector(builder, sums[m * across + v], row, ir.Constant(index, v * kind.count), kind, size)

        for_sizes(builder, sizes, args[12:], tile)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def dot_tile(typingctx, a, a_at, a_step, b, b_at, b_step, depth, c, c_at, rows, columns):
    """``c[m, n] += a[m, :] * b[n, :]``, lane by lane, over ``depth`` vectors: a tile of dot products.

    Row ``m`` of ``a`` starts ``m * a_step`` after its offset, likewise ``b``; ``c`` holds ``(rows, columns)``
    vectors, whose lanes the caller adds up at the end. ``rows`` and ``columns`` are constants.
    """
    if not (isinstance(rows, types.IntegerLiteral) and isinstance(columns, types.IntegerLiteral)):
        return None
    height, across = rows.literal_value, columns.literal_value
    integer = types.int64
    signature = types.void(a, integer, integer, b, integer, integer, integer, c, integer, rows, columns)

    def generate(context, builder, signature, args):
        (left,) = pointers_of(context, builder, signature, args, (0,))
        right, target = pointers_of(context, builder, signature, args, (3, 7))
        kind, size = vector_type(left.type.pointee)
        multiply_add = multiply_add_of(builder, kind)
        index = ir.IntType(64)

        def constant(value):
            return ir.Constant(index, value)

        lefts = [builder.gep(left, [builder.mul(args[2], constant(m))]) for m in range(height)]
        rights = [builder.gep(right, [builder.mul(args[5], constant(n))]) for n in range(across)]

        def step(i, sums):
            at = builder.mul(i, constant(kind.count))
            read = [load_vector(builder, pointer, at, kind, size) for pointer in rights]
            following = []
            for m in range(height):
                factor = load_vector(builder, lefts[m], at, kind, size)
                for n in range(across):
                    following.append(builder.call(multiply_add, [factor, read[n], sums[m * across + n]]))
            return following

        places = [constant(position * kind.count) for position in range(height * across)]
        sums = [load_vector(builder, target, place, kind, size) for place in places]
        for place, value in zip(places, accumulate(builder, args[6], sums, step), strict=True):
            store_vector(builder, value, target, place, kind, size)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def copy_vector(typingctx, source, s_at, target, t_at):
    """``target[t_at :] = source[s_at :]`` for one vector."""
    signature = types.void(source, types.int64, target, types.int64)

    def generate(context, builder, signature, args):
        cells, results = pointers_of(context, builder, signature, args, (0, 2))
        kind, size = vector_type(cells.type.pointee)
        start = ir.Constant(ir.IntType(64), 0)
        store_vector(builder, load_vector(builder, cells, start, kind, size), results, start, kind, size)
        return context.get_dummy_value()

    return signature, generate


def masked_load(builder, cells, kind, size, mask):
    """The vector at a pointer, zeros in lanes outside the mask, which are not read."""
    pointer, name = kind.as_pointer(), f"llvm.masked.load.v{kind.count}f{8 * size}.p0"
    operands = [pointer, ir.IntType(32), mask.type, kind]
    load = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, operands), name)
    nothing, alignment = ir.Constant(kind, [0.0] * kind.count), ir.Constant(ir.IntType(32), size)
    return builder.call(load, [builder.bitcast(cells, pointer), alignment, mask, nothing])


@intrinsic
def copy_between(typingctx, source, s_at, target, t_at, first, last):
    """One vector: lanes ``first .. last - 1`` of ``source[s_at :]``, zeros in the others, to ``target[t_at :]``.

    Only those lanes are read, so the others may lie outside the source.
    """
    integer = types.int64
    signature = types.void(source, integer, target, integer, integer, integer)

    def generate(context, builder, signature, args):
        cells, results = pointers_of(context, builder, signature, args, (0, 2))
        kind, size = vector_type(cells.type.pointee)
        lane = ir.VectorType(ir.IntType(32), kind.count)
        numbers = ir.Constant(lane, list(range(kind.count)))
        low, high = (splat_of(builder, builder.trunc(args[place], ir.IntType(32)), lane) for place in (4, 5))
        mask = builder.and_(builder.icmp_signed(">=", numbers, low), builder.icmp_signed("<", numbers, high))
        value = masked_load(builder, cells, kind, size, mask)
        store_vector(builder, value, results, ir.Constant(ir.IntType(64), 0), kind, size)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def add_lanes(typingctx, a, at):
    """The sum of the lanes of the vector at ``a[at]``, in an order that the vector's width fixes."""
    signature = a.dtype(a, types.int64)

    def generate(context, builder, signature, args):
        (pointer,) = pointers_of(context, builder, signature, args, (0,))
        kind, size = vector_type(pointer.type.pointee)
        total, count = load_vector(builder, pointer, ir.Constant(ir.IntType(64), 0), kind, size), kind.count
        while count > 1:  # fold the upper half onto the lower
            count //= 2
            index = [ir.Constant(ir.IntType(32), i) for i in range(count, 2 * count)]
            low = [ir.Constant(ir.IntType(32), i) for i in range(count)]
            mask = ir.VectorType(ir.IntType(32), count)
            upper = builder.shuffle_vector(total, ir.Constant(total.type, ir.Undefined), ir.Constant(mask, index))
            lower = builder.shuffle_vector(total, ir.Constant(total.type, ir.Undefined), ir.Constant(mask, low))
            total = builder.fadd(lower, upper)
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return signature, generate


@intrinsic
def call_row(typingctx, address, row, start, count):
    """``function(pointer to row[start], count)`` for the C function at an integer address; its int64 result.

    Kernels call activations so: the address is an argument, hence no kernel is compiled again for another
    activation, and one call serves a row, hence the activation's own loop is vectorised.
    """
    signature = types.int64(types.int64, row, types.int64, types.int64)

    def generate(context, builder, signature, args):
        address, row, start, count = args
        array = context.make_array(signature.args[1])(context, builder, row)
        first = cgutils.gep_inbounds(builder, array.data, start)
        kind = ir.FunctionType(ir.IntType(64), [first.type, ir.IntType(64)])
        return builder.call(builder.inttoptr(address, kind.as_pointer()), [first, count])

    return signature, generate


@intrinsic
def writable(typingctx, array):
    """The same array under the type of one that may be written, so that one variable can stand for both kinds."""
    target = types.Array(array.dtype, array.ndim, array.layout)
    signature = target(array)

    def generate(context, builder, signature, args):
        return impl_ret_borrowed(context, builder, signature.return_type, args[0])

    return signature, generate
