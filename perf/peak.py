"""What the machine can do: multiply-adds in registers, and bytes from memory.

    python perf/peak.py [--threads 1 2] [--samples 5]

`numbaconv.bench.peak` says what is measured.
"""

import argparse

from rich.table import Table

from command import console
from numbaconv.bench.peak import Machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--samples", type=int, default=5)
    arguments = parser.parse_args()
    machine = Machine(max(arguments.threads))
    samples = [
        {count: (machine.gflops(count), machine.gbytes(count)) for count in arguments.threads}
        for _ in range(arguments.samples)
    ]
    table = Table(title="least and greatest sample")
    for column in ("threads", "GFLOP/s, float32", "GB/s"):
        table.add_column(column, justify="right")
    for count in arguments.threads:
        cells = []
        for place in range(2):
            values = [sample[count][place] for sample in samples]
            cells.append(f"{min(values):.1f} to {max(values):.1f}")
        table.add_row(str(count), *cells)
    console().print(table)


if __name__ == "__main__":
    main()
