"""Libraries that one thing needs: imported when it is asked for, or named with the command that installs them."""

from importlib import import_module
from typing import Any

__all__ = ["require"]


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
