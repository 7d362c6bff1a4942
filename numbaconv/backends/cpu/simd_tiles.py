"""Vector intrinsics on small tiles: linear maps of both axes, and transposition. Part of what `simd` is for.

Lanes are channels: a tile is a grid of vectors at regular distances, so its borders, dilation and order never matter
to the arithmetic.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..toom_cook import matrices
from .simd import (
    ROWS,
    accumulate,
    choose,
    for_sizes,
    load_vector,
    multiply_add_of,
    pointers_of,
    sizes_of,
    splat_of,
    store_vector,
    vector_type,
)
from .simd_finite import Sizes

__all__ = [
    "DATA",
    "MODES",
    "OUTPUT",
    "OUTPUT_OF_TAPS",
    "WEIGHT",
    "WEIGHT_OF_OUTPUTS",
    "linear_tile",
    "plane_tile",
    "transpose_lanes",
    "transpose_sum",
]

#: The filterings there are, by their number: (outputs, taps) down and across.
MODES = (((4, 3), (4, 3)), ((2, 3), (2, 3)), ((1, 1), (4, 3)), ((4, 3), (1, 1)), ((2, 5), (2, 5)))

#: Which matrix of `toom_cook.matrices` a `linear_tile` applies. For the gradient by the weight outputs and taps change
#: places: a tile of the output gradient is the filter, and the taps are what comes out.
OUTPUT, WEIGHT, DATA, OUTPUT_OF_TAPS, WEIGHT_OF_OUTPUTS = 0, 1, 2, 3, 4


class _Lines:
    """Emits sums of vectors with constant factors."""

    def __init__(self, builder, kind):
        self._builder, self._kind = builder, kind
        self._multiply_add = multiply_add_of(builder, kind)

    def _constant(self, value):
        return ir.Constant(self._kind, [value] * self._kind.count)

    def combine(self, factors, vectors):
        """``sum of factor * vector`` in the given order, or None where every factor is 0."""
        builder, total = self._builder, None
        for factor, vector in zip(factors, vectors, strict=True):
            if factor == 0 or vector is None:
                continue
            if total is None:
                total = vector if factor == 1 else builder.fmul(self._constant(factor), vector)
            elif factor == 1:
                total = builder.fadd(total, vector)
            elif factor == -1:
                total = builder.fsub(total, vector)
            else:
                total = builder.call(self._multiply_add, [self._constant(factor), vector, total])
        return total

    def add(self, one, other, sign):
        if one is None or other is None:
            return one if other is None else other if sign > 0 else self._builder.fneg(other)
        return self._builder.fadd(one, other) if sign > 0 else self._builder.fsub(one, other)

    def apply(self, matrix, vectors):
        """``matrix @ vectors``. Rows or columns that mirror each other share their even and odd parts."""
        rows, columns = matrix.shape
        pairs = [j for j in range(columns - 1) if _mirrored(matrix[:, j], matrix[:, j + 1])]
        if rows < columns and pairs:
            matrix, vectors = matrix.copy(), list(vectors)
            for j in pairs:  # even rows want the sum, odd ones the difference
                total = self._builder.fadd(vectors[j], vectors[j + 1])
                vectors[j + 1] = self._builder.fsub(vectors[j], vectors[j + 1])
                vectors[j] = total
                matrix[1::2, j], matrix[::2, j + 1] = 0, 0
                matrix[1::2, j + 1] *= -1
            return [self.combine(row, vectors) for row in matrix]
        found, i = [], 0
        while i < rows:
            if i + 1 < rows and _mirrored(matrix[i], matrix[i + 1]):
                even = self.combine(matrix[i][::2], vectors[::2])
                odd = self.combine(matrix[i][1::2], vectors[1::2])
                found += [self.add(even, odd, 1), self.add(even, odd, -1)]
                i += 2
            else:
                found.append(self.combine(matrix[i], vectors))
                i += 1
        return found


def _mirrored(one, other):
    signs = [(-1) ** k for k in range(len(one))]
    return len(one) > 1 and all(a == sign * b for a, b, sign in zip(one, other, signs, strict=True))


def _maps(which, mode):
    """The matrices of a linear tile, down and across."""
    turned = which > DATA
    pairs = [pair[::-1] if turned else pair for pair in MODES[mode]]
    return [matrices(*pair)[which - OUTPUT_OF_TAPS if turned else which] for pair in pairs]


@intrinsic(prefer_literal=True)
def linear_tile(typingctx, source, s_at, s_row, s_column, target, t_at, t_row, t_column, which, mode):
    """``target = L source R^T`` for a grid of vectors; ``L`` and ``R`` are matrices of a mode's two filterings, those
    that ``which`` names, a constant.

    Element ``(i, j)`` of a grid is the vector at its offset plus ``i * row + j * column``. Of results (OUTPUT and
    OUTPUT_OF_TAPS) it returns 1 where all are finite and 0 where any is not, of all else 1.
    """
    if not isinstance(which, types.IntegerLiteral):
        return None
    integer = types.int64
    signature = types.int64(source, integer, integer, integer, target, integer, integer, integer, which, integer)

    def generate(context, builder, signature, args):
        cells, results = pointers_of(context, builder, signature, args, (0, 4))
        kind, size = vector_type(cells.type.pointee)
        lines, sizes = _Lines(builder, kind), Sizes(builder, kind, size)
        looks = which.literal_value in (OUTPUT, OUTPUT_OF_TAPS)
        largest = cgutils.alloca_once_value(builder, sizes.splat(0))

        def place(row, column, i, j):
            index = ir.IntType(64)
            down = builder.mul(args[row], ir.Constant(index, i))
            return builder.add(down, builder.mul(args[column], ir.Constant(index, j)))

        def tile(left, right):
            columns = []
            for j in range(right.shape[1]):
                read = [load_vector(builder, cells, place(2, 3, i, j), kind, size) for i in range(left.shape[1])]
                columns.append(lines.apply(left, read))
            most = sizes.splat(0)
            for i in range(left.shape[0]):
                for j, value in enumerate(lines.apply(right, [column[i] for column in columns])):
                    store_vector(builder, value, results, place(6, 7, i, j), kind, size)
                    if looks:
                        most = sizes.larger(most, value)
            builder.store(most, largest)

        choose(builder, args[9], {number: _maps(which.literal_value, number) for number in range(len(MODES))}, tile)
        return sizes.all_finite(builder.load(largest)) if looks else ir.Constant(ir.IntType(64), 1)

    return signature, generate


@intrinsic(prefer_literal=True)
def plane_tile(
    typingctx, a, a_at, a_step, b, b_at, offsets, o_at, depth, c, c_at, c_row, bias, f_at, keep, rows, vectors
):
    """``c[m, :] = sum over k of a[k, m] * b[k, :] + bias[m]``, added to what ``c`` holds where ``keep`` is not 0.

    ``a[k, m]`` lies at ``a_at + k * a_step + m``, the vectors ``b[k, :]`` at ``b_at + offsets[o_at + k]``, ``c[m, :]``
    at ``c_at + m * c_row``: neighbouring cells each, wherever they are. ``rows`` and ``vectors`` are constants, or half
    of ROWS or all of them, and from 1 up to VECTORS.
    """
    allowed = sizes_of(rows, vectors, (ROWS // 2, ROWS))
    if allowed is None:
        return None
    sizes, kinds = allowed
    integer = types.int64
    left, right = (a, integer, integer), (b, integer, offsets, integer, integer)
    signature = types.void(*left, *right, c, integer, integer, bias, integer, integer, *kinds)

    def generate(context, builder, signature, args):
        left, right, table, target, added = pointers_of(context, builder, signature, args, (0, 3, 5, 8, 11))
        a_step, depth, c_row, keep = (args[place] for place in (2, 7, 10, 13))
        kind, size = vector_type(left.type.pointee)
        multiply_add = multiply_add_of(builder, kind)

        def constant(value):
            return ir.Constant(ir.IntType(64), value)

        def tile(height, across):
            def step(i, sums):
                factors = builder.gep(left, [builder.mul(i, a_step)])
                cells = builder.gep(right, [builder.load(builder.gep(table, [i]))])
                read = [load_vector(builder, cells, constant(v * kind.count), kind, size) for v in range(across)]
                following = []
                for m in range(height):
                    factor = splat_of(builder, builder.load(builder.gep(factors, [constant(m)])), kind)
                    for v in range(across):
                        following.append(builder.call(multiply_add, [factor, read[v], sums[m * across + v]]))
                return following

            nothing = ir.Constant(kind, [0.0] * kind.count)
            sums = accumulate(builder, depth, [nothing] * (height * across), step)
            lines = [builder.gep(target, [builder.mul(c_row, constant(m))]) for m in range(height)]
            with builder.if_else(builder.icmp_signed("!=", keep, constant(0))) as (add, replace):
                for branch in (add, replace):
                    with branch:
                        for m, line in enumerate(lines):
                            offset = splat_of(builder, builder.load(builder.gep(added, [constant(m)])), kind)
                            for v in range(across):
                                place, value = constant(v * kind.count), sums[m * across + v]
                                if branch is add:
                                    value = builder.fadd(load_vector(builder, line, place, kind, size), value)
                                store_vector(builder, builder.fadd(value, offset), line, place, kind, size)

        for_sizes(builder, sizes, args[14:], tile)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def transpose_lanes(typingctx, source, s_at, s_step, target, t_at, t_step):
    """Transpose a square block of as many vectors as a vector has lanes.

    Vector ``i`` is read at ``s_at + i * s_step`` and written at ``t_at + i * t_step``.
    """
    integer = types.int64
    signature = types.void(source, integer, integer, target, integer, integer)

    def generate(context, builder, signature, args):
        cells, results = pointers_of(context, builder, signature, args, (0, 3))
        _transpose(builder, cells, args[2], None, results, args[5])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def transpose_sum(typingctx, source, s_at, s_step, offset, o_at, target, t_at, t_step):
    """`transpose_lanes` of vectors to each of which the vector at ``offset[o_at]`` is added."""
    integer = types.int64
    signature = types.void(source, integer, integer, offset, integer, target, integer, integer)

    def generate(context, builder, signature, args):
        cells, added, results = pointers_of(context, builder, signature, args, (0, 3, 5))
        _transpose(builder, cells, args[2], added, results, args[7])
        return context.get_dummy_value()

    return signature, generate


def _transpose(builder, cells, s_step, added, results, t_step):
    kind, size = vector_type(cells.type.pointee)
    index, count = ir.IntType(64), kind.count
    places = [ir.Constant(index, i) for i in range(count)]
    block = [load_vector(builder, cells, builder.mul(s_step, place), kind, size) for place in places]
    if added is not None:
        offset = load_vector(builder, added, places[0], kind, size)
        block = [builder.fadd(each, offset) for each in block]
    half = 1
    while half < count:  # exchange off-diagonal squares of growing size
        low = [e if not e & half else count + e - half for e in range(count)]
        high = [e + half if not e & half else count + e for e in range(count)]
        masks = [ir.Constant(ir.VectorType(ir.IntType(32), count), mask) for mask in (low, high)]
        for i in range(count):
            if not i & half:
                one, other = block[i], block[i + half]
                block[i] = builder.shuffle_vector(one, other, masks[0])
                block[i + half] = builder.shuffle_vector(one, other, masks[1])
        half *= 2
    for place, value in zip(places, block, strict=True):
        store_vector(builder, value, results, builder.mul(t_step, place), kind, size)
