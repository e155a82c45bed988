"""What the files around a release promise: metadata, workflows, the two builds, and breaking changes that are named."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import griffe
import pytest

import fairlayer
from tools import breaking, compatibility, distribution

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps_of(workflow: Any) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


# --- one version, told alike everywhere


def test_every_file_tells_the_same_version() -> None:
    citation = read_yaml(ROOT / "CITATION.cff")
    assert PROJECT["version"] == fairlayer.__version__ == citation["version"]
    assert citation["license"] == PROJECT["license"]


def test_the_pythons_claimed_are_those_that_the_workflow_runs() -> None:
    claimed = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    tests = read_yaml(ROOT / ".github" / "workflows" / "checks.yml")["jobs"]["tests"]
    assert claimed == set(tests["strategy"]["matrix"]["python"])


# --- workflows


def test_there_are_workflows_for_changes_and_releases() -> None:
    assert [path.stem for path in WORKFLOWS] == ["checks", "release"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_pins_its_actions_and_asks_for_no_more_rights_than_it_needs(path: Path) -> None:
    workflow = read_yaml(path)
    assert workflow["permissions"] == {}
    for step in steps_of(workflow):
        if "uses" in step:
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
    for name, job in workflow["jobs"].items():
        rights = {"id-token": "write"} if name == "publish" else {"contents": "read"}
        assert job["permissions"] == rights, name


def test_what_publishes_builds_nothing_and_sees_no_source() -> None:
    jobs = read_yaml(ROOT / ".github" / "workflows" / "release.yml")["jobs"]
    steps = jobs["publish"]["steps"]
    assert [step["uses"].partition("@")[0] for step in steps] == [
        "actions/download-artifact",
        "pypa/gh-action-pypi-publish",
    ]
    assert "build" in jobs["publish"]["needs"]


def commands_of(path: Path) -> list[list[str]]:
    """Return the words of each command that a workflow runs."""
    runs = [step["run"] for step in steps_of(read_yaml(path)) if "run" in step]
    return [shlex.split(command) for run in runs for command in re.split(r"&&|\n", run) if command.strip()]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_a_workflow_runs_is_there(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    variables = set(re.findall(r"^([A-Z]+) \?=", makefile, re.M))
    asked = commands_of(path)
    assert any(words[0] == "make" for words in asked)
    for words in asked:
        if words[0] == "make":
            given = {word.partition("=")[0] for word in words[1:] if "=" in word}
            assert given <= variables, words
            assert {word for word in words[1:] if "=" not in word} <= targets, words
        elif "-m" in words and words[words.index("-m") + 1] != "pip":
            module = words[words.index("-m") + 1]
            assert (ROOT / f"{module.replace('.', '/')}.py").exists(), words


def test_what_the_makefile_runs_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for module in re.findall(r"-m ((?:website|tools)(?:\.\w+)?)", makefile):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    sources = re.search(r"^SOURCES := (.*)$", makefile, re.M)
    assert sources is not None
    named = [*re.findall(r"\s(tests/[\w./]+|benchmarks/[\w./]+)", makefile), *sources[1].split()]
    assert len(named) > 10
    assert not [path for path in named if not (ROOT / path).exists()]


def test_pre_commit_runs_what_lint_runs() -> None:
    [ours] = read_yaml(ROOT / ".pre-commit-config.yaml")["repos"]
    assert {hook["id"] for hook in ours["hooks"]} == {"ruff-check", "ruff-format", "types"}


# --- breaking changes


def package_of(folder: Path, source: str) -> Any:
    (folder / "fairlayer").mkdir(parents=True)
    (folder / "fairlayer" / "__init__.py").write_text(source, encoding="utf-8")
    return griffe.load("fairlayer", search_paths=[folder], try_relative_path=False, allow_inspection=False)


OLD = '__all__ = ["a", "b"]\ndef a(x, y=1): ...\ndef b(): ...\ndef inner(): ...\n'
NEW = '__all__ = ["a"]\ndef a(x): ...\n'


def test_a_breaking_change_must_be_named_in_the_changelog(tmp_path: Path) -> None:
    old, new = package_of(tmp_path / "old", OLD), package_of(tmp_path / "new", NEW)
    found = breaking.breakages(old, new)
    assert {path for path, _ in found} == {"fairlayer.a", "fairlayer.b"}
    before = "# Changelog\n\n## [2.0]\n\n- `a` lost an argument.\n\n## [1.0]\n\n- `b` is new.\n"
    [missing] = breaking.unexplained(found, before)
    assert missing.startswith("fairlayer.b")
    assert not breaking.unexplained(found, before.replace("`a` lost", "`b` is gone, and `a` lost"))
    assert not breaking.breakages(old, old)


# --- two builds


def test_builds_that_differ_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = iter([{"a.whl": "1"}, {"a.whl": "2"}])

    def build(source: Path, out: Path) -> dict[str, str]:
        out.mkdir()
        return next(hashes)

    monkeypatch.setattr(distribution, "build", build)
    with pytest.raises(SystemExit, match=r"differ in a\.whl"):
        distribution.build_twice(ROOT, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


# --- compatibility


def test_the_table_of_versions_is_that_of_the_runs() -> None:
    page = compatibility.PAGE.read_text(encoding="utf-8")
    assert compatibility.page(page, compatibility.read_kept()) == page


def test_the_oldest_torch_claimed_was_run_and_passed() -> None:
    [claimed] = [line.partition(">=")[2] for line in PROJECT["dependencies"] if line.startswith("torch")]
    if not compatibility.KEPT.exists():
        pytest.skip("tools/compatibility.py has not kept a run yet")
    runs = json.loads(compatibility.KEPT.read_text(encoding="utf-8"))
    assert not [run for run in runs if run["failed"]]
    assert claimed in {compatibility.minor(run["torch"]) for run in runs}


# --- the map of the code


def test_the_map_names_every_room_and_no_file_that_is_gone() -> None:
    text = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    rooms = {path.stem for path in (ROOT / "fairlayer").iterdir() if path.is_dir() or path.suffix == ".py"}
    missing = {room for room in rooms - {"__init__", "__pycache__", "py"} if f"`{room}`" not in text}
    assert not missing
    named = re.findall(r"`((?:fairlayer|tests|tools|benchmarks)/[\w./]*)`", text)
    assert named
    assert not [path for path in named if not (ROOT / path).exists()]


# --- the README


def routes_on_adult() -> dict[str, dict[str, str]]:
    """Return the block that benchmarks/routes.py wrote: route -> measure -> number."""
    text = (ROOT / "docs" / "frontier.md").read_text(encoding="utf-8")
    block = text.partition("\nadult, limit 0.02")[2].partition("\n\n")[0].splitlines()[1:]
    names = block[0].split()
    rows = [re.split(r"\s{2,}", line.strip()) for line in block[1:]]
    return {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows}


def test_the_numbers_of_the_readme_are_those_that_a_benchmark_wrote() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = [line.strip("| ").split(" | ") for line in readme.partition("| route |")[2].splitlines()[2:]]
    shown = [row for row in table[: [len(row) for row in table].index(1)] if len(row) > 1]
    measured = routes_on_adult()
    columns = ("accuracy", "auc", "log_loss", "score", "decision")
    assert len(shown) == 13
    for name, *numbers in shown:
        assert numbers == [f"{float(measured[name][column]):.3f}" for column in columns], name


def test_a_source_tree_that_is_not_installed_knows_its_version() -> None:
    code = """
import importlib.metadata as metadata
found = metadata.version
def version(name):
    if name == "fairlayer":
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.version = version
import fairlayer, fairlayer.audit, fairlayer.serving.app, fairlayer.serving.journal, fairlayer.streaming
from fairlayer.audit.provenance import library_versions
print(fairlayer.__version__, library_versions()["fairlayer"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == [PROJECT["version"]] * 2
