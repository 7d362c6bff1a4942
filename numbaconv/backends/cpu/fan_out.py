"""One parallel loop for every kernel: it calls a compiled task loop by its address.

A ``prange`` whose body is a kernel compiles the kernel a second time, which took as long as the first. Here the
operands are put into a block of memory, and the loop gets integers alone: the address of the task loop, that of the
block, and that of a few instructions which take the block apart and call. So the loop is compiled once for all
kernels and dtypes, and `fan_out` in a sixth of a second for each.

Each thread claims chunks of tasks, by counters in the block, until none is left: first those of its own share, whose
memory its cache may hold from the last call, then what others have not begun. So a thread that the system holds up
delays the call by one chunk. Results do not depend on who claims what: a chunk is the same tasks in any thread.

A task computes in the floating-point mode of the thread that called, which the block holds, and leaves its thread's own
as it was. The caller is in the usual mode meanwhile, since threads may be started, which inherit it.
"""

from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from ..float_mode import read_mode, set_mode
from .jit import kernel, parallel_kernel

__all__ = ["call_tasks", "fan_out"]

_INTEGER = ir.IntType(64)
#: number of the thread, tasks, chunks, shares, address of the task loop, address of the block
_CALL = ir.FunctionType(ir.VoidType(), [_INTEGER] * 6)
#: The most shares of chunks; more threads share them.
_SHARES = 32
#: What the block has behind the operands, and how far apart counters are: each has a line of the cache of its own.
_MODE, _FAILED, _FIRST_DONE, _CLAIMED, _LINE = 1, 2, 3, 5, 8


def _block_of(operands):
    """The type of the block: operands, mode, whether a task failed, when the first thread found no chunk, counters."""
    line, lines = ir.ArrayType(_INTEGER, _LINE), ir.ArrayType(_INTEGER, _LINE * _SHARES)
    return ir.LiteralStructType([operands, _INTEGER, _INTEGER, _INTEGER, line, lines])


def _pointer(builder, address, kind):
    """A pointer of an address, by an instruction of no code: LLVM knows nothing about it that it could rebuild."""
    same = ir.InlineAsm(ir.FunctionType(kind, [_INTEGER]), "", "=r,0")
    return builder.call(same, [address])


def _ticks(builder):
    """Write code that reads a clock of the processor's; a zero where none is known that every program may read."""
    processor = builder.module.triple.partition("-")[0]
    if processor in ("x86_64", "amd64"):
        kind = ir.FunctionType(_INTEGER, [])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.readcyclecounter"), [])
    if processor in ("aarch64", "arm64"):
        kind = ir.FunctionType(_INTEGER, [])
        return builder.call(ir.InlineAsm(kind, "mrs $0, CNTVCT_EL0", "=r", side_effect=True), [])
    return _INTEGER(0)


def _claim_tasks(context, module, block_type, kinds):
    """Add the function to a module by which a thread claims chunks of tasks, and runs them, until none is left."""
    function = ir.Function(module, _CALL, name=module.get_unique_name("claim_tasks"))
    function.linkage = "internal"
    thread, tasks, chunks, shares, address, block_at = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    block = _pointer(builder, block_at, block_type.as_pointer())

    def place(*index):
        return cgutils.gep_inbounds(builder, block, 0, *index)

    def bound(number, extent, parts):
        return builder.sdiv(builder.mul(number, extent), parts)

    own = set_mode(builder, builder.load(place(_MODE)))
    given = (types.int64, types.int64, *kinds)
    loop = _pointer(builder, address, context.call_conv.get_function_type(types.void, given).as_pointer())
    operands = cgutils.unpack_tuple(builder, builder.load(place(0)), len(kinds))
    one = _INTEGER(1)
    with cgutils.for_range(builder, shares) as others:
        share = builder.srem(builder.add(thread, others.index), shares)
        first, end = bound(share, chunks, shares), bound(builder.add(share, one), chunks, shares)
        counter = place(_CLAIMED, builder.mul(share, _INTEGER(_LINE)))
        claim, run, done = (builder.append_basic_block(name) for name in ("claim", "run", "done"))
        builder.branch(claim)
        builder.position_at_end(claim)
        chunk = builder.add(first, builder.atomic_rmw("add", counter, one, "monotonic"))
        builder.cbranch(builder.icmp_signed("<", chunk, end), run, done)
        builder.position_at_end(run)
        bounds = [bound(each, tasks, chunks) for each in (chunk, builder.add(chunk, one))]
        status, _ = context.call_conv.call_function(builder, loop, types.void, given, [*bounds, *operands])
        with cgutils.if_unlikely(builder, status.is_error):  # chunks that fail all store the same
            builder.store(one, place(_FAILED))
        builder.branch(claim)
        builder.position_at_end(done)
    builder.atomic_rmw("umin", place(_FIRST_DONE), _ticks(builder), "monotonic")
    set_mode(builder, own)
    builder.ret_void()
    return function


@intrinsic
def _hold(typingctx, operands, shares):
    """The addresses of a function by which a thread claims tasks with these operands, and of the block with them."""
    signature = types.UniTuple(types.int64, 2)(operands, shares)

    def generate(context, builder, signature, args):
        block_type = _block_of(args[0].type)
        block = cgutils.alloca_once(builder, block_type)
        values = {0: args[0], _MODE: read_mode(builder), _FAILED: _INTEGER(0), _FIRST_DONE: _INTEGER(-1)}
        for index, value in values.items():
            builder.store(value, cgutils.gep_inbounds(builder, block, 0, index))
        with cgutils.for_range(builder, args[1]) as share:
            at = builder.mul(share.index, _INTEGER(_LINE))
            builder.store(_INTEGER(0), cgutils.gep_inbounds(builder, block, 0, _CLAIMED, at))
        function = _claim_tasks(context, builder.module, block_type, tuple(signature.args[0].types))
        addresses = [builder.ptrtoint(each, _INTEGER) for each in (function, block)]
        return context.make_tuple(builder, signature.return_type, addresses)

    return signature, generate


@intrinsic
def _told(typingctx, operands, block):
    """Whether a task failed, and when the first thread found no chunk left."""
    signature = types.UniTuple(types.int64, 2)(operands, block)

    def generate(context, builder, signature, args):
        block = _pointer(builder, args[1], _block_of(args[0].type).as_pointer())
        found = [builder.load(cgutils.gep_inbounds(builder, block, 0, index)) for index in (_FAILED, _FIRST_DONE)]
        return context.make_tuple(builder, signature.return_type, found)

    return signature, generate


@intrinsic
def _call(typingctx, function, thread, tasks, chunks, shares, address, block):
    signature = types.void(*[types.int64] * 7)

    def generate(context, builder, signature, args):
        builder.call(_pointer(builder, args[0], _CALL.as_pointer()), args[1:])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _set_mode(typingctx, mode):
    """Set the thread's control bits, and return its register as it was."""

    def generate(context, builder, signature, args):
        return set_mode(builder, args[0])

    return types.int64(types.int64), generate


@intrinsic
def _now(typingctx):
    def generate(context, builder, signature, args):
        return _ticks(builder)

    return types.int64(), generate


@intrinsic
def call_tasks(typingctx, address, begin, end, operands):
    """Run tasks of another kernel, compiled for these operands; ones to be read may be of arrays to be written.

    A call by name would compile that kernel once more as part of its caller.
    """
    signature = types.void(types.int64, types.int64, types.int64, operands)

    def generate(context, builder, signature, args):
        given = (types.int64, types.int64, *signature.args[3].types)
        kind = context.call_conv.get_function_type(types.void, given)
        tasks = _pointer(builder, args[0], kind.as_pointer())
        arguments = [*args[1:3], *cgutils.unpack_tuple(builder, args[3], len(given) - 2)]
        status, _ = context.call_conv.call_function(builder, tasks, types.void, given, arguments)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return signature, generate


@parallel_kernel
def _parallel_for(threads, tasks, chunks, shares, function, address, block):
    for thread in prange(threads):
        _call(function, thread, tasks, chunks, shares, address, block)


@kernel
def fan_out(threads, tasks, chunks, address, operands):
    """Run ``loop(begin, end, *operands)`` for chunks of tasks in parallel, where ``address`` is the loop's.

    Returns how long the call waited for the last thread, after the first had found nothing left to do, as a multiple of
    the time before: 0 where the processor has no clock that is known.
    """
    begin = _now()
    shares = min(threads, chunks, _SHARES)
    held = _hold(operands, shares)
    mode = _set_mode(0)
    _parallel_for(threads, tasks, chunks, shares, held[0], address, held[1])
    _set_mode(mode)
    failed, first_done = _told(operands, held[1])
    if failed:  # the only thing that can go wrong in a task
        raise MemoryError("a task of a parallel loop found no memory for its scratch")
    return (_now() - first_done) / max(first_done - begin, 1)
