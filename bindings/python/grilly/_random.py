"""The random numbers of initialisation: PyTorch's, bit for bit."""

from __future__ import annotations

import numpy as np

_generator = np.random.RandomState()


def manual_seed(seed: int) -> None:
    """From here on initialisation gives the values that PyTorch gives after `torch.manual_seed(seed)`."""
    _generator.seed(int(seed) & 0xFFFFFFFF)


def uniform(shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    """float32 values of U(low, high).

    PyTorch takes the low 24 bits of each 32-bit draw of a Mersenne Twister, and `f · (high - low) + low` as one
    fused multiply-add of float32. In float64 the product is exact, and the sum is rounded to float32.
    """
    count = int(np.prod(shape, dtype=np.int64))
    draws = np.frombuffer(_generator.bytes(4 * count), "<u4")
    fraction = (draws & 0xFFFFFF) * 2.0**-24
    low32, high32 = np.float32(low), np.float32(high)
    return (fraction * float(high32 - low32) + float(low32)).astype(np.float32).reshape(shape)
