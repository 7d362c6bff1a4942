"""The same bits for any number of threads, any batch, each run, and with and without `prepare`.

Problems are so large that kernels run in parallel: `bits.PROBLEMS` says what each of them visits.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
import pytest

import bits
from numbaconv.backends.base import Direction
from numbaconv.backends.cpu import BACKEND
from numbaconv.bench import layer_table
from numbaconv.plan import plan_conv
from problems import PROBLEMS, chosen

CASES = {str(case): case for case in bits.cases()}
LAYERS = [case for case in CASES.values() if case.direction is not Direction.WEIGHT_GRAD]


def with_threads(threads, call):
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        return call()
    finally:
        numba.set_num_threads(before)


def thread_counts():
    return sorted({1, min(2, numba.config.NUMBA_NUM_THREADS), numba.config.NUMBA_NUM_THREADS})


def same(a, b, label):
    np.testing.assert_array_equal(a.view(np.uint8), b.view(np.uint8), err_msg=str(label))


def test_every_algorithm_is_visited():
    visited = {(case.direction, case.algorithm.name) for case in CASES.values()}
    assert visited == {(direction, each.name) for direction, table in BACKEND.tables.items() for each in table}


def test_no_algorithm_refuses_an_empty_batch():
    """Nor needs one that is accepted: what is forced on some samples can be forced on none."""
    for case in LAYERS:
        some, none = (replace(case.problem, batch=batch).plan("float32") for batch in (1, 0))
        assert (case.algorithm.accepts(some), case.algorithm.accepts(none)) == (None, None), case
        call = bits.Call(case, "float32", last=False, epilogue=True)
        assert call(slice(0, 0)).shape[0] == 0


def test_threads_processes_and_runs():
    """Fewer threads than cores, as many, and more; in two processes, and twice."""
    processes = 2 * (os.cpu_count() or 1)
    environment = {**os.environ, "NUMBA_NUM_THREADS": str(processes)}
    program = Path(bits.__file__)
    environment["PYTHONPATH"] = os.pathsep.join([str(program.parent), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, str(program), str(processes), "3"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    oversubscribed, three = json.loads(done.stdout)
    assert oversubscribed.keys() == CASES.keys()
    for threads in (*thread_counts(), 1):
        found = bits.digests(threads)
        for other in (oversubscribed, three):
            assert found == other


@pytest.mark.parametrize(("dtype", "last", "epilogue"), [("float32", False, False), ("float64", True, True)])
@pytest.mark.parametrize("direction", [Direction.FORWARD, Direction.INPUT_GRAD])
def test_batch_threads_and_prepared(direction, dtype, last, epilogue):
    """All samples at once, one by one and some; functions and prepared layers."""
    for case in LAYERS:
        if case.direction is not direction:
            continue
        call = bits.Call(case, dtype, last, epilogue)
        whole = call()
        for samples in (slice(0, 1), slice(case.problem.batch - 1, None), slice(1, 3)):
            same(call(samples), whole[samples], f"{case} {samples}")
        prepared = call.prepared()
        for _ in range(2):
            same(prepared(), whole, f"{case} prepared")
        for threads in thread_counts():
            same(with_threads(threads, call), whole, f"{case} {threads} threads")
            same(
                with_threads(threads, lambda call=call: call(slice(0, 1))),
                whole[:1],
                f"{case} alone, {threads} threads",
            )


def _plans():
    for problem in (*PROBLEMS.values(), *bits.PROBLEMS.values()):
        arguments = problem.arguments
        yield problem.x_shape, problem.w_shape, {**arguments, "dtype": "float32"}
        yield problem.x_shape, problem.w_shape, {**arguments, "dtype": "float64"}
    for table in ("networks.csv", "speed.csv"):
        for row in layer_table.read(table):
            yield row.input_shape, row.weight_shape, {"transposed": row.transposed, **row.arguments}


def test_the_choice_is_the_same_for_every_batch_and_number_of_threads():
    counted = 0
    for x_shape, w_shape, arguments in _plans():
        names = set()
        for batch in (1, 2, 7, 64, 1000):
            plan = plan_conv((batch, *x_shape[1:]), w_shape, **arguments)
            for threads in thread_counts():
                found = with_threads(threads, lambda plan=plan: [chosen(each, plan).name for each in Direction])
                names.add(tuple(found))
        assert len(names) == 1, f"{x_shape} {w_shape} {arguments}: {names}"
        counted += 1
    assert counted > 600


@pytest.mark.parametrize("direction", [Direction.FORWARD, Direction.INPUT_GRAD])
def test_the_default_choice_gives_the_same_bits_for_every_batch(direction):
    for name, problem in bits.PROBLEMS.items():
        algorithm = chosen(direction, problem.plan("float32"))
        call = bits.Call(bits.Case(name, direction, algorithm))
        del call.options["algorithm"]
        whole = call()
        same(call(slice(0, 1)), whole[:1], name)
        same(with_threads(1, lambda call=call: call(slice(1, 3))), whole[1:3], name)
        same(call.prepared()(), whole, name)
