"""Values at the edge of a dtype: an overflow inside a transform spoils no result, and precision 'strict' has none."""

from contextlib import contextmanager
from dataclasses import replace

import numba
import numpy as np
import pytest

import numbaconv
import oracle
from numbaconv import AlgorithmError
from numbaconv.backends.base import Direction
from numbaconv.backends.cpu import BACKEND
from numbaconv.backends.cpu.without_transforms import WITHOUT_TRANSFORMS
from problems import PROBLEMS, Problem, expected, operands, run

#: Problems that each transform accepts in all directions.
TRANSFORMED = {
    "winograd": Problem((13, 18), (3, 3), batch=2, c_in=16, c_out=32, pads=((1, 1), (1, 1))),
    "winograd_2x2": Problem((13, 18), (3, 3), batch=2, c_in=32, c_out=16, pads=((1, 1), (0, 1))),
    "winograd, one axis": Problem((300,), (3,), batch=2, c_in=16, c_out=16, dilation=(2,), pads=((2, 2),)),
    "winograd, rank 3": Problem((3, 9, 10), (3, 3, 3), batch=2, c_in=16, c_out=16, pads=((1, 1),) * 3),
    "winograd, 5x5": Problem((11, 12), (5, 5), batch=2, c_in=16, c_out=16, pads=((2, 2), (2, 2))),
    "winograd, wide": Problem((5, 600), (3, 3), batch=1, c_in=16, c_out=16, pads=((1, 1), (1, 1))),
    "fft": Problem((900,), (31,), batch=2, c_in=3, c_out=4, pads=((15, 15),)),
    "fft, rank 2": Problem((700, 4), (40, 1), batch=2, c_in=2, c_out=4, groups=2, pads=((20, 19), (0, 0))),
}
DTYPES = ("float32", "float64")


@contextmanager
def one_thread():
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(threads)


def cases(name):
    """The directions in which the algorithm of a problem's name takes it, and that name."""
    plan = TRANSFORMED[name].plan("float32")
    for direction in Direction:
        for each in BACKEND.tables[direction]:
            if each.name == name.split(",")[0] and each.accepts(plan) is None:
                yield direction, each.name


def direct(direction, problem, *given):
    return run(direction, problem, *given, algorithm="direct")


def assert_as_direct(direction, problem, given, algorithm, label):
    """Finite where the direct sum is, and else the same; errors relative to the largest result."""
    wanted, found = direct(direction, problem, *given), run(direction, problem, *given, algorithm=algorithm)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(wanted), err_msg=label)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted), err_msg=label)
    clean = np.isfinite(wanted)
    scale = np.abs(wanted[clean]).max(initial=0)
    off = np.abs(found[clean].astype(np.longdouble) - wanted[clean]).max(initial=0)
    assert off <= 1e5 * np.finfo(wanted.dtype).eps * scale, label


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TRANSFORMED)
def test_a_cell_at_the_smallest_number(name, dtype):
    """A usual value of masks; every result is finite."""
    problem, rng = TRANSFORMED[name], np.random.default_rng(0)
    x, w, g = operands(problem, rng, dtype)
    w = np.full_like(w, 0.01)
    for each in (x, g):
        each[(0, 1, *(extent // 2 for extent in each.shape[2:]))] = np.finfo(dtype).min
    for direction, algorithm in cases(name):
        scale = 1 if direction is not Direction.WEIGHT_GRAD else 0.01  # of the operand without the cell
        given = (x, w, g if direction is Direction.INPUT_GRAD else np.full_like(g, scale))
        assert np.isfinite(direct(direction, problem, *given)).all()
        assert_as_direct(direction, problem, given, algorithm, f"{direction.name} {algorithm}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("large", ["source", "weight", "all cells"])
@pytest.mark.parametrize("name", TRANSFORMED)
def test_operands_of_extreme_size(name, large, dtype):
    problem, rng = TRANSFORMED[name], np.random.default_rng(1)
    x, w, g = operands(problem, rng, dtype)
    most, small = np.finfo(dtype).max, np.dtype(dtype).type(1e-4)
    if large == "weight":
        x, g = x * small, g * small
        w = w * (most / 100)
    elif large == "source":
        x, g, w = x * (most / 300), g * (most / 300), w * small
    else:
        x, g, w = np.full_like(x, most / 10), np.full_like(g, most / 10), np.full_like(w, small)
    for direction, algorithm in cases(name):
        given = [x, w, g]
        if direction is Direction.WEIGHT_GRAD:
            other = 0 if large == "weight" else 2
            given[other] = np.full_like(given[other], 1e-5)
            if large == "weight":
                given[2] = g / small * (most / 300)
        assert_as_direct(direction, problem, given, algorithm, f"{direction.name} {algorithm} {large}")


@pytest.mark.parametrize("algorithm", ["winograd", "winograd_2x2", "fft"])
@pytest.mark.parametrize("activation", [None, "relu", "sigmoid"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_epilogues_of_what_is_computed_again(algorithm, activation, dtype):
    """Neither does an activation hide NaN, nor is a residual lost that is the result's memory."""
    problem, rng = TRANSFORMED[algorithm], np.random.default_rng(2)
    x, w, g = operands(problem, rng, dtype)
    w, bias = w * np.dtype(dtype).type(0.01), rng.standard_normal(problem.c_out).astype(dtype)
    x[(0, 1, *(extent // 2 for extent in x.shape[2:]))] = np.nan
    x[(1, 0, *(extent // 3 for extent in x.shape[2:]))] = np.finfo(dtype).min
    residual = rng.standard_normal(g.shape).astype(dtype)
    options = {"activation": activation, **problem.arguments}
    wanted = numbaconv.conv(x, w, bias, residual=residual, algorithm="direct", **options)
    given = residual.copy()
    found = numbaconv.conv(x, w, bias, residual=given, algorithm=algorithm, **options)
    np.testing.assert_array_equal(given, residual)
    assert np.isnan(wanted).any()
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    plain = np.isfinite(wanted)
    scale = np.abs(wanted[plain]).astype(np.float64)
    assert (np.abs(found[plain].astype(np.float64) - wanted[plain]) <= 1e-2 * np.maximum(scale, 1)).all()
    prepared = numbaconv.prepare(w, bias, algorithm=algorithm, **options)
    into, inside = residual.copy(), residual.copy()
    assert numbaconv.conv(x, w, bias, residual=into, out=into, algorithm=algorithm, **options) is into
    prepared(x, residual=inside, out=inside)
    apart = np.repeat(residual, 2, axis=-1)[..., ::2]  # not one stretch of memory
    numbaconv.conv(x, w, bias, residual=apart, out=apart, algorithm=algorithm, **options)
    for each in (into, inside, apart, prepared(x, residual=residual)):
        np.testing.assert_array_equal(each, found)


@pytest.mark.parametrize("name", TRANSFORMED)
def test_the_same_bits_for_any_batch_and_threads(name):
    problem, rng = replace(TRANSFORMED[name], batch=3), np.random.default_rng(3)
    x, w, g = operands(problem, rng, np.float32)
    for each in (x, g):
        each[(0, 1, *(extent // 2 for extent in each.shape[2:]))] = np.finfo(np.float32).max
        each[(2, 0, *(extent // 3 for extent in each.shape[2:]))] = np.inf
    for direction, algorithm in cases(name):
        whole = run(direction, problem, x, w, g, algorithm=algorithm)
        with one_thread():
            np.testing.assert_array_equal(run(direction, problem, x, w, g, algorithm=algorithm), whole)
        for sample in range(3 if direction is not Direction.WEIGHT_GRAD else 0):
            part = slice(sample, sample + 1)
            alone = run(direction, replace(problem, batch=1), x[part], w, g[part], algorithm=algorithm)
            np.testing.assert_array_equal(alone, whole[part], err_msg=f"{direction.name} {algorithm} {sample}")


def test_what_is_disabled_does_not_compute_again(monkeypatch):
    """Unless nothing else is left."""
    x = np.random.default_rng(6).choice([-2e38, 2e38], (1, 16, 12, 12)).astype(np.float32)
    w = np.full((16, 16, 3, 3), 0.01, np.float32)
    found = {}
    for disabled in ("", "patch_gemm,plane_gemm,small_gemm,depthwise,implicit_gemm"):
        monkeypatch.setenv("NUMBACONV_DISABLE", disabled)
        found[disabled] = numbaconv.conv2d(x, w, padding=1, algorithm="winograd")
        assert np.isfinite(found[disabled]).all()
    np.testing.assert_array_equal(found[disabled], numbaconv.conv2d(x, w, padding=1, algorithm="direct"))
    monkeypatch.setenv("NUMBACONV_DISABLE", f"{disabled},direct")
    assert np.isfinite(numbaconv.conv2d(x, w, padding=1, algorithm="winograd")).all()


def test_the_table_without_transforms_is_the_backends():
    for direction, table in BACKEND.tables.items():
        assert WITHOUT_TRANSFORMS[direction] == tuple(each for each in table if not each.spreading)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", *DTYPES, "complex64", "complex128", "int8", "int64"])
@pytest.mark.parametrize("name", [*PROBLEMS, *TRANSFORMED])
def test_strict_takes_no_transform(name, dtype):
    """In every table, whatever the dtype; what is left is chosen as without it."""
    problem = {**PROBLEMS, **TRANSFORMED}[name]
    plan = problem.plan(dtype)
    strict = replace(plan, precision="strict")
    for direction, table in BACKEND.tables.items():
        chosen = BACKEND.select("test", strict, direction, None)
        spreading = frozenset(each.name for each in table if each.spreading)
        assert not chosen.spreading
        assert chosen is BACKEND.select("test", plan, direction, None, spreading)
        for each, candidate in zip(table, BACKEND.candidates(strict, direction), strict=True):
            assert each.refusal(plan) == each.accepts(plan)
            if each.spreading:
                assert "precision 'strict' forbids" in candidate.refusal
            else:
                assert candidate.refusal == each.accepts(plan)


def test_strict_is_exact_on_what_is_read():
    """A spike puts errors into results that do not read it, within the bound; not where precision is strict."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((1, 64, 56, 56), dtype=np.float32)
    w = rng.standard_normal((64, 64, 3, 3), dtype=np.float32)
    x[0, 3, 20, 20] = 1e12
    arguments = {"stride": (1, 1), "dilation": (1, 1), "groups": 1, "pads": ((1, 1),) * 2, "modes": ("zeros",) * 2}
    exact = oracle.forward(x, w, **arguments)
    away = np.ones(exact.shape, bool)
    away[:, :, 19:22, 19:22] = False
    chosen = numbaconv.explain(x.shape, w.shape, padding=1, backend="cpu")
    assert chosen.algorithm == "winograd"
    assert abs(numbaconv.conv2d(x, w, padding=1, backend="cpu") - exact)[away].max() > 1e4
    strict = numbaconv.conv2d(x, w, padding=1, backend="cpu", precision="strict")
    assert abs(strict - exact)[away].max() < 1e-3


@pytest.mark.parametrize("name", TRANSFORMED)
def test_strict_refuses_a_forced_transform(name):
    problem = TRANSFORMED[name]
    x, w, g = operands(problem, np.random.default_rng(5), np.float32)
    for direction, algorithm in cases(name):
        with pytest.raises(AlgorithmError, match=rf"algorithm '{algorithm}' .* refuses: its errors spread .*'strict'"):
            run(direction, problem, x, w, g, algorithm=algorithm, precision="strict", backend="cpu")
        strict = run(direction, problem, x, w, g, precision="strict", backend="cpu")
        with numbaconv.use_precision("strict"):
            np.testing.assert_array_equal(run(direction, problem, x, w, g, backend="cpu"), strict)
        size = np.abs(expected(direction, problem, x, w, g)).max()
        assert np.abs(strict - expected(direction, problem, x, w, g)).max() <= 1e-4 * size


def test_explain_names_what_spreads():
    found = numbaconv.explain((1, 64, 56, 56), (64, 64, 3, 3), padding=1, backend="cpu")
    assert found.algorithm == "winograd"
    assert found.spreading.startswith("'winograd' spreads errors, over a tile")
    assert "precision='strict' avoids it" in str(found)
    strict = numbaconv.explain((1, 64, 56, 56), (64, 64, 3, 3), padding=1, backend="cpu", precision="strict")
    assert strict.spreading is None
    assert "without transforms" in str(strict)
    assert "winograd: refuses: its errors spread" in str(strict)
