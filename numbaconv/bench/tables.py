"""What a comparison found, as tables on a screen."""

from typing import Any

from rich.console import Console
from rich.table import Table

from .ratios import COMPARISONS, SHARE, Record, compares, directions_of, gflops, of_direction, ratio, share

__all__ = ["SHARE", "print_peers"]


def print_peers(records: list[Record], found: dict[str, Any], screen: Console) -> None:
    """A table of layers for each direction, and the summary."""
    for direction in directions_of(records):
        chosen = of_direction(records, direction)
        names = list(max(chosen, key=lambda record: len(record["times"]))["times"])
        ratios = [each for each in COMPARISONS if compares(chosen[0], each)]
        of_peak = " (share of the peak, %)" if "peak" in chosen[0] else ""
        table = Table(title=f"{direction}: GFLOP/s{of_peak}, and ratios of time")
        table.add_column("layer", overflow="fold", min_width=16)
        for column in (*names, *(each.title for each in ratios)):
            table.add_column(column.replace("_", " "), justify="right", overflow="fold", min_width=7)
        for record in chosen:
            cells = [record["layer"].split("/", 1)[-1]]
            for name in names:
                timed = name in record["times"]
                part = f" ({100 * share(record, name):.0f})" if timed and "peak" in record else ""
                cells.append(f"{gflops(record, name):.1f}{part}" if timed else "")
            table.add_row(*cells, *(f"{ratio(record, each):.2f}" for each in ratios))
        screen.print(table)
    for title, values in found.items():
        if title in {each.title for each in COMPARISONS}:
            lost = values["lost by more than 5 %"]
            screen.print(f"{title}: {values['geometric mean']:.2f}, lost {len(lost)} of {values['layers']}")
    if SHARE in found:
        screen.print(
            f"{SHARE}: {100 * found[SHARE]['geometric mean']:.0f} %, least {100 * found[SHARE]['least']:.0f} %"
        )
    if "gflops" in found:
        screen.print(f"{found['gflops_1']:.0f} and {found['gflops']:.0f} GFLOP/s, {found['gbytes']:.0f} GB/s")
