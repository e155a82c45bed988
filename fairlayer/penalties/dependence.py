"""HSIC and MMD: penalties on dependence of any form, not of the mean alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fairlayer._numbers import is_number
from fairlayer._typing import BoolArray, called_like
from fairlayer.constraints.base import as_names
from fairlayer.edge import check_choice
from fairlayer.errors import ConstraintDefinitionError
from fairlayer.penalties.kernels import gaussian_kernel, hsic_biased, hsic_unbiased, mmd_from_pool
from fairlayer.penalties.reading import outside_graphs
from fairlayer.penalties.samples import (
    Feature,
    check_columns,
    crossed_membership,
    label_strata,
    read_features,
    read_points,
    rows_of,
)
from fairlayer.penalties.term import LossTerm

__all__ = ["HSIC", "MMD"]

_ESTIMATORS = {"biased": hsic_biased, "unbiased": hsic_unbiased}


class HSIC(LossTerm):
    """Dependence between scores (or representations) and a sensitive feature, of any form, as a loss.

        HSIC = tr(K H L H) / (n - 1)^2     K: Gaussian kernel on the scores;  L: 1 within a group, 0 across

    In expectation 0 exactly where the two are independent, up to the bias of the biased estimator, which is of
    order 1/n. With several features L is the product of theirs, so dependence on any combination counts. Samples
    of unknown group take no part; one group alone, or too few samples, give 0 with gradient 0.

    Args:
        on: a sensitive feature, or several.
        continuous: those of `on` that are amounts; they get a Gaussian kernel with the median heuristic.
        bandwidth: the bandwidth of the Gaussian kernel on the scores, in their units; None takes the batch's median
            distance.
        estimator: "biased" (>= 0) or "unbiased" (its expectation is the HSIC; it may be negative).
        given_label: the mean over labels, weighted by their shares, of the HSIC within each label.

    Raises:
        ConstraintDefinitionError: `continuous` names another feature, or a bandwidth <= 0.

    Source: Gretton et al. (2005), "Measuring statistical dependence with Hilbert-Schmidt norms"; Song et al.
        (2012) for the unbiased estimator, HSIC_1; Perez-Suay et al. (2017), "Fair kernel learning".
    Limits: time and memory are O(n^2); it bounds nothing, and says nothing about decisions at a threshold.

    Example:
        >>> penalty = HSIC("sex")
        >>> groups = {"sex": ["F", "F", "M", "M"]}
        >>> apart = penalty(torch.tensor([0.1, 0.2, 0.8, 0.9]), sensitive_features=groups)
        >>> mixed = penalty(torch.tensor([0.1, 0.9, 0.1, 0.9]), sensitive_features=groups)
        >>> bool(apart > 0.1), bool(mixed.abs() < 1e-6)
        (True, True)
    """

    def __init__(
        self,
        on: str | Sequence[str],
        *,
        continuous: str | Sequence[str] = (),
        bandwidth: float | None = None,
        estimator: str = "biased",
        given_label: bool = False,
    ) -> None:
        super().__init__()
        self.on = as_names(on)
        self.continuous = as_names(continuous) if continuous else ()
        if not set(self.continuous) <= set(self.on):
            raise ConstraintDefinitionError(f"HSIC: continuous={self.continuous} must be among on={self.on}.")
        self.bandwidth = _checked_bandwidth("HSIC", bandwidth)
        self.estimator = check_choice("estimator", estimator, tuple(_ESTIMATORS))
        self.given_label = given_label

    def fit_categories(self, sensitive_features: Any) -> None:
        """Check that the columns are there and can be read; no category is kept."""
        check_columns(sensitive_features, self.on, self.continuous)

    @outside_graphs
    def forward(self, scores: Tensor, *, sensitive_features: Any = None, y: Any = None) -> Tensor:
        """Return the penalty, 0-d; scores (n,), or representations (n, d), which count as one whole."""
        points = read_points(scores)
        features = read_features(sensitive_features, self.on, len(points), self.continuous)
        statistic = lambda x, rows: self._within(x, [f.rows[rows] for f in features], features)  # noqa: E731
        return _over_strata(points, features, self.given_label, y, "HSIC", statistic)

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def _within(self, x: Tensor, rows: list[Any], features: Sequence[Feature]) -> Tensor:
        each = [torch.as_tensor(r, dtype=x.dtype, device=x.device) for r in rows]
        kernels = [gaussian_kernel(r, None) if f.is_amount else r @ r.T for r, f in zip(each, features, strict=True)]
        L = reduce(torch.mul, kernels)
        return _ESTIMATORS[self.estimator](gaussian_kernel(x, self.bandwidth), L)

    def extra_repr(self) -> str:
        """Show what is compared."""
        return f"{', '.join(map(repr, self.on))}, estimator={self.estimator!r}, given_label={self.given_label}"


class MMD(LossTerm):
    """Distance between each group's distribution of scores (or representations) and that of all, as a loss.

        mean over groups g of MMD^2(g, all),   MMD^2 = (w_g - 1/n)' K (w_g - 1/n),   w_g: 1/n_g on the group, else 0

    The mean runs over the groups that the batch has, each counting the same. It is >= 0, and biased: also for equal
    distributions its expectation is of order 1/n_g. Samples of unknown group take no part.

    Args:
        on: a sensitive feature, or a tuple of them for their intersections.
        bandwidth: the bandwidth of the Gaussian kernel, in score units; None takes the batch's median distance.
        given_label: the mean over labels, weighted by their shares, of the same within each label.

    Raises:
        ConstraintDefinitionError: a bandwidth <= 0.

    Source: Gretton et al. (2012), "A kernel two-sample test", equation 5.
    Limits: time and memory are O(n^2); it bounds nothing, and says nothing about decisions at a threshold.

    Example:
        >>> penalty = MMD("sex")
        >>> groups = {"sex": ["F", "F", "M", "M"]}
        >>> apart = penalty(torch.tensor([0.1, 0.2, 0.8, 0.9]), sensitive_features=groups)
        >>> mixed = penalty(torch.tensor([0.1, 0.9, 0.1, 0.9]), sensitive_features=groups)
        >>> bool(apart > 0.1), bool(mixed.abs() < 1e-6)
        (True, True)
    """

    def __init__(self, on: str | Sequence[str], *, bandwidth: float | None = None, given_label: bool = False) -> None:
        super().__init__()
        self.on = as_names(on)
        self.bandwidth = _checked_bandwidth("MMD", bandwidth)
        self.given_label = given_label

    def fit_categories(self, sensitive_features: Any) -> None:
        """Check that the columns are there and can be read; no category is kept."""
        check_columns(sensitive_features, self.on)

    @outside_graphs
    def forward(self, scores: Tensor, *, sensitive_features: Any = None, y: Any = None) -> Tensor:
        """Return the penalty, 0-d; scores (n,), or representations (n, d), which count as one whole."""
        points = read_points(scores)
        features = read_features(sensitive_features, self.on, len(points))
        crossed = crossed_membership(features)
        return _over_strata(
            points, features, self.given_label, y, "MMD", lambda x, rows: self._within(x, crossed[rows])
        )

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def _within(self, x: Tensor, membership: Any) -> Tensor:
        weights = torch.as_tensor(membership, dtype=x.dtype, device=x.device)
        distances = mmd_from_pool(gaussian_kernel(x, self.bandwidth), weights)
        return distances.sum() / max(1, len(distances))

    def extra_repr(self) -> str:
        """Show what is compared."""
        return f"{', '.join(map(repr, self.on))}, given_label={self.given_label}"


def _over_strata(  # noqa: PLR0917 - the arguments of both measures
    points: Tensor,
    features: Sequence[Feature],
    given_label: bool,
    y: Any,
    asked_by: str,
    statistic: Callable[[Tensor, BoolArray], Tensor],
) -> Tensor:
    """Return the share-weighted mean of a statistic over strata of the known samples, always in the graph."""
    n = len(points)
    known: BoolArray = np.logical_and.reduce([f.known for f in features])
    strata = label_strata(y, n, asked_by) if given_label else [np.ones(n, dtype=bool)]
    total = (points * 0.0).sum()
    for stratum in strata:
        rows = known & stratum
        if rows.any():
            total = total + float(rows.sum() / known.sum()) * statistic(points[rows_of(rows, points)], rows)
    return total


def _checked_bandwidth(owner: str, bandwidth: float | None) -> float | None:
    if bandwidth is None or (is_number(bandwidth) and bandwidth > 0):
        return bandwidth
    raise ConstraintDefinitionError(f"{owner}: bandwidth must be a finite number > 0, or None, but is {bandwidth!r}.")
