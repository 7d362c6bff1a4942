"""ConvPlan: costs, layouts, hashing, printing; parameter counts and receptive fields of the textbooks."""

import numpy as np
import pytest

import numbaconv
from numbaconv import count_parameters, output_shape, plan_conv, receptive_field


def test_textbook_cases():
    assert output_shape((1, 3, 32, 32), (16, 3, 3, 3), padding=1) == (1, 16, 32, 32)
    assert count_parameters(64, 128, 3) == 73_856
    assert receptive_field([{"kernel_size": 3}] * 3).size == (7, 7)
    for dilation, size in ((2, 5), (4, 9)):
        assert receptive_field([{"kernel_size": 3, "dilation": dilation}], rank=1).size == (size,)


def test_costs():
    plan = plan_conv((2, 6, 10, 8), (4, 3, 3, 5), groups=2, bias=True, padding=(1, 2))
    outputs = 2 * 4 * 10 * 8
    assert plan.output_shape == (2, 4, 10, 8)
    assert plan.macs == outputs * 3 * 15
    assert plan.flops == 2 * plan.macs
    assert plan.parameters == 4 * 3 * 15 + 4
    assert plan.least_bytes == 4 * (2 * 6 * 80 + 180 + outputs + 4)
    assert plan.arithmetic_intensity == plan.flops / plan.least_bytes


def test_costs_of_other_dtypes():
    shapes = ((1, 2, 5), (3, 2, 2))
    assert plan_conv(*shapes, dtype="float16").least_bytes * 2 == plan_conv(*shapes).least_bytes
    plan = plan_conv(*shapes, dtype=np.int8)
    assert (plan.dtype, plan.compute_dtype, plan.output_dtype) == ("int8", "int32", "int32")
    assert plan.least_bytes == 10 + 12 + 4 * 12


def test_transposed():
    plan = plan_conv((1, 8, 5, 5), (8, 4, 2, 2), stride=2, transposed=True, bias=True)
    assert plan.output_shape == (1, 4, 10, 10)
    assert plan.weight_shape == (8, 4, 2, 2)
    assert plan.macs == 25 * 8 * 4 * 4
    assert plan.parameters == 8 * 4 * 4 + 4
    assert str(plan).startswith("conv_transpose2d  (1, 8, 5, 5) * (8, 4, 2, 2) -> (1, 4, 10, 10)  float32")


@pytest.mark.parametrize("transposed", [False, True])
def test_shapes_in_each_layout(transposed):
    channels = (6, 4) if transposed else (4, 6)
    first = plan_conv((2, 6, 7, 9), (*channels, 3, 3), transposed=transposed)
    last = plan_conv((2, 7, 9, 6), (3, 3, *channels[::-1]), data_format="NHWC", transposed=transposed)
    n, c, h, w = first.output_shape
    assert last.output_shape == (n, h, w, c)
    assert (last.x_shape, last.w_shape, last.y_shape) == (first.x_shape, first.w_shape, first.y_shape)
    assert (last.input_shape, last.weight_shape) == ((2, 7, 9, 6), (3, 3, *channels[::-1]))
    alone = plan_conv((6, 7, 9), (*channels, 3, 3), transposed=transposed)
    assert alone.output_shape == (c, h, w)


def test_plans_are_values():
    shapes = ((1, 2, 8, 8), (3, 2, 3, 3))
    assert plan_conv(*shapes, padding=1) == plan_conv(*shapes, padding="same")
    assert hash(plan_conv(*shapes, padding=1)) == hash(plan_conv(*shapes, padding=((1, 1), (1, 1))))
    assert plan_conv(*shapes) != plan_conv(*shapes, stride=2)
    with pytest.raises(AttributeError):
        plan_conv(*shapes).batch = 2


def test_printing_says_it_all():
    geometry = {"stride": 2, "padding": ((2, 0),), "padding_mode": "circular", "groups": 2, "dilation": 2}
    text = str(plan_conv((1, 4, 9), (6, 2, 3), **geometry))
    first = "conv1d  (1, 4, 9) * (6, 2, 3) -> (1, 6, 4)"
    for part in (first, "stride (2,)", "(2, 0) circular", "groups 2", "FLOPs"):
        assert part in text


def test_receptive_field_of_a_network():
    """VGG-16 up to its last pooling: 212 cells at stride 32 (Araujo, Norris and Sim 2019, table 1)."""
    conv, pool = {"kernel_size": 3, "padding": 1}, {"kernel_size": 2, "stride": 2}
    vgg = [conv, conv, pool] * 2 + [conv, conv, conv, pool] * 3
    field = receptive_field(vgg)
    assert field.size == (212, 212)
    assert field.stride == (32, 32)
    assert field.offset == (-90, -90)


def test_receptive_field_is_what_the_output_sees():
    layers = [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 2, "dilation": 3},
        {"kernel_size": 5, "padding": 2},
    ]
    field = receptive_field(layers, rank=1)
    x = np.zeros((1, 1, 60))
    w = [np.ones((1, 1, layer["kernel_size"])) for layer in layers]

    def stack(x):
        for layer, weight in zip(layers, w, strict=True):
            geometry = {name: value for name, value in layer.items() if name != "kernel_size"}
            x = numbaconv.conv1d(x, weight, **geometry, backend="reference")
        return x[0, 0]

    base, at = stack(x), 8
    seen = []
    for cell in range(60):
        x[0, 0, cell] = 1
        seen += [cell] if stack(x)[at] != base[at] else []
        x[0, 0, cell] = 0
    begin = field.offset[0] + at * field.stride[0]
    assert (min(seen), max(seen)) == (begin, begin + field.size[0] - 1)


def test_receptive_field_takes_plans():
    plans = [plan_conv((1, 1, 32, 32), (1, 1, 3, 3), stride=2, padding=1), plan_conv((1, 1, 16, 16), (1, 1, 3, 3))]
    assert receptive_field(plans) == receptive_field(
        [{"kernel_size": 3, "stride": 2, "padding": 1}, {"kernel_size": 3}]
    )


def test_count_parameters():
    assert count_parameters(3, 96, 11) == 34_944  # AlexNet's first layer
    assert count_parameters(32, 32, (3, 5), groups=32, bias=False) == 480
    assert count_parameters(16, 8, 3, rank=3) == 16 * 8 * 27 + 8
