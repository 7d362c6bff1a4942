"""PyTorch's compiler, its checks of operators, and function transformations."""

import numpy as np
import pytest
from required import library

torch = library("torch")

from numbaconv.interop import torch as interop  # noqa: E402
from numbaconv.interop.torch import operators  # noqa: E402
from numbaconv.interop.torch.functions import _read  # noqa: E402

F = torch.nn.functional


@pytest.fixture(autouse=True)
def _nothing_compiled():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def draw(*shape, dtype=torch.float32, grad=False):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_(grad)


CALLS = {
    "strided": lambda x, w, b: interop.conv2d(x, w, b, stride=2, padding=1, groups=2, activation="relu"),
    "named": lambda x, w, b: interop.conv2d(
        x, w, b, padding="same", groups=2, padding_mode="reflect", activation="gelu"
    ),
    "lists": lambda x, w, b: interop.conv2d(x, w, b, [1, 2], [0, 1], (1, 1), 2),
    "format": lambda x, w, b: interop.conv2d(x.movedim(1, -1), w.permute(2, 3, 1, 0), b, groups=2, data_format="NHWC"),
    "up": lambda x, w, b: interop.conv_transpose2d(x, w[:4], None, 2, 1, 1, 2),
    "autocast": lambda x, w, b: interop.conv2d(x, w, b, groups=2).float(),
}


def gradients(call, tensors):
    found = call(*tensors)
    return found, *torch.autograd.grad(found.square().sum(), tensors, allow_unused=True)


def test_a_graph_is_for_its_activation():
    """Functions of the same code that close over something else are others."""

    def scaled(factor):
        return (lambda v: v * factor), (lambda v: factor)

    compiled = torch.compile(
        lambda x, w, activation: interop.conv1d(x, w, activation=activation), fullgraph=True, backend="eager"
    )
    x, w = draw(1, 2, 5), draw(3, 2, 2)
    for factor in (2.0, 3.0):
        for activation in (scaled(factor), scaled(factor)[0]):
            torch.testing.assert_close(compiled(x, w, activation), factor * interop.conv1d(x, w))
    torch.testing.assert_close(compiled(x, w, "tanh"), torch.tanh(interop.conv1d(x, w)))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own use of it
def test_what_graphs_cannot_differentiate_is_left_to_python():
    """Not lost: tangents, and derivatives that are taken inside of what is compiled."""
    x, w = draw(1, 2, 5), draw(3, 2, 2)
    wanted = interop.conv1d(x, w)

    def moved(w):
        return torch.func.jvp(lambda w: interop.conv1d(x, w), (w,), (2 * w,))[1]

    def gradient(w):
        return torch.func.grad(lambda w: interop.conv1d(x, w).square().sum())(w)

    for function, value in ((moved, 2 * wanted), (gradient, gradient(w))):
        torch.testing.assert_close(torch.compile(function, backend="aot_eager")(w), value)
    compiled = torch.compile(lambda w: interop.conv1d(x, w), backend="aot_eager")
    with torch.autograd.forward_ad.dual_level():
        found = compiled(torch.autograd.forward_ad.make_dual(w, 2 * w))
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(found).tangent, 2 * wanted)
    torch.testing.assert_close(compiled(w), wanted)


@pytest.mark.parametrize("name", CALLS)
def test_one_graph_with_the_same_bits(name):
    """``fullgraph=True`` fails where a compiler would have to leave the graph."""
    tensors = draw(2, 4, 7, 6, grad=True), draw(6, 2, 3, 3, grad=True), draw(6, grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=name == "autocast"):
        wanted = gradients(CALLS[name], tensors)
        compiled = torch.compile(CALLS[name], fullgraph=True, backend="aot_eager")
        found = gradients(compiled, tensors)
    for a, b in zip(found, wanted, strict=True):
        if a is None:
            assert b is None
        else:
            assert a.stride() == b.stride()
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_a_graph_serves_all_extents():
    """With symbols for extents nothing is compiled again."""
    count = 0

    def counting(graph, _):
        nonlocal count
        count += 1
        return graph.forward

    w = draw(4, 3, 3, 3, grad=True)
    call = torch.compile(
        lambda x: interop.conv2d(x, w, stride=2, padding=1), fullgraph=True, dynamic=True, backend=counting
    )
    for extents in ((2, 3, 9, 8), (3, 3, 12, 20), (5, 3, 31, 7)):
        x = draw(*extents)
        assert torch.equal(call(x), interop.conv2d(x, w, stride=2, padding=1))
    assert count == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
def test_the_whole_compiler():
    """Inductor, which plans memory by the strides that operators say their results have."""
    w, b = draw(4, 3, 3, 3, grad=True), draw(4, grad=True)
    for x in (draw(2, 3, 8, 8), draw(2, 3, 8, 8).to(memory_format=torch.channels_last)):
        call = torch.compile(lambda x: interop.conv2d(x, w, b, padding=1), fullgraph=True)
        assert torch.equal(call(x), interop.conv2d(x, w, b, padding=1))


def test_a_compiled_graph_writes_into_out():
    x, w = draw(1, 2, 6), draw(3, 2, 3)

    def call(x, out):
        interop.conv1d(x, w, out=out)
        return out + 1

    out = torch.full((1, 3, 4), float("nan"))
    found = torch.compile(call, fullgraph=True, backend="aot_eager")(x, out)
    assert torch.equal(out, interop.conv1d(x, w))
    assert torch.equal(found, out + 1)


def test_bad_shapes_fail_while_compiling():
    w = draw(3, 2, 3)
    call = torch.compile(lambda x: interop.conv1d(x, w), fullgraph=True, backend="aot_eager")
    with pytest.raises(RuntimeError, match="2 channels per group, but input has 5 channels"):
        call(draw(1, 5, 6))


def spec(rank, transposed=False, **arguments):
    return _read(rank, transposed, None, None, tuple(arguments), tuple(arguments.values()))[0]


@pytest.mark.parametrize("last", [False, True])
def test_operators_are_what_they_say(last):
    """PyTorch's own checks: schema, registrations, fake kernels against real ones, with symbols, too."""
    x, w, b = draw(2, 4, 6, 5, grad=True), draw(4, 2, 3, 3, grad=True), draw(4, grad=True)
    g = draw(2, 4, 3, 3, grad=True)
    if last:
        x, g = (each.detach().to(memory_format=torch.channels_last).requires_grad_() for each in (x, g))
    shape = spec(2, stride=2, padding=1, groups=2)
    torch.library.opcheck(operators.convolution, (x, w, b, None, *shape, "", None, None, None))
    torch.library.opcheck(operators.by_input, (x.shape, w, g, *shape, None, None))
    torch.library.opcheck(operators.by_weight, (x, w.shape, g, *shape, None, None))


def test_other_operators_are_what_they_say():
    x, w = draw(2, 4, 6, grad=True), draw(4, 2, 3, grad=True)
    shape = spec(1, transposed=True, stride=2, groups=2)
    residual = draw(2, 4, 13, grad=True)
    torch.library.opcheck(operators.convolution, (x, w, None, residual, *shape, "tanh", None, None, None))
    x, w = x.detach(), w.detach()
    out = torch.zeros(2, 4, 13)
    torch.library.opcheck(operators.convolution_out, (x, w, None, None, *shape, "relu", None, None, None, out))


@pytest.mark.parametrize(
    "dims", [(0, None, None), (1, None, None), (0, 0, None), (None, 1, 0), (0, 0, 0), (None, None, 0)]
)
def test_vmap(dims):
    batch = 3

    def stacked(tensor, dim):
        if dim is None:
            return tensor
        return torch.stack([tensor + at for at in range(batch)], dim)

    tensors = [stacked(each, dim) for each, dim in zip((draw(2, 4, 6), draw(4, 2, 3), draw(4)), dims, strict=True)]

    def call(x, w, b):
        return interop.conv1d(x, w, b, groups=2, padding=1, activation="tanh")

    for function in (call, torch.func.grad(lambda *each: call(*each).square().sum(), (0, 1, 2))):
        found = torch.vmap(function, dims)(*tensors)
        for at in range(batch):
            one = function(*(t if d is None else t.select(d, at) for t, d in zip(tensors, dims, strict=True)))
            pairs = zip(found, one, strict=True) if isinstance(found, tuple) else [(found, one)]
            for a, b in pairs:
                torch.testing.assert_close(a[at], b, rtol=1e-4, atol=1e-4)


def test_samples_without_a_batch_axis_map_too():
    x, w = draw(5, 3, 8), draw(2, 3, 3)
    found = torch.vmap(lambda each: interop.conv1d(each, w))(x)
    assert torch.equal(found, interop.conv1d(x, w))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's forward mode
def test_hessians():
    x, w = draw(1, 1, 5, dtype=torch.float64), draw(1, 1, 3, dtype=torch.float64)

    def loss(convolve):
        return lambda w: convolve(x, w).square().sum()

    mine = torch.func.jacrev(torch.func.jacrev(loss(interop.conv1d)))(w)
    torch.testing.assert_close(mine, torch.func.hessian(loss(F.conv1d))(w))


def test_export():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(draw(4, 3, 3))

        def forward(self, x):
            return interop.conv1d(x, self.weight, padding="same", activation="relu")

    x, model = draw(2, 3, 9), Model()
    found = torch.export.export(model, (x,))
    assert "numbaconv.convolution" in str(found.graph)
    assert np.array_equal(found.module()(x).detach(), model(x).detach())
