"""The border of the package: unknown keywords are answered, and errors of bad input leave without the frames inside.

Both happen where something has gone wrong already; a call that is right pays a test of an empty dictionary.
"""

import sys
from collections.abc import Callable, Collection, Iterable
from functools import wraps
from inspect import CO_VARKEYWORDS
from types import CodeType
from typing import ParamSpec, TypeVar

from .errors import ConvError

__all__ = ["MISSING", "bordered", "check_passed_on", "declare", "missing", "outside", "unknown"]

P = ParamSpec("P")
R = TypeVar("R")

#: Stands for an argument that must be given and was not.
MISSING = object()

#: What public functions take, for those that are given an argument of another.
_taken: dict[str, frozenset[str]] = {}

#: Arguments that mean the same here, in PyTorch, Keras, TensorFlow, SciPy, NumPy, JAX and ONNX.
_MEANINGS: tuple[frozenset[str], ...] = tuple(
    frozenset(names.split())
    for names in (
        "stride strides step steps subsample window_strides",
        "padding pad pads pads_begin pad_width paddings auto_pad border_mode zero_padding",
        "dilation dilations dilation_rate rate rates filter_dilation rhs_dilation window_dilation",
        "groups group num_group num_groups n_groups feature_group_count",
        "padding_mode pad_mode boundary border border_type",
        "padding_value pad_value cval fillvalue fill_value constant_values",
        "data_format layout data_layout dim_ordering dimension_numbers format",
        "weight_format kernel_layout kernel_format weight_layout filter_format",
        "weight weights kernel kernels filter filters in2 v w rhs",
        "input inputs image images signal volume x in1 a lhs",
        "bias biases b use_bias",
        "activation act activation_fn activation_function nonlinearity",
        "out output",
        "algorithm method algo",
        "output_size output_shape image_shape",
        "kernel_size kernel_shape block_shape ksize window_shape",
        "in_channels in_planes input_channels",
        "out_channels filters num_filters out_planes output_channels",
        "depth_multiplier channel_multiplier",
        "seed rng random_state generator key",
        "grad_output grad dy gradient out_backprop",
        "input_size input_sizes input_shape",
        "weight_size weight_sizes weight_shape filter_sizes filter_shape",
    )
)

#: What there is instead of an argument that nothing here is another name for.
_INSTEAD = {
    "axis": "the axes after those of batch and channels are convolved: move others in front with numpy.moveaxis",
    "axes": "the axes after those of batch and channels are convolved: move others in front with numpy.moveaxis",
    "mode": "scipy.ndimage's mode is padding_mode (its 'mirror' is 'reflect', its 'reflect' is 'symmetric', 'nearest' "
    "is 'replicate', 'wrap' is 'circular'), and that of scipy.signal and numpy is padding ('same', 'valid')",
    "origin": "an origin is uneven padding: (size // 2 + origin, (size - 1) // 2 - origin) for an axis of size taps",
    "kernel_size": "the weight's shape has it; unfold and the layers take kernel_size",
    "kernel_shape": "the weight's shape has it; unfold and the layers take kernel_size",
    "in_channels": "the weight's shape has the channels; numbaconv.layers take in_channels and out_channels",
    "out_channels": "the weight's shape has the channels; numbaconv.layers take in_channels and out_channels",
    "transposed": "conv_transpose1d, conv_transpose2d and conv_transpose3d are functions of their own",
    "transpose": "conv_transpose1d, conv_transpose2d and conv_transpose3d are functions of their own",
    "device": "a call computes where its arrays are; backend= chooses what computes",
    "kernel_initializer": "initial parameters follow from seed; load_state_dict sets others",
    "bias_initializer": "initial parameters follow from seed; load_state_dict sets others",
}


def declare(name: str, accepted: Iterable[str]) -> frozenset[str]:
    """Remember the arguments of a public function."""
    return _taken.setdefault(name, frozenset(accepted))


def unknown(title: str, given: Iterable[str], accepted: Collection[str]) -> TypeError:
    """The error of arguments that a function does not take, with what was probably meant."""
    names = [name for name in given if name not in accepted]
    answers = [f"{name!r} ({_answer(title, name, accepted)})" for name in names]
    plural = "s" if len(names) > 1 else ""
    return TypeError(f"{title}() got unexpected keyword argument{plural} {', '.join(answers)}")


def check_passed_on(title: str, given: Collection[str], to: str) -> None:
    """Refuse keywords that a function passes on to a public one which does not take them.

    Raises
    ------
    TypeError
        In the name of the function that was called.
    """
    accepted = _taken[to]
    if not accepted.issuperset(given):
        raise unknown(title, given, accepted)


def missing(title: str, given: Iterable[tuple[str, object]]) -> TypeError:
    """The error of arguments that must be given, from all of those with their values."""
    names = [repr(name) for name, value in given if value is MISSING]
    return TypeError(f"{title}() missing required argument{'s' if len(names) > 1 else ''} {', '.join(names)}")


def _answer(title: str, name: str, accepted: Collection[str]) -> str:
    """The argument here, the function that has it, what there is instead, or all that there are."""
    low = name.lower().rstrip("_")
    same = sorted({each for meaning in _MEANINGS if low in meaning for each in meaning if each in accepted})
    if low in accepted or same:
        return f"here it is {low if low in accepted else ' or '.join(same)}"
    if low in _INSTEAD:
        return _INSTEAD[low]
    rank = _rank_in(title)
    others = [other for other, takes in _taken.items() if low in takes and _rank_in(other) in (rank, None)]
    if title in others:  # of another module: PyTorch's and JAX's functions have the same names
        return f"numbaconv.{title} takes it"
    if others:
        return f"{next((other for other in others if _rank_in(other) == rank), others[0])} takes it"
    from difflib import get_close_matches  # only where something is wrong

    near = get_close_matches(low, accepted, n=1, cutoff=0.6)
    return f"here it is {near[0]}?" if near else f"it takes {', '.join(sorted(accepted))}"


def _rank_in(name: str) -> str | None:
    """The rank in a function's name."""
    return next((digit for digit in "123" if f"{digit}d" in name.lower()), None)


def outside(error: ConvError) -> ConvError:
    """An error without the frames that it came through, to be raised where the caller called.

    With ``python -X dev`` it keeps them.
    """
    return error if sys.flags.dev_mode else error.with_traceback(None)


def bordered(function: Callable[P, R]) -> Callable[P, R]:
    """A public function, method or constructor whose errors are those of the border."""
    code: CodeType = function.__code__  # type: ignore[attr-defined]
    is_constructor = function.__name__ == "__init__"
    name = function.__qualname__.removesuffix(".__init__")
    open_ended = bool(code.co_flags & CO_VARKEYWORDS)
    accepted = frozenset(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]) - {"self"}
    if "." not in name and not name.startswith("_") and not open_ended:
        declare(name, accepted)

    @wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> R:
        if not open_ended and not accepted.issuperset(keywords):
            title = type(args[0]).__name__ if is_constructor else function.__name__
            raise unknown(title, keywords, accepted)
        try:
            return function(*args, **keywords)
        except ConvError as error:
            raise outside(error)  # noqa: B904 - the context is the caller's
        except TypeError as error:
            inner = error.__traceback__.tb_next if error.__traceback__ else None
            if inner is not None or not is_constructor:
                raise
            # Python's own, of arguments: the class that was called may be another than that which has the constructor.
            text = str(error).replace(f"{function.__qualname__}()", f"{type(args[0]).__name__}()")
            raise TypeError(text) from None

    return call
