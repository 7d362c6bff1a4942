"""The LLVM IR of every kernel for one dtype, before any optimisation: ``python emitted.py float32``.

Prints a line of JSON for each kernel: its name, how many functions it has, and the lines that make a pointer of an
integer. Nothing is optimised or made machine code of, which would take ten times as long; so nothing here may run.
"""

import importlib
import json
import pkgutil
import sys

import numba
import numpy as np
from numba import types
from numba.core import cgutils, codegen, cpu

import numbaconv.backends.cpu as backend
from numbaconv.backends.cpu import fan_out
from numbaconv.backends.cpu.cache import KernelCache
from numbaconv.backends.cpu.launch import Kernel

#: Where Numba keeps the address of an object of this process: no sum, and never in a kernel that is kept on disk.
OBJECT = '@"numba.dynamic.globals.'
texts = []
add_module = codegen.CPUCodeLibrary.add_ir_module


def keep(library, module):
    texts.append(str(module))
    add_module(library, module)


def by_bytes(builder, pointer, offset, return_type=None):
    """What newer releases of Numba do for strided arrays: old ones, whose LLVM does no harm, make a sum of integers."""
    distance = cgutils.intp_t(offset) if isinstance(offset, int) else offset
    moved = builder.gep(builder.bitcast(pointer, cgutils.voidptr_t), [distance])
    return builder.bitcast(moved, return_type or pointer.type)


def nothing(*_):
    """Stand for a compiled function; Numba wants a built-in one, another each time."""
    return [].append


codegen.CPUCodeLibrary.add_ir_module = keep
codegen.CPUCodeLibrary._optimize_functions = lambda *_: None
codegen.CPUCodeLibrary._optimize_final_module = lambda *_: None
cpu.CPUContext.get_executable = nothing
cgutils.pointer_add = by_bytes
KernelCache.load_overload = KernelCache.save_overload = lambda *_: None


def kernels():
    """Each kernel once, with its task loop's name."""
    found = {}
    for each in pkgutil.iter_modules(backend.__path__):
        module = importlib.import_module(f"{backend.__name__}.{each.name}")
        for value in vars(module).values():
            if isinstance(value, Kernel):
                found[value._dispatcher] = value
    return found


def emit(dispatcher, *operands):
    """The texts of a dispatcher's code and of what was not compiled before."""
    texts.clear()
    dispatcher.compile(operands)
    lines = [line.strip() for text in texts for line in text.splitlines()]
    made = [line for line in lines if "inttoptr" in line and not line.startswith(OBJECT)]
    defined = sum(line.startswith("define") for line in lines)
    sys.stdout.write(json.dumps([f"{dispatcher.py_func.__module__}.{dispatcher.__name__}", defined, made]) + "\n")


#: The kernels for integers: the direct algorithm's.
INTEGERS = {"forward_tasks", "input_grad_tasks", "weight_grad_tasks"}

kind = numba.from_dtype(np.dtype(sys.argv[1]))
for kernel in kernels().values():
    if isinstance(kind, types.Integer) and kernel._dispatcher.__name__ not in INTEGERS:
        continue
    operands = kernel._signature(kind)
    emit(kernel._dispatcher, types.int64, types.int64, *operands)
emit(fan_out.fan_out, *[types.int64] * 4, types.Tuple(operands))
