"""What is measured of a route: how well it predicts, what gaps it has, how calibrated it is in each group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairlayer._typing import FloatArray, IntArray
from fairlayer.audit.bounded import interval_of
from fairlayer.constraints import Constraint, GroupCalibration
from fairlayer.constraints.measure import measure
from fairlayer.training.config import Task
from fairlayer.training.observed import Observed
from fairlayer.training.quality import quality_of

__all__ = [
    "LOWER_IS_BETTER",
    "MEASURES",
    "RouteGap",
    "RouteNumbers",
    "calibration_errors",
    "furthest",
    "numbers_of",
    "worst",
]

MEASURES = ("accuracy", "auc", "log_loss", "brier", "calibration", "utility", "r2", "mse", "mae")
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "calibration", "mse", "mae"})
BINS = 10
_END = 1e-7  # where a logarithm of 0 would be infinite
SMALLEST = 30  # rows of a group from which its calibration error counts in the worst one


@dataclass(frozen=True)
class RouteGap:
    """The number that a constraint bounds.

    Args:
        value: the number measured on these rows, None where nothing is compared.
        limit: the limit of the constraint.
        at_least: whether the limit is a lower one.
        estimate: the value without what the noise of small groups makes of it; the value where no estimate is known.
        low, high: limits of the value, where an interval is known.
        held: whether the route bounds the measured number by construction.
        excess: by how much the constraint fails on the measured numbers.
        expected: in the long run, on new people; None where that is not known, or where each batch keeps the limit.
    """

    value: float | None
    limit: float
    at_least: bool
    estimate: float | None
    low: float | None = None
    high: float | None = None
    held: bool = False
    excess: float | None = None
    expected: float | None = None

    def beyond(self, within: float | None = None) -> float:
        """Return by how much the number is beyond its limit, or beyond another; 0 where nothing is compared."""
        if self.value is None or self.excess is None:
            return 0.0
        number = self.value if self.held or self.estimate is None else self.estimate
        if within is None and number == self.value:
            return self.excess
        limit = self.limit if within is None else within
        return limit - number if self.at_least else number - limit

    @property
    def long_run(self) -> float:
        """By how much the number is beyond its limit on new people, as far as it can be told; 0 where nothing is."""
        number = self.expected if self.expected is not None else self.value if self.held else self.estimate
        if number is None:
            return 0.0
        return self.limit - number if self.at_least else number - self.limit


@dataclass(frozen=True)
class RouteNumbers:
    """A route on some rows.

    Args:
        measures: the measures by name, see `MEASURES`; "calibration" is the largest expected calibration error of a
            group of at least 30 rows.
        calibration: expected calibration error of each group.
        score_gaps: the gap of each constraint, on scores.
        decision_gaps: the gap of each constraint, on decisions; empty for regression.
        flips: for each group, the share of rows whose decision differs from that of the same scores at 0.5; and of all
            rows under "all".
        selected: the share of rows decided yes; None for regression.
        each: (rows,) whether each decision is right, under "accuracy", and what it gains, under "utility"; the losses
            of the scores, under "log_loss" and "brier", of a regression "mse" and "mae".
        models: the number of models of different kinds whose scores were averaged.

    Example:
        >>> import numpy as np
        >>> from fairlayer.routes import Candidate, compare_routes
        >>> random = np.random.default_rng(0)
        >>> sex = random.integers(0, 2, 400)
        >>> scores = np.clip(random.normal(0.4 + 0.2 * sex, 0.15), 0.01, 0.99)
        >>> rows = Observed({"sex": sex}, random.uniform(size=400) < scores)
        >>> mine, limit = [Candidate("mine", scores, scores)], "demographic_parity(sex, 0.02)"
        >>> numbers = compare_routes(mine, limit, valid=rows, test=rows).named("mine, projected").test
        >>> sorted(numbers.measures)[:3], [round(gap.value, 3) for gap in numbers.score_gaps.values()]
        (['accuracy', 'auc', 'brier'], [0.02])
    """

    measures: Mapping[str, float | None]
    calibration: Mapping[str, float]
    score_gaps: Mapping[str, RouteGap]
    decision_gaps: Mapping[str, RouteGap]
    flips: Mapping[str, float]
    selected: float | None = None
    each: Mapping[str, FloatArray] = field(default_factory=dict, repr=False, compare=False)
    models: int = 1

    @property
    def constant(self) -> bool:
        """Whether everybody is decided alike, which keeps any gap of decisions and says nothing about anybody."""
        return self.selected in (0.0, 1.0)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without those of each row."""
        found = asdict(replace(self, each={}))
        del found["each"]
        return found


def furthest(gaps: Mapping[str, RouteGap]) -> float | None:
    """Return the number of the constraint that lies furthest beyond its limit; None where nothing is compared."""
    known = [gap for gap in gaps.values() if gap.value is not None]
    return max(known, key=lambda gap: gap.excess or 0.0).value if known else None


def numbers_of(
    scores: FloatArray,
    decisions: IntArray | None,
    before: IntArray | None,
    rows: Observed,
    constraints: Sequence[Constraint],
    *,
    task: Task,
    held: str = "",
    utility: Any = None,
) -> RouteNumbers:
    """Measure a route on rows with labels.

    Args:
        scores: (n,) that it emits.
        decisions: (n,) 0 or 1; None for regression.
        before: decisions of the same model at 0.5, with which flips compare.
        rows: labels and groups.
        constraints: what is measured.
        task: classification or regression.
        held: "scores" or "decisions", where the route bounds their measured gaps by construction.
        utility: 2 x 2 table, `utility[label][decision]`, for the measure "utility".
    """
    assert rows.labels is not None
    labels = np.asarray(rows.labels, dtype=np.float64)
    groups = group_rows(rows, constraints)
    calibration = calibration_errors(labels, scores, groups) if task == "classification" else {}
    measures = quality_of(labels, scores, decisions, task, utility)
    measures["calibration"] = worst(calibration, groups)
    score_gaps = {c.name: gap_of(c, rows, scores, held=held == "scores") for c in constraints}
    decision_gaps = {} if decisions is None else {
        c.name: gap_of(c, rows, decisions.astype(np.float64), held=held == "decisions")
        for c in constraints
        if not isinstance(c, GroupCalibration)  # bins are those of scores
    }  # fmt: skip
    share = None if decisions is None else float(decisions.mean())
    flips, each = _flips(decisions, before, groups), _each(labels, scores, decisions, utility)
    return RouteNumbers(measures, calibration, score_gaps, decision_gaps, flips, share, each)


def _each(labels: FloatArray, scores: FloatArray, decisions: IntArray | None, utility: Any) -> dict[str, FloatArray]:
    error = np.asarray(scores, dtype=np.float64) - labels
    if decisions is None:
        return {"mse": error**2, "mae": np.abs(error)}
    likely = np.clip(1 - np.abs(error), _END, 1 - _END)  # the probability that the scores give to the label
    found = {
        "accuracy": (decisions == labels).astype(np.float64),
        "log_loss": np.asarray(-np.log(likely)),
        "brier": error**2,
    }
    if utility is not None:
        found["utility"] = np.asarray(utility, dtype=np.float64)[labels.astype(np.int64), decisions]
    return found


def gap_of(constraint: Constraint, rows: Observed, values: FloatArray, *, held: bool = False) -> RouteGap:
    """Return the number that a constraint bounds, with an estimate and limits where it is one range of group means."""
    found = measure(constraint, rows.batch, np.asarray(values, dtype=np.float64))
    interval = None if constraint.needs_labels and rows.labels is None else interval_of(constraint, rows.batch, values)
    if interval is None or found.value is None:
        return RouteGap(found.value, found.limit, found.at_least, found.value, held=held, excess=found.excess)
    return RouteGap(
        found.value, found.limit, found.at_least, interval.estimate, interval.low, interval.high, held, found.excess
    )


def group_rows(rows: Observed, constraints: Sequence[Constraint]) -> dict[str, NDArray[np.bool_]]:
    """Return which rows belong to each group that a constraint compares."""
    found: dict[str, NDArray[np.bool_]] = {}
    for on in dict.fromkeys(c.on for c in constraints if c.on):
        if any(rows.sensitive[name].dtype.kind == "f" for name in on):
            continue
        means = rows.batch.means(on)
        if means.codes is not None:
            found |= {means.groups[k]: means.codes == k for k in np.flatnonzero(means.counts)}
    return found


def calibration_errors(
    labels: FloatArray, scores: FloatArray, groups: Mapping[str, NDArray[np.bool_]]
) -> dict[str, float]:
    """Return the expected calibration error of each group.

        ECE = sum_b w_b |mean label - mean score|        ten bins of equal width, w_b the share of the rows

    It is biased upwards, the more the fewer the rows: a perfectly calibrated group of 200 rows has about 0.07.

    Example:
        >>> calibration_errors(np.array([1.0, 0.0]), np.array([0.75, 0.75]), {"sex=F": np.array([True, True])})
        {'sex=F': 0.25}
    """
    bins = np.clip((scores * BINS).astype(np.int64), 0, BINS - 1)
    found = {}
    for name, inside in groups.items():
        here = bins[inside]
        miss = np.bincount(here, weights=(labels - scores)[inside], minlength=BINS)
        found[name] = float(np.abs(miss).sum() / max(1, inside.sum()))
    return found


def worst(calibration: Mapping[str, float], groups: Mapping[str, NDArray[np.bool_]]) -> float | None:
    """Return the largest error of a group with enough rows."""
    return max((error for name, error in calibration.items() if groups[name].sum() >= SMALLEST), default=None)


def _flips(
    decisions: IntArray | None, before: IntArray | None, groups: Mapping[str, NDArray[np.bool_]]
) -> dict[str, float]:
    if decisions is None or before is None:
        return {}
    changed = decisions != before
    return {"all": float(changed.mean()), **{name: float(changed[inside].mean()) for name, inside in groups.items()}}
