"""What the package offers is documented, and typed."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any, Iterator

import grilly
from grilly.tests.checks import required


def public_modules() -> Iterator[Any]:
    required("torch")
    yield grilly
    for module in pkgutil.walk_packages(grilly.__path__, "grilly."):
        if not module.name.startswith("grilly.tests") and "._" not in module.name:
            yield importlib.import_module(module.name)


def public_names(owner: Any) -> dict[str, Any]:
    """The classes and functions of a module, or the methods and properties of a class, that are this package's."""
    names = {}
    for name in vars(owner):
        value = inspect.getattr_static(owner, name)
        function = getattr(value, "fget", None) or getattr(value, "__func__", value)
        ours = str(getattr(function, "__module__", "")).startswith("grilly")
        if ours and callable(function) and not name.startswith("_"):
            names[name] = value
    return names


def test_every_public_name_has_a_docstring() -> None:
    documented, undocumented = set(), set()
    for module in public_modules():
        assert module.__doc__, module
        for name, value in public_names(module).items():
            (documented if inspect.getdoc(value) else undocumented).add(f"{value.__module__}.{name}")
            for member in public_names(value) if inspect.isclass(value) else ():
                # An override may rely on what its base class says of it.
                texts = [inspect.getdoc(vars(base)[member]) for base in value.__mro__ if member in vars(base)]
                (documented if any(texts) else undocumented).add(f"{value.__module__}.{name}.{member}")
    assert not undocumented, sorted(undocumented)
    assert len(documented) > 100


def test_the_package_tells_type_checkers_that_it_is_typed() -> None:
    assert Path(grilly.__file__).with_name("py.typed").exists()
