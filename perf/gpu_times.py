"""How long layers take on the device: numbaconv, and cuDNN through PyTorch, taking turns, timed by CUDA events.

Operands and results go round among copies that together outgrow the second-level cache. Times are those of a sequence
of calls as Python issues them: a kernel shorter than its launch shows the launch. So forward calls, numbaconv's with a
prepared weight, are timed once more out of a CUDA graph, which holds kernels alone. What fails is recorded in words
and leaves the rest.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch

from gpu_checks import KINDS, OnDevice
from numbaconv import plan_conv, prepare
from numbaconv.bench.layer_table import Layer
from numbaconv.bench.peers import Call, numbaconv_function, torch_function, torch_padded

__all__ = ["Timer"]

#: Copies of a layer's operands at most; rounds in which all take turns, and for how long each.
_MOST_COPIES, _ROUNDS, _SECONDS = 64, 2, 0.03
#: What is set while a call is timed; and what makes a list of calls, and says how many of the layer's that is.
_Flags = Callable[[], AbstractContextManager[Any]]
_Make = Callable[[], tuple[list[Call], int]]
_FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}


class _Set(NamedTuple):
    """One copy of a layer's operands and of a direction's result."""

    x: Any
    w: Any
    g: Any
    out: Any


class Timer:
    """Times layers. In the simulator, where ``there`` is False, PyTorch computes on the host, whose clock is read."""

    def __init__(self, there: bool):
        self.there = there
        self.device = "cuda" if there else "cpu"
        self.cache = torch.cuda.get_device_properties(0).L2_cache_size if there else 0
        torch.backends.cudnn.benchmark = True

    def peak(self) -> dict[str, float]:
        """What the device can do: GB/s of a copy, TFLOP/s of square products by PyTorch."""
        size, extent = (1 << 28, 8192) if self.there else (1 << 10, 16)
        source = torch.ones(size, dtype=torch.float32, device=self.device)
        target = torch.empty_like(source)
        found = {"GB/s": 8 * size / self._least([partial(target.copy_, source)]) / 1e9}
        for name, dtype, tf32 in (
            ("float32", torch.float32, False),
            ("tf32", torch.float32, True),
            ("float16", torch.float16, False),
        ):
            a, b = (torch.randn(extent, extent, device=self.device).to(dtype) for _ in range(2))
            with _tf32(tf32):
                found[name] = 2 * extent**3 / self._least([partial(torch.mm, a, b)]) / 1e12
        return found

    def time(self, layer: Layer, kind: str, direction: str) -> dict[str, Any]:
        """A record with the times of a call, a list over rounds for each name; ``errors`` by name."""
        dtype, last = KINDS[kind]
        plan = plan_conv(
            layer.input_shape, layer.weight_shape, transposed=layer.transposed, dtype=dtype, **layer.arguments
        )
        shapes = (layer.input_shape, layer.weight_shape, layer.output_shape)
        bytes_moved = np.dtype(dtype).itemsize * sum(map(prod, shapes))
        record: dict[str, Any] = {
            "layer": layer.name,
            "batch": layer.input_shape[0],
            "kind": kind,
            "direction": direction,
            "flops": plan.flops,
            "bytes": bytes_moved,
            "depthwise": layer.weight_shape[1] == 1 and not layer.transposed and layer.arguments["groups"] > 1,
            "times": {},
            "errors": {},
        }
        copies = min(max(-(-2 * self.cache // bytes_moved), 2), _MOST_COPIES) if self.there else 1
        sets = [self._set(layer, dtype, last, direction) for _ in range(copies)]
        ways, made = self._ways(layer, kind, direction, sets), {}
        for turn in range(_ROUNDS if self.there else 1):
            for name in list(ways) if turn % 2 == 0 else list(ways)[::-1]:
                if name in record["errors"]:
                    continue
                flags, make = ways[name]
                try:
                    with flags():
                        if name not in made:
                            made[name] = make()
                        calls, count = made[name]
                        record["times"].setdefault(name, []).append(self._least(calls) / count)
                except Exception as error:  # the report says so, and goes on with the rest
                    record["errors"][name] = f"{type(error).__name__}: {error}"
                    record["times"].pop(name, None)
        if self.there:
            torch.cuda.empty_cache()  # numba allocates beside PyTorch
        return record

    def _set(self, layer: Layer, dtype: str, last: bool, direction: str) -> _Set:
        shapes = {"x": layer.input_shape, "w": layer.weight_shape, "g": layer.output_shape}
        made = {}
        for name, shape in shapes.items():
            tensor = torch.randn(shape, device=self.device, dtype=torch.float32).to(getattr(torch, dtype))
            if last and layer.rank in _FORMATS:
                tensor = tensor.to(memory_format=_FORMATS[layer.rank])
            made[name] = tensor
        result = made[{"forward": "g", "input": "x", "weight": "w"}[direction]]
        return _Set(**made, out=torch.empty_like(result))

    def _ours(self, given: _Set) -> _Set:
        """The same for numbaconv, which in the simulator needs arrays on its own device."""
        if self.there:
            return given
        return _Set(*(OnDevice(each.numpy(), False) for each in given))

    def _ways(self, layer: Layer, kind: str, direction: str, sets: list[_Set]) -> dict[str, tuple[_Flags, _Make]]:
        """By name, how numbaconv and its peers are called."""
        mine = [self._ours(each) for each in sets]
        function = numbaconv_function(layer, direction, backend="cuda")
        ours = [partial(function, each.x, each.w, each.g, out=each.out) for each in mine]
        theirs = torch_function(layer, direction)
        fed = [(each.x if direction == "forward" else torch_padded(layer, each.x), each.w, each.g) for each in sets]
        cudnn = [partial(theirs, *each) for each in fed]
        ways: dict[str, tuple[_Flags, _Make]] = {"numbaconv": (nullcontext, lambda: (ours, len(ours)))}
        peers = {"cudnn_f16": False} if kind != "float32" else {"cudnn": False, "cudnn_tf32": True}
        for name, tf32 in peers.items():
            ways[name] = (partial(_tf32, tf32), lambda: (cudnn, len(cudnn)))
        if direction != "forward":
            return ways

        def prepared() -> list[Call]:
            weight = sets[0].w.cpu().numpy()
            layer_ready = prepare(weight, transposed=layer.transposed, backend="cuda", **layer.arguments)
            return [partial(layer_ready, each.x, out=each.out) for each in mine]

        ways["numbaconv_prepared"] = (nullcontext, lambda: (prepared(), len(mine)))
        ways["numbaconv_prepared graph"] = (nullcontext, lambda: self._graph(prepared()))
        for name, tf32 in peers.items():
            ways[f"{name} graph"] = (partial(_tf32, tf32), lambda: self._graph(cudnn))
        return ways

    def _graph(self, calls: list[Call]) -> tuple[list[Call], int]:
        """The calls as one: captured in a graph, several times over where they are few."""
        if not self.there:

            def one_by_one() -> None:
                for call in calls:
                    call()

            return [one_by_one], len(calls)
        calls = calls * max(16 // len(calls), 1)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for call in calls:
                call()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls:
                call()
        return [graph.replay], len(calls)

    def _least(self, calls: list[Call]) -> float:
        """Seconds that all the calls take together: the least of some repeats, after one that is not counted."""
        for call in calls:
            call()
        once = self._seconds(calls, 1)
        if not self.there:
            return once
        repeats = min(max(int(0.003 / max(once, 1e-9)), 1), 1000)
        found, end = once, time.perf_counter() + _SECONDS
        for turn in range(1000):
            if turn >= 2 and time.perf_counter() > end:
                break
            found = min(found, self._seconds(calls, repeats) / repeats)
        return found

    def _seconds(self, calls: list[Call], repeats: int) -> float:
        if not self.there:
            start = time.perf_counter()
            _repeat(calls, repeats)
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        _repeat(calls, repeats)
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3


def _repeat(calls: list[Call], repeats: int) -> None:
    for _ in range(repeats):
        for call in calls:
            call()


@contextmanager
def _tf32(allowed: bool) -> Any:
    """Whether PyTorch may round the operands of products to TF32."""
    flags = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [each.allow_tf32 for each in flags]
    for each in flags:
        each.allow_tf32 = allowed
    try:
        yield
    finally:
        for each, value in zip(flags, before, strict=True):
            each.allow_tf32 = value
