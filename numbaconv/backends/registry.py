"""Which backends there are, which can be used, and which one a call gets.

Choice: the ``backend=`` argument, then ``use_backend``, then ``set_backend``, then the environment variable
``NUMBACONV_BACKEND``, then automatic; of a call's precision: ``precision=``, then ``use_precision``, then
``NUMBACONV_PRECISION``. A backend is a module with a `Backend` named ``BACKEND``; it is imported when it is first asked
for. Other distributions add theirs through the entry-point group ``numbaconv.backends`` (entry name: the backend's
name, value: the module).
"""

import os
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib import import_module
from typing import NamedTuple

from ..environment import (
    ALGORITHM_VARIABLE,
    BACKEND_VARIABLE,
    CACHE_VARIABLE,
    DISABLE_VARIABLE,
    FLUSH_VARIABLE,
    PRECISION_VARIABLE,
    TUNE_VARIABLE,
)
from ..errors import AlgorithmError, BackendError
from ..plan import DEFAULT_PRECISION, scoped_folds
from ..plan.arguments import check_precision
from .base import Backend
from .subnormals import scoped_flushing
from .winners import revision

__all__ = [
    "AUTOMATIC",
    "AUTOMATIC_ON_DEVICE",
    "BackendStatus",
    "backends",
    "choices",
    "disabled_algorithms",
    "forced_algorithm",
    "get_backend",
    "get_precision",
    "is_in_use",
    "register_backend",
    "resolve",
    "resolve_precision",
    "set_backend",
    "use_backend",
    "use_precision",
]

ENTRY_POINTS = "numbaconv.backends"
#: What computes where nothing was chosen: for arrays of the host, and for arrays on a device.
AUTOMATIC, AUTOMATIC_ON_DEVICE = "cpu", "cuda"
#: The variables' names as `os.environ` has them inside.
_ENCODED = {
    name: getattr(os.environ, "encodekey", str)(name)
    for name in (
        BACKEND_VARIABLE,
        ALGORITHM_VARIABLE,
        DISABLE_VARIABLE,
        PRECISION_VARIABLE,
        FLUSH_VARIABLE,
        TUNE_VARIABLE,
        CACHE_VARIABLE,
    )
}
_NAMES = frozenset(_ENCODED.values())

_modules = {name: f"numbaconv.backends.{name}" for name in ("cpu", "cuda", "reference")}
_loaded: dict[str, Backend] = {}
_entry_points_read = False
_disabled: dict[str, frozenset[str]] = {}
_default: str | None = None
_scoped: ContextVar[str | None] = ContextVar("numbaconv_backend", default=None)
_scoped_precision: ContextVar[str | None] = ContextVar("numbaconv_precision", default=None)


class BackendStatus(NamedTuple):
    """Whether a backend can be used here, and if not, why."""

    available: bool
    reason: str | None


def _read_entry_points() -> None:
    global _entry_points_read
    if not _entry_points_read:
        from importlib.metadata import entry_points  # slow to import, and rarely needed

        for entry in entry_points(group=ENTRY_POINTS):
            _modules.setdefault(entry.name, entry.value)
        _entry_points_read = True


def _imported(name: str) -> Backend:
    """The backend behind a known name, whether it can be used or not.

    Raises
    ------
    BackendError
        If it cannot be imported.
    """
    backend = _loaded.get(name)
    if backend is None:
        try:
            backend = getattr(import_module(_modules[name]), "BACKEND", None)
        except ImportError as error:
            raise BackendError(f"backend {name!r} cannot be imported: {error}") from error
        if not isinstance(backend, Backend):
            raise BackendError(f"backend {name!r}: module {_modules[name]} has no numbaconv Backend named BACKEND")
        _loaded[name] = backend
    return backend


def _load(name: str) -> Backend:
    """The backend behind a known name.

    Raises
    ------
    BackendError
        With the reason, if it cannot be used.
    """
    backend = _imported(name)
    reason = backend.unavailable()
    if reason is not None:
        raise BackendError(f"backend {name!r} cannot be used: {reason}")
    return backend


def _known(name: object) -> str:
    """The name, if there is such a backend."""
    if not isinstance(name, str):
        raise BackendError(f"a backend is chosen by its name, but {name!r} was given")
    if name not in _modules:
        _read_entry_points()
    if name not in _modules:
        raise BackendError(f"backend {name!r} is unknown; there are {', '.join(sorted(_modules))}")
    return name


def backends() -> dict[str, BackendStatus]:
    """Every backend's availability.

    Returns
    -------
    dict
        From the name to a `BackendStatus`: ``available``, and ``reason`` where it is not.

    Examples
    --------
    >>> import numbaconv
    >>> numbaconv.backends()["reference"]
    BackendStatus(available=True, reason=None)
    """
    _read_entry_points()
    found = {}
    for name in sorted(_modules):
        try:
            _load(name)
        except BackendError as error:
            found[name] = BackendStatus(False, str(error))
        else:
            found[name] = BackendStatus(True, None)
    return found


def register_backend(name: str, module: str) -> None:
    """Add a backend, or replace one, by the name of the module that defines ``BACKEND``.

    The module is imported when the backend is first asked for.

    Parameters
    ----------
    name, module : str

    Examples
    --------
    >>> import numbaconv
    >>> numbaconv.register_backend("plain", "numbaconv.backends.reference")
    >>> numbaconv.backends()["plain"].available
    True
    """
    if not isinstance(name, str) or not isinstance(module, str):
        raise BackendError(f"a backend has a name and a module's name, but {name!r} and {module!r} were given")
    _modules[name] = module
    _loaded.pop(name, None)


def set_backend(name: str | None) -> None:
    """Choose the backend of every later call in this process.

    Parameters
    ----------
    name : str or None
        None goes back to the environment's choice.

    Raises
    ------
    BackendError
        If the backend is unknown or cannot be used.

    Examples
    --------
    >>> import numbaconv
    >>> numbaconv.set_backend("reference")
    >>> numbaconv.get_backend()
    'reference'
    >>> numbaconv.set_backend(None)
    """
    global _default
    if name is not None:
        _load(_known(name))
    _default = name


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Choose the backend inside a ``with`` block, for this thread or task.

    Parameters
    ----------
    name : str

    Raises
    ------
    BackendError
        If the backend is unknown or cannot be used.

    Examples
    --------
    >>> import numbaconv
    >>> with numbaconv.use_backend("reference"):
    ...     numbaconv.get_backend()
    'reference'
    """
    _load(_known(name))
    token = _scoped.set(name)
    try:
        yield
    finally:
        _scoped.reset(token)


@contextmanager
def use_precision(name: str) -> Iterator[None]:
    """Choose how exactly convolutions are computed inside a ``with`` block, for this thread or task.

    Parameters
    ----------
    name : {"strict", "float32", "tf32"}
        As in `numbaconv.conv`.

    Raises
    ------
    ArgumentError, DTypeError
        For another name.

    Examples
    --------
    >>> import numbaconv
    >>> with numbaconv.use_precision("tf32"):
    ...     numbaconv.get_precision()
    'tf32'
    """
    token = _scoped_precision.set(check_precision("use_precision", "name", name))
    try:
        yield
    finally:
        _scoped_precision.reset(token)


def get_precision() -> str:
    """The precision of a call without ``precision=``.

    Returns
    -------
    str
        "strict", "float32" or "tf32".

    Raises
    ------
    ArgumentError
        If ``NUMBACONV_PRECISION`` is none of them.

    Examples
    --------
    >>> import numbaconv
    >>> with numbaconv.use_precision("float32"):
    ...     numbaconv.get_precision()
    'float32'
    """
    return resolve_precision("get_precision", None)


def resolve_precision(op: str, name: object) -> str:
    """The precision of a call, given its ``precision=`` argument."""
    if name is not None:
        return check_precision(op, "precision", name)
    return _scoped_precision.get() or check_precision(
        op, PRECISION_VARIABLE, _variable(PRECISION_VARIABLE) or DEFAULT_PRECISION
    )


def _variable(name: str) -> str | None:
    """An environment variable, as `os.environ` has it now; empty ones count as missing.

    ``os.environ.get`` takes most of a microsecond where a variable is missing: it encodes the name, and raises
    and catches an exception. Looking into the dictionary behind it does neither. Where there is no such
    dictionary, `os.environ` is asked.
    """
    known = getattr(os.environ, "_data", None)
    if known is not None and known.get(_ENCODED[name]) is None:
        return None
    return os.environ.get(name) or None


def _chosen_backend(name: str | None, automatic: str) -> str:
    """The name of the backend that a call gets, given its ``backend=`` argument; it may be unknown."""
    if name is not None:
        return name
    return _scoped.get() or _default or _variable(BACKEND_VARIABLE) or automatic


def choices(
    backend: str | None, algorithm: str | None, precision: str | None, automatic: str = AUTOMATIC
) -> tuple[str, str | None, str | None, str | None, Hashable]:
    """What rules a call's choice, unchecked: the names of the backend and of a forced algorithm, what is disabled,
    precision, and as the last tuning and what becomes of subnormal numbers.

    What a call runs is remembered under these and its plan, so whatever else comes to rule the choice belongs here.
    """
    if precision is None:
        precision = _scoped_precision.get()
    flushing: Hashable = scoped_flushing.get()
    known = getattr(os.environ, "_data", None)
    if known is not None and known.keys().isdisjoint(_NAMES):  # no variable is there: `_variable` seven times at once
        name = backend if backend is not None else _scoped.get() or _default or automatic
        return (
            name,
            algorithm,
            None,
            precision or DEFAULT_PRECISION,
            (None, None, revision(), flushing, scoped_folds.get()),
        )
    if flushing is None:
        flushing = _variable(FLUSH_VARIABLE)
    tuning = (_variable(TUNE_VARIABLE), _variable(CACHE_VARIABLE), revision(), flushing, scoped_folds.get())
    name, forced = _chosen_backend(backend, automatic), forced_algorithm(algorithm)
    if precision is None:
        precision = _variable(PRECISION_VARIABLE) or DEFAULT_PRECISION
    return name, forced, _variable(DISABLE_VARIABLE), precision, tuning


def is_in_use(name: str, backend: Backend) -> bool:
    """Whether a name still stands for this backend, and it can be used."""
    return _loaded.get(name) is backend and backend.unavailable() is None


def get_backend() -> str:
    """The name of the backend that a call without ``backend=`` gets.

    Raises
    ------
    BackendError
        If the chosen backend is unknown or cannot be used.

    Examples
    --------
    >>> import numbaconv
    >>> numbaconv.get_backend() in numbaconv.backends()
    True
    """
    return resolve(None).name


def resolve(name: str | None, automatic: str = AUTOMATIC) -> Backend:
    """The backend of a call, given its ``backend=`` argument."""
    return _load(_known(_chosen_backend(name, automatic)))


def forced_algorithm(name: str | None) -> str | None:
    """The algorithm that a call forces, given its ``algorithm=`` argument."""
    return name if name is not None else _variable(ALGORITHM_VARIABLE)


def disabled_algorithms() -> frozenset[str]:
    """The algorithms and families that ``NUMBACONV_DISABLE`` names, separated by commas, as it is now.

    A name that another backend has is harmless; one that none has is an error, since what was meant would go on
    being chosen.
    """
    value = _variable(DISABLE_VARIABLE)
    if not value:
        return frozenset()
    if value not in _disabled:
        names = frozenset(part.strip() for part in value.split(",") if part.strip())
        _check_disabled(names)
        _disabled[value] = names
    return _disabled[value]


def _check_disabled(names: frozenset[str]) -> None:
    unknown = names - _algorithm_names(_loaded)
    if unknown:
        _read_entry_points()
        for name in _modules:  # no device is asked whether it is there
            with suppress(BackendError):
                _imported(name)
        known = _algorithm_names(_loaded)
        unknown -= known
        if unknown:
            listed = ", ".join(repr(name) for name in sorted(unknown))
            raise AlgorithmError(
                f"{DISABLE_VARIABLE} names {listed}, which no backend has; there are {', '.join(sorted(known))}"
            )


def _algorithm_names(found: dict[str, Backend]) -> set[str]:
    algorithms = [each for backend in found.values() for table in backend.tables.values() for each in table]
    return {name for each in algorithms for name in (each.name, each.family) if name is not None}
