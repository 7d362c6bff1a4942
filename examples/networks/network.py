"""A network as a list of steps: counted from shapes alone, run by numbaconv, or by PyTorch with the same weights.

Batch normalisation at inference is part of a convolution's weight and bias, so that each convolution here has a bias
and none is normalised. Fully connected layers are convolutions over all that is left, or over one cell.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import numbaconv
from numbaconv import ConvPlan

Array = NDArray[np.float32]
Weights = dict[str, Array]
#: The layers from the input to a step that decide what it sees; None where that is no single field.
Path = tuple[ConvPlan | dict[str, Any], ...] | None


@dataclass(frozen=True)
class Step:
    """One operation: ``inputs`` are the steps that it reads, ``shape`` is what it makes of one sample."""

    name: str
    kind: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    path: Path
    plan: ConvPlan | None = None
    options: dict[str, Any] | None = None


@dataclass(frozen=True)
class Published:
    """A number that a paper gives: ``unit`` is one of its last digit, within which it was rounded or cut."""

    what: str
    value: float
    unit: float
    source: str
    computed: Callable[["Network"], float]

    def holds(self, network: "Network") -> bool:
        return abs(self.computed(network) - self.value) <= self.unit


class Network:
    """Steps in order; step 0 is the input. Each method adds one and returns its number."""

    def __init__(self, title: str, input_shape: Sequence[int]):
        self.title = title
        self.steps = [Step("input", "input", (), tuple(input_shape), ())]

    def _add(self, step: Step) -> int:
        self.steps.append(step)
        return len(self.steps) - 1

    def conv(
        self,
        x: int,
        channels: int,
        kernel: int | tuple[int, ...],
        *,
        name: str,
        activation: str | None = "relu",
        residual: int | None = None,
        transposed: bool = False,
        **arguments: Any,
    ) -> int:
        """A convolution, with bias; what is added to it and its activation are part of it."""
        shape, groups = self.steps[x].shape, arguments.get("groups", 1)
        rank = len(shape) - 1
        taps = kernel if isinstance(kernel, tuple) else (kernel,) * rank
        outer = (shape[0], channels // groups) if transposed else (channels, shape[0] // groups)
        plan = numbaconv.plan_conv((1, *shape), (*outer, *taps), transposed=transposed, bias=True, **arguments)
        path = None if transposed else self._longer(x, plan)
        inputs = (x,) if residual is None else (x, residual)
        if path is not None and residual is not None:
            path = self._wider(path, self.steps[residual].path)
        options = {"activation": activation, "arguments": arguments}
        kind = "conv_transpose" if transposed else "conv"
        assert all(step.name != name for step in self.steps), f"{name} is there already, and weights have its name"
        return self._add(Step(name, kind, inputs, plan.output_shape[1:], path, plan, options))

    def pool(
        self, x: int, kind: str, kernel: int, stride: int, padding: tuple[int, int] = (0, 0), name: str = ""
    ) -> int:
        """``max_pool`` or ``avg_pool``; an average counts no padding."""
        channels, *extents = self.steps[x].shape
        pooled = [(extent + sum(padding) - kernel) // stride + 1 for extent in extents]
        path = self._longer(x, {"kernel_size": kernel, "stride": stride, "padding": padding[0]})
        options = {"kernel": kernel, "stride": stride, "padding": padding}
        return self._add(Step(name or kind, kind, (x,), (channels, *pooled), path, options=options))

    def global_pool(self, x: int) -> int:
        """The mean of each channel, as one cell."""
        extents = self.steps[x].shape[1:]
        return self.pool(x, "avg_pool", extents[0], extents[0], name="global average")

    def concat(self, parts: Sequence[int], name: str) -> int:
        """Channels of several steps, one after the other."""
        path = self.steps[parts[0]].path
        for part in parts[1:]:
            path = self._wider(path, self.steps[part].path)
        channels = sum(self.steps[part].shape[0] for part in parts)
        return self._add(Step(name, "concat", tuple(parts), (channels, *self.steps[parts[0]].shape[1:]), path))

    def crop(self, x: int, extent: int, name: str) -> int:
        """The middle of each channel."""
        step = self.steps[x]
        before = (step.shape[1] - extent) // 2
        shape = (step.shape[0], *(extent,) * (len(step.shape) - 1))
        return self._add(Step(name, "crop", (x,), shape, None, options={"before": before, "extent": extent}))

    def gate(self, x: int, name: str) -> int:
        """tanh of the first half of the channels, times sigmoid of the second."""
        step = self.steps[x]
        return self._add(Step(name, "gate", (x,), (step.shape[0] // 2, *step.shape[1:]), step.path))

    def resize(self, x: int, extent: int, name: str) -> int:
        """Bilinear interpolation between the outermost cells."""
        shape = (self.steps[x].shape[0], extent, extent)
        return self._add(Step(name, "resize", (x,), shape, None, options={"extent": extent}))

    def _longer(self, x: int, layer: ConvPlan | dict[str, Any]) -> Path:
        path = self.steps[x].path
        return None if path is None else (*path, layer)

    def _wider(self, one: Path, other: Path) -> Path:
        """Of two paths to the same cells, the one that sees more: fields here share their centres."""
        if one is None or other is None:
            return None
        return max(one, other, key=lambda path: numbaconv.receptive_field(path, rank=self.rank).size)

    @property
    def rank(self) -> int:
        return len(self.steps[0].shape) - 1

    def named(self, name: str) -> Step:
        """The step of a name."""
        (found,) = (step for step in self.steps if step.name == name)
        return found

    def field(self, name: str) -> int:
        """Cells along an axis that one cell of a step sees."""
        path = self.named(name).path
        assert path is not None, f"{name} has no single receptive field"
        return numbaconv.receptive_field(path, rank=self.rank).size[0]

    @property
    def parameters(self) -> int:
        return sum(step.plan.parameters for step in self.steps if step.plan)

    @property
    def multiply_adds(self) -> int:
        """Of one sample, as papers count them: half of the FLOPs."""
        return sum(step.plan.macs for step in self.steps if step.plan)

    def weights(self, seed: int) -> Weights:
        """He-normal weights, and biases that matter a little, all from one seed."""
        rng, found = np.random.default_rng(seed), {}
        for step in self.steps:
            if step.plan is None:
                continue
            shape = step.plan.weight_shape
            fan = math.prod(shape[1:]) if step.kind == "conv" else shape[0] * math.prod(shape[2:]) / 4
            gain = 0.5 if len(step.inputs) > 1 else 1.0  # sums of branches grow slowly
            found[f"{step.name}.weight"] = rng.standard_normal(shape, np.float32) * np.float32(
                gain * math.sqrt(2 / fan)
            )
            found[f"{step.name}.bias"] = rng.standard_normal(step.plan.out_channels, np.float32) * np.float32(0.05)
        return found

    def run(self, engine: Any, weights: Weights, x: Array) -> Array:
        """The last step's output for a batch of inputs; an engine has a method for each kind of step."""
        last_use = {source: number for number, step in enumerate(self.steps) for source in step.inputs}
        values: dict[int, Any] = {0: engine.array(x)}
        for number, step in enumerate(self.steps[1:], start=1):
            sources = [values[source] for source in step.inputs]
            options = dict(step.options or {})
            if step.plan is not None:
                options["weight"] = engine.array(weights[f"{step.name}.weight"])
                options["bias"] = engine.array(weights[f"{step.name}.bias"])
                options["plan"] = step.plan
            values[number] = getattr(engine, step.kind)(*sources, **options)
            for source in step.inputs:  # memory of large networks: what nobody reads any more goes
                if last_use[source] == number:
                    values.pop(source, None)
        return np.asarray(values[len(self.steps) - 1])


def table(network: Network) -> Table:
    """Layer by layer: output, parameters, FLOPs and receptive field."""
    drawn = Table(title=network.title)
    for column, side in (("layer", "left"), ("", "left"), ("output", "right"), ("parameters", "right")):
        drawn.add_column(column, justify=side, no_wrap=True)
    for column in ("MFLOP", "receptive field"):
        drawn.add_column(column, justify="right", no_wrap=True)
    for step in network.steps:
        field = "" if step.path is None else str(numbaconv.receptive_field(step.path, rank=network.rank).size[0])
        counted = ("", "") if step.plan is None else (f"{step.plan.parameters:,}", f"{step.plan.flops / 1e6:,.1f}")
        drawn.add_row(step.name, step.kind, "x".join(map(str, step.shape)), *counted, field)
    drawn.add_section()
    flops = f"{2 * network.multiply_adds / 1e6:,.1f}"
    drawn.add_row("all", "", "", f"{network.parameters:,}", flops, "")
    return drawn


def show(network: Network, published: Sequence[Published], console: Console) -> bool:
    """Print the table and the published numbers; whether these hold."""
    console.print(table(network))
    good = True
    for each in published:
        holds = each.holds(network)
        good = good and holds
        mark = "agrees" if holds else "[red]differs[/red]"
        console.print(f"{mark}: {each.what} {each.computed(network):,.6g}; published {each.value:,.6g} ({each.source})")
    return good
