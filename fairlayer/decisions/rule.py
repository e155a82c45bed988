"""Thresholds per cell, fitted once and applied to whoever comes: a value that fits into JSON."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer._typing import Category, FloatArray, IntArray
from fairlayer.constraints import Constraint
from fairlayer.constraints.probe import probed_limit
from fairlayer.decisions.curves import Curve, Partition
from fairlayer.decisions.errors import UnseenCellError
from fairlayer.decisions.expected import ExpectedGap, expected_gap
from fairlayer.decisions.inputs import ACCURACY, as_scores, like, read_scores
from fairlayer.decisions.lottery import FIXED, draw_decisions, offset_of
from fairlayer.decisions.plan import DecisionPlan, make_plan
from fairlayer.decisions.program import Mixture
from fairlayer.decisions.shown import rule_html, rule_text
from fairlayer.edge import Stated, as_constraints, check_row_order, read_features
from fairlayer.errors import CheckpointError, FairlayerWarning
from fairlayer.groups import Groups, Vocabulary, cell_name

__all__ = ["CellRule", "DecisionRule", "rule_of"]

_WORTH_A_WORD = 0.02  # a gap to be expected below this is not warned of, whatever the tolerance


@dataclass(frozen=True)
class CellRule:
    """The thresholds of one cell: select with probability `sum of weights[j] over thresholds[j] <= score`.

    Args:
        categories: one per sensitive feature; None for unknown.
        thresholds: falling; `-inf` selects everybody.
        weights: one per threshold, in (0, 1]; what they lack to 1 selects nobody.
        count: samples in this cell when the rule was fitted.
        rate: share of them selected, by their weights where they have any.
        by_label: (samples, selected) of label 0 and of label 1, where the rule was fitted with labels; else None.

    Example:
        >>> import torch, fairlayer as fl
        >>> scores, groups = torch.tensor([0.9, 0.7, 0.2, 0.6]), {"sex": ["F", "F", "M", "M"]}
        >>> rule = fl.decide(scores, fl.DemographicParity("sex", tolerance=0.0), sensitive_features=groups).rule
        >>> [(cell.categories, cell.count, cell.rate) for cell in rule.cells]
        [(('F',), 2, 0.5), (('M',), 2, 0.5)]
    """

    categories: tuple[Category | None, ...]
    thresholds: tuple[float, ...]
    weights: tuple[float, ...]
    count: int
    rate: float
    by_label: tuple[tuple[float, float], ...] | None = None

    def probabilities(self, scores: FloatArray) -> FloatArray:
        """Return the probability of being selected at each score."""
        total = np.zeros(len(scores))
        for threshold, weight in zip(self.thresholds, self.weights, strict=True):
            total += weight * (scores >= threshold)
        return np.minimum(total, 1.0)


@dataclass(frozen=True, repr=False)
class DecisionRule:
    """Thresholds per cell.

    Args:
        features: the sensitive features, which must be known at deployment.
        cells: one rule per combination of their categories that was fitted.
        randomised: whether lots are drawn between thresholds; otherwise only among equal scores is there a share.

    Limits: a rule is fitted to one batch. On others rates and gaps differ by chance, as `expected_gap` says, and by any
        drift: measure them. Where the promise is about the batch at hand, as with many small intersections, use
        `decide` on that batch instead.

    Example:
        >>> import torch, fairlayer as fl
        >>> from fairlayer.decisions import DecisionRule
        >>> scores = torch.tensor([0.9, 0.6, 0.4, 0.7, 0.3, 0.1])
        >>> sex = {"sex": ["F", "F", "F", "M", "M", "M"]}
        >>> rule = DecisionRule.fit(scores, [fl.DemographicParity("sex", tolerance=0.0)], sensitive_features=sex)
        >>> rule.apply(torch.tensor([0.8, 0.7, 0.55]), sensitive_features={"sex": ["F", "F", "M"]}).tolist()
        [1, 0, 1]
        >>> print(rule)
        DecisionRule on sex, 2 cells, without lots
          cell     fitted    rate  selected from
          sex=F         3   33.3%  0.75
          sex=M         3   33.3%  0.5
    """

    features: tuple[str, ...]
    cells: tuple[CellRule, ...]
    randomised: bool

    def __repr__(self) -> str:
        return rule_text(self)

    def _repr_html_(self) -> str:
        return rule_html(self)

    @staticmethod
    def fit(
        scores: Any,
        constraints: Stated,
        *,
        sensitive_features: Any = None,
        y: Any = None,
        label_probabilities: Any = None,
        capacity: int | None = None,
        utility: Any = ACCURACY,
        randomised: bool = False,
        sample_weight: Any = None,
    ) -> DecisionRule:
        """Return the rule that `decide` would use on this batch; arguments and errors as there.

        A `FairlayerWarning` tells of cells so small that the gap in the long run is expected to be more than twice the
        tolerance (and more than two points), and names them.
        """
        check_row_order(
            scores=scores,
            sensitive_features=sensitive_features,
            y=y,
            label_probabilities=label_probabilities,
            sample_weight=sample_weight,
        )
        plan = make_plan(
            read_scores(as_scores(scores)),
            constraints,
            sensitive_features=sensitive_features,
            y=y,
            label_probabilities=label_probabilities,
            capacity=capacity,
            utility=utility,
            randomised=randomised,
            sample_weight=sample_weight,
        )
        rule = rule_of(plan)
        for constraint in plan.problem.constraints:
            _warn_of_small_cells(rule, constraint)
        return rule

    def expected_gap(
        self, constraints: Stated, *, sizes: int | Mapping[str, int] | None = None, seed: int = 0
    ) -> ExpectedGap:
        """Return what gap to expect of this rule on new rows, and in the long run, with 95 % intervals.

            p_c ~ Beta(k_c + 1/2, n_c - k_c + 1/2),    x_c ~ Binomial(n'_c, p_c),    gap of x_c / n'_c, and of p_c

        with k_c of the n_c fitted samples of cell c above its threshold; for constraints on labels counted per label.

        Args:
            constraints: the constraint whose gap it is; of several, the one of the largest long-run gap.
            sizes: the number of new rows, in the proportions of the fitted ones; or a number for each cell, by name;
                by default as many as were fitted.
            seed: the seed of the 2,000 draws.

        Raises:
            MissingLabelsError: a constraint on labels, and the rule was fitted without labels.
            ParameterError: sizes names a cell that the rule does not have.

        Example:
            >>> import numpy as np, fairlayer as fl
            >>> scores, sex = np.linspace(0.01, 0.99, 400), {"sex": ["F", "M"] * 200}
            >>> parity = fl.DemographicParity("sex", tolerance=0.02)
            >>> found = DecisionRule.fit(scores, parity, sensitive_features=sex).expected_gap(parity, sizes=4000)
            >>> found.at_fit, round(found.long_run.mean, 2), found.long_run.high > found.limit
            (0.0, 0.04, True)
        """
        each = [expected_gap(self, constraint, sizes=sizes, seed=seed) for constraint in as_constraints(constraints)]
        return max(each, key=lambda found: found.long_run.mean)

    def apply(self, scores: Any, *, sensitive_features: Any = None, seed: int | None = None) -> Tensor:
        """Return decisions 0 or 1 for new scores (n,) or (n, 1), in their shape and on their device.

        Args:
            scores: the scores of the model that the rule was fitted to.
            sensitive_features: as in `decide`.
            seed: the seed of the lots of a randomised rule; None draws fresh ones. A rule that is not randomised draws
                none: equal scores at a threshold that selects a share of them are then taken evenly in their order.

        Raises:
            UnseenCellError: a combination of categories that was not fitted.
        """
        check_row_order(scores=scores, sensitive_features=sensitive_features)
        tensor = as_scores(scores)
        values = read_scores(tensor)
        cell_of = self.locate(sensitive_features, len(values))
        offset = offset_of(seed) if self.randomised else FIXED
        decisions = draw_decisions(self.probabilities_in(values, cell_of), cell_of, values, offset)
        return like(tensor, decisions, torch.int64)

    def probabilities(self, scores: Any, *, sensitive_features: Any = None) -> Tensor:
        """Return the probability with which each sample is selected, float64, in the shape of the scores."""
        check_row_order(scores=scores, sensitive_features=sensitive_features)
        tensor = as_scores(scores)
        values = read_scores(tensor)
        return like(tensor, self.probabilities_in(values, self.locate(sensitive_features, len(values))), torch.float64)

    def probabilities_in(self, scores: FloatArray, cell_of: IntArray) -> FloatArray:
        """Return the probability with which each sample is selected, its cell given by number."""
        selected = np.zeros(len(scores))
        for number, cell in enumerate(self.cells):
            inside = np.flatnonzero(cell_of == number)
            selected[inside] = cell.probabilities(scores[inside])
        return selected

    def locate(self, sensitive_features: Any, n: int) -> IntArray:
        """Return the number of each sample's cell.

        Raises:
            UnseenCellError: a combination of categories that was not fitted.
            ShapeError: lengths differ.
        """
        if not self.features:
            return np.zeros(n, dtype=np.int64)
        groups = read_features(sensitive_features, self.features, n, self._vocabulary())
        found = Partition.of(groups, self.features, n)
        keys = [_categories(row, groups, self.features) for row in found.codes.tolist()]
        numbers = {cell.categories: number for number, cell in enumerate(self.cells)}
        unseen = [key for key in keys if key not in numbers]
        if unseen:
            self._raise_unseen(unseen)
        return np.array([numbers[key] for key in keys], dtype=np.int64)[found.cell_of]

    @property
    def names(self) -> tuple[str, ...]:
        """One name per cell."""
        return names_of(self.features, [cell.categories for cell in self.cells])

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers that fit into JSON; a threshold of `-inf` becomes None."""
        return {
            "features": list(self.features),
            "randomised": self.randomised,
            "cells": [
                {
                    "categories": list(cell.categories),
                    "thresholds": [None if math.isinf(t) else t for t in cell.thresholds],
                    "weights": list(cell.weights),
                    "count": cell.count,
                    "rate": cell.rate,
                    "by_label": None if cell.by_label is None else [list(pair) for pair in cell.by_label],
                }
                for cell in self.cells
            ],
        }

    @staticmethod
    def from_dict(state: Mapping[str, Any]) -> DecisionRule:
        """Rebuild what `to_dict` wrote.

        Raises:
            CheckpointError: it is not what `to_dict` wrote: something is missing, or no number, or does not belong
                together.
        """
        try:
            features = tuple(state["features"])
            return _checked(DecisionRule(features, tuple(map(_cell_of, state["cells"])), bool(state["randomised"])))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"this is not a rule as DecisionRule.to_dict() writes it ({error!r}). Pass what to_dict() returned, or "
                "fit the rule again."
            ) from error

    def _vocabulary(self) -> Vocabulary:
        """Return the fitted categories, open: what is new is found out, and named, by cell."""
        columns = zip(*(cell.categories for cell in self.cells), strict=True)
        known = (tuple(dict.fromkeys(c for c in column if c is not None)) for column in columns)
        return Vocabulary({name: words for name, words in zip(self.features, known, strict=True) if words})

    def _raise_unseen(self, unseen: Sequence[tuple[Category | None, ...]]) -> None:
        fitted = [cell.categories for cell in self.cells]
        asked = ", ".join(map(repr, names_of(self.features, [*unseen[:3], *fitted])[: len(unseen[:3])]))
        known = ", ".join(map(repr, self.names[:8])) + (", ..." if len(self.names) > 8 else "")
        raise UnseenCellError(
            f"the rule has no threshold for {asked}; it was fitted for {known}. Fit it on data that has this "
            "combination, or map it to one that was fitted."
        )


def _checked(rule: DecisionRule) -> DecisionRule:
    """Return the rule where its cells belong together, and raise ValueError where they do not."""
    for cell, name in zip(rule.cells, rule.names, strict=True):
        if len(cell.categories) != len(rule.features):
            raise ValueError(f"categories {cell.categories} of the features {rule.features}")
        falling = all(above >= below for above, below in pairwise(cell.thresholds))
        shares = all(0.0 < weight <= 1.0 for weight in cell.weights) and sum(cell.weights) <= 1.0 + 1e-9
        numbers = not any(map(math.isnan, cell.thresholds)) and len(cell.thresholds) == len(cell.weights)
        if not (falling and shares and numbers):
            raise ValueError(f"{name}: thresholds {cell.thresholds} with weights {cell.weights}")
    if len({cell.categories for cell in rule.cells}) < len(rule.cells):
        raise ValueError(f"a cell stands twice among {rule.names}")
    return rule


def _cell_of(cell: Mapping[str, Any]) -> CellRule:
    return CellRule(
        tuple(cell["categories"]),
        tuple(-math.inf if t is None else float(t) for t in cell["thresholds"]),
        tuple(float(w) for w in cell["weights"]),
        int(cell["count"]),
        float(cell["rate"]),
        _pairs(cell.get("by_label")),
    )


def _pairs(state: Any) -> tuple[tuple[float, float], ...] | None:
    return None if state is None else tuple((float(n), float(k)) for n, k in state)


def _warn_of_small_cells(rule: DecisionRule, constraint: Constraint) -> None:
    if constraint.needs_labels and any(cell.by_label is None for cell in rule.cells):
        return
    found = expected_gap(rule, constraint)
    probed = probed_limit(constraint)
    if probed is not None and probed.of_difference and found.long_run.mean > max(2 * found.limit, _WORTH_A_WORD):
        warnings.warn(
            f"the rule keeps {found.constraint} within {found.limit:g} on the rows it was fitted to, but in the long "
            f"run a gap of {found.long_run} is to be expected, because cells are small: {', '.join(found.causes)}. "
            "Fit it to more rows, or decide on each batch by itself (fairlayer.decisions.decide), which keeps the gap "
            "of that batch.",
            FairlayerWarning,
            stacklevel=4,
        )


def rule_of(plan: DecisionPlan) -> DecisionRule:
    """Return the thresholds of a plan."""
    partition, groups = plan.problem.partition, plan.problem.groups
    problem = plan.problem
    cells = [
        _cell_rule(_categories(codes, groups, partition.features), curve, mixture, problem.batch.labels, problem.scores)
        for codes, curve, mixture in zip(partition.codes.tolist(), plan.problem.curves, plan.mixtures, strict=True)
    ]
    return DecisionRule(partition.features, tuple(cells), plan.randomised)


def _cell_rule(
    categories: tuple[Category | None, ...],
    curve: Curve,
    mixture: Mixture,
    labels: FloatArray | None,
    scores: FloatArray,
) -> CellRule:
    chosen = [(_threshold(curve, j), w) for j, w in zip(mixture.breaks.tolist(), mixture.weights.tolist(), strict=True)]
    chosen = [(threshold, weight) for threshold, weight in chosen if threshold < math.inf]
    rate = float(mixture.weights @ curve.mass[mixture.breaks]) / float(curve.mass[-1] or 1.0)
    rule = CellRule(categories, tuple(t for t, _ in chosen), tuple(w for _, w in chosen), curve.size, rate)
    if labels is None:
        return rule
    y, selected = labels[curve.members], rule.probabilities(scores[curve.members])
    return replace(rule, by_label=tuple((float((y == k).sum()), float(selected[y == k].sum())) for k in (0.0, 1.0)))


def _threshold(curve: Curve, j: int) -> float:
    """Return half way between the last score selected and the first one not, where a number lies between them."""
    if j == 0:
        return math.inf
    if j == len(curve.values):
        return -math.inf
    last, following = float(curve.values[j - 1]), float(curve.values[j])
    middle = following + 0.5 * (last - following)
    return middle if middle > following else last


def names_of(features: Sequence[str], cells: Sequence[tuple[Category | None, ...]]) -> tuple[str, ...]:
    """Return a name for each cell, given by one category per feature, None for unknown."""
    columns = list(zip(*cells, strict=True)) if features else []
    tables = [tuple(dict.fromkeys(c for c in column if c is not None)) for column in columns]
    codes = [[-1 if c is None else t.index(c) for c, t in zip(cell, tables, strict=True)] for cell in cells]
    return tuple(cell_name(features, tables, each) for each in codes)


def _categories(codes: Sequence[int], groups: Groups, features: Sequence[str]) -> tuple[Category | None, ...]:
    words = [groups.column(name).categories for name in features]
    return tuple(None if code < 0 else known[code] for code, known in zip(codes, words, strict=True))
