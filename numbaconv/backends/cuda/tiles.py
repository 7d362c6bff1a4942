"""Shapes of the tiles that blocks of threads compute, and the choice among them.

::

               columns                      a block: ``rows`` x ``columns`` results, ``DEPTH`` products deep a step
          +------+------+                   a thread: quads of rows times quads of columns, a quad from each part
     rows | a  b | a  b |                   a warp: up to 8 threads along the columns by 4 along the rows, so that
          | c  d | c  d |                           its reads of a tile are 8 and 4 neighbouring quads
          +------+------+
          | a  b | a  b |                   (four threads a, b, c, d of 8x8 results, parts of one quad each)
          | c  d | c  d |
          +------+------+

Every tile sums a result's products one after another in the same order, so the choice of a tile changes no bit: it
may look at the batch, which the choice of an algorithm may not.
"""

from typing import NamedTuple, Protocol, TypeVar

from .jit import SIMULATED

__all__ = ["DEPTH", "SMALL", "TILES", "WEIGHT_TILES", "Tile", "choose_tile"]

#: Products that a step adds to each result: the depth of the tiles in shared memory.
DEPTH = 8

#: Blocks that occupy a large device, two to each of its multiprocessors.
_BLOCKS = 264


class Tile(NamedTuple):
    """Results of a block, and of a thread: multiples of four."""

    rows: int
    columns: int
    thread_rows: int
    thread_columns: int

    @property
    def threads(self) -> int:
        """Threads of a block: at least as many as columns, since each gathers for one column."""
        return (self.rows // self.thread_rows) * (self.columns // self.thread_columns)

    @property
    def warp(self) -> tuple[int, int]:
        """Threads of a warp (of the block, if it has fewer) along the rows and along the columns."""
        along = min(8, self.columns // self.thread_columns)
        return min(32 // along, self.rows // self.thread_rows), along

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}"


#: By the bytes of an accumulator, from the largest to the smallest. What a thread holds of 64-bit sums is half.
TILES = {
    4: (
        Tile(128, 128, 8, 8),
        Tile(64, 128, 8, 8),
        Tile(128, 64, 8, 8),
        Tile(64, 64, 4, 8),
        Tile(32, 128, 4, 8),
        Tile(32, 64, 4, 4),
        Tile(16, 64, 4, 4),
    ),
    8: (Tile(64, 64, 4, 8), Tile(32, 64, 4, 4), Tile(16, 64, 4, 4)),
}

#: For weight gradients, whose threads look up more to gather: where a block has half the threads, each would have to
#: gather twice as much, which is more than there are registers for beside 64 sums.
WEIGHT_TILES = {
    4: (
        Tile(128, 128, 8, 8),
        Tile(64, 128, 4, 8),
        Tile(128, 64, 4, 8),
        Tile(64, 64, 4, 8),
        Tile(32, 128, 4, 8),
        Tile(32, 64, 4, 4),
        Tile(16, 64, 4, 4),
    ),
    8: TILES[8],
}

#: A tile of eight threads. The simulator takes time for each thread, not for what it computes.
SMALL = Tile(16, 8, 4, 4)


class _Shape(Protocol):
    """What a tile is chosen by; that of tensor cores is another class."""

    @property
    def rows(self) -> int: ...

    @property
    def columns(self) -> int: ...

    @property
    def thread_rows(self) -> int: ...

    @property
    def thread_columns(self) -> int: ...


T = TypeVar("T", bound=_Shape)


def _cost(tile: _Shape, rows: int, columns: int, copies: int) -> float:
    """A measure of the time that a tile takes: rounds of blocks, each as long as its products and its reads."""
    blocks = copies * -(-rows // tile.rows) * -(-columns // tile.columns)
    rounds = max(blocks / _BLOCKS, 1.0)
    reads = 1 / tile.thread_rows + 1 / tile.thread_columns  # of shared memory, for each product
    return rounds * tile.rows * tile.columns * (1 + 2 * reads)


def choose_tile(tiles: tuple[T, ...], rows: int, columns: int, copies: int, small: T) -> T:
    """Of these tiles, the one for ``copies`` products of so many rows and columns; the larger where two are as good.

    In the simulator it is always ``small``.
    """
    if SIMULATED:
        return small
    return min(tiles, key=lambda tile: _cost(tile, rows, columns, copies))
