"""flush_subnormals: what counts as zero, in every algorithm, function and thread, and that no thread's mode changes."""

import os
import pickle
import subprocess
import sys
import textwrap
import threading

import numba
import numpy as np
import pytest
from llvmlite import binding as llvm
from llvmlite import ir

import bits
import numbaconv
import numbaconv.jit
from numbaconv import ArgumentError, BackendError, DTypeError, grad, layers
from numbaconv.backends import float_mode
from numbaconv.backends.base import Direction
from numbaconv.backends.cpu import BACKEND, launch

#: A problem for each algorithm.
PROBLEMS = {
    "fft": "long kernel",
    "depthwise": "depthwise",
    "small_gemm": "pointwise",
    "direct": "first layer",
    "folded_gemm": "first layer",
}
ALGORITHMS = [(direction, each.name) for direction, table in BACKEND.tables.items() for each in table]
#: Their product is subnormal.
SMALL = np.float32(1e-20)


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.delenv("NUMBACONV_FLUSH_SUBNORMALS", raising=False)
    before = float_mode.mode_now()
    yield
    assert float_mode.mode_now() == before


def subnormals(array):
    return int(((array != 0) & (np.abs(array) < np.finfo(array.dtype).smallest_normal)).sum())


def call_of(direction, name, dtype):
    algorithm = next(each for each in BACKEND.tables[direction] if each.name == name)
    return bits.Call(bits.Case(PROBLEMS.get(name, "dense"), direction, algorithm), dtype)


def source_of(call):
    return (call.g if call.case.direction is Direction.INPUT_GRAD else call.x).reshape(-1)


@pytest.mark.parametrize(("direction", "name"), ALGORITHMS, ids=lambda each: getattr(each, "name", each))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_read_and_what_is_written(dtype, direction, name):
    call, zeroed = (call_of(direction, name, dtype) for _ in range(2))
    tiny = np.finfo(dtype).smallest_normal
    source_of(call)[::2] *= tiny / 64
    source_of(zeroed)[np.abs(source_of(call)) < tiny] = 0
    with numbaconv.flush_subnormals():
        found = call()
        assert (found == zeroed()).all()
        assert subnormals(found) == 0
    # Sums, or products of parts of them, around the smallest normal number.
    for each in (call, zeroed):
        source_of(each)[:] = source_of(call_of(direction, name, dtype)) * tiny
        each.w *= 0.5
        if direction is Direction.WEIGHT_GRAD:
            each.g *= 1e-3
        else:
            each.w *= 1e-3
    assert subnormals(call()) > 0
    with numbaconv.flush_subnormals():
        found = call()
        assert subnormals(found) == 0
        before = numba.get_num_threads()
        numba.set_num_threads(1)
        try:
            assert (call() == found).all()
        finally:
            numba.set_num_threads(before)


RNG = np.random.default_rng(3)
X, W, G = (RNG.standard_normal(shape, dtype=np.float32) * SMALL for shape in ((2, 4, 7), (6, 4, 3), (2, 6, 5)))
D, P = (np.full(shape, SMALL) for shape in ((4, 1, 3), (6, 4, 1)))
FLAT = np.ones((2, 6, 5), np.float32)
WIDE = RNG.standard_normal((1, 32, 40), dtype=np.float32) * SMALL
PLANE, HEAVY = RNG.standard_normal((1, 32, 24, 24), dtype=np.float32), np.full((32, 32, 3, 3), 1e-39, np.float32)


@numba.njit
def through_compiled_code(x, w):
    return numbaconv.conv1d(x, w)


def streamed():
    stream = numbaconv.StreamingConv(W)
    return np.concatenate([stream.push(X[..., :3]), stream.push(X[..., 3:])], axis=-1)


CALLS = {
    "conv1d": lambda: numbaconv.conv1d(X, W),
    "without a route": lambda: numbaconv.conv1d(X.astype(">f4"), W),
    "reference": lambda: numbaconv.conv1d(X, W, backend="reference"),
    "residual": lambda: numbaconv.conv1d(X * 0, W, residual=np.full((2, 6, 5), 1e-40, np.float32)),
    "activation": lambda: numbaconv.conv1d(X / SMALL, W / SMALL, activation=lambda v: v * np.float32(1e-39)),
    "conv_transpose1d": lambda: numbaconv.conv_transpose1d(G, W),
    "depthwise_conv1d": lambda: numbaconv.depthwise_conv1d(X, D),
    "separable_conv1d": lambda: numbaconv.separable_conv1d(X / SMALL, D, P),
    "prepare": lambda: numbaconv.prepare(W)(X),
    "pickled": lambda: pickle.loads(pickle.dumps(numbaconv.prepare(W)))(X),
    "StreamingConv": streamed,
    "njit": lambda: through_compiled_code(X, W),
    "by input": lambda: grad.conv1d_input(X.shape, W, G),
    "by weight": lambda: grad.conv1d_weight(X, W.shape, G),
    "backward": lambda: grad.conv1d_backward(G, X, W).input,
    "by bias": lambda: grad.conv1d_bias(FLAT * np.float32(1e-41)),
    "derivative": lambda: grad.conv1d_bias(FLAT / 100, activation="sigmoid", pre_activation=FLAT * np.float32(-88.5)),
    "fold": lambda: numbaconv.fold(np.full((1, 3, 4), 1e-41, np.float32), (6,), (3,)),
    "Conv1d": lambda: layers.Conv1d(4, 6, 3, bias=False, seed=1)(X * SMALL),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_function_obeys(name, monkeypatch):
    call = CALLS[name]
    for _ in range(2):  # the second time routes are remembered
        usual = call()
        assert subnormals(usual) > 0
        with numbaconv.flush_subnormals():
            assert subnormals(call()) == 0
            with numbaconv.flush_subnormals(False):
                assert (call() == usual).all()
        assert (call() == usual).all()
        monkeypatch.setenv("NUMBACONV_FLUSH_SUBNORMALS", "1")
        assert subnormals(call()) == 0
        with numbaconv.flush_subnormals(False):
            assert (call() == usual).all()
        for usually in ("0", ""):
            monkeypatch.setenv("NUMBACONV_FLUSH_SUBNORMALS", usually)
            assert (call() == usual).all()
        monkeypatch.delenv("NUMBACONV_FLUSH_SUBNORMALS")


def test_a_weight_is_packed_for_both():
    """Winograd's transformed weights are sums of the weight's elements."""
    prepared = numbaconv.prepare(HEAVY, padding=1, algorithm="winograd")
    usual = prepared(PLANE * 1e5)
    with numbaconv.flush_subnormals():
        assert (prepared(PLANE * 1e5) == 0).all()
    assert (prepared(PLANE * 1e5) == usual).all()
    assert (usual != 0).any()


def test_the_fused_steps():
    x = RNG.standard_normal((1, 16, 60, 60), dtype=np.float32) * SMALL
    d, p = np.full((16, 1, 3, 3), SMALL), np.ones((16, 16, 1, 1), np.float32)
    assert subnormals(numbaconv.separable_conv2d(x, d, p)) > 0
    with numbaconv.flush_subnormals():
        assert (numbaconv.separable_conv2d(x, d, p) == 0).all()


def test_the_block_is_this_threads():
    found = []
    with numbaconv.flush_subnormals():
        other = threading.Thread(target=lambda: found.append(subnormals(CALLS["conv1d"]())))
        other.start()
        other.join()
    assert found[0] > 0


def test_wrong_values(monkeypatch):
    for wrong in (1, "1", None):
        with (
            pytest.raises(DTypeError, match="flush_subnormals: on must be a bool, but is"),
            numbaconv.flush_subnormals(wrong),
        ):
            pass
    for wrong in ("yes", "2"):
        monkeypatch.setenv("NUMBACONV_FLUSH_SUBNORMALS", wrong)
        for name, op in (("conv1d", "conv1d"), ("fold", "fold"), ("by bias", "conv1d_bias"), ("prepare", "conv1d")):
            with pytest.raises(
                ArgumentError, match=f"{op}: NUMBACONV_FLUSH_SUBNORMALS must be '0' or '1', but is {wrong!r}"
            ):
                CALLS[name]()


def test_other_processors(monkeypatch):
    monkeypatch.setattr(float_mode, "_here", lambda: None)
    with (
        pytest.raises(BackendError, match=r"flush_subnormals: processor is .*, but must be x86-64 or AArch64"),
        numbaconv.flush_subnormals(),
    ):
        pass
    monkeypatch.setenv("NUMBACONV_FLUSH_SUBNORMALS", "1")
    with pytest.raises(BackendError, match="flush_subnormals: processor is"):
        CALLS["conv1d"]()


FLUSH = float_mode._here().flush


@pytest.fixture(scope="module")
def modes():
    """What tells the control registers of the pool's threads."""

    @numba.njit(parallel=True)
    def ask(found):
        for i in numba.prange(found.size):
            found[i] = float_mode._exchange(0, 0)

    def run():
        found = np.zeros(64, np.int64)
        ask(found)
        return set(found & float_mode._here().control)

    return run


def _raising(value):
    if value > 1:
        raise ValueError("no")
    return value


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("shape", [(1, 2, 9), (8, 64, 3000)])
def test_modes_are_left_alone(shape, backend, modes):
    if backend == "reference" and shape[1] > 2:
        return
    x, w = np.ones(shape, np.float32), np.ones((shape[1], shape[1], 3), np.float32)
    usual = modes()
    assert usual == {float_mode.mode_now()}
    with numbaconv.flush_subnormals():
        numbaconv.conv1d(x, w, backend=backend)
        assert float_mode.mode_now() & FLUSH == 0
        with pytest.raises(ArgumentError, match="raised an exception"):
            numbaconv.conv1d(x, w, activation=_raising, backend=backend)
        assert float_mode.mode_now() & FLUSH == 0
    assert modes() == usual


def test_after_a_memory_error(monkeypatch, modes):
    def none_left(*arguments):
        assert float_mode.mode_now() & FLUSH == FLUSH
        raise MemoryError("none left")

    monkeypatch.setattr(launch.Kernel, "_run", none_left)
    with numbaconv.flush_subnormals(), pytest.raises(MemoryError, match="none left"):
        numbaconv.conv1d(WIDE, np.ones((2000, 32, 3), np.float32))
    assert float_mode.mode_now() & FLUSH == 0


def test_the_callers_own_mode(modes):
    """Tasks inherit it in every thread, and it stays as it was."""
    call = call_of(Direction.FORWARD, "patch_gemm", "float32")
    call.x *= np.float32(2e-38)
    usual = call()
    assert subnormals(usual) > 0
    exchange = float_mode._exchanger()
    before = exchange(FLUSH, FLUSH)
    try:
        own = call()
        with numbaconv.flush_subnormals():
            assert (call() == own).all()
        assert float_mode.mode_now() & FLUSH == FLUSH
    finally:
        exchange(before, FLUSH)
    assert subnormals(own) == 0
    assert (call() == usual).all()
    assert modes() == {float_mode.mode_now()}


FIRST = """
import numba, numpy as np, numbaconv
from numbaconv.backends import float_mode

with numbaconv.flush_subnormals():  # compiles, and starts the pool
    y = numbaconv.conv2d(np.full((4, 16, 64, 64), 1e-20, np.float32), np.full((16, 16, 3, 3), 1e-20, np.float32))
assert (y == 0).all()

@numba.njit(parallel=True)
def ask(found):
    for i in numba.prange(found.size):
        found[i] = float_mode._exchange(0, 0)

found = np.zeros(64, np.int64)
ask(found)
assert not (found & float_mode._here().flush).any(), found
assert float_mode.mode_now() & float_mode._here().flush == 0
"""


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_a_pool_started_inside_a_block(layer):
    """Threads inherit the mode of the thread that starts them."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FIRST)],
        env={**os.environ, "NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "3"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("triple", "instructions"),
    [
        ("x86_64-unknown-linux-gnu", ("stmxcsr", "ldmxcsr")),
        ("aarch64-unknown-linux-gnu", ("mrs", "FPCR", "msr")),
        ("arm64-apple-darwin", ("mrs", "FPCR", "msr")),
        ("powerpc64le-unknown-linux-gnu", ()),
    ],
)
def test_instructions(triple, instructions):
    """What is written for processors that are not here."""
    module = ir.Module()
    module.triple = triple
    function = ir.Function(module, ir.FunctionType(ir.IntType(64), [ir.IntType(64)]), "exchange")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(float_mode.set_mode(builder, function.args[0]))
    text = str(module)
    parsed = llvm.parse_assembly(text)
    parsed.verify()
    if not instructions:
        assert "call" not in text
        return
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        target = llvm.Target.from_triple(triple)
    except RuntimeError:  # this build of LLVM has the host's alone
        assert not triple.startswith("x86_64" if llvm.get_process_triple().startswith("x86_64") else "aarch64")
        assert "llvm.aarch64.set.fpcr" in text or "llvm.x86.sse.ldmxcsr" in text
        return
    code = target.create_target_machine().emit_assembly(parsed).lower()
    assert all(each.lower() in code for each in instructions)
