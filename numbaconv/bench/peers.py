"""The peers, each in a process of its own: builds a layer's call, times it on request.

A worker reads one request a line (JSON: layer, direction, seconds) and answers with one line: the least and the median
time of a call, and how many calls were timed. ``python -m numbaconv.bench.peers NAME`` starts one.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .layer_table import Layer
from .workers import serve

__all__ = [
    "PEERS",
    "Call",
    "Function",
    "is_dense",
    "measure",
    "numbaconv_call",
    "numbaconv_function",
    "operands",
    "prepared_call",
    "runs",
    "torch_call",
    "torch_function",
    "torch_padded",
]

Call = Callable[[], object]
#: Of input, weight and output gradient.
Function = Callable[..., object]
Make = Callable[[Layer, str], Call]


def threads() -> int:
    """How many threads a peer gets: what its environment says."""
    return int(os.environ.get("OMP_NUM_THREADS", "2"))


def operands(layer: Layer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input, weight and output gradient, the same in every process."""
    rng = np.random.default_rng(0)
    shapes = (layer.input_shape, layer.weight_shape, layer.output_shape)
    x, w, g = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
    return x, w, g


def numbaconv_function(layer: Layer, direction: str, **further: Any) -> Function:
    """The public function of a direction, of arrays of any kind; ``further`` are options of it."""
    from .. import functional, grad

    name = f"conv_transpose{layer.rank}d" if layer.transposed else f"conv{layer.rank}d"
    options = {**layer.arguments, **further}
    if direction == "forward":
        forward = getattr(functional, name)
        return lambda x, w, g, **more: forward(x, w, **options, **more)
    if direction == "input":
        by_input = getattr(grad, f"{name}_input")
        return lambda x, w, g, **more: by_input(x.shape, w, g, **options, **more)
    by_weight = getattr(grad, f"{name}_weight")
    return lambda x, w, g, **more: by_weight(x, w.shape, g, **options, **more)


def numbaconv_call(layer: Layer, direction: str, algorithm: str | None = None) -> Call:
    return partial(numbaconv_function(layer, direction, algorithm=algorithm), *operands(layer))


def prepared_call(layer: Layer, direction: str, algorithm: str | None = None, precision: str | None = None) -> Call:
    from ..prepared import prepare

    assert direction == "forward", "only the convolution itself is prepared"
    x, w, _ = operands(layer)
    prepared = prepare(w, transposed=layer.transposed, algorithm=algorithm, precision=precision, **layer.arguments)
    return lambda: prepared(x)


def untransformed_call(layer: Layer, direction: str) -> Call:
    """`prepared_call` without Winograd and the like, whose rate can pass the machine's peak."""
    return prepared_call(layer, direction, precision="strict")


def torch_function(layer: Layer, direction: str) -> Function:
    """PyTorch's function of a direction, of tensors; gradients take the input as `torch_padded` makes it."""
    import torch

    arguments = {name: value for name, value in layer.arguments.items() if name != "padding"}
    extra = arguments.pop("output_padding", (0,) * layer.rank)
    even, uneven = _paddings(layer)
    if direction == "forward":
        if layer.transposed:
            transposed = getattr(torch.nn.functional, f"conv_transpose{layer.rank}d")
            common = [max(pair) for pair in layer.arguments["padding"]]
            return lambda x, w, g: transposed(x, w, padding=common, output_padding=extra, **arguments)
        function = getattr(torch.nn.functional, f"conv{layer.rank}d")
        if uneven:  # PyTorch's user pads first
            return lambda x, w, g: function(torch_padded(layer, x), w, padding=even, **arguments)
        return lambda x, w, g: function(x, w, padding=even, **arguments)
    mask = [direction == "input", direction == "weight", False]
    backward = torch.ops.aten.convolution_backward
    numbers = (arguments["stride"], even, arguments["dilation"], layer.transposed, extra, arguments["groups"])
    return lambda x, w, g: backward(g, x, w, None, *numbers, mask)


def _paddings(layer: Layer) -> tuple[list[int], list[int]]:
    """What is padded on both sides of each axis, and the rest as `torch.nn.functional.pad` takes it; or no rest."""
    pads = layer.arguments["padding"]
    even = [min(pair) for pair in pads]
    rest = [amount for pair, both in zip(pads[::-1], even[::-1], strict=True) for amount in (p - both for p in pair)]
    return even, rest if any(rest) else []


def torch_padded(layer: Layer, x: Any) -> Any:
    """An input with the padding that PyTorch's convolution has no argument for: where both sides differ."""
    import torch

    _, uneven = _paddings(layer)
    return torch.nn.functional.pad(x, uneven) if uneven else x


def torch_call(layer: Layer, direction: str) -> Call:
    import torch

    torch.set_num_threads(threads())
    x, w, g = (torch.from_numpy(each) for each in operands(layer))
    return partial(torch_function(layer, direction), x if direction == "forward" else torch_padded(layer, x), w, g)


def onnxruntime_call(layer: Layer, direction: str) -> Call:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    assert direction == "forward", "ONNX Runtime has no gradients"
    x, w, _ = operands(layer)
    pads = layer.arguments["padding"]
    attributes = {
        "strides": layer.arguments["stride"],
        "dilations": layer.arguments["dilation"],
        "group": layer.arguments["groups"],
        "pads": [before for before, _ in pads] + [after for _, after in pads],
    }
    if layer.transposed:
        attributes["output_padding"] = layer.arguments["output_padding"]
    node = helper.make_node("ConvTranspose" if layer.transposed else "Conv", ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, layer.input_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, layer.output_shape)],
        [helper.make_tensor("w", TensorProto.FLOAT, w.shape, w.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})


PEERS: dict[str, Make] = {
    "numbaconv": numbaconv_call,
    "numbaconv_prepared": prepared_call,
    "numbaconv_untransformed": untransformed_call,
    "torch": torch_call,
    "onnxruntime": onnxruntime_call,
}


def runs(name: str, layer: Layer, direction: str) -> bool:
    """Whether a peer takes part: some have no gradients, and one is there for dense layers alone."""
    if name == "numbaconv_untransformed" and not is_dense(layer):
        return False
    return direction == "forward" or name in ("numbaconv", "torch")


def is_dense(layer: Layer) -> bool:
    """A 3x3 or 1x1 convolution with 64 channels and more on both sides, in one group."""
    kernel, channels = layer.weight_shape[2:], layer.weight_shape[:2]
    plain = not layer.transposed and layer.arguments["groups"] == 1
    return plain and kernel in ((1, 1), (3, 3)) and min(channels) >= 64


def measure(call: Call, seconds: float) -> dict[str, float]:
    """Times of single calls, after one that is not counted."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 1000):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return {"least": min(times), "median": statistics.median(times), "calls": len(times)}


def worker(name: str) -> None:
    """Answer requests until the input ends."""
    built: dict[str, Call] = {}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        key = json.dumps([request["layer"], request["direction"]])
        if key not in built:
            built.clear()  # one layer's arrays at a time
            built[key] = PEERS[name](Layer.of(request["layer"]), request["direction"])
        return measure(built[key], request["seconds"])

    serve(answer)


if __name__ == "__main__":
    worker(sys.argv[1])
