"""The conformance tests of ONNX for Conv and ConvTranspose, run as models of one node."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grilly.nn import functional
from grilly.tests.checks import required

onnx = required("onnx")
loader = required("onnx.backend.test.loader")
runner = required("onnx.backend.test.runner")

KINDS = ("node", "pytorch-converted", "pytorch-operator")
NAMES = re.compile(r"test_(basic_conv|conv_with|convtranspose|Conv[123]d|ConvTranspose|operator_conv)")
#: Three-dimensional convolutions are not supported.
UNSUPPORTED = {
    "test_convtranspose_3d", "test_Conv3d", "test_Conv3d_dilated", "test_Conv3d_dilated_strided", "test_Conv3d_groups",
    "test_Conv3d_no_bias", "test_Conv3d_stride", "test_Conv3d_stride_padding",
}
CASES = {case.name: case for kind in KINDS for case in loader.load_model_tests(kind=kind) if NAMES.match(case.name)}


def test_all_cases_are_here() -> None:
    assert len(CASES) == 47
    assert len(UNSUPPORTED) == 8 and UNSUPPORTED < CASES.keys()


@pytest.mark.usefixtures("compute")
@pytest.mark.parametrize("name", sorted(CASES.keys() - UNSUPPORTED))
def test_case(name: str) -> None:
    case = CASES[name]
    folder = Path(case.model_dir)
    model = onnx.load(str(folder / "model.onnx"))
    sets = sorted(folder.glob("test_data_set_*"))
    assert sets
    for data in sets:
        got = run(model, arrays(data, "input"))
        runner.Runner.assert_similar_outputs(arrays(data, "output"), [got], case.rtol, case.atol)


def arrays(folder: Path, kind: str) -> list[np.ndarray]:
    """The tensors `input_0.pb`, `input_1.pb`, ... of a folder."""
    paths = sorted(folder.glob(f"{kind}_*.pb"))
    return [onnx.numpy_helper.to_array(onnx.load_tensor(str(path))) for path in paths]


def run(model: Any, inputs: list[np.ndarray]) -> np.ndarray:
    """The output of a model that is one convolution."""
    graph, (node,) = model.graph, model.graph.node
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    given = [value.name for value in graph.input if value.name not in values]
    assert len(given) == len(inputs)
    values.update(zip(given, inputs))
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {"Conv": conv, "ConvTranspose": conv_transpose}[node.op_type](
        *(values[name] for name in node.input), **attributes
    )


def conv(
    x: np.ndarray, w: np.ndarray, b: Any = None, *, auto_pad: bytes = b"NOTSET", dilations: Any = None, group: int = 1,
    kernel_shape: Any = None, pads: Any = None, strides: Any = None,
) -> np.ndarray:
    dims = w.ndim - 2
    strides, dilations = strides or [1] * dims, dilations or [1] * dims
    padding = begin_end(pads, dims)
    if auto_pad.startswith(b"SAME"):
        outputs = [-(-size // step) for size, step in zip(x.shape[2:], strides)]
        totals = [
            max((output - 1) * step + span - size, 0)
            for output, step, span, size in zip(outputs, strides, spans(w, dilations), x.shape[2:])
        ]
        padding = tuple(split(total, auto_pad) for total in totals)
    return getattr(functional, f"conv{dims}d")(x, w, b, strides, padding, dilations, group)


def conv_transpose(
    x: np.ndarray, w: np.ndarray, b: Any = None, *, auto_pad: bytes = b"NOTSET", dilations: Any = None, group: int = 1,
    kernel_shape: Any = None, output_padding: Any = None, output_shape: Any = None, pads: Any = None,
    strides: Any = None,
) -> np.ndarray:
    dims = w.ndim - 2
    strides, dilations = strides or [1] * dims, dilations or [1] * dims
    extra, padding = output_padding or [0] * dims, begin_end(pads, dims)
    if auto_pad.startswith(b"SAME"):
        output_shape = [size * step for size, step in zip(x.shape[2:], strides)]
    if output_shape:
        totals = [
            (size - 1) * step + more + span - output for size, step, more, span, output in
            zip(x.shape[2:], strides, extra, spans(w, dilations), output_shape)
        ]
        # More than there is to take away from is padding of the output.
        padding = tuple(split(max(total, 0), auto_pad) for total in totals)
        extra = [more + max(-total, 0) for more, total in zip(extra, totals)]
    return getattr(functional, f"conv_transpose{dims}d")(x, w, b, strides, padding, extra, group, dilations)


def begin_end(pads: Any, dims: int) -> tuple[tuple[int, int], ...]:
    """ONNX lists all begins, then all ends."""
    pads = pads or [0] * 2 * dims
    return tuple(zip(pads[:dims], pads[dims:]))


def split(total: int, auto_pad: bytes) -> tuple[int, int]:
    """Of an odd number the end gets one more, but the begin in mode SAME_LOWER."""
    small, large = total // 2, total - total // 2
    return (large, small) if auto_pad == b"SAME_LOWER" else (small, large)


def spans(w: np.ndarray, dilations: list[int]) -> list[int]:
    return [step * (size - 1) + 1 for size, step in zip(w.shape[2:], dilations)]
