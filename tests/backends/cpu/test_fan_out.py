"""What goes wrong inside a task reaches the caller, whoever called the task."""

import numpy as np
import pytest
from numba import types

from numbaconv.backends.cpu.fan_out import call_tasks
from numbaconv.backends.cpu.jit import kernel
from numbaconv.backends.cpu.launch import Kernel, strided

_WORK = 10**9  # enough to run in parallel


@kernel
def _scratch(begin, end, values, elements):
    for task in range(begin, end):
        scratch = np.empty(elements, values.dtype)
        scratch[0] = task
        values[task] = scratch[0]


@kernel
def _through_address(begin, end, values, elements, address):
    call_tasks(address, begin, end, (values, elements))


def _operands(dtype):
    return strided(dtype, 1), types.int64


@pytest.mark.parametrize("tasks", [1, 8], ids=["serial", "parallel"])
@pytest.mark.parametrize("elements", [4, 2**58], ids=["fits", "does not"])
@pytest.mark.parametrize("nested", [False, True], ids=["called", "by address"])
def test_memory_that_is_not_there(tasks, elements, nested):
    direct = Kernel(_scratch, _operands)
    dtype = np.dtype(np.float32)
    values = np.full(8, np.nan, dtype)
    run, operands = direct, (values, elements)
    if nested:
        run = Kernel(_through_address, lambda dtype: (*_operands(dtype), types.int64))
        operands = (*operands, direct.address(dtype))
    if elements == 4:
        run(dtype, tasks, _WORK, *operands)
        np.testing.assert_array_equal(values[:tasks], np.arange(tasks))
    else:
        with pytest.raises(MemoryError):
            run(dtype, tasks, _WORK, *operands)
