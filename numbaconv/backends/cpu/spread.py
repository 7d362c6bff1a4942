"""Tasks over threads: one parallel kernel for all kernels, which calls a compiled function by its address.

A ``prange`` around a call compiles the called kernel again, several times over: that was three quarters of all time
spent compiling. Here the only ``prange`` knows neither the kernel nor its operands::

    spread(kernel, run_chunks, tasks, chunks, operands)     compiled once a signature, and nothing in it but a call
      `-- run_chunks(tasks, chunks, unpack, memory)         compiled once
            `-- unpack(begin, end, memory)                  in each thread: operands from memory, and the call
                  `-- kernel(begin, end, *operands)         the serial kernel

The LLVM IR here is that of the two calls; it has no loops and no arithmetic.
"""

from typing import Any

from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import kernel, parallel_kernel

__all__ = ["RUN_CHUNKS", "run_chunks", "spread", "symbol_of"]

_INDEX, _BYTES, _NONE = ir.IntType(64), ir.IntType(8).as_pointer(), types.none


def symbol_of(dispatcher: Any, signature: tuple) -> int:
    """The address at which the function compiled for a signature can be called from LLVM IR."""
    compiled = dispatcher.overloads[signature]
    address: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name)
    return address


@intrinsic
def _call_range(typingctx, function, begin, end, memory):
    """``function(begin, end, memory)`` at an address, for `run_chunks`."""
    signature = types.void(*[types.int64] * 4)

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [_INDEX, _INDEX, _BYTES])
        target = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(target, [args[1], args[2], builder.inttoptr(args[3], _BYTES)])
        return context.get_dummy_value()

    return signature, generate


@parallel_kernel
def run_chunks(tasks, chunks, unpack, memory):
    """``unpack(begin, end, memory)`` for each chunk of the tasks."""
    for i in prange(chunks):
        _call_range(unpack, i * tasks // chunks, (i + 1) * tasks // chunks, memory)


#: The signature of `run_chunks`.
RUN_CHUNKS = (types.int64,) * 4


def _make_unpack(context, module, stored, operand_types):
    """``unpack(begin, end, memory)``: call the function whose address and operands lie in memory."""
    kind = ir.FunctionType(ir.VoidType(), [_INDEX, _INDEX, _BYTES])
    function = ir.Function(module, kind, module.get_unique_name("unpack"))
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    begin, end, memory = function.args
    values = builder.load(builder.bitcast(memory, stored.as_pointer()))
    operands = cgutils.unpack_tuple(builder, builder.extract_value(values, 1), len(operand_types))
    arguments = [_INDEX, _INDEX, *(context.get_value_type(each) for each in operand_types)]
    kernel_type = ir.FunctionType(context.get_value_type(_NONE), arguments)
    target = builder.inttoptr(builder.extract_value(values, 0), kernel_type.as_pointer())
    builder.call(target, [begin, end, *operands])
    builder.ret_void()
    return function


@intrinsic
def _call_with(typingctx, function, run, tasks, chunks, operands):
    """``run(tasks, chunks, unpack, memory)``, with the function and its operands in memory."""
    integer = types.int64
    signature = types.void(integer, integer, integer, integer, operands)

    def generate(context, builder, signature, args):
        function, run, tasks, chunks, values = args
        stored = ir.LiteralStructType([_INDEX, values.type])
        memory = cgutils.alloca_once(builder, stored)
        builder.store(function, builder.gep(memory, [ir.IntType(32)(0), ir.IntType(32)(0)]))
        builder.store(values, builder.gep(memory, [ir.IntType(32)(0), ir.IntType(32)(1)]))
        unpack = _make_unpack(context, builder.module, stored, signature.args[4].types)
        kind = ir.FunctionType(context.get_value_type(_NONE), [_INDEX] * 4)
        places = [builder.ptrtoint(each, _INDEX) for each in (unpack, memory)]
        builder.call(builder.inttoptr(run, kind.as_pointer()), [tasks, chunks, *places])
        return context.get_dummy_value()

    return signature, generate


@kernel
def spread(function, run, tasks, chunks, operands):
    """All tasks of the kernel at an address, in chunks, by `run_chunks` at another."""
    _call_with(function, run, tasks, chunks, operands)
