"""Convolutions as functions, as `torch.nn.functional`. They run on the shared device and keep nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays import as_float32
from .._context import default_compute
from ._convolution import Padding, Size, convolution


def conv2d(
    input: Any, weight: Any, bias: Any = None,
    stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1,
) -> np.ndarray:
    """Convolves `[N, C, H, W]` or `[C, H, W]` with `[K, C / groups, R, S]`; the result is new, and float32.

    Args:
        padding: an integer, (height, width), "valid", "same" (stride 1 only; for even kernels one more at the end),
            or, beyond PyTorch, ((top, bottom), (left, right)).

    Raises:
        RuntimeError: for sizes that do not fit, in PyTorch's words.
    """
    return _convolve(2, input, weight, bias, stride, padding, dilation, groups)


def conv1d(
    input: Any, weight: Any, bias: Any = None,
    stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1,
) -> np.ndarray:
    """Convolves `[N, C, L]` or `[C, L]` with `[K, C / groups, S]`; otherwise as `conv2d`. Padding of both ends
    apart is ((left, right),)."""
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups)


def _convolve(
    dims: int, input: Any, weight: Any, bias: Any, stride: Size, padding: Padding, dilation: Size, groups: int
) -> np.ndarray:
    x, w = as_float32(input), as_float32(weight, "weight")
    b = None if bias is None else as_float32(bias, "bias")
    conv = convolution(dims, x.shape, w.shape, None if b is None else b.shape, stride, padding, dilation, groups)
    return conv.forward(default_compute().conv, conv.images(x), w, b)
