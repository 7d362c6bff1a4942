"""What kills plain Numba programs: forks, many threads, nested parallelism; each in a process of its own."""

import os
import subprocess
import sys
import textwrap

import pytest

from threading_layers import LAYERS, environment_of

PREPARE = """
import os, sys, threading
import numpy as np
import numbaconv

rng = np.random.default_rng(0)
x = rng.integers(-3, 4, (4, 16, 20, 30)).astype(np.float32)
w = rng.integers(-3, 4, (24, 16, 3, 3)).astype(np.float32)
wanted = numbaconv.conv2d(x, w, backend="reference")

def convolve():
    for _ in range(20):
        assert np.allclose(numbaconv.conv2d(x, w), wanted, rtol=1e-5, atol=1e-2)

def finish(*what):
    import numba
    print(*what, numba.threading_layer(), flush=True)
"""

FORK = """
convolve()
child = os.fork()
if child == 0:
    convolve()
    finish("child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
convolve()
finish("parent")
"""

FORK_BEFORE_IMPORT = """
# Numba's pool is started by someone else, and numbaconv's kernels are first used in the child.
from numba import njit, prange
@njit(parallel=True)
def other(a):
    for i in prange(a.size):
        a[i] += 1
other(np.zeros(100))
child = os.fork()
if child == 0:
    convolve()
    finish("child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
finish("parent")
"""

POOL = """
import multiprocessing
def work(seed):
    convolve()
    return seed
if __name__ == "__main__":
    convolve()
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(work, range(6)) == list(range(6))
    finish("pool")
"""

THREADS = """
convolve()
failures = []
def work():
    try:
        convolve()
    except BaseException as error:
        failures.append(error)
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
convolve()
for thread in threads:
    thread.join()
assert not failures, failures
finish("threads")
"""

THREADS_COLD = THREADS.replace("convolve()\nfailures", "failures", 1)

FORK_WHILE_COMPILING = """
convolve()
thread = threading.Thread(target=lambda: numbaconv.conv2d(x.astype(np.complex128), w.astype(np.complex128)))
thread.start()
child = os.fork()
if child == 0:
    numbaconv.conv2d(x.astype(np.float64), w.astype(np.float64))
    finish("child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
thread.join()
finish("parent")
"""

DTYPES = """
failures = []
def work(dtype):
    try:
        for _ in range(20):
            assert np.allclose(numbaconv.conv2d(x.astype(dtype), w.astype(dtype)), wanted, rtol=1e-5, atol=1e-2)
    except BaseException as error:
        failures.append(repr(error))
threads = [threading.Thread(target=work, args=(d,)) for d in (np.float32, np.float64, np.complex64, np.int32)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failures, failures
finish("dtypes")
"""

NESTED = """
from numba import njit, objmode, prange
def inside():
    convolve()
    return 1.0
@njit(parallel=True)
def outer(a):
    for i in prange(a.size):
        with objmode(value="float64"):
            value = inside()
        a[i] = value
if os.environ["FIRST"] == "ours":
    convolve()
a = np.zeros(6)
outer(a)
assert a.sum() == 6
convolve()
finish("nested")
"""

LOOPS = """
import sys
import numpy as np
from numba import types
from numbaconv.backends.cpu.jit import kernel
from numbaconv.backends.cpu.launch import Kernel

@kernel
def one(begin, end, a):
    a[begin:end] += 1

@kernel
def two(begin, end, a, b):
    a[begin:end] += b[begin:end]

a, vector = np.ones(64), types.float64[::1]
if sys.argv[1] == "one":
    Kernel(one, lambda dtype: (vector,))(a.dtype, a.size, 10**9, a)
else:
    Kernel(two, lambda dtype: (vector, vector))(a.dtype, a.size, 10**9, a, np.ones(64))
assert (a == 2).all()
"""


def run(program, layer, **environment):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PREPARE + program)],
        env={**environment_of(layer), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()[1::2]) == {layer}, done.stdout
    return done.stdout.split()[::2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
@pytest.mark.parametrize("layer", LAYERS)
def test_fork(layer):
    assert run(FORK, layer) == ["child", "parent"]
    assert run(FORK_BEFORE_IMPORT, layer) == ["child", "parent"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_fork_while_compiling(tmp_path):
    assert run(FORK_WHILE_COMPILING, "omp", NUMBA_CACHE_DIR=str(tmp_path)) == ["child", "parent"]


@pytest.mark.parametrize("layer", LAYERS)
def test_kernels_from_the_cache(layer, tmp_path):
    """The last process loads what the second one compiled around a parallel loop that the first had compiled."""
    program = tmp_path / "loops.py"
    program.write_text(LOOPS)
    environment = {**environment_of(layer), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for name in ("one", "two", "two"):
        done = subprocess.run(
            [sys.executable, str(program), name], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("layer", LAYERS)
def test_dtypes_at_once(layer):
    assert run(DTYPES, layer) == ["dtypes"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
@pytest.mark.parametrize("layer", LAYERS)
def test_multiprocessing_by_fork(layer):
    assert run(POOL, layer) == ["pool"]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("program", [THREADS, THREADS_COLD], ids=["warm", "first call"])
def test_many_threads(layer, program):
    assert run(program, layer) == ["threads"]


@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize("layer", LAYERS)
def test_inside_a_prange(layer, first):
    assert run(NESTED, layer, FIRST=first) == ["nested"]


@pytest.mark.parametrize("layer", LAYERS)
def test_one_thread_does_run_in_parallel(layer):
    """The guards must not make everything serial."""
    program = """
    from numbaconv.backends.cpu import launch
    from numbaconv.backends.cpu.implicit_gemm import _gemm_kernel as kernel
    launch._crowd.waited = lambda *told: None  # however busy the machine is
    def convolve():
        assert (numbaconv.conv2d(x, w, algorithm="implicit_gemm") == wanted).all()  # sums of integers are exact
    convolve()
    (parallel, address), taken = kernel._fanned[x.dtype], []
    kernel._fanned[x.dtype] = lambda *given: (taken.append(given[2]), parallel(*given))[1], address
    convolve()
    assert taken and min(taken) >= 2, taken
    finish("parallel")
    """
    assert run(textwrap.dedent(program), layer) == ["parallel"]


def test_an_unknown_layer_is_an_error_of_the_backend():
    """From each algorithm, whether it counts threads to divide its work or to start them."""
    program = """
import numpy as np
import numbaconv
from numbaconv.backends.base import Direction
from numbaconv.backends.cpu import BACKEND
from numbaconv.plan import plan_conv
x, w = np.ones((2, 16, 40, 40), np.float32), np.ones((24, 16, 3, 3), np.float32)
plan = plan_conv(x.shape, w.shape, dtype="float32")
tried = 0
for algorithm in BACKEND.tables[Direction.FORWARD]:
    if algorithm.accepts(plan) is None:
        try:
            numbaconv.conv2d(x, w, algorithm=algorithm.name)
        except numbaconv.BackendError as error:
            assert "magic" in str(error)
            tried += 1
print(tried)
"""
    environment = {**os.environ, "NUMBA_THREADING_LAYER": "magic", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3


def test_where_pip_has_put_tbb_is_said():
    """Numba says that it is to be installed; the variable that is named makes it found."""
    program = """
import numpy as np
import numbaconv
x, w = np.ones((2, 16, 40, 40), np.float32), np.ones((24, 16, 3, 3), np.float32)
try:
    numbaconv.conv2d(x, w)
except numbaconv.BackendError as error:
    print(error)
"""
    found = environment_of("tbb")
    variable = {"linux": "LD_LIBRARY_PATH", "darwin": "DYLD_LIBRARY_PATH"}.get(sys.platform, "PATH")
    if found.get(variable) == os.environ.get(variable):
        pytest.skip("the loader finds TBB by itself here")
    folder = found[variable].split(os.pathsep)[0]
    environment = {**found, variable: os.environ.get(variable, "")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"pip has installed it in {folder}" in done.stdout, done.stdout
    assert f"set {variable}={folder}" in done.stdout


def test_one_thread_starts_no_pool():
    """On one core tbb's, started by another thread than the main one, kept the process from ending."""
    program = """
thread = threading.Thread(target=convolve)
thread.start()
thread.join()
from numba.np.ufunc import parallel
print(parallel._is_initialized)
"""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PREPARE + program)],
        env={**os.environ, "NUMBA_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False"]
