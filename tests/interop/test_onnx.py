"""ONNX's operators: its own backend tests, and what those do not visit, against the oracle and its reference."""

import doctest
import inspect
import os
import unittest
import warnings
from importlib import import_module

import ml_dtypes
import numpy as np
import pytest

import numbaconv
import oracle
from numbaconv import functional

if os.environ.get("NUMBACONV_REQUIRE_LIBRARIES"):
    import_module("onnx")
onnx = pytest.importorskip("onnx")
helper = import_module("onnx.helper")
reference = import_module("onnx.reference")
backend = import_module("numbaconv.interop.onnx")

OPERATORS = {operator.__name__: operator for operator in backend.operators()}
RNG = np.random.default_rng(0)


def evaluate(op, arrays, outputs=1, new_ops=None, **attributes):
    """One node, in a model of the newest opset; absent inputs are None."""
    names = [f"i{at}" if array is not None else "" for at, array in enumerate(arrays)]
    given = {name: array for name, array in zip(names, arrays, strict=True) if name}
    node = helper.make_node(op, names, [f"o{at}" for at in range(outputs)], **attributes)
    types = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in given.items()}
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info(name, types[name], array.shape) for name, array in given.items()],
        [helper.make_tensor_value_info(f"o{at}", onnx.TensorProto.UNDEFINED, None) for at in range(outputs)],
    )
    model = helper.make_model(graph)
    evaluator = reference.ReferenceEvaluator(model, new_ops=backend.operators() if new_ops is None else new_ops)
    found = evaluator.run(None, given)
    return found[0] if outputs == 1 else found


def reals(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


def integers(*shape, dtype=np.int8):
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


# --- the backend tests that ONNX has -----------------------------------------------------------------------------


def _uses(nodes):
    """Whether one of the operators is among the nodes or in their subgraphs."""
    return any(
        node.op_type in OPERATORS or any(_uses(each.g.node) for each in node.attribute if each.HasField("g"))
        for node in nodes
    )


def _backend_tests():
    """Every test of ONNX's whose model has one of the operators, as a case of its own runner."""
    from onnx.backend.test import BackendTest
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they compute infinities
        cases = [
            case
            for kind in ("node", "simple", "pytorch-converted", "pytorch-operator")
            for case in load_model_tests(kind=kind)
        ]
        runner = BackendTest(backend.Backend, __name__)
    names = set()
    for case in cases:
        model = case.model or onnx.load(os.path.join(case.model_dir, "model.onnx"))
        if _uses(model.graph.node) or any(_uses(function.node) for function in model.functions):
            names.add(f"{case.name}_cpu")
    return [
        kind(name)
        for kind in runner.test_cases.values()
        for name in unittest.defaultTestLoader.getTestCaseNames(kind)
        if name in names
    ]


BACKEND_TESTS = _backend_tests()


def test_the_backend_tests_were_found():
    names = {case.id().rsplit(".", 1)[-1].removesuffix("_cpu") for case in BACKEND_TESTS}
    assert len(BACKEND_TESTS) == len(names) >= 81
    for name in ("conv_with_autopad_same", "convtranspose_group_2_image_3", "convinteger_with_padding", "qlinearconv"):
        assert f"test_{name}" in names
    assert {"test_col2im_5d", "test_causal_conv_with_state_decode_step_expanded", "test_Conv3d_groups"} <= names


@pytest.mark.parametrize("case", BACKEND_TESTS, ids=lambda case: case.id().rsplit(".", 1)[-1])
def test_backend(case):
    result = unittest.TestResult()
    case.run(result)
    assert result.wasSuccessful(), (result.failures + result.errors)[0][1]
    assert result.testsRun == 1
    assert not result.skipped


# --- what they do not visit --------------------------------------------------------------------------------------

RANKS = {
    1: {"x": (2, 6, 19), "kernel": (4,), "strides": [2], "dilations": [2], "pads": [1, 4]},
    2: {"x": (2, 6, 11, 12), "kernel": (3, 2), "strides": [2, 3], "dilations": [2, 1], "pads": [0, 1, 3, 2]},
    3: {
        "x": (1, 6, 7, 8, 6),
        "kernel": (2, 3, 1),
        "strides": [1, 2, 3],
        "dilations": [1, 2, 1],
        "pads": [1, 0, 2, 0, 3, 1],
    },
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("auto_pad", ["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("rank", RANKS)
def test_conv(rank, auto_pad, dtype):
    """All ranks, groups, strides, dilations, and every way to pad: the reference implementation's values."""
    case = RANKS[rank]
    x, w, b = reals(*case["x"], dtype=dtype), reals(4, 3, *case["kernel"], dtype=dtype), reals(4, dtype=dtype)
    attributes = {name: case[name] for name in ("strides", "dilations")}
    attributes |= {"pads": case["pads"]} if auto_pad == "NOTSET" else {"auto_pad": auto_pad}
    attributes |= {"group": 2, "kernel_shape": case["kernel"]}
    found = evaluate("Conv", [x, w, b], **attributes)
    wide = [array.astype(np.float64) for array in (x, w, b)]
    wanted = evaluate("Conv", wide, new_ops=[], **attributes)
    assert found.dtype == dtype
    assert found.shape == wanted.shape
    eps = float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=4 * eps, atol=64 * eps)


def test_conv_without_attributes_and_with_pads_beside_auto_pad():
    x, w = reals(1, 2, 9), reals(3, 2, 3)
    np.testing.assert_array_equal(evaluate("Conv", [x, w]), numbaconv.conv1d(x, w))
    found = evaluate("Conv", [x, w], auto_pad="SAME_UPPER", pads=[4, 4])
    np.testing.assert_array_equal(found, numbaconv.conv1d(x, w, padding="same"))


@pytest.mark.parametrize("rank", RANKS)
def test_conv_transpose(rank):
    case = RANKS[rank]
    x, w, b = (RNG.integers(-4, 5, shape).astype(np.float32) for shape in (case["x"], (6, 2, *case["kernel"]), (4,)))
    pads = list(zip(case["pads"][:rank], case["pads"][rank:], strict=True))
    extra = [step - 1 for step in case["strides"]]
    geometry = {"stride": case["strides"], "dilation": case["dilations"], "groups": 2}
    attributes = {"strides": case["strides"], "dilations": case["dilations"], "group": 2}
    wanted = oracle.conv_transpose(x, w, pads=pads, output_padding=extra, **geometry) + b.reshape(-1, *(1,) * rank)
    found = evaluate("ConvTranspose", [x, w, b], pads=case["pads"], output_padding=extra, **attributes)
    np.testing.assert_array_equal(found, wanted)
    # The same size asked for: the padding follows from it, so that its sum is the same.
    full = oracle.conv_transpose(x, w, pads=[(0, 0)] * rank, output_padding=extra, **geometry)
    for auto_pad in ("NOTSET", "SAME_UPPER", "SAME_LOWER"):
        size = [extent - 3 for extent in full.shape[2:]]
        upper = auto_pad == "SAME_UPPER"
        cut = tuple(slice(1 if upper else 2, -2 if upper else -1) for _ in range(rank))
        found = evaluate(
            "ConvTranspose", [x, w, b], output_shape=size, output_padding=extra, auto_pad=auto_pad, **attributes
        )
        np.testing.assert_array_equal(found, full[(..., *cut)] + b.reshape(-1, *(1,) * rank))


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("rank", RANKS)
def test_conv_transpose_pads_by_itself(rank, auto_pad):
    case = RANKS[rank]
    x, w = reals(*case["x"]), reals(6, 2, *case["kernel"])
    attributes = {"strides": case["strides"], "dilations": case["dilations"], "auto_pad": auto_pad}
    found = evaluate("ConvTranspose", [x, w], **attributes)
    wanted = evaluate("ConvTranspose", [x, w], new_ops=[], **attributes)
    if auto_pad != "VALID":
        assert found.shape[2:] == tuple(n * s for n, s in zip(x.shape[2:], case["strides"], strict=True))
        negative = [d * (k - 1) + 1 < s for d, k, s in zip(*attributes_of(case), strict=True)]
        if any(negative):  # the reference then moves the result, which is not padding any more
            return
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def attributes_of(case):
    return case["dilations"], case["kernel"], case["strides"]


ZERO_POINTS = {
    "none": (None, None),
    "scalars": (np.uint8(7), np.int8(-5)),
    "of one element": (np.array([200], np.uint8), np.array([3], np.int8)),
    "per channel": (np.uint8(255), np.array([-128, 127, 0, 1], np.int8)),
}


def _centred(x, w, x_zero, w_zero):
    """What is multiplied, in int64."""
    x = x.astype(np.int64) - (0 if x_zero is None else int(np.reshape(x_zero, ())))
    if w_zero is not None:
        w_zero = np.reshape(w_zero, (-1, *(1,) * (w.ndim - 1))).astype(np.int64)
    return x, w.astype(np.int64) - (0 if w_zero is None else w_zero)


@pytest.mark.parametrize("zero_points", ZERO_POINTS)
@pytest.mark.parametrize("rank", RANKS)
def test_conv_integer(rank, zero_points):
    case = RANKS[rank]
    x, w = integers(*case["x"], dtype=np.uint8), integers(4, 3, *case["kernel"])
    x_zero, w_zero = ZERO_POINTS[zero_points]
    arrays = [x, w, *(None if zero is None else np.asarray(zero) for zero in (x_zero, w_zero))]
    attributes = {name: case[name] for name in ("strides", "dilations", "pads")}
    found = evaluate("ConvInteger", arrays, group=2, **attributes)
    wide = _centred(x, w, x_zero, w_zero)
    pads = list(zip(case["pads"][:rank], case["pads"][rank:], strict=True))
    geometry = {"stride": case["strides"], "dilation": case["dilations"], "groups": 2}
    wanted = oracle.forward(*wide, pads=pads, modes=["zeros"] * rank, **geometry)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("zero_points", [name for name in ZERO_POINTS if name != "none"])
@pytest.mark.parametrize("rank", RANKS)
def test_qlinear_conv(rank, zero_points, signed):
    """Rounding to even before the zero point is added, and what is too large; scales are powers of two, so exact."""
    case = RANKS[rank]
    x, w, b = integers(*case["x"], dtype=np.uint8), integers(4, 3, *case["kernel"]), RNG.integers(-999, 999, 4)
    x_zero, w_zero = map(np.asarray, ZERO_POINTS[zero_points])
    y_zero = np.int8(-3) if signed else np.uint8(131)
    w_scale = np.float32([2**-7, 2**-8, 2**-9, 2**-3]) if zero_points == "per channel" else np.float32(2**-8)
    arrays = [x, np.float32(0.5), x_zero, w, w_scale, w_zero, np.float32(2), y_zero, b.astype(np.int32)]
    attributes = {name: case[name] for name in ("strides", "dilations", "pads")}
    found = evaluate("QLinearConv", [np.asarray(array) for array in arrays], group=2, **attributes)
    pads = list(zip(case["pads"][:rank], case["pads"][rank:], strict=True))
    geometry = {"stride": case["strides"], "dilation": case["dilations"], "groups": 2}
    sums = oracle.forward(*_centred(x, w, x_zero, w_zero), pads=pads, modes=["zeros"] * rank, **geometry)
    per_channel = (-1, *(1,) * rank)
    scaled = (sums + b.reshape(per_channel)) * (w_scale.astype(float) / 4).reshape(per_channel)
    limits = np.iinfo(y_zero.dtype)
    assert found.dtype == y_zero.dtype
    np.testing.assert_array_equal(found, np.clip(np.rint(scaled) + int(y_zero), limits.min, limits.max))
    if zero_points == "per channel":  # its last channel is too large
        assert limits.min in found
        assert limits.max in found


@pytest.mark.parametrize(
    "dtype",
    [np.bool_, np.int8, np.uint16, np.int32, np.uint64, np.float16, ml_dtypes.bfloat16, np.float32, np.complex64],
)
def test_col2im_returns_its_dtype(dtype):
    image, block = np.array([5, 6]), np.array([2, 3])
    attributes = {"strides": [1, 2], "dilations": [2, 1], "pads": [1, 0, 0, 1]}
    columns = (5 + 1 - 3 + 1) * ((6 + 1 - 3) // 2 + 1)
    data = RNG.integers(0, 2 if dtype == np.bool_ else 5, (2, 6 * 3, columns)).astype(dtype)
    found = evaluate("Col2Im", [data, image, block], **attributes)
    wanted = evaluate("Col2Im", [data.real.astype(np.float64), image, block], new_ops=[], **attributes)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.astype(np.complex128), wanted.astype(dtype).astype(np.complex128))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("activation", ["none", "silu", "swish"])
def test_causal_conv_in_steps_is_the_whole(activation, dtype):
    """Steps of every length, the state carried from one to the next; one output alone may be wanted."""
    x, w, b = reals(2, 3, 20, dtype=dtype), reals(3, 1, 4, dtype=dtype), reals(3, dtype=dtype)
    whole, state = evaluate("CausalConvWithState", [x, w, b], 2, activation=activation)
    np.testing.assert_array_equal(state, x[:, :, -3:])
    kept, parts, at = None, [], 0
    for length in (1, 2, 7, 3, 5, 2):
        part, kept = evaluate("CausalConvWithState", [x[:, :, at : at + length], w, b, kept], 2, activation=activation)
        parts.append(part)
        at += length
    assert at == 20
    np.testing.assert_array_equal(np.concatenate(parts, axis=2), whole)
    np.testing.assert_array_equal(kept, state)
    np.testing.assert_array_equal(evaluate("CausalConvWithState", [x, w, b], activation=activation), whole)


X, W = reals(1, 4, 9), reals(6, 4, 3)
B8, W8 = integers(1, 4, 9, dtype=np.uint8), integers(6, 4, 3)


@pytest.mark.parametrize(
    ("op", "arrays", "attributes", "message"),
    [
        ("Conv", [X, W], {"kernel_shape": [4]}, r"kernel_shape is \(4,\), but the weight's is \(3,\)"),
        ("Conv", [X, W], {"pads": [1]}, "pads has 1 entries .* need 2"),
        ("Conv", [X, W], {"strides": [1, 1]}, "strides has 2 entries"),
        ("Conv", [X, W], {"auto_pad": "SAME"}, "auto_pad is 'SAME'"),
        ("Conv", [X, W], {"group": 2}, "weight has 4 channels per group"),
        ("Conv", [X[None], W], {}, "must both have 3, 4 or 5 axes"),
        ("Conv", [X[0, 0], W[0, 0]], {}, "must both have 3, 4 or 5 axes"),
        ("Conv", [reals(1, 1, 2, 2, 2, 2), reals(1, 1, 1, 1, 1, 1)], {}, "must both have 3, 4 or 5 axes"),
        ("ConvTranspose", [X, reals(4, 2, 3)], {"output_shape": [40]}, r"output_size 40 .* must be 11 to 11"),
        ("ConvInteger", [B8, W8, np.uint8([1, 2])], {}, "x_zero_point must be a scalar"),
        ("ConvInteger", [B8, W8, np.uint8(1), np.int8([1, 2])], {}, r"w_zero_point must be .* \(6,\)"),
        ("CausalConvWithState", [X, W], {}, r"weight must have shape \(4, 1, taps\)"),
        (
            "CausalConvWithState",
            [X, reals(4, 1, 3), None, reals(1, 4, 3)],
            {},
            r"past_state must have shape \(1, 4, 2\)",
        ),
        ("CausalConvWithState", [X, reals(4, 1, 3)], {"activation": "relu"}, "activation is 'relu'"),
        ("Col2Im", [reals(1, 7, 4), np.array([5]), np.array([2])], {}, "7 rows, not divisible"),
    ],
)
def test_errors_say_what_is_wrong(op, arrays, attributes, message):
    with pytest.raises(numbaconv.ConvError, match=message):
        evaluate(op, [None if array is None else np.asarray(array) for array in arrays], 1, **attributes)


def test_attributes_of_a_function_and_nodes_of_a_subgraph():
    """A node whose attributes are a function's, and one in the branch of an If."""
    conv = helper.make_node("Conv", ["x", "w"], ["y"])
    for name in ("strides", "pads"):
        attribute = onnx.AttributeProto(name=name, type=onnx.AttributeProto.INTS, ref_attr_name=name)
        conv.attribute.append(attribute)
    opset = helper.make_opsetid("", 22)
    function = helper.make_function("own", "Strided", ["x", "w"], ["y"], [conv], [opset], ["strides", "pads"])
    info = helper.make_tensor_value_info
    floats = onnx.TensorProto.FLOAT
    branch = helper.make_graph(
        [helper.make_node("Strided", ["x", "w"], ["then"], domain="own", strides=[2], pads=[1, 0])],
        "then",
        [],
        [info("then", floats, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["else"])], "else", [], [info("else", floats, None)]
    )
    node = helper.make_node("If", ["which"], ["out"], then_branch=branch, else_branch=other)
    graph = helper.make_graph(
        [node],
        "graph",
        [info("which", onnx.TensorProto.BOOL, []), info("x", floats, None), info("w", floats, None)],
        [info("out", floats, None)],
    )
    model = helper.make_model(graph, functions=[function], opset_imports=[opset, helper.make_opsetid("own", 1)])
    run = reference.ReferenceEvaluator(model, new_ops=backend.operators()).run
    feeds = {"x": X, "w": W}
    strided = numbaconv.conv1d(X, W, stride=2, padding=((1, 0),))
    np.testing.assert_array_equal(run(None, {"which": np.array(True), **feeds})[0], strided)
    np.testing.assert_array_equal(run(None, {"which": np.array(False), **feeds})[0], numbaconv.conv1d(X, W))


# --- the backend -------------------------------------------------------------------------------------------------


def _model():
    """``relu(conv(x, w))`` with a stored weight."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"]), helper.make_node("Relu", ["y"], ["0"])]
    info, floats = helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "graph",
        [info("x", floats, X.shape)],
        [info("0", floats, [1, 6, 7])],
        [onnx.numpy_helper.from_array(W, "w")],
    )
    return helper.make_model(graph)


def test_the_backend_runs_models_and_nodes():
    wanted = numbaconv.conv1d(X, W, activation="relu")
    prepared = backend.prepare(_model())
    for inputs in ([X], (X,), X, {"x": X}):
        outputs = prepared.run(inputs)
        assert isinstance(outputs, tuple)
        np.testing.assert_array_equal(outputs[0], wanted)
    np.testing.assert_array_equal(prepared.run([X])["0"], wanted)
    np.testing.assert_array_equal(backend.run_model(_model(), [X])[0], wanted)
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[2])
    np.testing.assert_array_equal(backend.run_node(node, [X, W])[0], numbaconv.conv1d(X, W, stride=2))
    outputs = backend.run_node(node, [X, W], opset_version=11)
    np.testing.assert_array_equal(outputs[0], numbaconv.conv1d(X, W, stride=2))
    assert backend.Backend.is_compatible(_model())
    assert backend.supports_device("CPU")
    assert backend.supports_device("CPU:0")
    assert not backend.supports_device("CUDA")
    with pytest.raises(numbaconv.ArgumentError, match="device is 'CUDA'"):
        backend.prepare(_model(), "CUDA")
    with pytest.raises(numbaconv.ArgumentError, match="device is 'CUDA'"):
        backend.run_node(node, [X, W], "CUDA")
    with pytest.raises(numbaconv.ArgumentError, match="2 inputs were given, but the model has 1"):
        prepared.run([X, W])
    with pytest.raises(onnx.checker.ValidationError):
        backend.prepare(helper.make_model(helper.make_graph([helper.make_node("Conv", [], [])], "", [], [])))


# --- attributes of a model that nobody can trust ------------------------------------------------------------------

HUGE = 2**40
SMALL, TAPS = np.ones((1, 1, 3), np.float32), np.ones((1, 1, 2), np.float32)
BYTES, BYTE_TAPS = np.ones((1, 1, 3), np.uint8), np.ones((1, 1, 2), np.uint8)
ABSURD = [
    *(
        ("ConvTranspose", (SMALL, TAPS), attributes)
        for attributes in (
            {"strides": [HUGE]},
            {"strides": [2**62]},
            {"dilations": [HUGE]},
            {"strides": [HUGE], "auto_pad": "SAME_UPPER"},
            {"strides": [HUGE], "output_shape": [2 * HUGE]},
            {"output_shape": [HUGE]},
            {"strides": [HUGE + 1], "output_padding": [HUGE]},
            {"output_padding": [HUGE]},
            {"pads": [HUGE, HUGE]},
            {"pads": [-HUGE, 0]},
            {"kernel_shape": [HUGE]},
            {"group": HUGE},
            {"strides": [0]},
        )
    ),
    *(
        (op, operands, attributes)
        for op, operands in (("Conv", (SMALL, TAPS)), ("ConvInteger", (BYTES, BYTE_TAPS)))
        for attributes in (
            {"pads": [HUGE, HUGE]},
            {"pads": [2**62, 2**62]},
            {"pads": [HUGE, HUGE], "dilations": [HUGE]},
            {"pads": [-1, 0]},
            {"dilations": [HUGE]},
            {"kernel_shape": [HUGE]},
            {"group": HUGE},
            {"strides": [-HUGE]},
        )
    ),
    ("Col2Im", (np.ones((1, 2, 2), np.float32), np.array([HUGE + 2]), np.array([2])), {"strides": [HUGE]}),
    ("Col2Im", (np.ones((1, 2, 2), np.float32), np.array([5]), np.array([HUGE])), {}),
    ("Col2Im", (np.ones((1, 2, 2), np.float32), np.array([5]), np.array([2])), {"dilations": [HUGE]}),
    ("Col2Im", (np.ones((1, 2, 2), np.float32), np.array([5]), np.array([2])), {"pads": [HUGE, HUGE]}),
]


@pytest.mark.parametrize(("op", "operands", "attributes"), ABSURD)
def test_absurd_attributes_are_refused(op, operands, attributes):
    """At once, with this package's error: the results of some would take terabytes, and hours to fill."""
    with pytest.raises(numbaconv.ConvError, match=r"^\w+: "):
        evaluate(op, operands, **attributes)


def test_strides_that_no_result_takes_may_be_any():
    found = evaluate("Conv", (SMALL, TAPS), strides=[2**62])
    np.testing.assert_array_equal(found, [[[2]]])


# --- functions ---------------------------------------------------------------------------------------------------

NAMES = [f"{stem}{rank}d" for stem in ("conv", "conv_transpose") for rank in (1, 2, 3)]


@pytest.mark.parametrize("name", NAMES)
def test_functions_take_tensors_of_a_model(name):
    model, function = getattr(functional, name), getattr(backend, name)
    rank = int(name[-2])
    x, w, b = reals(1, 4, *(6,) * rank), reals(4, 4, *(3,) * rank), reals(4)
    tensors = [onnx.numpy_helper.from_array(array) for array in (x, w, b)]
    wanted = model(x, w, b, padding=1)
    np.testing.assert_array_equal(function(*tensors, padding=1), wanted)
    np.testing.assert_array_equal(function(x, weight=tensors[1], bias=b, padding=1), wanted)
    assert inspect.signature(function) == inspect.signature(model)
    assert function.__name__ == name
    assert "TensorProto" in function.__doc__


def test_every_public_name():
    assert set(backend.__all__) == {
        *NAMES,
        "Backend",
        "operators",
        "prepare",
        "run_model",
        "run_node",
        "supports_device",
    }
    tests = doctest.DocTestFinder(recurse=False).find(backend.operators, "operators", module=False, globs={})
    assert doctest.DocTestRunner(verbose=False).run(tests[0]).failed == 0
    assert len(tests[0].examples) == 2
