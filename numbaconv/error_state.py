"""NumPy's floating-point error state, which is the caller's and must change nothing here.

What compiled kernels compute does not look at it, and neither must conversions and sums that NumPy does beside them:
under ``np.seterr(all="raise")`` results are the same, and no error is raised from inside.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np

__all__ = ["undisturbed"]

P = ParamSpec("P")
R = TypeVar("R")


def undisturbed(function: Callable[P, R]) -> Callable[P, R]:
    """A function during which NumPy ignores floating-point errors, whatever the caller has set.

    Before NumPy 2 ``np.errstate`` as a decorator keeps the caller's state in one place for all threads; this does not.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with np.errstate(all="ignore"):
            return function(*args, **kwargs)

    return call
