"""What `test_driver` runs where ``driver.c`` is the driver: every algorithm's calls, and what they ask the driver for.

Kernels are typed and lowered by Numba, and not compiled further: nothing runs them (`test_compile` does that).
"""

import ctypes
import sys
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from cuda.core import ObjectCode
from numba import cuda
from numba.cuda import codegen

import numbaconv
from numbaconv import compiling, grad
from numbaconv.backends import registry
from numbaconv.backends.cuda import availability, device, launching
from numbaconv.backends.cuda.device import target
from numbaconv.backends.cuda.implicit_gemm import is_aligned
from numbaconv.backends.cuda.scratch import Lease, at_address, settled, take
from numbaconv.device_arrays import DeviceArray, device_array

sys.path.insert(0, str(Path(__file__).parents[3] / "perf"))

import test_libraries
from test_libraries import Tensor

import gpu_checks
import gpu_memory
from numbaconv.bench import layer_table
from numbaconv.bench.peers import numbaconv_function, operands

DRIVER = ctypes.CDLL("libcuda.so.1")
DRIVER.log_text.restype = ctypes.c_char_p

codegen.CUDACodeLibrary.get_asm_str = lambda self, cc=None: ""
codegen.CUDACodeLibrary.get_cubin = lambda self, cc=None: ObjectCode.from_cubin(b"nothing")


def asked(call):
    """What a call asks the driver for, in words."""
    DRIVER.log_clear()
    call()
    return DRIVER.log_text().decode().splitlines()


def cases():
    """A call of each algorithm in each direction, in the first kind that it accepts."""
    for direction in ("forward", "input", "weight"):
        seen = set()
        for dtype, last in gpu_checks.KINDS.values():
            for layer in gpu_memory.layers(True):
                plan = numbaconv.plan_conv(layer.input_shape, layer.weight_shape, dtype=dtype, **layer.arguments)
                for algorithm in registry.resolve("cuda").tables[gpu_checks.primitive(layer, direction)]:
                    if algorithm.name not in seen and algorithm.accepts(plan) is None:
                        seen.add(algorithm.name)
                        yield pytest.param(
                            layer, direction, algorithm.name, dtype, last, id=f"{direction}-{algorithm.name}"
                        )


@pytest.mark.parametrize(("layer", "direction", "name", "dtype", "last"), list(cases()))
def test_calls(layer, direction, name, dtype, last):
    """From the host, on the device, on a stream of its own, and captured, where a driver refuses what takes memory."""
    function = numbaconv_function(layer, direction, backend="cuda", algorithm=name)
    arrays = [each.astype(dtype) for each in operands(layer)]
    assert any("launch" in line for line in asked(partial(function, *arrays)))
    there = [gpu_checks.OnDevice(each, last) for each in arrays]
    out = gpu_checks.OnDevice(arrays[gpu_memory._RESULT[direction]], last)
    first = asked(partial(function, *there, out=out))
    again = asked(partial(function, *there, out=out))
    assert any("launch" in line for line in first)
    assert not [line for line in again if line.startswith(("allocate", "free", "copy", "wait"))]
    stream = cuda.stream()
    call = partial(function, *there, out=out, stream=stream)
    call()
    replay = gpu_memory._captured(call, stream)
    assert not [line for line in DRIVER.log_text().decode().splitlines() if line.startswith("refused")]
    replay()
    assert gpu_memory._leak(function, arrays, last, 30) is None


def laid_out(shape, dtype, last):
    """An array that is nowhere, with its channels first or last."""
    order = (0, *range(2, len(shape)), 1) if last else range(len(shape))
    strides, step = [0] * len(shape), np.dtype(dtype).itemsize
    for axis in reversed(order):
        strides[axis] = step
        step *= shape[axis]
    library = device_array(cuda.device_array(1, np.float32)).library
    return DeviceArray(None, 1 << 40, shape, tuple(strides), np.dtype(dtype), -1, 0, library)


def test_real_layers(monkeypatch):
    """With the tiles of devices, of which the simulator has none: every launch of every layer is one that can be."""
    launches = []

    def configured(kernel, blocks, threads, stream):
        bounds = getattr(kernel, "targetoptions", {}).get("launch_bounds")
        launches.append((blocks, threads, bounds))
        return lambda *arguments: None

    monkeypatch.setattr(launching, "_configured", {})
    monkeypatch.setattr(launching, "_configure", configured)
    monkeypatch.setattr(Lease, "take", lambda self, elements, dtype: at_address(1 << 41, elements, dtype, None))
    for layer in layer_table.read("speed.csv"):
        for dtype, last in gpu_checks.KINDS.values():
            plan = numbaconv.plan_conv(
                layer.input_shape, layer.weight_shape, transposed=layer.transposed, dtype=dtype, **layer.arguments
            )
            given = [
                laid_out(shape, dtype, last) for shape in (layer.input_shape, layer.weight_shape, layer.output_shape)
            ]
            for direction, like in gpu_memory._RESULT.items():
                out = given[like]._viewed(given[like].shape, given[like].strides)
                out.address = 1 << 42
                for algorithm in registry.resolve("cuda").tables[gpu_checks.primitive(layer, direction)]:
                    if algorithm.accepts(plan) is None:
                        function = numbaconv_function(layer, direction, backend="cuda", algorithm=algorithm.name)
                        before = len(launches)
                        function(*given, out=out)
                        assert len(launches) > before, (layer.name, direction, algorithm.name)
    for blocks, threads, bounds in launches:
        assert 0 < blocks < 2**31
        assert 0 < threads <= 1024
        assert bounds is None or bounds[0] == threads


def test_capture_of_a_call_that_was_not_made_before():
    """The calls above show something: the driver refuses, or the call itself does."""
    x, w = (gpu_checks.OnDevice(np.ones((1, 2, 7, 7), np.float32), False) for _ in range(2))
    out = gpu_checks.OnDevice(np.ones((1, 1, 1, 1), np.float32), False)
    stream = cuda.stream()
    with pytest.raises(numbaconv.BackendError, match="make the same call once before"):
        gpu_memory._captured(partial(numbaconv.conv2d, x, w, out=out, stream=stream, algorithm="direct"), stream)


def described(memory, shape, device, stream=0):
    """An array on a device."""
    flat = device_array(memory)
    return DeviceArray(memory, flat.address, shape, None, memory.dtype, device, stream, flat.library)


def test_prepared_on_another_device():
    """A weight is packed where it will be used, whichever device is in use."""
    arrays = np.ones((2, 32, 9, 9), np.float32), np.ones((32, 32, 3, 3), np.float32)
    for name in ("tensor_core_3xtf32", "implicit_gemm", "winograd", "direct"):
        ready = numbaconv.prepare(arrays[1], algorithm=name)
        with cuda.gpus[1]:
            x = described(cuda.to_device(arrays[0].reshape(-1)), arrays[0].shape, 1)
            out = described(cuda.to_device(np.ones(2 * 32 * 49, np.float32)), (2, 32, 7, 7), 1)
        lines = [line for line in asked(partial(ready, x, out=out)) if not line.startswith(("wait", "free"))]
        assert {line.rpartition(" device ")[2] for line in lines} == {"1"}, (name, lines)


def blocks_of_two_threads(stream):
    """Whether a thread gets the memory that another one's call gave back, on a stream."""
    memory = cuda.device_array(4, np.float32)
    found = []

    def borrow():
        with Lease(described(memory, (4,), -1, stream)):
            found.append(device_array(take(1000, np.dtype(np.float32), 0)).address)

    for _ in range(2):
        thread = Thread(target=borrow)
        thread.start()
        thread.join()
    borrow()
    borrow()
    assert found[2] == found[3] or stream != 2
    return found[0] == found[1]


def test_memory_of_streams():
    """That of a stream is the next call's; the handle 2 means another stream in each thread."""
    assert blocks_of_two_threads(0)
    assert blocks_of_two_threads(64)
    assert not blocks_of_two_threads(2)


def test_tables_are_there():
    """Other streams do not wait for the default one: what they read must be there when it is remembered."""
    for stream in (0, cuda.stream()):
        lines = [line for line in asked(partial(settled, np.arange(4), stream)) if not line.startswith("free")]
        handle = int(stream.handle) if stream else 0
        assert lines[-1].startswith(f"wait for stream {handle} "), lines


def test_results_across_much_memory():
    """A sample of a result that reaches beyond 32-bit offsets, being one of many side by side, is filled elsewhere."""
    memory, batch, channels = cuda.device_array(4, np.float32), 2**27, 32
    step = 4 * batch
    for outermost, direct in ((False, False), (True, True)):
        strides = (4 * channels, 4, 4, 4, 4) if outermost else (4, step, 4, 4, 4)
        flat = device_array(memory)
        shape = (batch, channels, 1, 1, 1)
        out = DeviceArray(memory, flat.address, shape, strides, memory.dtype, -1, 0, flat.library)
        with Lease(out):
            made, _ = target(out, 0)
            assert (device_array(made.data).address == flat.address) is direct


torch = test_libraries.torch


@pytest.mark.parametrize("name", ["implicit_gemm", "direct"])
def test_tensors_of_pytorch(torch, name):
    """All memory is PyTorch's, and a second call, gradients included, waits for nothing and sends nothing."""
    x, w, g = (
        Tensor(address=1 << at, shape=shape)
        for at, shape in ((50, (2, 8, 9, 9)), (51, (8, 8, 3, 3)), (52, (2, 8, 7, 7)))
    )
    calls = {
        "output": partial(numbaconv.conv2d, x, w),
        "input": partial(grad.conv2d_input, x.shape, w, g),
        "weight": partial(grad.conv2d_weight, x, w.shape, g),
        "all": partial(grad.conv2d_backward, g, x, w),
    }
    for call in calls.values():
        first, again = (asked(partial(call, algorithm=name)) for _ in range(2))
        assert any(line.startswith("launch") for line in first)
        kinds = {line.split()[0] for line in again} - {"free"}
        assert kinds == {"launch"}, again
        made = call(algorithm=name)
        assert all(isinstance(each, Tensor) for each in (made if isinstance(made, tuple) else (made,)))
    assert not torch.entered  # nothing on a stream from PyTorch's pool


def test_versions():
    """Of the driver and of what links kernels: both are asked, since one may be too old for the other."""
    driver, toolkit = availability._versions()
    assert driver == (13, 0)
    assert toolkit >= (12, 0)


def test_views_that_wide_accesses_may_not_touch():
    """The simulator's memory lies anywhere; a device's wide accesses need addresses that are multiples."""
    memory = device_array(cuda.device_array(1024, np.float32))
    for first, count, wide in ((0, 4, True), (1, 4, False), (2, 2, True), (2, 4, False), (4, 4, True)):
        data = at_address(memory.address + 4 * first, 256, np.dtype(np.float32), None)
        tensor = device.Tensor(data, np.dtype(np.float32), (1, 4, 1, 8, 8), (256, 64, 64, 8, 1))
        assert is_aligned(tensor, (0, 1), count) is wide
        assert device_array(data).address == memory.address + 4 * first


def test_kernels_and_activations_are_said_as_they_are_compiled():
    """Once each: equal functions are one, and so are the kernels that are made of them."""
    x, w, told = np.ones((1, 1, 9)), np.ones((1, 1, 3)), []
    with compiling.told(lambda what, folder: told.append(what)):
        for _ in range(3):
            numbaconv.conv1d(x, w, activation=lambda v: v * 5.25, backend="cuda", algorithm="direct")
    said = [each for each in told if each is not None]
    assert said[0] == "activation '<lambda>' for float64 on the device"
    assert said[1].endswith("for the device")
    assert len(said) == len(set(said)) == told.count(None)
