"""Pictures: what is in them, not how they look; and that they need no display and no global state."""

import json
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest

from numbaconv import plan_conv, plot
from numbaconv.errors import ArgumentError, DTypeError, ShapeError

PEAK = {"gflops_1": [50.0, 60.0], "gflops": [100.0, 110.0], "gbytes": [20.0, 21.0]}


def record(layer, direction="forward", peak=True, **times):
    found = {"layer": f"net/{layer}", "direction": direction, "flops": 1e9, "intensity": 40.0, "times": times}
    return {**found, "peak": PEAK} if peak else found


def images(figure):
    return [axes.images[0] for axes in figure.axes if axes.images]


def test_feature_maps_are_the_channels():
    maps = np.random.default_rng(0).standard_normal((5, 6, 7))
    figure = plot.feature_maps(maps, columns=2, title="five")
    drawn = images(figure)
    assert len(drawn) == 5
    for channel, image in enumerate(drawn):
        np.testing.assert_array_equal(image.get_array(), maps[channel])
        assert image.get_clim() == (maps.min(), maps.max())
    assert figure.get_suptitle() == "five"
    curves = plot.feature_maps(maps[:, 0])
    np.testing.assert_array_equal(curves.axes[3].lines[0].get_ydata(), maps[3, 0])
    with pytest.raises(ShapeError, match=r"\(1, 5, 6, 7\)"):
        plot.feature_maps(maps[None])
    with pytest.raises(ArgumentError, match="columns must be at least 1"):
        plot.feature_maps(maps, columns=0)
    with pytest.raises(DTypeError, match="complex128"):
        plot.feature_maps(maps + 1j)
    holes = maps.clip(-1, 2)
    holes[0, 0, 0], holes[1, 0, 0] = np.nan, np.inf
    assert images(plot.feature_maps(holes))[0].get_clim() == (-1, 2)
    assert images(plot.feature_maps(np.full((1, 2, 2), np.nan)))[0].get_clim() == (0, 1)


def test_filters_are_the_weights():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 2, 3, 5)).astype(np.float32)
    drawn = images(plot.filters(weight))
    assert len(drawn) == 8
    np.testing.assert_array_equal(drawn[5].get_array(), weight[2, 1])
    low, high = drawn[0].get_clim()
    assert -low == high == pytest.approx(abs(weight).max())
    colours = rng.standard_normal((6, 3, 3, 3))
    drawn = images(plot.filters(colours, columns=6))
    assert len(drawn) == 6
    grey = np.moveaxis(colours[1], 0, -1) / (2 * abs(colours).max()) + 0.5
    np.testing.assert_allclose(drawn[1].get_array(), grey)
    assert len(images(plot.filters(np.zeros((40, 1, 3, 3)), most=10))) == 10
    with pytest.raises(ShapeError, match=r"\(4, 2, 3\)"):
        plot.filters(weight[..., 0])


def test_receptive_fields_are_frames():
    """Of a cell in the middle: the frames of all layers have the same centre, which is the cell's."""
    plans = [plan_conv((1, 1, 40, 40), (1, 1, 5, 3), stride=2, padding=(2, 1))]
    plans.append(plan_conv(plans[0].output_shape, (1, 1, 3, 3), padding=1))
    (only,) = plot.receptive_field(plans, np.zeros((40, 40)), frames=[2]).axes[0].patches
    assert (only.get_height(), only.get_width()) == (9, 7)
    with pytest.raises(ArgumentError, match=r"frames are \[3\], but there are 2 layers"):
        plot.receptive_field(plans, np.zeros((40, 40)), frames=[3])
    figure = plot.receptive_field(plans, np.zeros((40, 40)), cell=(7, 5))
    first, last = figure.axes[0].patches
    assert (first.get_height(), first.get_width()) == (5, 3)
    assert (last.get_height(), last.get_width()) == (9, 7)
    for frame in (first, last):
        assert frame.get_x() + frame.get_width() / 2 == 10
        assert frame.get_y() + frame.get_height() / 2 == 14
    edge = plot.receptive_field(plans, np.zeros((40, 40, 3)), cell=(0, 0)).axes[0]
    assert edge.get_xlim()[0] < -3
    with pytest.raises(ShapeError, match=r"\(40,\)"):
        plot.receptive_field(plans, np.zeros(40))
    with pytest.raises(ArgumentError, match="no layer"):
        plot.receptive_field([], np.zeros((4, 4)))
    with pytest.raises(ArgumentError, match="rank 1"):
        plot.receptive_field([plan_conv((1, 1, 9), (1, 1, 3))], np.zeros((4, 4)))


def test_ratios_are_bars(tmp_path):
    """The median over rounds of a peer's time over ours, from records, a bench file's content, or the file."""
    ours = {"numbaconv": [1.0, 2.0, 4.0], "numbaconv_prepared": [1.0, 1.0, 2.0]}
    records = [
        record("a", torch=[2.0, 2.0, 8.0], onnxruntime=[1.0, 0.5, 1.0], **ours),
        record("b", "weight", numbaconv=[1.0], torch=[3.0]),
    ]
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({"records": records}))
    for bench in (records, {"records": records}, path, str(path)):
        figure = plot.ratios(bench)
        forward, weight = figure.axes
        assert [bar.get_x() + bar.get_width() for bar in forward.patches] == [2.0, 0.5]
        assert [bar.get_x() + bar.get_width() for bar in weight.patches] == [3.0]
        assert [text.get_text() for text in forward.get_legend().get_texts()] == [
            "PyTorch / numbaconv",
            "ONNX Runtime / numbaconv, prepared",
        ]
    with pytest.raises(ArgumentError, match="no times of numbaconv's and of another"):
        plot.ratios([record("a", **ours)])
    with pytest.raises(ArgumentError, match="none were found"):
        plot.ratios({})


def test_the_roofline_is_the_machine_s():
    figure = plot.roofline([record("a", numbaconv_prepared=[0.02], torch=[0.05]), record("b", "input", torch=[0.1])])
    forward, by_input = figure.axes
    (roof,) = forward.lines
    intensity, rate = roof.get_data()
    np.testing.assert_allclose(rate, np.minimum(105, 20.5 * intensity), atol=6)
    points = {each.get_label(): each.get_offsets()[0].tolist() for each in forward.collections}
    assert points == {"PyTorch": [40.0, 20.0], "numbaconv, prepared": [40.0, 50.0]}
    assert len(by_input.collections) == 1
    with pytest.raises(ArgumentError, match="no samples of the machine's peak"):
        plot.roofline([record("a", peak=False, torch=[1.0])])


def test_no_global_state():
    """No display, no pyplot; and the library is loaded with the first picture."""
    program = (
        "import sys, numpy, numbaconv\n"
        "numbaconv.plot\n"
        "assert 'matplotlib' not in sys.modules\n"
        "numbaconv.plot.filters(numpy.ones((1, 1, 3, 3)))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "for name in [name for name in sys.modules if name.startswith('matplotlib')]: sys.modules[name] = None\n"
        "numbaconv.plot.filters(numpy.ones((1, 1, 3, 3)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "numbaconv.plot.filters needs matplotlib: pip install 'numbaconv[plot]'" in done.stderr
    assert "AssertionError" not in done.stderr


def test_the_readme_s_pictures(tmp_path):
    """Made by a script, and those that are shown are there."""
    import readme_pictures

    readme_pictures.draw(tmp_path)
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"filters.png", "feature_maps.png", "receptive_field.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
    root = Path(__file__).parent.parent
    shown = re.findall(r"!\[.*?\]\((.*?)\)", (root / "README.md").read_text())
    assert len(shown) == 4
    assert all((root / path).is_file() for path in shown)
    assert {Path(path).name for path in shown} - made == {"peers.png", "roofline.png"}


def test_files(tmp_path):
    figure = plot.feature_maps(np.ones((2, 3, 3)))
    assert isinstance(figure, matplotlib.figure.Figure)
    plot.save(figure, tmp_path / "new" / "maps.svg")
    assert "<svg" in (tmp_path / "new" / "maps.svg").read_text()
