"""Convolutions of Dask arrays against the same calls in memory: bits, bounds, laziness, schedulers, what is on disk."""

import inspect
import os
from importlib import import_module

import numpy as np
import pytest
from dask_problems import chunked, problem, values

import numbaconv
from numbaconv import grad
from numbaconv.backends.base import Direction
from numbaconv.backends.registry import resolve
from numbaconv.errors import DTypeError

if os.environ.get("NUMBACONV_REQUIRE_LIBRARIES"):
    for each in ("dask.array", "distributed", "zarr"):
        import_module(each)
da = pytest.importorskip("dask.array")

lazily = import_module("numbaconv.interop.dask")


@pytest.fixture(autouse=True)
def without_transforms(monkeypatch):
    """Bits are promised where no transform is chosen; a test that wants one removes this."""
    monkeypatch.setenv("NUMBACONV_DISABLE", "fft,winograd")


def same(lazy, wanted):
    """The array that a Dask array is computed to has these bits."""
    assert (lazy.shape, lazy.dtype) == (wanted.shape, wanted.dtype)
    found = lazy.compute(scheduler="sync")
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    np.testing.assert_array_equal(found, wanted)
    for index in np.ndindex(lazy.numblocks):  # chunks are what they say
        assert lazy.blocks[index].shape == tuple(c[i] for c, i in zip(lazy.chunks, index, strict=True))


def close(lazy, wanted):
    """As `same` for integers; else the sums of other orders."""
    if wanted.dtype.kind in "iu":
        same(lazy, wanted)
        return
    assert (lazy.shape, lazy.dtype) == (wanted.shape, wanted.dtype)
    found = lazy.compute(scheduler="sync").astype(np.complex128)
    error = np.abs(found - wanted.astype(np.complex128)).max(initial=0)
    assert error <= 2e3 * float(np.finfo(wanted.dtype).eps) * max(np.abs(found).max(initial=0), 1)


DTYPES = ["float32"] * 24 + ["float64"] * 4 + ["float16", "int8", "int32", "complex64"] * 2


@pytest.mark.parametrize("seed", range(len(DTYPES)))
def test_random_problems_have_the_bits_of_memory(seed):
    case, draw, rng = problem(seed, DTYPES[seed])
    x, w = case.x, case.w
    y = getattr(numbaconv, case.name)(x, w, **case.epilogue, **case.options)
    if draw.random() < 0.3:
        case.epilogue["residual"] = values(rng, y.shape, x.dtype)
        y = getattr(numbaconv, case.name)(x, w, **case.epilogue, **case.options)
    epilogue = {
        name: chunked(draw, value) if isinstance(value, np.ndarray) and draw.random() < 0.7 else value
        for name, value in case.epilogue.items()
    }
    lazy_x, lazy_w = chunked(draw, x), draw.choice([w, chunked(draw, w)])
    same(getattr(lazily, case.name)(lazy_x, lazy_w, **epilogue, **case.options), y)

    g = values(rng, y.shape, x.dtype)
    saved, lazy_saved = {}, {}
    if "activation" in case.epilogue:
        saved = {"activation": case.epilogue["activation"], "output": y}
        lazy_saved = {**saved, "output": chunked(draw, y)}
    wanted = getattr(grad, f"{case.name}_backward")(g, x, w, **case.options, **saved)
    lazy_g = chunked(draw, g)
    found = getattr(lazily, f"{case.name}_backward")(lazy_g, lazy_x, lazy_w, **case.options, **lazy_saved)
    same(found.input, wanted.input)
    close(found.weight, wanted.weight)
    close(found.bias, wanted.bias)
    by_input = getattr(lazily, f"{case.name}_input")(x.shape, lazy_w, lazy_g, **case.options, **lazy_saved)
    same(by_input, wanted.input)
    by_weight = getattr(lazily, f"{case.name}_weight")(lazy_x, w.shape, lazy_g, **case.options, **lazy_saved)
    close(by_weight, wanted.weight)
    plain = {name: case.options[name] for name in ("data_format",)} | lazy_saved
    close(getattr(lazily, f"{case.name}_bias")(lazy_g, **plain), wanted.bias)


#: For each algorithm that is no transform a layer that gets it: function, input, weight, options.
LAYERS = {
    "depthwise": ("conv2d", (1, 16, 61, 75), (16, 1, 5, 5), {"groups": 16, "stride": 2, "padding_mode": "reflect"}),
    "small_gemm": ("conv2d", (2, 8, 20, 21), (8, 8, 3, 3), {}),
    "plane_gemm": ("conv1d", (2, 16, 3000), (3, 16, 3), {"dilation": 2}),
    "patch_gemm": ("conv2d", (1, 130, 40, 41), (64, 130, 3, 3), {"padding_mode": "circular"}),
    "implicit_gemm": (
        "conv2d",
        (1, 70, 71, 32),
        (3, 32, 3, 3),
        {"stride": 2, "data_format": "NHWC", "weight_format": "OIHW"},
    ),
    "folded_gemm": ("conv_transpose2d", (1, 80, 40, 41), (80, 3, 5, 5), {"stride": 4, "padding": 0}),
    "direct": ("conv_transpose2d", (1, 4, 60, 61), (4, 6, 3, 3), {"padding_mode": "reflect", "padding": 1}),
}


@pytest.mark.parametrize("algorithm", LAYERS)
def test_every_algorithm_keeps_its_bits_in_blocks(algorithm):
    name, x_shape, w_shape, options = LAYERS[algorithm]
    options = {"padding": "same", **options}
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in (x_shape, w_shape))
    plan = numbaconv.plan_conv(x.shape, w.shape, transposed="transpose" in name, **options)
    direction = Direction.INPUT_GRAD if plan.transposed else Direction.FORWARD
    assert resolve("cpu").select("", plan, direction, None, frozenset({"fft", "winograd"})).name == algorithm
    wanted = getattr(numbaconv, name)(x, w, **options)
    same(getattr(lazily, name)(da.from_array(x, chunks=(1, 5, *(23,) * plan.rank)), w, **options), wanted)


#: Cells and taps whose axes fold, for the whole or for blocks of few cells alone.
FOLDED = [
    ((31, 33, 1), (5, 5, 1), 1),
    ((31, 20, 7), (5, 5, 1), 1),
    ((31, 20, 21), (5, 5, 1), 1),
    ((31, 20, 21), (5, 5, 1), 2),
    ((19, 20, 21), (1, 9, 1), 1),
    ((19, 20, 21), (9, 1, 1), 2),
    ((19, 20, 21), (1, 1, 7), 2),
    ((31, 25, 3), (5, 5, 1), 2),
    ((31, 25, 3), (5, 5, 3), 2),
    ((40, 30), (9, 1), 1),
    ((40, 3), (9, 1), 2),
]


@pytest.mark.parametrize("algorithm", sorted({"depthwise", *LAYERS} - {"folded_gemm"}))
@pytest.mark.parametrize(("cells", "taps", "stride"), FOLDED)
def test_blocks_fold_as_the_whole(algorithm, cells, taps, stride):
    rank, rng = len(cells), np.random.default_rng(6)
    groups = 3 if algorithm == "depthwise" else 1
    x = rng.standard_normal((2, 3, *cells), dtype=np.float32)
    w = rng.standard_normal((6, 3 // groups, *taps), dtype=np.float32)
    options = {"groups": groups, "algorithm": algorithm}
    options |= {"stride": tuple(stride if tap > 1 else 1 for tap in taps), "padding": tuple(tap // 2 for tap in taps)}
    plan = numbaconv.plan_conv(x.shape, w.shape, **{name: options[name] for name in ("groups", "stride", "padding")})
    takes = {
        direction: each.accepts(plan) is None
        for direction in (Direction.FORWARD, Direction.INPUT_GRAD)
        for each in resolve("cpu").tables[direction]
        if each.name == algorithm
    }
    for mode in ("zeros", "reflect") if takes[Direction.FORWARD] else ():
        options["padding_mode"] = mode
        wanted = getattr(numbaconv, f"conv{rank}d")(x, w, **options)
        all_but_one = (100,) * (rank - 1)
        for spatial in ((9,) * rank, (*all_but_one, 1), (7, *all_but_one), (*all_but_one, 8)):
            chunks = (2, 3, *spatial)
            same(getattr(lazily, f"conv{rank}d")(da.from_array(x, chunks=chunks), w, **options), wanted)
            if mode == "zeros" and takes[Direction.INPUT_GRAD]:
                g = rng.standard_normal(wanted.shape, dtype=np.float32)
                by_input = getattr(grad, f"conv{rank}d_input")(x.shape, w, g, **options)
                found = getattr(lazily, f"conv{rank}d_input")(x.shape, w, da.from_array(g, chunks=chunks), **options)
                same(found, by_input)


def _bound(direction, plan, amount):
    """The bound of the algorithm that the call gets; ``amount`` is |x| conv |w|, or what stands for it."""
    chosen = resolve("cpu").select("", plan, direction, None)
    return chosen, chosen.error_factor(plan) * np.finfo(np.float32).eps * amount


@pytest.mark.parametrize("family", ["fft", "winograd"])
def test_transforms_stay_within_their_bound(monkeypatch, family):
    monkeypatch.delenv("NUMBACONV_DISABLE")
    rng = np.random.default_rng(0)
    shapes = {"fft": ((1, 2, 60_000), (2, 2, 129)), "winograd": ((1, 64, 50, 49), (64, 64, 3, 3))}[family]
    x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
    plan = numbaconv.plan_conv(x.shape, w.shape, padding="same")
    axes = tuple(range(2, x.ndim))
    amount = np.einsum("c,oc->o", np.abs(x[0]).max(tuple(a - 1 for a in axes)), np.abs(w).sum(axes))
    chosen, bound = _bound(Direction.FORWARD, plan, amount.reshape(-1, *(1,) * plan.rank))
    assert chosen.spreading
    assert chosen.name.startswith(family)
    name = f"conv{plan.rank}d"
    exact = getattr(numbaconv, name)(x.astype(float), w.astype(float), padding="same", algorithm="direct")
    lazy = getattr(lazily, name)(
        da.from_array(x, chunks=(1, 1, *(11_000 if family == "fft" else 17,) * plan.rank)), w, padding="same"
    )
    assert (np.abs(lazy.compute() - exact)[0] <= bound).all()


def test_strict_results_have_the_bits_of_memory(monkeypatch):
    monkeypatch.delenv("NUMBACONV_DISABLE")
    rng = np.random.default_rng(1)
    x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in ((1, 64, 50, 49), (64, 64, 3, 3)))
    chunked = da.from_array(x, chunks=(1, 64, 17, 20))
    wanted = numbaconv.conv2d(x, w, padding=1, precision="strict", backend="cpu")
    assert (wanted != numbaconv.conv2d(x, w, padding=1, backend="cpu")).any()
    same(lazily.conv2d(chunked, w, padding=1, precision="strict", backend="cpu"), wanted)
    with numbaconv.use_precision("strict"):
        lazy = lazily.conv2d(chunked, w, padding=1, backend="cpu")
    same(lazy, wanted)


def test_gradients_by_weight_stay_within_their_bound():
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal((3, 8, 50, 47), dtype=np.float32) for _ in range(2))
    plan = numbaconv.plan_conv(x.shape, (8, 8, 3, 3), padding=1)
    exact, amount = (
        grad.conv2d_weight(f(x.astype(float)), (8, 8, 3, 3), f(g.astype(float)), padding=1, algorithm="direct")
        for f in (np.array, np.abs)
    )
    _, bound = _bound(Direction.WEIGHT_GRAD, plan, amount)
    lazy_x, lazy_g = da.from_array(x, chunks=(2, 3, 13, 12)), da.from_array(g, chunks=(1, 8, 50, 9))
    found = lazily.conv2d_weight(lazy_x, (8, 8, 3, 3), lazy_g, padding=1)
    once, again = found.compute(scheduler="threads"), found.compute(scheduler="sync")
    assert (np.abs(once - exact) <= bound).all()
    np.testing.assert_array_equal(once, again)


def test_half_types_are_summed_over_blocks_in_float32():
    """In float16 the partial sums would overflow."""
    x, g = np.full((4, 1, 300), 8, np.float16), np.ones((4, 1, 300), np.float16)
    g[:, :, 150:] = -1
    g[0, 0, 0] = 3
    lazy = lazily.conv1d_weight(da.from_array(x, chunks=(4, 1, 150)), (1, 1, 1), da.from_array(g, chunks=(1, 1, 75)))
    assert lazy.dtype == np.float16
    assert lazy.compute().item() == 16


def _never(block):
    raise AssertionError("computed while the graph is built")


def test_building_computes_nothing_and_names_are_deterministic():
    """An exabyte, of which no cell can be computed."""
    x = da.zeros((8, 3, 10**8, 10**8), dtype=np.float32, chunks=(4, 2, 10**7, 10**7)).map_blocks(
        _never, dtype=np.float32
    )
    w = da.zeros((16, 3, 5, 5), dtype=np.float32).map_blocks(_never, dtype=np.float32)

    def build():
        y = lazily.conv2d(x, w, stride=2, padding="same", padding_mode="reflect", activation="relu")
        return y, lazily.conv2d_backward(y, x, w, stride=2, padding="same", padding_mode="reflect")

    y, gradients = build()
    assert y.shape == (8, 16, 5 * 10**7, 5 * 10**7)
    assert y.chunks == ((4, 4), (16,), (5 * 10**6,) * 10, (5 * 10**6,) * 10)
    assert isinstance(y._meta, np.ndarray)
    assert y.dtype == y._meta.dtype == np.float32
    assert gradients.input.chunks == ((4, 4), (3,), *x.chunks[2:])
    assert gradients.weight.chunks == ((16,), (3,), (5,), (5,))
    other, other_gradients = build()
    assert other.name == y.name
    assert set(other.dask) == set(y.dask)
    assert [each.name for each in other_gradients] == [each.name for each in gradients]
    assert lazily.conv2d(x, w, stride=2).name != lazily.conv2d(x, w).name
    with pytest.raises(AssertionError, match="computed while"):
        y[0, 0, 0, 0].compute(scheduler="sync")


def test_chunks_of_the_result_follow_those_of_the_input():
    x = da.zeros((4, 6, 64, 60), dtype=np.float32, chunks=((3, 1), (4, 2), 16, (20, 10, 30)))
    w = np.zeros((6, 3, 3, 3), np.float32)
    y = lazily.conv2d(x, w, padding=1, groups=2)
    assert y.chunks == ((3, 1), (3, 3), (16,) * 4, (20, 10, 30))
    assert lazily.conv2d(x, w, padding=1, groups=2, stride=2).chunks[2:] == ((8,) * 4, (10, 5, 15))
    up = lazily.conv_transpose2d(x, w, padding=1, output_padding=1, stride=2, groups=2)
    assert up.chunks[2:] == ((32,) * 4, (40, 20, 60))
    dense = lazily.conv2d(x, np.zeros((8, 6, 3, 3), np.float32), padding=1)
    assert dense.chunks == ((3, 1), (8,), (16,) * 4, (20, 10, 30))


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_schedulers_give_the_same_bits(scheduler):
    """Many tasks at once, each with Numba's threads inside."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((4, 16, 60, 61), dtype=np.float32), rng.standard_normal((24, 16, 3, 3), dtype=np.float32)
    y = lazily.conv2d(da.from_array(x, chunks=(1, 16, 20, 20)), w, padding=1)
    by_weight = lazily.conv2d_weight(x, w.shape, y, padding=1)
    options = {"num_workers": 8} if scheduler == "threads" else {"num_workers": 2}
    found, gradient = da.compute(y, by_weight, scheduler=scheduler, **options)
    np.testing.assert_array_equal(found, numbaconv.conv2d(x, w, padding=1))
    np.testing.assert_array_equal(gradient, by_weight.compute(scheduler="sync"))


def test_memory_mapped_files_and_zarr(tmp_path):
    zarr = pytest.importorskip("zarr")
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 4, 90, 80), dtype=np.float32), rng.standard_normal((6, 4, 3, 3), dtype=np.float32)
    wanted = numbaconv.conv2d(x, w, padding="same", padding_mode="symmetric")
    mapped = np.memmap(tmp_path / "x.raw", np.float32, "w+", shape=x.shape)
    mapped[...] = x
    stored = zarr.create_array(tmp_path / "x.zarr", shape=x.shape, chunks=(1, 4, 40, 40), dtype=x.dtype)
    stored[...] = x
    sources = {
        "memmap": np.memmap(tmp_path / "x.raw", np.float32, "r", shape=x.shape),
        "memmap in chunks": da.from_array(np.memmap(tmp_path / "x.raw", np.float32, "r", shape=x.shape), chunks=32),
        "zarr": stored,
        "zarr in chunks": da.from_zarr(stored, chunks=(1, 4, 40, 40)),
    }
    for source in sources.values():
        same(lazily.conv2d(source, w, padding="same", padding_mode="symmetric"), wanted)
    result = zarr.create_array(tmp_path / "y.zarr", shape=wanted.shape, chunks=(1, 6, 40, 40), dtype=wanted.dtype)
    da.store(lazily.conv2d(sources["zarr in chunks"], w, padding="same", padding_mode="symmetric"), result)
    np.testing.assert_array_equal(result[...], wanted)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("conv2d", lambda a: (a(1, 3, 9, 9), a(4, 2, 3, 3))),
        ("conv2d", lambda a: (a(1, 3, 9, 9), a(4, 3, 11, 3))),
        ("conv2d", lambda a: (a(1, 3, 9, 9), a(4, 3, 3, 3), a(5))),
        ("conv2d", lambda a: (a(1, 3, 9, 9), a(4, 3, 3, 3), None, 0)),
        ("conv1d", lambda a: (a(1, 3, 9, 9), a(4, 3, 3))),
        ("conv1d", lambda a: (a(1, 3, 9).astype(bool), a(4, 3, 3).astype(bool))),
        ("conv_transpose1d", lambda a: (a(1, 3, 9), a(3, 4, 3), None, 1, 0, 1)),
        ("conv1d_input", lambda a: ((1, 3, 9), a(4, 3, 3), a(1, 4, 8))),
        ("conv1d_weight", lambda a: (a(1, 3, 9), (4, 3, 3), a(1, 5, 7))),
        ("conv1d_backward", lambda a: (a(1, 4, 8), a(1, 3, 9), a(4, 3, 3))),
        ("conv2d_bias", lambda a: (a(3, 4),)),
    ],
)
def test_errors_are_those_of_memory_and_come_at_once(name, arguments):
    model = getattr(grad if hasattr(grad, name) else numbaconv, name)
    with pytest.raises(numbaconv.ConvError) as wanted:
        model(*arguments(lambda *shape: np.zeros(shape, np.float32)))
    with pytest.raises(type(wanted.value)) as found:
        getattr(lazily, name)(*arguments(lambda *shape: da.zeros(shape, dtype=np.float32, chunks=3)))
    assert str(found.value) == str(wanted.value)


def test_what_has_no_meaning_for_dask_arrays_is_refused():
    x, w = da.zeros((1, 3, 9), dtype=np.float32), np.zeros((4, 3, 3), np.float32)
    y = np.zeros((1, 4, 7), np.float32)
    with pytest.raises(numbaconv.ArgumentError, match=r"out is memory .* dask\.array\.store"):
        lazily.conv1d(x, w, out=y)
    with pytest.raises(numbaconv.ArgumentError, match="stream is for arrays on a device"):
        lazily.conv1d_input(x.shape, w, y, stream=0)
    with pytest.raises(numbaconv.ShapeError, match="compute_chunk_sizes"):
        lazily.conv1d(x[x[:, 0, 0] > 0], w)
    with pytest.raises(numbaconv.DTypeError, match="masked"):
        lazily.conv1d(np.ma.masked_array(np.zeros((1, 3, 9))), w)
    with pytest.raises(numbaconv.DTypeError, match="masked"):
        lazily.conv1d(da.ma.masked_array(x), w)
    with pytest.raises(numbaconv.ArgumentError, match="saved array was given, but no activation"):
        lazily.conv1d_input(x.shape, w, y, output=y)
    with pytest.raises(numbaconv.ShapeError, match=r"output has shape \(1, 4, 6\), but grad_output has"):
        lazily.conv1d_input(x.shape, w, y, output=y[..., :6], activation="relu")
    with pytest.raises(numbaconv.AlgorithmError, match="refuses"):
        lazily.conv1d(x, w, algorithm="depthwise")
    with pytest.raises(TypeError, match="unexpected keyword argument: strides"):
        lazily.conv1d(x, w, strides=2)
    with pytest.raises(TypeError, match="missing a required argument: 'weight'"):
        lazily.conv1d(x)


@pytest.mark.parametrize("name", lazily.__all__)
def test_signatures_and_examples(name):
    import doctest

    function = getattr(lazily, name)
    model = getattr(grad if hasattr(grad, name) else numbaconv, name)
    assert inspect.signature(function) == inspect.signature(model)
    tests = doctest.DocTestFinder(recurse=False).find(function, name, module=False, globs={})
    assert any(name in each.source for test in tests for each in test.examples)
    for test in tests:
        assert doctest.DocTestRunner(verbose=False).run(test).failed == 0
    for parameter in inspect.signature(model).parameters:
        assert parameter in function.__doc__


def test_every_function_has_its_like():
    functions = {
        name
        for name in numbaconv.functional.__all__
        if name[-1] == "d" and name.startswith("conv") and name[-2].isdigit()
    }
    assert set(lazily.__all__) == functions | {name for name in grad.__all__ if name != "ConvGradients"}


def test_a_job_per_thread_of_user_activations():
    """An activation of one's own goes to the tasks."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 40), dtype=np.float32), rng.standard_normal((4, 3, 3), dtype=np.float32)
    y = lazily.conv1d(da.from_array(x, chunks=(1, 3, 11)), w, activation=_softsign)
    same(y, numbaconv.conv1d(x, w, activation=_softsign))


def _softsign(v):
    return v / (1 + abs(v))


def _tiny(shape, cuts):
    return da.from_array(np.full(shape, 1e-20, np.float32), chunks=cuts)


def test_subnormal_numbers_are_flushed_as_was_asked_where_the_graph_was_built():
    x, w, g = _tiny((2, 3, 40), (1, 2, 11)), _tiny((4, 3, 5), (2, 3, 5)), _tiny((2, 4, 36), (1, 4, 12))

    def build():
        scaled = lazily.conv1d_input(x.shape, w, g * 1e20, activation="sigmoid", pre_activation=g * 0 - 45)
        return lazily.conv1d(x, w), lazily.conv1d_weight(x, w.shape, g), scaled

    with numbaconv.flush_subnormals():
        flushed = build()
        inside = [np.asarray(each) for each in flushed]
    usual = build()
    for one, other, early in zip(flushed, usual, inside, strict=True):
        assert one.name != other.name
        assert (np.asarray(one) == 0).all()
        assert (early == 0).all()
        assert (np.asarray(other) != 0).all()
        with numbaconv.flush_subnormals():
            assert (np.asarray(other) != 0).all()


@pytest.mark.parametrize("asked", ["float16", np.float32, np.int64])
def test_results_in_a_dtype_that_is_asked_for(asked):
    """bool and integers, with the bits of memory; an error state that raises makes no difference."""
    rng = np.random.default_rng(3)
    w, bias = rng.integers(0, 5, (3, 2, 3)).astype(np.uint8), np.ones(3, np.int8)
    for dtype in (bool, np.int8):
        x, g = (rng.integers(0, 2, shape).astype(dtype) for shape in ((4, 2, 20), (4, 3, 18)))
        pieces, parts = (da.from_array(each, chunks=(2, -1, 7)) for each in (x, g))
        with np.errstate(all="raise"):
            found = [
                lazily.conv1d(pieces, w, bias, dtype=asked),
                *lazily.conv1d_backward(parts, pieces, w, dtype=asked),
                lazily.conv1d_weight(pieces, w.shape, parts, dtype=asked),
            ]
            computed = [each.compute(scheduler="sync") for each in found]
        back = grad.conv1d_backward(g, x, w, dtype=asked)
        wanted = [numbaconv.conv1d(x, w, bias, dtype=asked), *back, back.weight]
        for lazy, one, two in zip(found, computed, wanted, strict=True):
            assert lazy.dtype == one.dtype == two.dtype == np.dtype(asked)
            np.testing.assert_array_equal(one, two)
    with pytest.raises(DTypeError, match=r"bool.*dtype="):
        lazily.conv1d(da.ones((1, 2, 9), dtype=bool), w)
