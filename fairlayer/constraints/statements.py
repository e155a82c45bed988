"""What a constraint says: linear statements about group means. Values only; no solver, no gradient.

A constraint hands over `Rows` and `Spread` statements about a `Means` measure. Both mean one thing for all
uses: with `m` the vector of means,

    Rows:    lower_offset - tolerance <= matrix @ m <= upper_offset + tolerance
    Spread:  scale * max(v) - min(v) <= tolerance,      v = matrix @ m + offset
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from fairlayer._typing import FloatArray, IntArray

__all__ = ["Means", "Rows", "Spread", "Statement", "Tolerance", "as_float"]

Tolerance = float | torch.Tensor


def as_float(tolerance: Tolerance) -> float:
    """Return a tolerance as a number."""
    if isinstance(tolerance, torch.Tensor) and tolerance.requires_grad:
        return float(tolerance.detach())
    return float(tolerance)


@dataclass(slots=True)  # made on every batch; not frozen, which would triple the cost of making it
class Means:
    """Means of the predictions over groups (x strata); row `g * len(strata) + s` is group g in stratum s.

    Hard groups carry `codes` (n,), the row of each sample or -1. Soft groups, and rows that are no means at
    all (a covariance), carry `weights` (rows, n): row r stands for `weights[r] @ y`.
    """

    key: Hashable  # equal keys of one batch mean equal content, so that constraints share cells
    groups: tuple[str, ...]
    strata: tuple[str, ...]
    counts: FloatArray  # (rows,) number of samples; 0 makes every statement on the row vacuous
    codes: IntArray | None = None
    weights: FloatArray | None = None
    sample_weights: FloatArray | None = None  # how many samples each row of the batch stands for

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def names(self) -> tuple[str, ...]:
        """One name per row."""
        return tuple(f"{g}, {s}" if s else g for g in self.groups for s in self.strata)

    def names_in(self, stratum: int) -> tuple[str, ...]:
        """One name per group, within one stratum."""
        return self.names[stratum :: len(self.strata)]

    def select(self, stratum: int = 0) -> FloatArray:
        """Return the matrix (groups, rows) that picks each group's mean within one stratum."""
        return _selection(len(self.groups), len(self.strata), stratum)

    def pool(self, coefficients: FloatArray) -> FloatArray:
        """Return the matrix (groups, rows) of `sum_s share_gs * coefficients[s] * mean_gs` per group.

        An empty group gets shares of 1, so that its row still points at means that do not exist.
        """
        counts = self.counts.reshape(len(self.groups), len(self.strata))
        total = counts.sum(axis=1, keepdims=True)
        share = np.where(total > 0, counts / np.maximum(total, np.finfo(float).tiny), 1.0)
        matrix = np.zeros((len(self.groups), len(self)))
        for s, coefficient in enumerate(coefficients):
            matrix += self.select(s) * (share[:, s] * coefficient)[:, None]
        return matrix

    def as_weights(self) -> FloatArray:
        """Return the measure as weights (rows, n), the samples' own weights in them: row r is `weights[r] @ y`."""
        rows = self.per_sample()
        return rows if self.sample_weights is None else rows * self.sample_weights

    def per_sample(self) -> FloatArray:
        """Return the weights (rows, n) with which one sample of each row of the batch counts."""
        if self.weights is not None:
            return self.weights
        assert self.codes is not None
        member = np.eye(len(self) + 1)[:, self.codes][:-1]
        return np.asarray(member / np.where(self.counts > 0, self.counts, 1.0)[:, None])


@cache
def _selection(groups: int, strata: int, stratum: int) -> FloatArray:
    matrix = np.zeros((groups, groups * strata))
    rows = np.arange(groups)
    matrix[rows, rows * strata + stratum] = 1.0
    matrix.flags.writeable = False
    return matrix


class Rows(NamedTuple):
    """`lower_offset - tolerance <= matrix @ means <= upper_offset + tolerance`, row by row."""

    means: Means
    matrix: FloatArray  # (rows, len(means))
    lower_offset: FloatArray  # (rows,), -inf where there is no lower limit
    upper_offset: FloatArray  # (rows,), +inf where there is no upper limit
    names: tuple[str, ...]
    tolerance: Tolerance = 0.0
    absence_expected: bool = False  # an empty row is no reason for `on_empty="raise"`


class Spread(NamedTuple):
    """`scale * max(v) - min(v) <= tolerance` with `v = matrix @ means + offset`."""

    means: Means
    matrix: FloatArray  # (members, len(means))
    names: tuple[str, ...]
    tolerance: Tolerance = 0.0
    offset: FloatArray | None = None  # (members,)
    scale: float = 1.0
    absence_expected: bool = False


Statement = Rows | Spread
