"""What calls do to the device's memory, and whether CUDA graphs can hold them: for every CUDA algorithm and direction.

Memory: after a thousand calls as much must be free, and as many of Numba's allocations alive, as after a few. Graphs: a
call that was made once before is captured, by PyTorch for its tensors and by the driver for other arrays. Its operands
then change, other calls run, and the graph must give the bits that the call itself gives. In the simulator, which has
neither, few calls are made, and a graph is the call.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numba import cuda

from gpu_checks import KINDS, OnDevice, primitive
from numbaconv import plan_conv
from numbaconv.backends import registry
from numbaconv.backends.cuda.scratch import free_scratch
from numbaconv.bench.layer_table import Layer
from numbaconv.bench.peers import Call, Function, numbaconv_function, operands

__all__ = ["check"]

#: Free memory comes in pieces of this many bytes.
_PIECE = 2 << 20
_RESULT = {"forward": 2, "input": 0, "weight": 1}


def layers(there: bool) -> list[Layer]:
    """Small ones that all algorithms accept between them."""
    batch, extent, channels = (2, 28, 32) if there else (1, 2, 4)
    found = []
    for name, groups in (("dense", 1), ("depthwise", channels)):
        arguments = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": groups}
        shape, weight = (batch, channels, extent, extent), (channels, channels // groups, 3, 3)
        found.append(Layer(f"calls/{name}", False, shape, weight, arguments, shape, 0.0, False))
    return found


def check(there: bool, calls: int) -> Iterator[dict[str, Any]]:
    """A record for each way to call, kind, direction and algorithm; ``there``: on a device.

    In the simulator, where it would be nothing new, each algorithm's first kind and direction alone; ``direct``'s
    directions all.
    """
    seen: dict[str, tuple[str, str]] = {}
    for layer in layers(there):
        for kind, (dtype, last) in KINDS.items():
            plan = plan_conv(layer.input_shape, layer.weight_shape, dtype=dtype, **layer.arguments)
            for direction in _RESULT:
                for algorithm in registry.resolve("cuda").tables[primitive(layer, direction)]:
                    if algorithm.accepts(plan) is not None:
                        continue
                    key = f"{algorithm.name} {direction}" if algorithm.name == "direct" else algorithm.name
                    if seen.setdefault(key, (kind, direction)) != (kind, direction) and not there:
                        continue
                    function = numbaconv_function(layer, direction, backend="cuda", algorithm=algorithm.name)
                    arrays = [each.astype(dtype) for each in operands(layer)]
                    case = {"layer": layer.name, "kind": kind, "direction": direction, "algorithm": algorithm.name}
                    ways: dict[str, Callable[[], str | None]] = {
                        f"{calls:,} calls": partial(_leak, function, arrays, last, calls),
                        "graph": partial(_graph_of_arrays, function, arrays, direction, last, there),
                    }
                    if there:
                        ways["graph of PyTorch's"] = partial(_graph_of_tensors, function, arrays, direction, last)
                    for name, way in ways.items():
                        try:
                            wrong = way()
                        except Exception as error:  # the report says so, and goes on with the rest
                            wrong = f"{type(error).__name__}: {error}"
                        yield {**case, "what": name, "right": wrong is None, "error": wrong}
    free_scratch(captured=True)


def _alive() -> tuple[int, float]:
    """Numba's allocations, and bytes that are free."""
    cuda.synchronize()
    context = cuda.current_context()
    pending = getattr(context, "deallocations", None)
    if pending is not None:
        pending.clear()
    return len(getattr(context, "allocations", ())), context.get_memory_info().free


def _leak(function: Function, arrays: list[np.ndarray], last: bool, calls: int) -> str | None:
    """What a number of calls leaves behind, results included."""
    there = [OnDevice(each, last) for each in arrays]
    for _ in range(min(calls, 12)):  # Numba gives memory back ten arrays at a time
        function(*there)
    allocations, free = _alive()
    for _ in range(calls):
        function(*there)
    now, left = _alive()
    if now > allocations or left < free - _PIECE:
        return f"{now - allocations} allocations and {free - left:,.0f} bytes were left behind"
    return None


def _replayed(call: Call, replay: Call, change: Call, result: Callable[[], np.ndarray]) -> str | None:
    """Whether a graph gives the call's bits, for operands that changed, after other calls."""
    change()
    call()
    wanted = result()
    for turn in range(2):
        replay()
        if not np.array_equal(result().view(np.uint8), wanted.view(np.uint8)):
            return f"run {turn + 1} of the graph differs from the call"
        call()
    return None


def _graph_of_arrays(
    function: Function, arrays: list[np.ndarray], direction: str, last: bool, there: bool
) -> str | None:
    given, stream = [OnDevice(each, last) for each in arrays], cuda.stream()
    out = OnDevice(np.full_like(arrays[_RESULT[direction]], np.nan), last)
    call = partial(function, *given, out=out, **({"stream": stream} if there else {}))
    call()
    cuda.synchronize()
    replay = _captured(call, stream) if there else call

    def change() -> None:
        for each, array in zip(given, arrays, strict=True):
            each.fill(-2 * array)
        out.fill(np.full_like(arrays[_RESULT[direction]], np.nan))
        cuda.synchronize()

    return _replayed(call, replay, change, lambda: np.ascontiguousarray(out.host()))


def _captured(call: Call, stream: Any) -> Call:
    """A call in a graph of the driver's, to be run on its stream."""
    from cuda.bindings import driver as binding

    driver, handle = cuda.cudadrv.driver.driver, int(stream.handle)
    driver.cuStreamBeginCapture(handle, binding.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
    try:
        call()
    finally:
        graph = driver.cuStreamEndCapture(handle)
    runnable = driver.cuGraphInstantiate(graph, 0)

    def replay() -> None:
        driver.cuGraphLaunch(runnable, handle)
        stream.synchronize()

    return replay


def _graph_of_tensors(function: Function, arrays: list[np.ndarray], direction: str, last: bool) -> str | None:
    import torch

    given = [torch.from_numpy(each).cuda() for each in arrays]
    if last:
        given = [each.to(memory_format=torch.channels_last) for each in given]
    out = torch.empty_like(given[_RESULT[direction]])
    call, side = partial(function, *given, out=out), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()

    def change() -> None:
        for each in given:
            each.mul_(-2)
        out.fill_(torch.nan)

    return _replayed(call, graph.replay, change, lambda: out.cpu().contiguous().numpy())
