"""Module and Parameter."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import grilly
from grilly import Compute
from grilly.nn import Conv1d, Conv2d, Flatten, Module, ModuleList, Parameter, ReLU, Sequential


class Block(Module):
    def __init__(self):
        super().__init__()
        self.conv1 = Conv2d(2, 3, 3, padding=1)
        self.conv2 = Conv2d(3, 2, 3, padding=1, bias=False)
        self.scale = Parameter(np.ones(1))

    def forward(self, x):
        return self.conv2(np.maximum(self.conv1(x), 0)) * self.scale


class TestParameter:
    def test_it_behaves_as_an_array(self):
        p = Parameter(np.arange(6.0).reshape(2, 3))
        assert p.dtype == np.float32 and p.shape == (2, 3) and p.ndim == 2 and p.size == 6 and len(p) == 2
        assert isinstance(p + 1, np.ndarray) and (2 - p)[0, 1] == 1 and (p @ p.T).shape == (2, 2)
        assert np.sum(p) == p.sum() == 15 and np.maximum(p, 4).min() == 4
        np.testing.assert_array_equal(np.concatenate([p, p])[2:], p)
        np.testing.assert_array_equal(np.asarray(p), p.data)
        assert np.asarray(p) is p.data and np.array(p) is not p.data
        assert np.asarray(p, np.float64).dtype == np.float64
        assert p[1, 2] == 5 and [row[0] for row in p] == [0, 3] and 4 in p
        assert (p == p.data).all()

    def test_in_place_operators_edit_it(self):
        p = Parameter(np.ones(3))
        before, data = p, p.data
        p -= 0.5
        p *= Parameter(np.full(3, 4))
        p[0] = 7
        np.add(p, 1, out=p)
        assert p is before and p.data is data
        assert data.tolist() == [8, 3, 3]

    def test_it_wraps_float32_without_a_copy(self):
        array = np.zeros(3, np.float32)
        assert Parameter(array).data is array
        p = Parameter(array)
        p.data = [1, 2]
        assert p.shape == (2,) and p.dtype == np.float32

    def test_it_is_hashable_by_identity(self):
        p, q = Parameter(np.ones(2)), Parameter(np.ones(2))
        assert {p: 1, q: 2}[q] == 2

    def test_zero_grad(self):
        p = Parameter(np.ones(2))
        p.grad = np.ones(2)
        p.zero_grad()
        assert p.grad is None

    def test_copies_are_independent(self):
        p = Parameter(np.ones(2), requires_grad=False)
        for twin in (copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
            twin += 1
            assert isinstance(twin, Parameter) and twin.requires_grad is False and p.data.tolist() == [1, 1]

    def test_copies_have_no_gradient_yet(self):
        p = Parameter(np.ones(2))
        p.grad = np.ones(2)
        assert copy.deepcopy(p).grad is None and pickle.loads(pickle.dumps(p)).grad is None and p.grad is not None

    def test_a_name_that_is_nobodys_is_an_attribute_error(self):
        with pytest.raises(AttributeError):
            Parameter(np.ones(2)).nonsense
        with pytest.raises(AttributeError):
            Parameter.__new__(Parameter).shape


class TestModule:
    def test_assignment_registers(self):
        block = Block()
        names = ["scale", "conv1.weight", "conv1.bias", "conv2.weight"]
        assert [name for name, _ in block.named_parameters()] == names
        assert list(block.state_dict()) == names
        assert len(list(block.parameters())) == 4
        assert [name for name, _ in block.named_children()] == ["conv1", "conv2"]
        assert list(block.children()) == [block.conv1, block.conv2]
        assert list(block.modules()) == [block, block.conv1, block.conv2]

    def test_shared_modules_count_once(self):
        block = Block()
        block.again = block.conv1
        assert len(list(block.parameters())) == 4 and len(list(block.modules())) == 3
        assert "again.weight" in block.state_dict()

    def test_reassignment_replaces(self):
        block = Block()
        block.conv1 = Conv2d(2, 3, 1)
        assert len(list(block.children())) == 2 and block.conv1.kernel_size == (1, 1)
        block.conv1 = None
        assert block.conv1 is None and list(block.children()) == [block.conv2]
        del block.conv2
        assert not hasattr(block, "conv2")
        with pytest.raises(TypeError, match="cannot assign 'numpy.ndarray' as parameter 'scale'"):
            block.scale = np.ones(1)
        with pytest.raises(TypeError, match="cannot assign 'int' as child module 'conv1'"):
            block.conv1 = 3
        block.conv1 = Parameter(np.ones(2))
        assert [name for name, _ in block.named_parameters()] == ["scale", "conv1"]
        assert not list(block.children())

    def test_names_must_be_free_and_without_dots(self):
        block = Block()
        for register, value in ((block.register_parameter, Parameter(np.ones(1))), (block.add_module, Conv2d(1, 1, 1))):
            for name, problem in (("a.b", "t contain"), ("", "t be empty"), ("forward", "already exists")):
                with pytest.raises(KeyError, match=problem):
                    register(name, value)
            with pytest.raises(TypeError, match="name should be a string. Got int"):
                register(3, value)
        with pytest.raises(TypeError, match="cannot assign 'float' object to parameter 'gain'"):
            block.register_parameter("gain", 1.0)
        with pytest.raises(TypeError, match="float is not a Module subclass"):
            block.add_module("conv3", 1.0)

    def test_registration_needs_init(self):
        class Careless(Module):
            def __init__(self):
                self.conv = Conv2d(1, 1, 1)

        with pytest.raises(AttributeError, match="before Module.__init__"):
            Careless()

    def test_train_eval_apply(self):
        block, seen = Block(), []
        assert block.eval() is block and not block.conv1.training
        assert block.train() is block and block.conv2.training
        block.apply(seen.append)
        assert seen == [block.conv1, block.conv2, block]
        with pytest.raises(ValueError, match="training mode is expected to be boolean"):
            block.train("no")

    def test_a_module_may_refuse_to_train(self):
        class Frozen(Sequential):
            def train(self, mode=True):
                return super().train(False)

        model = Sequential(Frozen(ReLU()), ReLU())
        assert model.train() is model
        assert [module.training for module in (model, model[0], model[0][0], model[1])] == [True, False, False, True]

    def test_a_layer_computes_with_what_stands_in_its_parameters_places(self, rng):
        conv, x = Conv2d(2, 3, 3), rng.rand(1, 2, 5, 5)
        weight = conv.weight.data * 2
        del conv.weight
        with pytest.raises(AttributeError, match="weight"):
            conv(x)
        conv.weight = weight
        np.testing.assert_array_equal(conv(x), grilly.nn.functional.conv2d(x, weight, conv.bias))
        conv.backward(conv(x))
        assert conv.bias.grad is not None
        del conv.bias
        with pytest.raises(AttributeError, match="bias"):
            conv(x)
        conv = Conv2d(2, 3, 3)
        conv.weight = None
        with pytest.raises(TypeError, match="weight has type NoneType"):
            conv(x)

    def test_zero_grad_and_requires_grad(self, rng):
        block = Block()
        block.conv1.backward(block.conv1(rng.rand(1, 2, 5, 5))[:] * 0 + 1)
        assert block.conv1.weight.grad.any()
        grad = block.conv1.weight.grad
        block.zero_grad(set_to_none=False)
        assert block.conv1.weight.grad is grad and not grad.any() and block.conv2.weight.grad is None
        block.zero_grad()
        assert all(parameter.grad is None for parameter in block.parameters())
        block.requires_grad_(False)
        assert not any(parameter.requires_grad for parameter in block.parameters())

    def test_state_travels(self, rng):
        source, target, x = Block(), Block(), rng.rand(1, 2, 6, 6)
        result = target.load_state_dict(source.state_dict())
        assert result == ([], []) and repr(result) == "<All keys matched successfully>"
        np.testing.assert_array_equal(target(x), source(x))
        target.conv1.weight += 1
        assert not np.array_equal(target.conv1.weight, source.conv1.weight)

    def test_wrong_states_are_named_and_change_nothing(self):
        conv = Conv2d(2, 3, 3)
        before = conv.weight.data.copy()
        with pytest.raises(RuntimeError) as caught:
            conv.load_state_dict({"weight": np.zeros((3, 2, 1, 1)), "extra": np.zeros(1)})
        lines = str(caught.value).splitlines()
        assert lines[0] == "Error(s) in loading state_dict for Conv2d:"
        assert lines[1] == '\tMissing key(s) in state_dict: "bias". '
        assert lines[2] == '\tUnexpected key(s) in state_dict: "extra". '
        assert lines[3].startswith("\tsize mismatch for weight: copying a param with shape ")
        np.testing.assert_array_equal(conv.weight, before)
        result = conv.load_state_dict({"bias": np.zeros(3), "extra": np.zeros(1)}, strict=False)
        assert result.missing_keys == ["weight"] and result.unexpected_keys == ["extra"]
        assert not conv.bias.any()

    def test_a_state_is_loaded_into_all_parameters_or_none(self):
        conv = Conv2d(1, 1, 1)
        before = conv.weight.data.copy()
        conv.bias.data.flags.writeable = False
        with pytest.raises(RuntimeError, match="bias is read-only"):
            conv.load_state_dict({"weight": before + 1, "bias": [0]})
        np.testing.assert_array_equal(conv.weight, before)

    def test_a_state_is_a_dictionary_of_real_numbers(self):
        conv = Conv2d(1, 1, 1)
        with pytest.raises(TypeError, match="Expected state_dict to be dict-like, got <class 'list'>"):
            conv.load_state_dict([1])
        with pytest.raises(TypeError, match="weight has type ndarray of dtype complex64, expected real numbers"):
            conv.load_state_dict({"weight": np.zeros((1, 1, 1, 1), np.complex64), "bias": [0]})
        conv.load_state_dict({"weight": np.full((1, 1, 1, 1), 2, np.float64), "bias": [3]})
        assert conv.weight[0, 0, 0, 0] == 2 and conv.bias[0] == 3

    @pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
    def test_copies_compute_the_same_and_keep_no_handles(self, rng, twin_of):
        block, x = Block(), rng.rand(1, 2, 6, 6)
        y = block(x)
        twin = twin_of(block)
        np.testing.assert_array_equal(twin(x), y)
        twin.conv1.weight += 1
        assert not np.array_equal(twin(x), block(x))
        with pytest.raises(RuntimeError, match="needs a forward before it"):
            twin_of(block).conv1.backward(y)
        twin.conv2.backward(np.ones_like(y))
        assert block.conv2.weight.grad is None

    def test_a_copy_stays_on_its_compute_and_a_pickle_does_not(self, rng):
        with Compute("cpu") as compute:
            conv = Conv2d(1, 1, 1, device=compute)
            assert copy.deepcopy(conv)._compute is compute
            assert pickle.loads(pickle.dumps(conv))._compute is None

    def test_repr(self):
        assert repr(Conv2d(4, 8, (3, 5), (2, 1), (1, 2), 2, 2, False)) == (
            "Conv2d(4, 8, kernel_size=(3, 5), stride=(2, 1), padding=(1, 2), dilation=(2, 2), groups=2, bias=False)"
        )
        assert repr(Conv2d(1, 2, 3, padding=[0], dilation=[1])) == "Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))"
        assert repr(Conv1d(1, 2, 3, padding="same")) == "Conv1d(1, 2, kernel_size=(3,), stride=(1,), padding=same)"
        assert repr(Block()) == (
            "Block(\n"
            "  (conv1): Conv2d(2, 3, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))\n"
            "  (conv2): Conv2d(3, 2, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)\n"
            ")"
        )

    def test_several_lines_of_an_extra_repr_are_set_in(self):
        class Two(Module):
            def extra_repr(self):
                return "one\ntwo"

        assert repr(Sequential(Two())) == "Sequential(\n  (0): Two(\n    one\n    two\n  )\n)"

    def test_attributes_are_pytorchs(self):
        conv = Conv1d(2, 4, 3, padding="same", groups=2)
        assert (conv.kernel_size, conv.stride, conv.padding, conv.dilation) == ((3,), (1,), "same", (1,))
        assert (conv.output_padding, conv.transposed, conv.padding_mode, conv.groups) == ((0,), False, "zeros", 2)
        assert (conv.in_channels, conv.out_channels, conv.training) == (2, 4, True)
        assert Conv2d(1, 1, 3, 2, 1).stride == (2, 2)
        assert Conv2d(1, 1, 1, bias=False).bias is None


class TestContainers:
    def test_sequential_calls_one_after_another_and_backward_in_reverse(self, rng):
        first, second = Conv2d(2, 3, 3), Conv2d(3, 1, 3)
        model = Sequential(first, ReLU(), second, Flatten())
        x = rng.standard_normal((2, 2, 8, 8)).astype(np.float32)
        hidden = first(x)
        y = second(np.maximum(hidden, 0))
        np.testing.assert_array_equal(model(x), y.reshape(2, -1))
        dx = model.backward(np.ones((2, 16)))
        np.testing.assert_array_equal(dx, first.backward(second.backward(np.ones_like(y)) * (hidden > 0)))
        assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]

    @pytest.mark.parametrize("nested", [False, True])
    def test_a_layer_may_stand_in_several_places_of_a_sequential(self, rng, nested):
        conv, relu = Conv2d(2, 2, 3, padding=1), ReLU()
        apart = Sequential(copy.deepcopy(conv), ReLU(), copy.deepcopy(conv), ReLU())
        again = Sequential(Sequential(conv, relu), Sequential(conv, relu)) if nested else Sequential(
            conv, relu, conv, relu
        )
        x = rng.standard_normal((2, 2, 8, 8)).astype(np.float32)
        y = apart(x)
        np.testing.assert_array_equal(again(x), y)
        dx = apart.backward(y)
        np.testing.assert_array_equal(again.backward(y), dx)
        np.testing.assert_allclose(conv.weight.grad, apart[0].weight.grad + apart[2].weight.grad, rtol=1e-4, atol=1e-4)
        again.eval()(x)
        with pytest.raises(RuntimeError, match="needs a forward before it"):
            again.backward(y)

    def test_a_sequential_refuses_to_go_back_twice_through_a_module_that_it_does_not_know(self, rng):
        class Doubled(Module):
            def __init__(self):
                super().__init__()
                self.relu = ReLU()

            def forward(self, x):
                return self.relu(2 * x)

            def backward(self, dy):
                return 2 * self.relu.backward(dy)

        x = rng.standard_normal((3, 4)).astype(np.float32)
        doubled = Doubled()
        for model in (Sequential(doubled, Flatten(), doubled), Sequential(Sequential(doubled), Sequential(doubled))):
            y = model(x)
            with pytest.raises(RuntimeError, match="Doubled stands in several places of a Sequential"):
                model.backward(y)
        # What is below it may stand elsewhere.
        model = Sequential(doubled, Flatten(), doubled.relu)
        model(x - 1)
        model(x)
        np.testing.assert_array_equal(model.backward(np.ones_like(x)), 2 * (x > 0))

    def test_sequential_takes_names(self):
        model = Sequential({"conv": Conv2d(1, 2, 3), "relu": ReLU()})
        assert list(model.state_dict()) == ["conv.weight", "conv.bias"]
        assert isinstance(model[1], ReLU) and model.conv is model[-2] and len(model) == 2
        assert [name for name, _ in model[1:].named_children()] == ["relu"] and isinstance(model[:1], Sequential)
        with pytest.raises(IndexError):
            model[2]

    def test_module_list_is_a_list_of_registered_modules(self):
        convs = ModuleList(Conv2d(1, 1, size) for size in (1, 3))
        convs.append(Conv2d(1, 1, 5)).extend([Conv2d(1, 1, 7)])
        assert [conv.kernel_size[0] for conv in convs] == [1, 3, 5, 7] and len(convs) == 4
        convs[-1] = Conv2d(1, 1, 9)
        assert convs[3].kernel_size == (9, 9) and len(list(convs.parameters())) == 8
        assert list(convs[2:].state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
        with pytest.raises(NotImplementedError, match="ModuleList"):
            convs(0)

    def test_relu_ignores_later_edits_of_its_output(self):
        relu = ReLU()
        y = relu(np.float32([-1, 0, 2, np.nan]))
        np.testing.assert_array_equal(y, np.float32([0, 0, 2, np.nan]))
        y -= 5
        assert relu.backward([1, 1, 3, 1]).tolist() == [0, 0, 3, 1]

    def test_relu_in_place_is_the_other_in_the_inputs_memory(self, compute, rng):
        x = rng.rand(2, 3).astype(np.float32) - 0.5
        there, relu = grilly.tensor(x, compute), ReLU(inplace=True)
        expected, dy = np.maximum(x, 0), rng.rand(2, 3).astype(np.float32)
        assert repr(relu) == "ReLU(inplace=True)" and repr(ReLU()) == "ReLU()"
        assert relu(there) is there
        np.testing.assert_array_equal(there.numpy(), expected)
        np.testing.assert_array_equal(relu.backward(dy), np.where(expected > 0, dy, 0))
        assert relu(x) is x
        np.testing.assert_array_equal(x, expected)
        np.testing.assert_array_equal(relu.backward(dy), np.where(expected > 0, dy, 0))

    def test_a_chain_stays_on_the_device(self, compute, rng):
        model = Sequential(Conv2d(2, 3, 3), ReLU(), Conv2d(3, 2, 3), Flatten())
        x = rng.standard_normal((2, 2, 8, 8)).astype(np.float32)
        y = model(x)
        dx = model.backward(y)
        gradients = [parameter.grad for parameter in model.parameters()]
        model.zero_grad()
        model.to(compute)
        device_y = model(grilly.tensor(x, compute))
        device_dx = model.backward(device_y)
        assert isinstance(device_y, grilly.Tensor) and device_y.shape == (2, 32)
        np.testing.assert_array_equal(device_y.numpy(), y)
        np.testing.assert_array_equal(device_dx.numpy(), dx)
        for parameter, gradient in zip(model.parameters(), gradients):
            np.testing.assert_array_equal(parameter.grad.numpy(), gradient)
        model.zero_grad(set_to_none=False)
        assert not any(parameter.grad.numpy().any() for parameter in model.parameters())

    def test_relus_gradient_is_where_the_outputs_gradient_is(self, compute):
        relu = ReLU()
        for kept in (np.asarray, grilly.tensor):
            relu(kept([1, -1]))
            for given in (np.asarray, grilly.tensor):
                dx = relu.backward(given([3, 4]))
                assert isinstance(dx, type(given([])))
                np.testing.assert_array_equal(np.asarray(dx), [3, 0])

    def test_relu_refuses_to_go_back_through_a_tensor_that_changed(self):
        relu = ReLU()
        y = relu(grilly.tensor([1, -1]))
        y += 1
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            relu.backward([1, 1])

    def test_flatten_joins_dimensions(self):
        x = np.arange(24).reshape(2, 3, 2, 2)
        assert Flatten()(x).shape == (2, 12) and Flatten(0, 1)(x).shape == (6, 2, 2)
        assert Flatten(-2)(x).shape == (2, 3, 4)
        assert Flatten(0)(np.empty((0, 3))).shape == (0,)
        flatten = Flatten()
        np.testing.assert_array_equal(flatten.backward(flatten(x)), x)
        with pytest.raises(RuntimeError, match="start_dim cannot come after end_dim"):
            Flatten(2, 1)(x)
        assert Flatten(0)(np.float32(3)).shape == (1,)
        text = r"Dimension out of range \(expected to be in range of \[-4, 3\], but got 5\)"
        with pytest.raises(IndexError, match=text):
            Flatten(5)(x)

    @pytest.mark.parametrize("layer", [ReLU(), Flatten(0), Sequential()], ids=repr)
    def test_backward_needs_a_forward_that_kept_something(self, layer):
        twin = copy.deepcopy(layer)
        twin.eval()(np.ones(2))
        with grilly.no_grad():
            layer(np.ones(2))
        for unready in (layer, twin, type(layer)()):
            with pytest.raises(RuntimeError, match=f"{type(layer).__name__}.backward.. needs a forward before it"):
                unready.backward(np.ones(2))


class TestInitialisation:
    def test_values_follow_the_seed(self):
        grilly.manual_seed(3)
        first = Conv2d(4, 6, 3).state_dict()
        grilly.manual_seed(3)
        second = Conv2d(4, 6, 3).state_dict()
        assert all(np.array_equal(first[name], second[name]) for name in first)
        assert not np.array_equal(Conv2d(4, 6, 3).weight, first["weight"])

    def test_draws_are_pytorchs(self):
        # torch.manual_seed(0); torch.rand(5)
        weight = Parameter(np.empty(5))
        grilly.manual_seed(0)
        grilly.nn.init.uniform_(weight)
        np.testing.assert_array_equal(np.round(weight, 4), np.float32([0.4963, 0.7682, 0.0885, 0.1320, 0.3074]))

    @pytest.mark.parametrize("layer, fan_in", [
        (Conv2d(8, 64, 3), 72), (Conv2d(8, 64, 3, groups=4), 18), (Conv1d(8, 64, 5), 40),
    ], ids=repr)
    def test_bounds_are_one_over_root_fan_in(self, layer, fan_in):
        bound = 1 / np.sqrt(fan_in)
        for parameter in layer.parameters():
            assert bound * 0.8 < np.abs(parameter.data).max() <= bound * 1.000001
