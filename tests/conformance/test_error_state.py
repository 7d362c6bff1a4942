"""NumPy's error state is the caller's: under ``all="raise"`` nothing is raised, and results have the same bits."""

import threading

import ml_dtypes
import numpy as np
import pytest

import numbaconv
from numbaconv import dispatch, grad, layers, separable
from numbaconv.backends.base import Direction
from problems import BACKENDS, PROBLEMS, accepting, operands, run

RNG = np.random.default_rng(31)
DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "int16", "uint64"]
NAMES = ("3x3 same", "constant", "depthwise", "long kernel", "mapped and strided and dilated", "pointwise")


@pytest.fixture(autouse=True)
def no_routes(monkeypatch):
    """Making a route is part of what must not raise."""
    for module in (dispatch, separable):
        monkeypatch.setattr(module, "_routes", type(module._routes)(1024))


def wild(array):
    """Values over all of a dtype's range, whose sums and conversions overflow, underflow and are invalid."""
    if array.dtype.kind in "iu":
        return RNG.integers(0, np.iinfo(array.dtype).max, array.shape, array.dtype)
    with np.errstate(all="ignore"):
        real = array.real.astype(np.float64) * 10.0 ** RNG.integers(-45, 39, array.shape)
        return (real + 1j * real if array.dtype.kind == "c" else real).astype(array.dtype)


def same(call):
    """The call's results are the same in both states; raising comes first, since tables are kept."""
    answers = []
    for state in ("raise", "ignore"):
        with np.errstate(all=state):
            found = call()
            assert np.geterr() == dict.fromkeys(("divide", "over", "under", "invalid"), state)
        answers.append(found if isinstance(found, tuple) else (found,))
    for one, two in zip(*answers, strict=True):
        np.testing.assert_array_equal(one.view(np.uint8), two.view(np.uint8))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name in NAMES if name in PROBLEMS])
def test_every_algorithm(name, dtype):
    problem, dtype = PROBLEMS[name], np.dtype(getattr(ml_dtypes, dtype, dtype))
    arrays = [wild(each) for each in operands(problem, RNG, dtype)]
    if dtype.kind == "u" and problem.value < 0:
        arrays = [each.astype(np.int64) for each in arrays]
    for backend, direction, algorithm in accepting(problem, arrays[0].dtype.name):
        for asked in (None, "float32") if dtype.kind != "c" else (None,):
            options = {"backend": backend, "algorithm": algorithm.name, "dtype": asked}
            if algorithm.accepts(problem.plan("float32" if asked else arrays[0].dtype.name)) is None:
                same(lambda d=direction, o=options: run(d, problem, *arrays, **o))


X, W, G = wild(np.ones((2, 4, 9, 8))), wild(np.ones((6, 4, 3, 3))), wild(np.ones((2, 6, 7, 6)))
HALF = [wild(each.astype(np.float16)) for each in map(np.ones_like, (X, W, G))]
SMALL = [each / 1e300 for each in (X, W, G)]


def backward(x, w, g, **options):
    return tuple(grad.conv2d_backward(g, x, w, **options))


def stream(x, w, **options):
    made = numbaconv.StreamingConv(w, padding=1, padding_mode=("constant", "zeros"), padding_value=0, **options)
    return tuple(made.push(x[:, :, a:b]) for a, b in ((0, 2), (2, 9)))


CALLS = {
    "activation": lambda x, w, g: numbaconv.conv2d(x, w, activation="silu", residual=g, bias=g[0, :, 0, 0]),
    "wide residual": lambda x, w, g: numbaconv.conv2d(x, w, residual=G),
    "narrow": lambda x, w, g: numbaconv.conv2d(
        x, w, bias=W[:, 0, 0, 0], dtype=np.float16 if x.dtype != float else "f4"
    ),
    "separable": lambda x, w, g: numbaconv.separable_conv2d(x, w[:4, :1], w[:, :, :1, :1]),
    "transposed": lambda x, w, g: numbaconv.conv_transpose2d(g, w, stride=2),
    "prepared": lambda x, w, g: numbaconv.prepare(w, g[0, :, 0, 0])(x),
    "streaming": lambda x, w, g: stream(x, w),
    "backward": lambda x, w, g: backward(x, w, g),
    "backward of an activation": lambda x, w, g: backward(x, w, g, activation="gelu", pre_activation=g),
    "unfold": lambda x, w, g: numbaconv.unfold(x, 3, dtype=np.float32),
    "fold": lambda x, w, g: numbaconv.fold(x[:, :, :, 0].repeat(4, 1).reshape(2, 16, 9), 4, 2),
    "padding value": lambda x, w, g: numbaconv.conv2d(
        x, w, padding=1, padding_mode="constant", padding_value=1e-44, dtype=np.float32
    ),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CALLS)
def test_every_function(name, backend):
    with numbaconv.use_backend(backend):
        for arrays in (HALF, [X, W, G], SMALL):
            same(lambda arrays=arrays: CALLS[name](*arrays))


def test_layers():
    def call():
        made = layers.Conv2d(4, 6, 3, dtype=np.float16, seed=0, activation="tanh")
        y = made(HALF[0])
        return y, made.backward(HALF[2])

    same(call)


def test_explain_and_tune():
    with np.errstate(all="raise"):
        for dtype in ("float16", "float32"):
            for direction in ("forward", "input", "weight"):
                numbaconv.explain((1, 16, 40, 40), (16, 16, 3, 3), direction=direction, dtype=dtype)


def test_threads_keep_their_own_state():
    """One thread's state never becomes another's, whichever ends first."""
    wrong = []

    def work(state):
        with np.errstate(all=state):
            for _ in range(50):
                numbaconv.conv2d(*HALF[:2])
                grad.conv2d_weight(HALF[0], W.shape, HALF[2])
                if np.geterr()["under"] != state:
                    wrong.append(state)

    threads = [threading.Thread(target=work, args=(state,)) for state in ("raise", "ignore", "warn")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_directions_are_all_here():
    assert {direction for _, direction, _ in accepting(PROBLEMS["3x3 same"], "float16")} == set(Direction)
