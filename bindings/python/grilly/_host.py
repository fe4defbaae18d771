"""Arrays of other libraries in host memory, as ndarrays without copies."""

from __future__ import annotations

from typing import Any

import numpy as np

#: DLPack's device types that the CPU reads: its own memory, and memory pinned for CUDA and for ROCm.
_HOST_MEMORY = (1, 3, 11)


def host_array(value: Any, name: str) -> np.ndarray:
    """An ndarray of anything array-like: `__array__`, `__array_interface__`, sequences of numbers, and DLPack.
    Of a subclass of ndarray, such as a memory-mapped file, it is a view.

    Raises:
        TypeError: for a masked array, which has no value in some places; and if DLPack says that it is not in host
            memory. Nothing is fetched from there without being asked.
    """
    # A Parameter's own, which may be on a device and is then downloaded.
    value = getattr(value, "_grilly_array", value)
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, expected a value everywhere: take its .filled(value)")
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    dlpack_device = getattr(value, "__dlpack_device__", None)
    if dlpack_device is not None:
        kind, index = dlpack_device()
        if int(kind) not in _HOST_MEMORY:
            raise TypeError(
                f"{name} has type {type(value).__name__} and is on a device (DLPack device type {int(kind)}, number "
                f"{index}), expected an array in host memory: copy it there first"
            )
        if not (hasattr(value, "__array__") or hasattr(value, "__array_interface__")):
            return np.from_dlpack(value)
    return np.asarray(value)


def detached(value: Any) -> Any:
    """A PyTorch tensor without its history, in the same memory; anything else as it is."""
    return value.detach() if hasattr(value, "detach") else value
