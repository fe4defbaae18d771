"""Layers and their parameters, as in `torch.nn`."""

from . import functional, grad, init
from .conv import Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d
from .module import Module
from .parameter import Parameter

__all__ = [
    "Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d", "Module", "Parameter", "functional", "grad", "init",
]
