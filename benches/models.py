"""Layers in the formats of libraries that load models from files."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Sequence

from common import Operands, Shape


def onnx(shape: Shape, operands: Operands, copies: int = 1) -> bytes:
    """A graph of one Conv from "x" to "y", or of several that differ in nothing but their input and output, from "x0"
    to "y0" and so on."""
    import onnx
    from onnx import helper, numpy_helper

    ends = [""] if copies == 1 else [str(i) for i in range(copies)]
    nodes = [
        helper.make_node(
            "Conv", [f"x{end}", "weight", "bias"], [f"y{end}"], kernel_shape=shape.kernel, strides=[shape.stride] * 2,
            pads=[*shape.padding, *shape.padding], dilations=[shape.dilation] * 2, group=shape.groups,
        )
        for end in ends
    ]
    tensor = partial(helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    inputs, outputs = ([tensor(f"{name}{end}", shape=getattr(shape, name)) for end in ends] for name in "xy")
    parameters = [numpy_helper.from_array(getattr(operands, name), name) for name in ("weight", "bias")]
    graph = helper.make_graph(nodes, "layer", inputs, outputs, parameters)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def ncnn_convolution(shape: Shape, name: str, source: str, target: str) -> list[str]:
    """The line of ncnn's param file for a layer."""
    (r, s), (top, left) = shape.kernel, shape.padding
    kind, groups = ("Convolution", "") if shape.groups == 1 else ("ConvolutionDepthWise", f" 7={shape.groups}")
    weights = shape.k * shape.c // shape.groups * r * s
    return [
        f"{kind} {name} 1 1 {source} {target} 0={shape.k} 1={s} 11={r} 2={shape.dilation} 3={shape.stride} 4={left} "
        f"14={top} 5=1 6={weights}{groups}"
    ]


def load_ncnn(net: Any, layers: Sequence[str], operands: Sequence[Operands]) -> None:
    """Loads layers behind an input "x", with the weights of those that have some, all in float32."""
    for half in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage"):
        setattr(net.opt, f"use_{half}", False)
    layers = ["Input x 0 1 x", *layers]
    blobs = sum(int(layer.split()[3]) for layer in layers)
    with tempfile.TemporaryDirectory() as folder:
        # The format of ncnn's files: magic number, counts of layers and blobs, then the layers. In the weights' file a
        # zero says that float32 follow.
        param, model = Path(folder, "param"), Path(folder, "bin")
        param.write_text("\n".join(["7767517", f"{len(layers)} {blobs}", *layers, ""]), encoding="ascii")
        with model.open("wb") as file:
            for of_layer in operands:
                file.write(bytes(4) + of_layer.weight.tobytes() + of_layer.bias.tobytes())
        if net.load_param(str(param)) or net.load_model(str(model)):
            raise RuntimeError("ncnn could not load the layer")
