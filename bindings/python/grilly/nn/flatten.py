"""Flatten, as `torch.nn.Flatten`."""

from __future__ import annotations

import math
from typing import Any, Optional

from .._grad_mode import is_grad_enabled
from .._tensor import Operand, as_operand
from .module import Module, nothing_kept


class Flatten(Module):
    """Makes one dimension of those from `start_dim` to `end_dim`, both included; negative ones count from the end."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim
        #: The latest input's shape.
        self._kept: Optional[tuple[int, ...]] = None

    def forward(self, input: Any) -> Operand:
        """The same elements in another shape, where possible without a copy.

        Raises:
            IndexError: if the input lacks one of the dimensions.
            RuntimeError: if they are in the wrong order.
        """
        input = as_operand(input)
        start, end = (_axis(dim, max(input.ndim, 1)) for dim in (self.start_dim, self.end_dim))
        if start > end:
            raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
        self._kept = tuple(input.shape) if self.training and is_grad_enabled() else None
        merged = math.prod(input.shape[start:end + 1])
        return input.reshape((*input.shape[:start], merged, *input.shape[end + 1:]))

    def backward(self, grad_output: Any) -> Operand:
        """The gradient in the latest forward's input shape.

        Raises:
            RuntimeError: before any forward, or after one that kept nothing (`eval()`, `no_grad()`).
            ValueError: for another number of elements.
        """
        if self._kept is None:
            raise nothing_kept(self)
        return as_operand(grad_output, "grad_output").reshape(self._kept)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


def _axis(dim: int, axes: int) -> int:
    if not -axes <= dim < axes:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-axes}, {axes - 1}], but got {dim})")
    return dim % axes
