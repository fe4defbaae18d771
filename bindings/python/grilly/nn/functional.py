"""Convolutions as functions, as `torch.nn.functional`. They run on the shared device and keep nothing.

Arrays are anything that the layers take; results are new, and float32. Every function raises RuntimeError, in
PyTorch's words, for sizes that do not fit, and TypeError for sizes that are no integers and arrays that hold no real
numbers.
"""

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
) -> np.ndarray:
    """Convolves `[N, C, L]` or `[C, L]` with `[K, C / groups, S]` and adds `[K]`; otherwise as `conv2d`. Padding of
    both ends apart is ((left, right),)."""
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose2d(
    input: Any, weight: Any, bias: Any = None,
    stride: Size = 1, padding: Padding = 0, output_padding: Size = 0, groups: int = 1, dilation: Size = 1,
) -> np.ndarray:
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
) -> np.ndarray:
    """The transpose of `conv1d`: `[N, C, L]` or `[C, L]` with `[C, K / groups, S]`, plus `[K]`; otherwise as
    `conv_transpose2d`."""
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups, True, output_padding)


def _convolve(
    dims: int, input: Any, weight: Any, bias: Any, stride: Size, padding: Padding, dilation: Size, groups: int,
    transposed: bool = False, output_padding: Size = 0,
) -> np.ndarray:
    _check_kinds(input, weight=weight, bias=bias)
    x, w = as_float32(input), as_float32(weight, "weight")
    b = None if bias is None else as_float32(bias, "bias")
    if transposed and isinstance(padding, str):
        raise TypeError(f"conv_transpose{dims}d(): argument 'padding' must be tuple of ints, not str")
    conv = convolution(
        dims, x.shape, w.shape, None if b is None else b.shape, stride, padding, dilation, groups,
        transposed=transposed, output_padding=output_padding,
    )
    return conv.forward(default_compute().conv, conv.images(x), w, b)


def _check_kinds(input: Any, **others: Any) -> None:
    """Real types may be mixed, being converted, but real and complex numbers may not."""
    for name, other in others.items():
        if other is not None and np.iscomplexobj(other) != np.iscomplexobj(input):
            types = (np.asarray(value).dtype for value in (input, other))
            raise RuntimeError("Input type ({}) and {name} type ({}) should be the same".format(*types, name=name))
