"""Module: what layers and models have in common."""

from __future__ import annotations

from typing import Any, Callable, Iterator, Mapping, NamedTuple, Optional, TypeVar

import numpy as np

from .._arrays import as_float32
from .._host import detached
from .._tensor import Target
from .parameter import Parameter


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` passed over."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not any(self):
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


Self = TypeVar("Self", bound="Module")


class Module:
    """Base class of layers and models, as `torch.nn.Module`.

    Parameters and modules assigned to attributes are registered; call `super().__init__()` before that.
    """

    #: Whether layers keep what their `backward` needs; `train` and `eval` set it.
    training: bool
    _parameters: dict[str, Any]
    _modules: dict[str, Any]

    def __init__(self) -> None:
        self.__dict__.update(training=True, _parameters={}, _modules={})

    def forward(self, *inputs: Any) -> Any:
        """What calling the module does; models define it."""
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return self.forward(*inputs, **named)

    def __setattr__(self, name: str, value: Any) -> None:
        parameters, modules = (self.__dict__.get(registry, {}) for registry in _REGISTRIES)
        if isinstance(value, (Parameter, Module)) and "_modules" not in self.__dict__:
            kind = "parameters" if isinstance(value, Parameter) else "module"
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
        if isinstance(value, Parameter):
            self.__dict__.pop(name, None)
            modules.pop(name, None)
            self.register_parameter(name, value)
        elif name in parameters:
            if value is not None:
                raise TypeError(
                    f"cannot assign '{_type_name(value)}' as parameter '{name}' (grilly.nn.Parameter or None expected)"
                )
            parameters[name] = None
        elif isinstance(value, Module):
            self.__dict__.pop(name, None)
            modules[name] = value
        elif name in modules:
            if value is not None:
                raise TypeError(
                    f"cannot assign '{_type_name(value)}' as child module '{name}' (grilly.nn.Module or None expected)"
                )
            modules[name] = None
        else:
            object.__setattr__(self, name, value)

    def register_parameter(self, name: str, param: Optional[Parameter]) -> None:
        """Adds a parameter; None is one that is left out, such as the bias of a layer without.

        Raises:
            TypeError: if it is neither.
            KeyError: for a name that is empty, has a dot, or is another attribute's.
        """
        self._check_name("parameter", name, self._parameters)
        if not isinstance(param, (Parameter, type(None))):
            raise TypeError(
                f"cannot assign '{_type_name(param)}' object to parameter '{name}' "
                "(grilly.nn.Parameter or None required)"
            )
        self._parameters[name] = param

    def add_module(self, name: str, module: Optional[Module]) -> None:
        """Adds a module; None is one that is left out. Raises as `register_parameter` does."""
        if not isinstance(module, (Module, type(None))):
            raise TypeError(f"{_type_name(module)} is not a Module subclass")
        self._check_name("module", name, self._modules)
        self._modules[name] = module

    register_module = add_module

    def _check_name(self, kind: str, name: Any, registry: Mapping[str, Any]) -> None:
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {_type_name(name)}")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain ".", got: {name}')
        if not name:
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if name not in registry and hasattr(self, name):
            raise KeyError(f"attribute '{name}' already exists")

    def __getattr__(self, name: str) -> Any:
        for registry in _REGISTRIES:
            if name in self.__dict__.get(registry, ()):
                return self.__dict__[registry][name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for registry in _REGISTRIES:
            if name in self.__dict__.get(registry, ()):
                del self.__dict__[registry][name]
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self._parameters, *self._modules})

    def __getstate__(self) -> dict[str, Any]:
        # What a layer keeps for `backward` belongs to its latest forward: a copy has had none.
        return {name: None if name == "_kept" else value for name, value in self.__dict__.items()}

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules assigned to this one, each once, with their names."""
        seen = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
        """The modules assigned to this one, each once."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "", _seen: Optional[set] = None) -> Iterator[tuple[str, Module]]:
        """This module and all below it, each once, with dotted names."""
        seen = set() if _seen is None else _seen
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Every parameter once, with its dotted name; with `recurse=False` only this module's own."""
        seen = set()
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name, parameter in module._parameters.items():
                if parameter is not None and id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield (f"{path}.{name}" if path else name), parameter

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Every parameter once; with `recurse=False` only this module's own."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def state_dict(self, prefix: str = "") -> dict[str, np.ndarray]:
        """The arrays of all parameters by dotted name. They are the parameters' own memory, not copies; values on a
        device are downloaded."""
        return {prefix + name: np.asarray(parameter.data) for name, parameter in self._named_state()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copies ndarrays, PyTorch's CPU tensors and whatever else is an array into the parameters, all or none.

        Args:
            state_dict: arrays of real numbers by dotted name, such as `state_dict()`, that of a PyTorch model with
                the same layers, or what `grilly.load` read. They are converted to float32.
            strict: whether the names must be exactly this model's.

        Raises:
            RuntimeError: naming every missing and unexpected key (if strict), every wrong size, and every parameter
                whose array is read-only.
            TypeError: for what is no dictionary of such arrays.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        own = dict(self._named_state())
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        given = {name: as_float32(detached(state_dict[name]), name) for name in own if name in state_dict}
        problems = []
        for label, names in (("Missing", missing), ("Unexpected", unexpected)):
            if strict and names:
                keys = ", ".join(f'"{name}"' for name in names)
                problems.append(f"{label} key(s) in state_dict: {keys}. ")
        problems += [
            f"size mismatch for {name}: copying a param with shape {list(array.shape)} from checkpoint, "
            f"the shape in current model is {list(own[name].shape)}."
            for name, array in given.items() if array.shape != own[name].shape
        ]
        problems += [
            f"{name} is read-only: give the parameter an array that can be written."
            for name in given if isinstance(own[name].data, np.ndarray) and not own[name].data.flags.writeable
        ]
        if problems:
            raise RuntimeError(
                f"Error(s) in loading state_dict for {type(self).__name__}:\n\t" + "\n\t".join(problems)
            )
        for name, array in given.items():
            own[name].data[...] = array
        return IncompatibleKeys(missing, unexpected)

    def _named_state(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Parameters under every name they have: a shared one appears as often as it is shared."""
        for name, parameter in self._parameters.items():
            if parameter is not None:
                yield prefix + name, parameter
        for name, module in self._modules.items():
            if module is not None:
                yield from module._named_state(f"{prefix}{name}.")

    def train(self: Self, mode: bool = True) -> Self:
        """Sets `training` here and below. Layers in training mode keep what their `backward` needs."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self: Self) -> Self:
        """Ends training mode here and below: layers keep nothing, and their `backward` raises."""
        return self.train(False)

    def to(self: Self, target: Target) -> Self:
        """Moves all parameters and their gradients: "vulkan" is the device that layers share, whichever it is; a
        Compute is that device; "cpu" is host memory. Layers then run where their parameters are."""
        for parameter in self.parameters():
            parameter._move(target)
        return self

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Sets `requires_grad` of every parameter."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients of all parameters; with `set_to_none=False` fills those that there are with 0."""
        for parameter in self.parameters():
            if set_to_none or parameter.grad is None:
                parameter.zero_grad()
            else:
                parameter.grad[...] = 0

    def apply(self: Self, fn: Callable[[Module], Any]) -> Self:
        """Calls `fn` with every module, children first."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def extra_repr(self) -> str:
        """What `repr` shows in the parentheses."""
        return ""

    def __repr__(self) -> str:
        lines = self.extra_repr().splitlines()
        if len(lines) < 2 and not self._modules:
            return f"{type(self).__name__}({''.join(lines)})"
        lines += [f"({name}): " + repr(module).replace("\n", "\n  ") for name, module in self._modules.items()]
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


#: The dictionaries of parameters and of modules that are assigned to attributes.
_REGISTRIES = ("_parameters", "_modules")


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def nothing_kept(layer: Module) -> RuntimeError:
    """The error of a `backward` that finds nothing of a forward."""
    return RuntimeError(
        f"{type(layer).__name__}.backward() needs a forward before it, in training mode and outside no_grad()"
    )
