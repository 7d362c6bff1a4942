"""One parallel loop for every kernel: it calls a compiled task loop by its address.

A ``prange`` whose body is a kernel compiles the kernel a second time, which took as long as the first. Here the
operands are put into a block of memory, and the loop gets integers alone: the address of the task loop, that of the
block, and that of a few instructions which take the block apart and call. So the loop is compiled once for all
kernels and dtypes, and `fan_out` in a sixth of a second for each.
"""

from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import kernel, parallel_kernel

__all__ = ["call_tasks", "fan_out"]

_INTEGER = ir.IntType(64)
#: begin, end, address of the task loop, address of the operands
_CALL = ir.FunctionType(ir.VoidType(), [_INTEGER] * 4)


@intrinsic
def _hold(typingctx, operands):
    """The addresses of a function that calls a task loop with these operands, of the operands, and of what failed."""
    signature = types.UniTuple(types.int64, 3)(operands)

    def generate(context, builder, signature, args):
        kinds = tuple(signature.args[0].types)
        block = cgutils.alloca_once(builder, ir.LiteralStructType([args[0].type, _INTEGER]))
        builder.store(args[0], cgutils.gep_inbounds(builder, block, 0, 0))
        failed = cgutils.gep_inbounds(builder, block, 0, 1)
        builder.store(_INTEGER(0), failed)
        function = ir.Function(builder.module, _CALL, name=builder.module.get_unique_name("call_tasks"))
        function.linkage = "internal"
        inside = ir.IRBuilder(function.append_basic_block("entry"))
        begin, end, address, operands_at = function.args
        block_inside = inside.inttoptr(operands_at, block.type)
        held = inside.load(cgutils.gep_inbounds(inside, block_inside, 0, 0))
        arguments = [begin, end, *cgutils.unpack_tuple(inside, held, len(kinds))]
        types_given = (types.int64, types.int64, *kinds)
        kind = context.call_conv.get_function_type(types.void, types_given)
        tasks = inside.inttoptr(address, kind.as_pointer())
        status, _ = context.call_conv.call_function(inside, tasks, types.void, types_given, arguments)
        with cgutils.if_unlikely(inside, status.is_error):  # chunks that fail all store the same
            inside.store(_INTEGER(1), cgutils.gep_inbounds(inside, block_inside, 0, 1))
        inside.ret_void()
        addresses = [builder.ptrtoint(each, _INTEGER) for each in (function, block, failed)]
        return context.make_tuple(builder, signature.return_type, addresses)

    return signature, generate


@intrinsic
def _call(typingctx, function, begin, end, address, operands):
    signature = types.void(*[types.int64] * 5)

    def generate(context, builder, signature, args):
        builder.call(builder.inttoptr(args[0], _CALL.as_pointer()), args[1:])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _has_failed(typingctx, address):
    signature = types.boolean(types.int64)

    def generate(context, builder, signature, args):
        return builder.icmp_signed("!=", builder.load(builder.inttoptr(args[0], _INTEGER.as_pointer())), _INTEGER(0))

    return signature, generate


@intrinsic
def call_tasks(typingctx, address, begin, end, operands):
    """Run tasks of another kernel, compiled for these operands; ones to be read may be of arrays to be written.

    A call by name would compile that kernel once more as part of its caller.
    """
    signature = types.void(types.int64, types.int64, types.int64, operands)

    def generate(context, builder, signature, args):
        given = (types.int64, types.int64, *signature.args[3].types)
        kind = context.call_conv.get_function_type(types.void, given)
        tasks = builder.inttoptr(args[0], kind.as_pointer())
        arguments = [*args[1:3], *cgutils.unpack_tuple(builder, args[3], len(given) - 2)]
        status, _ = context.call_conv.call_function(builder, tasks, types.void, given, arguments)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return signature, generate


@parallel_kernel
def _parallel_for(tasks, chunks, function, address, operands):
    for i in prange(chunks):
        _call(function, i * tasks // chunks, (i + 1) * tasks // chunks, address, operands)


@kernel
def fan_out(tasks, chunks, address, operands):
    """``loop(begin, end, *operands)`` for chunks of tasks in parallel, where ``address`` is the loop's."""
    held = _hold(operands)
    _parallel_for(tasks, chunks, held[0], address, held[1])
    if _has_failed(held[2]):  # the only thing that can go wrong in a task
        raise MemoryError("a task of a parallel loop found no memory for its scratch")
