"""Files of named arrays: NumPy's ``.npz``, and safetensors, which PyTorch's users exchange."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import ArgumentError, DTypeError
from ..extras import dtype_named, require
from ..plan import dtype_name

__all__ = ["load_arrays", "save_arrays"]

_ENDINGS = (".npz", ".safetensors")
#: What safetensors calls the dtypes that convolutions have.
_DTYPES = {
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "I8": "int8",
    "U8": "uint8",
    "I16": "int16",
    "U16": "uint16",
    "I32": "int32",
    "U32": "uint32",
    "I64": "int64",
    "U64": "uint64",
}


def _checked(op: str, path: str | os.PathLike[str]) -> Path:
    found = Path(path)
    if found.suffix not in _ENDINGS:
        raise ArgumentError(f"{op}: {str(found)!r} ends in {found.suffix!r}, but must end in .npz or .safetensors")
    return found


def save_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Write named arrays to a file.

    Parameters
    ----------
    path : str or path
        Ends in ``.npz`` or ``.safetensors``.
    arrays : mapping of arrays
        A `Layer.state_dict`, or those of many layers with a prefix each.

    Raises
    ------
    ArgumentError
        For another ending.
    DTypeError
        For bfloat16 in ``.npz``, which would come back without its type.
    ImportError
        If ``.safetensors`` needs its library.

    Examples
    --------
    >>> import os, tempfile
    >>> from numbaconv.layers import Conv2d, load_arrays, save_arrays
    >>> path = os.path.join(tempfile.mkdtemp(), "first.npz")
    >>> save_arrays(path, Conv2d(3, 8, 3, seed=0).state_dict())
    >>> {name: array.shape for name, array in load_arrays(path).items()}
    {'weight': (8, 3, 3, 3), 'bias': (8,)}
    """
    file = _checked("save_arrays", path)
    contiguous: dict[str, Any] = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    if file.suffix == ".npz":
        for name, array in contiguous.items():
            if dtype_name(array.dtype) == "bfloat16":
                raise DTypeError(f"save_arrays: {name} is bfloat16, which .npz does not know; use .safetensors")
        np.savez(file, **contiguous)
    else:
        require("safetensors.numpy", "safetensors", "a .safetensors file").save_file(contiguous, file)


def load_arrays(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read named arrays from a file.

    Parameters
    ----------
    path : str or path
        Ends in ``.npz`` or ``.safetensors``. Pickled objects in ``.npz`` are refused.

    Returns
    -------
    dict of arrays

    Raises
    ------
    ArgumentError
        For another ending.
    DTypeError
        For a dtype without convolution.
    ImportError
        If ``.safetensors`` needs its library.

    Examples
    --------
    As for `numbaconv.layers.save_arrays`, whose files `load_arrays` reads.

    >>> from numbaconv.layers import load_arrays
    >>> load_arrays("weights.pt")
    Traceback (most recent call last):
    numbaconv.errors.ArgumentError: load_arrays: 'weights.pt' ends in '.pt', but must end in .npz or .safetensors
    """
    file = _checked("load_arrays", path)
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as content:
            return dict(content)
    library = require("safetensors", "safetensors", "a .safetensors file")
    # The library's reader for NumPy does not know bfloat16.
    return {name: _array(name, part) for name, part in library.deserialize(file.read_bytes())}


def _array(name: str, part: Mapping[str, Any]) -> Array:
    given = part["dtype"]
    if given == "BF16":
        dtype = dtype_named("load_arrays", "bfloat16")
    elif given in _DTYPES:
        dtype = np.dtype(_DTYPES[given])
    else:
        raise DTypeError(f"load_arrays: {name} has dtype {given}, but must be BF16 or one of {', '.join(_DTYPES)}")
    array: Array = np.frombuffer(part["data"], dtype).reshape(part["shape"])
    return array
