"""``numbaconv bench``: times of layers, beside those of the libraries that are installed."""

import json
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..bench.compare import compare
from ..bench.machine import machine
from ..bench.ratios import DIRECTIONS, summary
from ..extras import require
from ..files import check_regular, replaced
from ..progress import tracked
from .answers import Answer, CommandError
from .words import add_layers, chosen_layers

__all__ = ["add", "run"]

#: What each library needs to be measured.
_LIBRARIES = {"torch": ("torch",), "onnxruntime": ("onnx", "onnxruntime")}


def add(commands: Any) -> Any:
    """Its options."""
    parser = commands.add_parser("bench", help="times of layers, beside those of PyTorch and ONNX Runtime")
    add_layers(parser)
    parser.add_argument("--directions", nargs="+", default=["forward"], choices=DIRECTIONS)
    parser.add_argument(
        "--against",
        nargs="+",
        choices=(*_LIBRARIES, "none"),
        help="libraries to compare with; all that are installed, unless given",
    )
    parser.add_argument("--threads", type=int, help="for each library; as many as there are cores, unless given")
    parser.add_argument("--rounds", type=int, default=3, help="in which libraries take turns")
    parser.add_argument("--seconds", type=float, default=0.1, help="for a library's turn")
    parser.add_argument("--output", type=Path, help="a bench file to write, for numbaconv.plot")
    parser.add_argument("--plot", type=Path, help="a picture to write: ratios, or without another library the roofline")
    return parser


def _against(names: list[str] | None) -> list[str]:
    present = [name for name, modules in _LIBRARIES.items() if all(find_spec(module) for module in modules)]
    if names is None:
        return present
    wanted = [name for name in names if name != "none"]
    for name in wanted:
        if name not in present:
            raise CommandError(f"{name} is not installed: pip install 'numbaconv[bench]'")
    return wanted


def _check_files(options: Namespace) -> None:
    """What would stop a file from being written, before minutes of measuring."""
    for name in ("output", "plot"):
        path = getattr(options, name)
        if path is not None and path.is_dir():
            raise CommandError(f"--{name} must be a file, but {path} is a folder")
        if path is not None:
            check_regular(f"--{name}", path)
    if options.plot is not None:
        require("matplotlib", "plot", "--plot")
        bases = require("matplotlib.backend_bases", "plot", "--plot")
        known, ending = bases.FigureCanvasBase.get_supported_filetypes(), options.plot.suffix.lower()
        if ending[1:] not in known:
            raise CommandError(f"--plot ends in {ending!r}, but must end in one of {', '.join(sorted(known))}")


def run(options: Namespace) -> Answer:
    """Records of all layers and directions, as ``--output`` writes them."""
    layers, against = chosen_layers(options), _against(options.against)
    for name in ("rounds", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise CommandError(f"--{name} must be at least 1, but is {getattr(options, name)}")
    if not options.seconds > 0:
        raise CommandError(f"--seconds must be more than 0, but is {options.seconds}")
    _check_files(options)
    found = machine()
    threads = options.threads or int(found["cores"])
    records = compare(
        [(layer, direction) for direction in options.directions for layer in layers],
        ["numbaconv", "numbaconv_prepared", *against],
        threads=threads,
        rounds=options.rounds,
        seconds=options.seconds,
        peak=options.output is not None or options.plot is not None,
        progress=lambda cases: tracked(cases, "layers"),
    )
    data = {"machine": found, "threads": threads, "summary": summary(records), "records": records}
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(data, indent=1) + "\n"
        with replaced("bench", options.output) as file:
            file.write(text.encode("utf-8"))
    if options.plot is not None:
        from .. import plot

        plot.save(plot.ratios(data) if against else plot.roofline(data), options.plot)
    return Answer(data, lambda screen: _show(screen, data))


def _show(screen: Any, data: dict[str, Any]) -> None:
    from ..bench.tables import print_peers

    threads = "1 thread" if data["threads"] == 1 else f"{data['threads']} threads"
    screen.print(f"{threads}, {data['machine']['processor']} with {data['machine']['vectors']}")
    print_peers(data["records"], data["summary"], screen)
