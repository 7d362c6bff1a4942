"""One function written once, offered as ``...1d``, ``...2d``, ``...3d`` and rank-free."""

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, Concatenate, ParamSpec, TypeVar

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
    title = name.format(f"{rank}d" if rank else "")
    ranked = _forwarding(title, template, rank, known)
    ranked.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    ranked.__name__ = ranked.__qualname__ = title
    ranked.__module__ = template.__module__
    text = inspect.getdoc(template)
    ranked.__doc__ = text and text.format(name=title, **shape_names(rank))
    return ranked


def _forwarding(
    title: str, template: Callable[Concatenate[int | None, P], R], rank: int | None, known: dict[str, object] | None
) -> Callable[P, R]:
    """``template`` with its first argument bound, as a function that names each of its arguments.

    Such a function is generated, as `collections.namedtuple` does it: one that takes ``*args, **kwargs`` packs them
    and has them unpacked again, which takes half a microsecond of a small convolution's few. It calls the template's
    code with all arguments by position, since matching a dozen keywords takes as long as all else here.
    """
    code = template.__code__
    count = code.co_argcount + code.co_kwonlyargcount
    by_position = FunctionType(code.replace(co_argcount=count, co_kwonlyargcount=0), template.__globals__)
    parameters = list(inspect.signature(template).parameters.values())[1:]
    defaults = {f"_{each.name}": each.default for each in parameters if each.default is not each.empty}
    heads, passed, keyword_only = [], ["_rank"], False
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and not keyword_only:
            heads.append("*")
            keyword_only = True
        if each.kind is each.VAR_KEYWORD:
            heads.append(f"**{each.name}")
            passed.append(f"**{each.name}")
            continue
        heads.append(f"{each.name}=_{each.name}" if f"_{each.name}" in defaults else each.name)
        passed.append(each.name)
    lines = [f"def {title}({', '.join(heads)}):"]
    if known is not None:
        lines.append(f"    if not _known.issuperset({parameters[-1].name}): _refuse({parameters[-1].name})")
    lines.append(f"    return _template({', '.join(passed)})")
    accepted = frozenset(known or ())

    def refuse(options: dict[str, object]) -> None:
        unknown = ", ".join(sorted(set(options) - accepted))
        raise TypeError(f"{title}() got an unexpected keyword argument: {unknown}")

    space: dict[str, Any] = {**defaults, "_rank": rank, "_template": by_position, "_known": accepted, "_refuse": refuse}
    exec(compile("\n".join(lines), f"<{title} of {template.__module__}>", "exec"), space)
    found: Callable[P, R] = space[title]
    return found


def _unpacked(template: Callable[..., object], annotation: str) -> dict[str, object]:
    """The keywords behind ``**options: Unpack[TheirTypedDict]``."""
    name = annotation.removeprefix("Unpack[").removesuffix("]")
    return dict(template.__globals__[name].__annotations__)
