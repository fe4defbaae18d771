"""Layers and their parameters, as in `torch.nn`."""

from . import functional, grad, init
from .activation import ReLU
from .container import ModuleList, Sequential
from .conv import Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d
from .flatten import Flatten
from .module import Module
from .parameter import Parameter

__all__ = [
    "Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d", "Flatten", "Module", "ModuleList", "Parameter", "ReLU",
    "Sequential", "functional", "grad", "init",
]
