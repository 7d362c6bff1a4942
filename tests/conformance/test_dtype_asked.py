"""``dtype=``: sums and results in the dtype that a call asks for, from every algorithm, without converted copies."""

import tracemalloc
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

import numbaconv
from numbaconv import grad
from numbaconv.backends.base import Direction
from numbaconv.errors import DTypeError
from problems import (
    ALGORITHMS,
    BACKENDS,
    PROBLEMS,
    accepting,
    assert_within,
    error_bound,
    expected,
    operands,
    run,
    visited,
)

RNG = np.random.default_rng(5)
NAMES = ("stride 2", "constant", "depthwise", "long kernel", "mapped and strided and dilated")
#: Operands' and asked dtypes.
PAIRS = [
    ("bool", "float32"),
    ("bool", "uint64"),
    ("uint8", "float32"),
    ("int16", "float64"),
    ("int16", "int32"),
    ("uint64", "int64"),
    ("int64", "complex64"),
    ("float32", "float64"),
    ("float64", "float32"),
    ("bfloat16", "float32"),
]


def named(name):
    return np.dtype(getattr(ml_dtypes, name, name))


@pytest.mark.parametrize(("given", "asked"), PAIRS)
@pytest.mark.parametrize("name", visited(*NAMES))
def test_every_algorithm(name, given, asked):
    problem = replace(PROBLEMS[name], value=abs(PROBLEMS[name].value))
    arrays = [np.abs(each) for each in operands(problem, RNG, np.int64, 3)]
    if named(given).kind not in "bu":
        arrays = [each * RNG.choice([-1, 1], each.shape) for each in arrays]
    given_arrays = [each.astype(named(given)) for each in arrays]
    arrays = [each.astype(np.int64) for each in given_arrays]
    for backend, direction, algorithm in accepting(problem, asked):
        answer = run(direction, problem, *given_arrays, backend=backend, algorithm=algorithm.name, dtype=asked)
        label = f"{backend} {direction.name} {algorithm.name}"
        assert answer.dtype == asked, label
        wanted = expected(direction, problem, *arrays)
        if algorithm.spreading:
            floats = [each.astype(asked) for each in arrays]
            assert_within(answer, wanted, error_bound(direction, algorithm, problem, asked, *floats), label)
        else:
            np.testing.assert_array_equal(answer, wanted.astype(asked), err_msg=label)


@pytest.mark.parametrize(("given", "asked"), [("bool", "float32"), ("int16", "float64"), ("uint8", "int32")])
@pytest.mark.parametrize("name", visited("constant", "depthwise", "long kernel"))
def test_kernels_that_convert_while_they_read(name, given, asked, monkeypatch):
    """Samples too large to be copied: here all are."""
    monkeypatch.setattr("numbaconv.backends.base.MOST_CONVERTED", 0)
    monkeypatch.setattr("numbaconv.dispatch._routes", type(numbaconv.dispatch._routes)(1024))
    test_every_algorithm(name, given, asked)


def test_sums_are_taken_in_it():
    """float64 of float32 operands, and float32 rounded to float16 at the end."""
    x = np.array([[[1, 2**-30, -1]]], np.float32)
    ones = np.ones((1, 1, 3), np.float32)
    for backend in BACKENDS:
        assert numbaconv.conv1d(x, ones, dtype=np.float64, backend=backend).item() == 2**-30
        large = np.full((1, 1, 3), 40000.0, np.float32)
        signs = np.array([[[1, 1, -1]]], np.float32)
        assert numbaconv.conv1d(large, signs, dtype="float16", backend=backend).item() == 40000


def test_16_bit_sums_do_not_wrap():
    x = np.array([[[65535]]], np.uint16)
    for backend in BACKENDS:
        assert numbaconv.conv1d(x, x, backend=backend).item() == 65535**2
        assert numbaconv.conv1d(x, x, backend=backend, dtype=np.int32).item() == -131071  # as NumPy's sums would
        u = np.array([[[2**63 + 5]]], np.uint64)
        one = np.ones((1, 1, 1), np.uint64)
        assert numbaconv.conv1d(u, one, backend=backend).item() == 2**63 + 5
        for activation, result in (("relu", 2**63 + 5), ("relu6", 6)):
            assert numbaconv.conv1d(u, one, backend=backend, activation=activation).item() == result


def test_padding_of_unsigned_sums():
    one = np.ones((1, 1, 1), np.uint64)
    most = {"padding": 1, "padding_mode": "constant", "padding_value": 2**64 - 1}
    for backend in BACKENDS:
        found = numbaconv.conv1d(one, one, backend=backend, **most)
        assert found.tolist() == [[[2**64 - 1, 1, 2**64 - 1]]]
        for value in (-1, 2**64, 0.5):
            with pytest.raises(DTypeError, match="padding_value"):
                numbaconv.conv1d(one, one, backend=backend, **{**most, "padding_value": value})


MASK, KERNEL = RNG.random((2, 3, 7, 6)) < 0.5, RNG.random((4, 3, 3, 3)) < 0.5
CALLS = {
    "conv2d": lambda **o: numbaconv.conv2d(MASK, KERNEL, KERNEL[:, 0, 0, 0], **o),
    "conv_transpose2d": lambda **o: numbaconv.conv_transpose2d(MASK, KERNEL[:3], **o),
    "depthwise_conv2d": lambda **o: numbaconv.depthwise_conv2d(MASK, KERNEL[:3, :1], **o),
    "separable_conv2d": lambda **o: numbaconv.separable_conv2d(MASK, KERNEL[:3, :1], KERNEL[:, :, :1, :1], **o),
    "unfold": lambda **o: numbaconv.unfold(MASK, 2, **o),
    "fold": lambda **o: numbaconv.fold(MASK[:, :, 0, :4].repeat(4, 1), 3, 2, **o),
    "prepare": lambda **o: numbaconv.prepare(KERNEL, **o)(MASK),
    "StreamingConv": lambda **o: numbaconv.StreamingConv(KERNEL, padding=1, **o).push(MASK),
    "conv2d_input": lambda **o: grad.conv2d_input((2, 3, 7, 6), KERNEL, MASK[:, [0, 1, 2, 0], :5, :4], **o),
    "conv2d_weight": lambda **o: grad.conv2d_weight(MASK, KERNEL.shape, MASK[:, [0, 1, 2, 0], :5, :4], **o),
    "conv2d_bias": lambda **o: grad.conv2d_bias(MASK, **o),
    "conv2d_backward": lambda **o: grad.conv2d_backward(MASK[:, [0, 1, 2, 0], :5, :4], MASK, KERNEL, **o),
    "conv_transpose2d_backward": lambda **o: grad.conv_transpose2d_backward(
        np.ones((2, 3, 9, 8), bool), MASK, KERNEL[:3], **o
    ),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "asked", ["float32", np.float64, np.dtype(np.int64), "uint64", complex, "bfloat16", np.float16]
)
def test_every_function_takes_bool_with_it(name, asked):
    dtype = named(asked) if isinstance(asked, str) else np.dtype(asked)
    found, other = CALLS[name](dtype=asked), CALLS[name](dtype="int32")
    for one, two in zip(*((found, other) if isinstance(found, tuple) else ([found], [other])), strict=True):
        assert one.dtype == dtype
        np.testing.assert_array_equal(one.astype(complex), two.astype(complex))
    with pytest.raises(DTypeError, match=r"bool.*dtype="):
        CALLS[name]()


def test_gradients_with_an_activation():
    x, w = RNG.standard_normal((1, 2, 9)).astype(np.float32), RNG.standard_normal((3, 2, 3)).astype(np.float32)
    y = numbaconv.conv1d(x, w, activation="tanh")
    found = grad.conv1d_backward(y, x, w, activation="tanh", output=y, dtype=np.float64)
    wide = [each.astype(np.float64) for each in (y, x, w)]
    wanted = grad.conv1d_backward(*wide, activation="tanh", output=wide[0])
    for one, two in zip(found, wanted, strict=True):
        assert one.dtype == np.float64
        np.testing.assert_allclose(one, two, rtol=1e-13)


def test_out_bias_and_residual():
    x, w = np.ones((1, 2, 5), np.uint8), np.ones((3, 2, 3), np.int8)
    out = np.empty((1, 3, 3), np.float32)
    bias, residual = np.full(3, 0.25), np.full((1, 3, 3), 2, np.int64)
    for _ in range(2):  # the second finds the first's route
        assert numbaconv.conv1d(x, w, bias, residual=residual, out=out, dtype=np.float32) is out
        np.testing.assert_array_equal(out, 8.25)
        with pytest.raises(DTypeError, match="out has dtype float32, but the result has float64"):
            numbaconv.conv1d(x, w, bias, residual=residual, out=out, dtype=np.float64)
    assert numbaconv.conv1d(x, w).dtype == np.int32  # a route of its own


@pytest.mark.parametrize(
    ("given", "asked", "says"),
    [
        (np.float32, np.int32, "dtype is int32, but input has dtype float32"),
        (np.complex64, float, "dtype is float64, but input has dtype complex64"),
        (np.int8, np.uint64, "dtype is uint64, but input has dtype int8"),
        (np.int8, np.uint8, "dtype is uint8, but sums are returned in .*uint64"),
        (np.int8, "nonsense", "dtype is 'nonsense', which NumPy does not know|no arrays of nonsense"),
        (np.int8, [1, 2], "dtype is .*, which NumPy does not know"),
        (np.int8, object, "dtype is object, but sums"),
    ],
)
def test_refused(given, asked, says):
    x = np.ones((1, 1, 4), given)
    for _ in range(2):
        with pytest.raises(DTypeError, match=says):
            numbaconv.conv1d(x, np.ones((1, 1, 2), np.uint8), dtype=asked)


@pytest.mark.parametrize("signed", [np.int8, np.int64])
def test_integers_without_a_common_dtype(signed):
    """NumPy would make float64 of them."""
    x, w = np.ones((1, 1, 4), signed), np.ones((1, 1, 2), np.uint64)
    name = np.dtype(signed).name
    with pytest.raises(DTypeError, match=f"conv1d: there is no integer dtype for input {name}, weight uint64.*dtype="):
        numbaconv.conv1d(x, w)
    with pytest.raises(DTypeError, match=r"conv1d: there is no integer dtype for result int(32|64), bias uint64"):
        numbaconv.conv1d(x, x[..., :2], np.ones(1, np.uint64))
    with pytest.raises(DTypeError, match=f"weight uint64, grad_output {name}"):
        grad.conv1d_input((1, 1, 5), w, x)
    assert numbaconv.conv1d(x, w, dtype=np.int64).tolist() == [[[2, 2, 2]]]


def test_a_signal_with_padding_that_its_dtype_lacks():
    """It would be another value in the first results than in those of the whole signal."""
    signal, w = np.arange(12, dtype=np.uint8).reshape(1, 1, 12), np.ones((1, 1, 3), np.float32)
    options = {"padding_mode": "constant", "dtype": np.float32}
    stream = numbaconv.StreamingConv(w, padding_value=0.5, **options)
    with pytest.raises(numbaconv.ArgumentError, match=r"padding_value is 0\.5"):
        stream.push(signal)
    stream = numbaconv.StreamingConv(w, padding_value=7, **options)
    found = np.concatenate([stream.push(signal[..., :1]), stream.push(signal[..., 1:])], axis=-1)
    whole = numbaconv.conv1d(signal, w, padding="causal", padding_value=7, **options)
    np.testing.assert_array_equal(found, whole)


@pytest.mark.skipif(bool(ALGORITHMS) or "cpu" not in BACKENDS, reason="of the CPU's automatic choice")
@pytest.mark.parametrize("shape", [(1, 1, 2500, 2000), (1, 6, 1000, 1000), (40, 4, 250, 200)])
@pytest.mark.parametrize("direction", Direction)
def test_no_converted_copy(shape, direction):
    """Beside the result there is less memory than a converted operand would take."""
    x = np.ones(shape, np.uint8)
    w = np.ones((shape[1], 1, 3, 3) if shape[1] == 1 else (2, shape[1], 3, 3), np.uint8)
    g = np.ones((shape[0], w.shape[0], *shape[2:]), np.uint8)

    def call():
        options = {"padding": 1, "dtype": np.float64}
        if direction is Direction.FORWARD:
            return numbaconv.conv2d(x, w, **options)
        if direction is Direction.INPUT_GRAD:
            return grad.conv2d_input(x.shape, w, g, **options)
        return grad.conv2d_weight(x, w.shape, g, **options)

    call()
    tracemalloc.start()
    found = call()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most - found.nbytes < 8 * max(x.size, g.size) * 0.6, most


@pytest.mark.skipif("cpu" not in BACKENDS, reason="of the CPU backend")
def test_pieces_have_the_bits_of_the_whole(monkeypatch):
    x = RNG.integers(0, 255, (7, 16, 20, 20)).astype(np.uint8)
    w = RNG.standard_normal((32, 16, 3, 3)).astype(np.float32)
    g = RNG.standard_normal((7, 32, 18, 18)).astype(np.float16)
    residual = RNG.standard_normal(g.shape)
    for algorithm in ("patch_gemm", "winograd", "direct", None):
        options = {"algorithm": algorithm, "dtype": np.float32, "backend": "cpu"}

        def all_of_them(options=options):
            y = numbaconv.conv2d(x, w, residual=residual, activation="tanh", **options)
            by_input = grad.conv2d_input(x.shape, w, g, **options)
            return y, by_input, grad.conv2d_weight(x, w.shape, g, **{**options, "algorithm": None})

        whole = all_of_them()
        with monkeypatch.context() as changed:
            changed.setattr("numbaconv.backends.pieces.MOST_CONVERTED", 2 * 32 * 18 * 18 * 4)
            changed.setattr("numbaconv.dispatch._routes", type(numbaconv.dispatch._routes)(1024))
            pieces = all_of_them()
        for one, two in zip(whole[:2], pieces[:2], strict=True):
            np.testing.assert_array_equal(one, two)
        np.testing.assert_allclose(whole[2], pieces[2], rtol=1e-4, atol=1)
