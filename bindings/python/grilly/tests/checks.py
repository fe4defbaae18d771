"""What tests need, and comparing layers with the float64 reference."""

from __future__ import annotations

import dataclasses
import importlib
import os
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from grilly._reference import Reference


def required(name: str) -> ModuleType:
    """A package that the importing module's tests need. Where there is none they are skipped, but in CI they fail."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"needs {name}: {error}", allow_module_level=True)


def options_of(reference: Reference) -> dict[str, Any]:
    """The reference's sizes as keyword arguments of the backend and of functions."""
    return {field.name: getattr(reference, field.name) for field in dataclasses.fields(reference)}


def reference_of(layer: Any) -> Reference:
    """The convolution that a layer does, in two dimensions, computed from its attributes."""
    def pairs(values: tuple, filler: int) -> tuple[int, int]:
        return (filler,) * (2 - len(values)) + tuple(values)

    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(pairs(layer.dilation, 1), pairs(layer.kernel_size, 1))]
        padding = tuple((total // 2, total - total // 2) for total in totals)
    else:
        sizes = (0,) * len(layer.kernel_size) if layer.padding == "valid" else layer.padding
        padding = tuple((size, size) for size in pairs(sizes, 0))
    return Reference(
        pairs(layer.stride, 1), padding, pairs(layer.dilation, 1), layer.groups, layer.padding_mode, layer.transposed,
        pairs(layer.output_padding, 0),
    )


def images(layer: Any, array: np.ndarray) -> np.ndarray:
    """An input, output or weight of the layer as NCHW."""
    dims = len(layer.kernel_size)
    batch = array if array.ndim == dims + 2 else array[None]
    return batch.reshape(*batch.shape[:2], 1, -1) if dims == 1 else batch


def check_forward(layer: Any, x: np.ndarray, y: np.ndarray) -> None:
    """`y` is what the layer must make of `x`, within the accuracy contract."""
    x = images(layer, np.asarray(x, np.float32))
    bias = None if layer.bias is None else layer.bias.data
    expected = reference_of(layer).forward(x, images(layer, layer.weight.data), bias)
    assert expected.worst(images(layer, y)) <= 1


def check_backward(layer: Any, x: np.ndarray, dy: np.ndarray) -> None:
    """The layer's three gradients, right after `layer(x)`, are within the accuracy contract."""
    layer.zero_grad()
    dx = layer.backward(dy)
    assert dx.shape == x.shape
    reference, weight = reference_of(layer), images(layer, layer.weight.data)
    x4, dy4 = images(layer, np.asarray(x, np.float32)), images(layer, np.asarray(dy, np.float32))
    assert reference.backward_input(dy4, weight, x4.shape).worst(images(layer, dx)) <= 1
    dw = reference.backward_weight(dy4, x4, weight.shape[2:])
    assert layer.weight.grad.shape == layer.weight.shape
    assert dw.worst(images(layer, layer.weight.grad)) <= 1
    if layer.bias is not None:
        assert reference.backward_bias(dy4).worst(layer.bias.grad) <= 1


def check_layer(layer: Any, x: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Forward and backward of one layer; returns the output."""
    y = layer(x)
    check_forward(layer, x, y)
    check_backward(layer, x, rng.standard_normal(y.shape).astype(np.float32))
    return y
