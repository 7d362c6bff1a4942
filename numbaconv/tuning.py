"""Tuning: measure the algorithms for given problems, and remember the fastest for later calls."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .backends.base import Direction
from .backends.registry import disabled_algorithms, resolve, resolve_precision
from .border import bordered, check_passed_on
from .errors import ArgumentError
from .explain import primitive_of
from .plan import ConvPlan, plan_conv

__all__ = ["Measured", "Tuning", "tune"]


@dataclass(frozen=True)
class Measured:
    """One problem's times.

    Attributes
    ----------
    plan : ConvPlan
    direction : Direction
        The primitive that was measured.
    backend : str
    automatic : str
        The algorithm that is chosen without tuning.
    algorithm : str
        The winner, which calls get from now on.
    seconds : dict
        The least time of a call, by the algorithm's name.
    """

    plan: ConvPlan
    direction: Direction
    backend: str
    automatic: str
    algorithm: str
    seconds: dict[str, float]

    def __str__(self) -> str:
        lines = [str(self.plan).splitlines()[0] + f"  {self.direction.name} on backend {self.backend!r}"]
        for name, taken in sorted(self.seconds.items(), key=lambda entry: entry[1]):
            remark = " (chosen without tuning)" if name == self.automatic else ""
            lines.append(f"  {'->' if name == self.algorithm else '  '} {name:16} {taken * 1e3:10.3f} ms{remark}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Tuning:
    """What `tune` measured: one row a problem. Print it for a table.

    Attributes
    ----------
    rows : tuple of Measured
    """

    rows: tuple[Measured, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.rows))


@bordered
def tune(
    input_shape: Any,
    weight_shape: Any = None,
    *,
    direction: str = "forward",
    backend: str | None = None,
    precision: str | None = None,
    **arguments: Any,
) -> Tuning:
    """Measure every algorithm that can compute a problem, and remember the fastest for later calls.

    Winners are kept in a file of the user's (in the folder ``NUMBACONV_CACHE_DIR``, if that is set), for this
    processor, this version of the package, and the problem with any batch size and number of threads: what is
    measured is the batch size given here, with the threads of this moment. Times are those of calls without
    epilogue that are given their weight unpacked. Different algorithms give results of different bits.

    Parameters
    ----------
    input_shape, weight_shape : sequence of int
        Of one problem. For many, give a list of dictionaries as ``input_shape`` and no ``weight_shape``: each has
        the parameters of this function that differ; there is a progress bar if the package rich is installed.
    direction : {"forward", "input", "weight"}
        The call itself, or its gradient by input or weight.
    backend, precision : str, optional
        As in `numbaconv.conv`.
    **arguments
        As in `numbaconv.plan_conv`.

    Returns
    -------
    Tuning
        Print it; its ``rows`` have the times and the winners.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError, AlgorithmError
        As the call itself; before anything is measured.

    Examples
    --------
    >>> from numbaconv import tune
    >>> row = tune((1, 4, 200), (4, 4, 31), backend="reference").rows[0]
    >>> row.algorithm, sorted(row.seconds)
    ('numpy', ['numpy'])
    >>> layers = [{"weight_shape": (4, 4, 3)}, {"weight_shape": (4, 4, 3), "direction": "weight"}]
    >>> found = tune([{"input_shape": (1, 4, 200), **layer} for layer in layers], backend="reference")
    >>> [row.direction.name for row in found.rows]
    ['FORWARD', 'WEIGHT_GRAD']
    """
    check_passed_on("tune", arguments, "plan_conv")
    common = {"direction": direction, "backend": backend, "precision": precision, **arguments}
    if weight_shape is not None:
        problems = [{"input_shape": input_shape, "weight_shape": weight_shape, **common}]
    else:
        problems = [{**common, **each} for each in _checked(input_shape)]
    jobs = [_job(**problem) for problem in problems]
    return Tuning(tuple(_measured(*job) for job in _with_progress(jobs)))


def _checked(problems: Any) -> list[Mapping[str, Any]]:
    if not isinstance(problems, list | tuple) or not all(isinstance(each, Mapping) for each in problems):
        raise ArgumentError(
            "tune: give the shapes of input and weight, or a list of dictionaries with the parameters of each problem"
        )
    for each in problems:
        for name in ("input_shape", "weight_shape"):
            if name not in each:
                raise ArgumentError(f"tune: a problem has no {name}: {each}")
    return list(problems)


def _job(
    input_shape: Any,
    weight_shape: Any,
    direction: str,
    backend: str | None,
    precision: str | None,
    **arguments: Any,
) -> tuple[ConvPlan, Direction, str]:
    plan = plan_conv(input_shape, weight_shape, precision=resolve_precision("tune", precision), **arguments)
    if not plan.macs:
        raise ArgumentError(f"tune: there is nothing to measure in {str(plan).splitlines()[0]}")
    primitive = primitive_of("tune", plan, direction)
    chosen = resolve(backend)
    chosen.select("tune", plan, primitive, None, disabled_algorithms())
    return plan, primitive, chosen.name


def _measured(plan: ConvPlan, direction: Direction, backend: str) -> Measured:
    from .measure import measure  # rarely needed

    engine, disabled = resolve(backend), disabled_algorithms()
    winner = measure(engine, plan, direction, disabled)
    automatic = engine.select("tune", plan, direction, None, disabled).name
    return Measured(plan, direction, backend, automatic, winner.algorithm, winner.seconds)


def _with_progress(jobs: list[Any]) -> Iterable[Any]:
    """The jobs, with a bar on standard error where there are many and rich is installed."""
    if len(jobs) < 2:
        return jobs
    from .progress import tracked  # rarely needed

    return tracked(jobs, "tuning")
