"""Callbacks of JAX: values against JAX's own convolution, gradients of every order, transformations, no deadlock."""

import inspect
import os
import subprocess
import sys

import numpy as np
import pytest
from required import documented, example, library, message_without

import numbaconv

jax = library("jax")

import jax.numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

from numbaconv.backends.activations import ACTIVATIONS  # noqa: E402
from numbaconv.interop import jax as interop  # noqa: E402
from numbaconv.interop.jax import callback  # noqa: E402

NAMES = [f"{kind}{rank}d" for kind in ("conv", "conv_transpose") for rank in (1, 2, 3)]

#: name -> (function, input shape, weight shape, arguments)
CASES = {
    "1d": ("conv1d", (2, 4, 7), (6, 2, 3), {"stride": 2, "padding": 1, "groups": 2}),
    "2d": ("conv2d", (2, 4, 6, 5), (4, 2, 3, 2), {"stride": (2, 1), "padding": (1, 0), "groups": 2}),
    "2d, dilated": ("conv2d", (1, 2, 7, 6), (3, 2, 3, 2), {"dilation": (2, 1), "padding": 1}),
    "2d, no batch": ("conv2d", (2, 5, 4), (3, 2, 3, 3), {"padding": 1}),
    "3d": ("conv3d", (1, 2, 4, 3, 5), (2, 1, 2, 3, 2), {"stride": 2, "padding": 1, "groups": 2}),
    "reflect": ("conv2d", (2, 2, 5, 4), (3, 2, 3, 3), {"padding": 2, "padding_mode": "reflect"}),
    "constant": (
        "conv2d",
        (1, 2, 4, 4),
        (2, 2, 3, 3),
        {"padding": 1, "padding_mode": "constant", "padding_value": 1.5},
    ),
    "causal": ("conv1d", (1, 2, 6), (2, 2, 3), {"padding": "causal", "dilation": 2}),
    "channels last": ("conv2d", (2, 5, 4, 4), (3, 3, 2, 6), {"padding": "same", "data_format": "NHWC", "groups": 2}),
    "up 1d": ("conv_transpose1d", (2, 4, 4), (4, 2, 3), {"stride": 2, "output_padding": 1, "groups": 2}),
    "up 2d": ("conv_transpose2d", (1, 4, 3, 4), (4, 3, 3, 2), {"stride": 2, "padding": 1, "dilation": (1, 2)}),
    "up 3d": ("conv_transpose3d", (1, 2, 2, 3, 2), (2, 3, 2, 2, 3), {"stride": (2, 1, 2), "padding": 1}),
}


@pytest.fixture
def wide():
    """64-bit types."""
    with jax.enable_x64(True):
        yield


def operands(case, dtype=np.float64):
    name, input_shape, weight_shape, arguments = case
    generator = np.random.default_rng(0)
    groups = arguments.get("groups", 1)
    last = "data_format" in arguments
    channels = weight_shape[1] * groups if "transpose" in name else weight_shape[-1 if last else 0]
    return [generator.standard_normal(shape).astype(dtype) for shape in (input_shape, weight_shape, (channels,))]


def function(case, **options):
    call = getattr(interop, case[0])
    return lambda *arrays: call(*arrays, **case[3], **options)


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_those_of_the_functions(name):
    """But for ``dtype``: a gradient has its operand's dtype."""
    ours, theirs = (
        [(each.name, each.kind, each.default) for each in inspect.signature(getattr(module, name)).parameters.values()]
        for module in (interop, numbaconv)
    )
    assert ours == [each for each in theirs if each[0] != "dtype"]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_the_functions(name, jit, wide):
    case = CASES[name]
    arrays = operands(case)
    call = jax.jit(function(case)) if jit else function(case)
    found = call(*map(jnp.asarray, arrays))
    assert isinstance(found, jax.Array)
    assert np.array_equal(found, getattr(numbaconv, case[0])(*arrays, **case[3]))


@pytest.mark.parametrize("dtype", [np.float64, np.complex128, np.int64])
def test_results_stay_wide_in_other_threads(dtype, wide):
    """Only this thread has 64-bit types; of two calls without an order, JAX runs one in another thread."""
    x = np.random.default_rng(0).integers(-9, 9, (4, 8, 32, 32)).astype(dtype)
    w = np.random.default_rng(1).integers(-9, 9, (8, 8, 3, 3)).astype(dtype)
    if dtype == np.complex128:
        w = w * (2 - 1j)
    call = jax.jit(lambda x, w: (interop.conv2d(2 * x, w), interop.conv2d(3 * x, w)))
    for _ in range(10):
        for found, scale in zip(call(x, w), (2, 3), strict=True):
            assert np.array_equal(found, numbaconv.conv2d(scale * x, w))


@pytest.mark.parametrize("name", ["1d", "2d", "2d, dilated", "3d"])
def test_values_and_gradients_are_those_of_jax(name, wide):
    case = CASES[name]
    x, w, _ = map(jnp.asarray, operands(case))
    rank, given = x.ndim - 2, case[3]

    def axes(key, default):
        value = given.get(key, default)
        return value if isinstance(value, tuple) else (value,) * rank

    def theirs(x, w):
        return jax.lax.conv_general_dilated(
            x,
            w,
            axes("stride", 1),
            [(p, p) for p in axes("padding", 0)],
            rhs_dilation=axes("dilation", 1),
            feature_group_count=given.get("groups", 1),
        )

    def losses(call):
        value = call(x, w)
        scale = jnp.cos(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape)
        return value, *jax.grad(lambda x, w: (scale * call(x, w) ** 2).sum(), (0, 1))(x, w)

    for a, b in zip(losses(function(case)), losses(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_gradients_and_their_gradients_are_derivatives(name, wide):
    check_grads(function(CASES[name]), operands(CASES[name]), order=2, modes=("rev",), rtol=1e-5, atol=1e-5)


def test_complex_gradients_are_derivatives(wide):
    check_grads(function(CASES["1d"]), operands(CASES["1d"], np.complex128), order=2, modes=("rev",))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_have_gradients_of_every_order(activation, wide):
    case = CASES["up 1d"]
    arrays = operands(case)
    residual = np.random.default_rng(3).standard_normal(function(case)(*arrays).shape)

    def call(x, w, b, r):
        return function(case, activation=activation, residual=r)(x, w, b)

    check_grads(call, (*arrays, residual), order=2, modes=("rev",), rtol=1e-4, atol=1e-4)


def cube(v):
    return v * v * v


def cube_derivative(v):
    return 3 * v * v


def test_an_activation_of_ones_own(wide):
    case = CASES["2d"]
    arrays = operands(case)
    call = function(case, activation=(cube, cube_derivative))
    np.testing.assert_allclose(call(*arrays), function(case)(*arrays) ** 3, rtol=1e-9)
    check_grads(call, arrays, order=1, modes=("rev",), rtol=1e-4, atol=1e-4)
    with pytest.raises(numbaconv.ArgumentError, match="second derivative"):
        check_grads(call, arrays, order=2, modes=("rev",))
    with pytest.raises(numbaconv.ArgumentError, match="'cube' is a function without a derivative"):
        jax.grad(lambda x: function(case, activation=cube)(x, *arrays[1:]).sum())(arrays[0])


def test_hessians(wide):
    x, w = operands(("conv1d", (1, 1, 5), (1, 1, 3), {}))[:2]

    def loss(convolve):
        return lambda w: (convolve(x, w) ** 2).sum()

    found = jax.jit(jax.jacrev(jax.jacrev(loss(interop.conv1d))))(jnp.asarray(w))
    wanted = jax.hessian(loss(lambda x, w: jax.lax.conv_general_dilated(x, w, (1,), "VALID")))(jnp.asarray(w))
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


@pytest.mark.parametrize(
    "dims", [(0, None, None), (1, None, None), (0, 0, None), (None, 1, 0), (0, 0, 0), (None, None, 0)]
)
@pytest.mark.parametrize("jit", [False, True])
def test_vmap(dims, jit):
    batch = 3
    case = ("conv1d", (2, 4, 6), (4, 2, 3), {"groups": 2, "padding": 1})

    def stacked(array, dim):
        return array if dim is None else np.stack([array + at for at in range(batch)], dim)

    arrays = [stacked(each, dim) for each, dim in zip(operands(case, np.float32), dims, strict=True)]
    call = function(case, activation="tanh")
    for each in (call, jax.grad(lambda *given: (call(*given) ** 2).sum(), (0, 1, 2))):
        mapped = jax.vmap(each, dims)
        found = jax.tree.leaves((jax.jit(mapped) if jit else mapped)(*arrays))
        for at in range(batch):
            one = each(*(a if d is None else a.take(at, d) for a, d in zip(arrays, dims, strict=True)))
            for a, b in zip(found, jax.tree.leaves(one), strict=True):
                np.testing.assert_allclose(a[at], b, rtol=1e-4, atol=1e-4)


def test_vmap_of_vmap():
    case = CASES["2d, no batch"]
    x, w, b = operands(("conv2d", (3, 2, 2, 5, 4), *case[2:]), np.float32)
    inner = jax.vmap(function(case), (0, None, None))
    found = jax.vmap(inner, (0, None, None))(x, w, b)
    assert np.array_equal(found[2, 1], function(case)(x[2, 1], w, b))
    both = jax.vmap(jax.vmap(function(case), (0, None, None)), (None, 0, None))
    weights = np.stack([w, 2 * w])
    np.testing.assert_array_equal(both(x[0], weights, b)[1, 0], function(case)(x[0, 0], 2 * w, b))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_dtypes(dtype):
    x, w, b = (jnp.asarray(each).astype(dtype) for each in operands(CASES["2d"]))
    found = jax.jit(function(CASES["2d"]))(x, w, b)
    assert found.dtype == dtype
    assert np.array_equal(found, function(CASES["2d"])(x, w, b))
    gradient = jax.grad(lambda w: abs(function(CASES["2d"])(x, w, b)).sum())(w)
    assert gradient.dtype == dtype


def test_promotion_is_that_of_jax():
    x, w, b = operands(CASES["2d"], np.float32)
    call = function(CASES["2d"])
    assert call(x, w, b).dtype == np.float32
    assert call(jnp.asarray(x, jnp.bfloat16), jnp.asarray(w, jnp.float16), b).dtype == np.float32
    assert call(jnp.asarray(x, jnp.bfloat16), jnp.asarray(w, jnp.bfloat16)).dtype == jnp.bfloat16
    assert call(x.astype(np.float64), w, b).dtype == np.float32  # JAX has no 64 bits unless it is asked for them
    small = function(CASES["2d"])(*(np.rint(9 * each).astype(np.int8) for each in (x, w)))
    assert small.dtype == np.int32


def test_integers_with_and_without_64_bits():
    x, w = np.full((1, 3, 5), 2**16, np.int32), np.full((2, 3, 3), 2**16, np.int32)
    with jax.enable_x64(True):
        assert interop.conv1d(x, w).dtype == np.int64
        assert np.asarray(interop.conv1d(x, w)).max() == 9 * 2**32
    found = interop.conv1d(x, w)
    assert found.dtype == np.int32  # wrapped, as all of JAX's sums of int32
    assert not np.asarray(found).any()


REFUSED = {
    "channels": (numbaconv.ShapeError, "2 channels", lambda x, w: interop.conv2d(x[:, :2], w)),
    "kernel": (ValueError, "spans 3 cells", lambda x, w: interop.conv2d(x[..., :2], w)),
    "stride": (numbaconv.ArgumentError, "at least 1", lambda x, w: interop.conv2d(x, w, stride=0)),
    "bias": (numbaconv.ShapeError, "3 output channels", lambda x, w: interop.conv2d(x, w, jnp.zeros(2))),
    "residual": (numbaconv.ShapeError, "residual", lambda x, w: interop.conv2d(x, w, residual=x)),
    "bool": (numbaconv.DTypeError, "bool", lambda x, w: interop.conv2d(x > 0, w > 0)),
    "out": (numbaconv.ArgumentError, "out", lambda x, w: interop.conv2d(x, w, out=x)),
    "stream": (numbaconv.ArgumentError, "stream", lambda x, w: interop.conv2d(x, w, stream=1)),
    "activation": (numbaconv.ArgumentError, "'relux'", lambda x, w: interop.conv2d(x, w, activation="relux")),
    "backend": (numbaconv.BackendError, "nothing", lambda x, w: interop.conv2d(x, w, backend="nothing")),
    "precision": (numbaconv.ArgumentError, "'half'", lambda x, w: interop.conv2d(x, w, precision="half")),
    "algorithm": (numbaconv.AlgorithmError, "'magic'", lambda x, w: interop.conv2d(x, w, algorithm="magic")),
    "refusal": (numbaconv.AlgorithmError, "a group has 3", lambda x, w: interop.conv2d(x, w, algorithm="depthwise")),
    "complex": (
        numbaconv.DTypeError,
        "activation",
        lambda x, w: interop.conv2d(x.astype(complex), w.astype(complex), activation="relu"),
    ),
    "words": (TypeError, "array", lambda x, w: interop.conv2d("x", w)),
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name, jit):
    """While tracing, before anything runs."""
    kind, message, call = REFUSED[name]
    with pytest.raises(kind, match=message):
        (jax.jit(call) if jit else call)(jnp.zeros((1, 3, 5, 5)), jnp.zeros((3, 3, 3, 3)))


def test_backend_and_algorithm_are_used():
    case = CASES["2d"]
    arrays = operands(case, np.float32)
    for options in ({"backend": "reference"}, {"algorithm": "direct"}):
        wanted = getattr(numbaconv, case[0])(*arrays, **case[3], **options)
        assert np.array_equal(jax.jit(function(case, **options))(*arrays), wanted)
    with numbaconv.use_backend("reference"):
        found = jax.jit(function(case))(*arrays)
    assert np.array_equal(found, getattr(numbaconv, case[0])(*arrays, **case[3], backend="reference"))


_SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numbaconv.interop.jax import conv1d

x, w = np.arange(48, dtype=np.float32).reshape(4, 2, 6), np.arange(12, dtype=np.float32).reshape(2, 2, 3)
mesh = Mesh(jax.devices(), ("batch",))
parts = jax.device_put(x, NamedSharding(mesh, PartitionSpec("batch")))
loss = lambda x, w: (conv1d(x * 2, w) ** 2).sum()
found, wanted = jax.jit(jax.grad(loss, (0, 1)))(parts, w), jax.grad(loss, (0, 1))(jnp.asarray(x), jnp.asarray(w))
assert len(jax.devices()) == 2
for a, b in zip(found, wanted):
    np.testing.assert_allclose(a, b)
print("done")
"""


def test_arrays_in_parts():
    """A callback gets the whole of an array that lies on several devices."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-c", _SHARDED],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "done", done.stderr


def test_calls_alike_are_compiled_once():
    x, w, b = map(jnp.asarray, operands(CASES["1d"], np.float32))
    call = function(CASES["1d"])
    call(x, w, b)
    with jax.no_tracing():
        call(x, w, b)


_LARGE = """
import jax, jax.numpy as jnp, numpy as np
import numbaconv
from numbaconv.interop.jax import conv2d

x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 16, 128, 128), dtype=np.float32))
w = jnp.asarray(np.random.default_rng(1).standard_normal((16, 16, 3, 3), dtype=np.float32))

@jax.jit
def step(x, w):
    def loss(w):
        y = x
        for _ in range(3):
            y = conv2d(y * 1.5, w, padding=1, activation="tanh") + y
        return (y * y).mean()
    value, gradient = jax.value_and_grad(loss)(w)
    return value, w - gradient

first = None
for _ in range(3):
    value, new = step(x, w)
    first = value if first is None else first
    assert value == first
jax.block_until_ready([step(x + i, w) for i in range(3)])
several = jax.jit(lambda x, w: [conv2d(x + i, w * i, padding=1) for i in range(8)])
jax.block_until_ready([several(x + i, w) for i in range(3)])
found = conv2d(x, w, padding=1)
assert np.array_equal(found, numbaconv.conv2d(np.asarray(x), np.asarray(w), padding=1))
print("done")
"""


def test_large_arrays_do_not_wait_for_each_other():
    """Many callbacks at once, several megabytes each, on one core: there `jax.pure_callback` waits for ever."""
    core = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})" if sys.platform == "linux" else ""
    done = subprocess.run(
        [sys.executable, "-c", core + _LARGE],
        env={**os.environ, "OMP_WAIT_POLICY": "passive", "NUMBA_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "done", done.stderr


def test_the_example():
    assert "greatest difference" in example("jax_stripes.py")


def test_docstrings():
    assert len(list(documented(interop))) == 6


def test_a_missing_library_is_named_with_its_command():
    said = message_without("numbaconv.interop.jax", "jax")
    assert said.startswith("ImportError: numbaconv.interop.jax needs jax: pip install 'numbaconv[jax]'")


def test_strict_precision_in_calls_and_gradients():
    """Where Winograd is chosen without it."""
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in ((1, 64, 20, 20), (64, 64, 3, 3)))
    options = {"padding": 1, "precision": "strict", "backend": "cpu"}
    found, pull = jax.vjp(lambda x, w: interop.conv2d(x, w, **options), x, w)
    assert np.array_equal(found, numbaconv.conv2d(x, w, **options))
    given = np.ones(found.shape, np.float32)
    by_input, by_weight = pull(given)
    assert np.array_equal(by_input, numbaconv.grad.conv2d_input(x.shape, w, given, **options))
    assert np.array_equal(by_weight, numbaconv.grad.conv2d_weight(x, w.shape, given, **options))


def test_subnormal_numbers_are_flushed_as_was_asked_where_it_was_traced(monkeypatch):
    """Callbacks run in threads that no block reaches; XLA's flush in any case, so that results do not tell."""
    asked, real = [], callback.flush_subnormals
    monkeypatch.setattr(callback, "flush_subnormals", lambda on: (asked.append(on), real(on))[1])
    x, w = jnp.full((1, 2, 9), 1e-20, jnp.float32), jnp.full((3, 2, 3), 1e-20, jnp.float32)
    g = jnp.ones((1, 3, 7), jnp.float32)

    def both():
        return np.asarray(interop.conv1d(x, w)), np.asarray(jax.vjp(lambda w: interop.conv1d(x, w), w)[1](g)[0])

    with numbaconv.flush_subnormals():
        assert (both()[0] == 0).all()
    assert asked
    assert all(asked)
    asked.clear()
    both()
    assert asked
    assert not any(asked)
