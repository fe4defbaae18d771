"""What every comparison shares: the layers of shapes.json, their results in float64, statistics and a table."""

from __future__ import annotations

import json
import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, NamedTuple, Sequence

import numpy as np

FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = PASSES = ("forward", "input gradient", "weight gradient")


@dataclass(frozen=True)
class Shape:
    """A layer and its input, as shapes.json has them: `n` images `c`×`h`×`w` become `k` channels. Pairs are
    (height, width)."""

    name: str
    n: int
    c: int
    h: int
    w: int
    k: int
    kernel: Sequence[int]
    stride: int
    padding: Sequence[int]
    dilation: int
    groups: int

    @property
    def x(self) -> tuple[int, ...]:
        return self.n, self.c, self.h, self.w

    @property
    def weight(self) -> tuple[int, ...]:
        return self.k, self.c // self.groups, *self.kernel

    @property
    def y(self) -> tuple[int, ...]:
        plane = (
            (size + 2 * padding - self.dilation * (kernel - 1) - 1) // self.stride + 1
            for size, kernel, padding in zip((self.h, self.w), self.kernel, self.padding)
        )
        return self.n, self.k, *plane

    @property
    def flops(self) -> int:
        """Of one pass; a multiplication and an addition are two."""
        return 2 * math.prod(self.y) * math.prod(self.weight[1:])


def shapes() -> list[Shape]:
    text = Path(__file__).with_name("shapes.json").read_text(encoding="utf-8")
    return [Shape(**shape) for shape in json.loads(text)]


class Operands(NamedTuple):
    """What the passes of a layer read: float32, from N(0, 1), the same in every process."""

    x: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    dy: np.ndarray

    @classmethod
    def of(cls, shape: Shape) -> Operands:
        random = np.random.default_rng(1)
        sizes = (shape.x, shape.weight, (shape.k,), shape.y)
        return cls(*(random.standard_normal(size, np.float32) for size in sizes))


def reference(shape: Shape, name: str, operands: Operands) -> np.ndarray:
    """The result of a pass in float64: one matrix product for each tap, image and group."""
    n, groups = shape.n, shape.groups
    (p, q), (r, s), (top, left) = shape.y[2:], shape.kernel, shape.padding

    def split(array: np.ndarray) -> np.ndarray:
        """N, channels, … as N, groups, channels of a group, …"""
        return array.astype(np.float64).reshape(n, groups, -1, *array.shape[2:])

    weight = operands.weight.astype(np.float64).reshape(groups, -1, *shape.weight[1:])
    margin = ((0, 0),) * 3 + ((top, top), (left, left))
    x = split(np.zeros(shape.x) if name == INPUT_GRADIENT else operands.x)
    x = np.pad(x, margin)
    y = split(np.zeros(shape.y) if name == FORWARD else operands.dy).reshape(n, groups, -1, p * q)
    dweight = np.zeros_like(weight)
    for i, j in np.ndindex(r, s):
        row, column = i * shape.dilation, j * shape.dilation
        window = x[
            ...,
            row:row + (p - 1) * shape.stride + 1:shape.stride,
            column:column + (q - 1) * shape.stride + 1:shape.stride,
        ]
        tap = weight[..., i, j]
        for image in range(n):
            if name == FORWARD:
                y[image] += tap @ window[image].reshape(groups, -1, p * q)
            elif name == INPUT_GRADIENT:
                window[image] += (tap.swapaxes(1, 2) @ y[image]).reshape(window[image].shape)
            else:
                dweight[..., i, j] += y[image] @ window[image].reshape(groups, -1, p * q).swapaxes(1, 2)
    if name == FORWARD:
        return y.reshape(shape.y) + operands.bias.astype(np.float64)[:, None, None]
    if name == INPUT_GRADIENT:
        return x[..., top:top + shape.h, left:left + shape.w].reshape(shape.x)
    return dweight.reshape(shape.weight)


def relative_error(got: np.ndarray, exact: np.ndarray) -> float:
    """‖got − exact‖ / ‖exact‖, in the Frobenius norm."""
    if got.shape != exact.shape:
        raise ValueError(f"the result has shape {got.shape}, expected {exact.shape}")
    return float(np.linalg.norm((got - exact).ravel()) / np.linalg.norm(exact.ravel()))


def geometric_mean(values: Iterable[float]) -> float:
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms))


def line(cells: Iterable[str], widths: Iterable[int]) -> str:
    """A line of a Markdown table; the first cell is flush left, the others right."""
    first, *rest = zip(cells, widths)
    return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]) + " |"


def processor() -> str:
    """What the system calls it, and the widest vectors it has: model names of virtual machines say little."""
    try:
        entries = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(map(str.strip, entry.split(":", 1)) for entry in entries if ":" in entry)
    flags = fields.get("flags", "").split()
    vectors = next((f", {name}" for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
    return fields.get("model name", platform.machine()) + vectors


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
