"""What a second call like the first must not do on a device, in Numba's simulator: run by `test_simulator.py` alone.

It must not allocate, copy or wait, or it could not be captured in a CUDA graph; nor may calls leave memory behind. A
capture is played by saying that a stream is captured: from then on whatever a capture forbids is an error.
"""

import gc
import threading
import types
import weakref
from contextlib import contextmanager
from itertools import count

import numpy as np
import pytest
from numba import cuda

import numbaconv
from numbaconv import dispatch, grad
from numbaconv.backends import registry
from numbaconv.backends.base import Direction
from numbaconv.backends.cuda import device, implicit_gemm, scratch
from numbaconv.device_arrays import READY, device_array

RNG = np.random.default_rng(7)


def eighths(*shape):
    """Random numbers that TF32 has, too."""
    return RNG.integers(-16, 17, shape).astype(np.float32) / 8


X = eighths(1, 8, 4, 2)
W = eighths(8, 4, 3, 1)
B = eighths(8)
G = eighths(1, 8, 2, 2)
TABLES = registry.resolve("cuda").tables
#: Where an algorithm does not take ``W``: a weight that it takes, and arguments, for as large a result.
OTHERS = {
    "depthwise": (eighths(8, 1, 3, 1), {"groups": 8}),
    "tensor_core": (W, {"groups": 2, "precision": "tf32"}),
    **dict.fromkeys(("winograd", "winograd_2x2"), (eighths(8, 4, 3, 3), {"groups": 2, "padding": (0, 1)})),
}
#: Chunks of positions that are added afterwards: what ``direct`` needs memory for.
LONG = RNG.standard_normal((1, 2, 80), dtype=np.float32)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(cuda, "external_stream", lambda handle: Stream())
    dispatch._routes.clear()
    yield
    scratch.free_scratch(captured=True)
    device.stream_of.cache_clear()


class Elsewhere:
    """An array of a library that numbaconv does not know, on a stream."""

    def __init__(self, array, stream=None):
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "strides": array.strides,
            "typestr": array.dtype.str,
            "data": (array.__array_interface__["data"][0], False),
            "version": 3,
            "stream": stream,
        }


#: What a capture forbids: names in `numba.cuda`.
FORBIDDEN = ("device_array", "to_device", "synchronize", "event", "synchronize of a stream")


class Stream(cuda.stream):
    """Of the simulator, which knows no others."""


@contextmanager
def forbidden(monkeypatch, names=FORBIDDEN):
    def never(*arguments, **named):
        raise AssertionError("a capture forbids this")

    with monkeypatch.context() as patch:
        for name in names:
            patch.setattr(Stream if name == "synchronize of a stream" else cuda, name.split()[0], never)
        yield


@contextmanager
def capturing(monkeypatch, number=3):
    """Every stream but the default one is captured."""
    with forbidden(monkeypatch), monkeypatch.context() as patch:
        patch.setattr(scratch, "capture_of", lambda handle: number if handle else 0)
        yield


def on(stream, *arrays):
    return [Elsewhere(each, stream) for each in arrays]


def calls(stream=None):
    """By name: a call that writes into memory which is given, its memory, and what is right."""
    found = {}
    for direction in Direction:
        for algorithm in TABLES[direction]:
            w, arguments = OTHERS.get(algorithm.name, (W, {"groups": 2}))
            plan = numbaconv.plan_conv(X.shape, w.shape, **arguments)
            if algorithm.accepts(plan) is None:
                found[f"{direction.name} {algorithm.name}"] = made(direction, algorithm.name, w, arguments, stream)
    return found


def made(direction, name, w, arguments, stream):
    x, weight, g = on(stream, X, w, G)
    forced = {**arguments, "algorithm": name, "backend": "cuda"}
    right = {**arguments, "backend": "reference"}
    if direction is Direction.FORWARD:
        wanted = numbaconv.conv2d(X, w, **right)
        out = on(stream, np.empty_like(wanted))[0]
        return lambda: numbaconv.conv2d(x, weight, out=out, **forced), out, wanted
    if direction is Direction.INPUT_GRAD:
        wanted = grad.conv2d_input(X.shape, w, G, **right)
        out = on(stream, np.empty_like(wanted))[0]
        return lambda: grad.conv2d_input(X.shape, weight, g, out=out, **forced), out, wanted
    wanted = grad.conv2d_weight(X, w.shape, G, **right)
    out = on(stream, np.empty_like(wanted))[0]
    return lambda: grad.conv2d_weight(x, w.shape, g, out=out, **forced), out, wanted


def right(call, out, wanted):
    out.array.fill(np.nan)
    call()
    np.testing.assert_allclose(out.array, wanted, rtol=1e-5, atol=1e-4)


def test_a_second_call_takes_no_memory_and_waits_for_nothing(monkeypatch):
    found = calls()
    assert {name.split()[1] for name in found} == {each.name for table in TABLES.values() for each in table}
    for call, out, wanted in found.values():
        right(call, out, wanted)
        with forbidden(monkeypatch):
            right(call, out, wanted)
    x, w = on(None, LONG, np.ones((3, 2, 1), np.float32))
    g = Elsewhere(np.ones((1, 3, 80), np.float32))
    out = Elsewhere(np.empty((3, 2, 1), np.float32))
    for names in ((), FORBIDDEN):  # chunks of positions
        with forbidden(monkeypatch, names):
            grad.conv1d_weight(x, (3, 2, 1), g, out=out, backend="cuda", algorithm="direct")
    np.testing.assert_allclose(out.array[:, :, 0], np.broadcast_to(LONG.sum(axis=-1), (3, 2)), atol=1e-4)
    assert w.array.all()


def test_nor_do_copies_into_another_layout(monkeypatch):
    """Of a residual, of an array that runs backwards, and of a result with gaps."""
    x, w = on(None, X[..., ::-1], W)
    residual = Elsewhere(np.moveaxis(np.ascontiguousarray(np.moveaxis(G, 1, -1)), -1, 1))
    out = Elsewhere(np.empty((*G.shape[:-1], 2 * G.shape[-1]), np.float32)[..., ::2])
    wanted = numbaconv.conv2d(X[..., ::-1], W, residual=G, groups=2, backend="reference")
    for names in ((), FORBIDDEN):
        with forbidden(monkeypatch, names):
            right(lambda: numbaconv.conv2d(x, w, residual=residual, out=out, groups=2), out, wanted)


def test_nor_do_prepared_layers(monkeypatch):
    x, out = on(None, X, np.empty_like(G))
    layer = numbaconv.prepare(W, B, groups=2, backend="cuda")
    wanted = numbaconv.conv2d(X, W, B, groups=2, backend="reference")
    right(lambda: layer(x, out=out), out, wanted)
    there = layer._there.get(device_array(x).device)
    assert there[0].stream == there[1].stream == READY
    with forbidden(monkeypatch):
        right(lambda: layer(x, out=out), out, wanted)


def test_nor_does_a_prepared_layer_on_another_stream(monkeypatch):
    """Its weight and bias were sent on the default stream, which a captured one must not wait for."""
    layer = numbaconv.prepare(W, B, groups=2, backend="cuda")
    wanted = numbaconv.conv2d(X, W, B, groups=2, backend="reference")
    x, out = on(21, X, np.empty_like(G))
    right(lambda: layer(x, out=out), out, wanted)
    with capturing(monkeypatch):
        right(lambda: layer(x, out=out), out, wanted)


def test_a_captured_call_has_memory_of_its_own(monkeypatch):
    """What warm-up calls left on whatever stream is the graph's then, and nobody else's."""
    for name, (call, out, wanted) in calls(stream=21).items():
        scratch.free_scratch(captured=True)
        with capturing(monkeypatch), pytest.raises(numbaconv.BackendError, match="make the same call once before"):
            call()
        scratch.free_scratch(captured=True)
        right(*calls(stream=22)[name])  # another stream
        right(call, out, wanted)
        kept = {id(block) for blocks in scratch._idle.values() for block in blocks}
        with capturing(monkeypatch):
            for _ in range(2):
                right(call, out, wanted)
        (capture,) = scratch._captured.values()
        mine = {id(block) for blocks in capture.blocks.values() for block in blocks}
        assert mine <= kept
        assert bool(mine) == bool(kept), name
        left = {id(block) for blocks in scratch._idle.values() for block in blocks}
        assert mine.isdisjoint(left), name
        assert capture.held, name  # tables


def test_what_a_graph_reads_is_not_forgotten(monkeypatch):
    call, out, wanted = made(Direction.WEIGHT_GRAD, "implicit_gemm", W, {"groups": 2}, 21)
    right(call, out, wanted)
    with capturing(monkeypatch):
        call()
    (capture,) = scratch._captured.values()
    held = [weakref.ref(each.table._ary) for each in capture.held.values()]
    dispatch._routes.clear()
    gc.collect()
    assert held
    assert all(each() is not None for each in held)
    del capture
    scratch.free_scratch(captured=True)
    gc.collect()
    assert all(each() is None for each in held)


@pytest.fixture
def alive(monkeypatch):
    """How many device arrays of numbaconv's there are, at any time."""
    live = weakref.WeakValueDictionary()
    numbers = count()
    for name in ("device_array", "to_device"):
        make = getattr(cuda, name)

        def counted(*arguments, make=make, **named):
            array = make(*arguments, **named)
            live[next(numbers)] = array._ary
            return array

        monkeypatch.setattr(cuda, name, counted)

    def alive():
        gc.collect()
        return len(live)

    return alive


def test_no_memory_is_leaked(alive, monkeypatch):
    """Calls of every kind, remembered and not: as many arrays are alive after many as after a few."""
    monkeypatch.setattr(scratch, "MOST_BYTES", 0)
    layer = numbaconv.prepare(W, B, groups=2, backend="cuda")

    def every():
        for call, _, _ in calls().values():
            call()
        layer(X)
        layer(cuda.to_device(X))
        there = [cuda.to_device(each) for each in (X, W, G)]
        numbaconv.conv2d(*there[:2], groups=2, activation="relu")
        y = numbaconv.conv2d(X, W, groups=2, backend="cuda")
        grad.conv2d_backward(there[2], *there[:2], groups=2, activation="relu", output=cuda.to_device(y))
        with pytest.raises(numbaconv.ShapeError):
            numbaconv.conv2d(*there[:2], groups=2, out=there[0])

    every()
    before = alive()
    for _ in range(2):
        every()
    assert alive() == before


def test_what_is_kept_is_bounded(monkeypatch):
    """The newest blocks stay."""
    monkeypatch.setattr(scratch, "MOST_BYTES", 4000)
    array, sizes = device_array(Elsewhere(X)), range(100, 200, 10)
    for n in sizes:
        with scratch.Lease(array) as lease:
            for _ in range(2):
                lease.take(n, np.dtype(np.float32))
        kept = [block.nbytes for blocks in scratch._idle.values() for block in blocks]
        assert sum(kept) == scratch._idle_bytes <= 4000
    assert 8 * sum(sizes) > 4000
    assert sorted(kept) == [4 * 170, *(4 * n for n in (180, 180, 190, 190))]
    scratch.free_scratch()
    assert scratch._idle_bytes == 0
    assert not scratch._idle


def test_a_call_that_fails_gives_its_memory_back(monkeypatch):
    call, out, wanted = made(Direction.WEIGHT_GRAD, "implicit_gemm", W, {"groups": 2}, None)
    right(call, out, wanted)
    kept = scratch._idle_bytes
    with monkeypatch.context() as patch:
        patch.setattr("numbaconv.backends.cuda.implicit_weight.launch", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            call()
    assert scratch._idle_bytes == kept > 0
    assert scratch._local.lease is None
    right(call, out, wanted)


def test_calls_at_the_same_time_have_blocks_of_their_own():
    """Two threads that launch on one stream, in turns."""
    taken, turn = [], threading.Barrier(2)
    array = device_array(Elsewhere(X))

    def call():
        with scratch.Lease(array) as lease:
            turn.wait()
            mine = lease.take(100, np.dtype(np.float32))
            taken.append(mine)
            turn.wait()

    with scratch.Lease(array) as first:
        first.take(100, np.dtype(np.float32))
    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken[0] is not taken[1]
    with scratch.Lease(array) as lease:
        again = [lease.take(100, np.dtype(np.float32)) for _ in range(2)]
    assert {id(each) for each in again} == {id(each) for each in taken}


def test_blocks_are_of_one_stream_and_dtype():
    arrays = [device_array(Elsewhere(X, stream)).on(stream) for stream in (0, 5)]
    with scratch.Lease(arrays[0]) as lease:
        block = lease.take(64, np.dtype(np.float32))
    with scratch.Lease(arrays[1]) as lease:
        assert lease._found("<f4", 64) is None
    with scratch.Lease(arrays[0]) as lease:
        assert lease.take(64, np.dtype(np.int32)) is not block
        assert lease.take(64, np.dtype(np.float32)) is block


def test_rooms(monkeypatch):
    """On a device blocks are up to a quarter larger than asked for, so that there are few sizes."""
    monkeypatch.setattr(scratch, "SIMULATED", False)
    rooms = [scratch._room(n) for n in range(1, 5000)]
    assert all(n <= room <= n + max(n // 4, 1) for n, room in enumerate(rooms, 1))
    assert len(set(rooms)) < 50
    assert rooms == sorted(rooms)


def test_libraries_with_a_pool_are_asked(monkeypatch):
    """CuPy's and PyTorch's own memory is what their calls take, and of their stream."""
    asked = []

    def empty(shape, dtype, device, stream):
        asked.append((shape, dtype.name, device, stream))
        return Elsewhere(np.empty(shape, dtype), stream or None)

    array = device_array(Elsewhere(X, 9))
    array.library = types.SimpleNamespace(name="theirs", empty=empty, pools=True)
    array.device = 2
    with scratch.Lease(array) as lease:
        found = lease.take(6, np.dtype(np.float64))
    assert asked == [((48,), "uint8", 2, 9)]
    assert found.dtype == np.float64
    assert found.shape == (6,)
    assert not scratch._idle


def test_what_another_stream_computes_is_waited_for(monkeypatch):
    """An operand, a bias and a residual of other streams, each once, before anything is launched; none of its own.

    And those streams wait for what was launched, which reads what they may write next.
    """
    said = []
    monkeypatch.setattr(device, "wait_for", lambda other, stream: said.append((other, stream)))
    x, w, bias, residual, out = (
        Elsewhere(each, stream) for each, stream in ((X, 4), (W, 5), (B, 6), (G, 6), (np.empty_like(G), 4))
    )
    launched = []
    launch = implicit_gemm.launch
    monkeypatch.setattr(implicit_gemm, "launch", lambda *all: launched.append(len(said)) or launch(*all))
    numbaconv.conv2d(x, w, bias, residual=residual, out=out, groups=2, algorithm="implicit_gemm")
    mine = device.stream_of(4)
    assert sorted(said[:2], key=lambda entry: entry[0]) == [(5, mine), (6, mine)]
    assert {(other, id(stream)) for other, stream in said[2:]} == {(4, id(device.stream_of(each))) for each in (5, 6)}
    assert len(said) == 4
    assert set(launched) == {2}
    said.clear()
    numbaconv.conv2d(x, w, bias, residual=residual, out=out, groups=2, algorithm="implicit_gemm", stream=9)
    assert not said  # the caller says that all is in order there


def test_an_event_joins_two_streams(monkeypatch):
    said = []

    class Event:
        def record(self, stream):
            said.append(("record", stream))

        def wait(self, stream):
            said.append(("wait", stream))

    monkeypatch.setattr(cuda, "event", lambda timing: Event())
    device.wait_for(7, "mine")
    assert said == [("record", device.stream_of(7)), ("wait", "mine")]


def test_tables_are_there_before_another_stream_reads_them(monkeypatch):
    """Whoever sends a table waits for its stream; whoever sends a prepared weight, for the default one."""
    waits = []
    monkeypatch.setattr(Stream, "synchronize", lambda self: waits.append("a stream"))
    monkeypatch.setattr(cuda, "synchronize", lambda: waits.append("all"))
    x, g, out = on(11, X, G, np.empty_like(W))
    sent, to_device = [], cuda.to_device
    monkeypatch.setattr(cuda, "to_device", lambda *all, **named: sent.append(len(waits)) or to_device(*all, **named))
    grad.conv2d_weight(x, W.shape, g, out=out, groups=2, algorithm="implicit_gemm")
    assert sent == [0, 1]  # the second table is sent when the first is there
    assert waits == ["a stream"] * 2
    numbaconv.prepare(W, B, groups=2, algorithm="implicit_gemm", backend="cuda")(Elsewhere(X, 11))
    assert waits.count("all") >= 3  # weight, bias, packed weight


def test_the_driver_is_asked_for_a_capture(monkeypatch):
    """Whether there is one, and only then for its number; nobody is asked for the default streams."""
    said = []
    driver = types.SimpleNamespace(
        cuStreamIsCapturing=lambda handle: said.append(handle) or {7: 1, 8: 0, 9: 2}[handle],
        cuStreamGetCaptureInfo=lambda handle: (1, 1234, "graph"),
    )
    monkeypatch.setattr(scratch, "SIMULATED", False)
    monkeypatch.setattr(scratch, "_driver", lambda: driver)
    assert [scratch.capture_of(handle) for handle in (0, 1, 7, 8, 9)] == [0, 0, 1234, 0, 0]
    assert said == [7, 8, 9]
    monkeypatch.setattr(scratch, "_driver", lambda: object())
    assert scratch.capture_of(7) == 0
