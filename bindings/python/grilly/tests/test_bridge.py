"""grilly.torch: our convolutions inside PyTorch's autograd."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import grilly
from grilly.tests.checks import required

torch = required("torch")
import grilly.torch  # noqa: E402

#: Layer, its arguments, the shape of an input. Every kind of convolution, padding mode, and unbatched input.
LAYERS: list[tuple[str, tuple, dict[str, Any], tuple[int, ...]]] = [
    ("Conv2d", (3, 4, 3), {"padding": 1}, (2, 3, 6, 5)),
    ("Conv2d", (4, 6, (3, 2)), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}, (2, 4, 7, 6)),
    ("Conv2d", (4, 4, 3), {"groups": 4, "bias": False, "padding": "same"}, (1, 4, 5, 5)),
    ("Conv2d", (2, 3, 3), {"padding": (2, 1), "padding_mode": "reflect"}, (2, 2, 5, 4)),
    ("Conv2d", (2, 3, 3), {"padding": 2, "padding_mode": "replicate"}, (2, 2, 4, 4)),
    ("Conv2d", (2, 3, 3), {"padding": 2, "padding_mode": "circular"}, (2, 2, 4, 4)),
    ("Conv2d", (2, 3, (1, 3)), {}, (2, 4, 6)),
    ("Conv1d", (3, 4, 3), {"stride": 2, "padding": 1}, (2, 3, 9)),
    ("Conv1d", (4, 4, 4), {"groups": 2, "padding": "same"}, (4, 8)),
    ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}, (2, 4, 3, 4)),
    ("ConvTranspose2d", (3, 2, (2, 3)), {"dilation": 2, "bias": False}, (3, 4, 3)),
    ("ConvTranspose1d", (2, 3, 4), {"stride": 3}, (2, 2, 4)),
]

FUNCTIONS = (grilly.torch, torch.nn.functional)


def twins(name: str, args: tuple, options: dict[str, Any]) -> tuple[Any, Any]:
    """Our layer and PyTorch's, with the same parameters."""
    theirs = getattr(torch.nn, name)(*args, **options)
    ours = getattr(grilly.torch, name)(*args, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def close(got: Any, expected: Any, rtol: float = 1e-3, atol: float = 1e-4) -> None:
    np.testing.assert_allclose(got.detach().numpy(), expected.detach().numpy(), rtol=rtol, atol=atol)


@pytest.mark.parametrize("name, args, options, shape", LAYERS, ids=str)
class TestEveryLayer:
    def test_values_and_gradients_are_pytorchs(self, compute, name, args, options, shape):
        torch.manual_seed(1)
        ours, theirs = twins(name, args, options)
        x, x2 = (torch.randn(shape, generator=torch.Generator().manual_seed(2), requires_grad=True) for _ in range(2))
        y = ours(x)
        expected = theirs(x2)
        close(y, expected, rtol=1e-4, atol=1e-5)
        dy = torch.randn(y.shape)
        y.backward(dy)
        expected.backward(dy)
        close(x.grad, x2.grad)
        for got, parameter in zip(ours.parameters(), theirs.parameters()):
            close(got.grad, parameter.grad)

    @pytest.mark.filterwarnings("ignore:Input #:UserWarning")
    def test_gradcheck_passes(self, compute, name, args, options, shape):
        # Convolutions are linear in each operand, so differences are exact up to rounding however wide the step is:
        # about 1e-6 / 1e-2, which is what the tolerances allow tenfold.
        torch.manual_seed(3)
        layer = getattr(grilly.torch, name)(*args, **options)
        x = torch.randn(shape, requires_grad=True)
        names = [name for name, _ in layer.named_parameters()]

        def call(x, *parameters):
            twin = copy.deepcopy(layer)
            for name, parameter in zip(names, parameters):
                delattr(twin, name)
                setattr(twin, name, parameter)
            return twin(x)

        parameters = [parameter.detach().requires_grad_() for parameter in layer.parameters()]
        assert torch.autograd.gradcheck(call, (x, *parameters), eps=1e-2, atol=1e-3, rtol=1e-3)

    def test_it_looks_like_pytorchs(self, name, args, options, shape):
        ours, theirs = twins(name, args, options)
        assert repr(ours) == repr(theirs) and isinstance(ours, type(theirs))
        assert list(ours.state_dict()) == list(theirs.state_dict())
        torch.manual_seed(4)
        first = getattr(grilly.torch, name)(*args, **options)
        torch.manual_seed(4)
        second = getattr(torch.nn, name)(*args, **options)
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))


class TestFunctions:
    @pytest.mark.parametrize("name, x, w, options", [
        ("conv1d", (2, 3, 9), (4, 3, 3), {"stride": 2, "padding": 1, "dilation": 2}),
        ("conv2d", (2, 4, 9, 8), (4, 2, 3, 3), {"padding": "valid", "groups": 2}),
        ("conv_transpose1d", (2, 4, 5), (4, 2, 3), {"stride": 2, "output_padding": 1, "groups": 2}),
        ("conv_transpose2d", (2, 3, 4, 5), (3, 2, 3, 3), {"padding": 1, "dilation": (1, 2)}),
    ])
    def test_they_are_pytorchs(self, name, x, w, options):
        torch.manual_seed(5)
        x, w = torch.randn(x), torch.randn(w)
        b = torch.randn(getattr(torch.nn.functional, name)(x, w, **options).shape[1])
        for bias in (None, b):
            got, expected = (getattr(functions, name)(x, w, bias, **options) for functions in FUNCTIONS)
            close(got, expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("wanted", ["x", "w", "b", "xw", "xb", "wb", "xwb"])
    def test_each_set_of_gradients_can_be_wanted_alone(self, wanted):
        torch.manual_seed(6)
        values = {"x": torch.randn(2, 3, 6, 6), "w": torch.randn(4, 3, 3, 3), "b": torch.randn(4)}
        gradients = []
        for functions in FUNCTIONS:
            leaves = {name: value.clone().requires_grad_(name in wanted) for name, value in values.items()}
            functions.conv2d(*leaves.values(), padding=1).square().sum().backward()
            gradients.append([leaf.grad for leaf in leaves.values()])
        for got, expected in zip(*gradients):
            assert (got is None) == (expected is None)
            if got is not None:
                close(got, expected, atol=1e-3)

    def test_strided_tensors_are_understood(self):
        x = torch.randn(6, 8, 3, 2).permute(3, 2, 0, 1)[:, :, :, ::2].requires_grad_()
        w = torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last)
        y = grilly.torch.conv2d(x, w)
        close(y, torch.nn.functional.conv2d(x, w), 1e-4, 1e-5)
        y.backward(torch.ones(()).expand(y.shape))
        assert x.grad.shape == x.shape

    def test_negated_views_are_understood(self):
        x, w = torch.randn(1, 2, 5, 5, dtype=torch.complex64).conj().imag, torch.randn(3, 2, 3, 3)
        assert x.is_neg()
        close(grilly.torch.conv2d(x, w), torch.nn.functional.conv2d(x, w), 1e-4, 1e-5)

    def test_transposed_ones_have_no_named_padding(self):
        for functions in FUNCTIONS:
            with pytest.raises(TypeError, match="argument 'padding' must be tuple of ints, not str"):
                functions.conv_transpose2d(torch.ones(1, 2, 5, 5), torch.randn(2, 3, 3, 3), padding="same")

    def test_tensors_are_not_copied(self):
        x = torch.randn(2, 3, 6, 6, requires_grad=True)
        assert grilly.torch._array(x, "x").ctypes.data == x.data_ptr()

    def test_no_graph_is_built_where_none_is_wanted(self):
        layer, x = grilly.torch.Conv2d(1, 1, 3), torch.randn(1, 1, 4, 4)
        with torch.no_grad():
            assert not layer(x).requires_grad
        assert layer(x).requires_grad and not layer.requires_grad_(False)(x).requires_grad

    def test_an_input_edited_in_between_is_noticed(self):
        layer, x = grilly.torch.Conv2d(1, 1, 3), torch.randn(1, 1, 4, 4)
        y = layer(x)
        x += 1
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()

    def test_a_transposed_layer_takes_an_output_size(self):
        ours, theirs = twins("ConvTranspose2d", (2, 3, 3), {"stride": 2})
        x = torch.randn(1, 2, 4, 4)
        for size in ((9, 10), (1, 3, 10, 9)):
            close(ours(x, output_size=size), theirs(x, output_size=size), 1e-4, 1e-5)
        with pytest.raises(ValueError, match="requested an output size of"):
            ours(x, output_size=(11, 9))


class TestRefusals:
    def test_double_backward(self):
        x, w = torch.randn(1, 1, 4, 4, requires_grad=True), torch.randn(1, 1, 3, 3, requires_grad=True)
        grad, = torch.autograd.grad(grilly.torch.conv2d(x, w).square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            grad.sum().backward()

    @pytest.mark.parametrize("name", ["input", "weight", "bias"])
    def test_other_dtypes_and_devices(self, name):
        operands = {"input": torch.zeros(1, 1, 4, 4), "weight": torch.zeros(1, 1, 3, 3), "bias": torch.zeros(1)}
        others = operands[name].double(), operands[name].to("meta")
        for other, what in zip(others, ("torch.float64 on cpu", "torch.float32 on meta")):
            with pytest.raises(RuntimeError, match=f"{name} is {what}, expected torch.float32 on cpu"):
                grilly.torch.conv2d(**{**operands, name: other})
        with pytest.raises(TypeError, match=f"{name} must be Tensor, not ndarray"):
            grilly.torch.conv2d(**{**operands, name: operands[name].numpy()})

    def test_sizes_that_do_not_fit_are_told_as_pytorch_does(self):
        layer = grilly.torch.Conv2d(3, 4, 3)
        with pytest.raises(RuntimeError, match=r"expected input\[1, 2, 5, 5\] to have 3 channels, but got 2 channels"):
            layer(torch.zeros(1, 2, 5, 5))

    def test_a_machine_without_pytorch(self, python):
        result = python("-c", "import sys; sys.modules['torch'] = None; import grilly; import grilly.torch")
        assert result.returncode == 1
        assert "ImportError: grilly.torch needs PyTorch 1.13 or later; install it" in result.stderr

    def test_grilly_does_not_import_pytorch(self, python):
        result = python("-c", "import sys, grilly; print('torch' in sys.modules)")
        assert result.stdout.strip() == "False"


def model(layers: Any) -> Any:
    torch.manual_seed(8)
    return torch.nn.Sequential(
        layers.Conv2d(1, 8, 3, padding=1, padding_mode="circular"), torch.nn.Tanh(),
        layers.Conv2d(8, 8, 3, stride=2, padding=1, groups=2), torch.nn.Tanh(),
        layers.ConvTranspose2d(8, 1, 4, stride=2, padding=1),
    )


def losses(layers: Any) -> list[float]:
    """A small auto-encoder learns sixteen images."""
    network = model(layers)
    images = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(9))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.2, momentum=0.9)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(network(images), images)
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    return values


def test_a_pytorch_model_trains_on_our_layers_as_on_its_own(compute) -> None:
    got, expected = losses(grilly.torch), losses(torch.nn)
    assert got[-1] < got[0] / 2
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)


def test_models_copy_save_and_load_as_pytorchs(tmp_path) -> None:
    network, x = model(grilly.torch), torch.randn(1, 1, 8, 8)
    twin = copy.deepcopy(network)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    plain = model(torch.nn)
    plain.load_state_dict(torch.load(tmp_path / "model.pt"))
    assert torch.equal(twin(x), network(x))
    close(plain(x), network(x), 1e-4, 1e-5)
