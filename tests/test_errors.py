"""Every refusal: its type, the operation, rule and numbers in its message, and operands and ``out`` left alone.

A *site* is a function with operands that it accepts. What every function refuses alike is tried at all
sites; the rest are tables of single calls. Messages are given from their beginning, ``...`` for any text.
"""

import functools
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import numbaconv as nc
from numbaconv import AlgorithmError, ArgumentError, BackendError, DTypeError, ShapeError, grad
from numbaconv.plan import SUPPORTED

BUILTIN = {ShapeError: ValueError, ArgumentError: ValueError, DTypeError: TypeError}
SENTINEL = 123
Function = Callable[..., Any]
Options = dict[str, Any]
Wrong = tuple[Options, type[Exception], str]


def array(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return (np.arange(math.prod(shape)) % 7 - 3).reshape(shape).astype(dtype)


def check(call: Function, args: tuple, error: type[Exception], says: str, options: Options, out: Any = None) -> None:
    """Assert the refusal. ``out`` is the shape of an array to be left untouched."""
    given = [each for each in (*args, *options.values()) if isinstance(each, np.ndarray)]
    before = [each.tobytes() for each in given]
    kept = np.full(0 if out is None else out, SENTINEL, np.float32)
    if out is not None and "out" not in options:
        options = {**options, "out": kept}
    with pytest.raises(BUILTIN.get(error, ValueError)) as caught:
        call(*args, **options)
    assert type(caught.value) is error, repr(caught.value)
    pattern = ".*".join(re.escape(part.strip()) for part in says.split("..."))
    assert re.match(pattern, str(caught.value), re.DOTALL), str(caught.value)
    assert [each.tobytes() for each in given] == before
    assert (kept == SENTINEL).all()


class Site(NamedTuple):
    """A function, operands that it accepts, its result's shape if it takes ``out``, and its rank."""

    call: Function
    args: tuple[Any, ...]
    out: tuple[int, ...] | None
    rank: int


def sites(rank: int) -> list[Site]:
    threes, fives = (3,) * rank, (5,) * rank
    big, small, kernel = (1, 2, *fives), (1, 4, *threes), (4, 2, *threes)
    x, y, w = array(*big), array(*small), array(*kernel)
    depthwise, pointwise = array(4, 1, *threes), array(3, 4, *(1,) * rank)
    conv, transposed = f"conv{rank}d", f"conv_transpose{rank}d"
    return [
        Site(getattr(nc, conv), (x, w), small, rank),
        Site(getattr(nc, transposed), (y, w), big, rank),
        Site(getattr(nc, f"depthwise_{conv}"), (x, depthwise), small, rank),
        Site(getattr(nc, f"separable_{conv}"), (x, depthwise, pointwise), (1, 3, *threes), rank),
        Site(getattr(grad, f"{conv}_input"), (big, w, y), big, rank),
        Site(getattr(grad, f"{conv}_weight"), (x, kernel, y), kernel, rank),
        Site(getattr(grad, f"{conv}_backward"), (y, x, w), None, rank),
        Site(getattr(grad, f"{transposed}_input"), (small, w, x), small, rank),
        Site(getattr(grad, f"{transposed}_weight"), (y, kernel, x), kernel, rank),
        Site(getattr(grad, f"{transposed}_backward"), (x, y, w), None, rank),
    ]


SITES = [site for rank in (1, 2, 3) for site in sites(rank)]


def wrong_integers(rank: int, names: tuple[str, ...]) -> list[Wrong]:
    cases: list[Wrong] = []
    floats_and_bools = ((1.0, "1.0 (float)"), (True, "the bool True"), (np.bool_(True), "the bool True"))
    for name in names:
        for value, text in (*floats_and_bools, ("2", "'2'"), (None, "None")):
            cases.append(({name: value}, DTypeError, f"{name} must be an integer, but is {text}"))
        cases += [({name: value}, ArgumentError, f"{name} must be at least 1 ... {value}") for value in (0, -2)]
    for name in ("stride", "dilation"):
        cases.append(({name: (1, 1, 1, 1)}, ArgumentError, f"{name} has 4 entries ... {rank} spatial ax"))
        cases.append(({name: (*(1,) * (rank - 1), 2.5)}, DTypeError, f"{name} must be an integer, but is 2.5"))
    return cases


def wrong_paddings(rank: int) -> list[Wrong]:
    pairs = f"one (before, after) pair for each of {rank} spatial axes"
    return [
        ({"padding": -1}, ArgumentError, "padding must be at least 0 ... -1"),
        ({"padding": ((-1, 2),) * rank}, ArgumentError, "padding must be at least 0 ... (-1, 2)"),
        ({"padding": 1.5}, DTypeError, "padding must be an integer, but is 1.5 (float)"),
        ({"padding": True}, DTypeError, "padding must be an integer, but is the bool True"),
        ({"padding": ((True, 1),) * rank}, DTypeError, "padding must be an integer, but is the bool True"),
        ({"padding": (1, 1, 1, 1)}, ArgumentError, f"padding has 4 entries ... {rank} spatial ax"),
        ({"padding": ((1, 2),) * 4}, ArgumentError, f"{pairs} ... ((1, 2), (1, 2), (1, 2), (1, 2))"),
        ({"padding": ((1, 2, 3),) * rank}, ArgumentError, f"{pairs} ... (1, 2, 3)"),
        ({"padding": "full"}, ArgumentError, "'full' ... valid, same, same_lower, causal"),
        ({"padding_mode": "mirror"}, ArgumentError, "'mirror' ... zeros, constant, reflect, replicate, circular"),
        ({"padding_mode": 3}, DTypeError, "padding_mode ... 3"),
        ({"padding_mode": ("zeros",) * 4}, ArgumentError, f"padding_mode has 4 entries ... {rank} spatial ax"),
    ]


_CONSTANT = {"padding_mode": "constant"}
VALUES_WRONG: list[Wrong] = [
    ({"padding_value": 2.5}, ArgumentError, "padding_value is 2.5 ... 'constant' ... zeros"),
    ({"padding_value": "1", **_CONSTANT}, DTypeError, "padding_value must be a number, but is '1'"),
    ({"padding_value": True, **_CONSTANT}, DTypeError, "padding_value must be a number, but is True"),
    ({"padding_value": 1j, **_CONSTANT}, DTypeError, "padding_value is 1j ... float32"),
]
NAMES_WRONG: list[Wrong] = [
    ({"data_format": "CHWN"}, ArgumentError, "data_format is 'CHWN' ... channels_last for rank"),
    ({"data_format": ["channels_last"]}, DTypeError, "data_format ... ['channels_last']"),
    ({"weight_format": "OI"}, ArgumentError, "weight_format is 'OI' ... for rank"),
    ({"weight_format": ["OI"]}, DTypeError, "weight_format ... ['OI']"),
    ({"backend": 3}, DTypeError, "backend must be a name, but is 3"),
    ({"algorithm": 3}, DTypeError, "algorithm must be a name, but is 3"),
    ({"backend": "magic"}, BackendError, "backend 'magic' is unknown ... cpu ... reference"),
    ({"algorithm": "magic"}, AlgorithmError, "algorithm 'magic' is unknown to backend"),
    ({"activation": "mish"}, ArgumentError, "'mish' ... relu, relu6, leaky_relu, silu, gelu, tanh"),
    ({"activation": 3}, DTypeError, "activation must be a name ... 3"),
    ({"activation": (abs,)}, DTypeError, "activation must be a name ... abs"),
]


def wrong_outs(shape: tuple[int, ...]) -> list[Wrong]:
    """Arrays that cannot take a float32 result of this shape."""
    longer, zeros = (*shape[:-1], shape[-1] + 1), np.zeros(shape, np.float32)
    frozen, repeated = zeros.copy(), as_strided(np.zeros(1, np.float32), shape, (0,) * len(shape))
    frozen.flags.writeable = False
    return [
        ({"out": np.zeros(longer, np.float32)}, ShapeError, f"out has shape {longer}, but the result has {shape}"),
        ({"out": zeros[0]}, ShapeError, f"out has shape {shape[1:]}, but the result has {shape}"),
        ({"out": np.zeros(shape)}, DTypeError, "out has dtype float64, but the result has float32"),
        ({"out": frozen}, ArgumentError, "out is read-only"),
        ({"out": zeros.tolist()}, DTypeError, "out must be a NumPy array, but is list"),
        ({"out": np.ma.array(zeros)}, DTypeError, "out must be a NumPy array, but is MaskedArray"),
        ({"out": repeated}, ArgumentError, f"out overlaps itself ... {shape}"),
    ]


def wrong_everywhere(site: Site) -> list[Wrong]:
    name = site.call.__name__
    transposed, grouped = "transpose" in name, not name.startswith(("depthwise", "separable"))
    wrong = wrong_integers(site.rank, ("stride", "dilation", "groups") if grouped else ("stride", "dilation"))
    wrong += wrong_paddings(site.rank) + NAMES_WRONG + (wrong_outs(site.out) if site.out else [])
    if grouped:
        channels = 4 if transposed else 2
        wrong.append(({"groups": 3}, ShapeError, f"{channels} channels, not divisible by groups 3 (input (1, "))
    return [*wrong, (_CONSTANT, ArgumentError, "'constant' ... transposed")] if transposed else wrong + VALUES_WRONG


EVERYWHERE = [
    pytest.param(site, *wrong, id=f"{site.call.__name__}-{at}-{'-'.join(wrong[0])}")
    for site in SITES
    for at, wrong in enumerate(wrong_everywhere(site))
]


@pytest.mark.parametrize(("site", "options", "error", "says"), EVERYWHERE)
def test_refused_by_every_function(site, options, error, says):
    if error is not BackendError:
        says = f"{site.call.__name__}: ... {says}"
    check(site.call, site.args, error, says, options, site.out)


def on(call: Function, *args: Any) -> Function:
    """A maker of refusals of this call; their messages begin with the function's name."""

    def refused(error: type[Exception], says: str, **options: Any) -> Any:
        return pytest.param(call, args, error, says, options, id=f"{call.__name__}-{says[:40]}".replace(" ", "-"))

    return refused


X, Y, W, X1, W1 = array(1, 2, 5, 5), array(1, 4, 3, 3), array(4, 2, 3, 3), array(2, 5), array(4, 2, 3)
DEPTHWISE, POINTWISE, NO_WIDTH = array(4, 1, 3, 3), array(3, 4, 1, 1), X[..., :0]
#: Each forward function with operands, output channels and output shape.
FORWARD = [
    (nc.conv2d, (X, W), 4, (1, 4, 3, 3)),
    (nc.conv_transpose2d, (Y, W), 2, (1, 2, 5, 5)),
    (nc.depthwise_conv2d, (X, DEPTHWISE), 4, (1, 4, 3, 3)),
    (nc.separable_conv2d, (X, DEPTHWISE, POINTWISE), 3, (1, 3, 3, 3)),
]

AXES = [
    on(nc.conv1d, np.float32(1), W1)(ShapeError, "input must have 3 axes, or 2 without a batch axis, but has 0"),
    on(nc.conv1d, array(1, 1, 2, 5), W1)(ShapeError, "input must have 3 axes, or 2 ... has 4"),
    on(nc.conv2d, X1, W)(ShapeError, "input must have 4 axes, or 3 ... has 2 (input (2, 5), weight (4, 2, 3, 3))"),
    on(nc.conv3d, X[0], array(4, 2, 3, 3, 3))(ShapeError, "input must have 5 axes, or 4 ... has 3"),
    on(nc.conv_transpose2d, Y[None], W)(ShapeError, "input must have 4 axes, or 3 ... has 5"),
    on(nc.separable_conv2d, X1, DEPTHWISE, POINTWISE)(ShapeError, "input must have 4 axes, or 3 ... (2, 5)"),
    on(nc.unfold, X1, 2)(ShapeError, "input must have 4 axes, or 3 without a batch axis ... (2, 5)"),
    on(nc.fold, X1[0], 3, 2)(ShapeError, "input must have 3 axes, or 2 without a batch axis ... (5,)"),
    on(nc.conv1d, array(1, 2, 5), W)(ShapeError, "weight must have 3 axes, but has 4"),
    on(nc.conv2d, X, W[0])(ShapeError, "weight must have 4 axes, but has 3 (input (1, 2, 5, 5), weight (2, 3, 3))"),
    on(nc.conv3d, array(1, 2, 5, 5, 5), W)(ShapeError, "weight must have 5 axes, but has 4"),
    on(nc.conv, X, W[0, 0])(ShapeError, "weight must have 3, 4 or 5 axes ... has 2: (3, 3)"),
    on(nc.conv_transpose, Y, W[0, 0])(ShapeError, "weight must have 3, 4 or 5 axes ... has 2: (3, 3)"),
    on(nc.depthwise_conv, X, W[0, 0])(ShapeError, "weight must have 3, 4 or 5 axes ... (3, 3)"),
    on(nc.depthwise_conv2d, X, W[0])(ShapeError, "weight must have 4 axes ... (2, 3, 3)"),
    on(nc.separable_conv2d, X, DEPTHWISE, X1)(ShapeError, "pointwise_weight must have 4 axes ... (2, 5)"),
]
_NHWC = array(1, 5, 5, 2), array(3, 3, 3, 4)
_EIGHT = "weight has 3 channels per group, but input has 8 channels / 2 groups = 4 (input (1, 8, 5, 5), weight (6, 3"

CHANNELS = [
    on(nc.conv2d, array(1, 8, 5, 5), array(6, 3, 3, 3))(ShapeError, _EIGHT, groups=2),
    on(nc.conv1d, X1, array(4, 3, 3))(ShapeError, "weight has 3 channels ... 2 channels / 1 groups = 2"),
    on(nc.conv2d, *_NHWC)(ShapeError, "weight has 3 channels ... 2 channels / 1 groups = 2", data_format="NHWC"),
    on(nc.conv2d, X, W[:3, :1])(ShapeError, "weight has 3 output channels, not divisible by groups 2", groups=2),
    on(nc.conv_transpose2d, X, W)(ShapeError, "weight takes 4 input channels, but input has 2 (input (1, 2"),
    on(nc.depthwise_conv2d, X, W)(ShapeError, "... 1 channel per group ... input's 2 channels ... has 2 and 4"),
    on(nc.depthwise_conv2d, X, W[:3, :1])(ShapeError, "... multiple of the input's 2 channels ... has 1 and 3"),
    on(nc.separable_conv2d, X, W[:3, :1], POINTWISE)(ShapeError, "... multiple of the input's 2 ... has 1 and 3"),
    on(nc.separable_conv2d, X, DEPTHWISE, W)(ShapeError, "pointwise_weight ... one tap ... (4, 2, 3, 3)"),
    on(nc.separable_conv2d, X, DEPTHWISE, POINTWISE[:, :3])(ShapeError, "pointwise_weight takes 3 ... gives 4"),
    *(
        on(call, *args)(ShapeError, f"bias has shape {bias.shape}, but there are {n} output channels", bias=bias)
        for call, args, n, _ in FORWARD
        for bias in (array(5), array(n, 1), array(), array(0), array(1))
    ),
    *(
        on(call, *args)(ShapeError, f"residual has shape {shape}, but the output has {out}", residual=array(*shape))
        for call, args, _, out in FORWARD
        for shape in ((*out[:-1], 4), out[1:], (1, 1, 1, 1))
    ),
]

EXTENTS = [
    on(nc.conv2d, X, W)(ShapeError, "kernel of 3 taps at dilation 3 spans 7 ... 0 + 5 + 0 = 5 on", dilation=3),
    on(nc.conv1d, X1[:, :3], array(4, 2, 7))(ShapeError, "... spans 7 ... 1 + 3 + 2 = 6", padding=((1, 2),)),
    on(nc.conv2d, X, W[..., :0])(ShapeError, "weight has extent 0 on spatial axis 1, but must have at least 1"),
    on(nc.conv_transpose1d, array(4, 3), W1[..., :0])(ShapeError, "weight has extent 0 on spatial axis 0"),
    on(nc.conv2d, NO_WIDTH, W)(ShapeError, "input has extent 0 on spatial axis 1, but must have at least 1"),
    on(nc.conv2d, NO_WIDTH, W)(ShapeError, "input has extent 0 on spatial axis 1", padding=3),
    on(nc.unfold, NO_WIDTH, 2)(ShapeError, "input has extent 0 on spatial axis 1", padding=2),
    on(nc.conv1d, X1, W1)(ArgumentError, "padding has 2 entries (1, 2) ... write ((1, 2),)", padding=(1, 2)),
]

_up = on(nc.conv_transpose2d, Y, W)
_same = {"stride": 2, "padding": "same"}

TRANSPOSED = [
    _up(ArgumentError, "output_padding must be smaller than stride ... is 1 against stride 1", output_padding=1),
    _up(ArgumentError, "... 2 against stride 2 and dilation 1 on spatial axis 1", stride=2, output_padding=(1, 2)),
    _up(ArgumentError, "... 2 against stride 1 and dilation 2 ... axis 0", dilation=2, output_padding=2),
    _up(ArgumentError, "output_padding must be at least 0 ... -1", output_padding=-1),
    _up(DTypeError, "output_padding must be an integer, but is 0.5 (float)", output_padding=0.5),
    _up(DTypeError, "output_padding must be an integer, but is the bool True", output_padding=True),
    _up(DTypeError, "output_size must be an integer, but is 5.0 (float)", output_size=5.0),
    _up(ArgumentError, "output_size has 3 entries ... 2 spatial axes", output_size=(5, 5, 5)),
    _up(ShapeError, "output_size 9 on spatial axis 0 must be 7 to 8 (input (1, 4,", stride=2, output_size=9),
    _up(ShapeError, "output_size 4 on spatial axis 1 must be 5 to 5", output_size=(5, 4)),
    _up(ArgumentError, "output_padding is 1, but output_size 8", stride=2, output_padding=1, output_size=8),
    _up(ArgumentError, "output_padding is 1, but padding='same'", output_padding=1, **_same),
    _up(ShapeError, "output_size 7 ... 5 to 6 for padding='same', stride 2", output_size=7, **_same),
    _up(ArgumentError, "padding='causal' is defined for convolutions ... ((0, 1),)", stride=2, padding="causal"),
    _up(ShapeError, "output would have 5 - 3 - 3 + 0 = -1 cells on spatial axis 0 ... at least 1", padding=3),
    on(nc.conv_transpose1d, array(4, 1), W1[..., :1])(ShapeError, "... 1 - 1 - 0 + 0 = 0 cells", padding=((1, 0),)),
]


def columns(*shape: int, size: Any = 3, kernel: Any = 2) -> Function:
    return on(nc.fold, array(*shape), size, kernel)


COLUMNS = [
    on(nc.unfold, X, 7)(ShapeError, "kernel of 7 taps at dilation 1 spans 7 ... 0 + 5 + 0 = 5"),
    on(nc.unfold, X, 0)(ArgumentError, "kernel_size must be at least 1, but is (0"),
    on(nc.unfold, X, 2.0)(DTypeError, "kernel_size must be an integer, but is 2.0 (float)"),
    on(nc.unfold, X, ())(ArgumentError, "kernel_size has 0 entries"),
    on(nc.unfold, array(1, 1, 3, 3, 3, 3), (2,) * 4)(ArgumentError, "kernel_size has 4 entries"),
    on(nc.unfold, X, 2)(ArgumentError, "stride must be at least 1 ... 0", stride=0),
    on(nc.unfold, X, 2)(ArgumentError, "padding must be at least 0 ... -1", padding=-1),
    on(nc.unfold, X, 2)(ArgumentError, "padding is 'full' ... valid, same", padding="full"),
    columns(1, 7, 4)(ShapeError, "input has 7 rows, not divisible by the kernel's 4 taps"),
    columns(1, 8, 5)(ShapeError, "input has 5 columns ... (2, 2) = 4 positions"),
    columns(1, 25, 1, kernel=5)(ShapeError, "kernel of 5 taps at dilation 1 spans 5 ... 0 + 3 + 0 = 3"),
    columns(1, 8, 4, size=0)(ArgumentError, "output_size must be at least 1, but is (0"),
    columns(1, 8, 4, size=(3.0, 3))(DTypeError, "output_size must be an integer, but is 3.0 (float)"),
    columns(1, 8, 4, size=())(ArgumentError, "output_size has 0 entries"),
    columns(1, 16, 16, size=(3,) * 4)(ArgumentError, "output_size has 4 entries"),
    columns(1, 8, 4, kernel=(2, 2, 2))(ArgumentError, "kernel_size has 3 entries ... 2 spatial axes"),
]

BIG, SMALL, KERNEL = (1, 2, 5, 5), (1, 4, 3, 3), (4, 2, 3, 3)
WRONG, _GIVEN = array(1, 4, 2, 3), "grad_output has shape (1, 4, 2, 3), but the output has"
_by_input, _by_weight = on(grad.conv2d_input, BIG, W, Y), on(grad.conv2d_weight, X, KERNEL, Y)
_all = on(grad.conv2d_backward, Y, X, W)
_BIAS_ONLY = {"output_mask": (False, False, True)}

GRADIENTS = [
    on(grad.conv2d_input, BIG, W, WRONG)(ShapeError, f"{_GIVEN} {SMALL} (input {BIG}, weight {KERNEL})"),
    on(grad.conv2d_input, BIG, W, Y[0])(ShapeError, f"grad_output has shape (4, 3, 3), but the output has {SMALL}"),
    on(grad.conv2d_weight, X, KERNEL, WRONG)(ShapeError, f"{_GIVEN} {SMALL}"),
    on(grad.conv2d_backward, WRONG, X, W)(ShapeError, f"{_GIVEN} {SMALL}"),
    on(grad.conv2d_backward, WRONG, X, W)(ShapeError, f"{_GIVEN} {SMALL}", **_BIAS_ONLY),
    on(grad.conv_transpose2d_input, SMALL, W, WRONG)(ShapeError, f"{_GIVEN} {BIG}"),
    on(grad.conv_transpose2d_backward, WRONG, Y, W)(ShapeError, f"{_GIVEN} {BIG}"),
    on(grad.conv2d_bias, X1)(ShapeError, "grad_output must have 4 axes, or 3 without a batch axis ... (2, 5)"),
    on(grad.conv_transpose2d_bias, X1)(ShapeError, "grad_output must have 4 axes, or 3 ... (2, 5)"),
    on(grad.conv2d_bias, Y)(ArgumentError, "data_format is 'CHWN' ... rank 2", data_format="CHWN"),
    on(grad.conv2d_bias, Y)(DTypeError, "backend must be a name, but is 3", backend=3),
    on(grad.conv2d_input, 5, W, Y)(DTypeError, "input_size must be a shape ... 5"),
    on(grad.conv2d_input, (1, 2, 5.0, 5), W, Y)(DTypeError, "input_size must be an integer, but is 5.0 (float)"),
    on(grad.conv2d_input, (True, 2, 5, 5), W, Y)(DTypeError, "input_size must be an integer ... bool True"),
    on(grad.conv2d_input, (1, 2, -5, 5), W, Y)(ArgumentError, "input_size must not be negative ... (1, 2, -5, 5)"),
    on(grad.conv2d_input, (1, 3, 5, 5), W, Y)(ShapeError, "weight has 2 channels per group ... 3 channels / 1"),
    on(grad.conv2d_weight, X, (4, 2, 3), Y)(ShapeError, "weight must have 4 axes, but has 3"),
    on(grad.conv2d_weight, X, (4, 2, 3.0, 3), Y)(DTypeError, "weight_size must be an integer, but is 3.0 (float)"),
    _all(ArgumentError, "output_mask ... 3 ... 2", output_mask=(True, True)),
    _all(ArgumentError, "output_mask ... 3 ... 4", output_mask=(True,) * 4),
    _all(DTypeError, "output_mask ... None", output_mask=None),
    _all(ArgumentError, "stride must be at least 1", stride=0, **_BIAS_ONLY),
    _by_input(ArgumentError, "a saved array was given, but no activation", output=Y),
    on(grad.conv2d_bias, Y)(ArgumentError, "a saved array was given, but no activation", pre_activation=Y),
    *(
        case(ArgumentError, "the derivative of activation 'gelu' needs pre_activation,", activation="gelu", output=Y)
        for case in (_by_input, _by_weight, _all, on(grad.conv_transpose2d_input, SMALL, W, X))
    ),
    _by_input(ArgumentError, "... 'relu' needs pre_activation or output, saved", activation="relu"),
    _by_input(ShapeError, f"output has shape {WRONG.shape}, but ... {SMALL}", activation="relu", output=WRONG),
    _all(ShapeError, f"pre_activation has shape {WRONG.shape}", activation="relu", pre_activation=WRONG),
    _by_input(ArgumentError, "... pass (function, derivative)", activation=lambda v: v, pre_activation=Y),
    _by_input(DTypeError, "... 'relu' ... complex64", activation="relu", output=Y.astype(np.complex64)),
    _by_input(DTypeError, "pre_activation is a masked array", activation="relu", pre_activation=np.ma.array(Y)),
]

_TOO_MANY = "... but at most 9223372036854775807 bytes can be addressed (input"
_REAL, _COUNTS = on(nc.conv2d, X, W), on(nc.conv2d, X.astype(np.int8), W.astype(np.int8))


plan = functools.partial(on, nc.plan_conv)
PLANS = [
    plan((2**40, 2**20, 5, 5), (4, 2**20, 3, 3))(ShapeError, f"input of shape ... {2**60 * 25} elements {_TOO_MANY}"),
    plan((1, 2**31, 5, 5), (2**31, 2**31, 3, 3))(ShapeError, f"weight of shape ... {2**62 * 9} {_TOO_MANY}"),
    plan((2**31, 1, 5, 5), (2**32, 1, 3, 3))(ShapeError, f"output of shape ... {2**63 * 9} {_TOO_MANY}"),
    plan((1, 1, 1), (1, 1, 1))(ShapeError, f"padded input ... {2**62 + 1} {_TOO_MANY}", padding=2**61, stride=2**61),
    plan((2**61, 1, 1), (1, 1, 1))(ShapeError, f"... {2**61} elements of 8 bytes {_TOO_MANY}", dtype="float64"),
    plan((1, 1, 2**31), (1, 1, 1))(ShapeError, f"output {_TOO_MANY}", stride=2**31, transposed=True),
    plan(BIG, (4, 2))(ShapeError, "weight must have 3, 4 or 5 axes ... has 2: (4, 2)"),
    plan(BIG, (4, 2, 3.0, 3))(DTypeError, "weight_shape must be an integer, but is 3.0 (float)"),
    plan(BIG, KERNEL)(DTypeError, "... dtype bool ... output_dtype=", dtype=bool),
    plan(BIG, KERNEL)(ArgumentError, "output_padding ... 7", output_padding=7),
    plan(BIG, KERNEL)(ArgumentError, "output_size ... 77", output_size=77),
    on(nc.explain, BIG, KERNEL)(ArgumentError, "... 'sideways' ... forward, input, weight", direction="sideways"),
]
VALUES = [
    *(
        _COUNTS(DTypeError, f"padding_value is {value} ... int8 ... int32", padding_value=value, **_CONSTANT)
        for value in (0.5, math.nan, math.inf, 2**31)
    ),
    _COUNTS(DTypeError, "padding_value is 1j ... int8", padding_value=1j, **_CONSTANT),
    _REAL(DTypeError, "padding_value", padding_value=np.ones(2), **_CONSTANT),
    on(nc.conv2d, X.astype(complex), W)(DTypeError, "activation 'relu' ... complex128", activation="relu"),
    on(nc.conv_transpose2d, Y, W.astype("c8"))(DTypeError, "activation 'tanh' ... complex64", activation="tanh"),
    _COUNTS(DTypeError, "activation 'gelu' ... int32", activation="gelu"),
]
SINGLE = [*AXES, *CHANNELS, *EXTENTS, *TRANSPOSED, *COLUMNS, *GRADIENTS, *PLANS, *VALUES]


@pytest.mark.parametrize(("call", "args", "error", "says", "options"), SINGLE)
def test_refused(call, args, error, says, options):
    name = call.__name__
    takes_out = name.startswith(("conv", "depthwise", "separable")) and not name.endswith(("_backward", "_bias"))
    check(call, args, error, f"{name}: {says}", options, (1, 4, 3, 3) if takes_out else None)


#: Arrays without a convolution, by what the message calls them.
UNUSABLE: dict[str, Function] = {
    "bool": lambda a: a.astype(bool),
    "object": lambda a: a.astype(object),
    "str": lambda a: a.astype(str),
    "void": lambda a: np.zeros(a.shape, [("re", "f4"), ("im", "f4")]),
    np.dtype(np.longdouble).name: lambda a: a.astype(np.longdouble),
    np.dtype(np.clongdouble).name: lambda a: a.astype(np.clongdouble),
    "masked array": np.ma.array,
    "no array": lambda a: [[1.0], [1.0, 2.0]],
}
UNUSABLE = {name: make for name, make in UNUSABLE.items() if name not in SUPPORTED}  # long double may be a double

_FORWARD_NAMES = {0: "input", 1: "weight", "bias": "bias", "residual": "residual"}
#: A call, and its operands by position or keyword with the names that messages give them.
OPERANDS: list[tuple[Function, tuple, dict]] = [
    (nc.conv2d, (X, W), _FORWARD_NAMES),
    (nc.conv_transpose2d, (Y, W), _FORWARD_NAMES),
    (nc.depthwise_conv2d, (X, DEPTHWISE), _FORWARD_NAMES),
    (nc.separable_conv2d, (X, DEPTHWISE, POINTWISE), {**_FORWARD_NAMES, 2: "pointwise_weight"}),
    (grad.conv2d_input, (BIG, W, Y), {1: "weight", 2: "grad_output"}),
    (grad.conv2d_weight, (X, KERNEL, Y), {0: "input", 2: "grad_output"}),
    (grad.conv2d_backward, (Y, X, W), {0: "grad_output", 1: "input", 2: "weight"}),
    (grad.conv_transpose2d_input, (SMALL, W, X), {1: "weight", 2: "grad_output"}),
    (grad.conv2d_bias, (Y,), {0: "grad_output"}),
    (nc.unfold, (X, 2), {0: "input"}),
    (nc.fold, (array(1, 8, 4), 3, 2), {0: "input"}),
]


@pytest.mark.parametrize("kind", UNUSABLE)
@pytest.mark.parametrize(("call", "args", "names"), OPERANDS, ids=[call.__name__ for call, *_ in OPERANDS])
def test_arrays_without_a_convolution(call, args, names, kind):
    for place, name in names.items():
        given, options = list(args), {}
        if isinstance(place, int):
            given[place] = UNUSABLE[kind](args[place])
        else:
            options[place] = UNUSABLE[kind](array(4))
        check(call, tuple(given), DTypeError, f"{call.__name__}: {name} ... {kind}", options)


def raises(v: float) -> float:
    raise ValueError(v)


#: Functions that cannot become part of a kernel, and what the message says about them.
NO_KERNEL: dict[str, tuple[Any, str]] = {
    "raises": (raises, "... 'raises' ... float32"),
    "raises jitted": (numba.njit(raises), "... 'raises' ... float32"),
    "attribute": (lambda v: v.nothing, "... cannot be compiled ... float32"),
    "string": (lambda v: "v", "... float32"),
    "nothing": (lambda v: None, "... float32"),
    "complex": (lambda v: v * 1j, "... float32"),
    "two arguments": (lambda v, u: v, "... cannot be compiled ... float32"),
    "partial": (functools.partial(max, 0.0), "... cannot be compiled"),
}


@pytest.mark.parametrize("name", NO_KERNEL)
def test_functions_that_cannot_be_in_a_kernel(name):
    function, says = NO_KERNEL[name]
    for call, args, _, out in FORWARD:
        check(call, args, DTypeError, says, {"activation": function, "backend": "cpu"}, out)
    options = {"activation": (lambda v: v, function), "pre_activation": Y, "backend": "cpu"}
    check(grad.conv2d_input, (BIG, W, Y), DTypeError, says, options, BIG)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(("dtype", "factor", "kind"), [(np.int8, 0.5, "int32"), (np.float32, 1j, "float32")])
def test_activation_whose_result_does_not_fit(dtype, factor, kind, backend):
    options = {"activation": lambda v: v * factor, "backend": backend}
    check(nc.conv2d, (X.astype(dtype), W.astype(dtype)), DTypeError, f"... {kind}", options)


def test_refused_padding_value_leaves_no_trace():
    """Numbers that are equal but of different types do not share a plan: 2.0 works after 2 + 0j was refused."""
    operands, padding = (array(1, 2, 6, 5), W), {"padding": 1, **_CONSTANT}
    for _ in range(2):
        says = "conv2d: padding_value is (2+0j) ... float32"
        check(nc.conv2d, operands, DTypeError, says, {"padding_value": 2 + 0j, **padding})
        assert nc.conv2d(*operands, padding_value=2.0, **padding).shape == (1, 4, 6, 5)


@pytest.mark.parametrize("large", [2**62, 2**70])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_steps_that_are_never_taken_may_be_any_integer(backend, large):
    """A stride with one output cell and a dilation with one tap change nothing, however large."""
    one_tap = W[:, :, :1, :1]
    assert np.array_equal(nc.conv2d(X, W, stride=large, backend=backend), nc.conv2d(X, W, stride=5))
    assert np.array_equal(nc.conv2d(X, one_tap, dilation=large, backend=backend), nc.conv2d(X, one_tap))


def test_choosing_backends():
    for choose in (nc.set_backend, lambda name: nc.use_backend(name).__enter__()):
        check(choose, ("magic",), BackendError, "backend 'magic' is unknown ... cpu ... reference", {})
        check(choose, (3,), BackendError, "a backend is chosen by its name, but 3", {})
    check(nc.register_backend, (3, "math"), BackendError, "... 3 and 'math'", {})


@pytest.mark.parametrize(("module", "says"), [("no_such_module", "cannot be imported"), ("math", "... module math")])
def test_modules_that_are_no_backends(module, says, monkeypatch):
    monkeypatch.setitem(nc.backends.registry._modules, "broken", module)
    assert not nc.backends()["broken"].available
    check(nc.conv2d, (X, W), BackendError, f"backend 'broken' {says}", {"backend": "broken"}, SMALL)


def test_unknown_names_in_the_environment(monkeypatch):
    monkeypatch.setenv("NUMBACONV_ALGORITHM", "magic")
    check(nc.conv2d, (X, W), AlgorithmError, "conv2d: algorithm 'magic' is unknown", {}, SMALL)
    monkeypatch.setenv("NUMBACONV_BACKEND", "witchcraft")
    check(nc.conv2d, (X, W), BackendError, "backend 'witchcraft' is unknown ... cpu ... reference", {}, SMALL)
