"""One table of sufficient statistics per cell: the source of every number of an audit.

    sums[name][cell, label, decision] = sum over the rows there of (a number of the row) x (its weight)

A cell is a combination of the categories of all sensitive features and strata, the unknown ones among them. Tables of
chunks, of ranks and of periods add up, groups of any features are sums over cells, and each metric is a function of
such sums.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fairlayer._typing import Category, FloatArray, IntArray
from fairlayer.audit.cells import distinct, read_cells, united
from fairlayer.audit.counting import OWN, count_histogram, count_sums, dense, put_in_order, sparse
from fairlayer.audit.errors import TablesDifferError
from fairlayer.audit.grouped import ALL, UNKNOWN, Grouped
from fairlayer.audit.ranks import RankedRows
from fairlayer.audit.reading import Task, read_rows
from fairlayer.audit.slots import CLASSES, DECIDED, LABELLED
from fairlayer.errors import MissingSensitiveFeatureError, ParameterError
from fairlayer.groups import Vocabulary

if TYPE_CHECKING:
    from fairlayer.audit.disparities import Disparity
from fairlayer.audit.joining import both, check_alike

__all__ = ["AuditTable", "names_of"]

FORMAT = 1


@dataclass(frozen=True, eq=False)
class AuditTable:
    """Sufficient statistics of predictions, per cell; build one with `AuditTable.of`.

    Args:
        features: names of the sensitive features.
        strata: names of the columns within which groups may be compared.
        categories: the categories of each feature and stratum.
        codes: (cells, columns) the categories of each cell, -1 for unknown.
        sums: name -> (cells, 4 labels, 3 decisions), see `fairlayer.audit.slots`.
        histogram: (cells, 4 labels, bins, 2) weights and weighted scores; None where a score lies outside [0, 1].
        ranks: the labelled rows in the order of their scores, for an exact AUC; None where they were not kept.
        threshold: a score at or above it is a positive decision; None where decisions were given.
        favourable: the decision that is good for a person, 1 or 0.
        min_group_size: groups of fewer rows are named and shown, and take no part in headlines.
        task: what the labels are; None where there are none.
        estimated: the features whose groups were given as probabilities.

    Example:
        >>> table = AuditTable.of(
        ...     scores=[0.9, 0.2, 0.7, 0.4], y=[1, 0, 1, 0], sensitive_features={"sex": ["F", "F", "M", None]}
        ... )
        >>> table
        AuditTable(4 rows in 3 cells of sex; scores, decisions at a score >= 0.5, labels)
        >>> table.values("selection_rate", "sex")
        {'sex=F': 0.5, 'sex=M': 1.0, 'unknown': 0.0}
    """

    features: tuple[str, ...]
    strata: tuple[str, ...]
    categories: tuple[tuple[Category, ...], ...]
    codes: IntArray
    sums: Mapping[str, FloatArray]
    histogram: FloatArray | None
    ranks: RankedRows | None
    threshold: float | None
    favourable: int
    min_group_size: int
    task: Task | None
    estimated: tuple[str, ...]

    @staticmethod
    def of(
        *,
        scores: Any = None,
        decisions: Any = None,
        y: Any = None,
        sensitive_features: Any,
        threshold: float = 0.5,
        sample_weight: Any = None,
        strata: Any = None,
        values: Mapping[str, Any] | None = None,
        task: Task | None = None,
        favourable: int = 1,
        min_group_size: int = 30,
        keep_ranks: bool = True,
        vocabulary: Vocabulary | None = None,
    ) -> AuditTable:
        """Count any predictions, in one pass.

        Args:
            scores: (n,) predictions; probabilities for log loss, Brier score and calibration.
            decisions: (n,) of 0 and 1; by default score >= threshold, and none for a regression.
            y: (n,) labels 0 and 1, or numbers of a regression; NaN or None where a label is not known.
            sensitive_features: a dict of name -> column, or a frame; what is missing is counted as unknown. A column
                (n, k) of probabilities per group counts each row in every group by its share, and is said to be
                estimated.
            threshold: where the decision is made, in units of the score.
            sample_weight: (n,) weights, not negative.
            strata: columns within which the groups may be compared, as sensitive_features.
            values: further numbers per row, by name, for metrics of one's own (`mean_of`).
            task: "classification" or "regression"; read off the labels by default.
            favourable: the decision that is good for a person; 0 where a positive one is a burden.
            min_group_size: groups of fewer rows take no part in headlines.
            keep_ranks: keep the score of each labelled row (32 bytes a row), so that the AUC of every group is exact;
                without them it comes from a histogram of 200 bins, for scores in [0, 1].
            vocabulary: categories known beforehand; by default what is found.

        Raises:
            ParameterError: there are neither scores nor decisions nor values, or a setting is out of range.
            ShapeError, NonFiniteScoresError, LabelValueError, CategoryError: a column cannot be read.
        """
        _check_settings(favourable, min_group_size, values)
        cells = read_cells(sensitive_features, strata, vocabulary)
        rows = read_rows(
            cells.n,
            scores=scores,
            decisions=decisions,
            y=y,
            sample_weight=sample_weight,
            values=values,
            threshold=threshold,
            task=task,
        )
        if cells.estimated:
            rows = rows.take(cells.row, cells.share)
        return AuditTable(
            cells.features,
            cells.strata,
            cells.categories,
            cells.codes,
            count_sums(rows, cells),
            count_histogram(rows, cells) if rows.probabilities else None,
            put_in_order(rows, cells) if keep_ranks else None,
            threshold if rows.cut and rows.decided else None,
            favourable,
            min_group_size,
            rows.task,
            cells.estimated,
        )

    def __post_init__(self) -> None:
        for array in (self.codes, self.histogram, *self.sums.values()):
            if array is not None:
                array.setflags(write=False)

    def __repr__(self) -> str:
        within = f" within {' x '.join(self.strata)}" if self.strata else ""
        return (
            f"AuditTable({self.rows:,.0f} rows in {len(self.codes)} cells of {' x '.join(self.features)}{within}; "
            f"{self.given})"
        )

    @property
    def given(self) -> str:
        """What the table was made of, in words."""
        cut = "" if self.threshold is None else f" at a score >= {self.threshold:g}"
        names = {"scores": "scores", "decisions": f"decisions{cut}", "labels": "labels"}
        return ", ".join(words for name, words in names.items() if name in self.holds) or "values only"

    @property
    def rows(self) -> float:
        """Number of rows, whatever they weigh."""
        return float(self.sums["rows"].sum())

    @property
    def holds(self) -> frozenset[str]:
        """What the table can speak of.

        "scores"; "probabilities" (every score lies in [0, 1]); "order" (ranks or a histogram, for the AUC); "ranks";
        "decisions"; "labels"; "classes" (labels of 0 and 1).
        """
        rows = self.sums["rows"]
        found = {
            "scores": "score" in self.sums,
            "probabilities": self.histogram is not None,
            "order": self.ranks is not None or self.histogram is not None,
            "ranks": self.ranks is not None,
            "decisions": bool(rows[:, :, DECIDED].any()),
            "labels": bool(rows[:, LABELLED].any()),
            "classes": bool(rows[:, CLASSES].any()),
        }
        return frozenset(name for name, there in found.items() if there)

    def by(self, *features: str) -> Grouped:
        """Return the sums of the groups of one feature, of the intersections of several, or of everybody together.

        Only combinations that have a row are groups; `unseen` names the others. A row of which any of the features is
        not known belongs to the group "unknown", which comes last.

        Raises:
            MissingSensitiveFeatureError: the table has no such feature.
        """
        columns = [self._column(name) for name in features]
        if not features:
            return self._grouped((), (ALL,), np.zeros(len(self.codes), dtype=np.int64))
        codes = self.codes[:, columns]
        unknown = (codes < 0).any(axis=1)
        found, group = distinct(codes[~unknown], [len(self.categories[column]) for column in columns])
        index = np.full(len(codes), len(found), dtype=np.int64)
        index[~unknown] = group
        names = [self._name(features, code) for code in found]
        return self._grouped(features, (*names, UNKNOWN) if unknown.any() else tuple(names), index)

    def unseen(self, *features: str) -> tuple[str, ...]:
        """Return the names of the combinations of categories that no row has."""
        seen = set(self.by(*features).names)
        sizes = [range(len(self.categories[self._column(name)])) for name in features]
        names = (self._name(features, code) for code in itertools.product(*sizes))
        return tuple(name for name in names if name not in seen)

    def groupings(self) -> tuple[tuple[str, ...], ...]:
        """Return every combination of the sensitive features, single ones first."""
        sizes = range(1, len(self.features) + 1)
        return tuple(chosen for size in sizes for chosen in itertools.combinations(self.features, size))

    def within(self, **strata: Category) -> AuditTable:
        """Return the part of the table with these categories of features or strata, such as `within(region="north")`.

        Raises:
            MissingSensitiveFeatureError: there is no such column.
            ParameterError: the column has no such category.
        """
        chosen = np.ones(len(self.codes), dtype=bool)
        for name, category in strata.items():
            column = self._column(name)
            if category not in self.categories[column]:
                raise ParameterError(f"'{name}' has no category {category!r}, only {list(self.categories[column])}.")
            chosen &= self.codes[:, column] == self.categories[column].index(category)
        return self._chosen(chosen)

    def values(self, metric: str, by: str | Sequence[str] = ()) -> dict[str, float]:
        """Return a metric of every group, by name; NaN where a group has no row that it could be computed from.

        Raises:
            MetricError: the metric is unknown, or needs what the table does not hold.
        """
        from fairlayer.audit.metrics import measure

        grouped = self.by(*names_of(by))
        return dict(zip(grouped.names, measure(self, metric, grouped).value.tolist(), strict=True))

    def overall(self, metric: str) -> float:
        """Return a metric of all rows together."""
        return self.values(metric)[ALL]

    def disparity(self, metric: str | Sequence[str], by: str | Sequence[str], *, level: float = 0.95) -> Disparity:
        """Return how a metric, or the worst of several, differs between groups: see `fairlayer.audit.Disparity`."""
        from fairlayer.audit.disparities import disparity

        return disparity(self, metric, names_of(by), level=level)

    def metric_frame(self, by: str | Sequence[str], *, control: str | Sequence[str] = ()) -> Any:
        """Return the decisions' metrics as Fairlearn's MetricFrame: see `fairlayer.audit.frames`."""
        from fairlayer.audit.frames import metric_frame

        return metric_frame(self, names_of(by), names_of(control))

    def coarse(self) -> AuditTable:
        """Return the table without the scores of single rows: the AUC is then that of the histogram."""
        return replace(self, ranks=None)

    def __add__(self, other: AuditTable) -> AuditTable:
        if not isinstance(other, AuditTable):
            return NotImplemented
        check_alike(self, other)
        pairs = [united(a, b) for a, b in zip(self.categories, other.categories, strict=True)]
        theirs = np.column_stack([code[column] for (_, code), column in zip(pairs, other.codes.T, strict=True)])
        categories = tuple(both for both, _ in pairs)
        codes, index = distinct(np.concatenate([self.codes, theirs]), [len(known) for known in categories])
        mine, others = index[: len(self.codes)], index[len(self.codes) :]

        def added(a: FloatArray, b: FloatArray) -> FloatArray:
            sums = np.zeros((len(codes), *a.shape[1:]))
            sums[mine] += a
            sums[others] += b
            return sums

        return replace(
            self,
            categories=categories,
            codes=codes,
            sums={name: added(value, other.sums[name]) for name, value in self.sums.items()},
            histogram=both(self.histogram, other.histogram, added),
            ranks=both(self.ranks, other.ranks, lambda a, b: a.joined(b, mine, others)),
            threshold=self.threshold if "decisions" in self.holds else other.threshold,
            task=self.task or other.task,
            estimated=tuple(dict.fromkeys(self.estimated + other.estimated)),
        )

    def __radd__(self, other: object) -> AuditTable:
        """Let `sum(tables)` begin with its 0."""
        return self if other == 0 else NotImplemented

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON: sums and histograms only, no row (the AUC is then the histogram's)."""
        return {
            "format": FORMAT,
            "features": list(self.features),
            "strata": list(self.strata),
            "categories": [list(known) for known in self.categories],
            "codes": self.codes.tolist(),
            "sums": {name: value.tolist() for name, value in self.sums.items()},
            "histogram": None if self.histogram is None else sparse(self.histogram),
            "threshold": self.threshold,
            "favourable": self.favourable,
            "min_group_size": self.min_group_size,
            "task": self.task,
            "estimated": list(self.estimated),
        }

    @staticmethod
    def from_dict(held: Mapping[str, Any]) -> AuditTable:
        """Rebuild what `to_dict` wrote.

        Raises:
            TablesDifferError: it was written in another format.
        """
        if held.get("format") != FORMAT:
            raise TablesDifferError(
                f"this reads tables of format {FORMAT}, but was given format {held.get('format')!r}. Write the table "
                "again with the version of fairlayer that reads it."
            )
        codes = np.array(held["codes"], dtype=np.int64).reshape(-1, len(held["categories"]))
        return AuditTable(
            tuple(held["features"]),
            tuple(held["strata"]),
            tuple(tuple(known) for known in held["categories"]),
            codes,
            {name: np.array(value, dtype=np.float64) for name, value in held["sums"].items()},
            None if held["histogram"] is None else dense(held["histogram"], len(codes)),
            None,
            held["threshold"],
            held["favourable"],
            held["min_group_size"],
            held["task"],
            tuple(held["estimated"]),
        )

    def _column(self, name: str) -> int:
        names = self.features + self.strata
        if name not in names:
            raise MissingSensitiveFeatureError(
                f"this table has no feature '{name}', only {', '.join(map(repr, names))}. Give it in "
                "sensitive_features= or strata= when the table is made."
            )
        return names.index(name)

    def _name(self, features: Sequence[str], code: Sequence[int] | IntArray) -> str:
        known = [self.categories[self._column(name)] for name in features]
        return " & ".join(f"{name}={k[c]}" for name, k, c in zip(features, known, code, strict=True))

    def _grouped(self, by: tuple[str, ...], names: tuple[str, ...], index: IntArray) -> Grouped:
        return Grouped(by, names, self.sums, index, self.histogram, self.ranks)

    def _chosen(self, cells: Any) -> AuditTable:
        new = np.cumsum(cells) - 1
        ranks = self.ranks
        if ranks is not None:
            kept = cells[ranks.cells]
            ranks = RankedRows(ranks.scores[kept], new[ranks.cells[kept]], ranks.positive[kept], ranks.weights[kept])
        return replace(
            self,
            codes=self.codes[cells],
            sums={name: value[cells] for name, value in self.sums.items()},
            histogram=None if self.histogram is None else self.histogram[cells],
            ranks=ranks,
        )


def names_of(by: str | Sequence[str]) -> tuple[str, ...]:
    """Return one name or several as a tuple."""
    return (by,) if isinstance(by, str) else tuple(by)


def _check_settings(favourable: int, min_group_size: int, values: Mapping[str, Any] | None) -> None:
    if favourable not in (0, 1):
        raise ParameterError(f"favourable is the decision that is good for a person, 0 or 1, not {favourable!r}.")
    if min_group_size < 0:
        raise ParameterError(f"min_group_size must not be negative, but is {min_group_size}.")
    taken = [name for name in values or {} if name.removesuffix("_squares").removesuffix("_fourths") in OWN]
    if taken:
        raise ParameterError(f"the names {taken} are those of the table's own sums; call the values otherwise.")
