"""pyperf benchmarks: layers, directions, and every backend and algorithm that accepts them.

    python perf/bench_conv.py --fast -o before.json
    python perf/bench_conv.py --fast -o after.json
    python -m pyperf compare_to before.json after.json --table

Environment variables choose, since pyperf starts workers with its own options: ``BENCH_TABLE`` (speed.csv),
``BENCH_LAYERS`` (part of a name; default: a handful), ``BENCH_DIRECTIONS`` (forward,input,weight) and
``BENCH_ALGORITHMS`` (``all``, or names; default: what is chosen by itself).
"""

import os
import sys

import numba
import pyperf

import numbaconv
from numbaconv import AlgorithmError
from numbaconv.bench import layer_table
from numbaconv.bench.layer_table import Layer
from numbaconv.bench.peers import numbaconv_call
from numbaconv.bench.ratios import DIRECTIONS

VARIABLES = ("BENCH_TABLE", "BENCH_LAYERS", "BENCH_DIRECTIONS", "BENCH_ALGORITHMS")
HANDFUL = (
    "res2a_branch2b",
    "res3a_branch2b",
    "res2b_branch2a",
    "conv5_1",
    "MobileNetV1:8",
    "dil64",
    "r3d_18",
    "netG:2",
)


def algorithms(layer: Layer, direction: str, wanted: str) -> list[str | None]:
    """The algorithms to time: None is what is chosen by itself."""
    if not wanted:
        return [None]
    explained = numbaconv.explain(
        layer.input_shape, layer.weight_shape, direction=direction, transposed=layer.transposed, **layer.arguments
    )
    accepted = [each.name for each in explained.candidates if each.refusal is None]
    return list(accepted) if wanted == "all" else [name for name in accepted if name in wanted.split(",")]


def main() -> None:
    runner = pyperf.Runner()
    runner.argparser.set_defaults(inherit_environ=[*VARIABLES, "NUMBA_NUM_THREADS", "OMP_WAIT_POLICY"])
    runner.parse_args()
    runner.metadata["threads"] = numba.config.NUMBA_NUM_THREADS
    layers = os.environ.get("BENCH_LAYERS")
    directions = os.environ.get("BENCH_DIRECTIONS", ",".join(DIRECTIONS)).split(",")
    for layer in layer_table.read(os.environ.get("BENCH_TABLE", "speed.csv")):
        if not any(part in layer.name for part in ((layers,) if layers else HANDFUL)):
            continue
        for direction in directions:
            for algorithm in algorithms(layer, direction, os.environ.get("BENCH_ALGORITHMS", "")):
                name = "/".join([layer.name, direction, *([algorithm] if algorithm else [])])
                try:
                    runner.bench_func(name, numbaconv_call(layer, direction, algorithm))
                except AlgorithmError as error:
                    print(error, file=sys.stderr)


if __name__ == "__main__":
    main()
