"""Words for people from elsewhere: keywords of other packages, what an error suggests, and short tracebacks."""

import inspect
import subprocess
import sys
import traceback

import numba
import numpy as np
import pytest

import numbaconv as nc
from numbaconv import ArgumentError, ConvError, DTypeError, ShapeError, border, grad, layers
from numbaconv.backends.activations import ACTIVATIONS, SYNONYMS
from numbaconv.layers import keras


def f4(*shape):
    return np.ones(shape, np.float32)


X, W, G, DEPTHWISE, POINTWISE = f4(1, 2, 5, 5), f4(4, 2, 3, 3), f4(1, 4, 3, 3), f4(2, 1, 3, 3), f4(3, 2, 1, 1)
X1, W1 = f4(1, 1, 9), f4(1, 1, 3)

#: Calls that are right, of every function that shapes a convolution.
CALLS = {
    "conv2d": (nc.conv2d, X, W),
    "conv": (nc.conv, X, W),
    "conv_transpose2d": (nc.conv_transpose2d, G, W),
    "depthwise_conv2d": (nc.depthwise_conv2d, X, DEPTHWISE),
    "separable_conv2d": (nc.separable_conv2d, X, DEPTHWISE, POINTWISE),
    "conv2d_input": (grad.conv2d_input, X.shape, W, G),
    "conv2d_weight": (grad.conv2d_weight, X, W.shape, G),
    "conv2d_backward": (grad.conv2d_backward, G, X, W),
    "conv_transpose2d_input": (grad.conv_transpose2d_input, G.shape, W, X),
    "conv_transpose2d_weight": (grad.conv_transpose2d_weight, G, W.shape, X),
    "conv_transpose2d_backward": (grad.conv_transpose2d_backward, X, G, W),
    "unfold": (nc.unfold, X, 3),
    "fold": (nc.fold, f4(1, 18, 9), 5, 3),
    "prepare": (nc.prepare, W),
    "StreamingConv": (nc.StreamingConv, W),
    "plan_conv": (nc.plan_conv, X.shape, W.shape),
    "explain": (nc.explain, X.shape, W.shape),
    "Conv2d": (layers.Conv2d, 2, 4, 3),
    "ConvTranspose2d": (layers.ConvTranspose2d, 2, 4, 3),
    "SeparableConv2d": (layers.SeparableConv2d, 2, 4, 3),
    "Conv2D": (keras.Conv2D, 4, 3),
    "Conv2DTranspose": (keras.Conv2DTranspose, 4, 3),
    "DepthwiseConv2D": (keras.DepthwiseConv2D, 3),
    "SeparableConv2D": (keras.SeparableConv2D, 4, 3),
}

#: Keywords that nothing here has, and what is said of them by what takes the argument that was meant.
MEANT = {
    "strides": "stride",
    "pads": "padding",
    "pad_width": "padding",
    "dilations": "dilation",
    "dilation_rate": "dilation",
    "group": "groups",
    "cval": "padding_value",
    "boundary": "padding_mode",
    "kernel": "weight",
    "Stride": "stride",
    "stirde": "stride",
}


@pytest.mark.parametrize("keyword", [*MEANT, "axis", "mode", "origin", "nonsense"])
@pytest.mark.parametrize("name", CALLS)
def test_unknown_keywords(name, keyword):
    call, *args = CALLS[name]
    takes = inspect.signature(call).parameters
    if keyword in takes:  # Keras'
        return
    with pytest.raises(TypeError) as caught:
        call(*args, **{keyword: 1})
    says, meant = str(caught.value), MEANT.get(keyword)
    assert says.startswith(f"{name}() got unexpected keyword argument {keyword!r} (")
    assert type(caught.value) is TypeError
    if meant in takes:
        assert f"here it is {meant}" in says
    if keyword in ("axis", "mode", "origin"):
        assert {"axis": "moveaxis", "mode": "padding_mode", "origin": "uneven padding"}[keyword] in says


@pytest.mark.parametrize(
    ("name", "keyword", "says"),
    [
        ("conv2d", "filters", "here it is weight"),
        ("conv2d", "kernel_size", "the weight's shape has it; unfold and the layers take kernel_size"),
        ("conv2d", "output_padding", "conv_transpose2d takes it"),
        ("conv2d", "pre_activation", "grad.conv2d_input takes it"),
        ("conv2d", "output_mask", "grad.conv2d_backward takes it"),
        ("conv2d", "transposed", "conv_transpose2d"),
        ("conv2d", "method", "here it is algorithm"),
        ("conv2d", "nonsense", "it takes activation, "),
        ("conv_transpose2d", "output_shape", "here it is output_size"),
        ("conv2d_input", "dy", "here it is grad_output"),
        ("prepare", "out_channels", "numbaconv.layers take"),
        ("Conv2d", "filters", "here it is out_channels"),
        ("Conv2d", "use_bias", "here it is bias"),
        ("Conv2D", "stride", "here it is strides"),
        ("Conv2D", "dilation", "here it is dilation_rate"),
        ("Conv2D", "bias", "here it is use_bias"),
        ("Conv2D", "kernel_initializer", "seed"),
    ],
)
def test_what_an_unknown_keyword_means(name, keyword, says):
    call, *args = CALLS[name]
    with pytest.raises(TypeError) as caught:
        call(*args, **{keyword: 1})
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ["explain", "tune", "output_shape"])
def test_keywords_that_are_passed_on(name):
    with pytest.raises(
        TypeError, match=rf"^{name}\(\) got unexpected keyword argument 'strides' \(here it is stride\)$"
    ):
        getattr(nc, name)((1, 1, 8, 8), (1, 1, 3, 3), strides=1)


def test_constructors_are_called_by_the_name_of_their_class():
    with pytest.raises(TypeError, match=r"^Conv2d\(\) missing 1 required positional argument: 'kernel_size'$"):
        nc.layers.Conv2d(3, 8)
    with pytest.raises(TypeError, match=r"^Conv2D\(\) missing 2 required positional arguments: 'filters' and"):
        nc.layers.keras.Conv2D()
    with pytest.raises(TypeError, match=r"^StreamingConv\(\) missing 1 required positional argument: 'weight'$"):
        nc.StreamingConv()


def test_a_function_of_the_same_name_that_takes_it():
    """PyTorch's and JAX's functions have the names of those here, and fewer arguments."""
    assert "(numbaconv.conv2d takes it)" in str(border.unknown("conv2d", ["dtype"], ["stride"]))


def test_several_keywords_and_missing_arguments():
    with pytest.raises(TypeError, match=r"arguments 'strides' \(here it is stride\), 'pads' \(here it is padding\)$"):
        nc.conv2d(X, W, strides=1, pads=1, groups=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'kernel'"):  # not: weight is missing
        nc.conv2d(X, kernel=W)
    with pytest.raises(TypeError, match=r"conv2d\(\) missing required argument 'weight'$"):
        nc.conv2d(X)
    with pytest.raises(TypeError, match=r"conv2d_input\(\) missing required arguments 'weight', 'grad_output'$"):
        grad.conv2d_input(X.shape)
    with pytest.raises(TypeError, match="positional"):
        nc.conv2d(*[X] * 12)


def test_an_origin_is_uneven_padding():
    ndimage = pytest.importorskip("scipy.ndimage")
    image = np.random.default_rng(0).standard_normal((9, 8))
    for size in (2, 3, 4, 5):
        kernel = np.random.default_rng(size).standard_normal((size, size))
        for origin in range(-(size // 2), (size - 1) // 2 + 1):
            pads = (size // 2 + origin, (size - 1) // 2 - origin)
            mine = nc.conv2d(image[None, None], kernel[None, None], padding=(pads, pads))
            assert np.allclose(mine[0, 0], ndimage.correlate(image, kernel, mode="constant", origin=origin))


SAYS = [
    (nc.conv2d, (f4(20, 30), f4(1, 1, 3, 3)), {}, "for one channel of one sample write input[None, None]"),
    (nc.conv2d, (f4(20, 30), f4(3, 3, 1, 1)), {"data_format": "NHWC"}, "write input[None, ..., None]"),
    (nc.conv2d, (f4(1, 1, 20, 30), f4(3, 3)), {}, "for one kernel of one channel write weight[None, None]"),
    (nc.conv, (f4(20, 30), f4(3, 3)), {}, "write weight[None, None]"),
    (nc.conv1d, (f4(20), f4(1, 1, 3)), {}, "write input[None, None]"),
    (nc.depthwise_conv2d, (f4(20, 30), f4(1, 1, 3, 3)), {}, "write input[None, None]"),
    (nc.separable_conv2d, (f4(20, 30), f4(3, 3), f4(1, 1)), {}, "write weight[None, None]"),
    (nc.unfold, (f4(20, 30), 3), {}, "write input[None, None]"),
    (grad.conv2d_bias, (f4(20, 30),), {}, "write grad_output[None, None]"),
    (nc.StreamingConv(W1).push, (f4(9),), {}, "write chunk[None, None]"),
    (nc.prepare(f4(1, 1, 3, 3)), (f4(20, 30),), {}, "write input[None, None]"),
    (layers.Conv2d(1, 1, 3), (f4(20, 30),), {}, "write input[None, None]"),
    (keras.Conv2D(1, 3), (f4(20, 30),), {}, "write input[None, ..., None]"),
    (nc.conv2d, (f4(1, 20, 30, 3), f4(8, 3, 5, 5)), {}, "write data_format='NHWC', weight_format='OIHW'"),
    (nc.conv2d, (f4(20, 30, 3), f4(5, 5, 3, 8)), {}, "if channels are last, write data_format='NHWC'"),
    (nc.conv2d, (f4(20, 30, 3), f4(8, 3, 3, 3)), {}, "data_format='NHWC' (and weight_format='OIHW', if"),
    (nc.conv2d, (f4(20, 30, 4), f4(8, 2, 5, 5)), {"groups": 2}, "write data_format='NHWC', weight_format='OIHW'"),
    (nc.conv1d, (f4(1, 30, 3), f4(8, 3, 5)), {}, "write data_format='NWC' (and weight_format='OIW', if the"),
    (nc.conv2d, (f4(3, 20, 30), f4(5, 5, 3, 8)), {"data_format": "NHWC"}, "if channels are first, write data_format="),
    (nc.conv_transpose2d, (f4(1, 20, 30, 4), f4(4, 8, 3, 3)), {}, "write data_format='NHWC', weight_format='OIHW'"),
    (nc.conv2d, (f4(7, 20, 30), f4(1, 1, 3, 3)), {}, "samples of one channel are input[:, None]"),
    (layers.Conv2d(3, 8, 3), (f4(20, 30, 3),), {}, "if channels are last, write data_format='NHWC'"),
    *(
        (nc.conv2d, (X, W), {"padding_mode": theirs}, f"; {theirs!r} is {ours!r} here")
        for theirs, ours in {
            "mirror": "reflect",
            "edge": "replicate",
            "nearest": "replicate",
            "wrap": "circular",
            "symm": "symmetric",
            "Reflect": "reflect",
        }.items()
    ),
    (nc.conv2d, (X, W), {"padding_mode": "mirror"}, "SciPy's 'reflect' is 'symmetric'"),
    (nc.conv2d, (X, W), {"padding": "full"}, "(kernel - 1) * dilation cells before and after"),
    (nc.conv2d, (X, W), {"padding": "reflect"}, "padding_mode='reflect'"),
    (nc.conv2d, (X, W), {"padding": "edge"}, "padding_mode='replicate'"),
    (nc.conv2d, (X, W), {"activation": "ReLU"}, "'ReLU' is 'relu' here"),
    (nc.conv2d, (X, W), {"activation": "linear"}, "for none write activation=None"),
]


@pytest.mark.parametrize(("call", "args", "options", "says"), SAYS)
def test_what_an_error_suggests(call, args, options, says):
    with pytest.raises((ShapeError, ArgumentError)) as caught:
        call(*args, **options)
    assert says in str(caught.value)


def test_suggestions_work():
    """What is suggested for an image computes what was meant."""
    image, kernel = np.random.default_rng(0).standard_normal((2, 20, 30))
    kernel = kernel[:3, :3]
    assert nc.conv2d(image[None, None], kernel[None, None]).shape == (1, 1, 18, 28)
    assert nc.conv2d(image[None, ..., None], kernel[..., None, None], data_format="NHWC").shape == (1, 18, 28, 1)
    colour = f4(20, 30, 3)
    assert nc.conv2d(colour, f4(8, 3, 5, 5), data_format="NHWC", weight_format="OIHW").shape == (16, 26, 8)


def test_no_suggestion_where_none_fits():
    with pytest.raises(ShapeError) as caught:
        nc.conv2d(f4(1, 20, 30, 4), f4(8, 5, 3, 3))
    assert str(caught.value).endswith("(input (1, 20, 30, 4), weight (8, 5, 3, 3))")


@pytest.mark.parametrize(("theirs", "ours"), SYNONYMS.items())
def test_synonyms_of_activations(theirs, ours):
    rng = np.random.default_rng(0)
    x, w, g = (rng.standard_normal(each.shape, dtype=np.float32) for each in (X, W, G))
    assert ours in ACTIVATIONS
    assert (nc.conv2d(x, w, activation=theirs) == nc.conv2d(x, w, activation=ours)).all()
    assert (nc.prepare(w, activation=theirs)(x) == nc.prepare(w, activation=ours)(x)).all()
    before = nc.conv2d(x, w)
    found = [grad.conv2d_input(x.shape, w, g, activation=name, pre_activation=before) for name in (theirs, ours)]
    assert (found[0] == found[1]).all()
    pair = [layers.Conv2d(2, 4, 3, activation=name, seed=0) for name in (theirs, ours)]
    assert (pair[0](x) == pair[1](x)).all()
    assert (pair[0].backward(g) == pair[1].backward(g)).all()
    keras_s = keras.Conv2D(4, 3, activation=theirs, seed=0)
    assert keras_s(f4(1, 5, 5, 2)).shape == (1, 3, 3, 4)


TABLE = {0: 1}


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda v: v.nothing, "Unknown attribute 'nothing' of type float32"),
        (lambda v: v[0], "getitem"),
        (lambda v: undefined(v), "name 'undefined' is not defined"),  # noqa: F821
        (lambda v: TABLE[v], "Untyped global name 'TABLE': Cannot determine Numba type of <class 'dict'>"),
        (lambda v, u: v, "takes 2 arguments"),
        (lambda v: np.nothing(v), "nothing"),
        (numba.njit(lambda v: v.nothing), "nothing"),
    ],
)
def test_an_activation_that_cannot_be_compiled(function, says):
    """The first line of Numba's that says why, and the rule; not the forty that follow."""
    options = {"backend": "cpu"}
    for call in (
        lambda: nc.conv2d(X, W, activation=function, **options),
        lambda: grad.conv2d_input(X.shape, W, G, activation=(lambda v: v, function), pre_activation=G, **options),
    ):
        with pytest.raises(DTypeError, match="cannot be compiled for float32") as caught:
            call()
        text = str(caught.value)
        assert says in text
        assert "one number to one number" in text
        assert len(text.splitlines()) == 1
        assert len(text) < 400
        assert "Failed in nopython" not in text
        assert len("".join(traceback.format_exception(caught.value)).splitlines()) < 15


def inner_frames(error):
    """Frames of the package in what is printed of an error, its causes included."""
    shown, found = traceback.TracebackException.from_exception(error), []
    while shown is not None:
        found += [each.name for each in shown.stack if "numbaconv" in each.filename and "tests" not in each.filename]
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)
    return found


def late(v):
    raise ValueError(v)


STREAM, PREPARED, LAYER, KERAS = nc.StreamingConv(W), nc.prepare(W), layers.Conv2d(2, 4, 3), keras.Conv2D(4, 3)
PREPARED_1 = nc.prepare(W1)
BAD = {
    **{
        f"{name} {option}": (call, args, {option: value})
        for name, (call, *args) in CALLS.items()
        for option, value in {
            "stride": 0,
            "padding": "full",
            "activation": "mish",
            "data_format": "CHWN",
            "backend": "magic",
            "algorithm": "magic",
            "precision": "half",
            "out": f4(3),
            "residual": f4(7),
        }.items()
    },
    "bias": (nc.conv2d, (X, W, f4(7)), {}),
    "groups": (nc.conv2d, (X, W), {"groups": 3}),
    "channels": (nc.conv2d, (f4(1, 3, 5, 5), W), {}),
    "axes": (nc.conv2d, (f4(5, 5), W), {}),
    "dtype of input": (nc.conv2d, (X.astype(bool), W), {}),
    "no array": (nc.conv2d, ([[1], [1, 2]], W), {}),
    "masked": (nc.conv2d, (np.ma.array(X), W), {}),
    "extents": (nc.conv2d, (X, W), {"dilation": 9}),
    "activation": (nc.conv2d, (X, W), {"activation": lambda v: v.nothing}),
    "raising": (nc.conv2d, (X, W), {"activation": late}),
    "grad_output": (grad.conv2d_input, (X.shape, W, f4(1, 4, 2, 2)), {}),
    "saved": (grad.conv2d_backward, (G, X, W), {"activation": "gelu", "output": G}),
    "bias gradient": (grad.conv2d_bias, (f4(3),), {}),
    "prepared": (PREPARED, (f4(1, 3, 5, 5),), {}),
    "prepared out": (PREPARED, (X,), {"out": f4(3)}),
    "prepared axes": (PREPARED, (f4(5, 5),), {}),
    "prepared explain": (PREPARED.explain, ((1, 3, 5, 5),), {}),
    "prepared again": (PREPARED_1, (X1,), {"out": f4(3)}),
    "stream": (STREAM.push, (f4(1, 3, 5, 5),), {}),
    "stream axes": (STREAM.push, (f4(5, 5),), {}),
    "stream state": (setattr, (STREAM, "state", (f4(1, 2, 9, 5), 0)), {}),
    "layer": (LAYER, (f4(1, 3, 5, 5),), {}),
    "layer backward": (LAYER.backward, (f4(1, 3, 5, 5),), {}),
    "layer shape": (LAYER.output_shape, ((1, 3, 5, 5),), {}),
    "layer plans": (LAYER.plans, ((1, 3, 5, 5),), {}),
    "layer state": (LAYER.load_state_dict, ({},), {}),
    "layer types": (LAYER.load_state_dict, ({"weight": W.astype("c8"), "bias": f4(4)},), {}),
    "layer load": (LAYER.load, ("a.pt",), {}),
    "layer save": (LAYER.save, ("a.pt",), {}),
    "keras layer": (KERAS, (f4(5, 5),), {}),
    "keras build": (KERAS.build, ((None, 5),), {}),
    "keras shape": (KERAS.output_shape, ((5, 5),), {}),
    "output_shape": (nc.output_shape, (X.shape, W.shape), {"stride": 0}),
    "count": (nc.count_parameters, (3, 4, 3), {"groups": 2}),
    "field": (nc.receptive_field, ([{"kernel_size": 0}],), {}),
    "tune": (nc.tune, ({"input_shape": (1, 2, 5, 5), "weight_shape": (4, 3, 3, 3)},), {}),
    "set_backend": (nc.set_backend, ("magic",), {}),
    "use_backend": (lambda: nc.use_backend("magic").__enter__(), (), {}),
    "use_precision": (lambda: nc.use_precision("magic").__enter__(), (), {}),
}


def raised_by(call, args, options):
    try:
        call(*args, **options)
    except (ConvError, TypeError) as error:
        return error
    return None


@pytest.mark.parametrize("name", BAD)
def test_tracebacks_of_bad_input_are_short(name):
    call, args, options = BAD[name]
    for _ in range(2):  # the second call may have a route
        error = raised_by(call, args, options)
        if error is None:
            assert name.endswith(" algorithm")  # which some look at when the first input comes
        else:
            assert len(inner_frames(error)) <= 3, traceback.format_exception(error)


def test_a_remembered_call_with_a_wrong_out():
    for call, args in ((nc.conv2d, (X, W)), (PREPARED, (X,)), (nc.separable_conv2d, (X, DEPTHWISE, POINTWISE))):
        call(*args)
        with pytest.raises(ShapeError, match="out has shape") as caught:
            call(*args, out=f4(3))
        assert len(inner_frames(caught.value)) <= 3


def test_development_mode_keeps_the_frames():
    program = (
        "import numpy as np, numbaconv, traceback\n"
        "try: numbaconv.conv2d(np.ones((1, 1, 5, 5)), np.ones((1, 2, 3, 3)))\n"
        "except numbaconv.ShapeError as error: print(len(traceback.extract_tb(error.__traceback__)))"
    )
    counts = [
        int(subprocess.check_output([sys.executable, *mode, "-W", "ignore", "-c", program]))
        for mode in ([], ["-X", "dev"])
    ]
    assert counts[0] == 2
    assert counts[1] > 4


@pytest.mark.parametrize(
    "call",
    [
        lambda: nc.conv1d(X1, W1, padding=-2),
        lambda: nc.output_shape((1, 1, 9), (1, 1, 3), padding=-2),
        lambda: layers.Conv1d(1, 1, 3)(X),
        lambda: nc.prepare(W1)(X),
        lambda: nc.StreamingConv(W1).push(X),
    ],
    ids=["function", "bordered", "layer", "prepared", "stream"],
)
def test_errors_keep_what_the_caller_was_handling(call):
    """A call in a user's ``except`` block that fails, too, shows both errors."""
    first = KeyError("the caller's")
    try:
        raise first
    except KeyError:
        with pytest.raises(ConvError) as caught:
            call()
    assert caught.value.__context__ is first
    assert not caught.value.__suppress_context__
