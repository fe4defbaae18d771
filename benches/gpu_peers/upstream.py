"""The package on PyPI whose API libgrilly's Python package follows. All passes, from NumPy arrays to new ones: it has
no other way. Its gradients of layers without groups and dilation multiply in NumPy, on the CPU. Where a layer takes
long, it computes on a part of the batch."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from functools import partial
from typing import Callable

import numpy as np
from common import FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, Operands, Shape
from gpu_peers import LAYER, Settings
from worker import Operation, Prepare

#: What it imports where it is there, which takes long and is not used here.
UNUSED = "torch", "transformers", "sentence_transformers", "spacy", "numba"
#: Operations of a call at most; a software driver gets one image.
FLOPS = 8e9
#: A call of so many seconds is not repeated.
LONG = 1.0
#: The name of the time within a call that its kernels take, with their submission and the wait for them.
DISPATCHES = "dispatches"


def open_peer(settings: Settings, threads: int) -> tuple[str, Prepare]:
    os.environ["VK_GPU_INDEX"] = str(settings.device)
    for name in UNUSED:
        sys.modules[name] = None  # an import of it fails, as where it is not installed
    with contextlib.redirect_stdout(io.StringIO()):  # it tells what it finds
        import grilly

        backend = grilly.Compute()
    core = backend.core
    dispatch, dispatching = core._dispatch_compute, 0.0

    def timed_dispatch(*arguments, **options):
        nonlocal dispatching
        began = time.perf_counter()
        dispatch(*arguments, **options)
        dispatching += time.perf_counter() - began

    core._dispatch_compute = timed_dispatch

    def prepare(shape: Shape, operands: Operands) -> dict[str, Operation]:
        images = 1 if settings.software else min(max(1, int(FLOPS * shape.n / shape.flops)), shape.n)
        x, dy = operands.x[:images], operands.dy[:images]
        options = [shape.stride] * 2, list(shape.padding), [shape.dilation] * 2, shape.groups
        scale = shape.n / images

        def operation(call: Callable[[], np.ndarray]) -> list[Operation]:
            """The whole call, and its dispatches alone."""
            known: list[tuple[float, float]] = []

            def result() -> np.ndarray:
                nonlocal dispatching
                dispatching, began = 0.0, time.perf_counter()
                y = call()
                known.append((scale * (time.perf_counter() - began), scale * dispatching))
                return y

            def sample() -> tuple[float, float]:
                result()
                return known[-1]

            def measure(which: int, seconds: float) -> list[float]:
                if known and known[-1][0] / scale > LONG:
                    return [known[-1][which]]
                until = time.perf_counter() + seconds
                times = [sample()[which]]
                while time.perf_counter() < until:
                    times.append(sample()[which])
                return times

            return [Operation(call, result, partial(measure, which), {"images": images}) for which in range(2)]

        forward = operation(partial(backend.conv.conv2d, x, operands.weight, operands.bias, *options))
        return {
            FORWARD: forward[0],
            f"{FORWARD}, {DISPATCHES}": forward[1],
            LAYER: forward[0],
            INPUT_GRADIENT: operation(
                partial(backend.conv.conv2d_backward_input, dy, operands.weight, (images, *shape.x[1:]), *options)
            )[0],
            WEIGHT_GRADIENT: operation(
                lambda: backend.conv.conv2d_backward_weight(dy, x, tuple(shape.kernel), *options)[0]
            )[0],
        }

    from importlib.metadata import version

    return version("grilly"), prepare
