"""libgrilly's CPU device and the libraries that it is compared with. Each function runs in its peer's process: it
imports the peer, and gives its version and how it prepares a layer.

Everybody reads NCHW float32 from host memory and writes NCHW float32 there. What a library does to a weight when a
model is loaded is done before the clock runs; libgrilly's weight comes raw with every call, as PyTorch's does.
"""

from __future__ import annotations

from ctypes import byref, pointer
from functools import partial

import models
import numpy as np
from common import FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, Operands, Shape
from worker import Operation, Prepare

#: Not passes but layers, from NumPy arrays to a new one: what Python adds to the call of the C function.
LAYER, TRAINED_LAYER = "layer", "layer in training mode"


def libgrilly(threads: int) -> tuple[str, Prepare]:
    import grilly
    from grilly import _abi, nn
    from grilly._operand import c_view

    compute = grilly.Compute("cpu", threads)

    def prepare(shape: Shape, operands: Operands) -> dict[str, Operation]:
        options = shape.stride, shape.padding, shape.dilation, shape.groups
        handle = compute.conv._operation_of(shape.weight, *options)
        layer, trained = (nn.Conv2d(shape.c, shape.k, shape.kernel, *options, device=compute) for _ in range(2))
        layer.eval()

        def function(entry, output: str, **arrays: np.ndarray) -> Operation:
            """A C function whose arguments are made once."""
            io = _abi.initialised(_abi.Conv2dIo)
            for name, array in arrays.items():
                setattr(io, name, pointer(c_view(array)))

            def call() -> None:
                if entry(handle.value, byref(io)) != _abi.OK:
                    raise RuntimeError(_abi.lib.grilly_last_error_message().decode())

            def result() -> np.ndarray:
                call()
                return arrays[output]

            return Operation(call, result)

        x, weight, bias, dy = operands
        forward, backward = _abi.lib.grilly_conv2d_forward, _abi.lib.grilly_conv2d_backward
        return {
            FORWARD: function(forward, "y", x=x, weight=weight, bias=bias, y=unwritten(shape.y)),
            INPUT_GRADIENT: function(backward, "dx", weight=weight, dy=dy, dx=unwritten(shape.x)),
            WEIGHT_GRADIENT: function(
                backward, "dweight", x=x, dy=dy, dweight=unwritten(shape.weight), dbias=unwritten((shape.k,))
            ),
            LAYER: same(partial(layer, x)),
            TRAINED_LAYER: same(partial(trained, x)),
        }

    return grilly.__version__, prepare


def pytorch(threads: int) -> tuple[str, Prepare]:
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    assert torch.backends.mkldnn.is_available(), "this PyTorch has no oneDNN"

    def prepare(shape: Shape, operands: Operands) -> dict[str, Operation]:
        x, weight, bias, dy = map(torch.from_numpy, operands)
        stride, dilation = [shape.stride] * 2, [shape.dilation] * 2
        options = stride, list(shape.padding), dilation

        def gradient(wanted: tuple[bool, bool, bool], which: int) -> Operation:
            call = partial(
                torch.ops.aten.convolution_backward,
                dy, x, weight, [shape.k], *options, False, [0, 0], shape.groups, wanted,
            )
            return Operation(call, lambda: call()[which].numpy())

        forward = partial(torch.nn.functional.conv2d, x, weight, bias, *options, shape.groups)
        return {
            FORWARD: Operation(forward, lambda: forward().numpy()),
            INPUT_GRADIENT: gradient((True, False, False), 0),
            WEIGHT_GRADIENT: gradient((False, True, True), 1),
        }

    return str(torch.__version__), prepare


def onnx_runtime(threads: int) -> tuple[str, Prepare]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads

    def prepare(shape: Shape, operands: Operands) -> dict[str, Operation]:
        session = onnxruntime.InferenceSession(models.onnx(shape, operands), options, ["CPUExecutionProvider"])
        y = unwritten(shape.y)
        binding = session.io_binding()
        binding.bind_cpu_input("x", operands.x)
        binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)

        def result() -> np.ndarray:
            session.run_with_iobinding(binding)
            return y

        return {FORWARD: Operation(partial(session.run_with_iobinding, binding), result)}

    return onnxruntime.__version__, prepare


def ncnn(threads: int) -> tuple[str, Prepare]:
    import ncnn

    def prepare(shape: Shape, operands: Operands) -> dict[str, Operation]:
        net = ncnn.Net()
        net.opt.num_threads = threads
        models.load_ncnn(net, models.ncnn_convolution(shape, "conv", "x", "y"), [operands])
        images = [ncnn.Mat(image).clone() for image in operands.x]

        def convolved(image: ncnn.Mat) -> ncnn.Mat:
            extractor = net.create_extractor()
            extractor.input("x", image)
            status, y = extractor.extract("y")
            if status:
                raise RuntimeError(f"ncnn's extract gave {status}")
            return y

        def call() -> None:
            for image in images:
                convolved(image)

        return {FORWARD: Operation(call, lambda: np.stack([np.array(convolved(image)) for image in images]))}

    return ncnn.__version__, prepare


def unwritten(shape: tuple[int, ...]) -> np.ndarray:
    """An output whose every element must be written to be right."""
    return np.full(shape, np.nan, np.float32)


def same(call) -> Operation:
    return Operation(call, call)
