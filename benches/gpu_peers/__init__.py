"""libgrilly on a GPU and the libraries that it is compared with, a file each. Its `open_peer` runs in the peer's
process: it imports the peer, and gives its version and how it prepares a layer.

Everybody reads and writes NCHW float32 (PyTorch also channels_last, its choice), adds the bias in the forward pass and
sums its gradient in the weight's, unless the file says otherwise. How each is timed is said there, too.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable

from common import Shape

#: Clocks of a GPU that waited for a turn need this long to rise, in seconds.
WARM_UP = 0.1
#: Calls that are queued up one behind the other, so that the device has no pause between them.
QUEUED = 16

#: Operations beside the passes. A copy of as many bytes as the input and the output have together; a layer from NumPy
#: arrays to a new one; the call of a layer on device tensors and the wait for it; copies of the input to the device and
#: of the output from it at once; the layer on the host's processor.
COPY, LAYER, CALL, LINK, ON_CPU = "copy", "NumPy to NumPy", "call and wait", "link, both ways", "on the CPU"


@dataclass(frozen=True)
class Settings:
    """Where and how every peer runs."""

    #: The Vulkan device, in Vulkan's order.
    device: int
    #: Whether it is a software driver, which runs on the host's cores: time is then that from call to return.
    software: bool
    #: Bytes that the tensors of consecutive calls take together: more than the device's last cache holds.
    rotation: int

    def sets(self, shape: Shape) -> int:
        """How many tensors of a layer to go round in."""
        return min(max(1, math.ceil(self.rotation / moved_bytes(shape))), 512)


def moved_bytes(shape: Shape) -> int:
    """Of input and output."""
    return 4 * (math.prod(shape.x) + math.prod(shape.y))


def clocked(call: Callable[[], Any]) -> list[float]:
    """The seconds of one call, from its begin to its return."""
    began = time.perf_counter()
    call()
    return [time.perf_counter() - began]


def by_clock(call: Callable[[], Any]) -> Callable[[float], list[float]]:
    """Measures a call from its begin to its return, after a warm-up as every other measurement has."""
    return partial(repeated, partial(clocked, call))


def repeated(sample: Callable[[], list[float]], seconds: float) -> list[float]:
    """The seconds of each call, from samples of one or more of them, taken for about so long after a warm-up."""
    until = time.perf_counter() + WARM_UP
    while True:
        sample()
        if time.perf_counter() > until:
            break
    times: list[float] = []
    until = time.perf_counter() + seconds
    while not times or time.perf_counter() < until:
        times += sample()
    return times


def queued(enqueue: Callable[[], None], wait: Callable[[], None], calls: int) -> Callable[[], list[float]]:
    """For `repeated`: samples of calls that are queued up one behind the other, each counted as long as the mean."""

    def sample() -> list[float]:
        began = time.perf_counter()
        for _ in range(calls):
            enqueue()
        wait()
        return [(time.perf_counter() - began) / calls] * calls

    return sample
