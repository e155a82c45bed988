"""What a constraint may look at: the groups, labels and raw scores of one batch, served as means."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np

from fairlayer._rows import GroupedRows
from fairlayer._typing import FloatArray, IntArray
from fairlayer.collective import Ranks
from fairlayer.constraints.means import GroupMeans
from fairlayer.errors import LabelValueError, MissingLabelsError
from fairlayer.groups import EncodedFeature, Groups

__all__ = ["Batch"]


@dataclass(slots=True)
class Batch:
    """Groups, and what is known of labels and scores, of `n` samples.

    Args:
        groups: encoded sensitive features.
        n: number of samples.
        labels: true labels (n,), or None.
        label_probabilities: estimates of the labels (n,), used as soft weights where labels are None.
        raw_scores: gives the raw scores (n,), for constraints that bin by score.
        weights: how many samples each row stands for (n,); None for one each.
        ranks: the processes that each hold a share of the batch; None where all of it is here.
        column: which column of the scores it is about.
        label_names: how cells call label 0 and label 1, for a class the others and itself.
        problems: where one batch holds several problems, the problem of each sample, (n,), -1 for none. Every group is
            then one of each problem.

    Example:
        >>> from fairlayer.groups import read_sensitive_features
        >>> batch = Batch(read_sensitive_features({"sex": ["F", "F", "M"]}), 3)
        >>> means = batch.means(("sex",))
        >>> means.names, means.counts.tolist()
        (('sex=F', 'sex=M'), [2.0, 1.0])
    """

    groups: Groups
    n: int
    labels: FloatArray | None = None
    label_probabilities: FloatArray | None = None
    raw_scores: Callable[[], FloatArray] | None = None
    weights: FloatArray | None = None
    ranks: Ranks | None = None
    column: int = 0
    label_names: tuple[str, str] = ("y=0", "y=1")
    problems: IntArray | None = None
    _cache: dict[Hashable, GroupMeans] = field(default_factory=dict, repr=False)

    def of_column(
        self,
        column: int,
        labels: FloatArray | None,
        label_probabilities: FloatArray | None,
        raw_scores: Callable[[], FloatArray],
        *,
        one_class: bool = False,
    ) -> Batch:
        """Return the batch as another column of the scores sees it; what does not depend on labels is shared.

        `one_class`: the column is that of a class, and its labels say whether a sample is of that class.
        """
        shared = replace(self, labels=labels, label_probabilities=label_probabilities, raw_scores=raw_scores)
        shared.column, shared._cache = column, self._cache
        if one_class:
            shared.label_names = (f"y not {column}", f"y={column}")
        return shared

    def total(self, sums: FloatArray) -> FloatArray:
        """Return sums over these samples as sums over all samples of the batch, wherever they are.

        Every process must ask for the same sums in the same order.
        """
        return sums if self.ranks is None else self.ranks.total(sums)

    def means(self, on: tuple[str, ...]) -> GroupMeans:
        """Return the mean prediction of each group (intersection, for several names)."""
        key = ("groups", on)
        return self._cached(key, lambda: self._build(key, on, _everyone()))

    def means_by_label(self, on: tuple[str, ...], asked_by: str) -> GroupMeans:
        """Return the mean prediction of each group within label 0 (stratum 0) and label 1 (stratum 1).

        Without true labels a sample counts in stratum 1 with its label probability, in stratum 0 with the rest.
        """
        key = self._of_this_column("label", on)
        return self._cached(key, lambda: self._build(key, on, self._label_stratum(asked_by)))

    def means_given(self, on: tuple[str, ...], given: tuple[str, ...]) -> GroupMeans:
        """Return the mean prediction of each group within each stratum of the features `given`."""
        key = ("given", on, given)
        return self._cached(key, lambda: self._build(key, on, self._columns(given)))

    def means_by_bin(self, on: tuple[str, ...], edges: FloatArray) -> GroupMeans:
        """Return the mean prediction of each group within each bin of the raw score."""
        key = self._of_this_column("bin", on, edges.tobytes())
        return self._cached(key, lambda: self._build(key, on, self._score_bins(edges)))

    def rows(
        self, key: Hashable, names: tuple[str, ...], weights: FloatArray, counts: FloatArray | None = None
    ) -> GroupMeans:
        """Return a measure given by its weights (rows, n): row r stands for `weights[r] @ predictions`.

        Where samples have weights of their own, each counts that often: `weights[r] @ (sample_weights * predictions)`.

        A row whose `counts` entry is 0 says nothing; by default each row counts all samples. Where the batch is
        spread over processes, the weights are those of the samples here, columns of the whole rows.
        """
        weights = np.ascontiguousarray(weights, dtype=np.float64)
        samples = float(self.n if self.weights is None else self.weights.sum())
        counts = self.total(np.full(len(weights), samples)) if counts is None else counts
        return GroupMeans((key, id(weights)), names, ("",), counts, weights=weights, sample_weights=self.weights)

    @property
    def score_edges(self) -> tuple[FloatArray, ...]:
        """Edges of the bins that raw scores have been asked for in."""
        edges = dict.fromkeys(key[2] for key in self._cache if isinstance(key, tuple) and key[0] == "bin")
        return tuple(np.frombuffer(each) for each in edges)

    def label_estimates(self, asked_by: str, *, binary: bool = True) -> FloatArray:
        """Return true labels, or their estimates where there are none.

        Raises:
            MissingLabelsError: there are neither.
            LabelValueError: `binary`, and a label is not 0 or 1, or an estimate is outside [0, 1].
        """
        if self.labels is not None:
            if binary and not np.isin(self.labels, (0.0, 1.0)).all():
                odd = self.labels[~np.isin(self.labels, (0.0, 1.0))][:3].tolist()
                raise LabelValueError(
                    f"{asked_by} needs labels 0 or 1, but y holds {odd}. "
                    "Recode y (for example `(y == positive).float()`), or use a constraint for regression."
                )
            return self.labels
        if self.label_probabilities is not None:
            low, high = (float(end(self.label_probabilities, initial=0.5)) for end in (np.min, np.max))
            if binary and not (low >= 0.0 and high <= 1.0):
                raise LabelValueError(
                    f"{asked_by} needs label estimates in [0, 1], but they range from {low:g} to {high:g}. "
                    "In evaluation the raw scores stand in: if those are not probabilities, pass label_probabilities= "
                    "(for example a sigmoid of the logits)."
                )
            return self.label_probabilities
        raise MissingLabelsError(
            f"{asked_by} looks at labels, but no y was given. Pass y=labels in training; where there are none, "
            "pass label_probabilities= (estimates in [0, 1])."
        )

    def label_means(self, on: tuple[str, ...], asked_by: str) -> FloatArray:
        """Return the mean label (or label estimate) of each group of `means(on)`, 0 for an empty group."""
        labels = self.label_estimates(asked_by, binary=False)
        return self.means(on).of(labels, total=self.total)

    def label_means_by_bin(self, on: tuple[str, ...], edges: FloatArray, asked_by: str) -> FloatArray:
        """Return the mean label of each row of `means_by_bin(on, edges)`, 0 for an empty row."""
        labels = self.label_estimates(asked_by, binary=False)
        return self.means_by_bin(on, edges).of(labels, total=self.total)

    def means_of(self, means: GroupMeans, values: FloatArray) -> FloatArray:
        """Return the measure of any values in place of the predictions, over all samples of the batch."""
        return means.of(values, total=self.total)

    def _of_this_column(self, *key: Hashable) -> tuple[Hashable, ...]:
        """Return the key of a measure that depends on labels or scores, which each column has its own of."""
        return (*key, self.column) if self.column else key

    def _cached(self, key: Hashable, build: Callable[[], GroupMeans]) -> GroupMeans:
        if key not in self._cache:
            self._cache[key] = build()
        return self._cache[key]

    def _label_stratum(self, asked_by: str) -> _Split:
        labels = self.label_estimates(asked_by)
        names = self.label_names
        if self.labels is not None:
            return _Split(names, codes=labels.astype(np.int64))
        return _Split(names, membership=np.stack([1.0 - labels, labels]).T)

    def _score_bins(self, edges: FloatArray) -> _Split:
        assert self.raw_scores is not None
        bins = np.clip(np.searchsorted(edges, self.raw_scores(), side="right") - 1, 0, len(edges) - 2)
        names = tuple(f"score in [{a:g}, {b:g})" for a, b in pairwise(edges))
        return _Split(names, codes=bins.astype(np.int64))

    def _columns(self, names: tuple[str, ...]) -> _Split:
        split = _from_column(self.groups.column(names[0]))
        for name in names[1:]:
            split = _cross(split, _from_column(self.groups.column(name)))
        return split

    def _build(self, key: Hashable, on: tuple[str, ...], strata: _Split) -> GroupMeans:
        groups = self._columns(on) if self.problems is None else _of_problems(self.problems, self._columns(on))
        k = len(groups.names) * len(strata.names)
        if groups.codes is not None and strata.membership is not None:
            return self._soft_strata(key, groups, strata)
        both = groups if strata.names == ("",) else _cross(groups, strata)
        if both.codes is not None:
            known = both.counts if self.weights is None else None
            counts = self.total(_count(both.codes, k, self.weights) if known is None else known)
            return GroupMeans(key, groups.names, strata.names, counts, codes=both.codes, sample_weights=self.weights)
        assert both.membership is not None
        membership = both.membership if self.weights is None else both.membership * self.weights[:, None]
        counts = self.total(membership.sum(axis=0))
        weights = both.membership.T / _divisors(counts)[:, None]
        rows = np.ascontiguousarray(weights)
        return GroupMeans(key, groups.names, strata.names, counts, weights=rows, sample_weights=self.weights)

    def _soft_strata(self, key: Hashable, groups: _Split, strata: _Split) -> GroupMeans:
        """Return hard groups within soft strata; whatever the groups, only the strata are as long as the batch."""
        assert groups.codes is not None
        assert strata.membership is not None
        size = len(groups.names) * len(strata.names)
        membership = np.ascontiguousarray(strata.membership.T)
        each = np.ones(self.n) if self.weights is None else self.weights
        counts = self.total(np.asarray(GroupedRows(groups.codes, membership, np.ones(size)) @ each))
        rows = GroupedRows(groups.codes, membership, _divisors(counts))
        return GroupMeans(key, groups.names, strata.names, counts, weights=rows, sample_weights=self.weights)


def _divisors(counts: FloatArray) -> FloatArray:
    """Return what sums are divided by to be means; infinity for groups of no weight, whose means are then 0."""
    return np.where(counts > np.finfo(float).tiny, counts, np.inf)


class _Split(NamedTuple):
    """A partition of the samples, hard (codes, -1 outside) or soft (membership)."""

    names: tuple[str, ...]
    codes: IntArray | None = None
    membership: FloatArray | None = None  # (n, k)
    counts: FloatArray | None = None  # (k,), where they are known

    def as_membership(self) -> FloatArray:
        if self.membership is not None:
            return self.membership
        assert self.codes is not None
        return np.eye(len(self.names) + 1)[self.codes][:, :-1]


def _of_problems(problems: IntArray, groups: _Split) -> _Split:
    """Return the groups of each problem, one problem after the other."""
    names = tuple(f"problem {index}" for index in range(int(problems.max(initial=-1)) + 1))
    return _cross(_Split(names, codes=problems), groups)


def _everyone() -> _Split:
    """Return one stratum of all samples; `_build` does not cross with it."""
    return _Split(("",))


def _count(codes: IntArray, k: int, weights: FloatArray | None) -> FloatArray:
    return np.bincount(codes + 1, weights=weights, minlength=k + 1)[1:].astype(np.float64)


def _from_column(column: EncodedFeature) -> _Split:
    return _Split(column.labels, column.codes, column.membership, column.counts)


def _cross(first: _Split, second: _Split) -> _Split:
    names = tuple(f"{a} & {b}" for a, b in product(first.names, second.names))
    if first.codes is not None and second.codes is not None:
        codes = first.codes * len(second.names) + second.codes
        return _Split(names, codes=np.where((first.codes < 0) | (second.codes < 0), -1, codes))
    both = first.as_membership()[:, :, None] * second.as_membership()[:, None, :]
    return _Split(names, membership=both.reshape(len(both), len(names)))
