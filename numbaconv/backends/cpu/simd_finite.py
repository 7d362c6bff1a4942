"""Vector intrinsics that look for NaN and infinity. Part of what `simd` is for."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .simd import accumulate, load_vector, masked_load, pointers_of, splat_of, vector_type

__all__ = ["Sizes", "all_finite"]


class Sizes:
    """The largest of some vectors, lane by lane and without their signs, as integers: does any hold NaN or infinity?

    The bits of a value without its sign are at least those of infinity where it is not finite. Two instructions a
    vector; products with zero would take one, but subnormal values make them slow on some processors.
    """

    def __init__(self, builder, kind, size):
        self._builder, self._bits = builder, ir.VectorType(ir.IntType(8 * size), kind.count)
        self._infinity = {4: 0xFF000000, 8: 0xFFE0000000000000}[size]  # doubled, as all are: without the sign

    def splat(self, value):
        return ir.Constant(self._bits, [value] * self._bits.count)

    def larger(self, most, values):
        doubled = self._builder.shl(self._builder.bitcast(values, self._bits), self.splat(1))
        return self.largest(most, doubled)

    def largest(self, most, other):
        return self._builder.select(self._builder.icmp_unsigned(">", other, most), other, most)

    def all_finite(self, most):
        """1 where no value was NaN or infinity, else 0."""
        builder = self._builder
        found = builder.bitcast(
            builder.icmp_unsigned(">=", most, self.splat(self._infinity)), ir.IntType(self._bits.count)
        )
        clean = builder.icmp_unsigned("==", found, ir.Constant(found.type, 0))
        return builder.zext(clean, ir.IntType(64))


@intrinsic
def all_finite(typingctx, row, start, count):
    """1 where ``count`` values from ``row[start]`` on are finite, else 0."""
    index = ir.IntType(64)
    signature = types.int64(row, types.int64, types.int64)

    def generate(context, builder, signature, args):
        (cells,), count = pointers_of(context, builder, signature, args, (0,)), args[2]
        kind, size = vector_type(cells.type.pointee)
        sizes = Sizes(builder, kind, size)
        lanes, narrow = ir.Constant(index, kind.count), ir.VectorType(ir.IntType(32), kind.count)

        def step(i, values):
            return [sizes.larger(values[0], load_vector(builder, cells, builder.mul(i, lanes), kind, size))]

        whole = builder.udiv(count, lanes)
        (most,) = accumulate(builder, whole, [sizes.splat(0)], step)
        done = builder.mul(whole, lanes)
        left = splat_of(builder, builder.trunc(builder.sub(count, done), ir.IntType(32)), narrow)
        mask = builder.icmp_signed("<", ir.Constant(narrow, list(range(kind.count))), left)
        rest = masked_load(builder, builder.gep(cells, [done]), kind, size, mask)
        return sizes.all_finite(sizes.larger(most, rest))

    return signature, generate
