"""Arrays of more than 2**31 elements: what lies in the corners of the first and last sample arrives where it should.

Slow, and each test needs up to 14 GB of memory: ``pytest -m slow``. All else is zero, so arrays that are only read take
no memory.
"""

import gc
from dataclasses import dataclass

import numpy as np
import pytest

from numbaconv.backends.base import Direction
from problems import Problem, expected, run

pytestmark = pytest.mark.slow

_GIB = 2**30
#: What a test may need: results of 2**31 elements of 4 bytes, operands converted to such, or both in part.
_MEMORY = 14 * _GIB
#: Cells along an axis that are not zero.
_CELLS = 4


def _available():
    """Bytes of memory that can be had; where the system does not say, as many as it takes."""
    try:
        with open("/proc/meminfo") as lines:
            found = dict(line.split(":") for line in lines)
        return int(found["MemAvailable"].split()[0]) * 1024
    except OSError:
        return _MEMORY


@pytest.fixture(autouse=True)
def _memory():
    gc.collect()
    if _available() < _MEMORY:
        pytest.skip(f"needs {_MEMORY // _GIB} GiB of memory, of which {_available() // _GIB} can be had")
    yield
    gc.collect()


@dataclass(frozen=True)
class Large:
    """A convolution whose result has its input's extents, and the same one on what surrounds a corner."""

    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    batch: int = 1
    c_in: int = 1
    c_out: int = 1
    groups: int = 1

    def problem(self, spatial, batch):
        pads = tuple((extent // 2, extent // 2) for extent in self.kernel)
        return Problem(spatial, self.kernel, batch, self.c_in, self.c_out, self.groups, pads=pads)

    @property
    def whole(self):
        return self.problem(self.spatial, self.batch)

    @property
    def crop(self):
        extents = zip(self.spatial, self.kernel, strict=True)
        return self.problem(tuple(min(extent, _CELLS + 2 * taps) for extent, taps in extents), 1)

    def corners(self):
        """The first cells of the first sample, and the last of the last, as indices."""
        crop = self.crop.spatial
        yield (slice(0, 1), slice(None), *(slice(0, extent) for extent in crop))
        yield (slice(-1, None), slice(None), *(slice(-extent, None) for extent in crop))


def _filled(large, channels, dtype, rng):
    """Zeros, but for small integers in the corners."""
    array = np.zeros((large.batch, channels, *large.spatial), dtype)
    rank = len(large.spatial)
    for where in ((slice(0, _CELLS),) * rank, (slice(-_CELLS, None),) * rank):
        part = array[(0 if where[0].start == 0 else -1, slice(None), *where)]
        part[...] = rng.integers(1, 4, part.shape)
    return array


def _check(large, direction, algorithm, dtype, tolerance):
    rng = np.random.default_rng(95)
    w = rng.integers(1, 4, large.whole.w_shape).astype(dtype)
    x, g = (_filled(large, channels, dtype, rng) for channels in (large.c_in, large.c_out))
    assert max(x.size, g.size) > 2**31
    answer = run(direction, large.whole, x, w, g, backend="cpu", algorithm=algorithm)
    parts = [expected(direction, large.crop, x[at], w, g[at]) for at in large.corners()]
    if direction is Direction.WEIGHT_GRAD:
        np.testing.assert_allclose(answer.astype(np.float64), sum(parts).astype(np.float64), atol=tolerance)
        return
    for at, wanted in zip(large.corners(), parts, strict=True):
        np.testing.assert_allclose(answer[at].astype(np.float64), wanted.astype(np.float64), atol=tolerance)
        assert np.abs(wanted).max() > 0
        answer[at] = 0
    assert answer.max() <= tolerance
    assert answer.min() >= -tolerance


#: Planes, and channels by which they are more than 2**31 elements.
FEW_CHANNELS = Large((30000, 24000), (3, 3), c_in=3, c_out=2)
MANY_CHANNELS = Large((5800, 5800), (3, 3), c_in=64, c_out=16)
DEPTHWISE = Large((5800, 5800), (3, 3), c_in=64, c_out=64, groups=64)
LONG = Large((2**21,), (65,), batch=1025)

_BOTH, _ALL = (Direction.FORWARD, Direction.INPUT_GRAD), tuple(Direction)


@pytest.mark.parametrize("direction", Direction)
def test_int8(direction):
    _check(Large((30000, 24000), (1, 3), c_in=3, c_out=1), direction, "direct", np.int8, 0)


@pytest.mark.parametrize(
    ("large", "algorithm", "direction"),
    [
        (large, algorithm, direction)
        for large, algorithm, directions in (
            (FEW_CHANNELS, "patch_gemm", _ALL),
            (FEW_CHANNELS, "plane_gemm", _BOTH),
            (FEW_CHANNELS, "implicit_gemm", _BOTH),
            (FEW_CHANNELS, "dot_gemm", (Direction.WEIGHT_GRAD,)),
            (MANY_CHANNELS, "winograd", _ALL),
            (MANY_CHANNELS, "winograd_2x2", _BOTH),
            (DEPTHWISE, "depthwise", _ALL),
            (LONG, "fft", _ALL),
        )
        for direction in directions
    ],
)
def test_float32(large, algorithm, direction):
    _check(large, direction, algorithm, np.float32, 0.01 if algorithm.startswith(("winograd", "fft")) else 0)
