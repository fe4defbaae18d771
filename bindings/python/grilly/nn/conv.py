"""Conv1d, Conv2d and their transposes: layers that own a weight and a bias."""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple, Optional, Sequence

import numpy as np

from .._context import Compute, default_compute
from .._grad_mode import is_grad_enabled
from .._operand import Saved, compute_of
from .._tensor import Operand, Tensor, as_operand, tensor
from ..backend.conv import VulkanConv
from . import _checks, init
from ._convolution import (
    Convolution, Padding, Size, begin_end, integer_padding, integers, known_convolution, transposed_size,
)
from .module import Module, nothing_kept
from .parameter import Parameter

#: The legal dtypes as they print: NumPy's, PyTorch's, and none.
_FLOAT32 = ("None", "float32", str(np.float32), "torch.float32")


class _Kept(NamedTuple):
    """What `backward` needs of the latest forward."""

    conv: Convolution
    backend: VulkanConv
    weight: Saved
    #: The input on its device; None if the weight needs no gradient.
    x: Optional[Saved]
    #: Whether the bias needs one.
    bias: bool


class _ConvNd(Module):
    """What all layers share: the sizes, the parameters, and both passes."""

    _dims: int

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size, padding: Padding, dilation: Size,
        transposed: bool, output_padding: Size, groups: int, bias: bool, padding_mode: str,
        device: Optional[Compute], dtype: Any,
    ) -> None:
        super().__init__()
        in_channels, out_channels, groups = map(operator.index, (in_channels, out_channels, groups))
        _checks.layer_channels(in_channels, out_channels, groups)
        kernel_size, stride, dilation, output_padding = (
            integers(size, self._dims) for size in (kernel_size, stride, dilation, output_padding)
        )
        if transposed or not isinstance(padding, str):
            padding = integer_padding(padding, self._dims)
        _checks.layer_padding(padding, padding_mode, stride)
        if not isinstance(device, (Compute, type(None))):
            raise TypeError(f"device is {device!r}, expected a grilly.Compute, or None for the shared one")
        if str(dtype) not in _FLOAT32:
            raise TypeError(f"dtype is {dtype!r}, expected float32")
        outer, inner = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        shape = (outer, inner // groups, *kernel_size)
        if min(shape) < 0:
            raise RuntimeError(f"Trying to create tensor with negative dimension {min(shape)}: {list(shape)}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.transposed = transposed
        self.output_padding = output_padding
        self.groups = groups
        self.padding_mode = padding_mode
        self.weight = Parameter(np.empty(shape, np.float32))
        self.register_parameter("bias", Parameter(np.empty(out_channels, np.float32)) if bias else None)
        self._compute = device
        self._kept: Optional[_Kept] = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weight and bias from U(±1/√fan_in), as PyTorch does; see `grilly.manual_seed`."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        fan_in, _ = init.fans(self.weight.shape)
        if self.bias is not None and fan_in:
            bound = 1 / math.sqrt(fan_in)
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Any) -> Operand:
        """Convolves a batch or a single image; the result is a new float32 ndarray of the shape that the class names,
        or a Tensor if the input is one.

        In training mode, and outside `no_grad()`, the input is kept on the device for `backward`, until the next
        call: an array is copied there, a Tensor must not be changed until then.

        Raises:
            RuntimeError: for an input that does not fit, in PyTorch's words; for a Tensor that is not where the
                parameters are or, if those are in host memory, on the layer's `device`; GrillyError if the device
                fails.
        """
        return self._convolve(input, self.output_padding)

    def _convolve(self, input: Any, output_padding: Size) -> Operand:
        # The memory of what the call before kept serves this one.
        object.__setattr__(self, "_kept", None)
        given = x = as_operand(input)
        weight, bias = self._values("weight"), self._values("bias")
        conv = known_convolution(
            self._dims, x.shape, weight.shape, None if bias is None else bias.shape,
            self.stride, self.padding, self.dilation, self.groups, self.padding_mode, self.transposed, output_padding,
        )
        compute = compute_of(weight, bias) or self._compute or compute_of(x) or default_compute()
        kept = None
        if self.training and is_grad_enabled():
            saved = None
            if self._learns("weight"):
                x = x if isinstance(x, Tensor) else tensor(x, compute)
                saved = Saved(conv.images(x))
            kept = _Kept(conv, compute.conv, Saved(weight), saved, self._learns("bias"))
        y = conv.forward(compute.conv, x, weight, bias, like=given)
        object.__setattr__(self, "_kept", kept)
        return y

    def _values(self, name: str) -> Any:
        """What a parameter holds, or what was put in its place; None for a bias that is left out."""
        # From where it is registered: an attribute is looked up in every other place first.
        parameter = self._parameters.get(name)
        if parameter is not None:
            return parameter.data
        value = getattr(self, name)
        return None if value is None and name == "bias" else as_operand(value, name)

    def _learns(self, name: str) -> bool:
        """Whether it is a parameter that needs a gradient."""
        parameter = self._parameters.get(name)
        return parameter is not None and parameter.requires_grad

    def backward(self, grad_output: Any) -> Operand:
        """The gradient with respect to the latest forward's input, of its shape, a Tensor if `grad_output` is one; adds
        to the `grad` of weight and bias, of those whose `requires_grad` was set in that forward and is now. A weight in
        host memory must be as it was in that forward: update it afterwards.

        Raises:
            RuntimeError: before any forward, after one that kept nothing (`eval()`, `no_grad()`), for a
                `grad_output` of another shape than the output, or if the input or the weight was a Tensor and has
                changed.
        """
        kept = self._kept
        if kept is None:
            raise nothing_kept(self)
        conv, backend, weight, saved, has_bias = kept
        x = saved.get() if saved is not None and self._learns("weight") else None
        has_bias = has_bias and self._learns("bias")
        dx, dw, db = conv.backward(backend, as_operand(grad_output, "grad_output"), weight.get(), x, has_bias)
        for name, grad in (("weight", dw), ("bias", db)):
            if grad is not None:
                self._parameters[name]._accumulate(grad)
        return dx

    def extra_repr(self) -> str:
        """What `repr` shows of the layer: channels, kernel size and stride, and what is not at its default."""
        parts = [str(self.in_channels), str(self.out_channels)]
        parts += [f"kernel_size={self.kernel_size}", f"stride={self.stride}"]
        for name, usual in (("padding", 0), ("dilation", 1), ("output_padding", 0), ("groups", 1)):
            value = getattr(self, name)
            if value != ((usual,) * len(value) if isinstance(value, tuple) else usual):
                parts.append(f"{name}={value}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


class _Conv(_ConvNd):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Padding = 0,
        dilation: Size = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
        device: Optional[Compute] = None, dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, False, 0, groups, bias, padding_mode,
            device, dtype,
        )


class Conv2d(_Conv):
    """A two-dimensional convolution: `[N, C, H, W]` or `[C, H, W]` in, `[N, K, P, Q]` or `[K, P, Q]` out.

    P = floor((H + padding above and below - dilation · (kernel - 1) - 1) / stride) + 1, and Q likewise; sizes are in
    elements. The arguments, their order and their errors are those of `torch.nn.Conv2d`.

    Args:
        in_channels: C, a multiple of `groups`.
        out_channels: K, a multiple of `groups`.
        kernel_size: an integer, or (height, width); so are `stride` and `dilation`.
        padding: an integer, (height, width), "valid" (none), or "same" (P = H and Q = W; stride 1 only, and for even
            kernels one more at the end); beyond PyTorch also ((top, bottom), (left, right)).
        groups: how many convolutions stand side by side, each of C / groups and K / groups channels.
        bias: whether the layer has one.
        padding_mode: what is beyond the input's edge. "zeros"; "reflect", the input mirrored at its last element
            (padding < size); "replicate", its last element; "circular", its other end (padding <= size).
        device: the Compute to run on; None shares one with all layers.
        dtype: None or float32.

    Raises:
        ValueError: for channels that do not divide, and for unknown or impossible paddings.
        TypeError: for sizes that are no integers, another dtype, or a device that is no Compute.
        RuntimeError: for negative sizes.

    Attributes:
        weight: Parameter `[K, C / groups, kernel height, kernel width]`.
        bias: Parameter `[K]`, or None.
    """

    _dims = 2


class Conv1d(_Conv):
    """A one-dimensional convolution: `[N, C, L]` or `[C, L]` in, `[N, K, Q]` or `[K, Q]` out. It runs as a
    two-dimensional one of height 1.

    The arguments are those of `torch.nn.Conv1d`, and as for Conv2d; padding of both ends apart is ((left, right),).

    Attributes:
        weight: Parameter `[K, C / groups, kernel size]`.
        bias: Parameter `[K]`, or None.
    """

    _dims = 1


class _ConvTranspose(_ConvNd):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Padding = 0,
        output_padding: Size = 0, groups: int = 1, bias: bool = True, dilation: Size = 1, padding_mode: str = "zeros",
        device: Optional[Compute] = None, dtype: Any = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, True, output_padding, groups, bias,
            padding_mode, device, dtype,
        )

    def forward(self, input: Any, output_size: Optional[Sequence[int]] = None) -> Operand:
        """As for the other layers.

        Args:
            input: `[N, C, ...]` or `[C, ...]`.
            output_size: the wanted size of the output, with or without batch and channels, instead of
                `output_padding`. A stride s makes s sizes possible.

        Raises:
            ValueError: for a size that is not possible, naming those that are.
            RuntimeError: for an input that does not fit, in PyTorch's words; GrillyError if the device fails.
        """
        if output_size is None:
            return self._convolve(input, self.output_padding)
        input = as_operand(input)
        return self._convolve(input, self._output_padding(input.shape, output_size))

    def _output_padding(self, x_shape: tuple[int, ...], output_size: Sequence[int]) -> tuple[int, ...]:
        dims = self._dims
        outer = 2 if len(x_shape) == dims + 2 else 1
        sizes = tuple(map(operator.index, output_size))
        if len(sizes) == outer + dims:
            sizes = sizes[outer:]
        if len(sizes) != dims:
            raise ValueError(
                f"ConvTranspose{dims}D: for {len(x_shape)}D input, output_size must have {dims} or {outer + dims} "
                f"elements (got {len(sizes)})"
            )
        smallest = transposed_size(
            x_shape[-dims:], self.kernel_size, self.stride, begin_end(self.padding), self.dilation, (0,) * dims
        )
        largest = [size + step - 1 for size, step in zip(smallest, self.stride)]
        if any(not low <= size <= high for low, size, high in zip(smallest, sizes, largest)):
            raise ValueError(
                f"requested an output size of {sizes}, but valid sizes range from {list(smallest)} to {largest} "
                f"(for an input of {list(x_shape[outer:])})"
            )
        return tuple(size - low for size, low in zip(sizes, smallest))


class ConvTranspose2d(_ConvTranspose):
    """The transpose of a Conv2d of K to C channels, which is that one's gradient with respect to its input:
    `[N, C, H, W]` or `[C, H, W]` in, `[N, K, P, Q]` or `[K, P, Q]` out.

    P = (H - 1) · stride - padding above and below + dilation · (kernel - 1) + output_padding + 1, and Q likewise;
    sizes are in elements. The arguments, their order and their errors are those of `torch.nn.ConvTranspose2d`; what is
    not named here is as for Conv2d.

    Args:
        padding: what the output loses at its edges: an integer, (height, width), or beyond PyTorch
            ((top, bottom), (left, right)).
        output_padding: an integer or (height, width), added to the output's size at its end; smaller than `stride` or
            `dilation`.
        padding_mode: "zeros".

    Attributes:
        weight: Parameter `[C, K / groups, kernel height, kernel width]`.
        bias: Parameter `[K]`, or None.
    """

    _dims = 2


class ConvTranspose1d(_ConvTranspose):
    """The transpose of a Conv1d: `[N, C, L]` or `[C, L]` in, `[N, K, Q]` or `[K, Q]` out. It runs as a
    two-dimensional one of height 1.

    The arguments are those of `torch.nn.ConvTranspose1d`, and as for ConvTranspose2d.

    Attributes:
        weight: Parameter `[C, K / groups, kernel size]`.
        bias: Parameter `[K]`, or None.
    """

    _dims = 1
