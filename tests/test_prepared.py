"""Prepared convolutions: the same bits and errors as the functions, whatever is remembered or packed."""

import pickle
import subprocess
import sys
import textwrap
import threading

import ml_dtypes
import numpy as np
import pytest

import numbaconv
from numbaconv import prepared as module
from numbaconv.backends.base import Direction
from numbaconv.plan import SUPPORTED
from problems import BACKENDS, PROBLEMS, accepting, draw, operands

RNG = np.random.default_rng(31)
X = RNG.standard_normal((3, 8, 9, 7), dtype=np.float32)
W = RNG.standard_normal((6, 4, 3, 3), dtype=np.float32)
B = RNG.standard_normal(6, dtype=np.float32)
OPTIONS = {"stride": (2, 1), "padding": ((1, 0), (1, 2)), "groups": 2}


def same(a, b, label=None):
    assert a.dtype == b.dtype, label
    assert a.shape == b.shape, label
    np.testing.assert_array_equal(a.view(np.uint8), b.view(np.uint8), err_msg=label)


def softsign(v):
    return v / (1 + abs(v))


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem(name):
    """Every algorithm of both directions, at the first call and at a later one."""
    problem = PROBLEMS[name]
    rng = np.random.default_rng(5)
    x, w, g = operands(problem, rng, np.float32)
    visited = set()
    for backend, direction, algorithm in accepting(problem, "float32"):
        if direction is Direction.WEIGHT_GRAD:
            continue
        transposed, given = direction is Direction.INPUT_GRAD, x if direction is Direction.FORWARD else g
        options = {**problem.arguments, "backend": backend, "algorithm": algorithm.name}
        function = numbaconv.conv
        if transposed:
            if "constant" in problem.modes:  # has no transposed convolution
                continue
            function = numbaconv.conv_transpose
            options["output_size"] = problem.spatial
        wanted = function(given, w, **options)
        prepared = numbaconv.prepare(w, transposed=transposed, **options)
        for _ in range(2):
            same(prepared(given), wanted, f"{backend} {direction.name} {algorithm.name}")
        visited.add((backend, direction))
    assert {backend for backend, _ in visited} == set(BACKENDS)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("activation", [None, "relu", "gelu", softsign, (softsign, softsign)])
def test_epilogue(backend, transposed, activation):
    function, options = numbaconv.conv, {**OPTIONS, "activation": activation, "backend": backend}
    x, w, b = X, W, B
    if transposed:
        function, x, b = numbaconv.conv_transpose, X[:, :6], RNG.standard_normal(8)
    for bias in (None, b):
        wanted = function(x, w, bias, **options)
        residual = RNG.standard_normal(wanted.shape, dtype=np.float32)
        prepared = numbaconv.prepare(w, bias, transposed=transposed, **options)
        for _ in range(2):
            same(prepared(x), wanted)
            total = function(x, w, bias, residual=residual, **options)
            same(prepared(x, residual), total)
            out = np.full(wanted.shape, np.nan, wanted.dtype)
            assert prepared(x, out=out) is out
            same(out, wanted)
            if out.dtype == residual.dtype:
                out[...] = residual
                assert prepared(x, out, out) is out
                same(out, total)


@pytest.mark.parametrize("layout", [("NHWC", "HWIO"), ("NHWC", None), (None, "OHWI"), ("NCHW", "HWIO")])
def test_layouts(layout):
    data_format, weight_format = layout
    x = np.ascontiguousarray(np.moveaxis(X, 1, -1)) if data_format == "NHWC" else X
    w = W if weight_format == "OIHW" else np.moveaxis(W, 1, -1) if weight_format == "OHWI" else W.transpose(2, 3, 1, 0)
    options = {**OPTIONS, "data_format": data_format, "weight_format": weight_format}
    prepared = numbaconv.prepare(w, B, **options)
    for given in (x, x[0]):
        for _ in range(2):
            same(prepared(given), numbaconv.conv2d(given, w, B, **options))


@pytest.mark.parametrize("dtype", SUPPORTED)
def test_dtypes(dtype):
    """One weight of each dtype with inputs of every dtype that goes with it, in turns through one object."""
    own = np.dtype(getattr(ml_dtypes, dtype, dtype))
    w = draw(RNG, W.shape, own, 3)
    prepared = numbaconv.prepare(w, **OPTIONS)
    third = "uint8" if dtype == "uint64" else "int8"
    for other in (dtype, "float32", "float64", third, dtype, "float32"):
        x = draw(RNG, X.shape, np.dtype(getattr(ml_dtypes, other, other)), 3)
        same(prepared(x), numbaconv.conv2d(x, w, **OPTIONS))


def test_many_shapes_share_a_packed_weight(monkeypatch):
    packed = []

    def count(plan):
        packed.append(plan)
        return view(plan)

    view = module.view_of_weight
    monkeypatch.setattr(module, "view_of_weight", count)
    prepared = numbaconv.prepare(W, algorithm="implicit_gemm", **OPTIONS)
    for batch, height, width in ((1, 9, 7), (3, 9, 7), (2, 12, 5), (1, 30, 31), (1, 9, 7)):
        x = RNG.standard_normal((batch, 8, height, width), dtype=np.float32)
        same(prepared(x), numbaconv.conv2d(x, W, algorithm="implicit_gemm", **OPTIONS))
    assert len(packed) == 1
    x = x.astype(np.float64)
    same(prepared(x), numbaconv.conv2d(x, W, algorithm="implicit_gemm", **OPTIONS))
    assert len(packed) == 2


def test_packed_weights_of_one_object_differ():
    """Stride phases of a transposed convolution that small inputs lack are not in what is packed for these."""
    w = RNG.standard_normal((4, 3, 2, 5), dtype=np.float32)
    prepared = numbaconv.prepare(w, transposed=True, stride=(1, 4), padding=(0, 2), algorithm="implicit_gemm")
    for width in (1, 2, 9, 1):
        x = RNG.standard_normal((1, 4, 6, width), dtype=np.float32)
        same(prepared(x), numbaconv.conv_transpose(x, w, stride=(1, 4), padding=(0, 2), algorithm="implicit_gemm"))


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "_MOST_ROUTES", 4)
    prepared = numbaconv.prepare(W, **OPTIONS)
    for size in (*range(5, 15), *range(5, 15)):
        x = X[:, :, :5, :5].repeat(size, axis=2)
        same(prepared(x), numbaconv.conv2d(x, W, **OPTIONS))
        assert len(prepared._ready) <= 4


def test_arrays_that_are_changed_later():
    w, b, stride = W.copy(), B.copy(), [2, 1]
    wanted = numbaconv.conv2d(X, W, B, **OPTIONS)
    prepared = numbaconv.prepare(w, b, **{**OPTIONS, "stride": stride})
    w[...], b[...], stride[0] = np.nan, np.nan, 1
    same(prepared(X), wanted)
    w[...], b[...] = 7, 7
    same(prepared(X), wanted)
    assert not prepared.weight.flags.writeable
    assert not prepared.bias.flags.writeable


@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
        lambda a: a.astype(a.dtype.newbyteorder()),
        lambda a: a.tolist(),
        lambda a: np.frombuffer(b"." + a.tobytes(), np.uint8)[1:].view(np.float32).reshape(a.shape),
    ],
    ids=["Fortran", "spaced", "byte order", "lists", "unaligned"],
)
def test_any_memory(change):
    x, w, b = change(X), change(W), change(B)
    prepared = numbaconv.prepare(w, b, **OPTIONS)
    for given in (x, X, x):
        same(prepared(given), numbaconv.conv2d(given, w, b, **OPTIONS))


def test_threads():
    prepared = numbaconv.prepare(W, B, activation="relu", **OPTIONS)
    inputs = [RNG.standard_normal((n, 8, 9, 7), dtype=np.float32) for n in (1, 2, 3, 1)]
    wanted = [numbaconv.conv2d(x, W, B, activation="relu", **OPTIONS) for x in inputs]
    failures, together = [], threading.Barrier(8)

    def work(first):
        try:
            together.wait()
            for turn in range(40):
                at = (first + turn) % len(inputs)
                same(prepared(inputs[at]), wanted[at])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


@pytest.mark.parametrize("activation", [None, "silu", softsign])
@pytest.mark.parametrize("called", [False, True])
def test_pickle(activation, called):
    prepared = numbaconv.prepare(W, B, activation=activation, **OPTIONS)
    if called:
        prepared(X)
    again = pickle.loads(pickle.dumps(prepared))
    same(again(X), prepared(X))
    assert repr(again) == repr(prepared)
    assert not again.weight.flags.writeable
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(numbaconv.prepare(W, activation=lambda v: v, **OPTIONS))


def test_a_fork_while_another_thread_packs():
    program = """
        import os, threading
        import numpy as np, numbaconv
        prepared = numbaconv.prepare(np.ones((4, 2, 3, 3), np.float32))
        with prepared._packing:
            child = os.fork()
            if child == 0:
                assert (prepared(np.ones((1, 2, 5, 5), np.float32)) == 18).all()
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_choices_are_made_at_each_call(monkeypatch):
    """The environment and context managers rule a prepared convolution as they rule a function."""
    prepared = numbaconv.prepare(W, **OPTIONS)
    x = X[:1]

    def algorithms():
        return {key[-1][:3]: ready.route.algorithm.name for key, ready in prepared._ready._found.items()}

    for _ in range(2):
        same(prepared(x), numbaconv.conv2d(x, W, **OPTIONS))
        with numbaconv.use_backend("reference"):
            same(prepared(x), numbaconv.conv2d(x, W, **OPTIONS))
        monkeypatch.setenv("NUMBACONV_ALGORITHM", "direct")
        same(prepared(x), numbaconv.conv2d(x, W, **OPTIONS))
        monkeypatch.delenv("NUMBACONV_ALGORITHM")
        monkeypatch.setenv("NUMBACONV_DISABLE", "implicit_gemm")
        same(prepared(x), numbaconv.conv2d(x, W, **OPTIONS))
        monkeypatch.delenv("NUMBACONV_DISABLE")
    found = algorithms()
    assert found["reference", None, None] == "numpy"
    assert found["cpu", "direct", None] == "direct"
    assert found["cpu", None, "implicit_gemm"] != "implicit_gemm"
    assert len(found) == 4


#: Options that are wrong, or an input.
WRONG = [
    ({"stride": 0}, X),
    ({"stride": 1.0}, X),
    ({"padding": "full"}, X),
    ({"padding_mode": "mirror"}, X),
    ({"data_format": "CHWN"}, X),
    ({"weight_format": ["OI"]}, X),
    ({"activation": "mish"}, X),
    ({"activation": 3}, X),
    ({"backend": "magic"}, X),
    ({"backend": 3}, X),
    ({"algorithm": "magic"}, X),
    ({"algorithm": 3}, X),
    ({"bias": B[:5]}, X),
    ({"bias": B.astype(object)}, X),
    ({"groups": 4}, X),
    ({"groups": 1}, X[:, :7]),
    ({}, X[:, :7]),
    ({}, X[0, 0]),
    ({}, X[:, :, :1, :1]),
    ({}, X.astype(bool)),
    ({}, np.ma.array(X)),
    ({"activation": "relu"}, X.astype(np.complex64)),
    ({"padding_value": 2, "padding_mode": "zeros"}, X),
    ({"padding_value": 0.5, "padding_mode": "constant"}, X.astype(np.int8)),
]


#: The transposed convolution of `W` takes 6 channels, and has no padding value.
WRONG_BOTH = [(False, *each) for each in WRONG] + [
    (True, options, X[:, :6]) for options, x in WRONG if x is X and "padding_value" not in options
]


@pytest.mark.parametrize(("transposed", "options", "x"), WRONG_BOTH)
def test_errors_are_those_of_the_function(transposed, options, x):
    options, w = {**OPTIONS, **options}, W.astype(np.int8) if x.dtype == np.int8 else W
    function = numbaconv.conv_transpose if transposed else numbaconv.conv
    with pytest.raises(numbaconv.ConvError) as wanted:
        function(x, w, **options)
    for _ in range(2):
        with pytest.raises(numbaconv.ConvError) as found:
            numbaconv.prepare(w, transposed=transposed, **options)(x)
        assert type(found.value) is type(wanted.value)
        assert str(found.value) == str(wanted.value)


@pytest.mark.parametrize("weight", [np.ma.array(W), W[0, 0], np.float32(1), W.astype(object), [3, 3, 3, 3]])
def test_weights_that_are_none(weight):
    with pytest.raises(numbaconv.ConvError) as found:
        numbaconv.prepare(weight)
    with pytest.raises(numbaconv.ConvError) as wanted:
        numbaconv.conv(X, weight)
    assert type(found.value) is type(wanted.value)


def test_what_only_the_other_kind_has():
    y = RNG.standard_normal((1, 6, 4, 4), dtype=np.float32)
    with pytest.raises(numbaconv.ArgumentError, match="output_padding is 1, but only a transposed convolution has one"):
        numbaconv.prepare(W, output_padding=1, **OPTIONS)(X)
    with pytest.raises(numbaconv.ArgumentError, match="'constant'"):
        numbaconv.prepare(W, transposed=True, padding_mode="constant", **OPTIONS)(y)
    with pytest.raises(numbaconv.DTypeError, match="transposed must be a bool, but is 'yes'"):
        numbaconv.prepare(W, transposed="yes")


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"residual": X}, numbaconv.ShapeError, "residual has shape"),
        ({"out": np.zeros((3, 6, 4, 8))}, numbaconv.DTypeError, "out has dtype float64"),
        ({"out": np.zeros((3, 6, 5, 9), np.float32)}, numbaconv.ShapeError, "out has shape"),
        ({"out": [1]}, numbaconv.DTypeError, "out must be a NumPy array"),
    ],
)
@pytest.mark.parametrize("called", [False, True])
def test_arguments_of_the_call(wrong, error, says, called):
    prepared = numbaconv.prepare(W, **OPTIONS)
    if called:
        prepared(X)
    with pytest.raises(error, match=says):
        prepared(X, **wrong)


def test_out_may_overlap_the_input():
    w = RNG.standard_normal((8, 8, 3, 3), dtype=np.float32)
    wanted = numbaconv.conv2d(X, w, padding=1)
    prepared = numbaconv.prepare(w, padding=1)
    for _ in range(2):
        x = X.copy()
        assert prepared(x, out=x) is x
        same(x, wanted)


@pytest.mark.parametrize("transposed", [False, True])
def test_explain(transposed):
    prepared = numbaconv.prepare(W, transposed=transposed, **OPTIONS)
    shape = (3, 6, 9, 7) if transposed else X.shape
    found = prepared.explain(shape)
    assert found == numbaconv.explain(shape, W.shape, transposed=transposed, **OPTIONS)
    assert prepared.explain(shape, dtype="float64").plan.output_dtype == "float64"
    assert numbaconv.prepare(W, B.astype(np.float64), **OPTIONS).explain(X.shape).plan.compute_dtype == "float64"
    with pytest.raises(numbaconv.ShapeError, match="channels"):
        prepared.explain((1, 3, 9, 9))
    with pytest.raises(numbaconv.DTypeError, match="'float33'"):
        prepared.explain(shape, dtype="float33")


def test_explain_says_what_runs():
    prepared = numbaconv.prepare(W, **OPTIONS)
    prepared(X)
    (ready,) = prepared._ready._found.values()
    assert prepared.explain(X.shape).algorithm == ready.route.algorithm.name


def test_repr():
    prepared = numbaconv.prepare(W, B, activation="relu", padding_mode="reflect", **OPTIONS)
    assert repr(prepared) == (
        "PreparedConv(conv2d: weight (6, 4, 3, 3) float32, bias float32, stride=(2, 1), padding=((1, 0), (1, 2)), "
        "groups=2, padding_mode='reflect', activation='relu')"
    )
    assert repr(numbaconv.prepare(np.ones((2, 3, 4)), transposed=True, stride=2)) == (
        "PreparedConv(conv_transpose1d: weight (2, 3, 4) float64, stride=2)"
    )


def test_explain_knows_the_dtype_asked_for():
    """Integers whose sums are floating point run on what takes floating point; bool has sums by this alone."""
    for given in (np.uint8, bool):
        prepared = numbaconv.prepare(np.ones((16, 8, 3, 3), given), dtype="float32", padding=1)
        found = prepared.explain((2, 8, 16, 16))
        assert (found.plan.compute_dtype, found.plan.output_dtype) == ("float32", "float32")
        prepared(np.ones((2, 8, 16, 16), given))
        (ready,) = prepared._ready._found.values()
        assert (found.plan, found.algorithm) == (ready.route.plan, ready.route.algorithm.name)
