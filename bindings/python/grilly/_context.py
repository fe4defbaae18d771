"""Compute: an opened device, and the one that layers share."""

from __future__ import annotations

import operator
import os
import threading
import warnings
from ctypes import byref
from typing import Any, Union

from . import _abi
from ._device import Device, devices
from ._errors import DeviceWarning, c_integer, check
from ._handle import Handle
from .backend.conv import VulkanConv


class Compute:
    """A device with its memory pool and compiled pipelines. Any thread may use it, concurrently.

    Args:
        device: None chooses by VK_GPU_INDEX, else the best Vulkan GPU, else the CPU; "cpu" is the CPU device; an
            integer counts as `grilly.devices()` does.
        threads: threads of the CPU device that may be at work at once, callers' own among them; 0 is as many as the
            environment variable GRILLY_THREADS says, or one for each core.
        memory_budget: bytes of device memory that it may hold; 0 is as many as there are.
        timestamps: time every submission by the device's own clock, for `stats()["device_nanoseconds"]`, which is 0
            otherwise. It takes some microseconds a call.

    Raises:
        GrillyError: if that device does not exist or cannot be used.
    """

    def __init__(
        self,
        device: Union[int, str, None] = None,
        threads: int = 0,
        memory_budget: int = 0,
        timestamps: bool = False,
    ) -> None:
        desc = _abi.initialised(_abi.ContextDesc)
        desc.device = _device_choice(device)
        desc.threads = c_integer(threads, "threads", range(2**32))
        desc.memory_budget = c_integer(memory_budget, "memory_budget", range(2**64))
        desc.flags = _abi.CONTEXT_TIMESTAMPS if timestamps else 0
        self._context = Handle(
            _abi.lib.grilly_context_create, byref(desc),
            destroy=_abi.lib.grilly_context_destroy,
            closed_message="this Compute was closed by cleanup(); make a new one",
        )
        info = _abi.initialised(_abi.DeviceInfo)
        check(_abi.lib.grilly_context_device_info(self._context.value, byref(info)))
        #: The device in use; its `note` says how it came to be chosen.
        self.device: Device = Device._from_c(info)
        #: Convolutions on this device.
        self.conv: VulkanConv = VulkanConv(self)
        if device is None and not self.device.is_vulkan:
            _warn_of_refused_drivers()

    def stats(self) -> dict[str, int]:
        """What it holds and has done: bytes_held, bytes_in_use, bytes_peak, blocks_in_use, allocations (those from
        the device, not from the pool), upload_bytes, download_bytes, submits, dispatches, pipelines,
        device_nanoseconds."""
        stats = _abi.initialised(_abi.Stats)
        check(_abi.lib.grilly_context_stats(self._context.value, byref(stats)))
        return {name: getattr(stats, name) for name, *_ in stats._fields_ if name != "struct_size"}

    def trim(self) -> None:
        """Gives pooled memory that nothing uses back to the device."""
        check(_abi.lib.grilly_context_trim(self._context.value))

    def cleanup(self) -> None:
        """Closes it; a second time does nothing. Layers bound to it raise RuntimeError from then on."""
        self.conv.close()
        self._context.close()

    @property
    def closed(self) -> bool:
        """Whether `cleanup()` was called."""
        return self._context.closed

    def __enter__(self) -> Compute:
        return self

    def __exit__(self, *exception: object) -> None:
        self.cleanup()

    def __repr__(self) -> str:
        return f"Compute({self.device.name!r}{', closed' if self.closed else ''})"

    def __copy__(self) -> Compute:
        return self

    def __deepcopy__(self, memo: dict) -> Compute:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # A device cannot travel. A pickled layer comes back unbound, and uses the shared one.
        return _unbound, ()


def _unbound() -> None:
    return None


def _device_choice(device: Union[int, str, None]) -> int:
    if device is None:
        return _abi.DEVICE_AUTO
    if isinstance(device, str):
        if device != "cpu":
            raise ValueError(f"device is {device!r}, expected None, 'cpu' or an index into grilly.devices()")
        return _abi.DEVICE_CPU
    index = operator.index(device)
    if not 0 <= index < 2**31:
        raise ValueError(f"device is {index}, expected None, 'cpu' or an index into grilly.devices()")
    return index


_warned = False


def _warn_of_refused_drivers() -> None:
    """Once in a process: the CPU was fallen back to although Vulkan devices exist."""
    global _warned
    refused = [f"{device.name} ({device.note})" for device in devices() if device.is_vulkan]
    if refused and not _warned:
        _warned = True
        warnings.warn(
            f"grilly computes on the CPU; Vulkan devices passed over: {'; '.join(refused)}. See `python -m grilly`.",
            DeviceWarning,
            stacklevel=3,
        )


_default: Union[Compute, None] = None
_default_lock = threading.Lock()


def default_compute() -> Compute:
    """The Compute that layers share, opened at the first call and again after its cleanup()."""
    global _default
    with _default_lock:
        if _default is None or _default.closed:
            _default = Compute()
        return _default


def _forget_after_fork() -> None:
    # A child must open the device itself, and the lock may have been held by a thread that does not exist there.
    global _default, _default_lock
    _default = None
    _default_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
