"""One spatial axis of a convolution: the only extent rule, padding, tap ranges, stride phases.

An axis is a relation between an output cell ``o``, a tap ``k`` and a *padded position* ``p``::

    p = o * stride + k * dilation          0 <= p < used

    padded   0 1 | 2 3 4 5 6 7 | 8 9       pad_before 2, input 6, pad_after 2
    input        | 0 1 2 3 4 5 |           source(p) = p - 2 inside, else what the mode says
    o=0      k-0-k-0-k                     kernel 3, dilation 2: extent 5
    o=1          k-0-k-0-k                 stride 2

The three primitives read the same relation: FORWARD gathers over ``k`` for each ``o``, INPUT_GRAD over
``(o, k)`` for each input cell, WEIGHT_GRAD over ``o`` for each ``k``.
"""

from dataclasses import dataclass

__all__ = ["CONSTANT", "PADDING_MODES", "UNIT_CODE", "ZERO", "Axis", "border_cell", "kernel_extent", "output_extent"]

#: What ``Axis.source`` answers for a padded position that holds no input cell.
ZERO = -1
CONSTANT = -2

#: Above the code of each mode.
UNIT_CODE = 8

PADDING_MODES = ("zeros", "constant", "reflect", "replicate", "circular", "symmetric")


def kernel_extent(kernel: int, dilation: int) -> int:
    """Input cells that a dilated kernel spans, first tap to last."""
    return dilation * (kernel - 1) + 1


def output_extent(padded: int, extent: int, stride: int) -> int:
    """How often a kernel of ``extent`` cells fits, at steps of ``stride``, into ``padded`` cells."""
    return (padded - extent) // stride + 1 if padded >= extent else 0


def border_cell(code: int, cell: int, cells: int) -> int:
    """The input cell that stands at ``cell``, which is none of ``0 .. cells - 1``, or ``ZERO`` or ``CONSTANT``.

    ``code`` is a mode's place in `PADDING_MODES`, and `UNIT_CODE` more for each cell but the first that stands together
    with others (`Axis.unit`). Integers alone, so that kernels compile this very function: no table has to be
    as long as padding is. Reflect, symmetric and circular continue periodically, so padding may be longer than the
    input: the meaning of ``numpy.pad``.
    """
    mode, unit, part = code, 1, 0
    if code >= UNIT_CODE:
        mode, unit = code % UNIT_CODE, code // UNIT_CODE + 1
        cell, part, cells = cell // unit, cell % unit, cells // unit
    if mode == 0:
        return ZERO
    if mode == 1:
        return CONSTANT
    if mode == 3:
        found = 0 if cell < 0 else cells - 1
    elif mode == 4:
        found = cell % cells
    elif mode == 5:
        cell %= 2 * cells
        found = cell if cell < cells else 2 * cells - 1 - cell
    else:
        period = max(2 * (cells - 1), 1)  # reflect; a single cell reflects onto itself
        cell %= period
        found = cell if cell < cells else period - cell
    return found * unit + part


@dataclass(frozen=True, slots=True)
class Axis:
    """Extents of one axis, named for the forward convolution, whichever primitive runs.

    ``output`` is stored, not derived: a transposed convolution with ``output_padding`` has an ``input``
    longer than the one its ``output`` would need. ``unit`` cells stand together where padding repeats cells, as where
    a short axis was folded into the one before it: padding repeats whole cells of that, each of so many.
    """

    input: int = 1
    output: int = 1
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    pad_before: int = 0
    pad_after: int = 0
    mode: str = "zeros"
    unit: int = 1

    @property
    def extent(self) -> int:
        """Cells that the dilated kernel spans."""
        return kernel_extent(self.kernel, self.dilation)

    @property
    def padded(self) -> int:
        """Input cells and both paddings."""
        return self.pad_before + self.input + self.pad_after

    @property
    def used(self) -> int:
        """Padded positions ``0 .. used - 1`` that some tap of some output cell reads."""
        return (self.output - 1) * self.stride + self.extent if self.output else 0

    @property
    def maps_padding(self) -> bool:
        """Whether padding repeats input cells, so that one input cell stands at several positions."""
        return self.mode in ("reflect", "replicate", "circular", "symmetric")

    @property
    def border(self) -> int:
        """The code for `border_cell` where an output reads padding that is not zeros, else 0."""
        beside = self.pad_before > 0 or self.used > self.pad_before + self.input
        return self.code if beside else 0

    @property
    def code(self) -> int:
        """What padding holds, for `border_cell`."""
        return PADDING_MODES.index(self.mode) + UNIT_CODE * (self.unit - 1)

    def source(self, position: int) -> int:
        """The input cell at a padded position, or ``ZERO`` or ``CONSTANT``."""
        cell = position - self.pad_before
        if 0 <= cell < self.input:
            return cell
        return border_cell(self.code, cell, self.input)

    def tap_range(self, tap: int) -> tuple[int, int]:
        """The output cells ``[first, last)`` at which ``tap`` reads an input cell, not padding."""
        shift = tap * self.dilation - self.pad_before
        first = min(max(-(shift // self.stride), 0), self.output)
        last = min(max(-((shift - self.input) // self.stride), first), self.output)
        return first, last

    def tap_phase(self, tap: int) -> tuple[int, int]:
        """The stride phase of a tap and its shift: ``p = stride * (o + shift) + phase``.

        Positions of one phase are the outputs' neighbours in steps of one, which makes every stride a
        dense problem with a subset of the taps.
        """
        shift, phase = divmod(tap * self.dilation, self.stride)
        return phase, shift
