"""Arrays that no memory holds: refused at once, before anything is planned or allocated for them."""

import tracemalloc

import numpy as np
import pytest

import numbaconv as nc
from numbaconv import ShapeError, dispatch, grad, layers, memory
from numbaconv.backends.cpu.workspace import aligned_empty, workspace
from numbaconv.layers import keras

HUGE = 2**40


def f4(*shape):
    return np.ones(shape, np.float32)


X, W, X2, W2 = f4(1, 1, 3), f4(1, 1, 2), f4(1, 2, 3, 3), f4(2, 2, 3, 3)
DEPTHWISE, POINTWISE = f4(2, 1, 3, 3), f4(2, 2, 1, 1)

ABSURD = {
    "stride of a transposed one": (nc.conv_transpose1d, (X, W), {"stride": HUGE}),
    "its dilation": (nc.conv_transpose1d, (X, W), {"dilation": HUGE}),
    "its output_size": (nc.conv_transpose1d, (X, W), {"stride": HUGE, "output_size": 2 * HUGE + 2}),
    "its output_padding": (nc.conv_transpose1d, (X, W), {"stride": HUGE + 1, "output_padding": HUGE}),
    "its same padding": (nc.conv_transpose1d, (X, W), {"stride": HUGE, "padding": "same"}),
    "two axes": (nc.conv_transpose2d, (X2, W2), {"stride": 2**20}),
    "padding": (nc.conv1d, (X, W), {"padding": HUGE}),
    "reflected padding": (nc.conv1d, (X, W), {"padding": HUGE, "padding_mode": "reflect"}),
    "padding and dilation": (nc.conv1d, (X, W), {"padding": HUGE, "dilation": HUGE}),
    "depthwise": (nc.depthwise_conv2d, (X2, DEPTHWISE), {"padding": 2**22}),
    "separable": (nc.separable_conv2d, (X2, DEPTHWISE, POINTWISE), {"padding": 2**22}),
    "by input": (grad.conv1d_input, ((1, 1, HUGE), W, X), {"stride": HUGE // 2 - 1}),
    "by weight": (grad.conv1d_weight, (X, (1, 1, HUGE), f4(1, 1, 4)), {"padding": ((HUGE, 0),)}),
    "an operand of one number": (nc.conv2d, (np.broadcast_to(np.float32(1), (1, 2, 2**20, 2**20)), W2), {}),
    "unfold": (nc.unfold, (X, (2,)), {"padding": HUGE}),
    "taps of unfold": (nc.unfold, (X, (HUGE,)), {"padding": HUGE}),
    "fold": (nc.fold, (f4(1, 2, 2), (HUGE + 2,), (2,)), {"stride": HUGE}),
    "prepared": (nc.prepare(W, padding=HUGE), (X,), {}),
    "stream": (nc.StreamingConv(W, dilation=HUGE).push, (X,), {}),
    "layer": (layers.Conv2d, (10**5, 10**5, 100), {}),
    "call of a layer": (layers.Conv2d(2, 1, 3, padding=2**22), (X2,), {}),
    "built": (keras.Conv2D(10**6, 100).build, ((1, 100, 100, 10**6),), {}),
}


@pytest.mark.parametrize("name", ABSURD)
def test_refused_at_once(name):
    call, args, options = ABSURD[name]
    nc.conv1d(X, W)  # loads the backend
    tracemalloc.start()
    try:
        with pytest.raises(ShapeError, match=r"of shape \(.*\) takes [\d,]+ bytes, but there are [\d,]+ bytes of"):
            call(*args, **options)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_the_message(monkeypatch, backend):
    monkeypatch.setattr(memory, "machine_bytes", lambda: 1000)
    says = (
        r"^conv2d: the result of shape \(1, 4, 8, 8\) takes 1,024 bytes, but there are 1,000 bytes of memory and swap "
        r"\(input \(1, 2, 8, 8\), weight \(4, 2, 3, 3\)\)$"
    )
    with pytest.raises(ShapeError, match=says):
        nc.conv2d(f4(1, 2, 8, 8), f4(4, 2, 3, 3), padding=1, backend=backend)


def test_what_fits_exactly(monkeypatch):
    monkeypatch.setattr(memory, "machine_bytes", lambda: 1024)
    assert nc.conv2d(f4(1, 2, 8, 8), f4(4, 2, 3, 3), padding=1, dilation=1).nbytes == 1024
    with pytest.raises(ShapeError, match="2,048 bytes"):
        nc.conv2d(np.ones((1, 2, 8, 8)), np.ones((4, 2, 3, 3)), padding=1)


CALLS = {
    "conv": (nc.conv2d, (f4(1, 2, 8, 8), f4(4, 2, 3, 3)), (1, 4, 8, 8)),
    "prepared": (nc.prepare(f4(4, 2, 3, 3), padding=1), (f4(1, 2, 8, 8),), (1, 4, 8, 8)),
    "separable": (nc.separable_conv2d, (f4(1, 2, 8, 8), DEPTHWISE, f4(4, 2, 1, 1)), (1, 4, 8, 8)),
    "by input": (grad.conv2d_input, ((1, 2, 8, 8), f4(4, 2, 3, 3), f4(1, 4, 8, 8)), (1, 2, 8, 8)),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_out_may_be_of_any_size(name, monkeypatch):
    """A file that is mapped may be larger than memory; and a call with ``out`` opens no way for one without."""
    call, args, shape = CALLS[name]
    options = {} if name == "prepared" else {"padding": 1}
    wanted = call(*args, **options)
    dispatch._routes.clear()
    monkeypatch.setattr(memory, "machine_bytes", lambda: 512 if name != "by input" else 500)
    if name == "prepared":
        call = nc.prepare(f4(4, 2, 3, 3), padding=1)
    options["out"] = np.empty(shape, np.float32)
    if name == "separable":  # another call than the one above
        args = (*args[:2], args[2].copy(), f4(4))
        wanted = wanted + 1
    for _ in range(2):
        assert np.array_equal(call(*args, **options), wanted)
    del options["out"]
    with pytest.raises(ShapeError, match="the result of shape"):
        call(*args, **options)


def test_scratch_memory():
    with pytest.raises(ShapeError, match="scratch memory takes"):
        aligned_empty(HUGE, np.dtype(np.float64))
    with pytest.raises(ShapeError, match="scratch memory takes"), workspace(HUGE, np.dtype(np.float64)):
        raise AssertionError


def test_facts_from_shapes_know_no_limit():
    assert nc.output_shape((1, 1, 3), (1, 1, 2), stride=HUGE, transposed=True) == (1, 1, 2 * HUGE + 2)


def test_what_there_is(monkeypatch, tmp_path):
    psutil = pytest.importorskip("psutil")
    memory.machine_bytes.cache_clear()
    most = psutil.virtual_memory().total + psutil.swap_memory().total
    assert 2**28 < memory.machine_bytes() <= most


@pytest.mark.parametrize(
    ("groups", "files", "most"),
    [
        ("0::/\n", {"memory.max": "5000\n"}, 5100),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/\n", {}, None),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "700", "memory.max": "800"}, 800),
        ("0::/a\n", {"a/memory.max": "700", "a/memory.swap.max": "0"}, 700),
        ("0::/a\n", {"a/memory.max": "700", "a/memory.swap.max": "max"}, 800),
        ("4:memory:/a\n3:cpu:/\n0::/\n", {"memory/a/memory.limit_in_bytes": "900"}, 1000),
        ("4:memory:/a\n", {"memory/memory.limit_in_bytes": "900"}, 1000),
    ],
)
def test_containers(monkeypatch, tmp_path, groups, files, most):
    """Groups of processes, in both versions of Linux', with 100 bytes of swap on the machine."""

    (tmp_path / "groups").write_text(groups)
    for name, content in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "_LIMITS", tmp_path / "root")
    assert memory._container_bytes(100) == most
