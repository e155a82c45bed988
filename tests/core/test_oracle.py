"""Against an independent interior-point solver, on problems stated twice: by fairlayer and by `truth`."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from fairlayer.errors import FairlayerWarning
from tests.core import truth
from tests.core.problems import Problem, hard_problem, random_problem, scaled

BLOCK = 50


def _check(problem: Problem) -> None:
    """Value within 1e-6 of the oracle's, certificate true, every rule met as documented; no warning on the way."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FairlayerWarning)  # of random limits that cannot bind, and lone groups
        result = problem.project()
    y, certificate = result.value.numpy(), result.certificate
    off = truth.deviation(problem, y)
    assert off <= 1e-6, f"{problem.name}: {off:.3g} off the oracle"
    assert certificate.holds, f"{problem.name}: {certificate}"
    assert result.status in ("unchanged", "projected"), problem.name
    for rule in problem.rules:
        broken = truth.violation(problem, rule, y)
        assert broken <= 1e-10 * max(1.0, problem.size, truth.reach(problem, rule)), (
            f"{problem.name}: {rule}, {broken:.3g}"
        )


@pytest.mark.parametrize("block", range(12))
def test_equals_an_interior_point_solver(block: int) -> None:
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        _check(random_problem(seed))


@pytest.mark.parametrize("seed", [2114, 2860, 3874, 4758])
def test_levels_without_bounds_that_find_no_bracket(seed: int) -> None:
    _check(random_problem(seed))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(12, 112))
def test_equals_an_interior_point_solver_on_thousands(block: int) -> None:
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        _check(random_problem(seed))


@pytest.mark.parametrize("seed", [1135, 2002, 2114, 2930])
def test_slack_that_far_scores_excuse_but_do_not_explain(seed: int) -> None:
    """Their scores are large, so that limits may be met less exactly; but they could be, and their prices are high."""
    _check(hard_problem(seed))


@pytest.mark.parametrize("block", range(4))
def test_hard_problems(block: int) -> None:
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        _check(hard_problem(seed))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(4, 64))
def test_hard_problems_in_thousands(block: int) -> None:
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        _check(hard_problem(seed))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_every_unit_of_the_scores(scale: float) -> None:
    """The same problems in other units: the answer scales with them."""
    for seed in range(7000, 7040):
        plain = random_problem(seed, scale=1.0)
        problem = scaled(plain, scale)
        _check(problem)
        if problem is not plain:
            expected = plain.project().value.numpy() * scale
            np.testing.assert_allclose(problem.project().value.numpy(), expected, atol=1e-9 * problem.size)


def test_many_groups_in_all_pairs() -> None:
    """780 pairs of 40 groups, of very different size, some saturated."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sizes = np.concatenate([np.ones(10), rng.integers(1, 20, 30)]).astype(int)
        groups = np.repeat(np.arange(40), sizes)
        scores = rng.normal(size=len(groups)) + rng.choice([-3.0, 0.0, 0.0, 3.0], 40)[groups]
        problem = random_problem(0, scale=1.0)
        rule = type(problem.rules[0])("DemographicParity", ("a",), float(rng.choice([0.0, 0.02])))
        _check(Problem(f"pairs {seed}", scores, {"a": groups}, (rule,), bounds=(0.0, 1.0)))


def test_float32_is_the_float64_answer_rounded() -> None:
    for seed in range(200, 300):
        problem = random_problem(seed)
        single = problem.project(torch.tensor(problem.scores, dtype=torch.float32), dtype=torch.float32)
        double = problem.project(torch.tensor(problem.scores, dtype=torch.float32).double())
        assert single.value.dtype == torch.float32
        assert torch.equal(single.value, double.value.float()), problem.name
        if all(rule.limit <= 0 or rule.limit >= 1e-6 * problem.size for rule in problem.rules):  # else none can tell
            assert single.certificate.holds, f"{problem.name}: {single.certificate}"


def test_the_oracle_would_notice() -> None:
    """A value that is feasible but not nearest, and one that is nearest without the rules, are both refused."""
    problem = next(p for p in map(random_problem, range(100)) if p.project().status == "projected" and p.rules)
    y = problem.project().value.numpy()
    assert truth.deviation(problem, y) < 1e-6
    assert truth.deviation(problem, y + 1e-5 * problem.size) > 1e-6
    assert truth.deviation(problem, problem.scores) > 1e-6


def test_the_optimality_conditions_would_notice() -> None:
    """The arbiter for what Clarabel cannot decide accepts the projection, and no other feasible point."""
    checked = 0
    for seed in range(60):
        problem = random_problem(seed, scale=1.0)
        y = problem.project().value.numpy()
        if problem.n > 60 or np.abs(y - problem.scores).max() < 1e-3:
            continue
        assert truth.optimality_residual(problem, y) <= 1e-7 * problem.size, seed
        other = problem.project(problem.scores + 0.1 * np.random.default_rng(seed).normal(size=problem.n)).value.numpy()
        off = np.abs(other - y).max()
        if off > 1e-3:
            assert truth.optimality_residual(problem, other) > 0.5 * off, seed
            checked += 1
    assert checked >= 10
