"""Ownership of the library's objects."""

from __future__ import annotations

import sys
from ctypes import byref
from typing import Any, Callable

from . import _abi
from ._errors import check


class Handle:
    """One object of the library, destroyed when this is collected or closed.

    It is not destroyed at interpreter shutdown: a Vulkan driver may be half gone by then, and the system takes
    everything back anyway.
    """

    __slots__ = ("_values", "_destroy", "_closed_message")

    def __init__(
        self,
        create: Callable[..., int],
        *arguments: Any,
        destroy: Callable[[int], int],
        closed_message: str = "the object was closed",
    ) -> None:
        """Calls `create(*arguments, &handle)`.

        Raises:
            GrillyError: if the library refuses.
        """
        #: The handle, or nothing once it was destroyed: of several threads that close, one takes it.
        self._values: list[int] = []
        self._destroy = destroy
        self._closed_message = closed_message
        out = _abi.Handle()
        check(create(*arguments, byref(out)))
        assert out.value is not None # no handle reads as NULL
        self._values.append(out.value)

    @property
    def value(self) -> int:
        """What C functions take.

        Raises:
            RuntimeError: if it was closed.
        """
        try:
            return self._values[0]
        except IndexError:
            raise RuntimeError(self._closed_message) from None

    @property
    def closed(self) -> bool:
        """Whether the object was destroyed."""
        return not self._values

    def close(self) -> None:
        """Destroys the object; a second time does nothing."""
        try:
            value = self._values.pop()
        except IndexError:
            return
        self._destroy(value)

    # At shutdown, a module's names may be gone before its objects.
    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_finalizing():
            self.close()
