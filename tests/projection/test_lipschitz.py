"""LipschitzFairness against an interior-point solver, and its laws, derivatives, certificate and refusals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cvxpy as cp
import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer.errors import (
    BackendError,
    ConstraintDefinitionError,
    FairlayerError,
    InfeasibleConstraintsError,
    InvalidBoundsError,
    ParameterError,
    ShapeError,
)
from fairlayer.passes.pairs import Pairs
from fairlayer.passes.pairs import problem as pair_problem

GEOMETRIES = ("euclidean", "entropic", "likelihood")


class Problem(NamedTuple):
    """A batch with pairs, and perhaps groups; everything is NumPy and float64."""

    scores: np.ndarray
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray]
    constant: float
    groups: np.ndarray | None
    tolerance: float
    weights: np.ndarray | None
    bounds: tuple[float | None, float | None] | None
    geometry: str

    def project(self, scores: Any = None, **more: Any) -> fl.Projection:
        stated: list[Any] = [fl.LipschitzFairness(constant=self.constant, pairs=self.pairs)]
        features = None
        if self.groups is not None:
            stated.append(fl.DemographicParity("g", self.tolerance))
            features = {"g": self.groups}
        scores = torch.tensor(self.scores) if scores is None else scores
        return fl.project(
            scores,
            stated,
            sensitive_features=features,
            bounds=self.bounds,
            geometry=self.geometry,
            sample_weight=self.weights,
            **more,
        )


def random_problem(seed: int, geometry: str) -> Problem:
    """Chains, random graphs with parallel pairs, ties, people at distance 0, constant 0, weights, bounds, groups."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 40))
    features = rng.normal(size=(n, int(rng.integers(1, 4))))
    if rng.random() < 0.4:
        features = np.round(features)  # duplicates, and distances that add up
    if rng.random() < 0.3:
        first, second = np.arange(n - 1), np.arange(1, n)
    else:
        first, second = rng.integers(0, n, (2, int(rng.integers(1, 4 * n))))
    keep = first != second
    first, second = first[keep], second[keep]
    distance = np.linalg.norm(features[first] - features[second], axis=1)
    scores = rng.random(n) if geometry != "euclidean" else rng.normal(size=n)
    if rng.random() < 0.3:
        scores = np.round(scores * 4) / 4
    if geometry != "euclidean":
        scores = scores.clip(0.01, 0.99)
    bounds = None if geometry != "euclidean" else [None, (-0.5, 0.5), (0.0, 1.0), (None, 0.3)][int(rng.integers(4))]
    groups = rng.integers(0, 2 + int(rng.random() < 0.3), n) if rng.random() < 0.6 else None
    weights = rng.uniform(0.5, 3.0, n) if rng.random() < 0.3 else None
    constant = float(rng.choice([0.0, 0.02, 0.1, 0.5, 2.0]))
    tolerance = float(rng.choice([0.0, 0.02, 0.1]))
    return Problem(scores, (first, second, distance), constant, groups, tolerance, weights, bounds, geometry)


def distance_to(problem: Problem, y: Any, library: Any = np) -> Any:
    z, w = problem.scores, np.ones(len(problem.scores)) if problem.weights is None else problem.weights
    if problem.geometry == "euclidean":
        return 0.5 * (w @ library.square(y - z))
    if library is cp:
        if problem.geometry == "entropic":
            return w @ (cp.kl_div(y, z) + cp.kl_div(1 - y, 1 - z))
        return w @ (cp.kl_div(z, y) + cp.kl_div(1 - z, 1 - y))
    p, q = (y, z) if problem.geometry == "entropic" else (z, y)
    return w @ (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))


def oracle(problem: Problem) -> np.ndarray | None:
    """The same problem by cvxpy and Clarabel, stated from the documentation."""
    y = cp.Variable(len(problem.scores))
    first, second, distance = problem.pairs
    limits: list[Any] = [cp.abs(y[first] - y[second]) <= problem.constant * distance] if len(first) else []
    w = np.ones(len(problem.scores)) if problem.weights is None else problem.weights
    for bound, sign in zip(problem.bounds or (None, None), (1, -1), strict=True):
        if bound is not None:
            limits.append(sign * y >= sign * bound)
    if problem.groups is not None:
        inside = [np.where(problem.groups == g, w, 0.0) for g in np.unique(problem.groups)]
        means = [(each / each.sum()) @ y for each in inside]
        limits += [a - b <= problem.tolerance for a in means for b in means if a is not b]
    task = cp.Problem(cp.Minimize(distance_to(problem, y, cp)), limits)
    try:
        task.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    except cp.SolverError:
        return None
    return None if y.value is None or "inaccurate" in task.status else np.asarray(y.value)


def violation(problem: Problem, y: np.ndarray) -> float:
    first, second, distance = problem.pairs
    worst = float((np.abs(y[first] - y[second]) - problem.constant * distance).max(initial=0.0))
    low, high = problem.bounds or (None, None)
    worst = max(worst, 0.0 if low is None else low - y.min(), 0.0 if high is None else y.max() - high)
    if problem.groups is not None:
        w = np.ones(len(y)) if problem.weights is None else problem.weights
        means = [np.average(y[problem.groups == g], weights=w[problem.groups == g]) for g in np.unique(problem.groups)]
        worst = max(worst, max(means) - min(means) - problem.tolerance)
    return worst


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("block", range(2))
def test_equals_an_interior_point_solver(geometry: str, block: int) -> None:
    compared = 0
    for seed in range(60 * block, 60 * (block + 1)):
        problem = random_problem(seed, geometry)
        result = problem.project()
        y = result.value.numpy()
        assert violation(problem, y) <= 1e-10, (seed, violation(problem, y))
        assert result.certificate.holds, (seed, result.certificate)
        expected = oracle(problem)
        if expected is None:
            continue
        compared += 1
        inside = expected if geometry == "euclidean" else expected.clip(1e-9, 1 - 1e-9)
        assert distance_to(problem, y) <= distance_to(problem, inside) + 1e-6, seed
        assert np.abs(y - expected).max() <= 2e-3, (seed, np.abs(y - expected).max())
    assert compared >= 50
