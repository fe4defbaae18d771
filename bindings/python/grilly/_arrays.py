"""Arrays as the C ABI sees them: in host memory with any strides, or in device memory."""

from __future__ import annotations

from typing import Any, Union

import numpy as np

from . import _abi
from ._errors import check
from ._handle import Handle
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


class DeviceArray:
    """A float32 array in row-major order in a device's memory.

    Args:
        context: the context's handle.
        array: the values to copy there; any strides.
        reuse: an array of the same context that nobody needs any more; its memory is taken if it fits.
    """

    __slots__ = ("shape", "_bytes", "_buffer")

    def __init__(self, context: Handle, array: np.ndarray, reuse: Union[DeviceArray, None] = None) -> None:
        array = np.ascontiguousarray(array)
        self.shape: tuple[int, ...] = array.shape
        self._bytes = array.nbytes
        if reuse is not None and reuse._bytes == self._bytes:
            self._buffer = reuse._buffer
        else:
            self._buffer = Handle(
                _abi.lib.grilly_buffer_create, context.value, max(self._bytes, 4),
                destroy=_abi.lib.grilly_buffer_destroy,
            )
        check(_abi.lib.grilly_buffer_write(self._buffer.value, 0, array.ctypes.data, self._bytes))

    @property
    def ndim(self) -> int:
        return len(self.shape)


Operand = Union[np.ndarray, DeviceArray]


def tensor(array: Operand) -> _abi.Tensor:
    """The C view of an array, which must outlive it. Strides are passed on, not resolved by a copy."""
    rank = array.ndim
    view = _abi.Tensor(struct_size=_STRUCT_SIZE, dtype=_abi.DTYPE_F32, rank=rank)
    view.shape[:rank] = array.shape
    if isinstance(array, DeviceArray):
        view.buffer = array._buffer.value
        view.strides[:rank] = _row_major(array.shape)
        return view
    if not array.size:
        # NumPy's strides of an empty array may be anything.
        view.strides[:rank] = _row_major(array.shape)
        return view
    reaches = [(size - 1) * stride for size, stride in zip(array.shape, array.strides)]
    below = -sum(reach for reach in reaches if reach < 0)
    above = sum(reach for reach in reaches if reach > 0)
    view.data = array.ctypes.data - below
    view.bytes = below + above + array.itemsize
    view.offset = below
    view.strides[:rank] = [stride // array.itemsize for stride in array.strides]
    return view


_STRUCT_SIZE = _abi.ctypes.sizeof(_abi.Tensor)


def _row_major(shape: tuple[int, ...]) -> list[int]:
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(shape[axis + 1], 1)
    return strides
