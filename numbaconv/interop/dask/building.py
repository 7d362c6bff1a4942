"""The graphs of the three primitives: which blocks there are, what each reads, and what becomes of the results.

Result channels are cut between groups alone, and a block gets all source channels of its groups, whatever their chunks:
a sum over channels is taken in one block, in the order of the whole problem. Each block is computed by the algorithm
that the whole problem would get, whose sums do not depend on extents unless it works by transforms.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np

from ...arrays import asked_dtype
from ...backends.base import Direction
from ...backends.registry import forced_algorithm
from ...dispatch import Judged, judge
from ...plan import ConvPlan, Geometry
from ...routes import GIVEN_NAMES, Site
from .blocks import Job, run_block, under
from .graph import as_lazy, cuts_of, gather, layer, summed, tokenize
from .pieces import (
    Block,
    Window,
    forward_blocks,
    forward_cuts,
    input_blocks,
    input_cuts,
    readable_cuts,
    shortened,
    whole_phases,
    windows_of,
)

__all__ = ["lazy"]


#: Outputs of the longest axis that an algorithm is chosen by.
_MOST_PLANNED = 2**22


class _Axes(NamedTuple):
    """Where the axes of data are."""

    batch: tuple[int, ...]
    channel: int
    spatial: tuple[int, ...]

    @classmethod
    def of(cls, plan: ConvPlan) -> "_Axes":
        batch = (0,) if plan.batched else ()
        channel = plan.rank + len(batch) if plan.channels_last else len(batch)
        rest = range(plan.rank + len(batch) + 1)
        return cls(batch, channel, tuple(axis for axis in rest if axis not in (*batch, channel)))

    def placed(self, batch: Any, channel: Any, spatial: Sequence[Any]) -> tuple[Any, ...]:
        """What belongs to the axes, in their order."""
        found: list[Any] = [None] * (len(self.batch) + 1 + len(self.spatial))
        for axis in self.batch:
            found[axis] = batch
        found[self.channel] = channel
        for axis, each in zip(self.spatial, spatial, strict=True):
            found[axis] = each
        return tuple(found)


def _stand_in(array: Any) -> Any:
    """An array of a Dask array's shape and dtype, of one element's memory, for the checks that look at no element."""
    return None if array is None else np.broadcast_to(np.zeros((), array.dtype), array.shape)


def _planned(plan: ConvPlan) -> ConvPlan:
    """What the algorithm is chosen by: the plan, or one of shorter axes, since choosing may take a table of an axis."""
    return replace(plan, axes=tuple(shortened(axis, _MOST_PLANNED) for axis in plan.axes))


def _start_threads() -> None:
    """Have Numba's threads started here, if this is the main thread, before a thread of Dask's would do it.

    Where another thread starts them, GNU's OpenMP waits for ever as the process ends.
    """
    if threading.current_thread() is threading.main_thread():
        import numba  # the backend has imported it

        numba.get_num_threads()


def lazy(
    site: Site,
    rank: int,
    operands: dict[str, Any],
    arguments: dict[str, Any],
    *,
    size: Sequence[int] | None = None,
    data_format: str | None = None,
    weight_format: str | None = None,
    activation: Any = None,
    backend: str | None = None,
    algorithm: str | None = None,
    precision: str | None = None,
    dtype: Any = None,
    like: Any = None,
) -> Any:
    """What a site produces, as a Dask array; everything is checked, nothing computed.

    Parameters
    ----------
    site : Site
    rank : int
    operands : dict
        What the site reads, by its names; ``bias`` and ``residual``, too.
    arguments : dict
        Those of `Geometry`.
    size : sequence of int, optional
        The shape of what it produces, where that is an operand's gradient.
    data_format, weight_format, activation, backend, algorithm, precision, dtype
        As in the functions.
    like : Dask array, optional
        What an input's gradient gets its chunks from; else they follow from those that it is computed from.
    """
    op = site.op(rank)
    geometry = Geometry.of(op, rank, **arguments)
    given = {
        name: None if value is None else as_lazy(op, GIVEN_NAMES.get(name, name), value, dtype is not None)
        for name, value in operands.items()
    }
    first, second = (given[name] for name in site.reads)
    found = judge(
        site,
        rank,
        _stand_in(first),
        _stand_in(second),
        tuple(arguments),
        tuple(getattr(geometry, name) for name in arguments),
        data_format=data_format,
        weight_format=weight_format,
        size=size,
        bias=_stand_in(given.get("bias")),
        residual=_stand_in(given.get("residual")),
        activation=activation,
        backend=backend,
        algorithm=algorithm,
        precision=precision,
        dtype=dtype,
        stand_in=_planned,
    )
    if found.engine.name == "cpu":
        _start_threads()
    job = Job.of(site, rank, geometry, weight_format, activation, found.engine.name, asked_dtype(op, dtype))
    builder = _Builder(site, found, job, forced_algorithm(algorithm))
    if site.direction is Direction.WEIGHT_GRAD:
        return builder.weight_gradient(first, second)
    return builder.data(first, second, given.get("bias"), given.get("residual"), like)


class _Builder:
    """The graph of one call."""

    def __init__(self, site: Site, found: Judged, job: Job, forced: str | None):
        self.site, self.found, self.job, self.forced = site, found, job, forced
        self.plan, self.axes = found.plan, _Axes.of(found.plan)
        self._algorithms: dict[ConvPlan, str | None] = {}

    def _algorithm(self, plan: ConvPlan) -> str | None:
        """The name of what computes a block: the whole problem's algorithm, if it accepts the block."""
        name = self.found.algorithm.name
        if plan not in self._algorithms:
            if self.forced is not None:
                self.found.engine.select(self.found.op, plan, self.site.direction, self.forced)
            self._algorithms[plan] = name if self.found.algorithm.refusal(plan) is None else None
        return self._algorithms[plan]

    def _channels(self, role: str) -> int:
        return self.plan.x_channels if role == "x" else self.plan.y_channels

    def _groups(self, source: Any, role: str) -> list[int]:
        """Where groups are cut: near the source's chunks."""
        groups, cuts = self.plan.groups, cuts_of(source.chunks[self.axes.channel])
        each = max(self._channels(role) // groups, 1)
        return [0, *sorted({at for cut in cuts if 0 < (at := round(cut / each)) < groups}), groups]

    def _of_groups(self, role: str, groups: Sequence[int]) -> list[Window]:
        """The channels of these groups."""
        return windows_of([cut * (self._channels(role) // self.plan.groups) for cut in groups])

    def _part(self, groups: tuple[int, int], batch: int, blocks: Iterable[Block]) -> ConvPlan:
        """The plan of a block."""
        plan, count = self.plan, groups[1] - groups[0]
        return replace(
            plan,
            batch=batch,
            groups=count,
            x_channels=plan.x_channels // plan.groups * count,
            y_channels=plan.y_channels // plan.groups * count,
            axes=tuple(block.axis for block in blocks),
        )

    def _batches(self, array: Any) -> tuple[int, ...]:
        return array.chunks[self.axes.batch[0]] if self.axes.batch else (1,)  # type: ignore[no-any-return]

    def _weight(self, weight: Any, groups: Sequence[int]) -> Any:
        """The weight with a chunk for each block of groups."""
        for at, axis in enumerate(self.plan.weight_axes):
            windows = self._of_groups("y", groups) if at == 0 else windows_of([0, weight.shape[axis]])
            weight = gather(weight, axis, windows)
        return weight

    def _weight_key(self, name: str, group: int) -> tuple[Any, ...]:
        index = [0] * len(self.plan.weight_axes)
        index[self.plan.weight_axes[0]] = group
        return (name, *index)

    def _gathered(self, array: Any, batch: Sequence[Window], channel: Sequence[Window], spatial: Iterable[Any]) -> Any:
        """An array with these chunks."""
        for axis, windows in enumerate(self.axes.placed(batch, channel, tuple(spatial))):
            array = gather(array, axis, windows)
        return array

    def data(self, first: Any, second: Any, bias: Any, residual: Any, like: Any) -> Any:
        """FORWARD or INPUT_GRAD."""
        forward = self.site.direction is Direction.FORWARD
        reads_weight_first = self.site.reads[0] == "weight"
        source, weight = (second, first) if reads_weight_first else (first, second)
        role, target = ("x", "y") if forward else ("y", "x")
        find_cuts, find_blocks = (forward_cuts, forward_blocks) if forward else (input_cuts, input_blocks)
        model, model_role = (source, role) if like is None else (like, target)
        groups, batches = self._groups(model, model_role), self._batches(model)
        blocks = []
        for axis, at in zip(self.plan.axes, self.axes.spatial, strict=True):
            if like is None:
                cuts = find_cuts(axis, source.chunks[at])
            else:
                cuts = cuts_of(extent for extent in like.chunks[at] if extent)
                cuts = readable_cuts(axis, cuts) if forward else whole_phases(axis, cuts)
            blocks.append(find_blocks(axis, cuts))
        batch_windows = windows_of(cuts_of(batches))
        windows = [[block.window for block in along] for along in blocks]
        source = self._gathered(source, batch_windows, self._of_groups(role, groups), windows)
        weight = self._weight(weight, groups)
        results = [windows_of(cuts_of(block.result[1] - block.result[0] for block in along)) for along in blocks]
        channels = self._of_groups(target, groups)
        bias = None if bias is None else gather(bias, 0, channels)
        residual = None if residual is None else self._gathered(residual, batch_windows, channels, results)
        inputs = [each for each in (source, weight, bias, residual) if each is not None]
        name = self._name(inputs, blocks)
        tasks = {}
        for group, span in enumerate(pairwise(groups)):
            for numbers in product(*(range(len(along)) for along in blocks)):
                chosen = [along[number] for along, number in zip(blocks, numbers, strict=True)]
                for number, batch in enumerate(batches):
                    index = self.axes.placed(number, group, numbers)
                    plan = self._part(span, batch, chosen)
                    pair: tuple[Any, Any] = (source.name, *index), self._weight_key(weight.name, group)
                    tasks[(name, *index)] = (
                        partial(
                            under,
                            self.job.flushes,
                            run_block,
                            self.job,
                            plan,
                            self._algorithm(plan),
                            self._crop(plan, chosen),
                        ),
                        *(reversed(pair) if reads_weight_first else pair),
                        bias if bias is None else (bias.name, group),
                        residual if residual is None else (residual.name, *index),
                    )
        chunks = self.axes.placed(
            batches, [each.extent for each in channels], [[each.extent for each in along] for along in results]
        )
        return layer(name, tasks, chunks, self.found.dtype, inputs)

    def _crop(self, plan: ConvPlan, blocks: Sequence[Block]) -> tuple[slice, ...] | None:
        """What of a block's result is kept, where that is not all."""
        forward = self.site.direction is Direction.FORWARD
        extents = [axis.output if forward else axis.input for axis in plan.axes]
        if all(block.crop == (0, extent) for block, extent in zip(blocks, extents, strict=True)):
            return None
        return self.axes.placed(slice(None), slice(None), [slice(*block.crop) for block in blocks])

    def _name(self, inputs: Sequence[Any], blocks: object) -> str:
        token = tokenize([each.name for each in inputs], self.job, repr(self.plan), self.forced, repr(blocks))
        return f"{self.found.op}-{token}"

    def weight_gradient(self, first: Any, second: Any) -> Any:
        """WEIGHT_GRAD: a gradient of each block of outputs, and their sum as a tree."""
        x, y = (second, first) if self.site.transposed else (first, second)
        groups, batches = self._groups(x, "x"), self._batches(x)
        blocks = []
        for axis, at in zip(self.plan.axes, self.axes.spatial, strict=True):
            blocks.append(forward_blocks(axis, forward_cuts(axis, x.chunks[at])))
        batch_windows = windows_of(cuts_of(batches))
        windows = [[block.window for block in along] for along in blocks]
        outputs = [[Window.of(block.result) for block in along] for along in blocks]
        x = self._gathered(x, batch_windows, self._of_groups("x", groups), windows)
        y = self._gathered(y, batch_windows, self._of_groups("y", groups), outputs)
        name = self._name([x, y], blocks)
        tasks: dict[Any, Any] = {}
        for group, span in enumerate(pairwise(groups)):
            terms = []
            for numbers in product(*(range(len(along)) for along in blocks)):
                chosen = [along[number] for along, number in zip(blocks, numbers, strict=True)]
                for number, batch in enumerate(batches):
                    index = self.axes.placed(number, group, numbers)
                    plan = self._part(span, batch, chosen)
                    pair: tuple[Any, Any] = (x.name, *index), (y.name, *index)
                    terms.append((f"{name}-block", *index))
                    tasks[terms[-1]] = (
                        partial(under, self.job.flushes, run_block, self.job, plan, self._algorithm(plan), None),
                        *(reversed(pair) if self.site.transposed else pair),
                    )
            summed(name, tasks, terms, self._weight_key(name, group), self.found.dtype, self.job.flushes)
        chunks = [[extent] for extent in self.plan.weight_shape]
        chunks[self.plan.weight_axes[0]] = [each.extent for each in self._of_groups("y", groups)]
        return layer(name, tasks, chunks, self.found.dtype, [x, y])
