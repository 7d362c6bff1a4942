"""What a comparison's records say: paired ratios, rates, shares of the peak, and the numbers that count."""

import math
import statistics
from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = [
    "COMPARISONS",
    "DIRECTIONS",
    "DRAWN",
    "SHARE",
    "Comparison",
    "Record",
    "compares",
    "directions_of",
    "geometric_mean",
    "gflops",
    "of_direction",
    "ratio",
    "share",
    "summary",
]

DIRECTIONS = ("forward", "input", "weight")

#: One layer and direction: ``times`` and ``peak`` hold a list over the rounds for each name.
Record = dict[str, Any]

#: The title of shares of the peak in a summary.
SHARE = "share of peak, dense layers, no transforms"
#: A peer's time has to be less than this part of numbaconv's for the layer to count as lost.
LOST = 1 / 1.05


class Comparison(NamedTuple):
    """Whose time is over whose: the best of ``peers`` over ``ours``."""

    title: str
    direction: str
    ours: str
    peers: tuple[str, ...]


COMPARISONS = (
    Comparison("forward vs torch", "forward", "numbaconv", ("torch",)),
    Comparison("forward vs onnxruntime", "forward", "numbaconv", ("onnxruntime",)),
    Comparison("prepared vs torch", "forward", "numbaconv_prepared", ("torch",)),
    Comparison("prepared vs onnxruntime", "forward", "numbaconv_prepared", ("onnxruntime",)),
    Comparison("prepared vs best of both", "forward", "numbaconv_prepared", ("torch", "onnxruntime")),
    Comparison("INPUT_GRAD vs torch", "input", "numbaconv", ("torch",)),
    Comparison("WEIGHT_GRAD vs torch", "weight", "numbaconv", ("torch",)),
)
#: The one that is drawn for a peer and a direction.
DRAWN = ("forward vs torch", "prepared vs onnxruntime", "INPUT_GRAD vs torch", "WEIGHT_GRAD vs torch")


def geometric_mean(values: Iterable[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def compares(record: Record, comparison: Comparison) -> bool:
    names = (comparison.ours, *comparison.peers)
    return record["direction"] == comparison.direction and all(name in record["times"] for name in names)


def ratio(record: Record, comparison: Comparison) -> float:
    """The best peer's time over numbaconv's: the median over paired rounds."""
    times = record["times"]
    theirs = [min(turn) for turn in zip(*(times[peer] for peer in comparison.peers), strict=True)]
    found: float = statistics.median(peer / ours for peer, ours in zip(theirs, times[comparison.ours], strict=True))
    return found


def gflops(record: Record, name: str) -> float:
    rate: float = record["flops"] / min(record["times"][name]) / 1e9
    return rate


def share(record: Record, name: str) -> float:
    """The rate over the peak that was measured in the same rounds."""
    part: float = gflops(record, name) / max(record["peak"]["gflops"])
    return part


def of_direction(records: list[Record], direction: str) -> list[Record]:
    return [record for record in records if record["direction"] == direction]


def summary(records: list[Record]) -> dict[str, Any]:
    """For each comparison the geometric mean and the layers lost; shares of the peak; the peak."""
    found: dict[str, Any] = {}
    for comparison in COMPARISONS:
        ratios = {record["layer"]: ratio(record, comparison) for record in records if compares(record, comparison)}
        if ratios:
            found[comparison.title] = {
                "geometric mean": geometric_mean(ratios.values()),
                "layers": len(ratios),
                "lost by more than 5 %": {name: value for name, value in ratios.items() if value < LOST},
            }
    if "peak" not in records[0]:
        return found
    name = "numbaconv_untransformed"
    shares = {record["layer"]: share(record, name) for record in records if name in record["times"]}
    if shares:
        found[SHARE] = {
            "geometric mean": geometric_mean(shares.values()),
            "least": min(shares.values()),
            "layers": shares,
        }
    for kind in ("gflops_1", "gflops", "gbytes"):
        found[kind] = statistics.median(max(record["peak"][kind]) for record in records)
    return found


def directions_of(records: list[Record]) -> list[str]:
    return [each for each in DIRECTIONS if of_direction(records, each)]
