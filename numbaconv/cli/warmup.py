"""``numbaconv warmup``: compile kernels now, so that no later process has to."""

import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import functional, grad
from ..backends.registry import resolve
from ..explain import explain
from ..extras import dtype_named
from ..plan import SUPPORTED, plan_conv
from ..prepared import prepare
from ..progress import tracked
from .answers import Answer, CommandError, table
from .kernels import kernel_files

__all__ = ["add", "run"]

_DIRECTIONS = ("forward", "input", "weight")
#: Problems of which every algorithm accepts one, so large that kernels run in parallel: shapes and arguments.
_PROBLEMS: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ((2, 32, 40, 40), (32, 32, 3, 3), {"padding": 1}),
    ((2, 32, 40, 40), (32, 32, 5, 5), {"padding": 2}),
    ((2, 32, 40, 40), (32, 32, 3, 3), {"padding": 1, "stride": 2}),
    ((2, 4, 40, 40), (4, 4, 3, 3), {"padding": 1, "stride": 2}),
    ((2, 40, 40, 32), (1, 1, 32, 32), {"data_format": "NHWC"}),
    ((2, 64, 80, 80), (64, 1, 3, 3), {"padding": 1, "groups": 64}),
    ((2, 16, 4096), (16, 16, 31), {"padding": 15}),
    ((2, 32, 4096), (32, 32, 3), {"padding": 1}),
    ((1, 16, 12, 12, 12), (16, 16, 3, 3, 3), {"padding": 1}),
    ((1, 2, 6, 6), (2, 2, 3, 3), {"padding": 1, "padding_mode": "reflect"}),
)


#: What the table calls a depthwise and a pointwise convolution that run as one.
_FUSED = "separable"


class _Step(NamedTuple):
    """One kernel family to compile: what is called for it."""

    dtype: str
    direction: str
    algorithm: str
    call: Callable[[], object]


def add(commands: Any) -> Any:
    """Its options."""
    parser = commands.add_parser("warmup", help="compile kernels now, so that no later process has to")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=tuple(SUPPORTED), metavar="DTYPE")
    parser.add_argument("--directions", nargs="+", default=list(_DIRECTIONS), choices=_DIRECTIONS)
    parser.add_argument("--algorithms", nargs="+", metavar="NAME", help="all, unless given")
    parser.add_argument("--backend")
    return parser


def run(options: Namespace) -> Answer:
    """Seconds for each dtype, direction and algorithm, and how many kernels are on disk now."""
    backend = resolve(options.backend).name
    before = len(kernel_files())
    steps = [
        step
        for dtype in options.dtypes
        for direction in options.directions
        for step in _steps(dtype, direction, backend, options.algorithms)
    ]
    if not steps:
        raise CommandError(f"backend {backend!r} has none of the algorithms {', '.join(options.algorithms or ())}")
    seconds: dict[tuple[str, str, str], float] = {}
    for step in tracked(steps, "compiling"):
        start = time.perf_counter()
        step.call()
        seconds[step[:3]] = seconds.get(step[:3], 0.0) + time.perf_counter() - start
    rows = [
        {"dtype": dtype, "direction": direction, "algorithm": algorithm, "seconds": taken}
        for (dtype, direction, algorithm), taken in seconds.items()
    ]
    after = len(kernel_files())
    data = {"backend": backend, "rows": rows, "files": after, "new files": after - before}
    return Answer(data, lambda screen: _show(screen, data))


def _steps(dtype: str, direction: str, backend: str, names: list[str] | None) -> list[_Step]:
    found = []
    for input_shape, weight_shape, arguments in _PROBLEMS:
        explained = explain(input_shape, weight_shape, direction=direction, backend=backend, dtype=dtype, **arguments)
        for candidate in explained.candidates:
            if candidate.refusal is None and (names is None or candidate.name in names):
                options = {**arguments, "algorithm": candidate.name, "backend": backend}
                call = partial(_run, direction, dtype, input_shape, weight_shape, options)
                found.append(_Step(dtype, direction, candidate.name, call))
    if direction == "forward" and (names is None or _FUSED in names):
        found.append(_Step(dtype, direction, _FUSED, partial(_separable, dtype, backend)))
    return found


def _separable(dtype: str, backend: str) -> None:
    """Both convolutions as one, where the backend has that."""
    shapes = ((2, 32, 80, 80), (32, 1, 3, 3), (32, 32, 1, 1))
    x, depthwise, pointwise = (np.ones(shape, dtype_named("warmup", dtype)) for shape in shapes)
    functional.separable_conv2d(x, depthwise, pointwise, padding=1, backend=backend)


def _run(direction: str, dtype: str, input_shape: tuple[int, ...], weight_shape: tuple[int, ...], options: Any) -> None:
    """One call through the public functions, and for the forward direction what `prepare` packs, too."""
    made = dtype_named("warmup", dtype)
    x, w = np.ones(input_shape, made), np.ones(weight_shape, made)
    name = f"conv{len(input_shape) - 2}d"
    geometry = {key: value for key, value in options.items() if key not in ("algorithm", "backend")}
    plan = plan_conv(input_shape, weight_shape, dtype=dtype, **geometry)
    if direction == "forward":
        bias = np.ones(plan.out_channels, made)
        getattr(functional, name)(x, w, bias, **options)
        prepare(w, bias, **options)(x)
        return
    g = np.ones(plan.output_shape, made)
    if direction == "input":
        getattr(grad, f"{name}_input")(input_shape, w, g, **options)
    else:
        getattr(grad, f"{name}_weight")(x, weight_shape, g, **options)


def _show(screen: Any, data: dict[str, Any]) -> None:
    rows = [(row["dtype"], row["direction"], row["algorithm"], f"{row['seconds']:.2f}") for row in data["rows"]]
    screen.print(table(f"backend {data['backend']}", ("dtype", "direction", "algorithm", "seconds"), rows))
    screen.print(f"{data['new files']} files of compiled kernels more on disk, {data['files']} in all")
