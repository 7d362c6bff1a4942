"""numbaconv against its peers on layers: a process each, taking turns on the same cores, paired ratios."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from ..plan import plan_conv
from .layer_table import Layer
from .peers import is_dense, runs
from .ratios import Record
from .workers import Worker

__all__ = ["compare"]

#: Shows progress through a sequence of steps.
Progress = Callable[[Sequence[Any]], Iterable[Any]]


def compare(
    cases: Sequence[tuple[Layer, str]],
    peers: Sequence[str],
    *,
    threads: int,
    rounds: int,
    seconds: float,
    peak: bool,
    progress: Progress = iter,
) -> list[Record]:
    """A record for each layer and direction: times by name, in seconds, and samples of the peak, one a round."""
    workers = {name: Worker("-m", "numbaconv.bench.peers", name, threads=threads) for name in peers}
    found = Worker("-m", "numbaconv.bench.peak", str(threads), threads=threads) if peak else None
    try:
        return [_record(workers, found, layer, direction, rounds, seconds) for layer, direction in progress(cases)]
    finally:
        for worker in (*workers.values(), *([found] if found else [])):
            worker.close()


def _record(
    workers: dict[str, Worker], peak: Worker | None, layer: Layer, direction: str, rounds: int, seconds: float
) -> Record:
    present = [name for name in workers if runs(name, layer, direction)]
    times: dict[str, list[float]] = {name: [] for name in present}
    samples: dict[str, list[float]] = {}
    request = {"layer": asdict(layer), "direction": direction, "seconds": seconds}
    for turn in range(rounds):
        for name in present if turn % 2 == 0 else present[::-1]:
            times[name].append(workers[name].ask(**request)["least"])
        for kind, value in peak.ask().items() if peak else ():
            samples.setdefault(kind, []).append(value)
    plan = plan_conv(layer.input_shape, layer.weight_shape, transposed=layer.transposed, **layer.arguments)
    return {
        "layer": layer.name,
        "direction": direction,
        "flops": plan.flops,
        "intensity": plan.arithmetic_intensity,
        "dense": is_dense(layer),
        "times": times,
        **({"peak": samples} if peak else {}),
    }
