"""One axis: tap ranges and phases against the sources of padded positions, which numpy.pad checks."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from numbaconv.backends.tables import preimages, source_table
from numbaconv.plan import CONSTANT, PADDING_MODES, ZERO, Axis

NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap", "symmetric": "symmetric"}


@st.composite
def axes(draw):
    n, kernel, stride, dilation, before, after = (
        draw(st.integers(low, high)) for low, high in ((1, 12), (1, 5), (1, 5), (1, 4), (0, 14), (0, 14))
    )
    extent = dilation * (kernel - 1) + 1
    fits = [start for start in range(0, before + n + after, stride) if start + extent <= before + n + after]
    mode = draw(st.sampled_from(PADDING_MODES))
    if np.lib.NumpyVersion(np.__version__) < "2.0.0" and mode in ("reflect", "symmetric"):
        assume(max(before, after) < n)  # where cells are mirrored more than once, numpy.pad of NumPy 1 has others
    return Axis(n, len(fits), kernel, stride, dilation, before, after, mode)


def sources(axis):
    """The input cell at every padded position, from numpy.pad."""
    if axis.mode in NUMPY_MODES:
        padded = np.pad(np.arange(axis.input), (axis.pad_before, axis.pad_after), mode=NUMPY_MODES[axis.mode])
    else:
        fill = CONSTANT if axis.mode == "constant" else ZERO
        padded = np.pad(np.arange(axis.input), (axis.pad_before, axis.pad_after), constant_values=fill)
    return padded.tolist()


@settings(max_examples=500, deadline=None)
@given(axis=axes())
def test_sources_are_numpy_pad(axis):
    padded = sources(axis)
    assert [axis.source(position) for position in range(axis.padded)] == padded
    assert source_table(axis).tolist() == padded[: axis.used]


@settings(max_examples=500, deadline=None)
@given(axis=axes())
def test_ranges(axis):
    def inside(o, k):
        return 0 <= o * axis.stride + k * axis.dilation - axis.pad_before < axis.input

    for k in range(axis.kernel):
        first, last = axis.tap_range(k)
        assert [o for o in range(axis.output) if inside(o, k)] == list(range(first, last))


@settings(max_examples=500, deadline=None)
@given(axis=axes())
def test_phases(axis):
    for k in range(axis.kernel):
        phase, shift = axis.tap_phase(k)
        assert 0 <= phase < axis.stride
        for o in range(axis.output):
            assert o * axis.stride + k * axis.dilation == axis.stride * (o + shift) + phase


@settings(max_examples=500, deadline=None)
@given(axis=axes())
def test_preimages_invert_sources(axis):
    """Outputs and taps meet at the same cells, whether positions are the axis's own or numbered anew."""
    stride, dilation, start, positions = preimages(axis)
    padded = sources(axis)[: axis.used]
    pairs = [(o, k) for o in range(axis.output) for k in range(axis.kernel)]
    for cell in range(axis.input):
        found = positions[start[cell] : start[cell + 1]].tolist()
        assert found == sorted(set(found))
        wanted = [(o, k) for o, k in pairs if padded[o * axis.stride + k * axis.dilation] == cell]
        assert [(o, k) for o, k in pairs if o * stride + k * dilation in found] == wanted
    assert positions.size <= 2 * len(pairs)


def test_used_positions_are_those_that_taps_read():
    axis = Axis(input=9, output=3, kernel=2, stride=3, dilation=2, pad_before=1, pad_after=4)
    read = {o * 3 + k * 2 for o in range(3) for k in range(2)}
    assert axis.used == max(read) + 1
    assert Axis(input=9, output=0).used == 0


def test_maps_padding():
    mapping = [mode for mode in PADDING_MODES if Axis(mode=mode).maps_padding]
    assert mapping == ["reflect", "replicate", "circular", "symmetric"]


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_axes_are_values(mode):
    assert Axis(5, 3, 3, mode=mode) == Axis(5, 3, 3, mode=mode)
    assert len({Axis(5, 3, 3, mode=mode), Axis(5, 3, 3, mode=mode), Axis(6, 4, 3, mode=mode)}) == 2
