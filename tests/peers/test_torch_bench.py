"""`numbaconv bench` beside PyTorch: both are measured on the same layers, which give the same results."""

import json

import numpy as np
import pytest

from numbaconv.bench.layer_table import read
from numbaconv.bench.peers import numbaconv_call, prepared_call, torch_call
from numbaconv.cli import main

pytest.importorskip("torch", minversion="2.0")

SMALL = [layer for layer in read("networks.csv") if layer.mmac < 5][::12]


def test_against_torch(capsys, tmp_path):
    words = ["--input", "1x8x12x12", "--weight", "8x8x3x3", "--padding", "same", "--stride", "2"]
    short = ["--rounds", "2", "--seconds", "0.01", "--threads", "1", "--against", "torch"]
    picture = tmp_path / "ratios.png"
    assert main(["bench", *words, *short, "--directions", "forward", "weight", "--plot", str(picture), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [sorted(record["times"]) for record in found["records"]] == [
        ["numbaconv", "numbaconv_prepared", "torch"],
        ["numbaconv", "torch"],
    ]
    assert found["summary"]["forward vs torch"]["geometric mean"] > 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["bench", *words, *short]) == 0
    assert "forward vs torch" in capsys.readouterr().out


@pytest.mark.parametrize("direction", ["forward", "input", "weight"])
@pytest.mark.parametrize("layer", SMALL, ids=lambda layer: layer.name)
def test_the_same_work(layer, direction):
    """What is timed computes the same, so that times can be compared."""
    mine, theirs = numbaconv_call(layer, direction)(), torch_call(layer, direction)()
    if direction != "forward":
        theirs = theirs[0 if direction == "input" else 1]
    theirs = theirs.numpy()
    if direction == "input" and theirs.shape != mine.shape:  # PyTorch's is that of the padded input
        before = [pair[0] for pair in layer.arguments["padding"]]
        even = [min(pair) for pair in layer.arguments["padding"]]
        cells = [slice(b - e, b - e + n) for b, e, n in zip(before, even, layer.input_shape[2:], strict=True)]
        theirs = theirs[(slice(None), slice(None), *cells)]
    np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-3 * abs(theirs).max())
    if direction == "forward":
        np.testing.assert_array_equal(prepared_call(layer, direction)(), mine)
