"""Imports point down only, optional libraries load on demand, and nothing but the command line prints."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fairlayer"

# From bottom to top. A unit is a module or subpackage directly inside fairlayer/; it may import itself and
# units of lower rows, never a neighbour of its own row.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "_numbers", "_typing", "_version"),
    ("_names",),
    ("_keywords",),
    ("_arrays", "_notebook", "_rows", "collective", "networks", "tensor_state", "tracing", "trail"),
    ("groups", "fused"),
    ("constraints", "geometry"),
    ("passes", "edge"),
    ("solve",),
    ("projection",),
    ("penalties", "adversarial", "streaming"),
    ("decisions", "distillation", "calibration"),
    ("model",),
    ("data", "scoring"),
    ("audit",),
    ("pareto",),
    ("integrations",),
    ("training",),
    ("routes",),
    ("report",),
    ("serving",),
    ("cli",),
    ("__main__",),
)
RANK = {unit: rank for rank, row in enumerate(LAYERS) for unit in row}

# Forbidden although it would point down: the solver never sees a group or a constraint.
NEVER = {(unit, above) for unit in ("geometry", "passes", "solve") for above in ("groups", "constraints", "edge")}
# The certificate checks what passes and solvers return, so it shares no line with them.
CHECKER = "fairlayer.projection.certificate"
CHECKED = ("fairlayer.passes", "fairlayer.solve")

# What a module may import outside its own functions, besides fairlayer and the standard library.
CORE_LIBRARIES = {"torch", "numpy"}
# Libraries that a module of fairlayer.integrations may build its classes on.
FRAMEWORKS = {"lightning", "pytorch_lightning", "ray", "sklearn", "torchmetrics"}
OPTIONAL = FRAMEWORKS | {
    "clarabel",
    "cooper",
    "cryptography",
    "cvxpy",
    "cvxpylayers",
    "diffcp",
    "fairlearn",
    "fairret",
    "fastapi",
    "folktables",
    "httpx",
    "humancompatible",
    "imblearn",
    "jinja2",
    "jsonargparse",
    "matplotlib",
    "numba",
    "pandas",
    "polars",
    "prometheus_client",
    "psycopg",
    "pyarrow",
    "pydantic",
    "qpsolvers",
    "quadprog",
    "rich",
    "scipy",
    "skops",
    "statsmodels",
    "torchjd",
    "transformers",
    "uvicorn",
}


class Import(NamedTuple):
    target: str  # the dotted module imported
    line: int
    at_import_time: bool  # runs when the module itself is imported
    for_types_only: bool  # under `if TYPE_CHECKING:`


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def statements(
    nodes: list[ast.stmt], inside: bool = False, types: bool = False
) -> Iterator[tuple[ast.stmt, bool, bool]]:
    """Yield each statement with (inside a function, under TYPE_CHECKING)."""
    for node in nodes:
        yield node, inside, types
        deeper = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        guarded = types or (isinstance(node, ast.If) and is_type_checking(node.test))
        yield from statements(getattr(node, "body", []), deeper, guarded)
        for handler in getattr(node, "handlers", []) + getattr(node, "cases", []):
            yield from statements(handler.body, deeper, types)
        for field in ("orelse", "finalbody"):
            yield from statements(getattr(node, field, []), deeper, types)


def absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parents = module.split(".")
    base = parents[: len(parents) - node.level + is_package]
    return ".".join(base + ([node.module] if node.module else []))


def targets_of(node: ast.stmt, module: str, is_package: bool) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = absolute(node, module, is_package)
        members = [f"{base}.{alias.name}" for alias in node.names]
        return [member if member in MODULES else base for member in members]
    return []


def imports_in(tree: ast.Module, module: str, is_package: bool = False) -> list[Import]:
    return [
        Import(target, node.lineno, not (inside or types), types)
        for node, inside, types in statements(tree.body)
        for target in targets_of(node, module, is_package)
    ]


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def imports_of(module: str) -> list[Import]:
    return imports_in(tree_of(module), module, MODULES[module].name == "__init__.py")


def place(module: str, line: int) -> str:
    return f"{MODULES[module].relative_to(ROOT)}:{line}"


def unit_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def points_up(module: str, target: str) -> bool:
    source, goal = unit_of(module), unit_of(target)
    if source == goal:
        return False
    return not goal or (source, goal) in NEVER or RANK[goal] >= RANK[source]


def test_the_package_is_there() -> None:
    assert "fairlayer.errors" in MODULES


def test_every_unit_has_a_layer() -> None:
    units = {unit_of(module) for module in MODULES}
    homeless, gone = units - {"", *RANK}, set(RANK) - units
    assert not homeless, f"give {sorted(homeless)} a place in LAYERS (tests/test_layering.py)"
    assert not gone, f"{sorted(gone)} have a place in LAYERS (tests/test_layering.py), but are not there"


def test_imports_point_down() -> None:
    wrong = [
        f"{place(module, item.line)} imports {item.target}"
        for module in MODULES
        if module != "fairlayer"
        for item in imports_of(module)
        if item.target.split(".")[0] == "fairlayer" and points_up(module, item.target)
    ]
    assert not wrong, "imports must point down (see LAYERS), and never to the package root:\n" + "\n".join(wrong)


def test_the_certificate_imports_nothing_of_what_it_checks() -> None:
    wrong = [item.target for item in imports_of(CHECKER) if item.target.startswith(CHECKED)]
    assert not wrong, f"{CHECKER} imports {wrong}, whose results it is to check"


def test_no_import_cycles() -> None:
    graph = {
        module: {item.target for item in imports_of(module) if item.at_import_time and item.target in MODULES}
        - {module}
        for module in MODULES
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("import cycle: " + " -> ".join(error.args[1]))


def allowed_in(module: str) -> frozenset[str]:
    allowed = sys.stdlib_module_names | CORE_LIBRARIES | {"fairlayer"}
    if module.startswith("fairlayer.integrations."):
        allowed = allowed | FRAMEWORKS
    if module.startswith("fairlayer.fused."):  # what is compiled; `fairlayer.fused` itself imports none of it
        allowed = allowed | {"numba"}
    return allowed


def test_optional_libraries_are_imported_where_used() -> None:
    wrong = [
        f"{place(module, item.line)} imports {item.target}"
        for module in MODULES
        for item in imports_of(module)
        if item.at_import_time and item.target.split(".")[0] not in allowed_in(module)
    ]
    assert not wrong, "import these inside the function that uses them:\n" + "\n".join(wrong)


def test_import_fairlayer_loads_no_optional_library() -> None:
    program = (
        "import sys, torch, numpy\n"
        "before = set(sys.modules)\n"
        "import fairlayer\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not OPTIONAL & set(done.stdout.split())


def test_only_the_command_line_prints() -> None:
    prints = [
        place(module, node.lineno)
        for module in MODULES
        if unit_of(module) != "cli"
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not prints, f"only cli may print, but these lines do: {prints}"


# The checks above are worth as much as the reader of imports below them.


@pytest.mark.parametrize(
    ("source", "module", "expected"),
    [
        ("import pandas.api", "fairlayer.data", ("pandas.api", True)),
        ("try:\n    import rich\nexcept ImportError:\n    rich = None", "fairlayer.cli", ("rich", True)),
        ("class A:\n    import rich", "fairlayer.cli", ("rich", True)),
        ("def f():\n    if True:\n        import rich", "fairlayer.cli", ("rich", False)),
        ("if TYPE_CHECKING:\n    import pandas", "fairlayer.data", ("pandas", False)),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import pandas", "fairlayer.data", ("pandas", True)),
        ("from .errors import require", "fairlayer.groups", ("fairlayer.errors", True)),
        ("from . import errors", "fairlayer.groups", ("fairlayer.errors", True)),
        ("from ..errors import require", "fairlayer.solve.cells", ("fairlayer.errors", True)),
        ("from fairlayer import FairModel", "fairlayer.report", ("fairlayer", True)),
    ],
)
def test_imports_are_read_rightly(source: str, module: str, expected: tuple[str, bool]) -> None:
    [found] = imports_in(ast.parse(source), module)
    assert (found.target, found.at_import_time) == expected


def test_a_package_reads_its_own_relative_imports() -> None:
    [found] = imports_in(ast.parse("from ..errors import require"), "fairlayer.solve", is_package=True)
    assert found.target == "fairlayer.errors"


@pytest.mark.parametrize(
    ("module", "target", "wrong"),
    [
        ("fairlayer.projection", "fairlayer.solve.cells", False),
        ("fairlayer.solve.cells", "fairlayer.solve.scalar", False),
        ("fairlayer.solve.cells", "fairlayer.groups", True),
        ("fairlayer.solve", "fairlayer.constraints", True),
        ("fairlayer.constraints.parity", "fairlayer.solve", True),
        ("fairlayer.streaming", "fairlayer.penalties", True),
        ("fairlayer.model", "fairlayer", True),
    ],
)
def test_up_and_down_are_told_apart(module: str, target: str, wrong: bool) -> None:
    assert points_up(module, target) is wrong
