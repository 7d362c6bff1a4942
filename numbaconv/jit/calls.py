"""How compiled code calls this package's functions: the GIL, boxed operands, the ordinary road, its result or error.

What runs is the function that Python calls, so plan, algorithm and bits are those of a call outside. Kernels release
the GIL as they do there. Where a function was compiled and cached, all that its machine code holds of this package is a
pickled `Spot`: the name of a function and what was known about its arguments.

Errors do not travel as exceptions until they are back in compiled code, which raises them natively, so that a ``try``
there sees them. Numba drops what a body of a ``prange`` raises, or makes a SystemError of it; `_in_parallel` tells such
places, and the error is raised in the thread that entered the loop when that is back in Python (`_hand_over`).
"""

import ctypes
import sys
import threading
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import numba
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..backends.cpu.jit import kernel
from ..errors import AlgorithmError, ArgumentError, BackendError, ConvError, DTypeError, ShapeError

__all__ = ["Spot", "entry", "fail"]


class Spot:
    """A function with the arguments that were known when a call of it was compiled.

    Parameters
    ----------
    module, function : str
    names : tuple of str
        Of the arguments that the call brings, in its order.
    known : dict
        The other arguments.
    """

    def __init__(self, module: str, function: str, names: tuple[str, ...], known: dict[str, Any]):
        self._made_of = (module, function, names, known)
        heads, passed = ", ".join(names), ", ".join(f"{name}={name}" for name in (*names, *known))
        space = {**known, "_function": getattr(import_module(module), function)}
        # Generated, as matching names anew in each call would take a tenth of a small convolution.
        exec(f"def _call({heads}): return _function({passed})", space)
        self._call: Callable[..., Any] = space["_call"]

    def __call__(self, *given: Any) -> Any:
        """The function's result; None where it raises, and `fail` knows why."""
        try:
            return self._call(*given)
        except BaseException as error:
            _failed[threading.get_ident()] = error
            return None

    def __reduce__(self) -> tuple[Any, ...]:
        return Spot, self._made_of


#: The error of each thread's last call that failed, by the thread's identity: what Python keeps for a thread of Numba's
#: is gone whenever that releases the GIL.
_failed: dict[int, BaseException] = {}

#: What compiled code raises itself, by the place in this tuple; anything else is raised as it was.
_RAISED = (ShapeError, ArgumentError, DTypeError, BackendError, AlgorithmError, ConvError)
_AS_IT_WAS, _HANDED_OVER = -1, -2


def _take() -> tuple[int, str]:
    """What `fail` is to do about this thread's error, and its message."""
    error = _failed.pop(threading.get_ident())
    if _in_parallel(sys._getframe().f_back is not None):
        _hand_over(error)
        return _HANDED_OVER, ""
    for place, kind in enumerate(_RAISED):
        if type(error) is kind:
            return place, str(error)
    _failed[threading.get_ident()] = error
    return _AS_IT_WAS, ""


def _rethrow() -> None:
    raise _failed.pop(threading.get_ident())


@cache
def _omp_level() -> Callable[[], int]:
    """OpenMP's function that says whether this thread is inside of a parallel region."""
    library = ctypes.CDLL(import_module("numba.np.ufunc.omppool").__file__)
    for name in ("omp_get_level", "omp_in_parallel"):  # the first counts regions of one thread, too
        level: Callable[[], int] | None = getattr(library, name, None)
        if level is not None:
            return level
    return lambda: 0


def _is_numbas(thread: threading.Thread) -> bool:
    """Whether Python did not start a thread."""
    return isinstance(thread, threading._DummyThread)


def _omp_runs() -> bool:
    """Whether this thread is in a parallel region of Numba's OpenMP layer."""
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    if not getattr(parallel, "_is_initialized", False) or numba.threading_layer() != "omp":
        return False
    return _omp_level()() > 0


def _in_parallel(called_by_python: bool) -> bool:
    """Whether this is the body of a ``prange`` whose errors have to be handed over.

    That can be told of threads that Numba started, in which no Python code is below the compiled, and under OpenMP of a
    main thread that entered the loop. Under workqueue who enters only waits. Under tbb it works, too, which nothing
    tells, and as in loops that other threads enter, Numba makes a SystemError of what is raised there, with the error
    as its cause.
    """
    return not called_by_python or (threading.current_thread() is threading.main_thread() and _omp_runs())


class _Told:
    """An error on its way to the main thread, which asks whether this is true as soon as it runs Python code."""

    def __init__(self, error: BaseException):
        self._error = error

    def __bool__(self) -> bool:
        global _waiting
        if _omp_runs():  # a turn of the loop, not what called it
            _tell(self)
            return False
        _waiting = None
        raise self._error


#: The first error that the main thread has yet to raise.
_waiting: _Told | None = None


def _tell(told: _Told) -> None:
    """Have the main thread call the C function behind ``bool``, which passes exceptions on."""
    api = ctypes.pythonapi
    ask = ctypes.cast(api.PyObject_IsTrue, ctypes.c_void_p)
    api.Py_AddPendingCall(ask, ctypes.py_object(told))


def _hand_over(error: BaseException) -> None:
    """Raise an error in the thread that entered the parallel loop, once it is back in Python.

    That is the main thread, if Python has no other. Where it has, nothing tells who entered the loop, and the error is
    reported as that of a thread which nobody waits for.
    """
    global _waiting
    thread = threading.current_thread()
    callers = [each for each in threading.enumerate() if not _is_numbas(each)]
    if _is_numbas(thread) and callers != [threading.main_thread()]:
        threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, thread)))
    elif _waiting is None:
        _waiting = _Told(error)
        _tell(_waiting)


def _loaded(builder: Any, pyapi: Any, value: Any) -> Any:
    """A Python object that was pickled into the code, unpickled when it is first needed; with the GIL held."""
    kept = cgutils.add_global_variable(builder.module, pyapi.pyobj, builder.module.get_unique_name("numbaconv_object"))
    kept.initializer = kept.type.pointee(None)
    kept.linkage = "internal"
    with builder.if_then(cgutils.is_null(builder, builder.load(kept)), likely=False):
        builder.store(pyapi.unserialize(pyapi.serialize_object(value)), kept)
    return builder.load(kept)


def _call(context: Any, builder: Any, callee: Any, kinds: tuple, values: list, answered: Any) -> tuple[Any, Any]:
    """Call a Python object: whether it answered something else than None, and its answer as a type.

    Where it cannot be called, the compiled function returns with Python's error. So it does where there is one already:
    that is of an earlier turn of the same ``prange``.
    """
    pyapi, environment = context.get_python_api(builder), context.get_env_manager(builder)
    gil = pyapi.gil_ensure()
    with builder.if_then(cgutils.is_not_null(builder, pyapi.err_occurred()), likely=False):
        pyapi.gil_release(gil)
        context.call_conv.return_exc(builder)
    function = _loaded(builder, pyapi, callee)
    with builder.if_then(cgutils.is_null(builder, function), likely=False):
        pyapi.gil_release(gil)
        context.call_conv.return_exc(builder)
    boxed = []
    for kind, value in zip(kinds, values, strict=True):
        context.nrt.incref(builder, kind, value)  # boxing takes a reference
        boxed.append(pyapi.from_native_value(kind, value, environment))
    answer = pyapi.call_function_objargs(function, boxed)
    for each in boxed:
        pyapi.decref(each)
    with builder.if_then(cgutils.is_null(builder, answer), likely=False):
        pyapi.gil_release(gil)
        context.call_conv.return_exc(builder)
    found = cgutils.alloca_once(builder, context.get_value_type(answered), zfill=True)
    there = builder.icmp_unsigned("!=", answer, pyapi.borrow_none())
    if answered is not types.none:
        with builder.if_then(there):
            native = pyapi.to_native_value(answered, answer)
            with builder.if_then(native.is_error, likely=False):
                pyapi.decref(answer)
                pyapi.gil_release(gil)
                context.call_conv.return_exc(builder)
            builder.store(native.value, found)
            if native.cleanup is not None:
                native.cleanup()
    pyapi.decref(answer)
    pyapi.gil_release(gil)
    return there, builder.load(found)


def entry(spot: Spot, answered: Any) -> Any:
    """A function for compiled code that calls a spot: whether that worked, and its result.

    Parameters
    ----------
    spot : Spot
    answered : numba type
        The result's; ``none`` where it is not wanted.
    """

    @intrinsic
    def enter(typingctx: Any, given: Any) -> Any:
        signature = types.Tuple((types.boolean, answered))(given)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = cgutils.unpack_tuple(builder, args[0]) if len(given) else []
            there, found = _call(context, builder, spot, tuple(given), values, answered)
            return context.make_tuple(builder, signature.return_type, [there, found])

        return signature, generate

    return enter


@intrinsic
def _taken(typingctx: Any) -> Any:
    answered = types.Tuple((types.int64, types.unicode_type))

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call(context, builder, _take, (), [], answered)[1]

    return answered(), generate


@intrinsic
def _return(typingctx: Any, rethrows: Any) -> Any:
    """Leave the compiled function as one does whose Python error is set; set it, or leave that to `_hand_over`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        with builder.if_then(args[0]):
            _call(context, builder, _rethrow, (), [], types.none)
        with builder.if_then(cgutils.true_bit):
            context.call_conv.return_exc(builder)
        return context.get_dummy_value()

    return types.void(types.boolean), generate


@kernel
def fail() -> None:
    """Raise the error of this thread's last call."""
    place, message = _taken()
    if place == 0:
        raise ShapeError(message)
    if place == 1:
        raise ArgumentError(message)
    if place == 2:
        raise DTypeError(message)
    if place == 3:
        raise BackendError(message)
    if place == 4:
        raise AlgorithmError(message)
    if place == 5:
        raise ConvError(message)
    _return(place == -1)
