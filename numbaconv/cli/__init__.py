"""The command ``numbaconv``: what is installed, what would run, how fast it is; tuning and compiled kernels.

Each command is a module with ``add`` (its options) and ``run`` (an `Answer`); this one calls them.
"""

import json
import os
import sys
from collections.abc import Sequence

from .._version import __version__
from ..bench.workers import WorkerError
from ..errors import ConvError
from . import bench, clear, explaining, info, tune, warmup
from .answers import CommandError, console
from .words import Parser

__all__ = ["main"]

_COMMANDS = (info, explaining, bench, tune, warmup, clear)


def _parser() -> Parser:
    parser = Parser(prog="numbaconv", description="Convolution for NumPy arrays.")
    parser.add_argument("--version", action="version", version=f"numbaconv {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in _COMMANDS:
        command = module.add(commands)
        command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process, unless given.

    Returns
    -------
    int
        0; 2 after an error, which is one line on standard error; 130 if it was interrupted; 1 if nobody reads the
        answer any more.

    Examples
    --------
    >>> from numbaconv.cli import main
    >>> main("explain --input 1x64x56x56 --weight 64x64x3x3 --padding 1 --backend reference".split())
    conv2d  (1, 64, 56, 56) * (64, 64, 3, 3) -> (1, 64, 56, 56)  float32
      stride (1, 1)  padding (1, 1), (1, 1) zeros  dilation (1, 1)  groups 1
      accumulates in float32, returns float32
      231,211,008 FLOPs, 1,753,088 bytes at least, 131.9 FLOPs per byte, 36,864 parameters
      FORWARD on backend 'reference'
        -> numpy: accepts
      'numpy' is the first that accepts and is worth it
    0
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = _parser().parse_args(given)
        answer = options.run(options)
        if options.json:
            sys.stdout.write(json.dumps(answer.data, indent=1, sort_keys=True) + "\n")
        else:
            answer.show(console())
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return 1
    except (CommandError, ConvError, ImportError, MemoryError, OSError, WorkerError) as error:
        line = " ".join(str(error).split()) or "there is not enough memory"
        sys.stderr.write(json.dumps({"error": line}) + "\n" if "--json" in given else f"numbaconv: {line}\n")
        return 2
    return 0
