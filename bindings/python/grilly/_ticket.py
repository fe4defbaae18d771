"""Calls that were submitted and may not be done yet."""

from __future__ import annotations

import math
from typing import Any, Optional

from . import _abi
from ._errors import GrillyError, check
from ._handle import Handle
from ._tensor import Tensor

_FOREVER = 2**64 - 1


class Ticket:
    """A call under way, made by `VulkanConv.submit_conv2d`. Any thread may wait for it, several times."""

    def __init__(self, handle: Handle, result: Tensor) -> None:
        self._handle = handle
        self._result = result

    @property
    def done(self) -> bool:
        """Whether the call is done."""
        return self._wait(0)

    def wait(self, timeout: Optional[float] = None) -> Tensor:
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
