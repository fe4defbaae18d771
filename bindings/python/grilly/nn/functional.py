"""Convolutions as functions, as `torch.nn.functional`, and what stands between them. They keep nothing.

Arrays give arrays, computed on the shared device; Tensors give Tensors, computed where they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _tensor
from .._context import default_compute
from .._tensor import Operand, Tensor, as_operand
from ._convolution import Padding, Size, convolution


def conv2d(
    input: Any, weight: Any, bias: Any = None,
    stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1,
) -> Operand:
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
) -> Operand:
    """Convolves `[N, C, L]` or `[C, L]` with `[K, C / groups, S]`; otherwise as `conv2d`. Padding of both ends
    apart is ((left, right),)."""
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups)


def _convolve(
    dims: int, input: Any, weight: Any, bias: Any, stride: Size, padding: Padding, dilation: Size, groups: int
) -> Operand:
    x, w = as_operand(input), as_operand(weight, "weight")
    b = None if bias is None else as_operand(bias, "bias")
    conv = convolution(dims, x.shape, w.shape, None if b is None else b.shape, stride, padding, dilation, groups)
    held = [operand.compute for operand in (x, w, b) if isinstance(operand, Tensor)]
    return conv.forward((held[0] if held else default_compute()).conv, conv.images(x), w, b)


def relu(input: Any) -> Operand:
    """`max(input, 0)`, new and of the same shape; NaN stays NaN."""
    return np.maximum(as_operand(input), np.float32(0))


def relu_backward(grad_output: Any, output: Any) -> Operand:
    """The gradient of `relu` with respect to its input: `grad_output` where `output` is positive (or NaN), else 0. A Tensor
    if either is one.

    Raises:
        RuntimeError: if their shapes differ.
    """
    dy, y = as_operand(grad_output, "grad_output"), as_operand(output, "output")
    if dy.shape != y.shape:
        raise RuntimeError(f"grad_output has shape {list(dy.shape)}, expected the output's shape {list(y.shape)}")
    if isinstance(dy, Tensor) or isinstance(y, Tensor):
        return _tensor.relu_backward(dy, y)
    return np.where(y <= 0, np.float32(0), dy)
