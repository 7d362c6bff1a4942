"""precision: who may say it, who is asked first, and that it reaches the choice of each call, remembered or not."""

import pickle
import sys
import threading

import numpy as np
import pytest

import numbaconv
from numbaconv import ArgumentError, DTypeError, grad, layers, plan_conv
from numbaconv.backends import registry
from numbaconv.layers import keras

#: A backend that says by its results what was allowed: 2 for TF32, 1 otherwise.
TOY = """
from numbaconv.backends.base import Algorithm, Backend, Direction

def fill(direction, value):
    def run(plan, x, w, y, epilogue):
        {"x": x, "w": w, "y": y}[direction.value].fill(value)
    return run

def table(direction):
    return (
        Algorithm(
            "rounding", lambda plan: None if plan.precision == "tf32" else "float32 is asked for", fill(direction, 2),
            lambda plan: 0.0, rounds_to_tf32=lambda plan: True,
        ),
        Algorithm("plain", lambda plan: None, fill(direction, 1), lambda plan: 0.0),
    )

BACKEND = Backend("toy", {d: table(d) for d in Direction}, activation_grad=None)
"""
RNG = np.random.default_rng(5)
X, W, G = (RNG.standard_normal(shape, dtype=np.float32) for shape in ((2, 4, 7), (6, 4, 3), (2, 6, 5)))
D, P = RNG.standard_normal((4, 1, 3), dtype=np.float32), RNG.standard_normal((6, 4, 1), dtype=np.float32)

CALLS = {
    "conv1d": lambda **o: numbaconv.conv1d(X, W, **o),
    "conv": lambda **o: numbaconv.conv(X, W, **o),
    "conv_transpose1d": lambda **o: numbaconv.conv_transpose1d(G, W, **o),
    "depthwise_conv1d": lambda **o: numbaconv.depthwise_conv1d(X, D, **o),
    "separable_conv1d": lambda **o: numbaconv.separable_conv1d(X, D, P, **o),
    "conv1d_input": lambda **o: grad.conv1d_input(X.shape, W, G, **o),
    "conv1d_weight": lambda **o: grad.conv1d_weight(X, W.shape, G, **o),
    "conv1d_backward": lambda **o: grad.conv1d_backward(G, X, W, output_mask=(True, False, False), **o).input,
    "conv_transpose1d_input": lambda **o: grad.conv_transpose1d_input(G.shape, W, X, **o),
    "conv_transpose1d_weight": lambda **o: grad.conv_transpose1d_weight(G, W.shape, X, **o),
    "conv_transpose1d_backward": lambda **o: grad.conv_transpose1d_backward(X, G, W, **o).weight,
    "prepare": lambda **o: numbaconv.prepare(W, **o)(X),
    "Conv1d": lambda **o: layers.Conv1d(4, 6, 3, **o)(X),
    "ConvTranspose1d": lambda **o: layers.ConvTranspose1d(4, 6, 3, **o)(X),
    "SeparableConv1d": lambda **o: layers.SeparableConv1d(4, 6, 3, **o)(X),
    "keras.Conv1D": lambda **o: keras.Conv1D(6, 3, **o)(X),
    "keras.Conv1DTranspose": lambda **o: keras.Conv1DTranspose(6, 3, **o)(X),
    "keras.DepthwiseConv1D": lambda **o: keras.DepthwiseConv1D(3, **o)(X),
    "keras.SeparableConv1D": lambda **o: keras.SeparableConv1D(6, 3, **o)(X),
}


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch):
    (tmp_path / "toy_module.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("NUMBACONV_PRECISION", raising=False)
    monkeypatch.setenv("NUMBACONV_CACHE_DIR", str(tmp_path / "cache"))
    numbaconv.register_backend("toy", "toy_module")
    yield
    registry._modules.pop("toy")
    registry._loaded.pop("toy", None)
    sys.modules.pop("toy_module", None)


def answer(name, **options):
    found = np.unique(CALLS[name](backend="toy", **options))
    assert found.size == 1
    return found[0]


@pytest.mark.parametrize("name", CALLS)
def test_every_function_and_layer_takes_it(name, monkeypatch):
    for _ in range(2):  # the second time routes are remembered
        assert answer(name) == 1
        assert answer(name, precision="tf32") == 2
        assert answer(name, precision="float32") == 1
        with numbaconv.use_precision("tf32"):
            assert answer(name) == 2
            assert answer(name, precision="float32") == 1
        monkeypatch.setenv("NUMBACONV_PRECISION", "tf32")
        assert answer(name) == 2
        assert answer(name, precision="float32") == 1
        with numbaconv.use_precision("float32"):
            assert answer(name) == 1
        monkeypatch.delenv("NUMBACONV_PRECISION")


def test_layers_differentiate_with_it():
    layer = layers.Conv1d(4, 6, 3, backend="toy", precision="tf32")
    layer(X)
    assert np.unique(layer.backward(G)) == np.unique(layer.weight_grad) == 2
    assert np.unique(layer.prepared()(X)) == 2


@pytest.mark.parametrize("name", CALLS)
def test_wrong_values(name, monkeypatch):
    for _ in range(2):
        for wrong in ("half", "TF32", ""):
            with pytest.raises(
                ArgumentError, match=f"precision must be 'strict', 'float32' or 'tf32', but is {wrong!r}"
            ):
                answer(name, precision=wrong)
        for wrong in (16, ["tf32"], np.float32, b"tf32"):
            with pytest.raises(DTypeError, match="precision must be 'strict', 'float32' or 'tf32', but is"):
                answer(name, precision=wrong)
        monkeypatch.setenv("NUMBACONV_PRECISION", "bf16")
        with pytest.raises(
            ArgumentError, match="NUMBACONV_PRECISION must be 'strict', 'float32' or 'tf32', but is 'bf16'"
        ):
            answer(name)
        assert answer(name, precision="tf32") == 2  # nobody asks it
        monkeypatch.setenv("NUMBACONV_PRECISION", "")  # as if it were not there
        assert answer(name) == 1
        monkeypatch.delenv("NUMBACONV_PRECISION")


def test_the_block_is_this_threads(monkeypatch):
    found = []
    monkeypatch.setenv("NUMBACONV_PRECISION", "float32")
    with numbaconv.use_precision("tf32"):
        other = threading.Thread(target=lambda: found.append(numbaconv.get_precision()))
        other.start()
        other.join()
        assert found == ["float32"]
        with numbaconv.use_precision("float32"):
            assert numbaconv.get_precision() == "float32"
        assert numbaconv.get_precision() == "tf32"
    assert numbaconv.get_precision() == "float32"
    for wrong, error in (("half", ArgumentError), (None, DTypeError)):
        with (
            pytest.raises(error, match="use_precision: name must be 'strict', 'float32' or 'tf32'"),
            numbaconv.use_precision(wrong),
        ):
            pass
    monkeypatch.setenv("NUMBACONV_PRECISION", "half")
    with pytest.raises(ArgumentError, match="NUMBACONV_PRECISION must be"):
        numbaconv.get_precision()


def test_plans():
    shapes = (2, 4, 7), (6, 4, 3)
    plain, allowed = plan_conv(*shapes), plan_conv(*shapes, precision="tf32")
    assert (plain.precision, allowed.precision) == ("float32", "tf32")
    assert plain != allowed
    assert pickle.loads(pickle.dumps(allowed)) == allowed
    assert "may round operands to TF32" in str(allowed)
    assert "TF32" not in str(plain)
    for dtype in ("float16", "bfloat16", "float64", "complex64", "int8"):
        one, other = plan_conv(*shapes, dtype=dtype), plan_conv(*shapes, dtype=dtype, precision="tf32")
        assert one == other
        assert hash(one) == hash(other)
        assert other.precision == "float32"
    with pytest.raises(ArgumentError, match="plan_conv: precision must be 'strict', 'float32' or 'tf32'"):
        plan_conv(*shapes, precision="half")


def test_operands_of_other_dtypes_are_not_concerned():
    wide = np.ones(6)  # makes a float64 result, and sums
    assert answer("conv1d", precision="tf32", bias=wide.astype(np.float32)) == 2
    assert answer("conv1d", precision="tf32", bias=wide) == 1
    for x, w in ((X.astype(np.float16), W.astype(np.float16)), (X.astype(np.float64), W)):
        assert np.unique(numbaconv.conv1d(x, w, backend="toy", precision="tf32")) == 1


def test_explain():
    shapes = X.shape, W.shape
    found = numbaconv.explain(*shapes, backend="toy", precision="tf32")
    assert found.algorithm == "rounding"
    assert found.rounding == "precision 'tf32': 'rounding' rounds operands to TF32 as it multiplies them"
    assert found.rounding in str(found)
    found = numbaconv.explain(*shapes, backend="toy")
    assert (found.algorithm, found.rounding) == ("plain", None)
    with numbaconv.use_precision("tf32"):
        assert numbaconv.explain(*shapes, backend="toy").algorithm == "rounding"
        assert numbaconv.prepare(W, backend="toy").explain(X.shape).algorithm == "rounding"
        for backend in ("cpu", "reference"):
            found = numbaconv.explain(*shapes, backend=backend)
            assert found.rounding is not None
            assert f"is allowed, but {found.algorithm!r} on backend {backend!r} keeps float32" in str(found)
    with pytest.raises(ArgumentError, match="explain: precision must be"):
        numbaconv.explain(*shapes, precision="half")


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_backends_without_it_give_the_same_bits(backend):
    with numbaconv.use_precision("tf32"):
        allowed = numbaconv.conv1d(X, W, backend=backend)
    np.testing.assert_array_equal(allowed, numbaconv.conv1d(X, W, backend=backend))


def test_tuning_is_for_one_precision():
    shapes = X.shape, W.shape
    with numbaconv.use_precision("tf32"):
        (allowed,) = numbaconv.tune(*shapes, backend="toy").rows
    (plain,) = numbaconv.tune(*shapes, backend="toy", precision="float32").rows
    assert sorted(allowed.seconds) == ["plain", "rounding"]
    assert sorted(plain.seconds) == ["plain"]
    assert answer("conv1d") == 1
    with pytest.raises(ArgumentError, match="tune: precision must be"):
        numbaconv.tune(*shapes, precision="half")


def test_where_the_environment_has_no_dictionary(monkeypatch):
    monkeypatch.setattr(registry.os, "environ", {"NUMBACONV_PRECISION": "tf32"})
    assert answer("conv1d") == 2
