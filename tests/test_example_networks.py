"""The networks of ``examples/networks``: published numbers, seeds, that they run; PyTorch compares in ``peers/``."""

import importlib
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import numbaconv
from engines import Numbaconv
from network import Network, table

FOLDER = Path(__file__).parent.parent / "examples" / "networks"
#: Arguments that make each network small enough for a test.
SMALL = {
    "alexnet": {"size": 67, "head": False},
    "vgg16": {"size": 32, "head": False},
    "inception_v1": {"size": 64},
    "inception_v3": {"size": 107},
    "resnet50": {"size": 33},
    "resnext50": {"size": 64},
    "mobilenet_v1": {"size": 64},
    "mobilenet_v2": {"size": 64},
    "deeplab": {"size": 65, "rates": (2, 4)},
    "wavenet": {"samples": 1500, "blocks": 1},
    "unet": {"size": 188, "width": 8},
    "dcgan": {"width": 64},
}


def small(name):
    return importlib.import_module(name).build(**SMALL[name])


def test_each_network_is_tested():
    helpers = {"network", "engines", "program", "mobilenet"}
    assert {path.stem for path in FOLDER.glob("*.py")} == set(SMALL) | helpers


@pytest.mark.parametrize("name", SMALL)
def test_published_numbers(name):
    module = importlib.import_module(name)
    network = module.build()
    assert module.PUBLISHED
    for published in module.PUBLISHED:
        assert published.holds(network), f"{published}: {published.computed(network)}"


@pytest.mark.parametrize("name", SMALL)
def test_runs(name):
    """From the seed alone, two samples at once as well as one, and something comes out."""
    network = small(name)
    weights, again = network.weights(1), network.weights(1)
    x = np.random.default_rng(2).standard_normal((2, *network.steps[0].shape), np.float32)
    y = network.run(Numbaconv(), weights, x)
    assert y.shape == (2, *network.steps[-1].shape)
    assert np.isfinite(y).all()
    assert y.std() > 1e-3
    assert abs(y[0] - y[1]).max() > 1e-3 * abs(y).max()
    np.testing.assert_array_equal(network.run(Numbaconv(), again, x[1:]), y[1:])


def test_tables_say_what_they_count():
    """One row for each step, and the sums below them, as the plans have them."""
    network = small("mobilenet_v1")
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(table(network))
    printed = console.export_text()
    assert network.parameters == sum(array.size for array in network.weights(0).values())
    for step in network.steps:
        assert step.name in printed
    assert f"{network.parameters:,}" in printed
    assert f"{2 * network.multiply_adds / 1e6:,.1f}" in printed


def test_receptive_fields_are_what_outputs_see():
    """A change of one input cell reaches an output cell if and only if the cell is in its field."""
    network = Network("two branches", (1, 40))
    x = network.conv(0, 4, 3, stride=2, padding=1, name="stem")
    a = network.conv(x, 4, 3, padding=2, dilation=2, name="wide")
    b = network.conv(x, 4, 1, name="narrow")
    network.conv(network.concat([b, a], "both"), 4, 3, padding=1, activation=None, name="last")
    weights = {name: abs(array) for name, array in network.weights(0).items()}
    x, seen = np.ones((1, 1, 40), np.float32), []
    with numbaconv.use_backend("reference"):  # transforms let rounding errors reach further
        y = network.run(Numbaconv(), weights, x)[..., 10]
        for cell in range(40):
            changed = x.copy()
            changed[..., cell] += 1
            if (network.run(Numbaconv(), weights, changed)[..., 10] != y).any():
                seen.append(cell)
    assert seen == list(range(seen[0], seen[-1] + 1))
    assert len(seen) == network.field("last") == 15


@pytest.mark.parametrize(("program", "options"), [("mobilenet", ["--size", "64", "--rounds", "2"]), ("dcgan", [])])
def test_programs(program, options):
    """As a user runs them, from anywhere; the ending says whether all that was compared agrees."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{program}.py"), *options],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    wanted = r"the same bits in every layer" if program == "mobilenet" else r"ran on one input in .* \(1, 3, 64, 64\)"
    assert re.search(wanted, done.stdout.replace("\n", " ")), done.stdout
