"""Shapes of the tiles that blocks compute on tensor cores, the kinds of numbers they multiply, and shared memory.

::

                   columns                 a block: ``rows`` x ``columns`` results, 16 words of 32 bits deep a step
              +-------+-------+            a warp:  ``warp_rows`` x ``warp_columns`` of them, in products of 16x8
         rows | warp  | warp  |            a word:  two elements of a half type, or one of tf32
              +-------+-------+
              | warp  | warp  |
              +-------+-------+

Both operands lie in shared memory with their depth side by side: 64 bytes, four pieces of 16, to a row or column. Piece
``c`` of row ``r`` is at place ``c ^ key(r)``, ``key(r) = 2 bit1(r) + bit2(r)``, so its 16 bytes are in group
``4 bit0(r) + (c ^ key(r))`` of the 8 that the banks make. No two of these are in one group, hence no conflicts::

    ldmatrix          one piece of 8 rows:         every (bit0, bit1, bit2) comes up once
    copies of 16      two pieces of 4 rows:        bit1 moves a pair {0, 1} to {2, 3}
                      four pieces of 2 rows:       bit0
    copies of 4       one piece of 8 rows, a word of it each of 4 times
                      four pieces of 2 rows, a word each

A thread holds results of neighbouring channels where they are to be stored side by side: row ``g`` of the n-th half of
16 of a warp's rows is channel ``n + g warp_rows / 8`` of the warp's.
"""

from typing import NamedTuple

__all__ = [
    "CHUNKS",
    "HALF_TILES",
    "KINDS",
    "MOST_ROWS",
    "SMALL_TENSOR",
    "SPLIT_TILES",
    "WORDS",
    "Kind",
    "TensorTile",
    "stages_of",
]

#: Words of a step, for each row and column, and pieces of 16 bytes that they are.
WORDS, CHUNKS = 16, 4
#: Words of shared memory that a kernel may have without asking.
_SHARED = 48 * 1024 // 4
#: Steps that may be under way at once.
_MOST_STAGES = 4


class Kind(NamedTuple):
    """What is multiplied: elements in a word, and parts that a float32 is split into."""

    name: str
    per_word: int
    parts: int

    @property
    def depth(self) -> int:
        """Elements of a step."""
        return WORDS * self.per_word


#: By name.
KINDS = {
    kind.name: kind
    for kind in (Kind("float16", 2, 1), Kind("bfloat16", 2, 1), Kind("tf32", 1, 1), Kind("3xtf32", 1, 2))
}


class TensorTile(NamedTuple):
    """Results of a block and of a warp: multiples of 32 and of 8."""

    rows: int
    columns: int
    warp_rows: int
    warp_columns: int

    @property
    def threads(self) -> int:
        """Threads of a block: a whole number for each column."""
        return 32 * (self.rows // self.warp_rows) * (self.columns // self.warp_columns)

    @property
    def thread_rows(self) -> int:
        """Rows of a thread's results."""
        return self.warp_rows // 8

    @property
    def thread_columns(self) -> int:
        """Columns of a thread's results."""
        return self.warp_columns // 4

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}"


#: From the largest to the smallest; for products of one part, and for those of split operands, which need more.
HALF_TILES = (
    TensorTile(128, 128, 64, 32),
    TensorTile(64, 128, 32, 32),
    TensorTile(128, 64, 32, 32),
    TensorTile(64, 64, 32, 32),
    TensorTile(32, 64, 32, 16),
)
SPLIT_TILES = (
    TensorTile(128, 128, 64, 32),
    TensorTile(64, 128, 32, 32),
    TensorTile(64, 64, 32, 32),
    TensorTile(32, 64, 32, 16),
)

#: Rows of the largest tile.
MOST_ROWS = 128

#: A tile of one warp. The simulator takes time for each thread, not for what it computes.
SMALL_TENSOR = TensorTile(32, 8, 32, 8)


def stages_of(lines: int, besides: int = 0) -> int:
    """How many steps fit, for so many rows (of every part) and columns, and words for other things."""
    return min(_MOST_STAGES, (_SHARED - besides) // (WORDS * lines))
