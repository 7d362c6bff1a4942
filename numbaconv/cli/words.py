"""A layer in words: options for shapes and arguments, and what they stand for."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from ..bench.layer_table import Layer, read
from ..plan import ConvPlan, plan_conv
from .answers import CommandError

__all__ = ["Parser", "add_layer", "add_layers", "arguments_of", "chosen_layers", "plan_of"]

_NETWORKS, _SPEED = "networks.csv", "speed"


class Parser(argparse.ArgumentParser):
    """Errors are exceptions, so that `main` says them in one line."""

    def error(self, message: str) -> NoReturn:
        raise CommandError(message)


def _extents(text: str) -> tuple[int, ...]:
    """``1x64x56x56`` or ``1,64,56,56``."""
    try:
        return tuple(int(part) for part in text.replace(",", "x").split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no shape: write integers with x between them, as in 3x3"
        ) from None


def _padding(text: str) -> Any:
    """A name, ``1``, ``1x2``, or cells before and after each axis: ``1:2x0:0``."""
    if text.isalpha() or "_" in text:
        return text
    if ":" not in text:
        return _extents(text)
    pairs = [tuple(part.split(":")) for part in text.split("x")]
    try:
        return tuple((int(before), int(after)) for before, after in pairs)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no padding: write a name, 1, 1x2, or before:after for each axis, as in 1:2x0:0"
        ) from None


def add_layer(parser: argparse.ArgumentParser, required: bool) -> None:
    """Options that say a layer in words."""
    group = parser.add_argument_group("a layer", "shapes as arrays have them; see numbaconv.conv for the rest")
    group.add_argument("--input", type=_extents, required=required, metavar="NxCxHxW", help="e.g. 1x64x56x56")
    group.add_argument("--weight", type=_extents, required=required, metavar="OxIxHxW", help="e.g. 64x64x3x3")
    group.add_argument("--stride", type=_extents, default=(1,), metavar="S")
    group.add_argument("--padding", type=_padding, default=(0,), metavar="P", help="1, 1x2, 1:2x0:0, same, causal, ...")
    group.add_argument("--dilation", type=_extents, default=(1,), metavar="D")
    group.add_argument("--groups", type=int, default=1, metavar="G")
    group.add_argument("--transposed", action="store_true", help="a transposed convolution")
    group.add_argument("--output-padding", type=_extents, default=(0,), metavar="P")


def arguments_of(options: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of `plan_conv` that the words stand for."""
    names = ("stride", "padding", "dilation", "groups", "transposed", "output_padding")
    return {name: getattr(options, name) for name in names}


def plan_of(options: argparse.Namespace) -> ConvPlan:
    """The plan of the layer in words."""
    return plan_conv(options.input, options.weight, **arguments_of(options))


def add_layers(parser: argparse.ArgumentParser) -> None:
    """Options that choose layers: a network's, or one in words."""
    networks = sorted({layer.network for layer in read(_NETWORKS)})
    parser.add_argument("network", nargs="?", help=f"layers of one of: {', '.join(networks)}; or 'speed', 40 of many")
    parser.add_argument("--layers", nargs="+", default=[""], metavar="TEXT", help="those whose name has one of these")
    parser.add_argument("--batch", type=int, help="samples; 1 unless given, and for 'speed' those of its table")
    add_layer(parser, required=False)


def chosen_layers(options: argparse.Namespace) -> list[Layer]:
    """The layers that the options choose."""
    if options.input is not None or options.weight is not None:
        if options.network is not None or options.input is None or options.weight is None:
            raise CommandError("give --input and --weight for one layer, or the name of a network")
        if options.batch is not None:
            raise CommandError("--batch is for a network's layers; --input has the samples of one in words")
        return [_layer(plan_of(options))]
    if options.network is None:
        raise CommandError("give the name of a network, or --input and --weight for one layer")
    if options.batch is not None and options.batch < 1:
        raise CommandError(f"--batch must be at least 1, but is {options.batch}")
    if options.network == _SPEED:
        layers, batch = read(f"{_SPEED}.csv"), options.batch
    else:
        layers, batch = [layer for layer in read(_NETWORKS) if layer.network == options.network], options.batch or 1
    if not layers:
        known = sorted({layer.network for layer in read(_NETWORKS)})
        raise CommandError(f"network {options.network!r} is unknown; there are {', '.join(known)}, and speed")
    found = _named(layers, options.layers)
    if not found:
        raise CommandError(f"no layer of {options.network} is called {' or '.join(options.layers)}")
    return found if batch is None else [layer.of_batch(batch) for layer in found]


def _named(layers: Sequence[Layer], parts: Sequence[str]) -> list[Layer]:
    return [layer for layer in layers if any(part in layer.name for part in parts)]


def _layer(plan: ConvPlan) -> Layer:
    """With padding in numbers, which every library understands."""
    arguments: dict[str, Any] = {
        "stride": tuple(axis.stride for axis in plan.axes),
        "padding": tuple((axis.pad_before, axis.pad_after) for axis in plan.axes),
        "dilation": tuple(axis.dilation for axis in plan.axes),
        "groups": plan.groups,
    }
    if plan.transposed:
        arguments["output_padding"] = tuple(
            axis.input - (axis.output - 1) * axis.stride - axis.extent + axis.pad_before + axis.pad_after
            for axis in plan.axes
        )
    name = "x".join(map(str, plan.input_shape)) + " * " + "x".join(map(str, plan.weight_shape))
    return Layer(
        name=f"given/{name}",
        transposed=plan.transposed,
        input_shape=plan.input_shape,
        weight_shape=plan.weight_shape,
        arguments=arguments,
        output_shape=plan.output_shape,
        mmac=plan.macs / 1e6,
        has_bias=plan.has_bias,
    )
