"""The laws of a projection, written once and run for every constraint, precision and kind of bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.core import truth
from tests.core.problems import SOLO_KINDS, Problem, Rule, random_problem, seeds, solo_problem

PROMISED = {torch.float32: 1e-6, torch.float64: 1e-10}
MIX = "a mix"

KINDS = pytest.mark.parametrize("kind", [*SOLO_KINDS, MIX])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
BOUNDED = pytest.mark.parametrize("bounded", [True, False], ids=["bounds", "no bounds"])
EACH = settings(max_examples=8)


def law(test: Callable[..., None]) -> Callable[..., None]:
    """Run for every constraint x dtype x bounds, on generated problems."""
    return KINDS(DTYPES(BOUNDED(EACH(given(seed=seeds)(test)))))


def _problem(kind: str, seed: int, bounded: bool) -> Problem:
    """A problem of one kind; sets must not depend on the scores, so calibration has one bin only."""
    if kind == MIX:
        problem = random_problem(seed, scale=1.0)
        assume(problem.n <= 60)
        problem = problem if bounded or problem.bounds is None else replace(problem, bounds=None)
    else:
        problem = solo_problem(kind, seed, bounded=bounded)
    return replace(problem, rules=tuple(_one_bin(rule) for rule in problem.rules))


def _one_bin(rule: Rule) -> Rule:
    return replace(rule, limit=max(rule.limit, 1.0), more={"bins": 1}) if rule.kind == "GroupCalibration" else rule


def _project(problem: Problem, dtype: torch.dtype, scores: np.ndarray | None = None) -> np.ndarray:
    return problem.project(scores, dtype=dtype).value.double().numpy()


def _accuracy(problem: Problem, dtype: torch.dtype, *more: np.ndarray) -> float:
    """What two computations of one prediction may differ by."""
    size = max([1.0, problem.size, *(float(np.abs(m).max()) for m in more)])
    return (2e-6 if dtype == torch.float32 else 1e-9) * size


@law
def test_feasible(kind: str, dtype: torch.dtype, bounded: bool, seed: int) -> None:
    """Every rule holds on the returned value to the promised accuracy, computed from its formula; so do the bounds."""
    problem = solo_problem(kind, seed, bounded=bounded) if kind != MIX else random_problem(seed)
    y = _project(problem, dtype)
    rounded = (
        replace(problem, scores=problem.scores.astype(np.float32).astype(float)) if dtype == torch.float32 else problem
    )
    for rule in problem.rules:
        size = max(1.0, float(np.abs(y).max()), truth.reach(replace(problem, scores=y), rule))
        assert truth.violation(rounded, rule, y) <= PROMISED[dtype] * size, rule
    lower, upper = problem.bounds or (None, None)
    slack = 6e-8 * problem.size if dtype == torch.float32 else 0.0
    assert lower is None or (y >= np.asarray(lower) - slack).all()
    assert upper is None or (y <= np.asarray(upper) + slack).all()


@law
def test_certificate(kind: str, dtype: torch.dtype, bounded: bool, seed: int) -> None:
    """The certificate speaks of the returned value, and its gap is closed."""
    problem = _problem(kind, seed, bounded)
    result = problem.project(dtype=dtype)
    certificate = result.certificate
    given = torch.tensor(problem.scores).to(dtype).double()
    distance = float((result.value.double() - given).norm())
    assert certificate.distance == pytest.approx(distance, rel=1e-9, abs=1e-12)
    assert abs(certificate.duality_gap) <= certificate.atol * max(1.0, distance)
    assert certificate.violation <= certificate.atol
    assert certificate.holds


@law
def test_idempotent(kind: str, dtype: torch.dtype, bounded: bool, seed: int) -> None:
    problem = _problem(kind, seed, bounded)
    once = _project(problem, dtype)
    np.testing.assert_allclose(_project(problem, dtype, once), once, atol=_accuracy(problem, dtype), rtol=0)


@law
def test_identity_when_feasible(kind: str, dtype: torch.dtype, bounded: bool, seed: int) -> None:
    """Scores that meet every rule with room to spare come back bit for bit."""
    problem = _problem(kind, seed, bounded)
    if problem.bounds is not None:  # numbers that float32 holds exactly
        problem = replace(problem, bounds=(0.0, 1.0))
    once = problem.project(dtype=dtype).value
    for rule in problem.rules:
        if rule.kind == "DisparateImpactRatio":  # of negative means a lower ratio asks for more, of zeros for the same
            assume(min(truth.group_means(problem, rule.on, once.double().numpy()), default=1.0) > 1e-3)
    roomy = replace(problem, rules=tuple(_loosened(rule) for rule in problem.rules))
    again = roomy.project(once, dtype=dtype)
    assert torch.equal(again.value, once)
    assert again.status == "unchanged"
    assert all(float(m) == 0.0 for m in again.multipliers.values())


def _loosened(rule: Rule) -> Rule:
    if rule.kind.startswith("Affine"):
        more = {"lower": rule.more["lower"] - 0.1, "upper": rule.more["upper"] + 0.1}
        return replace(rule, more={**rule.more, **more})
    if rule.kind == "DisparateImpactRatio":
        return replace(rule, limit=0.5 * rule.limit)
    return replace(rule, limit=rule.limit - 0.1 if rule.kind == "MinimumRate" else rule.limit + 0.1)


@law
def test_firmly_non_expansive(kind: str, dtype: torch.dtype, bounded: bool, seed: int) -> None:
    """|Px - Py|^2 <= (Px - Py)'(x - y)."""
    problem = _problem(kind, seed, bounded)
    rng = np.random.default_rng(seed)
    other = problem.scores + rng.normal(size=problem.n) * 10.0 ** rng.integers(-3, 2)
    x, y = (np.asarray(torch.tensor(z).to(dtype).double()) for z in (problem.scores, other))
    moved = _project(problem, dtype) - _project(problem, dtype, other)
    rounding = _accuracy(problem, dtype, y) * (np.linalg.norm(x - y) + 1.0)
    assert moved @ moved <= moved @ (x - y) + rounding


@law
def test_nearest(kind: str, dtype: torch.dtype, bounded: bool, seed: int) -> None:
    """The obtuse angle criterion: (z - Pz)'(w - Pz) <= 0 for other feasible w."""
    problem = _problem(kind, seed, bounded)
    rng = np.random.default_rng(seed)
    z = np.asarray(torch.tensor(problem.scores).to(dtype).double())
    y = _project(problem, dtype)
    for _ in range(3):
        w = _project(problem, dtype, problem.scores + rng.normal(size=problem.n))
        assert (z - y) @ (w - y) <= _accuracy(problem, dtype, w) * (np.linalg.norm(z - y) + np.linalg.norm(w - y) + 1.0)


@law
def test_equivariant_under_permutation(kind: str, dtype: torch.dtype, bounded: bool, seed: int) -> None:
    problem = _problem(kind, seed, bounded)
    order = np.random.default_rng(seed).permutation(problem.n)
    permuted = _project(problem.take(order), dtype)
    np.testing.assert_allclose(permuted, _project(problem, dtype)[order], atol=_accuracy(problem, dtype), rtol=0)


@law
def test_unchanged_by_relabelling(kind: str, dtype: torch.dtype, bounded: bool, seed: int) -> None:
    """Groups under other names, in the opposite order."""
    problem = _problem(kind, seed, bounded)
    features = {name: _renamed(column) if name in "abc" else column for name, column in problem.features.items()}
    rules = tuple(
        replace(r, more={**r.more, "rows": r.more["rows"][:, ::-1]}) if r.kind == "AffineGroups" else r
        for r in problem.rules
    )
    renamed = replace(problem, features=features, rules=rules)
    np.testing.assert_allclose(
        _project(renamed, dtype), _project(problem, dtype), atol=_accuracy(problem, dtype), rtol=0
    )


def _renamed(codes: np.ndarray) -> np.ndarray:
    return np.array([None if code < 0 else f"group {99 - code}" for code in codes], dtype=object)


@law
def test_unchanged_when_every_sample_is_doubled(kind: str, dtype: torch.dtype, bounded: bool, seed: int) -> None:
    problem = _problem(kind, seed, bounded)
    twice = problem.take(np.repeat(np.arange(problem.n), 2))
    halved = tuple(
        replace(r, more={**r.more, "rows": 0.5 * r.more["rows"]}) if r.kind == "AffineSamples" else r
        for r in twice.rules
    )
    value = _project(replace(twice, rules=halved), dtype)
    expected = np.repeat(_project(problem, dtype), 2)
    np.testing.assert_allclose(value, expected, atol=_accuracy(problem, dtype), rtol=0)


CELL_KINDS = [k for k in SOLO_KINDS if k not in ("CovarianceBound", "AffineSamples")]


@pytest.mark.parametrize("kind", CELL_KINDS)
@DTYPES
@BOUNDED
@EACH
@given(seed=seeds)
def test_order_kept_within_a_cell(kind: str, dtype: torch.dtype, bounded: bool, seed: int) -> None:
    """Nobody overtakes anybody of the same groups, label and bin; whoever is not clipped moves by the same amount."""
    problem = solo_problem(kind, seed, bounded=bounded)
    z = np.asarray(torch.tensor(problem.scores).to(dtype).double())
    y = _project(problem, dtype)
    assert problem.labels is not None
    bins = np.floor(np.clip(z, 0, 1 - 1e-9) * problem.rules[0].more.get("bins", 1))
    looked_at = [problem.features[name] for name in "abc"] + [problem.labels, bins]
    cells = np.unique(np.stack(looked_at), axis=1, return_inverse=True)[1].ravel()
    for cell in range(cells.max() + 1):
        inside = np.flatnonzero(cells == cell)
        order = inside[np.argsort(z[inside], kind="stable")]
        assert (np.diff(y[order]) >= 0).all()
        free = order[(y[order] > 0.0) & (y[order] < 1.0)] if bounded else order
        if len(free):
            assert np.ptp(y[free] - z[free]) <= _accuracy(problem, dtype)


@settings(max_examples=60)
@given(seed=seeds, share=st.floats(0.01, 0.99))
def test_the_way_to_the_projection_leads_to_the_projection(seed: int, share: float) -> None:
    """Every point between z and Pz has the same projection."""
    problem = _problem(MIX, seed, True)
    assume(not any(rule.kind == "GroupCalibration" for rule in problem.rules))
    y = _project(problem, torch.float64)
    between = problem.scores + share * (y - problem.scores)
    np.testing.assert_allclose(_project(problem, torch.float64, between), y, atol=1e-8 * max(1.0, problem.size))
