"""ncnn on Vulkan, in float32. Forward alone; the weight is laid out when the model is loaded.

It takes one image a call and reads and writes host memory. A net of several copies of the layer behind one input, each
with a weight of its own, is timed beside a net of one; the difference is what the further copies take, without the
transfers. Only a few numbers of each copy's result go back to the host. Times are those of an image times the batch.
Its 3×3 layers go through Winograd's transform."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import models
import numpy as np
from common import FORWARD, Operands, Shape
from gpu_peers import Settings, repeated
from worker import Operation, Prepare

FURTHER_COPIES = 8


def open_peer(settings: Settings, threads: int) -> tuple[str, Prepare]:
    import ncnn

    if not ncnn.get_gpu_count():
        raise RuntimeError("it finds no Vulkan device")

    def loaded(layers: list[str], copies: int, operands: Operands) -> Any:
        net = ncnn.Net()
        net.opt.use_vulkan_compute = True
        net.opt.num_threads = threads
        net.set_vulkan_device(settings.device)
        models.load_ncnn(net, layers, [operands] * copies)
        return net

    def run(net: Any, image: Any) -> Any:
        extractor = net.create_extractor()
        extractor.input("x", image)
        status, y = extractor.extract("y")
        if status:
            raise RuntimeError(f"ncnn's extract gave {status}")
        return y

    def prepare(shape: Shape, operands: Operands) -> dict[str, Operation]:
        plain = loaded(models.ncnn_convolution(shape, "conv", "x", "y"), 1, operands)
        short, long = (loaded(branches(shape, copies), copies, operands) for copies in (1, 1 + FURTHER_COPIES))
        first, last = (ncnn.Mat(operands.x[at]).clone() for at in (0, -1))

        def seconds_of(net: Any) -> float:
            began = time.perf_counter()
            run(net, first)
            return time.perf_counter() - began

        def sample() -> list[float]:
            of_one, of_all = seconds_of(short), seconds_of(long)
            return [shape.n * (of_all - of_one) / FURTHER_COPIES]

        def result() -> np.ndarray:
            y = np.full(shape.y, np.nan, np.float32)
            y[0], y[-1] = (np.array(run(plain, image)) for image in (first, last))
            return y

        return {FORWARD: Operation(sample, result, partial(repeated, sample))}

    return ncnn.__version__, prepare


def branches(shape: Shape, copies: int) -> list[str]:
    """Copies of a layer, of each of which four numbers are kept."""
    every = range(copies)
    layers = [f"Split split 1 {copies} x {' '.join(f'x{i}' for i in every)}"]
    for i in every:
        layers += models.ncnn_convolution(shape, f"conv{i}", f"x{i}", f"y{i}")
        layers.append(f"Crop crop{i} 1 1 y{i} z{i} 3=1 4=1 5=4")
    return [*layers, f"Concat concat {copies} 1 {' '.join(f'z{i}' for i in every)} y"]
