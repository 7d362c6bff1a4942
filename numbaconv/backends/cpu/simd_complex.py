"""Vector steps of Fourier transforms and of their products, in LLVM IR: what `simd` is to sums of products.

Complex values are planes: a vector of real parts, and at a distance ``plane`` the vector of their imaginary parts. With
the planes changed over (start at the imaginary parts, ``-plane``) the forward transform is the unscaled inverse.
Vectors are loaded before any is stored, so that a step may overwrite what it has read.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .simd import (
    VECTOR_BYTES,
    accumulate,
    load_vector,
    multiply_add_of,
    pointers_of,
    splat_of,
    store_vector,
    vector_type,
)

__all__ = [
    "TILE_COLUMNS",
    "TILE_ROWS",
    "complex_tile",
    "from_real_halves",
    "radix2",
    "radix4",
    "to_real_halves",
    "twist",
]

#: The largest tile of `complex_tile`: accumulators, a column of vectors and one more fill 16 registers, or 32.
TILE_ROWS, TILE_COLUMNS = (4, 2) if VECTOR_BYTES == 64 else (2, 2)

_INDEX = ir.IntType(64)


class _Vectors:
    """A builder for vectors of one element type, and for complex values as pairs of them."""

    def __init__(self, builder, pointer):
        self.builder = builder
        self.kind, self.size = vector_type(pointer.type.pointee)
        self.multiply_add = multiply_add_of(builder, self.kind)
        self.lanes = self.kind.count

    def load(self, pointer, offset):
        return load_vector(self.builder, pointer, offset, self.kind, self.size)

    def store(self, value, pointer, offset):
        store_vector(self.builder, value, pointer, offset, self.kind, self.size)

    def load_pair(self, pointer, offset, plane):
        return self.load(pointer, offset), self.load(pointer, self.builder.add(offset, plane))

    def store_pair(self, value, pointer, offset, plane):
        self.store(value[0], pointer, offset)
        self.store(value[1], pointer, self.builder.add(offset, plane))

    def splat_at(self, pointer, offset):
        return splat_of(self.builder, self.builder.load(self.builder.gep(pointer, [offset])), self.kind)

    def fma(self, a, b, c):
        return self.builder.call(self.multiply_add, [a, b, c])

    def negative(self, a):
        return self.builder.fneg(a)

    def add(self, a, b):
        return self.builder.fadd(a[0], b[0]), self.builder.fadd(a[1], b[1])

    def subtract(self, a, b):
        return self.builder.fsub(a[0], b[0]), self.builder.fsub(a[1], b[1])

    def multiply(self, a, b):
        real = self.fma(a[0], b[0], self.negative(self.builder.fmul(a[1], b[1])))
        return real, self.fma(a[0], b[1], self.builder.fmul(a[1], b[0]))

    def multiply_accumulate(self, a, b, total):
        real = self.fma(self.negative(a[1]), b[1], self.fma(a[0], b[0], total[0]))
        return real, self.fma(a[1], b[0], self.fma(a[0], b[1], total[1]))

    def shuffle(self, a, b, places):
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [ir.Constant(ir.IntType(32), i) for i in places])
        return self.builder.shuffle_vector(a, b, mask)

    def backwards(self, a):
        return self.shuffle(a, ir.Constant(self.kind, ir.Undefined), range(self.lanes - 1, -1, -1))

    def transpose(self, rows):
        """A square of vectors, by as many rounds of zipping its upper with its lower half as lanes have bits."""
        lanes, half = self.lanes, self.lanes // 2
        for _ in range(lanes.bit_length() - 1):
            zipped = []
            for low, high in zip(rows[:half], rows[half:], strict=True):
                for start in (0, half):
                    zipped.append(self.shuffle(low, high, [start + i // 2 + i % 2 * lanes for i in range(lanes)]))
            rows = zipped
        return rows


def _data(context, builder, signature, args, place):
    return context.make_array(signature.args[place])(context, builder, args[place]).data


def _constant(value):
    return ir.Constant(_INDEX, value)


@intrinsic(prefer_literal=True)
def radix4(typingctx, cells, x, y, plane, x_step, y_step, table, t, turned):
    """Four transforms of two stages each: reads at ``x + i * x_step``, writes at ``y + i * y_step``.

    If ``turned`` (a constant) the results are multiplied by 1 and the three complex numbers at ``table[t:]``.
    """
    if not isinstance(turned, types.IntegerLiteral):
        return None
    with_factors, integer = turned.literal_value, types.int64
    signature = types.void(cells, integer, integer, integer, integer, integer, table, integer, turned)

    def generate(context, builder, signature, args):
        data, factors = (_data(context, builder, signature, args, place) for place in (0, 6))
        v = _Vectors(builder, data)
        _, x, y, plane, x_step, y_step, _, t, _ = args
        a, b, c, d = (v.load_pair(data, builder.add(x, builder.mul(_constant(i), x_step)), plane) for i in range(4))
        even, odd = v.add(a, c), v.add(b, d)
        across, turn = v.subtract(a, c), v.subtract(b, d)
        turn = turn[1], v.negative(turn[0])  # times -i
        results = [v.add(even, odd), v.add(across, turn), v.subtract(even, odd), v.subtract(across, turn)]
        for i, value in enumerate(results):
            if i and with_factors:
                at = [builder.add(t, _constant(2 * (i - 1) + part)) for part in range(2)]
                value = v.multiply(value, tuple(v.splat_at(factors, each) for each in at))
            v.store_pair(value, data, builder.add(y, builder.mul(_constant(i), y_step)), plane)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def radix2(typingctx, cells, x, y, plane, step):
    """The sum and the difference of what stands ``step`` apart at ``x``, to ``y`` likewise."""
    signature = types.void(cells, types.int64, types.int64, types.int64, types.int64)

    def generate(context, builder, signature, args):
        data = _data(context, builder, signature, args, 0)
        v = _Vectors(builder, data)
        _, x, y, plane, step = args
        a, b = v.load_pair(data, x, plane), v.load_pair(data, builder.add(x, step), plane)
        v.store_pair(v.add(a, b), data, y, plane)
        v.store_pair(v.subtract(a, b), data, builder.add(y, step), plane)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def twist(typingctx, cells, x, y, plane, y_step, table, t, t_plane):
    """A square of complex values times the factors at ``table[t:]``, transposed.

    Rows are vectors one after the other at ``x``; columns become vectors ``y_step`` apart at ``y``.
    """
    integer = types.int64
    signature = types.void(cells, integer, integer, integer, integer, table, integer, integer)

    def generate(context, builder, signature, args):
        data, factors = (_data(context, builder, signature, args, place) for place in (0, 5))
        v = _Vectors(builder, data)
        _, x, y, plane, y_step, _, t, t_plane = args
        rows = []
        for i in range(v.lanes):
            at = _constant(i * v.lanes)
            value = v.load_pair(data, builder.add(x, at), plane)
            rows.append(v.multiply(value, v.load_pair(factors, builder.add(t, at), t_plane)))
        for part, start in ((0, y), (1, builder.add(y, plane))):
            for i, column in enumerate(v.transpose([row[part] for row in rows])):
                v.store(column, data, builder.add(start, builder.mul(_constant(i), y_step)))
        return context.get_dummy_value()

    return signature, generate


def _both_ends(v, data, front, back, plane):
    """A vector of values from ``front`` on, and the conjugates of those from ``back`` on, last first."""
    ahead, behind = v.load_pair(data, front, plane), v.load_pair(data, back, plane)
    return ahead, (v.backwards(behind[0]), v.negative(v.backwards(behind[1])))


@intrinsic
def from_real_halves(typingctx, cells, front, back, plane, table, t, t_plane, out, out_at, real_scale, imaginary_scale):
    """Twice the spectrum of a real row whose even and odd cells were transformed as real and imaginary parts.

    ``front``: where the transform at frequencies ``k ..`` stands; ``back``: where that at ``half - k`` ends a vector.
    ``table`` holds ``-sin`` and, ``t_plane`` on, ``cos`` of the frequencies' angles. A vector of real parts and one of
    imaginary parts are written, each times its scale.
    """
    integer, element = types.int64, cells.dtype
    signature = types.void(cells, integer, integer, integer, table, integer, integer, out, integer, element, element)

    def generate(context, builder, signature, args):
        data, factors, target = (_data(context, builder, signature, args, place) for place in (0, 4, 7))
        v = _Vectors(builder, data)
        _, front, back, plane, _, t, t_plane, _, out_at, real_scale, imaginary_scale = args
        ahead, behind = _both_ends(v, data, front, back, plane)
        sine, cosine = v.load_pair(factors, t, t_plane)
        turned = v.multiply(v.subtract(ahead, behind), (sine, v.negative(cosine)))
        real, imaginary = v.add(v.add(ahead, behind), turned)
        scales = (splat_of(builder, scale, v.kind) for scale in (real_scale, imaginary_scale))
        for part, (value, scale) in enumerate(zip((real, imaginary), scales, strict=True)):
            v.store(builder.fmul(value, scale), target, builder.add(out_at, _constant(part * v.lanes)))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def to_real_halves(typingctx, cells, front, back, plane, table, t, t_plane, y, y_at, y_plane):
    """The inverse: from a spectrum to twice the transform of even and odd cells, at ``y[y_at:]``."""
    integer = types.int64
    signature = types.void(cells, integer, integer, integer, table, integer, integer, y, integer, integer)

    def generate(context, builder, signature, args):
        data, factors, target = (_data(context, builder, signature, args, place) for place in (0, 4, 7))
        v = _Vectors(builder, data)
        _, front, back, plane, _, t, t_plane, _, y_at, y_plane = args
        ahead, behind = _both_ends(v, data, front, back, plane)
        turned = v.multiply(v.subtract(ahead, behind), v.load_pair(factors, t, t_plane))
        v.store_pair(v.add(v.add(ahead, behind), turned), target, y_at, y_plane)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def complex_tile(
    typingctx, a, a_at, a_step, b, b_at, b_step, depth, c, c_at, row_step, column_step, plane, rows, columns
):
    """``c[m, n] += sum over k of a[m, k] * b[n, k]``, complex and lane by lane, accumulated in registers.

    Row ``m`` of ``a`` starts ``m * a_step`` after its offset, likewise ``b``; a step holds a vector of real parts and
    one of imaginary parts. ``c[m, n]`` stands at ``m * row_step + n * column_step``, its imaginary parts ``plane`` on.
    ``rows`` and ``columns`` are constants.
    """
    if not (isinstance(rows, types.IntegerLiteral) and isinstance(columns, types.IntegerLiteral)):
        return None
    height, across, integer = rows.literal_value, columns.literal_value, types.int64
    signature = types.void(
        *(a, integer, integer, b, integer, integer, integer),
        *(c, integer, integer, integer, integer, rows, columns),
    )

    def generate(context, builder, signature, args):
        left, right, target = pointers_of(context, builder, signature, args, (0, 3, 7))
        v = _Vectors(builder, left)
        row_step, column_step, plane = args[9:12]
        lefts = [builder.gep(left, [builder.mul(args[2], _constant(m))]) for m in range(height)]
        rights = [builder.gep(right, [builder.mul(args[5], _constant(n))]) for n in range(across)]

        def step(k, sums):
            at = builder.mul(k, _constant(2 * v.lanes))
            read = [v.load_pair(pointer, at, _constant(v.lanes)) for pointer in rights]
            following = []
            for m in range(height):
                factor = v.load_pair(lefts[m], at, _constant(v.lanes))
                for n in range(across):
                    place = 2 * (m * across + n)
                    following.extend(v.multiply_accumulate(factor, read[n], sums[place : place + 2]))
            return following

        nothing = ir.Constant(v.kind, [0.0] * v.lanes)
        sums = accumulate(builder, args[6], [nothing] * (2 * height * across), step)
        for m in range(height):
            for n in range(across):
                at = builder.add(builder.mul(row_step, _constant(m)), builder.mul(column_step, _constant(n)))
                place = 2 * (m * across + n)
                total = v.add(v.load_pair(target, at, plane), sums[place : place + 2])
                v.store_pair(total, target, at, plane)
        return context.get_dummy_value()

    return signature, generate
