"""Whether layers keep what `backward` needs."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from typing import Any, Callable, Iterator, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


class _Mode(threading.local):
    enabled = True


_mode = _Mode()


def is_grad_enabled() -> bool:
    """False inside `no_grad()`, in this thread."""
    return _mode.enabled


class no_grad(contextlib.ContextDecorator):
    """Layers called inside keep no input, and their `backward` raises. For this thread; also a decorator, of a
    generator function for what it does between its yields."""

    def __enter__(self) -> None:
        self._before, _mode.enabled = _mode.enabled, False

    def __exit__(self, *exception: object) -> None:
        _mode.enabled = self._before

    def _recreate_cm(self) -> no_grad:
        return no_grad()

    def __call__(self, function: Function) -> Function:
        if inspect.isgeneratorfunction(function):
            return cast(Function, _stepwise(function))
        return super().__call__(function)


def _stepwise(function: Callable[..., Any]) -> Callable[..., Any]:
    """A generator function each of whose steps is inside `no_grad()`."""

    @functools.wraps(function)
    def steps(*arguments: Any, **named: Any) -> Iterator[Any]:
        generator = function(*arguments, **named)
        try:
            with no_grad():
                given = next(generator)
            while True:
                try:
                    sent = yield given
                except GeneratorExit:
                    with no_grad():
                        generator.close()
                    raise
                except BaseException as error:
                    with no_grad():
                        given = generator.throw(error)
                else:
                    with no_grad():
                        given = generator.send(sent)
        except StopIteration as end:
            return end.value

    return steps
