"""`python -m grilly`: what is installed, which devices there are, which one is used and why, and whether it computes
correctly. The exit code is 0 if it does."""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any, Iterator

import numpy as np

import grilly
from grilly import _abi
from grilly._reference import Reference

#: Name, input, weight, and options: a dense, a strided and grouped, a depthwise and dilated convolution.
_CASES = (
    ("3x3", (2, 16, 28, 28), (32, 16, 3, 3), Reference(padding=((1, 1), (1, 1)))),
    ("strided, 4 groups", (2, 16, 29, 31), (24, 4, 5, 3), Reference((2, 3), ((2, 2), (1, 1)), (1, 1), 4)),
    ("depthwise, dilated", (2, 16, 28, 28), (16, 1, 3, 3), Reference((1, 1), ((2, 2), (2, 2)), (2, 2), 16)),
)


def main() -> int:
    print(f"grilly {grilly.__version__}")
    print(f"library  {_abi.library_path}")
    print("devices")
    for device in grilly.devices():
        version = f", Vulkan {'.'.join(map(str, device.api_version))}" if device.is_vulkan else ""
        memory = f", {device.memory_bytes / 2**30:.1f} GiB" if device.memory_bytes else ""
        print(f"  {device.index}  {device.name} ({device.kind}{version}{memory})")
        for detail in filter(None, (device.driver, device.note)):
            print(f"     {detail}")
    try:
        with warnings.catch_warnings():
            # The note below says it all.
            warnings.simplefilter("ignore", grilly.DeviceWarning)
            compute = grilly.Compute()
    except grilly.GrillyError as error:
        print(f"no device can be used: {error}")
        return 1
    with compute:
        print(f"chosen   {compute.device.name}")
        print(f"because  {compute.device.note}")
        print("self-test, largest error as a fraction of what the accuracy contract allows")
        results = list(_self_test(compute))
    print("all correct" if all(results) else "FAILED: this device computes wrong results")
    return 0 if all(results) else 1


def _self_test(compute: grilly.Compute) -> Iterator[bool]:
    """Runs and prints every case; yields whether it was correct."""
    random = np.random.RandomState(0)
    for name, x_shape, w_shape, reference in _CASES:
        x, w, b, dy = (
            random.standard_normal(shape).astype(np.float32)
            for shape in (x_shape, w_shape, w_shape[:1], reference.output_shape(x_shape, w_shape))
        )
        options: dict[str, Any] = {
            "stride": reference.stride, "padding": reference.padding, "dilation": reference.dilation,
            "groups": reference.groups,
        }
        start = time.perf_counter()
        try:
            y = compute.conv.conv2d(x, w, b, **options)
            dx = compute.conv.conv2d_backward_input(dy, w, x_shape, **options)
            dw, db = compute.conv.conv2d_backward_weight(dy, x, w_shape[2:], **options)
        except grilly.GrillyError as error:
            print(f"  {name}: {error}")
            yield False
            continue
        milliseconds = (time.perf_counter() - start) * 1e3
        errors = {
            "forward": reference.forward(x, w, b).worst(y),
            "input gradient": reference.backward_input(dy, w, x_shape).worst(dx),
            "weight gradient": reference.backward_weight(dy, x, w_shape[2:]).worst(dw),
            "bias gradient": reference.backward_bias(dy).worst(db),
        }
        text = ", ".join(f"{what} {error:.3f}" for what, error in errors.items())
        print(f"  {name}: {text} ({milliseconds:.1f} ms with compilation)")
        # Not `max(...) <= 1`: that would let a NaN through.
        yield all(error <= 1 for error in errors.values())


if __name__ == "__main__":
    sys.exit(main())
