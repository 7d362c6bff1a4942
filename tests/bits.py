"""Calls that are large enough to run in parallel, and their results' bits as short texts.

As a program it computes them all with each number of threads that it is given, and prints them as JSON, so that
processes can be compared.
"""

import hashlib
import json
import sys
from dataclasses import dataclass

import numba
import numpy as np

import numbaconv
from numbaconv.backends.base import Algorithm, Direction
from numbaconv.backends.cpu import BACKEND, launch
from numbaconv.backends.cpu.launch import runs_serially
from problems import Problem, operands, run

_P = Problem

launch._crowd.waited = lambda *told: None  # as many threads as are asked for, however busy the machine is

#: Each visits another way in which work is split; those named by ``only`` are too large for the others.
LARGE = {
    "dense": _P((19, 27), (3, 3), batch=5, c_in=24, c_out=48, pads=((1, 1), (1, 1))),
    "groups, strided": _P((31, 38), (3, 3), batch=4, c_in=36, c_out=44, groups=2, stride=(2, 2), pads=((1, 1), (0, 1))),
    "dilated": _P((30, 33), (3, 3), batch=3, c_in=17, c_out=21, dilation=(3, 2), pads=((3, 3), (2, 2))),
    "pointwise": _P((9, 10), (1, 1), batch=13, c_in=56, c_out=72),
    "small maps": _P((5, 4), (3, 3), batch=23, c_in=48, c_out=40, pads=((1, 1), (1, 1))),
    "wide rows": _P((5, 530), (3, 3), batch=3, c_in=16, c_out=18, pads=((1, 1), (1, 1))),
    "first layer": _P((61, 70), (7, 7), batch=3, c_in=3, c_out=20, stride=(2, 2), pads=((3, 3), (3, 3))),
    "one dimension": _P((3100,), (5,), batch=3, c_in=20, c_out=24, pads=((2, 2),)),
    "three dimensions": _P((6, 13, 12), (3, 3, 3), batch=3, c_in=16, c_out=20, pads=((1, 1),) * 3),
    "depthwise": _P((41, 50), (3, 3), batch=5, c_in=24, c_out=24, groups=24, pads=((1, 1), (1, 1))),
    "depthwise, strided, multiplier 2": _P(
        (60, 71), (5, 5), batch=5, c_in=12, c_out=24, groups=12, stride=(2, 2), pads=((2, 2), (2, 2))
    ),
    "depthwise, long": _P((9000,), (31,), batch=4, c_in=6, c_out=6, groups=6, pads=((15, 15),)),
    "long kernel": _P((3000,), (200,), batch=3, c_in=5, c_out=6, pads=((100, 40),)),
    "long kernel, many blocks": _P((40000,), (40,), batch=3, c_in=24, c_out=3, pads=((7, 30),)),
}
#: Weights that Winograd transforms once for many samples, and as it goes for one.
HEAVY = {
    "heavy weights": _P((16, 16), (3, 3), batch=6, c_in=512, c_out=32, pads=((1, 1), (1, 1))),
    "heavy weights, other way": _P((16, 16), (3, 3), batch=6, c_in=32, c_out=512, pads=((1, 1), (1, 1))),
    "heavy weights, small tiles": _P((16, 16), (3, 3), batch=4, c_in=512, c_out=72, pads=((1, 1), (1, 1))),
}
PROBLEMS = {**LARGE, **HEAVY}
#: Of these many multiply-accumulates the loops without vectors would take long.
_MOST_FOR_LOOPS = 60_000_000


@dataclass(frozen=True)
class Case:
    """A primitive of a problem by one algorithm."""

    name: str
    direction: Direction
    algorithm: Algorithm

    @property
    def problem(self) -> Problem:
        return PROBLEMS[self.name]

    def __str__(self) -> str:
        return f"{self.name}, {self.direction.name}, {self.algorithm.name}"


def cases(dtype="float32"):
    """Every algorithm of every direction that accepts a problem and need not take long for it."""
    found = []
    for name, problem in PROBLEMS.items():
        plan = problem.plan(dtype)
        assert not runs_serially(plan.macs), name
        for direction, table in BACKEND.tables.items():
            for algorithm in table:
                slow = algorithm.name == "direct" or (algorithm.name == "fft" and algorithm.worthwhile(plan))
                if algorithm.accepts(plan) is None and not (slow and plan.macs > _MOST_FOR_LOOPS):
                    found.append(Case(name, direction, algorithm))
    return found


class Call:
    """One case with operands of its own; a call computes it, for all samples or for some."""

    def __init__(self, case, dtype="float32", last=False, epilogue=False):
        self.case, self.last = case, last
        problem, rng = case.problem, np.random.default_rng(70)
        self.x, self.w, self.g = operands(problem, rng, dtype)
        self.forward = case.direction is Direction.FORWARD
        channels, shape = (problem.c_out, self.g.shape) if self.forward else (problem.c_in, self.x.shape)
        self.bias = self.residual = self.activation = None
        if epilogue:
            self.bias = rng.standard_normal(channels).astype(dtype)
            self.residual, self.activation = rng.standard_normal(shape).astype(dtype), "gelu"
        rank = problem.rank
        self.options = {"algorithm": case.algorithm.name, "backend": "cpu"}
        if last:
            self.options |= {
                "data_format": {1: "NWC", 2: "NHWC", 3: "NDHWC"}[rank],
                "weight_format": {1: "OIW", 2: "OIHW", 3: "OIDHW"}[rank],
            }

    def _laid(self, array):
        return np.ascontiguousarray(np.moveaxis(array, 1, -1)) if self.last else array

    def _back(self, array):
        return np.ascontiguousarray(np.moveaxis(array, -1, 1)) if self.last else array

    def _layer(self):
        """The function of the direction's layer, its options, and what it reads."""
        arguments = {**self.case.problem.arguments, **self.options, "activation": self.activation}
        if self.forward:
            return numbaconv.conv, arguments, self.x
        arguments["output_size"] = self.case.problem.spatial
        del arguments["padding_mode"]
        return numbaconv.conv_transpose, arguments, self.g

    def __call__(self, samples=slice(None)):
        if self.case.direction is Direction.WEIGHT_GRAD:
            assert not self.last
            return run(self.case.direction, self.case.problem, self.x, self.w, self.g, **self.options)
        function, arguments, source = self._layer()
        residual = None if self.residual is None else self._laid(self.residual[samples])
        answer = function(self._laid(source[samples]), self.w, self.bias, residual=residual, **arguments)
        return self._back(answer)

    def prepared(self):
        """The same call through `numbaconv.prepare`."""
        _, arguments, source = self._layer()
        layer = numbaconv.prepare(self.w, self.bias, transposed=not self.forward, **arguments)
        residual = None if self.residual is None else self._laid(self.residual)
        return lambda: self._back(layer(self._laid(source), residual))


def digest(array):
    """An array's bits as a short text."""
    return hashlib.sha256(np.ascontiguousarray(array).view(np.uint8)).hexdigest()[:16]


def digests(threads):
    """The bits of every case at a number of threads."""
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        return {str(case): digest(Call(case)()) for case in cases()}
    finally:
        numba.set_num_threads(before)


if __name__ == "__main__":
    print(json.dumps([digests(int(each)) for each in sys.argv[1:]]))  # noqa: T201
