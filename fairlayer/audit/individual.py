"""People beside people like them: consistency, Lipschitz violations, and what a changed group would change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.audit.reading import numbers
from fairlayer.constraints.lipschitz import nearest
from fairlayer.errors import EmptyBatchError, NonFiniteScoresError, ParameterError, ShapeError, require

__all__ = ["Flips", "Violations", "consistency", "flip_test", "lipschitz_violations"]


def consistency(features: Any, predictions: Any, *, neighbours: int = 5, count_own: bool = False) -> float:
    """Return how alike the predictions of alike people are: 1 where each equals the mean of its neighbours.

        1 - mean_i | yhat_i - mean_{j in kNN(i)} yhat_j |

    Args:
        features: (n, k) numbers, scaled so that distances mean something.
        predictions: (n,) scores or decisions.
        neighbours: k, the nearest other rows; a row is not a neighbour of itself.
        count_own: count each row among its own k neighbours, as Zemel et al. and AIF360 (`consistency`) do.

    Raises:
        ShapeError, NonFiniteScoresError: the columns cannot be read.
        ParameterError: there are not more rows than neighbours.

    Source: Zemel et al. (2013), "Learning fair representations", section 4; AIF360, `consistency_score`.

    Example:
        >>> consistency([[0.0], [0.1], [5.0], [5.1]], [1, 1, 0, 0], neighbours=1)
        1.0
    """
    X, y = _read(features, predictions)
    if not 0 < neighbours < len(X):
        raise ParameterError(f"{neighbours} neighbours need more rows than that, and one at least; rows: {len(X)}.")
    library = require("sklearn.neighbors", "audit")
    nearest = (
        library.NearestNeighbors(n_neighbors=neighbours)
        .fit(X)
        .kneighbors(X if count_own else None, return_distance=False)
    )
    return float(1 - np.abs(y - y[nearest].mean(axis=1)).mean())


@dataclass(frozen=True)
class Violations:
    """Pairs of people whose predictions are further apart than their distance allows.

    Args:
        pairs: the pairs looked at.
        violations: how many of them are too far apart.
        largest: the largest |yhat_i - yhat_j| / d(x_i, x_j) of pairs at some distance; 0 where there is none.
        worst: the rows of the pair with the largest excess, () where there is no violation.

    Example:
        >>> found = lipschitz_violations([[0.0], [0.1], [1.0]], [0.2, 0.6, 0.7], constant=1.0)
        >>> found.pairs, found.violations, round(found.share, 3), round(found.largest, 3), found.worst
        (3, 1, 0.333, 4.0, (0, 1))
    """

    pairs: int
    violations: int
    largest: float
    worst: tuple[int, ...]

    @property
    def share(self) -> float:
        """Violations per pair."""
        return self.violations / self.pairs if self.pairs else 0.0


def lipschitz_violations(
    features: Any, scores: Any, *, constant: float, neighbours: int | None = None, rows_at_once: int = 512
) -> Violations:
    """Count the pairs with |yhat_i - yhat_j| > constant * d(x_i, x_j), over all pairs or those of near neighbours.

    Args:
        features: (n, k) numbers, scaled so that Euclidean distances mean something.
        scores: (n,) scores.
        constant: how much a score may change per unit of distance.
        neighbours: None for all pairs; else each row with so many of its nearest others, each pair once, which are the
            pairs that `LipschitzFairness(..., standardise=False)` bounds.
        rows_at_once: how many rows are held against all others at a time: memory, not the result.

    Raises:
        ShapeError, NonFiniteScoresError: the columns cannot be read.
        ParameterError: the constant is negative, or there are no neighbours.

    Source: Dwork et al. (2012), "Fairness through awareness", definition 2.1.

    Example:
        >>> lipschitz_violations([[0.0], [0.1], [1.0]], [0.2, 0.6, 0.7], constant=1.0)
        Violations(pairs=3, violations=1, largest=3.9999999999999996, worst=(0, 1))
    """
    X, y = _read(features, scores)
    if not constant >= 0:
        raise ParameterError(f"the constant is a change of the score per distance, 0 or more, not {constant!r}.")
    if neighbours is not None:
        return _near_violations(X, y, constant, neighbours)
    count, largest, excess = 0, 0.0, 0.0
    worst: tuple[int, ...] = ()
    cdist = require("scipy.spatial.distance", "audit").cdist
    for start in range(0, len(X), rows_at_once):
        part = slice(start, min(start + rows_at_once, len(X)))
        distance = cdist(X[part], X)
        apart = np.abs(y[part, None] - y[None])
        later = np.arange(len(X))[None] > np.arange(part.start, part.stop)[:, None]
        beyond = np.where(later, apart - constant * distance, 0.0)
        count += int((beyond > 1e-12).sum())
        steep = np.divide(apart, distance, out=np.zeros_like(apart), where=later & (distance > 0))
        largest = max(largest, float(steep.max(initial=0.0)))
        if beyond.max(initial=0.0) > max(excess, 1e-12):
            excess = float(beyond.max())
            i, j = np.unravel_index(int(beyond.argmax()), beyond.shape)
            worst = (int(i) + start, int(j))
    return Violations(len(X) * (len(X) - 1) // 2, count, largest, worst)


def _near_violations(X: FloatArray, y: FloatArray, constant: float, neighbours: int) -> Violations:
    if neighbours < 1:
        raise ParameterError(f"neighbours={neighbours!r} makes no pair; give 1 or more, or None for all pairs.")
    near = nearest(X, neighbours, standardise=False)
    apart = np.abs(y[near.first] - y[near.second])
    beyond = apart - constant * near.distance
    steep = np.divide(apart, near.distance, out=np.zeros_like(apart), where=near.distance > 0)
    count = int((beyond > 1e-9).sum())
    row = int(beyond.argmax()) if count else 0
    worst = (int(near.first[row]), int(near.second[row])) if count else ()
    return Violations(len(apart), count, float(steep.max(initial=0.0)), worst)


@dataclass(frozen=True)
class Flips:
    """What a model answers for the same people with another group.

    Args:
        rows: the people asked about.
        changed: how many decisions differ for some other value of the group.
        up: how many of these differ only by becoming positive.
        down: how many of these differ only by becoming negative.
        mean_change: mean over people of the largest absolute change of the score.
        largest_change: the largest one.

    Example:
        >>> import pandas as pd
        >>> people = pd.DataFrame({"sex": ["F", "M", "F"], "income": [0.2, 0.45, 0.7]})
        >>> found = flip_test(lambda frame: frame["income"] + 0.1 * (frame["sex"] == "M"), people, "sex")
        >>> found.rows, found.changed, found.up, found.down, round(found.largest_change, 3)
        (3, 1, 0, 1, 0.1)
    """

    rows: int
    changed: int
    up: int
    down: int
    mean_change: float
    largest_change: float


def flip_test(
    predict: Callable[[Any], Any], features: Any, column: str, *, values: Any = None, threshold: float = 0.5
) -> Flips:
    """Ask a model about everybody again, with each other value in the column of the group, and all else the same.

    It tells what the column itself does. A model without it passes, whatever its other columns tell about the group:
    see `proxies`.

    Args:
        predict: a frame like `features` -> (n,) scores.
        features: a pandas frame with the column.
        column: its name.
        values: the values to be tried; by default all that are in the column.
        threshold: a score at or above it is a positive decision.

    Raises:
        ParameterError: there is no such column, or fewer than two values.
        EmptyBatchError: there are no rows.
        ShapeError, NonFiniteScoresError: the model's answers are not (n,) numbers.

    Example:
        >>> import pandas as pd
        >>> people = pd.DataFrame({"sex": ["F", "M", "F"], "income": [0.2, 0.45, 0.7]})
        >>> flip_test(lambda frame: frame["income"] + 0.1 * (frame["sex"] == "M"), people, "sex").changed
        1
    """
    if column not in features.columns:
        raise ParameterError(f"there is no column '{column}', only {', '.join(map(str, features.columns))}.")
    n = len(features)
    if not n:
        raise EmptyBatchError("a flip test needs at least one row, but the frame has none.")
    tried = list(dict.fromkeys(features[column].tolist() if values is None else values))
    if len(tried) < 2:
        raise ParameterError(f"a flip test needs two values of '{column}' or more, but was given {tried}.")
    before = _answers(predict(features), n)
    answers = []
    for value in tried:
        changed = features.copy()
        changed[column] = np.array([value] * n, dtype=object) if isinstance(value, str) else value
        answers.append(_answers(predict(changed), n))
    after = np.stack(answers)
    decided, others = before >= threshold, after >= threshold
    up, down = (others & ~decided).any(axis=0), (~others & decided).any(axis=0)
    change = np.abs(after - before).max(axis=0)
    return Flips(
        n,
        int((up | down).sum()),
        int((up & ~down).sum()),
        int((down & ~up).sum()),
        float(change.mean()),
        float(change.max()),
    )


def _answers(scores: Any, n: int) -> FloatArray:
    read = numbers("the model's scores", scores, n)
    if not np.isfinite(read).all():
        raise NonFiniteScoresError("the model's scores must be finite, but some are NaN or infinite.")
    return read


def _read(features: Any, predictions: Any) -> tuple[FloatArray, FloatArray]:
    X = np.asarray(features, dtype=np.float64)
    if X.ndim != 2 or not len(X):
        raise ShapeError(f"features must be numbers of shape (n, k) with at least one row, but have shape {X.shape}.")
    y = numbers("predictions", predictions, len(X))
    if not np.isfinite(X).all() or not np.isfinite(y).all():
        raise NonFiniteScoresError("features and predictions must be finite. Fill what is missing, or leave it out.")
    return X, y
