"""The layers of real networks: shapes and costs of all, values of those that a test can afford."""

import numpy as np
import pytest

import layer_table
import numbaconv
import oracle
from numbaconv import plan_conv

ROWS = layer_table.read("networks.csv")
AFFORDABLE = [row for row in ROWS if row.mmac < 50]


def test_the_table_is_whole():
    assert len(ROWS) == 484
    assert len(AFFORDABLE) == 173


@pytest.mark.parametrize("table", ["networks.csv", "speed.csv"])
def test_shapes_and_costs(table):
    for row in layer_table.read(table):
        plan = plan_conv(row.input_shape, row.weight_shape, transposed=row.transposed, **row.arguments)
        assert plan.output_shape == row.output_shape, row.name
        # Some rows were rounded for one sample before the batch was multiplied in.
        assert plan.macs / 1e6 == pytest.approx(row.mmac, abs=0.0006 * row.input_shape[0]), row.name


def _integers(rng, shape):
    return rng.integers(-2, 3, shape).astype(np.float32)


def _check_values(row):
    rng = np.random.default_rng(11)
    x, w = _integers(rng, row.input_shape), _integers(rng, row.weight_shape)
    rank, arguments = row.rank, dict(row.arguments)
    function = getattr(numbaconv, f"conv_transpose{rank}d" if row.transposed else f"conv{rank}d")
    y = function(x, w, **arguments)
    pads = arguments.pop("padding")
    if row.transposed:
        wanted = oracle.conv_transpose(x.astype(np.int32), w.astype(np.int32), pads=pads, **arguments)
    else:
        wanted = oracle.forward(x.astype(np.int32), w.astype(np.int32), pads=pads, modes=("zeros",) * rank, **arguments)
    np.testing.assert_array_equal(y, wanted.astype(np.float32), err_msg=row.name)
    return x, w, y


@pytest.mark.parametrize("part", range(8))
def test_values(part):
    """Exact, on integers. Each float32 sum stays below 2**24."""
    for row in AFFORDABLE[part::8]:
        assert np.prod(row.weight_shape[1:]) * 4 < 2**24
        _check_values(row)


@pytest.mark.parametrize("part", range(2))
def test_gradients_are_adjoint(part):
    """<g, conv(x, w)> = <grad_x, x> = <grad_w, w>, exactly: on integers below 2**53, in float64."""
    for row in AFFORDABLE[part::16]:
        rng = np.random.default_rng(12)
        x, w = (_integers(rng, shape).astype(np.float64) for shape in (row.input_shape, row.weight_shape))
        g = _integers(rng, row.output_shape).astype(np.float64)
        name = f"conv_transpose{row.rank}d" if row.transposed else f"conv{row.rank}d"
        y = getattr(numbaconv, name)(x, w, **row.arguments)
        gradients = getattr(numbaconv.grad, f"{name}_backward")(g, x, w, **row.arguments)
        assert np.vdot(g, y) == np.vdot(gradients.input, x) == np.vdot(gradients.weight, w), row.name
        np.testing.assert_array_equal(gradients.bias, g.sum(axis=(0, *range(2, g.ndim))), err_msg=row.name)
