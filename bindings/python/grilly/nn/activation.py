"""ReLU, as `torch.nn.ReLU`."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from .._arrays import as_float32
from .._grad_mode import is_grad_enabled
from .module import Module, nothing_kept


class ReLU(Module):
    """max(x, 0) of every element of a float32 array of any shape."""

    def __init__(self) -> None:
        super().__init__()
        #: Where the latest output is positive.
        self._kept: Optional[np.ndarray] = None

    def forward(self, input: Any) -> np.ndarray:
        """A new array. NaN stays NaN."""
        output = np.maximum(as_float32(input), 0)
        self._kept = output > 0 if self.training and is_grad_enabled() else None
        return output

    def backward(self, grad_output: Any) -> np.ndarray:
        """The gradient with respect to the latest forward's input: `grad_output` where that was positive, else 0.

        Raises:
            RuntimeError: before any forward, or after one that kept nothing (`eval()`, `no_grad()`).
        """
        if self._kept is None:
            raise nothing_kept(self)
        return as_float32(grad_output, "grad_output") * self._kept
