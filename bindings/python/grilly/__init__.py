"""Convolution layers on any Vulkan GPU, with PyTorch's API, for NumPy arrays.

    from grilly.nn import Conv2d
    y = Conv2d(3, 16, 3, padding=1)(x)

Layers share one device, opened at their first call; `python -m grilly` tells which, and why. `Compute` opens one
explicitly. `tensor` copies an array there: layers that are given a Tensor return one, and nothing passes through the
host between them.
"""

import sys

from . import _abi
from ._context import Compute, default_compute
from ._device import Device, devices
from ._errors import DeviceWarning, GrillyError, InvalidArgumentError, OutOfMemoryError
from ._grad_mode import is_grad_enabled, no_grad
from ._pinned import host_empty
from ._random import manual_seed
from ._serialization import load, save
from ._tensor import Tensor, empty, tensor, zeros
from ._ticket import Ticket
from . import nn
from .nn import functional

# `import grilly.functional` finds it too.
sys.modules[f"{__name__}.functional"] = functional

__version__ = _abi.version()

__all__ = [
    "Compute", "Device", "DeviceWarning", "GrillyError", "InvalidArgumentError", "OutOfMemoryError", "Tensor",
    "Ticket", "default_compute", "devices", "empty", "functional", "host_empty", "is_grad_enabled", "load", "manual_seed", "nn",
    "no_grad", "save", "tensor", "zeros",
]
