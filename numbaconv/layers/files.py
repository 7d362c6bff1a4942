"""Files of named arrays: NumPy's ``.npz``, and safetensors, which PyTorch's users exchange."""

import os
import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..arrays import Array
from ..border import bordered
from ..errors import ArgumentError, DTypeError
from ..extras import dtype_named, require
from ..files import opened, replaced
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


@bordered
def save_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Write named arrays to a file, which is replaced as a whole: if writing fails, the old one is left as it was.

    Parameters
    ----------
    path : str or path
        Ends in ``.npz`` or ``.safetensors``.
    arrays : mapping of arrays
        A `Layer.state_dict`, or those of many layers with a prefix each.

    Raises
    ------
    ArgumentError
        For another ending, and where a folder, a FIFO or a device has that name.
    DTypeError
        For bfloat16 in ``.npz``, which would come back without its type, and for objects and records.
    ImportError
        If ``.safetensors`` needs its library.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> from numbaconv.layers import Conv2d, load_arrays, save_arrays
    >>> path = os.path.join(tempfile.mkdtemp(), "first.npz")
    >>> save_arrays(path, Conv2d(3, 8, 3, seed=0).state_dict())
    >>> {name: array.shape for name, array in load_arrays(path).items()}
    {'weight': (8, 3, 3, 3), 'bias': (8,)}
    """
    op = "save_arrays"
    file = _checked(op, path)
    contiguous: dict[str, Any] = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    for name, array in contiguous.items():
        if file.suffix == ".npz" and dtype_name(array.dtype) == "bfloat16":
            raise DTypeError(f"{op}: {name} is bfloat16, which .npz does not know; use .safetensors")
        if dtype_name(array.dtype) != "bfloat16":
            _check_kind(op, file, name, array.dtype)
    if file.suffix == ".npz":
        with replaced(op, file) as stream:
            np.savez(stream, **contiguous)
    else:
        library = require("safetensors.numpy", "safetensors", "a .safetensors file")
        with replaced(op, file) as stream:
            stream.write(library.save(contiguous))


def _check_kind(op: str, file: Path, name: str, dtype: np.dtype) -> None:
    """Refuse what is neither numbers nor text: objects would be pickled, and raw bytes have lost their type."""
    if dtype.names is not None:
        raise DTypeError(f"{op}: {name} in {str(file)!r} holds records {dtype}; arrays of numbers are needed")
    if dtype.kind == "O":
        raise DTypeError(f"{op}: {name} in {str(file)!r} holds Python objects; arrays of numbers are needed")
    if dtype.kind == "V":
        raise DTypeError(
            f"{op}: {name} in {str(file)!r} holds raw bytes ({dtype}), as NumPy writes bfloat16 and other types that "
            "it does not know; use .safetensors for those"
        )


@bordered
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
        For another ending; for a file that is damaged, or something else under that name.
    DTypeError
        For raw bytes, records and objects, and in ``.safetensors`` for any dtype without convolution.
    ImportError
        If ``.safetensors`` needs its library.
    OSError
        If the file cannot be read.

    Examples
    --------
    As for `numbaconv.layers.save_arrays`, whose files `load_arrays` reads.

    >>> from numbaconv.layers import load_arrays
    >>> load_arrays("weights.pt")
    Traceback (most recent call last):
    numbaconv.errors.ArgumentError: load_arrays: 'weights.pt' ends in '.pt', but must end in .npz or .safetensors
    """
    op = "load_arrays"
    file = _checked(op, path)
    if file.suffix == ".npz":
        with opened(op, file) as stream:
            return _from_npz(op, file, stream)
    library = require("safetensors", "safetensors", "a .safetensors file")
    with opened(op, file) as stream:
        content = stream.read()
    try:
        parts = library.deserialize(content)  # the library's reader for NumPy does not know bfloat16
    except library.SafetensorError as error:
        raise ArgumentError(f"{op}: {str(file)!r} is damaged, or no .safetensors file: {error}") from None
    return {name: _array(name, part) for name, part in parts}


def _from_npz(op: str, file: Path, stream: BinaryIO) -> dict[str, Array]:
    begins = stream.read(6)
    stream.seek(0)
    if begins == b"\x93NUMPY":
        raise ArgumentError(f"{op}: {str(file)!r} is one array (.npy) under the name of an archive; write it by savez")
    found: dict[str, Array] = {}
    name = None
    try:
        with zipfile.ZipFile(stream) as archive:
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                with archive.open(entry) as part:
                    found[name] = _member(op, file, name, part, entry.file_size)
    except (OSError, MemoryError, DTypeError):
        raise
    except Exception as error:  # whatever damage makes zipfile, NumPy's parser of headers and decompressors raise
        where = "" if name is None else f" at {name}"
        raise ArgumentError(f"{op}: {str(file)!r} is damaged{where}, or no .npz archive: {_line(error)}") from None
    return found


def _member(op: str, file: Path, name: str, part: Any, size: int) -> Array:
    """One array of an archive. Its header is read first: it may claim objects, or more elements than there are."""
    version = np.lib.format.read_magic(part)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(part)
    _check_kind(op, file, name, dtype)
    claimed, there = prod(shape) * dtype.itemsize, size - part.tell()
    if claimed != there:
        raise ValueError(f"shape {shape} of {dtype} takes {claimed} bytes, but there are {there}")
    part.seek(0)
    array: Array = np.lib.format.read_array(part, allow_pickle=False)
    part.read(1)  # at the end the checksum is compared
    return array


def _line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


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
