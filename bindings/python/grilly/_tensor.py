"""Tensor: a float32 array in a device's memory."""

from __future__ import annotations

import operator
from ctypes import byref
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np

from . import _abi
from ._arrays import address, as_float32, row_major_view
from ._errors import check
from ._handle import Handle

if TYPE_CHECKING:
    from ._context import Compute

#: What `to` and the constructors take: "vulkan" or None is the Compute that layers share, "cpu" is host memory.
Target = Union["Compute", str, None]
Shape = Union[int, "tuple[int, ...]"]

#: The targets of what may also move to host memory, as an error names them.
MOVES = "'cpu', 'vulkan' or a grilly.Compute"

#: The ufuncs that run on the device.
_OPERATIONS = {
    np.add: _abi.OP_ADD,
    np.subtract: _abi.OP_SUBTRACT,
    np.multiply: _abi.OP_MULTIPLY,
    np.divide: _abi.OP_DIVIDE,
    np.maximum: _abi.OP_MAXIMUM,
    np.minimum: _abi.OP_MINIMUM,
    np.negative: _abi.OP_MULTIPLY,
}

#: The functions that need no values.
_ABOUT_SHAPES = (np.shape, np.ndim, np.size, np.iscomplexobj)

_SUPPORTED = (
    "a grilly.Tensor computes np.add, subtract, multiply, divide, maximum, minimum and negative on its device, with "
    "out= and no other option; take .numpy() for anything else"
)


class _Memory:
    """A buffer, which tensors of several shapes may share, and how often its contents were changed."""

    __slots__ = ("handle", "version")

    def __init__(self, compute: Compute, elements: int, create: Any) -> None:
        bytes_ = max(elements, 1) * _DTYPE.itemsize
        self.handle = Handle(create, compute._context.value, bytes_, destroy=_abi.lib.grilly_buffer_destroy)
        self.version = 0


_DTYPE = np.dtype(np.float32)


class Tensor(np.lib.mixins.NDArrayOperatorsMixin):
    """A float32 array of up to 4 axes, in row-major order, in the memory of a Compute's device.

    Made by `grilly.tensor`, `grilly.empty`, `grilly.zeros`, or by a layer that was given one. Operators and NumPy's
    `add`, `subtract`, `multiply`, `divide`, `maximum`, `minimum` and `negative` (also with `out=`) run on the device,
    broadcast, and take other Tensors, real numbers and arrays, which are uploaded as float32; results are Tensors.
    Everything else that NumPy computes raises TypeError: nothing is downloaded by accident. `numpy()` and `np.asarray`
    download.

    Memory returns to the Compute's pool when the last tensor that views it is gone. Any thread may hold a Tensor; while
    one thread changes its contents, no other may use them.
    """

    def __init__(self, compute: Compute, memory: _Memory, shape: tuple[int, ...]) -> None:
        self._compute = compute
        self._memory = memory
        self._shape = shape

    @property
    def compute(self) -> Compute:
        """The Compute whose memory it is in."""
        return self._compute

    @property
    def device(self) -> Any:
        """The `grilly.Device` it is on."""
        return self._compute.device

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each axis, in elements."""
        return self._shape

    @property
    def dtype(self) -> np.dtype:
        """float32, always."""
        return _DTYPE

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self._shape)

    @property
    def size(self) -> int:
        """Elements."""
        return _elements(self._shape)

    @property
    def nbytes(self) -> int:
        """What the elements take, in bytes."""
        return self.size * _DTYPE.itemsize

    @property
    def version(self) -> int:
        """How often the contents of its memory were changed."""
        return self._memory.version

    def numpy(self) -> np.ndarray:
        """A copy in host memory."""
        array = np.empty(self._shape, _DTYPE)
        check(_abi.lib.grilly_buffer_read(self._memory.handle.value, 0, address(array), array.nbytes))
        return array

    def item(self) -> float:
        """The value of a Tensor of one element.

        Raises:
            ValueError: if it has another number of elements.
        """
        if self.size != 1:
            raise ValueError(f"a Tensor of shape {list(self._shape)} has no single value")
        return self.numpy().item()

    def to(self, target: Target) -> Union[Tensor, np.ndarray]:
        """This Tensor elsewhere: "cpu" is host memory, an ndarray as `numpy()` gives it; "vulkan" the device that
        layers share, whichever it is; or any Compute. A Tensor that is there already is returned itself."""
        if target == "cpu":
            return self.numpy()
        compute = chosen(target, MOVES)
        return self if self._compute is compute else tensor(self, compute)

    def reshape(self, *shape: Any) -> Tensor:
        """The same memory in another shape; one size may be -1.

        Raises:
            ValueError: for another number of elements, or more than 4 axes.
        """
        sizes = sizes_of(shape[0] if len(shape) == 1 else shape, inferred=True)
        known = _elements(tuple(size for size in sizes if size != -1))
        if -1 in sizes and known and self.size % known == 0:
            sizes = tuple(self.size // known if size == -1 else size for size in sizes)
        if -1 in sizes or _elements(sizes) != self.size:
            raise ValueError(f"cannot reshape a Tensor of shape {list(self._shape)} into {list(sizes)}")
        return Tensor(self._compute, self._memory, sizes)

    view = reshape

    def copy(self) -> Tensor:
        """A Tensor of the same values in memory of its own, on the same device."""
        return empty(self._shape, self._compute).copy_(self)

    def copy_(self, source: Any) -> Tensor:
        """Overwrites the values by those of an array, a number or a Tensor, also of another Compute; they broadcast."""
        source = as_operand(source, "source")
        if isinstance(source, Tensor) and source.compute is self._compute:
            return elementwise(_abi.OP_COPY, source, None, self)
        array = np.asarray(source)
        if array.shape != self._shape:
            array = np.broadcast_to(array, self._shape)
        array = np.ascontiguousarray(array)
        self._memory.version += 1
        check(_abi.lib.grilly_buffer_write(self._memory.handle.value, 0, address(array), array.nbytes))
        return self

    def fill_(self, value: float) -> Tensor:
        """Sets every element to a number."""
        return elementwise(_abi.OP_COPY, float(value), None, self)

    def zero_(self) -> Tensor:
        """Sets every element to 0."""
        return self.fill_(0.0)

    def add_(self, other: Any, alpha: float = 1.0) -> Tensor:
        """`self += alpha · other`, in one pass: an optimiser's `weight.add_(weight.grad, alpha=-rate)`."""
        return self._in_place(_abi.OP_ADD, other, alpha)

    def sub_(self, other: Any, alpha: float = 1.0) -> Tensor:
        """`self -= alpha · other`."""
        return self._in_place(_abi.OP_SUBTRACT, other, alpha)

    def mul_(self, other: Any) -> Tensor:
        """`self *= other`."""
        return self._in_place(_abi.OP_MULTIPLY, other)

    def div_(self, other: Any) -> Tensor:
        """`self /= other`."""
        return self._in_place(_abi.OP_DIVIDE, other)

    def _in_place(self, op: int, other: Any, alpha: float = 1.0) -> Tensor:
        return elementwise(op, self, self._operand(other), self, alpha)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (None,), **options: Any) -> Any:
        if any(_has_its_own_way(value) for value in (*inputs, *out)):
            return NotImplemented
        if ufunc not in _OPERATIONS or method != "__call__" or options:
            called = f"np.{ufunc.__name__}" + (f".{method}" if method != "__call__" else "")
            raise TypeError(f"{called}{f' with {list(options)}' * bool(options)} is not possible: {_SUPPORTED}")
        if ufunc is np.negative:
            inputs = (*inputs, -1.0)
        a, b = (self._operand(value) for value in inputs)
        (result,) = out
        if isinstance(a, float) and isinstance(b, float):
            raise TypeError(f"np.{ufunc.__name__} of numbers into a Tensor is not possible: {_SUPPORTED}")
        if result is None:
            result = empty(np.broadcast_shapes(_shape(a), _shape(b)), self._compute)
        elif not isinstance(result, Tensor):
            raise TypeError(f"out is a {type(result).__name__} in host memory: {_SUPPORTED}")
        return elementwise(_OPERATIONS[ufunc], a, b, result)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function in _ABOUT_SHAPES and args[0] is self:
            return function(np.broadcast_to(_DTYPE.type(0), self._shape), *args[1:], **kwargs)
        raise TypeError(f"{function.__module__}.{function.__name__} is not possible: {_SUPPORTED}")

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a Tensor's values are in device memory; an array of them is a copy")
        return self.numpy() if dtype is None else self.numpy().astype(dtype, copy=False)

    def _operand(self, value: Any) -> Union[Tensor, float]:
        """A Tensor or a number as it is; an array uploaded to this device."""
        value = as_operand(value, "an operand")
        if isinstance(value, Tensor):
            return value
        return float(value) if value.ndim == 0 else tensor(value, self._compute)

    def _view(self) -> _abi.Tensor:
        """As the library takes it; a number's shape is [1] there."""
        view = row_major_view(self._shape or (1,))
        view.buffer = self._memory.handle.value
        return view

    def __setitem__(self, index: Any, value: Any) -> None:
        if index is not Ellipsis and index != slice(None):
            raise TypeError(f"a Tensor is assigned to as a whole, t[...] = value: {_SUPPORTED}")
        self.copy_(value)

    def __len__(self) -> int:
        if not self._shape:
            raise TypeError("len() of a Tensor without axes")
        return self._shape[0]

    def __iter__(self) -> Any:
        raise TypeError(f"a Tensor cannot be iterated: {_SUPPORTED}")

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return self.item()

    # Told apart by identity, as PyTorch's are.
    __hash__ = object.__hash__

    def __copy__(self) -> Tensor:
        return self.copy()

    def __deepcopy__(self, memo: dict) -> Tensor:
        return self.copy()

    def __reduce__(self) -> tuple:
        # A device cannot travel: a pickled Tensor comes back on the one that layers share there.
        return tensor, (self.numpy(),)

    def __repr__(self) -> str:
        values = np.array2string(self.numpy(), separator=", ", prefix="tensor(")
        return f"tensor({values}, device={self.device.name!r})"


#: What layers compute with: an ndarray or a Tensor. Which one a result is follows from the arguments' values, so to a
#: type checker it is Any.
Operand = Any


def tensor(data: Any, compute: Target = None) -> Tensor:
    """Copies an array to a device.

    Args:
        data: anything that layers take, of up to 4 axes; real numbers become float32.
        compute: a Compute; None or "vulkan" is the one that layers share.

    Raises:
        GrillyError: if the device has no memory for it.
    """
    operand = as_operand(data, "data")
    return empty(operand.shape, compute).copy_(operand)


def empty(shape: Shape, compute: Target = None) -> Tensor:
    """A Tensor whose values are unspecified until they are written; for results. Arguments as for `zeros`."""
    return _allocated(shape, compute, _abi.lib.grilly_buffer_create_uninitialized)


def zeros(shape: Shape, compute: Target = None) -> Tensor:
    """A Tensor of zeros.

    Args:
        shape: up to 4 sizes, or one.
        compute: a Compute; None or "vulkan" is the one that layers share.
    """
    return _allocated(shape, compute, _abi.lib.grilly_buffer_create)


def as_operand(value: Any, name: str = "input") -> Operand:
    """A Tensor as it is, also a Parameter's; anything else as `as_float32` has it."""
    if type(value) is np.ndarray and value.dtype is _DTYPE and value.flags.c_contiguous:
        return value  # which most are: no further question
    value = getattr(value, "_grilly_array", value)
    return value if isinstance(value, Tensor) else as_float32(value, name)


def elementwise(op: int, a: Any, b: Any, out: Tensor, alpha: float = 1.0) -> Tensor:
    """`out = op(a, alpha · b)` of Tensors and numbers."""
    shapes = [_shape(value) for value in (a, b)]
    if np.broadcast_shapes(out.shape, *shapes) != out.shape:
        raise ValueError(f"out has shape {out.shape}, to which {shapes[0]} and {shapes[1]} do not broadcast")
    if isinstance(b, float):
        b, alpha = None, alpha * b
    elif isinstance(a, float):
        a, alpha = None, a
    out._memory.version += 1
    views = [None if value is None else byref(value._view()) for value in (a, b)]
    context = out.compute._context.value
    check(_abi.lib.grilly_elementwise(context, op, *views, alpha, byref(out._view())))
    return out


def _allocated(shape: Shape, target: Target, create: Any) -> Tensor:
    sizes = sizes_of(shape)
    compute = chosen(target)
    return Tensor(compute, _Memory(compute, _elements(sizes), create), sizes)


def chosen(target: Target, legal: str = "'vulkan' or a grilly.Compute") -> Compute:
    from ._context import Compute, default_compute  # which needs this module

    if target is None or target == "vulkan":
        return default_compute()
    if isinstance(target, Compute):
        return target
    raise ValueError(f"device is {target!r}, expected {legal}")


def sizes_of(shape: Any, inferred: bool = False) -> tuple[int, ...]:
    sizes = tuple(operator.index(size) for size in (shape if np.iterable(shape) else (shape,)))
    if len(sizes) > 4:
        raise ValueError(f"shape is {list(sizes)}, expected at most 4 axes")
    if any(size < (-1 if inferred else 0) for size in sizes) or sizes.count(-1) > 1:
        raise ValueError(f"shape is {list(sizes)}, expected sizes of 0 and more")
    # As in NumPy, an empty axis counts as one of size 1 here.
    if _elements(tuple(max(size, 1) for size in sizes)) * _DTYPE.itemsize >= 2**63:
        raise ValueError(f"shape is {list(sizes)}, expected less than 2^63 bytes")
    return sizes


def _elements(shape: tuple[int, ...]) -> int:
    elements = 1
    for size in shape:
        elements *= size
    return elements


def _shape(value: Any) -> tuple[int, ...]:
    return value.shape if isinstance(value, Tensor) else ()


def _has_its_own_way(value: Any) -> bool:
    """Whether a type that is neither NumPy's nor ours overrides ufuncs: a Parameter, for one."""
    known = (Tensor, np.ndarray, np.generic)
    return hasattr(type(value), "__array_ufunc__") and not isinstance(value, known)
