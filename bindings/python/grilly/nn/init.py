"""Initialisation in place, as `torch.nn.init`. The values follow `grilly.manual_seed` as PyTorch's follow its own."""

from __future__ import annotations

import math
import warnings
from typing import Any, TypeVar

import numpy as np

from .. import _random

#: An ndarray or a Parameter.
Array = TypeVar("Array", bound=Any)


def uniform_(tensor: Array, a: float = 0.0, b: float = 1.0) -> Array:
    """Fills with U(a, b)."""
    tensor[...] = _random.uniform(tensor.shape, a, b)
    return tensor


def kaiming_uniform_(
    tensor: Array, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Array:
    """Fills with U(-bound, bound), bound = gain · √(3 / fan); He et al. 2015, section 2.2.

    Args:
        tensor: of at least two dimensions, `[out, in / groups, ...]`.
        a: the negative slope of a leaky ReLU.
        mode: "fan_in" or "fan_out".
        nonlinearity: "leaky_relu", "relu" or "linear".
    """
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    gains = {"leaky_relu": math.sqrt(2.0 / (1 + a**2)), "relu": math.sqrt(2.0), "linear": 1.0}
    if nonlinearity not in gains:
        raise ValueError(f"Unsupported nonlinearity {nonlinearity}")
    if tensor.size == 0:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=2)
        return tensor
    fan = fans(tensor.shape)[mode == "fan_out"]
    # The order of operations is PyTorch's, so that the bound has the same bits.
    bound = math.sqrt(3.0) * (gains[nonlinearity] / math.sqrt(fan))
    return uniform_(tensor, -bound, bound)


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """fan_in and fan_out of a weight `[out, in / groups, ...]`."""
    if len(shape) < 2:
        raise ValueError("Fan in and fan out can not be computed for tensor with fewer than 2 dimensions")
    receptive = int(np.prod(shape[2:], dtype=np.int64))
    return shape[1] * receptive, shape[0] * receptive
