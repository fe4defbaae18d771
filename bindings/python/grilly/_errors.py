"""Exceptions for the library's status codes, and for integers that cannot reach it."""

from __future__ import annotations

import operator
from typing import Any

from . import _abi


class GrillyError(RuntimeError):
    """The library refused a call. `status` is the code, `name` its name in C."""

    def __init__(self, message: str, status: int, name: str) -> None:
        super().__init__(message)
        self.status = status
        self.name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.status, self.name)


class InvalidArgumentError(GrillyError, ValueError):
    """An argument has a value that is never legal, or does not fit the others."""


class OutOfMemoryError(GrillyError, MemoryError):
    """Host or device memory is exhausted."""


class DeviceWarning(UserWarning):
    """The CPU computes although there is a Vulkan driver."""


_CLASSES = {
    _abi.ERROR_INVALID_ARGUMENT: InvalidArgumentError,
    _abi.ERROR_OUT_OF_HOST_MEMORY: OutOfMemoryError,
    _abi.ERROR_OUT_OF_DEVICE_MEMORY: OutOfMemoryError,
}


def check(status: int) -> None:
    """Raises the exception of a status code; does nothing for OK.

    Raises:
        GrillyError: with the library's own sentence about what was wrong and what is legal.
    """
    if status != _abi.OK:
        raise _error(status, _abi.lib.grilly_last_error_message().decode())


def c_integer(value: Any, name: str, legal: range = range(-2**63, 2**63)) -> int:
    """An integer for a field of the C ABI, where ctypes would silently keep the lowest bits of one that does not fit.

    Raises:
        InvalidArgumentError: if it is not among the `legal` ones, by default those of 64 bits.
        TypeError: if it is no integer.
    """
    integer = operator.index(value)
    if integer not in legal:
        raise _error(
            _abi.ERROR_INVALID_ARGUMENT, f"{name} is {integer}, expected {legal.start} to {legal.stop - 1}"
        )
    return integer


def _error(status: int, message: str) -> GrillyError:
    name = _abi.lib.grilly_status_string(status).decode()
    return _CLASSES.get(status, GrillyError)(f"{message} ({name})", status, name)
