"""What gap a rule will show on new rows: its thresholds were fitted to a sample, and new rows are another one.

A cell's threshold with k of n fitted rows above it selects a share of the population that is about

    p ~ Beta(k + 1/2, n - k + 1/2)                 order statistics: nothing is assumed about the scores

so that on n' new rows x ~ Binomial(n', p) are selected, and the gap is that of the rates x / n'. In the long run it is
that of the p themselves. For constraints on labels k and n are counted per label.

Source: order statistics have beta distributions (David, Nagaraja (2003), section 2.1); Jeffreys' halves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.constraints import Batch, Constraint
from fairlayer.constraints.readings import StatementReading, miss
from fairlayer.constraints.statements import Spread, Statement
from fairlayer.errors import MissingLabelsError, ParameterError
from fairlayer.groups import Groups

if TYPE_CHECKING:
    from fairlayer.decisions.rule import CellRule, DecisionRule

__all__ = ["ExpectedGap", "Spreading", "expected_gap"]

DRAWS = 2000
LEVEL = (2.5, 97.5)


@dataclass(frozen=True)
class Spreading:
    """A mean with the 2.5th and the 97.5th percentile of the draws.

    Example:
        >>> import torch, fairlayer as fl
        >>> scores, sex = torch.rand(400), {"sex": ["F", "M"] * 200}
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> found = fl.DecisionRule.fit(scores, parity, sensitive_features=sex).expected_gap(parity, sizes=100).new_rows
        >>> found.low <= found.mean <= found.high
        True
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class ExpectedGap:
    """The gap that a rule is expected to show.

    Args:
        constraint: the constraint whose gap it is.
        at_fit: the gap on the rows that the rule was fitted to.
        limit: the limit of the constraint.
        new_rows: the gap on new rows of the sizes asked for.
        long_run: the gap on ever more rows.
        without: what a rule that truly had no gap would show on new rows of these sizes, by chance alone.
        causes: the cells whose thresholds are the least certain, the worst first.

    Example:
        >>> import torch, fairlayer as fl
        >>> scores, sex = torch.rand(400), {"sex": ["F", "M"] * 200}
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> rule = fl.DecisionRule.fit(scores, parity, sensitive_features=sex)
        >>> found = rule.expected_gap(parity, sizes=100)
        >>> found.constraint, found.limit, found.new_rows.mean > found.at_fit
        ("DemographicParity('sex')", 0.1, True)
    """

    constraint: str
    at_fit: float
    limit: float
    new_rows: Spreading
    long_run: Spreading
    without: float
    causes: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.constraint}: {self.at_fit:.3f} at fit; expect {self.new_rows} on new rows of these sizes, "
            f"{self.long_run} in the long run; a rule without any gap would measure {self.without:.3f} on such rows"
        )


def expected_gap(
    rule: DecisionRule, constraint: Constraint, *, sizes: int | Mapping[str, int] | None = None, seed: int = 0
) -> ExpectedGap:
    """Return the gap that a rule is expected to show; see `DecisionRule.expected_gap`."""
    labelled = constraint.needs_labels
    if labelled and any(cell.by_label is None for cell in rule.cells):
        raise MissingLabelsError(
            f"{constraint.name} compares rates within labels, but the rule was fitted without labels. Fit it with "
            "y=labels."
        )
    fitted = _counts(rule.cells, labelled)  # (cells * labels, 2): rows, selected
    new = fitted[:, 0] * _growth(rule, sizes, labelled)
    gap_of = _GapOf(rule, constraint, labelled, fitted[:, 0], new)
    random = np.random.default_rng(seed)
    p = _rates(random, fitted, rule.cells)
    long_run = gap_of.each(p, gap_of.fitted)
    counts = np.maximum(np.rint(new).astype(np.int64), 1)
    drawn = random.binomial(counts, p) / counts
    level = float(fitted[:, 1].sum() / max(fitted[:, 0].sum(), 1e-12))
    if labelled:  # the same rate in every cell of a label
        sums = fitted.reshape(-1, 2, 2).sum(axis=0)
        levels = np.tile(sums[:, 1] / np.maximum(sums[:, 0], 1e-12), len(rule.cells))
    else:
        levels = np.full(len(fitted), level)
    equal = random.binomial(counts, np.broadcast_to(levels, p.shape)) / counts
    spread = p.std(axis=0).reshape(len(rule.cells), -1).max(axis=1)
    order = np.argsort(-spread)
    return ExpectedGap(
        constraint.name,
        gap_of(fitted[:, 1] / np.maximum(fitted[:, 0], 1e-12), gap_of.fitted),
        gap_of.limit,
        _spreading(gap_of.each(drawn, gap_of.new)),
        _spreading(long_run),
        float(gap_of.each(equal, gap_of.new).mean()),
        tuple(f"{rule.names[i]} ({rule.cells[i].count} rows)" for i in order[:3].tolist()),
    )


class _GapOf:
    """The number that a constraint bounds, from the rates of a rule's cells: one pseudo-row per cell (and label)."""

    def __init__(
        self, rule: DecisionRule, constraint: Constraint, labelled: bool, fitted: FloatArray, new: FloatArray
    ) -> None:
        labels = 2 if labelled else 1
        columns = zip(*(cell.categories for cell in rule.cells), strict=True)
        features = {
            name: np.repeat(np.array(column, dtype=object), labels)
            for name, column in zip(rule.features, columns, strict=True)
        }
        n = labels * len(rule.cells)
        y = np.tile([0.0, 1.0], len(rule.cells)) if labelled else None
        self.fitted, self.new = (
            list(constraint.statements(Batch(Groups(features, n), n, y, weights=weights))) for weights in (fitted, new)
        )
        readings = [statement.read(statement.means.of(np.zeros(n))) for statement in self.fitted]
        self.limit = readings[0].limit if readings else float("nan")

    def each(self, rates: FloatArray, statements: Sequence[Statement]) -> FloatArray:
        """Return the number for each draw of rates (draws, pseudo-rows): at once where all statements are ranges."""
        if not all(isinstance(s, Spread) and s.scale == 1.0 and s.offset is None for s in statements):
            return np.array([self(drawn, statements) for drawn in rates])
        found = np.zeros(len(rates))
        for statement in statements:
            units = np.eye(rates.shape[1])
            means = np.array([statement.means.of(unit) for unit in units])  # (pseudo-rows, rows)
            members = (rates @ means @ np.asarray(statement.matrix).T)[:, statement.present]
            if members.shape[1] > 1:
                found = np.maximum(found, np.ptp(members, axis=1))
        return found

    def __call__(self, rates: FloatArray, statements: Sequence[Statement]) -> float:
        readings: list[StatementReading] = [statement.read(statement.means.of(rates)) for statement in statements]
        known = [reading for reading in readings if reading.value is not None]
        return float(max(known, key=miss).value or 0.0) if known else 0.0


def _counts(cells: Sequence[CellRule], labelled: bool) -> FloatArray:
    if not labelled:
        return np.array([(float(cell.count), cell.rate * cell.count) for cell in cells])
    return np.array([pair for cell in cells for pair in (cell.by_label or ())], dtype=np.float64)


def _growth(rule: DecisionRule, sizes: int | Mapping[str, int] | None, labelled: bool) -> FloatArray:
    """Return by what each cell is larger in the new rows."""
    counts = np.array([float(cell.count) for cell in rule.cells])
    if sizes is None:
        growth = np.ones(len(counts))
    elif isinstance(sizes, Mapping):
        strange = [name for name in sizes if name not in rule.names]
        if strange:
            raise ParameterError(f"sizes names the cells {strange}, but the rule has {', '.join(rule.names)}.")
        growth = np.array([sizes.get(name, 0) for name in rule.names]) / np.maximum(counts, 1.0)
    else:
        growth = np.full(len(counts), float(sizes) / max(counts.sum(), 1.0))
    return np.repeat(growth, 2 if labelled else 1)


def _rates(random: np.random.Generator, fitted: FloatArray, cells: Sequence[CellRule]) -> FloatArray:
    """Draw the population's rates (draws, cells * labels); a threshold that selects nobody, or all, stays at that."""
    n, k = fitted[:, 0], np.clip(fitted[:, 1], 0.0, fitted[:, 0])
    p = random.beta(k + 0.5, n - k + 0.5, size=(DRAWS, len(n)))
    labels = len(n) // len(cells)
    nobody = np.repeat([not cell.thresholds for cell in cells], labels)
    everybody = np.repeat([cell.thresholds == (-np.inf,) and cell.weights == (1.0,) for cell in cells], labels)
    p[:, nobody], p[:, everybody] = 0.0, 1.0
    return p


def _spreading(drawn: FloatArray) -> Spreading:
    low, high = np.percentile(drawn, LEVEL)
    return Spreading(float(np.mean(drawn)), float(low), float(high))
