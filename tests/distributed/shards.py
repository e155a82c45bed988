"""One problem, cut into the shares of several processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import fairlayer as fl
from tests.core.problems import Problem, hard_problem, random_problem, solo_problem

CUTS = ("uneven", "empty", "by group")


def problem_of(kind: str, seed: int) -> Problem:
    """A problem with one rule of this kind, or (for `random` and `hard`) with several of any kind."""
    if kind == "random":
        return random_problem(seed)
    if kind == "hard":
        return hard_problem(seed)
    return solo_problem(kind, seed, n=30 + seed % 31)


def shards(problem: Problem, processes: int, cut: str, seed: int) -> list[np.ndarray]:
    """The samples of each process: in shares of any size, with none at all for one, or sorted by group."""
    rng = np.random.default_rng(seed)
    order = np.arange(problem.n) if cut == "uneven" else rng.permutation(problem.n)
    if cut == "by group":  # most processes lack most groups
        first = next(iter(problem.features.values()))
        order = np.argsort(first if first.ndim == 1 else first[:, 0], kind="stable")
    ends = np.sort(rng.integers(0, problem.n + 1, processes - 1))
    if cut == "empty":
        ends[0] = 0 if processes == 2 or rng.random() < 0.5 else ends[1]
    return np.split(order, ends)


def upstream(problem: Problem, seed: int) -> np.ndarray:
    """A weight for each prediction, whose sum is the loss."""
    return np.random.default_rng(seed + 7).normal(size=problem.n)


def answer(problem: Problem, weights: np.ndarray, dtype: torch.dtype = torch.float64, **more: Any) -> dict[str, Any]:
    """Value, gradient of `weights @ value`, and what the result says."""
    scores = torch.tensor(problem.scores, dtype=dtype, requires_grad=True)
    result = problem.project(scores, dtype=dtype, **more)
    (result.value * torch.tensor(weights, dtype=dtype)).sum().backward()
    assert scores.grad is not None
    return {"value": result.value.detach().numpy(), "gradient": scores.grad.numpy(), **words_of(result)}


def words_of(result: fl.Projection) -> dict[str, Any]:
    """What the result says about the whole batch."""
    return {
        "holds": result.certificate.holds,
        "distance": result.certificate.distance,
        "violation": result.certificate.violation,
        "status": result.status,
        "multipliers": {name: float(price) for name, price in result.multipliers.items()},
        "shift": dict(zip(result.cells, result.shift.tolist(), strict=True)),
        "counts": result.counts,
        "rows": result.rows,
        "absent": result.absent,
        "passes": result.passes,
    }
