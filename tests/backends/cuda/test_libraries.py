"""What is asked of the libraries whose arrays lie on a device, by stand-ins that answer as they do."""

import sys
import types
from contextlib import nullcontext
from math import prod

import numpy as np
import pytest

import numbaconv
from numbaconv.device_arrays import device_array, device_result, torch_stream


class Stream:
    """PyTorch's: a handle of 0 is no handle, for which there is a stream from the pool."""

    def __init__(self, stream_ptr=0, device=None):
        self.cuda_stream = stream_ptr or 0xB001


class Size(tuple):
    """A tensor's shape."""


class Tensor:
    """A tensor of floats that is nowhere; ``lazy``: its elements are conjugated when they are read."""

    is_cuda, requires_grad, layout, dtype = True, False, "strided", "torch.float32"
    device = types.SimpleNamespace(index=0)

    def __init__(self, lazy=False, address=4096, shape=(2, 3)):
        self.lazy, self.address, self.shape = lazy, address, Size(shape)

    def resolve_conj(self):
        return Tensor(address=8192) if self.lazy else self

    def resolve_neg(self):
        return self

    def stride(self):
        return tuple(prod(self.shape[axis + 1 :]) for axis in range(len(self.shape)))

    def data_ptr(self):
        return self.address


Tensor.__module__ = "torch"


@pytest.fixture
def torch(monkeypatch):
    """The part of PyTorch that is used; ``entered``: handles of the streams that memory was made on."""
    module, default = types.ModuleType("torch"), Stream()
    default.cuda_stream = 0
    module.entered, module.strided, module.float32 = [], "strided", "torch.float32"
    module.current = default

    def stream(of):
        module.entered.append(of.cuda_stream)
        return nullcontext()

    module.cuda = types.SimpleNamespace(
        ExternalStream=Stream,
        current_stream=lambda device: module.current,
        default_stream=lambda device: default,
        stream=stream,
    )
    module.uint8 = "torch.uint8"

    def empty(shape, dtype, device):
        module.address += 1 << 30
        made = Tensor(address=module.address, shape=shape)
        made.dtype = dtype
        return made

    module.address, module.empty = 1 << 42, empty
    monkeypatch.setitem(sys.modules, "torch", module)
    return module


@pytest.mark.parametrize(
    ("current", "wanted", "entered"), [(0, 0, []), (7, 7, []), (7, 0, [0]), (0, 7, [7]), (7, 9, [9])]
)
def test_memory_of_torch_belongs_to_the_stream(torch, current, wanted, entered):
    """The default stream, too: not one from the pool, which other work may have."""
    torch.current = Stream(current)
    torch.current.cuda_stream = current
    with torch_stream(wanted, 0):
        assert torch.entered == entered


def test_results_of_torch_on_the_default_stream(torch):
    operand = device_array(Tensor(address=1 << 20))
    made, found = device_result("conv", None, (2, 3), np.dtype(np.float32), [operand], None)
    assert isinstance(made, Tensor)
    assert found.stream == 0
    assert set(torch.entered) <= {0}


def test_results_that_would_be_lost(torch):
    """What is written to a view that conjugates when it is read would be written to a copy."""
    operand = device_array(Tensor(address=1 << 20))
    arguments = (2, 3), np.dtype(np.float32), [operand], None
    out = Tensor()
    assert device_result("conv", out, *arguments)[0] is out
    with pytest.raises(numbaconv.ArgumentError, match="out is a conjugate or negative view"):
        device_result("conv", Tensor(lazy=True), *arguments)


def test_results_on_another_device(torch):
    """A kernel would run there, where it cannot read the operands."""
    operand, out = device_array(Tensor(address=1 << 20)), Tensor()
    out.device = types.SimpleNamespace(index=1)
    with pytest.raises(numbaconv.ArgumentError, match="out on 1, others on 0"):
        device_result("conv", out, (2, 3), np.dtype(np.float32), [operand], None)


class SometimesThere:
    """As an array of JAX: only one that is on a device has the interface."""

    def __init__(self, there):
        self.there = there

    @property
    def __cuda_array_interface__(self):
        if not self.there:
            raise AttributeError("it is on the host")
        return {"shape": (2,), "typestr": "<f4", "data": (4096, False), "version": 3}

    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self, stream=None):
        raise NotImplementedError


def test_a_type_whose_arrays_are_on_a_device_or_not():
    assert device_array(SometimesThere(True)).address == 4096
    assert device_array(SometimesThere(False)) is None
