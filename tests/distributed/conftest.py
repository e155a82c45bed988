"""One group of processes for all tests of this folder: starting processes takes longer than what they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module

import pytest

from tests.distributed.processes import Found, Job, run

# Which modules of this folder have `JOBS` for groups of two and of four processes.
FOLDER = "tests.distributed"
MODULES = {
    2: ("test_projection", "test_errors", "test_layer", "test_training", "test_chunks"),
    4: ("test_projection", "test_training", "test_chunks"),
}

FoundBy = Callable[[str, int], list[Found]]


@pytest.fixture(scope="session")
def found_by(tmp_path_factory: pytest.TempPathFactory) -> FoundBy:
    """Return what each rank of so many processes found on the `JOBS` of a module."""

    @cache
    def everything(processes: int) -> list[Found]:
        jobs: dict[str, Job] = {}
        for module in MODULES[processes]:
            theirs: Mapping[str, Job] = import_module(f"{FOLDER}.{module}").JOBS[processes]
            jobs |= {f"{module}: {name}": job for name, job in theirs.items()}
        return run(processes, tmp_path_factory.mktemp("ranks"), jobs)

    def found_by(module: str, processes: int) -> list[Found]:
        prefix = f"{module.rpartition('.')[2]}: "
        return [
            {name.removeprefix(prefix): value for name, value in share.items() if name.startswith(prefix)}
            for share in everything(processes)
        ]

    return found_by
