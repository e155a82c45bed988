"""Write the pages of the API reference: every public name of every room, once."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

__all__ = ["ROOMS", "Room", "names_of", "pages"]


class Room(NamedTuple):
    """One page: its file, its title, what it is for, and the modules whose public names stand on it.

    `only` names those of the modules' files that this page takes; the last page of a module takes what is left.
    """

    file: str
    title: str
    purpose: str
    modules: tuple[str, ...]
    only: tuple[str, ...] = ()


ROOMS = (
    Room(
        "core",
        "Models and projection",
        "Wrap a network, put the layer inside a module, or project scores that you already have.",
        (
            "fairlayer.model",
            "fairlayer.networks",
            "fairlayer.projection",
            "fairlayer.projection.many",
            "fairlayer.projection.path",
        ),
    ),
    Room(
        "constraints",
        "Constraints",
        "Say what must hold. Each class is one statement about group means, and every method of the package reads the "
        "same objects.",
        ("fairlayer.constraints",),
    ),
    Room(
        "geometries",
        "Geometries",
        'Say what "nearest" means. Most callers give a name, such as `geometry="entropic"`; the classes are for those '
        "who write a geometry of their own.",
        ("fairlayer.geometry",),
    ),
    Room(
        "groups",
        "Groups",
        "Read sensitive features in the forms that people keep them in. Most callers never need these names, since "
        "`sensitive_features=` takes those forms everywhere.",
        ("fairlayer.groups",),
    ),
    Room(
        "streaming",
        "Streams",
        "Answer requests one by one, and keep the gap of recent answers within the tolerance and a stated noise.",
        ("fairlayer.streaming",),
    ),
    Room(
        "decisions",
        "Decisions",
        "Turn scores into yes or no, so that the decisions meet the constraints.",
        ("fairlayer.decisions",),
    ),
    Room(
        "penalties",
        "Penalties",
        "Add a term to the loss. The gap then becomes smaller in training, and nothing is needed afterwards.",
        ("fairlayer.penalties",),
    ),
    Room(
        "adversarial",
        "Adversarial training",
        "Train a representation from which an adversary cannot read the group, and measure what still leaks.",
        ("fairlayer.adversarial",),
    ),
    Room(
        "distillation",
        "Models without the layer",
        "Let the layer go after training, or keep its mean shifts in its place.",
        ("fairlayer.distillation", "fairlayer.calibration"),
    ),
    Room(
        "audit",
        "Audit",
        "Measure any predictions by group: one call, the limits that it judges, and the verdicts that come back.",
        ("fairlayer.audit",),
        only=("asked", "examination", "frame", "outcome", "impact", "lending", "public", "provenance", "table"),
    ),
    Room(
        "audit-statistics",
        "Statistics of an audit",
        "Look up how sure an audit can be: intervals, tests of significance, strata, and a watch that may look at any "
        "time.",
        ("fairlayer.audit",),
        only=("intervals", "significance", "sequential", "strata", "means", "coverage", "compatibility"),
    ),
    Room(
        "audit-numbers",
        "Numbers of an audit",
        "Look up the single numbers behind an audit: metrics, disparities, proxies, movement, and checks of columns.",
        ("fairlayer.audit",),
    ),
    Room(
        "report",
        "Reports",
        "Write an audit as a page, as Markdown, as a model card or as JSON.",
        ("fairlayer.report",),
    ),
    Room(
        "trail",
        "Audit trail",
        "Keep a record of every decision in a file in which changes are found.",
        ("fairlayer.trail",),
    ),
    Room(
        "data",
        "Data",
        "Read tables, split them, deal groups evenly over batches, and reweight or resample rows.",
        ("fairlayer.data",),
    ),
    Room(
        "training",
        "Training runs",
        "Do in Python what `fairlayer train`, `fairlayer predict` and `fairlayer report` do.",
        ("fairlayer.training",),
    ),
    Room(
        "routes",
        "Methods side by side",
        "Compare the ways to one promise on validation rows, and ask which one fits a situation.",
        ("fairlayer.routes",),
    ),
    Room(
        "pareto",
        "Trade-offs",
        "Train along a grid of limits, and choose a point of the front.",
        ("fairlayer.pareto",),
    ),
    Room(
        "serving",
        "Service",
        "Answer over HTTP through one stream that outlives the process, and project tables that are larger than "
        "memory.",
        ("fairlayer.serving", "fairlayer.scoring"),
    ),
    Room(
        "integrations",
        "Integrations",
        "Use the layer from Lightning, scikit-learn, Ray and Hugging Face.",
        (
            "fairlayer.integrations.lightning",
            "fairlayer.integrations.sklearn",
            "fairlayer.integrations.huggingface",
            "fairlayer.integrations.ray",
        ),
    ),
    Room(
        "metrics",
        "torchmetrics",
        "Measure gaps over batches and ranks while a model is trained, with torchmetrics.",
        ("fairlayer.integrations.torchmetrics",),
    ),
    Room(
        "errors",
        "Error classes",
        "Catch what the package raises on purpose. [Errors by name](../errors.md) says what each one means and what to "
        "do.",
        ("fairlayer.errors",),
    ),
)


def names_of(module: ModuleType) -> list[str]:
    """Return the public names of a module in their order: its `__all__`."""
    return list(module.__all__)


def identifier(module: ModuleType, name: str) -> str:
    """Return the path under which a static reader finds a public name.

    The short path `module.name` is taken, except where a file of the same name stands in the way.
    """
    import fairlayer

    if name in fairlayer.__all__:
        return f"fairlayer.{name}"
    value = getattr(module, name)
    package = Path(module.__file__ or "").parent
    hidden = module.__name__ in getattr(value, "__module__", "") and (
        (package / f"{name}.py").exists() or (package / name).is_dir()
    )
    return f"{value.__module__}.{name}" if hidden else f"{module.__name__}.{name}"


def entries(room: Room, seen: set[int]) -> Iterator[tuple[str, list[str]]]:
    """Yield each module of a room with the identifiers that no earlier page has."""
    for path in room.modules:
        module = importlib.import_module(path)
        found = []
        for name in names_of(module):
            value = getattr(module, name)
            home = getattr(value, "__module__", "").rpartition(".")[2]
            if inspect.ismodule(value) or id(value) in seen or (room.only and home not in room.only):
                continue
            seen.add(id(value))
            found.append(identifier(module, name))
        top = [name for name in found if name.count(".") == 1]
        yield path, top + [name for name in found if name.count(".") > 1]


def pages() -> dict[str, str]:
    """Return the pages of the reference: the path below `docs` and the text.

    Example:
        >>> "::: fairlayer.project" in pages()["reference/core.md"]
        True
    """
    seen: set[int] = set()
    texts = {}
    for room in ROOMS:
        found = [(path, name) for path, names in entries(room, seen) for name in names]
        rows = [f"| [`{name.rpartition('.')[2]}`][{name}] | {first_sentence(name)} |" for _, name in found]
        imports = {name: "fairlayer" if name.count(".") == 1 else path for path, name in found}
        parts = [f"# {room.title}\n", room.purpose + "\n", imported(imports), "| name | what it is |\n|---|---|"]
        texts[f"reference/{room.file}.md"] = "\n".join([*parts, *rows, "", *(f"::: {name}\n" for _, name in found)])
    return texts


def imported(imports: dict[str, str]) -> str:
    """Return from which module each name of a page is imported."""
    lines = [
        f"From `{module}`: " + ", ".join(f"`{name.rpartition('.')[2]}`" for name in imports if imports[name] == module)
        for module in dict.fromkeys(imports.values())
    ]
    return "".join(f"{line}.\n\n" for line in lines)


def first_sentence(path: str) -> str:
    """Return the first sentence of a name's docstring, fit for a cell of a table.

    Example:
        >>> first_sentence("fairlayer.Projection")
        'A projected batch, with what it cost and the proof.'
    """
    module, _, name = path.rpartition(".")
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value) or inspect.isroutine(value):
        text = " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split())
    else:
        text = "A constant, or the name of a type."
    return re.split(r"(?<=\.) (?=[A-Z])", text)[0].replace("|", "\\|")
