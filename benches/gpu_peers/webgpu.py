"""ONNX Runtime's WebGPU provider, on Vulkan. Forward alone; the weight is laid out when the model is loaded.

Inputs and outputs stay on the device. A run has several copies of the layer, each with an input and an output of its
own, and runs are queued up one behind the other: a call's time is the mean, from the first call to the last result."""

from __future__ import annotations

import itertools

import models
import numpy as np
from common import FORWARD, Operands, Shape
from gpu_peers import Settings, moved_bytes, queued, repeated
from worker import Operation, Prepare

#: Copies of a layer in a run at most: Python's share of a call is divided by it. Large layers need fewer.
MOST_COPIES = 16
LARGE = 256 << 20
RUNS = 2
PROVIDER = "WebGpuExecutionProvider"


def open_peer(settings: Settings, threads: int) -> tuple[str, Prepare]:
    import onnxruntime

    if PROVIDER not in onnxruntime.get_available_providers():
        raise RuntimeError(f"it was built without {PROVIDER}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")

    def session(model: bytes) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(model, options, [PROVIDER], enable_fallback=0)

    def prepare(shape: Shape, operands: Operands) -> dict[str, Operation]:
        copies = min(max(2, LARGE // moved_bytes(shape)), MOST_COPIES)
        single, several = session(models.onnx(shape, operands)), session(models.onnx(shape, operands, copies))
        # Every copy has an input of its own: several bindings are needed where these do not fill the cache.
        bindings = []
        for _ in range(-(-settings.sets(shape) // copies)):
            binding = several.io_binding()
            for i in range(copies):
                binding.bind_cpu_input(f"x{i}", operands.x)  # this copies it to the device
                binding.bind_output(f"y{i}", "webgpu", 0)
            bindings.append(binding)
        turn = itertools.cycle(bindings)

        def call() -> None:
            several.run_with_iobinding(next(turn))

        def measure(seconds: float) -> list[float]:
            return [time / copies for time in repeated(queued(call, wait, RUNS), seconds)]

        def result() -> np.ndarray:
            return single.run(None, {"x": operands.x})[0]

        return {FORWARD: Operation(call, result, measure)}

    # All sessions share a queue: a small layer's result is in host memory only when everything before it is done.
    small = Operands.of(SMALL)
    last = session(models.onnx(SMALL, small))

    def wait() -> None:
        last.run(None, {"x": small.x})

    return onnxruntime.__version__, prepare


SMALL = Shape("small", 1, 4, 8, 8, 4, (3, 3), 1, (1, 1), 1, 1)
