"""No algorithm touches memory outside its operands: each lies at the end, or the start, of pages with none beside.

As a program it computes every small problem by every algorithm so; whoever reads on ends the process.
"""

import ctypes
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from numbaconv.backends.base import Direction
from problems import PROBLEMS, accepting, operands, run

#: The cost of a problem up to which it is visited.
_LARGEST = 500_000


def guarded(array, at_end):
    """A copy whose last element ends a page, or whose first begins one; the pages beside can be neither read nor
    written."""
    if not array.size:
        return array
    room = -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = mmap.mmap(-1, room + 2 * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for page in (start, start + room + mmap.PAGESIZE):
        assert protect(ctypes.c_void_p(page), mmap.PAGESIZE, 0) == 0
    first = mmap.PAGESIZE + (room - array.nbytes if at_end else 0)
    copy = np.frombuffer(pages, np.uint8, array.nbytes, first).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def main(report):
    """How many calls there were; each is reported before it is made."""
    counted = 0
    for problem in PROBLEMS.values():
        if problem.cost > _LARGEST:
            continue
        x, w, g = operands(problem, np.random.default_rng(93), np.float32)
        for backend, direction, algorithm in accepting(problem, "float32"):
            if backend != "cpu":
                continue
            options = {"backend": backend, "algorithm": algorithm.name}
            wanted = run(direction, problem, x, w, g, **options)
            for at_end in (True, False):
                held = [guarded(each, at_end) for each in (x, w, g)]
                out = guarded(np.full(wanted.shape, np.nan, np.float32), at_end)
                more = {}
                if direction is Direction.FORWARD:  # a bias and a residual of zeros, so that the result is the same
                    more["bias"] = guarded(np.zeros(problem.c_out, np.float32), at_end)
                    more["residual"] = guarded(np.zeros_like(wanted), at_end)
                report(f"{direction.name} {algorithm.name} {problem}\n")
                run(direction, problem, *held, out=out, **more, **options)
                np.testing.assert_array_equal(out, wanted)
                counted += 1
    return counted


@pytest.mark.skipif(os.name != "posix", reason="pages are protected by POSIX's mprotect")
def test_operands_between_pages_that_cannot_be_read():
    here = Path(__file__)
    path = os.pathsep.join([str(here.parents[2]), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, str(here)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 300


if __name__ == "__main__":
    sys.stdout.write(str(main(sys.stderr.write)))
