"""Layers beside Keras' own, which computes with PyTorch: arguments, kernels, initial bounds, outputs."""

import inspect
import os
import warnings

import numpy as np
import pytest

from numbaconv.layers import keras as mine

pytest.importorskip("torch", minversion="2.0")
os.environ.setdefault("KERAS_BACKEND", "torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what its libraries say of each other is not the matter
    keras = pytest.importorskip("keras", minversion="3.0")

# Keras' own variables answer NumPy 2 in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CASES = {
    "Conv1D": [((6, 3, 2, "causal"), {}), ((6, 4, 2, "same"), {"groups": 2, "activation": "leaky_relu"})],
    "Conv2D": [
        ((6, 3), {}),
        ((6, (3, 4), 2, "same"), {"activation": "swish"}),
        ((6, 3, 1, "same"), {"dilation_rate": 2, "activation": "gelu", "use_bias": False}),
    ],
    "Conv3D": [((6, 2, 2, "same"), {}), ((6, 3), {"activation": "hard_silu"})],
    "Conv1DTranspose": [((6, 3, 2), {}), ((6, 2, 3, "same"), {})],
    "Conv2DTranspose": [
        ((6, 2, 2, "same"), {"activation": "relu"}),
        ((6, (5, 3), (2, 3), "valid", 1), {}),
        ((6, 3, 2, "same", 0), {}),
    ],
    "Conv3DTranspose": [((6, 3, 1, "same"), {}), ((6, 2, 3), {})],
    "DepthwiseConv1D": [((3,), {"depth_multiplier": 2}), ((3, 2, "same"), {})],
    "DepthwiseConv2D": [((3, 2, "same", 2), {"activation": "relu6"}), (((3, 2),), {"use_bias": False})],
    "SeparableConv1D": [((6, 3), {"depth_multiplier": 3}), ((6, 3, 2, "same"), {"activation": "tanh"})],
    "SeparableConv2D": [((6, 3, 1, "same"), {}), ((6, (2, 3)), {"dilation_rate": 2, "use_bias": False})],
}
EVERY = [(name, *case) for name, cases in CASES.items() for case in cases]
#: Keras has causal padding for channels last alone.
FIRST = [case for case in EVERY if "causal" not in case[1]]
IN_BOTH = [(*case, "channels_last") for case in EVERY] + [(*case, "channels_first") for case in FIRST]


@pytest.mark.parametrize(("name", "arguments", "options", "data_format"), IN_BOTH, ids=lambda value: str(value))
def test_like_keras(name, arguments, options, data_format):
    layer, other = (
        getattr(each, name)(*arguments, **options, data_format=data_format) for each in (mine, keras.layers)
    )
    spatial = (9, 8, 7)[: layer.rank]
    shape = (2, *spatial, 4) if data_format == "channels_last" else (2, 4, *spatial)
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    assert layer.output_shape(x.shape) == tuple(other.compute_output_shape(x.shape))
    assert layer(x).shape == tuple(other(x).shape)
    assert [each.shape for each in layer.get_weights()] == [each.shape for each in other.get_weights()]
    rng = np.random.default_rng(1)
    other.set_weights([rng.standard_normal(each.shape) for each in other.get_weights()])
    layer.set_weights(other.get_weights())
    np.testing.assert_allclose(layer(x), keras.ops.convert_to_numpy(other(x)), rtol=1e-4, atol=1e-4)
    assert layer.parameter_count == other.count_params()


@pytest.mark.parametrize("name", CASES)
def test_the_same_arguments(name):
    """Keras', in its order, as far as there is something here that they mean."""
    ours, theirs = (list(inspect.signature(getattr(each, name)).parameters.values()) for each in (mine, keras.layers))
    named = [each.name for each in ours if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert [each.name for each in theirs if each.name in named] == named
    left = {each.name.rsplit("_", 1)[-1] for each in theirs if each.name not in named}
    assert left <= {"initializer", "regularizer", "constraint", "kwargs"}


@pytest.mark.parametrize(("name", "arguments", "options"), EVERY, ids=lambda value: str(value))
def test_initial_parameters(name, arguments, options):
    """Glorot uniform as Keras counts fans: both reach close to the same bound; biases begin with zeros."""
    if name.startswith(("Conv", "Separable")):
        arguments = (64, *arguments[1:])
    layer = getattr(mine, name)(*arguments, **options, seed=0)
    other = getattr(keras.layers, name)(*arguments, **options)
    shape = (1, *(9, 8, 7)[: layer.rank], 64)
    layer.build(shape)
    other.build(shape)
    for ours, theirs in zip(layer.get_weights(), other.get_weights(), strict=True):
        if ours.ndim == 1:
            assert not ours.any()
            assert not theirs.any()
        else:
            assert abs(ours).max() == pytest.approx(abs(theirs).max(), rel=0.05)
            assert ours.std() == pytest.approx(theirs.std(), rel=0.15)
