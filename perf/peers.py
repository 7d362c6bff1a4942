"""The peers, each in a process of its own: builds a layer's call, times it on request.

A worker reads one request a line (JSON: table, row, direction, seconds) and answers with one line: the least and
the median time of a call, and how many calls were timed. ``python perf/peers.py NAME`` starts one.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import layer_table
from layer_table import Layer

DIRECTIONS = ("forward", "input", "weight")
Call = Callable[[], object]


def operands(layer: Layer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input, weight and output gradient, the same in every process."""
    rng = np.random.default_rng(0)
    shapes = (layer.input_shape, layer.weight_shape, layer.output_shape)
    x, w, g = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
    return x, w, g


def numbaconv_call(layer: Layer, direction: str) -> Call:
    import numbaconv

    x, w, g = operands(layer)
    name = f"conv_transpose{layer.rank}d" if layer.transposed else f"conv{layer.rank}d"
    forward = getattr(numbaconv, name)
    if direction == "forward":
        return lambda: forward(x, w, **layer.arguments)
    if direction == "input":
        by_input = getattr(numbaconv.grad, f"{name}_input")
        return lambda: by_input(x.shape, w, g, **layer.arguments)
    by_weight = getattr(numbaconv.grad, f"{name}_weight")
    return lambda: by_weight(x, w.shape, g, **layer.arguments)


def torch_call(layer: Layer, direction: str) -> Call:
    import torch

    torch.set_num_threads(2)
    x, w, g = (torch.from_numpy(each) for each in operands(layer))
    arguments = dict(layer.arguments)
    pads = arguments.pop("padding")
    extra = arguments.pop("output_padding", (0,) * layer.rank)
    common = [max(before, after) for before, after in pads]
    even = [min(before, after) for before, after in pads]
    uneven = [amount for pair, both in zip(pads[::-1], even[::-1], strict=True) for amount in (p - both for p in pair)]
    if direction == "forward":
        if layer.transposed:
            function = getattr(torch.nn.functional, f"conv_transpose{layer.rank}d")
            return lambda: function(x, w, padding=common, output_padding=extra, **arguments)
        function = getattr(torch.nn.functional, f"conv{layer.rank}d")
        if any(uneven):  # PyTorch's user pads first
            pad = torch.nn.functional.pad
            return lambda: function(pad(x, uneven), w, padding=even, **arguments)
        return lambda: function(x, w, padding=even, **arguments)
    mask = [direction == "input", direction == "weight", False]
    backward = torch.ops.aten.convolution_backward
    padded = torch.nn.functional.pad(x, uneven) if any(uneven) else x
    numbers = (arguments["stride"], even, arguments["dilation"], layer.transposed, extra, arguments["groups"])
    return lambda: backward(g, padded, w, None, *numbers, mask)


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
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})


PEERS: dict[str, Callable[[Layer, str], Call]] = {
    "numbaconv": numbaconv_call,
    "torch": torch_call,
    "onnxruntime": onnxruntime_call,
}


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


def serve(name: str) -> None:
    """Answer requests until the input ends."""
    tables: dict[str, list[Layer]] = {}
    built: dict[tuple[str, int, str], Call] = {}
    for line in sys.stdin:
        request = json.loads(line)
        key = (request["table"], request["row"], request["direction"])
        if key not in built:
            built.clear()  # one layer's arrays at a time
            rows = tables.setdefault(key[0], layer_table.read(key[0]))
            built[key] = PEERS[name](rows[key[1]], key[2])
        print(json.dumps(measure(built[key], request["seconds"])), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
