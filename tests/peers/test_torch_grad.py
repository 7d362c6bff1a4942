"""PyTorch's opinion on gradients: every function of ``numbaconv.grad`` against autograd.

Autograd runs in double precision, on the operands' own values. A gradient is a sum of products, so the bound
on its error is that of the forward test, with terms and magnitudes from autograd of ones and of absolute
values. Complex gradients follow PyTorch's convention, by the conjugate.
"""

import inspect

import numpy as np
import pytest
from test_torch_forward import ACTIVATIONS, CASES, Case, assert_within, draw, error_bound, torch, wide
from test_torch_forward import backend as backend  # the fixture, which runs every test on each backend

from numbaconv import grad

NAMES = ("input", "weight", "bias")


def autograd(case, x, w, g):
    """Gradients by input, weight and bias of PyTorch's call."""
    x, w = (each.clone().requires_grad_() for each in (x, w))
    b = torch.zeros(case.channels[1], dtype=w.dtype, requires_grad=True)
    return torch.autograd.grad(case.torch(x, w, b), (x, w, b), g)


def output_gradient(case, x, w, dtype):
    shape = case.torch(wide(x), wide(w), None).shape
    return draw(np.random.default_rng(9), tuple(shape), dtype)


def expectations(case, x, w, g):
    """For each gradient: PyTorch's, the terms of its sums, and the sums of absolute values."""
    tensors = [wide(each) for each in (x, w, g)]
    sizes = [each.abs() for each in tensors]
    ones = [torch.ones_like(each) for each in sizes]
    found = (autograd(case, *each) for each in (tensors, ones, sizes))
    return {name: [each.numpy() for each in three] for name, *three in zip(NAMES, *found, strict=True)}


def separately(case, x, w, g, **options):
    """The three gradients by the functions that return one."""
    arguments = {**case.arguments, **options}
    by_bias = getattr(grad, f"{case.name}_bias")(g, **options)
    by_input = getattr(grad, f"{case.name}_input")(x.shape, w, g, **arguments)
    return by_input, getattr(grad, f"{case.name}_weight")(x, w.shape, g, **arguments), by_bias


def together(case, x, w, g, **options):
    return getattr(grad, f"{case.name}_backward")(g, x, w, **case.arguments, **options)


def check(case, dtype, ways=(separately, together)):
    x, w, _ = case.operands(dtype)
    g = output_gradient(case, x, w, dtype)
    expected = expectations(case, x, w, g)
    for way in ways:
        for name, answer in zip(NAMES, way(case, x, w, g), strict=True):
            wanted, terms, magnitude = expected[name]
            assert answer.dtype == dtype
            assert_within(answer, wanted, error_bound(terms, magnitude, dtype))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_real(name, dtype):
    check(CASES[name], dtype)


SOME = ["1d, groups", "2d, unequal", "2d, depthwise", "3d", "reflect, 1d", "replicate, 2d", "circular, 2d, strided"]
SOME += ["up 1d, strided", "up 2d, unequal", "up 2d, groups", "up 3d"]


@pytest.mark.parametrize("dtype", ["complex128", "complex64"])
@pytest.mark.parametrize("name", SOME)
def test_complex_is_by_the_conjugate(name, dtype):
    check(CASES[name], dtype)


def test_complex_gradient_of_a_real_loss():
    """The sum of |y|^2 has the gradient 2 y by y; what follows from it is what PyTorch's backward leaves in `grad`."""
    case = CASES["2d, unequal"]
    x, w, _ = case.operands("complex128")
    x, w = (wide(each).requires_grad_() for each in (x, w))
    y = case.torch(x, w, None)
    (y.abs() ** 2).sum().backward()
    arrays = [each.detach().numpy() for each in (x, w, 2 * y)]
    gradients = together(case, *arrays)
    expected = expectations(case, *arrays)
    for name, answer, theirs in zip(NAMES, gradients, (x.grad, w.grad), strict=False):
        _, terms, magnitude = expected[name]
        assert_within(answer, theirs.numpy(), error_bound(terms, magnitude, "complex128"))


#: Those whose derivative follows from their output.
FROM_OUTPUT = ["relu", "relu6", "leaky_relu", "tanh", "sigmoid"]
SAVED = [(name, "pre_activation") for name in ACTIVATIONS] + [(name, "output") for name in FROM_OUTPUT]


def slope(activation, argument):
    """PyTorch's derivative."""
    v = torch.from_numpy(np.array(argument, np.float64)).requires_grad_()
    ACTIVATIONS[activation](v).sum().backward()
    return v.grad.numpy()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("activation", "saved"), SAVED)
@pytest.mark.parametrize("name", ["2d, groups", "replicate, 1d", "up 2d, unequal"])
def test_activation(name, activation, saved, dtype):
    """``g`` times the derivative; the derivative is off by a few roundings of 1, as is what it was saved from."""
    case = CASES[name]
    x, w, b = case.operands(dtype)
    argument = case.torch(*(wide(each) for each in (x, w, b))).numpy().astype(dtype)
    g = output_gradient(case, x, w, dtype)
    slopes = slope(activation, argument)
    value = ACTIVATIONS[activation](torch.from_numpy(argument)).numpy()
    options = {"activation": activation, saved: argument if saved == "pre_activation" else value}
    expected = expectations(case, x, w, g * slopes)
    looser = expectations(case, x, w, np.abs(g) * (1 + np.abs(slopes)))
    for way in (separately, together):
        for at, answer in zip(NAMES, way(case, x, w, g, **options), strict=True):
            _, terms, magnitude = looser[at]
            assert_within(answer, expected[at][0], error_bound(terms + 8, magnitude, dtype))


@pytest.mark.parametrize("activation", ["relu", "relu6", "leaky_relu", "hardswish"])
def test_derivative_at_kinks(activation):
    """Where the derivative jumps, it has PyTorch's value."""
    argument = np.array([[-3.0, 0.0, 3.0, 6.0]])
    answer = grad.conv1d_input(
        (1, 4), np.ones((1, 1, 1)), np.ones((1, 4)), activation=activation, pre_activation=argument
    )
    np.testing.assert_array_equal(answer, slope(activation, argument))


@pytest.mark.parametrize(
    "mask", [(True, False, False), (False, True, False), (False, False, True), (False, False, False)]
)
@pytest.mark.parametrize("name", ["2d, groups", "up 2d, groups"])
def test_output_mask(name, mask):
    """Like ``torch.ops.aten.convolution_backward``: what the mask leaves out is None, the rest is the same."""
    case = CASES[name]
    x, w, _ = case.operands("float64")
    g = output_gradient(case, x, w, "float64")
    pair = {key: (value, value) if isinstance(value, int) else value for key, value in vars(case).items()}
    arguments = (
        pair["stride"],
        pair["padding"],
        pair["dilation"],
        case.transposed,
        pair["output_padding"],
        case.groups,
    )
    tensors = (wide(each) for each in (g, x, w))
    theirs = torch.ops.aten.convolution_backward(*tensors, [case.channels[1]], *arguments, mask)
    expected = expectations(case, x, w, g)
    for at, answer, wanted in zip(NAMES, together(case, x, w, g, output_mask=mask), theirs, strict=True):
        if wanted is None:
            assert answer is None
        else:
            _, terms, magnitude = expected[at]
            assert_within(answer, wanted.numpy(), error_bound(terms, magnitude, "float64"))


@pytest.mark.parametrize("name", [f"conv{rank}d_{operand}" for rank in (1, 2, 3) for operand in ("input", "weight")])
def test_argument_order(name):
    mine, theirs = (inspect.signature(getattr(each, name)).parameters.values() for each in (grad, torch.nn.grad))
    mine = [each for each in mine if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert [(each.name, each.default) for each in mine] == [(each.name, each.default) for each in theirs]


def test_positional_arguments():
    case = Case((9, 8), (2, 3), stride=(2, 3), padding=(1, 2), dilation=(3, 1), groups=2)
    rng = np.random.default_rng(10)
    x, w, _ = (rng.integers(-4, 5, shape).astype(np.float64) for shape in case.shapes())
    g = np.rint(4 * output_gradient(case, x, w, "float64"))
    order = ((2, 3), (1, 2), (3, 1), 2)
    tensors = [torch.from_numpy(each) for each in (x, w, g)]
    theirs = torch.nn.grad.conv2d_input(x.shape, tensors[1], tensors[2], *order)
    np.testing.assert_array_equal(grad.conv2d_input(x.shape, w, g, *order), theirs.numpy())
    theirs = torch.nn.grad.conv2d_weight(tensors[0], w.shape, tensors[2], *order)
    np.testing.assert_array_equal(grad.conv2d_weight(x, w.shape, g, *order), theirs.numpy())
