"""Sequential and ModuleList: modules in an order, as in `torch.nn`."""

from __future__ import annotations

from typing import Any, Iterable, Iterator, Mapping, Optional, TypeVar, Union

from .._grad_mode import is_grad_enabled
from .module import Module, nothing_kept

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
        #: Each module that was called, in order, and what it and all below it kept in that call.
        self._kept: Optional[list[tuple[Module, dict[Module, Any]]]] = None
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
        self._kept = None
        keeps = self.training and is_grad_enabled()
        kept = []
        for module in self:
            input = module(input)
            if keeps:
                kept.append((module, {below: below._kept for below in module.modules() if hasattr(below, "_kept")}))
        self._kept = kept if keeps else None
        return input

    def backward(self, grad_output: Any) -> Any:
        """The gradient with respect to the latest forward's input, by every module's `backward`, last one first. Layers
        of `grilly.nn` may stand in several places, such as one ReLU behind every convolution.

        Raises:
            RuntimeError: before any forward, after one that kept nothing (`eval()`, `no_grad()`), and for a module
                that is not of `grilly.nn` and stands in several places, as only its latest call is known.
        """
        if self._kept is None:
            raise nothing_kept(self)
        self._check_places()
        for module, kept in reversed(self._kept):
            for layer, value in kept.items():
                layer._kept = value
            grad_output = module.backward(grad_output)
        return grad_output

    def _check_places(self) -> None:
        """Refuses what is in several places, and may keep something that is not in `_kept`."""
        seen: set[Module] = set()
        for called, kept in self._kept or ():
            others = [module for module in called.modules() if module not in kept]
            for module in others:
                if module in seen:
                    raise RuntimeError(
                        f"{type(module).__name__} stands in several places of a Sequential, and its backward() knows "
                        "only its latest call; give each place a module of its own"
                    )
            seen.update(others)


class ModuleList(_Numbered):
    """A list whose modules are registered. It is not callable: a model's `forward` says how they are used."""

    def __init__(self, modules: Optional[Iterable[Module]] = None) -> None:
        super().__init__()
        self.extend(modules or ())

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return ModuleList(found) if isinstance(index, slice) else found
