"""tune and NUMBACONV_TUNE: what is measured is remembered, for this process and others, and then used."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import numbaconv
from numbaconv import measure
from numbaconv.backends import registry, winners

#: A backend whose first algorithm is slow and fills in ones, and whose second is quick and fills in twos.
TOY = """
from numbaconv import measure
from numbaconv.backends.base import Algorithm, Backend, Direction
def fill(direction, value, seconds):
    def run(plan, x, w, y, epilogue):
        measure.time.sleep(seconds)
        {"x": x, "w": w, "y": y}[direction.value][...] = value
    return run
def no_twos(plan):
    return "no stride of 2" if plan.axes[0].stride == 2 else None
BACKEND = Backend(
    name="sluggish",
    tables={
        d: (
            Algorithm("slow", lambda plan: None, fill(d, 1, 0.004), lambda plan: 0.0),
            Algorithm("quick", no_twos, fill(d, 2, 0), lambda plan: 0.0),
        )
        for d in Direction
    },
    activation_grad=None,
)
"""


class Clock:
    """In the place of `time`: what takes how long is said by the test, whatever else the machine does."""

    def __init__(self):
        self._now = 0.0

    def perf_counter(self):
        self._now += 1e-6
        return self._now

    def sleep(self, seconds):
        self._now += seconds


X, W = np.ones((2, 3, 20)), np.ones((4, 3, 3))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The toy backend, and a folder for what is tuned; the file is where this says."""
    (tmp_path / "sluggish_module.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NUMBACONV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("NUMBACONV_TUNE", raising=False)
    monkeypatch.setattr(measure, "time", Clock())
    numbaconv.register_backend("sluggish", "sluggish_module")
    yield tmp_path / "cache" / "tuned.json"
    registry._modules.pop("sluggish")
    registry._loaded.pop("sluggish", None)
    sys.modules.pop("sluggish_module", None)


def answer(x=X, **options):
    """Which algorithm computed it: 1 the slow one, 2 the quick one."""
    return numbaconv.conv1d(x, W, backend="sluggish", **options).flat[0]


def tune(**options):
    return numbaconv.tune(X.shape, W.shape, backend="sluggish", dtype="float64", **options)


def test_the_winner_is_used_from_then_on(cache):
    assert answer() == 1
    (row,) = tune().rows
    assert (row.automatic, row.algorithm) == ("slow", "quick")
    assert row.seconds["slow"] > 0.004 > row.seconds["quick"]
    assert answer() == 2
    assert answer(X[:1]) == answer(X[0]) == answer(np.ones((7, 3, 20))) == 2  # whatever the batch size
    assert answer(algorithm="slow") == 1
    assert answer(np.ones((2, 3, 21))) == answer(padding=1) == 1  # other problems
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBACONV_DISABLE", "quick")
        assert answer() == 1
        patch.delenv("NUMBACONV_DISABLE")
        patch.setenv("NUMBACONV_TUNE", "0")
        assert answer() == 1
        assert "first that accepts" in explanation().note
    assert answer() == 2


def explanation():
    return numbaconv.explain(X.shape, W.shape, backend="sluggish", dtype="float64")


def test_explain_and_the_table(cache):
    assert "first that accepts" in explanation().note
    table = str(tune())
    assert "-> quick" in table
    assert "slow" in table
    assert "(chosen without tuning)" in table
    found = explanation()
    assert found.algorithm == "quick"
    assert found.note.startswith("tuned: 'quick' was the fastest at batch 2 (quick ")
    assert "-> quick: accepts" in str(found)


@pytest.mark.parametrize(("direction", "transposed"), [("input", False), ("weight", False), ("forward", True)])
def test_gradients_and_transposed(cache, direction, transposed):
    w = W.transpose(1, 0, 2) if transposed else W
    numbaconv.tune(X.shape, w.shape, direction=direction, transposed=transposed, backend="sluggish", dtype="float64")
    g = np.ones((2, 4, 18))
    options = {"backend": "sluggish"}
    if transposed:
        found = numbaconv.conv_transpose1d(X, w, **options)
    elif direction == "input":
        found = numbaconv.grad.conv1d_input(X.shape, W, g, **options)
    else:
        found = numbaconv.grad.conv1d_weight(X, W.shape, g, **options)
    assert found.flat[0] == 2
    assert answer() == 1


def test_prepared_weights_get_the_winner(cache):
    prepared = numbaconv.prepare(W, backend="sluggish")
    assert prepared(X).flat[0] == 1
    tune()
    assert prepared(X).flat[0] == 2


def test_tuning_on_first_use(cache, monkeypatch):
    monkeypatch.setenv("NUMBACONV_TUNE", "1")
    assert answer() == 2
    assert cache.exists()
    assert answer(stride=2) == 1  # there is one that can, hence nothing to measure
    assert len(keys(cache)) == 1
    numbaconv.conv1d(np.ones((0, 3, 20)), W, backend="sluggish")
    assert len(keys(cache)) == 1  # the same problem, empty
    numbaconv.conv1d(np.ones((0, 3, 30)), W, backend="sluggish")
    assert len(keys(cache)) == 1  # there is nothing to measure
    monkeypatch.delenv("NUMBACONV_TUNE")
    assert answer() == 2


def test_tuning_on_first_use_with_real_algorithms(cache, monkeypatch):
    """Results stay right, and measuring does not set off measuring."""
    monkeypatch.setenv("NUMBACONV_TUNE", "1")
    y = numbaconv.conv1d(X, W, np.ones(4), activation="relu")
    np.testing.assert_allclose(y, np.full((2, 4, 18), 10.0), rtol=1e-12)
    (key,) = keys(cache)
    assert key.startswith("FORWARD float64")
    assert numbaconv.explain(X.shape, W.shape, dtype="float64").note.startswith("tuned: ")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "complex64"])
def test_every_kind_of_dtype(cache, dtype):
    (row,) = numbaconv.tune((1, 2, 9), (2, 2, 3), dtype=dtype).rows
    assert row.algorithm in row.seconds


def test_what_the_environment_says_is_checked(cache, monkeypatch):
    monkeypatch.setenv("NUMBACONV_TUNE", "yes")
    with pytest.raises(numbaconv.AlgorithmError, match="NUMBACONV_TUNE is 'yes', but must be 0 or 1"):
        answer()


def keys(path):
    return [key for found in json.loads(path.read_text())["hosts"].values() for key in found]


def test_noise_alone_changes_nothing(cache, monkeypatch):
    monkeypatch.setattr(measure, "_race", lambda calls: {"slow": 1.0, "quick": 0.98})
    assert tune().rows[0].algorithm == "slow"
    monkeypatch.setattr(measure, "_race", lambda calls: {"slow": 1.0, "quick": 0.9})
    assert tune().rows[0].algorithm == "quick"


def test_a_winner_that_has_learnt_to_refuse(cache, monkeypatch):
    tune()
    monkeypatch.setattr(sys.modules["sluggish_module"], "no_twos", None)
    quick = registry.resolve("sluggish").tables[numbaconv.explain(X.shape, W.shape).direction][1]
    object.__setattr__(quick, "accepts", lambda plan: "not any more")
    numbaconv.register_backend("other", "numbaconv.backends.reference")  # forgets no route, but this is another call
    registry._modules.pop("other")
    assert explanation().algorithm == "slow"


def test_many(cache, capsys):
    found = numbaconv.tune(
        [
            {"input_shape": X.shape, "weight_shape": W.shape},
            {"input_shape": X.shape, "weight_shape": W.shape, "direction": "weight"},
            {"input_shape": X.shape, "weight_shape": W.shape, "stride": 2, "backend": "reference"},
        ],
        backend="sluggish",
        dtype="float64",
    )
    assert [(row.backend, row.direction.name, row.algorithm) for row in found.rows] == [
        ("sluggish", "FORWARD", "quick"),
        ("sluggish", "WEIGHT_GRAD", "quick"),
        ("reference", "FORWARD", "numpy"),
    ]
    assert capsys.readouterr().out == ""  # the bar is on standard error


def test_many_without_rich(cache, monkeypatch):
    for name in ("rich", "rich.console", "rich.progress"):
        monkeypatch.setitem(sys.modules, name, None)
    one = {"input_shape": X.shape, "weight_shape": W.shape}
    assert len(numbaconv.tune([one, one], backend="sluggish").rows) == 2


@pytest.mark.parametrize(
    ("problem", "error", "message"),
    [
        (((1, 2, 5),), numbaconv.ArgumentError, "list of dictionaries"),
        (([{"input_shape": (1, 2, 5)}],), numbaconv.ArgumentError, "no weight_shape"),
        (((1, 4, 5), (2, 3, 3)), numbaconv.ShapeError, "3 channels per group"),
        (((0, 4, 5), (2, 4, 3)), numbaconv.ArgumentError, "nothing to measure"),
    ],
)
def test_errors(cache, problem, error, message):
    with pytest.raises(error, match=message):
        numbaconv.tune(*problem)
    with pytest.raises(numbaconv.ArgumentError, match="tune: direction is 'back'"):
        numbaconv.tune((1, 2, 5), (2, 2, 3), direction="back")
    with pytest.raises(numbaconv.BackendError, match="abacus"):
        numbaconv.tune((1, 2, 5), (2, 2, 3), backend="abacus")
    assert not cache.exists()


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        '{"format": 1}',
        '{"format": 1, "hosts": {"h": {"k": {"algorithm": "a", "seconds": {}}}}}',
        '{"format": 1, "hosts": {"h": {"k": {"algorithm": "a", "batch": Infinity, "seconds": {"a": 1}}}}}',
    ],
)
def test_a_damaged_file_is_ignored_with_one_warning(cache, content):
    cache.parent.mkdir()
    cache.write_text(content)
    with pytest.warns(RuntimeWarning, match="is damaged and is ignored"):
        assert answer() == 1
    tune()  # does not warn again: warnings are errors here
    assert answer() == 2
    assert len(keys(cache)) == 1  # and it is whole again


def test_another_format_is_left_aside(cache):
    cache.parent.mkdir()
    cache.write_text('{"format": 99, "anything": 1}')
    assert answer() == 1


def test_a_folder_that_cannot_be_written(cache, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBACONV_CACHE_DIR", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="tuned algorithms"):
        tune()
    tune(direction="weight")  # does not warn again: warnings are errors here
    assert answer() == 2  # in this process


def test_the_folder_of_the_user(monkeypatch):
    import platformdirs

    monkeypatch.delenv("NUMBACONV_CACHE_DIR")
    assert winners.tuned_file().parent == platformdirs.user_cache_path("numbaconv", appauthor=False)


def python(program, tmp_path, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def test_other_processes_get_the_winner(cache, tmp_path):
    tune()
    program = """
        import numpy as np, numbaconv
        numbaconv.register_backend("sluggish", "sluggish_module")
        print(numbaconv.conv1d(np.ones((5, 3, 20)), np.ones((4, 3, 3)), backend="sluggish")[0, 0, 0])
    """
    assert float(finished(python(program, tmp_path))) == 2
    assert float(finished(python(program, tmp_path, NUMBACONV_TUNE="0"))) == 1


def test_two_processes_may_write_at_once(cache, tmp_path):
    """Neither loses what the other has measured."""
    program = """
        import sys, numbaconv
        numbaconv.register_backend("sluggish", "sluggish_module")
        from numbaconv import measure
        measure._race = lambda calls: {"slow": 1.0, "quick": 0.5}
        for extent in range(40):
            numbaconv.tune((1, 3, 10 + extent), (4, 3, 3), stride=int(sys.argv[1]), backend="sluggish")
    """
    program = textwrap.dedent(program)
    both = [python(program.replace("sys.argv[1]", str(stride)), tmp_path) for stride in (1, 3)]
    for process in both:
        finished(process)
    assert len(keys(cache)) == 80
    assert {path.name for path in cache.parent.iterdir()} == {"tuned.json", "tuned.lock"}
