"""What a constraint says: linear statements about group means, and the number that each of them bounds.

A constraint hands over `Rows` and `Spread` statements about a `GroupMeans` measure. Both mean one thing for all uses:
with `m` the vector of means,

    Rows:    lower_offset - tolerance <= v <= upper_offset + tolerance,      v = matrix @ m
    Spread:  scale * max(v) - min(v) <= tolerance,                           v = matrix @ m + offset

The number of a statement is what a reader compares with its limit, in the unit in which the limit was written:

    a difference (Spread)                     max(v) - min(v)                at most the tolerance
    a ratio (Spread, scale, tolerance 0)      min(v) / max(v)                at least the scale; none if max(v) <= 0
    a row around a target (equal offsets)     abs(v - target)                at most the tolerance
    a row with one limit                      v - origin                     at most, or at least, that limit
    a row between two limits                  v - origin                     against the limit that it is nearer to

Of several rows the number is that of the row with the largest excess. The excess is by how much the inequality above
fails, <= 0 where it holds: the number beyond its limit, but for a ratio `scale * max(v) - min(v) - tolerance`, which is
linear in the predictions and stays defined where the ratio does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from fairlayer._rows import reads
from fairlayer._typing import BoolArray, FloatArray
from fairlayer.constraints.means import GroupMeans, Values, like
from fairlayer.constraints.readings import StatementNumbers, StatementReading

__all__ = ["RATIO", "Rows", "Spread", "Statement", "Tolerance", "as_float"]

Tolerance = float | torch.Tensor
RATIO = "lowest over highest"  # the unit of a ratio


def as_float(tolerance: Tolerance) -> float:
    """Return a tolerance as a number."""
    if isinstance(tolerance, torch.Tensor) and tolerance.requires_grad:
        return float(tolerance.detach())
    return float(tolerance)


class Rows(NamedTuple):
    """`lower_offset - tolerance <= matrix @ means <= upper_offset + tolerance`, row by row.

    Example:
        >>> import fairlayer as fl
        >>> from fairlayer.constraints import Batch
        >>> from fairlayer.groups import read_sensitive_features
        >>> batch = Batch(read_sensitive_features({"sex": ["F", "F", "M"]}), 3)
        >>> [rows] = fl.MinimumRate("sex", 0.2).statements(batch)
        >>> rows.names, rows.limit, rows.value(np.array([0.8, 0.1])), rows.worst(np.array([0.8, 0.1]))
        (('sex=F', 'sex=M'), 0.2, 0.1, ('sex=M',))
    """

    means: GroupMeans
    matrix: FloatArray  # (rows, len(means))
    lower_offset: FloatArray  # (rows,), -inf where there is no lower limit
    upper_offset: FloatArray  # (rows,), +inf where there is no upper limit
    names: tuple[str, ...]
    tolerance: Tolerance = 0.0
    absence_expected: bool = False  # an empty row is no reason for `on_empty="raise"`
    origin: FloatArray | None = None  # (rows,), what a row with one limit is measured from; None for 0

    def members(self, means: Values) -> Values:
        """Return `matrix @ means`, of an array or a tensor."""
        return _times(self.matrix, means)

    def gaps(self, members: Values) -> Values:
        """Return by how much each member lies outside its offsets, tolerance aside: below 0 inside them."""
        return _larger(members - _as(self.upper_offset, members), _as(self.lower_offset, members) - members)

    @property
    def present(self) -> BoolArray:
        """Which rows say something: they read no mean of nobody."""
        return _present(self)

    @property
    def limits(self) -> tuple[tuple[float, bool], ...]:
        """Each distinct (limit, at_least) among the rows; one that is not finite bounds nothing and is left out."""
        lower, upper, about, _ = self._scaled()
        highest = {(float(limit), False) for limit in upper[np.isfinite(upper)]}
        lowest = {(float(limit), True) for limit in lower[np.isfinite(lower) & ~about]}
        return tuple(sorted(highest | lowest))

    @property
    def limit(self) -> float | None:
        """What the number is held to; None where rows have limits of their own."""
        return self.limits[0][0] if len(self.limits) == 1 else None

    @property
    def at_least(self) -> bool:
        """Whether every limit is a lower one."""
        return all(lower for _, lower in self.limits)

    @property
    def unit(self) -> str:
        """What the number is, in words."""
        if self._scaled().about.all():
            return "largest distance from the target"
        sides = {lower for _, lower in self.limits}
        return "value" if len(sides) != 1 else "lowest value" if sides == {True} else "highest value"

    def read(self, means: FloatArray) -> StatementReading:
        """Return the number of the row with the largest excess, with its limit."""
        if not self.present.any():
            limit, at_least = self.limits[0] if self.limits else (np.inf, False)
            return StatementReading(None, limit, None, at_least, ())
        found = self.numbers([self], means[None])
        return found.reading_of_first((self.names[found.row_of_first],))

    @staticmethod
    def numbers(alike: Sequence[Rows], means: FloatArray) -> StatementNumbers:
        """Return the numbers of statements that are alike but for their limits, each of means of its own.

        Args:
            alike: the statements, (t,), whose rows are those of the first.
            means: the means that each reads, (t, len(alike[0].means)), or several such tables, one below the other.
        """
        first, times = alike[0], len(means) // len(alike)
        tolerance = _again([[as_float(each.tolerance)] for each in alike], times)
        lower, upper = (_again([each[side] for each in alike], times) for side in (2, 3))
        origin = 0.0 if first.origin is None else _again([each.origin for each in alike], times)
        scaled = _scaled(lower, upper, origin, tolerance)
        v = (first.matrix @ means.T).T
        excess = np.where(first.present, np.maximum(v - upper, lower - v) - tolerance, -np.inf)
        row = excess.argmax(axis=1)
        at = np.arange(len(row)), row
        low, high, about = scaled.lower[at], scaled.upper[at], scaled.about[at]
        number = v[at] - scaled.centre[at]
        number = np.where(about, np.abs(number), number)
        at_least = ~about & (low - number > number - high)
        excess = excess[at] if first.present.any() else np.full(len(row), np.nan)
        return StatementNumbers(number, np.where(at_least, low, high), excess, at_least, row)

    def value(self, means: FloatArray) -> float | None:
        """Return the number that is bounded; None where nothing is compared."""
        return self.read(means).value

    def excess(self, means: FloatArray) -> float | None:
        """Return by how much the statement fails, <= 0 where it holds; None where nothing is compared."""
        return self.read(means).excess

    def worst(self, means: FloatArray) -> tuple[str, ...]:
        """Return the name of the row that makes the number."""
        return self.read(means).worst

    def describe(self, worst: Sequence[str]) -> str:
        """Return the number in words, of the members that make it."""
        about = dict(zip(self.names, self._scaled().about.tolist(), strict=True))
        return ", ".join(f"distance of [{name}] from its target" if about[name] else f"[{name}]" for name in worst)

    def keep(self, rows: BoolArray) -> Rows:
        """Return the statement of some of its rows."""
        return self._replace(
            matrix=self.matrix[rows],
            lower_offset=self.lower_offset[rows],
            upper_offset=self.upper_offset[rows],
            names=_kept(self.names, rows),
            origin=None if self.origin is None else self.origin[rows],
        )

    def reads_like(self, other: Statement) -> bool:
        """Return whether another statement reads the same rows of the same measure, at whatever limits."""
        alike = isinstance(other, Rows) and (self.origin is None) == (other.origin is None)
        return alike and _read_alike(self, other)

    def _scaled(self) -> _Scaled:
        origin = np.zeros(len(self.matrix)) if self.origin is None else self.origin
        return _scaled(self.lower_offset, self.upper_offset, origin, as_float(self.tolerance))


class _Scaled(NamedTuple):
    lower: FloatArray
    upper: FloatArray
    about: BoolArray
    centre: FloatArray


def _scaled(lower_offset: FloatArray, upper_offset: FloatArray, origin: Any, tolerance: Any) -> _Scaled:
    """Return the limits as the rows' numbers meet them, which rows keep to a target, and where each begins."""
    about = np.isfinite(upper_offset) & (lower_offset == upper_offset)
    centre = np.where(about, upper_offset, origin)
    # Where a row is measured from its own offset its limit is the tolerance itself, to the last digit.
    below = np.where(lower_offset == centre, 0.0, lower_offset - centre) - tolerance
    above = np.where(upper_offset == centre, 0.0, upper_offset - centre) + tolerance
    return _Scaled(below, above, about, centre)


class Spread(NamedTuple):
    """`scale * max(v) - min(v) <= tolerance` with `v = matrix @ means + offset`.

    Example:
        >>> import fairlayer as fl
        >>> from fairlayer.constraints import Batch
        >>> from fairlayer.groups import read_sensitive_features
        >>> batch = Batch(read_sensitive_features({"sex": ["F", "F", "M"]}), 3)
        >>> [spread] = fl.DemographicParity("sex", tolerance=0.1).statements(batch)
        >>> spread.names, spread.limit, round(spread.value(np.array([0.8, 0.3])), 3)
        (('sex=F', 'sex=M'), 0.1, 0.5)
    """

    means: GroupMeans
    matrix: FloatArray  # (members, len(means))
    names: tuple[str, ...]
    tolerance: Tolerance = 0.0
    offset: FloatArray | None = None  # (members,)
    scale: float = 1.0
    absence_expected: bool = False
    ratio: bool = False  # with a tolerance of 0: a ratio, although its scale may be 1

    def members(self, means: Values) -> Values:
        """Return `matrix @ means + offset`, of an array or a tensor."""
        members = _times(self.matrix, means)
        return members if self.offset is None else members + _as(self.offset, members)

    def gap(self, members: Values) -> Values:
        """Return `scale * max - min` of the members given (0-d), tolerance aside."""
        if isinstance(members, torch.Tensor):
            return self.scale * members.amax() - members.amin()
        return np.asarray(self.scale * members.max() - members.min())

    @property
    def present(self) -> BoolArray:
        """Which members can be compared: they read no mean of nobody."""
        return _present(self)

    @property
    def at_least(self) -> bool:
        """Whether the statement bounds a ratio, from below: it has a scale, and no tolerance."""
        return (self.ratio or self.scale != 1.0) and as_float(self.tolerance) == 0.0

    @property
    def limit(self) -> float:
        """What the number is held to: the scale of a ratio, the tolerance of a difference."""
        return self.scale if self.at_least else as_float(self.tolerance)

    @property
    def unit(self) -> str:
        """What the number is, in words."""
        if self.at_least:
            return RATIO
        return "largest difference" if self.scale == 1.0 else f"{self.scale:g} * highest - lowest"

    def read(self, means: FloatArray) -> StatementReading:
        """Return the number, its limit, and which members are highest and lowest."""
        here = np.flatnonzero(self.present)
        if len(here) < 2:
            return StatementReading(None, self.limit, None, self.at_least, ())
        found = self.numbers([self], means[None])
        high, low = here[found.row_of_first], here[self.members(means)[here].argmin()]
        return found.reading_of_first((self.names[high], self.names[low]))

    @staticmethod
    def numbers(alike: Sequence[Spread], means: FloatArray) -> StatementNumbers:
        """Return the numbers of statements that are alike but for their limits, each of means of its own.

        Args:
            alike: the statements, (t,), whose members are those of the first.
            means: the means that each reads, (t, len(alike[0].means)), or several such tables, one below the other.
        """
        first, here, times = alike[0], alike[0].present, len(means) // len(alike)
        scale = _again([each.scale for each in alike], times)
        tolerance = _again([as_float(each.tolerance) for each in alike], times)
        v = (first.matrix @ means.T).T
        if first.offset is not None:
            v = v + _again([each.offset for each in alike], times)
        v = v if here.all() else v[:, here]
        if v.shape[1] < 2:
            nothing = np.full(len(means), np.nan)
            return StatementNumbers(nothing, tolerance, nothing, np.zeros(len(means), bool), np.zeros(len(means), int))
        high, low = v.max(axis=1), v.min(axis=1)
        gap, value = scale * high - low, np.full(len(means), np.nan)
        ratio = ((scale != 1.0) | first.ratio) & (tolerance == 0.0)
        np.divide(low, high, out=value, where=ratio & (high > 0))
        value = np.where(ratio, value, gap)
        return StatementNumbers(value, np.where(ratio, scale, tolerance), gap - tolerance, ratio, v.argmax(axis=1))

    def value(self, means: FloatArray) -> float | None:
        """Return the number that is bounded; None where nothing is compared."""
        return self.read(means).value

    def excess(self, means: FloatArray) -> float | None:
        """Return by how much the statement fails, <= 0 where it holds; None where nothing is compared."""
        return self.read(means).excess

    def worst(self, means: FloatArray) -> tuple[str, ...]:
        """Return the names of the highest and of the lowest member."""
        return self.read(means).worst

    def describe(self, worst: Sequence[str]) -> str:
        """Return the number in words, of the members that make it."""
        if not worst:
            return ""
        high, low = (f"mean[{name}]" for name in worst)
        scale = "" if self.scale == 1.0 else f"{self.scale:g} * "
        return f"{low} / {high}" if self.at_least else f"{scale}{high} - {low}"

    def keep(self, members: BoolArray) -> Spread:
        """Return the statement of some of its members."""
        return self._replace(
            matrix=self.matrix[members],
            names=_kept(self.names, members),
            offset=None if self.offset is None else self.offset[members],
        )

    def reads_like(self, other: Statement) -> bool:
        """Return whether another statement reads the same members of the same measure, at whatever limit."""
        if not isinstance(other, Spread) or self.ratio != other.ratio:
            return False
        return (self.offset is None) == (other.offset is None) and _read_alike(self, other)


Statement = Rows | Spread


def _again(values: Sequence[Any], times: int) -> FloatArray:
    """Return one entry per statement as an array, several times over."""
    found = np.array(values, dtype=np.float64)
    return found if times == 1 else np.concatenate([found] * times)


def _present(statement: Statement) -> BoolArray:
    empty = statement.means.counts == 0
    if not empty.any():
        return np.ones(len(statement.matrix), dtype=bool)
    return ~reads(statement.matrix, empty)


def _read_alike(first: Statement, other: Statement) -> bool:
    if first.means is not other.means:
        return False
    same = first.matrix is other.matrix
    return same or (not first.means.of_pairs and np.array_equal(first.matrix, other.matrix))  # those of pairs are large


def _kept(names: tuple[str, ...], which: BoolArray) -> tuple[str, ...]:
    return tuple(name for name, kept in zip(names, which, strict=True) if kept)


def _times(matrix: FloatArray, means: Values) -> Values:
    return like(matrix, means) @ means if isinstance(means, torch.Tensor) else matrix @ means


def _as(array: FloatArray, members: Values) -> Values:
    return like(array, members) if isinstance(members, torch.Tensor) else array


def _larger(first: Values, second: Values) -> Values:
    return torch.maximum(first, second) if isinstance(first, torch.Tensor) else np.maximum(first, second)
