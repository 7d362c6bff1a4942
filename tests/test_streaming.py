"""Streams: however a signal is cut, the bits of the convolution of all of it."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numbaconv
from numbaconv import StreamingConv, StreamState
from numbaconv.backends import registry
from numbaconv.backends.base import Direction
from problems import BACKENDS, draw

ALGORITHMS = [each for each in registry.resolve("cpu").tables[Direction.FORWARD] if not each.spreading]
LAST = {1: "NWC", 2: "NHWC", 3: "NDHWC"}
RNG = np.random.default_rng(83)


def same(answer, wanted):
    assert answer.dtype == wanted.dtype
    assert answer.shape == wanted.shape
    np.testing.assert_array_equal(np.ascontiguousarray(answer).view(np.uint8), wanted.view(np.uint8))


def pieces(signal, axis, cuts):
    """A signal in pieces that end at the cuts, some of them empty."""
    return np.split(signal, sorted(min(cut, signal.shape[axis]) for cut in cuts), axis)


def streamed(stream, signal, axis, cuts):
    return np.concatenate([stream.push(piece) for piece in pieces(signal, axis, cuts)], axis)


@st.composite
def streams(draws, rank=1):
    """A convolution, its signal's length and where that is cut."""
    ints = st.integers
    groups, kernel = draws(ints(1, 3)), draws(ints(1, 9))
    options = {
        "stride": (draws(ints(1, 5)), *draws(st.tuples(*[ints(1, 2)] * (rank - 1)))),
        "dilation": (draws(ints(1, 4)), *draws(st.tuples(*[ints(1, 2)] * (rank - 1)))),
        "groups": groups,
        "padding_mode": (draws(st.sampled_from(["zeros", "replicate", "constant"])), *["reflect"] * (rank - 1)),
    }
    if options["padding_mode"][0] == "constant":
        options["padding_value"] = -1.5
    inputs, outputs = groups * draws(ints(1, 9)), groups * draws(ints(1, 17))
    weight = draw(RNG, (outputs, inputs // groups, kernel, *[2] * (rank - 1)), np.float32)
    length = draws(st.one_of(ints(1, 12), ints(1, 300)))
    cuts = draws(st.lists(ints(0, length), max_size=8))
    signal = draw(RNG, (draws(ints(1, 2)), inputs, length, *[5, 3][: rank - 1]), np.float32)
    return weight, draw(RNG, outputs, np.float32), options, signal, cuts


@pytest.mark.parametrize("algorithm", [None, *(each.name for each in ALGORITHMS)])
@settings(max_examples=100, deadline=None)
@given(case=streams())
def test_any_cuts(algorithm, case):
    weight, bias, options, signal, cuts = case
    stream = StreamingConv(weight, bias, algorithm=algorithm, activation="relu", **options)
    name = algorithm or first_choice(stream, signal)
    try:
        wanted = numbaconv.conv1d(signal, weight, bias, padding="causal", algorithm=name, activation="relu", **options)
    except numbaconv.AlgorithmError:  # depthwise takes groups of one channel alone
        with pytest.raises(numbaconv.AlgorithmError, match=name):
            streamed(stream, signal, 2, ())
        return
    same(streamed(stream, signal, 2, cuts), wanted)
    assert stream.algorithm == name
    stream.reset()
    same(streamed(stream, signal, 2, range(signal.shape[2])), wanted)


def first_choice(stream, signal):
    stream.push(signal[:, :, :0])
    assert stream.state is None
    return stream.algorithm


@pytest.mark.parametrize("rank", [2, 3])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_higher_ranks_and_layouts(rank, data):
    """The first spatial axis is streamed; the others are padded as ever, and channels may be last."""
    weight, bias, options, signal, cuts = data.draw(streams(rank))
    padding = data.draw(st.sampled_from(["causal", "same", "valid", 1, ((1, 0),) * (rank - 1)]))
    last = data.draw(st.booleans())
    if last:
        signal = np.moveaxis(signal, 1, -1)  # strided, as a piece may be
        options |= {"data_format": LAST[rank], "weight_format": {2: "OIHW", 3: "OIDHW"}[rank]}
    stream = StreamingConv(weight, bias, padding=padding, **options)
    answer = streamed(stream, signal, 1 if last else 2, cuts)
    # The whole, with the streamed axis' causal padding in numbers.
    extent = options["dilation"][0] * (weight.shape[2] - 1) + 1
    options["padding"] = ((extent - 1, 0), *other_pads(signal, weight, padding, options))
    wanted = numbaconv.conv(signal, weight, bias, algorithm=stream.algorithm, **options)
    same(answer, wanted)


def other_pads(signal, weight, padding, options):
    """Padding of all axes but the first, in numbers."""
    rank = weight.ndim - 2
    if padding == 1:
        return ((1, 1),) * (rank - 1)
    if not isinstance(padding, str):
        return padding
    shape = list(signal.shape)
    shape[1 if "data_format" in options else 2] = 400  # of the other axes' padding it is nothing
    plan = numbaconv.plan_conv(shape, weight.shape, padding=padding, **options)
    return tuple((axis.pad_before, axis.pad_after) for axis in plan.axes[1:])


@pytest.mark.parametrize("dtype", ["float64", "float16", "int16", "complex64"])
def test_dtypes(dtype):
    signal, weight = draw(RNG, (4, 50), dtype, 9), draw(RNG, (6, 2, 5), dtype, 9)
    stream = StreamingConv(weight, stride=2, dilation=3, groups=2)
    answer = streamed(stream, signal, 1, (3, 4, 30))
    wanted = numbaconv.conv1d(
        signal, weight, stride=2, dilation=3, groups=2, padding="causal", algorithm=stream.algorithm
    )
    same(answer, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends(backend):
    """Small integers, whose sums are exact whatever the order."""
    signal, weight = draw(RNG, (2, 3, 40), np.float32, 9), draw(RNG, (4, 3, 6), np.float32, 9)
    stream = StreamingConv(weight, stride=2, backend=backend)
    same(streamed(stream, signal, 2, (7, 8, 31)), numbaconv.conv1d(signal, weight, stride=2, padding="causal"))


def test_zeros_keep_their_signs_and_infinities_their_places():
    """What is before a signal is zero: it must not meet other values, nor make -0 of 0."""
    signal, weight = draw(RNG, (1, 2, 60), np.float32), draw(RNG, (3, 2, 7), np.float32)
    signal[0, 0, [4, 30]] = np.inf, np.nan
    signal[0, 1, 10:25], signal[0, 0, 10:25] = -0.0, 0.0
    for algorithm in ALGORITHMS[1:]:
        wanted = numbaconv.conv1d(signal, weight, padding="causal", algorithm=algorithm.name)
        stream = StreamingConv(weight, algorithm=algorithm.name)
        same(streamed(stream, signal, 2, (1, 12, 13, 40)), wanted)


def test_the_choice_does_not_depend_on_the_pieces(monkeypatch):
    weight = draw(RNG, (32, 32, 9), np.float32)
    names = set()
    for length in (1, 100, 30_000):
        stream = StreamingConv(weight)
        assert stream.algorithm is None
        stream.push(np.zeros((1, 32, length), np.float32))
        names.add(stream.algorithm)
    assert len(names) == 1
    monkeypatch.setenv("NUMBACONV_DISABLE", names.pop())
    stream.reset()
    other = StreamingConv(weight)
    other.push(np.zeros((1, 32, 5), np.float32))
    assert other.algorithm != stream.algorithm
    monkeypatch.setenv("NUMBACONV_ALGORITHM", "direct")
    forced = StreamingConv(weight)
    forced.push(np.zeros((1, 32, 5), np.float32))
    assert forced.algorithm == "direct"


def test_weights_are_copied_and_packed_once(monkeypatch):
    weight = draw(RNG, (32, 32, 3), np.float32)
    signal = draw(RNG, (1, 32, 90), np.float32)
    stream = StreamingConv(weight, algorithm="patch_gemm")
    wanted = numbaconv.conv1d(signal, weight, padding="causal", algorithm="patch_gemm")
    weight[:] = 0
    same(streamed(stream, signal, 2, (1, 2, 3, 50, 80)), wanted)
    assert len(stream._run.prepared._packed) == 1
    before = stream._run
    stream.reset()
    same(streamed(stream, signal, 2, (30,)), wanted)
    assert stream._run is before


def test_state_goes_on_elsewhere():
    signal, weight = draw(RNG, (1, 3, 41), np.float32), draw(RNG, (4, 3, 3), np.float32)
    for options in ({"dilation": 4, "stride": 3}, {"stride": 7}):
        stream = StreamingConv(weight, **options)
        wanted = streamed(stream, signal, 2, ())
        stream.reset()
        assert stream.state is None
        for cut in (0, 1, 5, 8, 40):
            stream.state = None
            begun = stream.push(signal[:, :, :cut])
            state = pickle.loads(pickle.dumps(stream.state))
            copy = pickle.loads(pickle.dumps(stream))
            fresh = StreamingConv(weight, **options)
            fresh.state = state
            stream.push(signal[:, :, :9])  # the copies know nothing of it
            for other in (copy, fresh):
                same(np.concatenate([begun, other.push(signal[:, :, cut:])], 2), wanted)


def test_repr():
    stream = StreamingConv(np.ones((4, 3, 5), np.float32), np.ones(4, np.float32), dilation=2)
    assert repr(stream) == "StreamingConv(weight (4, 3, 5) float32, bias float32, stride=1, dilation=2)"
    stream.push(np.ones((1, 3, 2), np.float32))
    assert repr(stream).endswith("dilation=2, 8 cells kept)")


def test_an_error_leaves_the_stream_as_it_was():
    signal, weight = draw(RNG, (1, 3, 20), np.float32), draw(RNG, (4, 3, 3), np.float32)
    stream = StreamingConv(weight)
    wanted = stream.push(signal)
    stream.reset()
    begun = stream.push(signal[:, :, :9])
    for wrong, error, message in (
        (signal[0], numbaconv.ShapeError, r"chunk has shape \(3, 20\)"),
        (signal.repeat(2, 0), numbaconv.ShapeError, r"chunk has shape \(2, 3, 20\)"),
        (signal.astype(np.float64), numbaconv.DTypeError, "chunk is float64, but the signal so far float32"),
        (signal[0, 0], numbaconv.ShapeError, "must have 3 axes, or 2"),
        ("abc", numbaconv.DTypeError, "chunk"),
    ):
        with pytest.raises(error, match=message):
            stream.push(wrong)
    same(np.concatenate([begun, stream.push(signal[:, :, 9:])], 2), wanted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": 1}, "the only spatial axis is streamed"),
        ({"padding_mode": "reflect"}, "'reflect' along the streamed axis"),
        ({"padding_mode": "circular"}, "zeros, constant, replicate"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"activation": "rely"}, "rely"),
        ({"backend": "cpp"}, "cpp"),
        ({"precision": "tf31"}, "tf31"),
    ],
)
def test_arguments_are_checked_at_once(options, message):
    with pytest.raises(numbaconv.errors.ConvError, match=message):
        StreamingConv(np.ones((2, 2, 3), np.float32), **options)


@pytest.mark.parametrize("algorithm", ["fft", "winograd"])
def test_transforms_are_refused(algorithm):
    weight = np.ones((4, 4, 40 if algorithm == "fft" else 3), np.float32)
    stream = StreamingConv(weight, algorithm=algorithm)
    with pytest.raises(numbaconv.AlgorithmError, match=f"{algorithm}.*transforms|{algorithm}.*refuses"):
        stream.push(np.ones((1, 4, 500), np.float32))


def test_first_piece_is_checked():
    stream = StreamingConv(np.ones((2, 2, 3), np.float32), np.ones(3, np.float32))
    with pytest.raises(numbaconv.ShapeError, match="channels"):
        stream.push(np.ones((1, 3, 5), np.float32))
    with pytest.raises(numbaconv.ShapeError, match="bias has shape"):
        stream.push(np.ones((1, 2, 5), np.float32))
    with pytest.raises(numbaconv.AlgorithmError, match="unknown"):
        StreamingConv(np.ones((2, 2, 3), np.float32), algorithm="magic").push(np.ones((1, 2, 5), np.float32))
    stream = StreamingConv(np.ones((2, 2, 3), np.float32))
    for state, error in (
        (StreamState(np.ones((1, 2, 3), np.float32), 0), numbaconv.ShapeError),
        (StreamState(np.ones((1, 2, 2), np.float32), 1), numbaconv.ShapeError),
        (StreamState(np.ones((1, 2, 2), np.float32), -1), numbaconv.ArgumentError),
        (StreamState(np.ones((1, 3, 2), np.float32), 0), numbaconv.ShapeError),
    ):
        with pytest.raises(error):
            stream.state = state


#: Cells and taps of the axes that are not streamed: folded together, into the streamed axis, or away.
FOLDED = [
    ((1,), (1,)),
    ((3,), (1,)),
    ((20,), (1,)),
    ((1, 1), (1, 1)),
    ((4, 2), (1, 1)),
    ((4, 30), (1, 1)),
    ((1, 5), (1, 3)),
    ((7, 1), (5, 1)),
    ((7, 3), (5, 1)),
    ((7, 20), (5, 1)),
    ((7, 5), (1, 3)),
    ((30, 3), (5, 1)),
    ((30, 3), (5, 3)),
]


@pytest.mark.parametrize("algorithm", [each.name for each in ALGORITHMS])
@pytest.mark.parametrize(("cells", "taps"), FOLDED)
def test_axes_that_fold_keep_the_bits(algorithm, cells, taps):
    rank, rng = 1 + len(cells), np.random.default_rng(5)
    for kernel, stride, dilation, mode, groups in [
        (1, 1, 1, "zeros", 3),
        (1, 2, 1, "zeros", 1),
        (3, 1, 1, "replicate", 3),
        (9, 1, 2, "zeros", 3),
        (9, 1, 1, "constant", 1),
        (5, 2, 1, "replicate", 1),
        (5, 2, 1, "zeros", 3),
    ]:
        signal = rng.standard_normal((1, 3, 23, *cells)).astype(np.float32)
        weight = rng.standard_normal((6, 3 // groups, kernel, *taps)).astype(np.float32)
        steps = (2, *(1,) * (len(cells) - 1)) if cells == (30, 3) else (1,) * len(cells)  # the last becomes the first
        options = {"stride": (stride, *steps), "dilation": (dilation, *(1,) * len(cells)), "groups": groups}
        options |= {"padding_mode": (mode, *("zeros",) * len(cells)), "algorithm": algorithm}
        options |= {"padding_value": 1.5} if mode == "constant" else {}
        pads = ((dilation * (kernel - 1), 0), *((1, 1) if tap > 1 else (0, 0) for tap in taps))
        try:
            wanted = getattr(numbaconv, f"conv{rank}d")(signal, weight, padding=pads, **options)
        except numbaconv.AlgorithmError:
            continue
        for cuts in ((5, 6, 7, 20), range(24), (22,)):
            stream = StreamingConv(weight, padding=pads[1:], **options)
            same(streamed(stream, signal, 2, cuts), wanted)
