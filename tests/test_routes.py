"""The lean road: a call like an earlier one finds its route at once, and only then."""

import threading
from functools import partial

import numpy as np
import pytest

import numbaconv
from numbaconv import DTypeError, dispatch, grad
from numbaconv.backends import base, registry
from numbaconv.plan import Geometry
from numbaconv.routes import Memory, plain

RNG = np.random.default_rng(41)
X = RNG.standard_normal((2, 4, 7, 6), dtype=np.float32)
W = RNG.standard_normal((6, 4, 3, 3), dtype=np.float32)
B = RNG.standard_normal(6, dtype=np.float32)
G = RNG.standard_normal((2, 6, 5, 4), dtype=np.float32)
LAST = np.ascontiguousarray(np.moveaxis(X, 1, -1))
DEPTHWISE = RNG.standard_normal((4, 1, 3, 3), dtype=np.float32)
POINTWISE = RNG.standard_normal((5, 4, 1, 1), dtype=np.float32)


@pytest.fixture(autouse=True)
def _nothing_remembered():
    dispatch._routes.clear()


class Size(tuple):
    """A shape as PyTorch's tensors have it."""


CALLS = {
    "conv2d": partial(numbaconv.conv2d, X, W),
    "conv": partial(numbaconv.conv, X, W, B, padding=((1, 0), (1, 2)), padding_mode="constant", padding_value=1.5),
    "with lists": partial(numbaconv.conv2d, X, W, stride=[1, 2], padding=[(1, 0), (1, 2)]),
    "NumPy integers": partial(numbaconv.conv2d, X, W, stride=np.int64(2), groups=np.uint8(1)),
    "channels last": partial(numbaconv.conv2d, LAST, W, data_format="NHWC", weight_format="OIHW"),
    "activation": partial(numbaconv.conv2d, X, W, B, activation="relu", residual=G),
    "transposed": partial(numbaconv.conv_transpose2d, G, W, stride=2, output_padding=1),
    "depthwise": partial(numbaconv.depthwise_conv2d, X, DEPTHWISE),
    "separable": partial(numbaconv.separable_conv2d, X, DEPTHWISE, POINTWISE),
    "by input": partial(grad.conv2d_input, X.shape, W, G),
    "by input, another size": partial(grad.conv2d_input, Size(X.shape), W, G),
    "by weight, a list": partial(grad.conv2d_weight, X, list(W.shape), G),
    "by weight": partial(grad.conv2d_weight, X, W.shape, G, stride=1, padding=(0, 0)),
    "backward": partial(grad.conv2d_backward, G, X, W),
    "transposed backward": partial(grad.conv_transpose2d_backward, X, G, W),
    "other dtypes": partial(numbaconv.conv2d, X.astype(np.int8), W.astype(np.int16)),
    "complex": partial(grad.conv2d_weight, X.astype(np.complex64), W.shape, G),
}


def arrays_of(found):
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("name", CALLS)
def test_the_second_call_checks_and_chooses_nothing(name, monkeypatch):
    call = CALLS[name]
    wanted = call()

    def never(*arguments, **named):
        raise AssertionError("this was found before")

    monkeypatch.setattr(Geometry, "of", never)
    monkeypatch.setattr(dispatch, "make_plan", never)
    monkeypatch.setattr(dispatch, "like_result", never)
    monkeypatch.setattr(base.Backend, "select", never)
    for found, value in zip(arrays_of(call()), arrays_of(wanted), strict=True):
        np.testing.assert_array_equal(found, value)
        assert not np.may_share_memory(found, value)


def test_a_prepared_convolution_neither(monkeypatch):
    prepared = numbaconv.prepare(W, B, padding=1)
    wanted = prepared(X)

    def never(*arguments, **named):
        raise AssertionError("this was found before")

    for place, name in ((Geometry, "of"), (dispatch, "make_plan"), (base.Backend, "select")):
        monkeypatch.setattr(place, name, never)
    np.testing.assert_array_equal(prepared(X), wanted)


def test_equal_arguments_that_are_not_the_same():
    """True, 1 and 1.0 are equal; a stride of 1 that was fine makes the others no better."""
    for _ in range(2):
        for one in (1, np.int64(1), (1, 1), [1, np.int32(1)]):
            numbaconv.conv2d(X, W, stride=one, padding=one, groups=1)
        for name in ("stride", "padding", "dilation", "groups"):
            for one in (True, 1.0, np.bool_(True), np.float64(1), 1 + 0j, np.timedelta64(1)):
                with pytest.raises(DTypeError, match=f"{name} must be an integer"):
                    numbaconv.conv2d(X, W, **{name: one})
        for one in ((True, 1), (1, 1.0), [1, True], ((1, 1), (1, True)), np.array([1.0, 1.0])):
            with pytest.raises(DTypeError, match="padding must be an integer"):
                numbaconv.conv2d(X, W, padding=one)


def test_zeros_that_are_equal():
    x, w = np.zeros((1, 1, 2)), np.ones((1, 1, 1))
    constant = {"padding": 1, "padding_mode": "constant"}
    for _ in range(2):
        values = []
        for zero in (0.0, -0.0, 0):
            numbaconv.conv1d(x, w, padding_value=zero, **constant)
            values.append(numbaconv.plan_conv(x.shape, w.shape, padding_value=zero, **constant).padding_value)
        assert [repr(value) for value in values] == ["0.0", "-0.0", "0"]
        assert [repr(route.plan.padding_value) for route in dispatch._routes._found.values()] == ["0.0", "-0.0", "0"]
        with pytest.raises(DTypeError, match="padding_value is 0j"):
            numbaconv.conv1d(x, w, padding_value=0j, **constant)


def test_what_cannot_be_told_apart_is_no_key():
    assert plain((1, "a", None)) == (1, "a", None)
    assert plain((1, (2, (3, [4])), np.int16(5))) == (1, (2, (3, (4,))), 5)
    assert plain((1.0,)) != plain((1,))
    assert plain((0.0,)) != plain((-0.0,))
    assert plain(((0.0, 1),)) != plain(((-0.0, 1),))
    endless = []
    endless.append(endless)
    for value in (True, np.bool_(True), float("nan"), np.zeros(2), object(), {1: 2}, iter((1, 2)), endless, (1, True)):
        assert plain((value,)) is None, value
    assert plain((np.timedelta64(1),)) is None  # which NumPy counts among its integers


def test_arguments_that_can_be_read_once():
    """Both gradients take them."""
    wanted = grad.conv2d_backward(G, X[:, :, :5], W, padding=((1, 1), (0, 0)))
    for _ in range(2):
        found = grad.conv2d_backward(G, X[:, :, :5], W, stride=iter((1, 1)), padding=zip((1, 0), (1, 0), strict=True))
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)


def test_lists_that_change():
    stride = [1, 1]
    for _ in range(2):
        for step in (1, 2):
            stride[0] = step
            np.testing.assert_array_equal(
                numbaconv.conv2d(X, W, stride=stride), numbaconv.conv2d(X, W, stride=(step, 1))
            )


def test_iterators_are_used_up():
    for _ in range(2):
        np.testing.assert_array_equal(
            numbaconv.conv2d(X, W, stride=iter((2, 1))), numbaconv.conv2d(X, W, stride=(2, 1))
        )


class Labelled(np.ndarray):
    pass


def unaligned(array):
    return np.frombuffer(b"." + array.tobytes(), np.uint8)[1:].view(array.dtype).reshape(array.shape)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.tolist(),
        lambda a: a.view(Labelled),
        lambda a: a.astype(a.dtype.newbyteorder()),
        unaligned,
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    ],
    ids=["lists", "subclass", "byte order", "unaligned", "Fortran", "spaced"],
)
def test_other_arrays_after_plain_ones(change):
    wanted = numbaconv.conv2d(X, W, B, residual=G)
    for x, w, b, g in ((change(X), W, B, G), (X, change(W), B, G), (X, W, change(B), G), (X, W, B, change(G))):
        for _ in range(2):
            found = numbaconv.conv2d(x, w, b, residual=g)
            assert type(found) is np.ndarray
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    for _ in range(2):
        with pytest.raises(DTypeError, match="masked array"):
            numbaconv.conv2d(np.ma.array(X), W)


def test_out_is_checked_each_time():
    wanted = numbaconv.conv2d(X, W)
    for _ in range(2):
        with pytest.raises(numbaconv.ShapeError, match="out has shape"):
            numbaconv.conv2d(X, W, out=wanted[0])
        frozen = wanted.copy()
        frozen.flags.writeable = False
        with pytest.raises(numbaconv.ArgumentError, match="out is read-only"):
            numbaconv.conv2d(X, W, out=frozen)
        w = W[:4]
        x = np.ascontiguousarray(X)
        whole = numbaconv.conv2d(x, w, padding=1)
        np.testing.assert_array_equal(numbaconv.conv2d(x, w, padding=1, out=x), whole)
        x[...] = X


def test_functions_are_told_apart_though_they_are_gone():
    """A function made anew may lie where an earlier one was."""
    wanted = numbaconv.conv2d(X, W)
    for factor in range(4):
        found = numbaconv.conv2d(X, W, activation=lambda v, factor=factor: v * factor, backend="reference")
        np.testing.assert_allclose(found, wanted * factor, rtol=1e-5, atol=1e-5)


def chosen():
    return [route.algorithm.name for route in dispatch._routes._found.values()]


def test_the_environment_rules_the_next_call(monkeypatch):
    for _ in range(2):
        numbaconv.conv2d(X, W)
        monkeypatch.setenv("NUMBACONV_ALGORITHM", "direct")
        numbaconv.conv2d(X, W)
        monkeypatch.setenv("NUMBACONV_ALGORITHM", "")
        numbaconv.conv2d(X, W)
        monkeypatch.delenv("NUMBACONV_ALGORITHM")
        monkeypatch.setenv("NUMBACONV_DISABLE", "implicit_gemm,direct")
        with pytest.raises(numbaconv.AlgorithmError, match="NUMBACONV_DISABLE"):
            numbaconv.conv2d(X, W, algorithm="direct")
        monkeypatch.setenv("NUMBACONV_DISABLE", "depthwise")
        numbaconv.conv2d(X, W)
        monkeypatch.delenv("NUMBACONV_DISABLE")
        monkeypatch.setenv("NUMBACONV_BACKEND", "reference")
        numbaconv.conv2d(X, W)
        monkeypatch.setenv("NUMBACONV_BACKEND", "abacus")
        with pytest.raises(numbaconv.BackendError, match="abacus"):
            numbaconv.conv2d(X, W)
        monkeypatch.delenv("NUMBACONV_BACKEND")
    automatic = numbaconv.explain(X.shape, W.shape).algorithm
    assert chosen() == [automatic, "direct", automatic, "numpy"]


def test_where_the_environment_has_no_dictionary(monkeypatch):
    monkeypatch.setattr(registry.os, "environ", {"NUMBACONV_ALGORITHM": "direct"})
    numbaconv.conv2d(X, W)
    assert chosen() == ["direct"]


def test_backends_of_the_thread_and_the_process():
    for _ in range(2):
        numbaconv.conv2d(X, W)
        with numbaconv.use_backend("reference"):
            numbaconv.conv2d(X, W)
            numbaconv.conv2d(X, W, backend="cpu")
        numbaconv.set_backend("reference")
        try:
            numbaconv.conv2d(X, W)
        finally:
            numbaconv.set_backend(None)
    assert chosen() == [numbaconv.explain(X.shape, W.shape).algorithm, "numpy"]


def test_a_backend_that_is_replaced_or_can_no_longer_be_used(monkeypatch):
    modules, loaded = dict(registry._modules), dict(registry._loaded)
    monkeypatch.setattr(registry, "_modules", modules)
    monkeypatch.setattr(registry, "_loaded", loaded)
    numbaconv.register_backend("other", "numbaconv.backends.reference")
    numbaconv.conv2d(X, W, backend="other")
    assert chosen() == ["numpy"]
    numbaconv.register_backend("other", "numbaconv.backends.cpu")
    numbaconv.conv2d(X, W, backend="other", algorithm=None)
    assert chosen() == [numbaconv.explain(X.shape, W.shape).algorithm]
    usable = registry._loaded["other"]
    broken = base.Backend("other", usable.tables, usable.activation_grad, unavailable=lambda: "it rains")
    monkeypatch.setitem(registry._loaded, "other", broken)
    with pytest.raises(numbaconv.BackendError, match="it rains"):
        numbaconv.conv2d(X, W, backend="other")


def test_the_memory_is_bounded():
    memory = Memory(3)
    for at in range(10):
        memory.put(at, -at)
    assert len(memory) == 3
    assert [memory.get(at) for at in range(6, 10)] == [None, -7, -8, -9]
    failures = []

    def fill(first):
        try:
            for at in range(first, first + 3000):
                memory.put(at, at)
                memory.get(at - 1)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=fill, args=(1000 * at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert len(memory) <= 3
    assert dispatch._routes._most <= 1024


def test_large_tables_are_not_remembered():
    """A reflected signal of many cells has a table as long, which a thousand routes must not keep."""
    x, w = np.ones((1, 1, 100_000), np.float32), np.ones((2, 1, 3), np.float32)
    for algorithm in ("implicit_gemm", "direct"):
        numbaconv.conv1d(x, w, padding=1, padding_mode="reflect", algorithm=algorithm)
    for route in dispatch._routes._found.values():
        assert kept_bytes(route.run) < 100_000


def kept_bytes(run):
    """Bytes of the arrays that a runner keeps alive."""
    todo, seen, total = [run], set(), 0
    while todo:
        each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, np.ndarray):
            total += each.nbytes
        elif isinstance(each, tuple | list):
            todo += each
        elif isinstance(each, partial):
            todo += [each.func, *each.args]
        elif getattr(each, "__closure__", None):
            todo += [cell.cell_contents for cell in each.__closure__]
    return total
