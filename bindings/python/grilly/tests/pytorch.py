"""Comparing layers with a real PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np

from grilly import nn
from grilly.tests.checks import required

torch = required("torch")

#: What layers are made of, and how PyTorch names it.
OPTIONS = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
ATTRIBUTES = (*OPTIONS, "in_channels", "out_channels", "output_padding", "transposed", "training")


def twin(theirs: Any) -> Any:
    """Our layer of the same class, options and parameters as PyTorch's."""
    options = {name: getattr(theirs, name) for name in OPTIONS}
    if theirs.transposed:
        options["output_padding"] = theirs.output_padding
    ours = getattr(nn, type(theirs).__name__)(
        theirs.in_channels, theirs.out_channels, bias=theirs.bias is not None, **options
    )
    ours.load_state_dict({name: tensor.numpy().copy() for name, tensor in theirs.state_dict().items()})
    return ours


def check_against(theirs: Any, x: np.ndarray, rng: np.random.RandomState, **arguments: Any) -> np.ndarray:
    """Our twin's output and gradients are PyTorch's; so are its attributes and its repr. Returns the output.

    `arguments` go to both forwards.
    """
    ours = twin(theirs)
    assert repr(ours) == repr(theirs)
    for name in ATTRIBUTES:
        assert getattr(ours, name) == getattr(theirs, name), name
    tensor = torch.from_numpy(x.copy()).requires_grad_()
    # PyTorch 1.13 cannot wrap an image that has no batch dimension.
    alone = theirs.padding_mode == "circular" and x.ndim == len(theirs.kernel_size) + 1
    expected = theirs(tensor[None])[0] if alone else theirs(tensor, **arguments)
    y = ours(x, **arguments)
    check_close(y, expected.detach(), "output", rtol=1e-4, atol=1e-5)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    expected.backward(torch.from_numpy(dy))
    gradients = {"input": (ours.backward(dy), tensor.grad)}
    for name, parameter in theirs.named_parameters():
        gradients[name] = getattr(ours, name).grad, parameter.grad
    for name, (got, wanted) in gradients.items():
        check_close(got, wanted, f"gradient of {name}", rtol=1e-3, atol=1e-4)
    return y


def check_close(got: np.ndarray, expected: Any, name: str, rtol: float, atol: float) -> None:
    """Equal within tolerances, and in shape and dtype."""
    assert (got.shape, got.dtype) == (tuple(expected.shape), np.float32), name
    np.testing.assert_allclose(got, expected.numpy(), rtol=rtol, atol=atol, err_msg=name)
