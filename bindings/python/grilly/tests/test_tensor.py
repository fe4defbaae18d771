"""Tensors on a device: NumPy's values in other memory, and layers between which nothing passes through the host."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import threading
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import numpy as np
import pytest

import grilly
from grilly import Compute, Tensor, _context, tensor
from grilly.nn import (
    Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d, Flatten, Module, Parameter, ReLU, Sequential, functional, grad,
)
from grilly.tests.checks import required
from grilly.tests.test_seed_examples import EXAMPLES

SPECIAL = np.array([0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1.2e-38, 0.1, 2.5, 1 / 3], np.float32)
UFUNCS = [np.add, np.subtract, np.multiply, np.divide, np.maximum, np.minimum]


@pytest.fixture
def fresh(opened: Compute, monkeypatch: pytest.MonkeyPatch) -> Iterator[Compute]:
    """The device under test in a context of its own, where no other test's garbage is counted."""
    gc.collect()
    with Compute(opened.device.index) as compute:
        monkeypatch.setattr(_context, "_default", compute)
        yield compute


def normal(rng: np.random.RandomState, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def assert_same(got: Any, want: np.ndarray, ufunc: Optional[np.ufunc] = None) -> None:
    """The same bits in the same shape; any NaN is as good as another. As `ufunc` has them: a GPU's quotients are within
    2.5 units in the last place, and which zero NumPy's maximum takes depends on the processor."""
    assert isinstance(got, Tensor)
    assert want.dtype == np.float32 and got.shape == want.shape
    values, want = np.atleast_1d(got.numpy()), np.atleast_1d(want)
    if ufunc in (np.maximum, np.minimum):
        values, want = values + np.float32(0), want + np.float32(0)
    same = values.view(np.uint32) == want.view(np.uint32)
    if ufunc is np.divide and got.device.is_vulkan:
        with np.errstate(invalid="ignore"):
            same |= np.abs(values - want) <= 2.5 * np.abs(np.spacing(want))
    assert np.all(same | np.isnan(values) & np.isnan(want)), (values[~same], want[~same])


def moved_bytes(compute: Compute) -> tuple[int, int]:
    stats = compute.stats()
    return stats["upload_bytes"], stats["download_bytes"]


class TestUfuncs:
    @pytest.mark.parametrize("ufunc", UFUNCS)
    def test_every_pair_of_special_values_is_numpys(self, compute, ufunc) -> None:
        a, b = (grid.copy() for grid in np.meshgrid(SPECIAL, SPECIAL))
        with np.errstate(all="ignore"):
            want = ufunc(a, b)
        given = np.ones(want.shape, bool)
        if compute.device.is_vulkan:
            # Vulkan leaves open what subnormal results, and quotients by such divisors, are.
            given &= ~((np.abs(want) < np.finfo(np.float32).tiny) & (want != 0))
            given &= ~((b == 0) | (np.abs(np.nan_to_num(b)) > 2**126)) | (ufunc is not np.divide)
        assert given.sum() > 80
        assert_same(ufunc(tensor(a[given]), tensor(b[given])), want[given], ufunc)

    @pytest.mark.parametrize("ufunc", UFUNCS)
    @pytest.mark.parametrize("other", [2, -0.3, True, np.float64(0.7), np.int64(3), np.float32(1e-3), np.array(1.5)])
    def test_numbers_stand_on_either_side(self, compute, rng, ufunc, other) -> None:
        a = normal(rng, 5, 7)
        assert_same(ufunc(tensor(a), other), ufunc(a, np.float32(other)), ufunc)
        assert_same(ufunc(other, tensor(a)), ufunc(np.float32(other), a), ufunc)

    @pytest.mark.parametrize("ufunc", UFUNCS)
    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
    def test_arrays_are_uploaded_on_either_side(self, compute, rng, ufunc, dtype) -> None:
        a, b = normal(rng, 4, 6), (10 * normal(rng, 6, 4)).astype(dtype).T + 20
        assert_same(ufunc(tensor(a), b), ufunc(a, b.astype(np.float32)), ufunc)
        assert_same(ufunc(b, tensor(a)), ufunc(b.astype(np.float32), a), ufunc)

    @pytest.mark.parametrize("left, right", [
        ((2, 3, 4, 5), (5,)), ((2, 3, 4, 5), (3, 1, 1)), ((2, 1, 4, 1), (1, 3, 1, 5)), ((), (3, 2)), ((1,), ()),
        ((), ()), ((0, 3), (1, 3)), ((7, 1), (1, 300)), ((2, 3), (2, 3)),
    ])
    def test_shapes_broadcast_as_numpys(self, compute, rng, left, right) -> None:
        a, b = normal(rng, *left), normal(rng, *right)
        assert_same(tensor(a) - tensor(b), np.asarray(a - b))
        assert_same(tensor(b) * tensor(a), np.asarray(b * a))

    def test_negative_and_the_operators(self, compute, rng) -> None:
        a, b = normal(rng, 3, 4), normal(rng, 3, 4)
        x, y = tensor(a), tensor(b)
        assert_same(-x, -a)
        assert_same(np.negative(tensor(SPECIAL)), -SPECIAL)
        assert_same(x + y, a + b)
        assert_same(1 - x * 2, 1 - a * np.float32(2))
        assert_same(b + x, b + a)
        assert_same(x / 4, a / np.float32(4))
        assert_same(x * x + x, a * a + a)

    def test_in_place_operators_keep_the_memory(self, compute, rng) -> None:
        a, b = normal(rng, 2, 5), normal(rng, 5)
        x = same = tensor(a)
        flat = x.reshape(-1)
        x += tensor(b)
        x *= 3
        x -= b
        x /= 2
        assert x is same
        assert_same(x, ((a + b) * np.float32(3) - b) / np.float32(2))
        assert_same(flat, x.numpy().reshape(-1))
        x += x
        assert_same(flat, x.numpy().reshape(-1))

    def test_out_receives_the_result_and_is_returned(self, compute, rng) -> None:
        a, b, out = normal(rng, 4), normal(rng, 3, 4), tensor(np.full((3, 4), np.nan))
        assert np.maximum(tensor(a), tensor(b), out=out) is out
        assert_same(out, np.maximum(a, b))
        assert np.add(tensor(b), 1, out) is out
        assert_same(out, b + np.float32(1))

    @pytest.mark.parametrize("call", [
        lambda t: np.exp(t), lambda t: np.add.reduce(t), lambda t: np.add(t, 1, where=np.array(True)),
        lambda t: np.add(t, 1, dtype=np.float64), lambda t: np.concatenate([t, t]), lambda t: np.sum(t),
        lambda t: t == t, lambda t: t @ t, lambda t: t**2, lambda t: abs(t), lambda t: np.equal(np.ones(3), t),
        lambda t: np.add(np.ones(3), t, out=np.ones(3)), lambda t: np.add(1, 2, out=t), lambda t: list(t),
        lambda t: t.__setitem__(0, 1),
    ])
    def test_what_does_not_run_on_the_device_is_refused_with_the_way_out(self, compute, call) -> None:
        before = compute.stats()["download_bytes"]
        with pytest.raises(TypeError, match=r"\.numpy\(\)"):
            call(tensor(np.ones(3)))
        assert compute.stats()["download_bytes"] == before

    def test_wrong_operands_are_refused(self, compute) -> None:
        x = tensor(np.ones((2, 3)))
        with pytest.raises(ValueError, match="broadcast"):
            x + tensor(np.ones(2))
        with pytest.raises(ValueError, match="broadcast"):
            np.add(tensor(np.ones((4, 2, 3))), 1, out=x)
        with pytest.raises(ValueError, match="broadcast"):
            x.add_(np.ones((2, 2, 3)))
        with pytest.raises(TypeError, match="real numbers"):
            x + np.ones(3, complex)
        with pytest.raises(TypeError):
            x + "1"
        with Compute("cpu") as other, pytest.raises(grilly.InvalidArgumentError, match="another context"):
            x + tensor(np.ones((2, 3)), other)
        assert_same(x, np.ones((2, 3), np.float32))


class TestMethods:
    def test_updates_round_as_numpys_two_steps(self, compute, rng) -> None:
        w, g = normal(rng, 6, 4), normal(rng, 6, 4)
        x = tensor(w)
        assert x.add_(tensor(g), alpha=-0.1) is x
        assert_same(x, w + np.float32(-0.1) * g)
        assert_same(tensor(w).sub_(tensor(g), alpha=0.3), w - np.float32(0.3) * g)
        assert_same(tensor(w).add_(2, alpha=0.5), w + np.float32(1))
        assert_same(tensor(w).mul_(g[0]), w * g[0])
        assert_same(tensor(w).div_(0.5), w / np.float32(0.5))

    def test_fill_zero_and_copy(self, compute, rng) -> None:
        a = normal(rng, 3, 5)
        x = tensor(a)
        clone = x.copy()
        assert_same(x.fill_(-2.5), np.full((3, 5), -2.5, np.float32))
        assert_same(x.zero_(), np.zeros((3, 5), np.float32))
        assert_same(clone, a)
        assert_same(x.copy_(clone), a)
        assert_same(x.copy_(a[1]), np.broadcast_to(a[1], (3, 5)))
        assert_same(x.copy_(clone.reshape(5, 3).reshape(3, 5)), a)
        assert_same(x.copy_(tensor(a[:, :1])), np.broadcast_to(a[:, :1], (3, 5)))
        assert_same(x.copy_(7), np.full((3, 5), 7, np.float32))
        x[...] = a
        assert_same(x, a)
        x[:] = tensor(-a)
        assert_same(x, -a)

    def test_attributes_are_an_arrays(self, compute) -> None:
        x = grilly.zeros((2, 3, 4))
        assert (x.shape, x.ndim, x.size, x.nbytes, x.dtype, len(x)) == ((2, 3, 4), 3, 24, 96, np.float32, 2)
        assert x.compute is compute and x.device is compute.device
        assert_same(x, np.zeros((2, 3, 4), np.float32))
        assert (np.shape(x), np.ndim(x), np.size(x), np.size(x, 1)) == ((2, 3, 4), 3, 24, 3)
        assert grilly.empty(5).shape == (5,)
        assert repr(tensor([1.5, 2])) == f"tensor([1.5, 2. ], device={compute.device.name!r})"

    def test_single_values(self, compute) -> None:
        assert tensor(2.5).shape == () and tensor(2.5).item() == 2.5
        assert float(tensor([[1.5]])) == 1.5 and bool(tensor(1)) and not tensor([0])
        for call in (lambda t: t.item(), bool):
            with pytest.raises(ValueError, match="no single value"):
                call(tensor([1, 2]))
        with pytest.raises(TypeError, match="without axes"):
            len(tensor(1))

    @pytest.mark.parametrize("shape", [(6,), (-1,), (2, 3), (3, -1), (1, 2, 1, 3), (2, 1, -1)])
    def test_reshape_shares_memory(self, fresh, shape) -> None:
        a = np.arange(6, dtype=np.float32)
        x = tensor(a)
        before = fresh.stats()
        views = [x.reshape(shape), x.reshape(*shape), x.view(*shape)]
        assert fresh.stats() == before
        x += 1
        for view in views:
            assert_same(view, (a + np.float32(1)).reshape(shape))

    @pytest.mark.parametrize("shape, message", [
        ((5,), "cannot reshape"), ((-1, 4), "cannot reshape"), ((-1, -1), "sizes of 0"), ((-2, 3), "sizes of 0"),
        ((0, -1), "cannot reshape"), ((1, 1, 1, 1, 6), "at most 4 axes"),
    ])
    def test_reshape_refuses_other_sizes(self, compute, shape, message) -> None:
        with pytest.raises(ValueError, match=message):
            grilly.zeros(6).reshape(shape)

    def test_what_is_uploaded_becomes_float32(self, compute, rng) -> None:
        strided = normal(rng, 4, 6)[::-1, ::2]
        for array in (np.arange(6).reshape(2, 3), strided, np.ones((3, 0)), [1, 2.5], np.float64(0.1)):
            assert_same(tensor(array), np.asarray(array, np.float32))
        with pytest.raises(ValueError, match="at most 4 axes"):
            tensor(np.ones((1,) * 5))
        with pytest.raises(TypeError):
            grilly.zeros(2.5)
        with pytest.raises(TypeError, match="real numbers"):
            tensor(np.ones(3, complex))

    def test_downloads_are_copies_and_counted(self, fresh, rng) -> None:
        x = tensor(normal(rng, 10))
        assert moved_bytes(fresh) == (40, 0)
        values = x.numpy()
        values[:] = 0
        assert np.asarray(x).any()
        assert np.asarray(x, np.float64).dtype == np.float64
        assert moved_bytes(fresh) == (40, 120)

    @pytest.mark.parametrize("shape", [
        (2**40, 2**40), (2**62 + 1,), (2**61,), (0, 2**70), (2**40, 0, 2**40),
    ], ids=str)
    def test_shapes_beyond_an_address_space_are_refused_as_numpy_does(self, compute: Compute, shape) -> None:
        with pytest.raises(ValueError):
            np.empty(shape, np.float32)
        for make in (grilly.empty, grilly.zeros, lambda shape, compute: grilly.zeros(0, compute).reshape(shape)):
            with pytest.raises(ValueError, match="expected less than 2\\^63 bytes"):
                make(shape, compute)


class TestPlaces:
    def test_to_moves_and_stays(self, fresh, rng) -> None:
        a = normal(rng, 4)
        x = tensor(a, "vulkan")
        assert x.to("vulkan") is x and x.to(fresh) is x
        host = x.to("cpu")
        assert isinstance(host, np.ndarray)
        np.testing.assert_array_equal(host, a)
        with Compute("cpu") as other:
            elsewhere = x.to(other)
            assert elsewhere.compute is other
            assert_same(elsewhere.add_(1), a + np.float32(1))
            assert_same(x.copy_(elsewhere), a + np.float32(1))
        for target in ("gpu", "cuda", 0):
            for moving in (x, Conv2d(1, 1, 1)):
                with pytest.raises(ValueError, match="expected 'cpu', 'vulkan' or a grilly.Compute"):
                    moving.to(target)

    def test_pickle_and_deepcopy(self, fresh, rng) -> None:
        a = normal(rng, 2, 3)
        x = tensor(a)
        before = moved_bytes(fresh)
        twins = [copy.deepcopy(x), copy.copy(x), tensor(x)]
        assert moved_bytes(fresh) == before
        twins.append(pickle.loads(pickle.dumps(x)))
        x.zero_()
        for twin in twins:
            assert_same(twin, a)

    def test_memory_returns_when_the_last_view_is_gone(self, fresh) -> None:
        before = fresh.stats()
        x = grilly.zeros((64, 64))
        view = x.reshape(-1)
        del x
        assert fresh.stats()["blocks_in_use"] == before["blocks_in_use"] + 1
        del view
        assert fresh.stats()["blocks_in_use"] == before["blocks_in_use"]
        grilly.zeros((64, 64))
        assert fresh.stats()["allocations"] == before["allocations"] + 1

    def test_zeros_are_zeros_in_reused_memory(self, fresh) -> None:
        grilly.zeros(1000).fill_(np.nan)
        assert_same(grilly.zeros(1000), np.zeros(1000, np.float32))

    def test_a_closed_compute_computes_no_more(self, opened) -> None:
        compute = Compute(opened.device.index)
        x = tensor([1, 2], compute)
        compute.cleanup()
        for call in (lambda: x + x, lambda: grilly.zeros(3, compute)):
            with pytest.raises(RuntimeError, match="closed by cleanup"):
                call()
        np.testing.assert_array_equal(x.numpy(), [1, 2])

    def test_threads_compute_on_tensors_of_their_own(self, compute) -> None:
        totals = [0.0] * 4

        def work(at: int) -> None:
            x = grilly.zeros(1000)
            for _ in range(25):
                x += at
            totals[at] = float(x.numpy().sum())

        threads = [threading.Thread(target=work, args=(at,)) for at in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert totals == [25000.0 * at for at in range(4)]


class TestFunctional:
    @pytest.mark.parametrize("make", [np.asarray, tensor])
    def test_relu_and_its_gradient_are_pytorchs(self, compute, make) -> None:
        torch = required("torch")
        a = np.concatenate([SPECIAL, np.linspace(-2, 2, 20, dtype=np.float32)])
        dy = np.arange(1, a.size + 1, dtype=np.float32)
        x = torch.tensor(a, requires_grad=True)
        torch.relu(x).backward(torch.tensor(dy))
        y = functional.relu(make(a))
        dx = functional.relu_backward(make(dy), y)
        assert type(y) is type(dx) is type(make(a))
        np.testing.assert_array_equal(np.asarray(y), torch.relu(x).detach().numpy())
        np.testing.assert_array_equal(np.asarray(dx), x.grad.numpy())
        assert np.asarray(dx).dtype == np.float32

    def test_relu_backward_needs_one_shape(self, compute) -> None:
        with pytest.raises(RuntimeError, match=r"grad_output has shape \[2\]"):
            functional.relu_backward(tensor([1, 2]), tensor([1]))

    def test_gradients_of_tensors_are_those_of_arrays(self, compute, rng) -> None:
        x, w, dy = normal(rng, 2, 3, 8, 9), normal(rng, 4, 3, 3, 3), normal(rng, 2, 4, 6, 7)
        assert_same(grad.conv2d_input(x.shape, tensor(w), tensor(dy)), grad.conv2d_input(x.shape, w, dy))
        assert_same(grad.conv2d_weight(tensor(x), w.shape, tensor(dy)), grad.conv2d_weight(x, w.shape, dy))

    @pytest.mark.parametrize("function, x, w", [
        (functional.conv2d, (2, 3, 8, 9), (4, 3, 3, 3)), (functional.conv2d, (3, 8, 9), (4, 3, 3, 3)),
        (functional.conv1d, (2, 3, 9), (4, 3, 3)), (functional.conv1d, (3, 9), (4, 3, 3)),
    ])
    def test_convolutions_of_tensors_are_those_of_arrays(self, compute, rng, function, x, w) -> None:
        x, w, b = normal(rng, *x), normal(rng, *w), normal(rng, 4)
        want = function(x, w, b, padding=1)
        assert isinstance(want, np.ndarray)
        assert_same(function(tensor(x), tensor(w), tensor(b), padding=1), want)
        assert_same(function(tensor(x), Parameter(tensor(w)), b, padding=1), want)
        mixed = function(x, tensor(w), b, padding=1)
        assert isinstance(mixed, np.ndarray)
        np.testing.assert_array_equal(mixed, want)


def twins(make: Callable[[], Module]) -> tuple[Module, Module]:
    """A model with its parameters in host memory, and the same one on the device."""
    host = make()
    return host, copy.deepcopy(host).to("vulkan")


class TestLayers:
    @pytest.mark.parametrize("make, shape", [
        (lambda: Conv2d(4, 6, 3, padding=1), (2, 4, 7, 8)), (lambda: Conv2d(4, 6, 3, bias=False), (4, 7, 8)),
        (lambda: Conv1d(4, 6, 3, stride=2), (2, 4, 9)), (lambda: Conv2d(4, 4, 3, groups=4), (2, 4, 7, 8)),
        (lambda: Conv2d(4, 6, 3, padding=2, padding_mode="reflect"), (2, 4, 7, 8)),
        (lambda: ConvTranspose2d(4, 6, 3, stride=2, output_padding=1), (2, 4, 7, 8)),
        (lambda: ConvTranspose1d(4, 6, 3), (4, 9)),
        (lambda: Sequential(Conv2d(4, 6, 3), ReLU(), Conv2d(6, 2, 3), Flatten()), (2, 4, 7, 8)),
    ])
    def test_a_tensor_in_gives_the_arrays_results_as_tensors(self, compute, rng, make, shape) -> None:
        host, device = twins(make)
        x = normal(rng, *shape)
        y = host(x)
        dy = normal(rng, *y.shape)
        dx = host.backward(dy)
        assert_same(device(tensor(x)), y)
        assert_same(device.backward(tensor(dy)), dx)
        for ours, theirs in zip(device.parameters(), host.parameters()):
            assert_same(ours.grad, theirs.grad)

    def test_relu_finds_its_output_changed(self, compute) -> None:
        relu = ReLU()
        y = relu(tensor([-1, 2]))
        y += 1
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            relu.backward(tensor([1, 1]))

    def test_outputs_go_where_they_are_asked_to(self, compute, rng) -> None:
        x, w = normal(rng, 2, 3, 8, 8), normal(rng, 4, 3, 3, 3)
        out = np.full((4, 2, 6, 6), np.nan, np.float32).swapaxes(0, 1)
        assert compute.conv.conv2d(tensor(x), w, out=out) is out
        np.testing.assert_array_equal(out, compute.conv.conv2d(x, w))
        read_only = np.empty((2, 4, 6, 6), np.float32)
        read_only.flags.writeable = False
        for wrong in (np.zeros((2, 4, 6, 6)), read_only):
            with pytest.raises(TypeError, match="expected float32, writeable"):
                compute.conv.conv2d(x, w, out=wrong)
        with pytest.raises(grilly.InvalidArgumentError, match="y has shape"):
            compute.conv.conv2d(x, w, out=np.empty((2, 4, 6, 5), np.float32))

    def test_arrays_in_give_arrays_wherever_the_parameters_are(self, compute, rng) -> None:
        host, device = twins(lambda: Conv2d(3, 5, 3))
        x = normal(rng, 2, 3, 8, 8)
        y = host(x)
        for layer, make in ((device, np.asarray), (host, tensor)):
            got = layer(make(x))
            dx = layer.backward(make(y))
            assert type(got) is type(dx) is type(make(x))
            np.testing.assert_array_equal(np.asarray(got), y)
            assert type(layer.weight.grad) is type(layer.weight.data)

    def test_gradients_add_up_in_the_same_memory(self, compute, rng) -> None:
        layer = Conv2d(3, 5, 3).to("vulkan")
        x, dy = tensor(normal(rng, 2, 3, 8, 8)), tensor(normal(rng, 2, 5, 6, 6))
        layer(x)
        layer.backward(dy)
        first = layer.weight.grad
        once = first.numpy()
        layer.backward(dy)
        assert layer.weight.grad is first
        np.testing.assert_array_equal(first.numpy(), once + once)
        layer.zero_grad()
        assert layer.weight.grad is None

    def test_changing_the_input_in_place_before_backward_is_found(self, compute, rng) -> None:
        layer = Conv2d(3, 5, 3)
        x, dy = tensor(normal(rng, 2, 3, 8, 8)), tensor(normal(rng, 2, 5, 6, 6))
        layer(x)
        x += 1
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            layer.backward(dy)
        layer(x)
        x.reshape(-1).copy_(0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            layer.backward(dy)
        layer.weight.requires_grad = False
        layer(x)
        x += 1
        layer.backward(dy)

    @pytest.mark.parametrize("frozen", [False, True])
    def test_changing_the_weight_in_place_before_backward_is_found(self, compute, rng, frozen) -> None:
        layer = Conv2d(3, 5, 3).to("vulkan").requires_grad_(not frozen)
        y = layer(tensor(normal(rng, 2, 3, 8, 8)))
        layer.weight.zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            layer.backward(y)

    def test_a_replaced_weight_is_not_that_of_the_forward(self, compute, rng) -> None:
        host, device = twins(lambda: Conv2d(3, 5, 3))
        x = normal(rng, 2, 3, 8, 8)
        y = host(x)
        dx = host.backward(y)
        for layer, make in ((host, np.asarray), (device, tensor)):
            layer(make(x))
            layer.weight.data = make(np.zeros((5, 3, 3, 3), np.float32))
            np.testing.assert_array_equal(np.asarray(layer.backward(make(y))), dx)

    @pytest.mark.parametrize("moved", ["weight", "bias"])
    @pytest.mark.parametrize("make", [np.asarray, tensor])
    def test_each_gradient_is_where_its_parameter_is(self, compute, rng, moved, make) -> None:
        layer = Conv2d(3, 5, 3)
        x = normal(rng, 2, 3, 8, 8)
        y = layer(x)
        layer.backward(y)
        once = {name: parameter.grad.copy() for name, parameter in layer.named_parameters()}
        parameter = getattr(layer, moved)
        parameter.data = tensor(parameter.data)  # and its gradient is still in host memory
        layer(make(x))
        layer.backward(make(y))
        for name, parameter in layer.named_parameters():
            assert type(parameter.grad) is type(parameter.data)
            np.testing.assert_allclose(np.asarray(parameter.grad), 2 * once[name], rtol=1e-5)
            parameter -= 0.1 * parameter.grad

    def test_the_callers_input_is_never_overwritten(self, compute, rng) -> None:
        layer, a = Conv2d(3, 5, 3), normal(rng, 2, 3, 8, 8)
        x = tensor(a)
        layer(x)
        layer(normal(rng, 2, 3, 8, 8))
        assert_same(x, a)

    def test_tensors_of_different_devices_are_refused(self, compute, rng) -> None:
        with Compute("cpu") as other:
            layer = Conv2d(3, 5, 3).to(other)
            with pytest.raises(grilly.InvalidArgumentError, match="another context"):
                layer(tensor(normal(rng, 2, 3, 8, 8), compute))
            assert layer(tensor(normal(rng, 2, 3, 8, 8), other)).compute is other

    def test_a_layer_runs_on_its_device_or_not_at_all(self, compute, rng) -> None:
        x = normal(rng, 2, 3, 8, 8)
        with Compute("cpu") as own:
            layer = Conv2d(3, 5, 3, device=own)
            with pytest.raises(RuntimeError, match="another context"):
                layer(tensor(x))
            y = layer(tensor(x, own))
            assert y.compute is own and isinstance(layer(x), np.ndarray)
            # Where the parameters were moved to is a later word than the constructor's.
            assert copy.deepcopy(layer).to(compute)(tensor(x)).compute is compute
        with pytest.raises(RuntimeError, match="closed by cleanup"):
            layer(tensor(x))


class TestModels:
    def test_a_chain_of_8_layers_moves_x_and_dy_up_and_y_and_dx_down(self, fresh, rng) -> None:
        layers = [Conv2d(8, 8, 3, padding=1).to("vulkan") for _ in range(8)]
        x, dy = normal(rng, 2, 8, 16, 16), normal(rng, 2, 8, 16, 16)

        def step() -> tuple[np.ndarray, np.ndarray]:
            y = tensor(x)
            for layer in layers:
                y = layer(y)
            dx = tensor(dy)
            for layer in reversed(layers):
                dx = layer.backward(dx)
            return y.numpy(), dx.numpy()

        for _ in range(2):
            y, dx = step()
        before = fresh.stats()
        step()
        after = fresh.stats()
        assert after["upload_bytes"] - before["upload_bytes"] == x.nbytes + dy.nbytes
        assert after["download_bytes"] - before["download_bytes"] == y.nbytes + dx.nbytes
        for figure in ("allocations", "bytes_held", "blocks_in_use", "pipelines"):
            assert after[figure] == before[figure], figure

        host = [copy.deepcopy(layer).to("cpu") for layer in layers]
        value, gradient = x, dy
        for layer in host:
            value = layer(value)
        for layer in reversed(host):
            gradient = layer.backward(gradient)
        np.testing.assert_array_equal(y, value)
        np.testing.assert_array_equal(dx, gradient)

    @pytest.mark.parametrize("place", ["cpu", "vulkan"])
    def test_the_seeds_resnet_block_is_pytorchs_on_arrays_and_tensors(self, compute, rng, place) -> None:
        torch = required("torch")
        namespace: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(EXAMPLES[-1].values[0], "seed_examples.md", "exec"), namespace)
        block, x = namespace["model"], namespace["x"]
        theirs = [torch.nn.Conv2d(64, 64, 3, padding=1) for _ in range(2)]
        for conv, ours in zip(theirs, (block.conv1, block.conv2)):
            conv.load_state_dict({name: torch.tensor(np.asarray(value)) for name, value in ours.state_dict().items()})
        given = torch.tensor(x, requires_grad=True)
        want = torch.relu(theirs[1](torch.relu(theirs[0](given))) + given).detach().numpy()

        on_arrays = block(x)
        assert isinstance(on_arrays, np.ndarray)
        np.testing.assert_allclose(on_arrays, want, rtol=1e-4, atol=1e-5)
        block.to(place)
        on_tensors = block(tensor(x))
        assert_same(on_tensors, on_arrays)

        hidden, dy = functional.relu(block.conv1(tensor(x))), normal(rng, *x.shape)
        dsum = functional.relu_backward(tensor(dy), on_tensors)
        dx = block.conv1.backward(functional.relu_backward(block.conv2.backward(dsum), hidden)) + dsum
        # Rounding decides what a ReLU lets through near 0, so PyTorch is told what ours did.
        inner, outer = (torch.tensor(y.numpy() > 0) for y in (hidden, on_tensors))
        ((theirs[1](theirs[0](given) * inner) + given) * outer).backward(torch.tensor(dy))
        assert isinstance(dx, Tensor)
        np.testing.assert_allclose(dx.numpy(), given.grad.numpy(), rtol=1e-3, atol=1e-4)
        for conv, ours in zip(theirs, (block.conv1, block.conv2)):
            for name, parameter in conv.named_parameters():
                grad = np.asarray(getattr(ours, name).grad)
                # Each is a sum over 8192 places.
                np.testing.assert_allclose(grad, parameter.grad.numpy(), rtol=1e-3, atol=1e-3, err_msg=name)

    def test_a_training_step_has_no_round_trip_and_learns_what_numpy_learns(self, fresh, rng) -> None:
        class Network(Module):
            def __init__(self) -> None:
                super().__init__()
                self.first = Conv2d(3, 6, 3, padding=1)
                self.second = Conv2d(6, 2, 3, padding=1)

            def step(self, x: Any, target: Any, rate: float) -> None:
                hidden = functional.relu(self.first(x))
                dy = (self.second(hidden) - target) * (2 / 800)
                self.zero_grad()
                self.first.backward(functional.relu_backward(self.second.backward(dy), hidden))
                for parameter in self.parameters():
                    parameter -= rate * parameter.grad

        host, device = twins(Network)
        x, target = normal(rng, 4, 3, 10, 10), normal(rng, 4, 2, 10, 10)
        on_device = tensor(x), tensor(target)
        for step in range(5):
            if step == 2:
                before = fresh.stats()
            device.step(*on_device, 0.1)
        after = fresh.stats()
        for figure in ("upload_bytes", "download_bytes", "allocations", "pipelines"):
            assert after[figure] == before[figure], figure
        for _ in range(5):
            host.step(x, target, 0.1)
        for (name, ours), theirs in zip(device.named_parameters(), host.parameters()):
            assert isinstance(ours.data, Tensor)
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs), err_msg=name)

    def test_optimisers_update_parameters_in_place(self, compute, rng) -> None:
        layer = Conv2d(3, 5, 3).to("vulkan")
        layer.backward(layer(tensor(normal(rng, 2, 3, 8, 8))))
        held, weight, grad = layer.weight.data, layer.weight.numpy(), layer.weight.grad.numpy()
        layer.weight.data.add_(layer.weight.grad, alpha=-0.5)
        assert_same(held, weight + np.float32(-0.5) * grad)
        layer.weight -= 0.25 * layer.weight.grad
        assert layer.weight.data is held
        assert_same(held, weight + np.float32(-0.5) * grad - np.float32(0.25) * grad)

    def test_state_passes_between_host_and_device(self, compute, rng) -> None:
        host, device = twins(lambda: Conv2d(3, 5, 3))
        state = device.state_dict()
        assert all(isinstance(value, np.ndarray) for value in state.values())
        for name, value in host.state_dict().items():
            np.testing.assert_array_equal(state[name], value)
        doubled = {name: tensor(2 * value) for name, value in state.items()}
        held = device.weight.data
        device.load_state_dict(doubled)
        host.load_state_dict(doubled)
        assert device.weight.data is held
        np.testing.assert_array_equal(np.asarray(device.weight), np.asarray(host.weight))
        np.testing.assert_array_equal(np.asarray(host.weight), 2 * state["weight"])

    def test_models_move_copy_and_pickle_with_their_gradients(self, compute, rng) -> None:
        layer = Conv2d(3, 5, 3)
        x = normal(rng, 2, 3, 8, 8)
        y = layer(x)
        layer.backward(y)
        assert layer.to("vulkan") is layer
        assert isinstance(layer.weight.data, Tensor) and isinstance(layer.weight.grad, Tensor)
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert isinstance(other.weight.data, Tensor) and other.weight.data is not layer.weight.data
            np.testing.assert_array_equal(other(x), y)
        grad = layer.weight.grad.numpy()
        layer.to("cpu")
        assert isinstance(layer.weight.data, np.ndarray)
        np.testing.assert_array_equal(layer.weight.grad, grad)


def test_the_readmes_examples_run(compute, capsys: pytest.CaptureFixture) -> None:
    readme = Path(grilly.__file__).resolve().parents[1] / "README.md"
    if not readme.is_file():
        pytest.skip(f"{readme} is only in a checkout of the repository")
    snippets = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.S)
    assert len(snippets) == 2
    exec("".join(snippets), {})
    assert float(capsys.readouterr().out) > 0
