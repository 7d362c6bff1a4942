"""Layers: they call the functions with their own parameters, and keep what gradients and files need."""

import pickle
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

import numbaconv
from numbaconv import grad, layers
from numbaconv.errors import ArgumentError, DTypeError, ShapeError
from numbaconv.layers import keras

#: Every class with constructor arguments that nothing else follows from.
CASES = [
    (layers.Conv1d, (4, 6, 3, 2, 1, 2, 2), {}),
    (layers.Conv2d, (4, 6, (3, 2), (2, 1), (1, 0), 1, 2), {"padding_mode": "reflect"}),
    (layers.Conv3d, (4, 6, 3), {"padding": "same", "bias": False}),
    (layers.ConvTranspose1d, (4, 6, 3, 2, 1, 1, 2), {}),
    (layers.ConvTranspose2d, (4, 6, (3, 2), 2, 1, 1, 2), {"bias": False}),
    (layers.ConvTranspose3d, (4, 6, 2), {"dilation": 2}),
    (layers.SeparableConv1d, (4, 6, 3, 2, 1, 2, 2), {}),
    (layers.SeparableConv2d, (4, 6, 3), {"bias": False}),
    (layers.SeparableConv3d, (4, 6, 2), {"padding": "causal"}),
    (keras.Conv1D, (6, 3, 2, "causal", None, 1, 2), {}),
    (keras.Conv2D, (6, 3), {"padding": "same", "data_format": "channels_first"}),
    (keras.Conv3D, (6, 2), {"use_bias": False}),
    (keras.Conv1DTranspose, (6, 3, 2), {"padding": "same"}),
    (keras.Conv2DTranspose, (6, (3, 2), (2, 3)), {}),
    (keras.Conv3DTranspose, (6, 2), {"data_format": "channels_first"}),
    (keras.DepthwiseConv1D, (3,), {"depth_multiplier": 2}),
    (keras.DepthwiseConv2D, (3, 2, "same"), {"use_bias": False}),
    (keras.SeparableConv1D, (6, 3), {"depth_multiplier": 2}),
    (keras.SeparableConv2D, (6, 3, 2), {"data_format": "channels_first"}),
]
IDS = [case[0].__name__ for case in CASES]


def made(case, **options):
    kind, arguments, more = case
    return kind(*arguments, **{"seed": 3, **more, **options})


def input_of(layer, rng, dtype=np.float64):
    first = layer._formats["data_format"] in (None, "channels_first")
    spatial = (7, 6, 5)[: layer.rank]
    return rng.standard_normal((2, 4, *spatial) if first else (2, *spatial, 4)).astype(dtype)


def slope(function, array, direction, step=1e-6):
    """The derivative of a function of the array's values, along a direction."""
    before = array.copy()
    values = []
    for sign in (1, -1):
        array[...] = before + sign * step * direction
        values.append(function())
    array[...] = before
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("activation", [None, "tanh", "silu"])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_gradients_are_derivatives(case, activation):
    """Of the input and of every parameter: the inner product with a direction is the slope along it."""
    rng = np.random.default_rng(0)
    layer = made(case, dtype=np.float64, activation=activation)
    x = input_of(layer, rng)
    g = rng.standard_normal(layer(x).shape)
    gradients = {"input": layer.backward(g)} | layer.gradients()
    arrays = {"input": x} | layer.state_dict()
    assert gradients.keys() == arrays.keys()
    for name, array in arrays.items():
        assert gradients[name].shape == array.shape
        direction = rng.standard_normal(array.shape)
        wanted = slope(lambda: float(np.vdot(layer(x), g)), array, direction)
        assert np.vdot(gradients[name], direction) == pytest.approx(wanted, rel=1e-6, abs=1e-6), name


def test_a_layer_is_the_function():
    """To the bit, in all that it takes; what differs from the function's names is tested against PyTorch and Keras."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 4, 9, 8), dtype=np.float32)
    layer = layers.Conv2d(4, 6, 3, 2, 1, 2, 2, padding_mode="circular", activation="gelu", seed=5)
    arguments = {"stride": 2, "padding": 1, "dilation": 2, "groups": 2, "padding_mode": "circular"}
    y = numbaconv.conv2d(x, layer.weight, layer.bias, **arguments, activation="gelu")
    np.testing.assert_array_equal(layer(x), y)
    g, pre = np.ones_like(y), numbaconv.conv2d(x, layer.weight, layer.bias, **arguments)
    wanted = grad.conv2d_backward(g, x, layer.weight, **arguments, activation="gelu", pre_activation=pre)
    np.testing.assert_array_equal(layer.backward(g), wanted.input)
    np.testing.assert_array_equal(layer.weight_grad, wanted.weight)
    np.testing.assert_array_equal(layer.bias_grad, wanted.bias)
    np.testing.assert_array_equal(layer.prepared()(x), y)
    last = layers.Conv2d(4, 6, 3, data_format="NHWC", seed=5)
    first = layers.Conv2d(4, 6, 3, seed=5)
    np.testing.assert_allclose(last(np.moveaxis(x, 1, -1)), np.moveaxis(first(x), 1, -1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_facts_need_no_call(case):
    rng = np.random.default_rng(2)
    layer, asked = made(case), made(case)
    x = input_of(layer, rng, np.float32)
    y = layer(x)
    assert asked.output_shape(x.shape) == y.shape
    assert sum(plan.parameters for plan in asked.plans(x.shape)) == layer.parameter_count
    assert layer.parameter_count == sum(array.size for array in layer.state_dict().values())


def test_receptive_fields():
    assert layers.Conv2d(1, 1, 3, 2, 1, 4).receptive_field == ((9, 9), (2, 2), (-1, -1))
    assert layers.Conv1d(1, 1, 5, padding="causal").receptive_field == ((5,), (1,), (-4,))
    assert layers.SeparableConv2d(2, 2, (3, 5), padding="same").receptive_field == ((3, 5), (1, 1), (-1, -2))
    assert keras.Conv3D(1, 2, padding=((1, 0), (0, 0), (1, 1))).receptive_field.offset == (-1, 0, -1)
    with pytest.raises(ArgumentError, match="depends on the input's extent"):
        _ = keras.Conv2D(1, 3, 2, "same").receptive_field
    with pytest.raises(ArgumentError, match="transposed"):
        _ = layers.ConvTranspose2d(1, 1, 3).receptive_field


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_seeds(case):
    rng = np.random.default_rng(3)
    same, again, other = made(case), made(case), made(case, seed=np.random.default_rng(4))
    x = input_of(same, rng, np.float32)
    assert (same(x) == again(x)).all()
    assert (same(x) != other(x)).any()


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_files(case, ending, tmp_path):
    rng = np.random.default_rng(5)
    layer, other = made(case), made(case, seed=6)
    x = input_of(layer, rng, np.float32)
    y = layer(x)
    other(x)
    layer.save(tmp_path / f"layer.{ending}")
    other.load(tmp_path / f"layer.{ending}")
    assert (other(x) == y).all()
    assert (pickle.loads(pickle.dumps(layer))(x) == y).all()


def test_safetensors_is_the_library_s(tmp_path):
    """Its own reader finds what was written; bfloat16, which its reader for NumPy does not know, comes back too."""
    from safetensors import safe_open

    layer = keras.Conv2D(8, 3, seed=0)
    layer.build((1, 5, 5, 2))
    layer.save(tmp_path / "layer.safetensors")
    with safe_open(tmp_path / "layer.safetensors", framework="np") as file:
        assert sorted(file.keys()) == ["bias", "weight"]
        np.testing.assert_array_equal(file.get_tensor("weight"), layer.weight.transpose(3, 2, 0, 1))
    half = layers.Conv2d(2, 8, 3, dtype=ml_dtypes.bfloat16, seed=0)
    half.save(tmp_path / "half.safetensors")
    found = layers.load_arrays(tmp_path / "half.safetensors")
    assert found["weight"].dtype == ml_dtypes.bfloat16
    assert (found["weight"] == half.weight).all()
    with pytest.raises(DTypeError, match="bfloat16"):
        half.save(tmp_path / "half.npz")


def test_a_missing_library_is_named_with_its_command(tmp_path):
    program = (
        "import sys; sys.modules['safetensors'] = None\n"
        "from numbaconv import layers\n"
        f"layers.Conv2d(1, 1, 1, seed=0).save({str(tmp_path / 'layer.safetensors')!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "needs safetensors: pip install 'numbaconv[safetensors]'" in done.stderr


def test_keras_layers_are_built_for_extents_that_are_not_known():
    for shape, data_format in (
        ((None, 8, None, 2), None),
        ((None, 2, None, None), "channels_first"),
        ((8, None, 2), None),
    ):
        for layer in (keras.Conv2D(3, 3, dilation_rate=2, data_format=data_format), keras.SeparableConv2D(3, 3)):
            layer.build(shape if data_format is None or type(layer) is keras.Conv2D else (None, 8, 8, 2))
            assert layer.parameter_count == (57 if type(layer) is keras.Conv2D else 27)
    with pytest.raises(DTypeError, match="None"):
        keras.Conv2D(3, 3).build((None, 8, 8, None))
    with pytest.raises(ShapeError, match="4 axes"):
        keras.Conv2D(3, 3).build((None, 2))


def test_states_share_memory():
    """What is written into a state is written into the layer, in PyTorch's order or not."""
    for layer in (layers.Conv2d(2, 3, 3), keras.Conv2D(3, 3), keras.DepthwiseConv2D(3)):
        if hasattr(layer, "build"):
            layer.build((1, 5, 5, 2))
        layer.state_dict()["weight"][...] = 7
        assert (layer.weight == 7).all()


def test_subclasses():
    """A layer of somebody's own keeps what it was made from, and its documentation."""

    class Own(keras.Conv2DTranspose):
        rank = 2

    assert Own(3, 2, 2)(np.ones((1, 4, 4, 2), np.float32)).shape == (1, 8, 8, 3)
    assert "keras.layers.Conv2DTranspose" in keras.Conv2DTranspose.__doc__


def test_what_is_refused():
    layer = layers.Conv2d(2, 3, 3, seed=0)
    before = layer.weight.copy()
    with pytest.raises(ArgumentError, match="follows a call"):
        layer.backward(np.ones((1, 3, 3, 3), np.float32))
    with pytest.raises(ArgumentError, match=r"has \['bias', 'weight'\], but the state has \['weight'\]"):
        layer.load_state_dict({"weight": before})
    with pytest.raises(ShapeError, match=r"bias has shape \(4,\), but the layer's has \(3,\)"):
        layer.load_state_dict({"weight": before + 1, "bias": np.zeros(4)})
    for wrong in (np.zeros(3, complex), np.full(3, "a")):
        with pytest.raises(DTypeError, match="bias has dtype"):
            layer.load_state_dict({"weight": before + 1, "bias": wrong})
    assert (layer.weight == before).all()
    with pytest.raises(ArgumentError, match="groups 3 must divide 4 input and 6 output"):
        layers.Conv2d(4, 6, 3, groups=3)
    with pytest.raises(ArgumentError, match="at least 1"):
        layers.Conv1d(0, 6, 3)
    with pytest.raises(ArgumentError, match="kernel_size has 3 entries"):
        layers.ConvTranspose2d(4, 6, (3, 3, 3))
    with pytest.raises(DTypeError, match="int32"):
        layers.Conv1d(1, 1, 1, dtype=np.int32)
    with pytest.raises(ArgumentError, match="'softplus'"):
        layers.Conv1d(1, 1, 1, activation="softplus")
    with pytest.raises(ArgumentError, match="data_format"):
        layers.Conv1d(1, 1, 1, data_format="NHWC")
    with pytest.raises(numbaconv.BackendError):
        layers.Conv1d(1, 1, 1, backend="nowhere")
    with pytest.raises(ArgumentError, match=r"ends in '\.pt'"):
        layer.save("weights.pt")


def test_what_keras_layers_refuse():
    layer = keras.Conv2D(3, 3)
    with pytest.raises(ArgumentError, match="no parameters before the first call"):
        layer.state_dict()
    with pytest.raises(AttributeError, match="no weight before its first call"):
        _ = layer.weight
    with pytest.raises(ShapeError, match="4 axes"):
        layer(np.ones((5, 2), np.float32))
    with pytest.raises(ShapeError, match="spans 3 cells"):
        layer.build((1, 2, 2, 2))
    assert not layer.built
    layer(np.ones((1, 5, 5, 2), np.float32))
    with pytest.raises(ArgumentError, match="built already, for 2"):
        layer.build((1, 5, 5, 2))
    with pytest.raises(ShapeError):
        layer(np.ones((1, 5, 5, 4), np.float32))
    with pytest.raises(ShapeError, match="weights have shapes"):
        layer.set_weights([np.ones((3, 3, 2, 3))])
    with pytest.raises(ArgumentError, match="'valid' or 'same'"):
        keras.Conv1DTranspose(1, 1, padding="same_lower")
    plain = layers.Conv2d(1, 1, 1, activation=abs, seed=0)
    plain(np.ones((1, 1, 1, 1), np.float32))
    with pytest.raises(ArgumentError, match="without a derivative"):
        plain.backward(np.ones((1, 1, 1, 1), np.float32))


def test_a_package_without_layers_imports_quickly():
    """Layers come when they are asked for, by attribute, too."""
    program = "import sys, numbaconv; assert 'numbaconv.layers' not in sys.modules; numbaconv.layers.Conv2d"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
