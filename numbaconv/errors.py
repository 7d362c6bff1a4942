"""The few exception types.

Every message says what was asked, the rule, and both numbers. Each type is also a ``ValueError`` or a
``TypeError``, so code that catches those keeps working.
"""

__all__ = ["AlgorithmError", "ArgumentError", "BackendError", "ConvError", "DTypeError", "ShapeError"]


class ConvError(Exception):
    """Base of every error that numbaconv raises on purpose."""


class ShapeError(ConvError, ValueError):
    """Shapes, channels or extents that do not fit together."""


class ArgumentError(ConvError, ValueError):
    """An argument outside its range, or two arguments that contradict each other."""


class DTypeError(ConvError, TypeError):
    """A dtype or Python type that has no meaning in the place where it was given."""


class BackendError(ConvError, ValueError):
    """A backend that is unknown, or known and not usable here."""


class AlgorithmError(ConvError, ValueError):
    """An algorithm that is unknown, or that refuses the problem it was forced on."""
