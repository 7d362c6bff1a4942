"""``numbaconv explain``: what a layer would run, and why."""

from argparse import Namespace
from dataclasses import asdict
from typing import Any

from ..explain import Explanation, explain
from .answers import Answer
from .words import add_layer, arguments_of

__all__ = ["add", "run"]


def add(commands: Any) -> Any:
    """Its options."""
    parser = commands.add_parser("explain", help="what a layer would run, and why")
    add_layer(parser, required=True)
    parser.add_argument("--padding-mode", default="zeros")
    parser.add_argument("--data-format", help="NCHW, NHWC, ...")
    parser.add_argument("--weight-format", help="OIHW, HWIO, ...")
    parser.add_argument("--bias", action="store_true", help="count one")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--direction", default="forward", choices=("forward", "input", "weight"))
    parser.add_argument("--backend")
    parser.add_argument(
        "--precision", help="strict (nothing through transforms), float32, or tf32 (operands may be rounded)"
    )
    parser.add_argument("--algorithm", help="as if it were forced")
    return parser


def run(options: Namespace) -> Answer:
    """Plan, candidates and choice."""
    names = ("padding_mode", "data_format", "weight_format", "bias", "dtype", "direction")
    more = {name: getattr(options, name) for name in (*names, "backend", "algorithm", "precision")}
    found = explain(options.input, options.weight, **arguments_of(options), **more)
    return Answer(_data(found), lambda screen: screen.print(str(found), highlight=False, markup=False))


def _data(found: Explanation) -> dict[str, Any]:
    plan = found.plan
    return {
        "algorithm": found.algorithm,
        "backend": found.backend,
        "candidates": [asdict(each) for each in found.candidates],
        "note": found.note,
        "plan": {
            "input_shape": plan.input_shape,
            "weight_shape": plan.weight_shape,
            "output_shape": plan.output_shape,
            "dtype": plan.dtype,
            "compute_dtype": plan.compute_dtype,
            "output_dtype": plan.output_dtype,
            "precision": plan.precision,
            "flops": plan.flops,
            "parameters": plan.parameters,
            "least_bytes": plan.least_bytes,
            "arithmetic_intensity": plan.arithmetic_intensity,
        },
        "primitive": found.direction.name,
    }
