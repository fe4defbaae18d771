"""Conv2d, Conv1d and their transposes: shapes, values, gradients, and speed."""

from __future__ import annotations

import importlib
import timeit

import numpy as np
import pytest

import grilly
from grilly import Compute
from grilly.nn import Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d, Module, functional, grad
from grilly.tests.checks import check_backward, check_forward, check_layer


def normal(rng: np.random.RandomState, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.usefixtures("compute")
class TestConv2dBasic:
    def test_conv2d_import(self):
        names = {
            "grilly": ["Compute", "functional"], "grilly.backend.conv": ["VulkanConv"],
            "grilly.nn": ["Conv1d", "Conv2d", "Module", "Parameter", "functional"], "grilly.functional": ["conv2d"],
        }
        for module, attributes in names.items():
            for attribute in attributes:
                assert hasattr(importlib.import_module(module), attribute)

    def test_conv2d_init(self):
        conv = Conv2d(3, 16, kernel_size=3, stride=1, padding=1)
        assert (conv.in_channels, conv.out_channels, conv.groups) == (3, 16, 1)
        assert conv.kernel_size == (3, 3)
        assert conv.stride == conv.padding == conv.dilation == (1, 1)
        assert conv.weight.shape == (16, 3, 3, 3)
        assert conv.bias.shape == (16,)

    def test_conv2d_forward_shape(self, rng):
        conv = Conv2d(3, 16, kernel_size=3, stride=1, padding=1)
        y = conv(normal(rng, 8, 3, 64, 64))
        assert y.shape == (8, 16, 64, 64)
        assert y.dtype == np.float32

    @pytest.mark.parametrize("stride", [2, 3, (2, 1), (1, 3)])
    @pytest.mark.parametrize("kernel", [1, 3, (2, 4)])
    def test_conv2d_stride(self, rng, stride, kernel):
        check_layer(Conv2d(4, 6, kernel, stride=stride, padding=1), normal(rng, 2, 4, 13, 12), rng)

    def test_stride_2_halves_the_image(self, rng):
        y = Conv2d(16, 32, 3, stride=2, padding=1)(normal(rng, 4, 16, 56, 56))
        assert y.shape == (4, 32, 28, 28)

    def test_conv2d_no_bias(self, rng):
        conv = Conv2d(4, 6, 3, bias=False)
        assert conv.bias is None
        check_layer(conv, normal(rng, 2, 4, 9, 9), rng)

    @pytest.mark.parametrize("groups", [2, 4])
    def test_conv2d_groups(self, rng, groups):
        conv = Conv2d(8, 12, 3, padding=1, groups=groups)
        assert conv.weight.shape == (12, 8 // groups, 3, 3)
        check_layer(conv, normal(rng, 2, 8, 9, 9), rng)

    def test_groups_do_not_mix(self, rng):
        conv, x = Conv2d(4, 4, 3, groups=2, bias=False), normal(rng, 1, 4, 6, 6)
        before = conv(x)
        x[:, 2:] = 0
        np.testing.assert_array_equal(conv(x)[:, :2], before[:, :2])
        assert not conv(x)[:, 2:].any()

    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("multiplier", [1, 2])
    def test_conv2d_depthwise(self, rng, stride, multiplier):
        conv = Conv2d(8, 8 * multiplier, 3, stride=stride, padding=1, groups=8)
        assert conv.weight.shape == (8 * multiplier, 1, 3, 3)
        check_layer(conv, normal(rng, 2, 8, 11, 10), rng)

    def test_depthwise_separable(self, rng):
        depthwise, pointwise = Conv2d(8, 8, 3, padding=1, groups=8, bias=False), Conv2d(8, 16, 1)
        x = normal(rng, 2, 8, 12, 12)
        check_layer(pointwise, check_layer(depthwise, x, rng), rng)

    @pytest.mark.parametrize("dilation", [2, 3, (1, 4), (3, 2)])
    def test_conv2d_dilation(self, rng, dilation):
        check_layer(Conv2d(4, 6, 3, dilation=dilation, padding=2), normal(rng, 2, 4, 13, 14), rng)

    def test_dilated_same_padding_keeps_the_size(self, rng):
        y = check_layer(Conv2d(2, 3, (4, 3), padding="same", dilation=(3, 2)), normal(rng, 1, 2, 17, 9), rng)
        assert y.shape == (1, 3, 17, 9)

    @pytest.mark.parametrize("kernel", [(3, 5), (1, 7), (7, 1), (2, 3)])
    def test_conv2d_nonsquare_kernel(self, rng, kernel):
        conv = Conv2d(4, 6, kernel, padding=(1, 2))
        assert conv.kernel_size == kernel and conv.weight.shape == (6, 4, *kernel)
        check_layer(conv, normal(rng, 2, 4, 11, 13), rng)

    @pytest.mark.parametrize("kernel", [1, 2, 3, 5, 7])
    def test_square_kernels(self, rng, kernel):
        check_layer(Conv2d(4, 6, kernel), normal(rng, 2, 4, 11, 13), rng)

    @pytest.mark.parametrize("padding", [0, 2, (1, 2), "same", "valid", ((1, 0), (2, 1))])
    @pytest.mark.parametrize("kernel", [3, 4, (2, 5)])
    def test_padding(self, rng, padding, kernel):
        conv = Conv2d(3, 5, kernel, padding=padding)
        x = normal(rng, 2, 3, 9, 11)
        if isinstance(padding, tuple) and isinstance(padding[0], tuple):
            padded = Conv2d(3, 5, kernel)
            padded.load_state_dict(conv.state_dict())
            np.testing.assert_allclose(conv(x), padded(np.pad(x, ((0, 0), (0, 0), *padding))), rtol=1e-5, atol=1e-5)
        else:
            y = check_layer(conv, x, rng)
            assert padding != "same" or y.shape[2:] == x.shape[2:]

    @pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8, np.bool_, ">f4"])
    def test_other_real_types_are_converted_to_float32(self, rng, dtype):
        conv = Conv2d(2, 3, 3)
        x = (normal(rng, 1, 2, 6, 6) * 10).astype(dtype)
        y = conv(x)
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y, conv(x.astype(np.float32)))

    @pytest.mark.parametrize("view", [
        lambda x: x.transpose(0, 1, 3, 2), lambda x: x[:, :, ::-1, ::-2], lambda x: x[::2, 1:, 1:, :-1],
        lambda x: np.asfortranarray(x), lambda x: np.broadcast_to(x[:1, :1], x.shape),
        lambda x: np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, 3)), 3, 1),
    ], ids=["transposed", "reversed", "sliced", "fortran", "broadcast", "channels_last"])
    def test_strided_views_need_no_copy(self, rng, view):
        x = view(normal(rng, 4, 4, 9, 9))
        conv = Conv2d(x.shape[1], 6, 3)
        for layer in (conv, conv.eval()):
            np.testing.assert_array_equal(layer(x), conv(np.ascontiguousarray(x)))
        check_layer(conv.train(), x, rng)

    def test_strided_weights_are_seen_as_they_are(self, rng):
        conv = Conv2d(4, 6, 3)
        conv.weight.data = normal(rng, 3, 3, 4, 6).transpose(3, 2, 0, 1)
        check_layer(conv, normal(rng, 1, 4, 7, 7), rng)

    def test_the_same_call_gives_the_same_bits(self, rng):
        conv, x = Conv2d(16, 16, 3), normal(rng, 2, 16, 12, 12)
        np.testing.assert_array_equal(conv(x), conv(x))


@pytest.mark.usefixtures("compute")
class TestConv2dEdgeCases:
    def test_conv2d_1x1_kernel(self, rng):
        conv = Conv2d(16, 32, kernel_size=1)
        assert conv.kernel_size == (1, 1)
        assert check_layer(conv, normal(rng, 2, 16, 12, 12), rng).shape == (2, 32, 12, 12)

    def test_conv2d_large_padding(self, rng):
        y = check_layer(Conv2d(3, 16, kernel_size=3, padding=5), normal(rng, 2, 3, 16, 16), rng)
        assert y.shape == (2, 16, 24, 24)

    def test_conv2d_single_channel(self, rng):
        assert check_layer(Conv2d(1, 1, 3, padding=1), normal(rng, 2, 1, 32, 32), rng).shape == (2, 1, 32, 32)

    def test_conv2d_batch_size_1(self, rng):
        assert check_layer(Conv2d(3, 16, 3, padding=1), normal(rng, 1, 3, 32, 32), rng).shape == (1, 16, 32, 32)

    def test_unbatched_input_gives_unbatched_output(self, rng):
        conv = Conv2d(3, 5, 3, padding=1)
        x = normal(rng, 3, 8, 9)
        y = check_layer(conv, x, rng)
        assert y.shape == (5, 8, 9)
        np.testing.assert_array_equal(y, conv(x[None])[0])

    def test_an_empty_batch_gives_an_empty_output_and_zero_gradients(self):
        conv = Conv2d(3, 5, 3)
        y = conv(np.empty((0, 3, 8, 8), np.float32))
        assert y.shape == (0, 5, 6, 6)
        assert conv.backward(y).shape == (0, 3, 8, 8)
        assert not conv.weight.grad.any() and not conv.bias.grad.any()


@pytest.mark.usefixtures("compute")
class TestConv1d:
    def test_conv1d_import(self):
        assert issubclass(importlib.import_module("grilly.nn").Conv1d, Module)

    def test_conv1d_forward(self, rng):
        y = check_layer(Conv1d(16, 32, kernel_size=3, padding=1), normal(rng, 2, 16, 100), rng)
        assert y.shape == (2, 32, 100)

    def test_conv1d_stride(self, rng):
        y = check_layer(Conv1d(16, 32, kernel_size=3, stride=2, padding=1), normal(rng, 2, 16, 100), rng)
        assert y.shape == (2, 32, 50)

    @pytest.mark.parametrize("options", [
        {}, {"padding": 2}, {"stride": 3, "padding": 1}, {"dilation": 4, "padding": 4}, {"groups": 4},
        {"padding": "same"}, {"padding": "same", "dilation": 2}, {"bias": False, "kernel_size": 4},
    ], ids=str)
    def test_conv1d(self, rng, options):
        conv = Conv1d(8, 12, **{"kernel_size": 5, **options})
        assert conv.weight.ndim == 3
        check_layer(conv, normal(rng, 3, 8, 40), rng)

    def test_unbatched(self, rng):
        assert check_layer(Conv1d(4, 6, 3), normal(rng, 4, 20), rng).shape == (6, 18)

    def test_conv1d_is_conv2d_of_height_1(self, rng):
        x, w, b = normal(rng, 2, 4, 30), normal(rng, 6, 2, 3), normal(rng, 6)
        narrow = functional.conv1d(x, w, b, stride=2, padding=1, dilation=3, groups=2)
        flat = functional.conv2d(x[:, :, None], w[:, :, None], b, (1, 2), (0, 1), (1, 3), 2)
        np.testing.assert_array_equal(narrow, flat[:, :, 0])

    def test_ends_may_be_padded_apart(self, rng):
        x, w = normal(rng, 2, 4, 30), normal(rng, 6, 4, 3)
        causal = functional.conv1d(x, w, padding=((2, 0),))
        expected = functional.conv1d(np.pad(x, ((0, 0), (0, 0), (2, 0))), w)
        np.testing.assert_allclose(causal, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("compute")
class TestPaddingModes:
    @pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
    @pytest.mark.parametrize("options", [
        {}, {"stride": 2}, {"dilation": 2, "groups": 2}, {"padding": "same", "kernel_size": (2, 3)}, {"padding": 0},
    ], ids=str)
    def test_padding_mode(self, rng, mode, options):
        conv = Conv2d(4, 6, **{"kernel_size": 3, "padding": (1, 3), "padding_mode": mode, **options})
        check_layer(conv, normal(rng, 2, 4, 7, 8), rng)

    @pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
    def test_in_one_dimension_and_without_a_batch(self, rng, mode):
        check_layer(Conv1d(4, 6, 4, padding=3, padding_mode=mode), normal(rng, 4, 9), rng)

    def test_an_image_smaller_than_its_padding_is_replicated(self, rng):
        conv = Conv2d(1, 1, 1, padding=5, padding_mode="replicate", bias=False)
        x = normal(rng, 1, 1, 1, 2)
        np.testing.assert_array_equal(conv(x), np.pad(x, ((0, 0), (0, 0), (5, 5), (5, 5)), "edge") * conv.weight.data)


@pytest.mark.usefixtures("compute")
class TestConvTranspose:
    @pytest.mark.parametrize("options", [
        {}, {"stride": 2, "padding": 1, "output_padding": 1}, {"stride": (3, 2), "groups": 2, "bias": False},
        {"dilation": 3, "output_padding": 2}, {"groups": 4, "padding": (2, 0)}, {"kernel_size": (1, 4)},
    ], ids=str)
    def test_conv_transpose2d(self, rng, options):
        conv = ConvTranspose2d(4, 8, **{"kernel_size": 3, **options})
        assert conv.weight.shape == (4, 8 // conv.groups, *conv.kernel_size)
        check_layer(conv, normal(rng, 2, 4, 6, 5), rng)

    def test_conv_transpose1d(self, rng):
        conv = ConvTranspose1d(4, 6, 5, stride=3, padding=1, output_padding=2, groups=2)
        assert check_layer(conv, normal(rng, 4, 10), rng).shape == (6, 32)

    def test_output_size_undoes_a_stride(self, rng):
        down, up = Conv2d(3, 5, 3, stride=3, padding=1), ConvTranspose2d(5, 3, 3, stride=3, padding=1)
        for size in [(12, 13), (11, 10)]:
            x = normal(rng, 2, 3, *size)
            assert up(down(x), output_size=size).shape == up(down(x), output_size=x.shape).shape == x.shape

    def test_it_is_the_gradient_of_a_convolution(self, rng):
        x, w, dy = normal(rng, 2, 4, 9, 8), normal(rng, 6, 2, 3, 3), normal(rng, 2, 6, 5, 4)
        options = {"stride": 2, "padding": 1, "groups": 2}
        transposed = functional.conv_transpose2d(dy, w, output_padding=(0, 1), **options)
        np.testing.assert_array_equal(transposed, grad.conv2d_input(x.shape, w, dy, **options))

    def test_gradients_accumulate_and_may_be_left_out(self, rng):
        conv, x = ConvTranspose2d(3, 4, 3, stride=2), normal(rng, 2, 3, 5, 5)
        dy = normal(rng, *conv(x).shape)
        dx = conv.backward(dy)
        once = conv.weight.grad.copy()
        conv.bias.requires_grad = False
        before = conv.bias.grad.copy()
        conv(x)
        np.testing.assert_array_equal(conv.backward(dy), dx)
        np.testing.assert_array_equal(conv.weight.grad, 2 * once)
        np.testing.assert_array_equal(conv.bias.grad, before)

    def test_an_empty_batch(self):
        conv = ConvTranspose2d(3, 5, 3)
        assert conv(np.empty((0, 3, 4, 4))).shape == (0, 5, 6, 6)
        assert conv.backward(np.empty((0, 5, 6, 6))).shape == (0, 3, 4, 4)
        assert not conv.weight.grad.any() and not conv.bias.grad.any()


@pytest.mark.usefixtures("compute")
class TestConv2dBackward:
    def test_gradients_accumulate(self, rng):
        conv, x = Conv2d(3, 4, 3), normal(rng, 2, 3, 8, 8)
        dy = normal(rng, *conv(x).shape)
        conv.backward(dy)
        once = conv.weight.grad.copy(), conv.bias.grad.copy()
        conv(x)
        conv.backward(dy)
        np.testing.assert_array_equal(conv.weight.grad, 2 * once[0])
        np.testing.assert_array_equal(conv.bias.grad, 2 * once[1])

    def test_editing_the_input_afterwards_changes_nothing(self, rng):
        conv, x = Conv2d(3, 4, 3), normal(rng, 2, 3, 8, 8)
        original, y = x.copy(), conv(x)
        x[:] = 99
        check_backward(conv, original, normal(rng, *y.shape))

    def test_backward_uses_the_latest_forward(self, rng):
        conv, old, new = Conv2d(3, 4, 3), normal(rng, 2, 3, 8, 8), normal(rng, 1, 3, 6, 6)
        conv(old)
        y = conv(new)
        check_backward(conv, new, normal(rng, *y.shape))
        y = conv(2 * new)
        check_backward(conv, 2 * new, normal(rng, *y.shape))

    def test_strided_output_gradients(self, rng):
        conv, x = Conv2d(3, 4, 3), normal(rng, 2, 3, 8, 8)
        y = conv(x)
        check_backward(conv, x, normal(rng, *y.shape[::-1]).transpose(3, 2, 1, 0)[:, :, ::-1])
        check_backward(conv, x, np.broadcast_to(np.float32(1), y.shape))

    @pytest.mark.parametrize("frozen", ["weight", "bias"])
    def test_frozen_parameters_get_no_gradient(self, rng, frozen):
        conv, x = Conv2d(3, 4, 3), normal(rng, 2, 3, 8, 8)
        y = conv(x)
        dy = normal(rng, *y.shape)
        dx = conv.backward(dy)
        grads = {name: parameter.grad for name, parameter in conv.named_parameters()}
        conv.zero_grad()
        getattr(conv, frozen).requires_grad = False
        conv(x)
        np.testing.assert_array_equal(conv.backward(dy), dx)
        for name, parameter in conv.named_parameters():
            if name == frozen:
                assert parameter.grad is None
            else:
                np.testing.assert_allclose(parameter.grad, grads[name], rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("name", ["weight", "bias"])
    def test_a_gradient_must_be_wanted_in_forward_and_in_backward(self, rng, name):
        conv, x = Conv2d(3, 4, 3), normal(rng, 2, 3, 8, 8)
        parameter = getattr(conv, name)
        for in_forward, in_backward in ((True, False), (False, True)):
            parameter.requires_grad = in_forward
            y = conv(x)
            parameter.requires_grad = in_backward
            conv.backward(y)
            assert parameter.grad is None, (in_forward, in_backward)

    def test_gradients_are_those_of_finite_differences(self, rng):
        conv, x = Conv2d(2, 3, 3, stride=2, padding=1, groups=1), normal(rng, 1, 2, 7, 7)
        y = conv(x)
        dy = normal(rng, *y.shape)
        dx = conv.backward(dy)
        for parameter, gradient in ((x, dx), (conv.weight.data, conv.weight.grad), (conv.bias.data, conv.bias.grad)):
            flat = parameter.reshape(-1)
            for index in rng.randint(flat.size, size=5):
                # The convolution is linear in each operand, so a step of any size is exact.
                value, outputs = flat[index], []
                for step in (0.5, -0.5):
                    flat[index] = value + step
                    outputs.append(conv(x).astype(np.float64))
                flat[index] = value
                assert np.sum((outputs[0] - outputs[1]) * dy) == pytest.approx(gradient.reshape(-1)[index], abs=1e-4)

    def test_several_threads_each_with_a_layer(self, rng):
        from concurrent.futures import ThreadPoolExecutor
        seeds = range(8)

        def work(seed: int) -> None:
            local = np.random.RandomState(seed)
            for _ in range(5):
                check_layer(Conv2d(4, 4, 3), normal(local, 1, 4, 8 + seed, 9), local)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, seeds))

    def test_one_layer_called_from_several_threads(self, rng):
        from concurrent.futures import ThreadPoolExecutor
        conv = Conv2d(4, 6, 3)
        inputs = [normal(rng, 2, 4, 10, 10) for _ in range(32)]
        with ThreadPoolExecutor(4) as pool:
            for x, y in zip(inputs, pool.map(conv, inputs)):
                check_forward(conv, x, y)


#: Arguments of Conv2d, and the shape of an input.
PYTORCH_CASES = [
    ((3, 16, 3), {"padding": 1}, (2, 3, 16, 16)),
    ((16, 32, 3), {"stride": 2, "padding": 1}, (2, 16, 14, 14)),
    ((16, 16, 3), {"padding": 1, "groups": 16, "bias": False}, (2, 16, 12, 12)),
    ((32, 64, 1), {}, (2, 32, 8, 8)),
    ((16, 32, 3), {"padding": 1, "groups": 2}, (2, 16, 12, 12)),
    ((8, 8, 3), {"padding": 2, "dilation": 2}, (2, 8, 12, 12)),
    ((8, 8, (3, 5)), {"padding": (1, 2)}, (2, 8, 10, 20)),
    ((8, 8, (2, 4)), {"padding": "same"}, (2, 8, 10, 11)),
    ((3, 16, 7), {"stride": (2, 3), "padding": 3}, (1, 3, 32, 32)),
]


@pytest.fixture
def against_pytorch():
    """`check_against` of `grilly.tests.pytorch`, which needs a real PyTorch."""
    from grilly.tests import pytorch
    return pytorch.check_against


@pytest.mark.usefixtures("compute")
@pytest.mark.filterwarnings("ignore:Using padding='same'")
class TestConv2dVsPyTorch:
    """Outputs within rtol 1e-4 and atol 1e-5, gradients within 1e-3 and 1e-4; `test_torch.py` has many more."""

    def test_conv2d_correctness_basic(self, rng, against_pytorch):
        self.check(rng, against_pytorch, (3, 8, 3), {"padding": 1}, (2, 3, 16, 16))

    def test_conv2d_correctness_stride(self, rng, against_pytorch):
        self.check(rng, against_pytorch, (3, 16, 3), {"stride": 2, "padding": 1}, (2, 3, 32, 32))

    def test_conv2d_correctness_groups(self, rng, against_pytorch):
        self.check(rng, against_pytorch, (4, 8, 3), {"groups": 2, "padding": 1}, (2, 4, 16, 16))

    @pytest.mark.parametrize("args, kwargs, shape", PYTORCH_CASES, ids=str)
    def test_conv2d_backward_correctness(self, rng, against_pytorch, args, kwargs, shape):
        self.check(rng, against_pytorch, args, kwargs, shape)

    @staticmethod
    def check(rng, against_pytorch, args, kwargs, shape):
        import torch
        torch.manual_seed(42)
        against_pytorch(torch.nn.Conv2d(*args, **kwargs), normal(rng, *shape), rng)

    def test_initial_values_are_those_that_pytorch_prints(self):
        # torch.manual_seed(0); torch.nn.Conv2d(1, 1, 3)
        grilly.manual_seed(0)
        weight = Conv2d(1, 1, 3).weight
        printed = [[-0.0025, 0.1788, -0.2743], [-0.2453, -0.1284, 0.0894], [-0.0066, 0.2643, -0.0296]]
        np.testing.assert_array_equal(np.round(weight[0, 0], 4), np.float32(printed))


@pytest.mark.benchmark
class TestConv2dPerformance:
    """The layers of the documentation's benchmark table and some more, from NumPy to NumPy. Software drivers get one
    image."""

    def test_conv2d_benchmark_small(self, compute: Compute, rng, benchmark):
        self.measure(compute, rng, benchmark, Conv2d(64, 64, 3, padding=1), (32, 64, 56, 56))

    def test_conv2d_benchmark_large(self, compute: Compute, rng, benchmark):
        self.measure(compute, rng, benchmark, Conv2d(128, 256, 3, padding=1), (16, 128, 28, 28))

    @pytest.mark.parametrize("args, kwargs, shape", [
        ((128, 128, 3), {"padding": 1}, (16, 128, 28, 28)),
        ((256, 256, 3), {"padding": 1, "groups": 256}, (16, 256, 32, 32)),
        ((512, 512, 1), {}, (32, 512, 14, 14)),
    ], ids=["resnet_large", "depthwise", "pointwise"])
    def test_conv2d_benchmark_others(self, compute: Compute, rng, benchmark, args, kwargs, shape):
        self.measure(compute, rng, benchmark, Conv2d(*args, **kwargs), shape)

    def test_conv2d_speedup_vs_cpu(self, compute: Compute, rng, benchmark, against_pytorch):
        """Benchmarked as the others, with PyTorch's time on the CPU beside it."""
        import torch
        conv, theirs = Conv2d(64, 128, 3, padding=1), torch.nn.Conv2d(64, 128, 3, padding=1)
        x = self.measure(compute, rng, benchmark, conv, (32, 64, 56, 56))
        with torch.no_grad():
            seconds = min(timeit.repeat(lambda: theirs(torch.from_numpy(x)), number=1, repeat=3))
        benchmark.extra_info.update(pytorch_cpu_seconds=seconds)

    @staticmethod
    def measure(compute, rng, benchmark, conv, shape):
        """The input of the call that is measured."""
        x = normal(rng, 1 if compute.device.kind == "software" else shape[0], *shape[1:])
        benchmark.extra_info.update(device=compute.device.name, input=str(x.shape))
        y = benchmark.pedantic(conv.eval(), (x,), rounds=3, warmup_rounds=1)
        assert y.shape == (len(x), conv.out_channels, *shape[2:])
        return x
