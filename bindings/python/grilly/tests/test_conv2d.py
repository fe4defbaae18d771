"""Conv2d and Conv1d: shapes, values, gradients, and speed."""

from __future__ import annotations

import numpy as np
import pytest

from grilly import Compute
from grilly.nn import Conv1d, Conv2d, functional
from grilly.tests.checks import check_backward, check_forward, check_layer


def normal(rng: np.random.RandomState, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.usefixtures("compute")
class TestConv2dBasic:
    def test_conv2d_forward_shape(self, rng):
        conv = Conv2d(3, 16, kernel_size=3, stride=1, padding=1)
        y = conv(normal(rng, 8, 3, 64, 64))
        assert y.shape == (8, 16, 64, 64)
        assert y.dtype == np.float32
        assert conv.weight.shape == (16, 3, 3, 3)
        assert conv.bias.shape == (16,)

    @pytest.mark.parametrize("kernel", [1, 2, 3, 5, 7, (3, 5), (1, 7), (7, 1), (2, 3)])
    def test_kernels_of_any_size(self, rng, kernel):
        check_layer(Conv2d(4, 6, kernel), normal(rng, 2, 4, 11, 13), rng)

    @pytest.mark.parametrize("bias", [True, False])
    def test_bias_is_optional(self, rng, bias):
        conv = Conv2d(4, 6, 3, bias=bias)
        assert (conv.bias is not None) == bias
        check_layer(conv, normal(rng, 2, 4, 9, 9), rng)

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
class TestConv2dStrided:
    @pytest.mark.parametrize("stride", [2, 3, (2, 1), (1, 3)])
    @pytest.mark.parametrize("kernel", [1, 3, (2, 4)])
    def test_strides(self, rng, stride, kernel):
        check_layer(Conv2d(4, 6, kernel, stride=stride, padding=1), normal(rng, 2, 4, 13, 12), rng)

    def test_stride_2_halves_the_image(self, rng):
        y = Conv2d(16, 32, 3, stride=2, padding=1)(normal(rng, 4, 16, 56, 56))
        assert y.shape == (4, 32, 28, 28)


@pytest.mark.usefixtures("compute")
class TestConv2dDilated:
    @pytest.mark.parametrize("dilation", [2, 3, (1, 4), (3, 2)])
    def test_dilations(self, rng, dilation):
        check_layer(Conv2d(4, 6, 3, dilation=dilation, padding=2), normal(rng, 2, 4, 13, 14), rng)

    def test_dilated_same_padding_keeps_the_size(self, rng):
        y = check_layer(Conv2d(2, 3, (4, 3), padding="same", dilation=(3, 2)), normal(rng, 1, 2, 17, 9), rng)
        assert y.shape == (1, 3, 17, 9)


@pytest.mark.usefixtures("compute")
class TestConv2dGrouped:
    @pytest.mark.parametrize("groups", [2, 4])
    def test_groups(self, rng, groups):
        conv = Conv2d(8, 12, 3, padding=1, groups=groups)
        assert conv.weight.shape == (12, 8 // groups, 3, 3)
        check_layer(conv, normal(rng, 2, 8, 9, 9), rng)

    def test_groups_do_not_mix(self, rng):
        conv, x = Conv2d(4, 4, 3, groups=2, bias=False), normal(rng, 1, 4, 6, 6)
        before = conv(x)
        x[:, 2:] = 0
        np.testing.assert_array_equal(conv(x)[:, :2], before[:, :2])
        assert not conv(x)[:, 2:].any()


@pytest.mark.usefixtures("compute")
class TestConv2dDepthwise:
    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("multiplier", [1, 2])
    def test_depthwise(self, rng, stride, multiplier):
        conv = Conv2d(8, 8 * multiplier, 3, stride=stride, padding=1, groups=8)
        assert conv.weight.shape == (8 * multiplier, 1, 3, 3)
        check_layer(conv, normal(rng, 2, 8, 11, 10), rng)

    def test_separable(self, rng):
        depthwise, pointwise = Conv2d(8, 8, 3, padding=1, groups=8, bias=False), Conv2d(8, 16, 1)
        x = normal(rng, 2, 8, 12, 12)
        check_layer(pointwise, check_layer(depthwise, x, rng), rng)


@pytest.mark.usefixtures("compute")
class TestConv1d:
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
        np.testing.assert_allclose(causal, functional.conv1d(np.pad(x, ((0, 0), (0, 0), (2, 0))), w), rtol=1e-5, atol=1e-5)


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


class Torch:
    """The same layer in PyTorch: values and gradients come from there."""

    name = "torch"

    def expected(self, conv: Conv2d, args, kwargs, x: np.ndarray, dy: np.ndarray) -> dict:
        import torch
        theirs = torch.nn.Conv2d(*args, **kwargs)
        theirs.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in conv.state_dict().items()})
        input = torch.from_numpy(x.copy()).requires_grad_()
        output = theirs(input)
        output.backward(torch.from_numpy(dy))
        grads = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
        return {"output": output.detach().numpy(), "input": input.grad.numpy(), **grads}


class Float64:
    """A stand-in where PyTorch is not installed: the package's float64 reference."""

    name = "float64 reference, for want of PyTorch"

    def expected(self, conv: Conv2d, args, kwargs, x: np.ndarray, dy: np.ndarray) -> dict:
        from grilly.tests.checks import reference_of
        reference, weight = reference_of(conv), conv.weight.data
        values = {
            "output": reference.forward(x, weight, None if conv.bias is None else conv.bias.data),
            "input": reference.backward_input(dy, weight, x.shape),
            "weight": reference.backward_weight(dy, x, weight.shape[2:]),
        }
        if conv.bias is not None:
            values["bias"] = reference.backward_bias(dy)
        return {name: sums.value for name, sums in values.items()}


@pytest.fixture(scope="module")
def pytorch():
    """PyTorch, or a stand-in that computes the same values, so that these tests always test something."""
    try:
        import torch  # noqa: F401
    except ImportError:
        return Float64()
    return Torch()


@pytest.mark.usefixtures("compute")
class TestConv2dVsPyTorch:
    @pytest.mark.parametrize("args, kwargs, shape", PYTORCH_CASES, ids=str)
    def test_forward_and_gradients_match(self, rng, pytorch, record_property, args, kwargs, shape):
        record_property("compared with", pytorch.name)
        conv, x = Conv2d(*args, **kwargs), normal(rng, *shape)
        y = conv(x)
        dy = normal(rng, *y.shape)
        got = {"output": y, "input": conv.backward(dy)}
        got.update((name, parameter.grad) for name, parameter in conv.named_parameters())
        expected = pytorch.expected(conv, args, kwargs, x, dy)
        assert got.keys() == expected.keys()
        np.testing.assert_allclose(got["output"], expected["output"], rtol=1e-4, atol=1e-5)
        for name in got:
            np.testing.assert_allclose(got[name], expected[name], rtol=1e-4, atol=1e-4, err_msg=name)

    def test_initial_values_are_pytorchs(self):
        # torch.manual_seed(0); torch.nn.Conv2d(1, 1, 3), to the digits that PyTorch prints.
        import grilly
        grilly.manual_seed(0)
        weight = Conv2d(1, 1, 3).weight
        printed = [[-0.0025, 0.1788, -0.2743], [-0.2453, -0.1284, 0.0894], [-0.0066, 0.2643, -0.0296]]
        np.testing.assert_array_equal(np.round(weight[0, 0], 4), np.float32(printed))

    @pytest.mark.parametrize("args", [(1, 1, 3), (3, 16, 3), (16, 2, (1, 5))])
    def test_initial_values_are_pytorchs_bit_for_bit(self, args):
        torch = pytest.importorskip("torch")
        import grilly
        torch.manual_seed(7)
        grilly.manual_seed(7)
        theirs, ours = torch.nn.Conv2d(*args), Conv2d(*args)
        np.testing.assert_array_equal(ours.weight, theirs.weight.detach().numpy())
        np.testing.assert_array_equal(ours.bias, theirs.bias.detach().numpy())


@pytest.mark.benchmark
class TestConv2dPerformance:
    """The four layers of the documentation's benchmark table, from NumPy to NumPy. Software drivers get one image."""

    @pytest.mark.parametrize("args, kwargs, shape", [
        ((64, 64, 3), {"padding": 1}, (32, 64, 56, 56)),
        ((128, 128, 3), {"padding": 1}, (16, 128, 28, 28)),
        ((256, 256, 3), {"padding": 1, "groups": 256}, (16, 256, 32, 32)),
        ((512, 512, 1), {}, (32, 512, 14, 14)),
    ], ids=["resnet_small", "resnet_large", "depthwise", "pointwise"])
    def test_forward(self, compute: Compute, rng, benchmark, args, kwargs, shape):
        images = 1 if compute.device.kind == "software" else shape[0]
        conv, x = Conv2d(*args, **kwargs).eval(), normal(rng, images, *shape[1:])
        benchmark.extra_info.update(device=compute.device.name, input=str(x.shape))
        y = benchmark.pedantic(conv, (x,), rounds=3, warmup_rounds=1)
        assert y.shape == (images, args[1], *shape[2:])
