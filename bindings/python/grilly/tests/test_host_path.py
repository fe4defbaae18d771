"""Arrays where the device reaches them, and calls that are waited for later."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import grilly
from grilly._arrays import address

X, W = (4, 3, 40, 40), (16, 3, 3, 3)


def integers(shape, rng):
    return rng.randint(-2, 3, shape).astype(np.float32)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 4)), np.zeros((0, 4)), np.zeros(()), np.zeros((3, 4))[::-1], np.zeros((3, 4))[:, 1::2],
        np.zeros((3, 4)).T, np.broadcast_to(np.float32(0), (3, 4)), np.frombuffer(bytes(12), np.float32),
    ],
    ids=["whole", "empty", "scalar", "reversed", "strided", "transposed", "broadcast", "read_only"],
)
def test_addresses_are_those_that_numpy_gives(array):
    assert address(array) == array.ctypes.data


def test_results_do_not_depend_on_where_arrays_are(compute, rng):
    x, w = integers(X, rng), integers(W, rng)
    pinned = grilly.host_empty(X, compute)
    pinned[...] = x
    assert pinned.dtype == np.float32 and pinned.flags.c_contiguous and pinned.flags.writeable
    expected = compute.conv.conv2d(x, w, padding=1)
    assert (compute.conv.conv2d(pinned, w, padding=1) == expected).all()
    out = grilly.host_empty(expected.shape, compute)
    assert compute.conv.conv2d(pinned[::-1], w, padding=1, out=out[::-1]) is not expected
    assert (out == expected).all()
    assert (compute.conv.conv2d(grilly.tensor(x, compute), grilly.tensor(w, compute), padding=1).numpy() == expected).all()


def test_memory_of_results_is_used_again(compute, rng):
    x, w = integers(X, rng), integers(W, rng)

    def run():
        del_me = compute.conv.conv2d(x, w, padding=1)
        del del_me
        gc.collect()
        return compute.stats()

    first, last = run(), [run() for _ in range(20)][-1]
    assert last["allocations"] == first["allocations"]
    assert last["host_bytes_held"] == first["host_bytes_held"]


def test_results_outlive_their_device(compute, rng):
    with grilly.Compute(compute.device.index if compute.device.is_vulkan else "cpu") as own:
        x, w = integers(X, rng), integers(W, rng)
        y = own.conv.conv2d(x, w)
        mine = grilly.host_empty(5, own)
        mine[...] = 7
        part, copy = y[1, 2:4], y.copy()
    assert (y == copy).all() and (part == copy[1, 2:4]).all() and (mine == 7).all()
    del y
    gc.collect()
    assert (part == copy[1, 2:4]).all(), "a view keeps the memory"


def test_submitted_calls_give_what_others_give(compute, rng):
    x, w = grilly.tensor(integers((2, 4, 9, 9), rng), compute), grilly.tensor(integers((4, 4, 3, 3), rng), compute)
    b = grilly.tensor(integers((4,), rng), compute)
    expected = compute.conv.conv2d(compute.conv.conv2d(x, w, b, padding=1), w, padding=1).numpy()
    first = compute.conv.submit_conv2d(x, w, b, padding=1)
    second = compute.conv.submit_conv2d(first.result, w, padding=1)
    del x, w, b, first
    assert (second.wait(60).numpy() == expected).all()
    assert second.done and second.wait(0) is second.wait()
    with pytest.raises(ValueError):
        second.wait(-1)


@pytest.mark.parametrize("transposed", [False, True])
def test_submitted_gradients_are_those_of_others(compute, rng, transposed):
    conv, options = compute.conv, {"stride": 2, "padding": 1, "groups": 2, "transposed": transposed}
    x, w = grilly.tensor(integers((2, 4, 9, 7), rng), compute), grilly.tensor(integers((4, 2, 3, 3), rng), compute)
    dy = grilly.tensor(integers(conv.conv2d(x, w, **options).shape, rng), compute)
    pairs = [
        (conv.conv2d_backward(dy, w, x.shape, x, **options), conv.submit_conv2d_backward(dy, w, x.shape, x, **options)),
        (
            conv.conv2d_backward(dy, w, x.shape, has_bias=False, **options),
            conv.submit_conv2d_backward(dy, w, x.shape, has_bias=False, **options),
        ),
        (
            conv.conv2d_backward_weight(dy, x, (3, 3), **options),
            conv.submit_conv2d_backward_weight(dy, x, (3, 3), **options),
        ),
    ]
    del dy, x, w
    for expected, ticket in pairs:
        got = ticket.wait(60)
        assert [gradient is None for gradient in got] == [gradient is None for gradient in expected]
        assert all((one.numpy() == other.numpy()).all() for one, other in zip(got, expected) if one is not None)


def test_only_tensors_are_submitted(compute, rng):
    x, w = integers(X, rng), integers(W, rng)
    tx, tw, conv = grilly.tensor(x, compute), grilly.tensor(w, compute), compute.conv
    for submit in (
        lambda: conv.submit_conv2d(x, tw),
        lambda: conv.submit_conv2d(tx, w),
        lambda: conv.submit_conv2d_backward(x, tw, X),
        lambda: conv.submit_conv2d_backward(tx, tw, X, x),
        lambda: conv.submit_conv2d_backward_weight(tx, x, (3, 3)),
    ):
        with pytest.raises(TypeError, match="expected a Tensor"):
            submit()
    with pytest.raises(TypeError, match="w has type NoneType"):
        conv.submit_conv2d(tx, None)
    with pytest.raises(ValueError, match="x has 3 dimensions"):
        conv.submit_conv2d(tx.reshape(X[0] * X[1], *X[2:]), tw)
    np.testing.assert_array_equal(conv.submit_conv2d(tx, grilly.nn.Parameter(tw)).wait(), conv.conv2d(tx, tw))


def test_host_arrays_are_made_for_a_compute(compute):
    assert grilly.host_empty(3, "vulkan").shape == grilly.host_empty(3, compute).shape == (3,)
    for make in (grilly.host_empty, grilly.zeros, grilly.tensor):
        with pytest.raises(ValueError, match="device is 'cpu', expected 'vulkan' or a grilly.Compute"):
            make(3, "cpu")


def test_a_ticket_outlives_its_compute(compute, rng):
    with grilly.Compute(compute.device.index if compute.device.is_vulkan else "cpu") as own:
        x, w = grilly.tensor(integers(X, rng), own), grilly.tensor(integers(W, rng), own)
        ticket = own.conv.submit_conv2d(x, w)
    assert ticket.wait() is ticket.wait(0)
