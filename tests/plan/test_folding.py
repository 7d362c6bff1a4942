"""Folded axes: what algorithms see of a plan, against what the axes themselves say."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numbaconv.plan import PADDING_MODES, Axis, folded_as, plan_conv, scoped_folds
from numbaconv.plan.folding import axes_folded, folds_of, unfolded


def folded(spatial, kernel, **arguments):
    plan = plan_conv((1, 1, *spatial), (1, 1, *kernel), **arguments)
    return plan.x_shape[2:], plan.w_shape[2:]


@pytest.mark.parametrize(
    ("spatial", "kernel", "arguments", "cells", "taps"),
    [
        ((256, 256, 256), (25, 1, 1), {}, (1, 256, 65536), (1, 25, 1)),
        ((256, 256, 256), (1, 25, 1), {}, (256, 256, 256), (1, 25, 1)),
        ((256, 256, 256), (1, 1, 25), {}, (1, 65536, 256), (1, 1, 25)),
        ((256, 256, 1), (25, 1, 1), {"padding": (12, 0, 0)}, (1, 256, 256), (1, 25, 1)),
        ((512, 512, 3), (9, 9, 1), {"padding": (4, 4, 0)}, (1, 512, 1536), (1, 9, 9)),
        ((512, 512, 3), (9, 9, 1), {"padding": (4, 4, 0), "padding_mode": "reflect"}, (1, 512, 1536), (1, 9, 9)),
        ((512, 512, 15), (9, 9, 1), {}, (1, 512, 7680), (1, 9, 9)),
        ((512, 512, 16), (9, 9, 1), {}, (512, 512, 16), (9, 9, 1)),
        ((512, 512, 3), (9, 9, 1), {"stride": (1, 2, 1)}, (3, 512, 512), (1, 9, 9)),
        ((512, 512, 3), (9, 7, 3), {"stride": 2, "padding": 1}, (3, 512, 512), (3, 9, 7)),
        ((1, 512, 3), (1, 7, 3), {"stride": 2}, (3, 1, 512), (3, 1, 7)),
        ((512, 512, 4), (9, 9, 1), {"stride": (1, 2, 1)}, (512, 512, 4), (9, 9, 1)),
        ((512, 8, 3), (9, 3, 1), {"stride": (1, 2, 1)}, (512, 8, 3), (9, 3, 1)),
        ((512, 3), (9, 1), {"stride": (2, 1)}, (1, 512, 3), (1, 9, 1)),
        ((256, 256, 3), (3, 3, 3), {}, (256, 256, 3), (3, 3, 3)),
        ((512, 512, 1), (9, 9, 1), {"stride": (1, 2, 1)}, (1, 512, 512), (1, 9, 9)),
        ((512, 512, 1), (9, 9, 1), {"stride": 2}, (1, 512, 512), (1, 9, 9)),
        ((64, 1, 64), (3, 1, 3), {}, (1, 64, 64), (1, 3, 3)),
        ((64, 2, 64), (3, 1, 3), {}, (64, 2, 64), (3, 1, 3)),
        ((64, 3, 2), (5, 1, 1), {}, (1, 1, 384), (1, 1, 5)),
        ((4096, 3), (5, 1), {}, (1, 1, 12288), (1, 1, 5)),
        ((1, 64), (1, 3), {}, (1, 1, 64), (1, 1, 3)),
        ((64, 3), (1, 3), {}, (1, 64, 3), (1, 1, 3)),
        ((64, 3), (3, 1), {"padding": (0, 1)}, (1, 64, 3), (1, 3, 1)),
        ((64, 64), (1, 1), {}, (1, 64, 64), (1, 1, 1)),
        ((64, 64, 1), (1, 1, 1), {}, (1, 1, 4096), (1, 1, 1)),
        ((64, 64, 16), (1, 1, 1), {}, (64, 64, 16), (1, 1, 1)),
        ((2, 2**12, 2**12), (2, 1, 1), {}, (1, 2, 2**24), (1, 2, 1)),
    ],
)
def test_what_algorithms_see(spatial, kernel, arguments, cells, taps):
    assert folded(spatial, kernel, **arguments) == (cells, taps)


def test_lanes_of_channels_need_no_long_axis():
    for channels, cells in ((1, (1, 64, 576)), (4, (64, 64, 9))):
        plan = plan_conv((1, channels, 64, 64, 9), (channels, channels, 3, 3, 1))
        assert plan.x_shape[2:] == cells


def test_groups_of_channels_keep_a_short_last_axis():
    strided = {"stride": (2, 2, 1)}
    for groups, cells in ((4, (3, 64, 64)), (1, (64, 64, 3)), (2, (64, 64, 3))):
        plan = plan_conv((1, 4, 64, 64, 3), (4, 4 // groups, 3, 3, 1), groups=groups, **strided)
        assert plan.x_shape[2:] == cells
    plan = plan_conv((1, 4, 64, 64, 1), (8, 4, 1, 1, 1))  # its positions are one stretch as they are
    assert not plan.is_folded


def test_what_users_see_stays():
    plan = plan_conv((2, 3, 16, 16, 3), (5, 3, 9, 9, 1), padding=(4, 4, 0), dilation=(1, 1, 7), bias=True)
    assert plan.is_folded
    assert [axis.input for axis in plan.axes] == [16, 16, 3]
    assert plan.input_shape == (2, 3, 16, 16, 3)
    assert plan.weight_shape == (5, 3, 9, 9, 1)
    assert plan.output_shape == (2, 5, 16, 16, 3)
    assert plan.macs == 2 * 5 * 16 * 16 * 3 * 3 * 81
    assert plan.parameters == 5 * 3 * 81 + 5
    assert "stride (1, 1, 1)" in str(plan)


def test_within_a_block_a_part_folds_as_the_whole():
    whole = plan_conv((1, 1, 64, 100), (1, 1, 5, 1))
    assert whole.folds == ((), (0,), (1,))
    with folded_as(whole.folds):
        assert scoped_folds.get() == whole.folds
    assert scoped_folds.get() is None


def axes():
    """Axes of few cells, most of them without taps or of one cell."""
    few = st.sampled_from([1, 1, 1, 2, 3])

    def built(cells, kernel, stride, dilation, before, after, mode):
        kernel = min(kernel, before + cells + after)
        dilation = min(dilation, max((before + cells + after - 1) // max(kernel - 1, 1), 1))
        span = dilation * (kernel - 1) + 1
        outputs = (before + cells + after - span) // stride + 1
        return Axis(cells, outputs, kernel, stride, dilation if kernel > 1 else 1, before, after, mode)

    pads = st.sampled_from([0, 0, 0, 1, 4])
    return st.builds(built, st.integers(1, 9), few, few, few, pads, pads, st.sampled_from(PADDING_MODES))


def reads(axes):
    """For each tap and output cell of three axes, in C order: the number of the input cell, or why there is none."""
    cells = [axis.input for axis in axes]
    found = []
    for taps in product(*(range(axis.kernel) for axis in axes)):
        for outputs in product(*(range(axis.output) for axis in axes)):
            at = [a.source(o * a.stride + k * a.dilation) for a, o, k in zip(axes, outputs, taps, strict=True)]
            outside = [each for each in at if each < 0]
            found.append(outside[-1] if outside else int(np.ravel_multi_index(at, cells)))
    return found


@settings(max_examples=500, deadline=None)
@given(given_axes=st.lists(axes(), min_size=1, max_size=3).map(tuple), alone=st.booleans())
def test_folded_axes_read_the_same_cells_in_the_same_order(given_axes, alone):
    folds = folds_of(given_axes, alone)
    assert sorted(at for group in folds for at in group) == list(range(len(given_axes)))
    whole = axes_folded(given_axes, folds)
    order = [at for group in folds for at in group]
    brought = tuple(given_axes[at] for at in order)
    assert reads(whole) == reads(axes_folded(brought, unfolded(len(brought))))
    for axis in whole:
        assert axis.used <= axis.padded
