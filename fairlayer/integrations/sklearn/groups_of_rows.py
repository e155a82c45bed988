"""The sensitive features of the rows of a table: those given, or the table's own columns of these names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairlayer.constraints import Constraint
from fairlayer.edge import feature_names
from fairlayer.errors import MissingSensitiveFeatureError, ShapeError

__all__ = ["check_rows", "rows_features", "without_columns"]


def rows_features(owner: str, constraints: Sequence[Constraint], X: Any, n: int, given: Any) -> Any:
    """Return the sensitive features of the n rows of X.

    Raises:
        MissingSensitiveFeatureError: none were given, and X has no such columns.
        ShapeError: see `check_rows`.
    """
    if given is None:
        return _own_columns(owner, feature_names(constraints), X)
    check_rows(owner, n, given)
    return given


def check_rows(owner: str, n: int, given: Any) -> None:
    """Refuse a dict or a frame of another length than n, as a dict has where a search split X and not the dict.

    Raises:
        ShapeError: such a dict, or such a frame.
    """
    other = {name: length for name, length in _lengths(given).items() if length != n}
    if other:
        raise ShapeError(
            f"{owner} was given {n} rows, but sensitive_features has columns of other lengths: {other}. "
            "GridSearchCV and cross_validate split frames and arrays along with X, and a dict only where metadata "
            "is routed straight to this estimator and the columns are of one length. Else they hand it over whole: "
            "pass pandas.DataFrame(sensitive_features)."
        )


def _lengths(given: Any) -> dict[str, int]:
    """Return the length of each column of a dict or a frame, of whichever library; of anything else nothing."""
    if isinstance(given, Mapping):
        return {str(name): len(column) for name, column in given.items() if _is_column(column)}
    shape = getattr(given, "shape", None)
    if not hasattr(given, "columns") or not isinstance(shape, tuple):
        return {}
    names = getattr(given, "column_names", given.columns)  # a table of Arrow has its columns there, and these names
    return {str(name): int(shape[0]) for name in names}


def _is_column(given: Any) -> bool:
    """Return whether something has entries in an order; what has none is refused by name where it is read."""
    unordered = isinstance(given, set | frozenset | str | bytes | Mapping)
    return hasattr(given, "__len__") and not unordered and getattr(given, "ndim", 1) >= 1


def without_columns(constraints: Sequence[Constraint], X: Any) -> Any:
    """Return a frame without the columns that the constraints name; anything else as it is."""
    names = [name for name in feature_names(constraints) if name in _columns(X)]
    return X.drop(columns=names) if names else X


def _own_columns(owner: str, names: Sequence[str], X: Any) -> Any:
    missing = [name for name in names if name not in _columns(X)]
    if missing:
        raise MissingSensitiveFeatureError(
            f"{owner} needs the sensitive features {list(names)}, but none were given and X has no columns {missing}. "
            "Pass sensitive_features=, or make them columns of a frame X. In a pipeline or a search, ask for it: "
            "sklearn.set_config(enable_metadata_routing=True) and set_fit_request, set_predict_request, "
            "set_predict_proba_request and set_score_request(sensitive_features=True)."
        )
    return {name: X[name] for name in names} if names else None


def _columns(X: Any) -> list[str]:
    return [str(name) for name in X.columns] if hasattr(X, "columns") and hasattr(X, "drop") else []
