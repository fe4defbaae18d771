"""Convolutions as functions, as `torch.nn.functional`, and what stands between them. They keep nothing.

Arrays are anything that the layers take; results are new, and float32: arrays computed on the shared device, or Tensors
computed where the input is, if that is a Tensor. Every function raises RuntimeError, in PyTorch's words, for sizes that
do not fit, and TypeError for sizes that are no integers and arrays that hold no real numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _operand
from .._context import default_compute
from .._operand import compute_of, moved
from .._tensor import Operand, Tensor, as_operand
from ._convolution import Padding, Size, convolution


def conv2d(
    input: Any, weight: Any, bias: Any = None,
    stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1,
) -> Operand:
    """Convolves `[N, C, H, W]` or `[C, H, W]` with `[K, C / groups, R, S]` and adds `[K]`: `[N, K, P, Q]` or
    `[K, P, Q]`, as for `grilly.nn.Conv2d`.

    Args:
        stride: an integer, a list of one, or (height, width); so is `dilation`.
        padding: that, "valid", "same" (stride 1 only; for even kernels one more at the end), or, beyond PyTorch,
            ((top, bottom), (left, right)).
    """
    return _convolve(2, input, weight, bias, stride, padding, dilation, groups)


def conv1d(
    input: Any, weight: Any, bias: Any = None,
    stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1,
) -> Operand:
    """Convolves `[N, C, L]` or `[C, L]` with `[K, C / groups, S]` and adds `[K]`; otherwise as `conv2d`. Padding of
    both ends apart is ((left, right),)."""
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose2d(
    input: Any, weight: Any, bias: Any = None,
    stride: Size = 1, padding: Padding = 0, output_padding: Size = 0, groups: int = 1, dilation: Size = 1,
) -> Operand:
    """The transpose of `conv2d`: `[N, C, H, W]` or `[C, H, W]` with `[C, K / groups, R, S]`, plus `[K]`, to
    `[N, K, P, Q]` or `[K, P, Q]`, as for `grilly.nn.ConvTranspose2d`.

    Args:
        stride: an integer, a list of one, or (height, width); so are `output_padding` and `dilation`.
        padding: that, or, beyond PyTorch, ((top, bottom), (left, right)).
        output_padding: added to the output's size at its end; smaller than `stride` or `dilation`.
    """
    return _convolve(2, input, weight, bias, stride, padding, dilation, groups, True, output_padding)


def conv_transpose1d(
    input: Any, weight: Any, bias: Any = None,
    stride: Size = 1, padding: Padding = 0, output_padding: Size = 0, groups: int = 1, dilation: Size = 1,
) -> Operand:
    """The transpose of `conv1d`: `[N, C, L]` or `[C, L]` with `[C, K / groups, S]`, plus `[K]`; otherwise as
    `conv_transpose2d`."""
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups, True, output_padding)


def relu(input: Any, inplace: bool = False) -> Operand:
    """`max(input, 0)` of the same shape; NaN stays NaN. New, or with `inplace` the input itself, which must be a
    float32 array or a Tensor for that."""
    x = as_operand(input)
    return np.maximum(x, np.float32(0), out=x if inplace else None)


def relu_backward(grad_output: Any, output: Any) -> Operand:
    """The gradient of `relu` with respect to its input: `grad_output` where `output` is positive (or NaN), else 0. A
    Tensor if `grad_output` is one.

    Raises:
        RuntimeError: if their shapes differ.
    """
    dy, y = as_operand(grad_output, "grad_output"), as_operand(output, "output")
    if dy.shape != y.shape:
        raise RuntimeError(f"grad_output has shape {list(dy.shape)}, expected the output's shape {list(y.shape)}")
    if isinstance(dy, Tensor) or isinstance(y, Tensor):
        return moved(_operand.relu_backward(dy, y), compute_of(dy) or "cpu")
    return np.where(y <= 0, np.float32(0), dy)


def _convolve(
    dims: int, input: Any, weight: Any, bias: Any, stride: Size, padding: Padding, dilation: Size, groups: int,
    transposed: bool = False, output_padding: Size = 0,
) -> Operand:
    _check_kinds(input, weight=weight, bias=bias)
    x, w = as_operand(input), as_operand(weight, "weight")
    b = None if bias is None else as_operand(bias, "bias")
    conv = convolution(
        dims, x.shape, w.shape, None if b is None else b.shape, stride, padding, dilation, groups,
        transposed=transposed, output_padding=output_padding,
    )
    compute = compute_of(x, w) or default_compute()
    return conv.forward(compute.conv, x, w, b)


def _check_kinds(input: Any, **others: Any) -> None:
    """Real types may be mixed, being converted, but real and complex numbers may not."""
    for name, other in others.items():
        if other is not None and np.iscomplexobj(other) != np.iscomplexobj(input):
            types = (np.asarray(value).dtype for value in (input, other))
            raise RuntimeError("Input type ({}) and {name} type ({}) should be the same".format(*types, name=name))
