"""PyTorch's opinion on forward convolutions: every argument both have, every dtype, argument order, columns.

PyTorch computes in double precision, on the operands' own values. Where operands are not integers, results
may differ by ``(terms + 3) * eps * (|x| conv |w| + |bias|)``, the bound on sums in any order (Higham 2002,
section 4.2). Both factors come from PyTorch: the terms as a convolution of ones.
"""

import inspect
import re
import warnings
from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np
import pytest

import numbaconv

# Without PyTorch this folder itself answers to its name, but has no version.
torch = pytest.importorskip("torch", minversion="2.0")
F = torch.nn.functional


@pytest.fixture(params=["cpu", "reference"], autouse=True)
def backend(request):
    """Each backend; PyTorch on one thread, because two would wait for each other longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for each test, because Numba sets it back when its threads start
    with numbaconv.use_backend(request.param):
        yield request.param
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Case:
    """A call that PyTorch has too; ``channels`` are those of input and output, ``batch`` None is unbatched."""

    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    batch: int | None = 2
    channels: tuple[int, int] = (4, 6)
    groups: int = 1
    stride: int | tuple[int, ...] = 1
    padding: int | tuple | str = 0
    dilation: int | tuple[int, ...] = 1
    mode: str = "zeros"
    transposed: bool = False
    output_padding: int | tuple[int, ...] = 0
    bias: bool = True

    @property
    def rank(self):
        return len(self.spatial)

    @property
    def name(self):
        return f"conv{'_transpose' if self.transposed else ''}{self.rank}d"

    @property
    def arguments(self):
        """Keyword arguments of the functions of this package."""
        names = ("stride", "padding", "dilation", "groups")
        extra = {"output_padding": self.output_padding} if self.transposed else {"padding_mode": self.mode}
        return {name: getattr(self, name) for name in names} | extra

    def shapes(self):
        """Of input, weight and bias."""
        batch = () if self.batch is None else (self.batch,)
        c_in, c_out = self.channels
        outer = (c_in, c_out // self.groups) if self.transposed else (c_out, c_in // self.groups)
        return (*batch, c_in, *self.spatial), (*outer, *self.kernel), (c_out,)

    def operands(self, dtype):
        """Input, weight and bias (or None), standard normal."""
        rng = np.random.default_rng(5)
        x, w, b = (draw(rng, shape, dtype) for shape in self.shapes())
        return x, w, b if self.bias else None

    def torch(self, x, w, b):
        """PyTorch's result for its own tensors."""
        function, padding = getattr(F, self.name), self.padding
        if self.transposed:
            return function(x, w, b, self.stride, padding, self.output_padding, self.groups, self.dilation)
        if self.mode != "zeros":
            widths = [width for pair in reversed(padding) for width in pair]
            x, padding = F.pad(x, widths, self.mode), 0
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Using padding='same'", UserWarning)  # even kernels make a copy
            return function(x, w, b, self.stride, padding, self.dilation, self.groups)


def draw(rng, shape, dtype):
    """Standard normal values."""
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else values).astype(dtype)


def wide(array):
    """The values as a tensor of double precision, None as None."""
    if array is None:
        return None
    return torch.from_numpy(np.array(array, np.complex128 if array.dtype.kind == "c" else np.float64))


def error_bound(terms, magnitude, dtype):
    """How far results of ``dtype`` may be from PyTorch's in double precision.

    In double precision PyTorch's own error counts as well. A complex sum has twice the terms in each of two
    parts, sqrt(2) * (2 * terms + 3) in all, and PyTorch's takes three real convolutions of sums of parts.
    """
    sides = 2 if np.dtype(dtype).name in ("float64", "complex128") else 1
    parts = 3 if np.dtype(dtype).kind == "c" else 1
    return sides * parts * (terms + 3) * np.finfo(dtype).eps * magnitude


def expectation(case, x, w, b):
    """PyTorch's result in double precision, the terms of each of its sums, and the sums of absolute values."""
    tensors = [wide(each) for each in (x, w, b)]
    sizes = [None if each is None else each.abs() for each in tensors]
    ones = [torch.ones_like(each) for each in sizes[:2]]
    return tuple(each.numpy() for each in (case.torch(*tensors), case.torch(*ones, None), case.torch(*sizes)))


def ours(case, x, w, b=None, **options):
    return getattr(numbaconv, case.name)(x, w, b, **case.arguments, **options)


def assert_within(answer, expected, bound):
    assert answer.shape == expected.shape
    np.testing.assert_array_less(np.abs(answer - expected), np.nextafter(bound, np.inf))


CONV = {
    "1d": Case((9,), (3,)),
    "1d, no bias": Case((9,), (3,), bias=False),
    "1d, strided": Case((10,), (3,), stride=2, padding=1),
    "1d, stride over kernel": Case((11,), (2,), stride=4),
    "1d, dilated": Case((12,), (3,), dilation=3, padding=4),
    "1d, groups": Case((9,), (3,), groups=2, stride=2, dilation=2, padding=2),
    "1d, depthwise": Case((9,), (3,), channels=(4, 8), groups=4, padding=1),
    "1d, same": Case((9,), (3,), padding="same", dilation=2),
    "1d, same, even kernel": Case((9,), (4,), padding="same"),
    "1d, valid": Case((9,), (4,), padding="valid", stride=2),
    "1d, unbatched": Case((9,), (3,), batch=None, padding=1),
    "1d, batch 0": Case((9,), (3,), batch=0),
    "1d, longer than a tile": Case((1100,), (5,), channels=(2, 3), padding=2),
    "2d": Case((6, 7), (3, 3), padding=1),
    "2d, pointwise": Case((5, 4), (1, 1), channels=(17, 19)),
    "2d, unequal": Case((9, 8), (2, 3), stride=(2, 1), padding=(1, 3), dilation=(1, 2)),
    "2d, groups": Case((7, 6), (3, 3), groups=2, stride=2, padding=1),
    "2d, depthwise": Case((7, 6), (3, 3), channels=(4, 4), groups=4, padding=1),
    "2d, depthwise, multiplier 2": Case((7, 6), (3, 2), channels=(3, 6), groups=3, stride=(1, 2), dilation=2),
    "2d, same": Case((7, 6), (3, 5), padding="same", dilation=(2, 1)),
    "2d, same, even kernel": Case((7, 6), (2, 4), padding="same", dilation=(1, 3)),
    "2d, valid": Case((7, 6), (3, 2), padding="valid"),
    "2d, unbatched": Case((7, 6), (3, 3), batch=None, groups=2, stride=2),
    "2d, batch 0": Case((7, 6), (3, 3), batch=0, padding=1),
    "2d, padding over the kernel": Case((3, 4), (2, 2), padding=(5, 4)),
    "2d, kernel fills the input": Case((4, 3), (4, 3), bias=False),
    "2d, wide": Case((14, 15), (3, 3), channels=(20, 33), batch=1, padding=1),
    "3d": Case((5, 4, 6), (3, 2, 3), padding=1),
    "3d, unequal": Case((6, 5, 7), (2, 3, 2), stride=(1, 2, 3), padding=(1, 0, 2), dilation=(2, 1, 3)),
    "3d, groups": Case((4, 5, 4), (2, 2, 2), groups=2, stride=2, padding=1),
    "3d, depthwise": Case((4, 5, 4), (3, 2, 3), channels=(2, 4), groups=2, padding=(1, 1, 1)),
    "3d, same": Case((4, 5, 4), (3, 2, 1), padding="same", dilation=(1, 3, 2)),
    "3d, unbatched": Case((4, 5, 4), (2, 2, 2), batch=None),
    "3d, batch 0": Case((4, 5, 4), (2, 2, 2), batch=0),
}

TRANSPOSED = {
    name: replace(case, transposed=True)
    for name, case in {
        "up 1d": Case((5,), (3,)),
        "up 1d, no bias": Case((5,), (3,), stride=2, bias=False),
        "up 1d, strided": Case((5,), (4,), stride=3, padding=2, output_padding=1),
        "up 1d, dilated": Case((6,), (3,), dilation=3, padding=1, output_padding=2),
        "up 1d, groups": Case((6,), (3,), groups=2, stride=2),
        "up 1d, depthwise": Case((6,), (3,), channels=(4, 8), groups=4, stride=2, padding=1),
        "up 1d, unbatched": Case((5,), (3,), batch=None, stride=2),
        "up 1d, batch 0": Case((5,), (3,), batch=0, stride=2),
        "up 2d": Case((4, 5), (3, 3), padding=1),
        "up 2d, doubling": Case((4, 5), (3, 3), stride=2, padding=1, output_padding=1),
        "up 2d, unequal": Case((4, 3), (2, 4), stride=(3, 2), padding=(0, 2), dilation=(2, 1), output_padding=(2, 0)),
        "up 2d, stride over kernel": Case((3, 4), (2, 1), stride=4, output_padding=3),
        "up 2d, groups": Case((4, 5), (3, 2), groups=2, stride=2, padding=(1, 0), dilation=2),
        "up 2d, depthwise": Case((4, 5), (3, 3), channels=(4, 4), groups=4, stride=2, padding=1, output_padding=1),
        "up 2d, unbatched": Case((4, 5), (3, 3), batch=None, stride=2),
        "up 2d, batch 0": Case((4, 5), (3, 3), batch=0, stride=2, output_padding=1),
        "up 2d, wide": Case((7, 8), (4, 4), channels=(18, 20), stride=2, padding=1, batch=1),
        "up 3d": Case((3, 4, 3), (2, 3, 2)),
        "up 3d, unequal": Case((3, 2, 4), (3, 2, 2), stride=(2, 3, 1), padding=(1, 0, 1), output_padding=(1, 2, 0)),
        "up 3d, groups": Case((3, 2, 3), (2, 2, 3), groups=2, stride=2, dilation=(1, 2, 1)),
        "up 3d, unbatched": Case((3, 2, 3), (2, 2, 2), batch=None, stride=2),
    }.items()
}

PADDED = {
    f"{mode}, {name}": replace(case, mode=mode)
    for mode in ("reflect", "replicate", "circular")
    for name, case in {
        "1d": Case((7,), (3,), padding=((2, 4),)),
        "1d, strided": Case((9,), (3,), padding=((4, 3),), stride=3, dilation=2),
        "2d": Case((5, 6), (3, 3), padding=((2, 1), (0, 4)), groups=2),
        "2d, strided": Case((6, 5), (2, 3), padding=((1, 2), (3, 3)), stride=(2, 1), dilation=(1, 2)),
        "2d, unbatched": Case((5, 6), (3, 3), padding=((1, 1), (1, 1)), batch=None),
        "3d": Case((4, 3, 5), (2, 3, 2), padding=((1, 2), (2, 0), (3, 1))),
    }.items()
}
CASES = CONV | TRANSPOSED | PADDED


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_real(name, dtype):
    case = CASES[name]
    operands = case.operands(dtype)
    answer = ours(case, *operands)
    expected, terms, magnitude = expectation(case, *operands)
    assert answer.dtype == dtype
    assert_within(answer, expected, error_bound(terms, magnitude, dtype))


SOME = ["1d, groups", "2d, unequal", "2d, groups", "2d, depthwise", "3d", "circular, 2d", "reflect, 1d"]
SOME += ["up 1d, strided", "up 2d, unequal", "up 2d, groups", "up 3d"]


@pytest.mark.parametrize("dtype", ["complex128", "complex64"])
@pytest.mark.parametrize("name", SOME)
def test_complex(name, dtype):
    case = CASES[name]
    operands = case.operands(dtype)
    answer = ours(case, *operands)
    expected, terms, magnitude = expectation(case, *operands)
    assert answer.dtype == dtype
    assert_within(answer, expected, error_bound(terms, magnitude, dtype))


def integers(case, dtype, least, most):
    rng = np.random.default_rng(6)
    return [rng.integers(least, most, shape, endpoint=True).astype(dtype) for shape in case.shapes()]


HALVES = {"float16": (np.float16, torch.float16), "bfloat16": (ml_dtypes.bfloat16, torch.bfloat16)}


def rounded(tensor, half):
    """Single-precision values rounded to a half type, as NumPy's single precision."""
    return tensor.to(HALVES[half][1]).float().numpy()


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("name", SOME)
def test_half_rounds_once(name, half):
    """Sums of integers below 2**24 are exact in float32, so one rounding gives equal bits, infinity included."""
    case = CASES[name]
    operands = integers(case, HALVES[half][0], -60, 60)
    expected = rounded(case.torch(*(torch.from_numpy(each.astype(np.float32)) for each in operands)), half)
    answer = ours(case, *operands)
    assert answer.dtype == HALVES[half][0]
    np.testing.assert_array_equal(answer.astype(np.float32), expected)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("name", SOME)
def test_half_sums_in_single_precision(name, half):
    case = CASES[name]
    operands = case.operands(HALVES[half][0])
    single = [each.astype(np.float32) for each in operands]
    expected = rounded(case.torch(*(torch.from_numpy(each) for each in single)), half)
    _, terms, magnitude = expectation(case, *single)
    roundings = 2.0 ** (-10 if half == "float16" else -7) * np.abs(expected) + 2.0**-24
    assert_within(
        ours(case, *operands).astype(np.float32), expected, 2 * error_bound(terms, magnitude, "float32") + roundings
    )


#: Integer dtypes, and those of their sums.
INTEGERS = {
    "int8": "int32",
    "uint8": "int32",
    "int16": "int64",
    "uint16": "int64",
    "int32": "int64",
    "uint32": "int64",
    "int64": "int64",
    "uint64": "uint64",
}


def check_integers(case, dtype, bias_dtype):
    most = min(np.iinfo(dtype).max, 5000)
    x, w, b = integers(case, dtype, 0 if dtype.startswith("u") else -most, most)
    if case.mode == "reflect":  # which PyTorch has for floats alone; these sums are exact
        expected = case.torch(*(wide(each) for each in (x, w, b))).to(torch.int64)
    else:
        expected = case.torch(*(torch.from_numpy(each.astype(np.int64)) for each in (x, w, b)))
    answer = ours(case, x, w, b.astype(bias_dtype))
    assert answer.dtype == INTEGERS[dtype]
    np.testing.assert_array_equal(answer, expected.numpy())


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", SOME)
def test_integers(name, dtype):
    check_integers(CASES[name], dtype, INTEGERS[dtype])


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_bias_of_the_operands_dtype(dtype):
    check_integers(CASES["2d, groups"], dtype, dtype)


ACTIVATIONS = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "hardswish": F.hardswish,
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["1d, strided", "2d, groups", "circular, 2d", "up 2d, unequal", "3d"])
def test_fused_activation(name, activation, dtype):
    """No activation has a slope over 1.5; its own value is off by a few roundings, of its argument or of 1."""
    case = CASES[name]
    x, w, b = case.operands(dtype)
    plain, terms, magnitude = expectation(case, x, w, b)
    residual = draw(np.random.default_rng(7), plain.shape, dtype)
    argument = plain + residual
    bound = error_bound(terms + 1, magnitude + np.abs(residual), dtype)
    bound = 1.5 * bound + 8 * np.finfo(dtype).eps * (1 + np.abs(argument))
    answer = ours(case, x, w, b, residual=residual, activation=activation)
    assert_within(answer, ACTIVATIONS[activation](torch.from_numpy(argument)).numpy(), bound)


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_fused_activation_of_integers(activation):
    case = CASES["2d, groups"]
    operands = integers(case, np.int8, -2, 2)
    expected = ACTIVATIONS[activation](case.torch(*(wide(each) for each in operands))).numpy()
    np.testing.assert_array_equal(ours(case, *operands, activation=activation), expected)


def documented(function):
    """Names and defaults in the first line of a built-in function's documentation."""
    line = re.search(r"\w+\((.*?)\) -> Tensor", function.__doc__).group(1)
    return [each.replace(" ", "") for each in line.split(",")]


@pytest.mark.parametrize("name", [f"{kind}{rank}d" for kind in ("conv", "conv_transpose") for rank in (1, 2, 3)])
def test_argument_order(name):
    theirs = documented(getattr(F, name))
    parameters = [
        str(each).split(":")[0] + ("" if each.default is each.empty else f"={each.default}")
        for each in inspect.signature(getattr(numbaconv, name)).parameters.values()
        if each.kind is each.POSITIONAL_OR_KEYWORD
    ]
    assert parameters == theirs


@pytest.mark.parametrize("name", ["unfold", "fold"])
def test_argument_order_of_columns(name):
    mine, theirs = (inspect.signature(getattr(each, name)).parameters.values() for each in (numbaconv, F))
    positional = [(each.name, each.default) for each in mine if each.kind is not each.KEYWORD_ONLY]
    assert positional == [(each.name, each.default) for each in theirs]


def test_positional_arguments():
    case = Case((9, 8), (2, 3), stride=(2, 3), padding=(1, 2), dilation=(3, 1), groups=2)
    x, w, b = integers(case, np.float64, -4, 4)
    tensors = [torch.from_numpy(each) for each in (x, w, b)]
    order = ((2, 3), (1, 2), (3, 1), 2)
    np.testing.assert_array_equal(numbaconv.conv2d(x, w, b, *order), F.conv2d(*tensors, *order).numpy())
    case = replace(case, transposed=True)
    x, w, b = integers(case, np.float64, -4, 4)
    tensors = [torch.from_numpy(each) for each in (x, w, b)]
    order = ((2, 3), (1, 2), (2, 1), 2, (3, 1))
    answer = numbaconv.conv_transpose2d(x, w, b, *order)
    np.testing.assert_array_equal(answer, F.conv_transpose2d(*tensors, *order).numpy())


COLUMNS = {
    "plain": ((2, 3, 6, 7), (3, 2), 1, 0, 1),
    "unequal": ((2, 3, 9, 8), (2, 3), (3, 1), (1, 2), (2, 3)),
    "one integer for both": ((1, 2, 7, 8), 3, 2, 2, 2),
    "unbatched": ((3, 6, 7), (2, 2), 1, (0, 1), 2),
    "gaps": ((1, 2, 9, 9), (2, 2), 1, 0, 4),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_unfold_and_fold(name):
    """Copies and sums of small integers: equal to the bit."""
    shape, *arguments = COLUMNS[name]
    x = np.random.default_rng(8).integers(-9, 10, shape).astype(np.float32)
    patches = F.unfold(torch.from_numpy(x), *arguments)
    np.testing.assert_array_equal(numbaconv.unfold(x, *arguments), patches.numpy())
    size = shape[-2:]
    folded = numbaconv.fold(patches.numpy(), size, *arguments)
    np.testing.assert_array_equal(folded, F.fold(patches, size, *arguments).numpy())
