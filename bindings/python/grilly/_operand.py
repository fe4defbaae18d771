"""What layers need of operands, each an ndarray or a Tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from . import _abi
from ._arrays import host_view
from ._tensor import MOVES, Operand, Target, Tensor, chosen, elementwise, empty, tensor

if TYPE_CHECKING:
    from ._context import Compute


class Saved:
    """What `backward` will need: an ndarray that nobody else has, or a Tensor that its user should not change."""

    def __init__(self, operand: Operand) -> None:
        self._operand = operand
        self._version = operand.version if isinstance(operand, Tensor) else None

    def get(self) -> Operand:
        """The array.

        Raises:
            RuntimeError: if it is a Tensor and has changed since.
        """
        if isinstance(self._operand, Tensor) and self._operand.version != self._version:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: "
                f"a Tensor of shape {list(self._operand.shape)}"
            )
        return self._operand


def compute_of(*operands: Optional[Operand]) -> Optional[Compute]:
    """Where the first Tensor is; None if there are only arrays."""
    for operand in operands:
        if isinstance(operand, Tensor):
            return operand.compute
    return None


def moved(value: Operand, target: Target) -> Operand:
    """An array or a Tensor at "cpu" (host memory), "vulkan" (the device that layers share) or a Compute; itself if it
    is there already."""
    if isinstance(value, Tensor):
        return value.to(target)
    return value if target == "cpu" else tensor(value, chosen(target, MOVES))


def relu_backward(dy: Operand, y: Operand) -> Tensor:
    """0 where `y <= 0`, else `dy`; one of them at least is a Tensor."""
    result = empty(y.shape, compute_of(dy, y))
    return elementwise(_abi.OP_RELU_BACKWARD, result._operand(dy), result._operand(y), result)


def c_view(operand: Operand) -> _abi.Tensor:
    """The C view of an array, which must outlive it."""
    return operand._view() if isinstance(operand, Tensor) else host_view(operand)
