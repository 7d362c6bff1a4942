"""What a call costs beside its arithmetic: tiny problems, microseconds a call, numbaconv and PyTorch taking turns.

Each figure is the least of many loops of many calls; all run in one process, with one thread, on the same arrays.
``python perf/call_overhead.py``
"""

import argparse
import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np

import numbaconv
from numbaconv import grad

Call = Callable[[], object]
COLUMNS = ("numbaconv", "prepared", "PyTorch")


class Problem(NamedTuple):
    """A convolution, and the direction that is called."""

    input: tuple[int, ...]
    weight: tuple[int, ...]
    options: dict
    direction: str = "forward"


PROBLEMS = {
    "1x8x8x8, 3x3 -> 8": Problem((1, 8, 8, 8), (8, 8, 3, 3), {"padding": 1}),
    "1x3x8x8, 3x3 -> 8, stride 2": Problem((1, 3, 8, 8), (8, 3, 3, 3), {"padding": 1, "stride": 2}),
    "1x8x8x8, 1x1 -> 8": Problem((1, 8, 8, 8), (8, 8, 1, 1), {}),
    "1x8x8x8, 3x3 depthwise": Problem((1, 8, 8, 8), (8, 1, 3, 3), {"padding": 1, "groups": 8}),
    "1x8x32, 5 -> 8": Problem((1, 8, 32), (8, 8, 5), {"padding": 2}),
    "1x8x8x8, 3x3 -> 8, by input": Problem((1, 8, 8, 8), (8, 8, 3, 3), {"padding": 1}, "input"),
    "1x8x8x8, 3x3 -> 8, by weight": Problem((1, 8, 8, 8), (8, 8, 3, 3), {"padding": 1}, "weight"),
}


def our_calls(problem: Problem, x: np.ndarray, w: np.ndarray, g: np.ndarray) -> dict[str, Call]:
    name, options = f"conv{x.ndim - 2}d", problem.options
    if problem.direction == "input":
        by_input = getattr(grad, f"{name}_input")
        return {"numbaconv": lambda: by_input(x.shape, w, g, **options)}
    if problem.direction == "weight":
        by_weight = getattr(grad, f"{name}_weight")
        return {"numbaconv": lambda: by_weight(x, w.shape, g, **options)}
    forward, prepared = getattr(numbaconv, name), numbaconv.prepare(w, **options)
    return {"numbaconv": lambda: forward(x, w, **options), "prepared": lambda: prepared(x)}


def torch_calls(problem: Problem, x: np.ndarray, w: np.ndarray, g: np.ndarray) -> dict[str, Call]:
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    a, b, c = (torch.from_numpy(each) for each in (x, w, g))
    rank, options = x.ndim - 2, problem.options
    if problem.direction == "forward":
        forward = getattr(torch.nn.functional, f"conv{rank}d")
        return {"PyTorch": lambda: forward(a, b, **options)}
    mask = [problem.direction == "input", problem.direction == "weight", False]
    stride, padding, groups = options.get("stride", 1), options.get("padding", 0), options.get("groups", 1)
    fixed = (None, [stride] * rank, [padding] * rank, [1] * rank, False, [0] * rank, groups, mask)
    backward = torch.ops.aten.convolution_backward
    return {"PyTorch": lambda: backward(c, a, b, *fixed)}


def least(calls: dict[str, Call], loops: int, rounds: int) -> dict[str, float]:
    """Microseconds of a call, the least over rounds in which they take turns."""
    found = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()  # compiles, and is remembered
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(loops):
                call()
            found[name] = min(found[name], (time.perf_counter() - begin) / loops * 1e6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loops", type=int, default=2000, help="calls of a loop")
    parser.add_argument("--rounds", type=int, default=25, help="loops of each call")
    parser.add_argument("--only", default="", help="problems whose name contains this")
    asked = parser.parse_args()
    numba.set_num_threads(1)
    rng = np.random.default_rng(0)
    line = functools.partial("{:30} {:>10} {:>10} {:>10}".format)
    print(line("microseconds a call", *COLUMNS))
    for name, problem in PROBLEMS.items():
        if asked.only not in name:
            continue
        output = numbaconv.output_shape(problem.input, problem.weight, **problem.options)
        x, w, g = (rng.standard_normal(shape, dtype=np.float32) for shape in (problem.input, problem.weight, output))
        found = least({**our_calls(problem, x, w, g), **torch_calls(problem, x, w, g)}, asked.loops, asked.rounds)
        print(
            line(name, *(f"{found[who]:.1f}" if who in found else "" for who in ("numbaconv", "prepared", "PyTorch")))
        )


if __name__ == "__main__":
    main()
