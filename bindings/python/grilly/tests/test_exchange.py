"""Arrays and state dicts go to PyTorch and other libraries and come back, in the same memory where that is possible."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

import grilly
from grilly.nn import Conv1d, Conv2d, Flatten, Module, Parameter, ReLU, Sequential, functional
from grilly.tests.checks import required


class Host:
    """An array of a library that offers DLPack and nothing else."""

    def __init__(self, array: np.ndarray, device: tuple[int, int] = (1, 0)) -> None:
        self.array, self.device = array, device

    def __dlpack__(self, **options: object) -> object:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


class TestDLPack:
    def test_input_in_host_memory_is_not_copied(self, rng):
        array = rng.rand(2, 3, 8, 8).astype(np.float32)
        taken = grilly._arrays.as_float32(Host(array))
        assert np.shares_memory(taken, array) and taken.shape == array.shape

    def test_layers_and_functions_take_it(self, rng):
        conv, x = Conv2d(3, 4, 3), rng.rand(2, 3, 8, 8).astype(np.float32)
        y = conv(x)
        np.testing.assert_array_equal(conv(Host(x)), y)
        weight, bias = Host(conv.weight.data), Host(conv.bias.data)
        np.testing.assert_array_equal(functional.conv2d(Host(x), weight, bias), y)
        np.testing.assert_array_equal(conv.backward(Host(y)), conv.backward(y))

    def test_strides_are_understood(self, rng):
        conv, x = Conv2d(3, 4, 3), rng.rand(8, 2, 3, 8).astype(np.float32).transpose(1, 2, 0, 3)
        np.testing.assert_array_equal(conv(Host(x)), conv(np.ascontiguousarray(x)))

    @pytest.mark.parametrize("kind", [2, 7, 8, 10, 13])
    def test_input_on_another_device_is_refused(self, kind):
        x = Host(np.zeros((1, 3, 8, 8), np.float32), (kind, 1))
        with pytest.raises(TypeError, match=rf"input has type Host and is on a device \(DLPack device type {kind}, "):
            Conv2d(3, 4, 3)(x)

    def test_output_is_exported_without_a_copy(self, rng):
        torch, conv = required("torch"), Conv2d(3, 4, 3)
        y = conv(rng.rand(2, 3, 8, 8))
        for result in (y, conv.backward(y), conv.weight.grad):
            theirs = torch.from_dlpack(result)
            assert theirs.data_ptr() == result.ctypes.data and theirs.shape == result.shape
            assert np.shares_memory(np.from_dlpack(result), result)

    def test_parameters_are_exported_without_a_copy_from_host_memory_only(self):
        torch, conv = required("torch"), Conv2d(3, 4, 3)
        assert np.shares_memory(np.from_dlpack(conv.weight), conv.weight.data)
        assert torch.from_dlpack(conv.weight).data_ptr() == conv.weight.data.ctypes.data
        for export in (np.from_dlpack, torch.from_dlpack):
            with pytest.raises(AttributeError, match="'Tensor' object has no attribute '__dlpack"):
                export(conv.to("vulkan").weight)


def test_mapped_files_are_read_and_written_where_they_are(tmp_path, rng):
    conv, x = Conv2d(3, 4, 3), rng.rand(2, 3, 8, 8).astype(np.float32)
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=x.shape)
    mapped[:] = x
    taken = grilly._arrays.as_float32(mapped)
    assert type(taken) is np.ndarray and np.shares_memory(taken, mapped)
    out = np.memmap(tmp_path / "y", np.float32, "w+", shape=(2, 4, 6, 6))
    backend = grilly.default_compute().conv
    assert backend.conv2d(mapped, conv.weight, conv.bias, out=out) is out
    np.testing.assert_array_equal(out, conv(x))


class TestPyTorchTensors:
    def test_they_are_read_where_they_are(self, rng):
        torch = required("torch")
        x = torch.randn(2, 3, 8, 8)
        assert grilly._arrays.as_float32(x).ctypes.data == x.data_ptr()
        strided = torch.randn(8, 3, 2, 8).permute(2, 1, 0, 3)[:, :, ::2]
        conv = Conv2d(3, 4, 3)
        np.testing.assert_array_equal(conv(strided), conv(strided.contiguous().numpy()))

    def test_one_with_a_history_is_refused_where_it_would_be_lost(self):
        torch = required("torch")
        with pytest.raises(RuntimeError, match="requires grad"):
            Conv2d(3, 4, 3)(torch.zeros(1, 3, 8, 8, requires_grad=True))


def ours() -> Module:
    return Sequential(
        Conv2d(3, 8, 3, padding=1), ReLU(), Sequential({"deep": Conv2d(8, 4, (3, 2), groups=2, bias=False)}),
        Flatten(2), Conv1d(4, 2, 5, dilation=2),
    )


def theirs(torch) -> object:
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(),
        nn.Sequential(OrderedDict(deep=nn.Conv2d(8, 4, (3, 2), groups=2, bias=False))),
        nn.Flatten(2), nn.Conv1d(4, 2, 5, dilation=2),
    )


KEYS = ["0.weight", "0.bias", "2.deep.weight", "4.weight", "4.bias"]


def same_bits(a: dict, b: dict) -> bool:
    return list(a) == list(b) and all(np.asarray(a[name]).tobytes() == np.asarray(b[name]).tobytes() for name in a)


class TestStateDicts:
    def test_from_pytorch_to_grilly_and_back_bit_for_bit(self):
        torch = required("torch")
        source, model, back = theirs(torch), ours(), theirs(torch)
        source.state_dict()["0.weight"].view(-1)[:3] = torch.tensor([float("nan"), -0.0, 1e-40])
        assert model.load_state_dict(source.state_dict()) == ([], [])
        assert list(model.state_dict()) == KEYS and same_bits(model.state_dict(), source.state_dict())
        back.load_state_dict({name: torch.from_numpy(array) for name, array in model.state_dict().items()})
        assert same_bits(back.state_dict(), source.state_dict())

    @pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
    def test_through_a_file_bit_for_bit(self, tmp_path, suffix):
        torch, path = required("torch"), tmp_path / f"state{suffix}"
        source, model, back = theirs(torch), ours(), theirs(torch)
        grilly.save(source.state_dict(), path)
        model.load_state_dict(grilly.load(path))
        assert same_bits(model.state_dict(), source.state_dict())
        path.unlink()
        grilly.save(model.state_dict(), path)
        if suffix == ".npz":
            loaded = {name: torch.from_numpy(array) for name, array in np.load(path).items()}
        else:
            loaded = required("safetensors.torch").load_file(path)
        back.load_state_dict(loaded)
        assert same_bits(back.state_dict(), source.state_dict())

    def test_both_models_then_compute_the_same(self, rng):
        torch = required("torch")
        source, model, x = theirs(torch), ours(), rng.standard_normal((2, 3, 8, 9)).astype(np.float32)
        model.load_state_dict(source.state_dict())
        tensor = torch.from_numpy(x).requires_grad_()
        expected = source(tensor)
        y = model(x)
        np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
        dy = rng.standard_normal(y.shape).astype(np.float32)
        expected.backward(torch.from_numpy(dy))
        np.testing.assert_allclose(model.backward(dy), tensor.grad.numpy(), rtol=1e-3, atol=1e-4)
        for parameter, reference in zip(model.parameters(), source.parameters()):
            np.testing.assert_allclose(parameter.grad, reference.grad.numpy(), rtol=1e-3, atol=1e-4)

    def test_pytorchs_parameters_are_a_state_too(self):
        torch = required("torch")
        source, model = theirs(torch), ours()
        model.load_state_dict(dict(source.named_parameters()))
        assert same_bits(model.state_dict(), source.state_dict())

    def test_the_same_mistakes_give_the_same_sentences(self):
        torch = required("torch")
        def mistaken(array):
            return {"weight": array((3, 2, 1, 1)), "first": array(1), "second.weight": array(1)}

        with pytest.raises(RuntimeError) as expected:
            torch.nn.Conv2d(2, 3, 3).load_state_dict(mistaken(torch.zeros))
        with pytest.raises(RuntimeError) as got:
            Conv2d(2, 3, 3).load_state_dict(mistaken(np.zeros))
        def plain(error):
            return str(error.value).replace("torch.Size(", "").replace("])", "]")

        assert plain(got) == plain(expected)
        result = Conv2d(2, 3, 3).load_state_dict({"bias": np.zeros(3), "more": 0}, strict=False)
        other = torch.nn.Conv2d(2, 3, 3).load_state_dict({"bias": torch.zeros(3), "more": 0}, strict=False)
        assert tuple(result) == tuple(other) and repr(other) == f"_{result}"


class TestGradientsBehaveAsPyTorchs:
    """The same sequence of calls on both sides leaves the same gradients."""

    def compare(self, calls) -> None:
        torch = required("torch")
        source, model = torch.nn.Conv2d(2, 3, 3), Conv2d(2, 3, 3)
        model.load_state_dict(source.state_dict())
        x = np.random.RandomState(1).standard_normal((2, 2, 6, 6)).astype(np.float32)

        def step(layer, no_grad, scale=1.0):
            if layer is model:
                model.backward(np.full_like(model(x), scale))
            else:
                y = source(torch.from_numpy(x))
                y.backward(torch.full_like(y, scale))

        calls(model, grilly.no_grad, step)
        calls(source, torch.no_grad, step)
        for ours, theirs in zip(model.parameters(), source.parameters()):
            assert ours.requires_grad == theirs.requires_grad
            assert (ours.grad is None) == (theirs.grad is None)
            if ours.grad is not None:
                np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-3, atol=1e-4)

    def test_they_accumulate(self):
        def calls(layer, no_grad, step):
            step(layer, no_grad)
            step(layer, no_grad, 2.0)
            step(layer, no_grad, -0.5)

        self.compare(calls)

    def test_zero_grad_starts_again(self):
        def calls(layer, no_grad, step):
            step(layer, no_grad)
            layer.zero_grad(set_to_none=True)
            step(layer, no_grad, 3.0)

        self.compare(calls)
        self.compare(lambda layer, no_grad, step: (step(layer, no_grad), layer.zero_grad(set_to_none=False)))
        self.compare(lambda layer, no_grad, step: (step(layer, no_grad), layer.zero_grad(set_to_none=True)))

    @pytest.mark.parametrize("frozen", ["weight", "bias"])
    def test_what_requires_no_grad_gets_none(self, frozen):
        def calls(layer, no_grad, step):
            getattr(layer, frozen).requires_grad_(False)
            step(layer, no_grad)

        self.compare(calls)

    def test_thawed_parameters_get_gradients_again(self):
        def calls(layer, no_grad, step):
            layer.requires_grad_(False)
            layer.requires_grad_(True)
            step(layer, no_grad)

        self.compare(calls)

    def test_no_grad_leaves_no_way_back(self):
        def calls(layer, no_grad, step):
            step(layer, no_grad)
            with no_grad(), pytest.raises(RuntimeError):
                step(layer, no_grad)

        self.compare(calls)


def test_a_parameter_is_an_array_for_pytorch():
    torch = required("torch")
    parameter = Parameter(np.ones(3))
    tensor = torch.from_numpy(parameter.data)
    tensor += 1
    assert parameter.data.tolist() == [2, 2, 2]
