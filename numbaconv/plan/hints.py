"""Sentences that tell callers what they probably meant; each follows an error's own, or is empty."""

from collections.abc import Callable

from .axis import PADDING_MODES
from .layout import data_format_of, weight_format_of, weight_order

__all__ = ["axes_rule", "channels_hint", "kernel_hint", "mode_hint", "padding_hint"]

#: Names of other packages for padding modes. NumPy's and SciPy's agree on none but "wrap", and "reflect" is two modes.
_MODES = {
    "edge": "replicate",
    "nearest": "replicate",
    "mirror": "reflect",
    "wrap": "circular",
    "grid-wrap": "circular",
    "grid-mirror": "symmetric",
    "symm": "symmetric",
    "fill": "constant",
    "grid-constant": "constant",
    "zero": "zeros",
    "periodic": "circular",
}


def mode_hint(value: object) -> str:
    """Of a padding mode that another package calls so."""
    if isinstance(value, str) and value.lower() in PADDING_MODES:
        return f"; {value!r} is {value.lower()!r} here"
    if not isinstance(value, str) or value.lower() not in _MODES:
        return ""
    found = f"; {value!r} is {_MODES[value.lower()]!r} here"
    return f"{found}, and SciPy's 'reflect' is 'symmetric'" if value.lower() in ("mirror", "nearest") else found


def padding_hint(name: str) -> str:
    """Of a padding that is none, by its name in lower case."""
    if name == "full":
        return "; 'full' is (kernel - 1) * dilation cells before and after"
    if name == "same_upper":
        return "; 'same_upper' is 'same' here"
    if name in PADDING_MODES or name in _MODES:
        mode = _MODES.get(name, name)
        return f"; to pad with another content write padding_mode={mode!r}, and how many cells as padding"
    return ""


def axes_rule(name: str, shape: tuple[int, ...], rank: int, last: bool) -> tuple[str, str]:
    """How many axes data must have, and how many there are; and for spatial axes alone, how to make it data."""
    rule = f"{name} must have {rank + 2} axes, or {rank + 1} without a batch axis, but has {len(shape)}"
    index = "[None, ..., None]" if last else "[None, None]"
    return rule, f"; for one channel of one sample write {name}{index}" if len(shape) == rank else ""


def kernel_hint(name: str, axes: int, rank: int, last: bool) -> str:
    """Of a weight that has spatial axes alone."""
    if axes != rank:
        return ""
    index = "[..., None, None]" if last else "[None, None]"
    return f"; for one kernel of one channel write {name}{index}"


def channels_hint(
    op: str,
    rank: int,
    data: tuple[int, ...],
    batched: bool,
    taken: Callable[[tuple[int, ...]], int],
    last: bool,
    weight_format: str | None,
) -> str:
    """Of data whose channels are not the weight's: they are in the other layout, or samples have no axis of channels.

    ``data`` has a batch axis in any case. ``taken`` gives the channels that a weight takes, for the order of its axes.
    """
    here, there = (weight_order(op, rank, weight_format, each) for each in (last, not last))
    channels = data[1 if last else -1]
    if channels in (taken(here), taken(there)):
        formats = f"data_format={data_format_of(rank, not last)!r}"
        if here != there and channels == taken(here):
            kept = f"weight_format={weight_format_of(rank, last)!r}"
            formats += f" (and {kept}, if the weight is so)" if channels == taken(there) else f", {kept}"
        return f"; if channels are {'first' if last else 'last'}, write {formats}"
    if not batched and taken(here) == 1:
        return f"; samples of one channel are input[{'..., None' if last else ':, None'}]"
    return ""
