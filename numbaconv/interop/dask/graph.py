"""Layers of Dask graphs: blocks put together from chunks, and sums as trees.

A layer is a plain dictionary of tasks, and its name a token of what it is made from: the same call gives the same
graph. Halos are cut where their chunk is, so that between workers only the halos travel.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, pairwise, product
from operator import getitem
from typing import Any

import numpy as np

from ...arrays import Array, host_array
from ...backends.subnormals import mode_asked
from ...error_state import undisturbed
from ...errors import ShapeError
from ...extras import require
from .blocks import under
from .pieces import Run, Window, windows_of

dask_array = require("dask.array", "dask", "numbaconv.interop.dask")
tokenize = require("dask.base", "dask", "numbaconv.interop.dask").tokenize
HighLevelGraph = require("dask.highlevelgraph", "dask", "numbaconv.interop.dask").HighLevelGraph

__all__ = ["as_lazy", "cuts_of", "gather", "layer", "rounded", "summed", "tokenize"]

#: How many terms a node of a tree of sums has.
_FAN_IN = 8


def as_lazy(op: str, name: str, value: Any, asked: bool = False) -> Any:
    """A Dask array: as it is, or of an array in memory or on disk. ``asked`` as in `as_array`.

    Raises
    ------
    ShapeError
        If its chunks have no known sizes.
    DTypeError
        If it is no array that convolutions take.
    """
    if not isinstance(value, dask_array.Array):
        stored = hasattr(value, "chunks") and hasattr(value, "dtype")  # zarr's and HDF5's know in which pieces
        value = dask_array.from_array(value if stored else host_array(op, name, value, asked))
    host_array(op, name, value._meta, asked)  # what blocks will be: masked ones are refused now
    if any(extent != extent for chunks in value.chunks for extent in chunks):
        raise ShapeError(f"{op}: {name} has chunks of unknown sizes; call its compute_chunk_sizes() first")
    return value


def cuts_of(chunks: Iterable[int]) -> list[int]:
    """Where chunks of an axis begin, and where the last ends."""
    return [0, *accumulate(chunks)]


def layer(
    name: str, tasks: Mapping[Any, Any], chunks: Sequence[Sequence[int]], dtype: Any, sources: Iterable[Any]
) -> Any:
    """The Dask array of these tasks."""
    dependencies = [source for source in sources if source is not None]
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=dependencies)
    return dask_array.Array(
        graph, name, tuple(map(tuple, chunks)), meta=np.empty((0,) * len(chunks), dtype), dtype=dtype
    )


def _joined(axis: int, runs: tuple[Run, ...], parts: list[list[Array]]) -> Array:
    """One block from the parts of each of its runs."""
    found = []
    for run, pieces in zip(runs, parts, strict=True):
        cells = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis)
        if run.step == 0:
            cells = np.repeat(cells, run.extent, axis)
        found.append(np.flip(cells, axis) if run.step < 0 else cells)
    return found[0] if len(found) == 1 else np.concatenate(found, axis)


def _stretches(run: Run, cuts: Sequence[int]) -> Iterator[tuple[int, slice | None]]:
    """The chunks that a run of cells touches, and what of each (None: all); one of an empty run, too."""
    first, last = run.span
    if first == last:
        yield 0, slice(0, 0)
        return
    for number, (begin, end) in enumerate(pairwise(cuts)):
        low, high = max(first, begin), min(last, end)
        if low < high:
            yield number, None if (low, high) == (begin, end) else slice(low - begin, high - begin)


def gather(array: Any, axis: int, windows: Sequence[Window]) -> Any:
    """A Dask array whose chunks along an axis are these windows of it."""
    cuts = cuts_of(array.chunks[axis])
    if list(windows) == windows_of(cuts):
        return array
    name = "window-" + tokenize(array.name, axis, [window.runs for window in windows])
    part = "part-" + name
    read = [[list(_stretches(run, cuts)) for run in window.runs] for window in windows]
    tasks: dict[Any, Any] = {}
    others = [range(len(chunks)) for at, chunks in enumerate(array.chunks) if at != axis]
    every = (slice(None),) * axis
    for other in product(*others):
        before, after = other[:axis], other[axis:]

        def key_of(chunk: int, cells: slice | None, before: tuple = before, after: tuple = after) -> tuple[Any, ...]:
            """The key of a part, which a task of its own cuts from its chunk."""
            whole = (array.name, *before, chunk, *after)
            if cells is None:
                return whole
            key = (part, chunk, cells.start, cells.stop, *before, *after)
            tasks[key] = (getitem, whole, (*every, cells))
            return key

        for number, (window, runs) in enumerate(zip(windows, read, strict=True)):
            keys = [[key_of(*piece) for piece in run] for run in runs]
            tasks[(name, *before, number, *after)] = (partial(_joined, axis, window.runs), keys)
    chunks = [*array.chunks]
    chunks[axis] = tuple(window.extent for window in windows)
    return layer(name, tasks, chunks, array.dtype, [array])


@undisturbed
def _sum(terms: list[Array]) -> Array:
    """Terms added one after the other; sums of integers wrap."""
    total = terms[0]
    with mode_asked("dask"):
        for term in terms[1:]:
            total = total + term
    return total


@undisturbed
def rounded(total: Array, dtype: Any) -> Array:
    """A sum in the dtype of its result."""
    return total.astype(dtype, copy=False)


def summed(name: str, tasks: dict[Any, Any], terms: list[Any], key: Any, dtype: Any, flushes: bool) -> None:
    """Add the tasks of a tree that sums terms, in an order that follows from their number alone."""
    level = 0
    while len(terms) > 1:
        nodes = [terms[at : at + _FAN_IN] for at in range(0, len(terms), _FAN_IN)]
        terms = []
        for number, node in enumerate(nodes):
            terms.append((f"{name}-sum", level, number, *key[1:]))
            tasks[terms[-1]] = (partial(under, flushes, _sum), node)
        level += 1
    tasks[key] = (rounded, terms[0], dtype)
