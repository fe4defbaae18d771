"""PyTorch's own tests of its convolutions: samples and error inputs of its operator database, and its module specs."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from grilly.nn import functional
from grilly.tests.checks import required
from grilly.tests.pytorch import check_against, check_close, torch

_INTERNAL = "torch.testing._internal"
OPERATORS = {
    operator.name.rpartition(".")[2]: operator
    for operator in required(f"{_INTERNAL}.common_methods_invocations").op_db
    if re.fullmatch(r"nn\.functional\.conv(_transpose)?[12]d", operator.name)
}
SAMPLES = {
    f"{name}_{index}": (name, sample)
    for name, operator in OPERATORS.items()
    for index, sample in enumerate(operator.sample_inputs("cpu", torch.float32))
}
ERRORS = {
    f"{name}_{index}": (name, error)
    for name, operator in OPERATORS.items() if operator.error_inputs_func
    for index, error in enumerate(operator.error_inputs("cpu"))
}
#: Error inputs that are none here: integers beside floating-point numbers, since both are converted to float32.
ALLOWED = {
    key for key, (_, error) in ERRORS.items()
    if not error.sample_input.input.is_floating_point() and error.error_regex == "should be the same"
}

_nn = required(f"{_INTERNAL}.common_nn")
SPECS = {
    name: spec
    for spec in [
        *_nn.module_tests,
        *(_nn.new_module_tests if hasattr(_nn, "new_module_tests") else _nn.get_new_module_tests()),
    ]
    for name in ["_".join(filter(None, (spec.get("fullname") or spec["module_name"], spec.get("desc"))))]
    if re.match(r"Conv(Transpose)?[123]d", name)
}
#: Three-dimensional convolutions are not supported.
UNSUPPORTED = {
    "Conv3d", "Conv3d_1x1x1_no_bias", "Conv3d_circular_stride2_pad2", "Conv3d_dilated", "Conv3d_dilated_strided",
    "Conv3d_groups", "Conv3d_no_bias", "Conv3d_pad_same", "Conv3d_pad_same_dilated", "Conv3d_pad_valid",
    "Conv3d_replicate_stride2_pad2", "Conv3d_stride", "Conv3d_stride_padding", "Conv3d_zero_batch",
    "Conv3d_zeros_stride2_pad2", "ConvTranspose3d", "ConvTranspose3d_dilated",
}


def test_all_of_them_are_here() -> None:
    """The counts of PyTorch 1.13, which later releases do not fall below."""
    count = {name: sum(key.startswith(f"{name}_") for key in SAMPLES) for name in OPERATORS}
    least = {"conv1d": 10, "conv2d": 30, "conv_transpose1d": 10, "conv_transpose2d": 12}
    assert count.keys() == least.keys() and all(count[name] >= least[name] for name in least)
    assert len(ERRORS) >= 4 and 1 <= len(ALLOWED) <= 2
    assert len(SPECS) >= 62 and UNSUPPORTED < SPECS.keys()
    if torch.__version__.startswith("1.13."):
        assert count == least and len(ERRORS) == 4 and len(SPECS) == 62 and len(UNSUPPORTED) == 17


@pytest.mark.usefixtures("compute")
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("key", SAMPLES)
def test_sample(key: str, rng) -> None:
    """The function's output is PyTorch's, and so are output and gradients of a layer of the same options."""
    name, sample = SAMPLES[key]
    # They are drawn from -9 to 9, and the tolerances are meant for values about 1.
    x, weight, bias = (None if tensor is None else tensor.detach() / 9 for tensor in (sample.input, *sample.args))
    expected = OPERATORS[name](x, weight, bias, **sample.kwargs)
    got = getattr(functional, name)(*map(ndarray, (x, weight, bias)), **sample.kwargs)
    check_close(got, expected, key, rtol=1e-4, atol=1e-5)

    outer, inner = weight.shape[0], weight.shape[1] * sample.kwargs.get("groups", 1)
    channels = (outer, inner) if "transpose" in name else (inner, outer)
    layer_name = name.title().replace("_T", "T").replace("D", "d")
    layer = getattr(torch.nn, layer_name)(
        *channels, tuple(weight.shape[2:]), bias=bias is not None, **sample.kwargs
    )
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    check_against(layer, ndarray(x), rng)


@pytest.mark.usefixtures("compute")
@pytest.mark.parametrize("key", sorted(ERRORS.keys() - ALLOWED))
def test_error_input(key: str) -> None:
    name, error = ERRORS[key]
    sample = error.sample_input
    with pytest.raises(error.error_type, match=error.error_regex):
        getattr(functional, name)(ndarray(sample.input), *map(ndarray, sample.args), **{
            option: ndarray(value) for option, value in sample.kwargs.items()
        })


@pytest.mark.usefixtures("compute")
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", sorted(SPECS.keys() - UNSUPPORTED))
def test_module_spec(name: str, rng) -> None:
    spec = SPECS[name]
    make = spec.get("constructor") or getattr(torch.nn, spec.get("module_name", ""))
    layer = make(*spec.get("constructor_args", ()))
    y = check_against(layer, rng.standard_normal(spec["input_size"]).astype(np.float32), rng)
    assert y.shape == tuple(spec.get("output_size", y.shape))


def ndarray(value: Any) -> Any:
    return value.numpy() if isinstance(value, torch.Tensor) else value
