"""Module: what layers and models have in common."""

from __future__ import annotations

from typing import Any, Callable, Iterator, Mapping, NamedTuple, Optional

import numpy as np

from .._tensor import Target
from .parameter import Parameter


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` passed over."""

    missing_keys: list
    unexpected_keys: list


class Module:
    """Base class of layers and models, as `torch.nn.Module`.

    Parameters and modules assigned to attributes are registered; call `super().__init__()` before that.
    """

    def __init__(self) -> None:
        self.__dict__.update(training=True, _parameters={}, _modules={})

    def forward(self, *inputs: Any) -> Any:
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return self.forward(*inputs, **named)

    def __setattr__(self, name: str, value: Any) -> None:
        registries = {kind: self.__dict__.get(registry) for kind, registry in _REGISTRIES.items()}
        kind = next((kind for kind in registries if isinstance(value, kind)), None)
        if kind is not None and registries[kind] is None:
            raise AttributeError(f"cannot assign {kind.__name__.lower()} before Module.__init__() call")
        for other, registry in registries.items():
            if registry is None or name not in registry:
                continue
            if value is None:
                registry[name] = None
                return
            if kind is not other and other is Parameter:
                raise TypeError(
                    f"cannot assign {type(value).__name__!r} object to parameter {name!r} (Parameter or None expected)"
                )
            del registry[name]
        if kind is None:
            object.__setattr__(self, name, value)
        else:
            self.__dict__.pop(name, None)
            registries[kind][name] = value

    def register_parameter(self, name: str, parameter: Optional[Parameter]) -> None:
        """Adds a parameter; None is one that is left out, such as the bias of a layer without."""
        if not isinstance(parameter, (Parameter, type(None))):
            raise TypeError(f"cannot assign {type(parameter).__name__!r} object to parameter {name!r}")
        self._parameters[name] = parameter

    def add_module(self, name: str, module: Optional[Module]) -> None:
        if not isinstance(module, (Module, type(None))):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        self._modules[name] = module

    def __getattr__(self, name: str) -> Any:
        for registry in _REGISTRIES.values():
            if name in self.__dict__.get(registry, ()):
                return self.__dict__[registry][name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for registry in _REGISTRIES.values():
            if name in self.__dict__.get(registry, ()):
                del self.__dict__[registry][name]
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self._parameters, *self._modules})

    def named_children(self) -> Iterator[tuple[str, Module]]:
        seen = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
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
        return (module for _, module in self.named_modules())

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Every parameter once, with its dotted name."""
        seen = set()
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name, parameter in module._parameters.items():
                if parameter is not None and id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield (f"{path}.{name}" if path else name), parameter

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def state_dict(self, prefix: str = "") -> dict[str, np.ndarray]:
        """The arrays of all parameters by dotted name. They are the parameters' own memory, not copies; values on a device
        are downloaded."""
        return {prefix + name: np.asarray(parameter.data) for name, parameter in self._named_state()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copies arrays (anything that `np.asarray` takes) into the parameters. All or none are copied.

        Raises:
            RuntimeError: naming every missing and unexpected key (if strict), and every wrong size.
        """
        own = dict(self._named_state())
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        given = {name: np.asarray(state_dict[name]) for name in own if name in state_dict}
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

    def train(self, mode: bool = True) -> Module:
        """Sets `training` here and below."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        return self.train(False)

    def to(self, target: Target) -> Module:
        """Moves all parameters and their gradients: "vulkan" is the device that layers share, whichever it is; a Compute is
        that device; "cpu" is host memory. Layers then run where their parameters are."""
        for parameter in self.parameters():
            parameter._move(target)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self) -> None:
        """Forgets the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.zero_grad()

    def apply(self, function: Callable[[Module], Any]) -> Module:
        """Calls `function` with every module, children first."""
        for module in self.children():
            module.apply(function)
        function(self)
        return self

    def extra_repr(self) -> str:
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): " + repr(module).replace("\n", "\n  ") for name, module in self._modules.items()]
        if not lines:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = [self.extra_repr()] * bool(self.extra_repr()) + lines
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


#: Where what is assigned to an attribute is registered.
_REGISTRIES = {Parameter: "_parameters", Module: "_modules"}
