"""Convolutions of NCHW arrays on one device. The layers' only way to the library."""

from __future__ import annotations

import math
from ctypes import byref, c_int64, pointer
from typing import TYPE_CHECKING, Any, Optional, Sequence, Union

import numpy as np

from .. import _abi
from .._arrays import address, as_float32, row_major_view
from .._errors import c_integer, check
from .._handle import Handle
from .._host import host_array
from .._operand import c_view
from .._pinned import result_array
from .._tensor import Operand, Tensor, as_operand, empty
from .._ticket import Result, Ticket

if TYPE_CHECKING:
    from .._context import Compute
    from ..nn._convolution import Convolution

#: One integer for both axes, (height, width), or for padding also ((top, bottom), (left, right)).
Size = Union[int, Sequence[int]]
Padding = Union[Size, Sequence[Sequence[int]]]

_PADDING_MODES = {
    "zeros": _abi.PADDING_ZEROS, "reflect": _abi.PADDING_REFLECT, "replicate": _abi.PADDING_REPLICATE,
    "circular": _abi.PADDING_CIRCULAR,
}

#: More operations than any model has; a bound for programs that never stop inventing new ones.
_MOST_OPERATIONS = 1024


class VulkanConv:
    """Two-dimensional convolutions (cross-correlations, as in PyTorch) on a Compute's device.

    Arrays are `[N, C, H, W]` and weights `[K, C / groups, R, S]`, in host memory (any real dtype and any strides; see
    `grilly._arrays.as_float32`) or Tensors on this device, mixed as you like. Results are new float32 ndarrays, or
    Tensors where what they resemble is one: the output as the input, the input's gradient as `grad_output`, those of
    weight and bias as the weight, or as `grad_output` where no weight is given. Large ndarrays of a Vulkan device's results
    are in memory that it reaches, and that is used again when they are gone. Any thread may call, concurrently.

    Every method also takes `padding_mode`, `transposed` and `output_padding`, by name, with the meaning that they have
    in `grilly.nn`. The weight of a transposed convolution is `[C, K / groups, R, S]`.

    Every method raises GrillyError, a RuntimeError, for arguments that no convolution has, and RuntimeError after
    `Compute.cleanup()`.
    """

    def __init__(self, compute: Compute) -> None:
        self._context = compute._context
        self._pins = compute.device.is_vulkan
        self._operations: dict[tuple, Handle] = {}
        self._forwards: dict[Convolution, _Forward] = {}

    def conv2d(
        self, x: Any, w: Any, b: Any = None,
        stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1, out: Optional[np.ndarray] = None,
        **mode: Any,
    ) -> Operand:
        """`x ⋆ w + b`, of shape `[N, K, P, Q]`, new or written to `out`, a float32 ndarray with any strides."""
        x, w = _array(x, "x"), _array(w, "w")
        b = None if b is None else _array(b, "b", axes=1)
        operation = self._operation_of(w.shape, stride, padding, dilation, groups, **mode)
        if out is not None:
            _check_out(out)
        y = self.empty(self._output_shape(operation, x.shape), like=x) if out is None else out
        _run(_abi.lib.grilly_conv2d_forward, operation, x=x, weight=w, bias=b, y=y)
        return y

    def forward(self, conv: Convolution, x: Operand, w: Operand, b: Optional[Operand], y: Operand) -> None:
        """A layer's `conv2d` into `y`, after its checks: what of it is the same in every call is made once."""
        forward = self._forwards.get(conv)
        if forward is None:
            forward = _Forward(self._operation_of(conv.image_shape(conv.w_shape), **conv.options), conv)
            if len(self._forwards) >= _MOST_OPERATIONS:
                self._forwards = {}
            self._forwards[conv] = forward
        forward.run(x, w, b, y)

    def submit_conv2d(
        self, x: Tensor, w: Tensor, b: Optional[Tensor] = None,
        stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1, **mode: Any,
    ) -> Ticket[Tensor]:
        """As `conv2d` of Tensors, but does not wait: the result is what the ticket's `wait()` returns.

        Any number of calls may be under way; they run in the order of their submission, so a ticket's `result` may be an
        operand of the next without a wait between them. Until one is done, its operands must not be changed by `copy_`
        from an array, which is not ordered with it. On the CPU device the call is done at once.
        """
        _check_tensors(x=x, w=w, b=b)
        x, w = _array(x, "x"), _array(w, "w")
        b = None if b is None else _array(b, "b", axes=1)
        operation = self._operation_of(w.shape, stride, padding, dilation, groups, **mode)
        y = empty(self._output_shape(operation, x.shape), x.compute)
        return _submit(_abi.lib.grilly_conv2d_submit_forward, operation, y, x=x, weight=w, bias=b, y=y)

    def conv2d_backward_input(
        self, grad_output: Any, weight: Any, input_shape: Sequence[int],
        stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1, **mode: Any,
    ) -> Operand:
        """The gradient with respect to an input of shape `[N, C, H, W]`."""
        return self.conv2d_backward(
            grad_output, weight, input_shape, None, stride, padding, dilation, groups, has_bias=False, **mode
        )[0]

    def conv2d_backward_weight(
        self, grad_output: Any, input: Any, kernel_size: Size,
        stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1, has_bias: bool = True,
        **mode: Any,
    ) -> tuple[Operand, Operand]:
        """The gradients with respect to the weight, `[K, C / groups, R, S]`, and the bias, `[K]` (None without)."""
        operation, tensors = self._backward_weight(
            grad_output, input, kernel_size, stride, padding, dilation, groups, has_bias, **mode
        )
        _run(_abi.lib.grilly_conv2d_backward, operation, **tensors)
        return tensors["dweight"], tensors["dbias"]

    def submit_conv2d_backward_weight(
        self, grad_output: Tensor, input: Tensor, kernel_size: Size,
        stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1, has_bias: bool = True,
        **mode: Any,
    ) -> Ticket[tuple[Tensor, Optional[Tensor]]]:
        """As `conv2d_backward_weight` of Tensors, but does not wait: see `submit_conv2d`."""
        _check_tensors(grad_output=grad_output, input=input)
        operation, tensors = self._backward_weight(
            grad_output, input, kernel_size, stride, padding, dilation, groups, has_bias, **mode
        )
        gradients = tensors["dweight"], tensors["dbias"]
        return _submit(_abi.lib.grilly_conv2d_submit_backward, operation, gradients, **tensors)

    def conv2d_backward(
        self, grad_output: Any, weight: Any, input_shape: Sequence[int], input: Any = None,
        stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1, has_bias: bool = True,
        **mode: Any,
    ) -> tuple[Operand, Operand, Operand]:
        """All gradients in one call, which reads `grad_output` once: with respect to the input, the weight (None if
        `input` is) and the bias (None without)."""
        operation, tensors = self._backward(
            grad_output, weight, input_shape, input, stride, padding, dilation, groups, has_bias, **mode
        )
        _run(_abi.lib.grilly_conv2d_backward, operation, **tensors)
        return tensors["dx"], tensors["dweight"], tensors["dbias"]

    def submit_conv2d_backward(
        self, grad_output: Tensor, weight: Tensor, input_shape: Sequence[int], input: Optional[Tensor] = None,
        stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1, has_bias: bool = True,
        **mode: Any,
    ) -> Ticket[tuple[Tensor, Optional[Tensor], Optional[Tensor]]]:
        """As `conv2d_backward` of Tensors, but does not wait: see `submit_conv2d`. The gradient of the input alone is
        that without `input` and with `has_bias=False`."""
        _check_tensors(grad_output=grad_output, weight=weight, input=input)
        operation, tensors = self._backward(
            grad_output, weight, input_shape, input, stride, padding, dilation, groups, has_bias, **mode
        )
        gradients = tensors["dx"], tensors["dweight"], tensors["dbias"]
        return _submit(_abi.lib.grilly_conv2d_submit_backward, operation, gradients, **tensors)

    def _backward_weight(
        self, grad_output: Any, input: Any, kernel_size: Size,
        stride: Size, padding: Padding, dilation: Size, groups: int, has_bias: bool, **mode: Any,
    ) -> tuple[Handle, dict[str, Any]]:
        """What `conv2d_backward_weight` runs, and on what."""
        dy, x = _array(grad_output, "grad_output"), _array(input, "input")
        kernel = _pair(kernel_size, "kernel_size")
        in_channels, out_channels = x.shape[1], dy.shape[1]
        operation = self._operation(in_channels, out_channels, kernel, stride, padding, dilation, groups, **mode)
        outer, inner = (in_channels, out_channels) if mode.get("transposed") else (out_channels, in_channels)
        dw = self.empty((outer, inner // groups, *kernel), like=dy)
        db = self.empty((out_channels,), like=dy) if has_bias else None
        return operation, {"x": x, "dy": dy, "dweight": dw, "dbias": db}

    def _backward(
        self, grad_output: Any, weight: Any, input_shape: Sequence[int], input: Any,
        stride: Size, padding: Padding, dilation: Size, groups: int, has_bias: bool, **mode: Any,
    ) -> tuple[Handle, dict[str, Any]]:
        """What `conv2d_backward` runs, and on what."""
        dy, w = _array(grad_output, "grad_output"), _array(weight, "weight")
        x = None if input is None else _array(input, "input")
        operation = self._operation_of(w.shape, stride, padding, dilation, groups, **mode)
        dx = self.empty(tuple(input_shape), like=dy)
        dw = None if x is None else self.empty(w.shape, like=w)
        db = self.empty(dy.shape[1:2], like=w) if has_bias else None
        return operation, {"x": x, "weight": w, "dy": dy, "dx": dx, "dweight": dw, "dbias": db}

    def close(self) -> None:
        """Destroys the operations that it keeps. `Compute.cleanup()` calls it."""
        self._forwards = {}
        operations, self._operations = self._operations, {}
        for operation in operations.values():
            operation.close()

    def _operation_of(
        self, w_shape: tuple[int, ...], stride: Size, padding: Padding, dilation: Size, groups: int,
        transposed: bool = False, **mode: Any,
    ) -> Handle:
        """The operation of a weight."""
        # Before channels are computed from it: an error must not name those.
        groups = c_integer(groups, "groups", range(1, 2**31))
        outer, inner = w_shape[0], w_shape[1] * groups
        channels = (outer, inner) if transposed else (inner, outer)
        return self._operation(
            *channels, w_shape[2:], stride, padding, dilation, groups, transposed=transposed, **mode
        )

    def _operation(
        self, in_channels: int, out_channels: int, kernel: Size,
        stride: Size, padding: Padding, dilation: Size, groups: int,
        padding_mode: str = "zeros", transposed: bool = False, output_padding: Size = 0,
    ) -> Handle:
        context = self._context.value
        if padding_mode not in _PADDING_MODES:
            raise ValueError(f"padding_mode is {padding_mode!r}, expected one of {list(_PADDING_MODES)}")
        begin, end = _begin_end(padding)
        key = (
            c_integer(in_channels, "in_channels"), c_integer(out_channels, "out_channels"),
            _pair(kernel, "kernel_size"), _pair(stride, "stride"), begin, end, _pair(dilation, "dilation"),
            c_integer(groups, "groups"), _PADDING_MODES[padding_mode], transposed,
            _pair(output_padding, "output_padding"),
        )
        operation = self._operations.get(key)
        if operation is None:
            desc = _abi.initialised(_abi.Conv2dDesc)
            (
                desc.in_channels, desc.out_channels, desc.kernel[:], desc.stride[:], desc.padding_begin[:],
                desc.padding_end[:], desc.dilation[:], desc.groups, desc.padding_mode, desc.transposed,
                desc.output_padding[:],
            ) = key
            operation = Handle(
                _abi.lib.grilly_conv2d_create, context, byref(desc), destroy=_abi.lib.grilly_conv2d_destroy
            )
            if len(self._operations) >= _MOST_OPERATIONS:
                self._operations = {}
            self._operations[key] = operation
        return operation

    def empty(self, shape: tuple[int, ...], like: Operand) -> Operand:
        """A result, where `like` is."""
        if isinstance(like, Tensor):
            return empty(shape, like.compute)
        return result_array(self._context.value, shape) if self._pins else np.empty(shape, np.float32)

    @staticmethod
    def _output_shape(operation: Handle, input_shape: Sequence[int]) -> tuple[int, ...]:
        output = (c_int64 * 4)()
        check(_abi.lib.grilly_conv2d_output_shape(operation.value, (c_int64 * 4)(*input_shape), output))
        return tuple(output)


class _Forward:
    """A convolution of known shapes: its operation, and the C structures of its calls."""

    def __init__(self, operation: Handle, conv: Convolution) -> None:
        self._operation = operation
        self._conv = conv
        #: Structures that no thread uses at the moment.
        self._spare: list[tuple[Any, list[_abi.Tensor]]] = []

    def run(self, *operands: Optional[Operand]) -> None:
        """Input, weight, bias and result, in the shapes that the user knows."""
        try:
            reference, views = self._spare.pop()
        except IndexError:
            reference, views = self._structures()
        for view, operand in zip(views, operands):
            if isinstance(operand, np.ndarray):
                if not operand.flags.c_contiguous:
                    return self._run_strided(*operands)
                view.data, view.buffer = address(operand), None
            elif operand is not None:
                view.data, view.buffer = None, operand._memory.handle.value
        check(_abi.lib.grilly_conv2d_forward(self._operation.value, reference))
        self._spare.append((reference, views))

    def _structures(self) -> tuple[Any, list[_abi.Tensor]]:
        conv = self._conv
        x, w, y = map(conv.image_shape, (conv.x_shape, conv.w_shape, conv.y_shape))
        views = [row_major_view(shape) for shape in (x, w, y[1:2], y)]
        io = _abi.initialised(_abi.Conv2dIo)
        for name, view in zip(("x", "weight", "bias", "y"), views):
            view.bytes = math.prod(view.shape[:view.rank]) * 4
            setattr(io, name, pointer(view))
        if not conv.has_bias:
            io.bias = None
        return byref(io), views

    def _run_strided(self, x: Operand, w: Operand, b: Optional[Operand], y: Operand) -> None:
        images = self._conv.images
        _run(_abi.lib.grilly_conv2d_forward, self._operation, x=images(x), weight=images(w), bias=b, y=images(y))


def _run(function: Any, operation: Handle, **arrays: Optional[Operand]) -> None:
    check(function(operation.value, byref(_io(**arrays))))


def _submit(function: Any, operation: Handle, result: Result, **tensors: Optional[Operand]) -> Ticket[Result]:
    io = _io(**tensors)
    return Ticket(Handle(function, operation.value, byref(io), destroy=_abi.lib.grilly_ticket_destroy), result)


def _io(**arrays: Optional[Operand]) -> _abi.Conv2dIo:
    io = _abi.initialised(_abi.Conv2dIo)
    for name, array in arrays.items():
        if array is not None:
            setattr(io, name, pointer(c_view(array)))
    return io


def _array(value: Any, name: str, axes: int = 4) -> Operand:
    array = as_operand(value, name)
    if array.ndim != axes:
        raise ValueError(f"{name} has {array.ndim} dimensions, shape {list(array.shape)}, expected {axes}")
    return array


def _check_tensors(**operands: Any) -> None:
    for name, operand in operands.items():
        held = getattr(operand, "_grilly_array", operand)
        if operand is not None and not isinstance(held, Tensor):
            raise TypeError(f"{name} is a {type(held).__name__}, expected a Tensor")


def _check_out(out: Any) -> None:
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is a {type(out).__name__}, expected an ndarray")
    array = host_array(out, "out")
    if as_float32(array) is not array or not array.flags.writeable:
        raise TypeError(f"out is of dtype {array.dtype}, expected float32, writeable")


def _pair(value: Any, name: str) -> tuple[int, int]:
    height, width = (value, value) if np.ndim(value) == 0 else value
    return c_integer(height, name), c_integer(width, name)


def _begin_end(padding: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """(top, left) and (bottom, right)."""
    if np.ndim(padding) == 2:
        (top, bottom), (left, right) = padding
        return _pair((top, left), "padding"), _pair((bottom, right), "padding")
    return (_pair(padding, "padding"),) * 2
