"""The wheel carries the package and nothing else; the sdist carries all that is kept, and its tests run from it."""

from __future__ import annotations

import subprocess
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from tools import distribution, outside

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both files twice, by the libraries that are installed."""
    out = tmp_path_factory.mktemp("built") / "dist"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAIRLAYER_BUILD_OFFLINE", "1")
        distribution.build_twice(ROOT, out)
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    [path] = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(dist: Path) -> set[str]:
    """The names of the files in the sdist, its top folder left out."""
    [path] = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name))


def test_every_file_of_the_package_is_inside(names: set[str]) -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "fairlayer").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }
    assert "fairlayer/py.typed" in files
    assert not files - names


def test_nothing_else_is_inside(names: set[str]) -> None:
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"fairlayer"}
    assert any(name.endswith("/LICENSE") for name in names)


def test_core_needs_torch_and_numpy_only(metadata: Message) -> None:
    core = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(line.split(">")[0].strip() for line in core) == ["numpy", "torch"]


def test_metadata_names_extras_and_licence(metadata: Message) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(metadata.get_all("Provides-Extra", [])) == set(declared) >= {"all", "cvxpy", "train", "serve"}
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"


def test_the_command_is_declared(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")]
        assert "fairlayer = fairlayer.cli:main" in archive.read(name).decode()


@pytest.mark.parametrize("folder", ["fairlayer", "tests", "docs", "examples", "benchmarks", "tools", ".github"])
def test_the_sdist_holds_every_file_that_is_kept(folder: str, sdist: set[str]) -> None:
    ignored = {"__pycache__", ".ipynb_checkpoints"}
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not ignored & set(path.parts) and path.suffix != ".so"
    }
    assert files
    assert not files - sdist


def test_the_sdist_holds_what_stands_beside_the_folders(sdist: set[str]) -> None:
    assert {
        "CHANGELOG.md",
        "CITATION.cff",
        "CONTRIBUTING.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "SECURITY.md",
    } <= sdist
    assert {"SECURITY.md", "constraints.txt", "mkdocs.yml", "pyproject.toml", ".pre-commit-config.yaml"} <= sdist
    assert not {name for name in sdist if name.startswith((".venv", ".ci", "dist"))}


def test_tests_of_the_sdist_run_against_the_installed_wheel(dist: Path) -> None:
    outside.run_outside(dist, ["tests/geometry", "tests/state/test_tensor_state.py"], reuse=True)


def test_a_failing_test_of_the_sdist_is_seen(dist: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        outside.run_outside(dist, ["tests/there_is_none.py"], reuse=True)
