"""Problems that the conformance tests share, and how to run a primitive on one through the public API."""

import os
from dataclasses import dataclass, replace
from math import prod

import ml_dtypes
import numpy as np

import numbaconv
import oracle
from numbaconv import grad
from numbaconv.backends import registry
from numbaconv.backends.base import Direction
from numbaconv.plan import ConvPlan, plan_conv

#: The backends under test. ``tests/backends/cuda`` runs these tests again for its own, in Numba's simulator.
BACKENDS = os.environ.get("NUMBACONV_TEST_BACKENDS", "cpu,reference").split(",")
#: The algorithms under test, where not all are.
ALGORITHMS = list(filter(None, os.environ.get("NUMBACONV_TEST_ALGORITHMS", "").split(",")))
#: The cost up to which problems are visited, where that is limited: the simulator takes microseconds for each product
#: and a fraction of a millisecond for each element of a result.
LARGEST = float(os.environ.get("NUMBACONV_TEST_LARGEST", "inf"))


@dataclass(frozen=True)
class Problem:
    """A convolution, channels first."""

    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    batch: int = 1
    c_in: int = 1
    c_out: int = 1
    groups: int = 1
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    pads: tuple[tuple[int, int], ...] = ()
    modes: tuple[str, ...] = ()
    value: complex = 0

    def __post_init__(self):
        for name, default in (("stride", 1), ("dilation", 1), ("pads", (0, 0)), ("modes", "zeros")):
            if not getattr(self, name):
                object.__setattr__(self, name, (default,) * self.rank)

    @property
    def rank(self):
        return len(self.spatial)

    @property
    def x_shape(self):
        return (self.batch, self.c_in, *self.spatial)

    @property
    def w_shape(self):
        return (self.c_out, self.c_in // self.groups, *self.kernel)

    @property
    def arguments(self):
        """Keyword arguments of the public functions."""
        value = {"padding_value": self.value} if "constant" in self.modes else {}
        return {
            "stride": self.stride,
            "padding": self.pads,
            "dilation": self.dilation,
            "groups": self.groups,
            "padding_mode": self.modes,
            **value,
        }

    @property
    def oracle_arguments(self):
        names = ("stride", "dilation", "groups", "pads", "modes", "value")
        return {name: getattr(self, name) for name in names}

    def plan(self, dtype="float64") -> ConvPlan:
        return plan_conv(self.x_shape, self.w_shape, dtype=dtype, **self.arguments)

    @property
    def cost(self):
        """Multiply-accumulates, and a hundred for each element."""
        plan = self.plan()
        return plan.macs + 100 * (prod(self.x_shape) + prod(self.w_shape) + prod(plan.output_shape))

    def at_rank3(self):
        """The same problem with leading axes of extent 1."""
        missing = 3 - self.rank
        return replace(
            self,
            **{
                name: (filler,) * missing + getattr(self, name)
                for name, filler in (
                    ("spatial", 1),
                    ("kernel", 1),
                    ("stride", 1),
                    ("dilation", 1),
                    ("pads", (0, 0)),
                    ("modes", "zeros"),
                )
            },
        )


def operands(problem, rng, dtype, largest=None):
    """Input, weight and output gradient: small integers up to ``largest``, or standard normal values."""
    y_shape = problem.plan().output_shape
    return tuple(draw(rng, shape, dtype, largest) for shape in (problem.x_shape, problem.w_shape, y_shape))


def draw(rng, shape, dtype, largest=None):
    dtype = np.dtype(dtype)

    def part():
        if largest is None:
            return rng.standard_normal(shape)
        return rng.integers(0 if dtype.kind == "u" else -largest, largest + 1, shape)

    values = part() + 1j * part() if dtype.kind == "c" else part()
    return values.astype(dtype)


def run(direction, problem, x, w, g, **options):
    """A primitive through the public function that comes down to it."""
    rank, arguments = problem.rank, {**problem.arguments, **options}
    if direction is Direction.FORWARD:
        return getattr(numbaconv, f"conv{rank}d")(x, w, **arguments)
    if direction is Direction.INPUT_GRAD:
        return getattr(grad, f"conv{rank}d_input")(x.shape, w, g, **arguments)
    return getattr(grad, f"conv{rank}d_weight")(x, w.shape, g, **arguments)


def run_last(direction, problem, x, w, g, **options):
    """`run` with channels last: operands in that layout, the result in the other again."""
    formats = {"data_format": {1: "NWC", 2: "NHWC", 3: "NDHWC"}[problem.rank]}
    formats["weight_format"] = {1: "WIO", 2: "HWIO", 3: "DHWIO"}[problem.rank]
    x, g = (np.ascontiguousarray(np.moveaxis(each, 1, -1)) for each in (x, g))
    order = (*range(2, w.ndim), 1, 0)
    answer = run(direction, problem, x, np.ascontiguousarray(w.transpose(order)), g, **formats, **options)
    return answer.transpose(np.argsort(order)) if direction is Direction.WEIGHT_GRAD else np.moveaxis(answer, -1, 1)


def expected(direction, problem, x, w, g):
    """The oracle's answer; gradients of complex operands are by the conjugate."""
    if direction is Direction.FORWARD:
        return oracle.forward(x, w, **problem.oracle_arguments)
    if direction is Direction.INPUT_GRAD:
        return oracle.input_grad(g, np.conj(w), x.shape, **problem.oracle_arguments)
    conjugate = replace(problem, value=np.conj(problem.value))
    return oracle.weight_grad(np.conj(x), g, w.shape, **conjugate.oracle_arguments)


def magnitude(direction, problem, x, w, g):
    """The same sum over absolute values: what error bounds are multiples of."""
    x, w, g = (np.abs(oracle.wide(each)) for each in (x, w, g))
    return expected(direction, replace(problem, value=abs(problem.value)), x, w, g)


def spread_magnitude(direction, plan, source, other):
    """What error bounds of spreading algorithms are multiples of, one value for each pair of rows or channels.

    ``source`` is what the primitive reads, ``other`` the weight; in WEIGHT_GRAD they are ``x`` and ``grad_y``. The
    shape is that of the result, up to broadcasting.
    """
    source, other = (np.abs(oracle.wide(each)) for each in (source, other))
    spatial, groups, ones = tuple(range(2, source.ndim)), plan.groups, [1] * (source.ndim - 2)
    inputs, outputs = plan.x_channels // groups, plan.y_channels // groups
    largest, sums = source.max(axis=spatial, initial=0), other.sum(axis=spatial)
    if direction is Direction.INPUT_GRAD:
        repeats = prod(axis.padded if axis.maps_padding else 1 for axis in plan.axes)  # positions of one input cell
        largest, sums = largest.reshape(plan.batch, groups, outputs), sums.reshape(groups, outputs, inputs)
        return repeats * np.einsum("ngo,goc->ngc", largest, sums).reshape(plan.batch, plan.x_channels, *ones)
    if any(axis.mode == "constant" for axis in plan.axes):
        largest = np.maximum(largest, abs(plan.padding_value))
    largest = largest.reshape(plan.batch, groups, inputs)
    if direction is Direction.FORWARD:
        sums = sums.reshape(groups, outputs, inputs)
        return np.einsum("ngc,goc->ngo", largest, sums).reshape(plan.batch, plan.y_channels, *ones)
    sums = sums.reshape(plan.batch, groups, outputs)
    return np.einsum("ngc,ngo->goc", largest, sums).reshape(plan.y_channels, inputs, *ones)


def spreads_nan(algorithm):
    """Whether an algorithm says that NaN and infinity reach results that do not read them."""
    return "NaN" in algorithm.about.reach


def error_bound(direction, algorithm, problem, dtype, x, w, g):
    """The algorithm's bound on its errors, an array that broadcasts to the result."""
    plan = problem.plan(dtype)
    info = np.finfo(plan.compute_dtype)
    eps, tiny = info.eps, oracle.wide(info.smallest_subnormal)
    if algorithm.spreading:
        source, other = {
            Direction.FORWARD: (x, w),
            Direction.INPUT_GRAD: (g, w),
            Direction.WEIGHT_GRAD: (x, g),
        }[direction]
        size = spread_magnitude(direction, plan, source, other)
        ones = (spread_magnitude(direction, plan, *each) for each in ((source, other * 0 + 1), (source * 0 + 1, other)))
        tiny = oracle.wide(info.smallest_normal) * (1 + sum(ones))
    else:
        size = magnitude(direction, problem, x, w, g)
    # A complex product is four real ones.
    return algorithm.error_factor(plan) * (4 if plan.compute_dtype.startswith("complex") else 1) * (eps * size + tiny)


def assert_within(answer, wanted, bound, label):
    """No error above its bound."""
    excess = np.abs(oracle.wide(answer) - wanted) - bound
    assert not answer.size or excess.max() <= 0, f"{label}: over the bound by {excess.max()}"


def assert_exact(answer, wanted, algorithm, bound, label):
    """Equal to the bit; from a spreading algorithm within its bound, and within one rounding of the result's dtype.

    ``wanted`` is the exact result in the wanted dtype, ``bound()`` the algorithm's bound.
    """
    if not algorithm.spreading:
        np.testing.assert_array_equal(answer, wanted, err_msg=label)
        return
    wide = oracle.wide(wanted.astype(np.promote_types(np.float32, wanted.dtype)))
    rounding = np.abs(wide) * np.float64(ml_dtypes.finfo(wanted.dtype).eps)
    answer = answer.astype(np.promote_types(np.float32, wanted.dtype))
    assert_within(answer, wide, bound() + rounding, label)


def chosen(direction, plan):
    """The algorithm that a call gets when it names none."""
    return registry.resolve(None).select("test", plan, direction, None)


def algorithms(backend, direction):
    """A backend's table, as far as its algorithms are under test."""
    table = registry.resolve(backend).tables[direction]
    return [each for each in table if not ALGORITHMS or each.name in ALGORITHMS]


def accepting(problem, dtype="float64"):
    """Every (backend, direction, algorithm) that accepts a problem."""
    plan = problem.plan(dtype)
    for name in BACKENDS:
        for direction in Direction:
            for algorithm in algorithms(name, direction):
                if algorithm.accepts(plan) is None:
                    yield name, direction, algorithm


_P = Problem

#: Problems that visit every mode, every edge of the tiles and blocks, and every rule of the plan.
PROBLEMS = {
    "one cell": _P((1,), (1,)),
    "pointwise": _P((5, 4), (1, 1), batch=2, c_in=3, c_out=4),
    "3x3 same": _P((6, 7), (3, 3), batch=2, c_in=3, c_out=2, pads=((1, 1), (1, 1))),
    "more channels than a block": _P((4, 5), (3, 2), c_in=17, c_out=19, pads=((1, 0), (0, 1))),
    "row longer than a tile": _P((1100,), (3,), c_in=2, c_out=3, pads=((1, 1),)),
    "row longer than a tile, strided": _P((1700,), (5,), c_in=1, c_out=2, stride=(3,), pads=((2, 3),)),
    "row longer than a tile, dilated": _P((700,), (4,), c_in=2, c_out=1, dilation=(50,), pads=((150, 0),)),
    "row longer than a tile, circular": _P(
        (600,), (3,), c_in=1, c_out=2, stride=(1,), pads=((7, 9),), modes=("circular",)
    ),
    "row longer than a tile, reflect, strided": _P((1300,), (3,), stride=(2,), pads=((4, 5),), modes=("reflect",)),
    "stride 2": _P((7, 8), (3, 3), c_in=2, c_out=3, stride=(2, 2), pads=((1, 1), (1, 1))),
    "stride over kernel": _P((11, 9), (2, 1), c_in=2, c_out=2, stride=(4, 3)),
    "stride and dilation share a factor": _P((13,), (4,), c_in=2, c_out=2, stride=(4,), dilation=(2,), pads=((3, 2),)),
    "stride and dilation coprime": _P((14,), (4,), c_in=2, c_out=2, stride=(3,), dilation=(2,), pads=((3, 4),)),
    "stride past the end": _P((5, 4), (2, 3), c_in=2, c_out=2, stride=(2**40, 10**9), pads=((1, 1), (0, 2))),
    "long kernel": _P((2900,), (700,), batch=2, c_in=3, c_out=2, pads=((350, 20),)),
    "long kernel, strided": _P((2500,), (301,), c_in=2, c_out=3, stride=(3,), pads=((40, 700),)),
    "long kernel, strided and dilated": _P(
        (2300,), (150,), c_in=2, c_out=2, stride=(4,), dilation=(6,), pads=((9, 8),)
    ),
    "long kernel, dilated, reflected": _P(
        (1500,), (130,), c_in=2, c_out=2, groups=2, dilation=(5,), pads=((300, 400),), modes=("reflect",)
    ),
    "long kernel, constant, multiplier 2": _P(
        (700,), (90,), batch=2, c_in=3, c_out=6, groups=3, pads=((100, 30),), modes=("constant",), value=2
    ),
    "long kernel, circular, strided": _P((900,), (600,), stride=(2,), pads=((400, 350),), modes=("circular",)),
    "long kernel in width": _P((3, 600), (1, 70), batch=2, c_in=2, c_out=3, pads=((0, 0), (30, 5))),
    "long kernel in height": _P((640, 3), (65, 1), c_in=2, c_out=9, stride=(2, 1), pads=((30, 5), (0, 0))),
    "long kernel in depth": _P((600, 2, 3), (33, 1, 1), c_in=2, c_out=2, pads=((8, 9), (0, 0), (0, 0))),
    "one output, long rows": _P((1300,), (1300,), batch=2, stride=(2,)),
    "one output, wide rows, reflected": _P(
        (3, 600), (3, 601), stride=(1, 4), pads=((0, 0), (1, 0)), modes=("reflect",) * 2
    ),
    "one output in the middle": _P((6,), (3,), stride=(7,), pads=((1, 4),), modes=("reflect",), c_out=2),
    "dilation": _P((9, 8), (3, 2), c_in=2, c_out=2, dilation=(2, 3), pads=((2, 2), (3, 0))),
    "unequal per axis": _P((7, 9), (2, 3), stride=(1, 2), dilation=(3, 1), pads=((0, 2), (1, 0)), c_in=2, c_out=2),
    "padding over the kernel": _P((3, 3), (2, 2), pads=((4, 3), (5, 0)), c_in=1, c_out=2),
    "groups": _P((5, 5), (3, 3), c_in=6, c_out=4, groups=2, pads=((1, 1), (1, 1))),
    "depthwise": _P((6, 5), (3, 3), c_in=4, c_out=4, groups=4, stride=(2, 1), pads=((1, 1), (1, 1))),
    "depthwise, multiplier 3": _P((6,), (3,), batch=2, c_in=3, c_out=9, groups=3, dilation=(2,), pads=((2, 2),)),
    "rank 3": _P((4, 5, 3), (2, 3, 2), batch=2, c_in=2, c_out=3, stride=(1, 2, 1), pads=((1, 0), (1, 1), (0, 1))),
    "rank 3, dilated, grouped": _P(
        (5, 4, 6), (2, 2, 3), c_in=4, c_out=2, groups=2, dilation=(2, 1, 2), pads=((1, 1),) * 3
    ),
    "causal": _P((9,), (3,), c_in=2, c_out=2, dilation=(2,), pads=((4, 0),)),
    "constant": _P((4, 5), (3, 3), c_in=2, c_out=2, pads=((2, 1), (1, 2)), modes=("constant",) * 2, value=3),
    "constant, strided": _P((5, 6), (2, 3), stride=(2, 2), pads=((1, 2), (3, 3)), modes=("constant",) * 2, value=-2),
    "constant rows, zero columns": _P((3, 4), (3, 3), pads=((2, 2), (2, 2)), modes=("constant", "zeros"), value=5),
    "zero rows, constant columns": _P((3, 4), (3, 3), pads=((2, 2), (2, 2)), modes=("zeros", "constant"), value=5),
    "constant depth, mapped rest": _P(
        (2, 3, 4), (2, 3, 3), pads=((1, 1),) * 3, modes=("constant", "reflect", "circular"), value=2
    ),
    "constant depth, zero height": _P(
        (2, 2, 3), (3, 3, 2), pads=((1, 2), (2, 1), (1, 1)), modes=("constant", "zeros", "zeros"), value=3
    ),
    "zero depth, constant height": _P(
        (2, 2, 3), (3, 3, 2), pads=((1, 2), (2, 1), (1, 1)), modes=("zeros", "constant", "zeros"), value=3
    ),
    "reflect": _P((5, 6), (3, 3), c_in=2, c_out=2, pads=((2, 2), (1, 3)), modes=("reflect",) * 2),
    "replicate": _P((4, 5), (3, 3), c_in=2, c_out=2, pads=((3, 2), (2, 4)), modes=("replicate",) * 2),
    "circular": _P((4, 5), (3, 3), c_in=2, c_out=2, stride=(1, 2), pads=((2, 2), (3, 4)), modes=("circular",) * 2),
    "symmetric": _P((4, 5), (3, 2), c_in=2, c_out=2, pads=((3, 2), (2, 5)), modes=("symmetric",) * 2),
    "mixed modes": _P((4, 5, 3), (2, 3, 3), pads=((1, 2), (2, 2), (2, 1)), modes=("replicate", "zeros", "symmetric")),
    "mapped and strided and dilated": _P(
        (7, 8),
        (3, 3),
        c_in=2,
        c_out=3,
        stride=(2, 3),
        dilation=(2, 1),
        pads=((3, 3), (2, 4)),
        modes=("reflect", "circular"),
    ),
    "padding wraps more than once": _P((3,), (2,), pads=((8, 7),), modes=("circular",)),
    "reflects more than once": _P((3,), (3,), pads=((7, 9),), modes=("reflect",)),
    "mirrors more than once": _P((2,), (3,), stride=(2,), pads=((7, 9),), modes=("symmetric",)),
    "reflects one cell": _P((1,), (3,), pads=((2, 2),), modes=("reflect",)),
    "input tail unread": _P((9,), (2,), stride=(5,), pads=((0, 2),), modes=("replicate",)),
    "reflect, many channels": _P((7, 9), (3, 3), c_in=9, c_out=9, pads=((2, 3), (4, 1)), modes=("reflect", "circular")),
    "constant, many channels": _P(
        (6, 5), (3, 2), c_in=9, c_out=10, stride=(2, 1), pads=((1, 2), (2, 1)), modes=("constant", "zeros"), value=-2
    ),
    "zeros and constant, many channels": _P(
        (3, 4, 5),
        (3, 2, 3),
        c_in=8,
        c_out=5,
        pads=((1, 1), (2, 1), (1, 2)),
        modes=("zeros", "replicate", "constant"),
        value=4,
    ),
    "several blocks of positions": _P((23, 31), (3, 3), batch=2, c_in=5, c_out=6, stride=(2, 1), pads=((1, 1), (1, 1))),
    "one channel more than a block": _P((8, 9), (7, 7), batch=2, c_in=6, c_out=6, pads=((3, 3), (2, 3))),
    "deeper than a block": _P((5, 7), (3, 3), c_in=40, c_out=9, pads=((1, 1), (1, 1))),
    "groups of several panels": _P(
        (6, 6), (3, 3), batch=2, c_in=34, c_out=38, groups=2, stride=(2, 2), pads=((1, 1), (1, 1))
    ),
    "empty batch": _P((5,), (3,), batch=0, c_in=2, c_out=2),
    "no input channels": _P((5, 4), (3, 3), batch=2, c_in=0, c_out=3),
    "no output channels": _P((5, 4), (3, 3), batch=2, c_in=2, c_out=0),
    "large batch": _P((3, 3), (2, 2), batch=9, c_in=2, c_out=2),
    "kernel fills the input": _P((4, 3), (4, 3), batch=2, c_in=2, c_out=3),
}

PROBLEMS = {name: problem for name, problem in PROBLEMS.items() if problem.cost <= LARGEST}


def visited(*names):
    """Those of these problems that are not too large."""
    return [name for name in names if name in PROBLEMS or float("inf") == LARGEST]
