"""Convolution in float64, tap by tap: what the self-test and the tests compare with. Slow and plain on purpose.

Arrays are NCHW; padding is ((top, bottom), (left, right)), stride, dilation and output padding are (height, width). A
`Sums` also has the sum of magnitudes that the accuracy contract needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Iterator, NamedTuple, Optional, Union

import numpy as np


class Sums(NamedTuple):
    """Results in float64, and what the contract says about their error."""

    value: np.ndarray
    #: Σ|a||b| (+ |bias|) of each result.
    magnitude: np.ndarray
    #: How many products are summed into one result: the same for all, or of each.
    terms: Union[int, np.ndarray]
    #: The largest magnitude of any operand.
    largest: float

    def bound(self) -> np.ndarray:
        """The largest error that precision FP32 allows: 4·√K·2⁻²³·S + K·2⁻¹²⁶·max(1, largest)."""
        floor = self.terms * 2.0**-126 * max(1.0, self.largest)
        return 4 * np.maximum(self.terms, 1) ** 0.5 * 2.0**-23 * self.magnitude + floor

    def worst(self, got: np.ndarray) -> float:
        """The largest error of `got` in units of its bound; at most 1 is within the contract."""
        if got.shape != self.value.shape:
            raise AssertionError(f"shape {got.shape}, expected {self.value.shape}")
        if got.dtype != np.float32:
            raise AssertionError(f"dtype {got.dtype}, expected float32")
        error = np.abs(got.astype(np.float64) - self.value)
        # The bound is 0 where nothing is summed.
        return float(np.max(error / np.maximum(self.bound(), np.finfo(np.float64).tiny), initial=0.0))


#: What `np.pad` calls PyTorch's padding modes.
_NUMPY_MODES: dict[str, Any] = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@dataclass(frozen=True)
class Reference:
    """A convolution's sizes, and its three passes.

    A kernel meets two tensors: it steps over the far one, and each of its places is an element of the near one. Input
    and output are far and near; of a transposed convolution they are near and far.
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    padding_mode: str = "zeros"
    transposed: bool = False
    output_padding: tuple[int, int] = (0, 0)

    def output_shape(self, x_shape: tuple[int, ...], w_shape: tuple[int, ...]) -> tuple[int, ...]:
        spans = [step * (size - 1) + 1 for step, size in zip(self.dilation, w_shape[2:])]
        added = [sum(pair) for pair in self.padding]
        if self.transposed:
            channels = w_shape[1] * self.groups
            sizes = [
                (size - 1) * step + span + extra - pad
                for size, step, span, extra, pad in zip(x_shape[2:], self.stride, spans, self.output_padding, added)
            ]
        else:
            channels = w_shape[0]
            sizes = [
                (size + pad - span) // step + 1
                for size, step, span, pad in zip(x_shape[2:], self.stride, spans, added)
            ]
        return x_shape[0], channels, *sizes

    def forward(self, x: np.ndarray, w: np.ndarray, b: Optional[np.ndarray] = None) -> Sums:
        shape = self.output_shape(x.shape, w.shape)

        def run(x: np.ndarray, w: np.ndarray, b: Optional[np.ndarray]) -> np.ndarray:
            y = self._to_far(x, w, shape) if self.transposed else self._to_near(x, w, shape)
            return y if b is None else y + b[:, None, None]

        return _sums(run, self._far_terms(w) if self.transposed else w[0].size, x, w, b)

    def backward_input(self, dy: np.ndarray, w: np.ndarray, x_shape: tuple[int, ...]) -> Sums:
        if self.transposed:
            return _sums(lambda dy, w: self._to_near(dy, w, x_shape), w[0].size, dy, w)
        # An element that padding copies sums what reaches its copies.
        copies = [np.bincount(origins[origins >= 0], minlength=size)
                  for origins, size in zip(map(self._origins, (0, 1), x_shape[2:]), x_shape[2:])]
        return _sums(
            lambda dy, w: self._to_far(dy, w, x_shape), self._far_terms(w) * np.outer(*copies), dy, w
        )

    def backward_weight(self, dy: np.ndarray, x: np.ndarray, kernel: tuple[int, int]) -> Sums:
        near, far = (x, dy) if self.transposed else (dy, x)
        w_shape = (near.shape[1], far.shape[1] // self.groups, *kernel)

        def run(near: np.ndarray, far: np.ndarray) -> np.ndarray:
            dw = np.zeros(w_shape)
            padded = self._padded(far)
            for tap, window in self._taps(near.shape, w_shape):
                self._grouped("ngkpq,ngcpq->gkc", dw[tap], near, padded[window])
            return dw

        return _sums(run, near.size // max(near.shape[1], 1), near, far)

    def backward_bias(self, dy: np.ndarray) -> Sums:
        return _sums(lambda dy: dy.sum(axis=(0, 2, 3)), dy.size // max(dy.shape[1], 1), dy)

    def _to_near(self, far: np.ndarray, w: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        near = np.zeros(shape)
        padded = self._padded(far)
        for tap, window in self._taps(shape, w.shape):
            self._grouped("ngcpq,gkc->ngkpq", near, padded[window], w[tap])
        return near

    def _to_far(self, near: np.ndarray, w: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        padded = np.zeros((*shape[:2], *(size + sum(pair) for size, pair in zip(shape[2:], self.padding))))
        for tap, window in self._taps(near.shape, w.shape):
            self._grouped("ngkpq,gkc->ngcpq", padded[window], near, w[tap])
        far = np.zeros(shape)
        rows, columns = map(self._origins, (0, 1), shape[2:])
        places: Any = (..., rows[rows >= 0, None], columns[columns >= 0])
        np.add.at(far, places, padded[:, :, rows >= 0][..., columns >= 0])
        return far

    def _far_terms(self, w: np.ndarray) -> int:
        return w.size // max(w.shape[1] * self.groups, 1)

    def _padded(self, far: np.ndarray) -> np.ndarray:
        return np.pad(far, ((0, 0), (0, 0), *self.padding), _NUMPY_MODES[self.padding_mode])

    def _origins(self, axis: int, size: int) -> np.ndarray:
        """The element that each element of a padded axis is a copy of; -1 for a zero."""
        if self.padding_mode == "zeros":
            return np.pad(np.arange(size), self.padding[axis], constant_values=-1)
        return np.pad(np.arange(size), self.padding[axis], _NUMPY_MODES[self.padding_mode])

    def _taps(self, near_shape: tuple[int, ...], w_shape: tuple[int, ...]) -> Iterator[tuple[Any, Any]]:
        """Indices of each kernel element, and of the elements of the padded far tensor that it meets."""
        for tap in np.ndindex(*w_shape[2:]):
            starts = [tap[axis] * self.dilation[axis] for axis in (0, 1)]
            yield (..., *tap), (..., *(
                slice(start, start + (size - 1) * step + 1, step)
                for start, size, step in zip(starts, near_shape[2:], self.stride)
            ))

    def _grouped(self, subscripts: str, into: np.ndarray, *operands: np.ndarray) -> None:
        """Adds an einsum over arrays whose channel axis (of weights: the first) is split into groups."""
        if self.groups == 1:
            # Without groups it is a product of matrices, which NumPy computes faster.
            into += np.einsum(subscripts.replace("g", ""), *operands, optimize=True)
            return

        def split(array: np.ndarray, letters: str) -> np.ndarray:
            axis = letters.index("g")
            channels = array.shape[axis] // self.groups
            return array.reshape(*array.shape[:axis], self.groups, channels, *array.shape[axis + 1:])

        inputs, output = subscripts.split("->")
        result = np.einsum(subscripts, *map(split, operands, inputs.split(",")), optimize=True)
        into += result.reshape(into.shape)


def _sums(run: Callable[..., np.ndarray], terms: Union[int, np.ndarray], *operands: Optional[np.ndarray]) -> Sums:
    wide = [None if operand is None else operand.astype(np.float64) for operand in operands]
    positive = [None if operand is None else np.abs(operand) for operand in wide]
    largest = max((float(operand.max(initial=0.0)) for operand in positive if operand is not None))
    return Sums(run(*wide), run(*positive), terms, largest)
