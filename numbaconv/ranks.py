"""One function written once, offered as ``...1d``, ``...2d``, ``...3d`` and rank-free."""

import inspect
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any, Concatenate, ParamSpec, TypeVar

from .border import MISSING, declare, missing, outside, unknown
from .errors import ConvError

__all__ = ["at_rank", "shape_names"]

P = ParamSpec("P")
R = TypeVar("R")

#: Modules whose functions are named to who gives an argument of theirs elsewhere, and how they are called.
_PUBLIC = {"numbaconv.functional": "", "numbaconv.grad": "grad."}

_SPATIAL = {None: "*spatial", 1: "width", 2: "height, width", 3: "depth, height, width"}


#: Of a template, which is looked at for each of its ranks: most of what making the functions costs.
_signature = cache(inspect.signature)


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

    signature = _signature(template)
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

    It takes any keyword, in order to answer one that it does not know, which costs a call a hundredth of a microsecond.
    An argument that must be given has a default all the same: Python would say that ``weight`` is missing where
    ``kernel=`` was written.
    """
    code = template.__code__
    count = code.co_argcount + code.co_kwonlyargcount
    by_position = FunctionType(code.replace(co_argcount=count, co_kwonlyargcount=0), template.__globals__)
    parameters = list(_signature(template).parameters.values())[1:]
    defaults = {
        f"_{each.name}": MISSING if each.default is each.empty else each.default
        for each in parameters
        if each.kind is not each.VAR_KEYWORD
    }
    heads, passed, keyword_only = [], ["_rank"], False
    for each in parameters:
        if each.kind is each.VAR_KEYWORD:
            passed.append(f"**{each.name}")
            continue
        if each.kind is each.KEYWORD_ONLY and not keyword_only:
            heads.append("*")
            keyword_only = True
        heads.append(f"{each.name}=_{each.name}")
        passed.append(each.name)
    needed = [name[1:] for name, default in defaults.items() if default is MISSING]
    accepted = frozenset(known or ())
    rest = "_unknown" if known is None else parameters[-1].name
    wrong = rest if known is None else f"not _known.issuperset({rest})"
    lines = [
        f"def {title}({', '.join([*heads, f'**{rest}'])}):",
        f"    if {' or '.join([wrong, *(f'{name} is _missing' for name in needed)])}:",
        f"        _refuse({rest}, ({''.join(f'{name}, ' for name in needed)}))",
        "    try:",
        f"        return _template({', '.join(passed)})",
        "    except _error as error:",
        "        raise _outside(error)",
    ]
    takes = accepted | {name[1:] for name in defaults}
    if template.__module__ in _PUBLIC:
        declare(_PUBLIC[template.__module__] + title, takes)

    def refuse(options: dict[str, object], given: tuple[object, ...]) -> None:
        if not takes.issuperset(options):
            raise unknown(title, options, takes)
        raise missing(title, zip(needed, given, strict=True))

    space: dict[str, Any] = {
        **defaults,
        "_rank": rank,
        "_template": by_position,
        "_known": accepted,
        "_missing": MISSING,
        "_refuse": refuse,
        "_error": ConvError,
        "_outside": outside,
    }
    exec(compile("\n".join(lines), f"<{title} of {template.__module__}>", "exec"), space)
    found: Callable[P, R] = space[title]
    return found


def _unpacked(template: Callable[..., object], annotation: str) -> dict[str, object]:
    """The keywords behind ``**options: Unpack[TheirTypedDict]``."""
    name = annotation.removeprefix("Unpack[").removesuffix("]")
    return dict(template.__globals__[name].__annotations__)
