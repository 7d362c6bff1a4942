"""numbaconv against its peers on real layers: one process each, taking turns on the same cores, paired ratios.

    python perf/compare_peers.py [--table speed.csv] [--directions forward input weight] [--layers TEXT ...]
                                 [--rounds 3] [--seconds 0.15] [--output perf/results]

Forward there are numbaconv with its weights given in each call, numbaconv prepared, and on dense layers prepared
without transforms; PyTorch, whose weights come with each call, and ONNX Runtime's session, whose weights are packed
when it is made. A ratio is the peer's time over numbaconv's in the same round (over 1: numbaconv is faster), of the
least time of a call in each; the median over rounds counts. The machine's peak and bandwidth are measured at the same
turns. The folder of ``--output`` gets ``peers.json``, ``peers.png`` and ``roofline.png``.
"""

from command import cases, console, parser, progress, save
from numbaconv import plot
from numbaconv.bench.compare import compare
from numbaconv.bench.peers import PEERS
from numbaconv.bench.ratios import summary
from numbaconv.bench.tables import print_peers


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=0.15, help="for a peer's turn")
    options.add_argument("--threads", type=int, default=2)
    arguments = options.parse_args()
    records = compare(
        [(layer, direction) for _, layer, direction in cases(arguments)],
        arguments.peers,
        threads=arguments.threads,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        peak=True,
        progress=progress,
    )
    found = summary(records)
    print_peers(records, found, console())
    save(arguments.output, "peers", {"threads": arguments.threads, "summary": found, "records": records})
    if arguments.output:
        plot.save(plot.ratios(records), arguments.output / "peers.png")
        plot.save(plot.roofline(records), arguments.output / "roofline.png")


if __name__ == "__main__":
    main()
