"""Conv1d and Conv2d: layers that own a weight and a bias."""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple, Optional

import numpy as np

from .._context import Compute, default_compute
from .._grad_mode import is_grad_enabled
from .._tensor import Operand, Tensor, as_operand, tensor
from ..backend.conv import VulkanConv
from . import init
from ._convolution import Convolution, Padding, Size, convolution
from .module import Module
from .parameter import Parameter

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
_PADDING_STRINGS = ("same", "valid")


class _Kept(NamedTuple):
    """What `backward` needs of the latest forward."""

    conv: Convolution
    backend: VulkanConv
    #: The input on its device; None if the weight needs no gradient.
    x: Optional[Tensor]
    #: Of the input's contents.
    version: Optional[int]


class _ConvNd(Module):
    """What Conv1d and Conv2d share."""

    _dims: int

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size, padding: Padding, dilation: Size,
        groups: int, bias: bool, padding_mode: str, device: Optional[Compute], dtype: Any,
    ) -> None:
        super().__init__()
        in_channels, out_channels, groups = map(operator.index, (in_channels, out_channels, groups))
        if groups <= 0:
            raise ValueError("groups must be a positive integer")
        if in_channels % groups:
            raise ValueError("in_channels must be divisible by groups")
        if out_channels % groups:
            raise ValueError("out_channels must be divisible by groups")
        kernel_size, stride, dilation = (self._sizes(value) for value in (kernel_size, stride, dilation))
        if isinstance(padding, str):
            if padding not in _PADDING_STRINGS:
                raise ValueError(f"Invalid padding string {padding!r}, should be one of {set(_PADDING_STRINGS)}")
            if padding == "same" and any(step != 1 for step in stride):
                raise ValueError("padding='same' is not supported for strided convolutions")
        else:
            padding = tuple(map(tuple, padding)) if np.ndim(padding) == 2 else self._sizes(padding)
        if padding_mode not in _PADDING_MODES:
            raise ValueError(
                f"padding_mode must be one of {set(_PADDING_MODES)}, but got padding_mode={padding_mode!r}"
            )
        if padding_mode != "zeros":
            raise NotImplementedError(f"padding_mode={padding_mode!r} is not implemented yet; only 'zeros' is")
        if not isinstance(device, (Compute, type(None))):
            raise TypeError(f"device is {device!r}, expected a grilly.Compute, or None for the shared one")
        if dtype is not None and np.dtype(dtype) != np.float32:
            raise TypeError(f"dtype is {dtype!r}, expected float32")
        shape = (out_channels, in_channels // groups, *kernel_size)
        if min(shape) < 0:
            raise RuntimeError(f"Trying to create tensor with negative dimension {min(shape)}: {list(shape)}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.transposed = False
        self.output_padding = (0,) * self._dims
        self.groups = groups
        self.padding_mode = padding_mode
        self.weight = Parameter(np.empty(shape, np.float32))
        self.register_parameter("bias", Parameter(np.empty(out_channels, np.float32)) if bias else None)
        self._compute = device
        self._kept: Optional[_Kept] = None
        self.reset_parameters()

    @classmethod
    def _sizes(cls, value: Size) -> tuple[int, ...]:
        values = value if np.ndim(value) else (value,) * cls._dims
        return tuple(map(operator.index, values))

    def reset_parameters(self) -> None:
        """Draws weight and bias from U(±1/√fan_in), as PyTorch does; see `grilly.manual_seed`."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        fan_in, _ = init.fans(self.weight.shape)
        if self.bias is not None and fan_in:
            bound = 1 / math.sqrt(fan_in)
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Any) -> Operand:
        """Convolves a batch or a single image; the result is a new float32 ndarray, or a Tensor if the input is one.

        In training mode, and outside `no_grad()`, the input is kept on the device for `backward`, until the next
        call: an array is copied there, a Tensor must not be changed until then.

        Raises:
            RuntimeError: for an input that does not fit, in PyTorch's words; GrillyError if the device fails.
        """
        # The memory of what the call before kept serves this one.
        self._kept = None
        x = as_operand(input)
        weight, bias = self.weight.data, None if self.bias is None else self.bias.data
        conv = convolution(
            self._dims, x.shape, weight.shape, None if bias is None else bias.shape,
            self.stride, self.padding, self.dilation, self.groups,
        )
        compute = self._compute_for(x, weight)
        out = None if isinstance(x, Tensor) else np.empty(conv.y_shape, np.float32)
        x = conv.images(x)
        kept = None
        if self.training and is_grad_enabled():
            held = None
            if self.weight.requires_grad:
                x = held = x if isinstance(x, Tensor) else tensor(x, compute)
            kept = _Kept(conv, compute.conv, held, None if held is None else held.version)
        y = conv.forward(compute.conv, x, weight, bias, out)
        self._kept = kept
        return y

    def backward(self, grad_output: Any) -> Operand:
        """The gradient with respect to the latest forward's input, of its shape, a Tensor if `grad_output` is one; adds to
        `weight.grad` and `bias.grad` where they are required.

        Raises:
            RuntimeError: before any forward, after one that kept nothing (`eval()`, `no_grad()`), for a
                `grad_output` of another shape than the output, or if the input was a Tensor and has changed.
        """
        kept = self._kept
        if kept is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward() needs a forward before it, in training mode and outside no_grad()"
            )
        conv, backend, x, version = kept
        if x is not None and x.version != version:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: "
                f"the input of {type(self).__name__}, of shape {list(conv.x_shape)}"
            )
        dy = as_operand(grad_output, "grad_output")
        if dy.shape != conv.y_shape:
            raise RuntimeError(
                f"grad_output has shape {list(dy.shape)}, expected the output's shape {list(conv.y_shape)}"
            )
        has_bias = self.bias is not None and self.bias.requires_grad
        dx, dw, db = conv.backward(backend, dy, self.weight.data, x, has_bias)
        for parameter, grad in ((self.weight, dw), (self.bias, db)):
            if grad is not None:
                parameter.grad = grad if parameter.grad is None else np.add(parameter.grad, grad, out=parameter.grad)
        return dx

    def _compute_for(self, *operands: Operand) -> Compute:
        """Where the first Tensor is; else the layer's own; else the shared one."""
        held = [operand.compute for operand in operands if isinstance(operand, Tensor)]
        return held[0] if held else self._compute or default_compute()

    def __getstate__(self) -> dict[str, Any]:
        # What is kept for backward is on a device, and stays there.
        return {**self.__dict__, "_kept": None}

    def extra_repr(self) -> str:
        parts = [str(self.in_channels), str(self.out_channels)]
        parts += [f"kernel_size={self.kernel_size}", f"stride={self.stride}"]
        options = {
            "padding": (0,) * self._dims, "dilation": (1,) * self._dims, "output_padding": (0,) * self._dims,
            "groups": 1,
        }
        parts += [
            f"{name}={getattr(self, name)}" for name, usual in options.items() if getattr(self, name) != usual
        ]
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


class Conv2d(_ConvNd):
    """A two-dimensional convolution: `[N, C, H, W]` or `[C, H, W]` in, `[N, K, P, Q]` or `[K, P, Q]` out.

    The arguments are those of `torch.nn.Conv2d`. `padding_mode` other than "zeros" is not implemented yet.

    Args:
        padding: an integer, (height, width), "valid" or "same"; beyond PyTorch also ((top, bottom), (left, right)).
        device: the Compute to run on; None shares one with all layers.
        dtype: None or float32.

    Attributes:
        weight: Parameter `[out_channels, in_channels / groups, kernel height, kernel width]`.
        bias: Parameter `[out_channels]`, or None.
    """

    _dims = 2

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Padding = 0,
        dilation: Size = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
        device: Optional[Compute] = None, dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )


class Conv1d(_ConvNd):
    """A one-dimensional convolution: `[N, C, L]` or `[C, L]` in, `[N, K, Q]` or `[K, Q]` out. It runs as a
    two-dimensional one of height 1.

    The arguments are those of `torch.nn.Conv1d`, and as for Conv2d.

    Attributes:
        weight: Parameter `[out_channels, in_channels / groups, kernel size]`.
        bias: Parameter `[out_channels]`, or None.
    """

    _dims = 1

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Padding = 0,
        dilation: Size = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
        device: Optional[Compute] = None, dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
