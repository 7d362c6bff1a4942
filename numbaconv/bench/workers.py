"""Processes that answer requests, so that each library that is measured has one of its own.

What a process compiles meanwhile it says in lines before its answer, and the process that asked says so, too.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from ..compiling import begin, end, told

__all__ = ["Worker", "WorkerError", "serve"]


class WorkerError(RuntimeError):
    """A process that ended before it answered."""


class Worker:
    """A Python process that answers requests: one line of JSON for each."""

    def __init__(self, *arguments: str, threads: int, environment: dict[str, str] | None = None):
        count = str(threads)
        variables = {**os.environ, "OMP_NUM_THREADS": count, "NUMBA_NUM_THREADS": count, **(environment or {})}
        self._command = [sys.executable, *arguments]
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            found = self._next(stdout)
            while _COMPILING in found:
                what, folder = found[_COMPILING]
                end() if what is None else begin(what, folder)
                found = self._next(stdout)
        except BrokenPipeError:
            raise self._ended() from None
        return found

    def _next(self, stdout: Any) -> dict[str, Any]:
        line = stdout.readline()
        if not line:
            raise self._ended()
        found: dict[str, Any] = json.loads(line)
        return found

    def _ended(self) -> WorkerError:
        return WorkerError(f"{' '.join(self._command)} ended; see its message above")

    def close(self) -> None:
        self._process.communicate()


#: What a line has that is no answer.
_COMPILING = "compiling"


def _write(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer requests until the input ends; what runs in a `Worker`'s process."""
    with told(lambda what, folder: _write({_COMPILING: [what, folder]})):
        for line in sys.stdin:
            _write(answer(json.loads(line)))
