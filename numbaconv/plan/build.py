"""One ``Axis`` from one axis of a call: named paddings, and the output sizes they lead to."""

from ..errors import ArgumentError, ShapeError
from .arguments import Geometry
from .axis import Axis, kernel_extent, output_extent

__all__ = ["axis_of"]


def _split(name: str, total: int) -> tuple[int, int]:
    """Padding before and after, for a total that "same" asks for; the extra cell after, or before."""
    small = total // 2
    return (total - small, small) if name == "same_lower" else (small, total - small)


def _dilation(kernel: int, geometry: Geometry, at: int) -> int:
    """The dilation; one tap has no neighbour to be far from."""
    return geometry.dilation[at] if kernel > 1 else 1


def _forward(op: str, n: int, kernel: int, geometry: Geometry, at: int, shapes: str) -> Axis:
    stride, dilation = geometry.stride[at], _dilation(kernel, geometry, at)
    extent = kernel_extent(kernel, dilation)
    padding = geometry.padding
    for name, value in (("output_padding", geometry.output_padding[at]), ("output_size", geometry.output_size)):
        if value:
            raise ArgumentError(f"{op}: {name} is {value}, but only a transposed convolution has one")
    if not isinstance(padding, str):
        before, after = padding[at]
    elif padding == "valid":
        before = after = 0
    elif padding == "causal":
        before, after = extent - 1, 0
    else:  # TensorFlow's SAME: ceil(n / stride) outputs
        outputs = -(-n // stride)
        before, after = _split(padding, max((outputs - 1) * stride + extent - n, 0))
    padded = before + n + after
    if padded < extent:
        raise ShapeError(
            f"{op}: kernel of {kernel} taps at dilation {dilation} spans {extent} cells, but the padded input has "
            f"{before} + {n} + {after} = {padded} on spatial axis {at} {shapes}"
        )
    outputs = output_extent(padded, extent, stride)
    return Axis(n, outputs, kernel, stride, dilation, before, after, geometry.padding_mode[at])


def _transposed(op: str, n: int, kernel: int, geometry: Geometry, at: int, shapes: str) -> Axis:
    """The forward axis whose output is this call's input of ``n`` cells."""
    stride, dilation, extra = geometry.stride[at], _dilation(kernel, geometry, at), geometry.output_padding[at]
    extent = kernel_extent(kernel, dilation)
    full = (n - 1) * stride + extent
    padding, mode = geometry.padding, geometry.padding_mode[at]
    wanted = None if geometry.output_size is None else geometry.output_size[at]
    if mode == "constant":
        raise ArgumentError(
            f"{op}: padding_mode='constant' adds a value to a convolution's input; a transposed convolution, "
            "which removes padding from its output, has no place for it"
        )
    if extra and wanted is not None:
        raise ArgumentError(f"{op}: output_padding is {extra}, but output_size {wanted} fixes the size already")
    if padding == "causal":
        raise ArgumentError(
            f"{op}: padding='causal' is defined for convolutions; for a transposed one that looks back only, "
            f"remove cells at the end: padding=((0, {max(extent - stride, 0)}),)"
        )
    if padding in ("same", "same_lower"):
        if extra:
            raise ArgumentError(f"{op}: output_padding is {extra}, but padding={padding!r} fixes the size already")
        size = n * stride if wanted is None else wanted
        if -(-size // stride) != n:
            raise ShapeError(
                f"{op}: output_size {size} on spatial axis {at} must be {(n - 1) * stride + 1} to {n * stride} "
                f"for padding={padding!r}, stride {stride} and {n} input cells {shapes}"
            )
        before, after = _split(str(padding), max(full - size, 0))
        return Axis(size, n, kernel, stride, dilation, before, after, mode)
    before, after = (0, 0) if isinstance(padding, str) else padding[at]
    least, limit = full - before - after, max(stride, geometry.dilation[at])
    if wanted is not None:
        extra = wanted - least
        if not 0 <= extra < limit:
            raise ShapeError(
                f"{op}: output_size {wanted} on spatial axis {at} must be {least} to {least + limit - 1} {shapes}"
            )
    if extra >= limit:
        raise ArgumentError(
            f"{op}: output_padding must be smaller than stride or dilation, but is {extra} against stride {stride} "
            f"and dilation {geometry.dilation[at]} on spatial axis {at} {shapes}"
        )
    if least + extra < 1:
        raise ShapeError(
            f"{op}: output would have {full} - {before} - {after} + {extra} = {least + extra} cells on spatial axis "
            f"{at}, but must have at least 1 {shapes}"
        )
    return Axis(least + extra, n, kernel, stride, dilation, before, after, mode)


def axis_of(op: str, transposed: bool, n: int, kernel: int, geometry: Geometry, at: int, shapes: str) -> Axis:
    """The axis ``at`` of a call whose input has ``n`` cells there.

    Raises
    ------
    ShapeError
        If the kernel does not fit the padded input, or the output would be empty.
    ArgumentError
        If arguments contradict each other.
    """
    build = _transposed if transposed else _forward
    return build(op, n, kernel, geometry, at, shapes)
