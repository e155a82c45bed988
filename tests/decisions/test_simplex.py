"""The small linear-programming solver against a general one, on degenerate programs too."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from fairlayer.decisions.simplex import Simplex
from fairlayer.errors import SolverError


def program(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bounded: every variable is in a sum that is limited. Repeated rows, zero limits and integers make ties."""
    rng = np.random.default_rng(seed)
    m, n = int(rng.integers(1, 12)), int(rng.integers(1, 25))
    matrix = rng.integers(-3, 4, (m, n)).astype(float) if seed % 2 else rng.normal(size=(m, n))
    matrix = np.vstack([matrix, matrix[: m // 2], np.ones((1, n))])
    right = np.append(np.maximum(rng.integers(-2, 3, len(matrix) - 1), 0), 1.0)
    costs = rng.integers(-3, 4, n).astype(float) if seed % 3 else rng.normal(size=n)
    return matrix, right, costs


@pytest.mark.parametrize("seed", range(150))
def test_optimum_and_prices(seed: int) -> None:
    matrix, right, costs = program(seed)
    m, n = matrix.shape
    half = n // 2
    solver = Simplex(np.hstack([matrix[:, :half], np.eye(m)]), right, half + np.arange(m))
    solver.maximise(np.append(costs[:half], np.zeros(m)))
    solver.append(matrix[:, half:])  # a warm start with further columns
    prices = solver.maximise(np.concatenate([costs[:half], np.zeros(m), costs[half:]]))
    x = np.delete(solver.solution(), np.arange(half, half + m))
    truth = linprog(-costs, A_ub=matrix, b_ub=right, method="highs")
    assert costs @ x == pytest.approx(-truth.fun, abs=1e-9)
    assert (matrix @ x <= right + 1e-9).all()
    assert (x >= 0).all()
    assert (prices >= -1e-9).all()
    assert prices @ right == pytest.approx(-truth.fun, abs=1e-9)  # strong duality
    assert (prices @ matrix >= costs - 1e-9).all()


@pytest.mark.parametrize("seed", range(60))
def test_blands_rule_alone_gets_there_too(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    entering, leaving = Simplex._entering, Simplex._leaving
    monkeypatch.setattr(Simplex, "_entering", lambda self, reduced, first: entering(self, reduced, first=True))
    monkeypatch.setattr(Simplex, "_leaving", lambda self, direction, first: leaving(self, direction, first=True))
    matrix, right, costs = program(seed)
    m, n = matrix.shape
    solver = Simplex(np.hstack([matrix, np.eye(m)]), right, n + np.arange(m))
    solver.maximise(np.append(costs, np.zeros(m)))
    truth = linprog(-costs, A_ub=matrix, b_ub=right, method="highs")
    assert costs @ solver.solution()[:n] == pytest.approx(-truth.fun, abs=1e-9)


def test_an_unbounded_program_is_an_error() -> None:
    with pytest.raises(SolverError, match="unbounded"):
        Simplex(np.array([[-1.0, 1.0]]), np.array([1.0]), np.array([1])).maximise(np.array([1.0, 0.0]))
