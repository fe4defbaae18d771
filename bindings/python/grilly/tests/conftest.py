"""Devices to test on.

A test that takes the fixture `compute` runs on the CPU device and, marked `gpu`, on every Vulkan device, software ones
included; layers use that device too. All other tests use the CPU device, whatever there is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Callable, Iterator

import numpy as np
import pytest

import grilly
from grilly import Compute, _context


def _devices() -> list:
    vulkan = [
        pytest.param(device.index, id=f"vulkan{device.index}", marks=pytest.mark.gpu)
        for device in grilly.devices() if device.is_vulkan
    ]
    return [pytest.param("cpu", id="cpu"), *vulkan]


@pytest.fixture(scope="session", params=_devices())
def opened(request: pytest.FixtureRequest) -> Iterator[Compute]:
    with Compute(request.param) as compute:
        yield compute


@pytest.fixture
def compute(opened: Compute, monkeypatch: pytest.MonkeyPatch) -> Compute:
    """The device under test, which is also what layers share."""
    monkeypatch.setattr(_context, "_default", opened)
    return opened


@pytest.fixture(scope="session")
def _cpu() -> Iterator[Compute]:
    with Compute("cpu") as compute:
        yield compute


@pytest.fixture(autouse=True)
def _cpu_unless_asked(_cpu: Compute, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "compute" not in request.fixturenames:
        monkeypatch.setattr(_context, "_default", _cpu)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.RandomState:
    """Random numbers of the test's own, the same in every run."""
    return np.random.RandomState(sum(map(ord, request.node.originalname)))


@pytest.fixture
def python() -> Callable[..., subprocess.CompletedProcess]:
    """Runs a Python program in a process of its own: `python(code, VK_GPU_INDEX="99")`."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        root = os.path.dirname(os.path.dirname(os.path.abspath(grilly.__file__)))
        return subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": root, "GRILLY_LIBRARY": str(grilly._abi.library_path), **environment},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=120,
        )

    return run
