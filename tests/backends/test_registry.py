"""Choosing a backend: precedence, availability, plug-ins, and no silent fallback."""

import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import numbaconv
from numbaconv.backends import registry
from numbaconv.backends.base import Algorithm, Backend, Candidate, Direction
from numbaconv.measure import _candidates

X, W = np.ones((1, 2, 6)), np.ones((3, 2, 3))

TOY = """
from numbaconv.backends.base import Algorithm, Backend, Direction
def fill(direction):
    def run(plan, x, w, y, epilogue):
        {"x": x, "w": w, "y": y}[direction.value][...] = 42
    return run
def refuse(plan):
    return f"the toy wants rank 1, not {plan.rank}" if plan.rank != 1 else None
BACKEND = Backend(
    name="toy",
    tables={d: (Algorithm("fill", refuse, fill(d), lambda plan: 0.0),) for d in Direction},
    activation_grad=None,
)
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "toy_module.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    modules, loaded = dict(registry._modules), dict(registry._loaded)
    yield tmp_path
    registry._modules.clear()
    registry._modules.update(modules)
    registry._loaded.clear()
    registry._loaded.update(loaded)
    sys.modules.pop("toy_module", None)


def test_precedence(monkeypatch):
    assert numbaconv.get_backend() == "cpu"
    monkeypatch.setenv("NUMBACONV_BACKEND", "reference")
    assert numbaconv.get_backend() == "reference"
    numbaconv.set_backend("cpu")
    try:
        assert numbaconv.get_backend() == "cpu"
        with numbaconv.use_backend("reference"):
            assert numbaconv.get_backend() == "reference"
            with numbaconv.use_backend("cpu"):
                assert numbaconv.get_backend() == "cpu"
            assert numbaconv.get_backend() == "reference"
            assert numbaconv.explain(X.shape, W.shape, backend="cpu").backend == "cpu"
    finally:
        numbaconv.set_backend(None)
    assert numbaconv.get_backend() == "reference"


def test_use_backend_is_for_one_thread():
    seen = []
    with numbaconv.use_backend("reference"):
        thread = threading.Thread(target=lambda: seen.append(numbaconv.get_backend()))
        thread.start()
        thread.join()
    assert seen == ["cpu"]


def test_use_backend_ends_with_an_error():
    with pytest.raises(RuntimeError, match="inside"), numbaconv.use_backend("reference"):
        raise RuntimeError("inside")
    assert numbaconv.get_backend() == "cpu"


def test_backends():
    assert numbaconv.backends()["cpu"] == (True, None)
    assert numbaconv.backends()["reference"].available


@pytest.mark.parametrize(
    "choose",
    [
        lambda: numbaconv.conv1d(X, W, backend="abacus"),
        lambda: numbaconv.set_backend("abacus"),
        lambda: numbaconv.use_backend("abacus").__enter__(),
    ],
)
def test_unknown_names_list_what_there_is(choose):
    with pytest.raises(numbaconv.BackendError, match=r"'abacus' is unknown; there are cpu, cuda, reference"):
        choose()
    assert numbaconv.get_backend() == "cpu"


def test_an_unknown_name_in_the_environment(monkeypatch):
    monkeypatch.setenv("NUMBACONV_BACKEND", "abacus")
    with pytest.raises(numbaconv.BackendError, match="abacus"):
        numbaconv.conv1d(X, W)


def test_register_backend(toy):
    numbaconv.register_backend("toy", "toy_module")
    assert "toy_module" not in sys.modules  # loaded when first asked for
    assert numbaconv.backends()["toy"].available
    assert (numbaconv.conv1d(X, W, backend="toy") == 42).all()
    assert (numbaconv.grad.conv1d_weight(X, W.shape, np.ones((1, 3, 4)), backend="toy") == 42).all()
    with pytest.raises(numbaconv.AlgorithmError, match="the toy wants rank 1, not 2"):
        numbaconv.conv2d(X[..., None], W[..., None], backend="toy", algorithm="fill")
    explained = numbaconv.explain((1, 2, 6, 1), (3, 2, 3, 1), backend="toy")
    assert explained.candidates[0].refusal == "the toy wants rank 1, not 2"
    assert explained.algorithm is None


def test_a_backend_that_cannot_be_used(toy):
    broken = TOY.replace("activation_grad=None,", "activation_grad=None, unavailable=lambda: 'no toys here',")
    (toy / "toy_module.py").write_text(broken)
    numbaconv.register_backend("toy", "toy_module")
    assert numbaconv.backends()["toy"] == (False, "backend 'toy' cannot be used: no toys here")
    with pytest.raises(numbaconv.BackendError, match="no toys here"):
        numbaconv.conv1d(X, W, backend="toy")


@pytest.mark.parametrize(
    ("source", "reason"),
    [("import a_missing_library", "a_missing_library"), ("BACKEND = 3", "no numbaconv Backend named BACKEND")],
)
def test_a_module_that_is_no_backend(toy, source, reason):
    (toy / "toy_module.py").write_text(source)
    numbaconv.register_backend("toy", "toy_module")
    found = numbaconv.backends()["toy"]
    assert not found.available
    assert reason in found.reason


def test_entry_points(tmp_path):
    """A distribution's entry point adds a backend, by its metadata alone."""
    (tmp_path / "toy_module.py").write_text(TOY)
    info = tmp_path / "toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[numbaconv.backends]\ntoy = toy_module\n")
    program = """
        import numpy as np, numbaconv
        y = numbaconv.conv1d(np.ones((1, 2, 6)), np.ones((3, 2, 3)))
        assert (y == 42).all()
        assert numbaconv.backends()["toy"].available
        assert sorted(numbaconv.backends()) == ["cpu", "cuda", "reference", "toy"]
    """
    environment = {"PYTHONPATH": str(tmp_path), "NUMBACONV_BACKEND": "toy"}
    run_python(program, environment)


def run_python(program, environment):
    import os

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_forced_algorithms(monkeypatch):
    y = numbaconv.conv1d(X, W, algorithm="direct")
    np.testing.assert_array_equal(y, np.full((1, 3, 4), 6.0))
    with pytest.raises(numbaconv.AlgorithmError, match=r"'abacus' is unknown to backend 'cpu', which has .*direct"):
        numbaconv.conv1d(X, W, algorithm="abacus")
    monkeypatch.setenv("NUMBACONV_ALGORITHM", "direct")
    assert "is forced" in numbaconv.explain(X.shape, W.shape).note
    np.testing.assert_array_equal(numbaconv.conv1d(X, W), y)
    monkeypatch.setenv("NUMBACONV_ALGORITHM", "abacus")
    with pytest.raises(numbaconv.AlgorithmError, match="abacus"):
        numbaconv.conv1d(X, W)


def test_disabled_algorithms(monkeypatch):
    chosen = numbaconv.explain(X.shape, W.shape).algorithm
    assert chosen != "direct"
    monkeypatch.setenv("NUMBACONV_DISABLE", f" {chosen} ,")
    explained = numbaconv.explain(X.shape, W.shape)
    assert explained.algorithm != chosen
    assert f"{chosen}: not chosen: disabled by NUMBACONV_DISABLE" in str(explained)
    np.testing.assert_array_equal(numbaconv.conv1d(X, W), np.full((1, 3, 4), 6.0))
    with pytest.raises(
        numbaconv.AlgorithmError, match=f"'{chosen}' of .* is forced, but disabled by NUMBACONV_DISABLE"
    ):
        numbaconv.conv1d(X, W, algorithm=chosen)
    monkeypatch.setenv("NUMBACONV_DISABLE", "numpy")  # another backend's: harmless
    assert numbaconv.explain(X.shape, W.shape).algorithm == chosen
    with pytest.raises(
        numbaconv.AlgorithmError, match="backend 'reference', numpy being disabled by NUMBACONV_DISABLE"
    ):
        numbaconv.conv1d(X, W, backend="reference")
    monkeypatch.setenv("NUMBACONV_DISABLE", "direct,abacus")
    with pytest.raises(numbaconv.AlgorithmError, match=r"names 'abacus', which no backend has; there are .*direct"):
        numbaconv.conv1d(X, W)


@pytest.mark.parametrize("direction", ["forward", "input", "weight"])
def test_a_family_is_disabled_by_its_name(monkeypatch, direction):
    """``winograd`` stands for every variant of it: unchosen, unforced, unmeasured."""
    shapes = ((1, 64, 56, 56), (64, 64, 3, 3))
    plan = numbaconv.plan_conv(*shapes, padding=1)
    before = numbaconv.explain(*shapes, padding=1, direction=direction)
    variants = {each.name for each in before.candidates if each.name.startswith("winograd")}
    assert variants == ({"winograd"} if direction == "weight" else {"winograd", "winograd_2x2"})
    assert before.algorithm == "winograd"
    monkeypatch.setenv("NUMBACONV_DISABLE", "winograd")
    after = numbaconv.explain(*shapes, padding=1, direction=direction)
    assert after.algorithm == "patch_gemm"
    for each in after.candidates:
        assert (each.passed_over == "disabled by NUMBACONV_DISABLE") == (each.name in variants)
    for name in variants:
        forced = numbaconv.explain(*shapes, padding=1, direction=direction, algorithm=name)
        assert forced.algorithm is None
        assert "disabled by NUMBACONV_DISABLE" in forced.note
        primitive, names = forced.direction, registry.disabled_algorithms()
        assert registry.resolve("cpu").select("test", plan, primitive, None, names, name).name == "patch_gemm"
        assert not [each for each in _candidates(registry.resolve("cpu"), plan, primitive, names) if each.name == name]
    if direction != "weight":
        monkeypatch.setenv("NUMBACONV_DISABLE", "winograd_2x2")  # one variant alone
        assert numbaconv.explain(*shapes, padding=1, direction=direction).algorithm == "winograd"


def test_what_is_not_worthwhile_is_chosen_last():
    def algorithm(name, reason):
        return Algorithm(name, lambda plan: None, None, None, worthwhile=lambda plan: reason)

    table = (algorithm("slow", "it would take a week"), algorithm("quick", None))
    backend = Backend("toy", dict.fromkeys(Direction, table), activation_grad=None)
    plan = numbaconv.plan_conv(X.shape, W.shape)

    def chosen(*arguments):
        return backend.select("test", plan, Direction.FORWARD, *arguments).name

    assert chosen(None) == "quick"
    assert chosen("slow") == "slow"
    assert chosen(None, frozenset({"quick"})) == "slow"
    assert backend.candidates(plan, Direction.FORWARD)[0] == Candidate("slow", None, "it would take a week")
    with pytest.raises(numbaconv.AlgorithmError, match="quick and slow being disabled"):
        chosen(None, frozenset({"quick", "slow"}))


def test_the_package_is_the_function():
    import numbaconv.backends.cpu as cpu

    assert cpu.BACKEND.name == "cpu"
    assert callable(numbaconv.backends)
