"""Activations are known by what they compute: what makes functions one, what tells them apart, what is kept."""

import gc
import math
import sys
import threading
import types
import warnings
import weakref

import numba
import numpy as np
import pytest

import numbaconv
from numbaconv.backends.activations import resolve_activation
from numbaconv.backends.cpu import activation as on_cpu
from numbaconv.backends.functions import frozen, function_key
from numbaconv.interop import activations as graphs

X = np.linspace(-2, 2, 9)[None, None]
ONE = np.ones((1, 1, 1))
SLOPE = 0.5
TABLE = np.array([1.0, 2.0, 3.0])
SETTINGS = types.ModuleType("settings")
SETTINGS.slope = 0.5


def applied(function, **options):
    return numbaconv.conv1d(X, ONE, activation=function, **options)


def scaled(factor):
    return lambda v: v * factor


@numba.njit
def sloped(v):
    return v * SLOPE


def down(v):
    return v * SLOPE if v < 0 else down(-v)


@pytest.fixture
def compiled(monkeypatch):
    """How many functions are compiled in a test."""
    made = []
    real = on_cpu._make_row
    monkeypatch.setattr(on_cpu, "_make_row", lambda function, dtype: made.append(function) or real(function, dtype))
    on_cpu._row.cache_clear()
    return made


def test_a_lambda_in_the_call_is_compiled_once(compiled):
    for _ in range(5):
        np.testing.assert_array_equal(numbaconv.conv1d(X, ONE, activation=lambda v: v * 0.25), X / 4)
        np.testing.assert_array_equal(applied(scaled(0.75)), X * 0.75)
    assert len(compiled) == 2


def test_a_layer_a_prepared_convolution_and_gradients_share_it(compiled):
    layer = numbaconv.layers.Conv1d(1, 1, 1, bias=False, dtype=np.float64, activation=scaled(0.375))
    layer.weight[...] = 1
    for _ in range(3):
        prepared = numbaconv.prepare(ONE, activation=scaled(0.375))
        for found in (layer(X), prepared(X), applied((scaled(0.375), scaled(1.0)))):
            np.testing.assert_array_equal(found, X * 0.375)
    assert len(compiled) == 1


def make(factor=2.0, default=1.0, keyword=1.0, inner=None, table=TABLE):
    def function(v, d=default, *, k=keyword):
        return (v * factor + d) * k + table[0] if inner is None else inner(v)

    return function


DIFFERENT = [
    {},
    {"factor": 3.0},
    {"factor": 2},
    {"factor": True},
    {"factor": np.float32(2)},
    {"factor": -0.0},
    {"factor": 0.0},
    {"factor": math.nan},
    {"default": 1},
    {"default": True},
    {"default": 2.0},
    {"keyword": 1},
    {"inner": scaled(1.0)},
    {"inner": scaled(2.0)},
    {"inner": numba.njit(scaled(2.0))},
    {"inner": numba.njit(fastmath=True)(scaled(2.0))},
    {"inner": math.sin},
    {"table": TABLE[:2]},
    {"table": TABLE + 1},
    {"table": TABLE.astype(np.float32)},
    {"table": (1.0, 2.0)},
    {"table": (1, 2)},
    {"table": (1.0, scaled(1.0))},
]


def test_whatever_a_function_reads_tells_it_apart():
    keys = [function_key(make(**options)) for options in DIFFERENT]
    assert len(set(keys)) == len(keys)
    again = {**DIFFERENT[0], "table": TABLE.copy()}
    assert function_key(make(**again)) == keys[0]
    for at in (12, 14, 22):  # functions made anew
        name, value = next(iter(DIFFERENT[at].items()))
        fresh = {"inner": scaled(1.0) if at == 12 else numba.njit(scaled(2.0)), "table": (1.0, scaled(1.0))}[name]
        assert fresh is not value
        assert function_key(make(**{name: fresh})) == keys[at]


@pytest.mark.parametrize("function", [make(**each) for each in DIFFERENT] + [sloped, down, np.tanh, abs])
def test_a_copy_is_one_with_what_it_was_made_of(function):
    copy = frozen(function)
    assert function_key(copy) == function_key(function)
    assert frozen(copy) is copy
    assert copy is not function or not isinstance(function, types.FunctionType | numba.core.dispatcher.Dispatcher)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(
    "function",
    [lambda v: v * SLOPE, lambda v: sloped(v), sloped, lambda v: v * TABLE[0] / 2, lambda v: v * SETTINGS.slope],
    ids=["global", "inside a compiled function", "compiled", "array", "module"],
)
def test_a_global_that_changes_is_noticed(function, backend, monkeypatch):
    for slope in (0.5, 3.0, 3, 0.5):
        monkeypatch.setattr(sys.modules[__name__], "SLOPE", slope)
        monkeypatch.setattr(SETTINGS, "slope", slope)
        TABLE[0] = 2 * slope
        try:
            np.testing.assert_array_equal(applied(function, backend=backend), X * slope)
        finally:
            TABLE[0] = 1


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_closure_that_changes_is_noticed(backend):
    factor = 2.0

    def function(v):
        return v * factor

    np.testing.assert_array_equal(applied(function, backend=backend), X * 2)
    factor = 3.0
    np.testing.assert_array_equal(applied(function, backend=backend), X * 3)
    np.testing.assert_array_equal(applied(scaled(2.0), backend=backend), X * 2)


def test_what_was_prepared_keeps_its_values(monkeypatch):
    """For inputs of every dtype, also those that it has not seen before."""
    prepared = numbaconv.prepare(ONE, activation=lambda v: v * SLOPE)
    monkeypatch.setattr(sys.modules[__name__], "SLOPE", 3.0)
    np.testing.assert_array_equal(prepared(X), X / 2)
    np.testing.assert_array_equal(prepared(X[..., :4].astype(np.complex128)), X[..., :4] / 2)


def test_a_builtin_that_is_hidden(monkeypatch):
    def function(v):
        return abs(v)

    np.testing.assert_array_equal(applied(function), np.abs(X))
    monkeypatch.setattr(sys.modules[__name__], "abs", numba.njit(lambda v: v + 1), raising=False)
    np.testing.assert_array_equal(applied(function), X + 1)


def test_what_writes_is_itself():
    """A function that others can see at work is the one that runs."""
    calls = [0]
    seen = []

    def counting(v):
        calls[0] += 1
        return v

    def noting(v):
        seen.append(v)
        return v

    for _ in range(2):
        applied(counting, backend="reference")
        applied(noting, backend="reference")
    assert calls == [2 * X.size]
    assert len(seen) == 2 * X.size
    assert frozen(counting) is counting


def test_recursion_and_modules_end():
    one, other = types.ModuleType("one"), types.ModuleType("other")
    one.other, other.one = other, one
    assert function_key(down) == function_key(frozen(down))
    assert function_key(lambda v: one.other.one) is not None
    space = {"math": math}
    exec("def even(v): return odd(v)\ndef odd(v): return even(v) + math.pi", space)
    assert function_key(space["even"]) == function_key(frozen(space["even"]))


def test_ten_thousand_functions_do_not_grow_without_bound():
    """Copies, names in graphs and compiled rows: the newest stay."""
    gone = [weakref.ref(frozen(scaled(1e9 + at))) for at in range(10)]
    for at in range(10_000):
        graphs.token("conv1d", scaled(float(at)))
    gc.collect()
    assert len(graphs._functions) == len(graphs._names) == graphs._MOST
    assert all(each() is None for each in gone)


def test_rows_are_bounded_and_outlive_being_forgotten(monkeypatch):
    """A call that runs holds its row, whatever becomes of the rest."""

    class Row:
        address = 1

    monkeypatch.setattr(on_cpu, "_make_row", lambda function, dtype: Row())
    on_cpu._row.cache_clear()
    held = on_cpu.compiled_row(resolve_activation("conv1d", scaled(-1.0), "float64"), np.dtype(np.float64))
    row = weakref.ref(held.base.row if hasattr(held.base, "row") else held.base.obj.row)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for at in range(10_000):
            on_cpu.compiled_row(resolve_activation("conv1d", scaled(float(at)), "float64"), np.dtype(np.float64))
    gc.collect()
    assert on_cpu._row.cache_info().currsize <= 256
    assert row() is not None
    del held
    gc.collect()
    assert row() is None
    on_cpu._row.cache_clear()


def test_very_many_are_said(monkeypatch):
    monkeypatch.setattr(on_cpu, "_make_row", lambda function, dtype: None)
    monkeypatch.setattr(on_cpu, "_compiled_functions", iter(range(499, 10**6)))
    on_cpu._row.cache_clear()
    on_cpu._row(scaled(1.0), np.dtype(np.float64))
    with pytest.warns(RuntimeWarning, match="500 activation functions were compiled"):
        on_cpu._row(scaled(2.0), np.dtype(np.float64))
    on_cpu._row(scaled(3.0), np.dtype(np.float64))
    on_cpu._row.cache_clear()


def test_a_graph_whose_function_was_forgotten_says_so(monkeypatch):
    monkeypatch.setattr(graphs, "_MOST", 2)
    first, second = (graphs.token("conv1d", scaled(float(at))) for at in (1, 2))
    assert graphs.token("conv1d", scaled(1.0)) == first
    graphs.activation_of(first)
    graphs.token("conv1d", scaled(3.0))
    assert graphs.activation_of(first)(2.0) == 2.0
    with pytest.raises(numbaconv.ArgumentError, match=r"activation '<lambda>' of a graph is no longer known"):
        graphs.activation_of(second)


def test_threads_that_forget():
    """Rows of different functions, more than are kept, from several threads at once."""
    on_cpu._row.cache_clear()
    failures = []

    def work(first):
        try:
            for at in range(first, first + 4):
                np.testing.assert_array_equal(applied(scaled(float(at))), X * float(at))
                on_cpu._row.cache_clear()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
