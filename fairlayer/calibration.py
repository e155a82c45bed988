"""Calibrators per group: scores -> probabilities of label 1 that are right on average within each group.

Label-based constraints, decisions and audits read scores as probabilities. A score that means another thing in one
group than in another misleads all of them, and the way out is an estimate fitted to validation rows, group by group.
The fitting is scikit-learn's; what is kept is plain numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fairlayer._keywords import explain_public
from fairlayer._typing import Category, FloatArray
from fairlayer.edge import as_score_tensor, check_choice, read_features, read_per_sample
from fairlayer.errors import EmptyBatchError, LabelValueError, ShapeError, require
from fairlayer.groups import Groups, cell_name

__all__ = ["CalibratedGroup", "GroupCalibrator"]

METHODS = ("logistic", "isotonic")
_END = 1e-6


@dataclass(frozen=True)
class CalibratedGroup:
    """The calibrator of one group: p = sigmoid(slope * log-odds + offset), or straight lines between knots.

    Args:
        categories: one per sensitive feature, None for unknown; empty for everyone.
        count: rows that it was fitted to.
        scores: the knots of the isotonic method, rising; empty otherwise.
        probabilities: their probabilities.
        slope: the slope of the logistic method.
        offset: the offset of the logistic method.
    """

    categories: tuple[Category | None, ...]
    count: int
    scores: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()
    slope: float = 1.0
    offset: float = 0.0

    def apply(self, scores: FloatArray) -> FloatArray:
        """Return the probabilities of scores."""
        if self.scores:
            return np.interp(scores, self.scores, self.probabilities)
        return np.asarray(1.0 / (1.0 + np.exp(-(self.slope * _log_odds(scores) + self.offset))))


@dataclass(frozen=True)
class GroupCalibrator:
    """One calibrator per group, and one of everyone for groups with few rows, and for groups not seen.

    Args:
        features: the sensitive features whose combinations are the groups.
        groups: those with enough rows.
        everyone: the calibrator of all others.
        small: names of the groups with too few rows, with their number of rows.

    Example:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> sex, scores = np.tile(["F", "M"], 2000), random.uniform(size=4000)
        >>> y = random.uniform(size=4000) < np.where(sex == "F", scores**2, scores)
        >>> found = GroupCalibrator.fit(scores, y, sensitive_features={"sex": sex}, method="isotonic")
        >>> p = found.apply(np.array([0.6, 0.6]), sensitive_features={"sex": ["F", "M"]}).tolist()
        >>> abs(p[0] - 0.36) < 0.1, abs(p[1] - 0.6) < 0.1
        (True, True)
    """

    features: tuple[str, ...]
    groups: tuple[CalibratedGroup, ...]
    everyone: CalibratedGroup
    small: tuple[tuple[str, int], ...] = ()

    @staticmethod
    def fit(
        scores: Any,
        y: Any,
        *,
        sensitive_features: Any = None,
        on: Sequence[str] | None = None,
        method: str = "logistic",
        min_rows: int = 200,
    ) -> GroupCalibrator:
        """Fit to validation rows, which the model was not trained on.

        Args:
            scores: (n,) in [0, 1].
            y: labels 0 or 1 (n,).
            sensitive_features: a dict of columns, see `project`; None for one calibrator of everyone.
            on: names of the features whose combinations are the groups; all of the dict where none are given.
            method: "logistic" (Platt's, two numbers per group), or "isotonic", for groups of thousands of rows.
            min_rows: a group with fewer rows, or with one label only, is calibrated as everyone is.

        Raises:
            MissingExtraError: scikit-learn is not installed.
            LabelValueError: labels are not 0 and 1, or scores are outside [0, 1].
            EmptyBatchError: there are no rows.

        Source: Platt (1999); Zadrozny, Elkan (2002); per group: Pleiss et al. (2017), section 2.
        """
        check_choice("method", method, METHODS)
        values, labels = _read(scores, y)
        names = tuple(on) if on is not None else tuple(sensitive_features or ())
        cells, cell_of, title = _cells(sensitive_features, names, len(values))
        everyone = _fit_one((), values, labels, method)
        found, small = [], []
        for number, categories in enumerate(cells):
            inside = cell_of == number
            rows = int(inside.sum())
            if rows < min_rows or len(np.unique(labels[inside])) < 2:
                small.append((title(categories), rows))
            else:
                found.append(_fit_one(categories, values[inside], labels[inside], method))
        return GroupCalibrator(names, tuple(found), everyone, tuple(small) if names else ())

    def apply(self, scores: Any, *, sensitive_features: Any = None) -> torch.Tensor:
        """Return probabilities of label 1, float64, in the shape of the scores.

        Raises:
            LabelValueError: scores are outside [0, 1].
            MissingSensitiveFeatureError: a feature is missing.
        """
        tensor = as_score_tensor(scores)
        values = _probabilities(tensor)
        cells, cell_of, _ = _cells(sensitive_features, self.features, len(values))
        known = {group.categories: group for group in self.groups}
        found = np.empty(len(values))
        for number, categories in enumerate(cells):
            inside = cell_of == number
            found[inside] = known.get(categories, self.everyone).apply(values[inside])
        return torch.from_numpy(found).reshape(tensor.shape)

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers that fit into JSON."""
        return {
            "features": list(self.features),
            "groups": [_plain(group) for group in self.groups],
            "everyone": _plain(self.everyone),
            "small": [list(pair) for pair in self.small],
        }

    @staticmethod
    def from_dict(state: Mapping[str, Any]) -> GroupCalibrator:
        """Rebuild what `to_dict` wrote."""
        groups = tuple(_group(each) for each in state["groups"])
        small = tuple((str(name), int(rows)) for name, rows in state["small"])
        return GroupCalibrator(tuple(state["features"]), groups, _group(state["everyone"]), small)


def _fit_one(
    categories: tuple[Category | None, ...], scores: FloatArray, labels: FloatArray, method: str
) -> CalibratedGroup:
    count = len(scores)
    if len(np.unique(labels)) < 2:
        share = float(np.clip(labels.mean(), _END, 1 - _END))
        return CalibratedGroup(categories, count, (0.0, 1.0), (share, share))
    if method == "isotonic":
        isotonic = require("sklearn.isotonic", "train").IsotonicRegression(out_of_bounds="clip", y_min=0.0, y_max=1.0)
        isotonic.fit(scores, labels)
        knots = tuple(map(float, isotonic.X_thresholds_)), tuple(map(float, isotonic.y_thresholds_))
        return CalibratedGroup(categories, count, *knots)
    logistic = require("sklearn.linear_model", "train").LogisticRegression(C=1e6)
    logistic.fit(_log_odds(scores)[:, None], labels)
    return CalibratedGroup(categories, count, slope=float(logistic.coef_[0, 0]), offset=float(logistic.intercept_[0]))


def _read(scores: Any, y: Any) -> tuple[FloatArray, FloatArray]:
    tensor = as_score_tensor(scores)
    values = _probabilities(tensor)
    if not len(values):
        raise EmptyBatchError("there are no rows to fit a calibrator to.")
    labels = read_per_sample("y", y, tuple(tensor.shape))
    if labels is None or not np.isin(labels, (0.0, 1.0)).all():
        raise LabelValueError("a calibrator is fitted to labels 0 and 1; give y with one of them per row.")
    return values, labels[:, 0]


def _probabilities(tensor: torch.Tensor) -> FloatArray:
    if tensor.ndim not in (1, 2) or tuple(tensor.shape[1:]) not in ((), (1,)):
        raise ShapeError(f"scores must have shape (n,) or (n, 1), but have {tuple(tensor.shape)}.")
    values: FloatArray = tensor.detach().double().cpu().reshape(-1).numpy()
    if len(values) and not (values.min() >= 0.0 and values.max() <= 1.0):
        raise LabelValueError(
            f"scores are read as probabilities, but range from {values.min():g} to {values.max():g}. Give the sigmoid "
            "of log-odds."
        )
    return values


def _cells(sensitive_features: Any, names: tuple[str, ...], n: int) -> Any:
    """Return the groups as categories, the number of each row's, and what names one."""
    if not names:
        return [()], np.zeros(n, dtype=np.int64), lambda categories: "everyone"
    groups: Groups = read_features(sensitive_features, names, n)
    columns = [groups.column(name) for name in names]
    codes = [column.codes for column in columns if column.codes is not None]
    if len(codes) < len(columns):
        raise ShapeError("a calibrator needs one group per row, but a sensitive feature is a soft membership.")
    table, cell_of = np.unique(np.stack(codes, axis=1), axis=0, return_inverse=True)
    cells = [
        tuple(None if k < 0 else column.categories[k] for k, column in zip(row, columns, strict=True))
        for row in table.tolist()
    ]
    words = [column.categories for column in columns]

    def title(categories: tuple[Category | None, ...]) -> str:
        places = [-1 if c is None else known.index(c) for c, known in zip(categories, words, strict=True)]
        return cell_name(names, words, places)

    return cells, np.asarray(cell_of).reshape(-1), title


def _log_odds(scores: FloatArray) -> FloatArray:
    inside = np.clip(scores, _END, 1.0 - _END)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def _plain(group: CalibratedGroup) -> dict[str, Any]:
    return {
        "categories": list(group.categories),
        "count": group.count,
        "scores": list(group.scores),
        "probabilities": list(group.probabilities),
        "slope": group.slope,
        "offset": group.offset,
    }


def _group(state: Mapping[str, Any]) -> CalibratedGroup:
    return CalibratedGroup(
        tuple(state["categories"]),
        int(state["count"]),
        tuple(map(float, state["scores"])),
        tuple(map(float, state["probabilities"])),
        float(state["slope"]),
        float(state["offset"]),
    )


explain_public(__name__)
