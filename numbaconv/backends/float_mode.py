"""The floating-point mode of a thread: whether its subnormal numbers are zeros, and how it rounds.

Each thread has a control register of its own: MXCSR on x86-64, FPCR on AArch64. A thread that is started inherits the
register of the one that starts it, so no pool of threads may be started while the bits that flush are set.
"""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, NamedTuple, TypeVar

import numba
from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..errors import BackendError

__all__ = ["Flushing", "UsualMode", "check_available", "flushed", "mode_now", "read_mode", "set_mode", "write_mode"]

T = TypeVar("T")

_WORD, _SHORT = ir.IntType(64), ir.IntType(32)


class _Register(NamedTuple):
    """Bits of a control register: those that make zeros of subnormal operands and results, and all that change results.

    The latter are those, the direction of rounding and, on AArch64, the default NaN and half precision's.
    """

    flush: int
    control: int


_REGISTERS = {
    "x86_64": _Register(1 << 15 | 1 << 6, 1 << 15 | 3 << 13 | 1 << 6),
    "aarch64": _Register(1 << 24, 1 << 25 | 1 << 24 | 3 << 22 | 1 << 19),
}


def _kind(triple: str) -> str | None:
    """The register that a target has: a key of the table above."""
    processor = triple.partition("-")[0]
    kind = {"amd64": "x86_64", "arm64": "aarch64"}.get(processor, processor)
    return kind if kind in _REGISTERS else None


def _place(builder: Any) -> Any:
    return cgutils.alloca_once(builder, _SHORT)


def _intrinsic(builder: Any, kind: ir.FunctionType, name: str) -> Any:
    return cgutils.get_or_insert_function(builder.module, kind, name)


def read_mode(builder: Any) -> Any:
    """Write code that reads the thread's register, as 64 bits; a zero where the processor has none that is known."""
    kind = _kind(builder.module.triple)
    if kind == "x86_64":
        place = _place(builder)
        byte = ir.IntType(8).as_pointer()
        store = _intrinsic(builder, ir.FunctionType(ir.VoidType(), [byte]), "llvm.x86.sse.stmxcsr")
        builder.call(store, [builder.bitcast(place, byte)])
        return builder.zext(builder.load(place), _WORD)
    if kind == "aarch64":
        return builder.call(_intrinsic(builder, ir.FunctionType(_WORD, []), "llvm.aarch64.get.fpcr"), [])
    return _WORD(0)


def write_mode(builder: Any, value: Any) -> None:
    """Write code that sets the thread's whole register."""
    kind = _kind(builder.module.triple)
    if kind == "x86_64":
        place = _place(builder)
        builder.store(builder.trunc(value, _SHORT), place)
        byte = ir.IntType(8).as_pointer()
        load = _intrinsic(builder, ir.FunctionType(ir.VoidType(), [byte]), "llvm.x86.sse.ldmxcsr")
        builder.call(load, [builder.bitcast(place, byte)])
    elif kind == "aarch64":
        builder.call(_intrinsic(builder, ir.FunctionType(ir.VoidType(), [_WORD]), "llvm.aarch64.set.fpcr"), [value])


def set_mode(builder: Any, mode: Any) -> Any:
    """Write code that takes over another register's control bits where they differ; returns the register before."""
    kind = _kind(builder.module.triple)
    if kind is None:
        return _WORD(0)
    control = _WORD(_REGISTERS[kind].control)
    before = read_mode(builder)
    differing = builder.and_(builder.xor(before, mode), control)
    with cgutils.if_unlikely(builder, builder.icmp_unsigned("!=", differing, _WORD(0))):
        write_mode(builder, builder.xor(before, differing))
    return before


@intrinsic
def _exchange(typingctx: Any, bits: Any, mask: Any) -> Any:
    """Set some bits of the thread's register, and return what it was."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        before = read_mode(builder)
        kept = builder.and_(before, builder.not_(args[1]))
        write_mode(builder, builder.or_(kept, builder.and_(args[0], args[1])))
        return before

    return types.int64(types.int64, types.int64), generate


@cache
def _here() -> _Register | None:
    kind = _kind(llvm.get_process_triple())
    return None if kind is None else _REGISTERS[kind]


@cache
def _exchanger() -> Callable[[int, int], int]:
    """What sets the register of the thread that calls it; compiled at once, before any bit of it is changed."""

    @numba.njit(types.int64(types.int64, types.int64))
    def exchange(bits: Any, mask: Any) -> Any:
        return _exchange(bits, mask)

    found: Callable[[int, int], int] = exchange
    return found


def check_available() -> None:
    """Say why subnormal numbers cannot be flushed here, if they cannot.

    Raises
    ------
    BackendError
    """
    if _here() is None:
        processor = llvm.get_process_triple().partition("-")[0]
        raise BackendError(f"flush_subnormals: processor is {processor}, but must be x86-64 or AArch64")
    if numba.config.DISABLE_JIT:
        raise BackendError(
            "flush_subnormals: NUMBA_DISABLE_JIT is set, but the processor's mode is set by compiled code"
        )


def mode_now() -> int:
    """The calling thread's control bits."""
    here = _here()
    return 0 if here is None or numba.config.DISABLE_JIT else _exchanger()(0, 0) & here.control


class _Mode:
    """A block in which the calling thread's bits of a mask are others; they are what they were after it."""

    __slots__ = ("_before", "_bits", "_mask")

    def __init__(self, bits: int, mask: int):
        self._bits, self._mask, self._before = bits, mask, 0

    def __enter__(self) -> None:
        if self._mask:
            exchange = _exchanger()
            self._before = exchange(0, 0)
            exchange(self._bits, self._mask)

    def __exit__(self, *error: object) -> None:
        if self._mask:
            _exchanger()(self._before, self._mask)


class Flushing(_Mode):
    """A block in which the calling thread, and tasks that it starts, take subnormal numbers for zeros.

    Raises
    ------
    BackendError
        Where that is not possible.
    """

    __slots__ = ()

    def __init__(self) -> None:
        check_available()
        here = _here()
        assert here is not None
        super().__init__(here.flush, here.flush)


class UsualMode(_Mode):
    """A block without the bits that `Flushing` sets: to compile, to start threads.

    What is compiled or started while they are set would keep them: threads inherit the register of the one that starts
    them, and constants are computed in it.
    """

    __slots__ = ()

    def __init__(self) -> None:
        here = _here() if _exchanger.cache_info().currsize else None  # else no mode has been set here
        super().__init__(0, 0 if here is None else here.flush)


def flushed(function: Callable[..., T]) -> Callable[..., T]:
    """A function that runs in a `Flushing` block."""

    @wraps(function)
    def run(*given: Any, **named: Any) -> T:
        with Flushing():
            return function(*given, **named)

    return run
