"""What Numba has no word for on the device: the only file of this backend that writes PTX or LLVM IR.

Every intrinsic has a fallback for Numba's simulator (``NUMBA_ENABLE_CUDASIM=1``), which computes the same values.
Most concern one thread. Those of a warp (``mma_*``, ``ldmatrix4``) exchange what their lanes hold, and the simulator
has neither warps nor shuffles: there they go through a shared scratch array between two barriers of the *block*. So
in a kernel that is to run in the simulator all threads of a block call them equally often, blocks are one-dimensional,
and a lane is ``threadIdx.x % 32``. On the device none of that is needed.

Fragments, as the PTX ISA lays them out (lane = 4 g + t)::

    m16n8k8, tf32                              m16n8k16, float16 and bfloat16: two values in a register
    a0 (g, t)      a1 (g + 8, t)               a0 (g, 2t..)      a1 (g + 8, 2t..)
    a2 (g, t + 4)  a3 (g + 8, t + 4)           a2 (g, 2t + 8..)  a3 (g + 8, 2t + 8..)
    b0 (t, g)      b1 (t + 4, g)               b0 (2t.., g)      b1 (2t + 8.., g)
    c0, c1 (g, 2t), (g, 2t + 1)                c2, c3 (g + 8, 2t), (g + 8, 2t + 1)     both

A product's sums over k are in ascending order in the simulator; in which order the hardware adds is not specified.

Indices are those of elements of a one-dimensional array and never negative: they do not wrap around.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import cuda

from .jit import SIMULATED

__all__ = [
    "commit_copies",
    "copy4",
    "copy16",
    "inlined",
    "ldmatrix4",
    "load2",
    "load4",
    "mma_bf16",
    "mma_f16",
    "mma_tf32",
    "round_tf32",
    "shared_tile",
    "store2",
    "store4",
    "wait_copies",
]


def inlined(function: Callable[..., Any]) -> Any:
    """A function that kernels call and that is always inlined, which is what unrolls loops over what it is given."""
    return cuda.jit(device=True)(function) if SIMULATED else cuda.jit(device=True, forceinline=True)(function)


def _unsigned_bits(value: Any) -> int:
    return int(np.float32(value).view(np.uint32))


if not SIMULATED:
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    if not hasattr(types, "float32"):  # Numba's own CUDA target has the CPU's types
        from numba import types

    _I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
    _VOID = ir.VoidType()

    def _pointer(context, builder, signature, args, at):
        """The address of ``args[at][args[at + 1]]``."""
        array, index = signature.args[at], signature.args[at + 1]
        data = context.make_array(array)(context, builder, args[at]).data
        wide = context.cast(builder, args[at + 1], index, types.int64 if index.signed else types.uint64)
        return builder.gep(data, [wide])

    def _vector(context, dtype, count):
        """The vector type of ``count`` elements, and the alignment of its accesses: 128 bits at most."""
        return ir.VectorType(context.get_data_type(dtype), count), min(count * dtype.bitwidth // 8, 16)

    def _load(count):
        def load(typingctx, array, index, offset):
            dtype = array.dtype

            def codegen(context, builder, signature, args):
                vector, align = _vector(context, dtype, count)
                # Added to the address, not to the index, which might wrap around: so a constant is part of the load.
                further = context.cast(builder, args[2], offset, types.int64)
                address = builder.gep(_pointer(context, builder, signature, args, 0), [further])
                address = builder.bitcast(address, vector.as_pointer())
                loaded = builder.load(address, align=align)
                model = context.data_model_manager[dtype]
                values = [
                    model.from_data(builder, builder.extract_element(loaded, _I32(place))) for place in range(count)
                ]
                return context.make_tuple(builder, signature.return_type, values)

            return types.UniTuple(dtype, count)(array, index, offset), codegen

        return intrinsic(load)

    def _store(context, builder, signature, args):
        array, given = signature.args[0], signature.args[2:]
        vector, align = _vector(context, array.dtype, len(given))
        model = context.data_model_manager[array.dtype]
        packed = ir.Constant(vector, ir.Undefined)
        for place, (value, kind) in enumerate(zip(args[2:], given, strict=True)):
            cast = model.as_data(builder, context.cast(builder, value, kind, array.dtype))
            packed = builder.insert_element(packed, cast, _I32(place))
        address = builder.bitcast(_pointer(context, builder, signature, args, 0), vector.as_pointer())
        builder.store(packed, address, align=align)
        return context.get_dummy_value()

    load2 = _load(2)
    load4 = _load(4)

    @intrinsic
    def store2(typingctx, array, index, a, b):
        return types.void(array, index, a, b), _store

    @intrinsic
    def store4(typingctx, array, index, a, b, c, d):
        return types.void(array, index, a, b, c, d), _store

    def _assembly(builder, result, arguments, text, constraints, effects=True):
        kind = ir.FunctionType(result, [each.type for each in arguments])
        return builder.call(ir.InlineAsm(kind, text, constraints, side_effect=effects), arguments)

    def _shared_address(builder, pointer):
        """A shared array's address as instructions on shared memory take it, from a generic pointer."""
        text = "{ .reg .u64 a; cvta.to.shared.u64 a, $1; cvt.u32.u64 $0, a; }"
        return _assembly(builder, _I32, [builder.ptrtoint(pointer, _I64)], text, "=r,l", effects=False)

    def _global_address(builder, pointer):
        text = "cvta.to.global.u64 $0, $1;"
        return _assembly(builder, _I64, [builder.ptrtoint(pointer, _I64)], text, "=l,l", effects=False)

    def _copy(size, level):
        def copy(typingctx, target, at, source, index, count):
            def codegen(context, builder, signature, args):
                to = _shared_address(builder, _pointer(context, builder, signature, args, 0))
                read = _global_address(builder, _pointer(context, builder, signature, args, 2))
                number = context.cast(builder, args[4], signature.args[4], types.int32)
                item = ir.Constant(_I32, source.dtype.bitwidth // 8)
                text = f"cp.async.{level}.shared.global [$0], [$1], {size}, $2;"
                _assembly(builder, _VOID, [to, read, builder.mul(number, item)], text, "r,l,r,~{memory}")
                return context.get_dummy_value()

            return types.void(target, at, source, index, count), codegen

        return intrinsic(copy)

    copy16 = _copy(16, "cg")
    copy4 = _copy(4, "ca")

    @intrinsic
    def commit_copies(typingctx):
        def codegen(context, builder, signature, args):
            _assembly(builder, _VOID, [], "cp.async.commit_group;", "~{memory}")
            return context.get_dummy_value()

        return types.void(), codegen

    def wait_copies(groups: int) -> Any:
        """A function that waits until at most ``groups`` groups of this thread's copies are under way."""

        def wait(typingctx):
            def codegen(context, builder, signature, args):
                _assembly(builder, _VOID, [], f"cp.async.wait_group {groups};", "~{memory}")
                return context.get_dummy_value()

            return types.void(), codegen

        return intrinsic(wait)

    def _mma(shape, kinds, a_kind, convert):
        """An ``mma.sync`` whose operands are tuples of registers; ``convert`` makes registers of float32 values."""

        def mma(typingctx, c, a, b):
            def codegen(context, builder, signature, args):
                sums, left, right = (
                    [builder.extract_value(args[at], place) for place in range(signature.args[at].count)]
                    for at in range(3)
                )
                if convert:
                    left, right = ([builder.bitcast(each, _I32) for each in group] for group in (left, right))
                text = (
                    f"mma.sync.aligned.{shape}.row.col.f32.{kinds}.{kinds}.f32 "
                    "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
                )
                four = ir.LiteralStructType([_F32] * 4)
                constraints = "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f"
                found = _assembly(builder, four, [*left, *right, *sums], text, constraints, effects=False)
                values = [builder.extract_value(found, place) for place in range(4)]
                return context.make_tuple(builder, signature.return_type, values)

            sums = types.UniTuple(types.float32, 4)
            return sums(sums, types.UniTuple(a_kind, 4), types.UniTuple(a_kind, 2)), codegen

        return intrinsic(mma)

    mma_tf32 = _mma("m16n8k8", "tf32", types.float32, True)
    mma_f16 = _mma("m16n8k16", "f16", types.uint32, False)
    mma_bf16 = _mma("m16n8k16", "bf16", types.uint32, False)

    @intrinsic
    def ldmatrix4(typingctx, array, index):
        def codegen(context, builder, signature, args):
            address = _shared_address(builder, _pointer(context, builder, signature, args, 0))
            text = "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {$0,$1,$2,$3}, [$4];"
            four = ir.LiteralStructType([_I32] * 4)
            found = _assembly(builder, four, [address], text, "=r,=r,=r,=r,r,~{memory}")
            values = [builder.extract_value(found, place) for place in range(4)]
            return context.make_tuple(builder, signature.return_type, values)

        return types.UniTuple(types.uint32, 4)(array, index), codegen

    @intrinsic
    def round_tf32(typingctx, value):
        def codegen(context, builder, signature, args):
            bits = _assembly(builder, _I32, [args[0]], "cvt.rna.tf32.f32 $0, $1;", "=r,f", effects=False)
            return builder.bitcast(bits, _F32)

        return types.float32(types.float32), codegen

    def shared_tile(size: int, dtype: Any) -> Any:
        """A device function that returns the kernel's shared tile of ``size`` elements, aligned for 128-bit accesses.

        The simulator knows shared arrays by the line that makes them: a kernel has one such tile, taken once.
        """

        def tile():
            return cuda.shared.array(size, dtype, alignment=16)

        return cuda.jit(device=True, inline="always")(tile)

else:
    # Each of these has the name and the effect of an intrinsic above.

    def load2(array, index, offset):
        """Two neighbouring elements from ``index + offset`` on in one access; that is a multiple of two."""
        at = int(index) + int(offset)
        assert at % 2 == 0, "an unaligned access"
        return tuple(array[at + place] for place in range(2))

    def load4(array, index, offset):
        """Four neighbouring elements from ``index + offset`` on in one access, a multiple of four.

        Elements of 64 bits are two accesses, of which each is aligned to two.
        """
        at = int(index) + int(offset)
        assert at % (2 if array.dtype.itemsize == 8 else 4) == 0, "an unaligned access"
        return tuple(array[at + place] for place in range(4))

    def store2(array, index, a, b):
        """Two neighbouring elements in one access; aligned as for `load2`."""
        at = int(index)
        assert at % 2 == 0, "an unaligned access"
        array[at], array[at + 1] = a, b

    def store4(array, index, a, b, c, d):
        """Four neighbouring elements in one access; aligned as for `load4`."""
        at = int(index)
        assert at % (2 if array.dtype.itemsize == 8 else 4) == 0, "an unaligned access"
        array[at], array[at + 1], array[at + 2], array[at + 3] = a, b, c, d

    def _copied(target, at, source, index, count, size):
        whole = size // source.dtype.itemsize
        for place in range(whole):
            target[int(at) + place] = source[int(index) + place] if place < count else 0

    def copy16(target, at, source, index, count):
        """Begin to copy 16 bytes from global to shared memory; elements from ``count`` on become zero.

        Both addresses are multiples of 16 bytes, and what is not counted is not read.
        """
        _copied(target, at, source, index, count, 16)

    def copy4(target, at, source, index, count):
        """`copy16` for 4 bytes at multiples of 4."""
        _copied(target, at, source, index, count, 4)

    def commit_copies():
        """Close the group of the copies that this thread began."""

    def wait_copies(groups: int) -> Any:
        """A function that waits until at most ``groups`` groups of this thread's copies are under way."""

        def wait():
            """Copies are made when they begin."""

        return wait

    @cuda.jit(device=True)
    def _exchange(values):
        """What the lanes of this thread's warp hold, a row each; every thread of the block has to call it."""
        held = cuda.shared.array((1024, 8), np.uint32)
        thread = cuda.threadIdx.x
        held[thread, : len(values)] = values
        cuda.syncthreads()
        first = thread - thread % 32
        rows = np.array([list(held[lane]) for lane in range(first, min(first + 32, cuda.blockDim.x))])
        cuda.syncthreads()
        return rows

    def _halves(registers):
        """Pairs of 16-bit patterns from 32-bit registers, the low one first."""
        return np.stack([registers & 0xFFFF, registers >> 16], axis=-1).astype(np.uint16)

    @cuda.jit(device=True)
    def _product(c, a, b, decode):
        """The product of fragments: a matrix of 16 rows from ``a``, of 8 columns from ``b``; k in ascending order."""
        rows = _exchange((*a, *b))
        lanes = np.arange(32)
        g, t = lanes // 4, lanes % 4
        values = decode(rows[:, :6])  # lane, register, place within the register
        width = values.shape[2]
        left, right = np.zeros((16, 8 * width), np.float32), np.zeros((8 * width, 8), np.float32)
        for place in range(width):
            k = t * width + place
            for register in range(4):
                left[g + 8 * (register % 2), k + 4 * width * (register // 2)] = values[:, register, place]
            for register in range(2):
                right[k + 4 * width * register, g] = values[:, 4 + register, place]
        lane = cuda.threadIdx.x % 32
        sums = []
        for register, start in enumerate(c):
            row, column = lane // 4 + 8 * (register // 2), 2 * (lane % 4) + register % 2
            total = np.float32(start)
            for k in range(8 * width):
                total = np.float32(total + left[row, k] * right[k, column])
            sums.append(total)
        return tuple(sums)

    def _decode_tf32(registers):
        return (registers.astype(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)[:, :, None]

    def _decode_f16(registers):
        return _halves(registers).view(np.float16).astype(np.float32)

    def _decode_bf16(registers):
        return (_halves(registers).astype(np.uint32) << 16).view(np.float32)

    def mma_tf32(c, a, b):
        """``c + a b`` of 16x8 by 8x8 by a warp; ``a`` and ``b`` hold float32 of which tf32's 10 bits count."""
        bits = [tuple(_unsigned_bits(each) for each in group) for group in (a, b)]
        return _product(c, *bits, _decode_tf32)

    def mma_f16(c, a, b):
        """``c + a b`` of 16x16 by 16x8 by a warp; ``a`` and ``b`` hold pairs of float16 as uint32."""
        return _product(c, a, b, _decode_f16)

    def mma_bf16(c, a, b):
        """``c + a b`` of 16x16 by 16x8 by a warp; ``a`` and ``b`` hold pairs of bfloat16 as uint32."""
        return _product(c, a, b, _decode_bf16)

    @cuda.jit(device=True)
    def ldmatrix4(array, index):
        """Four 8x8 matrices of 16-bit elements from shared memory, as registers of fragments.

        Lane ``l`` gives the place of row ``l % 8`` of matrix ``l // 8``, a multiple of 8 elements; register ``m`` gets
        elements ``2 t`` and ``2 t + 1`` of row ``g`` of matrix ``m``.
        """
        assert int(index) % 8 == 0, "an unaligned access"
        rows = _exchange((int(index),))[:, 0]
        lane = cuda.threadIdx.x % 32
        found = []
        for matrix in range(4):
            at = int(rows[8 * matrix + lane // 4]) + 2 * (lane % 4)
            low, high = (int(np.asarray(array[at + place]).view(np.uint16)) for place in range(2))
            found.append(np.uint32(low | high << 16))
        return tuple(found)

    def round_tf32(value):
        """The nearest value with tf32's 10 bits, ties away from zero."""
        bits = _unsigned_bits(value)
        if bits & 0x7FFFFFFF > 0x7F800000:
            return np.float32(np.nan)
        return np.uint32((bits + 0x1000) & 0xFFFFE000).view(np.float32)

    def shared_tile(size: int, dtype: Any) -> Any:
        """A device function that returns the kernel's shared tile of ``size`` elements."""

        @cuda.jit(device=True)
        def tile():
            return cuda.shared.array(size, dtype)

        return tile
