"""The FFT algorithm where it differs from others: blocks, spectra, what spreads, and when it is chosen."""

import numpy as np
import pytest

import numbaconv
import oracle
from numbaconv.backends.base import NO_EPILOGUE, Direction
from numbaconv.backends.cpu import fourier, overlap
from numbaconv.backends.cpu.fft import FFT, _factors
from numbaconv.backends.cpu.jit import kernel
from numbaconv.backends.cpu.simd import VECTOR_BYTES
from numbaconv.plan import plan_conv
from problems import Problem, assert_within, error_bound, expected, operands, run


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("half", [256, 512, 2048, 2**15])
def test_the_transform_and_its_inverse(half, dtype):
    rng, lanes = np.random.default_rng(40), VECTOR_BYTES // np.dtype(dtype).itemsize
    z = rng.standard_normal(half) + 1j * rng.standard_normal(half)
    plane, table = half + lanes, _factors(half, np.dtype(dtype))
    cells = np.full(4 * plane, np.nan, dtype)
    cells[:half], cells[plane : plane + half] = z.real, z.imag
    transform = kernel(fourier.transform)
    at = transform(cells, 0, 2 * plane, plane, half, lanes, table)
    spectrum = cells[at : at + half] + 1j * cells[at + plane : at + plane + half]
    size = np.finfo(dtype).eps * np.log2(half) * np.linalg.norm(np.fft.fft(z))
    assert np.linalg.norm(spectrum - np.fft.fft(z)) < size
    back = transform(cells, at + plane, 3 * plane - at, -plane, half, lanes, table) - plane
    again = cells[back : back + half] + 1j * cells[back + plane : back + plane + half]
    assert np.linalg.norm(again / half - z) < np.finfo(dtype).eps * 2 * np.log2(half) * np.linalg.norm(z)


#: More units than a slab, in a batch and one by one.
SLABS = Problem((40000,), (40,), batch=3, c_in=24, c_out=3, pads=((7, 30),))


@pytest.mark.parametrize("direction", Direction)
def test_many_slabs(direction):
    x, w, g = operands(SLABS, np.random.default_rng(41), np.float32)
    answer = run(direction, SLABS, x, w, g, algorithm="fft")
    bound = error_bound(direction, FFT[direction], SLABS, "float32", x, w, g)
    assert_within(answer, expected(direction, SLABS, x, w, g), bound, direction.name)
    if direction is not Direction.WEIGHT_GRAD:
        for n in range(SLABS.batch):
            alone = run(direction, SLABS, x[n : n + 1], w, g[n : n + 1], algorithm="fft")
            np.testing.assert_array_equal(answer[n : n + 1], alone)


@pytest.mark.parametrize("direction", Direction)
def test_errors_are_far_below_the_bound(direction):
    """What is published is a bound; on random values errors are those of a good transform."""
    problem = Problem((5000,), (900,), batch=1, c_in=2, c_out=2)
    x, w, g = operands(problem, np.random.default_rng(42), np.float32)
    answer, wanted = run(direction, problem, x, w, g, algorithm="fft"), expected(direction, problem, x, w, g)
    error = np.abs(oracle.wide(answer) - wanted).max()
    assert error < 4e-7 * np.sqrt(np.mean(np.square(wanted))) * np.log2(len(answer.ravel()))


def test_the_residual_may_be_the_result():
    rng = np.random.default_rng(43)
    x, w = rng.standard_normal((2, 3, 900)), rng.standard_normal((4, 3, 100))
    residual = rng.standard_normal((2, 4, 801))
    wanted = numbaconv.conv1d(x, w, residual=residual, activation="relu", algorithm="fft")
    plain = numbaconv.conv1d(x, w, algorithm="direct")
    np.testing.assert_allclose(wanted, np.maximum(plain + residual, 0), atol=1e-11)
    answer = numbaconv.conv1d(x, w, residual=residual, activation="relu", out=residual, algorithm="fft")
    assert answer is residual
    np.testing.assert_array_equal(answer, wanted)


@pytest.mark.parametrize("layout", ["NWC", "strided"])
def test_layouts(layout):
    rng = np.random.default_rng(44)
    x, w = rng.standard_normal((2, 3, 900)), rng.standard_normal((4, 3, 100))
    wanted = numbaconv.conv1d(x, w, np.arange(4.0), algorithm="fft")
    if layout == "NWC":
        last = numbaconv.conv1d(
            x.transpose(0, 2, 1), w.transpose(2, 1, 0), np.arange(4.0), algorithm="fft", data_format="NWC"
        )
        np.testing.assert_array_equal(last.transpose(0, 2, 1), wanted)
    else:
        wide = np.full((2, 3, 1800), np.nan)
        wide[..., ::2] = x
        out = np.full((2, 4, 1602), np.nan)[..., ::2]
        np.testing.assert_array_equal(
            numbaconv.conv1d(wide[..., ::2], w, np.arange(4.0), algorithm="fft", out=out), wanted
        )


def test_nan_goes_no_further_than_what_reads_it():
    """Over a block of spectra it would; those sums are computed again. All others keep their bits."""
    x, w = np.ones((2, 4, 4000), np.float32), np.ones((4, 2, 64), np.float32)
    x[0, 0, 10] = np.nan
    plain = numbaconv.conv1d(np.ones_like(x), w, groups=2, algorithm="fft")
    found = numbaconv.conv1d(x, w, groups=2, algorithm="fft")
    used = overlap.rows_of(Direction.FORWARD, plan_conv(x.shape, w.shape, groups=2)).used
    assert used < 3000
    assert np.isnan(found[0, :2, :11]).all()
    assert np.isfinite(found[0, :2, 11:]).all()
    np.testing.assert_array_equal(found[0, :2, used:], plain[0, :2, used:])
    np.testing.assert_array_equal(found[0, 2:], plain[0, 2:])
    np.testing.assert_array_equal(found[1], plain[1])


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "arguments", "chosen"),
    [
        ((1, 16, 16000), (16, 16, 512), {}, True),
        ((1, 1, 64000), (1, 1, 1000), {}, True),
        ((1, 64, 8000), (64, 1, 512), {"groups": 64}, True),
        ((1, 64, 4000), (64, 64, 100), {"dilation": 3}, True),
        ((1, 32, 16, 4000), (32, 32, 1, 200), {}, True),
        ((1, 16, 200), (16, 16, 32), {}, False),  # short rows
        ((1, 64, 4000), (64, 64, 3), {}, False),
        ((1, 64, 8000), (64, 1, 16), {"groups": 64}, False),
        ((1, 64, 4000), (64, 64, 15), {}, False),
    ],
)
@pytest.mark.parametrize("direction", ["forward", "input"])
def test_when_it_is_chosen(x_shape, w_shape, arguments, chosen, direction):
    found = numbaconv.explain(x_shape, w_shape, direction=direction, **arguments)
    assert (found.algorithm == "fft") == chosen
    answer = next(each for each in found.candidates if each.name == "fft")
    assert answer.refusal is None
    if chosen:
        assert answer.passed_over is None
    else:
        assert f"fft: not chosen: {answer.passed_over}" in str(found)
        assert numbaconv.explain(x_shape, w_shape, direction=direction, algorithm="fft", **arguments).algorithm == "fft"
    for batch in (0, 7, 1000):
        other = numbaconv.explain((batch, *x_shape[1:]), w_shape, direction=direction, **arguments)
        assert (other.algorithm == "fft") == chosen


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "arguments", "reason"),
    [
        ((1, 2, 900), (2, 2, 300), {"dtype": "int32"}, "not int64"),
        ((1, 2, 9, 900), (2, 2, 3, 300), {}, "along one axis only"),
        ((1, 2, 9, 900), (2, 2, 1, 300), {"stride": (2, 1)}, "along one axis only"),
        ((1, 2, 9, 900), (2, 2, 1, 300), {"padding": ((1, 0), (0, 0))}, "along one axis only"),
        ((1, 2, 9000), (2, 2, 300), {"stride": 9, "dilation": 8}, "every 72th cell"),
    ],
)
def test_what_it_cannot_do(x_shape, w_shape, arguments, reason):
    answers = numbaconv.explain(x_shape, w_shape, **arguments).candidates
    assert reason in next(each for each in answers if each.name == "fft").refusal


def test_padding_that_repeats_cells_has_no_input_gradient():
    found = numbaconv.explain((1, 1, 900), (1, 1, 300), direction="input", padding=9, padding_mode="reflect")
    assert "repeats cells" in next(each for each in found.candidates if each.name == "fft").refusal


@pytest.mark.parametrize("direction", [Direction.FORWARD, Direction.INPUT_GRAD])
def test_packed_weights_give_the_same_bits(direction):
    problem = Problem((3000,), (200,), batch=2, c_in=3, c_out=4, stride=(2,), dilation=(3,), pads=((30, 10),))
    x, w, g = operands(problem, np.random.default_rng(45), np.float32)
    plan, algorithm = problem.plan("float32"), FFT[direction]
    x5, w5, g5 = (each[:, :, None, None] for each in (x, w, g))
    packed = algorithm.packing.pack(plan, w5)
    out = np.full_like(x5 if direction is Direction.INPUT_GRAD else g5, np.nan)
    wanted = run(direction, problem, x, w, g, algorithm="fft")
    algorithm.run(plan, *((out, packed, g5) if direction is Direction.INPUT_GRAD else (x5, packed, out)), NO_EPILOGUE)
    np.testing.assert_array_equal(out[:, :, 0, 0], wanted)
    longer = plan_conv((2, 3, 400000), w.shape, stride=2, dilation=3, padding=((30, 10),))
    assert algorithm.packing.key(longer) != algorithm.packing.key(plan)  # other blocks
