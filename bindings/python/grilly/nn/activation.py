"""ReLU, as `torch.nn.ReLU`."""

from __future__ import annotations

from typing import Any, Optional

from .._grad_mode import is_grad_enabled
from .._tensor import Operand, Saved, Tensor
from . import functional
from .module import Module, nothing_kept


class ReLU(Module):
    """max(x, 0) of every element of a float32 array or Tensor of any shape."""

    def __init__(self) -> None:
        super().__init__()
        #: The latest output.
        self._kept: Optional[Saved] = None

    def forward(self, input: Any) -> Operand:
        """A new array, or a Tensor if the input is one. NaN stays NaN."""
        output = functional.relu(input)
        self._kept = None
        if self.training and is_grad_enabled():
            self._kept = Saved(output if isinstance(output, Tensor) else output.copy())
        return output

    def backward(self, grad_output: Any) -> Operand:
        """The gradient with respect to the latest forward's input: `grad_output` where that was positive (or
        NaN), else 0.

        Raises:
            RuntimeError: before any forward, after one that kept nothing (`eval()`, `no_grad()`), for a `grad_output`
                of another shape, or if the output was a Tensor and has changed.
        """
        if self._kept is None:
            raise nothing_kept(self)
        return functional.relu_backward(grad_output, self._kept.get())
