"""ONNX's reference evaluator with and without this package's operators: the same results, measured side by side.

Each line is a model of one node. The reference implementation is written to be read, so it is slow; the last column
says how many times faster the node runs here.

    pip install 'numbaconv[onnx]'
    python examples/interop/onnx_evaluator.py
"""

from __future__ import annotations

import time

import numpy as np
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from numbaconv.interop.onnx import operators
from numbaconv.progress import compiling_bar

RNG = np.random.default_rng(0)


def reals(*shape: int) -> np.ndarray:
    """Random numbers."""
    return RNG.standard_normal(shape, dtype=np.float32)


def bytes_(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    """Random 8-bit integers."""
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, dtype=dtype)


#: What runs: an operator, its inputs, its attributes.
NODES = [
    ("Conv", [reals(1, 32, 56, 56), reals(64, 32, 3, 3)], {"pads": [1, 1, 1, 1]}),
    ("Conv", [reals(1, 96, 56, 56), reals(96, 1, 3, 3)], {"auto_pad": "SAME_UPPER", "group": 96}),
    ("ConvTranspose", [reals(1, 8, 14, 14), reals(8, 8, 4, 4)], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("ConvInteger", [bytes_(1, 16, 28, 28), bytes_(32, 16, 3, 3, dtype=np.int8), np.uint8(128)], {}),
    ("Col2Im", [reals(1, 4 * 9, 28 * 28), np.array([28, 28]), np.array([3, 3])], {"pads": [1, 1, 1, 1]}),
    ("CausalConvWithState", [reals(1, 256, 512), reals(256, 1, 4)], {"activation": "silu"}),
]


def evaluator(op: str, inputs: list[np.ndarray], attributes: dict, new_ops: list | None) -> ReferenceEvaluator:
    """A model of one node."""
    names = [f"input{at}" for at in range(len(inputs))]
    typed = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype), np.shape(array))
        for name, array in zip(names, inputs, strict=True)
    ]
    result = helper.make_tensor_value_info("output", TensorProto.UNDEFINED, None)
    graph = helper.make_graph([helper.make_node(op, names, ["output"], **attributes)], op, typed, [result])
    return ReferenceEvaluator(helper.make_model(graph), new_ops=new_ops)


def fastest(run: object, feeds: dict[str, np.ndarray]) -> tuple[np.ndarray, float]:
    """The result, and the least time of three runs, the first of which may compile and does not count."""
    times, found = [], run(None, feeds)[0]
    for _ in range(3):
        start = time.perf_counter()
        run(None, feeds)
        times.append(time.perf_counter() - start)
    return found, min(times)


def main() -> None:
    """Print a line for each node."""
    print(f"{'operator':<20} {'result':<18} {'reference':>12} {'numbaconv':>12} {'faster':>9}   difference")
    for op, arrays, attributes in NODES:
        inputs = [np.asarray(array) for array in arrays]
        feeds = {f"input{at}": array for at, array in enumerate(inputs)}
        wanted, slow = fastest(evaluator(op, inputs, attributes, None).run, feeds)
        found, fast = fastest(evaluator(op, inputs, attributes, operators()).run, feeds)
        off = np.abs(found.astype(float) - wanted).max() / np.abs(wanted).max()
        shape = "x".join(map(str, found.shape))
        print(f"{op:<20} {shape:<18} {slow * 1e3:>9.2f} ms {fast * 1e3:>9.2f} ms {slow / fast:>7.0f} x   {off:.1e}")


if __name__ == "__main__":
    with compiling_bar():
        main()
