"""A metric of every group, with what its interval needs: between the metrics and the statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.audit.grouped import Grouped, effective
from fairlayer.audit.slots import DECIDED, DECISIONS, LABELS

__all__ = ["Kind", "Means", "mean_of_sum", "share_of_rows", "without_interval"]

# rate: a share, with Wilson's limits. mean: Student's t. root: the square root of a mean. area: logit limits.
# none: a number for which no interval that covers is known.
Kind: TypeAlias = Literal["rate", "mean", "root", "area", "none"]

_EVERY_LABEL = tuple(range(LABELS))
_EVERY_DECISION = tuple(range(DECISIONS))


@dataclass(frozen=True)
class Means:
    """A number per group.

    Args:
        kind: how its limits are found.
        value: (groups,) the number; NaN where a group has nothing to compute it from.
        rows: (groups,) the rows that it stands on, whatever they weigh: what is held against `min_group_size`.
        count: (groups,) the same in effective rows, (sum w)^2 / sum w^2.
        spread: (groups,) for a mean (and the mean under a root), the sum of squared deviations, in effective rows;
            for an area, its variance; for a rate, nothing is needed and it is not read.

    Example:
        >>> import numpy as np
        >>> hired = Means.of_rates(np.array([200.0, 100.0]), np.array([60.0, 40.0]))
        >>> hired.kind, hired.value.tolist(), hired.rows.tolist()
        ('rate', [0.3, 0.4], [200.0, 100.0])
    """

    kind: Kind
    value: FloatArray
    rows: FloatArray
    count: FloatArray
    spread: FloatArray

    @staticmethod
    def of_rates(count: FloatArray, hits: FloatArray) -> Means:
        """Return shares from numbers of rows and of hits."""
        return Means("rate", divided(hits, count), count, count, np.full_like(count, np.nan))

    @staticmethod
    def of_numbers(count: FloatArray, total: FloatArray, squares: FloatArray) -> Means:
        """Return means from numbers of rows, sums, and sums of squares."""
        mean = divided(total, count)
        return Means("mean", mean, count, count, np.maximum(squares - count * mean**2, 0.0))

    @staticmethod
    def of_areas(value: FloatArray, variance: FloatArray, rows: FloatArray) -> Means:
        """Return areas under the curve with their variances, and the rows of the rarer label."""
        return Means("area", value, rows, rows, variance)

    @property
    def seen(self) -> BoolArray:
        """The groups that have the number."""
        return ~np.isnan(self.value) & (self.count > 0)

    def take(self, groups: IntArray) -> Means:
        """Return some of the groups."""
        return Means(self.kind, self.value[groups], self.rows[groups], self.count[groups], self.spread[groups])


def share_of_rows(
    grouped: Grouped,
    labels: tuple[int, ...],
    decisions: tuple[int, ...],
    among_labels: tuple[int, ...] = _EVERY_LABEL,
    among_decisions: tuple[int, ...] = DECIDED,
) -> Means:
    """Return the share of rows with these labels and decisions among those with the others."""
    base = (among_labels, among_decisions)
    weight = grouped.total("weight", *base)
    return _rates(grouped, divided(grouped.total("weight", labels, decisions), weight), base)


def shares_of_pairs(grouped: Grouped, hits: FloatArray, base: tuple[tuple[int, ...], tuple[int, ...]]) -> Means:
    """Return the share that a weight of hits is of the rows of the base."""
    return _rates(grouped, divided(hits, grouped.total("weight", *base)), base)


def mean_of_sum(
    grouped: Grouped,
    name: str,
    labels: tuple[int, ...] = _EVERY_LABEL,
    decisions: tuple[int, ...] = _EVERY_DECISION,
    squares: str = "",
) -> Means:
    """Return the mean of a number of the rows with these labels and decisions.

    Args:
        squares: the name of the sum of its squares; by default `name` + "_squares".
    """
    base = (labels, decisions)
    weight = grouped.total("weight", *base)
    mean = divided(grouped.total(name, *base), weight)
    count = effective(weight, grouped.total("weight_squares", *base))
    square = divided(grouped.total(squares or f"{name}_squares", *base), weight)
    return Means("mean", mean, grouped.total("rows", *base), count, np.maximum(count * (square - mean**2), 0.0))


def without_interval(value: FloatArray, rows: FloatArray) -> Means:
    """Return numbers for which no interval is known."""
    return Means("none", value, rows, rows, np.full_like(value, np.nan))


def divided(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return a / b, NaN where b is 0.

    Example:
        >>> import numpy as np
        >>> divided(np.array([1.0, 0.0]), np.array([2.0, 0.0]))
        array([0.5, nan])
    """
    quotient: FloatArray = np.divide(a, b, out=np.full(np.shape(b), np.nan), where=np.asarray(b) > 0)
    return quotient


def _rates(grouped: Grouped, value: FloatArray, base: tuple[tuple[int, ...], tuple[int, ...]]) -> Means:
    count = effective(grouped.total("weight", *base), grouped.total("weight_squares", *base))
    return Means("rate", value, grouped.total("rows", *base), count, np.full_like(value, np.nan))
