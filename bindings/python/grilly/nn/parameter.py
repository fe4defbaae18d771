"""Parameter: an array or a device tensor that a layer learns."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from .._operand import compute_of, moved
from .._tensor import Operand, Target, as_operand


class Parameter(np.lib.mixins.NDArrayOperatorsMixin):
    """A float32 ndarray or `grilly.Tensor` with a gradient. It behaves as what it holds: operators, ufuncs, methods,
    `np.asarray`; indexing if that is an ndarray.

    In-place operators (`weight -= lr * weight.grad`) edit `data`, and the layer's next call sees it.

    Args:
        data: a Tensor, or anything that `np.asarray` takes; a Tensor or a float32 ndarray is wrapped without a copy.
        requires_grad: whether `backward` of its layer computes `grad`.
    """

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        self.data = data
        self.requires_grad = requires_grad
        #: The accumulated gradient, of the same shape and kind; None before the first `backward`.
        self.grad: Any = None

    @property
    def data(self) -> Any:
        """The ndarray or Tensor itself. Assigning another replaces it."""
        return self.__dict__["data"]

    @data.setter
    def data(self, value: Any) -> None:
        self.__dict__["data"] = as_operand(value, "data")

    # Where operands are taken, a Parameter stands for what it holds.
    _grilly_array = data

    def _move(self, target: Target) -> None:
        """`Module.to` for this parameter."""
        self.data = moved(self.data, target)
        self.grad = None if self.grad is None else moved(self.grad, target)

    def _accumulate(self, grad: Operand) -> None:
        """Adds to `grad`, in place if that is where `data` is; else it moves there first."""
        target = compute_of(self.data) or "cpu"
        grad = moved(grad, target)
        if self.grad is not None:
            before = moved(self.grad, target)
            grad = np.add(before, grad, out=before)
        self.grad = grad

    def zero_grad(self) -> None:
        """Forgets the gradient: `grad` is None."""
        self.grad = None

    def requires_grad_(self, requires_grad: bool = True) -> Parameter:
        """Sets `requires_grad`, and returns itself."""
        self.requires_grad = requires_grad
        return self

    def __getstate__(self) -> dict[str, Any]:
        # A copy has learned nothing yet, as PyTorch's.
        return {**self.__dict__, "grad": None}

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> np.ndarray:
        data = np.asarray(self.data)
        array = data if dtype is None else data.astype(dtype, copy=False)
        if copy is False and array is not self.data:
            raise ValueError(f"an array of dtype {dtype} needs a copy")
        return array.copy() if copy and array is self.data else array

    # NumPy looks for these at the type; device memory has neither, which is an AttributeError.
    def __dlpack__(self, **options: Any) -> Any:
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        if out is not None:
            kwargs["out"] = tuple(_array(value) for value in out)
        result = getattr(ufunc, method)(*map(_array, inputs), **kwargs)
        return out[0] if out is not None and len(out) == 1 else result

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return function(*_arrays(args), **_arrays(kwargs))

    def __getattr__(self, name: str) -> Any:
        # What is not the parameter's own is its array's: shape, dtype, sum, reshape, ...
        if name.startswith("_") or "data" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.data, name)

    def __getitem__(self, index: Any) -> Any:
        return self.data[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self.data[index] = value

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Any:
        return iter(self.data)

    def __contains__(self, value: Any) -> bool:
        return value in self.data

    def __bool__(self) -> bool:
        return bool(self.data)

    def __float__(self) -> float:
        return float(self.data)

    def __int__(self) -> int:
        return int(self.data)

    # Parameters are told apart by identity, as PyTorch's are, though `==` compares elements.
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        grad = "" if self.requires_grad else ", requires_grad=False"
        return f"Parameter containing:\n{self.data!r}{grad}"


def _array(value: Any) -> Any:
    return value.data if isinstance(value, Parameter) else value


def _arrays(value: Any) -> Any:
    """Parameters anywhere inside arguments, replaced by their arrays."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_arrays, value))
    if isinstance(value, dict):
        return {key: _arrays(item) for key, item in value.items()}
    return _array(value)
