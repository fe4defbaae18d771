"""What happens when something is wrong: PyTorch's errors for arguments, clear ones for devices."""

from __future__ import annotations

import os

import numpy as np
import pytest

import grilly
from grilly import Compute, nn, no_grad
from grilly.nn import Conv1d, Conv2d, ConvTranspose2d, functional

X = np.zeros((2, 4, 8, 8), np.float32)
W = np.zeros((6, 4, 3, 3), np.float32)


@pytest.mark.parametrize("options, error, message", [
    ({"groups": 0}, ValueError, "groups must be a positive integer"),
    ({"groups": 3}, ValueError, "in_channels must be divisible by groups"),
    ({"groups": 4}, ValueError, "out_channels must be divisible by groups"),
    ({"padding": "foo"}, ValueError, "Invalid padding string 'foo', should be one of "),
    ({"padding": "same", "stride": 2}, ValueError, "padding='same' is not supported for strided convolutions"),
    ({"padding_mode": "foo"}, ValueError, "padding_mode must be one of {"),
    ({"padding_mode": "foo"}, ValueError, ", but got padding_mode='foo'"),
    ({"kernel_size": -3}, RuntimeError, "negative dimension -3"),
    ({"out_channels": -6}, RuntimeError, "negative dimension -6"),
    ({"kernel_size": 3.0}, TypeError, "integer"),
    ({"in_channels": 4.0}, TypeError, "integer"),
    ({"device": "cuda"}, TypeError, "device is 'cuda', expected a grilly.Compute"),
    ({"dtype": np.float64}, TypeError, "expected float32"),
    ({"dtype": "torch.float16"}, TypeError, "expected float32"),
], ids=str)
@pytest.mark.parametrize("layer", [Conv1d, Conv2d])
def test_constructor(layer, options, error, message):
    with pytest.raises(error) as caught:
        layer(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3, **options})
    assert message in str(caught.value)


def test_missing_arguments():
    with pytest.raises(TypeError, match="kernel_size"):
        Conv2d(4, 6)


@pytest.mark.parametrize("x, w, options, message", [
    (X[0, 0], W, {}, "Expected 3D (unbatched) or 4D (batched) input to conv2d, but got input of size: [8, 8]"),
    (X[:, :3], W, {}, "Given groups=1, weight of size [6, 4, 3, 3], expected input[2, 3, 8, 8] to have 4 channels, but got 3 channels instead"),
    (X[0, :3], W, {}, "expected input[1, 3, 8, 8] to have 4 channels"),
    (X[:, :, :2, :2], W, {}, "Calculated padded input size per channel: (2 x 2). Kernel size: (3 x 3). Kernel size can't be greater than actual input size"),
    (X, W, {"dilation": 4, "padding": (0, 1)}, "input size per channel: (8 x 10). Kernel size: (9 x 9)."),
    (X, W, {"stride": 0}, "non-positive stride is not supported"),
    (X, W, {"padding": -1}, "negative padding is not supported"),
    (X, W, {"dilation": 0}, "non-positive dilation is not supported"),
    (X, W, {"dilation": -1}, "dilation should be greater than zero"),
    (X, W, {"bias": np.zeros(5)}, "Given weight of size [6, 4, 3, 3], expected bias to be 1-dimensional with 6 elements, but got bias of size [5] instead"),
    (X, W[:5, :2], {"groups": 2}, "Given groups=2, expected weight to be divisible by 2 at dimension 0, but got weight of size [[5, 2, 3, 3]] instead"),
    (X, W, {"groups": 0}, "non-positive groups is not supported"),
    (X, W, {"groups": 7}, "Given groups=7, expected weight to be at least 7 at dimension 0, but got weight of size [6, 4, 3, 3] instead"),
    (X, W, {"stride": [1, 1, 1]}, "expected stride to be a single integer value or a list of 2 values to match the convolution dimensions, but got stride=[1, 1, 1]"),
    (X, W[0], {}, "expected stride to be a single integer value or a list of 1 values to match the convolution dimensions, but got stride=[1, 1]"),
    (X, W[0], {"padding": "same"}, "Expected 3-dimensional input for 3-dimensional weight [4, 3, 3], but got 4-dimensional input of size [2, 4, 8, 8] instead"),
    (X, W[0, 0], {}, "weight should have at least three dimensions"),
    (X, W, {"padding": "same", "stride": [1, 1, 1]}, "stride cannot broadcast to 2 dimensions"),
    (X, W, {"padding": ((1, 1), (1, 1), (1, 1))}, "expected padding to be a single integer value or a list of 2 values"),
    (X, W, {"bias": np.zeros(6, complex)}, "Input type (float32) and bias type (complex128) should be the same"),
    (X[:, :, :0], W, {"padding": 2}, "Only zero batch or zero channel inputs are supported, but got input shape: [2, 4, 0, 8]"),
    (X, W, {"padding": "foo"}, "Invalid padding string"),
    (X, W, {"padding": "same", "stride": 2}, "padding='same' is not supported for strided convolutions"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_functional(x, w, options, message):
    with pytest.raises(RuntimeError) as caught:
        functional.conv2d(x, w, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("options, message", [
    ({"output_padding": -1}, "negative output_padding is not supported"),
    ({"dilation": 0}, "dilation should be greater than zero, but got dilation_height: 0, dilation_width: 0"),
    ({"dilation": -1}, "dilation should be greater than zero"),
    ({"output_padding": (1, 0)}, "output padding must be smaller than either stride or dilation, but got output_padding_height: 1 output_padding_width: 0 stride_height: 1 stride_width: 1 dilation_height: 1 dilation_width: 1"),
    ({"padding": 5}, "Given input size per channel: (8 x 8). Calculated output size per channel: (0 x 0). Output size is too small"),
    ({"bias": np.zeros(5)}, "Given transposed=1, weight of size [4, 6, 3, 3], expected bias to be 1-dimensional with 6 elements, but got bias of size [5] instead"),
], ids=str)
def test_transposed_functional(options, message):
    with pytest.raises(RuntimeError) as caught:
        functional.conv_transpose2d(X, W.transpose(1, 0, 2, 3), **options)
    assert message in str(caught.value)


def test_names_of_paddings_are_not_for_transposed_convolutions():
    with pytest.raises(TypeError, match="must be tuple of ints, not str"):
        functional.conv_transpose2d(X, W.transpose(1, 0, 2, 3), padding="same")
    with pytest.raises(TypeError):
        ConvTranspose2d(4, 6, 3, padding="same")


@pytest.mark.parametrize("mode, padding, message", [
    ("reflect", (1, 8), "Padding size should be less than the corresponding input dimension, but got: padding (8, 8) at dimension 3 of input [2, 4, 8, 8]"),
    ("circular", (9, 1), "Padding value causes wrapping around more than once."),
])
def test_padding_modes_have_limits(mode, padding, message):
    with pytest.raises(RuntimeError) as caught:
        Conv2d(4, 6, 3, padding=padding, padding_mode=mode)(X)
    assert message in str(caught.value)


def test_gradients_of_functions_name_both_shapes():
    for call in (
        lambda dy: nn.grad.conv2d_input(X.shape, W, dy), lambda dy: nn.grad.conv2d_weight(X, W.shape, dy),
    ):
        with pytest.raises(RuntimeError, match=r"grad_output has shape \[2, 6, 5, 5\], expected .* \[2, 6, 6, 6\]"):
            call(np.zeros((2, 6, 5, 5)))
    with pytest.raises(RuntimeError, match="Expected 4-dimensional input for 4-dimensional weight"):
        nn.grad.conv2d_input(X.shape[1:], W, np.zeros((6, 6, 6)))


def test_gradients_of_functions_take_sizes_that_are_integers_only():
    dy = np.zeros((2, 6, 6, 6), np.float32)
    nn.grad.conv2d_input(X.shape, W, dy), nn.grad.conv2d_weight(X, W.shape, dy)  # which equal the following
    for size in ((2, 4, 8.0, 8), 3, "2488"):
        with pytest.raises(TypeError):
            nn.grad.conv2d_input(size, W, dy)
    for size in ((6, 4, 3.0, 3), 3, "6433"):
        with pytest.raises(TypeError):
            nn.grad.conv2d_weight(X, size, dy)


def test_conv1d_says_its_own_name():
    with pytest.raises(RuntimeError, match=r"Expected 2D \(unbatched\) or 3D \(batched\) input to conv1d"):
        Conv1d(4, 6, 3)(X)


@pytest.mark.parametrize(
    "x", [X.astype(complex), np.array([["a"]]), None, [[object()]]], ids=["complex", "text", "none", "objects"]
)
def test_what_is_no_array_of_real_numbers(x):
    with pytest.raises(TypeError, match="expected real numbers"):
        Conv2d(4, 6, 3)(x)


def test_masked_arrays_are_refused_wherever_arrays_are_taken():
    masked = np.ma.masked_array(X, mask=X == 0)
    for call in (
        Conv2d(4, 6, 3), grilly.tensor, nn.Parameter, lambda x: functional.conv2d(x, W),
        lambda x: grilly.default_compute().conv.conv2d(X, W, out=x[:, :1]),
        lambda x: Conv2d(4, 6, 3).load_state_dict({"weight": x}, strict=False),
    ):
        with pytest.raises(TypeError, match=r"(input|data|out|weight) is a masked array, expected a value everywhere"):
            call(masked)


@pytest.mark.parametrize("call, error, message", [
    (lambda conv: conv.conv2d(X[0], W), ValueError, "x has 3 dimensions, shape [4, 8, 8], expected 4"),
    (lambda conv: conv.conv2d(X, W, np.zeros((1, 1, 1, 1, 6))), ValueError, "b has 5 dimensions, shape [1, 1, 1"),
    (lambda conv: conv.conv2d(X, W, 0), ValueError, "b has 0 dimensions, shape [], expected 1"),
    (lambda conv: conv.conv2d(X, W, groups=0), RuntimeError, "groups is 0, expected 1 to 2147483647"),
    (lambda conv: conv.conv2d(X, W, groups=-1), RuntimeError, "groups is -1, expected 1 to 2147483647"),
    (lambda conv: conv.conv2d(X, W, groups=1.0), TypeError, "integer"),
    (lambda conv: conv.conv2d(X, W, out=[1]), TypeError, "out is a list, expected an ndarray"),
    (lambda conv: conv.conv2d(X, W, out=grilly.zeros((2, 6, 6, 6))), TypeError, "out is a Tensor, expected an ndarray"),
    (lambda conv: conv.conv2d(X, W, out=np.zeros((2, 6, 6, 6))), TypeError, "out is of dtype float64, expected "),
])
def test_backend_names_what_does_not_fit(call, error, message):
    with pytest.raises(error) as caught:
        call(grilly.default_compute().conv)
    assert message in str(caught.value)


@pytest.mark.parametrize("call, error", [
    (lambda conv: conv.conv2d(X, W, stride=0), RuntimeError),
    (lambda conv: conv.conv2d(X, W, groups=2), RuntimeError),
    (lambda conv: conv.conv2d(X, W, np.zeros(5)), RuntimeError),
    (lambda conv: conv.conv2d(X, W, padding_mode="mirror"), ValueError),
    (lambda conv: conv.conv2d_backward_input(np.zeros((2, 6, 5, 5)), W, X.shape), RuntimeError),
    (lambda conv: conv.conv2d_backward_weight(np.zeros((2, 6, 5, 5)), X, 3), RuntimeError),
    (lambda conv: conv.conv2d_backward_weight(np.zeros((2, 6, 6, 6)), X, 3, groups=0), RuntimeError),
])
@pytest.mark.usefixtures("compute")
def test_backend_refuses_what_does_not_fit(compute, call, error):
    with pytest.raises(error):
        call(compute.conv)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**64 + 1, 2**70])
@pytest.mark.parametrize("option", ["stride", "padding", "dilation", "output_padding", "groups"])
def test_integers_of_more_than_64_bits_are_refused_not_cut(option, value):
    conv, dy = grilly.default_compute().conv, np.zeros((2, 6, 6, 6), np.float32)
    for call in (
        lambda **options: conv.conv2d(X, W, **options),
        lambda **options: conv.conv2d_backward_input(dy, W, X.shape, **options),
        lambda **options: conv.conv2d_backward_weight(dy, X, 3, **options),
    ):
        with pytest.raises(grilly.InvalidArgumentError, match=f"{option} is {value}, expected "):
            call(**{option: value})
    with pytest.raises(grilly.InvalidArgumentError, match=f"kernel_size is {value}, expected "):
        conv.conv2d_backward_weight(dy, X, (3, value))
    if option in ("stride", "padding", "dilation"):
        with pytest.raises(grilly.InvalidArgumentError, match=f"{option} is {value}, expected "):
            conv.conv2d(X, W, **{option: (1, value)})


def test_a_long_stride_of_a_function_is_told_as_it_was_given():
    with pytest.raises(RuntimeError, match=f"stride is {2**70}, expected "):
        functional.conv2d(X, W, stride=2**70)


def test_library_errors_tell_their_status():
    with pytest.raises(grilly.InvalidArgumentError) as caught:
        grilly.default_compute().conv.conv2d(X, W, stride=0)
    error = caught.value
    assert isinstance(error, RuntimeError) and isinstance(error, ValueError)
    assert (error.status, error.name) == (1, "GRILLY_ERROR_INVALID_ARGUMENT")
    assert "stride[0] is 0" in str(error)


class TestBackward:
    def test_before_any_forward(self):
        with pytest.raises(RuntimeError, match=r"Conv2d.backward\(\) needs a forward before it"):
            Conv2d(4, 6, 3).backward(np.zeros((2, 6, 6, 6)))

    def test_wrong_shape_names_both(self):
        conv = Conv2d(4, 6, 3)
        conv(X)
        with pytest.raises(RuntimeError) as caught:
            conv.backward(np.zeros((2, 6, 8, 8)))
        assert "[2, 6, 8, 8]" in str(caught.value) and "[2, 6, 6, 6]" in str(caught.value)

    def test_eval_and_no_grad_keep_nothing(self):
        conv = Conv2d(4, 6, 3)
        y = conv(X)
        with no_grad():
            conv(X)
        with pytest.raises(RuntimeError, match="outside no_grad"):
            conv.backward(y)
        conv(X)
        conv.eval()(X)
        with pytest.raises(RuntimeError, match="in training mode"):
            conv.backward(y)

    def test_a_failed_forward_keeps_nothing(self):
        conv = Conv2d(4, 6, 3)
        y = conv(X)
        with pytest.raises(RuntimeError):
            conv(X[:, :3])
        with pytest.raises(RuntimeError, match="needs a forward"):
            conv.backward(y)

    def test_no_grad_is_a_decorator_and_nests(self):
        @no_grad()
        def inner():
            with no_grad():
                pass
            return grilly.is_grad_enabled()

        assert not inner() and grilly.is_grad_enabled()

    def test_no_grad_is_around_every_step_of_a_generator_and_nothing_else(self):
        seen = []

        @no_grad()
        def steps(first):
            """Of a generator."""
            try:
                got = yield first, grilly.is_grad_enabled()
                try:
                    yield got, grilly.is_grad_enabled()
                except KeyError:
                    yield "caught", grilly.is_grad_enabled()
                return "done"
            finally:
                seen.append(grilly.is_grad_enabled())

        assert steps.__doc__ == "Of a generator."
        generator = steps(1)
        assert next(generator) == (1, False) and grilly.is_grad_enabled()
        assert generator.send(2) == (2, False) and grilly.is_grad_enabled()
        assert generator.throw(KeyError()) == ("caught", False)
        with pytest.raises(StopIteration, match="done"):
            next(generator)
        next(generator := steps(3))
        generator.close()
        assert seen == [False, False] and grilly.is_grad_enabled()
        with pytest.raises(ValueError, match="as asked"):
            next(generator := steps(4)), generator.throw(ValueError("as asked"))


class TestCompute:
    def test_cleanup_twice_and_as_a_context_manager(self):
        with Compute("cpu") as compute:
            compute.cleanup()
            assert compute.closed
        compute.cleanup()

    def test_use_after_cleanup(self):
        compute = Compute("cpu")
        conv = Conv2d(4, 6, 3, device=compute)
        y = conv(X)
        compute.cleanup()
        for use in (lambda: conv(X), lambda: compute.conv.conv2d(X, W), compute.stats, compute.trim):
            with pytest.raises(RuntimeError, match="closed by cleanup"):
                use()
        with pytest.raises(RuntimeError):
            conv.backward(y)

    def test_backward_after_cleanup(self):
        compute = Compute("cpu")
        conv = Conv2d(4, 6, 3, device=compute)
        y = conv(X)
        compute.cleanup()
        with pytest.raises(RuntimeError, match="closed by cleanup"):
            conv.backward(y)

    def test_other_layers_go_on_after_cleanup(self):
        conv = Conv2d(4, 6, 3)
        conv(X)
        Compute("cpu").cleanup()
        assert conv(X).shape == (2, 6, 6, 6)

    @pytest.mark.parametrize("device, error", [
        (-3, ValueError), ("cuda", ValueError), (2**31, ValueError), (1.5, TypeError), (999, grilly.GrillyError),
    ])
    def test_devices_that_are_none(self, device, error):
        with pytest.raises(error):
            Compute(device)

    @pytest.mark.parametrize("option, values", [("threads", (-1, 2**32)), ("memory_budget", (-1, 2**64))])
    def test_limits_that_do_not_fit_are_refused_not_cut(self, option, values):
        for value in values:
            with pytest.raises(grilly.InvalidArgumentError, match=f"{option} is {value}, expected 0 to "):
                Compute("cpu", **{option: value})

    def test_the_cpu_device_is_listed_last(self):
        last = grilly.devices()[-1]
        assert last.kind == "cpu" and not last.is_vulkan
        with Compute(last.index) as compute:
            assert compute.device.kind == "cpu"

    def test_a_memory_budget_is_kept(self):
        with Compute("cpu", memory_budget=1 << 20) as compute:
            with pytest.raises(grilly.OutOfMemoryError) as caught:
                grilly.zeros(1 << 20, compute)
            assert isinstance(caught.value, MemoryError)


RUN_ONE_LAYER = "import numpy as np; from grilly.nn import Conv2d; print(Conv2d(1, 1, 1)(np.ones((1, 1, 2, 2))).shape)"


class TestProcess:
    @pytest.mark.parametrize("index", ["99", "-1", "x", ""])
    def test_an_index_that_is_none_is_an_error_and_no_crash(self, python, index):
        result = python("-c", RUN_ONE_LAYER, VK_GPU_INDEX=index)
        assert result.returncode == 1
        assert "GrillyError" in result.stderr and "VK_GPU_INDEX" in result.stderr

    def test_no_driver(self, python):
        result = python("-W", "error", "-c", RUN_ONE_LAYER, VK_DRIVER_FILES="/nowhere", VK_ICD_FILENAMES="/nowhere")
        assert (result.returncode, result.stdout, result.stderr) == (0, "(1, 1, 2, 2)\n", "")

    def test_no_loader(self, python):
        result = python("-W", "error", "-c", RUN_ONE_LAYER, GRILLY_VULKAN_LOADER="/nowhere/libvulkan.so.1")
        assert (result.returncode, result.stdout, result.stderr) == (0, "(1, 1, 2, 2)\n", "")
        result = python("-c", RUN_ONE_LAYER, GRILLY_VULKAN_LOADER="/nowhere/libvulkan.so.1", VK_GPU_INDEX="0")
        assert result.returncode == 1 and "no Vulkan loader" in result.stderr

    def test_self_test(self, python):
        result = python("-m", "grilly", VK_DRIVER_FILES="/nowhere", VK_ICD_FILENAMES="/nowhere")
        assert result.returncode == 0, result.stdout + result.stderr
        assert "chosen " in result.stdout and "because " in result.stdout and "all correct" in result.stdout
        assert python("-m", "grilly", VK_GPU_INDEX="99").returncode == 1

    @pytest.mark.skipif(not any(device.kind == "software" for device in grilly.devices()), reason="no software driver")
    def test_a_driver_passed_over_is_told_once(self, python):
        code = RUN_ONE_LAYER + "; import grilly; grilly.default_compute().cleanup(); grilly.Compute()"
        hardware = [d for d in grilly.devices() if d.kind in ("discrete", "integrated", "virtual") and not d.note]
        if hardware:
            pytest.skip("a GPU is chosen here")
        result = python("-c", code)
        assert result.returncode == 0
        assert result.stderr.count("DeviceWarning: grilly computes on the CPU") == 1

    def test_a_missing_library_is_an_import_error_that_names_the_place(self, python, tmp_path):
        result = python("-c", "import grilly", GRILLY_LIBRARY=str(tmp_path / "none.so"))
        assert result.returncode == 1
        assert "ImportError" in result.stderr and str(tmp_path / "none.so") in result.stderr
        wrong = tmp_path / "wrong.so"
        wrong.write_text("not a library")
        assert "ImportError" in python("-c", "import grilly", GRILLY_LIBRARY=str(wrong)).stderr

    def test_exit_with_everything_alive(self, python):
        code = (
            "import numpy as np, grilly, threading; from grilly.nn import Conv2d\n"
            "conv = Conv2d(1, 1, 1); y = conv(np.ones((1, 1, 2, 2))); compute = grilly.Compute()\n"
            "cycle = [conv, compute]; cycle.append(cycle)\n"
        )
        result = python("-W", "ignore", "-c", code)
        assert (result.returncode, result.stderr) == (0, "")

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
    def test_a_child_computes_with_its_parents_layers(self, python):
        code = (
            "import os, sys, gc, numpy as np; from grilly.nn import Conv2d\n"
            "conv, x = Conv2d(1, 1, 1), np.ones((1, 1, 2, 2)); y = conv(x)\n"
            "pid = os.fork()\n"
            "assert np.array_equal(conv(x), y)\n"
            "conv.backward(y)\n"
            "gc.collect()\n"
            "if pid: sys.exit(os.waitpid(pid, 0)[1])\n"
        )
        result = python("-W", "ignore", "-c", code)
        assert (result.returncode, result.stderr) == (0, "")
