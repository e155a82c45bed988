"""A batch spread over processes is projected as one process would project it: values, gradients, and the result."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest

from tests.core.problems import SOLO_KINDS
from tests.distributed.conftest import FoundBy
from tests.distributed.processes import Found, run
from tests.distributed.shards import CUTS, answer, problem_of, shards, upstream

Case = tuple[str, int, str]  # kind, seed, cut

SOLO: list[Case] = [(kind, 100 * i + j, cut) for i, kind in enumerate(SOLO_KINDS) for j, cut in enumerate(CUTS)]
MIXED: list[Case] = [(kind, seed, CUTS[seed % 3]) for kind, seed in product(("random", "hard"), range(12))]
STALLING: list[Case] = [("hard", 62, "by group"), ("hard", 91, "empty"), ("hard", 362, "by group")]  # past Newton
MORE: list[Case] = [(kind, seed, CUTS[seed % 3]) for kind, seed in product(("random", "hard"), range(12, 400))]


def project_share(case: Case, rank: int, processes: int) -> Found:
    kind, seed, cut = case
    problem = problem_of(kind, seed)
    share = shards(problem, processes, cut, seed)[rank]
    return answer(problem.take(share), upstream(problem, seed)[share], process_group="world")


def check(case: Case, found: list[Found]) -> None:
    """The shares of all ranks, put together, are the answer of one process."""
    kind, seed, cut = case
    problem = problem_of(kind, seed)
    expected = answer(problem, upstream(problem, seed))
    order = np.concatenate(shards(problem, len(found), cut, seed))
    size = max(1.0, problem.size)
    for name, atol in (("value", 1e-9 * size), ("gradient", 1e-7)):
        together = np.concatenate([share[name] for share in found])
        np.testing.assert_allclose(together, expected[name][order], atol=atol, err_msg=f"{name} of {case}")
    for share in found:
        assert share["holds"], case
        assert share["absent"] == expected["absent"], case
        assert share["status"] == expected["status"], case
        assert share["counts"] == expected["counts"], case
        assert share["rows"] == expected["rows"] == problem.n, case
        assert share["distance"] == pytest.approx(expected["distance"], abs=1e-7 * size), case
        if len(problem.rules) == 1:  # of several, the prices need not be unique
            assert share["multipliers"] == pytest.approx(expected["multipliers"], rel=1e-4, abs=1e-6 * size), case
        same = {key: share[key] for key in ("shift", "multipliers", "violation", "passes")}
        assert same == {key: found[0][key] for key in same}, f"the ranks of {case} disagree"


def jobs(cases: list[Case]) -> dict[str, Any]:
    return {repr(case): partial(project_share, case) for case in cases}


TURNS: list[Case] = [SOLO[len(CUTS) * i + i % len(CUTS)] for i in range(len(SOLO_KINDS))]  # every kind, cut in turn
CASES = {2: TURNS + MIXED + STALLING, 4: TURNS + MIXED[::3]}  # all kinds in all cuts are among the slow tests
JOBS = {processes: jobs(cases) for processes, cases in CASES.items()}


@pytest.mark.parametrize(("processes", "case"), [(p, case) for p, cases in CASES.items() for case in cases], ids=str)
def test_equals_one_process(processes: int, case: Case, found_by: FoundBy) -> None:
    check(case, [share[repr(case)] for share in found_by(__name__, processes)])


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_hundreds_equal_one_process(processes: int, tmp_path: Any) -> None:
    found = run(processes, tmp_path, jobs(SOLO + MORE))
    for case in SOLO + MORE:
        check(case, [share[repr(case)] for share in found])
