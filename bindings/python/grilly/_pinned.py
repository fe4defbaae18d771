"""NumPy arrays in host memory that a device reaches, from the library's pool."""

from __future__ import annotations

import math
from ctypes import byref, c_void_p
from typing import Any, Union

import numpy as np

from . import _abi
from ._errors import OutOfMemoryError
from ._handle import Handle
from ._tensor import Target, chosen, sizes_of

#: Results of fewer bytes are ordinary arrays: those are made and copied to sooner than a block is fetched.
_LEAST_BYTES = 128 << 10


class _Block:
    """Host memory that returns to the library's pool when the last array in it is gone."""

    def __init__(self, context: int, shape: tuple[int, ...]) -> None:
        address = c_void_p()

        def create(bytes_: int, out: Any) -> int:
            return _abi.lib.grilly_buffer_create_host(context, bytes_, out, byref(address))

        bytes_ = max(math.prod(shape), 1) * 4
        self._handle = Handle(create, bytes_, destroy=_abi.lib.grilly_buffer_destroy)
        self.__array_interface__ = {"version": 3, "typestr": "<f4", "shape": shape, "data": (address.value, False)}


def host_empty(shape: Union[int, tuple[int, ...]], compute: Target = None) -> np.ndarray:
    """A float32 ndarray whose values are unspecified until they are written, in memory that the device of `compute`
    (None or "vulkan": the one that layers share) reaches without a copy on the way; for inputs that are filled again
    and again.

    The memory returns to a pool when the last array that views it is gone, and outlives `Compute.cleanup()` and a
    fork.

    Raises:
        ValueError: for anything else as `compute`.
        OutOfMemoryError: also beyond a fourth of the machine's memory.
    """
    return np.asarray(_Block(chosen(compute)._context.value, sizes_of(shape)))


def result_array(context: int, shape: tuple[int, ...]) -> np.ndarray:
    """An array for a result of a Vulkan device: where the device reaches it, if it is worth it and there is room."""
    if math.prod(shape) * 4 >= _LEAST_BYTES:
        try:
            return np.asarray(_Block(context, shape))
        except OutOfMemoryError:
            pass
    return np.empty(shape, np.float32)
