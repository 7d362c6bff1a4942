"""How kernels are compiled."""

import pytest

from numbaconv.backends.cpu import jit


def test_without_a_place_for_compiled_kernels():
    """As in a container of which nothing can be written: they work, and one warning says what would help."""
    space = {}
    exec(compile("def more(a):\n    return a + 1", "/nowhere/kernels.py", "exec"), space)
    jit._warn.cache_clear()
    with pytest.warns(RuntimeWarning, match="NUMBA_CACHE_DIR") as warned:
        decorated = [decorate(space["more"]) for decorate in (jit.kernel, jit.inner, jit.reduction)]
    assert len(warned) == 1
    assert [each(2) for each in decorated] == [3, 3, 3]
