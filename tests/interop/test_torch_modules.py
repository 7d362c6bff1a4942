"""`patch`: modules of a model become numbaconv's, and nothing else changes."""

import copy
import io

import pytest
from required import documented, example, library, message_without

from numbaconv import ArgumentError

torch = library("torch")

from numbaconv.interop import torch as interop  # noqa: E402

nn = torch.nn

MODULES = {
    "1d, circular": (lambda: nn.Conv1d(4, 6, 3, 2, 2, 2, 2, padding_mode="circular"), (2, 4, 9)),
    "2d": (lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), bias=False), (2, 4, 7, 6)),
    "2d, same": (lambda: nn.Conv2d(4, 6, (4, 3), padding="same", dilation=(1, 2)), (2, 4, 7, 6)),
    "2d, reflect, same": (lambda: nn.Conv2d(4, 6, 4, padding="same", padding_mode="reflect"), (2, 4, 7, 6)),
    "2d, replicate": (lambda: nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="replicate"), (2, 4, 7, 6)),
    "3d, no batch": (lambda: nn.Conv3d(2, 3, 3, padding=1), (2, 4, 5, 6)),
    "up 1d": (lambda: nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, 2), (2, 4, 5)),
    "up 2d": (lambda: nn.ConvTranspose2d(4, 6, 3, (2, 3), 1, (1, 2), dilation=2), (2, 4, 5, 4)),
    "up 3d": (lambda: nn.ConvTranspose3d(2, 3, 2, 2, bias=False), (1, 2, 2, 3, 2)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # PyTorch would copy
@pytest.mark.parametrize("name", MODULES)
def test_each_module_computes_the_same(name):
    torch.manual_seed(0)
    make, shape = MODULES[name]
    module = make().double()
    x = torch.randn(shape, dtype=torch.float64)
    wanted, kind, words = module(x), type(module), repr(module)
    assert interop.patch(module) == {"": kind}
    assert isinstance(module, kind)
    assert type(module) is getattr(interop, kind.__name__)
    assert repr(module) == words
    torch.testing.assert_close(module(x), wanted)


def test_output_size():
    torch.manual_seed(0)
    module, x = nn.ConvTranspose2d(2, 3, 3, stride=2).double(), torch.randn(1, 2, 4, 4, dtype=torch.float64)
    for size in ([9, 10], torch.Size([1, 3, 10, 9])):
        interop.unpatch(module)
        wanted = module(x, output_size=size)
        interop.patch(module)
        torch.testing.assert_close(module(x, output_size=size), wanted)
    with pytest.raises(ValueError, match="output_size 11"):
        module(x, output_size=[9, 11])


def network():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=2, padding_mode="circular"),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1),
        nn.Flatten(),
        nn.Linear(4 * 64, 3),
    )


def train(model, steps=12, compiled=False):
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(16, 1, 8, 8, generator=generator), torch.randint(3, (16,), generator=generator)
    optimiser, losses = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), []
    call = torch.compile(model, fullgraph=True, backend="aot_eager") if compiled else model
    for _ in range(steps):
        loss = nn.functional.cross_entropy(call(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", ["eager", "compiled", "channels last"])
def test_training_has_the_same_losses(kind):
    theirs, mine = network(), network()
    assert set(interop.patch(mine)) == {"0", "3", "5"}
    if kind == "channels last":
        mine = mine.to(memory_format=torch.channels_last)
    wanted = train(theirs)
    assert wanted[-1] < 0.8 * wanted[0]
    assert train(mine, compiled=kind == "compiled") == pytest.approx(wanted, rel=1e-4)


def test_what_a_model_is_stays_what_it_is():
    model = network()
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    parameters, state = [id(each) for each in model.parameters()], model.state_dict()
    addresses = [each.data_ptr() for each in model.parameters()]
    modules = list(model.modules())
    model.eval()
    interop.patch(model)
    assert [id(each) for each in model.parameters()] == parameters
    assert [each.data_ptr() for each in model.parameters()] == addresses
    assert list(model.state_dict()) == list(state)
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert not model[0].training
    model(torch.zeros(1, 1, 8, 8))
    assert calls
    network().load_state_dict(model.state_dict())


def test_patching_twice_and_back():
    model = network()
    replaced = interop.patch(model)
    assert replaced == {"0": nn.Conv2d, "3": nn.Conv2d, "5": nn.ConvTranspose2d}
    assert interop.patch(model) == {}
    assert interop.unpatch(model) == {"0": interop.Conv2d, "3": interop.Conv2d, "5": interop.ConvTranspose2d}
    assert type(model[0]) is nn.Conv2d
    assert interop.unpatch(model) == {}


def test_copies_and_files():
    model = network()
    interop.patch(model)
    x = torch.randn(2, 1, 8, 8)
    model.eval()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert type(other[0]) is interop.Conv2d
        assert torch.equal(other(x), model(x))


def test_a_shared_module_is_one():
    shared = nn.Conv2d(2, 2, 1)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert interop.patch(model) == {"0": nn.Conv2d}
    assert type(model[2]) is interop.Conv2d


class Scaled(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def with_own_forward():
    module = nn.Conv2d(2, 2, 1)
    module.forward = lambda x: x
    return module


OTHERS = {
    "lazy": (lambda: nn.LazyConv2d(4, 3), "is lazy"),
    "subclass": (lambda: Scaled(2, 2, 1), r"module '1' \(Scaled\) is of a class of its own"),
    "parametrised": (lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 1)), "of a class of its own"),
    "forward": (with_own_forward, "a forward of its own"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_may_compute_something_else_is_refused(name):
    make, message = OTHERS[name]
    model = nn.Sequential(nn.Conv2d(2, 2, 1), make())
    with pytest.raises(ArgumentError, match=message):
        interop.patch(model)
    assert type(model[0]) is nn.Conv2d
    if name == "lazy":
        with pytest.raises(ArgumentError, match=message):
            interop.patch(model, subclasses="keep")
        return
    x = torch.randn(1, 2, 3, 3)
    wanted = model(x)
    assert interop.patch(model, subclasses="keep") == {"0": nn.Conv2d}
    torch.testing.assert_close(model(x), wanted)


def test_a_lazy_module_is_replaced_once_it_has_parameters():
    model = nn.Sequential(nn.LazyConv2d(4, 3))
    x = torch.randn(1, 3, 5, 5)
    wanted = model(x)
    assert interop.patch(model) == {"0": nn.Conv2d}
    torch.testing.assert_close(model(x), wanted)


def test_what_is_no_model():
    for call in (interop.patch, interop.unpatch):
        with pytest.raises(TypeError, match=r"torch\.nn\.Module, but is list"):
            call([nn.Conv2d(1, 1, 1)])
    with pytest.raises(ArgumentError, match="'refuse' or 'keep'"):
        interop.patch(nn.Conv2d(1, 1, 1), subclasses="drop")


def test_the_example():
    assert "greatest difference" in example("torch_patch.py")


def test_docstrings():
    assert len(list(documented(interop))) == 8


def test_a_missing_library_is_named_with_its_command():
    said = message_without("numbaconv.interop.torch", "torch")
    assert said.startswith("ImportError: numbaconv.interop.torch needs torch: pip install 'numbaconv[torch]'")
