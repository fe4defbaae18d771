"""Arrays in host memory, as the C ABI sees them."""

from __future__ import annotations

from ctypes import addressof, c_char
from typing import Any

import numpy as np

from . import _abi
from ._host import host_array


def as_float32(value: Any, name: str = "input") -> np.ndarray:
    """A float32 ndarray, without a copy where `value` is one already, whatever its strides.

    Other real types (float64, float16, integers, bool) are converted. Parameters, PyTorch's CPU tensors and everything
    else that `host_array` takes are read where they are.

    Raises:
        TypeError: for anything else, complex numbers and arrays in a GPU's memory included.
    """
    array = host_array(value, name)
    if array.dtype == np.float32 and array.dtype.isnative and all(stride % 4 == 0 for stride in array.strides):
        return array
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} has type {type(value).__name__} of dtype {array.dtype}, expected real numbers")
    return array.astype(np.float32)


def address(array: np.ndarray) -> int:
    """Where its first element is. `array.ctypes.data` says so too, but takes three times as long."""
    try:
        return addressof(c_char.from_buffer(array))  # type: ignore[arg-type]  # any buffer
    except (TypeError, ValueError):  # read-only, strided, or empty
        return array.ctypes.data


def host_view(array: np.ndarray) -> _abi.Tensor:
    """The C view of an array, which must outlive it. Strides are passed on, not resolved by a copy."""
    view = row_major_view(array.shape)
    if not array.size:
        # NumPy's strides of an empty array may be anything.
        return view
    reaches = [(size - 1) * stride for size, stride in zip(array.shape, array.strides)]
    below = -sum(reach for reach in reaches if reach < 0)
    above = sum(reach for reach in reaches if reach > 0)
    view.data = address(array) - below
    view.bytes = below + above + array.itemsize
    view.offset = below
    view.strides[:array.ndim] = [stride // array.itemsize for stride in array.strides]
    return view


_STRUCT_SIZE = _abi.ctypes.sizeof(_abi.Tensor)


def row_major_view(shape: tuple[int, ...]) -> _abi.Tensor:
    """The C view of a contiguous array that has no memory yet."""
    view = _abi.Tensor(struct_size=_STRUCT_SIZE, dtype=_abi.DTYPE_F32, rank=len(shape))
    view.shape[:len(shape)] = shape
    stride = 1
    for axis in reversed(range(len(shape))):
        view.strides[axis] = stride
        stride *= max(shape[axis], 1)
    return view
