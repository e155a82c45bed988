"""The outside door: a table's decisions as Fairlearn's MetricFrame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fairlayer._typing import BoolArray, FloatArray
from fairlayer.audit.errors import MetricError
from fairlayer.audit.slots import CLASSES, DECIDED
from fairlayer.audit.table import AuditTable
from fairlayer.errors import require

__all__ = ["metric_frame"]


def metric_frame(table: AuditTable, by: Sequence[str], control: Sequence[str] = ()) -> Any:
    """Return Fairlearn's `MetricFrame` of the rows with a label and a decision.

    A table holds how often each label met each decision in each cell, which is all that metrics of decisions read; so
    the frame is made of four rows per cell, weighted by how many people they stand for. Rows of unknown groups are
    left out, as Fairlearn has no place for them; the metrics are accuracy, selection rate, the true and false
    positive rates, precision, and the weight of the rows.

    Args:
        table: a table with decisions and labels of 0 and 1.
        by: the features whose categories make the groups.
        control: features or strata within which they are compared (Fairlearn's control features).

    Raises:
        MetricError: the table has no decisions, or no labels of 0 and 1.
        MissingExtraError: Fairlearn is not installed.
    """
    if not table.sums["rows"][:, CLASSES][:, :, DECIDED].any():
        raise MetricError(f"a MetricFrame needs decisions and labels of 0 and 1, which {table!r} does not hold.")
    fairlearn, pandas = require("fairlearn.metrics", "audit"), require("pandas", "audit")
    rows = _rows(table, (*by, *control))
    return fairlearn.MetricFrame(
        metrics=_metrics(fairlearn),
        y_true=rows["label"],
        y_pred=rows["decision"],
        sensitive_features=pandas.DataFrame({name: rows[name] for name in by}),
        control_features=pandas.DataFrame({name: rows[name] for name in control}) if control else None,
        sample_params={name: {"sample_weight": rows["weight"]} for name in _metrics(fairlearn)},
    )


def _metrics(fairlearn: Any) -> dict[str, Any]:
    sklearn = require("sklearn.metrics", "audit")

    def precision(y_true: Any, y_pred: Any, sample_weight: Any) -> float:
        return float(sklearn.precision_score(y_true, y_pred, sample_weight=sample_weight, zero_division=np.nan))

    def weight(y_true: Any, y_pred: Any, sample_weight: FloatArray) -> float:
        return float(np.sum(sample_weight))

    return {
        "accuracy": sklearn.accuracy_score,
        "selection_rate": fairlearn.selection_rate,
        "true_positive_rate": fairlearn.true_positive_rate,
        "false_positive_rate": fairlearn.false_positive_rate,
        "positive_predictive_value": precision,
        "weight": weight,
    }


def _rows(table: AuditTable, columns: Sequence[str]) -> dict[str, Any]:
    """Return one row per cell, label and decision that anybody has."""
    weight = table.sums["weight"][:, CLASSES][:, :, DECIDED]
    names = table.features + table.strata
    places = [names.index(name) for name in columns]
    known: BoolArray = np.all(table.codes[:, places] >= 0, axis=1)
    used: BoolArray = (weight > 0) & known[:, None, None]
    cell, label, decision = np.nonzero(used)
    rows: dict[str, Any] = {"label": label, "decision": decision, "weight": weight[cell, label, decision]}
    for name, place in zip(columns, places, strict=True):
        rows[name] = [table.categories[place][code] for code in table.codes[cell, place].tolist()]
    return rows
