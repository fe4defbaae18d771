"""One convolution over one or two spatial dimensions: PyTorch's arguments and errors, lifted to the backend's NCHW.

Layers and functions differ only in who owns the parameters; what they compute and check is here, once.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Optional, Sequence, Union

from .._tensor import Operand
from ..backend.conv import VulkanConv
from . import _checks
from ._checks import Pairs, Shape

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Size = Union[int, Sequence[int]]
Padding = Union[str, int, Sequence[int], Sequence[Sequence[int]]]


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution of checked sizes. Shapes are as the user gave them, `options` as the backend takes them."""

    dims: int
    x_shape: Shape
    w_shape: Shape
    y_shape: Shape
    has_bias: bool
    options: dict[str, Any]

    def forward(
        self, backend: VulkanConv, x: Operand, w: Operand, b: Optional[Operand], like: Optional[Operand] = None
    ) -> Operand:
        """`x` is the input or an upload of it; the output is where `like` is, or where `x` is."""
        y = backend.empty(self.y_shape, x if like is None else like)
        backend.forward(self, x, w, b, y)
        return y

    def backward(
        self, backend: VulkanConv, dy: Operand, w: Operand, x: Optional[Operand], has_bias: bool
    ) -> tuple[Operand, Operand, Operand]:
        """Gradients with respect to input, weight (None if `x` is; else `x` is as for `forward`) and bias."""
        self.check_grad_output(dy.shape)
        dx, dw, db = backend.conv2d_backward(
            self.images(dy), self.images(w), self.image_shape(self.x_shape), x, **self.options, has_bias=has_bias
        )
        return dx.reshape(self.x_shape), None if dw is None else dw.reshape(self.w_shape), db

    def backward_weight(
        self, backend: VulkanConv, dy: Operand, x: Operand, has_bias: bool
    ) -> tuple[Operand, Operand]:
        """The gradients with respect to weight and bias alone."""
        self.check_grad_output(dy.shape)
        kernel = self.image_shape(self.w_shape)[2:]
        dw, db = backend.conv2d_backward_weight(
            self.images(dy), self.images(x), kernel, **self.options, has_bias=has_bias
        )
        return dw.reshape(self.w_shape), db

    def check_grad_output(self, shape: Shape) -> None:
        """Raises RuntimeError, naming both shapes, unless an output gradient has the output's shape."""
        if shape != self.y_shape:
            raise RuntimeError(
                f"grad_output has shape {list(shape)}, expected the output's shape {list(self.y_shape)}"
            )

    def images(self, array: Operand) -> Operand:
        """A view of an input, weight or output gradient as NCHW: batch 1 if it has none, height 1 if it is 1-D."""
        return array.reshape(self.image_shape(array.shape))

    def image_shape(self, shape: Shape) -> Shape:
        """The shape that `images` gives."""
        outer = (1,) * (self.dims + 2 - len(shape)) + shape[:-self.dims]
        return outer + (1,) * (2 - self.dims) + shape[-self.dims:]


def convolution(
    dims: int, x_shape: Shape, w_shape: Shape, b_shape: Optional[Shape],
    stride: Size, padding: Padding, dilation: Size, groups: int,
    padding_mode: str = "zeros", transposed: bool = False, output_padding: Size = 0,
) -> Convolution:
    """Checks everything that PyTorch checks, in its order and words.

    Raises:
        RuntimeError: naming what is wrong.
        NotImplementedError: for an input of other dimensions, if there is a padding mode.
        TypeError: for sizes that are no integers.
    """
    if transposed and isinstance(padding, str):
        raise TypeError(f"conv_transpose{dims}d(): argument 'padding' must be tuple of ints, not str")
    # What is no integer is refused before anything else, as where PyTorch reads its arguments.
    return _checked(
        dims, x_shape, w_shape, b_shape, integers(stride, dims),
        padding if isinstance(padding, str) else integer_padding(padding, dims),
        integers(dilation, dims), operator.index(groups), padding_mode, transposed, integers(output_padding, dims),
    )


def known_convolution(*arguments: Any) -> Convolution:
    """As `convolution`, by a single look where the same arguments came before: for those of a layer, which were integers
    when it was made."""
    try:
        return _known(*arguments)
    except TypeError:
        # A list is nothing to look up; for a size that is no integer this raises once more.
        return convolution(*arguments)


_known = lru_cache(maxsize=1024)(convolution)


@lru_cache(maxsize=1024)  # Layers come with the same sizes again and again.
def _checked(
    dims: int, x_shape: Shape, w_shape: Shape, b_shape: Optional[Shape],
    stride: Shape, padding: Union[str, tuple], dilation: Shape, groups: int,
    padding_mode: str, transposed: bool, output_padding: Shape,
) -> Convolution:
    batch = _batch(dims, x_shape, padding_mode, transposed)
    _checks.weight(w_shape, groups, padding)
    axes = len(w_shape) - 2
    if padding == "same":
        _checks.same(batch, w_shape, stride, dilation)
    stride = _expand("stride", stride, axes)
    if not isinstance(padding, str):
        padding = begin_end(_expand("padding", padding, axes))
    dilation = _expand("dilation", dilation, axes)
    output_padding = _expand("output_padding", output_padding, axes)
    pairs = _named_padding(padding, w_shape[2:], dilation) if isinstance(padding, str) else padding
    _checks.signs(stride, pairs, dilation, output_padding)
    _checks.dimensions(batch, w_shape)
    _checks.mode(padding_mode, x_shape, pairs)
    # Of these, PyTorch adds some in a pass of its own, and the convolution after it speaks of a padded input.
    if padding_mode != "zeros":
        before = pairs
    elif padding == "same":
        before = tuple((0, end - begin) for begin, end in pairs)
    else:
        before = ((0, 0),) * dims
    _checks.channels((*batch[:2], *_padded(batch[2:], before)), w_shape, b_shape, groups, transposed)
    padded, spans = _padded(batch[2:], pairs), _spans(w_shape[2:], dilation)
    if not transposed:
        _checks.kernel(padded, spans)

    # From here on PyTorch sees two dimensions, and so do its messages.
    ones, zeros = (1,) * (2 - dims), (0,) * (2 - dims)
    options: dict[str, Any] = {
        "stride": ones + stride, "padding": tuple(zip(zeros, zeros)) + pairs, "dilation": ones + dilation,
        "groups": groups, "padding_mode": padding_mode, "transposed": transposed,
        "output_padding": zeros + output_padding,
    }
    size = ones + batch[2:]
    _checks.not_empty((*batch[:2], *size))
    _checks.dilation(options["dilation"], transposed)
    if transposed:
        _checks.output_padding(options["output_padding"], options["stride"], options["dilation"])
        channels, y_size = w_shape[1] * groups, transposed_size(
            batch[2:], w_shape[2:], stride, pairs, dilation, output_padding
        )
        _checks.output(size, ones + y_size)
    else:
        channels, y_size = w_shape[0], tuple((n - span) // step + 1 for n, span, step in zip(padded, spans, stride))
    y_shape = (*x_shape[:-dims - 1], channels, *y_size)
    return Convolution(dims, x_shape, w_shape, y_shape, b_shape is not None, options)


def _batch(dims: int, x_shape: Shape, padding_mode: str, transposed: bool) -> Shape:
    """The input's shape with a batch dimension."""
    _checks.input(dims, x_shape, padding_mode, transposed)
    return x_shape if len(x_shape) == dims + 2 else (1, *x_shape)


def is_list(value: Any) -> TypeIs[Sequence[Any]]:
    """Whether a size is a list, a tuple or an array of sizes."""
    return hasattr(value, "__iter__") and not isinstance(value, str)


def integers(size: Size, dims: int) -> Shape:
    """A list as it is, and an integer `dims` times."""
    return tuple(map(operator.index, size)) if is_list(size) else (operator.index(size),) * dims


def integer_padding(padding: Any, dims: int) -> tuple:
    """Begin and end apart as pairs; otherwise as `integers` has it."""
    return begin_end(padding) if is_list(padding) and any(map(is_list, padding)) else integers(padding, dims)


def _expand(name: str, values: tuple, axes: int) -> tuple:
    """One value for each axis; a list of one has the same for all."""
    _checks.count(name, values, axes)
    return values * axes if len(values) == 1 else values


def _named_padding(name: str, kernel: Shape, dilation: Shape) -> Pairs:
    """Of an odd number that keeps the size, the end gets one more."""
    totals = [span - 1 if name == "same" else 0 for span in _spans(kernel, dilation)]
    return tuple((total // 2, total - total // 2) for total in totals)


def begin_end(padding: Sequence[Any]) -> Pairs:
    """Padding of each dimension, at its begin and end alike or apart, as pairs."""
    pairs = (item if is_list(item) else (item, item) for item in padding)
    return tuple((operator.index(begin), operator.index(end)) for begin, end in pairs)


def _padded(sizes: Shape, padding: Pairs) -> Shape:
    return tuple(size + begin + end for size, (begin, end) in zip(sizes, padding))


def _spans(kernel: Shape, dilation: Shape) -> Shape:
    """How far a dilated kernel reaches."""
    return tuple(step * (size - 1) + 1 for size, step in zip(kernel, dilation))


def transposed_size(
    sizes: Shape, kernel: Shape, stride: Shape, padding: Pairs, dilation: Shape, output_padding: Shape
) -> Shape:
    """The size that a transposed convolution gives, which may be less than 1."""
    return tuple(
        (size - 1) * step - begin - end + span + extra
        for size, step, (begin, end), span, extra in zip(
            sizes, stride, padding, _spans(kernel, dilation), output_padding
        )
    )
