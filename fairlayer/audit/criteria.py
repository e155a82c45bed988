"""The criteria that people demand, each as the metrics whose worst difference or ratio it speaks of."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["CRITERIA", "metrics_of", "title_of"]

CRITERIA: dict[str, tuple[str, ...]] = {
    "demographic_parity": ("selection_rate",),
    "equal_opportunity": ("true_positive_rate",),
    "predictive_equality": ("false_positive_rate",),
    "equalized_odds": ("true_positive_rate", "false_positive_rate"),
    "predictive_parity": ("positive_predictive_value",),
    "mean_score_parity": ("mean_score",),
    "mean_residual_parity": ("mean_residual",),
}


def metrics_of(name: str | Sequence[str]) -> tuple[str, ...]:
    """Return the metrics of a criterion; a metric, or several, stand for themselves.

    Example:
        >>> metrics_of("equalized_odds"), metrics_of("auc")
        (('true_positive_rate', 'false_positive_rate'), ('auc',))
    """
    return CRITERIA.get(name, (name,)) if isinstance(name, str) else tuple(name)


def title_of(name: str | Sequence[str]) -> str:
    """Return one name for a criterion, a metric, or several metrics."""
    return name if isinstance(name, str) else " and ".join(name)
