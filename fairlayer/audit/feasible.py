"""What decisions can do under several criteria at once: the best accuracy, and the smallest tolerance.

A decision rule on the scores at hand, with a threshold per group and a lottery at it, has in group g a pair
(FPR_g, TPR_g) in the hull of the group's ROC curve. With the base rate p_g, the criteria speak of

    selection   s_g = p_g TPR_g + (1 - p_g) FPR_g          demographic parity: s_g equal
    TPR_g, FPR_g                                            equalized odds: both equal; equal opportunity: the first
    PPV_g = p_g TPR_g / s_g                                 predictive parity: PPV_g equal

The best accuracy under criteria within a tolerance t is a linear program in the weights on the curve's corners. With
predictive parity it is one for each lower end c of the PPVs (p_g TPR_g between c s_g and (c + t) s_g). Then c is tried
on a grid that is refined once, and since no group's PPV is below its base rate, c is at least max p_g - t. The accuracy
grows with t, so the smallest tolerance at which a wanted accuracy is left is found by bisection. Each group has to
select at least one person, since predictive parity says nothing about a group that is never selected.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.audit.grouped import Grouped
from fairlayer.audit.slots import CLASSES, DECIDED, NEGATIVE, POSITIVE, SELECTED
from fairlayer.audit.table import AuditTable
from fairlayer.errors import require

__all__ = ["PAIRS", "JointCriteria", "Rules", "best_accuracy", "rules_of_group", "together"]

PAIRS = {
    "demographic_parity": ("selection",),
    "equal_opportunity": ("tpr",),
    "predictive_equality": ("fpr",),
    "equalized_odds": ("tpr", "fpr"),
    "predictive_parity": (),
}


_STEPS = 10  # halvings of the tolerance: to 1 / 1024


_ENDS = 9  # lower ends of the PPVs that are tried, and tried again around the best


@dataclass(frozen=True)
class JointCriteria:
    """Criteria demanded together.

    Args:
        criteria: their names.
        smallest_tolerance: the smallest common tolerance at which a rule has the accuracy wanted; NaN where none has.
        best_accuracy: the best accuracy of a rule that keeps them within the tolerance asked; NaN where no rule does.
        cost: the accuracy of the best rule without any criterion, minus that.

    Example:
        >>> from fairlayer.audit import AuditTable, compatibility
        >>> scores, y, sex = [0.2, 0.6, 0.4, 0.9, 0.8] * 50, [0, 1, 0, 1, 1] * 50, ["F", "F", "M", "M", "M"] * 50
        >>> table = AuditTable.of(scores=scores, y=y, sensitive_features={"sex": sex})
        >>> found = compatibility(table, "sex", ["demographic_parity", "equal_opportunity"])
        >>> [(" and ".join(each.criteria), round(each.cost, 3)) for each in found.sets[1:]]
        [('equal_opportunity', 0.0), ('demographic_parity and equal_opportunity', 0.067)]
    """

    criteria: tuple[str, ...]
    smallest_tolerance: float
    best_accuracy: float
    cost: float


@dataclass(frozen=True)
class Rules:
    """The corners of what decisions can do in one group: (corners, 2) of FPR and TPR."""

    corners: FloatArray
    base_rate: float
    weight: float
    rows: float
    accuracy: float  # of the decisions at hand

    def rows_of(self) -> dict[str, FloatArray]:
        """Return each rate as a linear function of the weights on the corners."""
        fpr, tpr = self.corners.T
        selection = self.base_rate * tpr + (1 - self.base_rate) * fpr
        right = self.base_rate * tpr + (1 - self.base_rate) * (1 - fpr)
        return {"fpr": fpr, "tpr": tpr, "selection": selection, "right": right, "hits": self.base_rate * tpr}


def rules_of_group(table: AuditTable, grouped: Grouped, place: int) -> Rules:
    """Return what decisions can do in one group of a table."""
    weight = [float(grouped.total("weight", label)[place]) for label in CLASSES]
    decided = [float(grouped.total("weight", label, DECIDED)[place]) for label in CLASSES]
    selected = [float(grouped.total("weight", label, SELECTED)[place]) for label in CLASSES]
    right = selected[POSITIVE] + decided[NEGATIVE] - selected[NEGATIVE]
    if "probabilities" in table.holds:
        bins = grouped.bins()[place, :, ::-1, 0]  # from the highest scores down
        points = np.cumsum(bins, axis=1) / bins.sum(axis=1, keepdims=True)
    else:
        points = np.array([[s / d if d else 0.0] for s, d in zip(selected, decided, strict=True)])
    return Rules(
        _hull(points.T),
        weight[POSITIVE] / sum(weight),
        sum(weight),
        float(grouped.total("rows", CLASSES)[place]),
        right / sum(decided) if sum(decided) else math.nan,
    )


def _hull(points: FloatArray) -> FloatArray:
    """Return the corners of the upper hull of points (FPR, TPR), with (0, 0) and (1, 1)."""
    corners: list[tuple[float, float]] = []
    for x, y in sorted({(0.0, 0.0), (1.0, 1.0), *((float(x), float(y)) for x, y in points)}):
        while len(corners) > 1 and _turns_left(corners[-2], corners[-1], (x, y)):
            corners.pop()
        corners.append((x, y))
    return np.array(corners)


def _turns_left(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]) >= 0


def together(
    rules: list[Rules], criteria: tuple[str, ...], tolerance: float, wanted: float, free: float
) -> JointCriteria:
    """Return what the criteria leave together: the smallest tolerance for an accuracy, and the best within one."""
    best = best_accuracy(rules, criteria, tolerance)
    return JointCriteria(criteria, _smallest(rules, criteria, wanted), best, free - best)


def _smallest(rules: list[Rules], criteria: tuple[str, ...], wanted: float) -> float:
    """Return the smallest tolerance with the accuracy wanted, from above."""

    def enough(tolerance: float) -> bool:
        return any(accuracy >= wanted - 1e-9 for accuracy in _accuracies(rules, criteria, tolerance))

    low, high = 0.0, 1.0
    if not enough(high):
        return math.nan
    if enough(low):
        return low
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def best_accuracy(rules: list[Rules], criteria: tuple[str, ...], tolerance: float) -> float:
    """Return the best accuracy under criteria within a tolerance, NaN where no rule keeps them."""
    found = [accuracy for accuracy in _accuracies(rules, criteria, tolerance) if not math.isnan(accuracy)]
    return max(found, default=math.nan)


def _accuracies(rules: list[Rules], criteria: tuple[str, ...], tolerance: float) -> Iterator[float]:
    """Yield the accuracy for each lower end of the PPVs that is tried; for one, where PPVs are not compared."""
    if "predictive_parity" not in criteria:
        yield _solve(rules, criteria, tolerance, None)
        return
    ends = np.linspace(max(0.0, max(rule.base_rate for rule in rules) - tolerance), 1.0, _ENDS)
    found = []
    for end in ends.tolist():
        found.append(_solve(rules, criteria, tolerance, end))
        yield found[-1]
    if np.isnan(found).all():
        return
    place = int(np.nanargmax(found))
    for end in np.linspace(ends[max(place - 1, 0)], ends[min(place + 1, _ENDS - 1)], _ENDS)[1:-1].tolist():
        yield _solve(rules, criteria, tolerance, end)


def _solve(rules: list[Rules], criteria: tuple[str, ...], tolerance: float, end: float | None) -> float:
    """Maximise the accuracy over the weights on the corners, and one lower end per rate that is compared."""
    optimize = require("scipy.optimize", "audit")
    rates = sorted({rate for name in criteria for rate in PAIRS[name]})
    rows, sizes = [rule.rows_of() for rule in rules], [len(rule.corners) for rule in rules]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    size = int(starts[-1]) + len(rates)
    total = sum(rule.weight for rule in rules)
    gain, below, limits = np.zeros(size), [], []
    equal, ones = np.zeros((len(rules), size)), np.ones(len(rules))

    def bound(place: int, values: FloatArray, limit: float, rate: int | None = None, sign: float = 0.0) -> None:
        line = np.zeros(size)
        line[starts[place] : starts[place + 1]] = values
        if rate is not None:
            line[starts[-1] + rate] = sign
        below.append(line)
        limits.append(limit)

    for g, (rule, row) in enumerate(zip(rules, rows, strict=True)):
        gain[starts[g] : starts[g + 1]] = -rule.weight / total * row["right"]
        equal[g, starts[g] : starts[g + 1]] = 1.0
        for r, rate in enumerate(rates):
            bound(g, row[rate], tolerance, r, -1.0)  # rate - c <= tolerance
            bound(g, -row[rate], 0.0, r, 1.0)  # c - rate <= 0
        if end is not None:
            bound(g, end * row["selection"] - row["hits"], 0.0)
            bound(g, row["hits"] - (end + tolerance) * row["selection"], 0.0)
            bound(g, -row["selection"], -1.0 / rule.rows)
    solution: Any = optimize.linprog(
        gain,
        A_ub=np.array(below) if below else None,
        b_ub=np.array(limits) if limits else None,
        A_eq=equal,
        b_eq=ones,
        bounds=(0.0, 1.0),
        method="highs",
    )
    return float(-solution.fun) if solution.status == 0 else math.nan
