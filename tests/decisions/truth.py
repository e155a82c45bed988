"""Decision problems, and their best answers by brute force and by a general linear-programming solver.

Rules are stated by `tests.core.truth`, from their documented formulas. No fairlayer code but the constraint objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from scipy.optimize import linprog

from tests.core.problems import Problem, Rule, made_feasible, random_problem
from tests.core.truth import AllPairs, Between, terms

NOT_FOR_DECISIONS = {"AffineSamples", "GroupCalibration", "CovarianceBound"}
LABELLED = {"EqualOpportunity", "PredictiveEquality", "EqualizedOdds", "ErrorRateParity"}
LABELLED |= {"BoundedGroupLoss", "BoundedGroupLossCustom"}


@dataclass(frozen=True)
class DecisionProblem:
    """A problem for `decide`."""

    problem: Problem
    capacity: int | None = None

    @property
    def p(self) -> np.ndarray:
        """Probability of label 1."""
        p = self.problem.labels if self.problem.labels is not None else self.problem.estimates
        assert p is not None
        return p

    @property
    def gain(self) -> np.ndarray:
        """Accuracy gained by selecting each sample."""
        return (2 * self.p - 1) / len(self.p)

    @property
    def features(self) -> list[str]:
        """The features that the rules read."""
        return list(dict.fromkeys(name for c in self.problem.constraints() for name in c.features))

    def cells(self) -> list[np.ndarray]:
        """Members of each cell, highest score first."""
        columns = [self.problem.features[name].tolist() for name in self.features]
        keys = list(zip(*columns, strict=True)) if columns else [()] * self.problem.n
        by_score = np.argsort(-self.problem.scores, kind="stable")
        return [np.array([i for i in by_score if keys[i] == key]) for key in sorted(set(keys))]

    def arguments(self) -> dict[str, Any]:
        problem = self.problem
        return {
            "scores": problem.scores,
            "constraints": problem.constraints(),
            "sensitive_features": problem.features or None,
            "y": problem.labels,
            "label_probabilities": problem.estimates,
            "capacity": self.capacity,
        }


def asked(
    seed: int, *, labelled: bool = True, distinct: bool = False, many: bool = True, most: int = 60
) -> DecisionProblem:
    """A random problem: rules that suit decisions, scores in [0, 1] with and without ties, sometimes a capacity."""
    rng = np.random.default_rng(seed)
    problem = random_problem(seed, soft=False, dense=False, scale=1.0)
    while problem.n > most:
        seed += 10**7
        problem = random_problem(seed, soft=False, dense=False, scale=1.0)
    scores = np.clip(problem.scores, 0, 1)
    scores = rng.permutation(len(scores)) / len(scores) if distinct else scores
    unfit = NOT_FOR_DECISIONS | (set() if labelled else LABELLED)
    rules = tuple(rule for rule in problem.rules if rule.kind not in unfit)
    if not many:
        rules = tuple(rule for rule in rules if len(rule.on) == 1)[:1]
    rules = rules or (Rule("DemographicParity", ("c",), 0.02),)
    labels = problem.labels if rng.random() < 0.6 else None
    problem = replace(
        problem,
        scores=scores,
        rules=rules,
        labels=labels,
        estimates=None if labels is not None else scores,
        bounds=None,
    )
    capacity = int(rng.integers(0, problem.n + 1)) if rng.random() < 0.3 else None
    return DecisionProblem(made_feasible(problem, rng), capacity)


def thresholds(members: np.ndarray, scores: np.ndarray) -> Iterator[np.ndarray]:
    """What each threshold selects in a cell."""
    yield members[:0]
    for value in sorted(set(scores[members].tolist()), reverse=True):
        yield members[scores[members] >= value]


def best_lottery(asked: DecisionProblem) -> float | None:
    """The highest expected accuracy of any lottery between thresholds, None where none meets the rules."""
    n, gain = asked.problem.n, asked.gain
    columns, cell_of = [], []
    for cell, members in enumerate(asked.cells()):
        for chosen in thresholds(members, asked.problem.scores):
            columns.append(np.bincount(chosen, minlength=n).astype(float))
            cell_of.append(cell)
    D = np.array(columns).T  # (n, columns)
    upper, limits = inequalities(asked)
    result = linprog(
        -gain @ D,
        A_ub=upper @ D if len(upper) else None,
        b_ub=limits if len(upper) else None,
        A_eq=(np.array(cell_of) == np.arange(max(cell_of) + 1)[:, None]).astype(float),
        b_eq=np.ones(max(cell_of) + 1),
        method="highs",
    )
    assert result.status in (0, 2), result.message
    return None if result.status == 2 else float(np.mean(1 - asked.p) - result.fun)


def inequalities(asked: DecisionProblem, *, one_each: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Rows and limits with `rows @ decisions <= limits`; every ordered pair of a spread is a row.

    With `one_each` every limit is wider by what one sample more or less in each cell can add, except the capacity.
    """
    n = asked.problem.n
    rows, limits = [np.zeros((0, n))], [np.zeros(0)]
    for rule in asked.problem.rules:
        for term in terms(asked.problem, rule):
            matrix, offset = np.asarray(term.rows).reshape(-1, n), term.offset
            if isinstance(term, AllPairs):
                i, j = (index.ravel() for index in np.indices((len(matrix), len(matrix))))
                i, j = i[i != j], j[i != j]
                rows.append(term.scale * matrix[i] - matrix[j])
                limits.append(term.width - term.scale * offset[i] + offset[j])
                continue
            assert isinstance(term, Between)
            for side, bound in ((1, term.upper), (-1, term.lower)):
                kept = np.isfinite(bound)
                rows.append(side * matrix[kept])
                limits.append(side * (bound - offset)[kept])
    if one_each:
        limits = [
            b + sum(np.abs(r[:, m]).max(axis=1) for m in asked.cells()) for r, b in zip(rows, limits, strict=True)
        ]
    if asked.capacity is not None:
        rows.append(np.ones((1, n)))
        limits.append(np.array([float(asked.capacity)]))
    return np.vstack(rows), np.concatenate(limits)


def whole_answers(asked: DecisionProblem, *, one_each: bool = False) -> Iterator[tuple[float, np.ndarray]]:
    """Every choice of k_g that meets the rules, as (accuracy, decisions). Distinct scores only."""
    cells, n = asked.cells(), asked.problem.n
    rows, limits = inequalities(asked, one_each=one_each)
    for counts in product(*(range(len(members) + 1) for members in cells)):
        chosen = np.concatenate([members[:k] for members, k in zip(cells, counts, strict=True)])
        d = np.bincount(chosen, minlength=n).astype(float)
        if not len(rows) or (rows @ d <= limits + 1e-9).all():
            yield float(np.mean(1 - asked.p) + asked.gain @ d), d
