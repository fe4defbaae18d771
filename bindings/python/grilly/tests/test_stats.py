"""What a Compute says about itself: memory is pooled, and nothing leaks."""

from __future__ import annotations

import gc
from typing import Iterator

import numpy as np
import pytest

import grilly
from grilly import Compute, _abi, _context
from grilly.nn import Conv2d


@pytest.fixture
def compute(opened: Compute, monkeypatch: pytest.MonkeyPatch) -> Iterator[Compute]:
    """The device under test in a context of its own, where no other test's garbage is counted."""
    with Compute(opened.device.index) as fresh:
        monkeypatch.setattr(_context, "_default", fresh)
        yield fresh


@pytest.mark.parametrize("training", [True, False])
def test_repeated_forwards_allocate_nothing(compute: Compute, rng, training: bool) -> None:
    conv, x = Conv2d(4, 8, 3, padding=1).train(training), rng.standard_normal((2, 4, 16, 16)).astype(np.float32)
    conv(x)
    before = compute.stats()
    for _ in range(100):
        conv(x)
    after = compute.stats()
    assert after["allocations"] == before["allocations"]
    assert after["blocks_in_use"] == before["blocks_in_use"]
    assert after["bytes_held"] == before["bytes_held"]
    assert after["pipelines"] == before["pipelines"]


def test_repeated_training_steps_allocate_nothing(compute: Compute, rng) -> None:
    conv, x = Conv2d(4, 8, 3, padding=1), rng.standard_normal((2, 4, 16, 16)).astype(np.float32)
    for step in range(50):
        conv.backward(conv(x))
        if step == 1:
            before = compute.stats()
    assert compute.stats()["allocations"] == before["allocations"]
    assert compute.stats()["blocks_in_use"] == before["blocks_in_use"]


def test_a_layer_that_is_gone_holds_nothing(compute: Compute, rng) -> None:
    gc.collect()
    before = compute.stats()["blocks_in_use"]
    conv = Conv2d(4, 8, 3)
    conv(rng.standard_normal((2, 4, 16, 16)))
    assert compute.stats()["blocks_in_use"] > before
    conv.eval()(rng.standard_normal((2, 4, 16, 16)))
    assert compute.stats()["blocks_in_use"] == before
    conv.train()(rng.standard_normal((2, 4, 16, 16)))
    del conv
    gc.collect()
    assert compute.stats()["blocks_in_use"] == before


def test_operations_are_created_once(compute: Compute, rng, monkeypatch: pytest.MonkeyPatch) -> None:
    conv, x = Conv2d(3, 5, 3), rng.standard_normal((1, 3, 8, 8))
    conv.backward(conv(x))
    kept = len(compute.conv._operations)
    monkeypatch.setattr(_abi.lib, "grilly_conv2d_create", None)
    conv.backward(conv(x))
    conv(rng.standard_normal((4, 3, 20, 9)))
    assert len(compute.conv._operations) == kept


def test_trim_gives_back_what_nothing_uses(compute: Compute, rng) -> None:
    values = rng.standard_normal((1, 64, 64, 64)).astype(np.float32)
    kept, gone = grilly.tensor(values, compute), grilly.tensor(values, compute)
    held, size = compute.stats()["bytes_held"], gone.nbytes
    del gone
    gc.collect()
    assert compute.stats()["bytes_held"] == held
    compute.trim()
    assert kept.nbytes <= compute.stats()["bytes_held"] <= held - size
    np.testing.assert_array_equal(kept.numpy(), values)


@pytest.mark.parametrize("timestamps", [False, True])
def test_submissions_are_timed_where_that_is_asked_for(opened: Compute, timestamps: bool) -> None:
    with Compute(opened.device.index, timestamps=timestamps) as compute:
        Conv2d(4, 8, 3, device=compute)(np.ones((1, 4, 8, 8), np.float32))
        timed = compute.stats()["device_nanoseconds"] > 0
        assert timestamps or not timed
        # Of the others, not every device has a clock.
        assert timed or not timestamps or compute.device.kind not in ("discrete", "software")
