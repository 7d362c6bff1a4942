"""Convolutions of Dask arrays of any size: lazy, chunk by chunk, with the signatures of `numbaconv` and its `grad`.

Building the graph computes nothing and checks everything that follows from shapes, dtypes and arguments.

- Chunks may be cut anywhere along batch, channels and spatial axes. Halos come from the plan's own tables, padding
  modes apply at the outer border alone. Results have a chunk wherever their source has one, as far as strides let them.
- A block gets all channels of its groups, whatever their chunks, so that each sum over channels and taps is taken once
  and in one order. A block is computed by the algorithm that the whole array would get. So results and gradients by
  input have the bits of the same call in memory, but for the transforms (``fft``, ``winograd``), which have blocks of
  their own, and are within the algorithm's stated bound.
- Gradients by weight and bias are sums over blocks, as a tree that follows from the chunks: the same bits each time,
  and those of the call in memory for integers; else they are within the stated bound, which holds for any order.
- A task holds a block of input with its halo, one of the result, and the weight of its groups. Where channels are many,
  make spatial chunks small.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ... import functional, grad
from ...arrays import Array, asked_dtype
from ...backends.subnormals import flushes_subnormals
from ...backward import ConvGradients, bias_dtypes, output_mask_of, scaled_gradient
from ...error_state import undisturbed
from ...errors import ArgumentError, ShapeError
from ...plan import check_axes
from ...plan.layout import is_channels_last
from ...ranks import shape_names
from ...routes import Site
from .blocks import run_scaling, under
from .building import lazy
from .graph import as_lazy, cuts_of, dask_array, gather, layer, rounded, tokenize
from .pieces import windows_of

__all__ = [
    "conv1d",
    "conv1d_backward",
    "conv1d_bias",
    "conv1d_input",
    "conv1d_weight",
    "conv2d",
    "conv2d_backward",
    "conv2d_bias",
    "conv2d_input",
    "conv2d_weight",
    "conv3d",
    "conv3d_backward",
    "conv3d_bias",
    "conv3d_input",
    "conv3d_weight",
    "conv_transpose1d",
    "conv_transpose1d_backward",
    "conv_transpose1d_bias",
    "conv_transpose1d_input",
    "conv_transpose1d_weight",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "conv_transpose2d_bias",
    "conv_transpose2d_input",
    "conv_transpose2d_weight",
    "conv_transpose3d",
    "conv_transpose3d_backward",
    "conv_transpose3d_bias",
    "conv_transpose3d_input",
    "conv_transpose3d_weight",
]

_GEOMETRY = (
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
    "padding_value",
    "output_padding",
    "output_size",
)
_FORMATS = ("data_format", "weight_format")
_CHOICE = ("algorithm", "backend", "precision", "dtype")


def _some(arguments: dict[str, Any], *names: str) -> dict[str, Any]:
    """Those of the arguments that were given or have a default."""
    return {name: arguments[name] for name in names if arguments.get(name, ...) is not ...}


def _refuse(op: str, arguments: dict[str, Any]) -> None:
    given = {name for name, value in _some(arguments, "out", "stream").items() if value is not None}
    if "out" in given:
        raise ArgumentError(
            f"{op}: out is memory to fill now, but a Dask array is computed later; use dask.array.store"
        )
    if "stream" in given:
        raise ArgumentError(f"{op}: stream is for arrays on a device, but Dask arrays are in the host's memory")


def _output(stem: str, transposed: bool, rank: int, arguments: dict[str, Any]) -> Any:
    return lazy(
        Site(stem, transposed, "output"),
        rank,
        _some(arguments, "input", "weight", "bias", "residual"),
        _some(arguments, *_GEOMETRY),
        **_some(arguments, "activation", *_FORMATS, *_CHOICE),
    )


def _scaled(op: str, arguments: dict[str, Any]) -> Any:
    """The gradient by the pre-activation, elementwise from that by the output."""
    options = _some(arguments, "activation", "pre_activation", "output", "backend", "dtype")
    activation, backend, dtype = options.get("activation"), options.get("backend"), options.get("dtype")
    gradient = as_lazy(op, "grad_output", arguments["grad_output"], dtype is not None)
    saved = {
        name: as_lazy(op, name, options[name], dtype is not None)
        for name in ("pre_activation", "output")
        if options.get(name) is not None
    }
    for name, array in saved.items():
        if array.shape != gradient.shape:
            raise ShapeError(f"{op}: {name} has shape {array.shape}, but grad_output has {gradient.shape}")
    one = {name: np.zeros(1, array.dtype) for name, array in (("grad_output", gradient), *saved.items())}
    sample, _ = scaled_gradient(
        op, one["grad_output"], activation, one.get("pre_activation"), one.get("output"), backend, dtype=dtype
    )  # judges all but the shapes
    if activation is None:
        return gradient
    # What the derivative is taken of, as `scaled_gradient` chooses.
    name = "pre_activation" if "pre_activation" in saved else "output"
    values = saved[name]
    for axis, chunks in enumerate(gradient.chunks):
        values = gather(values, axis, windows_of(cuts_of(chunks)))
    asked, flushes = asked_dtype(op, dtype), flushes_subnormals(op)
    title = "scaled-" + tokenize(gradient.name, values.name, name, activation, backend, str(asked), flushes)
    run = partial(under, flushes, run_scaling, op, activation, backend, name, asked)
    tasks = {
        (title, *index): (run, (gradient.name, *index), (values.name, *index))
        for index in np.ndindex(gradient.numblocks)
    }
    return layer(title, tasks, gradient.chunks, sample.dtype, [gradient, values])


def _one_gradient(stem: str, transposed: bool, produces: str, rank: int, arguments: dict[str, Any]) -> Any:
    """The gradient by input or weight."""
    site = Site(f"{stem}_{produces}", transposed, produces)
    other = "weight" if produces == "input" else "input"
    return lazy(
        site,
        rank,
        {other: arguments[other], "output": _scaled(site.op(rank), arguments)},
        _some(arguments, *_GEOMETRY),
        size=arguments[f"{produces}_size"],
        **_some(arguments, *_FORMATS, *_CHOICE),
    )


def _bias_gradient(op: str, rank: int, arguments: dict[str, Any]) -> Any:
    gradient = _scaled(op, arguments)
    last = is_channels_last(op, rank, _some(arguments, "data_format").get("data_format"))
    check_axes(op, "grad_output", gradient.shape, rank, last)
    wide, dtype = bias_dtypes(op, gradient.dtype, asked_dtype(op, _some(arguments, "dtype").get("dtype")))
    channel = gradient.ndim - 1 if last else gradient.ndim - rank - 1
    axes = tuple(axis for axis in range(gradient.ndim) if axis != channel)
    add = partial(_sum_along, wide)
    total = dask_array.reduction(gradient, chunk=add, aggregate=add, axis=axes, dtype=wide)
    return total.map_blocks(rounded, dtype, dtype=dtype)


@undisturbed
def _sum_along(wide: np.dtype, array: Array, axis: Any, keepdims: bool) -> Array:
    """A sum in a dtype, as `dask.array.reduction` wants it, which knows ``dtype`` as a name of its own."""
    return array.sum(axis=axis, dtype=wide, keepdims=keepdims)  # type: ignore[no-any-return]


def _backward(stem: str, transposed: bool, rank: int, arguments: dict[str, Any]) -> ConvGradients:
    """All gradients that are asked for; everything is checked whatever is asked for."""
    site = Site(f"{stem}_backward", transposed, "input")
    op = site.op(rank)
    wanted = output_mask_of(
        op, _some({"output_mask": (True,) * 3} | _some(arguments, "output_mask"), "output_mask")["output_mask"]
    )
    gradient = _scaled(op, arguments)
    asked = arguments.get("dtype", ...) not in (None, ...)
    input, weight = (as_lazy(op, name, arguments[name], asked) for name in ("input", "weight"))
    geometry = {name: _kept(value) for name, value in _some(arguments, *_GEOMETRY).items()}
    options = _some(arguments, *_FORMATS, *_CHOICE)
    by_input = lazy(
        site, rank, {"weight": weight, "output": gradient}, geometry, size=input.shape, like=input, **options
    )
    by_weight = lazy(
        Site(site.name, transposed, "weight"),
        rank,
        {"input": input, "output": gradient},
        geometry,
        size=weight.shape,
        **options,
    )
    by_bias = _bias_gradient(op, rank, {"grad_output": gradient, **_some(arguments, "data_format", "dtype")})
    return ConvGradients(
        by_input if wanted["input"] else None,
        by_weight if wanted["weight"] else None,
        by_bias if wanted["bias"] else None,
    )


def _kept(value: Any) -> Any:
    """An argument that can be read twice."""
    return value if value is None or isinstance(value, str) or not hasattr(value, "__next__") else tuple(value)


_DOC = """`numbaconv.{path}` of Dask arrays: lazy, chunk by chunk.

Parameters
----------
{parameters}
    As in `numbaconv.{path}`. Arrays are Dask's; others, in memory, of zarr or memory-mapped, are made Dask arrays.

Returns
-------
{returns}
    Nothing is computed yet. `numbaconv.interop.dask` says which chunks and which bits.

Raises
------
ShapeError, ArgumentError, DTypeError, BackendError, AlgorithmError
    When the graph is built, whatever `numbaconv.{path}` would refuse. ``out`` and ``stream`` are refused, too: Dask
    arrays are computed later, in the host's memory.

Examples
--------
>>> import dask.array as da, numpy as np
>>> from numbaconv.interop import dask as lazily
{example}
"""

_ARRAYS = {
    "x": "x = da.ones((2, 4, {tens}), dtype=np.float32, chunks=(1, 4, {fives}))",
    "w": "w = np.ones((4, 4, {threes}), np.float32)",
    "g": "g = da.ones((2, 4, {tens}), dtype=np.float32, chunks=(1, 4, {fives}))",
}
#: For each kind of function: the arrays of its example, the call's arguments, and what the example shows.
_EXAMPLES = {
    "": ("xw", "x, w, padding=1", ".chunks[0]", "(1, 1)"),
    "_input": ("xwg", "x.shape, w, g, padding=1", ".chunks == x.chunks", "True"),
    "_weight": ("xwg", "x, w.shape, g, padding=1", ".compute().shape == w.shape", "True"),
    "_bias": ("g", "g", ".shape", "(4,)"),
    "_backward": ("xwg", "g, x, w, padding=1", ".input.chunks == x.chunks", "True"),
}


def _offer(stem: str, transposed: bool, kind: str, rank: int) -> Callable[..., Any]:
    """The function of Dask arrays for a function of `functional` or `grad`: its name and signature, lazily."""
    name = f"{stem.format(f'{rank}d')}{kind}"
    model = getattr(grad if kind else functional, name)
    signature = inspect.signature(model)
    known = set(signature.parameters)

    def call(*args: Any, **options: Any) -> Any:
        if not known.issuperset(options):
            raise TypeError(f"{name}() got an unexpected keyword argument: {', '.join(sorted(set(options) - known))}")
        bound = signature.bind(*args, **options)
        bound.apply_defaults()
        arguments = bound.arguments
        _refuse(name, arguments)
        if kind == "":
            return _output(stem, transposed, rank, arguments)
        if kind == "_bias":
            return _bias_gradient(name, rank, arguments)
        if kind == "_backward":
            return _backward(stem, transposed, rank, arguments)
        return _one_gradient(stem, transposed, kind[1:], rank, arguments)

    needed, given, shown, answer = _EXAMPLES[kind]
    names = shape_names(rank)
    lines = [f">>> {_ARRAYS[each].format(**names)}" for each in needed]
    lines += [f">>> lazily.{name}({given}){shown}", answer]
    call.__name__ = call.__qualname__ = name
    call.__module__ = __name__
    call.__signature__ = signature  # type: ignore[attr-defined]
    call.__doc__ = _DOC.format(
        path=f"grad.{name}" if kind else name,
        parameters=", ".join(signature.parameters),
        returns="ConvGradients of Dask arrays" if kind == "_backward" else "dask.array.Array",
        example="\n".join(lines),
    )
    return call


conv1d, conv2d, conv3d = (_offer("conv{}", False, "", rank) for rank in (1, 2, 3))
conv_transpose1d, conv_transpose2d, conv_transpose3d = (
    _offer("conv_transpose{}", True, "", rank) for rank in (1, 2, 3)
)
conv1d_input, conv2d_input, conv3d_input = (_offer("conv{}", False, "_input", rank) for rank in (1, 2, 3))
conv1d_weight, conv2d_weight, conv3d_weight = (_offer("conv{}", False, "_weight", rank) for rank in (1, 2, 3))
conv1d_bias, conv2d_bias, conv3d_bias = (_offer("conv{}", False, "_bias", rank) for rank in (1, 2, 3))
conv1d_backward, conv2d_backward, conv3d_backward = (_offer("conv{}", False, "_backward", rank) for rank in (1, 2, 3))
conv_transpose1d_input, conv_transpose2d_input, conv_transpose3d_input = (
    _offer("conv_transpose{}", True, "_input", rank) for rank in (1, 2, 3)
)
conv_transpose1d_weight, conv_transpose2d_weight, conv_transpose3d_weight = (
    _offer("conv_transpose{}", True, "_weight", rank) for rank in (1, 2, 3)
)
conv_transpose1d_bias, conv_transpose2d_bias, conv_transpose3d_bias = (
    _offer("conv_transpose{}", True, "_bias", rank) for rank in (1, 2, 3)
)
conv_transpose1d_backward, conv_transpose2d_backward, conv_transpose3d_backward = (
    _offer("conv_transpose{}", True, "_backward", rank) for rank in (1, 2, 3)
)
