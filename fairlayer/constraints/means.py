"""Means over groups: which samples each mean reads, and the only place where they are summed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch

from fairlayer._rows import SparseRows, matrix_of
from fairlayer._typing import FloatArray, IntArray

__all__ = ["GroupMeans", "Values", "like"]

Values = TypeVar("Values", FloatArray, torch.Tensor)


def like(array: FloatArray | float, values: torch.Tensor) -> torch.Tensor:
    """Return numbers as a tensor of the dtype and device of `values`; a matrix by its entries stays one."""
    if isinstance(array, SparseRows):
        entries = torch.from_numpy(np.stack([array.rows, array.columns])), torch.from_numpy(array.data)
        made = torch.sparse_coo_tensor(*entries, array.shape, check_invariants=False)
        return made.to(device=values.device, dtype=values.dtype)
    return torch.tensor(np.asarray(array), dtype=values.dtype, device=values.device)


@dataclass(slots=True)  # made on every batch; not frozen, which would triple the cost of making it
class GroupMeans:
    """Means of the predictions over groups (x strata); row `g * len(strata) + s` is group g in stratum s.

    Hard groups carry `codes` (n,), the row of each sample or -1. Soft groups, and rows that are not means at
    all (a covariance), carry `weights` (rows, n): row r stands for `weights[r] @ y`, and where samples have
    weights of their own for `weights[r] @ (sample_weights * y)`.
    """

    key: Hashable  # equal keys of one batch mean equal content, so that constraints share cells
    groups: tuple[str, ...]
    strata: tuple[str, ...]
    counts: FloatArray  # (rows,) number of samples; 0 makes every statement on the row vacuous
    codes: IntArray | None = None
    weights: Any = None  # an array, `GroupedRows`, or for pairs of samples `SparseRows`
    sample_weights: FloatArray | None = None  # how many samples each row of the batch stands for

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def of_pairs(self) -> bool:
        """Whether each row is the difference of two samples, kept by its two entries."""
        return isinstance(self.weights, SparseRows)

    @property
    def names(self) -> tuple[str, ...]:
        """One name per row."""
        return tuple(f"{g}, {s}" if s else g for g in self.groups for s in self.strata)

    def names_in(self, stratum: int) -> tuple[str, ...]:
        """Return one name per group, within one stratum."""
        s = self.strata[stratum]
        return tuple(f"{g}, {s}" if s else g for g in self.groups)

    def select(self, stratum: int = 0) -> Any:
        """Return the matrix (groups, rows) that picks each group's mean within one stratum.

        It is an array, or for many rows a matrix by its entries that reads like one.
        """
        return _selection(len(self.groups), len(self.strata), stratum)

    def pool(self, coefficients: FloatArray) -> Any:
        """Return the matrix (groups, rows) of `sum_s share_gs * coefficients[s] * mean_gs` per group.

        An empty group gets shares of 1, so that its row still points at means that do not exist.
        """
        counts = self.counts.reshape(len(self.groups), len(self.strata))
        total = counts.sum(axis=1, keepdims=True)
        share = np.where(total > 0, counts / np.maximum(total, np.finfo(float).tiny), 1.0)
        weights = (share * coefficients).reshape(-1)
        rows = np.repeat(np.arange(len(self.groups)), len(self.strata))
        return matrix_of(rows, np.arange(len(self)), weights, (len(self.groups), len(self)))

    def of(self, values: Values, *, total: Callable[[FloatArray], FloatArray] | None = None) -> Values:
        """Return the mean of `values` (n,) over each row of the measure, 0 for an empty row.

        For a tensor the result is a tensor of its dtype and device that takes a gradient.

        Args:
            values: one number per sample: predictions, labels, 0/1 decisions, losses.
            total: what makes of these samples' sums the sums over all processes that share the batch (arrays only).

        Example:
            >>> groups = GroupMeans("key", ("a", "b"), ("",), np.array([2.0, 0.0]), codes=np.array([0, 0, -1]))
            >>> groups.of(np.array([1.0, 3.0, 9.0])).tolist(), groups.of(torch.tensor([1.0, 3.0, 9.0])).tolist()
            ([2.0, 0.0], [2.0, 0.0])
        """
        if isinstance(values, torch.Tensor):
            return self._of_tensor(values)
        sums = self._sums(values)
        sums = sums if total is None else total(sums)
        return sums if self.weights is not None else sums / self._divisors

    def _sums(self, values: FloatArray) -> FloatArray:
        weighted = values if self.sample_weights is None else values * self.sample_weights
        if self.weights is not None:
            return np.asarray(self.weights @ weighted)
        assert self.codes is not None
        return np.bincount(self.codes + 1, weights=weighted, minlength=len(self) + 1)[1:].astype(np.float64)

    def _of_tensor(self, values: torch.Tensor) -> torch.Tensor:
        weighted = values if self.sample_weights is None else values * like(self.sample_weights, values)
        if self.weights is not None:
            return like(self.weights, values) @ weighted
        assert self.codes is not None
        k = len(self)
        codes = torch.from_numpy(np.where(self.codes < 0, k, self.codes)).to(values.device)
        return values.new_zeros(k + 1).index_add(0, codes, weighted)[:k] / like(self._divisors, values)

    @property
    def _divisors(self) -> FloatArray:
        return np.where(self.counts > 0, self.counts, 1.0)

    def as_weights(self) -> FloatArray:
        """Return the measure as weights (rows, n), the samples' own weights in them: row r is `weights[r] @ y`."""
        rows = self.per_sample()
        return rows if self.sample_weights is None else rows * self.sample_weights

    def per_sample(self) -> FloatArray:
        """Return the weights (rows, n) with which one sample of each row of the batch counts."""
        if self.weights is not None:
            return np.asarray(self.weights)
        assert self.codes is not None
        member = np.eye(len(self) + 1)[:, self.codes][:-1]
        return np.asarray(member / self._divisors[:, None])


@lru_cache(maxsize=1024)
def _selection(groups: int, strata: int, stratum: int) -> Any:
    rows = np.arange(groups)
    matrix = matrix_of(rows, rows * strata + stratum, np.ones(groups), (groups, groups * strata))
    if isinstance(matrix, np.ndarray):
        matrix.flags.writeable = False
    return matrix
