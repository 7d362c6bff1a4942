"""Which arrays are accepted, and what becomes of them: strides, byte order, layouts, ``out``, dtypes."""

import ml_dtypes
import numpy as np
import pytest

import numbaconv
from numbaconv import grad
from problems import BACKENDS

RNG = np.random.default_rng(21)
X = RNG.integers(-3, 4, (2, 4, 7, 6)).astype(np.float32)
W = RNG.integers(-3, 4, (6, 2, 3, 3)).astype(np.float32)
ARGUMENTS = {"stride": (2, 1), "padding": ((1, 0), (1, 2)), "groups": 2}


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request):
    with numbaconv.use_backend(request.param):
        yield request.param


def spaced(array):
    """The same values in every second cell of a larger array."""
    larger = np.full([2 * extent for extent in array.shape], np.nan, array.dtype)
    view = larger[(slice(None, None, 2),) * array.ndim]
    view[...] = array
    return view


def reversed_memory(array):
    return np.ascontiguousarray(array[::-1, ::-1, ::-1, ::-1])[::-1, ::-1, ::-1, ::-1]


def unaligned(array):
    raw = np.empty(array.nbytes + 1, np.uint8)
    view = raw[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def read_only(array):
    copy = array.copy()
    copy.flags.writeable = False
    return copy


MEMORY = {
    "Fortran order": np.asfortranarray,
    "every second cell": spaced,
    "negative strides": reversed_memory,
    "unaligned": unaligned,
    "read-only": read_only,
    "other byte order": lambda array: array.astype(array.dtype.newbyteorder()),
    "nested lists": lambda array: array.tolist(),
}


@pytest.mark.parametrize("memory", MEMORY)
def test_any_memory(memory):
    change = MEMORY[memory]
    x, w = change(X), change(W)
    y = numbaconv.conv2d(X, W, **ARGUMENTS)
    answers = [numbaconv.conv2d(x, w, **ARGUMENTS)]
    np.testing.assert_array_equal(answers[0], y)
    np.testing.assert_array_equal(
        grad.conv2d_input(X.shape, w, change(y), **ARGUMENTS), grad.conv2d_input(X.shape, W, y, **ARGUMENTS)
    )
    np.testing.assert_array_equal(
        grad.conv2d_weight(x, W.shape, change(y), **ARGUMENTS), grad.conv2d_weight(X, W.shape, y, **ARGUMENTS)
    )
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(w, W)


def test_broadcast_input():
    x = np.broadcast_to(np.float32(2), (1, 2, 5, 5))
    np.testing.assert_array_equal(numbaconv.conv2d(x, np.ones((1, 2, 3, 3), np.float32)), np.full((1, 1, 3, 3), 36))


OUTS = {
    "contiguous": lambda shape: np.empty(shape, np.float32),
    "Fortran order": lambda shape: np.empty(shape, np.float32, order="F"),
    "every second cell": lambda shape: spaced(np.empty(shape, np.float32)),
    "negative strides": lambda shape: reversed_memory(np.empty(shape, np.float32)),
    "unaligned": lambda shape: unaligned(np.empty(shape, np.float32)),
    "other byte order": lambda shape: np.empty(shape, np.dtype(np.float32).newbyteorder()),
}


@pytest.mark.parametrize("memory", OUTS)
def test_out(memory):
    y = numbaconv.conv2d(X, W, **ARGUMENTS)
    for produce, wanted in (
        (lambda out: numbaconv.conv2d(X, W, out=out, **ARGUMENTS), y),
        (
            lambda out: grad.conv2d_input(X.shape, W, y, out=out, **ARGUMENTS),
            grad.conv2d_input(X.shape, W, y, **ARGUMENTS),
        ),
        (
            lambda out: grad.conv2d_weight(X, W.shape, y, out=out, **ARGUMENTS),
            grad.conv2d_weight(X, W.shape, y, **ARGUMENTS),
        ),
    ):
        out = OUTS[memory](wanted.shape)
        out[...] = np.nan
        assert produce(out) is out
        np.testing.assert_array_equal(out, wanted)


def test_out_only_touches_its_cells():
    y = numbaconv.conv2d(X, W, **ARGUMENTS)
    larger = np.full((y.shape[0], y.shape[1] + 2, *y.shape[2:]), 7, np.float32)
    numbaconv.conv2d(X, W, out=larger[:, 1:-1], **ARGUMENTS)
    np.testing.assert_array_equal(larger[:, 1:-1], y)
    assert (larger[:, [0, -1]] == 7).all()


def test_out_may_overlap_an_operand():
    x = X.copy()
    w = np.ascontiguousarray(W[:4])
    wanted = numbaconv.conv2d(x, w, padding=1, groups=2)
    numbaconv.conv2d(x, w, padding=1, groups=2, out=x)
    np.testing.assert_array_equal(x, wanted)


def test_out_may_be_the_residual():
    y = numbaconv.conv2d(X, W, **ARGUMENTS)
    total = np.ones_like(y)
    assert numbaconv.conv2d(X, W, residual=total, out=total, **ARGUMENTS) is total
    np.testing.assert_array_equal(total, y + 1)


def test_out_may_overlap_the_residual_shifted():
    y = numbaconv.conv2d(X, W, **ARGUMENTS)
    memory = np.arange(y.size + 5, dtype=np.float32)
    residual, out = memory[:-5].reshape(y.shape), memory[5:].reshape(y.shape)
    wanted = y + residual
    numbaconv.conv2d(X, W, residual=residual, out=out, **ARGUMENTS)
    np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("weight_format", ["first", "last", "OxI"])
@pytest.mark.parametrize("transposed", [False, True])
def test_layouts(rank, weight_format, transposed):
    spatial = {1: "W", 2: "HW", 3: "DHW"}[rank]
    x = RNG.integers(-3, 4, (2, 3, 6, 5, 4)[: rank + 2]).astype(np.float64)
    w = RNG.integers(-3, 4, ((3, 2) if transposed else (2, 3)) + (3, 2, 2)[:rank]).astype(np.float64)
    name = f"conv_transpose{rank}d" if transposed else f"conv{rank}d"
    function, gradients = getattr(numbaconv, name), getattr(grad, f"{name}_backward")
    arguments = {"stride": 2, "padding": 1}
    y = function(x, w, **arguments)
    back = gradients(y, x, w, **arguments)
    stored, format_ = {
        "first": (w, f"OI{spatial}"),
        "last": (np.moveaxis(w, (0, 1), (-1, -2)), f"{spatial}IO"),
        "OxI": (np.moveaxis(w, 1, -1), f"O{spatial}I"),
    }[weight_format]
    last = np.moveaxis(x, 1, -1)
    for data_format in ("channels_last", f"N{spatial}C"):
        layout = {"data_format": data_format, "weight_format": format_, **arguments}
        answer = function(last, stored, **layout)
        np.testing.assert_array_equal(np.moveaxis(answer, -1, 1), y)
        found = gradients(answer, last, stored, **layout)
        np.testing.assert_array_equal(np.moveaxis(found.input, -1, 1), back.input)
        assert found.weight.shape == stored.shape
        np.testing.assert_array_equal(found.weight, stored_like(back.weight, weight_format))
        np.testing.assert_array_equal(found.bias, back.bias)
    np.testing.assert_array_equal(
        function(x, stored, weight_format=format_, data_format=f"NC{spatial}", **arguments), y
    )
    if weight_format == "last":  # the default of channels last
        np.testing.assert_array_equal(function(last, stored, data_format="channels_last", **arguments), answer)


def stored_like(w, weight_format):
    return {"first": w, "last": np.moveaxis(w, (0, 1), (-1, -2)), "OxI": np.moveaxis(w, 1, -1)}[weight_format]


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("last", [False, True])
def test_without_a_batch_axis(rank, last):
    x = RNG.standard_normal((1, 3, 6, 5, 4)[: rank + 2])
    w = RNG.standard_normal((2, 3, 3, 2, 2)[: rank + 2])
    layout = {"data_format": "channels_last" if last else None, "weight_format": ["OIW", "OIHW", "OIDHW"][rank - 1]}
    x = np.moveaxis(x, 1, -1) if last else x
    function, gradients = getattr(numbaconv, f"conv{rank}d"), getattr(grad, f"conv{rank}d_backward")
    y = function(x, w, **layout)
    alone = function(x[0], w, residual=np.zeros(y.shape[1:]), **layout)
    np.testing.assert_array_equal(alone, y[0])
    whole, single = gradients(y, x, w, **layout), gradients(alone, x[0], w, **layout)
    np.testing.assert_array_equal(single.input, whole.input[0])
    np.testing.assert_array_equal(single.weight, whole.weight)
    np.testing.assert_allclose(single.bias, whole.bias, rtol=1e-14)


MIXED = [
    ("float32", "float64", "float64"),
    ("float16", "float32", "float32"),
    ("bfloat16", "float32", "float32"),
    ("int8", "float32", "float32"),
    ("int32", "float32", "float64"),
    ("float32", "complex64", "complex64"),
    ("float64", "complex64", "complex128"),
    ("int8", "int16", "int64"),
    ("uint8", "int8", "int32"),
    ("uint8", "int32", "int64"),
    ("bfloat16", "int8", "bfloat16"),
    ("bfloat16", "float16", "float32"),
    ("bfloat16", "int16", "float32"),
    ("bfloat16", "int32", "float64"),
    ("bfloat16", "complex64", "complex64"),
    ("uint16", "int8", "int64"),
    ("uint64", "uint8", "uint64"),
    ("uint64", "float32", "float64"),
]


def dtype_of(name):
    return np.dtype(getattr(ml_dtypes, name, name))


@pytest.mark.parametrize(("first", "second", "result"), MIXED)
def test_mixed_dtypes(first, second, result):
    x, w = np.abs(X).astype(dtype_of(first)), np.abs(W).astype(dtype_of(second))
    wanted = numbaconv.conv2d(np.abs(X), np.abs(W), **ARGUMENTS)
    for pair in ((x, w), (np.abs(X).astype(dtype_of(second)), np.abs(W).astype(dtype_of(first)))):
        y = numbaconv.conv2d(*pair, **ARGUMENTS)
        assert y.dtype == dtype_of(result)
        np.testing.assert_array_equal(y, wanted.astype(dtype_of(result)))
    g = np.abs(wanted).astype(dtype_of(first))
    assert grad.conv2d_input(X.shape, w, g, **ARGUMENTS).dtype == dtype_of(result)


@pytest.mark.parametrize(
    ("operand", "bias", "result"),
    [
        ("float32", "float64", "float64"),
        ("float16", "float16", "float16"),
        ("float16", "float32", "float32"),
        ("int8", "int32", "int32"),
        ("int8", "int64", "int64"),
        ("int8", "float32", "float64"),
        ("float32", "int8", "float32"),
        ("uint64", "uint8", "uint64"),
    ],
)
def test_bias_and_residual_promote(operand, bias, result):
    x, w = (np.abs(each) if operand == "uint64" else each for each in (X, W))
    wanted = numbaconv.conv2d(x, w, **ARGUMENTS)
    x, w, b = x.astype(operand), w.astype(operand), np.arange(6).astype(bias)
    y = numbaconv.conv2d(x, w, b, **ARGUMENTS)
    assert y.dtype == result
    np.testing.assert_array_equal(y, wanted + np.arange(6)[:, None, None])
    y = numbaconv.conv2d(x, w, residual=np.full(wanted.shape, 2, bias), **ARGUMENTS)
    assert y.dtype == result
    np.testing.assert_array_equal(y, wanted + 2)


def test_half_precision_overflow_is_infinity_without_a_warning():
    x = np.full((1, 1, 4), 300, np.float16)
    assert np.isposinf(numbaconv.conv1d(x, np.full((1, 1, 1), 300, np.float16))).all()
    assert np.isposinf(grad.conv1d_bias(np.full((1, 1, 300), 300, np.float16))).all()


def test_nan_and_infinity_travel():
    x = np.zeros((1, 1, 5), np.float32)
    x[0, 0, 2] = np.inf
    y = numbaconv.conv1d(x, np.array([[[1, -1]]], np.float32))
    np.testing.assert_array_equal(y, [[[0, -np.inf, np.inf, 0]]])
    x[0, 0, 2] = np.nan
    np.testing.assert_array_equal(np.isnan(numbaconv.conv1d(x, np.ones((1, 1, 2), np.float32))), [[[0, 1, 1, 0]]])


def test_no_input_channels_gives_bias():
    y = numbaconv.conv2d(
        np.empty((2, 0, 5, 5), np.float32), np.empty((3, 0, 3, 3), np.float32), np.arange(3, dtype=np.float32)
    )
    np.testing.assert_array_equal(y, np.broadcast_to(np.arange(3)[:, None, None], (2, 3, 3, 3)))


def test_empty_batch():
    x, w = np.empty((0, 2, 5, 5), np.float32), np.ones((3, 2, 3, 3), np.float32)
    y = numbaconv.conv2d(x, w, np.ones(3, np.float32), activation="relu")
    assert y.shape == (0, 3, 3, 3)
    gradients = grad.conv2d_backward(y, x, w)
    assert gradients.input.shape == x.shape
    assert not gradients.weight.any()
    assert not gradients.bias.any()


def test_an_empty_result_can_be_out():
    x, w = np.ones((0, 2, 5)), np.ones((3, 2, 3))
    y = numbaconv.conv1d(x, w)
    assert numbaconv.conv1d(x, w, out=y) is y


def test_complex_padding_value_of_a_real_input():
    x, g = RNG.standard_normal((1, 1, 5)), RNG.standard_normal((1, 1, 5)) * (1 + 2j)
    arguments = {"padding": 1, "padding_mode": "constant", "padding_value": 1 + 2j}
    real, complex_ = (grad.conv1d_weight(each, (1, 1, 3), g, **arguments) for each in (x, x.astype(np.complex128)))
    np.testing.assert_allclose(real, complex_, rtol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_least_integer_pads(backend):
    for dtype, least in ((np.int8, -(2**31)), (np.int64, -(2**63))):
        ones, padding = np.ones((1, 1, 1), dtype), {"padding": 1, "padding_mode": "constant", "padding_value": least}
        np.testing.assert_array_equal(numbaconv.conv1d(ones, ones, backend=backend, **padding), [[[least, 1, least]]])
