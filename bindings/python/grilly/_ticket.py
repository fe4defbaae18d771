"""Calls that were submitted and may not be done yet."""

from __future__ import annotations

import math
from typing import Any, Generic, Optional, TypeVar

from . import _abi
from ._errors import GrillyError, check
from ._handle import Handle

_FOREVER = 2**64 - 1

#: A Tensor, or several.
Result = TypeVar("Result")


class Ticket(Generic[Result]):
    """A call under way, made by the methods of `Compute.conv` whose names begin with "submit". Any thread may wait for
    it, several times."""

    def __init__(self, handle: Handle, result: Result) -> None:
        self._handle = handle
        self._result = result

    @property
    def result(self) -> Result:
        """What the call computes. Until it is done, nothing but an operand of calls that are submitted later."""
        return self._result

    @property
    def done(self) -> bool:
        """Whether the call is done."""
        return self._wait(0)

    def wait(self, timeout: Optional[float] = None) -> Result:
        """The result, once it is there.

        Args:
            timeout: seconds to wait at most; None is as long as it takes.

        Raises:
            TimeoutError: if the call is still under way; it may be waited for again.
            GrillyError: if it will never be done, because the device was lost.
        """
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout is {timeout}, expected None or at least 0 seconds")
        if not self._wait(_FOREVER if timeout is None or math.isinf(timeout) else min(int(timeout * 1e9), _FOREVER)):
            raise TimeoutError(f"the call is still under way after {timeout} seconds; wait again")
        return self._result

    def _wait(self, nanoseconds: Any) -> bool:
        try:
            check(_abi.lib.grilly_ticket_wait(self._handle.value, nanoseconds))
        except GrillyError as error:
            if error.status != _abi.ERROR_TIMEOUT:
                raise
            return False
        return True
