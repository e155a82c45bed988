"""What a correction cost: accuracy, order, loss and calibration of everybody together, before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fairlayer.audit.grouping import plain
from fairlayer.audit.metrics import metric, metric_names
from fairlayer.audit.table import AuditTable

__all__ = ["Cost", "cost_of"]

# the quality of predictions, with whether more of it is better
_QUALITY = {
    "accuracy": True,
    "auc": True,
    "log_loss": False,
    "brier_score": False,
    "calibration_error": False,
    "mean_absolute_error": False,
    "root_mean_squared_error": False,
}
_CLASSES_ONLY = ("accuracy", "auc", "log_loss", "brier_score", "calibration_error")
_NAMES = {
    "accuracy": "accuracy",
    "auc": "AUC",
    "log_loss": "log loss",
    "brier_score": "Brier score",
    "calibration_error": "calibration error",
    "mean_absolute_error": "mean absolute error",
    "root_mean_squared_error": "root mean squared error",
}


@dataclass(frozen=True)
class Cost:
    """One measure of quality, before and after.

    Args:
        metric: its name.
        words: what it is.
        now: its value for the predictions at hand.
        before: its value for the predictions before; None where none were given.
        more_is_better: which way it should go.

    Example:
        >>> Cost("auc", "area under the ROC curve", now=0.8, before=0.85, more_is_better=True).sentence()
        'The AUC went from 0.8500 to 0.8000, which is worse.'
    """

    metric: str
    words: str
    now: float
    before: float | None
    more_is_better: bool

    @property
    def lost(self) -> float | None:
        """By how much it became worse (negative: better); None without a before."""
        if self.before is None:
            return None
        return self.before - self.now if self.more_is_better else self.now - self.before

    def sentence(self) -> str:
        """Return the change in a sentence."""
        name = _NAMES[self.metric]
        if self.before is None or self.lost is None:
            return f"The {name} is {self._shown(self.now)}."
        if abs(self.lost) < 5e-5:
            return f"The {name} stayed at {self._shown(self.now)}."
        way = "worse" if self.lost > 0 else "better"
        return f"The {name} went from {self._shown(self.before)} to {self._shown(self.now)}, which is {way}."

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        return {
            "metric": self.metric,
            "name": _NAMES[self.metric],
            "words": self.words,
            "now": plain(self.now),
            "before": plain(self.before),
            "lost": plain(self.lost),
            "more_is_better": self.more_is_better,
            "sentence": self.sentence(),
        }

    def _shown(self, number: float) -> str:
        return f"{100 * number:.2f} %" if self.metric == "accuracy" else f"{number:.4f}"


def cost_of(now: AuditTable, before: AuditTable | None) -> tuple[Cost, ...]:
    """Return every measure of quality that the table can answer.

    Example:
        >>> table = AuditTable.of(scores=[0.2, 0.9], y=[0, 1], sensitive_features={"sex": ["F", "M"]})
        >>> cost_of(table, None)[0].sentence()
        'The accuracy is 100.00 %.'
    """
    answered = set(metric_names(now))
    regression = now.task == "regression"
    wanted = [n for n in _QUALITY if n in answered and (n in _CLASSES_ONLY) is not regression]
    old = set() if before is None else set(metric_names(before))
    return tuple(
        Cost(
            name,
            metric(name).words,
            now.overall(name),
            before.overall(name) if before is not None and name in old else None,
            _QUALITY[name],
        )
        for name in wanted
    )
