"""What Numba has no word for on the device: the only file of this backend that writes PTX or LLVM IR.

Every intrinsic has a fallback for Numba's simulator (``NUMBA_ENABLE_CUDASIM=1``), which computes the same values.
Most concern one thread. Those of a warp (``mma_*``, ``ldmatrix4``) exchange what their lanes hold, and the simulator
has neither warps nor shuffles: there they go through shared scratch arrays and a barrier of the *block*. So
in a kernel that is to run in the simulator all threads of a block call them equally often, blocks are one-dimensional,
and a lane is ``threadIdx.x % 32``. On the device none of that is needed.

Fragments, as the PTX ISA lays them out (lane = 4 g + t)::

    m16n8k8, tf32                              m16n8k16, float16 and bfloat16: two values in a register
    a0 (g, t)      a1 (g + 8, t)               a0 (g, 2t..)      a1 (g + 8, 2t..)
    a2 (g, t + 4)  a3 (g + 8, t + 4)           a2 (g, 2t + 8..)  a3 (g + 8, 2t + 8..)
    b0 (t, g)      b1 (t + 4, g)               b0 (2t.., g)      b1 (2t + 8.., g)
    c0, c1 (g, 2t), (g, 2t + 1)                c2, c3 (g + 8, 2t), (g + 8, 2t + 1)     both

A register of tf32 is a float32's bits, of which the sign, the exponent and the upper ten bits of the fraction count.
How the hardware adds is not specified. In the simulator a product's terms and what they are added to are cut off
toward zero at the 24th bit of the largest of them, and so is their sum: the least precise of what was found by
experiment (Fasi, Higham, Mikaitis and Pranesh 2021), so that errors in the simulator are not smaller than real ones.

Indices are those of elements of a one-dimensional array and never negative: they do not wrap around.
"""

from collections.abc import Callable
from functools import lru_cache
from threading import current_thread
from typing import Any

import numpy as np
from llvmlite import ir
from numba import cuda

from .jit import SIMULATED

__all__ = [
    "absolute",
    "commit_copies",
    "copy4",
    "copy16",
    "float_of_word",
    "inlined",
    "larger",
    "ldmatrix4",
    "load2",
    "load4",
    "load_half",
    "mma_bf16",
    "mma_f16",
    "mma_tf32",
    "round_tf32",
    "shared_tile",
    "store2",
    "store4",
    "wait_copies",
    "word_of_float",
]


def inlined(function: Callable[..., Any]) -> Any:
    """A function that kernels call and that is always inlined, which is what unrolls loops over what it is given."""
    return cuda.jit(device=True)(function) if SIMULATED else cuda.jit(device=True, forceinline=True)(function)


def _unsigned_bits(value: Any) -> int:
    return int(np.float32(value).view(np.uint32))


if not SIMULATED:
    from numba.cuda import libdevice, types
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

    def _shared_address(context, builder, signature, args, at, offset=None):
        """The address of ``args[at][args[at + 1] + args[offset]]`` as instructions on shared memory take it.

        That of the array is found once; the rest is 32-bit arithmetic, to which a constant is added last.
        """
        array = signature.args[at]
        data = context.make_array(array)(context, builder, args[at]).data
        text = "{ .reg .u64 a; cvta.to.shared.u64 a, $1; cvt.u32.u64 $0, a; }"
        address = _assembly(builder, _I32, [builder.ptrtoint(data, _I64)], text, "=r,l", effects=False)
        for place in (at + 1,) if offset is None else (at + 1, offset):
            index = context.cast(builder, args[place], signature.args[place], types.int32)
            address = builder.add(address, builder.mul(index, ir.Constant(_I32, array.dtype.bitwidth // 8)))
        return address

    def _global_address(builder, pointer):
        text = "cvta.to.global.u64 $0, $1;"
        return _assembly(builder, _I64, [builder.ptrtoint(pointer, _I64)], text, "=l,l", effects=False)

    def _copy(size, level):
        def copy(typingctx, target, at, source, index, count):
            def codegen(context, builder, signature, args):
                to = _shared_address(context, builder, signature, args, 0)
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

    def _mma(shape, kinds):
        """An ``mma.sync`` whose operands are tuples of registers."""

        def mma(typingctx, c, a, b):
            def codegen(context, builder, signature, args):
                sums, left, right = (
                    [builder.extract_value(args[at], place) for place in range(signature.args[at].count)]
                    for at in range(3)
                )
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
            return sums(sums, types.UniTuple(types.uint32, 4), types.UniTuple(types.uint32, 2)), codegen

        return intrinsic(mma)

    mma_tf32 = _mma("m16n8k8", "tf32")
    mma_f16 = _mma("m16n8k16", "f16")
    mma_bf16 = _mma("m16n8k16", "bf16")

    @intrinsic
    def ldmatrix4(typingctx, array, index, offset):
        def codegen(context, builder, signature, args):
            address = _shared_address(context, builder, signature, args, 0, 2)
            text = "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {$0,$1,$2,$3}, [$4];"
            four = ir.LiteralStructType([_I32] * 4)
            found = _assembly(builder, four, [address], text, "=r,=r,=r,=r,r,~{memory}")
            values = [builder.extract_value(found, place) for place in range(4)]
            return context.make_tuple(builder, signature.return_type, values)

        return types.UniTuple(types.uint32, 4)(array, index, offset), codegen

    @intrinsic
    def load_half(typingctx, array, index):
        def codegen(context, builder, signature, args):
            address = _pointer(context, builder, signature, args, 0)
            address = builder.bitcast(address, ir.IntType(16).as_pointer())
            return builder.zext(builder.load(address, align=2), _I32)

        return types.uint32(array, index), codegen

    @intrinsic
    def round_tf32(typingctx, value):
        def codegen(context, builder, signature, args):
            return _assembly(builder, _I32, [args[0]], "cvt.rna.tf32.f32 $0, $1;", "=r,f", effects=False)

        return types.uint32(types.float32), codegen

    @intrinsic
    def float_of_word(typingctx, word):
        return types.float32(types.uint32), lambda context, builder, signature, args: builder.bitcast(args[0], _F32)

    @intrinsic
    def word_of_float(typingctx, value):
        return types.uint32(types.float32), lambda context, builder, signature, args: builder.bitcast(args[0], _I32)

    @inlined
    def absolute(value):
        return libdevice.fabsf(value)

    @inlined
    def larger(a, b):
        return libdevice.fmaxf(libdevice.fabsf(a), libdevice.fabsf(b))

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
        kept = np.zeros(size // source.dtype.itemsize, source.dtype)
        for place in range(min(int(count), kept.size)):
            kept[place] = source[int(index) + place]
        for place, value in enumerate(kept.view(target.dtype)):
            target[int(at) + place] = value

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
        """What the lanes of this thread's warp hold, a row each; every thread of the block has to call it.

        Two scratch arrays in turns: who writes to one has been at a barrier since it was read.
        """
        thread, state = cuda.threadIdx.x, vars(current_thread())
        turn = state["exchanges"] = 1 - state.get("exchanges", 0)
        held = cuda.shared.array((2, 1024, 10), np.uint32)
        held[turn, thread, : len(values)] = values
        cuda.syncthreads()
        first = thread - thread % 32
        return np.array(held[turn, first : min(first + 32, cuda.blockDim.x), : len(values)])

    def _halves(registers):
        """Pairs of 16-bit patterns from 32-bit registers, the low one first."""
        return np.stack([registers & 0xFFFF, registers >> 16], axis=-1).astype(np.uint16)

    @lru_cache(maxsize=64)
    def _sums(held, decode):
        """The product of what 32 lanes hold (a, b, c), 16 by 8; each lane asks for the same one."""
        rows = np.frombuffer(held, np.uint32).reshape(32, 10)
        lanes = np.arange(32)
        g, t = lanes // 4, lanes % 4
        values = decode(rows[:, :6]).astype(np.float64)  # lane, register, place within the register
        width = values.shape[2]
        left, right, start = np.zeros((16, 8 * width)), np.zeros((8 * width, 8)), np.zeros((16, 8))
        for place in range(width):
            k = t * width + place
            for register in range(4):
                left[g + 8 * (register % 2), k + 4 * width * (register // 2)] = values[:, register, place]
            for register in range(2):
                right[k + 4 * width * register, g] = values[:, 4 + register, place]
        for register in range(4):
            start[g + 8 * (register // 2), 2 * t + register % 2] = rows[:, 6 + register].copy().view(np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            terms = np.concatenate([start[None], left.T[:, :, None] * right[:, None, :]])
            plain = terms.sum(axis=0)
            terms[:, ~np.isfinite(plain)] = 0
            quantum = np.ldexp(1.0, np.frexp(np.abs(terms).max(axis=0))[1] - 24)
            total = (np.trunc(terms / quantum) * quantum).sum(axis=0)
            found = total.astype(np.float32)
        rounded_up = (np.abs(found) > np.abs(total)) & (np.abs(total) < 2.0**128)
        found = np.where(rounded_up, np.nextafter(found, np.float32(0)), found)
        return np.where(np.isfinite(plain), found, plain.astype(np.float32)).astype(np.float32)

    @cuda.jit(device=True)
    def _product(c, a, b, decode):
        """The product of fragments: a matrix of 16 rows from ``a``, of 8 columns from ``b``."""
        rows = _exchange((*a, *b, *(_unsigned_bits(each) for each in c)))
        found, lane = _sums(rows.tobytes(), decode), cuda.threadIdx.x % 32
        row, column = lane // 4, 2 * (lane % 4)
        return found[row, column], found[row, column + 1], found[row + 8, column], found[row + 8, column + 1]

    def _decode_tf32(registers):
        return (registers & np.uint32(0xFFFFE000)).view(np.float32)[:, :, None]

    def _decode_f16(registers):
        return _halves(registers).view(np.float16).astype(np.float32)

    def _decode_bf16(registers):
        return (_halves(registers).astype(np.uint32) << 16).view(np.float32)

    def mma_tf32(c, a, b):
        """``c + a b`` of 16x8 by 8x8 by a warp; ``a`` and ``b`` hold tf32 as uint32."""
        return _product(c, a, b, _decode_tf32)

    def mma_f16(c, a, b):
        """``c + a b`` of 16x16 by 16x8 by a warp; ``a`` and ``b`` hold pairs of float16 as uint32."""
        return _product(c, a, b, _decode_f16)

    def mma_bf16(c, a, b):
        """``c + a b`` of 16x16 by 16x8 by a warp; ``a`` and ``b`` hold pairs of bfloat16 as uint32."""
        return _product(c, a, b, _decode_bf16)

    @cuda.jit(device=True)
    def ldmatrix4(array, index, offset):
        """Four matrices of 8 rows of 16 bytes from shared memory, as registers of fragments.

        Lane ``l`` gives the place of row ``l % 8`` of matrix ``l // 8``, at a multiple of 16 bytes; register ``m`` gets
        bytes ``4 t`` to ``4 t + 3`` of row ``g`` of matrix ``m``: a tf32, or two elements of 16 bits.
        """
        per = 4 // array.dtype.itemsize  # elements of a register
        at = int(index) + int(offset)
        assert at % (4 * per) == 0, "an unaligned access"
        rows = _exchange((at,))[:, 0]
        lane = cuda.threadIdx.x % 32
        found = []
        for matrix in range(4):
            at = int(rows[8 * matrix + lane // 4]) + per * (lane % 4)
            found.append(np.array(array[at : at + per]).view(np.uint32)[0])
        return tuple(found)

    def load_half(array, index):
        """The bits of an element of 16 bits."""
        return np.uint32(np.asarray(array[int(index)]).view(np.uint16))

    def round_tf32(value):
        """The nearest tf32, ties away from zero, as a register."""
        bits = _unsigned_bits(value)
        if bits & 0x7FFFFFFF > 0x7F800000:
            return np.uint32(0x7FFFE000)
        return np.uint32((bits + 0x1000) & 0xFFFFE000)

    def float_of_word(word):
        """The float32 of 32 bits."""
        return np.uint32(word).view(np.float32)

    def word_of_float(value):
        """The bits of a float32."""
        return np.float32(value).view(np.uint32)

    def absolute(value):
        """A float32 without its sign."""
        return np.float32(abs(value))

    def larger(a, b):
        """The larger of two absolute values; of one that is NaN, the other one."""
        return np.fmax(absolute(a), absolute(b))

    def shared_tile(size: int, dtype: Any) -> Any:
        """A device function that returns the kernel's shared tile of ``size`` elements."""

        @cuda.jit(device=True)
        def tile():
            return cuda.shared.array(size, dtype)

        return tile
