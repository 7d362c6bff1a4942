"""The layers of real networks: shapes and costs of all, values of those that a test can afford."""

import numpy as np
import pytest

import numbaconv
import oracle
from numbaconv import plan_conv
from numbaconv.backends.base import Direction
from numbaconv.bench import layer_table
from problems import assert_exact, chosen, spread_magnitude

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


def _bound(plan, direction, source, other):
    """Bounds on the errors of the algorithm that is chosen, where it is not exact on integers."""
    algorithm = chosen(direction, plan)
    if not algorithm.spreading:
        return 0
    eps = np.finfo(plan.compute_dtype).eps
    return algorithm.error_factor(plan) * eps * spread_magnitude(direction, plan, source, other)


def _check_values(row):
    rng = np.random.default_rng(11)
    x, w = _integers(rng, row.input_shape), _integers(rng, row.weight_shape)
    rank, arguments = row.rank, dict(row.arguments)
    function = getattr(numbaconv, f"conv_transpose{rank}d" if row.transposed else f"conv{rank}d")
    y = function(x, w, **arguments)
    plan = plan_conv(row.input_shape, row.weight_shape, transposed=row.transposed, **arguments)
    pads = arguments.pop("padding")
    if row.transposed:
        wanted = oracle.conv_transpose(x.astype(np.int32), w.astype(np.int32), pads=pads, **arguments)
    else:
        wanted = oracle.forward(x.astype(np.int32), w.astype(np.int32), pads=pads, modes=("zeros",) * rank, **arguments)
    direction = Direction.INPUT_GRAD if row.transposed else Direction.FORWARD
    assert_exact(y, wanted.astype(np.float32), chosen(direction, plan), lambda: _bound(plan, direction, x, w), row.name)


@pytest.mark.parametrize("part", range(8))
def test_values(part):
    """Exact, on integers, unless the chosen algorithm says that errors spread. Each float32 sum stays below 2**24."""
    for row in AFFORDABLE[part::8]:
        assert np.prod(row.weight_shape[1:]) * 4 < 2**24
        _check_values(row)


@pytest.mark.parametrize("part", range(2))
def test_gradients_are_adjoint(part):
    """<g, conv(x, w)> = <grad_x, x> = <grad_w, w>: on integers below 2**53, in float64.

    Exactly, unless a chosen algorithm says that errors spread.
    """
    for row in AFFORDABLE[part::16]:
        rng = np.random.default_rng(12)
        x, w = (_integers(rng, shape).astype(np.float64) for shape in (row.input_shape, row.weight_shape))
        g = _integers(rng, row.output_shape).astype(np.float64)
        name = f"conv_transpose{row.rank}d" if row.transposed else f"conv{row.rank}d"
        y = getattr(numbaconv, name)(x, w, **row.arguments)
        gradients = getattr(numbaconv.grad, f"{name}_backward")(g, x, w, **row.arguments)
        plan = plan_conv(row.input_shape, row.weight_shape, transposed=row.transposed, dtype="float64", **row.arguments)
        of_y, of_x, of_w = _adjoint_bounds(plan, x, w, g, transposed=row.transposed)
        assert abs(np.vdot(g, y) - np.vdot(gradients.input, x)) <= of_y + of_x, row.name
        assert abs(np.vdot(g, y) - np.vdot(gradients.weight, w)) <= of_y + of_w, row.name
        np.testing.assert_array_equal(gradients.bias, g.sum(axis=(0, *range(2, g.ndim))), err_msg=row.name)


def _adjoint_bounds(plan, x, w, g, *, transposed):
    """How far inner products with the output and with the gradients by input and weight may be off; 0 if exact."""
    read, written = (
        (Direction.INPUT_GRAD, Direction.FORWARD) if transposed else (Direction.FORWARD, Direction.INPUT_GRAD)
    )
    operands = (g, x) if transposed else (x, g)
    return (
        np.sum(abs(g) * _bound(plan, read, x, w)),
        np.sum(abs(x) * _bound(plan, written, g, w)),
        np.sum(abs(w) * _bound(plan, Direction.WEIGHT_GRAD, *operands)),
    )
