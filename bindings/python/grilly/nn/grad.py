"""Gradients of convolutions as functions, as `torch.nn.grad`. They run on the shared device and keep nothing.

Arrays are batches; results are new, and float32. Every function raises RuntimeError, in PyTorch's words where it has
any, for sizes that do not fit, and TypeError for sizes that are no integers.
"""

from __future__ import annotations

import operator
from typing import Any, Sequence

from .._context import default_compute
from .._operand import compute_of
from .._tensor import Operand, as_operand
from . import _checks
from ._convolution import Convolution, Size, convolution


def conv2d_input(
    input_size: Sequence[int], weight: Any, grad_output: Any,
    stride: Size = 1, padding: Size = 0, dilation: Size = 1, groups: int = 1,
) -> Operand:
    """The gradient of `conv2d` with respect to its input, which has the shape `input_size`, `[N, C, H, W]`.

    Args:
        weight: `[K, C / groups, R, S]`.
        grad_output: `[N, K, P, Q]`, the gradient with respect to the output.
    """
    return _input(2, input_size, weight, grad_output, stride, padding, dilation, groups)


def conv2d_weight(
    input: Any, weight_size: Sequence[int], grad_output: Any,
    stride: Size = 1, padding: Size = 0, dilation: Size = 1, groups: int = 1,
) -> Operand:
    """The gradient of `conv2d` with respect to its weight, which has the shape `weight_size`, `[K, C / groups, R, S]`.

    Args:
        input: `[N, C, H, W]`.
        grad_output: `[N, K, P, Q]`, the gradient with respect to the output.
    """
    return _weight(2, input, weight_size, grad_output, stride, padding, dilation, groups)


def conv1d_input(
    input_size: Sequence[int], weight: Any, grad_output: Any,
    stride: Size = 1, padding: Size = 0, dilation: Size = 1, groups: int = 1,
) -> Operand:
    """The gradient of `conv1d` with respect to its input, `[N, C, L]`; the weight is `[K, C / groups, S]` and the
    output's gradient `[N, K, Q]`."""
    return _input(1, input_size, weight, grad_output, stride, padding, dilation, groups)


def conv1d_weight(
    input: Any, weight_size: Sequence[int], grad_output: Any,
    stride: Size = 1, padding: Size = 0, dilation: Size = 1, groups: int = 1,
) -> Operand:
    """The gradient of `conv1d` with respect to its weight, `[K, C / groups, S]`; the input is `[N, C, L]` and the
    output's gradient `[N, K, Q]`."""
    return _weight(1, input, weight_size, grad_output, stride, padding, dilation, groups)


def _input(dims: int, input_size: Sequence[int], weight: Any, grad_output: Any, *options: Any) -> Operand:
    w, dy = as_operand(weight, "weight"), as_operand(grad_output, "grad_output")
    conv = _convolution(dims, tuple(map(operator.index, input_size)), w.shape, *options)
    compute = compute_of(dy, w) or default_compute()
    return conv.backward(compute.conv, dy, w, None, has_bias=False)[0]


def _weight(dims: int, input: Any, weight_size: Sequence[int], grad_output: Any, *options: Any) -> Operand:
    x, dy = as_operand(input), as_operand(grad_output, "grad_output")
    conv = _convolution(dims, x.shape, tuple(map(operator.index, weight_size)), *options)
    compute = compute_of(dy, x) or default_compute()
    return conv.backward_weight(compute.conv, dy, x, has_bias=False)[0]


def _convolution(dims: int, x_shape: tuple[int, ...], w_shape: tuple[int, ...], *options: Any) -> Convolution:
    if len(x_shape) != dims + 2:
        _checks.dimensions(x_shape, w_shape)
    return convolution(dims, x_shape, w_shape, None, *options)
