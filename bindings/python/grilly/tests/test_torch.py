"""Layers and functions against a real PyTorch: random configurations, initialisation, gradients, and errors."""

from __future__ import annotations

import re
from typing import Any, Callable, Iterator

import numpy as np
import pytest

import grilly
from grilly import nn
from grilly.nn import functional
from grilly.tests.pytorch import check_against, check_close, torch, twin

#: Each is a layer of its own, with an input.
CONFIGURATIONS = 320
MODES = ("zeros", "reflect", "replicate", "circular")


def configuration(seed: int) -> tuple[Any, tuple[int, ...], dict[str, Any]]:
    """A random layer of PyTorch's, the shape of an input, and arguments of its forward. Every kind of layer, padding
    mode and padding comes up; what is drawn is legal."""
    rng = np.random.RandomState(seed)

    def draw(low: int, high: int) -> Any:
        """One size for all dimensions, or one for each."""
        return int(rng.randint(low, high)) if rng.rand() < 0.3 else tuple(map(int, rng.randint(low, high, size=dims)))

    def each(sizes: Any) -> tuple[int, ...]:
        return sizes if isinstance(sizes, tuple) else (sizes,) * dims

    dims, transposed = 1 + seed % 2, seed % 5 >= 3
    groups = int(rng.choice([1, 1, 2, 3]))
    channels = [groups * int(rng.randint(1, 5)) for _ in range(2)]
    if rng.rand() < 0.15:
        groups = channels[0]
        channels[1] = groups * int(rng.randint(1, 3))
    kernel, stride, dilation = draw(1, 5), draw(1, 4), draw(1, 4)
    spans = [d * (k - 1) + 1 for d, k in zip(each(dilation), each(kernel))]
    options = {
        "kernel_size": kernel, "stride": stride, "padding": draw(0, 4), "dilation": dilation, "groups": groups,
        "bias": bool(rng.rand() < 0.7),
    }
    arguments = {}
    if transposed:
        options["output_padding"] = tuple(int(rng.randint(max(s, d))) for s, d in zip(each(stride), each(dilation)))
        smallest = [max(1, 2 * p + 2 - span) for p, span in zip(each(options["padding"]), spans)]
        size = tuple(low + int(rng.randint(6)) for low in smallest)
        if rng.rand() < 0.3:
            arguments["output_size"] = tuple(
                (n - 1) * s - 2 * p + span + int(rng.randint(s))
                for n, s, p, span in zip(size, each(stride), each(options["padding"]), spans)
            )
    else:
        options["padding_mode"] = MODES[seed // 5 % 4]
        if rng.rand() < 0.25:
            options["padding"] = str(rng.choice(["valid", "same"]))
        if options["padding"] == "same":
            options["stride"] = 1
        # No padding is as large as a size is here, which is what "reflect" asks for.
        size = tuple(max(span, 4) + int(rng.randint(8)) for span in spans)
    layer = getattr(torch.nn, f"Conv{'Transpose' * transposed}{dims}d")(*channels, **options)
    batch = () if rng.rand() < 0.2 else (int(rng.randint(0, 4)),)
    return layer, (*batch, channels[0], *size), arguments


@pytest.mark.usefixtures("compute")
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("seed", range(CONFIGURATIONS))
def test_configuration(seed: int, rng) -> None:
    """Output, gradients, attributes, repr and the shapes of parameters are PyTorch's."""
    torch.manual_seed(seed)
    layer, shape, arguments = configuration(seed)
    check_against(layer, rng.standard_normal(shape).astype(np.float32), rng, **arguments)


def test_configurations_have_everything() -> None:
    layers, shapes, arguments = zip(*map(configuration, range(CONFIGURATIONS)))
    assert {type(layer).__name__ for layer in layers} == {"Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d"}
    for dims in (1, 2):
        mine = [layer for layer in layers if len(layer.kernel_size) == dims]
        assert {(layer.padding_mode, type(layer.padding)) for layer in mine} == {
            (mode, kind) for mode in MODES for kind in (tuple, str)
        }
        assert {layer.groups == 1 for layer in mine} == {layer.bias is None for layer in mine} == {True, False}
        assert any(max(layer.output_padding) >= max(layer.stride) for layer in mine)
        assert any(layer.groups == layer.in_channels > 1 for layer in mine)
    assert any(shape[0] == 0 for shape in shapes) and any(arguments)
    assert any(len(shape) == len(layer.kernel_size) + 1 for layer, shape in zip(layers, shapes))


class TestInitialisation:
    @pytest.mark.parametrize("seed", [0, 1234, 2**32 + 5])
    @pytest.mark.parametrize("layer", range(50))
    def test_bits_are_pytorchs(self, layer: int, seed: int) -> None:
        theirs = configuration(1000 + layer)[0]
        self.check(theirs, seed)

    @pytest.mark.parametrize("size", range(1, 41))
    def test_bits_are_pytorchs_however_few_there_are(self, size: int) -> None:
        self.check(torch.nn.Conv1d(1, 1, size), size)
        self.check(torch.nn.Conv2d(1, size, 1), -size)

    @staticmethod
    def check(theirs: Any, seed: int) -> None:
        ours = twin(theirs)
        torch.manual_seed(seed)
        theirs.reset_parameters()
        grilly.manual_seed(seed)
        ours.reset_parameters()
        for name, parameter in theirs.named_parameters():
            expected, got = parameter.detach().numpy(), getattr(ours, name).data
            np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32), err_msg=name)

    def test_layers_made_one_after_the_other_draw_what_pytorchs_draw(self) -> None:
        states = []
        for package in (torch, grilly):
            package.manual_seed(7)
            first, second = package.nn.Conv2d(3, 5, 3), package.nn.ConvTranspose1d(4, 6, 5, groups=2, bias=False)
            states.append([np.asarray(value) for layer in (first, second) for value in layer.state_dict().values()])
        assert len(states[0]) == 3
        for theirs, ours in zip(*states):
            np.testing.assert_array_equal(ours, theirs)

    def test_a_layer_without_weights_warns_and_draws_nothing(self) -> None:
        values = []
        for package in (torch, grilly):
            package.manual_seed(3)
            with pytest.warns(UserWarning, match="Initializing zero-element tensors is a no-op"):
                package.nn.Conv2d(0, 2, 3)
            values.append(np.asarray(package.nn.Conv1d(1, 2, 3).weight.data))
        np.testing.assert_array_equal(*values)


@pytest.mark.usefixtures("compute")
class TestGrad:
    """`grilly.nn.grad` is `torch.nn.grad`."""

    @pytest.mark.parametrize("dims", [1, 2])
    @pytest.mark.parametrize("options", [
        {}, {"stride": 2, "padding": 1}, {"dilation": 3, "padding": 2}, {"groups": 2}, {"stride": 3, "groups": 2},
    ], ids=str)
    def test_gradients_are_pytorchs(self, rng, dims: int, options: dict[str, int]) -> None:
        x = rng.standard_normal((2, 4, 11, 9)[:dims + 2]).astype(np.float32)
        w = rng.standard_normal((6, 4 // options.get("groups", 1), 3, 2)[:dims + 2]).astype(np.float32)
        y = getattr(functional, f"conv{dims}d")(x, w, **options)
        dy = rng.standard_normal(y.shape).astype(np.float32)
        for name, arguments in (("input", (x.shape, w, dy)), ("weight", (x, w.shape, dy))):
            tensors = (torch.from_numpy(value) if isinstance(value, np.ndarray) else value for value in arguments)
            expected = getattr(torch.nn.grad, f"conv{dims}d_{name}")(*tensors, **options)
            got = getattr(nn.grad, f"conv{dims}d_{name}")(*arguments, **options)
            check_close(got, expected, name, rtol=1e-3, atol=1e-4)


def outcome(call: Callable[[], Any]) -> tuple[Any, str]:
    """The shape of a result, or the error: its type, and its message unless that is a TypeError, of which PyTorch's are
    about tensors and overloads."""
    try:
        result = call()
    except Exception as error:
        message = str(error).split("\n")[0]
        for later, earlier in DIFFERENCES:
            message = re.sub(earlier, later, message)
        return type(error), message if type(error) is not TypeError else ""
    return tuple(getattr(result, "shape", ())), ""


#: What PyTorch 1.13 says otherwise than later releases, or at random, and here: what we say, and its pattern.
DIFFERENCES = [
    ("weight [", r"weight\["),
    ("non-positive dilation is not supported", r"dilation should be greater than zero, but got \[.*\]"),
    (" one of {...}", " one of {[^}]*}"),
    ("Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions for input",
     r"3D or 4D \(batch mode\) tensor expected for input"),
    ("this padding is not supported", "Only 2D, 3D, 4D, 5D padding with non-constant padding are supported for now"),
    ("this padding is not supported", r"Padding size \d+ is not supported for \d+D input tensor\."),
    ("but got: []", r"but got: \[.*\]"),
    (" of input []", r" of input (\d+|\[.*\])$"),
    ("(for an input of [])", r"\(for an input of .*\)"),
]


def spoilt_call(seed: int) -> tuple[str, list[np.ndarray], dict[str, Any]]:
    """A function's name, its arrays and its options, of which one or two are wrong, or at least odd."""
    rng = np.random.RandomState(seed)
    dims, transposed = 1 + seed % 2, seed % 4 >= 2
    groups, size = int(rng.choice([1, 2])), (int(rng.randint(5, 9)), int(rng.randint(5, 9)))[:dims]
    x_shape, w_shape, b_shape = [2, 4, *size], [4, 6 // groups if transposed else 4 // groups, 3, 2][:dims + 2], [6]
    if not transposed:
        w_shape[0] = 6
    options: dict[str, Any] = {"stride": 1 + seed % 3, "padding": seed % 2, "groups": groups}

    def some_size() -> Any:
        return rng.choice([-1, 0, 1, 2, 3, 9]).item() if rng.rand() < 0.5 else (
            rng.choice([-1, 0, 1, 2], size=rng.randint(5)).tolist()
        )

    def other_size(shape: list[int], axis: int) -> None:
        shape[axis] = int(rng.choice([1, 2, 3, 5, 7, 8]))

    spoil = [
        lambda: options.update(stride=some_size()),
        lambda: options.update(padding=some_size()),
        lambda: options.update(dilation=rng.choice([0, 1, 2, 3, 9], size=rng.randint(4)).tolist()),
        lambda: options.update(groups=int(rng.choice([-2, -1, 0, 1, 2, 3, 4, 5, 7]))),
        lambda: options.update(output_padding=some_size()) if transposed else options.update(padding="same"),
        lambda: options.update(padding=str(rng.choice(["same", "valid", "reflect"]))),
        lambda: options.update(stride=float(rng.rand())),
        lambda: x_shape.pop(),
        lambda: x_shape.pop(0),
        lambda: x_shape.append(3),
        lambda: w_shape.pop(),
        lambda: w_shape.append(2),
        lambda: other_size(x_shape, rng.randint(len(x_shape))),
        lambda: other_size(w_shape, rng.randint(len(w_shape))),
        lambda: other_size(b_shape, 0),
        lambda: b_shape.append(1),
        lambda: x_shape.__setitem__(-1, int(rng.randint(2))),
    ]
    for _ in range(rng.randint(1, 3)):
        spoil[rng.randint(len(spoil))]()
    if isinstance(options["padding"], str):
        options["groups"] = max(options["groups"], 1)
    arrays = [np.zeros(shape, np.float32) for shape in (x_shape, w_shape, b_shape)]
    return f"conv{'_transpose' * transposed}{dims}d", arrays, options


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_spoilt_calls_end_as_pytorchs_do() -> None:
    """Both refuse with the same error, or both give a result of the same shape."""
    refused = set()
    for seed in range(1000):
        name, arrays, options = spoilt_call(seed)
        theirs = outcome(lambda: getattr(torch.nn.functional, name)(*map(torch.from_numpy, arrays), **options))
        ours = outcome(lambda: getattr(functional, name)(*arrays, **options))
        assert ours == theirs, (seed, name, [array.shape for array in arrays], options)
        refused.add(re.sub(r"[\d-]+", "", ours[1]))
    assert len(refused) > 40, "the calls are spoilt in too few ways to prove anything"


#: PyTorch takes the letters of a padding's name for the sizes of a transposed convolution.
NAMED_PADDINGS = [{"padding": "foo"}, {"padding": "same", "stride": 2}, {"padding": "same", "stride": (1, 2)}]
SPOILT = [
    {"groups": 0}, {"groups": -1}, {"groups": 3}, {"groups": 4}, {"in_channels": 5, "groups": 2},
    {"padding_mode": "foo"}, {"padding_mode": "reflect"}, {"kernel_size": -3}, {"out_channels": -6},
    {"in_channels": -4}, {"kernel_size": 3.0}, {"in_channels": 4.0}, {"out_channels": 6.0}, {"kernel_size": "3"},
    {"kernel_size": None}, {"kernel_size": 0}, {"in_channels": 0}, {"stride": 0}, {"dilation": 0}, {"bias": 0},
    {"nonsense": 1}, {"device": "nowhere", "groups": 0}, {"output_padding": 7}, {"kernel_size": (3,)},
]


@pytest.mark.parametrize("layer, options", [
    *[(layer, options) for layer in ("Conv1d", "Conv2d") for options in NAMED_PADDINGS + SPOILT],
    *[(layer, options) for layer in ("ConvTranspose1d", "ConvTranspose2d") for options in SPOILT],
], ids=str)
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_constructors_end_as_pytorchs_do(layer: str, options: dict[str, Any]) -> None:
    arguments = {"in_channels": 4, "out_channels": 6, "kernel_size": 3, **options}
    results = [outcome(lambda: getattr(package.nn, layer)(**arguments)) for package in (torch, grilly)]
    assert results[0] == results[1]


@pytest.mark.parametrize("dtype", [None, np.float32, np.dtype("float32"), "float32", torch.float32], ids=str)
def test_float32_is_a_dtype_by_any_name(dtype: Any) -> None:
    assert nn.Conv2d(1, 1, 1, dtype=dtype).weight.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float64, "float16", torch.float64, torch.bfloat16, int], ids=str)
def test_other_dtypes_are_refused(dtype: Any) -> None:
    with pytest.raises(TypeError, match="dtype is .*, expected float32"):
        nn.ConvTranspose1d(1, 1, 1, dtype=dtype)


X = np.zeros((2, 4, 8, 8), np.float32)


INPUTS = [X, X[0], X[0, 0], X[:, :3], X[0, :3], X[:, :, :1], X[:, :, :, :2], X[:, :, :0], X[:, :, 0], X[:0], X[:0, :3]]


def forwards() -> Iterator[tuple[str, dict[str, Any], np.ndarray]]:
    """Layers, options, and inputs of which few fit."""
    for layer, images in (("Conv1d", 2), ("Conv2d", 3)):
        for mode in MODES:
            for padding in (0, 1, 2, 8, 9, "same", "valid"):
                for x in INPUTS:
                    # PyTorch 1.13 cannot wrap an image that has no batch dimension.
                    if mode != "circular" or x.ndim != images:
                        yield layer, {"padding_mode": mode, "padding": padding}, x
    # With an empty batch PyTorch does not look at some of these.
    for x in filter(len, INPUTS):
        for options in (
            {"stride": 0}, {"dilation": 0}, {"padding": -1}, {"padding": (1, 2, 3)}, {"kernel_size": (3,)},
        ):
            yield "Conv2d", options, x
        for options in (
            {}, {"padding": 6}, {"output_padding": 1}, {"output_padding": 2, "stride": 2}, {"stride": 0},
            {"dilation": 0},
        ):
            yield "ConvTranspose2d", options, x


@pytest.mark.parametrize("layer, options, x", list(forwards()), ids=lambda value: str(getattr(value, "shape", value)))
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_forwards_end_as_pytorchs_do(layer: str, options: dict[str, Any], x: np.ndarray) -> None:
    arguments = {"in_channels": 4, "out_channels": 6, "kernel_size": 3, **options}
    theirs = outcome(lambda: getattr(torch.nn, layer)(**arguments)(torch.from_numpy(x)))
    ours = outcome(lambda: getattr(nn, layer)(**arguments)(x))
    assert ours == theirs


@pytest.mark.parametrize("size", [
    (30, 30), (18.0, 18.0), (18, 17), (16, 17), (2, 6, 18, 17), (18,), (6, 18, 18), (1, 2, 6, 17, 17), [],
])
@pytest.mark.parametrize("x", [X, X[0]], ids=["batch", "image"])
def test_output_sizes_end_as_pytorchs_do(x: np.ndarray, size: Any) -> None:
    theirs = outcome(lambda: torch.nn.ConvTranspose2d(4, 6, 3, stride=2)(torch.from_numpy(x[:1]), output_size=size))
    assert outcome(lambda: nn.ConvTranspose2d(4, 6, 3, stride=2)(x[:1], output_size=size)) == theirs
