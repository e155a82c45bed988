"""One group of processes for all tests of this folder: starting processes takes longer than what they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from tests.distributed.processes import Found, Job, run

# Which modules of this folder have `JOBS` for groups of two and of four processes.
FOLDER = "tests.distributed"
MODULES = {
    2: ("test_projection", "test_errors", "test_layer", "test_training", "test_chunks", "test_geometries"),
    4: ("test_projection", "test_training", "test_chunks"),
}

FoundBy = Callable[[str, int], list[Found]]


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A folder of this test run, which all of pytest's own worker processes see."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if hasattr(request.config, "workerinput") else base


@pytest.fixture(scope="session")
def found_by(shared_folder: Path) -> FoundBy:
    """Return what each rank of so many processes found on the `JOBS` of a module; the first that asks starts them."""

    @cache
    def everything(processes: int) -> list[Found]:
        jobs: dict[str, Job] = {}
        for module in MODULES[processes]:
            theirs: Mapping[str, Job] = import_module(f"{FOLDER}.{module}").JOBS[processes]
            jobs |= {f"{module}: {name}": job for name, job in theirs.items()}
        folder = shared_folder / f"ranks_{processes}"
        folder.mkdir(exist_ok=True)
        with FileLock(folder / "lock"):
            files = [folder / f"rank{rank}.pt" for rank in range(processes)]
            if all(file.is_file() for file in files):
                return [torch.load(file, weights_only=False) for file in files]
            return run(processes, folder, jobs)

    def found_by(module: str, processes: int) -> list[Found]:
        prefix = f"{module.rpartition('.')[2]}: "
        return [
            {name.removeprefix(prefix): value for name, value in share.items() if name.startswith(prefix)}
            for share in everything(processes)
        ]

    return found_by
