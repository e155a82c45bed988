"""Limits on what a correction changed: how much a gap shrank, and what it cost, with intervals.

A drop of accuracy is a mean over people of (right before) - (right now), so it has Student's limits, and each person is
compared with themselves. A rise of the log loss, or of the Brier score, is a mean of such differences too.

How much a gap shrank is a difference of two gaps of the same people. Its limits are made from the two intervals, each
at the level (1 + level) / 2, so that both hold together at the level wanted; they are wide, and never too narrow:

    [low before - high now, high before - low now]
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.audit.criteria import CRITERIA
from fairlayer.audit.disparities import disparity
from fairlayer.audit.errors import MetricError
from fairlayer.audit.intervals import Interval, group_limits
from fairlayer.audit.means import Means
from fairlayer.audit.outcome import Outcome
from fairlayer.audit.plainly import between
from fairlayer.audit.statement import Statement
from fairlayer.audit.table import AuditTable
from fairlayer.errors import ParameterError

__all__ = ["ChangeLimit", "People", "judge_change", "read_change"]

_COSTS = {"accuracy_drop": "accuracy", "log_loss_rise": "log loss", "brier_score_rise": "Brier score"}
_TEXT = re.compile(r"\s*(?P<name>\w+?)\s*(?P<sign>[<>]=?)\s*(?P<bound>[\d.eE+-]+)\s*")
_TINY = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class ChangeLimit:
    """A limit on a change.

    Args:
        name: "accuracy_drop", "log_loss_rise", "brier_score_rise", or a criterion whose gap should shrink.
        bound: the largest cost, or the smallest improvement, that is allowed.
    """

    name: str
    bound: float

    @property
    def improvement(self) -> bool:
        """Whether it is a gap that should shrink."""
        return self.name not in _COSTS

    def __str__(self) -> str:
        return f"{self.name} improvement >= {self.bound:g}" if self.improvement else f"{self.name} <= {self.bound:g}"


@dataclass(frozen=True)
class People:
    """The same people before and now, as arrays of one length; None for what was not given.

    Args:
        y: (n,) labels, NaN where not known.
        before: (n,) scores before.
        now: (n,) scores now.
        decided_before: (n,) decisions before.
        decided_now: (n,) decisions now.
        weights: (n,) how many people each row stands for.
    """

    y: FloatArray | None
    before: FloatArray | None
    now: FloatArray | None
    decided_before: FloatArray | None
    decided_now: FloatArray | None
    weights: FloatArray | None


def read_change(text: str) -> ChangeLimit | None:
    """Read a condition of failure on a change; None where the text is none of that kind.

    Raises:
        ParameterError: it is of that kind, and its sign or its bound cannot be read.

    Example:
        >>> print(read_change("accuracy_drop > 0.01"), read_change("demographic_parity_improvement < 0.05"), sep="; ")
        accuracy_drop <= 0.01; demographic_parity improvement >= 0.05
        >>> read_change("selection_rate_ratio < 0.8") is None
        True
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        return None
    name = found["name"].removesuffix("_improvement")
    improves = name != found["name"]
    if name not in _COSTS and not (improves and name in CRITERIA):
        return None
    if (found["sign"][0] == "<") != improves:
        raise ParameterError(
            f"cannot read the condition {text!r}. A cost fails above its limit (accuracy_drop > 0.01), an improvement "
            "below it (demographic_parity_improvement < 0.05)."
        )
    try:
        return ChangeLimit(name, float(found["bound"]))
    except ValueError as error:
        raise ParameterError(f"cannot read the bound {found['bound']!r} in {text!r} as a number.") from error


def judge_change(
    limit: ChangeLimit,
    people: People,
    *,
    by: tuple[str, ...],
    before: AuditTable | None,
    now: AuditTable,
    level: float = 0.95,
) -> Statement:
    """Judge a limit on a change by its interval."""
    asked = _question(limit, by)
    if before is None:
        reason = "No predictions from before were given, so that no change can be measured."
        return Statement(
            str(limit), Outcome.NOT_EVALUATED, asked, f"Not evaluated. {reason}", reason, _named(limit, by)
        )
    try:
        interval = _improvement(limit, by, before, now, level) if limit.improvement else _cost(limit, people, level)
    except MetricError as error:
        return Statement(
            str(limit), Outcome.NOT_EVALUATED, asked, f"Not evaluated. {error}", str(error), _named(limit, by)
        )
    if not interval.known:
        reason = "Fewer than two groups have enough people to be compared."
        return Statement(
            str(limit), Outcome.NOT_EVALUATED, asked, f"Not evaluated. {reason}", reason, _named(limit, by)
        )
    outcome = _outcome(limit, interval)
    said = {Outcome.PASS: "Yes.", Outcome.FAIL: "No.", Outcome.INCONCLUSIVE: "It cannot be told."}[outcome]
    answer = f"{said} {_change(limit, interval.measured)}; {_range(limit, interval.low, interval.high)}."
    reason = {
        Outcome.PASS: "The whole interval keeps the limit.",
        Outcome.FAIL: "The whole interval breaks the limit.",
        Outcome.INCONCLUSIVE: "The limit lies inside the interval, so that these people cannot tell.",
    }[outcome]
    return Statement(str(limit), outcome, asked, answer, reason, _named(limit, by), interval)


def _change(limit: ChangeLimit, by: float) -> str:
    """Say by how much something changed, and into which direction, without a sign."""
    subject, more, less = _directions(limit)
    return f"{subject} has {more if by >= 0 else less} by {abs(by):.4f}"


def _range(limit: ChangeLimit, low: float, high: float) -> str:
    """Say the interval of a change; where it holds both directions, name both."""
    if low < 0 <= high:
        _, more, less = _directions(limit)
        return f"allowing for chance, it may have {less} by up to {-low:.4f} or {more} by up to {high:.4f}"
    near, far = sorted((abs(low), abs(high)))
    return f"allowing for chance, by between {near:.4f} and {far:.4f}"


def _directions(limit: ChangeLimit) -> tuple[str, str, str]:
    """Return the subject of a change, and the participles that say more and less of it."""
    if limit.improvement:
        return "The gap", "shrunk", "grown"
    return f"The {_COSTS[limit.name]}", "become worse", "become better"


def _named(limit: ChangeLimit, by: tuple[str, ...]) -> tuple[str, ...]:
    return by if limit.improvement else ()


def _question(limit: ChangeLimit, by: tuple[str, ...]) -> str:
    if limit.improvement:
        name = limit.name.replace("_", " ")
        return f"Between {between(by)}, did the gap of {name} shrink by at least {limit.bound:g}?"
    return f"Did the {_COSTS[limit.name]} become worse by at most {limit.bound:g}?"


def _outcome(limit: ChangeLimit, interval: Interval) -> Outcome:
    low, high, bound = interval.low, interval.high, limit.bound
    if limit.improvement:
        low, high, bound = -high, -low, -bound
    if high <= bound:
        return Outcome.PASS
    return Outcome.FAIL if low > bound else Outcome.INCONCLUSIVE


def _improvement(
    limit: ChangeLimit, by: tuple[str, ...], before: AuditTable, now: AuditTable, level: float
) -> Interval:
    wide = (1 + level) / 2
    old, new = (disparity(table, limit.name, by, level=wide).difference for table in (before, now))
    return Interval(
        old.measured - new.measured, old.estimate - new.estimate, old.low - new.high, old.high - new.low, level
    )


def _cost(limit: ChangeLimit, people: People, level: float) -> Interval:
    each, known = _differences(limit.name, people)
    each = each[known]
    w = np.ones(len(each)) if people.weights is None else people.weights[known]
    if len(each) < 2 or w.sum() <= 0:
        raise MetricError("the cost is a mean over people with a known outcome, of whom there are fewer than two.")
    count = w.sum() ** 2 / (w**2).sum()
    mean = float((w * each).sum() / w.sum())
    spread = count * float((w * (each - mean) ** 2).sum() / w.sum())
    means = Means("mean", np.array([mean]), np.array([count]), np.array([count]), np.array([spread]))
    (low,), (high,) = group_limits(means, level)
    return Interval(mean, mean, float(low), float(high), level)


def _differences(name: str, people: People) -> tuple[FloatArray, Any]:
    """Return by how much each person's prediction became worse, and whose outcome is known."""
    if people.y is None:
        raise MetricError("the cost needs outcomes, and none were given.")
    known = ~np.isnan(people.y)
    y = np.where(known, people.y, 0.0)
    if name == "accuracy_drop":
        if people.decided_before is None or people.decided_now is None:
            raise MetricError("a drop of accuracy needs decisions before and now.")
        drop: FloatArray = (people.decided_before == y).astype(np.float64) - (people.decided_now == y)
        return drop, known
    if people.before is None or people.now is None:
        raise MetricError(f"{name} needs scores before and now.")
    old, new = (_loss(name, scores, y) for scores in (people.before, people.now))
    return new - old, known


def _loss(name: str, scores: FloatArray, y: FloatArray) -> FloatArray:
    if name == "brier_score_rise":
        return (scores - y) ** 2
    p = np.clip(np.where(y == 1, scores, 1 - scores), _TINY, 1 - _TINY)
    loss: FloatArray = -np.log(p)
    return loss
