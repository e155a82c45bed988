"""Decision rules of a comparison: fitted to validation rows, judged on validation rows that they have not seen.

And what gap decisions are expected to have on new rows, whether thresholds were fitted or not.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.calibration import GroupCalibrator
from fairlayer.constraints import Constraint
from fairlayer.decisions import DecisionRule, ExpectedGap
from fairlayer.decisions.curves import Partition
from fairlayer.decisions.rule import CellRule
from fairlayer.edge import feature_names
from fairlayer.errors import ConstraintDefinitionError, FairlayerError, FairlayerWarning
from fairlayer.training.observed import Observed

__all__ = ["FittedRule", "expected_gaps", "fit_rule"]

FOLDS = 5


@dataclass(frozen=True)
class FittedRule:
    """A rule, what it decides on the rows it was fitted to, and what rules of the other folds decide there."""

    rule: DecisionRule
    decisions: IntArray
    crossed: IntArray


def fit_rule(
    scores: FloatArray, constraints: Sequence[Constraint], rows: Observed, *, utility: Any, randomised: bool = False
) -> FittedRule:
    """Fit thresholds per cell to labelled rows.

    Where no constraint reads labels, the gain of a yes is computed from the scores, calibrated on these rows by two
    numbers, and not from the labels, whose accidents thresholds would follow. Constraints on labels are fitted to the
    labels.

    Accuracy on the rows that thresholds were fitted to flatters them, so a comparison takes that of `crossed`: rows in
    five folds, drawn within each cell, each decided by the rule of the other four. A cell's only row is in all fits.

    Raises:
        FairlayerError: no such rule exists, or a constraint cannot be asked of decisions.
    """
    sensitive = {name: rows.sensitive[name] for name in feature_names(constraints)}
    assert rows.labels is not None
    labels = np.asarray(rows.labels, dtype=np.float64)

    def fitted(kept: IntArray) -> DecisionRule:
        with warnings.catch_warnings():  # of small cells; a comparison tells the gap to expect instead
            warnings.simplefilter("ignore", FairlayerWarning)
            return DecisionRule.fit(
                scores[kept],
                constraints,
                sensitive_features=_taken(sensitive, kept),
                **_gains(scores[kept], labels[kept], constraints),
                utility=utility,
                randomised=randomised,
            )

    everything = np.arange(len(scores))
    rule = fitted(everything)
    decisions = rule.apply(scores, sensitive_features=sensitive, seed=0).numpy()
    crossed = decisions.copy()
    fold = _folds(rule.locate(sensitive, len(scores)))
    for each in range(FOLDS):
        out = np.flatnonzero(fold == each)
        if not len(out):
            continue
        try:
            other = fitted(np.flatnonzero(fold != each))
            crossed[out] = other.apply(scores[out], sensitive_features=_taken(sensitive, out), seed=0).numpy()
        except FairlayerError:  # too few rows for a rule without this fold: the rule of all rows decides
            continue
    return FittedRule(rule, decisions, crossed)


def expected_gaps(
    decided: DecisionRule | IntArray, constraints: Sequence[Constraint], rows: Observed, *, sizes: int
) -> dict[str, ExpectedGap]:
    """Return the gap to be expected on new rows, by the name of each constraint on groups.

    It is read from how many of each cell's rows were selected, be it by a rule that was fitted to them or in another
    way: either is a sample of the rates that new people meet.

    Args:
        decided: a rule that was fitted to the rows, or the decisions (n,) that were made on them.
        constraints: whose gaps are asked for.
        rows: groups and labels of the rows.
        sizes: the number of new rows.
    """
    held = [constraint for constraint in constraints if constraint.streamable]
    try:
        rule = decided if isinstance(decided, DecisionRule) else _as_rule(decided, held, rows)
    except ConstraintDefinitionError:  # a feature is no groups
        return {}
    return {constraint.name: rule.expected_gap(constraint, sizes=sizes) for constraint in held}


def _as_rule(decisions: IntArray, constraints: Sequence[Constraint], rows: Observed) -> DecisionRule:
    """Return the counts of decisions in the form of a rule; its threshold stands for whatever decided."""
    groups, features = rows.batch.groups, feature_names(constraints)
    partition = Partition.of(groups, features, len(rows))
    words = [groups.column(name).categories for name in features]
    cells = []
    for number, codes in enumerate(partition.codes.tolist()):
        inside = partition.cell_of == number
        categories = tuple(None if code < 0 else known[code] for code, known in zip(codes, words, strict=True))
        by_label = None if rows.labels is None else _by_label(decisions[inside], rows.labels[inside])
        count, selected = _pair(decisions[inside])
        cells.append(CellRule(categories, (0.5,), (1.0,), int(count), selected / count, by_label))
    return DecisionRule(tuple(features), tuple(cells), False)


def _by_label(decisions: IntArray, labels: FloatArray) -> tuple[tuple[float, float], ...]:
    return tuple(_pair(decisions[labels == label]) for label in (0, 1))


def _pair(decisions: IntArray) -> tuple[float, float]:
    return float(len(decisions)), float(decisions.sum())


def _gains(scores: FloatArray, labels: FloatArray, constraints: Sequence[Constraint]) -> dict[str, Any]:
    """Return what the gain of a decision is computed from, as an argument of `DecisionRule.fit`."""
    if any(constraint.needs_labels for constraint in constraints):
        return {"y": labels}
    return {"label_probabilities": np.asarray(GroupCalibrator.fit(scores, labels).apply(scores).numpy())}


def _folds(cell_of: IntArray) -> IntArray:
    """Return the fold of each row, each fold with its share of each cell; -1 for a cell's only row."""
    random = np.random.default_rng(0)
    fold = np.full(len(cell_of), -1, dtype=np.int64)
    for cell in np.unique(cell_of):
        members = random.permutation(np.flatnonzero(cell_of == cell))
        if len(members) > 1:
            fold[members] = np.arange(len(members)) % FOLDS
    return fold


def _taken(sensitive: dict[str, Any], rows: IntArray) -> dict[str, Any]:
    return {name: column[rows] for name, column in sensitive.items()}
