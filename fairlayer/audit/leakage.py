"""Warnings about scores and columns into which the answer seems to have leaked, and columns that are not features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.audit.table import AuditTable

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["column_warnings", "copy_warnings", "identifies", "score_warnings"]

PERFECT = 0.995  # area under the curve from which a column or a score is said to tell the label by itself
_ROWS = 50  # fewer rows than this say nothing about a column, or about scores


def score_warnings(table: AuditTable) -> tuple[str, ...]:
    """Return what is suspicious about the scores themselves.

    Example:
        >>> table = AuditTable.of(scores=[0.1, 0.9] * 60, y=[0, 1] * 60, sensitive_features={"sex": ["F", "M"] * 60})
        >>> score_warnings(table)[0][:50]
        'The scores put nearly all people in the right orde'
    """
    found = []
    if table.rows >= _ROWS and {"order", "classes"} <= table.holds and table.overall("auc") >= PERFECT:
        found.append(
            f"The scores put nearly all people in the right order (AUC {table.overall('auc'):.3f}). Real scores seldom "
            "do: the outcome may be among the features, or the rows may be those that the model was trained on."
        )
    if "scores" in table.holds and "probabilities" not in table.holds and table.task != "regression":
        found.append(
            "Some scores lie outside [0, 1], so they are not probabilities: log loss, Brier score and calibration are "
            "left out, and the threshold is in units of the score."
        )
    rate = table.overall("selection_rate") if "decisions" in table.holds else None
    if rate in (0.0, 1.0):
        by = f" (the threshold {table.threshold:g} lies beyond all scores)" if table.threshold is not None else ""
        found.append(
            f"Everybody has the same decision, a {'positive' if rate else 'negative'} one{by}: no group can differ "
            "from another in decisions, whatever the scores are. Check that this was meant."
        )
    return tuple(found)


def column_warnings(
    columns: Mapping[str, Any], y: Any = None, *, sensitive: Sequence[str] = (), sources: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return what is suspicious about the features of a model.

    Args:
        columns: name -> (n,) column of text or numbers: what the model reads.
        y: (n,) labels of 0 and 1, NaN where not known.
        sensitive: the sensitive features; one among the columns is an input of the model, which is said.
        sources: columns from which groups were cut, such as an age.

    Example:
        >>> column_warnings({"sex": ["F", "M"]}, sensitive=["sex"])
        ("The model reads 'sex', which is a sensitive feature: people are treated by their group directly.",)
    """
    found = [
        f"The model reads '{name}', which is a sensitive feature: people are treated by their group directly."
        for name in columns
        if name in sensitive
    ]
    found += [
        f"The model reads '{name}', from which the groups were cut: it knows more of the group than its name."
        for name in columns
        if name in sources
    ]
    label = None if y is None else np.asarray(y, dtype=np.float64).reshape(-1)
    for name, values in columns.items():
        array = np.asarray(values)
        if len(array) < _ROWS:
            continue
        found += _about(name, array, label)
    return tuple(found)


def copy_warnings(frame: pd.DataFrame, names: Sequence[str]) -> tuple[str, ...]:
    """Return what is suspicious about rows that stand in a table twice, as a column of identifiers shows.

    Args:
        frame: the rows.
        names: the columns among which identifiers are looked for.

    Example:
        >>> import pandas as pd
        >>> people = pd.DataFrame({"id": range(60), "sex": ["F", "M"] * 30})
        >>> copy_warnings(pd.concat([people, people[:5]]), ["id"])[0][:51]
        "5 rows are copies of others, the identifier 'id' wi"
    """
    copied = int(frame.duplicated().sum())
    if not copied:
        return ()
    once = frame.drop_duplicates()
    found = next((name for name in names if identifies(once[name].to_numpy())), None)
    if found is None:
        return ()
    return (
        f"{copied:,} {'row is a copy of another' if copied == 1 else 'rows are copies of others'}, the identifier "
        f"'{found}' with them: these people count several times, and every interval is too narrow. Drop the copies.",
    )


def identifies(array: Any) -> bool:
    """Return whether a column is different in every row, as an identifier is, and no amount with decimals.

    Example:
        >>> identifies(np.arange(60)), identifies(np.linspace(0.1, 0.9, 60)), identifies(np.array(["a", "b"]))
        (True, False, False)
    """
    if len(array) < _ROWS:
        return False
    numeric = array.dtype.kind in "iuf"
    whole = not numeric or bool((np.nan_to_num(array) == np.round(np.nan_to_num(array))).all())
    return whole and len(np.unique(array.astype(str))) == len(array)


def _about(name: str, array: Any, label: FloatArray | None) -> list[str]:
    if str(name).startswith("Unnamed:"):
        return [f"The column '{name}' has no name: it is mostly the row number of an export, and no feature."]
    if identifies(array):
        return [
            f"The column '{name}' is different in every row: it looks like an identifier, which says nothing about "
            "new people. Leave it out if it is one."
        ]
    if label is None:
        return []
    numeric = array.dtype.kind in "iuf"
    area = _area(array.astype(np.float64), label) if numeric else _area_of_texts(array.astype(str), label)
    if area < PERFECT:
        return []
    return [
        f"The column '{name}' alone tells the outcome (AUC {area:.3f}): it may have been written after the outcome was "
        "known."
    ]


def _area(values: FloatArray, label: FloatArray) -> float:
    """Return the area under the curve of a column of numbers, whichever way it points; 0.5 where it says nothing."""
    there = ~np.isnan(values) & ((label == 0) | (label == 1))
    x, y = values[there], label[there] == 1
    ones, zeros = int(y.sum()), int((~y).sum())
    if not ones or not zeros:
        return 0.5
    distinct, place, count = np.unique(x, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2
    area = (float(rank[place][y].sum()) - ones * (ones + 1) / 2) / (ones * zeros)
    return max(area, 1 - area) if len(distinct) > 1 else 0.5


def _area_of_texts(texts: Any, label: FloatArray) -> float:
    """Return the same for categories, each by its share of label 1; many rare categories say nothing."""
    distinct, place = np.unique(texts, return_inverse=True)
    if len(distinct) > len(texts) / 20:
        return 0.5
    known = (label == 0) | (label == 1)
    count = np.bincount(place[known], minlength=len(distinct))
    ones = np.bincount(place[known], weights=label[known], minlength=len(distinct))
    return _area(np.divide(ones, count, out=np.full(len(distinct), 0.5), where=count > 0)[place], label)
