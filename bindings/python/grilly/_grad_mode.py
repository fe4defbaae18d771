"""Whether layers keep what `backward` needs."""

from __future__ import annotations

import contextlib
import threading


class _Mode(threading.local):
    enabled = True


_mode = _Mode()


def is_grad_enabled() -> bool:
    """False inside `no_grad()`, in this thread."""
    return _mode.enabled


class no_grad(contextlib.ContextDecorator):
    """Layers called inside keep no input, and their `backward` raises. For this thread; also a decorator."""

    def __enter__(self) -> None:
        self._before, _mode.enabled = _mode.enabled, False

    def __exit__(self, *exception: object) -> None:
        _mode.enabled = self._before

    def _recreate_cm(self) -> no_grad:
        return no_grad()
