"""ggml's Vulkan kernels, through the shared libraries in the wheel of cyllama-vulkan, without cooperative matrices.
Forward alone: it has no gradients on Vulkan, and of groups only depthwise ones. Without the bias, which would be a pass
of its own.

Tensors stay on the device. A graph holds many copies of the layer, each with an input and an output of its own; a
call's time is that of the graph, divided by their number."""

from __future__ import annotations

import ctypes
import os
import time
from ctypes import Structure, c_bool, c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import FORWARD, Operands, Shape
from gpu_peers import Settings, repeated
from worker import Operation, Prepare

F32 = 0
#: Copies of the layer in a graph at least: its submission takes tens of microseconds.
LEAST_COPIES = 4


class InitParams(Structure):
    """`ggml_init_params`."""

    _fields_ = [("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool)]


FUNCTIONS = {
    "ggml_version": (c_char_p, ()),
    "ggml_init": (c_void_p, (InitParams,)),
    "ggml_free": (None, (c_void_p,)),
    "ggml_new_tensor_4d": (c_void_p, (c_void_p, c_int, *(c_int64,) * 4)),
    "ggml_conv_2d_direct": (c_void_p, (*(c_void_p,) * 3, *(c_int,) * 6)),
    "ggml_conv_2d_dw_direct": (c_void_p, (*(c_void_p,) * 3, *(c_int,) * 6)),
    "ggml_new_graph_custom": (c_void_p, (c_void_p, c_size_t, c_bool)),
    "ggml_build_forward_expand": (None, (c_void_p, c_void_p)),
    "ggml_backend_alloc_ctx_tensors": (c_void_p, (c_void_p, c_void_p)),
    "ggml_backend_buffer_free": (None, (c_void_p,)),
    "ggml_backend_tensor_set": (None, (c_void_p, c_void_p, c_size_t, c_size_t)),
    "ggml_backend_tensor_get": (None, (c_void_p, c_void_p, c_size_t, c_size_t)),
    "ggml_backend_graph_compute": (c_int, (c_void_p, c_void_p)),
    "ggml_backend_supports_op": (c_bool, (c_void_p, c_void_p)),
}


def libraries(folder: Path) -> tuple[Any, Any]:
    """ggml itself and its Vulkan backend."""
    base, vulkan = (next(folder.glob(f"libggml-{name}-*")) for name in ("base", "vulkan"))
    ggml = ctypes.CDLL(str(base), ctypes.RTLD_GLOBAL)
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(ggml, name)
        function.restype, function.argtypes = result, arguments
    backend = ctypes.CDLL(str(vulkan))
    backend.ggml_backend_vk_init.restype, backend.ggml_backend_vk_init.argtypes = c_void_p, (c_size_t,)
    return ggml, backend


def open_peer(settings: Settings, threads: int) -> tuple[str, Prepare]:
    import sys

    os.environ |= {
        "GGML_VK_DISABLE_COOPMAT": "1", "GGML_VK_DISABLE_COOPMAT2": "1",
        # Otherwise it passes software drivers over.
        "GGML_VK_VISIBLE_DEVICES": str(settings.device),
    }
    folders = [Path(entry, "cyllama_vulkan.libs") for entry in sys.path if Path(entry, "cyllama_vulkan.libs").is_dir()]
    if not folders:
        raise ImportError("cyllama-vulkan is not installed")
    ggml, vulkan = libraries(folders[0])
    if vulkan.ggml_backend_vk_get_device_count() < 1:
        raise RuntimeError("it finds no Vulkan device")
    backend = vulkan.ggml_backend_vk_init(0)
    if not backend:
        raise RuntimeError("it could not open the device")
    held: list[tuple[int, int]] = []

    def prepare(shape: Shape, operands: Operands) -> dict[str, Operation]:
        while held:
            context, buffer = held.pop()
            ggml.ggml_backend_buffer_free(buffer)
            ggml.ggml_free(context)
        if shape.groups == 1:
            convolution = ggml.ggml_conv_2d_direct
        elif shape.groups == shape.c == shape.k:
            convolution = ggml.ggml_conv_2d_dw_direct
        else:
            return {}
        copies = max(LEAST_COPIES, settings.sets(shape))
        context = ggml.ggml_init(InitParams(2**24, None, True))
        top, left = shape.padding

        def tensor(size: tuple[int, ...]) -> int:
            return ggml.ggml_new_tensor_4d(context, F32, *reversed(size))

        weight, inputs = tensor(shape.weight), [tensor(shape.x) for _ in range(copies)]
        outputs = [
            convolution(context, weight, x, *[shape.stride] * 2, left, top, *[shape.dilation] * 2) for x in inputs
        ]
        if not ggml.ggml_backend_supports_op(backend, outputs[0]):
            raise RuntimeError("its Vulkan backend does not have this layer")
        graphs = []
        for some in (outputs[:1], outputs):
            graphs.append(ggml.ggml_new_graph_custom(context, 2 * copies + 16, False))
            for output in some:
                ggml.ggml_build_forward_expand(graphs[-1], output)
        held.append((context, ggml.ggml_backend_alloc_ctx_tensors(context, backend)))
        if not held[-1][1]:
            held.pop()
            raise MemoryError("it could not allocate the tensors")
        for x in inputs:
            ggml.ggml_backend_tensor_set(x, operands.x.ctypes.data, 0, operands.x.nbytes)
        ggml.ggml_backend_tensor_set(weight, operands.weight.ctypes.data, 0, operands.weight.nbytes)

        def call(graph: int) -> None:
            if status := ggml.ggml_backend_graph_compute(backend, graph):
                raise RuntimeError(f"ggml_backend_graph_compute gave {status}")

        def sample() -> list[float]:
            began = time.perf_counter()
            call(graphs[1])
            return [(time.perf_counter() - began) / copies] * copies

        def result() -> np.ndarray:
            y = np.full(shape.y, np.nan, np.float32)
            call(graphs[0])
            ggml.ggml_backend_tensor_get(outputs[0], y.ctypes.data, 0, y.nbytes)
            return y + operands.bias[:, None, None]

        return {FORWARD: Operation(partial(call, graphs[1]), result, partial(repeated, sample))}

    return f"ggml {ggml.ggml_version().decode()}", prepare
