"""The criterion by which a route is chosen: a measure to be best in, among those that keep a gap."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fairlayer.routes.errors import CriterionError
from fairlayer.routes.numbers import LOWER_IS_BETTER, MEASURES, RouteNumbers
from fairlayer.training.config import Task

__all__ = ["Criterion", "default_criterion", "parse_criterion"]

Gaps: TypeAlias = Literal["score gap", "decision gap", "no gap"]
_GAPS: tuple[Gaps, ...] = ("score gap", "decision gap", "no gap")
_TEXT = re.compile(r"^\s*(?P<measure>\w+)\s+at\s+(?P<gap>[a-z_ ]+?)\s*(?:<=\s*(?P<within>[0-9.eE+-]+)\s*)?$")
_ROUNDING = 1e-6
_LEVEL = 1.0  # standard errors, see docs/decisions/0035 and 0037


@dataclass(frozen=True)
class Criterion:
    """Best in a measure, among the routes that keep a gap on the validation rows.

    A route keeps the gap where each constraint's estimated gap is within its limit (or within `within`): the number
    measured where the route bounds it by construction, else the empirical-Bayes estimate of `fairlayer.audit`, which
    the noise of small cells does not carry. Where no route keeps it, the route nearest to it is taken.

    Several routes are often equally good. Those whose measure is within a standard error of the best's, paired over the
    rows, count as level; measures that are no mean over rows ("auc", "calibration", "r2") know no error here, and the
    best is taken. Of level routes, these come first:

    1. At the decision gap, the one whose gap is expected to be the least above its limit on new people; all that are
       expected to keep it are equal. Decisions on a batch keep their limit. Thresholds that were fitted to
       few rows meet it on these rows, and not later, and so it is with what had a small gap by chance.
    2. A mean of two models: what a few hundred rows tell against it is mostly chance.
    3. The best in the measure.

    Args:
        measure: "log_loss", "brier", "calibration", "mse", "mae" (lower is better), "accuracy", "auc", "utility", "r2".
        at: "score gap", "decision gap", or "no gap" for the measure alone.
        within: limit of every gap; None for the limits of the constraints.

    Raises:
        CriterionError: there is no such measure or gap.

    Example:
        >>> str(Criterion("log_loss", "score gap"))
        'log_loss at score gap'
    """

    measure: str
    at: Gaps
    within: float | None = None

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise CriterionError(f"no measure is called '{self.measure}', only {', '.join(MEASURES)}.")
        if self.at not in _GAPS:
            raise CriterionError(f"a route is chosen at one of {', '.join(_GAPS)}, but '{self.at}' was asked for.")

    def __str__(self) -> str:
        return f"{self.measure} at {self.at}" + ("" if self.within is None else f" <= {self.within:g}")

    def excess(self, numbers: RouteNumbers) -> float:
        """Return by how much the worst gap is beyond its limit; 0 or less where all are kept."""
        gaps = {"score gap": numbers.score_gaps, "decision gap": numbers.decision_gaps, "no gap": {}}[self.at]
        return max((gap.beyond(self.within) for gap in gaps.values()), default=0.0)

    def keeps(self, numbers: RouteNumbers) -> bool:
        """Return whether a route keeps the gap."""
        return self.excess(numbers) <= _ROUNDING

    def worth(self, numbers: RouteNumbers) -> float:
        """Return the measure, turned so that more is better; minus infinity where the route has none."""
        value = numbers.measures.get(self.measure)
        if value is None:
            return -float("inf")
        return -value if self.measure in LOWER_IS_BETTER else value

    def best(self, numbers: Sequence[RouteNumbers]) -> int:
        """Return the position of the best of several routes; of equal ones the first.

        Raises:
            CriterionError: no route has the measure, or the gap.
        """
        if self.at == "decision gap" and not any(each.decision_gaps for each in numbers):
            raise CriterionError(f"'{self}' needs decisions, which a regression does not have. Choose at score_gap.")
        kept = [i for i, each in enumerate(numbers) if self.keeps(each)]
        nearest = [min(range(len(numbers)), key=lambda i: self.excess(numbers[i]))]
        found = max(kept or nearest, key=lambda i: self.worth(numbers[i]))
        level = [i for i in kept if self._level(numbers[i], numbers[found])]
        found = min(level, key=lambda i: self._rank(numbers[i]), default=found)
        if self.worth(numbers[found]) == -float("inf"):
            known = ", ".join(name for name, value in numbers[found].measures.items() if value is not None)
            raise CriterionError(f"no route has the measure '{self.measure}'; there are {known}.")
        return found

    def _level(self, one: RouteNumbers, best: RouteNumbers) -> bool:
        """Return whether rows cannot tell a route from the best one: mean(d) <= std(d) / sqrt(n), d per row."""
        if self.measure not in one.each or self.measure not in best.each:
            return False
        less = best.each[self.measure] - one.each[self.measure]
        less = -less if self.measure in LOWER_IS_BETTER else less
        return bool(less.mean() <= _LEVEL * less.std() / len(less) ** 0.5 + 1e-12)

    def _rank(self, numbers: RouteNumbers) -> tuple[float, int, float]:
        """Return what level routes are ordered by; the smallest comes first."""
        gaps = numbers.decision_gaps.values() if self.at == "decision gap" else ()
        beyond = max((gap.long_run for gap in gaps), default=0.0)
        return max(beyond, 0.0), -numbers.models, -self.worth(numbers)


def parse_criterion(text: str) -> Criterion:
    """Read a criterion as callers write it.

    Args:
        text: such as "brier at score_gap".

    Raises:
        CriterionError: it cannot be read.

    Example:
        >>> parse_criterion("accuracy at decision_gap <= 0.05")
        Criterion(measure='accuracy', at='decision gap', within=0.05)
    """
    found = _TEXT.match(text)
    try:
        if found is None:
            raise ValueError
        within = None if found["within"] is None else float(found["within"])
    except ValueError:
        raise CriterionError(
            f"a criterion is written 'MEASURE at score_gap', 'MEASURE at decision_gap <= 0.02' or 'MEASURE at no_gap', "
            f"with a measure of {', '.join(MEASURES)}; got '{text}'."
        ) from None
    return Criterion(found["measure"], found["gap"].replace("_", " "), within)  # type: ignore[arg-type]


def default_criterion(task: Task, *, decisions: bool = False) -> Criterion:
    """Return the criterion where nobody states one.

    Score routes compete on the log loss (the squared error) at the score gap, decision routes on the accuracy at the
    decision gap.
    """
    if task == "regression":
        return Criterion("mse", "score gap")
    return Criterion("accuracy", "decision gap") if decisions else Criterion("log_loss", "score gap")
