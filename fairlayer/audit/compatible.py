"""Which criteria can hold together on these base rates, within what, and at what cost.

`feasible.py` finds the best accuracy that decisions can have under criteria, and the smallest tolerance that leaves it.

Why they clash: PPV_g, TPR_g and FPR_g are tied by (Chouldechova 2017, equation 2.6)

    FPR_g = p_g / (1 - p_g)  (1 - PPV_g) / PPV_g  TPR_g

so with equal PPV and equal TPR, groups of different base rates have different FPR. For scores, calibration in every
group and equal mean scores among the positives (x) and among the negatives (y) leave only x - y = 1, a perfect
prediction, or equal base rates (Kleinberg, Mullainathan and Raghavan 2016).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairlayer._keywords import explained
from fairlayer.audit.errors import MetricError
from fairlayer.audit.feasible import PAIRS, JointCriteria, best_accuracy, rules_of_group, together
from fairlayer.audit.grouped import Grouped
from fairlayer.audit.slots import CLASSES, NEGATIVE, POSITIVE, SELECTED
from fairlayer.audit.table import AuditTable, names_of
from fairlayer.errors import ParameterError, require

__all__ = ["BaseRate", "Compatibility", "JointCriteria", "compatibility"]

_NOTHING = 0.05  # points of accuracy below which a cost is shown as none


@dataclass(frozen=True)
class BaseRate:
    """A group with what ties its rates.

    Args:
        name: the group.
        rows: its rows with a label.
        base_rate: the share of label 1.
        implied_fpr: the false positive rate that it must have where PPV and TPR are those of all groups together.

    Example:
        >>> from fairlayer.audit import AuditTable, audit, compatibility
        >>> scores, y, sex = [0.2, 0.6, 0.4, 0.9, 0.8] * 50, [0, 1, 0, 1, 1] * 50, ["F", "F", "M", "M", "M"] * 50
        >>> table = AuditTable.of(scores=scores, y=y, sensitive_features={"sex": sex})
        >>> found = compatibility(table, "sex", ["demographic_parity", "equal_opportunity"])
        >>> [(group.name, group.rows, group.base_rate) for group in found.groups]
        [('sex=F', 100.0, 0.5), ('sex=M', 150.0, 0.6666666666666666)]
    """

    name: str
    rows: float
    base_rate: float
    implied_fpr: float


@dataclass(frozen=True)
class Compatibility:
    """What can hold together.

    Args:
        groups: the groups compared.
        sets: every single criterion, every pair, and all of them.
        accuracy: the accuracy wanted.
        best: the accuracy of the best rule without any criterion.
        tolerance: the tolerance at which `best_accuracy` was computed.
        separation: mean score of the positives minus that of the negatives, over the groups compared; NaN without
            probabilities.
        calibration_tolerance: the smallest t at which scores of this separation can be calibrated in every group and
            have equal means among positives and among negatives, each within t; NaN without probabilities.

    Example:
        >>> from fairlayer.audit import AuditTable, audit, compatibility
        >>> scores, y, sex = [0.2, 0.6, 0.4, 0.9] * 50, [0, 1, 0, 1] * 50, ["F", "F", "M", "M"] * 50
        >>> table = AuditTable.of(scores=scores, y=y, sensitive_features={"sex": sex})
        >>> found = compatibility(table, "sex", ["demographic_parity", "equal_opportunity"])
        >>> found.best, [each.criteria for each in found.sets]
        (1.0, [('demographic_parity',), ('equal_opportunity',), ('demographic_parity', 'equal_opportunity')])
    """

    groups: tuple[BaseRate, ...]
    sets: tuple[JointCriteria, ...]
    accuracy: float
    best: float
    tolerance: float
    separation: float
    calibration_tolerance: float

    def sentences(self) -> tuple[str, ...]:
        """Return the impossibility with the numbers at hand, and one sentence per set of criteria."""
        return (self._clash(), *(self._told(found) for found in self.sets))

    def _clash(self) -> str:
        rates = ", ".join(f"{group.name} {group.base_rate:.3f}" for group in self.groups)
        implied = ", ".join(f"{group.name} {group.implied_fpr:.3f}" for group in self.groups)
        gap = max(g.implied_fpr for g in self.groups) - min(g.implied_fpr for g in self.groups)
        return (
            f"Base rates: {rates}. With the same PPV and the same TPR in every group, the false positive rates would "
            f"have to be {implied}: a gap of {gap:.3f}."
        )

    def _told(self, found: JointCriteria) -> str:
        names = " and ".join(found.criteria)
        if math.isnan(found.smallest_tolerance):
            return f"{names}: no rule on these scores has an accuracy of {self.accuracy:.3f}."
        if math.isnan(found.cost):
            cost = f"no rule keeps {'it' if len(found.criteria) == 1 else 'them'} within {self.tolerance:g}"
        elif 100 * found.cost < _NOTHING:
            cost = f"within {self.tolerance:g} no accuracy is lost"
        else:
            costs = "it costs" if len(found.criteria) == 1 else "they cost"
            cost = f"within {self.tolerance:g} {costs} {100 * found.cost:.1f} points of accuracy"
        smallest = f"from a tolerance of {found.smallest_tolerance:.3f}"
        return f"{names}: possible at an accuracy of {self.accuracy:.3f} {smallest}; {cost}."


@explained
def compatibility(
    table: AuditTable,
    by: str | Sequence[str],
    criteria: Sequence[str] = ("demographic_parity", "equalized_odds", "predictive_parity"),
    *,
    tolerance: float = 0.0,
    accuracy: float | None = None,
) -> Compatibility:
    """Return which criteria can hold together on the groups of a table.

    Args:
        table: a table with labels of 0 and 1, and scores in [0, 1] (every threshold may then be used) or decisions
            (only a lottery between them, everybody and nobody).
        by: the features whose categories make the groups; groups below `min_group_size` are left out.
        criteria: any of demographic_parity, equal_opportunity, predictive_equality, equalized_odds, predictive_parity.
        tolerance: the tolerance at which the cost is told.
        accuracy: the accuracy that must be left; by default that of the decisions at hand.

    Raises:
        ParameterError: a criterion is unknown, or a number is out of its range.
        MetricError: the table has no such labels, scores or decisions, or fewer than two groups with both labels.
        MissingExtraError: SciPy is not installed.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> sex = np.repeat(["F", "M"], 2000)
        >>> y = rng.random(4000) < np.where(sex == "F", 0.3, 0.6)
        >>> scores = np.clip(0.25 + 0.5 * y + 0.2 * rng.normal(size=4000), 0, 1)
        >>> table = AuditTable.of(scores=scores, y=y, sensitive_features={"sex": sex})
        >>> found = compatibility(table, "sex", ["demographic_parity", "equal_opportunity"])
        >>> for each in found.sets:
        ...     print(" and ".join(each.criteria), round(each.smallest_tolerance, 1))
        demographic_parity 0.2
        equal_opportunity 0.0
        demographic_parity and equal_opportunity 0.2
    """
    _check(criteria, tolerance)
    grouped, places = _compared(table, by)
    rules = [rules_of_group(table, grouped, place) for place in places]
    total = sum(rule.weight for rule in rules)
    free = best_accuracy(rules, (), 0.0)
    wanted = free if accuracy is None and "decisions" not in table.holds else accuracy
    if wanted is None:
        wanted = min(sum(rule.weight * rule.accuracy for rule in rules) / total, free)
    sets = tuple(together(rules, chosen, tolerance, wanted, free) for chosen in _subsets(criteria))
    separation, calibrated = _calibration(table, grouped, places)
    return Compatibility(_base_rates(grouped, places), sets, wanted, free, tolerance, separation, calibrated)


def _check(criteria: Sequence[str], tolerance: float) -> None:
    unknown = [name for name in criteria if name not in PAIRS]
    if unknown or not criteria:
        raise ParameterError(f"compatibility knows {', '.join(PAIRS)}, not {', '.join(unknown) or 'an empty list'}.")
    if not 0 <= tolerance <= 1:
        raise ParameterError(f"the tolerance of a rate lies in [0, 1], but is {tolerance!r}.")


def _compared(table: AuditTable, by: str | Sequence[str]) -> tuple[Grouped, list[int]]:
    if "classes" not in table.holds or not {"probabilities", "decisions"} & table.holds:
        raise MetricError(
            f"compatibility needs labels of 0 and 1, and scores in [0, 1] or decisions, which {table!r} does not hold."
        )
    grouped = table.by(*names_of(by))
    rows = np.stack([grouped.total("rows", label) for label in CLASSES])
    weight = np.stack([grouped.total("weight", label) for label in CLASSES])
    enough = (weight > 0).all(axis=0) & (rows.sum(axis=0) >= table.min_group_size)
    places = [place for place in grouped.known.tolist() if enough[place]]
    if len(places) < 2:
        raise MetricError(
            f"compatibility compares two groups with both labels and {table.min_group_size} rows or more, but there "
            f"are {len(places)} (rows: {dict(zip(grouped.names, rows.sum(axis=0).tolist(), strict=True))})."
        )
    return grouped, places


def _subsets(criteria: Sequence[str]) -> list[tuple[str, ...]]:
    sizes = sorted({1, 2, len(criteria)} & set(range(1, len(criteria) + 1)))
    return [chosen for size in sizes for chosen in itertools.combinations(criteria, size)]


def _base_rates(grouped: Grouped, places: list[int]) -> tuple[BaseRate, ...]:
    weight = np.stack([grouped.total("weight", label)[places] for label in CLASSES])
    base = weight[POSITIVE] / weight.sum(axis=0)
    selected = np.array([float(grouped.total("weight", label, SELECTED)[places].sum()) for label in CLASSES])
    tpr = selected[POSITIVE] / weight[POSITIVE].sum()
    ppv = selected[POSITIVE] / selected.sum() if selected.sum() else math.nan
    implied = base / (1 - base) * ((1 - ppv) / ppv if ppv else math.nan) * tpr
    rows = grouped.total("rows", CLASSES)[places]
    return tuple(
        BaseRate(grouped.names[place], n, p, fpr)
        for place, n, p, fpr in zip(places, rows.tolist(), base.tolist(), implied.tolist(), strict=True)
    )


def _calibration(table: AuditTable, grouped: Grouped, places: list[int]) -> tuple[float, float]:
    """Return the separation, and the smallest t with calibration and both balances.

    Unknowns are the mean scores x_g of the positives and y_g of the negatives:

        minimise t   with  |p_g x_g + (1 - p_g) y_g - p_g| <= t,  max x - min x <= t,  max y - min y <= t,
                           sum_g w_g (x_g - y_g) = separation
    """
    if "probabilities" not in table.holds:
        return math.nan, math.nan
    optimize = require("scipy.optimize", "audit")
    weight = np.stack([grouped.total("weight", label)[places] for label in CLASSES])
    score = np.stack([grouped.total("score", label)[places] for label in CLASSES]) / weight
    p, share = weight[POSITIVE] / weight.sum(axis=0), weight.sum(axis=0) / weight.sum()
    separation = float(share @ (score[POSITIVE] - score[NEGATIVE]))
    k = len(places)
    size = 2 * k + 3  # x, y, the lower ends of both, t
    below, limits = [], []
    for g in range(k):
        mean = np.zeros(size)
        mean[g], mean[k + g] = p[g], 1 - p[g]
        for sign in (1.0, -1.0):
            line = sign * mean
            line[-1] = -1.0
            below.append(line)
            limits.append(sign * p[g])
        for side in (0, 1):
            upper, lower = np.zeros(size), np.zeros(size)
            upper[side * k + g], upper[2 * k + side], upper[-1] = 1.0, -1.0, -1.0
            lower[side * k + g], lower[2 * k + side] = -1.0, 1.0
            below += [upper, lower]
            limits += [0.0, 0.0]
    apart = np.concatenate([share, -share, np.zeros(3)])[None]
    solution: Any = optimize.linprog(
        np.eye(size)[-1],
        A_ub=np.array(below),
        b_ub=np.array(limits),
        A_eq=apart,
        b_eq=[separation],
        bounds=(0.0, 1.0),
        method="highs",
    )
    return separation, float(solution.fun) if solution.status == 0 else math.nan
