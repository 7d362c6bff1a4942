"""``numbaconv tune``: measure the algorithms for layers, and remember the fastest."""

from argparse import Namespace
from typing import Any

from ..tuning import tune
from .answers import Answer
from .words import add_layers, chosen_layers

__all__ = ["add", "run"]


def add(commands: Any) -> Any:
    """Its options."""
    parser = commands.add_parser("tune", help="measure the algorithms for layers, and remember the fastest")
    add_layers(parser)
    parser.add_argument("--directions", nargs="+", default=["forward"], choices=("forward", "input", "weight"))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--backend")
    parser.add_argument(
        "--precision", help="strict (nothing through transforms), float32, or tf32 (operands may be rounded)"
    )
    return parser


def run(options: Namespace) -> Answer:
    """Winners and times."""
    problems = [
        {
            "input_shape": layer.input_shape,
            "weight_shape": layer.weight_shape,
            "transposed": layer.transposed,
            "direction": direction,
            **layer.arguments,
        }
        for direction in options.directions
        for layer in chosen_layers(options)
    ]
    found = tune(problems, dtype=options.dtype, backend=options.backend, precision=options.precision)
    rows = [
        {
            "problem": str(row.plan).splitlines()[0],
            "primitive": row.direction.name,
            "backend": row.backend,
            "automatic": row.automatic,
            "algorithm": row.algorithm,
            "seconds": row.seconds,
        }
        for row in found.rows
    ]
    return Answer({"rows": rows}, lambda screen: screen.print(str(found), highlight=False, markup=False))
