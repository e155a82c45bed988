"""Individual fairness: people who are alike get predictions that are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fairlayer._arrays import host_float64
from fairlayer._numbers import is_number, is_whole
from fairlayer._rows import SparseRows
from fairlayer._typing import FloatArray, IntArray
from fairlayer.constraints.base import Classes, Constraint, as_names, check_classes, title
from fairlayer.constraints.batch import Batch
from fairlayer.constraints.means import GroupMeans
from fairlayer.constraints.statements import Rows, Statement, Tolerance
from fairlayer.errors import BackendError, ConstraintDefinitionError, ShapeError, require

__all__ = ["LipschitzFairness", "Neighbours"]


class Neighbours(NamedTuple):
    """Pairs of samples at their distance, each pair once."""

    first: IntArray
    second: IntArray
    distance: FloatArray


class LipschitzFairness(Constraint):
    """The predictions of two people differ by no more than a constant times their distance.

        abs(y_i - y_j) <= constant * d(x_i, x_j)          for each pair (i, j) of nearest neighbours, or given

    Args:
        on: the columns that say how alike people are, numeric ones of the same table as the groups: a name, or
            several. A column may itself be a matrix (n, k) of numbers, such as the inputs of the model. Samples with
            an unknown value are in no pair. () where `pairs` are given.
        constant: how much a prediction may change per unit of distance, in prediction units, >= 0.
        neighbours: how many of its nearest neighbours each sample is paired with, at most all others.
        standardise: whether each column is first divided by its standard deviation over the batch, so that columns of
            different units count alike. Columns that are constant count nothing.
        pairs: instead of `on`, pairs of rows of the batch as (first, second, distance), each (e,); or a function of the
            batch (`fairlayer.constraints.Batch`) that returns them. Arrays fix the batch size.
        classes: which columns of scores (n, k) it speaks of, one or several; None for all, each by itself.

    Raises:
        ConstraintDefinitionError: the constant is negative or no plain number, or both columns and pairs are given.
        MissingExtraError: scikit-learn, which finds the neighbours, is not installed.
        ShapeError: at projection, when pairs do not fit the batch.
        BackendError: the batch is spread over processes, or a row of classes is projected on the simplex.

    Source: Dwork et al. (2012), "Fairness through awareness", definition 2.1, over pairs of near neighbours.
    Limits: it bounds pairs of one batch, not people of different batches. Distances decide what it means. It says
        nothing about groups, and can stand against what they ask for; see `docs/individual.md`.

    Example:
        >>> import torch, fairlayer as fl
        >>> alike = fl.LipschitzFairness("income", constant=0.1, neighbours=1, standardise=False)
        >>> fl.project(torch.tensor([0.2, 0.8, 0.9]), [alike], sensitive_features={"income": [1.0, 2.0, 9.0]}).value
        tensor([0.4500, 0.5500, 0.9000])
    """

    needs_labels = False
    streamable = False
    limit_argument = "constant"

    def __init__(
        self,
        on: str | Sequence[str] = (),
        constant: Tolerance = 1.0,
        *,
        neighbours: int = 10,
        standardise: bool = True,
        pairs: Any | Callable[[Batch], Any] = None,
        classes: Classes = None,
    ) -> None:
        self.on = as_names(on) if on or pairs is None else ()
        self.classes = check_classes("LipschitzFairness", classes)
        given = title("LipschitzFairness", self.on, self.classes) if self.on else "LipschitzFairness(pairs)"
        self.name = given
        if self.on and pairs is not None:
            raise ConstraintDefinitionError(
                f"{self.name} was given columns and pairs; give one of them, for either says who is alike."
            )
        self.constant = _check_constant(self.name, constant)
        if not is_whole(neighbours) or neighbours < 1:
            raise ConstraintDefinitionError(
                f"{self.name} was given neighbours={neighbours!r}; give a whole number of 1 or more."
            )
        self.neighbours, self.standardise, self.pairs = int(neighbours), bool(standardise), pairs

    def statements(self, batch: Batch) -> Sequence[Statement]:
        """Return a row per pair: the change per distance is at most the constant; at distance 0 there is none."""
        if batch.ranks is not None:
            raise BackendError(
                f"{self.name} pairs samples of one process, but this batch is spread over several. Use "
                "process_group=None, so that each process holds the pairs of its own samples."
            )
        found = self.neighbours_in(batch)
        apart = found.distance > 0.0
        stated = []
        for which, name, tolerance in ((apart, "change per distance", self.constant), (~apart, "difference", 0.0)):
            if bool(which.any()):
                stated.append(_bounded(batch, self.name, found, which, name, tolerance))
        return stated

    def neighbours_in(self, batch: Batch) -> Neighbours:
        """Return the pairs of a batch, with their distances."""
        if self.pairs is not None:
            given = self.pairs(batch) if callable(self.pairs) else self.pairs
            return _given(self.name, given, batch.n)
        columns = [np.asarray(batch.groups.values(name)).reshape(batch.n, -1) for name in self.on]
        return nearest(np.concatenate(columns, axis=1), self.neighbours, standardise=self.standardise)


def nearest(features: FloatArray, neighbours: int, *, standardise: bool) -> Neighbours:
    """Return each sample with its nearest others, each pair once, at their Euclidean distance.

    Args:
        features: (n, k); rows with a NaN are in no pair.
        neighbours: how many of them, at most all others.
        standardise: whether to divide each column by its standard deviation.
    """
    known = np.flatnonzero(np.isfinite(features).all(axis=1))
    rows = features[known]
    if standardise and len(rows):
        spread = rows.std(axis=0)
        varied = spread > 1e-12 * np.abs(rows).max(axis=0, initial=0.0)
        rows = np.where(varied, (rows - rows.mean(axis=0)) / np.where(varied, spread, 1.0), 0.0)
    k = min(neighbours, len(rows) - 1)
    if k < 1:
        none = np.zeros(0, dtype=np.int64)
        return Neighbours(none, none, np.zeros(0))
    library = require("sklearn.neighbors", "audit")
    place = library.NearestNeighbors(n_neighbors=k).fit(rows).kneighbors(return_distance=False)
    first, second = np.repeat(np.arange(len(rows)), k), place.ravel()
    low, high = np.minimum(first, second), np.maximum(first, second)
    once = np.unique(low * len(rows) + high)
    first, second = once // len(rows), once % len(rows)
    distance = np.sqrt(((rows[first] - rows[second]) ** 2).sum(axis=1))  # exactly 0 for equal rows
    return Neighbours(known[first], known[second], distance)


def _check_constant(owner: str, constant: Any) -> float:
    if not is_number(constant) or constant < 0:
        raise ConstraintDefinitionError(
            f"{owner} was given constant={constant!r}; it must be a finite plain number >= 0, in prediction units per "
            "unit of distance (0 asks for equal predictions of neighbours). It takes no gradient."
        )
    return float(constant)


def _given(owner: str, pairs: Any, n: int) -> Neighbours:
    try:
        first, second, distance = (np.asarray(_host(each)) for each in pairs)
        first, second = first.astype(np.int64), second.astype(np.int64)
        distance = distance.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"{owner} needs pairs as (first, second, distance), but was given {pairs!r}.") from error
    if first.ndim != 1 or not first.shape == second.shape == distance.shape:
        raise ShapeError(
            f"{owner} needs first, second and distance of one length, but they have the shapes {first.shape}, "
            f"{second.shape} and {distance.shape}."
        )
    if len(first) and not (min(first.min(), second.min()) >= 0 and max(first.max(), second.max()) < n):
        raise ShapeError(
            f"{owner} has pairs of the rows {min(first.min(), second.min())} to {max(first.max(), second.max())}, but "
            f"this batch has {n} rows, numbered from 0."
        )
    if not np.isfinite(distance).all() or (distance < 0).any():
        raise ShapeError(f"{owner} has distances that are negative, infinite or NaN.")
    two = first != second
    return Neighbours(first[two], second[two], distance[two])


def _host(values: Any) -> Any:
    return host_float64(values) if hasattr(values, "detach") else values


def _bounded(  # noqa: PLR0917 - a row per pair
    batch: Batch, owner: str, found: Neighbours, which: Any, what: str, tolerance: float
) -> Rows:
    first, second, distance = found.first[which], found.second[which], found.distance[which]
    e = len(first)
    unit = 1.0 / np.where(distance > 0.0, distance, 1.0)
    rows = np.repeat(np.arange(e), 2)
    columns = np.column_stack([first, second]).ravel()
    weights = SparseRows(rows, columns, np.column_stack([unit, -unit]).ravel(), (e, batch.n))
    names = tuple(f"{what} of rows {i} and {j}" for i, j in zip(first.tolist(), second.tolist(), strict=True))
    # A pair is a pair, however many samples its rows stand for: it has no sample weights.
    means = GroupMeans((owner, what, id(weights)), names, ("",), np.full(e, 2.0), weights=weights)
    own = np.arange(e)
    zero = np.zeros(e)
    same: Any = SparseRows(own, own, np.ones(e), (e, e))
    return Rows(means, same, zero, zero, names, tolerance)
