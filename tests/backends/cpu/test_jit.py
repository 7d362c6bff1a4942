"""How kernels are compiled."""

import pytest

from numbaconv.backends.cpu import cache, jit


def test_without_a_place_for_compiled_kernels(tmp_path, monkeypatch):
    """As in a container of which nothing can be written: they work, and one warning says what was tried."""
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setattr(cache.config, "CACHE_DIR", str(blocked))
    monkeypatch.setattr(cache, "_failures", {})
    space = {}
    exec(compile("def more(a):\n    return a + 1", "/nowhere/kernels.py", "exec"), space)
    decorated = [decorate(space["more"]) for decorate in (jit.kernel, jit.inner, jit.reduction, jit.kernel)]
    with pytest.warns(RuntimeWarning, match="NUMBA_CACHE_DIR") as warned:
        results = [each(2) for each in decorated]
    assert results == [3, 3, 3, 3]
    assert len(warned) == 1
    assert f"tried {blocked}" in str(warned[0].message)
    assert "Not a directory" in str(warned[0].message)
