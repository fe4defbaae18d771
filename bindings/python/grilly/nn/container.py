"""Sequential and ModuleList: modules in an order, as in `torch.nn`."""

from __future__ import annotations

from typing import Any, Iterable, Iterator, Mapping, Optional, TypeVar, Union

from .module import Module

Self = TypeVar("Self", bound="_Numbered")


class _Numbered(Module):
    """Modules under the names "0", "1", ..., or those that they were given."""

    def append(self: Self, module: Module) -> Self:
        """Adds a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self: Self, modules: Iterable[Module]) -> Self:
        """Adds modules at the end."""
        for module in modules:
            self.append(module)
        return self

    def __getitem__(self, index: Any) -> Any:
        """The module at a place; for a slice, a container that shares those modules."""
        return list(self)[index]

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, list(self._modules)[index], module)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())


class Sequential(_Numbered):
    """Modules that are called one after another.

    Args:
        modules: the modules, or one dictionary of modules by name.
    """

    def __init__(self, *modules: Union[Module, Mapping[str, Module]]) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named: Iterable[tuple[str, Any]] = modules[0].items()
        else:
            named = ((str(place), module) for place, module in enumerate(modules))
        for name, module in named:
            self.add_module(name, module)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Sequential(dict(list(self._modules.items())[index]))
        return super().__getitem__(index)

    def forward(self, input: Any) -> Any:
        """The last module's output."""
        for module in self:
            input = module(input)
        return input

    def backward(self, grad_output: Any) -> Any:
        """The gradient with respect to the latest forward's input, by every module's `backward`, last one first."""
        for module in reversed(list(self)):
            grad_output = module.backward(grad_output)
        return grad_output


class ModuleList(_Numbered):
    """A list whose modules are registered. It is not callable: a model's `forward` says how they are used."""

    def __init__(self, modules: Optional[Iterable[Module]] = None) -> None:
        super().__init__()
        self.extend(modules or ())

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return ModuleList(found) if isinstance(index, slice) else found
