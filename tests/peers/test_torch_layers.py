"""Layers beside ``torch.nn``'s: the same names, shapes and bounds of parameters; the same outputs and gradients."""

import inspect

import numpy as np
import pytest

from numbaconv import layers

torch = pytest.importorskip("torch", minversion="2.0")
nn = torch.nn

#: Constructor arguments, the same for both.
CASES = {
    "Conv1d": [((4, 6, 3), {}), ((4, 6, 4, 2, 3, 2, 2, False, "replicate"), {}), ((4, 6, 4), {"padding": "same"})],
    "Conv2d": [((4, 6, (3, 5), 2, (1, 2), 1, 2), {}), ((4, 6, 3), {"padding": 2, "padding_mode": "circular"})],
    "Conv3d": [((4, 6, 3, 2, 1), {}), ((4, 4, 2, 1, 1, 2, 4, True, "reflect"), {})],
    "ConvTranspose1d": [((4, 6, 3), {}), ((4, 6, 4, 3, 1, 2, 2, False, 2), {})],
    "ConvTranspose2d": [((4, 6, (3, 4), 2, 1, 1, 2), {}), ((4, 6, 3), {"dilation": (1, 2)})],
    "ConvTranspose3d": [((4, 6, 2, 2), {}), ((4, 6, 3, (1, 2, 1)), {"padding": 1})],
}
EVERY = [(name, *case) for name, cases in CASES.items() for case in cases]


def near(found, wanted):
    np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize(("name", "arguments", "options"), EVERY, ids=lambda value: str(value))
def test_like_torch(name, arguments, options):
    mine = getattr(layers, name)(*arguments, **options, dtype=np.float64, seed=0)
    theirs = getattr(nn, name)(*arguments, **options, dtype=torch.float64)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict({key: torch.from_numpy(array.copy()) for key, array in mine.state_dict().items()})
    x = np.random.default_rng(1).standard_normal((2, 4, *(9, 8, 7)[: mine.rank]))
    tensor = torch.from_numpy(x).requires_grad_()
    output = theirs(tensor)
    near(mine(x), output)
    g = np.random.default_rng(2).standard_normal(output.shape)
    output.backward(torch.from_numpy(g))
    near(mine.backward(g), tensor.grad)
    gradients = mine.gradients()
    for key, parameter in theirs.named_parameters():
        near(gradients[key], parameter.grad)
    theirs.weight.data += 1
    mine.load_state_dict({key: value.detach() for key, value in theirs.state_dict().items()})
    near(mine(x[0]), theirs(tensor[0]))


@pytest.mark.parametrize("name", CASES)
def test_the_same_arguments(name):
    """PyTorch's, in its order, but for the device; what is added is given by name."""
    mine, theirs = (list(inspect.signature(getattr(each, name)).parameters.values()) for each in (layers, nn))
    named = [each.name for each in theirs if each.name not in ("device", "dtype")]
    assert [each.name for each in mine if each.kind is not each.KEYWORD_ONLY] == named
    defaults = {each.name: each.default for each in theirs}
    assert all(each.default == defaults[each.name] for each in mine if each.name in named)


@pytest.mark.parametrize(("name", "arguments", "options"), EVERY, ids=lambda value: str(value))
def test_initial_parameters(name, arguments, options):
    """Uniform within PyTorch's bounds: both reach close to them, and have the deviation that they give."""
    arguments = (64, 96, *arguments[2:])
    mine = getattr(layers, name)(*arguments, **options, seed=0).state_dict()
    torch.manual_seed(0)
    theirs = getattr(nn, name)(*arguments, **options).state_dict()
    bound = 1 / np.sqrt(np.prod(mine["weight"].shape[1:]))
    for key, array in mine.items():
        other = theirs[key].numpy()
        assert array.shape == other.shape
        assert array.dtype == other.dtype
        for each in (array, other):
            assert 0.9 * bound < abs(each).max() <= bound * (1 + 1e-6)
        if key == "weight":
            assert array.std() == pytest.approx(other.std(), rel=0.03)
            assert abs(array.mean()) < 0.1 * bound


@pytest.mark.parametrize("extents", [(17, 16), (2, 5, 17, 16)])
def test_output_size(extents):
    """The spatial extents or the whole shape, as ``ConvTranspose2d.forward`` takes them."""
    mine = layers.ConvTranspose2d(4, 5, 3, stride=2, padding=1, seed=0)
    theirs = nn.ConvTranspose2d(4, 5, 3, stride=2, padding=1)
    theirs.load_state_dict({key: torch.from_numpy(array) for key, array in mine.state_dict().items()})
    x = np.random.default_rng(1).standard_normal((2, 4, 9, 8), dtype=np.float32)
    tensor = torch.from_numpy(x).requires_grad_()
    output = theirs(tensor, output_size=extents)
    found = mine(x, output_size=extents)
    assert found.shape == output.shape == (2, 5, 17, 16)
    np.testing.assert_allclose(found, output.detach().numpy(), rtol=1e-5, atol=1e-5)
    output.backward(torch.ones_like(output))
    np.testing.assert_allclose(mine.backward(np.ones_like(found)), tensor.grad.numpy(), rtol=1e-5, atol=1e-5)


def test_separable_is_two_modules():
    """Named ``depthwise`` and ``pointwise``, whose state loads as it is."""
    theirs = nn.Sequential()
    theirs.add_module("depthwise", nn.Conv2d(4, 8, 3, 2, 1, groups=4, bias=False, dtype=torch.float64))
    theirs.add_module("pointwise", nn.Conv2d(8, 6, 1, dtype=torch.float64))
    mine = layers.SeparableConv2d(4, 6, 3, 2, 1, depth_multiplier=2, dtype=np.float64)
    mine.load_state_dict(theirs.state_dict())
    x = np.random.default_rng(1).standard_normal((2, 4, 9, 8))
    tensor = torch.from_numpy(x).requires_grad_()
    output = theirs(tensor)
    near(mine(x), output)
    output.backward(torch.ones_like(output))
    near(mine.backward(np.ones(output.shape)), tensor.grad)
    for key, parameter in theirs.named_parameters():
        near(mine.gradients()[key], parameter.grad)


def test_files_are_torch_s(tmp_path):
    """safetensors' functions for PyTorch read and write the same files."""
    library = pytest.importorskip("safetensors.torch")
    mine, theirs = layers.Conv2d(3, 4, 3, seed=0), nn.Conv2d(3, 4, 3)
    library.save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    mine.load(tmp_path / "theirs.safetensors")
    assert (mine.weight == theirs.weight.detach().numpy()).all()
    mine.weight += 1
    mine.save(tmp_path / "mine.safetensors")
    theirs.load_state_dict(library.load_file(tmp_path / "mine.safetensors"))
    assert (mine.weight == theirs.weight.detach().numpy()).all()
