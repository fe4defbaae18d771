"""ReLU, as `torch.nn.ReLU`."""

from __future__ import annotations

from typing import Any, Optional

from .._grad_mode import is_grad_enabled
from .._operand import Saved
from .._tensor import Operand, Tensor
from . import functional
from .module import Module, nothing_kept


class ReLU(Module):
    """max(x, 0) of every element of a float32 array or Tensor of any shape.

    Args:
        inplace: whether the input's own memory takes the result.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace
        self._kept: Optional[Saved] = None

    def forward(self, input: Any) -> Operand:
        """A new array or Tensor, or the input with other values; NaN stays NaN. In training mode, and outside
        `no_grad()`, a Tensor is also kept for `backward`, which then refuses to run if it was changed."""
        output = functional.relu(input, self.inplace)
        self._kept = None
        if self.training and is_grad_enabled():
            # The caller may edit an ndarray; what is kept of it is where it lets gradients through.
            self._kept = Saved(output if isinstance(output, Tensor) else ~(output <= 0))
        return output

    def backward(self, grad_output: Any) -> Operand:
        """The gradient with respect to the latest forward's input: `grad_output` where that was positive, else 0.

        Raises:
            RuntimeError: before any forward, after one that kept nothing (`eval()`, `no_grad()`), or for a
                `grad_output` of another shape than the output.
        """
        if self._kept is None:
            raise nothing_kept(self)
        return functional.relu_backward(grad_output, self._kept.get())

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""
