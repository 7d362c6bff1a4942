"""Operators of PyTorch: values and gradients of every order against PyTorch's own, memory, errors, transformations."""

import inspect

import numpy as np
import pytest
from required import library

import numbaconv

torch = library("torch")

from numbaconv.backends.activations import ACTIVATIONS  # noqa: E402
from numbaconv.interop import torch as interop  # noqa: E402
from numbaconv.interop.activations import derivative, from_output  # noqa: E402
from numbaconv.interop.torch.gradients import _MATHS  # noqa: E402

F = torch.nn.functional
NAMES = [f"{kind}{rank}d" for kind in ("conv", "conv_transpose") for rank in (1, 2, 3)]


def extents(rank, first=5):
    return tuple(range(first, first + rank))


#: name -> (function, input shape, weight shape, arguments that PyTorch's function has, too)
CASES = {
    "1d": ("conv1d", (2, 4, 7), (6, 2, 3), {"stride": 2, "padding": 1, "groups": 2}),
    "1d, dilated": ("conv1d", (2, 3, 9), (2, 3, 3), {"dilation": 2, "padding": "same"}),
    "2d": ("conv2d", (2, 4, 6, 5), (4, 2, 3, 2), {"stride": (2, 1), "padding": (1, 0), "groups": 2}),
    "2d, dilated": ("conv2d", (1, 2, 7, 6), (3, 2, 3, 2), {"dilation": (2, 1), "padding": 1}),
    "2d, no batch": ("conv2d", (2, 5, 4), (3, 2, 3, 3), {"padding": 1}),
    "3d": ("conv3d", (1, 2, 4, 3, 5), (2, 1, 2, 3, 2), {"stride": 2, "padding": 1, "groups": 2}),
    "up 1d": ("conv_transpose1d", (2, 4, 4), (4, 2, 3), {"stride": 2, "output_padding": 1, "groups": 2}),
    "up 2d": (
        "conv_transpose2d",
        (1, 4, 3, 4),
        (4, 1, 3, 2),
        {"stride": 2, "padding": 1, "output_padding": (1, 0), "groups": 2, "dilation": (1, 2)},
    ),
    "up 3d": ("conv_transpose3d", (1, 2, 2, 3, 2), (2, 3, 2, 2, 3), {"stride": (2, 1, 2), "padding": 1}),
}
#: What PyTorch's functions have not.
MORE = {
    "reflect": ("conv2d", (2, 2, 5, 4), (3, 2, 3, 3), {"padding": 2, "padding_mode": "reflect"}),
    "circular": ("conv1d", (2, 2, 6), (2, 2, 3), {"padding": ((2, 1),), "padding_mode": "circular", "stride": 2}),
    "replicate": ("conv3d", (1, 1, 3, 3, 3), (2, 1, 2, 2, 2), {"padding": 1, "padding_mode": "replicate"}),
    "constant": (
        "conv2d",
        (1, 2, 4, 4),
        (2, 2, 3, 3),
        {"padding": 1, "padding_mode": "constant", "padding_value": 1.5},
    ),
    "same with stride": ("conv2d", (1, 2, 5, 6), (2, 2, 3, 3), {"padding": "same", "stride": 2}),
    "causal": ("conv1d", (1, 2, 6), (2, 2, 3), {"padding": "causal", "dilation": 2}),
    "output_size": ("conv_transpose2d", (1, 2, 3, 3), (2, 2, 3, 3), {"stride": 2, "output_size": (8, 7)}),
    "up, circular": ("conv_transpose1d", (1, 2, 5), (2, 2, 3), {"padding": 1, "padding_mode": "circular"}),
}


def operands(case, dtype=torch.float64, grad=True):
    """Input, weight and bias of a case."""
    name, input_shape, weight_shape, arguments = case
    generator = torch.Generator().manual_seed(0)
    groups = arguments.get("groups", 1)
    channels = weight_shape[1] * groups if "transpose" in name else weight_shape[0]
    shapes = (input_shape, weight_shape, (channels,))
    found = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    return [each.requires_grad_(grad) for each in found]


def function(case, **options):
    name, _, _, arguments = case
    call = getattr(interop, name)
    return lambda *tensors: call(*tensors, **arguments, **options)


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_those_of_the_functions(name):
    """But for ``dtype``: a gradient has its operand's dtype."""
    ours, theirs = (
        [(each.name, each.kind, each.default) for each in inspect.signature(getattr(module, name)).parameters.values()]
        for module in (interop, numbaconv)
    )
    assert ours == [each for each in theirs if each[0] != "dtype"]


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_torch(name):
    case = CASES[name]
    mine, theirs = operands(case), operands(case)
    found, wanted = function(case)(*mine), getattr(F, case[0])(*theirs, **case[3])
    torch.testing.assert_close(found, wanted)
    weights = torch.randn_like(wanted)
    for a, b in zip(
        torch.autograd.grad((found * weights).sum(), mine),
        torch.autograd.grad((wanted * weights).sum(), theirs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", {**CASES, **MORE})
def test_gradients_and_their_gradients_are_derivatives(name):
    case = {**CASES, **MORE}[name]
    assert torch.autograd.gradcheck(function(case), operands(case))
    assert torch.autograd.gradgradcheck(function(case), operands(case))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own use of it
@pytest.mark.parametrize("name", ["2d, dilated", "2d, no batch", "constant", "up 1d", "up, circular"])
def test_forward_mode(name):
    case = {**CASES, **MORE}[name]
    assert torch.autograd.gradcheck(function(case), operands(case), check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(function(case), operands(case), check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own use of it
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_hessians_are_those_of_torch(activation):
    """Forward mode over reverse mode, and the other way round."""
    x, w, b = (each.detach() for each in operands(CASES["1d, dilated"]))
    function = {"tanh": torch.tanh, "gelu": F.gelu}[activation]
    residual = torch.randn_like(F.conv1d(x, w, b, padding="same", dilation=2))

    def mine(*given):
        return (
            interop.conv1d(*given[:3], padding="same", dilation=2, residual=given[3], activation=activation)
            .square()
            .sum()
        )

    def theirs(*given):
        return function(F.conv1d(*given[:3], padding="same", dilation=2) + given[3]).square().sum()

    given, func = (x, w, b, residual), torch.func
    for at in range(4):
        wanted = func.hessian(theirs, at)(*given)
        torch.testing.assert_close(func.hessian(mine, at)(*given), wanted)
        torch.testing.assert_close(func.jacrev(func.jacfwd(mine, at), at)(*given), wanted)
    with pytest.raises(RuntimeError, match="over forward mode"):
        func.jacfwd(func.jacfwd(mine, 1), 1)(*given)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own use of it
def test_tangents_are_not_lost():
    x, w, _ = operands(CASES["2d"], grad=False)
    with torch.autograd.forward_ad.dual_level():
        moving = torch.autograd.forward_ad.make_dual(w, 2 * w)
        found = torch.autograd.forward_ad.unpack_dual(interop.conv2d(x, moving, groups=2))
        torch.testing.assert_close(found.tangent, 2 * found.primal)
        with pytest.raises(RuntimeError, match="forward mode"):
            interop.conv2d(x, moving, groups=2, out=torch.empty_like(found.primal))


def test_tensors_without_memory():
    """The device "meta" has shapes alone, and no autocast."""
    module = interop.Conv2d(3, 4, 3, stride=2, device="meta")
    found = module(torch.empty(2, 3, 9, 8, device="meta"))
    assert (found.device.type, found.shape) == ("meta", (2, 4, 4, 3))
    found.sum().backward()
    assert module.weight.grad.shape == (4, 3, 3, 3)


@pytest.mark.parametrize("name", ["1d", "up 2d"])
def test_complex_gradients_are_derivatives(name):
    case = CASES[name]
    assert torch.autograd.gradcheck(function(case), operands(case, torch.complex128))
    assert torch.autograd.gradgradcheck(function(case), operands(case, torch.complex128), fast_mode=True)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_have_gradients_of_every_order(activation):
    case = ("conv1d", (1, 2, 4), (3, 2, 2), {"padding": 1})
    tensors = operands(case)
    residual = torch.randn_like(function(case)(*tensors)).requires_grad_()

    def call(x, w, b, r):
        return function(case, activation=activation, residual=r)(x, w, b)

    assert torch.autograd.gradcheck(call, (*tensors, residual))
    assert torch.autograd.gradgradcheck(call, (*tensors, residual))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_are_those_of_the_kernels(name):
    """At ordinary numbers, at the kinks, and where exponentials overflow."""
    activation = ACTIVATIONS[name]
    values = [-np.inf, -1e30, -50.0, -3.0, -1.5, -1e-9, 0.0, 1e-9, 0.3, 2.5, 3.0, 5.9, 6.0, 50.0, 1e30, np.inf]
    function, shown = activation.derivative, values
    if from_output(name):
        function, shown = activation.derivative_from_output, [activation.function(v) for v in values]
    found = derivative(_MATHS, name, torch.tensor(shown, dtype=torch.float64))
    np.testing.assert_allclose(found, [function(v) for v in shown], rtol=1e-12, atol=1e-15)


def cube(v):
    return v * v * v


def cube_derivative(v):
    return 3 * v * v


def test_an_activation_of_ones_own():
    case = CASES["2d"]
    tensors = operands(case)
    call = function(case, activation=(cube, cube_derivative))
    torch.testing.assert_close(call(*tensors), function(case)(*tensors) ** 3)
    assert torch.autograd.gradcheck(call, tensors)
    (first,) = torch.autograd.grad(call(*tensors).sum(), tensors[:1], create_graph=True)
    with pytest.raises(numbaconv.ArgumentError, match="second derivative"):
        first.sum().backward()
    alone = function(case, activation=cube)(*tensors)
    with pytest.raises(numbaconv.ArgumentError, match="without a derivative"):
        alone.sum().backward()


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_formats(rank):
    first = (f"conv{rank}d", (2, 4, *extents(rank)), (6, 2, *(3,) * rank), {"groups": 2, "padding": 1})
    x, w, b = operands(first)
    wanted = function(first)(x, w, b)
    moved = w.permute(*range(2, rank + 2), 1, 0)
    last = function(first, data_format="channels_last")(x.movedim(1, -1), moved, b)
    torch.testing.assert_close(last.movedim(-1, 1), wanted)
    alone = function(first, data_format="channels_last")(x[0].movedim(0, -1), moved, b)
    torch.testing.assert_close(alone.movedim(-1, 0), wanted[0])
    ((a,), (b,)) = (torch.autograd.grad(each.square().sum(), (w,)) for each in (last, wanted))
    torch.testing.assert_close(a, b)


def test_memory_with_channels_last_stays_so():
    case = CASES["2d"]
    x, w, b = operands(case)
    there = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    found = function(case)(there, w, b)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, function(case)(x, w, b))
    (gradient,) = torch.autograd.grad(found, there, torch.randn(found.shape, dtype=found.dtype))
    assert gradient.shape == there.shape


def test_any_strides_and_offsets():
    case = CASES["2d"]
    x, w, b = operands(case, grad=False)
    wanted = function(case)(x, w, b)
    spaced = torch.full((2, 4, 12, 10), float("nan"), dtype=x.dtype)[:, :, ::2, 1::2]
    spaced.copy_(x)
    torch.testing.assert_close(function(case)(spaced, w.flip(2).flip(2), b), wanted)
    torch.testing.assert_close(function(case)(x.mT.contiguous().mT, w, b), wanted)
    alike = x[:1].expand(2, -1, -1, -1)
    torch.testing.assert_close(function(case)(alike, w, b), function(case)(alike.contiguous(), w, b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_nothing_is_copied(dtype):
    """Operands are the tensors' memory, and so are results."""
    from numbaconv.interop.torch.memory import to_array, to_tensor

    tensor = torch.ones(2, 3, 4, 4, dtype=dtype).requires_grad_()
    array = to_array(tensor)
    assert array.__array_interface__["data"][0] == tensor.data_ptr()
    assert to_tensor(array).data_ptr() == tensor.data_ptr()
    assert to_tensor(array).dtype == dtype
    view = tensor.to(memory_format=torch.channels_last)[:, 1:]
    assert to_array(view).__array_interface__["data"][0] == view.data_ptr()
    assert to_array(view).strides == tuple(step * tensor.itemsize for step in view.stride())


def test_lazy_conjugates_and_negatives_are_read_as_they_mean():
    case = CASES["1d"]
    x, w, b = operands(case, torch.complex128, grad=False)
    assert x.conj().is_conj()
    torch.testing.assert_close(function(case)(x.conj(), w, b), function(case)(x.conj().resolve_conj(), w, b))
    part = x.conj().imag
    assert part.is_neg()
    real = w.real.contiguous()
    torch.testing.assert_close(function(case)(part, real), function(case)(part.resolve_neg(), real))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_lower_precisions(dtype):
    case = CASES["2d"]
    mine = operands(case, dtype)
    exact = [each.detach().double().requires_grad_() for each in mine]
    found, wanted = function(case, activation="silu")(*mine), F.silu(function(case)(*exact))
    assert found.dtype == dtype
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=tolerance)
    for a, b in zip(torch.autograd.grad(found.sum(), mine), torch.autograd.grad(wanted.sum(), exact), strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.double(), b, rtol=4 * tolerance, atol=8 * tolerance)


def test_integers_are_summed_wide():
    x, w = torch.full((1, 3, 5), 100, dtype=torch.int8), torch.full((2, 3, 3), 100, dtype=torch.int8)
    found = interop.conv1d(x, w, torch.tensor([1, 2], dtype=torch.int32))
    assert found.dtype == torch.int32
    assert found.unique().tolist() == [90_001, 90_002]


def test_operands_are_not_changed_and_what_is_changed_is_noticed():
    case = CASES["2d"]
    x, w, b = operands(case)
    before = [each.detach().clone() for each in (x, w, b)]
    found = function(case, activation="relu")(x, w, b)
    found.sum().backward()
    for each, was in zip((x, w, b), before, strict=True):
        assert torch.equal(each, was)
    again = function(case)(x, w, b)
    with torch.no_grad():
        w.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        again.sum().backward()


def test_the_result_is_memory_of_its_own():
    """Of a kernel that copies, too: one tap that is one."""
    x, w = torch.randn(1, 1, 4, requires_grad=True), torch.ones(1, 1, 1)
    found = interop.conv1d(x, w)
    assert found.data_ptr() != x.data_ptr()
    found.detach().zero_()
    assert x.detach().abs().sum() > 0


def test_modes_of_autograd():
    case = CASES["2d"]
    x, w, b = operands(case)
    wanted = function(case)(x, w, b).detach()
    with torch.no_grad():
        assert not function(case)(x, w, b).requires_grad
    with torch.inference_mode():
        found = function(case)(x, w, b)
        assert found.is_inference()
    assert torch.equal(found, wanted)
    assert not function(case)(x.detach(), w.detach(), b.detach()).requires_grad
    (only,) = torch.autograd.grad(function(case)(x, w.detach(), b.detach()).sum(), x)
    assert only.shape == x.shape


def test_out():
    case = CASES["2d"]
    x, w, b = operands(case, grad=False)
    wanted = function(case)(x, w, b)
    out = torch.full_like(wanted, float("nan"))
    assert function(case, out=out)(x, w, b) is out
    assert torch.equal(out, wanted)
    last = torch.full_like(wanted, float("nan"), memory_format=torch.channels_last)
    assert torch.equal(function(case, out=last)(x, w, b), wanted)
    assert function(case, out=out, residual=out)(x, w, b) is out
    torch.testing.assert_close(out, 2 * wanted)
    moved = torch.empty_like(wanted.movedim(1, -1))
    weight = w.permute(2, 3, 1, 0)
    function(case, out=moved, data_format="NHWC")(x.movedim(1, -1), weight, b)
    torch.testing.assert_close(moved.movedim(-1, 1), wanted)
    version = out._version
    function(case, out=out)(x, w, b)
    assert out._version > version
    with pytest.raises(RuntimeError, match="don't support automatic differentiation"):
        function(case, out=out)(x, w.requires_grad_(), b)
    with pytest.raises(numbaconv.ShapeError, match="out has shape"):
        function(case, out=out[:1])(x, w.detach(), b)


REFUSED = {
    "dtypes": (RuntimeError, "should be the same", lambda x, w: interop.conv2d(x, w.double())),
    "bias": (RuntimeError, "should be the same", lambda x, w: interop.conv2d(x, w, torch.zeros(3).double())),
    "arrays": (TypeError, "must be Tensor, not ndarray", lambda x, w: interop.conv2d(x.numpy(), w)),
    "none": (TypeError, "must be Tensor, not NoneType", lambda x, w: interop.conv2d(x, None)),
    "channels": (RuntimeError, "2 channels", lambda x, w: interop.conv2d(x[:, :2], w)),
    "kernel": (numbaconv.ShapeError, "spans 3 cells", lambda x, w: interop.conv2d(x[..., :2], w)),
    "axes": (RuntimeError, "4 axes", lambda x, w: interop.conv2d(x[0, 0], w)),
    "stride": (RuntimeError, "stride must be at least 1", lambda x, w: interop.conv2d(x, w, stride=0)),
    "no integer": (TypeError, "stride must be an integer", lambda x, w: interop.conv2d(x, w, stride=1.5)),
    "bias length": (numbaconv.ShapeError, "3 output channels", lambda x, w: interop.conv2d(x, w, torch.zeros(2))),
    "activation": (numbaconv.ArgumentError, "'relux'", lambda x, w: interop.conv2d(x, w, activation="relux")),
    "backend": (numbaconv.BackendError, "nothing", lambda x, w: interop.conv2d(x, w, backend="nothing")),
    "algorithm": (numbaconv.AlgorithmError, "none", lambda x, w: interop.conv2d(x, w, algorithm="none")),
    "precision": (numbaconv.ArgumentError, "'half'", lambda x, w: interop.conv2d(x, w, precision="half")),
    "stream": (numbaconv.ArgumentError, "stream", lambda x, w: interop.conv2d(x, w, stream=1)),
    "sparse": (RuntimeError, "layout", lambda x, w: interop.conv2d(x.to_sparse(), w)),
    "bool": (TypeError, "dtype bool", lambda x, w: interop.conv2d(x.bool(), w.bool())),
    "float8": (
        TypeError,
        "float8",
        lambda x, w: interop.conv2d(x.to(torch.float8_e5m2), w.to(torch.float8_e5m2)),
    ),
    "causal": (RuntimeError, "causal", lambda x, w: interop.conv_transpose2d(x, w, padding="causal")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    kind, message, call = REFUSED[name]
    with pytest.raises(kind, match=message):
        call(torch.zeros(1, 3, 5, 5), torch.zeros(3, 3, 3, 3))


def test_errors_are_both_libraries_kinds():
    for kind in (RuntimeError, ValueError, numbaconv.ShapeError):
        with pytest.raises(kind):
            interop.conv2d(torch.zeros(1, 2, 5, 5), torch.zeros(3, 3, 3, 3))


def test_backend_and_algorithm_are_used():
    case = CASES["2d"]
    x, w, b = operands(case)
    arrays = [each.detach().numpy() for each in (x, w, b)]
    for options in ({"backend": "reference"}, {"algorithm": "direct"}):
        found = function(case, **options)(x, w, b)
        wanted = getattr(numbaconv, case[0])(*arrays, **case[3], **options)
        assert np.array_equal(found.detach().numpy(), wanted)
        found.sum().backward()


def test_gradients_are_computed_as_the_call_was():
    """Also by a thread of PyTorch's, and after a context manager's end."""
    case = CASES["2d"]
    x, w, b = operands(case)
    with numbaconv.use_backend("reference"), numbaconv.use_precision("tf32"):
        found = function(case)(x, w, b)
    assert found.grad_fn.how == ["reference", "tf32"]
    assert function(case)(x, w, b).grad_fn.how == [None, "float32"]
    assert function(case, backend="cpu", precision="tf32")(x, w, b).grad_fn.how == ["cpu", "tf32"]
    (gradient,) = torch.autograd.grad(found.sum(), w)
    arguments = case[3]
    wanted = numbaconv.grad.conv2d_weight(
        x.detach().numpy(), w.shape, np.ones(found.shape), **arguments, backend="reference"
    )
    assert np.array_equal(gradient, wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_that_of_torch(dtype):
    case = CASES["2d"]
    x, w, b = operands(case, torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        found, wanted = function(case)(x, w, b), F.conv2d(x, w, b, **case[3])
        double = function(case)(*operands(case))
    assert found.dtype == wanted.dtype == dtype
    assert double.dtype == torch.float64
    torch.testing.assert_close(found.float(), wanted.float(), rtol=0.02, atol=0.02)
    found.float().sum().backward()
    assert w.grad.dtype == torch.float32
    with torch.autocast("cpu", dtype=dtype), torch.autocast("cpu", enabled=False):
        assert function(case)(x, w, b).dtype == torch.float32


def test_an_empty_batch():
    x, w = torch.zeros(0, 3, 5, 5), torch.randn(2, 3, 3, 3, requires_grad=True)
    found = interop.conv2d(x, w)
    assert found.shape == (0, 2, 3, 3)
    found.sum().backward()
    assert not w.grad.any()


def test_strict_precision_in_calls_and_gradients():
    """Where Winograd is chosen without it."""
    shapes, rng = ((1, 64, 20, 20), (64, 64, 3, 3)), np.random.default_rng(0)
    x, w = (torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).requires_grad_() for shape in shapes)
    for direction in ("forward", "input", "weight"):
        assert numbaconv.explain(*shapes, padding=1, direction=direction, backend="cpu").spreading is not None
    found = interop.conv2d(x, w, padding=1, precision="strict", backend="cpu")
    arrays, options = (x.detach().numpy(), w.detach().numpy()), {"padding": 1, "precision": "strict", "backend": "cpu"}
    assert np.array_equal(found.detach(), numbaconv.conv2d(*arrays, **options))
    given = np.ones(found.shape, np.float32)
    by_input, by_weight = torch.autograd.grad(found.sum(), (x, w))
    assert np.array_equal(by_input, numbaconv.grad.conv2d_input(shapes[0], arrays[1], given, **options))
    assert np.array_equal(by_weight, numbaconv.grad.conv2d_weight(arrays[0], shapes[1], given, **options))


def test_a_tensor_that_records_gradients_is_told_where_to_go():
    x, w = torch.ones(1, 1, 5, 5, requires_grad=True), torch.ones(1, 1, 3, 3)
    with pytest.raises(numbaconv.DTypeError, match=r"input is no array: .*numbaconv\.interop\.torch has"):
        numbaconv.conv2d(x, w)
