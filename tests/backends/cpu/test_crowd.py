"""Fewer threads where other programs keep the machine busy; tasks claimed; the pool's environment. Time is made up."""

import os
import subprocess
import sys
from itertools import pairwise

import numba
import numpy as np
import pytest
from numba import types

from numbaconv.backends.cpu import crowd, launch, threads
from numbaconv.backends.cpu.crowd import Crowd
from numbaconv.backends.cpu.jit import kernel
from numbaconv.backends.cpu.launch import Kernel


class Clock:
    """In the place of `time`."""

    now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(crowd, "time", made)
    return made


def stall(found, clock, threads, milliseconds):
    clock.now += milliseconds / 1000
    found.waited(threads, milliseconds / 1000, 100.0)


def test_one_interruption_changes_nothing(clock):
    found = Crowd()
    for _ in range(50):  # 3 ms of every 50
        stall(found, clock, 8, 3)
        clock.now += 0.047
        assert found.threads(8) == 8


def test_uneven_tasks_change_nothing(clock):
    found = Crowd()
    for _ in range(1000):
        clock.now += 0.005
        found.waited(8, 0.005, 1.1)
        assert found.threads(8) == 8


def test_a_busy_machine_gets_fewer_threads_and_longer_pauses(clock):
    found = Crowd()
    counts, trials = [], 0
    for _ in range(4000):
        given = found.threads(8)
        if not counts or given != counts[-1]:
            counts.append(given)
        if given > 1:
            trials += 1
            stall(found, clock, given, 4)
        else:
            clock.now += 0.001
    assert counts[:4] == [8, 4, 2, 1]
    assert set(counts) == {8, 4, 2, 1}
    assert trials < 40  # of 4 seconds


def test_it_goes_back_to_all(clock):
    found = Crowd()
    while found.threads(8) > 1:
        stall(found, clock, found.threads(8), 4)
    seen = []
    for _ in range(3000):
        clock.now += 0.001
        seen.append(found.threads(8))
    assert seen[-1] == 8
    assert sorted(seen) == seen
    assert found.most is None


@kernel
def note_tasks(begin, end, counts, chunk_of):
    for task in range(begin, end):
        counts[task] += 1
        chunk_of[task] = begin


NOTE = Kernel(note_tasks, lambda kind: (types.int64[::1], types.int64[::1]))


@pytest.mark.parametrize("tasks", [2, 7, 64, 1001])
@pytest.mark.parametrize("chunks", [2, 3, 8, 100])
def test_each_task_is_run_once_in_its_chunk(tasks, chunks):
    """Whoever claims a chunk: its bounds follow from the number of tasks and of chunks."""
    for count in range(1, numba.config.NUMBA_NUM_THREADS + 1):
        counts, chunk_of = np.zeros(tasks, np.int64), np.full(tasks, -1)
        NOTE._run(np.dtype(np.float32), max(count, 2), tasks, 10**9, chunks, (counts, chunk_of))
        assert (counts == 1).all()
        bounds = [i * tasks // chunks for i in range(chunks + 1)]
        for begin, end in pairwise(bounds):
            assert (chunk_of[begin:end] == begin).all()


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread")
def test_a_limit_is_for_one_loop(monkeypatch):
    seen = []
    parallel, address = NOTE._fan_out(np.dtype(np.float32))

    def spy(*given):
        seen.append((given[0], numba.get_num_threads()))
        return parallel(*given)

    monkeypatch.setitem(NOTE._fanned, np.dtype(np.float32), (spy, address))
    monkeypatch.setattr(launch._crowd, "most", 2)
    monkeypatch.setattr(launch._crowd, "threads", lambda wanted: 2)
    before = numba.get_num_threads()
    NOTE(np.dtype(np.float32), 64, 10**8, np.zeros(64, np.int64), np.zeros(64, np.int64))
    assert seen == [(2, 2)]
    assert numba.get_num_threads() == before
    monkeypatch.setattr(launch._crowd, "threads", lambda wanted: 1)
    NOTE(np.dtype(np.float32), 64, 10**8, np.zeros(64, np.int64), np.zeros(64, np.int64))
    assert len(seen) == 1  # in one thread


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, threads._SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, None)],
)
def test_how_long_threads_spin(given, spins):
    """The variable is there while the library is loaded, unless the user has said it, and gone afterwards."""
    program = """
import os, sys
import numba.np.ufunc.parallel as parallel
import numbaconv.backends.cpu.threads as threads
before, seen = dict(os.environ), []
launch = parallel._launch_threads
def spy():
    if not parallel._is_initialized:
        seen.append(os.environ.get("GOMP_SPINCOUNT"))
    launch()
parallel._launch_threads = spy
threads.parallel_threads()
assert parallel._is_initialized and dict(os.environ) == before
print(seen)
"""
    environment = {name: value for name, value in os.environ.items() if name not in threads._WAITING}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "NUMBA_NUM_THREADS": "2", **given},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([spins])
