"""The command line: what it says to people and programs, and how it fails."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import numbaconv
from numbaconv.bench.layer_table import read
from numbaconv.cli import main

LAYER = ["--input", "1x8x12x12", "--weight", "8x8x3x3", "--padding", "1"]


@pytest.fixture
def own_tuned_file(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBACONV_CACHE_DIR", str(tmp_path))
    return tmp_path / "tuned.json"


def answer(capsys, *arguments):
    """What a command prints as JSON."""
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def error(capsys, *arguments):
    """The one line of an error."""
    assert main(list(arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("numbaconv: ")
    assert printed.err.count("\n") == 1
    return printed.err


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "numbaconv", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


def test_info(capsys):
    found = answer(capsys, "info")
    assert found["versions"]["numbaconv"] == numbaconv.__version__
    assert found["versions"]["numba"]
    assert found["backends"]["cpu"] == found["backends"]["reference"] == "can be used"
    assert "vectors of" in found["chosen"]["runs on"]
    assert found["threads"]["threads"] >= 1
    assert found["threads"]["layer"] in ("omp", "tbb", "workqueue")
    assert found["caches"]["compiled kernels"]["files"] >= 0
    assert found["environment"]["NUMBACONV_CACHE_DIR"] in found["caches"]["tuned algorithms"]["file"]
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    for word in ("llvmlite", "reference", "vectors of", "level" if Path("/sys").exists() else "processor"):
        assert word in printed


@pytest.mark.parametrize(
    ("variable", "value", "topic", "name", "message"),
    [
        ("NUMBACONV_BACKEND", "nowhere", "chosen", "backend", "'nowhere' is unknown"),
        ("NUMBACONV_PRECISION", "half", "chosen", "precision", "'half'"),
        ("NUMBA_DISABLE_JIT", "1", "chosen", "runs on", "NUMBA_DISABLE_JIT is set"),
        ("NUMBA_THREADING_LAYER", "loom", "threads", "layer", "'loom' is unknown"),
    ],
)
def test_info_tells_what_is_set_wrongly(variable, value, topic, name, message):
    done = command("info", "--json", **{variable: value})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert message in str(found[topic][name])
    assert found["environment"][variable] == value


def test_explain(capsys):
    arguments = {"padding": 1, "stride": 2, "groups": 2, "direction": "weight"}
    wanted = numbaconv.explain((1, 8, 12, 12), (8, 4, 3, 3), **arguments)
    words = ["--input", "1,8,12,12", "--weight", "8x4x3x3"]
    words += [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    assert main(["explain", *words]) == 0
    assert capsys.readouterr().out == f"{wanted}\n"
    found = answer(capsys, "explain", *words)
    assert found["algorithm"] == wanted.algorithm
    assert [each["name"] for each in found["candidates"]] == [each.name for each in wanted.candidates]
    assert tuple(found["plan"]["output_shape"]) == wanted.plan.output_shape
    assert found["plan"]["flops"] == wanted.plan.flops
    assert answer(capsys, "explain", *words, "--precision", "tf32")["plan"]["precision"] == "tf32"
    assert "precision must be 'strict', 'float32' or 'tf32'" in error(capsys, "explain", *words, "--precision", "half")


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("--padding same", {"padding": "same"}),
        ("--padding same_lower --stride 2x3", {"padding": "same_lower", "stride": (2, 3)}),
        ("--padding 1x2", {"padding": (1, 2)}),
        ("--padding 1:2x0:3 --dilation 2", {"padding": ((1, 2), (0, 3)), "dilation": 2}),
        ("--transposed --stride 2 --output-padding 1", {"transposed": True, "stride": 2, "output_padding": 1}),
        ("--padding-mode reflect --padding 2", {"padding_mode": "reflect", "padding": 2}),
        ("--data-format NHWC --weight-format OHWI", {"data_format": "NHWC", "weight_format": "OHWI"}),
        ("--dtype int8 --bias", {"dtype": "int8", "bias": True}),
    ],
)
def test_words(capsys, words, arguments):
    """Each option is the argument of that name."""
    shapes = ((2, 8, 8, 8), (8, 8, 3, 3)) if "NHWC" not in words else ((2, 8, 8, 8), (8, 3, 3, 8))
    shapes_in_words = ["--input", "x".join(map(str, shapes[0])), "--weight", "x".join(map(str, shapes[1]))]
    assert main(["explain", *shapes_in_words, *words.split()]) == 0
    assert capsys.readouterr().out == f"{numbaconv.explain(*shapes, **arguments)}\n"


def test_tune(capsys, own_tuned_file):
    found = answer(capsys, "tune", *LAYER, "--backend", "reference", "--directions", "forward", "input")
    assert [row["primitive"] for row in found["rows"]] == ["FORWARD", "INPUT_GRAD"]
    assert all(row["algorithm"] == "numpy" and row["seconds"]["numpy"] > 0 for row in found["rows"])
    assert own_tuned_file.is_file()
    assert main(["tune", "1d_wavenet", "--layers", "conv1d_1x1_1", "--backend", "reference"]) == 0
    assert "-> numpy" in capsys.readouterr().out
    cleared = answer(capsys, "clear-cache", "--tuned")
    assert cleared["tuned"]["files"] == 1
    assert cleared["kernels"]["files"] == 0
    assert not own_tuned_file.exists()


def test_bench(capsys, tmp_path):
    """One layer in words, measured in processes; the file is what is printed, and the picture is one."""
    output, picture = tmp_path / "new" / "bench.json", tmp_path / "roofline.png"
    words = ["--threads", "1", "--rounds", "2", "--seconds", "0.01", "--against", "none"]
    found = answer(capsys, "bench", *LAYER, *words, "--output", str(output), "--plot", str(picture))
    assert json.loads(output.read_text()) == found
    (record,) = found["records"]
    assert record["flops"] == 2 * 12 * 12 * 8 * 8 * 9
    assert {name: len(times) for name, times in record["times"].items()} == {"numbaconv": 2, "numbaconv_prepared": 2}
    assert all(least > 0 for times in record["times"].values() for least in times)
    assert len(record["peak"]["gflops"]) == 2
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_bench_of_a_network(capsys):
    words = ["--rounds", "1", "--seconds", "0.01", "--threads", "1", "--against", "none", "--directions", "weight"]
    assert main(["bench", "dcgan", "--layers", "netG:2", *words]) == 0
    assert "netG:2" in capsys.readouterr().out
    (of_table,) = [layer for layer in read("networks.csv") if layer.name == "dcgan/netG:2"]
    for batch in (1, 2):
        more = [] if batch == 1 else ["--batch", str(batch)]
        (record,) = answer(capsys, "bench", "dcgan", "--layers", "netG:2", *words, *more)["records"]
        assert record["flops"] == pytest.approx(2e6 * of_table.mmac / of_table.input_shape[0] * batch, rel=1e-3)


def test_warmup(capsys):
    found = answer(capsys, "warmup", "--backend", "reference", "--dtypes", "int8", "float32", "--directions", "forward")
    assert [(row["dtype"], row["direction"], row["algorithm"]) for row in found["rows"]] == [
        ("int8", "forward", "numpy"),
        ("int8", "forward", "separable"),
        ("float32", "forward", "numpy"),
        ("float32", "forward", "separable"),
    ]
    assert main(["warmup", "--backend", "reference", "--directions", "weight"]) == 0
    assert "numpy" in capsys.readouterr().out


def test_warmup_compiles_and_clear_cache_removes(tmp_path):
    """In a cache of their own, which is that of all kernels here; the second process finds what the first compiled."""
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    warm = ("warmup", "--dtypes", "int8", "--directions", "forward", "--algorithms", "direct", "--json")
    first, second = (json.loads(command(*warm, **cache).stdout) for _ in range(2))
    assert first["new files"] > 0
    assert second["new files"] == 0
    assert second["files"] == first["files"] == len(list(tmp_path.rglob("*.nb[ic]")))
    cleared = json.loads(command("clear-cache", "--kernels", "--json", **cache).stdout)
    assert cleared["kernels"]["files"] == first["files"]
    assert not list(tmp_path.rglob("*.nb[ic]"))


def test_every_algorithm_has_a_problem_to_warm_up():
    """Of each table of the CPU's, in single precision."""
    from numbaconv.backends.base import Direction
    from numbaconv.backends.cpu import BACKEND
    from numbaconv.cli.warmup import _steps

    primitives = {"forward": Direction.FORWARD, "input": Direction.INPUT_GRAD, "weight": Direction.WEIGHT_GRAD}
    for direction, primitive in primitives.items():
        named = {step.algorithm for step in _steps("float32", direction, "cpu", None)}
        fused = {"separable"} if direction == "forward" else set()
        assert named == {each.name for each in BACKEND.tables[primitive]} | fused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["sing"], "invalid choice: 'sing'"),
        (["explain", "--input", "1x8x12x12"], "--weight"),
        (["explain", "--input", "1x8xa", "--weight", "8x8x3"], "'1x8xa' is no shape"),
        (["explain", *LAYER, "--padding", "1:x2"], "is no padding"),
        (["explain", "--input", "1x3x12x12", "--weight", "8x8x3x3"], "3 channels"),
        (["explain", *LAYER, "--backend", "nowhere"], "backend 'nowhere' is unknown"),
        (["bench", "lenet"], "network 'lenet' is unknown; there are 1d, 1d_wavenet"),
        (["bench", "vgg_11", "--layers", "fc"], "no layer of vgg_11 is called fc"),
        (["bench", "dcgan", "--batch", "0"], "--batch must be at least 1, but is 0"),
        (["bench", *LAYER, "--batch", "2"], "--batch is for a network's layers"),
        (["bench"], "give the name of a network"),
        (["bench", "vgg_11", *LAYER], "--input and --weight for one layer, or the name"),
        (["bench", *LAYER, "--rounds", "0", "--against", "none"], "--rounds must be at least 1, but is 0"),
        (["bench", *LAYER, "--seconds", "nan", "--against", "none"], "--seconds must be more than 0, but is nan"),
        (
            ["bench", *LAYER, "--plot", "times.doc", "--against", "none"],
            "--plot ends in '.doc', but must end in one of",
        ),
        (["bench", *LAYER, "--output", ".", "--against", "none"], "--output must be a file, but . is a folder"),
        (["tune", *LAYER, "--dtype", "bool"], "bool"),
        (["warmup", "--dtypes", "float8"], "invalid choice: 'float8'"),
        (["warmup", "--algorithms", "magic", "--backend", "reference"], "none of the algorithms magic"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_are_one_line(capsys, arguments, message):
    assert message in error(capsys, *arguments)
    assert main([*arguments, "--json"]) == 2
    assert message in json.loads(capsys.readouterr().err)["error"]


def test_too_little_memory_is_one_line(capsys, monkeypatch):
    def full(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr("numbaconv.cli.tune.tune", full)
    assert "not enough memory" in error(capsys, "tune", *LAYER)


def test_an_answer_that_nobody_reads():
    """As in ``numbaconv info | head -1``: no traceback, and no word."""
    for options in ([], ["--json"]):
        with subprocess.Popen(
            [sys.executable, "-m", "numbaconv", "explain", *LAYER, "--backend", "reference", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as running:
            running.stdout.close()
            assert (running.wait(60), running.stderr.read()) == (1, b"")


def test_a_missing_library_is_named_with_its_command():
    program = "import sys; sys.modules['{0}'] = None\nfrom numbaconv.cli import main\nsys.exit(main({1}))"
    words = ["explain", *LAYER, "--backend", "reference"]
    for library, arguments, wanted in (
        ("rich.console", words, "pip install 'numbaconv[cli]'"),
        ("matplotlib", ["bench", *LAYER, "--against", "none", "--plot", "p.png"], "pip install 'numbaconv[plot]'"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program.format(library, arguments)], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert wanted in done.stderr
        assert done.stderr.count("\n") == 1
    # Programs need no screen.
    done = subprocess.run(
        [sys.executable, "-c", program.format("rich.console", [*words, "--json"])],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["algorithm"] == "numpy"


def test_as_a_module_and_as_a_script():
    done = command("--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"numbaconv {numbaconv.__version__}")
    done = command("explain")
    assert done.returncode == 2
    assert done.stderr == "numbaconv: the following arguments are required: --input, --weight\n"
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"numbaconv": "numbaconv.cli:main"}


def test_every_network_has_a_name_of_its_own():
    assert {layer.network for layer in read("networks.csv")} >= {"alexnet", "resnet_50", "dcgan"}
