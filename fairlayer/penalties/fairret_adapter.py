"""fairret's statistics, with sensitive features in this package's form."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fairlayer.constraints.base import as_names
from fairlayer.edge import read_per_sample
from fairlayer.errors import MissingLabelsError, ShapeError, require
from fairlayer.penalties.reading import outside_graphs
from fairlayer.penalties.samples import check_columns, crossed_membership, read_features, read_points
from fairlayer.penalties.term import LossTerm

__all__ = ["fairret_penalty"]


def fairret_penalty(
    statistic: Any,
    on: str | Sequence[str],
    *,
    loss: Callable[[Any], nn.Module] | None = None,
    logits: bool = False,
) -> LossTerm:
    """Return a fairret as a penalty with the call of `Penalty`, for statistics that are not affine in the scores.

    With fairret's statistic s_g of each group and s of all, its violation is `|s_g / s - 1|`, and the loss its norm:
    `sum_g |s_g / s - 1|` by default. Groups that the batch lacks, or on which the statistic is 0/0 (no positives,
    say), are left out; where s is 0 or 0/0 nothing can be compared, and the penalty is 0 with gradient 0.

    Args:
        statistic: a fairret statistic, for example `fairret.statistic.FScore()`.
        on: a sensitive feature, or a tuple of them for their intersections.
        loss: a function from the statistic to a fairret loss; None is `fairret.loss.NormLoss`. A loss that remembers
            the shape of its first batch (fairret's projections) needs batches of one size that hold every group.
        logits: whether the scores are logits, of which fairret takes the sigmoid.

    Raises:
        MissingExtraError: fairret is not installed.

    Source: Buyl, Defrance, De Bie (2024), "fairret: a framework for differentiable fairness regularization terms".

    Example:
        >>> import fairret.statistic
        >>> penalty = fairret_penalty(fairret.statistic.PositivePredictiveValue(), "sex")
        >>> scores = torch.tensor([0.5, 0.5, 0.5, 0.5])
        >>> penalty(scores, sensitive_features={"sex": [0, 0, 1, 1]}, y=torch.tensor([1, 0, 1, 1])).item()
        0.666...
    """
    make = loss or require("fairret.loss", "methods").NormLoss
    return _FairretPenalty(statistic, as_names(on), make(statistic), logits)


class _FairretPenalty(LossTerm):
    def __init__(self, statistic: Any, on: tuple[str, ...], loss: nn.Module, logits: bool) -> None:
        super().__init__()
        self.statistic, self.on, self.loss, self.logits = statistic, on, loss, logits
        self.needs_labels = any(
            inspect.signature(part.num_intercept).parameters for part in getattr(statistic, "statistics", [statistic])
        )

    def fit_categories(self, sensitive_features: Any) -> None:
        """Check that the columns are there and can be read; no category is kept."""
        check_columns(sensitive_features, self.on)

    @outside_graphs
    def forward(self, scores: Tensor, *, sensitive_features: Any = None, y: Any = None) -> Tensor:
        """Return the penalty of a batch, 0-d; scores (n,) or (n, 1)."""
        points = read_points(scores)
        if points.shape[1] != 1:
            raise ShapeError(f"fairret's statistics take one score per sample, but scores have shape {scores.shape}.")
        groups = crossed_membership(read_features(sensitive_features, self.on, len(points)))
        sens = torch.as_tensor(groups, dtype=points.dtype, device=points.device)
        labels = self._labels(y, points)
        nothing = (points * 0.0).sum()
        if sens.shape[1] == 0:
            return nothing
        with torch.no_grad():
            shown = torch.sigmoid(points) if self.logits else points
            kept = self._says_something(shown, sens, labels)
            comparable = bool((self._denominator(shown, None, labels) != 0).all()) and bool(
                (self.statistic.overall_statistic(shown, *labels) != 0).all()
            )
        if not comparable or not kept.any():
            return nothing
        loss: Tensor = self.loss(points, sens[:, kept], *labels, pred_as_logit=self.logits)
        return nothing + loss

    def _labels(self, y: Any, points: Tensor) -> tuple[Tensor, ...]:
        if not self.needs_labels:
            return ()
        labels = read_per_sample("y", y, (len(points),) if getattr(y, "ndim", 1) == 1 else tuple(points.shape))
        if labels is None:
            raise MissingLabelsError(
                f"{type(self.statistic).__name__} looks at labels, but no y was given. Pass y=labels."
            )
        return (torch.as_tensor(labels, dtype=points.dtype, device=points.device),)

    def _says_something(self, points: Tensor, sens: Tensor, labels: tuple[Tensor, ...]) -> Tensor:
        defined = self._denominator(points, sens, labels).ne(0)
        says: Tensor = sens.sum(dim=0).gt(0) & defined.reshape(-1, sens.shape[1]).all(dim=0)
        return says

    def _denominator(self, points: Tensor, sens: Tensor | None, labels: tuple[Tensor, ...]) -> Tensor:
        denominator: Tensor = self.statistic.denom(points, sens, *labels)
        return denominator
