"""grilly's convolutions inside PyTorch's autograd: functions as in `torch.nn.functional`, layers as in `torch.nn`.

    import grilly.torch
    conv = grilly.torch.Conv2d(3, 16, 3, padding=1)     # in place of torch.nn.Conv2d

Tensors are float32 and in CPU memory, which grilly reads and writes where it is (negated views are copied); the device
that computes is the one that all layers share. Gradients can be taken once: there is no double backward.
"""

from __future__ import annotations

from typing import Any, Optional, Sequence

import numpy as np

try:
    import torch
    from torch.autograd.function import once_differentiable
except ImportError as error:
    raise ImportError("grilly.torch needs PyTorch 1.13 or later; install it, for example: pip install torch") from error

from ._context import default_compute
from .nn._convolution import Padding, Size, convolution

__all__ = [
    "Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d", "conv1d", "conv2d", "conv_transpose1d",
    "conv_transpose2d",
]


class _Convolve(torch.autograd.Function):
    """A convolution with a gradient. The arguments behind `bias` are those of `convolution`."""

    @staticmethod
    def forward(ctx: Any, input: Any, weight: Any, bias: Any, dims: int, *options: Any) -> torch.Tensor:
        x, w = _array(input, "input"), _array(weight, "weight")
        b = None if bias is None else _array(bias, "bias")
        ctx.conv = convolution(dims, x.shape, w.shape, None if b is None else b.shape, *options)
        ctx.save_for_backward(input, weight)
        return torch.from_numpy(ctx.conv.forward(default_compute().conv, x, w, b))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[Optional[torch.Tensor], ...]:
        conv, backend = ctx.conv, default_compute().conv
        x, w = (_array(tensor, "a saved tensor") for tensor in ctx.saved_tensors)
        dy = _array(grad_output, "grad_output")
        input_wanted, weight_wanted, bias_wanted, *others = ctx.needs_input_grad
        if input_wanted or not weight_wanted:
            images = conv.images(x) if weight_wanted else None
            dx, dw, db = conv.backward(backend, dy, w, images, bias_wanted)
        else:
            # The first layer of a model: nobody asks for the gradient of its images.
            dx, (dw, db) = None, conv.backward_weight(backend, dy, x, bias_wanted)
        gradients = (None if grad is None else torch.from_numpy(grad) for grad in (dx, dw, db))
        return (*gradients, *(None for _ in others))


def _array(tensor: Any, name: str) -> np.ndarray:
    """The tensor's own memory, unless it is a negated view of another's."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} must be Tensor, not {type(tensor).__name__}")
    if tensor.device.type != "cpu" or tensor.dtype != torch.float32:
        raise RuntimeError(f"{name} is {tensor.dtype} on {tensor.device}, expected torch.float32 on cpu")
    return tensor.detach().resolve_neg().numpy()


def conv2d(
    input: torch.Tensor, weight: torch.Tensor, bias: Optional[torch.Tensor] = None,
    stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1,
) -> torch.Tensor:
    """As `torch.nn.functional.conv2d`: `[N, C, H, W]` or `[C, H, W]` with `[K, C / groups, R, S]`.

    This and the other functions raise RuntimeError, in PyTorch's words, for sizes that do not fit, and for tensors of
    another dtype or device.
    """
    return _Convolve.apply(input, weight, bias, 2, stride, padding, dilation, groups)


def conv1d(
    input: torch.Tensor, weight: torch.Tensor, bias: Optional[torch.Tensor] = None,
    stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1,
) -> torch.Tensor:
    """As `torch.nn.functional.conv1d`: `[N, C, L]` or `[C, L]` with `[K, C / groups, S]`."""
    return _Convolve.apply(input, weight, bias, 1, stride, padding, dilation, groups)


def conv_transpose2d(
    input: torch.Tensor, weight: torch.Tensor, bias: Optional[torch.Tensor] = None,
    stride: Size = 1, padding: Size = 0, output_padding: Size = 0, groups: int = 1, dilation: Size = 1,
) -> torch.Tensor:
    """As `torch.nn.functional.conv_transpose2d`: `[N, C, H, W]` or `[C, H, W]` with `[C, K / groups, R, S]`."""
    return _Convolve.apply(
        input, weight, bias, 2, stride, padding, dilation, groups, "zeros", True, output_padding
    )


def conv_transpose1d(
    input: torch.Tensor, weight: torch.Tensor, bias: Optional[torch.Tensor] = None,
    stride: Size = 1, padding: Size = 0, output_padding: Size = 0, groups: int = 1, dilation: Size = 1,
) -> torch.Tensor:
    """As `torch.nn.functional.conv_transpose1d`: `[N, C, L]` or `[C, L]` with `[C, K / groups, S]`."""
    return _Convolve.apply(
        input, weight, bias, 1, stride, padding, dilation, groups, "zeros", True, output_padding
    )


class _Forward:
    """Computes what a layer of `torch.nn` stands for. The rest of it (parameters, repr, state) stays PyTorch's."""

    def _conv_forward(self: Any, input: torch.Tensor, weight: torch.Tensor, bias: Optional[torch.Tensor]) -> Any:
        return _Convolve.apply(
            input, weight, bias, len(self.kernel_size), self.stride, self.padding, self.dilation, self.groups,
            self.padding_mode,
        )


class _ForwardTransposed:
    """The same for transposed layers, whose forward chooses among the possible sizes."""

    def forward(self: Any, input: torch.Tensor, output_size: Optional[Sequence[int]] = None) -> Any:
        dims = len(self.kernel_size)
        output_padding = self._output_padding(
            input, output_size, self.stride, self.padding, self.kernel_size, dims, self.dilation
        )
        return _Convolve.apply(
            input, self.weight, self.bias, dims, self.stride, self.padding, self.dilation, self.groups,
            self.padding_mode, True, output_padding,
        )


class Conv1d(_Forward, torch.nn.Conv1d):
    """`torch.nn.Conv1d`, computed by grilly: `[N, C, L]` or `[C, L]` in."""


class Conv2d(_Forward, torch.nn.Conv2d):
    """`torch.nn.Conv2d`, computed by grilly: `[N, C, H, W]` or `[C, H, W]` in."""


class ConvTranspose1d(_ForwardTransposed, torch.nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d`, computed by grilly: `[N, C, L]` or `[C, L]` in."""


class ConvTranspose2d(_ForwardTransposed, torch.nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d`, computed by grilly: `[N, C, H, W]` or `[C, H, W]` in."""
