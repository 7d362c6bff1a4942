"""The only file that writes LLVM IR: what Numba's Python cannot say."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["call_row"]


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
