"""Exceptions for the library's status codes."""

from __future__ import annotations

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
        name = _abi.lib.grilly_status_string(status).decode()
        message = _abi.lib.grilly_last_error_message().decode()
        raise _CLASSES.get(status, GrillyError)(f"{message} ({name})", status, name)
