"""Where CUDA is not there, why; and that nothing asks a driver before somebody wants the backend."""

import os
import subprocess
import sys
import textwrap

import pytest

from numbaconv.backends.cuda import availability


def python(program, **environment):
    """A program's output, in a process in which CUDA finds no device, if it finds a driver."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBACONV_", "NUMBA_"))}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**clean, "CUDA_VISIBLE_DEVICES": "-1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


CALL = """
    import sys
    import numpy as np, numbaconv
    x, w = np.ones((1, 2, 6)), np.ones((3, 2, 3))
    def fails(call):
        try:
            call()
        except numbaconv.BackendError as error:
            return str(error)
        raise AssertionError("no error")
"""


def test_an_unusable_backend_is_an_error_with_the_reason():
    reason = python(CALL + "    print(numbaconv.backends()['cuda'].reason)")
    assert any(known in reason for known in ("cannot be imported", "no usable driver", "no device", "compiled")), reason
    assert reason.startswith("backend 'cuda' cannot be used: ")
    program = "    print(fails(lambda: numbaconv.conv1d(x, w{})))"
    assert python(CALL + program.format(", backend='cuda'")) == reason
    assert python(CALL + program.format(""), NUMBACONV_BACKEND="cuda") == reason
    assert python(CALL + "    print(fails(lambda: numbaconv.set_backend('cuda')))") == reason


@pytest.mark.parametrize(
    "broken", ["sys.modules['numba.cuda'] = None", "sys.modules['numba.cuda.core'] = sys.modules['numba.core'] = None"]
)
def test_without_the_target(broken):
    """An import that fails, as without numba-cuda or without a toolkit, is a reason that says what to install."""
    reason = python(CALL + f"    {broken}\n    print(numbaconv.backends()['cuda'].reason)")
    assert "Numba's CUDA target cannot be imported" in reason
    assert "pip install 'numbaconv[cu13]'" in reason


def test_reasons(monkeypatch):
    monkeypatch.setattr(availability, "_initialised", None)
    assert availability.unavailable(ImportError("no\n  toolkit")).startswith(
        "Numba's CUDA target cannot be imported (no toolkit); pip install"
    )
    monkeypatch.setattr(availability, "_initialised", os.getpid())
    assert availability.unavailable(None) is None
    monkeypatch.setattr(availability, "_initialised", os.getpid() + 1)
    assert "forked" in availability.unavailable(None)
    monkeypatch.setattr(availability, "_simulated", True)
    assert availability.unavailable(None) is None


class FakeDriver:
    """``numba.cuda`` as far as `availability` asks it."""

    def __init__(self, devices=1, compiler=None, version=(13, 0)):
        self.devices, self.compiler, self.version = devices, compiler, version

    @property
    def gpus(self):
        if isinstance(self.devices, Exception):
            raise self.devices
        return range(self.devices)

    def compile_ptx(self, *arguments, **options):
        if self.compiler:
            raise self.compiler


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        (FakeDriver(RuntimeError("none\nhere")), "there is no usable driver: none here"),
        (
            FakeDriver(RuntimeError("cuInit: CUDA_ERROR_NO_DEVICE (100)")),
            "the driver finds no device",
        ),
        (FakeDriver(1, version=(12, 4)), "the driver is of CUDA 12.4, and loads no kernels of a toolkit of CUDA 13.1"),
        (FakeDriver(1, version=(14, 0)), None),
        (FakeDriver(0), "the driver finds no device"),
        (FakeDriver(1, RuntimeError("no nvvm")), "kernels cannot be compiled (no nvvm); pip install"),
        (FakeDriver(1), None),
    ],
)
def test_what_the_driver_says(monkeypatch, driver, reason):
    import numba

    numba_cuda = pytest.importorskip("numba.cuda")
    driver.types = numba_cuda.types
    monkeypatch.setattr(numba, "cuda", driver)
    monkeypatch.setattr(availability, "_initialised", None)
    monkeypatch.setattr("numbaconv.backends.cuda.jit.SIMULATED", False)
    monkeypatch.setattr(availability, "_lacking", list)
    monkeypatch.setattr(availability, "_versions", lambda: (driver.version, (13, 1)))
    found = availability.unavailable(None)
    assert found is None if reason is None else found.startswith(reason)


def test_a_target_that_is_too_old(monkeypatch):
    """Numba's own, without numba-cuda, compiles no kernel that has bounds."""

    class Kernel:
        def __init__(self, py_func, argtypes, link=None, debug=False, max_registers=None):
            raise AssertionError("never made")

    import numba

    dispatcher = pytest.importorskip("numba.cuda.dispatcher")
    driver = FakeDriver(1)
    driver.types = numba.cuda.types
    monkeypatch.setattr(dispatcher, "_Kernel", Kernel)
    monkeypatch.setattr(numba, "cuda", driver)
    monkeypatch.setattr(availability, "_initialised", None)
    monkeypatch.setattr("numbaconv.backends.cuda.jit.SIMULATED", False)
    assert "Numba's own target has no launch_bounds and no forceinline); pip install" in availability.unavailable(None)


def test_the_simulator_is_available():
    program = CALL + "    print(numbaconv.backends()['cuda'], numbaconv.conv1d(x, w, backend='cuda')[0, 0, 0])"
    assert python(program, NUMBA_ENABLE_CUDASIM="1") == "BackendStatus(available=True, reason=None) 6.0"


def test_the_cpu_asks_no_driver():
    """Neither importing, nor a call, nor a name that no backend has, imports or initialises CUDA."""
    program = """
        import sys
        import numpy as np, numbaconv
        assert not any(name.partition(".")[0] in ("numba", "numba_cuda") for name in sys.modules)
        x, w = np.ones((1, 2, 6)), np.ones((3, 2, 3))
        numbaconv.conv1d(x, w, backend="reference")
        assert "numba" not in sys.modules
        numbaconv.conv1d(x, w)
        assert "numbaconv.backends.cuda" not in sys.modules
        import numbaconv.backends.cuda.availability as availability
        import os
        def never(*arguments):
            raise AssertionError("the driver was asked")
        availability._refusal = never
        os.environ["NUMBACONV_DISABLE"] = "direct,abacus"
        try:
            numbaconv.conv1d(x, w[:, :, :2])
        except numbaconv.AlgorithmError as error:
            print(error)
    """
    assert "'abacus', which no backend has" in python(program)


def test_numpy_without_row_stack():
    """NumPy 2.5 has it no more, and numba-cuda compiles against it."""
    program = """
        import warnings; warnings.simplefilter("ignore")
        import numpy as np
        np.__dict__.pop("row_stack", None)
        import numbaconv
        print(numbaconv.conv1d(np.ones((1, 2, 6)), np.ones((3, 2, 3)), backend="cuda").shape, np.row_stack is np.vstack)
    """
    assert python(program, NUMBA_ENABLE_CUDASIM="1") == "(1, 3, 4) True"
