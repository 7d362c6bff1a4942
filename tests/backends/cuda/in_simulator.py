"""Arrays on a device, in Numba's simulator, whose device memory is the host's: run by `test_simulator.py` alone."""

import ctypes
import sys
import types

import ml_dtypes
import numpy as np
import pytest
from numba import cuda

import numbaconv
from numbaconv import dispatch, grad
from numbaconv.backends.base import Direction
from numbaconv.device_arrays import DeviceArray, device_array
from problems import PROBLEMS, Problem, operands, run

RNG = np.random.default_rng(90)
X = RNG.standard_normal((2, 4, 6, 5), dtype=np.float32)
W = RNG.standard_normal((6, 2, 3, 3), dtype=np.float32)
B = RNG.standard_normal(6, dtype=np.float32)
OPTIONS = {
    "padding": ((1, 2), (2, 0)),
    "groups": 2,
    "stride": (2, 1),
    "padding_mode": ("reflect", "circular"),
}


def reference(function, *arguments, **options):
    """The answer for host arrays; other kernels than those under test would have to be compiled."""
    return function(*arguments, backend="reference", **options)


Y = reference(numbaconv.conv2d, X, W, **OPTIONS)
R = RNG.standard_normal(Y.shape, dtype=np.float32)
#: Its elements lie five bytes apart.
PACKED = np.zeros(Y.shape, np.dtype([("value", np.float32), ("flag", np.uint8)]))["value"]


def close(found, wanted):
    found = np.asarray(found.copy_to_host() if hasattr(found, "copy_to_host") else found)
    assert found.dtype == wanted.dtype
    eps = ml_dtypes.finfo(wanted.dtype).eps
    wide = np.complex128 if wanted.dtype.kind == "c" else np.float64
    np.testing.assert_allclose(found.astype(wide), wanted.astype(wide), rtol=50 * eps, atol=200 * eps)


class Interface:
    """Another library's array: memory, and what the CUDA array interface says of it."""

    def __init__(self, array, readonly=False, stream=None, mask=None):
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "strides": None if array.flags.c_contiguous else array.strides,
            "typestr": array.dtype.str,
            "data": (array.__array_interface__["data"][0], readonly),
            "version": 3,
            "stream": stream,
            "mask": mask,
        }


class Capsule:
    """An array that speaks DLPack, on a device by its own account."""

    def __init__(self, array, place=2):
        self.array, self.place = array, place

    def __dlpack_device__(self):
        return self.place, 0

    def __dlpack__(self, stream=None):
        return self.array.__dlpack__()


KINDS = {"numba": cuda.to_device, "interface": Interface, "dlpack": Capsule}


@pytest.mark.parametrize("kind", KINDS)
def test_results_stay_on_the_device(kind):
    there = KINDS[kind]
    for _ in range(2):
        y = numbaconv.conv2d(there(X), there(W), there(B), residual=there(R), activation="silu", **OPTIONS)
        assert type(y) is type(cuda.to_device(Y))
        close(y, reference(numbaconv.conv2d, X, W, B, residual=R, activation="silu", **OPTIONS))


def test_the_second_call_finds_its_route(monkeypatch):
    numbaconv.conv2d(cuda.to_device(X), cuda.to_device(W), **OPTIONS)

    def never(*arguments, **named):
        raise AssertionError("this was found before")

    monkeypatch.setattr(dispatch, "make_plan", never)
    close(numbaconv.conv2d(cuda.to_device(X), cuda.to_device(W), **OPTIONS), Y)


class Elsewhere(Capsule):
    """An array that speaks DLPack, in the host's memory."""

    def __init__(self, array):
        super().__init__(array, place=1)

    def __array__(self, dtype=None, copy=None):
        return self.array


def test_arrays_of_the_host_that_speak_dlpack():
    for call in (numbaconv.conv1d, numbaconv.prepare(_TWO[1])):
        y = call(Elsewhere(_TWO[0]), *([Elsewhere(_TWO[1])] if call is numbaconv.conv1d else []))
        assert type(y) is np.ndarray
    separable = numbaconv.separable_conv1d(Elsewhere(_TWO[0]), _TWO[1], _TWO[1], backend="reference")
    assert type(separable) is np.ndarray


def strided(array):
    room = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    room[..., ::2] = array
    return room[..., ::2]


def reversed_(array):
    return np.ascontiguousarray(array[::-1, ..., ::-1])[::-1, ..., ::-1]


def last(array):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


@pytest.mark.parametrize("view", [strided, reversed_, last, lambda a: np.broadcast_to(a[:1], a.shape)])
@pytest.mark.parametrize("direction", Direction)
def test_strides(view, direction):
    problem = PROBLEMS["3x3 same"]
    arrays = [view(each) for each in operands(problem, RNG, np.float32)]
    if direction is Direction.WEIGHT_GRAD:
        x, w, g = Interface(arrays[0]), types.SimpleNamespace(shape=arrays[1].shape), Interface(arrays[2])
    else:
        x, w, g = types.SimpleNamespace(shape=arrays[0].shape), Interface(arrays[1]), Interface(arrays[2])
        x = Interface(arrays[0]) if direction is Direction.FORWARD else x
    close(run(direction, problem, x, w, g), run(direction, problem, *arrays, backend="reference"))


#: Axes without taps before and behind, of one cell, and few of them behind: all of these fold.
FOLDED = [
    Problem(
        (5, 3, 4), (3, 1, 1), batch=2, c_in=4, c_out=2, groups=2, pads=((1, 2), (0, 0), (0, 0)), modes=("reflect",) * 3
    ),
    Problem((3, 4, 5), (1, 1, 3), batch=2, c_in=3, c_out=2, stride=(1, 1, 2)),
    Problem((6, 1, 5), (3, 1, 2), c_in=2, c_out=4, pads=((1, 1), (0, 0), (1, 0)), modes=("constant",) * 3, value=2),
    Problem((5, 6, 3), (3, 2, 1), c_in=4, c_out=4, groups=4, dilation=(1, 2, 1), pads=((1, 1), (2, 0), (0, 0))),
    Problem((7, 3), (3, 1), batch=2, c_in=3, c_out=5, pads=((2, 2), (0, 0)), modes=("symmetric", "zeros")),
]


@pytest.mark.parametrize("view", [lambda a: a, strided, reversed_, last, lambda a: np.broadcast_to(a[:1], a.shape)])
@pytest.mark.parametrize("problem", FOLDED)
@pytest.mark.parametrize("direction", Direction)
def test_strides_of_folded_axes(view, problem, direction):
    assert problem.plan().is_folded
    arrays = [view(each) for each in operands(problem, RNG, np.float32)]
    produced = {Direction.FORWARD: 2, Direction.INPUT_GRAD: 0, Direction.WEIGHT_GRAD: 1}[direction]
    given = [Interface(each) for each in arrays]
    if direction is not Direction.FORWARD:
        given[produced] = types.SimpleNamespace(shape=arrays[produced].shape)
    wanted = run(direction, problem, *arrays, backend="reference")
    close(run(direction, problem, *given), wanted)
    room = np.full((*wanted.shape[:-1], wanted.shape[-1] * 2), np.nan, np.float32)
    for out in (room[..., ::2], room[..., : wanted.shape[-1]], reversed_(wanted), last(wanted)):
        out[...] = np.nan
        there = Interface(out)
        assert run(direction, problem, *given, out=there) is there
        close(out, wanted)


def test_residuals_of_folded_axes():
    for problem in FOLDED:
        x, w, g = operands(problem, RNG, np.float32)
        for view in (lambda a: a, strided, reversed_, last):
            wanted = run(Direction.FORWARD, problem, x, w, g, backend="reference") + g
            there = [cuda.to_device(x), cuda.to_device(w), None]
            close(run(Direction.FORWARD, problem, *there, residual=Interface(view(g))), wanted)
            out = view(g.copy())
            same = Interface(out)
            assert run(Direction.FORWARD, problem, *there, residual=same, out=same) is same
            close(out, wanted)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "complex64", "int8", "uint64"])
def test_dtypes(dtype):
    x, w = ((each * 3).astype(getattr(ml_dtypes, dtype, dtype)) for each in (abs(X), abs(W)))
    wanted = reference(numbaconv.conv2d, x, w, **OPTIONS)
    found = numbaconv.conv2d(cuda.to_device(x), cuda.to_device(w), **OPTIONS)
    assert found.dtype == wanted.dtype
    if wanted.dtype.kind in "iu":
        np.testing.assert_array_equal(found.copy_to_host(), wanted)
    else:
        close(found, wanted)


def test_out():
    out = np.full((*Y.shape[:-1], Y.shape[-1] * 2), np.nan, np.float32)
    for given in (out[..., ::2], out[..., : Y.shape[-1]], reversed_(Y)):
        there = Interface(given)
        assert numbaconv.conv2d(cuda.to_device(X), cuda.to_device(W), out=there, **OPTIONS) is there
        close(given, Y)
    both = cuda.to_device(R)
    assert numbaconv.conv2d(cuda.to_device(X), cuda.to_device(W), residual=both, out=both, **OPTIONS) is both
    close(both, reference(numbaconv.conv2d, X, W, residual=R, **OPTIONS))


def test_residual_of_another_layout():
    found = numbaconv.conv2d(Interface(X), Interface(W), residual=Interface(last(R)), **OPTIONS)
    close(found, reference(numbaconv.conv2d, X, W, residual=R, **OPTIONS))
    found = numbaconv.conv2d(X, W, residual=last(R), backend="cuda", **OPTIONS)
    close(found, reference(numbaconv.conv2d, X, W, residual=R, **OPTIONS))


def test_gradients():
    there = cuda.to_device
    wanted = reference(grad.conv2d_backward, R, X, W, activation="relu", output=Y, **OPTIONS)
    found = grad.conv2d_backward(there(R), there(X), there(W), activation="relu", output=there(Y), **OPTIONS)
    for a, b in zip(found, wanted, strict=True):
        close(a, b)
    for last_ in (False, True):
        g = np.ascontiguousarray(np.moveaxis(R, 1, -1)) if last_ else R
        found = grad.conv2d_bias(there(g), data_format="NHWC" if last_ else None)
        close(found, grad.conv2d_bias(R))
    close(grad.conv1d_bias(there(np.ones((3, 500), np.float16))), np.full(3, 500, np.float16))


def test_complex_gradients_are_conjugated():
    x, w, g = (each + 1j * each[::-1] for each in (X, W, R))
    activation = (lambda v: v * v, lambda v: 2 * v)
    options = {**OPTIONS, "activation": activation}
    wanted = reference(grad.conv2d_backward, g, x, w, pre_activation=g, **options)
    there = cuda.to_device
    found = grad.conv2d_backward(there(g), there(x), there(w), pre_activation=there(g), **options)
    for a, b in zip(found, wanted, strict=True):
        close(a, b)


@pytest.mark.parametrize("there", [np.asarray, cuda.to_device], ids=["host", "device"])
def test_prepared(there):
    """Host weights and host or device inputs; device weights, too."""
    wanted = reference(numbaconv.conv2d, X, W, B, activation="relu", **OPTIONS)
    for prepared in (
        numbaconv.prepare(W, B, activation="relu", backend="cuda", **OPTIONS),
        numbaconv.prepare(cuda.to_device(W), cuda.to_device(B), activation="relu", backend="cuda", **OPTIONS),
    ):
        for _ in range(2):
            y = prepared(there(X))
            assert type(y) is type(there(Y))
            close(y, wanted)
        assert len(prepared._ready) == len(prepared._packed) == 1


def test_separable_and_depthwise():
    depthwise, pointwise = RNG.standard_normal((4, 1, 3, 3)), RNG.standard_normal((5, 4, 1, 1))
    x = X.astype(np.float64)
    there = cuda.to_device
    close(
        numbaconv.separable_conv2d(there(x), there(depthwise), there(pointwise)),
        reference(numbaconv.separable_conv2d, x, depthwise, pointwise),
    )
    keras = RNG.standard_normal((3, 3, 5, 2))
    close(
        numbaconv.depthwise_conv2d(there(x), there(keras), data_format="NHWC"),
        reference(numbaconv.depthwise_conv2d, x, keras, data_format="NHWC"),
    )


def test_explain_counts_transfers():
    found = numbaconv.explain(X.shape, W.shape, backend="cuda", bias=True, **OPTIONS)
    assert found.transfers == (X.nbytes + W.nbytes + B.nbytes, Y.nbytes)
    assert f"{X.nbytes + W.nbytes + B.nbytes:,} bytes to the device, {Y.nbytes:,} back" in str(found)
    assert numbaconv.explain(X.shape, W.shape, **OPTIONS).transfers is None


def test_tune():
    row = numbaconv.tune((1, 2, 6), (2, 2, 3), backend="cuda").rows[0]
    assert "direct" in row.seconds


def test_indices_of_64_bits():
    """A stride over padding that nothing could hold: only 64 bits can count there."""
    far = 2**33
    y = numbaconv.conv1d(
        np.array([[[5.0, 7.0]]]), np.array([[[2.0]]]), stride=far, padding=((far, far),), backend="cuda"
    )
    np.testing.assert_array_equal(y, [[[0.0, 10.0, 0.0]]])
    g = numbaconv.grad.conv1d_input(
        (1, 1, 2), np.array([[[2.0]]]), np.ones((1, 1, 3)), stride=far, padding=((far, far),), backend="cuda"
    )
    np.testing.assert_array_equal(g, [[[2.0, 0.0]]])
    g = numbaconv.grad.conv1d_weight(
        np.array([[[5.0, 7.0]]]), (1, 1, 1), np.ones((1, 1, 3)), stride=far, padding=((far, far),), backend="cuda"
    )
    np.testing.assert_array_equal(g, [[[5.0]]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda d: numbaconv.conv2d(d(X), W, groups=2),
            "ArgumentError",
            "input is on a device, but weight is in the host",
        ),
        (lambda d: numbaconv.conv2d(X, d(W), groups=2), "ArgumentError", "weight is on a device, but input is in"),
        (
            lambda d: numbaconv.conv2d(d(X), d(W), B, groups=2),
            "ArgumentError",
            "input and weight are .* but bias is in",
        ),
        (lambda d: numbaconv.conv2d(X, W, groups=2, out=d(Y)), "DTypeError", "out must be a NumPy array"),
        (lambda d: numbaconv.conv2d(d(X), d(W), groups=2, out=Y), "DTypeError", "so out must be, but it is ndarray"),
        (lambda d: numbaconv.conv2d(d(X), d(W), groups=2, out=d(Y)), "ShapeError", "out has shape"),
        (lambda d: numbaconv.conv2d(X, W, groups=2, stream=0), "ArgumentError", "stream is for arrays on a device"),
        (lambda d: numbaconv.separable_conv2d(X, W, W, stream=0), "ArgumentError", "stream is for arrays on a device"),
        (lambda d: grad.conv2d_bias(Y, stream=0), "ArgumentError", "stream is for arrays on a device"),
        (lambda d: numbaconv.conv2d(d(X), d(W), groups=2, stream="a"), "DTypeError", "stream must be a CUDA stream"),
        (lambda d: numbaconv.conv2d(d(X), d(W), groups=2, backend="cpu"), "BackendError", "choose backend 'cuda'"),
        (
            lambda d: numbaconv.unfold(d(X), (3, 3)),
            "DTypeError",
            "on a device, but unfold computes in the host",
        ),
        (lambda d: grad.conv2d_bias(d(Y), backend="reference"), "BackendError", "choose backend 'cuda'"),
        (lambda d: grad.conv2d_bias(d(Y), activation="relu", output=Y), "ArgumentError", "output is in the host"),
        (
            lambda d: numbaconv.conv2d(Interface(X, mask=1), d(W)),
            "DTypeError",
            "input is on a device, but it is masked",
        ),
        (
            lambda d: numbaconv.conv2d(Interface(X[..., :3]), d(W), out=Interface(X[..., :3])),
            "",
            "weight has 2 channels",
        ),
        (
            lambda d: numbaconv.conv2d(d(X), d(W), out=Interface(Y, readonly=True), **OPTIONS),
            "ArgumentError",
            "out is read-only",
        ),
        (lambda d: numbaconv.conv1d(*two(), out=same(two())), "ArgumentError", "out overlaps an operand"),
        (
            lambda d: numbaconv.conv2d(d(X), d(W), out=Interface(PACKED), **OPTIONS),
            "ArgumentError",
            "out is on a device, where it must be aligned",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(getattr(numbaconv, error or "ConvError"), match=message):
        call(cuda.to_device)


_TWO = np.ones((1, 1, 4), np.float32), np.ones((1, 1, 1), np.float32)


def two():
    return [Interface(each) for each in _TWO]


def same(arrays):
    return arrays[0]


def test_forms_of_streams():
    """An integer, and what PyTorch, CuPy, Numba and cuda-core call a stream's handle."""
    from numbaconv.device_arrays import handle_of

    forms = [
        7,
        types.SimpleNamespace(cuda_stream=7),
        types.SimpleNamespace(ptr=7),
        types.SimpleNamespace(__cuda_stream__=lambda: (0, 7)),
        types.SimpleNamespace(handle=ctypes.c_void_p(7)),
    ]
    assert [handle_of("conv", form) for form in forms] == [7] * 5


def test_streams_of_operands():
    found = device_array(Interface(X, stream=5))
    assert found.stream == 5
    assert found.on(9).stream == 9
    assert device_array(Capsule(X, place=1)) is None


def test_cupy(monkeypatch):
    """Results are CuPy's, made on its device and stream, whose handle is where kernels run."""
    made = []

    class Context:
        def __init__(self, *given):
            self.given, self.id, self.ptr = given, 0, 0

        def __enter__(self):
            made.append(self.given)

        def __exit__(self, *given):
            return None

    class Array(Interface):
        device = Context()
        dtype = np.dtype(np.float32)

    Array.__module__ = "cupy"
    module = types.ModuleType("cupy")
    module.empty = lambda shape, dtype: Array(np.empty(shape, dtype))
    module.cuda = types.SimpleNamespace(
        Device=Context, ExternalStream=Context, get_current_stream=lambda device: Context()
    )
    monkeypatch.setitem(sys.modules, "cupy", module)
    y = numbaconv.conv2d(Array(X), Array(W), **OPTIONS)
    assert type(y) is Array
    close(y.array, Y)
    assert made == [(0,), (0, 0)]


def test_views_of_device_arrays():
    found = device_array(Interface(last(X)))
    assert isinstance(found, DeviceArray)
    seen = found[(slice(None), None)]
    assert seen.shape == (2, 1, 4, 6, 5)
    with pytest.raises(numbaconv.ArgumentError, match="contiguous"):
        found.reshape(2, 120)
    low, high = device_array(Interface(reversed_(X))).bounds()
    assert high - low == X.nbytes
