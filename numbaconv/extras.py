"""Libraries that only one thing needs: imported when it is asked for, or named with the command that installs them."""

from importlib import import_module
from typing import Any

import numpy as np

from .errors import DTypeError

__all__ = ["dtype_named", "require"]


def require(module: str, extra: str, purpose: str) -> Any:
    """A module of an optional library.

    Parameters
    ----------
    module : str
        As it is imported.
    extra : str
        The extra of this package that installs it.
    purpose : str
        What needs it, as the message begins.

    Raises
    ------
    ImportError
        With the command that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        library = module.split(".")[0]
        raise ImportError(f"{purpose} needs {library}: pip install 'numbaconv[{extra}]' ({error})") from error


def dtype_named(op: str, name: str) -> np.dtype:
    """A dtype by its name, of which NumPy alone knows no bfloat16; messages begin with ``op``.

    Raises
    ------
    ImportError
        If it is none of NumPy's, and ml_dtypes is missing.
    DTypeError
        If neither has it.
    """
    try:
        return np.dtype(name)
    except TypeError:
        pass
    found = getattr(require("ml_dtypes", "bfloat16", f"{op}: an array of {name}"), name, None)
    if found is None:
        raise DTypeError(f"{op}: there are no arrays of {name} in NumPy")
    dtype: np.dtype = np.dtype(found)
    return dtype
