"""Ownership of the library's objects."""

from __future__ import annotations

import weakref
from ctypes import byref
from typing import Any, Callable

from . import _abi
from ._errors import check


class Handle:
    """One object of the library, destroyed when this is collected or closed.

    It is not destroyed at interpreter shutdown: a Vulkan driver may be half gone by then, and the system takes
    everything back anyway.
    """

    __slots__ = ("_value", "_destroy", "_closed_message", "__weakref__")

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
        out = _abi.Handle()
        check(create(*arguments, byref(out)))
        assert out.value is not None # no handle reads as NULL
        self._value = out.value
        self._closed_message = closed_message
        self._destroy = weakref.finalize(self, destroy, out.value)
        self._destroy.atexit = False

    @property
    def value(self) -> int:
        """What C functions take.

        Raises:
            RuntimeError: if it was closed.
        """
        if self.closed:
            raise RuntimeError(self._closed_message)
        return self._value

    @property
    def closed(self) -> bool:
        """Whether the object was destroyed."""
        return not self._destroy.alive

    def close(self) -> None:
        """Destroys the object; a second time does nothing."""
        self._destroy()
