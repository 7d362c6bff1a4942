"""Causal convolution of a signal that arrives piece by piece.

What a result needs of the past is kept: the cells from the first that a later result reads, at the beginning as many as
the kernel spans less one, of padding::

    whole   p p p | 0 1 2 3 4 5 6 7 8 9         kernel 4, stride 2: results at 0, 2, 4, 6, 8
    push 1  p p p   0 1 2                       results 0, 2;    keeps 1 2
    push 2              1 2 | 3 4 5 6           results 4, 6;    keeps 5 6
    push 3                      5 6 | 7 8 9     result  8;       keeps 7 8 9

Each push is a convolution of what was kept and the new cells, without padding along the streamed axis, by one algorithm
for the whole stream. All algorithms but those that compute through transforms sum the products of a result in an order
that its place and the extents make no difference to, so the bits are those of the convolution of the whole signal.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .arrays import Array, asked_dtype, compute_dtype, host_array
from .backends.activations import resolve_activation
from .backends.base import Backend, Direction
from .backends.registry import disabled_algorithms, forced_algorithm
from .border import bordered, outside
from .dispatch import Call, named_backend, plan_of
from .error_state import undisturbed
from .errors import AlgorithmError, ArgumentError, ConvError, DTypeError, ShapeError
from .functional import CONV, Activation
from .memory import check_fits
from .plan import ConvPlan, Geometry, Ints, Padding, PaddingMode, Scalar, check_axes, dtype_name
from .plan.arguments import check_precision
from .plan.axis import output_extent
from .plan.layout import is_channels_last
from .prepared import PreparedConv, prepare

__all__ = ["StreamState", "StreamingConv"]

_OP = "StreamingConv"
#: Modes whose padding before a signal is known from its first cell on.
_MODES = ("zeros", "constant", "replicate")
#: Results along the streamed axis for which the algorithm is chosen, whatever the pieces are.
_USUAL_RESULTS = 4096


class StreamState(NamedTuple):
    """What a stream keeps between two pieces.

    Attributes
    ----------
    cells : array
        In the pieces' layout and dtype: the cells from the first on that a later result reads.
    skip : int
        How many cells of the next piece no result reads: none but where the stride is longer than the kernel.
    """

    cells: Array
    skip: int


class _Run(NamedTuple):
    """What computes the signals of one shape and dtype; ``shape`` is that of a result of no cells."""

    like: tuple[Any, ...]
    prepared: PreparedConv
    algorithm: str
    extent: int
    stride: int
    shape: tuple[int, ...]
    dtype: np.dtype


class StreamingConv:
    """Causal convolution with carried state: `push` pieces of a signal, get the results that they complete.

    The results together have the bits of ``numbaconv.conv(signal, weight, bias, padding="causal", ...)`` of the whole
    signal with the same ``algorithm``, however it is cut. With stride ``s``, ``ceil(n / s)`` results are complete after
    ``n`` cells, which is all that the whole signal would have: nothing remains to be flushed.

    The first spatial axis is streamed: time at rank 1, rows at rank 2, slices at rank 3.

    Parameters
    ----------
    weight : array of shape (O, C / groups, *kernel)
        Copied, and packed once. Layouts as in `numbaconv.conv`.
    bias : array of shape (O,), optional
    stride, dilation : int or one int an axis
    padding : int, one int or (before, after) pair for each axis but the first, or a name
        Of the axes that are not streamed; the streamed one has "causal" padding in any case.
    groups : int
    activation : str or function, optional
        As in `numbaconv.conv`.
    padding_mode : str or one str an axis
        What comes before the signal must not depend on what comes later: along the streamed axis "zeros", "constant"
        or "replicate", which repeats the first cell.
    padding_value : scalar
    data_format, weight_format, backend, precision, dtype
        As in `numbaconv.conv`.
    algorithm : str, optional
        Any but those that compute through transforms, whose bits depend on where a piece begins. Unless given, the
        first of the backend's that takes short and long pieces alike, so that the choice does not depend on how the
        signal is cut; which one that is, ``algorithm`` says after the first push.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError, AlgorithmError
        For arguments that are wrong by themselves; what does not fit together is found at the first push.

    Examples
    --------
    >>> import numpy as np, numbaconv
    >>> weight = np.ones((1, 1, 4), np.float32)
    >>> stream = numbaconv.StreamingConv(weight, stride=2)
    >>> signal = np.arange(10, dtype=np.float32).reshape(1, 1, 10)
    >>> [stream.push(signal[..., a:b]).ravel().tolist() for a, b in ((0, 3), (3, 4), (4, 4), (4, 10))]
    [[0.0, 3.0], [], [], [10.0, 18.0, 26.0]]
    >>> numbaconv.conv1d(signal, weight, stride=2, padding="causal").ravel().tolist()
    [0.0, 3.0, 10.0, 18.0, 26.0]
    """

    @bordered
    def __init__(
        self,
        weight: object,
        bias: object = None,
        *,
        stride: Ints = 1,
        padding: Padding = "causal",
        dilation: Ints = 1,
        groups: int = 1,
        activation: Activation = None,
        padding_mode: PaddingMode = "zeros",
        padding_value: Scalar = 0,
        data_format: str | None = None,
        weight_format: str | None = None,
        algorithm: str | None = None,
        backend: str | None = None,
        precision: str | None = None,
        dtype: object = None,
    ):
        self._dtype = asked_dtype(_OP, dtype)
        asked = self._dtype is not None
        self._weight: Array = np.array(host_array(_OP, "weight", weight, asked))
        self._bias: Array | None = None if bias is None else np.array(host_array(_OP, "bias", bias, asked))
        arguments = {
            "stride": stride,
            "dilation": dilation,
            "groups": groups,
            "padding_mode": padding_mode,
            "padding_value": padding_value,
        }
        self._formats: dict[str, Any] = {"data_format": data_format, "weight_format": weight_format}
        call = Call.of(CONV, None, self._weight, {**arguments, "padding": "causal"}, data_format, weight_format)
        self._rank, geometry = call.rank, call.geometry
        self._arguments = {name: getattr(geometry, name) for name in arguments}  # lists that change make no difference
        if geometry.padding_mode[0] not in _MODES:
            raise ArgumentError(
                f"{_OP}: padding_mode is {geometry.padding_mode[0]!r} along the streamed axis, which needs cells that "
                f"have not come yet; there it must be one of {', '.join(_MODES)}"
            )
        self._padding = _other_padding(self._rank, padding)
        self._activation = activation
        self._algorithm, self._backend, self._precision = algorithm, backend, precision
        resolve_activation(_OP, activation, "float32")  # that there is such a one
        if backend is not None:
            named_backend(_OP, backend)
        if precision is not None:
            check_precision(_OP, "precision", precision)
        self._last = is_channels_last(_OP, self._rank, data_format)
        self._run: _Run | None = None
        self._cells: Array | None = None
        self._skip = 0

    @property
    def algorithm(self) -> str | None:
        """The name of what computes, from the first push on; before, the one that was asked for."""
        return self._algorithm if self._run is None else self._run.algorithm

    @property
    def state(self) -> StreamState | None:
        """A copy of what is kept between two pieces; None before the first.

        It can be set: to go on where a stream was, in this object or in another one like it.
        """
        return None if self._cells is None else StreamState(self._cells.copy(), self._skip)

    @state.setter
    @bordered
    def state(self, state: StreamState | None) -> None:
        if state is None:
            self.reset()
            return
        cells, skip = state
        kept: Array = host_array(_OP, "state.cells", cells, self._dtype is not None)
        run = self._run_for(kept)
        if isinstance(skip, bool) or not isinstance(skip, int) or skip < 0:
            raise ArgumentError(f"{_OP}: state.skip must be an integer of at least 0, but is {skip!r}")
        count, most = kept.shape[self._axis(kept)], max(run.extent, run.stride) - 1
        if count > most or (skip and count):
            raise ShapeError(
                f"{_OP}: the state has {count} cells, and {skip} to skip, but between two pieces there are at most "
                f"{most} cells, and none where some are to be skipped"
            )
        self._run, self._cells, self._skip = run, kept.copy(), skip

    def __repr__(self) -> str:
        parts = [f"weight {self._weight.shape} {dtype_name(self._weight.dtype)}"]
        if self._bias is not None:
            parts.append(f"bias {dtype_name(self._bias.dtype)}")
        parts += [f"stride={self._arguments['stride'][0]}", f"dilation={self._arguments['dilation'][0]}"]
        begun = "" if self._cells is None else f", {self._cells.shape[self._axis(self._cells)]} cells kept"
        return f"StreamingConv({', '.join(parts)}{begun})"

    def reset(self) -> None:
        """Forget the signal; the next piece begins another one."""
        self._cells, self._skip = None, 0

    def push(self, chunk: object) -> Array:
        """The results that are complete with one more piece of the signal.

        Parameters
        ----------
        chunk : array of shape (N, C, time, ...), or (C, time, ...) without a batch axis
            In the layout of ``data_format``, of any length, none included. All pieces of a signal have one dtype and,
            but for their length, one shape.

        Returns
        -------
        array of shape (N, O, results, ...)
            Of no results where none is complete.

        Raises
        ------
        ShapeError, DTypeError, AlgorithmError, BackendError
            As the convolution itself, and where a piece does not continue what came before. The stream is then as it
            was.
        """
        try:
            return self._pushed(chunk)
        except ConvError as error:
            raise outside(error)  # noqa: B904 - the context is the caller's

    def _pushed(self, chunk: object) -> Array:
        given: Array = host_array(_OP, "chunk", chunk, self._dtype is not None)
        axis, cells, skip = self._axis(given), self._cells, self._skip
        if cells is not None:
            _check_continues(cells, given, axis)
        run = self._run_for(given)
        if cells is None:
            if given.shape[axis] == 0:
                self._run = run
                return np.empty(run.shape, run.dtype)
            cells = self._before(given, axis, run.extent - 1, run.dtype)
        fresh = _from(given, axis, skip)
        window = np.concatenate([cells, fresh], axis=axis) if cells.shape[axis] else fresh
        length = window.shape[axis]
        results = output_extent(length, run.extent, run.stride)
        found = run.prepared(window) if results else np.empty(run.shape, run.dtype)
        read = results * run.stride
        self._run, self._cells = run, np.array(_from(window, axis, read))
        self._skip = max(skip - given.shape[axis], 0) + max(read - length, 0)
        return found

    def _axis(self, array: Array) -> int:
        """The streamed axis of an array."""
        check_axes(_OP, "chunk", array.shape, self._rank, self._last)
        return array.ndim - self._rank - self._last

    def _before(self, first: Array, axis: int, count: int, summed: np.dtype) -> Array:
        """What comes before a signal, given its first piece and the dtype of its results."""
        mode = self._arguments["padding_mode"][0]
        whole = (*first.shape[:axis], count, *first.shape[axis + 1 :])
        check_fits(_OP, f"what {count} cells before the signal are", whole, first.itemsize)
        one = np.take(first, [0], axis)
        if mode != "replicate":
            value = self._arguments["padding_value"] if mode == "constant" else 0
            one = np.full_like(one, _padding_cell(value, one.dtype, compute_dtype(summed)))
        return np.repeat(one, count, axis)

    def _run_for(self, array: Array) -> _Run:
        """What computes a signal whose pieces are like this one."""
        like = (_rest(array.shape, self._axis(array)), array.dtype)
        return self._run if self._run is not None and self._run.like == like else self._make_run(array, like)

    def _make_run(self, array: Array, like: tuple[Any, ...]) -> _Run:
        axis, pads = self._axis(array), self._padding
        dtypes = {"input": array.dtype, "weight": self._weight.dtype}
        extras = {} if self._bias is None else {"bias": self._bias.dtype}

        def planned(arguments: dict[str, Any], length: int) -> tuple[ConvPlan, np.dtype]:
            shape = (*array.shape[:axis], length, *array.shape[axis + 1 :])
            call = Call.of(CONV, self._rank, self._weight, arguments, **self._formats)
            return plan_of(
                call, {"input": shape, "weight": self._weight.shape}, dtypes, extras, self._precision, self._dtype
            )

        first = planned({**self._arguments, "padding": "causal"}, 1)[0].axes[0]
        extent, stride = first.extent, first.stride
        if isinstance(pads, str):
            others = planned({**self._arguments, "padding": pads}, extent)[0].axes[1:]
            pads = tuple((each.pad_before, each.pad_after) for each in others)
        arguments = _within(self._arguments, ((0, 0), *pads))
        short, dtype = planned(arguments, extent)
        long, _ = planned(arguments, extent + (_USUAL_RESULTS - 1) * stride)
        backend = named_backend(_OP, self._backend)
        algorithm = _steady(backend, self._algorithm, short, long)
        return _Run(
            like=like,
            prepared=prepare(
                self._weight,
                self._bias,
                **arguments,
                **self._formats,
                activation=self._activation,
                algorithm=algorithm,
                backend=backend.name,
                precision=self._precision,
                dtype=self._dtype,
            ),
            algorithm=algorithm,
            extent=extent,
            stride=stride,
            shape=(*short.output_shape[:axis], 0, *short.output_shape[axis + 1 :]),
            dtype=dtype,
        )


@undisturbed
def _padding_cell(value: Scalar, dtype: np.dtype, compute: np.dtype) -> Any:
    """A padding value among a signal's cells.

    Raises
    ------
    ArgumentError
        If the signal's dtype has no such value, while the sums, which whole signals are padded in, have.
    """
    found, wanted = np.asarray(value).astype(dtype), np.asarray(value).astype(compute)
    if found.astype(compute) != wanted and wanted == wanted:
        raise ArgumentError(
            f"{_OP}: padding_value is {value}, which is {found} among pieces of {dtype_name(dtype)}, but {wanted} for "
            f"the whole signal, which is summed in {dtype_name(compute)}; push pieces of {dtype_name(compute)}"
        )
    return found


def _rest(shape: tuple[int, ...], axis: int) -> tuple[int | None, ...]:
    """A shape but for one axis."""
    return (*shape[:axis], None, *shape[axis + 1 :])


def _check_continues(cells: Array, chunk: Array, axis: int) -> None:
    if cells.dtype != chunk.dtype:
        raise DTypeError(
            f"{_OP}: chunk is {dtype_name(chunk.dtype)}, but the signal so far {dtype_name(cells.dtype)}; "
            "reset() begins another"
        )
    if _rest(cells.shape, axis) != _rest(chunk.shape, axis):
        raise ShapeError(
            f"{_OP}: chunk has shape {chunk.shape}, but the signal so far, but for axis {axis}, {cells.shape}; "
            "reset() begins another"
        )


def _from(array: Array, axis: int, begin: int) -> Array:
    """An array from a cell of an axis on."""
    index: Any = (slice(None),) * axis + (slice(begin, None),)
    found: Array = array[index]
    return found


def _other_padding(rank: int, padding: Padding) -> Any:
    """The padding of the axes that are not streamed: a name, or a pair for each."""
    if rank > 1:
        return Geometry.of(_OP, rank - 1, padding=padding).padding
    if padding != "causal":
        raise ArgumentError(f"{_OP}: padding is {padding!r}, but the only spatial axis is streamed: its is 'causal'")
    return ()


def _within(arguments: dict[str, Any], pads: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    """The arguments of the convolutions of pieces, which have nothing to pad along the streamed axis."""
    modes = ("zeros", *arguments["padding_mode"][1:])
    value = arguments["padding_value"] if "constant" in modes else 0
    return {**arguments, "padding": pads, "padding_mode": modes, "padding_value": value}


def _steady(backend: Backend, algorithm: str | None, short: ConvPlan, long: ConvPlan) -> str:
    """The algorithm of a stream: the forced one, or the first that is worth it for a long piece and takes a short one.

    Raises
    ------
    AlgorithmError
        If the forced one computes through transforms, or refuses, or if there is none.
    """
    forced, disabled = forced_algorithm(algorithm), disabled_algorithms()
    if forced is not None:
        chosen = backend.select(_OP, short, Direction.FORWARD, forced, disabled)
        if chosen.spreading:
            raise AlgorithmError(
                f"{_OP}: algorithm {forced!r} computes through transforms, so that bits would depend on how a signal "
                "is cut"
            )
        return chosen.name
    able = [
        each
        for each in backend.tables[Direction.FORWARD]
        if not (each.spreading or each.is_among(disabled) or each.refusal(short) or each.refusal(long))
    ]
    for each in able:
        if each.worthwhile(long) is None:
            return each.name
    if able:
        return able[0].name
    raise AlgorithmError(f"{_OP}: no algorithm of backend {backend.name!r} without transforms accepts {long}")
