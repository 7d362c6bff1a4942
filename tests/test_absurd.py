"""Arguments that nobody means: answered or refused at once, by every road, and never at the cost of their size."""

import signal
import sys
import threading
import tracemalloc
from contextlib import contextmanager, suppress
from itertools import product

import numpy as np
import pytest

import numbaconv
import oracle
from numbaconv import ConvError, grad
from numbaconv.backends import registry
from numbaconv.backends.base import Direction
from numbaconv.backends.cpu.axes import axis_table
from numbaconv.backends.cpu.gather import forward_axis, input_grad_axis
from numbaconv.backends.cpu.simd_taps import Sweep
from numbaconv.backends.cpu.sweep import make_sweeps
from numbaconv.backends.tables import memory_of, sources
from numbaconv.plan import PADDING_MODES, Axis

HUGE = [2**62, 2**53 + 1, 10**9, 10**8]
CPU = registry.resolve("cpu").tables


@contextmanager
def at_once(bytes_at_most=2**27):
    """Neither long work (a loop over something huge is interrupted) nor much memory."""

    def late(*_):
        raise AssertionError("runs on instead of raising")

    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 60)  # compiling on a busy machine; what runs on takes hours
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < bytes_at_most
    finally:
        tracemalloc.stop()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("huge", HUGE)
@pytest.mark.parametrize("algorithm", [None, *(each.name for each in CPU[Direction.FORWARD])])
def test_dilation_as_long_as_its_padding(huge, algorithm):
    """Five results, each of which reads three positions: that is all that there is to do."""
    x, w = np.arange(1.0, 6.0).reshape(1, 1, 5), np.array([[[2.0, 3.0, 5.0]]])
    for mode in PADDING_MODES:
        options = {"dilation": huge, "padding": huge, "padding_mode": mode}
        with at_once():
            try:
                y = numbaconv.conv1d(x, w, algorithm=algorithm, **options)
            except ConvError:
                assert algorithm is not None or huge == 2**62
                continue
        axis = numbaconv.plan_conv(x.shape, w.shape, dtype="float64", **options).axes[0]
        cells = [[axis.source(o + k * huge) for k in range(3)] for o in range(5)]
        values = {-1: 0.0, -2: 0.0}
        wanted = [sum(w[0, 0, k] * values.get(c, x[0, 0, c]) for k, c in enumerate(row)) for row in cells]
        np.testing.assert_array_equal(y[0, 0], wanted)


@pytest.mark.parametrize("huge", [10**9 + 7, 2**40])
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_gradients_of_what_is_far_apart(huge, mode):
    """As of a small problem whose padding has the same cells in it."""
    x, w, g = np.arange(1.0, 6.0).reshape(1, 1, 5), np.ones((1, 1, 3)), np.arange(1.0, 6.0).reshape(1, 1, 5)
    options = {"dilation": huge, "padding": huge, "padding_mode": mode}
    axis = numbaconv.plan_conv(x.shape, w.shape, **options).axes[0]
    grad_x, grad_w = np.zeros(5), np.zeros(3)
    for o, k in product(range(5), range(3)):
        cell = axis.source(o + k * huge)
        if cell >= 0:
            grad_x[cell] += g[0, 0, o]
            grad_w[k] += g[0, 0, o] * x[0, 0, cell]
    with at_once():
        np.testing.assert_array_equal(grad.conv1d_input(x.shape, w, g, **options)[0, 0], grad_x)
        np.testing.assert_array_equal(grad.conv1d_weight(x, w.shape, g, **options)[0, 0], grad_w)


def test_strides_and_dilations_without_a_common_divisor():
    """Gradients of padding that repeats cells number positions anew where most are read by nobody."""
    rng = np.random.default_rng(5)
    for stride, dilation, outputs, kernel in ((1, 700, 3, 4), (901, 1, 4, 3), (97, 89, 3, 5), (600, 900, 4, 3)):
        extent = dilation * (kernel - 1) + 1 + (outputs - 1) * stride
        pads = (extent // 2, extent - extent // 2 - 5)
        for mode in ("reflect", "circular", "replicate", "symmetric"):
            g, w = rng.integers(-5, 5, (2, 3, outputs)), rng.integers(-5, 5, (3, 2, kernel))
            options = {"stride": stride, "dilation": dilation, "padding": (pads,), "padding_mode": mode}
            answer = grad.conv1d_input((2, 2, 5), w, g, **options)
            values = {"stride": (stride,), "dilation": (dilation,), "pads": (pads,), "modes": (mode,), "groups": 1}
            wanted = oracle.input_grad(g, w, (2, 2, 5), **values)
            np.testing.assert_array_equal(answer, wanted)


@pytest.mark.parametrize("algorithm", [None, *(each.name for each in CPU[Direction.INPUT_GRAD])])
def test_transposed_strides_take_the_time_of_their_result(algorithm):
    with at_once():
        for stride in (257, 20_000, 300_001):
            x, w = np.array([[[2.0, 3.0, 5.0]]]), np.array([[[1.0, 10.0]]])
            try:
                y = numbaconv.conv_transpose1d(x, w, stride=stride, algorithm=algorithm)
            except ConvError:
                assert algorithm is not None
                continue
            assert y.shape == (1, 1, 2 * stride + 2)
            np.testing.assert_array_equal(
                np.flatnonzero(y[0, 0]), [0, 1, stride, stride + 1, 2 * stride, 2 * stride + 1]
            )


def tried(call, *operands, **options):
    with suppress(ConvError, MemoryError, TypeError):
        str(call(*operands, **options))


@pytest.mark.parametrize("huge", HUGE)
def test_every_function_answers(huge):
    """Also functions that compute nothing. What has no room in memory is refused by them or by the memory."""
    x, w = np.ones((1, 2, 5, 4), np.float32), np.ones((2, 2, 3, 1), np.float32)
    each = {"stride": (huge, 1), "dilation": (huge, 1), "padding": ((huge, huge), (0, 0)), "output_padding": (huge, 0)}
    with at_once(2**31):
        for names in (("stride",), ("dilation",), ("padding",), ("dilation", "padding"), ("stride", "output_padding")):
            given = {name: each[name] for name in names}
            for mode in PADDING_MODES:
                plain = {**given, "padding_mode": mode}
                tried(numbaconv.plan_conv, x.shape, w.shape, **plain)
                tried(numbaconv.plan_conv, x.shape, w.shape, transposed=True, **plain)
                tried(numbaconv.explain, x.shape, w.shape, **plain)
            if names == ("stride",):
                tried(numbaconv.prepare(w, **given), x)
                tried(numbaconv.StreamingConv(w, **given).push, x)
            if len(names) == 1 and names != ("padding",):
                tried(numbaconv.unfold, x, (3, 1), **given)


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_no_table_is_as_long_as_an_axis(mode):
    """What is kept of a long axis is what is kept of a short one."""

    def sizes(n):
        along, alone = Axis(n, n, 9, 1, 1, 4, 4, mode), Axis()
        made = [forward_axis(along), axis_table(along)]
        for place in range(3):
            axes = tuple(along if at == place else alone for at in range(3))
            made += [make_sweeps(kind, 16, 1, axes) for kind in ("forward", "weight")]
            if mode in ("zeros", "constant"):
                made += [input_grad_axis(along), make_sweeps("input", 16, 1, axes)]
        return [memory_of(each) for each in made]

    assert sizes(2**16) == sizes(2**22)


def test_codes_of_padding_are_those_of_the_plan():
    for mode, n in product(PADDING_MODES, (1, 2, 5)):
        axis = Axis(n, 40 + n, 1, 1, 1, 20, 20, mode)
        assert sources(axis, np.arange(40 + n)).tolist() == [axis.source(p) for p in range(40 + n)]


def test_a_long_filter_is_tables_not_objects():
    """What each new length of a streamed block has made: lines of Python run do not follow the number of taps."""

    def lines_run(taps):
        ran = 0

        def count(frame, event, argument):
            nonlocal ran
            ran += event == "line"
            return count

        axes = Axis(), Axis(), Axis(taps + 511, 512, taps)
        before = sys.gettrace()
        sys.settrace(count)
        try:
            made = make_sweeps("forward", 16, 1, axes)
        finally:
            sys.settrace(before)
        assert made.order.tolist() == list(range(taps))
        return ran

    assert lines_run(44_100) < lines_run(441) + 1000


def test_strips_inside_have_no_masks():
    """Masks are for a row's ends; sweeps of two for each of 9 taps took 1.8 times as long."""
    made = make_sweeps("forward", 16, 1, (Axis(), Axis(), Axis(40_000, 40_000, 9, 1, 1, 4, 4)))
    field = {name: made.sweeps[:, at] for at, name in enumerate(Sweep._fields)}
    row_of_masks = field["tails"] // made.masks[0].nbytes
    assert (field["inside"] == (row_of_masks == 0)).all()
    assert (made.masks[0] == 2**16 - 1).all()
    assert field["rows"][field["inside"] == 0].max() == 1 < field["rows"][field["inside"] == 1].min()
