"""numbaconv against its peers on real layers: one process each, taking turns on the same cores, paired ratios.

    python perf/compare_peers.py [--table speed.csv] [--directions forward input weight] [--layers TEXT ...]
                                 [--rounds 3] [--seconds 0.15] [--output perf/results]

Forward there are numbaconv with its weights given in each call, numbaconv prepared, and on dense layers prepared
without transforms; PyTorch, whose weights come with each call, and ONNX Runtime's session, whose weights are packed
when it is made. A ratio is the peer's time over numbaconv's in the same round (over 1: numbaconv is faster), of the
least time of a call in each; the median over rounds counts. The machine's peak and bandwidth are measured at the same
turns. The folder of ``--output`` gets ``peers.json``, ``peers.png`` and ``roofline.png``.
"""

import argparse

from command import Worker, cases, console, parser, progress, save
from numbaconv import plan_conv
from peers import PEERS, is_dense, runs
from pictures import draw_ratios, draw_roofline
from ratios import Record, summary
from report import print_peers


def compare(arguments: argparse.Namespace) -> list[Record]:
    """A record for each layer and direction: times by name, in seconds, and samples of the peak, one a round."""
    threads = arguments.threads
    workers = {name: Worker("peers.py", name, threads=threads) for name in arguments.peers}
    peak = Worker("peak.py", "--serve", "--threads", str(threads), threads=threads)
    records = []
    for row, layer, direction in progress(cases(arguments)):
        present = [name for name in workers if runs(name, layer, direction)]
        times: dict[str, list[float]] = {name: [] for name in present}
        samples: dict[str, list[float]] = {}
        request = {"table": arguments.table, "row": row, "direction": direction, "seconds": arguments.seconds}
        for turn in range(arguments.rounds):
            for name in present if turn % 2 == 0 else present[::-1]:
                times[name].append(workers[name].ask(**request)["least"])
            for kind, value in peak.ask().items():
                samples.setdefault(kind, []).append(value)
        plan = plan_conv(layer.input_shape, layer.weight_shape, transposed=layer.transposed, **layer.arguments)
        records.append(
            {
                "layer": layer.name,
                "direction": direction,
                "flops": plan.flops,
                "intensity": plan.arithmetic_intensity,
                "dense": is_dense(layer),
                "times": times,
                "peak": samples,
            }
        )
    for worker in (*workers.values(), peak):
        worker.close()
    return records


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=0.15, help="for a peer's turn")
    options.add_argument("--threads", type=int, default=2)
    arguments = options.parse_args()
    records = compare(arguments)
    found = summary(records)
    print_peers(records, found, console())
    save(arguments.output, "peers", {"threads": arguments.threads, "summary": found, "records": records})
    if arguments.output:
        draw_ratios(records, arguments.output / "peers.png")
        draw_roofline(records, found, arguments.output / "roofline.png")


if __name__ == "__main__":
    main()
