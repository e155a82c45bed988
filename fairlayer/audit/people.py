"""Who was moved: flips and shifts per group, who cannot be moved, and whether a gap has changed sides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.audit.cells import read_cells
from fairlayer.audit.disparities import MetricByGroup, disparity
from fairlayer.audit.grouped import UNKNOWN
from fairlayer.audit.intervals import Interval, pair_interval
from fairlayer.audit.metrics import metric as metric_of
from fairlayer.audit.reading import Task, read_rows
from fairlayer.audit.slots import SELECTED, UNDECIDED
from fairlayer.audit.table import AuditTable, names_of
from fairlayer.errors import ParameterError

__all__ = ["Moved", "Movement", "Sides", "movement", "sides"]


@dataclass(frozen=True)
class Moved:
    """What happened to the people of one group.

    Args:
        name: the group.
        rows: how many they are.
        shift: mean of the score after minus the score before, in units of the score; NaN without scores.
        farthest: the largest absolute shift of one of them; NaN without scores.
        raised: how many scores went up.
        lowered: how many scores went down.
        at_bounds: how many scores stand at a bound afterwards, where a shift moves them no further.
        flips_up: how many decisions went from 0 to 1.
        flips_down: how many decisions went from 1 to 0.
        small: whether the group has fewer rows than `min_group_size`.

    Example:
        >>> sex = {"sex": ["F", "F", "M", "M"]}
        >>> found = movement(before=[0.45, 0.60, 0.30, 0.80], after=[0.51, 0.62, 0.26, 0.80], sensitive_features=sex)
        >>> women = found.groups[0]
        >>> women.name, women.rows, round(women.shift, 3), women.raised, women.flips_up, women.small
        ('sex=F', 2, 0.04, 2, 1, True)
    """

    name: str
    rows: int
    shift: float
    farthest: float
    raised: int
    lowered: int
    at_bounds: int
    flips_up: int
    flips_down: int
    small: bool

    @property
    def flipped(self) -> float:
        """The share of the group with another decision."""
        return (self.flips_up + self.flips_down) / self.rows if self.rows else math.nan


@dataclass(frozen=True)
class Movement:
    """What happened to every group, with sentences for people without statistics.

    Args:
        by: the features whose categories make the groups.
        groups: one entry per group; the last may be "unknown".
        percent: whether scores are probabilities, so that a shift is told in points of 0.01.
        far: a mean shift at or above this is far, in units of the score.
        words: what a member of a group is called, such as {"sex=F": "woman"}.
        decided: whether there are decisions at all; there are none for a regression.

    Example:
        >>> found = movement(
        ...     before=[0.45, 0.60, 0.30, 0.80],
        ...     after=[0.51, 0.62, 0.26, 0.80],
        ...     sensitive_features={"sex": ["F", "F", "M", "M"]},
        ...     words={"sex=F": "woman", "sex=M": "man"},
        ... )
        >>> for sentence in found.sentences():
        ...     print(sentence)
        Each woman's score was raised by 4.0 points on average (2 people, by at most 6.0); 1 decision became positive.
        Each man's score was lowered by 2.0 points on average (2 people, by at most 4.0); no decision changed.
    """

    by: tuple[str, ...]
    groups: tuple[Moved, ...]
    percent: bool
    far: float
    words: Mapping[str, str]
    decided: bool = True

    def sentences(self) -> tuple[str, ...]:
        """Return one sentence per group."""
        return tuple(self._sentence(group) for group in self.groups)

    @property
    def small_and_far(self) -> tuple[Moved, ...]:
        """The small groups that were moved far: their gap is mostly chance, and so was the move."""
        return tuple(group for group in self.groups if group.small and abs(group.shift) >= self.far)

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        return {
            "by": list(self.by),
            "groups": [{name: _plain(value) for name, value in vars(group).items()} for group in self.groups],
            "small_and_far": [group.name for group in self.small_and_far],
            "sentences": list(self.sentences()),
        }

    def _sentence(self, group: Moved) -> str:
        word = self.words.get(group.name)
        subject = f"Each {word}'s score" if word else f"{group.name}: each score"
        people = f"{group.rows:,} {'person' if group.rows == 1 else 'people'}"
        flips = f"; {_flips(group)}" if self.decided else ""
        if math.isnan(group.shift):
            return f"{f'Of each {word}' if word else group.name}: {flips.removeprefix('; ')} ({people})."
        if not group.raised and not group.lowered:
            return f"{subject} stayed as it was ({people}){flips}."
        way = "raised" if group.shift >= 0 else "lowered"
        held = f"; {group.at_bounds:,} stand at a bound and cannot be moved further" if group.at_bounds else ""
        return (
            f"{subject} was {way} by {self._amount(abs(group.shift))} on average ({people}, by at most "
            f"{self._number(group.farthest)}){flips}{held}."
        )

    def _amount(self, shift: float) -> str:
        return f"{self._number(shift)} points" if self.percent else self._number(shift)

    def _number(self, shift: float) -> str:
        return f"{100 * shift:.1f}" if self.percent else f"{shift:.3g}"


def movement(
    *,
    before: Any = None,
    after: Any = None,
    decisions_before: Any = None,
    decisions_after: Any = None,
    sensitive_features: Any,
    by: str | Sequence[str] = (),
    threshold: float = 0.5,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    far: float = 0.05,
    min_group_size: int = 30,
    words: Mapping[str, str] | None = None,
    task: Task | None = None,
) -> Movement:
    """Compare the same people's scores, or decisions, before and after.

    Args:
        before: (n,) scores before.
        after: (n,) scores after, of the same rows.
        decisions_before: (n,) decisions before; by default score >= threshold.
        decisions_after: (n,) decisions after; by default score >= threshold.
        sensitive_features: a dict of name -> column, or a frame, of categories.
        by: the features whose categories make the groups; by default all of them, crossed.
        threshold: where the decisions are made, in units of the score.
        bounds: the smallest and the largest score; None where there are none.
        far: a mean shift of a small group at or above this is said to be far, in units of the score.
        min_group_size: groups of fewer rows are small.
        words: what a member of a group is called, such as {"sex=F": "woman"}.
        task: "regression" where a threshold decides nothing.

    Raises:
        ParameterError: one of before and after is missing, or a feature is given as probabilities.
        ShapeError, NonFiniteScoresError, LabelValueError: a column cannot be read.

    Example:
        >>> found = movement(before=[0.45, 0.60], after=[0.51, 0.62], sensitive_features={"sex": ["F", "M"]})
        >>> [(group.name, group.flips_up) for group in found.groups]
        [('sex=F', 1), ('sex=M', 0)]
    """
    pairs = (("scores", before, after), ("decisions", decisions_before, decisions_after))
    for what, first, second in pairs:
        if (first is None) != (second is None):
            raise ParameterError(f"people are compared before and after, but only one of the two {what} was given.")
    cells = read_cells(sensitive_features)
    if cells.estimated:
        raise ParameterError(
            f"{', '.join(cells.estimated)} is given as probabilities, so nobody can be said to belong to a group. Give "
            "categories."
        )
    old = read_rows(cells.n, scores=before, decisions=decisions_before, threshold=threshold, task=task)
    new = read_rows(cells.n, scores=after, decisions=decisions_after, threshold=threshold, task=task)
    table = AuditTable.of(values={"moved": np.zeros(cells.n)}, sensitive_features=sensitive_features)
    by = names_of(by) or cells.features
    grouped = table.by(*by)
    group = grouped.groups[cells.cell]
    shift = None if old.scores is None or new.scores is None else new.scores - old.scores
    at_bounds: BoolArray = np.zeros(cells.n, dtype=bool)
    if new.scores is not None and bounds is not None:
        at_bounds = (new.scores <= bounds[0]) | (new.scores >= bounds[1])
    flips = _changes(old.decision_slots, new.decision_slots)
    changes = _Changes(shift, at_bounds, flips)
    groups = tuple(_moved(name, group == place, changes, min_group_size) for place, name in enumerate(grouped.names))
    percent = old.probabilities and new.probabilities and task != "regression"
    return Movement(by, groups, percent, far, words or {}, new.decided)


@dataclass(frozen=True)
class Sides:
    """Which side of a gap is worse off, before and after.

    Args:
        metric: the metric.
        before: the difference of two groups before, the worse-off one minus the better-off one.
        after: the same difference of the same two groups afterwards.
        worse_before: the group that was worse off, "" where no two groups differed.
        better_before: the group that was better off.
        worse_after: the group that is worse off now.
        better_after: the group that is better off now.
        reversed: whether the two groups have changed sides.
        certain: whether both differences are more than chance may make: the interval before lies on one side of 0 as a
            whole, and the interval afterwards on the other.

    Example:
        >>> sex = {"sex": ["F"] * 100 + ["M"] * 100}
        >>> before = AuditTable.of(decisions=[1] * 30 + [0] * 70 + [1] * 60 + [0] * 40, sensitive_features=sex)
        >>> after = AuditTable.of(decisions=[1] * 70 + [0] * 30 + [1] * 45 + [0] * 55, sensitive_features=sex)
        >>> found = sides(before, after, "selection_rate", "sex")
        >>> found.worse_before, found.worse_after, found.reversed, found.certain
        ('sex=F', 'sex=M', True, True)
    """

    metric: str
    before: Interval
    after: Interval
    worse_before: str
    better_before: str
    worse_after: str
    better_after: str
    reversed: bool
    certain: bool

    @property
    def words(self) -> str:
        """What the metric is, for a sentence."""
        return f"the {metric_of(self.metric).words}"

    @property
    def headline(self) -> str:
        """A sentence; a reversal comes first."""
        if not self.worse_before:
            return f"In {self.words}, no two groups differed before."
        if self.reversed:
            doubt = "" if self.certain else "; before or after, that is no more than chance may do"
            return (
                f"REVERSED: {self.worse_before} was worse off than {self.better_before} in {self.words} "
                f"({self.before.measured:+.3f}), and is now better off ({self.after.measured:+.3f}){doubt}."
            )
        if not self.worse_after:
            was = f"{self.worse_before} was worse off in {self.words} ({self.before.measured:+.3f})"
            return f"{was}; no groups differ now."
        chance = self.before.low <= 0 <= self.before.high
        doubt = ", no more than chance may do" if chance else ""
        was = (
            f"{self.worse_before} was worse off than {self.better_before} in {self.words} "
            f"({self.before.measured:+.3f}{doubt})"
        )
        if (self.worse_after, self.better_after) == (self.worse_before, self.better_before):
            return f"{was}, and {'is now' if chance else 'still is'} ({self.after.measured:+.3f})."
        return (
            f"{was}; now {self.worse_after} is worse off than {self.better_after} (between the first two it is "
            f"{self.after.measured:+.3f})."
        )


def sides(before: AuditTable, after: AuditTable, metric: str, by: str | Sequence[str], *, level: float = 0.95) -> Sides:
    """Return who is worse off before and after, and whether the two ends have changed sides.

    Args:
        before: the table of the scores or decisions before.
        after: that of the same people afterwards.
        metric: the name of a metric.
        by: the features whose categories make the groups.
        level: the level of the two intervals, each of a pair that the other table named.

    Raises:
        MetricError: a table cannot answer the metric.

    Example:
        >>> sex = {"sex": ["F"] * 100 + ["M"] * 100}
        >>> before = AuditTable.of(decisions=[1] * 30 + [0] * 70 + [1] * 60 + [0] * 40, sensitive_features=sex)
        >>> after = AuditTable.of(decisions=[1] * 70 + [0] * 30 + [1] * 45 + [0] * 55, sensitive_features=sex)
        >>> print(sides(before, after, "selection_rate", "sex").headline)
        REVERSED: sex=F was worse off than sex=M in the share of people with a positive decision (-0.300), and is now
        better off (+0.250).
    """
    (old,) = disparity(before, metric, names_of(by), level=level).parts
    (new,) = disparity(after, metric, names_of(by), level=level).parts
    if not old.worse_off:
        nothing = Interval(math.nan, math.nan, math.nan, math.nan, level)
        return Sides(metric, nothing, nothing, "", "", new.worse_off, new.better_off, False, False)
    first, second = (_pair(part, old.worse_off, old.better_off) for part in (old, new))
    turned = first.measured * second.measured < 0
    certain = turned and all(one.low > 0 or one.high < 0 for one in (first, second))
    return Sides(metric, first, second, old.worse_off, old.better_off, new.worse_off, new.better_off, turned, certain)


class _Changes(NamedTuple):
    """What happened to each row, (n,) each: the shift of the score, whether it stands at a bound, and the flip."""

    shift: FloatArray | None
    at_bounds: BoolArray
    flips: IntArray


def _pair(part: MetricByGroup, first: str, second: str) -> Interval:
    names = [group.name for group in part.groups]
    if first not in names or second not in names:
        return Interval(math.nan, math.nan, math.nan, math.nan, part.level)
    return pair_interval(part.means, names.index(first), names.index(second), part.level)


def _changes(old: IntArray, new: IntArray) -> IntArray:
    """Return 1 for a decision that became positive, -1 for one that became negative, and 0 for all others."""
    both = (old != UNDECIDED) & (new != UNDECIDED)
    change: IntArray = np.where(both, (new == SELECTED).astype(np.int64) - (old == SELECTED).astype(np.int64), 0)
    return change


def _moved(name: str, member: BoolArray, changes: _Changes, smallest: int) -> Moved:
    rows = int(member.sum())
    own = np.full(rows, np.nan) if changes.shift is None else changes.shift[member]
    flips = changes.flips[member]
    return Moved(
        name,
        rows,
        float(own.mean()),
        float(np.abs(own).max()),
        int((own > 0).sum()),
        int((own < 0).sum()),
        int(changes.at_bounds[member].sum()),
        int((flips == 1).sum()),
        int((flips == -1).sum()),
        rows < smallest and name != UNKNOWN,
    )


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _flips(group: Moved) -> str:
    told = [
        f"{count:,} decision{'s' if count > 1 else ''} became {kind}"
        for count, kind in ((group.flips_up, "positive"), (group.flips_down, "negative"))
        if count
    ]
    return " and ".join(told) or "no decision changed"
