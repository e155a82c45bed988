"""Each public name is one thing: at run time, to a reader of the source, and in what `dir` shows."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import griffe
import pytest

import fairlayer
from fairlayer._names import homes
from fairlayer.errors import FairlayerError, UnknownNameError

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


# ---- one class for each name, and files that can be read in one go

SOURCES = sorted(Path(fairlayer.__file__).parent.rglob("*.py"))


def test_no_two_classes_of_the_package_share_a_name() -> None:
    places = defaultdict(list)
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(path.relative_to(SOURCES[0].parent).as_posix())
    shared = {name: found for name, found in places.items() if len(found) > 1}
    assert not shared, f"one name for two classes: {shared}. Name each for what it is."


def test_no_module_is_longer_than_400_lines() -> None:
    lengths = {
        path.relative_to(SOURCES[0].parent).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in SOURCES
    }
    long = {name: lines for name, lines in lengths.items() if lines > 400}
    assert not long, f"{long}: split each by what it is about"


# ---- names that a package does not have


@pytest.mark.parametrize(
    ("package", "name", "said"),
    [
        ("fairlayer", "pareto_sweep", 'it lives in fairlayer.pareto: use "from fairlayer.pareto import pareto_sweep"'),
        ("fairlayer", "FairPostprocessor", "it lives in fairlayer.integrations.sklearn"),
        ("fairlayer", "Policy", "it lives in fairlayer.streaming:"),
        ("fairlayer", "DemographicParty", "did you mean 'DemographicParity'"),
        ("fairlayer", "demographic_parity", "did you mean 'DemographicParity'"),
        ("fairlayer", "paretosweep", "did you mean 'pareto_sweep'. Use \"from fairlayer.pareto import pareto_sweep\""),
        ("fairlayer.decisions", "decidee", "did you mean 'decide'"),
        ("fairlayer.decisions", "project", 'use "from fairlayer import project"'),
        ("fairlayer", "quite_another_thing", "has no 'quite_another_thing'.$"),
    ],
)
def test_a_missing_name_is_answered(package: str, name: str, said: str) -> None:
    module = load(package)
    with pytest.raises(UnknownNameError, match=said) as caught:
        getattr(module, name)
    assert isinstance(caught.value, AttributeError)
    assert isinstance(caught.value, FairlayerError)
    assert not hasattr(module, name)
    assert getattr(module, name, 7) == 7


@packages
def test_every_public_package_answers_and_its_names_have_a_home(package: str) -> None:
    module = load(package)
    if "__getattr__" not in vars(module):
        return
    with pytest.raises(UnknownNameError, match="did you mean"):
        getattr(module, f"{module.__all__[-1]}__")
    for name in module.__all__:
        home = importlib.import_module(homes()[name])
        assert getattr(home, name) is getattr(module, name) or home.__name__.count(".") < package.count(".") + 1


def test_the_command_line_and_the_rooms_inside_do_not_answer() -> None:
    assert not {"fairlayer.cli", "fairlayer.passes", "fairlayer.solve", "fairlayer.edge"} & set(homes().values())
    assert {"fairlayer", "fairlayer.pareto", "fairlayer.calibration", "fairlayer.integrations.lightning"} <= set(
        homes().values()
    )


IN_A_FRESH_PROCESS = """
import sys
import fairlayer as fl
before = set(sys.modules)
for name in ("pareto_sweep", "pareto", "data", "zzz", "__wrapped__", "_ipython_display_"):
    assert not hasattr(fl, name), name
try:
    fl.pareto
except AttributeError as error:
    assert "until it is imported: use \\"import fairlayer.pareto\\"" in str(error), error
added = {name for name in set(sys.modules) - before if name.startswith("fairlayer")}
assert not added, added
names = {}
exec("from fairlayer import *", names)
assert set(fl.__all__) <= set(names)
from fairlayer import pareto
assert fl.pareto is pareto
"""


def test_an_answer_imports_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", IN_A_FRESH_PROCESS], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
