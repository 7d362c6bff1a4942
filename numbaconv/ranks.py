"""One function written once, offered as ``...1d``, ``...2d``, ``...3d`` and rank-free."""

import inspect
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

__all__ = ["at_rank", "shape_names"]

P = ParamSpec("P")
R = TypeVar("R")

_SPATIAL = {None: "*spatial", 1: "width", 2: "height, width", 3: "depth, height, width"}


def shape_names(rank: int | None) -> dict[str, str]:
    """What docstrings call the extents of a rank; examples of the rank-free functions have rank 2."""
    axes = rank or 2
    return {
        "rank": str(axes),
        "d": f"{rank}d" if rank else "",
        "spatial": _SPATIAL[rank],
        "kernel": "*kernel"
        if rank is None
        else ", ".join("K" + name[0].upper() for name in _SPATIAL[rank].split(", ")),
        "fives": ", ".join(["5"] * axes),
        "fours": ", ".join(["4"] * axes),
        "threes": ", ".join(["3"] * axes),
        "twos": ", ".join(["2"] * axes),
        "ones": ", ".join(["1"] * axes),
        "tens": ", ".join(["10"] * axes),
    }


def at_rank(name: str, template: Callable[Concatenate[int | None, P], R], rank: int | None) -> Callable[P, R]:
    """``template`` with its first argument bound to a rank (None: from the weight), named and documented so.

    ``{}`` in the name stands for the rank; the docstring's fields are those of `shape_names`.
    """

    signature = inspect.signature(template)
    parameters = list(signature.parameters.values())[1:]
    known = None
    if parameters[-1].kind is inspect.Parameter.VAR_KEYWORD:
        known = _unpacked(template, parameters.pop().annotation)
        parameters += [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=..., annotation=kind)
            for key, kind in known.items()
        ]
    accepted = {parameter.name for parameter in parameters}
    title = name.format(f"{rank}d" if rank else "")

    def ranked(*args: P.args, **kwargs: P.kwargs) -> R:
        if known is not None and not accepted.issuperset(kwargs):
            unknown = ", ".join(sorted(set(kwargs) - accepted))
            raise TypeError(f"{title}() got an unexpected keyword argument: {unknown}")
        return template(rank, *args, **kwargs)

    ranked.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    ranked.__name__ = ranked.__qualname__ = title
    ranked.__module__ = template.__module__
    text = inspect.getdoc(template)
    ranked.__doc__ = text and text.format(name=title, **shape_names(rank))
    return ranked


def _unpacked(template: Callable[..., object], annotation: str) -> dict[str, object]:
    """The keywords behind ``**options: Unpack[TheirTypedDict]``."""
    name = annotation.removeprefix("Unpack[").removesuffix("]")
    return dict(template.__globals__[name].__annotations__)
