"""What PyTorch refuses, in its words. Each function raises, or returns nothing.

Shapes are those of a batch, `[N, C, ...]`, and of a weight. Two-dimensional sizes are (height, width).
"""

from __future__ import annotations

from typing import Optional

Shape = tuple[int, ...]
#: (begin, end) of each dimension.
Pairs = tuple[tuple[int, int], ...]


PADDING_NAMES = ("same", "valid")
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def layer_channels(in_channels: int, out_channels: int, groups: int) -> None:
    if groups <= 0:
        raise ValueError("groups must be a positive integer")
    for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
        if channels % groups:
            raise ValueError(f"{name} must be divisible by groups")


def layer_padding(padding: object, mode: str, stride: Shape) -> None:
    if isinstance(padding, str):
        if padding not in PADDING_NAMES:
            raise ValueError(f"Invalid padding string {padding!r}, should be one of {set(PADDING_NAMES)}")
        if padding == "same" and any(step != 1 for step in stride):
            raise ValueError("padding='same' is not supported for strided convolutions")
    if mode not in PADDING_MODES:
        raise ValueError(f"padding_mode must be one of {set(PADDING_MODES)}, but got padding_mode={mode!r}")


def input(dims: int, shape: Shape, padding_mode: str, transposed: bool) -> None:
    """An input, with or without a batch dimension, has channels and `dims` more."""
    if len(shape) in (dims + 1, dims + 2):
        return
    if padding_mode != "zeros":
        raise NotImplementedError(f"Padding size {2 * dims} is not supported for {len(shape)}D input tensor.")
    raise RuntimeError(
        f"Expected {dims + 1}D (unbatched) or {dims + 2}D (batched) input to "
        f"conv{'_transpose' * transposed}{dims}d, but got input of size: {list(shape)}"
    )


def weight(shape: Shape, groups: int, padding: object) -> None:
    if isinstance(padding, str) and padding not in PADDING_NAMES:
        raise RuntimeError(f"Invalid padding string: '{padding}'")
    if len(shape) < 3:
        raise RuntimeError("weight should have at least three dimensions")
    if groups <= 0:
        raise RuntimeError("non-positive groups is not supported")


def same(batch: Shape, w_shape: Shape, stride: Shape, dilation: Shape) -> None:
    """What padding="same" asks for."""
    dimensions(batch, w_shape)
    axes = len(w_shape) - 2
    for name, values in (("stride", stride), ("dilation", dilation)):
        if len(values) not in (1, axes):
            raise RuntimeError(f"{name} cannot broadcast to {axes} dimensions")
    if any(step != 1 for step in stride):
        raise RuntimeError("padding='same' is not supported for strided convolutions")


def count(name: str, values: tuple, axes: int) -> None:
    if len(values) not in (1, axes):
        raise RuntimeError(
            f"expected {name} to be a single integer value or a list of {axes} values to match the convolution "
            f"dimensions, but got {name}={list(values)}"
        )


def signs(stride: Shape, padding: Pairs, dilation: Shape, output_padding: Shape) -> None:
    if any(min(pair) < 0 for pair in padding):
        raise RuntimeError("negative padding is not supported")
    if min(output_padding) < 0:
        raise RuntimeError("negative output_padding is not supported")
    if min(stride) <= 0:
        raise RuntimeError("non-positive stride is not supported")
    if min(dilation) < 0:
        raise RuntimeError("dilation should be greater than zero")


def dimensions(batch: Shape, w_shape: Shape) -> None:
    if len(w_shape) != len(batch):
        raise RuntimeError(
            f"Expected {len(w_shape)}-dimensional input for {len(w_shape)}-dimensional weight {list(w_shape)}, "
            f"but got {len(batch)}-dimensional input of size {list(batch)} instead"
        )


def mode(mode: str, shape: Shape, padding: Pairs) -> None:
    """What padding with values of the input asks of it, with or without a batch dimension. The last dimension comes
    first, as in PyTorch."""
    first = len(shape) - len(padding)
    if mode in ("reflect", "replicate") and 0 in shape[first - 1:]:
        raise RuntimeError(
            "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions for "
            f"input, but got: {list(shape)}"
        )
    for axis in reversed(range(first, len(shape))):
        pair = padding[axis - first]
        if mode == "reflect" and max(pair) >= shape[axis]:
            raise RuntimeError(
                f"Argument #{4 + 2 * (len(shape) - 1 - axis)}: Padding size should be less than the corresponding "
                f"input dimension, but got: padding {pair} at dimension {axis} of input {list(shape)}"
            )
        if mode == "circular" and max(pair) > shape[axis]:
            raise RuntimeError("Padding value causes wrapping around more than once.")


def channels(batch: Shape, w_shape: Shape, b_shape: Optional[Shape], groups: int, transposed: bool) -> None:
    weight = list(w_shape)
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
    channels, outputs = w_shape[1] * groups, w_shape[0]
    given = f"groups={groups}, weight"
    if transposed:
        channels, outputs, given = outputs, channels, "transposed=1, weight"
    if batch[1] != channels:
        raise RuntimeError(
            f"Given {given} of size {weight}, expected input{list(batch)} to have {channels} channels, "
            f"but got {batch[1]} channels instead"
        )
    if b_shape is not None and b_shape != (outputs,):
        raise RuntimeError(
            f"Given {given if transposed else 'weight'} of size {weight}, expected bias to be 1-dimensional with "
            f"{outputs} elements, but got bias of size {list(b_shape)} instead"
        )


def kernel(sizes: Shape, spans: Shape) -> None:
    if any(span > size for span, size in zip(spans, sizes)):
        raise RuntimeError(
            f"Calculated padded input size per channel: ({_by(sizes)}). Kernel size: ({_by(spans)}). "
            "Kernel size can't be greater than actual input size"
        )


def not_empty(batch: Shape) -> None:
    if 0 in batch[2:]:
        raise RuntimeError(
            f"Only zero batch or zero channel inputs are supported, but got input shape: {list(batch)}"
        )


def dilation(dilation: Shape, transposed: bool) -> None:
    if min(dilation) == 0 and transposed:
        height, width = dilation
        raise RuntimeError(
            "dilation should be greater than zero, but got "
            f"dilation_height: {height}, dilation_width: {width}"
        )
    if min(dilation) == 0:
        raise RuntimeError("non-positive dilation is not supported")


def output_padding(output_padding: Shape, stride: Shape, dilation: Shape) -> None:
    if any(extra >= max(sizes) for extra, *sizes in zip(output_padding, stride, dilation)):
        named = {"output_padding": output_padding, "stride": stride, "dilation": dilation}
        raise RuntimeError(
            "output padding must be smaller than either stride or dilation, but got " + " ".join(
                f"{name}_height: {height} {name}_width: {width}" for name, (height, width) in named.items()
            )
        )


def output(sizes: Shape, outputs: Shape) -> None:
    if min(outputs) < 1:
        raise RuntimeError(
            f"Given input size per channel: ({_by(sizes)}). Calculated output size per channel: ({_by(outputs)}). "
            "Output size is too small"
        )


def _by(sizes: Shape) -> str:
    return " x ".join(map(str, sizes))
