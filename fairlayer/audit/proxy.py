"""What the other columns tell about the group: so what leaving the group out does not do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairlayer._typing import Category, FloatArray, IntArray
from fairlayer.audit.errors import MetricError
from fairlayer.errors import NonFiniteScoresError, ParameterError, ShapeError, require
from fairlayer.groups import read_sensitive_features

__all__ = ["Proxies", "Proxy", "proxies"]

_TREES, _LEAF = 30, 5  # of the forest that guesses a group: light, since every column is left out once
_FOLDS = 3
_LOW, _HIGH = 0.6, 0.75  # areas under the curve below, and above, which the risk is called low, and high


@dataclass(frozen=True)
class Proxy:
    """What one column tells about the group.

    Args:
        column: its name.
        correlation: the correlation ratio: the root of the share of the column's variance between groups (for two
            groups, the size of Pearson's correlation); for a column of categories, Cramer's V.
        mutual_information: the mutual information, in nats; it is at most the entropy of the groups.
        auc: area under the curve for telling the group from this column alone, the mean over groups against the rest,
            cross-validated; 0.5 tells nothing.
        auc_without: the same from all columns but this one.
        risk: "low" (auc below 0.6), "middle", or "high" (0.75 and more).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> sex = np.repeat(["F", "M"], 200)
        >>> found = proxies({"height": rng.normal(170 + 12 * (sex == "M"), 7), "noise": rng.random(400)}, {"sex": sex})
        >>> [(proxy.column, proxy.risk, proxy.auc > 0.8) for proxy in found.columns]
        [('height', 'high', True), ('noise', 'low', False)]
    """

    column: str
    correlation: float
    mutual_information: float
    auc: float
    auc_without: float
    risk: str


@dataclass(frozen=True)
class Proxies:
    """What the columns tell about the group, the most telling ones first.

    Args:
        group: the name of the sensitive feature.
        columns: one entry per column.
        auc: area under the curve for telling the group from all columns together.
        rows: the rows with a known group.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> sex = np.repeat(["F", "M"], 200)
        >>> found = proxies({"height": rng.normal(170 + 12 * (sex == "M"), 7), "noise": rng.random(400)}, {"sex": sex})
        >>> found.group, found.rows, found.columns[0].column
        ('sex', 400, 'height')
    """

    group: str
    columns: tuple[Proxy, ...]
    auc: float
    rows: int

    def sentence(self) -> str:
        """Return what leaving the group out of the model's inputs does not do."""
        if self.auc < _LOW:
            return f"The other columns tell little about '{self.group}' (AUC {self.auc:.2f}; 0.5 is nothing)."
        names = ", ".join(f"'{proxy.column}'" for proxy in self.columns if proxy.risk == "high")
        alone = f" {names} alone tells much." if names else ""
        return (
            f"Leaving '{self.group}' out of the inputs does not hide it: the other columns tell it with an AUC of "
            f"{self.auc:.2f} (0.5 is nothing, 1 is everything).{alone}"
        )


def proxies(columns: Any, sensitive: Mapping[str, Any], *, seed: int = 0) -> Proxies:
    """Return how far each column, and all together, tell the group.

    Columns of text are categories; numbers are taken as they are, and may be missing.

    Args:
        columns: a frame, or a dict of name -> column, without the sensitive feature.
        sensitive: one sensitive feature, {name: column}; rows of an unknown group are left out.
        seed: the seed of the folds.

    Raises:
        ParameterError: not exactly one sensitive feature, no column, or the feature among the columns.
        ShapeError: the lengths differ.
        MetricError: fewer than two groups, or a group with fewer rows than folds.
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> sex = np.repeat(["F", "M"], 200)
        >>> found = proxies({"height": rng.normal(170 + 12 * (sex == "M"), 7), "noise": rng.random(400)}, {"sex": sex})
        >>> [(proxy.column, proxy.risk) for proxy in found.columns]
        [('height', 'high'), ('noise', 'low')]
    """
    name, codes, categories = _group(sensitive)
    read = {str(column): _column(values) for column, values in _named(columns)}
    if not read or name in read:
        raise ParameterError(f"give the other columns, without '{name}' among them; given: {list(read) or 'none'}.")
    wrong = {column: len(values) for column, values in read.items() if len(values) != len(codes)}
    if wrong:
        raise ShapeError(f"columns must have one entry per row, {len(codes)} as '{name}' has, but have {wrong}.")
    known = codes >= 0
    group = codes[known]
    _check_groups(name, group, categories)
    parts = {column: values[known] for column, values in read.items()}
    ready = {column: _encoded(values) for column, values in parts.items()}
    found = [_proxy(column, parts[column], ready, group, seed) for column in ready]
    found.sort(key=lambda proxy: -proxy.auc)
    return Proxies(name, tuple(found), _area(np.column_stack(list(ready.values())), group, seed), len(group))


def _proxy(column: str, values: Any, ready: Mapping[str, FloatArray], group: IntArray, seed: int) -> Proxy:
    selection = require("sklearn.feature_selection", "audit")
    encoded = ready[column]
    discrete = values.dtype == object
    filled = np.where(np.isnan(encoded), np.nanmean(encoded), encoded)[:, None]
    information = selection.mutual_info_classif(filled, group, discrete_features=discrete, random_state=seed)
    alone = _area(encoded[:, None], group, seed)
    others = [other for name, other in ready.items() if name != column]
    without = _area(np.column_stack(others), group, seed) if others else 0.5
    risk = "low" if alone < _LOW else "high" if alone >= _HIGH else "middle"
    strength = _cramers_v(encoded, group) if discrete else _correlation_ratio(encoded, group)
    return Proxy(column, strength, float(information[0]), alone, without, risk)


def _group(sensitive: Mapping[str, Any]) -> tuple[str, IntArray, tuple[Category, ...]]:
    groups = read_sensitive_features(sensitive)
    if len(groups.names) != 1:
        raise ParameterError(f"proxies are those of one sensitive feature, but {len(groups.names)} were given.")
    column = groups.column(groups.names[0])
    if column.codes is None:
        raise ParameterError(f"'{column.name}' is given as probabilities; proxies need categories.")
    return column.name, column.codes, column.categories


def _check_groups(name: str, group: IntArray, categories: tuple[Category, ...]) -> None:
    counts = np.bincount(group, minlength=len(categories))
    if len(counts) < 2 or counts.min() < _FOLDS:
        rows = dict(zip(map(str, categories), counts.tolist(), strict=True))
        raise MetricError(
            f"to tell the groups of '{name}' takes two or more of them, each with {_FOLDS} rows or more, but there are "
            f"{rows}. Leave the rarest out, or join them."
        )


def _named(columns: Any) -> list[tuple[Any, Any]]:
    if isinstance(columns, Mapping):
        return list(columns.items())
    if hasattr(columns, "columns"):
        return [(name, columns[name]) for name in columns.columns]
    raise ShapeError(f"columns must be a frame or a dict of name -> column, not {type(columns).__name__}.")


def _column(values: Any) -> Any:
    """Return float64 numbers, or objects for anything that is not a number."""
    array = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
    if array.ndim != 1:
        raise ShapeError(f"a column must have shape (n,), but one has {array.shape}.")
    if array.dtype.kind in "biuf":
        array = array.astype(np.float64)
        if np.isinf(array).any():
            raise NonFiniteScoresError("a column holds infinity. Use NaN for a number that is missing.")
        return array
    return array.astype(object)


def _encoded(values: Any) -> FloatArray:
    """Return categories as codes, in an order that says nothing; what is missing is a category of its own."""
    if values.dtype != object:
        numbers: FloatArray = np.zeros_like(values) if np.isnan(values).all() else values
        return numbers
    _, codes = np.unique(np.array([str(value) for value in values]), return_inverse=True)
    return codes.astype(np.float64).reshape(-1)


def _area(X: FloatArray, group: IntArray, seed: int) -> float:
    """Return the mean area over groups against the rest, of trees that have not seen the rows."""
    ensemble, selection = require("sklearn.ensemble", "audit"), require("sklearn.model_selection", "audit")
    metrics = require("sklearn.metrics", "audit")
    areas = []
    for seen, unseen in selection.StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(X, group):
        trees = ensemble.ExtraTreesClassifier(_TREES, min_samples_leaf=_LEAF, max_features=None, random_state=seed)
        share = trees.fit(X[seen], group[seen]).predict_proba(X[unseen])
        areas += [metrics.roc_auc_score(group[unseen] == code, share[:, code]) for code in range(share.shape[1])]
    return float(np.mean(areas))


def _correlation_ratio(values: FloatArray, group: IntArray) -> float:
    """Return the root of (variance between groups) / (variance)."""
    there = ~np.isnan(values)
    values, group = values[there], group[there]
    if not len(values) or not np.ptp(values):
        return 0.0
    counts = np.bincount(group)
    means = np.bincount(group, weights=values) / np.maximum(counts, 1)
    between = (counts * (means - values.mean()) ** 2).sum()
    return math.sqrt(float(between / ((values - values.mean()) ** 2).sum()))


def _cramers_v(codes: FloatArray, group: IntArray) -> float:
    """Return the root of chi2 / (n (min(rows, columns) - 1)) of the table of category by group."""
    category = codes.astype(np.int64)
    table = np.zeros((category.max() + 1, group.max() + 1))
    np.add.at(table, (category, group), 1.0)
    smaller = min(table.shape) - 1
    if not smaller:
        return 0.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / table.sum()
    return math.sqrt(float(((table - expected) ** 2 / expected).sum() / table.sum() / smaller))
