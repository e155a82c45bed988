"""Which criteria can hold together on these base rates, within what, and at what cost.

A decision rule on the scores at hand, with a threshold per group and a lottery at it, has in group g a pair
(FPR_g, TPR_g) in the hull of the group's ROC curve. With the base rate p_g, the criteria speak of

    selection   s_g = p_g TPR_g + (1 - p_g) FPR_g          demographic parity: s_g equal
    TPR_g, FPR_g                                            equalized odds: both equal; equal opportunity: the first
    PPV_g = p_g TPR_g / s_g                                 predictive parity: PPV_g equal

The best accuracy under criteria within a tolerance t is a linear program in the weights on the curve's corners; with
predictive parity it is one for each lower end c of the PPVs (p_g TPR_g between c s_g and (c + t) s_g), and c is tried
on a grid that is refined once; since no group's PPV is below its base rate, c is at least max p_g - t. The accuracy
grows with t, so the smallest tolerance at which a wanted accuracy is left is found by bisection. Each group has to
select at least one person, since predictive parity says nothing about a group that is never selected.

Why they clash: PPV_g, TPR_g and FPR_g are tied by (Chouldechova 2017, equation 2.6)

    FPR_g = p_g / (1 - p_g)  (1 - PPV_g) / PPV_g  TPR_g

so with equal PPV and equal TPR, groups of different base rates have different FPR. For scores, calibration in every
group and equal mean scores among the positives (x) and among the negatives (y) leave only x - y = 1, a perfect
prediction, or equal base rates (Kleinberg, Mullainathan and Raghavan 2016).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.audit.errors import MetricError
from fairlayer.audit.grouped import Grouped
from fairlayer.audit.slots import CLASSES, DECIDED, NEGATIVE, POSITIVE, SELECTED
from fairlayer.audit.table import AuditTable, names_of
from fairlayer.errors import ParameterError, require

__all__ = ["BaseRate", "Compatibility", "Together", "compatibility"]

_NOTHING = 0.05  # points of accuracy below which a cost is shown as none

_PAIRS = {
    "demographic_parity": ("selection",),
    "equal_opportunity": ("tpr",),
    "predictive_equality": ("fpr",),
    "equalized_odds": ("tpr", "fpr"),
    "predictive_parity": (),
}
_STEPS = 10  # halvings of the tolerance: to 1 / 1024
_ENDS = 9  # lower ends of the PPVs that are tried, and tried again around the best


@dataclass(frozen=True)
class BaseRate:
    """A group with what ties its rates.

    Args:
        name: the group.
        rows: its rows with a label.
        base_rate: the share of label 1.
        implied_fpr: the false positive rate that it must have where PPV and TPR are those of all groups together.

    Example:
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
class Together:
    """Criteria demanded together.

    Args:
        criteria: their names.
        smallest_tolerance: the smallest common tolerance at which a rule has the accuracy wanted; NaN where none has.
        best_accuracy: the best accuracy of a rule that keeps them within the tolerance asked; NaN where no rule does.
        cost: the accuracy of the best rule without any criterion, minus that.

    Example:
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
        >>> scores, y, sex = [0.2, 0.6, 0.4, 0.9] * 50, [0, 1, 0, 1] * 50, ["F", "F", "M", "M"] * 50
        >>> table = AuditTable.of(scores=scores, y=y, sensitive_features={"sex": sex})
        >>> found = compatibility(table, "sex", ["demographic_parity", "equal_opportunity"])
        >>> found.best, [each.criteria for each in found.sets]
        (1.0, [('demographic_parity',), ('equal_opportunity',), ('demographic_parity', 'equal_opportunity')])
    """

    groups: tuple[BaseRate, ...]
    sets: tuple[Together, ...]
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

    def _told(self, found: Together) -> str:
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
        table: with labels of 0 and 1, and scores in [0, 1] (every threshold may then be used) or decisions (only a
            lottery between them, everybody and nobody).
        by: the features whose categories make the groups; groups below `min_group_size` are left out.
        criteria: of demographic_parity, equal_opportunity, predictive_equality, equalized_odds, predictive_parity.
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
    rules = [_rules(table, grouped, place) for place in places]
    total = sum(rule.weight for rule in rules)
    free = _best(rules, (), 0.0)
    wanted = free if accuracy is None and "decisions" not in table.holds else accuracy
    if wanted is None:
        wanted = min(sum(rule.weight * rule.accuracy for rule in rules) / total, free)
    sets = tuple(_together(rules, chosen, tolerance, wanted, free) for chosen in _subsets(criteria))
    separation, calibrated = _calibration(table, grouped, places)
    return Compatibility(_base_rates(grouped, places), sets, wanted, free, tolerance, separation, calibrated)


@dataclass(frozen=True)
class _Rules:
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


def _check(criteria: Sequence[str], tolerance: float) -> None:
    unknown = [name for name in criteria if name not in _PAIRS]
    if unknown or not criteria:
        raise ParameterError(f"compatibility knows {', '.join(_PAIRS)}, not {', '.join(unknown) or 'an empty list'}.")
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


def _rules(table: AuditTable, grouped: Grouped, place: int) -> _Rules:
    weight = [float(grouped.total("weight", label)[place]) for label in CLASSES]
    decided = [float(grouped.total("weight", label, DECIDED)[place]) for label in CLASSES]
    selected = [float(grouped.total("weight", label, SELECTED)[place]) for label in CLASSES]
    right = selected[POSITIVE] + decided[NEGATIVE] - selected[NEGATIVE]
    if "probabilities" in table.holds:
        bins = grouped.bins()[place, :, ::-1, 0]  # from the highest scores down
        points = np.cumsum(bins, axis=1) / bins.sum(axis=1, keepdims=True)
    else:
        points = np.array([[s / d if d else 0.0] for s, d in zip(selected, decided, strict=True)])
    return _Rules(
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


def _subsets(criteria: Sequence[str]) -> list[tuple[str, ...]]:
    sizes = sorted({1, 2, len(criteria)} & set(range(1, len(criteria) + 1)))
    return [chosen for size in sizes for chosen in itertools.combinations(criteria, size)]


def _together(rules: list[_Rules], criteria: tuple[str, ...], tolerance: float, wanted: float, free: float) -> Together:
    best = _best(rules, criteria, tolerance)
    return Together(criteria, _smallest(rules, criteria, wanted), best, free - best)


def _smallest(rules: list[_Rules], criteria: tuple[str, ...], wanted: float) -> float:
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


def _best(rules: list[_Rules], criteria: tuple[str, ...], tolerance: float) -> float:
    """Return the best accuracy under criteria within a tolerance, NaN where no rule keeps them."""
    found = [accuracy for accuracy in _accuracies(rules, criteria, tolerance) if not math.isnan(accuracy)]
    return max(found, default=math.nan)


def _accuracies(rules: list[_Rules], criteria: tuple[str, ...], tolerance: float) -> Iterator[float]:
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


def _solve(rules: list[_Rules], criteria: tuple[str, ...], tolerance: float, end: float | None) -> float:
    """Maximise the accuracy over the weights on the corners, and one lower end per rate that is compared."""
    optimize = require("scipy.optimize", "audit")
    rates = sorted({rate for name in criteria for rate in _PAIRS[name]})
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
