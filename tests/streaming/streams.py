"""Streams of requests, and what a reader of the emitted predictions computes from them, without fairlayer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import fairlayer as fl
from fairlayer.constraints import Constraint


def one(score: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """One request's score."""
    return torch.tensor([score], dtype=dtype)


def tensor(values: Any, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Scores of a batch."""
    return torch.tensor(np.asarray(values), dtype=dtype)


@dataclass
class Ledger:
    """Every emitted prediction, summed by the reader, for each tuple of features."""

    sums: dict[tuple[str, ...], dict[tuple[Any, ...], list[float]]] = field(default_factory=dict)

    def add(self, on: tuple[str, ...], keys: Sequence[Any], values: Sequence[float]) -> None:
        table = self.sums.setdefault(on, {})
        for key, value in zip(keys, values, strict=True):
            row = table.setdefault(key if isinstance(key, tuple) else (key,), [0.0, 0.0])
            row[0] += 1.0
            row[1] += value

    def means(self, on: tuple[str, ...]) -> dict[tuple[Any, ...], float]:
        """Pooled means of the groups without an unknown (-1) part."""
        table = self.sums.get(on, {})
        return {key: total / n for key, (n, total) in table.items() if -1 not in key}

    def count(self, on: tuple[str, ...], key: tuple[Any, ...]) -> float:
        return self.sums.get(on, {}).get(key, [0.0, 0.0])[0]


def features_of(constraints: Sequence[Constraint]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for c in constraints for name in c.features))


def record(ledger: Ledger, constraints: Sequence[Constraint], columns: dict[str, Any], emitted: Any) -> None:
    """Enter one emitted batch for every constraint."""
    values = np.asarray(emitted, dtype=np.float64).reshape(-1).tolist()
    for on in {c.features for c in constraints}:
        keys = list(zip(*(np.asarray(columns[name]).tolist() for name in on), strict=True))
        ledger.add(on, keys, values)


def excess(ledger: Ledger, constraint: Constraint) -> float:
    """By how much the pooled means break a constraint (negative: room left), from its documented formula."""
    means = ledger.means(constraint.features)
    if isinstance(constraint, fl.ConditionalParity):
        k = len(constraint.on)
        strata: dict[tuple[Any, ...], list[float]] = {}
        for key, mean in means.items():
            strata.setdefault(key[k:], []).append(mean)
        return max((max(m) - min(m) - float(constraint.tolerance) for m in strata.values()), default=-np.inf)
    values = list(means.values())
    if not values:
        return -np.inf
    if isinstance(constraint, fl.DemographicParity):
        return max(values) - min(values) - float(constraint.tolerance)
    if isinstance(constraint, fl.DisparateImpactRatio):
        return constraint.ratio * max(values) - min(values)
    assert isinstance(constraint, fl.MinimumRate)
    return float(constraint.floor) - min(values)


def lending(seed: int, n: int, share: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """The stationary stream of the issue: scores, and sex with a minority share; raw gap about 0.15."""
    rng = np.random.default_rng(seed)
    sex = (rng.random(n) < share).astype(np.int64)
    return np.where(sex == 1, rng.beta(2.0, 3.7, n), rng.beta(2.6, 2.6, n)), sex


def regimes(seed: int, n: int, groups: int, *, unknown: float = 0.0, scale: float = 1.0) -> Iterator[tuple[int, float]]:
    """Stretches of a stream in which some groups are absent and the scores lie anywhere."""
    rng = np.random.default_rng(seed)
    left = 0
    for _ in range(n):
        if left == 0:
            left = int(rng.integers(1, max(2, n // 4)))
            weights = rng.dirichlet(np.full(groups, 0.3)) * (rng.random(groups) < 0.7)
            weights = weights / weights.sum() if weights.sum() > 0 else np.full(groups, 1 / groups)
            level, spread = rng.random(groups), rng.choice([0.0, 0.1, 1.0])
        left -= 1
        group = int(rng.choice(groups, p=weights))
        score = float(np.clip(level[group] + spread * (rng.random() - 0.5), 0, 1)) * scale
        yield (-1 if rng.random() < unknown else group), score


def emit_general(stream: fl.InferenceState, scores: torch.Tensor, features: Any) -> torch.Tensor:
    """Emit by the general step, also where plain sums would do."""
    return stream._live.general(scores, None, features, ids=None, y=None, vocabulary=None)


def projected_change(scores: np.ndarray, constraints: Sequence[Constraint], columns: Any) -> float:
    """Sum of squared change of the exact offline projection of the whole stream."""
    result = fl.project(tensor(scores), list(constraints), sensitive_features=columns, bounds=(0.0, 1.0))
    return float(((result.value.numpy() - scores) ** 2).sum())
