"""Processes that answer requests, so that each library that is measured has one of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

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
            answer = stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise WorkerError(f"{' '.join(self._command)} ended; see its message above")
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        self._process.communicate()


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer requests until the input ends; what runs in a `Worker`'s process."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()
