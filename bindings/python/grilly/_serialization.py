"""Saving and loading state dicts: `.npz` (NumPy's own) and `.safetensors` (https://github.com/huggingface/safetensors).

Neither format can hold code, so loading a file runs none.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, BinaryIO, Callable, Mapping, NamedTuple, Union

import numpy as np

from ._host import detached, host_array

State = dict[str, np.ndarray]


def save(state_dict: Mapping[str, Any], path: Union[str, os.PathLike]) -> None:
    """Writes arrays by name to `path`, a `.npz` or `.safetensors` file.

    The file appears whole or not at all: it is written beside `path` and then takes its place.

    Args:
        state_dict: `module.state_dict()`, or any dictionary of arrays; PyTorch's CPU tensors too. Kept as they are,
            except that `.safetensors` has no big-endian numbers.

    Raises:
        ValueError: for another suffix, or a name that the format cannot hold.
        TypeError: for what is no dictionary of arrays, or an array that the format cannot hold.
        OSError: if the file cannot be written.
    """
    write, _ = _format(path)
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict is a {type(state_dict).__name__}, expected a dictionary of arrays")
    arrays: State = {}
    for name, value in state_dict.items():
        if not isinstance(name, str):
            raise TypeError(f"state_dict has the key {name!r}, expected names only")
        arrays[name] = host_array(detached(value), name)
        if arrays[name].dtype.hasobject:
            raise TypeError(f"{name} is a {type(value).__name__}, expected an array of numbers")
    # A link is followed, as it would be by opening it.
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            write(file, arrays)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, partial)
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def load(path: Union[str, os.PathLike]) -> State:
    """Reads what `save`, `numpy.savez` or any library's `.safetensors` wrote: new arrays by name, in the file's types.

    bfloat16, which NumPy lacks, becomes float32 with the same values.

    Raises:
        ValueError: for another suffix, or a file that is damaged or holds what is not supported; it says where.
        OSError: if the file cannot be opened.
    """
    _, read = _format(path)
    with open(path, "rb") as file:
        try:
            return read(file)
        # What zipfile, NumPy and json raise for damage; OSError too, by seeking where nothing can be.
        except (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{os.fspath(path)} cannot be loaded: {error}") from error


def _write_npz(file: BinaryIO, arrays: State) -> None:
    # Not numpy.savez: it cannot hold a parameter whose name is "file", and puts the time into the file.
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            if info.filename != f"{name}.npy":
                raise ValueError(f"state_dict has the key {name!r}, which a .npz file would call {info.filename!r}")
            with archive.open(info, "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _read_npz(file: BinaryIO) -> State:
    arrays: State = {}
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            with archive.open(info) as entry:
                announced = _npy_bytes(entry)
            # NumPy allocates what a header announces before it reads on.
            if announced > info.file_size:
                raise ValueError(f"{info.filename!r} has {info.file_size} bytes, but its array ends at {announced}")
            with archive.open(info) as entry:
                array = np.lib.format.read_array(entry, allow_pickle=False)
                # Asking for what is behind the end is also what makes zipfile compare the checksum.
                if entry.read(1):
                    raise ValueError(f"bytes follow the array in {info.filename!r}")
            arrays[info.filename.removesuffix(".npy")] = array
    return arrays


def _npy_bytes(file: IO[bytes]) -> int:
    """The size of a `.npy` file, as its header has it."""
    npy = np.lib.format
    version = npy.read_magic(file)
    try:
        # Version 3 is 2 with names of fields in UTF-8, and those do not matter here.
        shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
    # It is an expression of Python, and the parser has many names for damage, MemoryError among them.
    except Exception as error:
        raise ValueError(f"an array's header cannot be read: {error!r}") from error
    if any(type(size) is not int or not 0 <= size < 2**63 for size in shape):
        raise ValueError(f"an array has shape {list(shape)}, expected sizes from 0 to 2^63 - 1")
    return file.tell() + math.prod(shape) * dtype.itemsize


# A .safetensors file is the length of a header, as eight bytes; the header, which is JSON and says of every array its
# type, shape, and range of bytes in what follows; and the arrays' bytes, little-endian, row-major, without gaps.

#: How each type is stored. BF16 is the upper half of a float32; "<u2" is written as U16, which comes later.
_SAFETENSORS_TYPES = {
    "BF16": "<u2", "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "U32": "<u4",
    "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}


def _write_safetensors(file: BinaryIO, arrays: State) -> None:
    names = {np.dtype(code): name for name, code in _SAFETENSORS_TYPES.items()}
    header, end = {}, 0
    # Wide types first, and a header padded to 8 bytes, leave every array aligned in the file.
    ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)
    for name, array in ordered:
        dtype = array.dtype.newbyteorder("<")
        if dtype not in names or name == "__metadata__":
            raise TypeError(f"{name} of dtype {array.dtype} cannot be in a .safetensors file")
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": names[dtype], "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for _, array in ordered:
        file.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)


def _read_safetensors(file: BinaryIO) -> State:
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise ValueError(f"truncated: its {size} bytes end before its header does")
    header = json.loads(file.read(length).decode(), object_pairs_hook=_without_repetition)
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    header.pop("__metadata__", None)
    slots = {name: _slot(name, entry) for name, entry in header.items()}
    end = 0
    for name, slot in sorted(slots.items(), key=lambda item: item[1][2:]):
        if slot.begin != end:
            raise ValueError(f"{name} begins at byte {slot.begin}, where the array before it ends at {end}")
        end = slot.end
    if end != size - 8 - length:
        raise ValueError(f"its arrays take {end} bytes, but its header is followed by {size - 8 - length}")
    return {name: _read_slot(file, 8 + length, slot) for name, slot in slots.items()}


class _Slot(NamedTuple):
    """Where an array is in the bytes behind the header, and what they mean."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def _slot(name: str, entry: Any) -> _Slot:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"{name} lacks a dtype, a shape or data_offsets in the header") from None
    if any(type(number) is not int or number < 0 for number in (*shape, begin, end)):
        raise ValueError(f"{name} has shape {list(shape)} and bytes {begin} to {end}, expected numbers of 0 or more")
    if dtype not in list(_SAFETENSORS_TYPES):
        raise ValueError(f"{name} has dtype {dtype!r}, expected one of {', '.join(_SAFETENSORS_TYPES)}")
    expected = math.prod(shape) * np.dtype(_SAFETENSORS_TYPES[dtype]).itemsize
    if end - begin != expected:
        raise ValueError(f"{name}, {dtype} of shape {list(shape)}, has {end - begin} bytes, expected {expected}")
    return _Slot(dtype, shape, begin, end)


def _read_slot(file: BinaryIO, start: int, slot: _Slot) -> np.ndarray:
    file.seek(start + slot.begin)
    array = np.fromfile(file, _SAFETENSORS_TYPES[slot.dtype], math.prod(slot.shape)).reshape(slot.shape)
    return (array.astype("<u4") << 16).view("<f4") if slot.dtype == "BF16" else array


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("its header has a name twice")
    return names


def _format(path: Union[str, os.PathLike]) -> tuple[Callable[[BinaryIO, State], None], Callable[[BinaryIO], State]]:
    suffix = Path(path).suffix
    if suffix not in _FORMATS:
        raise ValueError(f"path is {os.fspath(path)!r}, expected a name that ends in {' or '.join(_FORMATS)}")
    return _FORMATS[suffix]


_FORMATS = {
    ".npz": (_write_npz, _read_npz),
    ".safetensors": (_write_safetensors, _read_safetensors),
}
