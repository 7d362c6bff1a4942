"""Where the choice among algorithms is wrong: every layer whose pick is over 10 % slower than the best candidate.

    python perf/picks.py [--table networks.csv] [--directions forward] [--layers TEXT ...] [--seconds 0.1]
                         [--threads N] [--prepared] [--all] [--output perf/results]

For each layer and direction every algorithm that accepts is timed, those that are not thought worthwhile too (but not
what NUMBACONV_DISABLE names): once to compile, once to see its order of magnitude, and those within ``--hopeless``
times the fastest then in turns, ``--seconds`` for each in all; least times count. A mis-pick is what the model has to
learn from: tune the model, not the table. Ends with status 1 if there is one.
"""

import argparse
import time
from typing import Any

import numba
from rich.table import Table

import numbaconv
from command import cases, console, parser, progress, save
from numbaconv.backends.base import DISABLED
from numbaconv.bench.layer_table import Layer
from numbaconv.bench.peers import Call, measure, numbaconv_call, prepared_call
from numbaconv.bench.ratios import geometric_mean

TURNS = 4


def calls(layer: Layer, direction: str, prepared: bool) -> tuple[str | None, dict[str, Call]]:
    """The name of what is chosen by itself, and the call of every algorithm that accepts."""
    options = {"transposed": layer.transposed, **layer.arguments}
    explained = numbaconv.explain(layer.input_shape, layer.weight_shape, direction=direction, **options)
    able = [each for each in explained.candidates if each.refusal is None and each.passed_over != DISABLED]
    make = prepared_call if direction == "forward" and prepared else numbaconv_call
    return explained.algorithm, {each.name: make(layer, direction, each.name) for each in able}


def _once(call: Call) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def least_times(candidates: dict[str, Call], seconds: float, hopeless: float) -> dict[str, float]:
    """The least time of each candidate, in seconds."""
    for call in candidates.values():
        call()  # compiles, or loads
    least = {name: _once(call) for name, call in candidates.items()}
    close = [name for name in least if least[name] <= hopeless * min(least.values())]
    for turn in range(TURNS):
        for name in close if turn % 2 == 0 else close[::-1]:
            found = measure(candidates[name], seconds / TURNS)["least"]
            least[name] = min(least[name], found)
    return least


def loss(record: dict[str, Any]) -> float:
    """The pick's time over the best candidate's."""
    over: float = record["times"][record["pick"]] / min(record["times"].values())
    return over


def report(records: list[dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    """A table of the mis-picks, and the summary."""
    wrong = [record for record in records if loss(record) > 1 + arguments.margin]
    title = f"picks over {100 * arguments.margin:g} % slower than the best candidate"
    table = Table("layer", "direction", "pick", "ms", "best", "ms", "ratio", "others, ms", title=title)
    for record in sorted(records if arguments.all else wrong, key=loss, reverse=True):
        pick, times = record["pick"], record["times"]
        best = min(times, key=times.__getitem__)
        others = {name: value for name, value in times.items() if name not in (pick, best)}
        table.add_row(
            record["layer"].split("/", 1)[-1],
            record["direction"],
            *(pick, f"{1e3 * times[pick]:.3f}", best, f"{1e3 * times[best]:.3f}", f"{loss(record):.2f}"),
            " ".join(f"{name} {1e3 * value:.3f}" for name, value in others.items()),
        )
    console().print(table)
    found = {"cases": len(records), "wrong": len(wrong), "mean loss": geometric_mean(map(loss, records))}
    mean = f"pick over best {found['mean loss']:.3f} on average"
    console().print(f"{found['wrong']} of {found['cases']} are wrong; {mean}")
    return found


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=0.1, help="for each candidate")
    options.add_argument("--margin", type=float, default=0.1, help="how much slower than the best counts")
    options.add_argument("--hopeless", type=float, default=5, help="times slower at first sight: not timed further")
    options.add_argument("--threads", type=int, help="numba.set_num_threads")
    options.add_argument("--prepared", action="store_true", help="forward calls are prepared")
    options.add_argument("--all", action="store_true", help="print the right picks too")
    arguments = options.parse_args()
    if arguments.threads:
        numba.set_num_threads(arguments.threads)
    records = []
    for _, layer, direction in progress(cases(arguments)):
        pick, candidates = calls(layer, direction, arguments.prepared)
        times = least_times(candidates, arguments.seconds, arguments.hopeless)
        records.append({"layer": layer.name, "direction": direction, "pick": pick, "times": times})
    found = report(records, arguments)
    save(arguments.output, "picks", {"prepared": arguments.prepared, "summary": found, "records": records})
    raise SystemExit(1 if found["wrong"] else 0)


if __name__ == "__main__":
    main()
