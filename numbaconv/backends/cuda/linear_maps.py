"""Constant matrices applied to both sides of a small grid, as straight-line code: what Winograd's transforms are.

``tile_of(left, right)`` is a device function that computes ``left @ grid @ right.T`` between two arrays of a thread.
Numba gets its source written out: every element has a name, factors that are 0 or 1 cost nothing, and rows or columns
that mirror each other (points of equal size and opposite sign) share their even and odd halves::

    row 1:   a d1 + b d2 + c d3 + d4          odd  = a d1 + c d3        row 1 = even + odd
    row 2:  -a d1 + b d2 - c d3 + d4          even = b d2 + d4          row 2 = even - odd

Every product that something is added to is written as a fused multiply-add, so that nothing is left for a compiler to
contract in one kernel and not in another: whatever else a kernel does, the bits are the same.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from ...arrays import Array
from .elements import number
from .intrinsics import inlined

__all__ = ["tile_of"]


class _Value(NamedTuple):
    """A sum that has a name, or, with a factor other than 1, a product that is still to be taken."""

    name: str
    factor: float = 1.0


class _Writer:
    """Lines of source, and the constants that they name."""

    def __init__(self, compute: str):
        self._scalar = number(compute)
        self.lines: list[str] = []
        self.names: dict[str, Any] = {"cuda": cuda}

    def _constant(self, value: float) -> str:
        known = {held: name for name, held in self.names.items() if name != "cuda"}
        wanted = self._scalar(value)
        return known.get(wanted) or self._add_constant(wanted)

    def _add_constant(self, value: Any) -> str:
        name = f"k{len(self.names)}"
        self.names[name] = value
        return name

    def read(self, expression: str) -> _Value:
        """A name for what an expression gives."""
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {expression}")
        return _Value(name)

    def named(self, value: _Value | None) -> _Value | None:
        """A value with its product taken."""
        if value is None or value.factor == 1:
            return value
        if value.factor == -1:
            return self.read(f"-{value.name}")
        return self.read(f"{self._constant(value.factor)} * {value.name}")

    def add(self, one: _Value | None, other: _Value | None) -> _Value | None:
        """A sum; of a product that is still to be taken, one rounding."""
        if one is None or other is None:
            return one or other
        if abs(one.factor) == 1 and abs(other.factor) != 1:
            one, other = other, one
        if abs(other.factor) != 1:
            other = self.named(other) or other
        sign = "-" if other.factor < 0 else ""
        if abs(one.factor) != 1:
            return self.read(f"cuda.fma({self._constant(one.factor)}, {one.name}, {sign}{other.name})")
        if one.factor < 0 and not sign:
            one, other = other, one
            sign = "-"
        if one.factor < 0:
            return self.read(f"-{one.name} - {other.name}")
        return self.read(f"{one.name} {sign or '+'} {other.name}")

    def _sum(self, row: Array, values: list[_Value | None]) -> _Value | None:
        """``row @ values``, in ascending order but for what takes no product, which is first; None for nothing."""
        total: _Value | None = None
        pairs = zip(row.tolist(), values, strict=True)
        terms = [_Value(value.name, factor) for factor, value in pairs if factor and value is not None]
        for term in sorted(terms, key=lambda each: abs(each.factor) != 1):
            total = self.add(total, term)
        return total

    def apply(self, matrix: Array, values: list[_Value | None]) -> list[_Value | None]:
        """``matrix @ values``."""
        rows, columns = matrix.shape
        pairs = [j for j in range(columns - 1) if _mirrored(matrix[:, j], matrix[:, j + 1])]
        if rows < columns and pairs:
            matrix, values = matrix.copy(), list(values)
            for j in pairs:  # even rows want the sum, odd ones the difference
                one, other = values[j], values[j + 1]
                assert one is not None
                assert other is not None
                values[j] = self.add(one, other)
                values[j + 1] = self.add(one, _Value(other.name, -1.0))
                matrix[1::2, j], matrix[::2, j + 1] = 0, 0
                matrix[1::2, j + 1] *= -1
            return [self.named(self._sum(row, values)) for row in matrix]
        found: list[_Value | None] = []
        while len(found) < rows:
            i = len(found)
            if i + 1 < rows and _mirrored(matrix[i], matrix[i + 1]):
                even, odd = (self._sum(matrix[i][half::2], values[half::2]) for half in (0, 1))
                minus = None if odd is None else _Value(odd.name, -odd.factor)
                found += [self.named(self.add(even, each)) for each in (odd, minus)]
            else:
                found.append(self.named(self._sum(matrix[i], values)))
        return found


def _mirrored(one: Array, other: Array) -> bool:
    """Whether two rows differ in the signs of the odd elements alone."""
    signs = (-1.0) ** np.arange(one.size)
    return one.size > 1 and bool(np.array_equal(one, signs * other))


@cache
def _written(left: tuple[tuple[float, ...], ...], right: tuple[tuple[float, ...], ...], compute: str) -> Any:
    writer = _Writer(compute)
    down, across = np.array(left), np.array(right)
    width = across.shape[1]
    read = [[writer.read(f"cells[{i * width + j}]") for j in range(width)] for i in range(down.shape[1])]
    columns = [writer.apply(down, [row[j] for row in read]) for j in range(width)]
    stores = []
    for i in range(down.shape[0]):
        for j, value in enumerate(writer.apply(across, [column[i] for column in columns])):
            assert value is not None
            stores.append(f"found[{i * across.shape[0] + j}] = {value.name}")
    body = "\n".join(f"    {line}" for line in [*writer.lines, *stores])
    exec(f"def transform(cells, found):\n{body}\n", writer.names)
    return inlined(writer.names["transform"])


def tile_of(left: Array, right: Array, compute: str) -> Any:
    """A device function ``transform(cells, found)``: ``found = left @ cells @ right.T``, rows one after another."""
    return _written(tuple(map(tuple, left.tolist())), tuple(map(tuple, right.tolist())), compute)
