"""Each public name is one thing: at run time, to a reader of the source, and in what `dir` shows."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

import griffe
import pytest

import fairlayer

PACKAGES = ["fairlayer"] + [
    found.name for found in pkgutil.walk_packages(fairlayer.__path__, "fairlayer.") if found.ispkg
]


def load(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} needs a library that is not installed: {error}")


@pytest.fixture(scope="session")
def source() -> Any:
    """The package as a reader of its files sees it, without running them."""
    there = Path(fairlayer.__file__).parent.parent
    return griffe.load("fairlayer", search_paths=[there], try_relative_path=False, resolve_aliases=True)


packages = pytest.mark.parametrize("package", PACKAGES)


@packages
def test_no_submodule_carries_the_name_of_a_public_function(package: str) -> None:
    module = load(package)
    submodules = {found.name for found in pkgutil.iter_modules(module.__path__)}
    hidden = [
        name
        for name in submodules & set(getattr(module, "__all__", ()))
        if not isinstance(getattr(module, name), ModuleType)
    ]
    assert not hidden, f"{package}.{hidden[0]} is both a submodule and a {type(getattr(module, hidden[0])).__name__}"


@packages
def test_dir_shows_the_public_names(package: str) -> None:
    module = load(package)
    public = getattr(module, "__all__", None)
    if public is None:
        pytest.skip(f"{package} exports nothing")
    assert set(dir(module)) - {"__version__"} == set(public)
    assert all(hasattr(module, name) for name in dir(module))


@packages
def test_the_source_and_the_running_package_agree(package: str, source: Any) -> None:
    module = load(package)
    for name in getattr(module, "__all__", ()):
        path = f"{package}.{name}".removeprefix("fairlayer.")
        found, running = source[path], getattr(module, name)
        read = found.final_target if found.is_alias else found
        if isinstance(running, ModuleType):
            assert read.is_module, f"{package}.{name} is a {read.kind.value} in the source and a module when it runs"
            assert read.path == running.__name__
        elif read.is_attribute:  # a constant or an alias of a type: its own module has the same object
            parent = importlib.import_module(read.parent.path)
            assert getattr(parent, read.name) is running, f"{package}.{name} is not the object of {read.path}"
        else:
            there = f"{running.__module__}.{running.__qualname__}"
            assert read.path == there, f"{package}.{name} is {read.path} in the source and {there} when it runs"
