"""One convolution over one or two spatial dimensions: PyTorch's arguments and errors, lifted to the backend's NCHW.

Layers and functions differ only in who owns the parameters; what they compute and check is here, once.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, Optional, Sequence, Union

import numpy as np

from .._tensor import Operand
from ..backend.conv import VulkanConv

Size = Union[int, Sequence[int]]
Padding = Union[str, int, Sequence[int], Sequence[Sequence[int]]]


@dataclass(frozen=True)
class Convolution:
    """A convolution of checked sizes. `x_shape` and `w_shape` are as the user gave them, the rest is 2-D."""

    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    groups: int

    @property
    def dims(self) -> int:
        return len(self.w_shape) - 2

    @property
    def y_shape(self) -> tuple[int, ...]:
        spatial = tuple(
            (size + sum(padding) - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, padding, dilation in zip(
                self.x_shape[-self.dims:], self.w_shape[2:], self.stride[-self.dims:], self.padding[-self.dims:],
                self.dilation[-self.dims:],
            )
        )
        return (*self.x_shape[:-self.dims - 1], self.w_shape[0], *spatial)

    def forward(
        self, backend: VulkanConv, x: Operand, w: Operand, b: Optional[Operand], out: Optional[np.ndarray] = None
    ) -> Operand:
        """`x` is what `images` made of the input, or an upload of that; the output is in `out`, or where `x` is."""
        y = backend.conv2d(x, self.images(w), b, **self._options(), out=None if out is None else self.images(out))
        return y.reshape(self.y_shape)

    def backward(
        self, backend: VulkanConv, dy: Operand, w: Operand, x: Optional[Operand], has_bias: bool
    ) -> tuple[Operand, Optional[Operand], Optional[Operand]]:
        """Gradients with respect to input, weight (None if `x` is; else `x` is as for `forward`) and bias."""
        x_shape = (self.x_shape[0] if self._batched else 1, self.w_shape[1] * self.groups, *self._plane)
        dx, dw, db = backend.conv2d_backward(
            self.images(dy), self.images(w), x_shape, x, **self._options(), has_bias=has_bias
        )
        return dx.reshape(self.x_shape), None if dw is None else dw.reshape(self.w_shape), db

    def images(self, array: Operand) -> Operand:
        """A view of an input, weight or output gradient as NCHW: batch 1 if it has none, height 1 if it is 1-D."""
        batch = (1,) * (self.dims + 2 - array.ndim)
        height = (1,) * (2 - self.dims)
        return array.reshape(batch + array.shape[:-self.dims] + height + array.shape[-self.dims:])

    @property
    def _batched(self) -> bool:
        return len(self.x_shape) == self.dims + 2

    @property
    def _plane(self) -> tuple[int, ...]:
        return (1,) * (2 - self.dims) + self.x_shape[-self.dims:]

    def _options(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}


def convolution(
    dims: int, x_shape: tuple[int, ...], w_shape: tuple[int, ...], b_shape: Optional[tuple[int, ...]],
    stride: Size, padding: Padding, dilation: Size, groups: int,
) -> Convolution:
    """Checks everything that PyTorch checks, in its order and words.

    Raises:
        RuntimeError: naming what is wrong.
        TypeError: for sizes that are no integers.
    """
    if len(x_shape) not in (dims + 1, dims + 2):
        raise RuntimeError(
            f"Expected {dims + 1}D (unbatched) or {dims + 2}D (batched) input to conv{dims}d, "
            f"but got input of size: {list(x_shape)}"
        )
    batch = x_shape if len(x_shape) == dims + 2 else (1, *x_shape)
    stride = _expand("stride", stride, dims)
    dilation = _expand("dilation", dilation, dims)
    padding = _padding(padding, dims, w_shape, stride, dilation)
    groups = operator.index(groups)
    _check_options(stride, padding, dilation, groups)
    _check_shapes(batch, w_shape, b_shape, groups)
    _check_sizes(batch, w_shape, padding, dilation)
    ones, zeros = (1,) * (2 - dims), ((0, 0),) * (2 - dims)
    return Convolution(x_shape, w_shape, ones + stride, zeros + padding, ones + dilation, groups)


def _expand(name: str, value: Size, dims: int) -> tuple[int, ...]:
    values = tuple(operator.index(item) for item in (value if np.ndim(value) else (value,)))
    if len(values) not in (1, dims):
        raise RuntimeError(
            f"expected {name} to be a single integer value or a list of {dims} values to match the convolution "
            f"dimensions, but got {name}={list(values)}"
        )
    return values * dims if len(values) == 1 else values


def _padding(
    padding: Padding, dims: int, w_shape: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Padding as (begin, end) of each dimension."""
    if isinstance(padding, str):
        if padding == "valid":
            return ((0, 0),) * dims
        if padding != "same":
            raise RuntimeError(f"Invalid padding string: '{padding}'")
        if any(step != 1 for step in stride):
            raise RuntimeError("padding='same' is not supported for strided convolutions")
        totals = [step * (kernel - 1) for step, kernel in zip(dilation, w_shape[2:])]
        return tuple((total // 2, total - total // 2) for total in totals)
    if np.ndim(padding) == 2:
        pairs = tuple((operator.index(begin), operator.index(end)) for begin, end in padding)
        if len(pairs) != dims:
            raise RuntimeError(f"expected padding to have {dims} (begin, end) pairs, but got padding={list(pairs)}")
        return pairs
    return tuple((size, size) for size in _expand("padding", padding, dims))


def _check_options(stride: tuple, padding: tuple, dilation: tuple, groups: int) -> None:
    if any(min(pair) < 0 for pair in padding):
        raise RuntimeError("negative padding is not supported")
    if min(stride) <= 0:
        raise RuntimeError("non-positive stride is not supported")
    if min(dilation) < 0:
        raise RuntimeError("dilation should be greater than zero")
    if min(dilation) == 0:
        raise RuntimeError("non-positive dilation is not supported")
    if groups <= 0:
        raise RuntimeError(f"expected groups to be greater than 0, but got groups={groups}")


def _check_shapes(batch: tuple, w_shape: tuple, b_shape: Optional[tuple], groups: int) -> None:
    weight = list(w_shape)
    if len(w_shape) != len(batch):
        raise RuntimeError(
            f"Expected {len(w_shape)}-dimensional input for {len(w_shape)}-dimensional weight {weight}, "
            f"but got {len(batch)}-dimensional input of size {list(batch)} instead"
        )
    if w_shape[0] < groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0, "
            f"but got weight of size {weight} instead"
        )
    if w_shape[0] % groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, "
            f"but got weight of size [{weight}] instead"
        )
    if batch[1] != w_shape[1] * groups:
        raise RuntimeError(
            f"Given groups={groups}, weight of size {weight}, expected input{list(batch)} to have "
            f"{w_shape[1] * groups} channels, but got {batch[1]} channels instead"
        )
    if b_shape is not None and b_shape != w_shape[:1]:
        raise RuntimeError(
            f"Given weight of size {weight}, expected bias to be 1-dimensional with {w_shape[0]} elements, "
            f"but got bias of size {list(b_shape)} instead"
        )


def _check_sizes(batch: tuple, w_shape: tuple, padding: tuple, dilation: tuple) -> None:
    padded = [size + sum(pair) for size, pair in zip(batch[2:], padding)]
    kernel = [step * (size - 1) + 1 for step, size in zip(dilation, w_shape[2:])]
    if any(span > size for span, size in zip(kernel, padded)):
        sizes, spans = (" x ".join(map(str, values)) for values in (padded, kernel))
        raise RuntimeError(
            f"Calculated padded input size per channel: ({sizes}). Kernel size: ({spans}). "
            "Kernel size can't be greater than actual input size"
        )
    if 0 in batch[2:]:
        raise RuntimeError(
            f"Only zero batch or zero channel inputs are supported, but got input shape: {list(batch)}"
        )
