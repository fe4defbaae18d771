"""Convolution in float64, tap by tap: what the self-test and the tests compare with. Slow and plain on purpose.

Arrays are NCHW; padding is ((top, bottom), (left, right)), stride and dilation are (height, width). A `Sums` also has
the sum of magnitudes that the accuracy contract needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, NamedTuple, Optional

import numpy as np


class Sums(NamedTuple):
    """Results in float64, and what the contract says about their error."""

    value: np.ndarray
    #: Σ|a||b| (+ |bias|) of each result.
    magnitude: np.ndarray
    #: How many products are summed into one result.
    terms: int
    #: The largest magnitude of any operand.
    largest: float

    def bound(self) -> np.ndarray:
        """The largest error that precision FP32 allows: 4·√K·2⁻²³·S + K·2⁻¹²⁶·max(1, largest)."""
        floor = self.terms * 2.0**-126 * max(1.0, self.largest)
        return 4 * max(self.terms, 1) ** 0.5 * 2.0**-23 * self.magnitude + floor

    def worst(self, got: np.ndarray) -> float:
        """The largest error of `got` in units of its bound; at most 1 is within the contract."""
        if got.shape != self.value.shape:
            raise AssertionError(f"shape {got.shape}, expected {self.value.shape}")
        if got.dtype != np.float32:
            raise AssertionError(f"dtype {got.dtype}, expected float32")
        error = np.abs(got.astype(np.float64) - self.value)
        # The bound is 0 where nothing is summed.
        return float(np.max(error / np.maximum(self.bound(), np.finfo(np.float64).tiny), initial=0.0))


@dataclass(frozen=True)
class Reference:
    """A convolution's sizes, and its three passes."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def output_shape(self, x_shape: tuple[int, ...], w_shape: tuple[int, ...]) -> tuple[int, ...]:
        sizes = [
            (size + sum(self.padding[axis]) - self.dilation[axis] * (w_shape[2 + axis] - 1) - 1) // self.stride[axis] + 1
            for axis, size in enumerate(x_shape[2:])
        ]
        return x_shape[0], w_shape[0], *sizes

    def forward(self, x: np.ndarray, w: np.ndarray, b: Optional[np.ndarray] = None) -> Sums:
        def run(x: np.ndarray, w: np.ndarray, b: Optional[np.ndarray]) -> np.ndarray:
            y = np.zeros(self.output_shape(x.shape, w.shape))
            padded = self._padded(x)
            for tap, window in self._taps(x.shape, w.shape):
                self._grouped("ngcpq,gkc->ngkpq", y, padded[window], w[(..., *tap)])
            return y if b is None else y + b[:, None, None]

        return _sums(run, w[0].size, x, w, b)

    def backward_input(self, dy: np.ndarray, w: np.ndarray, x_shape: tuple[int, ...]) -> Sums:
        def run(dy: np.ndarray, w: np.ndarray) -> np.ndarray:
            dx = self._padded(np.zeros(x_shape))
            for tap, window in self._taps(x_shape, w.shape):
                self._grouped("ngkpq,gkc->ngcpq", dx[window], dy, w[(..., *tap)])
            (top, _), (left, _) = self.padding
            return dx[:, :, top:top + x_shape[2], left:left + x_shape[3]]

        return _sums(run, w.size // max(w.shape[1] * self.groups, 1), dy, w)

    def backward_weight(self, dy: np.ndarray, x: np.ndarray, kernel: tuple[int, int]) -> Sums:
        w_shape = (dy.shape[1], x.shape[1] // self.groups, *kernel)

        def run(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
            dw = np.zeros(w_shape)
            padded = self._padded(x)
            for tap, window in self._taps(x.shape, w_shape):
                self._grouped("ngkpq,ngcpq->gkc", dw[(..., *tap)], dy, padded[window])
            return dw

        return _sums(run, dy.size // max(dy.shape[1], 1), dy, x)

    def backward_bias(self, dy: np.ndarray) -> Sums:
        return _sums(lambda dy: dy.sum(axis=(0, 2, 3)), dy.size // max(dy.shape[1], 1), dy)

    def _padded(self, x: np.ndarray) -> np.ndarray:
        return np.pad(x, ((0, 0), (0, 0), *self.padding))

    def _taps(self, x_shape: tuple[int, ...], w_shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, int], tuple]]:
        """Each kernel element, and the elements of the padded input that it meets."""
        sizes = self.output_shape(x_shape, w_shape)[2:]
        for tap in np.ndindex(*w_shape[2:]):
            starts = [tap[axis] * self.dilation[axis] for axis in (0, 1)]
            yield tap, (..., *(
                slice(start, start + (size - 1) * step + 1, step)
                for start, size, step in zip(starts, sizes, self.stride)
            ))

    def _grouped(self, subscripts: str, into: np.ndarray, *operands: np.ndarray) -> None:
        """Adds an einsum over arrays whose channel axis (of weights: the first) is split into groups."""
        def split(array: np.ndarray, letters: str) -> np.ndarray:
            axis = letters.index("g")
            channels = array.shape[axis] // self.groups
            return array.reshape(*array.shape[:axis], self.groups, channels, *array.shape[axis + 1:])

        inputs, output = subscripts.split("->")
        result = np.einsum(subscripts, *map(split, operands, inputs.split(",")), optimize=True)
        into += result.reshape(into.shape)


def _sums(run, terms: int, *operands: Optional[np.ndarray]) -> Sums:
    wide = [None if operand is None else operand.astype(np.float64) for operand in operands]
    positive = [None if operand is None else np.abs(operand) for operand in wide]
    largest = max((float(operand.max(initial=0.0)) for operand in positive if operand is not None))
    return Sums(run(*wide), run(*positive), terms, largest)
