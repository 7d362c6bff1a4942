"""How the work of Winograd's products is divided: blocks of tiles, parts of the weights, scratch memory.

Nothing here changes a bit of a result: an element is summed within one tile, over channels in an order that the kernel
fixes. So a schedule may depend on the batch, on the number of threads, and on whether weights are prepared.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import gcd, prod

from .simd import ROWS
from .winograd import panels_of
from .winograd_product import DEPTH
from .winograd_tiling import Tiling, frequency_cells

__all__ = ["NEAR", "Blocks", "Schedule", "WeightPart", "bundle_of", "schedule_of", "stretch_of"]

#: Tiles of a stretch of a row: by the plan alone, since an activation runs along them.
_STRETCH = 56
#: Tiles of a block, from which a schedule chooses.
_TILES = (4, 8, 16, 28, 42, 56, 84)
#: Nanoseconds: a vector of channels of a tile transformed, a vector of weights transformed into a cache and into memory
#: (36 frequencies each), a launch; and bytes of transformed weights read in a nanosecond.
_SOURCE, _WEIGHT, _WEIGHT_AWAY, _LAUNCH, _READ = 95, 62, 230, 10_000, 64
#: Bytes of transformed weights that stay in a cache.
NEAR = 1 << 20


@dataclass(frozen=True)
class Blocks:
    """Into how many blocks samples, depths and rows of tiles are divided, and what the largest has."""

    samples: int
    depths: int
    rows: int
    stretches: int
    tiles: int
    slices: int
    stretch: int

    @property
    def count(self) -> int:
        return self.samples * self.depths * self.rows * self.stretches


@dataclass(frozen=True)
class WeightPart:
    """Bundles of groups with all their panels, or one bundle with some."""

    first_bundle: int
    bundles: int
    first_panel: int
    panels: int
    first_vector: int
    vectors: int


@dataclass(frozen=True)
class Schedule:
    """How one plan's products are divided.

    ``transient``: weights are transformed block by block, when they are used. ``bytes``: of scratch; ``cost``: an
    estimate in nanoseconds, without the products themselves.
    """

    blocks: Blocks
    parts: tuple[WeightPart, ...]
    transient: bool
    v_frequency: int
    u_frequency: int
    m_frequency: int
    bytes: int
    cost: float

    @property
    def frequencies(self) -> tuple[int, int, int]:
        """Cells from one frequency of transformed source, weights and products to the next."""
        return self.v_frequency, self.u_frequency, self.m_frequency


def bundle_of(tiling: Tiling) -> int:
    """Groups whose channels together are whole vectors, or all groups."""
    together = tiling.lanes // gcd(tiling.lanes, tiling.channels)
    return together if tiling.groups % together == 0 else tiling.groups


def stretch_of(tiling: Tiling) -> int:
    """Tiles of a row that are computed together."""
    tiles, step = tiling.acrosses.size, tiling.steps[1]
    if tiles <= 2 * _STRETCH or step > _STRETCH:
        return tiles
    return _STRETCH // step * step  # whole sets of interleaved tiles: their positions are neighbours


def _blocks(tiling: Tiling, batch: int, most: int) -> Blocks:
    stretch, tiles = stretch_of(tiling), tiling.acrosses.size
    all_rows, depths = tiling.downs.size, tiling.target[0]
    taps = int(tiling.depth_taps.max() - tiling.depth_taps.min())
    rows = 1 if stretch < tiles else min(max(most // stretch, 1), all_rows)
    if taps and tiles < ROWS // 2:  # the kernel adds slices of zeros to few tiles, which must not depend on a schedule
        rows = all_rows
    deep = min(max(most // (rows * stretch), 1), depths) if rows == all_rows else 1
    flat = depths == 1 and taps == 0
    some = min(max(most // (rows * stretch), 1), batch) if flat and rows == all_rows else 1
    counts = (-(-batch // some), -(-depths // deep), -(-all_rows // rows))
    some, deep, rows = -(-batch // counts[0]), -(-depths // counts[1]), -(-all_rows // counts[2])
    slices = deep + taps
    return Blocks(*counts, -(-tiles // stretch), some * deep * rows * stretch, slices, some * slices * rows * stretch)


def _parts(tiling: Tiling, count: int) -> tuple[WeightPart, ...]:
    """The weights in about so many parts."""
    bundle = bundle_of(tiling)
    bundles, panels = tiling.groups // bundle, int(panels_of.py_func(tiling.row_vectors))
    all_panels, vectors = bundle * panels, bundle * tiling.row_vectors
    if count <= bundles or bundle > 1:
        found, count = [], min(count, bundles)
        for i in range(count):
            first, last = i * bundles // count, (i + 1) * bundles // count
            found.append(WeightPart(first, last - first, 0, all_panels, first * vectors, (last - first) * vectors))
        return tuple(found)
    each, found = min(-(-count // bundles), panels), []
    for b in range(bundles):
        for i in range(each):
            first, last = i * panels // each, (i + 1) * panels // each
            begin, end = first * vectors // panels, last * vectors // panels
            found.append(WeightPart(b, 1, first, last - first, b * vectors + begin, end - begin))
    return tuple(found)


def _schedule(tiling: Tiling, batch: int, threads: int, prepared: bool, most: int, count: int) -> Schedule:
    """``count``: parts of the weights; 0: they are transformed when they are used."""
    blocks, frequencies, lanes, size = (
        _blocks(tiling, batch, most),
        prod(tiling.products),
        tiling.lanes,
        tiling.dtype.itemsize,
    )
    bundle = bundle_of(tiling)
    padded = -(-bundle * tiling.channels // lanes) * lanes
    bundles, panels = tiling.groups // bundle, bundle * int(panels_of.py_func(tiling.row_vectors))
    wide = -(-tiling.row_vectors * bundle // panels)
    v_frequency = frequency_cells(blocks.stretch + ROWS, padded, lanes)
    m_frequency = frequency_cells(blocks.tiles + ROWS, wide * lanes, lanes)
    transient = count == 0 and not prepared
    parts = _parts(tiling, max(count, 1))
    weights = tiling.groups * tiling.row_vectors * tiling.channels * tiling.depth_taps.size
    if transient:
        u_frequency = frequency_cells(min(DEPTH, tiling.channels), wide * lanes, lanes)
    elif prepared:
        u_frequency = tiling.weight_frequency
    else:
        most_vectors = max(part.vectors for part in parts)
        u_frequency = frequency_cells(most_vectors * tiling.depth_taps.size * tiling.channels, lanes, lanes)
    own = frequencies * size * (v_frequency + m_frequency + u_frequency * transient)
    shared = 0 if transient or prepared else frequencies * u_frequency * size
    used = min(threads, blocks.count * bundles * panels)
    stored = weights * lanes * size * frequencies
    # A block that two threads share is transformed by both; parts of a bundle's weights each take the source again.
    blocks_here = blocks.count * (bundles if len(parts) <= bundles else 1)
    tiles = batch * blocks.depths * blocks.slices * tiling.downs.size * tiling.acrosses.size
    nanoseconds = tiles * bundles * padded / lanes * _SOURCE * max(len(parts) / bundles, 1)
    nanoseconds *= 1 + (used - 1) / blocks_here
    if transient:
        made = weights * _WEIGHT * blocks.count
    else:
        made = 0 if prepared else weights * (_WEIGHT if shared <= NEAR else _WEIGHT_AWAY)
    # Turning weights into vectors costs about half, however few frequencies follow.
    nanoseconds = nanoseconds * frequencies / 36 + made * (0.5 + frequencies / 72)
    if not transient and stored > NEAR:
        nanoseconds += blocks.count * stored / _READ
    nanoseconds += weights * frequencies * tiles / used * max(0.0, 1 - blocks.tiles / 24) * 0.03
    cost = nanoseconds / used + len(parts) * (1 if transient or prepared else 2) * _LAUNCH
    return Schedule(blocks, parts, transient, v_frequency, u_frequency, m_frequency, shared + threads * own, cost)


def _candidates(tiling: Tiling, batch: int, threads: int, prepared: bool) -> Iterator[Schedule]:
    for most, parts in product(_TILES, (1,) if prepared else (0, 1, 2, 3, 4, 6, 8)):
        yield _schedule(tiling, batch, threads, prepared, most, parts)


def _scratch_budget(tiling: Tiling, batch: int) -> float:
    """Bytes of scratch that are no reason to divide further: a copy of source and weights, as other libraries take."""
    source = batch * tiling.groups * tiling.channels * prod(tiling.cells)
    weights = tiling.groups * tiling.rows * tiling.channels * tiling.depth_taps.size * tiling.taps
    return max((source + weights) * tiling.dtype.itemsize * 0.92, 1_100_000)


def schedule_of(tiling: Tiling, batch: int, threads: int, prepared: bool) -> Schedule:
    """The cheapest division whose scratch memory is within the budget, or else the one that takes least."""
    found = list(_candidates(tiling, batch, threads, prepared))
    budget = _scratch_budget(tiling, batch)
    fits = [each for each in found if each.bytes <= budget]
    return min(fits, key=lambda each: each.cost) if fits else min(found, key=lambda each: each.bytes)
