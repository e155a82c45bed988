"""The least widening against HiGHS, and its proof by sums of its own."""

from __future__ import annotations

import numpy as np
import pytest

from fairlayer.solve.elastic_program import Elastic, least_widening
from tests.solve.elastic_problems import ElasticProblem, problem_of

EPS = float(np.finfo(np.float64).eps)
BLOCK = 30


def check(seed: int) -> Elastic:
    """Its point meets the widened slabs and its weights prove them the least, to the last digits; HiGHS says the same.

    HiGHS works to 1e-10 in units of its own, in which rows of very small numbers disappear. The proof decides.
    """
    problem = problem_of(seed)
    elastic = least_widening(problem.blocks, problem.spec)
    doubt = _check_weights(problem, elastic)
    _check_point(problem, elastic, doubt)
    if not np.isnan(problem.own):
        assert elastic.widening >= problem.own * (1.0 - 1e-6) - 1e-12 * problem.reach, problem.name
    return elastic


def agrees_with_highs(seed: int) -> bool:
    problem = problem_of(seed)
    mine, least = least_widening(problem.blocks, problem.spec).widening, problem.by_highs()
    unit = problem.scale * max([1.0, *(1.0 / face.widens for face in problem.faces())])
    return abs(mine - least) <= 2e-8 * unit + 1e-7 * least


def _check_point(problem: ElasticProblem, elastic: Elastic, doubt: float) -> None:
    """Within the domain; each face is met by the widened limits, but for the rounding of its own sums."""
    x = problem.entries(elastic.point)
    assert (x >= problem.lower - 1e-15).all(), problem.name
    assert (x <= problem.upper + 1e-15).all(), problem.name
    if problem.classes > 1:
        np.testing.assert_allclose(x.reshape(-1, problem.classes).sum(axis=1), 1.0, atol=1e-14)
    s, sizes = problem.map @ x, np.abs(problem.map) @ np.maximum(np.abs(x), problem.scale)
    for key, normal, limit, widens, size, absolute in problem.faces():
        total = float(absolute @ sizes) + size + elastic.widening * widens
        over = float(normal @ s) - limit - elastic.widening * widens
        assert over <= 1e-12 * total + doubt * widens, (problem.name, key, over, total)


def _check_weights(problem: ElasticProblem, elastic: Elastic) -> float:
    """p >= 0, p @ widens = 1, and -p limit + min (p A B) v over the domain is the widening; return their rounding."""
    if elastic.feasible:
        assert not elastic.faces
        return 0.0
    faces = {face.key: face for face in problem.faces()}
    chosen = [(faces[key], p) for key, p in elastic.faces]
    assert all(p > 0 for _, p in chosen), problem.name
    assert sum(f.widens * p for f, p in chosen) == pytest.approx(1.0, rel=1e-9), problem.name
    pull = sum(p * (f.normal @ problem.map) for f, p in chosen)
    parts = np.array([p * (f.absolute @ np.abs(problem.map)) for f, p in chosen])
    size, largest = parts.sum(axis=0), float(parts.sum(axis=1).max())  # a small weight rounds like the largest
    noise = np.abs(pull) <= 1e-12 * np.maximum(size, largest)
    if problem.classes > 1:
        least = pull.reshape(-1, problem.classes).min(axis=1).sum()
        reach = float(size.sum())
    else:
        ends = np.where(pull > 0, problem.lower, problem.upper)
        with np.errstate(invalid="ignore"):
            least = float(np.where((pull == 0) | (noise & np.isinf(ends)), 0.0, pull * ends).sum())
        reach = float((size * np.where(np.isfinite(ends), np.abs(ends), 0.0)).sum())
    proved = least - sum(p * f.limit for f, p in chosen)
    doubt = 1e-12 * (reach + sum(p * f.size for f, p in chosen))
    assert abs(proved - elastic.widening) <= doubt, (problem.name, proved, elastic.widening, doubt)
    return doubt


@pytest.mark.parametrize("block", range(10))
def test_the_least_widening_is_that_of_highs(block: int) -> None:
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10, 110))
def test_the_least_widening_is_that_of_highs_on_thousands(block: int) -> None:
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        check(seed)
