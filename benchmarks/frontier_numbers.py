"""Numbers of one set of scores and decisions, and the choice among settings on validation rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from frontier_data import Array, Part
from sklearn.metrics import roc_auc_score


@dataclass(frozen=True)
class Numbers:
    """All in percent, but the Brier score; an error is one standard error of the gap above it.

    score_gap     |mean score of group 1 - of group 0|
    decision_gap  |share of yes in group 1 - in group 0|
    odds_gap      the larger of the same two gaps within label 1 (TPR) and within label 0 (FPR)
    auc, brier    None for methods without scores
    """

    accuracy: float
    auc: float | None
    brier: float | None
    score_gap: float | None
    score_gap_error: float | None
    decision_gap: float
    decision_gap_error: float
    odds_gap: float
    odds_gap_error: float


@dataclass(frozen=True)
class Point:
    """One way to decide: of which method, with which setting, and its numbers on validation and test rows."""

    method: str
    known: bool  # whether the group is needed at inference
    detail: str
    valid: Numbers
    test: Numbers

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Point:
        valid, test = (Numbers(**state[name]) for name in ("valid", "test"))
        return cls(state["method"], state["known"], state["detail"], valid, test)


class Measure:
    """Measures predictions on the rows of one part; what does not depend on the decisions is computed once."""

    def __init__(self, part: Part, scores: Array | None) -> None:
        self.labels, groups = part.labels, part.groups
        self.everyone = [groups == 0, groups == 1]
        self.by_label = [[(groups == g) & (self.labels == label) for g in (0, 1)] for label in (0, 1)]
        self.of_scores = _score_numbers(scores, self.labels, self.everyone)

    def decisions(self, yes: Array) -> Numbers:
        """Return the numbers of decisions (n,), 0 or 1 (or the chance of a yes, for a rule that draws)."""
        yes = np.asarray(yes, dtype=np.float64)
        right = np.where(self.labels == 1, yes, 1.0 - yes)
        gap, error = gap_of(yes, self.everyone)
        odds = [gap_of(yes, cells) for cells in self.by_label]
        worst = max(odds)
        return Numbers(
            accuracy=100.0 * float(right.mean()),
            **self.of_scores,
            decision_gap=gap,
            decision_gap_error=error,
            odds_gap=worst[0],
            odds_gap_error=worst[1],
        )


def gap_of(values: Array, cells: Sequence[Array]) -> tuple[float, float]:
    """Return the gap between two means and its standard error, in percent; (0, 0) where a cell is empty."""
    if not all(cell.any() for cell in cells):
        return 0.0, 0.0
    first, second = (values[cell] for cell in cells)
    variance = first.var() / len(first) + second.var() / len(second)
    return 100.0 * abs(float(first.mean() - second.mean())), 100.0 * float(np.sqrt(variance))


def _score_numbers(scores: Array | None, labels: Array, cells: Sequence[Array]) -> dict[str, float | None]:
    names = ("auc", "brier", "score_gap", "score_gap_error")
    if scores is None:
        return dict.fromkeys(names)
    brier = float(((scores - labels) ** 2).mean())
    values = (100.0 * float(roc_auc_score(labels, scores)), brier, *gap_of(scores, cells))
    return dict(zip(names, values, strict=True))


@dataclass(frozen=True)
class Question:
    """The largest `column` among points whose gap on validation rows is at most budget - spare.

    The best of many points is within a budget partly by chance; where a gap's standard error is as large as the
    budget, part of the budget is not spent.
    """

    title: str
    gap: str
    budget: float
    column: str = "accuracy"
    spare: float = 0.0

    def choose(self, points: Sequence[Point]) -> Point | None:
        """Return the best point of one method and one seed; None where none is allowed."""
        allowed = [p for p in points if self._within(p.valid)]
        return max(allowed, key=lambda p: self._rank(p.valid), default=None)

    def _within(self, numbers: Numbers) -> bool:
        gap = getattr(numbers, self.gap)
        return gap is not None and getattr(numbers, self.column) is not None and gap <= self.budget - self.spare

    def _rank(self, numbers: Numbers) -> tuple[float, float]:
        """An AUC that is a tenth of a percent less is no worse, and accuracy decides."""
        value: float = getattr(numbers, self.column)
        return (value if self.column == "accuracy" else round(value, 1)), numbers.accuracy
