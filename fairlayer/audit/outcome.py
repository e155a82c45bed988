"""Four outcomes of a limit, judged on the interval and never on what small groups happen to show.

| outcome | when | exit code |
|---|---|---|
| PASS | the whole interval keeps the limit | 0 |
| FAIL | the whole interval breaks it, or a group too small for the headline certainly does | 1 |
| INCONCLUSIVE | the interval holds the limit: there are too few rows to tell | 3 |
| NOT EVALUATED | there is no interval: nothing was compared, or the number has none | 4 |

The exit code 2 is a named error of the command line. Of several outcomes the gravest counts: one that fails, then one
that was not evaluated, then one that cannot be told. Nothing that was asked for is left out of the count.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypeAlias

from fairlayer.audit.criteria import CRITERIA, title_of
from fairlayer.audit.disparities import Disparity, disparity
from fairlayer.audit.errors import MetricError
from fairlayer.audit.intervals import Interval, rows_needed
from fairlayer.audit.metrics import metric, metric_names
from fairlayer.audit.table import AuditTable, names_of
from fairlayer.errors import ParameterError

__all__ = ["EXIT_CODES", "Kind", "Limit", "Outcome", "Verdict", "gravest", "judge", "verdict"]

_MOST_NAMED = 4  # groups whose rows are all told in a reason

Kind: TypeAlias = Literal["difference", "ratio"]


class Outcome(Enum):
    """What is said about a limit.

    Example:
        >>> [str(outcome) for outcome in Outcome]
        ['PASS', 'FAIL', 'INCONCLUSIVE', 'NOT EVALUATED']
    """

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_EVALUATED = "NOT EVALUATED"

    def __str__(self) -> str:
        return self.value


EXIT_CODES = {Outcome.PASS: 0, Outcome.FAIL: 1, Outcome.INCONCLUSIVE: 3, Outcome.NOT_EVALUATED: 4}

_GRAVEST_FIRST = (Outcome.FAIL, Outcome.NOT_EVALUATED, Outcome.INCONCLUSIVE, Outcome.PASS)
_FAILURE = re.compile(r"\s*(?P<name>\w+?)_(?P<kind>difference|ratio)\s*(?P<sign>[<>]=?)\s*(?P<bound>[\d.eE+-]+)\s*")


@dataclass(frozen=True)
class Limit:
    """What was asked: a difference of at most, or a ratio of at least, a bound.

    Args:
        name: a criterion, such as "demographic_parity" or "equalized_odds", or a metric, such as "auc".
        bound: the bound, in units of the metric; a ratio has none.
        kind: "difference" (at most) or "ratio" (at least).

    Raises:
        ParameterError: the bound is negative, not finite, or a ratio above 1.
        MetricError: there is no such criterion or metric.

    Example:
        >>> Limit.fails_on("demographic_parity_difference > 0.1")
        Limit(name='demographic_parity', bound=0.1, kind='difference')
        >>> print(Limit("selection_rate", 0.8, "ratio"))
        selection_rate ratio >= 0.8
    """

    name: str | tuple[str, ...]
    bound: float
    kind: Kind = "difference"

    def __post_init__(self) -> None:
        for name in names_of(self.name):
            if name not in CRITERIA:
                metric(name)
        if self.kind not in ("difference", "ratio"):
            raise ParameterError(f"a limit is put on a 'difference' or on a 'ratio', not on {self.kind!r}.")
        if not math.isfinite(self.bound) or self.bound < 0 or (self.kind == "ratio" and self.bound > 1):
            raise ParameterError(
                f"the bound of a difference is 0 or more, and that of a ratio lies in [0, 1], not {self.bound!r}."
            )

    @staticmethod
    def fails_on(text: str) -> Limit:
        """Read a condition of failure: NAME_difference > bound, or NAME_ratio < bound.

        Raises:
            ParameterError: the text is no such condition.
            MetricError: there is no such criterion or metric.
        """
        found = _FAILURE.fullmatch(text)
        if found is None or (found["sign"][0] == ">") != (found["kind"] == "difference"):
            raise ParameterError(
                f"cannot read the condition {text!r}. Write when it fails: NAME_difference > 0.1, or NAME_ratio < 0.8; "
                "of a correction also accuracy_drop > 0.01, log_loss_rise > 0.01, brier_score_rise > 0.01, or "
                f"NAME_improvement < 0.05; where NAME is one of {', '.join((*CRITERIA, *metric_names()))}."
            )
        try:
            bound = float(found["bound"])
        except ValueError as error:
            raise ParameterError(f"cannot read the bound {found['bound']!r} in {text!r} as a number.") from error
        return Limit(found["name"], bound, "difference" if found["kind"] == "difference" else "ratio")

    def __str__(self) -> str:
        return f"{title_of(self.name)} {self.kind} {'<=' if self.kind == 'difference' else '>='} {self.bound:g}"


@dataclass(frozen=True)
class Verdict:
    """An outcome with its reason.

    Args:
        limit: what was asked.
        by: the features whose categories make the groups; () where an interval was judged alone.
        outcome: PASS, FAIL, INCONCLUSIVE or NOT EVALUATED.
        interval: what it was judged on.
        reason: a sentence.
        rows_needed: about how many rows per group could tell if nothing set the groups apart; None where every group
            has as many already, and where it is not known.
        beyond: groups too small for the headline that are certainly beyond the limit.

    Example:
        >>> decided, sex = [1] * 60 + [0] * 140 + [1] * 76 + [0] * 124, ["F"] * 200 + ["M"] * 200
        >>> table = AuditTable.of(decisions=decided, sensitive_features={"sex": sex})
        >>> found = judge(table, Limit("demographic_parity", 0.1), by="sex")
        >>> found.outcome.value, str(found.limit), found.by, found.rows_needed
        ('INCONCLUSIVE', 'demographic_parity difference <= 0.1', ('sex',), 472)
    """

    limit: Limit
    by: tuple[str, ...]
    outcome: Outcome
    interval: Interval
    reason: str
    rows_needed: int | None = None
    beyond: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 PASS, 1 FAIL, 3 INCONCLUSIVE, 4 NOT EVALUATED."""
        return EXIT_CODES[self.outcome]

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        return {
            "limit": str(self.limit),
            "by": list(self.by),
            "outcome": str(self.outcome),
            "exit_code": self.exit_code,
            "low": _plain(self.interval.low),
            "estimate": _plain(self.interval.estimate),
            "measured": _plain(self.interval.measured),
            "high": _plain(self.interval.high),
            "reason": self.reason,
            "rows_needed": self.rows_needed,
            "beyond": list(self.beyond),
        }

    def __str__(self) -> str:
        by = f" by {' x '.join(self.by)}" if self.by else ""
        return f"{self.outcome}: {self.limit}{by}: {self.interval}. {self.reason}"


def verdict(interval: Interval, limit: Limit) -> Outcome:
    """Return the outcome of one interval, and of nothing else.

    Args:
        limit: a condition of failure.

    Example:
        >>> print(verdict(Interval(0.056, 0.031, 0.0, 0.082), Limit("demographic_parity", 0.05)))
        INCONCLUSIVE
    """
    if not interval.known:
        return Outcome.NOT_EVALUATED
    low, high = interval.low, interval.high
    if limit.kind == "ratio":
        low, high = -high, -low
    bound = limit.bound if limit.kind == "difference" else -limit.bound
    if high <= bound:
        return Outcome.PASS
    return Outcome.FAIL if low > bound else Outcome.INCONCLUSIVE


def judge(table: AuditTable, limit: Limit, by: str | Sequence[str], *, level: float = 0.95) -> Verdict:
    """Judge a limit on the groups of a table.

    A metric that the table cannot answer is NOT EVALUATED, with the reason; it is never passed over.

    Args:
        level: the level of the interval.

    Raises:
        ParameterError, MissingSensitiveFeatureError: the features cannot be read.

    Example:
        >>> table = AuditTable.of(
        ...     decisions=[1] * 60 + [0] * 140 + [1] * 76 + [0] * 124,
        ...     sensitive_features={"sex": ["F"] * 200 + ["M"] * 200},
        ... )
        >>> found = judge(table, Limit("demographic_parity", 0.1), by="sex")
        >>> found.outcome.value, found.exit_code, found.rows_needed
        ('INCONCLUSIVE', 3, 472)
    """
    by = names_of(by)
    try:
        found = disparity(table, limit.name, by, level=level)
    except MetricError as error:
        nothing = Interval(math.nan, math.nan, math.nan, math.nan, level)
        return Verdict(limit, by, Outcome.NOT_EVALUATED, nothing, str(error))
    interval = found.difference if limit.kind == "difference" else found.ratio
    outcome = verdict(interval, limit)
    beyond = found.beyond(limit.bound) if limit.kind == "difference" and outcome is not Outcome.FAIL else ()
    if beyond:
        outcome = Outcome.FAIL
    needed = _rows_needed(found, limit) if outcome is Outcome.INCONCLUSIVE else None
    return Verdict(limit, by, outcome, interval, _reason(found, limit, outcome, beyond, needed), needed, beyond)


def gravest(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the outcome of several: the gravest of them, and NOT EVALUATED where there is none.

    Args:
        outcomes: the outcomes of single limits.

    Example:
        >>> print(gravest([Outcome.PASS, Outcome.NOT_EVALUATED, Outcome.INCONCLUSIVE]))
        NOT EVALUATED
    """
    found = set(outcomes) or {Outcome.NOT_EVALUATED}
    return next(outcome for outcome in _GRAVEST_FIRST if outcome in found)


def _rows_needed(found: Disparity, limit: Limit) -> int | None:
    part = found.worst
    rate = part.means.kind == "rate" and limit.kind == "difference" and 0 < limit.bound < 1
    if not rate or not 0 < part.overall < 1:
        return None
    counted = [group.rows for group in part.groups if group.standing == "counted"]
    needed = rows_needed(limit.bound, part.overall, len(counted))
    return needed if min(counted) < needed else None


def _reason(found: Disparity, limit: Limit, outcome: Outcome, beyond: tuple[str, ...], needed: int | None) -> str:
    rows = _rows_of(found)
    if beyond:
        return f"{' and '.join(beyond)} has too few rows for the headline, and is certainly beyond the limit."
    if outcome is Outcome.NOT_EVALUATED:
        if not math.isnan(found.difference.measured):
            return "No interval that covers is known for this number, so that it cannot be held against a limit."
        return f"Fewer than two groups have enough rows to be compared (rows: {rows}), or the number is not defined."
    if outcome is Outcome.INCONCLUSIVE:
        more = f" If nothing set the groups apart, about {needed:,} rows in each would be enough." if needed else ""
        return f"The limit lies inside the interval, so that these rows cannot tell (rows: {rows}).{more}"
    worse = f" Worse off: {found.worst.worse_off}." if found.worst.worse_off else ""
    kept = "keeps" if outcome is Outcome.PASS else "breaks"
    return f"The whole interval {kept} the limit (rows: {rows}).{worse}"


def _rows_of(found: Disparity) -> str:
    """Return the rows of the groups that were compared; of many groups, those of the smallest and the largest."""
    counted = sorted((g for g in found.groups if g.standing == "counted"), key=lambda g: g.rows)
    if len(counted) > _MOST_NAMED:
        ends = f"{counted[0].name} {counted[0].rows:g} to {counted[-1].name} {counted[-1].rows:g}"
        return f"{ends}, {len(counted)} groups"
    named = [f"{g.name} {g.rows:g}" for g in found.groups if g.standing == "counted"]
    return ", ".join(named) or "no group of enough rows"


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
