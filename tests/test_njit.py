"""Convolutions inside njit functions: the results and errors of those outside, wherever they are called from."""

import _thread
import doctest
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numba import njit
from numba.core.errors import NumbaExperimentalFeatureWarning, TypingError
from numba.core.runtime import _nrt_python, rtsys

import numbaconv
from numbaconv import conv1d, conv2d, grad, jit
from problems import draw
from threading_layers import LAYERS, environment_of

RNG = np.random.default_rng(19)
X, W, B = (draw(RNG, shape, np.float32) for shape in ((2, 4, 9, 7), (6, 2, 3, 3), (6,)))
G = draw(RNG, (2, 6, 5, 4), np.float32)


def same(answer, wanted):
    if isinstance(wanted, tuple):
        assert type(answer) is type(wanted)
        for one, other in zip(answer, wanted, strict=True):
            same(one, other)
        return
    if wanted is None:
        assert answer is None
        return
    assert answer.dtype == wanted.dtype
    assert answer.shape == wanted.shape
    np.testing.assert_array_equal(np.ascontiguousarray(answer).view(np.uint8), wanted.view(np.uint8))


def agree(function, *operands):
    """A function gives compiled what it gives as Python."""
    answer = njit(function)(*operands)
    same(answer, function(*operands))
    return answer


@pytest.mark.parametrize("name", jit.__all__)
def test_every_function(name):
    """Every rank, every gradient, and arguments by position and by keyword."""
    function, kind = getattr(jit, name), name.partition("d")[2]
    assert function is getattr(grad if kind else numbaconv, name)
    transposed, rank = "transpose" in name, int(name.partition("d")[0][-1])
    small, large = (2, 6, *[4, 3, 5][:rank]), (2, 4, *[7, 5, 9][:rank])
    x, g = (draw(RNG, shape, np.float32) for shape in ((small, large) if transposed else (large, small)))
    w, b = draw(RNG, (6, 2, *[3] * rank), np.float32), draw(RNG, 4 if transposed else 6, np.float32)
    ones = (1,) * rank

    def forward(x, w, b, g, stride):
        return function(x, w, b, stride, 1, groups=2)

    def by_input(x, w, b, g, stride):
        return function(x.shape, w, g, stride=stride, groups=2, padding=1)

    def by_weight(x, w, b, g, stride):
        return function(x, w.shape, g, padding=ones, stride=stride, groups=2)

    def by_bias(x, w, b, g, stride):
        return function(g)

    def backward(x, w, b, g, stride):
        return function(g, x, w, stride, groups=2, padding=1)

    callers = {"": forward, "_input": by_input, "_weight": by_weight, "_bias": by_bias, "_backward": backward}
    agree(callers[kind], x, w, b, g, 2)


def strides_and_all(x, w, b):
    return conv2d(x, w, b, (2, 1), ((1, 0), (1, 2)), groups=2)


def layouts():
    yield np.asfortranarray(X), W, B
    yield X[:, :, ::-1], W[:, ::-1], B[::-1]
    frozen = X.copy()
    frozen.flags.writeable = False
    yield frozen, W.swapaxes(2, 3), B
    yield X[0], W, B


@pytest.mark.parametrize("operands", list(layouts()), ids=["fortran", "reversed", "read-only", "no batch"])
def test_arrays_of_any_layout(operands):
    agree(strides_and_all, *operands)


@pytest.mark.parametrize("dtypes", ["ddd", "Fff", "hbd", "iqi", "fdF"])
def test_dtypes(dtypes):
    agree(strides_and_all, *(draw(RNG, each.shape, dtype, 9) for each, dtype in zip((X, W, B), dtypes, strict=True)))


def test_names_as_constants_and_variables():
    @njit
    def inside(x, w, padding, mode, activation, layout):
        last = conv2d(x.transpose(0, 2, 3, 1), w, padding=padding, data_format=layout, weight_format="OIHW")
        first = conv2d(x, w, padding="same", padding_mode=("constant", mode), padding_value=2.5, activation="gelu")
        return last, first, conv2d(x, w, activation=activation, backend="cpu", algorithm="direct", precision="tf32")

    w = draw(RNG, (3, 4, 3, 3), np.float32)
    last, first, forced = inside(X, w, "same_lower", "reflect", "tanh", "NHWC")
    given = {"padding": "same_lower", "data_format": "NHWC", "weight_format": "OIHW"}
    same(last, conv2d(X.transpose(0, 2, 3, 1), w, **given))
    given = {"padding": "same", "padding_mode": ("constant", "reflect"), "padding_value": 2.5, "activation": "gelu"}
    same(first, conv2d(X, w, **given))
    same(forced, conv2d(X, w, activation="tanh", algorithm="direct"))


def test_strict_precision():
    """Where Winograd is chosen without it."""

    @njit
    def inside(x, w):
        return conv2d(x, w, padding=1, precision="strict", backend="cpu")

    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in ((1, 64, 20, 20), (64, 64, 3, 3)))
    same(inside(x, w), conv2d(x, w, padding=1, precision="strict", backend="cpu"))
    assert (inside(x, w) != conv2d(x, w, padding=1, backend="cpu")).any()


@njit
def softsign(v):
    return v / (1 + abs(v))


@njit
def slope(v):
    return 1 / (1 + abs(v)) ** 2


def test_your_own_activation():
    def inside(x, w, g):
        y = conv2d(x, w, stride=2, padding=1, groups=2)
        by_input = grad.conv2d_input(x.shape, w, g, 2, 1, groups=2, activation=(softsign, slope), pre_activation=y)
        return conv2d(x, w, stride=2, padding=1, groups=2, activation=softsign), by_input

    with pytest.warns(NumbaExperimentalFeatureWarning):  # for a pair of functions, whatever is done with it
        agree(inside, X, W, G)


def test_results_to_write_and_residuals():
    @njit
    def inside(x, w, residual, out):
        found = conv2d(x, w, stride=2, padding=1, groups=2, residual=residual, out=out)
        found[0, 0, 0, 0] += 1
        return found

    out = np.full((2, 5, 4, 6), np.nan, np.float32).transpose(0, 3, 1, 2)
    wanted = conv2d(X, W, stride=2, padding=1, groups=2, residual=G)
    answer = inside(X, W, G, out)
    wanted[0, 0, 0, 0] += 1
    same(out, wanted)
    assert np.shares_memory(answer, out)


def test_a_bias_that_may_be_none():
    @njit
    def inside(x, w, b, there, stride=2):
        return conv2d(x, w, b if there else None, stride, groups=2)

    same(inside(X, W, B, True), conv2d(X, W, B, 2, groups=2))
    same(inside(X, W, B, False), conv2d(X, W, None, 2, groups=2))
    with pytest.raises(TypingError, match="bias may be None, and the result's dtype depends on whether it is"):
        inside(X, W, B.astype(np.float64), True)


def test_which_gradients():
    def inside(x, w, g):
        return grad.conv2d_backward(g, x, w, 2, 1, groups=2, output_mask=(False, True, False))

    assert agree(inside, X, W, G).input is None

    @njit
    def variable(x, w, g, flag):
        return grad.conv2d_backward(g, x, w, 2, 1, groups=2, output_mask=(flag, True, True))

    with pytest.raises(TypingError, match="output_mask must be a tuple of three bools that are written in the call"):
        variable(X, W, G, True)


def test_errors_at_run_time():
    @njit
    def inside(x, w, stride):
        return conv2d(x, w, None, stride)

    @njit
    def caught(x, w, stride):
        try:
            inside(x, w, stride)
        except Exception:
            return 1
        return 0

    def outside(x, w, stride):
        return conv2d(x, w, None, stride)

    for operands in ((X, W, 1), (X, X, 0), (X, X[:, :, :0], 1), (X, X.repeat(2, 2), 1)):
        with pytest.raises(numbaconv.errors.ConvError) as wanted:
            outside(*operands)
        with pytest.raises(type(wanted.value)) as found:
            inside(*operands)
        assert str(found.value) == str(wanted.value)
        assert type(found.value) is type(wanted.value)
        assert caught(*operands) == 1
    said = []

    def elsewhere():  # in a thread that the module threading does not know
        try:
            inside(X, W, 0)
        except BaseException as error:
            said.append(error)
        done.set()

    done = threading.Event()
    _thread.start_new_thread(elsewhere, ())
    assert done.wait(60)
    assert [type(each) for each in said] == [numbaconv.ArgumentError]
    w = draw(RNG, (2, 4, 3, 3), np.float32)
    assert caught(X, w, 1) == 0
    same(inside(X, w, 1), outside(X, w, 1))


def test_other_exceptions_come_as_they_are(monkeypatch):
    @njit
    def inside(x, w):
        return conv2d(x, w, groups=2)

    def interrupted(*_):
        raise KeyboardInterrupt("now")

    wanted = inside(X, W)
    with monkeypatch.context() as patched:
        patched.setattr(numbaconv.routes.Route, "call", interrupted)
        with pytest.raises(KeyboardInterrupt, match="now"):
            inside(X, W)
    same(inside(X, W), wanted)


def typing_errors():
    yield "stride must be an int or a tuple of ints", lambda x, w: conv2d(x, w, stride=1.5)
    yield "stride must be an int or a tuple of ints", lambda x, w: conv2d(x, w, stride=[1, 1])
    yield "groups must be an int", lambda x, w: conv2d(x, w, groups=True)
    yield "padding must be integers or one of valid, same", lambda x, w: conv2d(x, w, padding="sane")
    yield "padding_mode must be one of zeros", lambda x, w: conv2d(x, w, padding_mode="mirror")
    yield "padding_value must be a number", lambda x, w: conv2d(x, w, padding_value="1")
    yield "activation .*'rely'", lambda x, w: conv2d(x, w, activation="rely")
    yield "data_format is 'NWHC'", lambda x, w: conv2d(x, w, data_format="NWHC")
    yield "bias must be an array, but is int64", lambda x, w: conv2d(x, w, w.size)
    yield "weight must have 3 axes, but has 4", lambda x, w: conv1d(x, w)
    yield "input must have 4 axes, or 3 without a batch axis, but has 2", lambda x, w: conv2d(x[0, 0], w)
    yield "input is float16", lambda x, w: conv2d(x.astype(np.float16), w)
    yield "input is bool", lambda x, w: conv2d(x > 0, w)
    yield r"out is array\(float32, 2d, C\), but the result is", lambda x, w: conv2d(x, w, out=x[0, 0])
    yield "input_size must be a tuple of ints", lambda x, w: grad.conv2d_input(x, w, x)
    yield "stream", lambda x, w: conv2d(x, w, stream=1)


@pytest.mark.parametrize(("message", "function"), list(typing_errors()), ids=[each for each, _ in typing_errors()])
def test_errors_when_compiled(message, function):
    with pytest.raises(TypingError, match=message):
        njit(function)(X, W)


def test_nothing_is_leaked():
    @njit
    def inside(x, w, stride):
        total = 0.0
        for _ in range(50):
            total += conv2d(x, w, stride=(stride, 1), padding="same", groups=2)[0, 0, 0, 0]
        return total

    def failing():
        with pytest.raises(numbaconv.ArgumentError):
            inside(X, W, 0)

    _nrt_python.memsys_enable_stats()
    inside(X, W, 1)
    failing()
    references = sys.getrefcount(X), sys.getrefcount(W)
    before = rtsys.get_allocation_stats()
    for _ in range(20):
        inside(X, W, 1)
    assert (sys.getrefcount(X), sys.getrefcount(W)) == references
    after = rtsys.get_allocation_stats()
    assert after.alloc - before.alloc == after.free - before.free
    assert after.mi_alloc - before.mi_alloc == after.mi_free - before.mi_free


def test_threads():
    @njit(nogil=True)
    def inside(x, w, turns):
        y = conv2d(x, w, groups=2)
        for _ in range(turns):
            y = conv2d(x, w, groups=2)
        return y

    samples = [draw(RNG, X.shape, np.float32) for _ in range(4)]
    wanted = [inside(each, W, 0) for each in samples]
    with ThreadPoolExecutor(4) as pool:
        for answer, right in zip(pool.map(lambda each: inside(each, W, 200), samples), wanted, strict=True):
            same(answer, right)


def test_documentation():
    assert doctest.testmod(jit) == (0, 5)


PROGRAM = """
import numpy as np
from numba import njit, prange
from numbaconv.jit import conv2d


@njit(cache=True)
def layer(x, w, stride):
    return conv2d(x, w, stride=stride, padding="same", activation="tanh")


@njit(parallel=True, cache=True)
def samples(x, w, strides):
    out = np.zeros((x.shape[0], 8, 32, 32), np.float32)
    for i in prange(x.shape[0]):
        out[i] = layer(x[i], w, strides[i])
    return out
"""

RUN = """
import sys, threading, numba, numpy as np, numbaconv
from program import layer, samples
from numbaconv.backends.cpu.launch import runs_serially

# Large enough that a convolution by itself runs in parallel.
x = np.random.default_rng(0).standard_normal((12, 16, 32, 32), dtype=np.float32)
w = np.random.default_rng(1).standard_normal((8, 16, 3, 3), dtype=np.float32)
assert not runs_serially(8 * 16 * 9 * 32 * 32)
ones = np.ones(12, np.int64)
one = layer(x, w, 1)
assert (one == numbaconv.conv2d(x, w, padding="same", activation="tanh")).all()
for _ in range(5):
    assert (samples(x, w, ones) == one).all()
for bad in (0, 5, 11):
    strides = ones.copy()
    strides[bad] = 0
    try:
        samples(x, w, strides)
        print("nothing was raised", bad)
    except (numbaconv.ArgumentError, SystemError) as error:
        message = str(error.__cause__ if isinstance(error, SystemError) else error)
        assert message == "conv2d: stride must be at least 1, but is (0, 0)", message
        assert isinstance(error, numbaconv.ArgumentError) or numba.threading_layer() == "tbb"
    assert (samples(x, w, ones) == one).all()

said = []
threading.excepthook = lambda args: said.append(str(args.exc_value))
def failing():
    try:
        samples(x, w, 0 * ones)
    except SystemError as error:
        said.append(str(error.__cause__))
thread = threading.Thread(target=failing)
thread.start()
thread.join()
assert said and all("stride must be at least 1" in each for each in said), said
assert (samples(x, w, ones) == one).all()
print(numba.threading_layer(), sum(layer.stats.cache_hits.values()), sum(samples.stats.cache_hits.values()))
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A folder with the program, and what processes cache of it."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "program.py").write_text(PROGRAM)
    return folder


@pytest.mark.parametrize("layer", LAYERS)
def test_parallel_loops_on_each_threading_layer(layer, program):
    """All processes but the first load what that one has compiled and cached."""
    ran = program / "ran"
    hits = str(int(ran.exists()))
    paths = os.pathsep.join([str(program), os.path.dirname(os.path.dirname(numbaconv.__file__))])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(RUN)],
        env={**environment_of(layer), "PYTHONPATH": paths, "OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ran.touch()
    assert done.stdout.split() == [layer, hits, hits]


def test_a_result_whose_dtype_is_asked_for():
    x, w = np.ones((1, 2, 5, 5), bool), np.ones((3, 2, 3, 3), np.uint8)

    @njit
    def asked(x, w, like):
        one = numbaconv.conv2d(x, w, dtype=np.float64)
        back = grad.conv2d_backward(one, x, w, dtype="float64")
        return one, numbaconv.conv2d(x, w, dtype=like.dtype), back.bias

    found = asked(x, w, np.ones(1, np.complex64))
    assert [each.dtype.name for each in found] == ["float64", "complex64", "float64"]
    np.testing.assert_array_equal(found[0], numbaconv.conv2d(x, w, dtype=np.float64))
    for says, call in (
        ("whose sums have no dtype of their own", lambda x, w: numbaconv.conv2d(x, w)),
        ("dtype is uint8, but sums are returned in", lambda x, w: numbaconv.conv2d(x, w, dtype=np.uint8)),
        ("result is float16", lambda x, w: numbaconv.conv2d(x, w, dtype=np.float16)),
    ):
        with pytest.raises(TypingError, match=says):
            njit(call)(x, w)
    unsigned = njit(lambda x, w: numbaconv.conv2d(x, w))(w.astype(np.uint64), w.astype(np.uint64))
    assert unsigned.dtype == np.uint64
    assert njit(lambda x, w: numbaconv.conv2d(x, w))(w.view(np.int8), w).dtype == np.int32
